"""The directive `{mistakes}`: what students get wrong, taken from the exercises.

Its one argument names a chapter. The list is made from `book/answers` whenever the
page is built, so that a mistake is written down in one place.
"""

from sphinx.util.docutils import SphinxDirective

from tools import chapters, exercises


class Mistakes(SphinxDirective):
    """List the wrong answers of a chapter, each with the message it meets."""

    required_arguments = 1

    def run(self):
        """Write the list as MyST and let the page's parser read it."""
        [name] = self.arguments
        for path in (chapters.page_path(name), exercises.ANSWERS / f"{name}.md"):
            self.env.note_dependency(str(path))
        lines = []
        for exercise in exercises.read(name):
            lines.append(f"- {{ref}}`{exercise.title} <{exercise.label}>`")
            for answer in exercise.wrong:
                lines.append(f"  - {answer.title}: *{answer.message}*")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app):
    """Register the directive."""
    app.add_directive("mistakes", Mistakes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The directive `{mistakes}`: what students get wrong, taken from the exercises.

Its one argument names a chapter. The list is made from `book/answers` whenever the
page is built, so that a mistake is written down in one place.
"""

import sys
from pathlib import Path

from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

ROOT = Path(__file__).resolve().parent.parents[2]


class Mistakes(Directive):
    """List the wrong answers of a chapter, each with the message it meets."""

    required_arguments = 1

    def run(self):
        """Write the list as MyST and let the page's parser read it."""
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
        from tools.classroom import exercises

        [name] = self.arguments
        environment = self.state.document.settings.env
        for path in (exercises.BOOK / f"{name}.md", exercises.BESIDE / f"{name}.md"):
            environment.note_dependency(str(path))
        lines = []
        for exercise in exercises.read(name).exercises:
            lines.append(f"- {{ref}}`{exercise.title} <{exercise.label}>`")
            for answer in exercise.wrong:
                lines.append(f"  - {answer.title}: *{answer.message}*")
        section = self.state.document
        container = type(section)(section.settings, section.reporter)
        self.state.nested_parse(StringList(lines, "exercises"), 0, container)
        return container.children


def setup(app):
    """Register the directive."""
    app.add_directive("mistakes", Mistakes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

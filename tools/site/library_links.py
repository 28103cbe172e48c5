"""Document the library, and lead to it from the first use of a function on a page.

The link is put on the name in the code itself, where `als_course` is imported and the
function called, so that a chapter needs no mark-up for it and its notebook shows none.
"""

import re
from html import unescape

IMPORT = r"from als_course(?:\.(\w+))? import (\([^)]*\)|[^\n]*)"


def imported(code: str) -> dict[str, str]:
    """Map the names by which a page's code knows modules and functions to full ones."""
    found = {}
    for module, names in re.findall(IMPORT, code):
        for name, alias in re.findall(r"(\w+)(?: as (\w+))?", names):
            path = ".".join(filter(None, ("als_course", module, name)))
            found[alias or name] = path
    return found


def link_first_uses(app, pagename, templatename, context, doctree) -> None:
    """Put the links into the body of a page."""
    if doctree is None or app.builder.name != "html":
        return
    body = context["body"]
    known = imported(unescape(re.sub(r"<[^>]+>", "", body)))
    for path, entry in app.env.get_domain("py").objects.items():
        module, _, name = path.rpartition(".")
        token = rf'<span class="n">{name}</span>'
        uses = [
            rf'(?<=<span class="n">{alias}</span><span class="o">\.</span>){token}'
            for alias, meant in known.items()
            if meant == module
        ]
        if known.get(name) == path:  # imported by itself: the first call is the use
            uses.append(rf'{token}(?=<span class="p">\()')
        if uses:
            uri = app.builder.get_relative_uri(pagename, entry.docname)
            link = f'<a class="to-library" href="{uri}#{entry.node_id}">{name}</a>'
            body = re.sub("|".join(uses), link, body, count=1)
    context["body"] = body


def list_references(app, what, name, obj, options, lines) -> None:
    """Write a docstring's references as a list: its `[1]` is not the page's."""
    for number, line in enumerate(lines):
        line = re.sub(r"^\.\. (?=\[\d\] )", "*  ", line)
        lines[number] = re.sub(r"(\[\d\])_", r"\1", line)


def name_public_bases(app, name, obj, options, bases) -> None:
    """Say of a class that its base is the nearest one with a name for others."""
    while any(base.__name__.startswith("_") for base in bases):
        bases[:] = [
            above
            for base in bases
            for above in (base.__bases__ if base.__name__.startswith("_") else [base])
        ]


def setup(app):
    """Connect to Sphinx."""
    app.connect("autodoc-process-bases", name_public_bases)
    app.connect("autodoc-process-docstring", list_references)
    app.connect("html-page-context", link_first_uses, priority=550)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

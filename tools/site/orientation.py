"""What keeps a reader oriented: where the page stands, what a term means, folding.

A line above the title names part and chapter. The definition of each glossary term
that a page uses comes with the page, for `course.js` to show beside the term: nothing
has to be fetched, so it works from a file as well. Cells with many lines can be folded.
"""

import re
from html import escape

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform

from tools import chapters

LONG = 20
"""Cells with more lines than this can be folded."""


def you_are_here(app, page: str) -> str:
    """Write the line that says in which part and chapter the reader is."""
    taught, name = chapters.taught_parts(), page.rpartition("/")[2]
    for number, (caption, pages) in enumerate(taught, start=1):
        if name in pages:
            home = app.builder.get_relative_uri(page, app.config.root_doc)
            among = [page for page in pages if chapters.is_notebook(page)]
            place = escape(caption)
            if name in among:
                place += f", chapter {among.index(name) + 1} of {len(among)}"
            return (
                '<nav class="here" aria-label="You are here"><p>'
                f'<a href="{home}">Part {number} of {len(taught)}</a> {place}'
                "</p></nav>\n"
            )
    return ""


def definitions(app) -> dict[str, str]:
    """Write the definition of every glossary term as HTML, by the term's anchor."""
    env, found = app.env, {}
    terms = env.get_domain("std")._terms
    for page in sorted({page for page, _ in terms.values()}):
        tree = env.get_and_resolve_doctree(page, app.builder)
        for entry in tree.findall(nodes.definition_list_item):
            body = entry.next_node(nodes.definition)
            html = app.builder.render_partial(body)["fragment"]
            text = re.sub(r"</?(?:a|dd)\b[^>]*>", "", html).strip()
            for term in entry.findall(nodes.term):
                found.update(dict.fromkeys(term["ids"], text))
    return found


def glossary_cards(app, doctree) -> str:
    """Write the definitions of the terms that a page links to, hidden."""
    if not hasattr(app, "glossary_definitions"):
        app.glossary_definitions = definitions(app)
    known = app.glossary_definitions
    links = [n.get("refuri", "") for n in doctree.findall(nodes.reference)]
    anchors = [uri.rpartition("#")[2] for uri in links if ".html#term-" in uri]
    cards = [
        f'<div id="card-{anchor}" class="glossary-card" role="tooltip" hidden>'
        f"{known[anchor]}</div>"
        for anchor in dict.fromkeys(anchors)
        if anchor in known
    ]
    return "\n".join(cards)


def complete(app, pagename, templatename, context, doctree) -> None:
    """Add both to a page."""
    if doctree is not None and app.builder.name == "html":
        cards = glossary_cards(app, doctree)
        context["body"] = you_are_here(app, pagename) + context["body"] + cards


def with_terms(app, env, added, changed, removed) -> list[str]:
    """List the pages that define terms, to be written at every build.

    The index of the search keeps the terms of the pages that a build writes, no others.
    """
    pages = {page for page, _ in env.get_domain("std")._terms.values()}
    return sorted(pages & env.found_docs)


class FoldLongCells(SphinxPostTransform):
    """Let readers fold the code of long cells; it starts unfolded."""

    default_priority = 198  # before myst-nb folds the cells tagged hide-input
    formats = ("html",)

    def run(self, **kwargs):
        """Wrap the code of each long cell that its page does not fold already."""
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code" or cell.get("hide_mode"):
                continue
            code = cell.children[0] if cell.children else None
            if code is None or code.get("nb_element") != "cell_code_source":
                continue
            if code.astext().count("\n") >= LONG:
                fold = HideCodeCellNode(
                    prompt_show="Show code", prompt_hide="Fold code"
                )
                fold["classes"] += ["above-input", "long"]
                fold += code.deepcopy()
                cell.children[0] = fold
                fold.parent = cell


def setup(app):
    """Connect to Sphinx."""
    app.add_post_transform(FoldLongCells)
    app.connect("env-get-outdated", with_terms)
    app.connect("html-page-context", complete, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

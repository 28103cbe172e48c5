"""What keeps a reader oriented: where the page stands, what a term means, folding.

A line above the title names part and chapter; the list of chapters and the links to
the previous and the next one give its number and, from `_toc.yml`, the plain name of
what it is about. The definition of each glossary term
that a page uses comes with the page, for `course.js` to show beside the term: nothing
has to be fetched, so it works from a file as well. Cells with many lines can be folded.
"""

import re
from functools import cache, partial
from html import escape

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform

from tools import chapters

LONG = 20
"""Cells with more lines than this can be folded."""


@cache
def chapter_numbers() -> dict[str, int]:
    """Give each chapter its number in the whole book."""
    names = chapters.teaching_chapters()
    return {name: number for number, name in enumerate(names, start=1)}


@cache
def minutes_to_read(name: str) -> str:
    """Read in the box at the head of a chapter how long it takes."""
    text = chapters.page_path(name).read_text("utf-8")
    found = re.search(r"^\*\*Time\*\* (\d+) minutes", text, re.M)
    return found[1] if found else ""


def you_are_here(app, page: str) -> str:
    """Write the line that says in which part and chapter the reader is."""
    taught, name = chapters.taught_parts(), page.rpartition("/")[2]
    for number, (caption, pages) in enumerate(taught, start=1):
        if name in pages:
            home = app.builder.get_relative_uri(page, app.config.root_doc)
            place, minutes = escape(caption), minutes_to_read(name)
            if name in chapter_numbers():
                count = f"{chapter_numbers()[name]} of {len(chapter_numbers())}"
                place += f", chapter {count}"
            return (
                f'<nav class="here" aria-label="You are here" data-minutes="{minutes}">'
                f'<p><a href="{home}">Part {number} of {len(taught)}</a> {place}'
                "</p></nav>\n"
            )
    return ""


def plain_name(app, page: str) -> str:
    """Return what `_toc.yml` says that a page is about, beside its title."""
    known = app.config.external_site_map
    return escape(known[page].title or "") if page in known else ""


def name_chapters(app, page: str, context) -> None:
    """Give number and plain name wherever a page is led to by its title."""
    listed = context["generate_toctree_html"]
    uri = partial(app.builder.get_relative_uri, page)
    pages = {uri(name): name for name in app.env.titles} | {"#": page}
    numbers = {f"book/{name}": n for name, n in chapter_numbers().items()}

    def described(name: str) -> tuple[str, str]:
        title = app.builder.render_partial(app.env.titles[name])["title"]
        return title, plain_name(app, name)

    def entry(link: re.Match) -> str:
        name = pages.get(link[2])
        if name not in numbers:
            return link[0]
        title, plain = described(name)
        number = f'<span class="number">{numbers[name]}</span>'
        return f"{link[1]}{number} {title} <small>{plain}</small></a>"

    def with_numbers(*args, **options) -> str:
        html = str(listed(*args, **options))
        return re.sub(r'(<a class="[^"]*" href="([^"]*)">)[^<]*</a>', entry, html)

    context["generate_toctree_html"] = with_numbers
    for side in filter(None, (context.get("prev"), context.get("next"))):
        name = pages.get(side["link"])
        if name in numbers:
            title, plain = described(name)
            minutes = minutes_to_read(name.rpartition("/")[2])
            about = f"{numbers[name]} · {plain}, {minutes} minutes to read"
            side["title"] = f"{title} <small>{about}</small>"


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
    """Add all of it to a page."""
    if app.builder.name != "html":
        return
    name_chapters(app, pagename, context)
    if doctree is not None:
        cards = glossary_cards(app, doctree)
        context["body"] = you_are_here(app, pagename) + context["body"] + cards


def with_terms(app, env, added, changed, removed) -> list[str]:
    """List the pages that define terms, to be written at every build.

    The index of the search keeps the terms of the pages that a build writes, no others.
    """
    pages = {page for page, _ in env.get_domain("std")._terms.values()}
    return sorted(pages & env.found_docs)


class FoldCells(SphinxPostTransform):
    """Let readers fold code: long cells start open, the imports of a page closed."""

    default_priority = 198  # before myst-nb folds the cells tagged hide-input
    formats = ("html",)

    def run(self, **kwargs):
        """Wrap code that its page does not fold already, and name what is folded."""
        first = True
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code" or not cell.children:
                continue
            code = cell.children[0]
            if code.get("nb_element") != "cell_code_source":
                continue
            text = code.astext()
            what = "imports and data" if first and is_preparation(text) else "code"
            first = False
            if cell.get("hide_mode"):
                figure = next(cell.findall(nodes.image), None)
                what = "the code" if figure is None else "the code of this figure"
                cell["prompt_show"], cell["prompt_hide"] = (
                    f"Show {what}",
                    f"Fold {what}",
                )
            elif what != "code" or text.count("\n") >= LONG:
                fold = HideCodeCellNode(
                    prompt_show=f"Show {what}", prompt_hide=f"Fold {what}"
                )
                fold["classes"].append("above-input")
                if what == "code":
                    fold["classes"].append("long")
                fold += code.deepcopy()
                cell.children[0] = fold
                fold.parent = cell


def is_preparation(code: str) -> bool:
    """Whether a cell begins with imports and defines nothing that it could teach."""
    begins = re.match(r"(import|from) ", code)
    return bool(begins) and not re.search(r"^(def|class) ", code, re.M)


def setup(app):
    """Connect to Sphinx."""
    app.add_post_transform(FoldCells)
    app.connect("env-get-outdated", with_terms)
    app.connect("html-page-context", complete, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

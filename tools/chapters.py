"""The pages of the book: their order, their cells, their stored outputs.

The one reader of `_toc.yml` and of MyST; `exercises.py` reads the exercises with it.

A chapter is a MyST notebook that `_toc.yml` names. For each there is a stored
notebook in `tests/outputs`, or two where the data can come from two sources: code
cells only, with their text outputs. The cells that a chapter's exercises build on
carry the tag `setup`.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
OUTPUTS = ROOT / "tests" / "outputs"
REAL, LOOK_ALIKE = "real", "look-alike"
# What fetches a set that has a look-alike, and the variable that asks for the latter.
LOOK_ALIKES = {
    "fetch_amazon_reviews": "ALS_COURSE_AMAZON",
    "fetch_lastfm_2k": "ALS_COURSE_LASTFM",
}
NOT_TAUGHT = ("Teaching", "Reference")  # captions of parts without chapters
FENCE = re.compile(
    r"^(?P<mark>```+|:::+)\{(?P<name>[\w-]+)\} ?(?P<title>.*)\n"
    r"(?P<options>(?::[\w-]+:.*\n)*)(?P<body>(?:.*\n)*?)(?P=mark)$\n?",
    re.M,
)
GATE = re.compile(
    r"^```\{(exercise|solution)-(start|end)\} ?(.*)\n(?::label: (\S+)\n|:.*\n)*```$\n?",
    re.M,
)
ROLE = re.compile(r"\{([a-z:]+)\}`([^`<]*?)(?:\s*<([^`>]+)>)?`")
TARGET = re.compile(r"^\(([\w-]+)\)=\n", re.M)
EQUATION = re.compile(r"^\$\$ *\(([\w-]+)\)$", re.M)
COMMENT = re.compile(r"^%.*\n?", re.M)


# -- pages ----------------------------------------------------------------------------


def read_toc() -> tuple[str, list[tuple[str, list[str]]]]:
    """Read the name of the first page, and caption and pages of each part."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    parts = toc.get("parts") or [{"chapters": toc.get("chapters", [])}]
    return Path(toc["root"]).name, [
        (part.get("caption", ""), [Path(e["file"]).name for e in part["chapters"]])
        for part in parts
    ]


def pages() -> list[str]:
    """Names of all pages in the order of the table of contents."""
    root, parts = read_toc()
    return [root, *(name for _, names in parts for name in names)]


def taught_parts() -> list[tuple[str, list[str]]]:
    """Caption and pages of the parts that teach."""
    return [part for part in read_toc()[1] if part[0] not in NOT_TAUGHT]


def page_path(name: str) -> Path:
    """Where the source of a page is."""
    return BOOK / f"{name}.md"


def is_notebook(name: str) -> bool:
    """Whether the page has cells to run."""
    return "{code-cell}" in page_path(name).read_text("utf-8")


def notebooks() -> list[str]:
    """Names of the pages that have cells to run."""
    return [name for name in pages() if is_notebook(name)]


def teaching_chapters() -> list[str]:
    """Names of the notebooks that teach."""
    names = [name for _, part in taught_parts() for name in part]
    return [name for name in names if is_notebook(name)]  # the playground is none


# -- cells and their stored outputs ---------------------------------------------------


def read(name: str) -> nbformat.NotebookNode:
    """Read a page as a notebook."""
    return jupytext.read(page_path(name))


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """List the cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> set[str]:
    """Tags of a cell."""
    return set(cell.metadata.get("tags", ()))


def title(name: str) -> str:
    """Heading of a page."""
    return re.search(r"^# (.+)$", page_path(name).read_text("utf-8"), re.M)[1]


def setup_cells(name: str) -> list[str]:
    """Code of the cells that a chapter's exercises build on."""
    return [c.source.strip("\n") for c in code_cells(read(name)) if "setup" in tags(c)]


def variants(name: str) -> list[str]:
    """List the sources of data that the page is stored for."""
    return [REAL, LOOK_ALIKE] if fallbacks(name) else [REAL]


def fallbacks(name: str) -> list[str]:
    """Functions the page calls that may give a look-alike of the data."""
    text = page_path(name).read_text("utf-8")
    return [function for function in LOOK_ALIKES if function in text]


def shown_variant(name: str) -> str:
    """Which source of data the site of this machine shows the page with."""
    return REAL if have_real_data(name) else LOOK_ALIKE


def stored_path(name: str, variant: str) -> Path:
    """Where the stored outputs of a page are."""
    suffix = f".{variant}" if len(variants(name)) > 1 else ""
    return OUTPUTS / f"{name}{suffix}.ipynb"


def name_and_variant(stored: Path) -> tuple[str, str]:
    """Which page, and which of its sources, a stored notebook belongs to."""
    name, _, variant = stored.stem.partition(".")
    return name, variant or REAL


def kernel_environment(variant: str) -> dict[str, str]:
    """Environment of a kernel that shows the page with this source of data."""
    forced = {"TQDM_DISABLE": "1"}  # a progress bar prints times
    if variant == LOOK_ALIKE:
        forced |= dict.fromkeys(LOOK_ALIKES.values(), LOOK_ALIKE)
    return os.environ | forced


def have_real_data(name: str) -> bool:
    """Whether this machine can get the real sets of the page."""
    from als_course import datasets

    return all(getattr(datasets, f)().source == REAL for f in fallbacks(name))


# -- MyST -----------------------------------------------------------------------------


class Directive(NamedTuple):
    """A box of MyST."""

    name: str
    title: str
    options: str
    body: str


def directives(text: str) -> list[Directive]:
    """List the boxes of a text, not those inside other boxes."""
    return [
        Directive(*fence.group("name", "title", "options", "body"))
        for fence in FENCE.finditer(text)
    ]


def to_markdown(text: str, role: Callable[[str, str, str | None], str]) -> str:
    """Write MyST as the Markdown that every notebook program shows.

    Parameters
    ----------
    text : str
        Source of a cell, without the marks where exercises begin and end.
    role : callable
        What to write for a role, given its name, its text and its target if it has one.
    """

    def box(fence: re.Match) -> str:
        body = FENCE.sub(box, fence["body"].strip())  # a quiz holds its answers
        if fence["name"] == "admonition":
            lines = [f"**{fence['title']}**", "", *body.split("\n")]
            return "".join(f"> {line}".rstrip() + "\n" for line in lines)
        if fence["name"] == "bibliography":
            return "In full on the page of this chapter.\n"
        if fence["name"] == "code-block":
            return f"```{fence['title']}\n{body}\n```\n"
        return f"{body}\n"

    text = EQUATION.sub("$$", COMMENT.sub("", TARGET.sub("", text)))
    return ROLE.sub(lambda m: role(*m.groups()), FENCE.sub(box, text)).strip()


# -- where exercises begin and end ----------------------------------------------------


class Piece(NamedTuple):
    """A cell, or a part of one, and the exercise it belongs to."""

    cell: nbformat.NotebookNode
    kind: str = ""  # "exercise", "solution", or neither
    label: str = ""
    title: str = ""


def pieces(notebook: nbformat.NotebookNode) -> Iterator[Piece]:
    """Cut a notebook where an exercise or a solution begins or ends."""
    inside = ()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield Piece(cell, *inside)
            continue
        start = 0
        for gate in [*GATE.finditer(cell.source), None]:
            text = cell.source[start : gate.start() if gate else None].strip("\n")
            if text:
                yield Piece(nbformat.v4.new_markdown_cell(text), *inside)
            if gate:
                kind, side, argument, label = gate.groups()
                opened = (kind, label or argument, argument)
                start, inside = gate.end(), opened if side == "start" else ()


def as_text(cells: list[nbformat.NotebookNode]) -> str:
    """Write cells as one text."""
    return "\n\n".join(
        c.source if c.cell_type == "markdown" else f"```python\n{c.source}\n```"
        for c in cells
    )


def code_of(cells: list[nbformat.NotebookNode]) -> str:
    """Join the cells that run."""
    return "\n\n".join(c.source.strip("\n") for c in cells if c.cell_type == "code")

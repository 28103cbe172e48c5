"""The pages of the book: their order, their cells, their stored outputs.

A chapter is a MyST notebook that `_toc.yml` names. For each there is a stored
notebook in `tests/outputs`, or two where the data can come from two sources: code
cells only, with their text outputs.
"""

import os
from pathlib import Path

import jupytext
import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
OUTPUTS = ROOT / "tests" / "outputs"
REAL, LOOK_ALIKE = "real", "look-alike"


def pages() -> list[str]:
    """Names of all pages in the order of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    listed = [entry for part in toc["parts"] for entry in part["chapters"]]
    return [Path(name).name for name in (toc["root"], *(e["file"] for e in listed))]


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
    """Names of the notebooks that teach: the parts with chapters in them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    others = ("Teaching", "Reference")
    parts = [part for part in toc["parts"] if part["caption"] not in others]
    names = [Path(e["file"]).name for part in parts for e in part["chapters"]]
    return [name for name in names if is_notebook(name)]  # the playground is none


def answers_path(name: str) -> Path:
    """Where a chapter's hidden checks, wrong and other right answers are."""
    return BOOK / "answers" / f"{name}.md"


def read(name: str) -> nbformat.NotebookNode:
    """Read a page as a notebook."""
    return jupytext.read(page_path(name))


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """List the cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def variants(name: str) -> list[str]:
    """List the sources of data that the page is stored for."""
    two = "fetch_amazon_reviews" in page_path(name).read_text("utf-8")
    return [REAL, LOOK_ALIKE] if two else [REAL]


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
        forced["ALS_COURSE_AMAZON"] = LOOK_ALIKE
    return os.environ | forced


def have_real_amazon() -> bool:
    """Whether this machine can get the real Amazon reviews."""
    from als_course import datasets

    return datasets.fetch_amazon_reviews().source == REAL

"""The comparison of outputs can fail: each way of being wrong turns it red."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from tools import chapters

CHAPTER = "ratings-and-sparsity"
TINY = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
(tiny)=
# Tiny

```{code-cell} ipython3
print(f"RMSE {0.5 + 0.25:.2f}")
```
"""
# Each run adds a line to a file and draws another picture.
DRAWN = (
    TINY
    + """
```{code-cell} ipython3
import pathlib
import matplotlib.pyplot as plt
from als_course import plots

plots.use_course_style()
with open("runs.txt", "a") as file:
    file.write("run\\n")
number = len(pathlib.Path("runs.txt").read_text().split())
plt.title(f"picture of run {number}")
plt.show()
```
"""
)


def copy_of_the_book(folder, chapter, source=None):
    """A book of one chapter with the checks of this one."""
    ignore = shutil.ignore_patterns("*.md", "__pycache__", "*.ipynb")
    shutil.copytree(chapters.BOOK, folder / "book", ignore=ignore)
    shutil.copytree(chapters.ROOT / "tools", folder / "tools", ignore=ignore)
    (folder / "tests" / "outputs").mkdir(parents=True)
    for name in (
        "CITATION.cff",
        "_config.yml",
        "pyproject.toml",
        "requirements.txt",
        "tests/outputs/conftest.py",
    ):
        shutil.copy(chapters.ROOT / name, folder / name)
    (folder / "_toc.yml").write_text(
        f"format: jb-book\nroot: book/{chapter}\n"
        "parts: [{caption: One, chapters: [{file: book/plain}]}]\n",
        "utf-8",
    )
    (folder / "book" / "plain.md").write_text("# A page without cells\n", "utf-8")
    target = folder / "book" / f"{chapter}.md"
    target.write_text(source or chapters.page_path(chapter).read_text("utf-8"), "utf-8")
    return folder


def run(folder, *command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder / "book")},
    )


def compare(folder):
    """What `make test` does with the stored outputs."""
    return run(
        folder, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "tests/outputs"
    )


def edit(folder, chapter, change):
    """Change the stored notebook."""
    path = folder / "tests" / "outputs" / f"{chapter}.ipynb"
    notebook = nbformat.read(path, 4)
    change(notebook)
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small book whose stored outputs were made by the project's own program."""
    folder = copy_of_the_book(tmp_path_factory.mktemp("made"), "tiny", TINY)
    result = run(folder, "-m", "tools.outputs")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def tiny(made, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(made, tmp_path / "book of one")


@pytest.mark.weekly
def test_stored_outputs_made_anew_pass(tiny):
    result = compare(tiny)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


@pytest.mark.weekly
def test_one_changed_digit_in_a_real_chapter_is_found(tmp_path):
    folder = copy_of_the_book(tmp_path, CHAPTER)
    stored = f"{CHAPTER}.ipynb"
    shutil.copy(chapters.OUTPUTS / stored, folder / "tests" / "outputs" / stored)

    def change_a_digit(notebook):
        for cell in notebook.cells:
            for output in cell.outputs:
                if "93.70 % of the matrix" in output.get("text", ""):
                    output.text = output.text.replace("93.70", "93.71")
                    return
        raise AssertionError("the chapter no longer prints its sparsity")

    edit(folder, CHAPTER, change_a_digit)
    result = compare(folder)
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout
    assert "93.71" in result.stdout


@pytest.mark.weekly
def test_a_cell_that_never_ran_is_refused(tiny):
    def forget(notebook):
        notebook.cells[0].execution_count = None
        notebook.cells[0].outputs = []

    edit(tiny, "tiny", forget)
    result = compare(tiny)
    assert result.returncode != 0
    assert "never ran" in result.stdout


def test_a_chapter_edited_since_its_outputs_were_stored_is_refused(tiny):
    page = tiny / "book" / "tiny.md"
    page.write_text(page.read_text("utf-8").replace("0.25", "0.26"), "utf-8")
    result = compare(tiny)
    assert result.returncode != 0
    assert "its code is not the chapter's" in result.stdout


@pytest.mark.weekly
def test_a_skipped_cell_is_refused(tiny):
    page = tiny / "book" / "tiny.md"
    tagged = page.read_text("utf-8").replace(
        "ipython3\n", "ipython3\n:tags: [nbval-skip]\n"
    )
    page.write_text(tagged, "utf-8")

    def tag(notebook):
        notebook.cells[0].metadata = {"tags": ["nbval-skip"]}

    edit(tiny, "tiny", tag)
    result = compare(tiny)
    assert result.returncode != 0
    assert "skipped" in result.stdout


@pytest.mark.weekly
@pytest.mark.parametrize("there", [True, False])
def test_a_missing_or_orphaned_stored_notebook_is_refused(tiny, there):
    path = tiny / "tests" / "outputs" / "tiny.ipynb"
    if there:
        shutil.copy(path, path.with_name("gone.ipynb"))
        page = (tiny / "book" / "tiny.md").read_text("utf-8")
        (tiny / "book" / "gone.md").write_text(page, "utf-8")
    else:
        other = tiny / "_toc.yml"
        other.write_text(
            "root: book/tiny\n"
            "parts: [{caption: One, chapters: [{file: book/second}]}]\n",
            "utf-8",
        )
        shutil.copy(tiny / "book" / "tiny.md", tiny / "book" / "second.md")
    result = compare(tiny)
    assert result.returncode != 0
    assert ("gone.ipynb" if there else "second.ipynb") in result.stdout + result.stderr


def test_a_failing_cell_stops_the_writing_of_outputs(tmp_path):
    broken = TINY.replace("print(", "raise ValueError('on purpose') or print(")
    folder = copy_of_the_book(tmp_path, "tiny", broken)
    made = run(folder, "-m", "tools.outputs")
    assert made.returncode != 0
    assert "on purpose" in made.stderr
    assert not (folder / "tests" / "outputs" / "tiny.ipynb").exists()


# -- each page runs once ---------------------------------------------------------------


def build(folder):
    """What `make book` does."""
    command = "from jupyter_book.cli.main import main; main()"
    result = run(folder, "-c", command, "build", ".")
    assert result.returncode == 0, result.stdout + result.stderr


def runs_of(folder):
    return (folder / "book" / "runs.txt").read_text("utf-8").count("run")


def picture(folder):
    """Which run the picture on the built page comes from."""
    page = (folder / "_build" / "html" / "book" / "drawn.html").read_text("utf-8")
    [image] = set(re.findall(r"_images/[0-9a-f]+\.svg", page))
    drawing = (folder / "_build" / "html" / image).read_text("utf-8")
    return int(re.search(r"picture of run (\d+)", drawing)[1])


@pytest.fixture(scope="module")
def made_drawn(tmp_path_factory):
    folder = copy_of_the_book(tmp_path_factory.mktemp("drawn"), "drawn", DRAWN)
    result = run(folder, "-m", "tools.outputs")
    assert result.returncode == 0, result.stderr
    (folder / "book" / "runs.txt").unlink()
    return folder


@pytest.fixture
def drawn(made_drawn, tmp_path):
    """A page whose picture tells its runs apart; none is counted yet."""
    return shutil.copytree(made_drawn, tmp_path / "book of one")


def spoil(folder):
    """Let the stored output disagree, and say how to undo it."""
    path = folder / "tests" / "outputs" / "drawn.ipynb"
    right = path.read_text("utf-8")
    path.write_text(right.replace("RMSE 0.75", "RMSE 0.76"), "utf-8")
    return lambda: path.write_text(right, "utf-8")


def test_the_picture_on_a_page_comes_from_the_run_that_was_compared(drawn):
    assert compare(drawn).returncode == 0
    build(drawn)
    assert (runs_of(drawn), picture(drawn)) == (1, 1)
    # what the site shows is not run again to be compared
    assert compare(drawn).returncode == 0
    assert runs_of(drawn) == 1


@pytest.mark.weekly
def test_a_run_that_did_not_agree_is_never_shown(drawn):
    mend = spoil(drawn)
    assert compare(drawn).returncode == 1
    build(drawn)
    assert (runs_of(drawn), picture(drawn)) == (2, 2)
    # The build's own run is compared as it is, found wrong and forgotten.
    result = compare(drawn)
    assert result.returncode == 1
    assert "RMSE 0.76" in result.stdout
    assert runs_of(drawn) == 2
    mend()
    assert compare(drawn).returncode == 0
    build(drawn)
    assert (runs_of(drawn), picture(drawn)) == (3, 3)


@pytest.mark.weekly
def test_a_comparison_of_some_cells_hands_over_nothing(drawn):
    result = run(
        drawn,
        *("-m", "pytest", "-q", "--nbval", "--nbval-current-env", "tests/outputs"),
        *("--deselect", "tests/outputs/drawn.ipynb::Cell 0"),
    )
    assert "1 passed, 1 deselected" in result.stdout, result.stdout
    assert compare(drawn).returncode == 0
    assert runs_of(drawn) == 2

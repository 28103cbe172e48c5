"""What can be taken away from the site: notebooks with and without solutions."""

import json
import re
import zipfile

import nbformat
import pytest

from tools import chapters

FOLDER = chapters.ROOT / "_build" / "html" / "_downloads"
TEACHING = chapters.teaching_chapters()


def codes(notebook):
    return [c.source for c in chapters.code_cells(notebook)]


def text(notebook):
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


@pytest.fixture(params=TEACHING)
def name(request):
    return request.param


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def solution_cells(name):
    """Code of the cells in a chapter's solutions, read from MyST: answers, checks."""
    source = chapters.page_path(name).read_text("utf-8")
    inside = re.findall(
        r"```\{solution-start\}(.*?)```\{solution-end\}", source, flags=re.S
    )
    cells = re.findall(
        r"```\{code-cell\} ipython3\n(.*?)\n```", "\n".join(inside), flags=re.S
    )
    checks = [c for c in cells if c.startswith(":tags: [check]")]
    header = re.compile(r"\A(?:(?::[^\n]*\n)+|---\n.*?\n---\n)", flags=re.S)
    answers = [header.sub("", c) for c in cells if c not in checks]
    return answers, [c.removeprefix(":tags: [check]\n") for c in checks]


def test_the_notebook_with_solutions_has_every_cell_of_the_chapter(name):
    given = codes(read(f"{name}-solutions"))
    assert given == codes(chapters.read(name))


def test_the_notebook_without_has_no_solution_and_every_check(name):
    answers, checks = solution_cells(name)
    assert answers
    assert checks
    given = codes(read(name))
    shown = codes(read(f"{name}-solutions"))
    places = [code for code in given if code.startswith("# Your solution")]
    assert len(places) == len(checks)
    rest = [code for code in given if code not in places]
    assert [c.strip() for c in shown if c.strip() not in {a.strip() for a in answers}] \
        == [c.strip() for c in rest]  # fmt: skip
    for check in checks:
        assert check.strip() in [c.strip() for c in given]
    for first in (answer.strip().split("\n")[-1] for answer in answers):
        if len(first) > 30:
            assert first not in "\n".join(rest), f"a line of a solution: {first}"


def test_every_task_and_hint_stays(name):
    given = text(read(name))
    source = chapters.page_path(name).read_text("utf-8")
    tasks = re.findall(r"^```\{exercise-start\} (.+)$", source, flags=re.M)
    assert [t for t in tasks if f"### Exercise: {t}" not in given] == []
    assert given.count("> **Hint**") == source.count("```{admonition} Hint")
    assert "**Solution**" not in given


@pytest.mark.parametrize("suffix", ["", "-solutions"])
def test_any_notebook_program_can_show_it(name, suffix):
    notebook = read(f"{name}{suffix}")
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in chapters.code_cells(notebook))
    prose = re.sub(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text(notebook), flags=re.S)
    left = re.findall(r"\{[a-z:-]+\}|^:::|^```\{|^\([\w-]+\)=$", prose, flags=re.M)
    assert left == [], "MyST that a plain notebook would show as it stands"


def test_the_archive_holds_all_notebooks_and_runs_where_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(FOLDER / "als-course-notebooks.zip") as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    for name in TEACHING:
        assert {
            f"als-course/{name}.ipynb",
            f"als-course/{name}-solutions.ipynb",
        } <= names
    assert "als-course/requirements.txt" in names
    modules = {f"als-course/{p.relative_to(chapters.BOOK).as_posix()}"
               for p in chapters.BOOK.glob("als_course/**/*.py")}  # fmt: skip
    assert modules <= names
    unpacked = tmp_path / "als-course" / f"{TEACHING[0]}.ipynb"
    assert json.loads(unpacked.read_text("utf-8"))["nbformat"] == 4


def test_the_source_is_offered_as_it_is(name):
    offered = FOLDER.parent / "_sources" / "book" / f"{name}.md"
    assert offered.read_bytes() == chapters.page_path(name).read_bytes()

"""Make what a class needs from the chapters' exercises.

Under `_build/classroom`: `release/` for students, `source/` for the teacher (nbgrader's
names for the two), `answer-key/`, `points.csv` and `points.md`, and `release.zip`,
the one file that a learning platform takes.
"""

import csv
import re
import shutil
from copy import deepcopy
from functools import cache
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.preprocessors import (
    ClearHiddenTests,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from traitlets.config import Config

from tools import chapters
from tools.classroom.assignments import ANSWER_NOTE, HIDDEN_NOTE
from tools.exercises import Exercise, guard, read

CLASSROOM = chapters.ROOT / "_build" / "classroom"
MADE = ("release", "source", "answer-key", "warm")
SESSIONS = Path(__file__).with_name("sessions.md")
SHOWN = re.compile(r"^\{shown\} (\S+): (.+)$", re.M)
READY = Path(__file__).with_name("ready.py")


def data_of(name: str) -> list[str]:
    """Name the functions with which a chapter's exercises fetch their data."""
    code = "\n".join(chapters.setup_cells(name))
    return list(dict.fromkeys(re.findall(r"datasets\.(fetch_\w+)", code)))


def uses_java(name: str) -> bool:
    """Whether a chapter's exercises start Spark."""
    return "get_spark(" in "\n".join(chapters.setup_cells(name))


def for_students(source: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take solutions and hidden checks out of a source, as nbgrader does it."""
    config = Config()
    config.ClearSolutions.code_stub = {"python": ANSWER_NOTE}
    notebook, resources = deepcopy(source), {}
    for step in (LockCells, ClearSolutions, ClearHiddenTests, ComputeChecksums):
        notebook, resources = step(config=config).preprocess(notebook, resources)
    return notebook


# -- cells ----------------------------------------------------------------------------


def cell(kind, source: str, grade_id: str, points: int | None = None, **flags):
    """Make a cell as nbgrader wants it; all but solutions are locked.

    Answers and checks have the tag with which Jupyter goes on after an error: who
    leaves an exercise out still sees the checks of the next.
    """
    flags = {"solution": False, "locked": not flags.get("solution"), **flags}
    about = {"grade_id": grade_id, "grade": points is not None, "task": False, **flags}
    about["schema_version"] = 3
    if points is not None:
        about["points"] = points
    made = kind(source, metadata={"nbgrader": about})
    if flags["solution"] or points is not None:
        made.metadata["tags"] = ["raises-exception"]
    made.id = grade_id
    return made


@cache
def captions(name: str) -> dict[str, str]:
    """Read what stands under the figures of a chapter."""
    options = [c.metadata.get("mystnb", {}) for c in chapters.read(name).cells]
    figures = [option["figure"] for option in options if "figure" in option]
    return {figure["name"]: figure["caption"] for figure in figures}


@cache
def titles() -> dict[str, str]:
    """Read what every label of the book stands above: headings and exercises."""
    found = {}
    for page in chapters.pages():
        text = chapters.page_path(page).read_text("utf-8")
        found |= dict(re.findall(r"^\(([\w-]+)\)=\n+#+ (.+)$", text, re.M))
        exercise = r"^```\{exercise-start\} (.+)\n:label: (\S+)$"
        found |= {label: title for title, label in re.findall(exercise, text, re.M)}
    return found


@cache
def equations() -> dict[str, str]:
    """Read the equations of the book that have a label."""
    found = {}
    for page in chapters.pages():
        text = chapters.page_path(page).read_text("utf-8")
        numbered = r"^\$\$\n((?:(?!\$\$).*\n)+?)\$\$ *\(([\w-]+)\)$"
        for formula, label in re.findall(numbered, text, re.M):
            found[label] = " ".join(formula.split())
    return found


def plain(text: str, name: str) -> str:
    """Write the text of a chapter for a notebook that stands alone."""

    def role(kind: str, said: str, target: str | None) -> str:
        if kind == "numref":
            caption = captions(name)[target or said]
            return f'the figure "{caption.split(". ")[0].rstrip(".")}"'
        if kind == "eq":
            return f"${equations()[said]}$"
        if kind == "ref" and target is None:
            return f"*{titles()[said]}*"
        return "" if kind.startswith("cite") else said

    return chapters.to_markdown(text, role)


def ready_cell(name: str) -> str:
    """Write the first cell: it says what is missing, and how to get it."""
    program = READY.read_text("utf-8").rstrip()
    for slot, value in (
        ("DATA = []", data_of(name)),
        ("JAVA = False", uses_java(name)),
    ):
        line = f"{slot.split()[0]} = {value!r}"
        program = re.sub(rf"^{re.escape(slot)} .*", line, program, count=1, flags=re.M)
    return program


def exercise_cells(exercise: Exercise, name: str) -> list:
    """Write one exercise with solution and hidden checks, as nbgrader's source."""
    label, points = exercise.label, exercise.points
    task = (
        f"## {exercise.title}\n\n"
        f"*Level {exercise.level}, {exercise.time}. Points: {points} for the checks "
        f"you see, {points} for the hidden ones.*\n\n"
        + plain(re.sub(r"^\*Level .*\*\n", "", exercise.task), name)
    )
    hint = plain(exercise.hint, name)
    task += f"\n\n<details><summary>Hint</summary>\n\n{hint}\n\n</details>"
    cells = [cell(new_markdown_cell, task, f"{label}-task")]
    if exercise.given:
        cells.append(cell(new_code_cell, exercise.given, f"{label}-given"))
    answer = (
        f"{exercise.stub}\n### BEGIN SOLUTION\n{exercise.solution}\n### END SOLUTION"
    )
    hidden = [HIDDEN_NOTE, "### BEGIN HIDDEN TESTS", exercise.hidden]
    hidden = "\n".join([*hidden, "### END HIDDEN TESTS"])
    visible = f"{guard(exercise.stub)}\n{exercise.check}".strip()
    return [
        *cells,
        cell(new_code_cell, answer, label, solution=True),
        cell(new_code_cell, visible, f"{label}-visible", points),
        cell(new_code_cell, hidden, f"{label}-hidden", points),
    ]


NAME = "**Your name:** "
LICENCE = (
    "*From* Alternating Least Squares, from the first rating to the cluster*. Text "
    "under CC BY 4.0, code under BSD 3-Clause; the data belong to neither.*"
)


def source_notebook(name: str, site: str = "") -> nbformat.NotebookNode:
    """Write a chapter's exercises as nbgrader's source.

    Parameters
    ----------
    name : str
        The chapter.
    site : str
        Address of the site, for a link to the chapter.
    """
    exercises = read(name)
    total = sum(2 * exercise.points for exercise in exercises)
    title = chapters.title(name)
    where = f"[{title}]({site.rstrip('/')}/book/{name}.html)" if site else f"*{title}*"
    opening = (
        f"# Exercises: {title}\n\n"
        f"{len(exercises)} exercises, {total} points, for the chapter {where}.\n"
        "Answer in the cells that say so. You may add cells; all other cells are put "
        "back as they were before your work is graded.\n"
        "Before you hand in: *Restart the kernel and run all cells*. A check that "
        "prints nothing has passed; one that fails says what it thinks went wrong, "
        "and the cells below it run all the same.\n"
        "Hidden checks ask the same of other values. They give half of the points."
        f"\n\n{LICENCE}"
    )
    before = "What these exercises use of the chapter:"
    cells = [
        cell(new_markdown_cell, opening, f"{name}-opening"),
        cell(new_markdown_cell, NAME, f"{name}-name", locked=False),
        cell(new_code_cell, ready_cell(name), f"{name}-ready"),
        cell(new_markdown_cell, before, f"{name}-before"),
    ]
    for number, code in enumerate(chapters.setup_cells(name), start=1):
        cells.append(cell(new_code_cell, code, f"{name}-setup{number}"))
    for exercise in exercises:
        cells += exercise_cells(exercise, name)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


# -- tables for the teacher -----------------------------------------------------------


def answer_key(name: str) -> str:
    """Write solutions, hidden checks and known mistakes of a chapter."""
    lines = [f"# Answer key: {chapters.title(name)}"]
    for exercise in read(name):
        solution = plain(exercise.explanation, name)
        lines += [
            f"## {exercise.title}",
            f"`{exercise.label}`, level {exercise.level}, {exercise.time}, "
            f"{exercise.points} + {exercise.points} points.",
            solution,
            "**Hidden checks**",
            f"```python\n{exercise.hidden}\n```",
            "**What students do instead, and what they read then**",
            "\n".join(f"- {a.title}: *{a.message}*" for a in exercise.wrong),
            "**Other right answers**",
            "\n\n".join(
                f"{a.title[0].upper()}{a.title[1:]}:\n\n```python\n{a.code}\n```"
                for a in exercise.right
            ),
        ]
    return "\n\n".join(lines) + "\n"


def printed(name: str, section: str) -> list[str]:
    """List what the cells of a section of a chapter print, as it is stored."""
    stored = nbformat.read(chapters.stored_path(name, chapters.REAL), as_version=4)
    outputs = {cell.source: cell.outputs for cell in stored.cells}
    found, inside = [], False
    for cell in chapters.read(name).cells:
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^##+ (.+)$", cell.source, re.M):
                inside = heading == section
        elif inside and "remove-cell" not in chapters.tags(cell):
            for output in outputs.get(cell.source, ()):
                text = output.get("text") or output.get("data", {}).get("text/plain")
                found += [text.rstrip()] if text else []
    return found


def session_notes() -> str:
    """Write the teacher's notes, with what the room will see."""

    def show(line: re.Match) -> str:
        name, section = line.groups()
        blocks = "".join(f"```text\n{text}\n```\n\n" for text in printed(name, section))
        return f"**{section}** ({chapters.title(name)})\n\n{blocks}".rstrip() + "\n"

    text = SESSIONS.read_text("utf-8")
    head, _, rest = text.partition("\n\nFor the teacher alone")
    rest = rest.split("\n\n", 1)[1]
    return f"{head}\n\n{SHOWN.sub(show, rest)}"


def points_rows(names: list[str]) -> list[dict]:
    """List the points of every exercise."""
    return [
        {
            "chapter": name,
            "exercise": exercise.label,
            "title": exercise.title,
            "level": exercise.level,
            "time": exercise.time,
            "visible": exercise.points,
            "hidden": exercise.points,
            "points": 2 * exercise.points,
        }
        for name in names
        for exercise in read(name)
    ]


def write_points(names: list[str], folder: Path) -> None:
    """Write the table of points, for programs and for people."""
    rows = points_rows(names)
    with (folder / "points.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in rows]
    (folder / "points.md").write_text("\n".join(lines) + "\n", "utf-8")


# -- making ---------------------------------------------------------------------------


def make(names: list[str], folder: Path = CLASSROOM, site: str = "") -> None:
    """Write everything for these chapters into a folder; what was graded stays."""
    for part in MADE:
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / "release.zip").unlink(missing_ok=True)
    (folder / "answer-key").mkdir(parents=True)
    for name in names:
        source = folder / "source" / name / f"{name}.ipynb"
        source.parent.mkdir(parents=True)
        notebook = source_notebook(name, site)
        nbformat.write(notebook, source)
        released = folder / "release" / name / f"{name}.ipynb"
        released.parent.mkdir(parents=True)
        nbformat.write(for_students(notebook), released)
        key = folder / "answer-key" / f"{name}.md"
        key.write_text(answer_key(name), "utf-8")
    notes = folder / "answer-key" / "sessions.md"
    notes.write_text(session_notes(), "utf-8")
    write_points(names, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("als_course", "jobs"):
        shutil.copytree(chapters.BOOK / part, folder / "release" / part, ignore=ignore)
    shutil.copy(chapters.ROOT / "requirements.txt", folder / "release")
    shutil.make_archive(folder / "release", "zip", folder, "release")

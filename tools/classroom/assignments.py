"""The assignments of a class, as `make classroom` has written them.

Grading reads these and not the chapters, so that a chapter that has changed since the
notebooks were handed out changes no mark.
"""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

from tools.exercises import bound, free

HIDDEN_NOTE = "# Hidden checks run here when your work is graded."
ANSWER_NOTE = "# Write your answer in this cell."
SOLUTION = re.compile(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", re.S)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS", re.S)


def grade_id(cell: nbformat.NotebookNode) -> str | None:
    """Read nbgrader's name of a cell."""
    about = cell.metadata.get("nbgrader")
    name = about.get("grade_id") if isinstance(about, dict) else None
    return name if isinstance(name, str) else None


@dataclass(frozen=True)
class Statement:
    """A statement of a check: what it runs, and what it is to the mark."""

    code: str
    kind: str  # "guard", "assert" or "other"


@dataclass(frozen=True)
class Task:
    """One exercise, as the grader needs it."""

    label: str
    title: str
    points: int  # for the visible checks; as many again for the hidden ones
    stub: str
    solution: str
    visible: str
    hidden: str


@dataclass(frozen=True)
class Assignment:
    """The exercises of a chapter: what students were given, and what they were not."""

    name: str
    release: nbformat.NotebookNode
    tasks: tuple[Task, ...]

    @property
    def points(self) -> int:
        """All points together."""
        return sum(2 * task.points for task in self.tasks)

    @cached_property
    def asked(self) -> set[str]:
        """Names that answers may give a value."""
        given = "\n".join(
            cell.source
            for cell in self.release.cells
            if (grade_id(cell) or "").endswith("-given")
        )
        codes = [
            given,
            *(t.solution for t in self.tasks),
            *(t.stub for t in self.tasks),
        ]
        return {name for code in codes for name in bound(code)}

    @cached_property
    def setup(self) -> str:
        """What the notebook uses of its chapter."""
        return "\n".join(
            cell.source
            for cell in self.release.cells
            if (grade_id(cell) or "").startswith(f"{self.name}-setup")
        )

    @property
    def fetches(self) -> list[str]:
        """Name the functions with which the exercises fetch their data."""
        return list(dict.fromkeys(re.findall(r"datasets\.(fetch_\w+)", self.setup)))

    @property
    def uses_java(self) -> bool:
        """Whether the exercises start Spark."""
        return "get_spark(" in self.setup

    def chapters_names(self, check: str) -> list[str]:
        """Names of a check that no answer is asked for: they stay the chapter's."""
        return sorted(free(check) - self.asked)


def statements(check: str) -> list[Statement]:
    """Cut a check into its statements."""

    def kind(node: ast.stmt) -> str:
        match node:
            case ast.Assert(
                test=ast.Compare(
                    ops=[ast.IsNot()], comparators=[ast.Constant(value=value)]
                )
            ) if value is ...:
                return "guard"
        has = any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
        return "assert" if has else "other"

    return [Statement(ast.unparse(node), kind(node)) for node in ast.parse(check).body]


def read(folder: Path, name: str) -> Assignment:
    """Read an assignment from the teacher's notebook and the students'."""
    source = nbformat.read(folder / "source" / name / f"{name}.ipynb", as_version=4)
    release = nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
    cells = {grade_id(cell): cell for cell in source.cells}
    given = {grade_id(cell): cell for cell in release.cells}
    tasks = []
    for label, cell in cells.items():
        if cell.metadata.nbgrader.solution:
            title = re.match(r"## (.*)", cells[f"{label}-task"].source)[1]
            visible = cells[f"{label}-visible"]
            tasks.append(
                Task(
                    label=label,
                    title=title,
                    points=visible.metadata.nbgrader.points,
                    stub=given[label].source.replace(ANSWER_NOTE, "").strip(),
                    solution=SOLUTION.search(cell.source)[1].rstrip("\n"),
                    visible=visible.source,
                    hidden=HIDDEN.search(cells[f"{label}-hidden"].source)[1],
                )
            )
    return Assignment(name, release, tuple(tasks))


def read_all(folder: Path) -> dict[str, Assignment]:
    """Read all assignments that were made in a folder."""
    names = sorted(path.parent.name for path in folder.glob("release/*/*.ipynb"))
    if not names:
        raise SystemExit(
            f"{folder} holds no assignment. Make them first: make classroom"
        )
    return {name: read(folder, name) for name in names}

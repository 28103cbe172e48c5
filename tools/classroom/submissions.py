"""Find what students handed in, and put every cell that is not theirs back."""

import json
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

STOPPED = "# The grader took this answer out: it {reason}."


@dataclass
class Submission:
    """What one student handed in, and what is to be said about it."""

    student: str
    path: Path | None
    assignment: str | None = None
    notebook: nbformat.NotebookNode | None = None
    remarks: list[str] = field(default_factory=list)
    needs_review: bool = False  # whether the teacher should look at it


def find(folder: Path, releases: dict[str, nbformat.NotebookNode]) -> list[Submission]:
    """List the submissions in a folder: `student.ipynb`, or a folder a student."""
    if not folder.is_dir():
        raise SystemExit(
            f"{folder} is no folder. Give one: make grade SUBMISSIONS=folder"
        )
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            notebooks = sorted(
                path
                for path in entry.rglob("*.ipynb")
                if ".ipynb_checkpoints" not in path.parts
            )
            found += [Submission(entry.name, path) for path in notebooks]
            if not notebooks:
                found.append(Submission(entry.name, None))
        else:
            found.append(Submission(entry.stem, entry))
    for submission in found:
        open_notebook(submission, releases)
    return found


def open_notebook(
    submission: Submission, releases: dict[str, nbformat.NotebookNode]
) -> None:
    """Read a submission and recognise its assignment by its cells, not its name."""
    say, path = submission.remarks.append, submission.path
    submission.needs_review = True
    if path is None:
        return say("no notebook was handed in")
    if path.suffix != ".ipynb":
        return say(f"{path.name} is no notebook")
    try:
        with warnings.catch_warnings():  # nbformat repairs ids of cells and warns
            warnings.simplefilter("ignore")
            notebook = nbformat.read(path, as_version=4)
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        RecursionError,
    ) as e:
        # nbformat raises NotJSONError and ValidationError, both ValueErrors, and what
        # its upgrading code meets in files that look like notebooks and are none.
        return say(f"{path.name} cannot be read as a notebook ({type(e).__name__})")
    ids = {grade_id(cell) for cell in notebook.cells}
    common = {
        name: len(ids & {grade_id(cell) for cell in release.cells})
        for name, release in releases.items()
    }
    assignment = max(common, key=common.get, default=None)
    if not assignment or not common[assignment]:
        return say(f"{path.name} has no cell of an assignment of this course")
    submission.assignment, submission.needs_review = assignment, False
    if path.stem not in (assignment, submission.student):
        say(f"recognised by its cells: the file is called {path.name}")
    kernel = notebook.metadata.get("kernelspec", {}).get("name", "python3")
    if kernel != "python3":
        say(f"run with Python 3: the notebook asks for the kernel {kernel!r}")
    submission.notebook = restore(notebook, releases[assignment], say)
    return None


def grade_id(cell: nbformat.NotebookNode) -> str | None:
    """Read nbgrader's name of a cell."""
    about = cell.metadata.get("nbgrader")
    return about.get("grade_id") if isinstance(about, dict) else None


def restore(notebook, release, say) -> nbformat.NotebookNode:
    """Take the release, and of the student's notebook only what is the student's own.

    These are the answers, and cells that the student added; they keep their place after
    the cell of the release that they follow. nbgrader's own repair, `OverwriteCells`,
    puts back cells with points only: a set-up cell that was deleted stays away.
    """
    own: dict[str | None, list] = {}
    answers: dict[str, list] = {}
    seen: dict[str, str] = {}
    place = None
    known = {grade_id(cell): cell for cell in release.cells}
    for cell in notebook.cells:
        name = grade_id(cell)
        if name in known:
            place = name
            seen.setdefault(name, cell.source)
            if known[name].metadata.nbgrader.solution:
                answers.setdefault(name, []).append(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            own.setdefault(place, []).append(new_code_cell(cell.source))
    whole, restored = deepcopy(release), []
    whole.cells = list(own.get(None, []))
    for cell in deepcopy(release.cells):
        name = grade_id(cell)
        if cell.metadata.nbgrader.solution:
            given = [source for source in answers.get(name, []) if source.strip()]
            new = [source for source in given if source != cell.source]
            if name not in answers:
                say(f"{name}: the cell of the answer is missing")
            cell.source = (new or given or [cell.source])[0]
        elif seen.get(name) != cell.source and cell.cell_type == "code":
            restored.append(name)
        whole.cells += [cell, *own.get(name, [])]
    if restored:
        say(f"put back, since changed or deleted: {', '.join(restored)}")
    for number, cell in enumerate(whole.cells):
        cell.id = f"cell-{number}"
    return whole


def take_out(notebook, place: int, reason: str) -> str:
    """Empty the answer that stopped the grader at this cell, and say which it was."""
    culprit = notebook.cells[place]
    name = grade_id(culprit)
    if name is None:
        culprit.source = STOPPED.format(reason=reason)
        return f"a cell that was added {reason}"
    label = name.removesuffix("-visible").removesuffix("-hidden")
    for cell in notebook.cells:
        if grade_id(cell) == label and cell.metadata.nbgrader.solution:
            if cell.source.startswith(STOPPED[:20]):
                break
            cell.source = STOPPED.format(reason=reason)
            return f"{label}: the answer {reason}"
    raise RuntimeError(f"{name} {reason}, and no answer of the student is to blame")


def syntax_errors(notebook) -> list[str]:
    """Say which answers are no Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        name = grade_id(cell)
        try:
            compile(TransformerManager().transform_cell(cell.source), "answer", "exec")
        except SyntaxError as error:
            where = name or "a cell that was added"
            found.append(f"{where}: no Python, {error.msg} in line {error.lineno}")
        except ValueError as error:
            found.append(f"{name or 'a cell that was added'}: no Python, {error}")
    return found


def read_releases(folder: Path) -> dict[str, nbformat.NotebookNode]:
    """Read the notebooks that students were given."""
    paths = sorted(folder.glob("*/*.ipynb"))
    if not paths:
        raise SystemExit(
            f"{folder} holds no assignment. Make them first: make classroom"
        )
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def write_json(path: Path, value) -> None:
    """Write a value for the other process."""
    path.write_text(json.dumps(value), "utf-8")

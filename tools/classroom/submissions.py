"""Find what students handed in, and put every cell that is not theirs back."""

import os
import re
import stat
import unicodedata
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from tools.classroom.assignments import Assignment, grade_id

STOPPED = "# The grader took this answer out: it {reason}."
LARGEST = 200_000_000  # bytes of a notebook
MOODLE = re.compile(r"^(?P<name>.+)_(?P<id>\d+)_assignsubmission_(file|onlinetext)_")
CANVAS = re.compile(r"^(?P<name>[^_]+)(?P<late>_LATE)?_(?P<id>\d+)_\d+_(?P<file>.+)$")


@dataclass
class Submission:
    """What one student handed in, and what is to be said about it."""

    student: str
    path: Path | None
    identifier: str = ""  # the number that the school's platform wrote into the name
    late: bool = False  # whether the platform said so
    name: str = ""  # as the student wrote it into the notebook
    time: datetime | None = None
    assignment: str | None = None
    notebook: nbformat.NotebookNode | None = None
    remarks: list[str] = field(default_factory=list)
    needs_review: bool = False  # whether the teacher should look at it


def readable(name: str) -> str:
    """Make words of a file name, which may be no UTF-8 or in pieces, as on macOS."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of an old encoding
        name = os.fsencode(name).decode("latin-1")
    name = unicodedata.normalize("NFC", name)
    return "".join(c if c.isprintable() else "?" for c in name)


def whose(name: str) -> Submission:
    """Read the student out of the name of a file or folder."""
    name = readable(name)
    if found := MOODLE.match(name):
        return Submission(found["name"].strip(), None, found["id"])
    if found := CANVAS.match(name):
        late = bool(found["late"])
        return Submission(found["name"], None, found["id"], late)
    stem = re.sub(r"\.ipynb$", "", name, flags=re.I)
    return Submission(stem or name, None)


def is_hidden(path: Path) -> bool:
    """Whether an operating system or Jupyter put the file there."""
    return path.name.startswith((".", "__MACOSX", "Thumbs.db"))


def notebooks_in(folder: Path) -> list[Path]:
    """List the notebooks in a folder of one student, links not followed."""
    found = []
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry):
            continue
        if entry.is_dir() and not entry.is_symlink():
            found += notebooks_in(entry)
        elif entry.suffix.lower() == ".ipynb":
            found.append(entry)
    return found


def find(folder: Path, assignments: dict[str, Assignment]) -> list[Submission]:
    """List the submissions in a folder: `student.ipynb`, or a folder a student."""
    if not folder.is_dir():
        raise SystemExit(
            f"{folder} is no folder. Give one: make grade SUBMISSIONS=folder"
        )
    found = []
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry):
            continue
        student = whose(entry.name)
        paths = [entry]
        if entry.is_dir() and not entry.is_symlink():
            try:
                paths = notebooks_in(entry) or [None]
            except OSError as problem:
                student.remarks.append(f"cannot be read: {problem.strerror}")
                paths = [None]
        for path in paths:
            submission = deepcopy(student)
            submission.path = path
            found.append(submission)
    for submission in found:
        try:
            open_notebook(submission, assignments)
        except Exception as problem:  # one hand-in is no reason to lose the others
            submission.notebook, submission.needs_review = None, True
            submission.remarks.append(
                f"{readable(submission.path.name)} cannot be read as a notebook "
                f"({type(problem).__name__})"
            )
    set_older_aside(found)
    return found


def set_older_aside(found: list[Submission]) -> None:
    """Keep the newest of several hand-ins of a student for one assignment."""
    newest: dict[tuple, Submission] = {}
    for submission in sorted(
        (s for s in found if s.notebook is not None), key=lambda s: s.time
    ):
        key = submission.student, submission.assignment
        if older := newest.get(key):
            older.notebook, older.needs_review = None, True
            older.remarks.append(
                f"not graded: {readable(submission.path.name)} of the same student "
                "is newer"
            )
        newest[key] = submission


def open_notebook(submission: Submission, assignments: dict[str, Assignment]) -> None:
    """Read a submission and recognise its assignment by its cells, not its name."""
    say, path = submission.remarks.append, submission.path
    submission.needs_review = True
    if path is None:
        return None if submission.remarks else say("no notebook was handed in")
    named = readable(path.name)
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        return say(f"{named} is a link, which is not followed")
    if not stat.S_ISREG(about.st_mode):
        return say(f"{named} is no ordinary file")
    submission.time = datetime.fromtimestamp(about.st_mtime)
    if path.suffix.lower() != ".ipynb":
        return say(f"{named} is no notebook")
    if about.st_size > LARGEST:
        return say(f"{named} is larger than {LARGEST // 10**6} MB")
    with warnings.catch_warnings():  # nbformat repairs ids of cells and warns
        warnings.simplefilter("ignore")
        notebook = nbformat.reads(path.read_text("utf-8-sig"), as_version=4)
    common = {
        name: len(set(names_of(notebook, assignment)) - {None})
        for name, assignment in assignments.items()
    }
    assignment = max(common, key=common.get, default=None)
    if not assignment or not common[assignment]:
        return say(f"{named} has no cell of an assignment of this course")
    if not {assignment, submission.student} & {path.stem, readable(path.stem)}:
        say(f"recognised by its cells: the file is called {named}")
    kernel = notebook.metadata.get("kernelspec") or {}
    if kernel.get("name", "python3") != "python3":
        say(f"run with Python 3: the notebook asks for the kernel {kernel['name']!r}")
    if not any(grade_id(cell) for cell in notebook.cells):
        say("recognised by text: the marks of its cells were lost")
    submission.notebook = restore(notebook, assignments[assignment], say)
    for cell, name in zip(
        notebook.cells, names_of(notebook, assignments[assignment]), strict=True
    ):
        if name == f"{assignment}-name":
            submission.name = readable(cell.source.partition(":**")[2].strip())[:100]
    submission.assignment, submission.needs_review = assignment, False
    return None


def names_of(notebook, assignment: Assignment) -> list[str | None]:
    """Name the cells of a notebook that are cells of the assignment.

    By nbgrader's metadata; where an editor has stripped these, by the id of the cell,
    by its text, and an answer by its place after the task.
    """
    release = assignment.release.cells
    known = {grade_id(cell) for cell in release}
    by_text: dict[str, list] = {}
    for cell in release:
        by_text.setdefault(cell.source.strip(), []).append(grade_id(cell))
    names = []
    for cell in notebook.cells:
        name = grade_id(cell)
        if name not in known:
            name = cell.get("id") if cell.get("id") in known else None
        alike = by_text.get(cell.source.strip())
        names.append(name or (alike.pop(0) if alike else None))
    for task in assignment.tasks:
        if task.label in names:
            continue
        places = [
            n for n, name in enumerate(names)
            if name in (f"{task.label}-task", f"{task.label}-given")
        ]  # fmt: skip
        for place in range(max(places, default=len(names)) + 1, len(names)):
            if names[place] is not None:
                break
            if notebook.cells[place].cell_type == "code":
                names[place] = task.label
                break
    return names


def restore(notebook, assignment: Assignment, say) -> nbformat.NotebookNode:
    """Take the release, and of the student's notebook only what is the student's own.

    These are the answers, and cells that the student added; they keep their place after
    the cell of the release that they follow.
    """
    release = assignment.release
    own: dict[str | None, list] = {}
    answers: dict[str, list] = {}
    seen: dict[str, str] = {}
    place = None
    known = {grade_id(cell): cell for cell in release.cells}
    for name, cell in zip(names_of(notebook, assignment), notebook.cells, strict=True):
        if not isinstance(cell.source, str):
            raise TypeError("a cell without text")
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
    return whole


def take_out(notebook, place: int, reason: str) -> str:
    """Empty the answer that stopped the kernel at this cell, and say which it was."""
    culprit = notebook.cells[place]
    name = grade_id(culprit)
    if name is None:
        culprit.source = STOPPED.format(reason=reason)
        return f"a cell that was added {reason}"
    label = re.sub("-(visible|hidden)$", "", name)
    for cell in notebook.cells:
        if grade_id(cell) == label and cell.metadata.nbgrader.solution:
            if cell.source.startswith(STOPPED[:20]):
                break
            cell.source = STOPPED.format(reason=reason)
            return f"{label}: the answer {reason}"
    raise RuntimeError(f"{name} {reason}, and no answer of the student is to blame")

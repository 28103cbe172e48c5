"""Grade a folder of notebooks.

Every notebook is graded by nbgrader in a process of its own, its kernel in the sandbox
of `sandbox.py`. What an answer does to the process, be it an endless loop, an end of
the kernel or a flood of text, costs that answer and no other: it is taken out, with a
remark, and the notebook is graded again.
"""

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.preprocessors import (
    CheckCellMetadata,
    Execute,
    LimitOutput,
    SaveAutoGrades,
)

from als_course import datasets
from als_course.storage import cache_folder
from tools import chapters
from tools.classroom import feedback, submissions
from tools.classroom.release import CLASSROOM, data_of, settings, uses_java
from tools.classroom.submissions import Submission, grade_id
from tools.exercises import read

GRADED = CLASSROOM / "graded"
STUDENT = "student"  # the name inside a private course of one
SETUP = 5  # the chapter's own cells may take this many times the limit of a cell
PATIENCE = 12  # a whole notebook may take this many times the limit of a cell


@dataclass
class Result:
    """Marks of one submission, and everything that its page says."""

    student: str
    assignment: str | None
    remarks: list[str] = field(default_factory=list)
    needs_review: bool = False
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    notebook: nbformat.NotebookNode | None = None

    @property
    def points(self) -> float:
        """All points together."""
        return sum(sum(both) for both in self.scores.values())


# -- in the process of one notebook ---------------------------------------------------


class FailFastExecute(Execute):
    """Run a notebook, writing down where it is; the first cell that hangs ends it."""

    def preprocess(self, nb, resources=None, km=None):
        """Run in the scratch folder, the only one that may be written to."""
        self.on_cell_start = self.note
        self.timeout_func = self.limit_of
        resources["metadata"]["path"] = os.environ["ALS_SCRATCH"]
        return super().preprocess(nb, resources, km)

    def limit_of(self, cell):
        """Give the chapter's own cells more time: no student wrote them."""
        name = grade_id(cell) or ""
        own = "-setup" in name or name.endswith("-ready")
        return self.timeout * SETUP if own else self.timeout

    def note(self, cell, cell_index):
        """Write down which cell runs."""
        with Path(os.environ["ALS_SANDBOX_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"@{cell_index}\n")

    def on_cell_executed(self, **kwargs):
        """Stop at a cell that leaves the kernel busy, or full."""
        super().on_cell_executed(**kwargs)
        reply = kwargs["execute_reply"]["content"]
        if reply.get("ename") == "CellTimeoutError":
            raise TimeoutError("a cell ran for too long")
        if (reply.get("ename") or "").endswith("MemoryError"):
            raise MemoryError("a cell took all there is")


def grade_here(course: Path, assignment: str, limit: int, environment: dict) -> None:
    """Grade the one submission of a private course; ends with a file of scores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    os.environ.update(environment)
    warnings.simplefilter("ignore")  # of SQLAlchemy, about how nbgrader uses it
    with (course / "log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    config = settings(course)
    config.Autograde.autograde_preprocessors = [
        FailFastExecute,
        LimitOutput,
        SaveAutoGrades,
        CheckCellMetadata,
    ]
    config.ExecutePreprocessor.kernel_name = "als-graded"
    config.ExecutePreprocessor.timeout = limit
    config.ExecutePreprocessor.startup_timeout = 60
    config.ExecutePreprocessor.interrupt_on_timeout = True
    config.ExecutePreprocessor.iopub_timeout = 5
    config.LimitOutput.max_lines = 100
    if sys.platform == "linux":
        config.KernelManager.transport = "ipc"  # the kernel's network is not ours
        config.KernelManager.ip = str(course / "s" / "r" / "k")
    outcome = NbGraderAPI(config=config).autograde(assignment, STUDENT)
    if outcome["success"]:
        submissions.write_json(course / "scores", scores_in(course, assignment))
    else:
        print(outcome.get("error"), outcome.get("log"), flush=True)


def scores_in(course: Path, assignment: str) -> dict[str, float]:
    """Ask nbgrader's book for the score of every cell of checks."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        submission = book.find_submission(assignment, STUDENT)
        [notebook] = submission.notebooks
        return {grade.name: grade.auto_score or 0.0 for grade in notebook.grades}


# -- one notebook, as often as it needs -----------------------------------------------


@contextmanager
def private_course(assignment: str, classroom: Path):
    """Make a folder with all that nbgrader needs for one submission."""
    with tempfile.TemporaryDirectory(
        prefix="als-", ignore_cleanup_errors=True
    ) as folder:
        course = Path(folder).resolve()
        shutil.copy(classroom / "gradebook.db", course)
        shutil.copytree(
            classroom / "source" / assignment, course / "source" / assignment
        )
        kernel = course / "jupyter" / "kernels" / "als-graded" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        launch = [
            sys.executable,
            "-m",
            "tools.classroom.sandbox",
            "-f",
            "{connection_file}",
        ]
        about = {"argv": launch, "display_name": "graded", "language": "python"}
        submissions.write_json(kernel, about)
        yield course


def environment_of(course: Path, assignment: str) -> dict[str, str]:
    """Name the folders that a graded kernel may use."""
    scratch = course / "s"
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("r", "ipython", "tmp", "cache"):
        (scratch / name).mkdir(parents=True)
    link_cache(scratch / "cache")
    fonts = matplotlib_cache()
    shutil.copytree(fonts, scratch / "mpl")
    return {
        "ALS_SCRATCH": str(scratch),
        "ALS_SANDBOX_LOG": str(course / "sandbox"),
        "ALS_LIMIT_MEMORY": "0" if uses_java(assignment) else "1",
        "ALS_COURSE_OFFLINE": "1",
        "ALS_COURSE_CACHE": str(scratch / "cache"),
        "PYTHONPATH": os.pathsep.join([str(chapters.ROOT), str(chapters.BOOK)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "JUPYTER_PATH": str(course / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "r"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "MPLCONFIGDIR": str(scratch / "mpl"),
        "TMPDIR": str(scratch / "tmp"),
        "SPARK_LOCAL_DIRS": str(scratch / "tmp"),
        "JDK_JAVA_OPTIONS": f"-Djava.io.tmpdir={scratch / 'tmp'} -XX:-UsePerfData",
    }


def link_cache(folder: Path) -> None:
    """Show what the course has fetched in a folder where Spark may write its log."""
    if cache_folder().is_dir():
        for entry in cache_folder().iterdir():
            if entry.suffix != ".log":
                (folder / entry.name).symlink_to(entry)


def matplotlib_cache() -> Path:
    """Give a folder with the list of fonts, which takes seconds to make."""
    import matplotlib

    return Path(matplotlib.get_cachedir())


@cache
def processes():
    """Give the way to start processes: forks of one that has imported nbgrader."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.classroom.grade"])
    return context


def run_once(course: Path, submission: Submission, limit: int) -> str | None:
    """Let a process grade the notebook; the reason if it did not come to an end."""
    assignment = submission.assignment
    for name in ("autograded", "scores", "sandbox"):
        shutil.rmtree(course / name, ignore_errors=True)
        (course / name).unlink(missing_ok=True)
    handed_in = course / "submitted" / STUDENT / assignment
    handed_in.mkdir(parents=True, exist_ok=True)
    nbformat.write(submission.notebook, handed_in / f"{assignment}.ipynb")
    process = processes().Process(
        target=grade_here,
        args=(course, assignment, limit, environment_of(course, assignment)),
    )
    process.start()
    process.join(PATIENCE * limit)
    in_time = process.exitcode is not None
    if not in_time:
        process.kill()
        process.join()
    if (course / "scores").exists():
        return None
    said = (course / "log").read_text("utf-8", errors="replace")
    if not in_time or "TimeoutError" in said:  # Jupyter's, of two kinds, or ours
        return f"was stopped after {limit} seconds"
    if "MemoryError: a cell" in said:
        return "took all the memory"
    if "DeadKernelError" in said:
        return "ended the kernel"
    return "stopped the grader"


def grade(submission: Submission, limit: int, classroom: Path = CLASSROOM) -> Result:
    """Grade one submission; whatever it does, the result is marks and remarks."""
    result = Result(
        submission.student,
        submission.assignment,
        submission.remarks,
        submission.needs_review,
    )
    if submission.notebook is None:
        return result
    assignment = submission.assignment
    exercises = read(assignment)
    result.scores = {e.label: (0.0, 0.0) for e in exercises}
    result.remarks += submissions.syntax_errors(submission.notebook)
    with private_course(assignment, classroom) as course:
        for _ in range(len(submission.notebook.cells)):
            reason = run_once(course, submission, limit)
            tried = what_was_tried(course, submission.notebook)
            if reason is None:
                break
            try:
                told = submissions.take_out(
                    submission.notebook, last_cell(course), reason
                )
            except (RuntimeError, ValueError) as problem:
                said = (course / "log").read_text("utf-8", errors="replace")
                print(said[-3000:], file=sys.stderr)
                result.remarks.append(f"could not be graded: {problem}")
                result.needs_review = True
                return result
            result.remarks += [*tried, told]
            result.needs_review |= bool(tried)
        result.remarks += [line for line in tried if line not in result.remarks]
        result.needs_review |= bool(tried)
        scores = json.loads((course / "scores").read_text("utf-8"))
        marked = course / "autograded" / STUDENT / assignment / f"{assignment}.ipynb"
        result.notebook = nbformat.read(marked, as_version=4)
    result.scores = {
        e.label: (scores[f"{e.label}-visible"], scores[f"{e.label}-hidden"])
        for e in exercises
    }
    return result


def last_cell(course: Path) -> int:
    """Say at which cell the grading stood."""
    log = course / "sandbox"
    places = (
        re.findall(r"^@(\d+)$", log.read_text("utf-8"), re.M) if log.exists() else []
    )
    if not places:
        raise ValueError("its kernel did not start")
    return int(places[-1])


def what_was_tried(course: Path, notebook: nbformat.NotebookNode) -> list[str]:
    """List what the sandbox refused to the student's own cells."""
    log, found, place = course / "sandbox", {}, None
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    for line in lines:
        if line.startswith("@"):
            place = int(line[1:])
        elif not line.startswith("#") and place is not None:
            name = grade_id(notebook.cells[place])
            where = "a cell that was added" if name is None else name
            found[f"{where}: tried to {line} and was refused"] = None
    return list(found)


# -- the class ------------------------------------------------------------------------


def grade_all(
    folder: Path, out: Path, limit: int, workers: int, classroom: Path = CLASSROOM
) -> list[Result]:
    """Grade everybody, and write the table and the pages."""
    releases = submissions.read_releases(classroom / "release")
    found = submissions.find(folder, releases)
    shutil.rmtree(out, ignore_errors=True)
    (out / "feedback").mkdir(parents=True)
    results = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(grade, s, limit, classroom) for s in found]
        for future in waiting:
            results.append(result := future.result())
            total = sum(2 * e.points for e in exercises_of(result))
            print(f"{result.student}: {result.points:g} of {total}", flush=True)
    used: dict[str, int] = {}
    for result in results:
        used[result.student] = number = used.get(result.student, 0) + 1
        suffix = f"-{number}" if number > 1 else ""
        page = out / "feedback" / f"{result.student}{suffix}.html"
        page.write_text(feedback.page(result, exercises_of(result)), "utf-8")
    write_marks(results, out / "marks.csv")
    return results


def exercises_of(result: Result) -> tuple:
    """List the exercises that a result is about."""
    return read(result.assignment) if result.assignment else ()


def write_marks(results: list[Result], path: Path) -> None:
    """Write a line for each submission and a column for each exercise."""
    labels = dict.fromkeys(label for result in results for label in result.scores)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "student",
                "assignment",
                "points",
                "of",
                *labels,
                "needs_review",
                "remarks",
            ]
        )
        for result in results:
            each = [sum(result.scores[x]) if x in result.scores else "" for x in labels]
            table.writerow(
                [
                    result.student,
                    result.assignment or "",
                    f"{result.points:g}",
                    sum(2 * e.points for e in exercises_of(result)),
                    *(f"{x:g}" if x != "" else "" for x in each),
                    "yes" if result.needs_review else "",
                    "; ".join(result.remarks),
                ]
            )


def fetch_data(names: list[str]) -> None:
    """Get the data of these assignments while writing is still allowed."""
    for fetch in sorted({fetch for name in names for fetch in data_of(name)}):
        getattr(datasets, fetch)()

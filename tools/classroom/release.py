"""Make what a class needs from the chapters' exercises.

Under `_build/classroom`: `release/` for students, `source/` for the teacher (nbgrader's
names for the two), `answer-key/`, `points.csv` and `points.md`, and the `gradebook.db`
that grading starts from.
"""

import csv
import os
import re
import shutil
import sys
from pathlib import Path
from textwrap import dedent

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from tools.classroom.exercises import BESIDE, BOOK, ROOT, Chapter, Exercise, guard, read

CLASSROOM = ROOT / "_build" / "classroom"
HIDDEN_NOTE = "# Hidden checks run here when your work is graded."
ANSWER_NOTE = "# Write your answer in this cell."
SETS = {
    "fetch_movielens_100k": "MovieLens 100K",
    "fetch_amazon_reviews": "the Amazon reviews",
}


def chapters() -> list[str]:
    """Name the chapters that have exercises, in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    pages = [Path(e["file"]).name for part in toc["parts"] for e in part["chapters"]]
    return [p for p in pages if (BESIDE / f"{p}.md").exists()]


def settings(root: Path) -> Config:
    """Give nbgrader's settings for a course in this folder."""
    # nbgrader calls alembic by name, which lies beside this Python.
    beside = str(Path(sys.executable).parent)
    if beside not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = beside + os.pathsep + os.environ["PATH"]
    config = Config()
    config.CourseDirectory.course_id = "als"
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.db_url = f"sqlite:///{root / 'gradebook.db'}"
    config.ClearSolutions.code_stub = {"python": ANSWER_NOTE}
    config.Application.log_level = "WARNING"
    return config


# -- cells ----------------------------------------------------------------------------


def cell(kind, source: str, grade_id: str, points: int | None = None, **flags):
    """Make a cell as nbgrader wants it; all but solutions are locked."""
    flags = {"solution": False, "locked": not flags.get("solution"), **flags}
    about = {"grade_id": grade_id, "grade": points is not None, "task": False, **flags}
    about["schema_version"] = 3
    if points is not None:
        about["points"] = points
    made = kind(source, metadata={"nbgrader": about})
    made.id = grade_id
    return made


def plain(text: str, name: str) -> str:
    """Write the book's roles and directives as what any notebook program shows."""
    captions = dict(
        re.findall(
            r"^    name: (fig-\S+)\n    caption: (.+)$",
            (BOOK / f"{name}.md").read_text("utf-8"),
            re.M,
        )
    )
    text = re.sub(
        r"\{numref\}`(fig-[\w-]+)`",
        lambda m: f'the figure "{captions[m[1]].split(". ")[0].rstrip(".")}"',
        text,
    )
    text = re.sub(r"\{cite:\w+\}`[^`]*`", "", text)
    text = re.sub(r"\{[a-z:]+\}`([^`<]+?) *<[^`>]*>`", r"\1", text)
    text = re.sub(r"\{[a-z:]+\}`([^`]*)`", r"\1", text)
    text = re.sub(r"```\{code-(?:block|cell)\} i?python3?\n", "```python\n", text)
    return text.strip()


def ready_cell(chapter: Chapter) -> str:
    """Write the first cell: it says what is missing, and how to get it."""
    real = [name for name in chapter.sets if name in SETS]
    fetches = "\n".join(f"        datasets.{name}()" for name in real)
    check = dedent(
        """
        import os
        import sys
        from pathlib import Path

        # Run this cell first: it says what is missing, and how to get it.
        for folder in (Path.cwd(), *Path.cwd().parents):
            for place in (folder, folder / "book"):
                if (place / "als_course").is_dir():
                    sys.path.append(str(place))
        try:
            from als_course import datasets
        except ImportError as problem:
            raise SystemExit(
                f"{problem}. Keep this notebook beside the folder als_course, "
                "and start Jupyter where requirements.txt is installed:\\n"
                f"    {sys.executable} -m pip install -r requirements.txt"
            ) from None
        """
    ).strip()
    needs_java = "get_spark(" in chapter.setup
    if real or needs_java:
        check += '\nos.environ["ALS_COURSE_OFFLINE"] = "1"  # no waiting for a network'
    if real:
        check += dedent(
            """
            try:
            FETCHES
            except datasets.DatasetError as problem:
                library = Path(datasets.__file__).parent.parent
                raise SystemExit(
                    f"The data are not on this machine. Once, with a network:\\n"
                    f"    cd {library} && {sys.executable} -m als_course.datasets\\n"
                    f"What was tried: {problem}"
                ) from None
            """
        ).replace("FETCHES", fetches.replace("        ", "    "))
    if needs_java:
        check += dedent(
            """
            from als_course.java import JavaError, find_java

            try:
                find_java()
            except JavaError as problem:
                library = Path(datasets.__file__).parent.parent
                raise SystemExit(
                    f"Spark is a Java program, and no Java here can run it.\\n"
                    "Install one, or let this course fetch it, once, with a network:"
                    f"\\n    cd {library} && {sys.executable} -m als_course.java\\n"
                    f"What was tried: {problem}"
                ) from None
            """
        )
    if "import train_als" in chapter.setup:
        check += 'sys.path.append(str(Path(datasets.__file__).parents[1] / "jobs"))'
    return check.rstrip() + '\nprint("Everything is here.")'


def setup_cells(chapter: Chapter, lines: int = 25) -> list[str]:
    """Cut the chapter's code into cells of about so many lines."""
    blocks: list[str] = []
    for block in chapter.setup.split("\n\n"):
        inside = block.startswith((" ", "\n"))  # the rest of a function or class
        if blocks and (inside or blocks[-1].count("\n") + block.count("\n") < lines):
            blocks[-1] += "\n\n" + block
        else:
            blocks.append(block)
    return blocks


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


def source_notebook(chapter: Chapter) -> nbformat.NotebookNode:
    """Write a chapter's exercises as nbgrader's source."""
    total = sum(2 * exercise.points for exercise in chapter.exercises)
    opening = (
        f"# Exercises: {chapter.title}\n\n"
        f"{len(chapter.exercises)} exercises, {total} points.\n"
        "Answer in the cells that say so. You may add cells; all other cells are put "
        "back as they were before your work is graded.\n"
        "Before you hand in: *Restart the kernel and run all cells*. A check that "
        "prints nothing has passed; one that fails says what it thinks went wrong.\n"
        "Hidden checks ask the same of other values. They give half of the points."
    )
    cells = [
        cell(new_markdown_cell, opening, f"{chapter.name}-opening"),
        cell(new_code_cell, ready_cell(chapter), f"{chapter.name}-ready"),
        cell(
            new_markdown_cell,
            "What these exercises use of the chapter:",
            f"{chapter.name}-before",
        ),
    ]
    for number, code in enumerate(setup_cells(chapter), start=1):
        cells.append(cell(new_code_cell, code, f"{chapter.name}-setup{number}"))
    for exercise in chapter.exercises:
        cells += exercise_cells(exercise, chapter.name)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


# -- tables for the teacher -----------------------------------------------------------


def answer_key(chapter: Chapter) -> str:
    """Write solutions, hidden checks and known mistakes of a chapter."""
    lines = [f"# Answer key: {chapter.title}"]
    for exercise in chapter.exercises:
        solution = plain(exercise.solution_prose, chapter.name)
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


def points_rows(read_chapters: list[Chapter]) -> list[dict]:
    """List the points of every exercise."""
    return [
        {
            "chapter": chapter.name,
            "exercise": exercise.label,
            "title": exercise.title,
            "level": exercise.level,
            "time": exercise.time,
            "visible": exercise.points,
            "hidden": exercise.points,
            "points": 2 * exercise.points,
        }
        for chapter in read_chapters
        for exercise in chapter.exercises
    ]


def write_points(read_chapters: list[Chapter], folder: Path) -> None:
    """Write the table of points, for programs and for people."""
    rows = points_rows(read_chapters)
    with (folder / "points.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in rows]
    (folder / "points.md").write_text("\n".join(lines) + "\n", "utf-8")


# -- making ---------------------------------------------------------------------------


def make(names: list[str], folder: Path = CLASSROOM) -> None:
    """Write everything for these chapters into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "answer-key").mkdir(parents=True)
    read_chapters = [read(name) for name in names]
    api = NbGraderAPI(config=settings(folder))
    for chapter in read_chapters:
        source = folder / "source" / chapter.name / f"{chapter.name}.ipynb"
        source.parent.mkdir(parents=True)
        nbformat.write(source_notebook(chapter), source)
        made = api.generate_assignment(chapter.name, force=True, create=True)
        if not made["success"]:
            raise RuntimeError(f"nbgrader refused {chapter.name}:\n{made['log']}")
        key = folder / "answer-key" / f"{chapter.name}.md"
        key.write_text(answer_key(chapter), "utf-8")
    write_points(read_chapters, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        BOOK / "als_course", folder / "release" / "als_course", ignore=ignore
    )
    shutil.copytree(BOOK / "jobs", folder / "release" / "jobs", ignore=ignore)
    shutil.copy(ROOT / "requirements.txt", folder / "release")

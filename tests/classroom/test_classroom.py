"""What a teacher does: make the assignments, hand them out, grade a class of thirty."""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import chapters, exercises
from tools.classroom import grade, kit, release, sandbox, submissions

CHAPTER = "ratings-and-sparsity"
FULL = (2, 2, 4, 4, 4)  # points of its five exercises
LIMIT = int(os.environ.get("ALS_COURSE_LIMIT", "4"))  # seconds for a cell
STOPPED = f"the answer was stopped after {LIMIT} seconds"
OUTSIDE = str(Path(tempfile.gettempdir()) / "als-course-was-here")
LOOP = "while True:\n    pass"
STUBBORN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
IN_FUNCTION = """
break_even = 2 / 3
def takes_more(density):
    while True:
        pass
"""
PRINTING = "while True:\n    print('again ' * 50)"
HOARD = "hoard = []\nwhile True:\n    hoard.append(bytearray(10**8))"
KILL = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """The assignments of one chapter."""
    folder = tmp_path_factory.mktemp("classroom")
    release.make([CHAPTER], folder)
    return folder


@pytest.fixture(scope="module")
def released(classroom):
    """What a student is given."""
    return nbformat.read(classroom / "release" / CHAPTER / f"{CHAPTER}.ipynb", 4)


def sources(notebook):
    return {submissions.grade_id(cell): cell.source for cell in notebook.cells}


# -- what is handed out ---------------------------------------------------------------


def test_students_get_tasks_stubs_hints_and_visible_checks_and_nothing_else(released):
    cells = sources(released)
    text = json.dumps(released)
    for exercise in exercises.read(CHAPTER):
        assert exercise.title in cells[f"{exercise.label}-task"]
        assert "<summary>Hint</summary>" in cells[f"{exercise.label}-task"]
        assert cells[exercise.label].startswith(exercise.stub)
        assert cells[f"{exercise.label}-visible"].endswith(exercise.check)
        assert cells[f"{exercise.label}-hidden"] == release.HIDDEN_NOTE
        for secret in (exercise.solution, exercise.hidden):
            longest = max(secret.split("\n"), key=len).strip()
            assert json.dumps(longest)[1:-1] not in text
    for markup in ("{ref}", "{term}", "{numref}", "```{", "BEGIN SOLUTION"):
        assert markup not in text


def test_the_teacher_gets_solutions_hidden_checks_key_and_points(classroom):
    source = nbformat.read(classroom / "source" / CHAPTER / f"{CHAPTER}.ipynb", 4)
    cells = sources(source)
    key = (classroom / "answer-key" / f"{CHAPTER}.md").read_text("utf-8")
    for exercise in exercises.read(CHAPTER):
        assert exercise.solution in cells[exercise.label]
        assert exercise.hidden in cells[f"{exercise.label}-hidden"]
        assert exercise.hidden in key
        for answer in exercise.wrong:
            assert f"{answer.title}: *{answer.message}*" in key
    with (classroom / "points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["points"]) for row in rows] == list(FULL)
    assert (classroom / "points.md").read_text("utf-8").count("\n") == len(rows) + 2


def test_a_student_without_the_library_or_the_data_is_told_what_to_do(
    classroom, released, tmp_path
):
    ready = sources(released)[f"{CHAPTER}-ready"]

    def run(folder, *options, **environment):
        return subprocess.run(
            [sys.executable, *options, "-c", ready],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("ALS_")}
            | {"PYTHONPATH": ""}
            | environment,
            capture_output=True,
            text=True,
        )

    alone = run(tmp_path, "-S")  # without what is installed here
    assert alone.returncode == 1
    assert "beside the folder als_course" in alone.stderr
    assert "pip install -r requirements.txt" in alone.stderr
    beside = classroom / "release" / CHAPTER
    without = run(beside, ALS_COURSE_CACHE=str(tmp_path / "empty"))
    assert without.returncode == 1
    assert "-m als_course.datasets" in without.stderr
    assert "Traceback" not in without.stderr
    with_data = os.environ.get("ALS_COURSE_DATA")
    ready_now = run(beside, **({"ALS_COURSE_DATA": with_data} if with_data else {}))
    assert ready_now.stdout == "Everything is here.\n", ready_now.stderr


def test_a_student_without_java_is_told_what_to_do(tmp_path):
    ready = release.ready_cell("spark-als")
    ours = ("ALS_", "JAVA_HOME", "PATH")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    nothing = {"PATH": str(tmp_path), "ALS_COURSE_CACHE": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", ready],
        cwd=chapters.BOOK,
        env=kept | nothing | {"ALS_COURSE_AMAZON": "look-alike"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "no Java here can run it" in run.stderr
    assert "-m als_course.java" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_program_that_exercises_run_is_handed_out_and_found(classroom):
    assert (classroom / "release" / "jobs" / "train_als.py").is_file()
    assert "import train_als" in "\n".join(chapters.setup_cells("spark-operations"))
    run = subprocess.run(
        [sys.executable, "-c", release.READY.read_text("utf-8") + "import train_als"],
        cwd=classroom / "release" / CHAPTER,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_spark_runs_in_the_sandbox(tmp_path):
    environment = grade.environment_of(tmp_path, "spark-cluster")
    program = (
        "from als_course.spark import get_spark\n"
        "from tools.classroom import sandbox\n"
        "sandbox.build()\n"
        "with get_spark() as spark:\n"
        "    print(spark.range(5).selectExpr('sum(id)').first()[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "10\n", run.stderr
    refused = (tmp_path / "sandbox").read_text("utf-8").splitlines()
    assert [line for line in refused if not line.startswith("#")] == []


def test_every_chapter_with_exercises_can_be_handed_out(tmp_path):
    for name in chapters.teaching_chapters():
        notebook = release.source_notebook(name)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert "{ref}" not in cell.source
            if cell.cell_type == "code":
                compile(cell.source, name, "exec")


# -- a class of thirty ----------------------------------------------------------------


class Student:
    """A notebook in the making; the exercises are numbered from 1."""

    def __init__(self, released):
        self.notebook = deepcopy(released)
        self.exercises = exercises.read(CHAPTER)

    def cell(self, name):
        return next(
            c for c in self.notebook.cells if submissions.grade_id(c) == f"{name}"
        )

    def answer(self, number, code):
        self.cell(f"{CHAPTER}_ex{number}").source = code
        return self

    def solve(self, *numbers):
        for number in numbers or range(1, 6):
            self.answer(number, self.exercises[number - 1].solution)
        return self

    def right(self, number, place=0):
        return self.answer(number, self.exercises[number - 1].right[place].code)

    def wrong(self, number, title):
        [answer] = [a for a in self.exercises[number - 1].wrong if a.title == title]
        return self.answer(number, answer.code)

    def remove(self, *names):
        keep = [c for c in self.notebook.cells if submissions.grade_id(c) not in names]
        self.notebook.cells = keep
        return self

    def add(self, after, code):
        place = self.notebook.cells.index(self.cell(after)) + 1
        self.notebook.cells.insert(place, new_code_cell(code))
        return self


def the_class(released):
    """Names, notebooks, the marks each must get, and a word of the remark."""
    label = f"{CHAPTER}_ex"
    checks = [
        f"{label}{n}-{kind}" for n in range(1, 6) for kind in ("visible", "hidden")
    ]

    def solved():
        return Student(released).solve()

    def but(**points):
        return tuple(points.get(f"ex{n}", FULL[n - 1]) for n in range(1, 6))

    other = Student(released)
    for number in range(1, 6):
        other.right(number)
    edited = Student(released)
    for name in checks:
        edited.cell(name).source = "assert True"
    greedy = solved().answer(1, "n_half = 0")
    for name in checks:
        greedy.cell(name).metadata.nbgrader.update(points=1000, locked=False)
    copied = solved()
    place = copied.notebook.cells.index(copied.cell(f"{label}1"))
    twin = deepcopy(released.cells[place])
    twin.id = "twin"  # as JupyterLab does; nbgrader's own name stays
    copied.notebook.cells.insert(place, twin)
    julia = solved()
    julia.notebook.metadata.kernelspec = {"name": "julia-1.9", "display_name": "Julia"}
    helper = solved().add(f"{label}1-task", "def half_of(n):\n    return n / 2")
    helper.answer(
        1, "n_half = int((ordered.cumsum() < half_of(len(ratings))).sum()) + 1"
    )
    call_home = (
        "from urllib.request import urlopen\n"
        "page = urlopen('http://203.0.113.1/answers').read()\n"
        + other.exercises[4].solution
    )
    return [
        ("right", solved(), FULL, ""),
        ("other-routes", other, FULL, ""),
        ("empty", Student(released), (0,) * 5, ""),
        ("first-three", Student(released).solve(1, 2, 3), but(ex4=0, ex5=0), ""),
        ("off-by-one", solved().wrong(1, "the position instead of the number"),
         but(ex1=0), ""),
        ("half-a-mark", solved().wrong(5, "Pearson instead of Spearman"),
         but(ex5=2), ""),
        ("syntax", solved().answer(2, "by_max = = 1"), but(ex2=0), "ex2: no Python"),
        # what does not end, or ends too much
        ("loop", solved().answer(3, LOOP), but(ex3=0), f"ex3: {STOPPED}"),
        ("stubborn-loop", solved().answer(3, STUBBORN), but(ex3=0), f"ex3: {STOPPED}"),
        ("loop-in-function", solved().answer(3, IN_FUNCTION), but(ex3=0),
         f"ex3: {STOPPED}"),
        ("two-loops", solved().answer(1, LOOP).answer(4, LOOP), but(ex1=0, ex4=0),
         f"ex4: {STOPPED}"),
        ("endless-printing", solved().answer(1, PRINTING), but(ex1=0),
         f"ex1: {STOPPED}"),
        ("all-memory", solved().answer(4, HOARD), but(ex4=0),
         "ex4: the answer "),  # took all the memory, or too long on a slow machine
        ("sys-exit", solved().answer(5, "import sys\nsys.exit(1)"), but(ex5=0), ""),
        ("os-exit", solved().answer(4, "import os\nos._exit(0)"), but(ex4=0),
         "ex4: the answer ended the kernel"),
        ("kill-the-grader", solved().answer(2, KILL), but(ex2=0),
         "ex2: the answer stopped the grader"),
        # what touches the checks
        ("deleted-checks", solved().remove(*checks), FULL, "put back"),
        ("edited-checks", edited, (0,) * 5, "put back"),
        ("raised-points", greedy, but(ex1=0), ""),
        ("deleted-setup", solved().remove(f"{CHAPTER}-setup1"), FULL, "put back"),
        ("deleted-answer", solved().remove(f"{label}2"), but(ex2=0),
         "ex2: the cell of the answer is missing"),
        ("copied-cell", copied, FULL, ""),
        ("helper-cell", helper, FULL, ""),
        # what reaches out
        ("writes-outside", solved().add(f"{label}1", f"open({OUTSIDE!r}, 'w')"), FULL,
         f"tried to write to {OUTSIDE} and was refused"),
        ("network", solved().answer(5, call_home), but(ex5=0), "ex5: tried to"),
        # what is not the notebook that was handed out
        ("wrong-kernel", julia, FULL, "julia-1.9"),
        ("renamed", solved(), FULL, "the file is called my homework (2).ipynb"),
        ("no-json", '{"cells": [', (), "cannot be read as a notebook"),
        ("another-course", Student(new_notebook(cells=[new_markdown_cell("Hello")])),
         (), "no cell of an assignment"),
        ("nothing", None, (), "no notebook was handed in"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def graded(classroom, released, tmp_path_factory):
    """The class, graded once by two workers, and how long it took."""
    folder = tmp_path_factory.mktemp("handed in")
    out = tmp_path_factory.mktemp("graded") / "out"
    for name, student, _, _ in the_class(released):
        own = folder / name
        if student is None:
            own.mkdir()
        elif isinstance(student, str):
            own.with_suffix(".ipynb").write_text(student, "utf-8")
        elif name == "renamed":
            own.mkdir()
            nbformat.write(student.notebook, own / "my homework (2).ipynb")
        else:
            nbformat.write(student.notebook, own.with_suffix(".ipynb"))
    start = time.monotonic()
    grade.grade_all(folder, out, LIMIT, 2, classroom)
    return out, time.monotonic() - start


@pytest.fixture(scope="module")
def marks(graded):
    with (graded[0] / "marks.csv").open(encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_students_get_exactly_their_marks_and_a_remark(marks, released):
    expected = the_class(released)
    assert set(marks) == {name for name, *_ in expected}
    columns = [f"{CHAPTER}_ex{n}" for n in range(1, 6)]
    wrong = []
    for name, _, points, remark in expected:
        row = marks[name]
        got = tuple(float(row[c]) for c in columns if row[c])
        if got != points or float(row["points"]) != sum(points):
            wrong.append(f"{name}: {got}, not {points}: {row['remarks']}")
        if remark not in row["remarks"]:
            wrong.append(f"{name}: {row['remarks']!r} does not say {remark!r}")
        if (
            not remark
            and name not in ("right", "empty")
            and "put back" in row["remarks"]
        ):
            wrong.append(f"{name}: {row['remarks']!r}")
    assert wrong == []


def test_the_teacher_is_told_which_notebooks_to_look_at(marks):
    assert {name for name, row in marks.items() if row["needs_review"]} == {
        "writes-outside", "network", "no-json", "another-course", "nothing",
    }  # fmt: skip


def test_the_class_is_graded_in_less_than_five_minutes(graded):
    assert graded[1] < 300


def test_nothing_was_written_outside(graded):
    assert not os.path.exists(OUTSIDE)


class Text(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.said = ""
        self.asks = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.asks += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.said += data


def test_everybody_gets_a_page_with_marks_and_messages_and_no_hidden_check(
    graded, marks
):
    for name, row in marks.items():
        page = Text((graded[0] / "feedback" / f"{name}.html").read_text("utf-8"))
        assert page.asks == []
        assert f"{row['points']} of {row['of']} points" in page.said
        assert all(remark in page.said for remark in row["remarks"].split("; "))
        for exercise in exercises.read(CHAPTER):
            for line in exercise.hidden.split("\n"):
                assert not line.startswith("assert") or line not in page.said
    off = (graded[0] / "feedback" / "off-by-one.html").read_text("utf-8")
    assert "Not half yet. One too few?" in off
    half = Text((graded[0] / "feedback" / "half-a-mark.html").read_text("utf-8")).said
    assert "with_zeros: rank correlation of the mean" in half
    assert "Not answered" in (graded[0] / "feedback" / "empty.html").read_text("utf-8")


# -- the sandbox ----------------------------------------------------------------------

REACH = """
import os, socket, sys
from tools.classroom import sandbox
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
sandbox.refuse_what_leaves(sandbox.Path(sys.argv[1]), log)
tries = [
    lambda: open("outside", "w"), lambda: os.mkdir("outside"),
    lambda: os.open("outside", os.O_CREAT), lambda: os.rename("here", "outside"),
    lambda: os.symlink("here", "outside"), lambda: os.remove("keep"),
    lambda: socket.create_connection(("203.0.113.1", 80), 1),
    lambda: socket.getaddrinfo("example.org", 80),
]
for attempt in tries:
    try:
        attempt()
    except PermissionError as error:
        assert "a graded notebook may not" in str(error)
    else:
        raise SystemExit("let through")
open(os.path.join(sys.argv[1], "inside"), "w").close()
open("keep").close()
"""


def test_the_hook_alone_refuses_writing_outside_and_other_hosts(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "keep").touch()
    run = subprocess.run(
        [sys.executable, "-c", REACH, str(tmp_path / "scratch"), str(tmp_path / "log")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(chapters.ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len((tmp_path / "log").read_text().splitlines()) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "keep", "log"}


def test_an_address_of_this_machine_is_not_refused():
    for near in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert sandbox.is_here((near, 80))
    for far in ("128.0.0.1", "localhost.example.org", "::2"):
        assert not sandbox.is_here((far, 80))
    assert sandbox.is_here("folder/socket")


# -- the commands and the kit ---------------------------------------------------------


def test_the_commands_of_the_makefile_are_the_programs_commands():
    makefile = (chapters.ROOT / "Makefile").read_text("utf-8")
    for command in ("make", "grade", "kit"):
        assert f"$(BIN)/python -m tools.classroom {command}" in makefile
        run = subprocess.run(
            [sys.executable, "-m", "tools.classroom", command, "--help"],
            cwd=chapters.ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr


def test_a_fresh_copy_makes_and_grades_as_the_teaching_page_says(tmp_path):
    """With one chapter and one student who has answered it all."""
    page = chapters.page_path("teaching").read_text("utf-8")
    for named in ("make classroom", "make grade SUBMISSIONS=folder", "`source/`"):
        assert named in page
    kit.copy_course(tmp_path / "copy", chapters.ROOT / "requirements.txt")

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", "tools.classroom", *command],
            cwd=tmp_path / "copy",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "_build/classroom/release" in run("make", CHAPTER)
    made = tmp_path / "copy" / "_build" / "classroom"
    for named in ("release", "source", "answer-key", "points.csv", "points.md"):
        assert (made / named).exists()
        assert named in page
    student = Student(nbformat.read(made / f"release/{CHAPTER}/{CHAPTER}.ipynb", 4))
    (tmp_path / "folder").mkdir()
    nbformat.write(student.solve().notebook, tmp_path / "folder" / "ada.ipynb")
    said = run("grade", "--limit", "30", str(tmp_path / "folder"))
    assert "ada: 18 of 18" in said
    assert "1 graded, 0 to review" in said
    assert "marks.csv" in page
    assert (made / "graded" / "marks.csv").exists()
    assert (made / "graded" / "feedback" / "ada.html").exists()


def test_the_teaching_page_lists_the_mistakes_of_every_chapter():
    page = chapters.page_path("teaching").read_text("utf-8")
    listed = re.findall(r"^```\{mistakes\} (\S+)$", page, re.M)
    assert sorted(listed) == sorted(chapters.teaching_chapters())


def test_the_exercises_of_a_session_fit_into_its_thirty_minutes():
    minutes = {"ten": 10, "fifteen": 15, "twenty": 20, "twenty-five": 25}
    minutes |= {"thirty": 30, "forty": 40}
    page = chapters.page_path("teaching").read_text("utf-8")
    sessions = re.split(r"^### Session \d", page, flags=re.M)[1:]
    assert len(sessions) == 6
    for number, session in enumerate(sessions, start=1):
        paragraph = re.search(r"\*\*Exercise\b.*\n.*", session)[0]
        named = re.findall(r"<(\S+_ex\d)>", paragraph.split("Without Java")[0])
        assert named, number
        asked = []
        for label in named:
            text = chapters.page_path(label.split("_ex")[0]).read_text("utf-8")
            block = text[text.index(f":label: {label}\n") :]
            asked.append(minutes[re.search(r"\*Level \d, (\S+) minutes", block)[1]])
        if "at home" in paragraph:  # the last is begun in the room
            asked.pop()
        assert sum(asked) <= 30, f"session {number}: {named} take {sum(asked)} minutes"


def tiny_wheel(folder):
    """A package of one line, as a wheel."""
    path = folder / "tiny_course-1.0-py3-none-any.whl"
    info = "tiny_course-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_course.py", "answer = 42\n")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-course\nVersion: 1.0\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_a_kit_installs_where_there_is_no_network(tmp_path, monkeypatch):
    """With one wheel for all; the real ones are a gigabyte and need an index."""
    for made in ("html", "classroom/release"):
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / made / "index.html").write_text("made")
    monkeypatch.setattr(kit, "SITE", tmp_path / "html")
    monkeypatch.setattr(kit, "CLASSROOM", tmp_path / "classroom")
    (tmp_path / "index").mkdir()
    tiny_wheel(tmp_path / "index")
    (tmp_path / "requirements.txt").write_text("tiny-course==1.0\n")
    offline = ("--no-index", "--find-links", str(tmp_path / "index"))
    kit.pack(tmp_path / "kit", tmp_path / "requirements.txt", offline)
    packed = {path.name for path in (tmp_path / "kit").iterdir()}
    assert packed >= {
        "README.md", "assignments", "course", "data", "install.py", "site", "wheels",
    }  # fmt: skip
    names = [path.name for path in (tmp_path / "kit").rglob("*")]
    assert not [
        n for n in names if n.endswith((".zip", ".inter", ".gz")) or n == "u.data"
    ]
    assert (tmp_path / "kit" / "course" / "book" / f"{CHAPTER}.md").exists()
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        apart = []  # no namespaces here: pip itself is told not to ask
    installed = subprocess.run(
        [*apart, sys.executable, tmp_path / "kit" / "install.py"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert installed.returncode == 0, installed.stderr
    assert "als_course.datasets is not ready" in installed.stdout
    python = next((tmp_path / "kit" / "venv").glob("*/python"))
    said = subprocess.run(
        [python, "-c", "import tiny_course; print(tiny_course.answer)"],
        capture_output=True,
        text=True,
    )
    assert said.stdout == "42\n"

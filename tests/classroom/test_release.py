"""What a teacher does: make the assignments, hand them out, take the room offline."""

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import nbformat
import pytest

from small_class import Student
from tools import chapters, exercises
from tools.classroom import assignments, grade, kit, release
from tools.classroom.__main__ import main
from tools.classroom.assignments import grade_id

CHAPTER = "ratings-and-sparsity"
FULL = (2, 2, 4, 4, 4)  # points of its five exercises


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
    return {grade_id(cell): cell.source for cell in notebook.cells}


# -- what is handed out ---------------------------------------------------------------


def test_students_get_tasks_stubs_hints_and_visible_checks_and_nothing_else(released):
    cells = sources(released)
    text = json.dumps(released)
    for exercise in exercises.read(CHAPTER):
        assert exercise.title in cells[f"{exercise.label}-task"]
        assert "<summary>Hint</summary>" in cells[f"{exercise.label}-task"]
        assert cells[exercise.label].startswith(exercise.stub)
        assert cells[f"{exercise.label}-visible"].endswith(exercise.check)
        assert cells[f"{exercise.label}-hidden"] == assignments.HIDDEN_NOTE
        for secret in (exercise.solution, exercise.hidden):
            longest = max(secret.split("\n"), key=len).strip()
            assert json.dumps(longest)[1:-1] not in text
    for markup in ("{ref}", "{term}", "{numref}", "```{", "BEGIN SOLUTION"):
        assert markup not in text


def test_running_all_does_not_stop_at_an_open_exercise(released):
    run = {grade_id(cell): cell.metadata.get("tags", []) for cell in released.cells}
    for exercise in exercises.read(CHAPTER):
        for name in (exercise.label, f"{exercise.label}-visible"):
            assert run[name] == ["raises-exception"]
    assert run[f"{CHAPTER}-ready"] == []


def test_a_notebook_has_a_link_a_licence_a_name_and_words_for_references():
    notebook = release.source_notebook(CHAPTER, "https://example.org/course/")
    opening, name, *_ = notebook.cells
    assert f"](https://example.org/course/book/{CHAPTER}.html)" in opening.source
    assert "CC BY 4.0" in opening.source
    assert "BSD 3-Clause" in opening.source
    assert name.source == release.NAME
    assert not name.metadata.nbgrader.locked
    said = release.plain(
        "See {eq}`damped-user-bias` and {ref}`simple-als_ex1`, {term}`fold-in`.",
        CHAPTER,
    )
    assert said.startswith("See $")
    assert f"*{release.titles()['simple-als_ex1']}*" in said
    assert "fold-in" in said


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


@pytest.mark.weekly
def test_spark_and_figures_run_in_the_sandbox(way, tmp_path):
    """Spark's set-up and a figure in the kernel of the grader, without a remark."""
    settings = grade.Settings(60, way, tmp_path / "warm")
    spark = SimpleNamespace(uses_java=True)
    program = (
        "from als_course.spark import get_spark\n"
        "with get_spark() as spark:\n"
        "    total = spark.range(5).selectExpr('sum(id)').first()[0]\n"
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2])\n"
    )
    with grade.started(spark, settings) as kernel:
        reply = kernel.ask("run", grade.SETUP, code=program)
        assert reply.get("error", ...) is None, reply
        assert [note for note in kernel.notes if note[0] != "started"] == []
        check = grade.Check("assert total == 10")
        reply = kernel.ask("check", items=check.items, names=[], start=None, keep=None)
    assert check.read(reply["results"]) == (1.0, "", True)


def test_every_chapter_with_exercises_can_be_handed_out(tmp_path):
    for name in chapters.teaching_chapters():
        notebook = release.source_notebook(name)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            words = re.sub(r"`[^`]*`|\$[^$]*\$", "", cell.source)
            assert not re.search(r"\{[a-z:]+\}`|\b[a-z]+(-[a-z]+)+_ex\d", words)
            if cell.cell_type == "code":
                compile(cell.source, name, "exec")


# -- the commands and the kit ---------------------------------------------------------


def test_the_commands_of_the_makefile_are_the_programs_commands():
    makefile = (chapters.ROOT / "Makefile").read_text("utf-8")
    for command in ("make", "grade", "marks", "rehearse", "kit"):
        assert f"$(BIN)/python -m tools.classroom {command}" in makefile
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0


@pytest.mark.weekly
def test_a_fresh_copy_makes_and_grades_as_the_teaching_page_says(way, tmp_path):
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
    student = Student(assignments.read(made, CHAPTER))
    (tmp_path / "folder").mkdir()
    nbformat.write(student.solve().notebook, tmp_path / "folder" / "ada.ipynb")
    said = run("grade", "--limit", "30", "--sandbox", way, str(tmp_path / "folder"))
    assert f"ada: {sum(FULL)} of {sum(FULL)}" in said
    assert "1 graded, 0 to review" in said
    assert "marks.csv" in page
    assert (made / "graded" / "marks.csv").exists()
    assert (made / "graded" / "feedback" / CHAPTER / "ada.html").exists()
    assert "marks.csv" in run("marks")
    run("make", CHAPTER)
    assert (made / "graded" / "marks.csv").exists(), "marks are lost"
    with zipfile.ZipFile(made / "release.zip") as packed:
        names = packed.namelist()
    assert f"release/{CHAPTER}/{CHAPTER}.ipynb" in names
    assert not [n for n in names if "answers" in n or "source/" in n]


def test_the_teaching_page_lists_the_mistakes_of_every_chapter():
    page = chapters.page_path("teaching").read_text("utf-8")
    listed = re.findall(r"^```\{mistakes\} (\S+)$", page, re.M)
    assert sorted(listed) == sorted(chapters.teaching_chapters())


def sessions():
    """The sessions of the teaching page, and their number."""
    page = chapters.page_path("teaching").read_text("utf-8")
    page = page[: page.index("## A workshop of one day")]
    parts = re.split(r"^### Session \d\. .*\n", page, flags=re.M)[1:]
    assert len(parts) == 8
    return list(enumerate(parts, start=1))


def minutes_of(label):
    """How long an exercise says that it takes."""
    minutes = {"ten": 10, "fifteen": 15, "twenty": 20, "twenty-five": 25}
    minutes |= {"thirty": 30, "forty": 40}
    text = chapters.page_path(label.split("_ex")[0]).read_text("utf-8")
    block = text[text.index(f":label: {label}\n") :]
    return minutes[re.search(r"\*Level \d, (\S+) minutes", block)[1]]


def test_the_exercises_of_a_session_fit_into_its_thirty_minutes():
    for number, session in sessions():
        paragraph = re.search(r"\*\*Exercise\b.*", session)[0]
        paragraph = re.split("Without Java|Who is done", paragraph)[0]
        named = re.findall(r"<(\S+_ex\d)>", paragraph)
        assert named, number
        asked = [minutes_of(label) for label in named]
        if "at home" in paragraph:  # the last is begun in the room
            asked.pop()
        assert sum(asked) <= 30, f"session {number}: {named} take {sum(asked)} minutes"


def test_every_session_plans_each_of_its_ninety_minutes():
    for number, session in sessions():
        rows = re.findall(r"^\| (\d+) to (\d+) \|", session, re.M)
        spans = [(int(start), int(end)) for start, end in rows]
        assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])], number
        assert spans[-1][1] == 90, number
        for word in ("**Goal.**", "**Demo**", "**Discussion", "Close with", "board"):
            assert word in session, (number, word)


def test_every_chapter_of_a_session_was_given_to_read_before():
    page = chapters.page_path("teaching").read_text("utf-8")
    letter = page[page.index("### A letter") : page.index("(teaching-sessions)=")]
    given = {"ratings-and-sparsity"}
    assert chapters.title("ratings-and-sparsity") in letter
    for number, session in sessions():
        line = re.search(r"^\*\*Chapters?\.\*\* (.*)$", session, re.M)[1]
        named = re.findall(r"\{ref\}`([\w-]+)`", line.split("A group that")[0])
        assert named, number
        assert set(named) <= given, number
        homework = re.search(r"^\*\*Homework\.\*\* (.*)$", session, re.M)[1]
        given |= set(re.findall(r"\{ref\}`([\w-]+)`", homework))


def test_the_sections_that_sessions_and_notes_name_are_there(classroom):
    notes = (classroom / "answer-key" / "sessions.md").read_text("utf-8")
    assert "{shown}" not in notes
    page = chapters.page_path("teaching").read_text("utf-8")
    shown = release.SHOWN.findall(release.SESSIONS.read_text("utf-8"))
    for name, section in shown:
        assert f"*{section}*" in page, section
        assert release.printed(name, section), section
    for text in ("**The wrong vote.**", "**Discussion"):
        assert notes.count(text) == 8
    headings = {
        heading
        for name in chapters.teaching_chapters()
        for heading in re.findall(
            r"^##+ (.+)$", chapters.page_path(name).read_text("utf-8"), re.M
        )
    }
    for _, session in sessions():
        for demo in re.findall(r"\*\*Demo\*\*, (.*)", session):
            assert re.findall(r"\*([A-Z][^*]+)\*", demo)[0] in headings, demo


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


@pytest.mark.weekly
def test_a_kit_installs_where_there_is_no_network(tmp_path, monkeypatch):
    """With one wheel for all; the real ones are a gigabyte and need an index."""
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("made")
    release.make([CHAPTER], tmp_path / "classroom")
    monkeypatch.setattr(kit, "SITE", tmp_path / "html")
    monkeypatch.setattr(kit, "CLASSROOM", tmp_path / "classroom")
    (tmp_path / "index").mkdir()
    tiny_wheel(tmp_path / "index")
    (tmp_path / "requirements.txt").write_text("tiny-course==1.0\n")
    offline = ("--no-index", "--find-links", str(tmp_path / "index"))
    kit.pack(tmp_path / "kit", tmp_path / "requirements.txt", offline)
    packed = {
        side: {path.name for path in (tmp_path / "kit" / side).iterdir()}
        for side in ("students", "teacher")
    }
    both = {"data", "install.py", "requirements.txt"}
    assert packed["students"] == both | {"assignments", "wheels"}
    assert packed["teacher"] == both | {"course", "site", "classroom"}
    names = [path.name for path in (tmp_path / "kit").rglob("*")]
    assert not [
        n for n in names if n.endswith((".zip", ".inter", ".gz")) or n == "u.data"
    ]
    assert (tmp_path / "kit/teacher/course/book" / f"{CHAPTER}.md").exists()
    secret = exercises.read(CHAPTER)[0]
    for path in (tmp_path / "kit" / "students").rglob("*"):
        if path.is_file() and path.suffix != ".whl":
            said = path.read_text("utf-8")
            assert secret.solution not in said, path
            assert secret.hidden not in said, path
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        apart = []  # no namespaces here: pip itself is told not to ask
    installed = subprocess.run(
        [*apart, sys.executable, tmp_path / "kit/students/install.py"],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert installed.returncode == 0, installed.stderr
    assert "als_course.datasets is not ready" in installed.stdout
    python = next((tmp_path / "kit/students/venv").glob("*/python"))
    said = subprocess.run(
        [python, "-c", "import tiny_course; print(tiny_course.answer)"],
        capture_output=True,
        text=True,
    )
    assert said.stdout == "42\n"

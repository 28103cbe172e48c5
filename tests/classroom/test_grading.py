"""A class is graded: honest, unlucky and cunning notebooks, each with its marks."""

import base64
import csv
import json
import os
import re
import shutil
import sys
import tempfile
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from small_class import LIMIT, Student
from tools.classroom import grade, sandbox, submissions
from tools.classroom.assignments import grade_id

ALL = (2, 4)  # points of the two exercises
LINUX = sys.platform == "linux"
STOPPED = f"was stopped after {LIMIT:g} seconds"
SECRET = "secret = 2 * counts.sum()"
LOOP = "while True:\n    pass"
STUBBORN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
WARNS = """
import logging, sys, warnings
def double(x):
    np.float64(1) / np.zeros(1)
    print("working", file=sys.stderr)
    warnings.warn("old", FutureWarning)
    logging.warning("soon")
    return 2 * x
"""
CAUGHT = "try:\n    open('/x\\n@{}', 'w')\nexcept PermissionError:\n    pass\ntotal = 6"
OWN_SHELL = "shell = get_ipython()\n"
EMPTY_CELLS = "shell.input_transformers_cleanup.append(lambda lines: ['pass\\n'])"
DISPLAY = "shell.events.register('pre_run_cell', lambda i: shell.displayhook('x'))"
NO_ASSERTS = """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.Pass()
shell.ast_transformers.append(Drop())
"""
NO_CODE = """
async def nothing(*a, **k):
    return False
shell.run_code = nothing
"""
PATCHED = "np.isclose = lambda *a, **k: True\ntotal = 17"
FALSE_NUMPY = "class np:\n    isclose = staticmethod(lambda *a: True)\ntotal = 17"
COMPILE = "import builtins\nbuiltins.compile = lambda *a, **k: None\ntotal = 17"
AGREES = """
class Agrees(int):
    def __eq__(self, other):
        return True
    def __rmul__(self, other):
        return self
total = Agrees(17)
"""
SKIPS = """
import sys
def walk(frame, event, argument):
    if frame.f_code.co_filename == '<check>':
        frame.f_lineno = frame.f_lineno + 1
    return walk
sys.settrace(walk)
"""
RUNNER = """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == 'Kernel':
        thing.step = lambda code, token: [token, '', '']
"""
FORGED = """
import os
for number in range(3, 30):
    try:
        os.write(number, b'{"id": "x", "results": []}\\n')
    except OSError:
        pass
"""
SPEAK = "raise Exception({})"
FRAMES = """
import sys
class Loud(BaseException):
    pass
def double(x):
    if x < 10:
        return 2 * x
    frame, said = sys._getframe(), []
    while frame:
        said.append(repr(frame.f_locals)[-900:])
        frame = frame.f_back
    open('/' + ''.join(said).encode().hex()[-150:], 'w')
"""
LOUD = """
import sys
def double(x):
    if x < 10:
        return 2 * x
    frame = sys._getframe(1)
    while 'request' not in frame.f_locals:
        frame = frame.f_back
    raise type('x' + str(frame.f_locals['request']), (Exception,), {})('loud')
"""
READ = """
import pathlib
said = []
for place in PLACES:
    for path in pathlib.Path(place).rglob('*'):
        try:
            said.append(path.read_text()[:5000])
        except (OSError, UnicodeDecodeError):
            pass
found = [x for x in said if 'BEGIN SOLUTION' in x or 'SECRET_OF_A_FRIEND' in x]
raise Exception(str(len(found)) + ' found')
"""


def the_class(small, outside):
    """Names, notebooks, the marks each must get, a remark, and whether to look."""
    source = small.folder / "source"

    def new():
        return Student(small.assignment)

    def solved():
        return new().solve()

    def first(code):
        return solved().answer(1, code)

    def second(code):
        return solved().answer(2, code)

    def trick(code):
        return new().add("small-ready", OWN_SHELL + code)

    checks = [f"small_ex{n}-{kind}" for n in (1, 2) for kind in ("visible", "hidden")]
    edited = first("total = 0")
    for name in checks:
        edited.cell(name).source = "assert True"
        edited.cell(name).metadata.nbgrader.update(points=1000, locked=False)
    copied = solved()
    twin = deepcopy(new().cell("small_ex1"))
    twin.id = "twin"  # as JupyterLab does; nbgrader's own name stays
    copied.notebook.cells.insert(4, twin)
    julia = solved()
    julia.notebook.metadata.kernelspec = {"name": "julia-1.9", "display_name": "Julia"}
    stripped, bare = solved(), solved()
    for cell in stripped.notebook.cells + bare.notebook.cells:
        cell.metadata = nbformat.from_dict({})
    for number, cell in enumerate(bare.notebook.cells):
        cell.id = f"c{number}"
    places = [str(source), str(small.folder)]
    reads = READ.replace("PLACES", repr(places))
    friend = first("total = 6  # SECRET_OF_A_FRIEND")
    return [
        # honest
        ("right", solved(), ALL, "", False),
        ("warns", second(WARNS), ALL, "", False),
        ("empty", new(), (0, 0), "", False),
        ("in part", second("def double(x):\n    return 4"), (2, 1), "",
         False),
        ("syntax", first("total = = 1"), (0, 4), "ex1: no Python", False),
        ("elsewhere", new().solve(2).add("small_ex2-hidden", "total = 6"), (0, 4),
         "ex1: total stands in another cell", False),
        ("overwrites", second("counts = 7\ndef double(x):\n    return 2*x"), ALL, "",
         False),
        ("printing", solved().add("small_ex1", "print('again ' * 10**7)"), ALL, "",
         False),
        ("asks", first("total = int(input())"), (0, 4), "", False),
        # what ends a cell, a kernel or a reader
        ("loop", first(LOOP), (0, 4), f"ex1: the answer {STOPPED}", False),
        ("stubborn", first(STUBBORN), (0, 4), f"answer {STOPPED}", False),
        ("loop in function", second(f"def double(x):\n    {LOOP[:-4]}  pass"),
         (2, 0), f"ex2: the answer {STOPPED}", False),
        ("all memory", first("a = bytearray(10**12)"),
         (0, 4), "ex1: the answer took all the memory" if LINUX else "", False),
        ("os-exit", second("import os\nos._exit(0)"), (2, 0),
         "ex2: the answer ended the kernel", False),
        ("sys-exit", first("import sys\nsys.exit(1)"), (0, 4), "", False),
        ("minus signs", first(f"total = {'-' * 100_000}1"), (0, 4), "",
         False),
        ("half an emoji", first("total = '\ud800'"), (0, 4), "ex1", False),
        ("at", first(CAUGHT.format("zzz")), ALL, "tried to write to", True),
        ("at-2", first(CAUGHT.format(99999)), ALL, "tried to write", True),
        # what touches the checks
        ("edited", edited, (0, 4), "put back", False),
        ("deleted", solved().remove(*checks, "small-setup1"), ALL, "put back", False),
        ("no answer", solved().remove("small_ex1"), (0, 4), "answer is missing", False),
        ("copied", copied, ALL, "", False),
        ("stripped", stripped, ALL, "marks of its cells were lost", False),
        ("bare", bare, ALL, "marks of its cells were lost", False),
        ("julia", julia, ALL, "julia-1.9", False),
        # marks without solving
        ("empty cells", trick(EMPTY_CELLS), (0, 0), "look at", True),
        ("display", trick(DISPLAY), (0, 0), "look at", True),
        ("no asserts", trick(NO_ASSERTS), (0, 0), "look at", True),
        ("no code", trick(NO_CODE), (0, 0), "look at", True),
        ("patched", new().answer(1, PATCHED), (0, 0), "numpy.isclose was changed",
         True),
        ("false numpy", new().answer(1, FALSE_NUMPY), (0, 0), "np is the chapter's",
         False),
        ("compile", new().answer(1, COMPILE), (0, 0), "compile was changed", True),
        ("agrees", new().answer(1, AGREES), None, "look at __eq__", True),
        ("skips", new().add("small_ex1", SKIPS), (0, 0), "look at", True),
        ("the runner", new().answer(1, RUNNER), (0, 0), "no marks", True),
        ("forged", first(FORGED), (0, 0), "in the kernel's place", True),
        # what reaches out, or wants to know
        ("network", first("import urllib.request as r\n"
         "total = r.urlopen('http://203.0.113.1/').read()"), (0, 4), "tried to", True),
        ("writes", solved().add("small_ex1", f"open({str(outside)!r}, 'w')"), ALL,
         "tried to write to", True),
        ("program", solved().add("small_ex1", f"!touch {outside}"), ALL,
         "started another program", True),
        ("history", second(SPEAK.format("'|'.join(In)")), (2, 0), "", False),
        ("frames", second(FRAMES), (2, 2), "tried to write to something",
         True),
        ("loud", second(LOUD), (2, 2), "", True),
        ("reads", first(reads), (0, 4), "", False),
        ("environment", first(SPEAK.format("__import__('os').environ")),
         (0, 4), "", True),
        ("friend", friend, ALL, "", False),
    ]  # fmt: skip


FILES = {
    "two characters.ipynb": "{}",
    "no cells.ipynb": '{"nbformat":4,"nbformat_minor":5}',
    "seven.ipynb": '{"cells":[{"cell_type":"code","metadata":{},"source":7}],'
    '"metadata":{},"nbformat":4,"nbformat_minor":5}',
    "no source.ipynb": '{"cells":[{"cell_type":"code","metadata":{}}],"metadata":null,'
    '"nbformat":4,"nbformat_minor":4}',
    "list.ipynb": '{"cells":[{"cell_type":"code","source":"","metadata":'
    '{"nbgrader":{"grade_id":[1]}}}],"metadata":{"kernelspec":null},'
    '"nbformat":4,"nbformat_minor":4}',
    "half.ipynb": '{"cells": [',
    "packed.zip": "PK",
}


@pytest.fixture(scope="module")
def graded(small, way, tmp_path_factory):
    """The class, graded once by two workers, and how long it took."""
    folder = tmp_path_factory.mktemp("handed in")
    out = tmp_path_factory.mktemp("graded")
    apart = "/var/tmp" if os.path.isdir("/var/tmp") else None  # /tmp is the kernel's
    outside = Path(tempfile.gettempdir() if apart is None else apart) / "als-was-here"
    outside.unlink(missing_ok=True)
    expected = the_class(small, outside)
    for name, student, *_ in expected:
        text = json.dumps(student.notebook)
        (folder / f"{name}.ipynb").write_text(text, "utf-8")
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "nothing").mkdir()
    (folder / "another course.ipynb").write_text(
        nbformat.writes(new_notebook(cells=[new_markdown_cell("Hello")])), "utf-8"
    )
    if os.name == "posix":
        os.mkfifo(folder / "pipe.ipynb")
        (folder / "link.ipynb").symlink_to("/etc/passwd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHERS_TOKEN", "SECRET_OF_A_TEACHER")
        settings = grade.Settings(
            limit=LIMIT, way=way, warm=small.folder / "warm", workers=2,
            memory=1 << 30,
        )  # fmt: skip
        begun = []
        begin = sandbox.start
        patch.setattr(sandbox, "start", lambda *given: begun.append(1) or begin(*given))
        grade.grade_all(folder, out, settings, small.folder)
    return SimpleNamespace(
        out=out,
        kernels=len(begun),
        folder=folder,
        outside=outside,
        expected=expected,
        way=way,
    )


@pytest.fixture(scope="module")
def rows(graded):
    with (graded.out / "marks.csv").open(encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_students_get_exactly_their_marks_and_a_remark(graded, rows):
    wrong = []
    for name, _, points, remark, look in graded.expected:
        if name == "reads" and graded.way == "none":
            continue  # nothing keeps it from reading
        row = rows[name]
        got = tuple(float(row[f"small_ex{n}"]) for n in (1, 2))
        if points is not None and got != points:
            wrong.append(f"{name}: {got}, not {points}: {row['remarks']}")
        if remark not in row["remarks"]:
            wrong.append(f"{name}: {row['remarks']!r} does not say {remark!r}")
        if bool(row["needs_review"]) != look:
            wrong.append(f"{name}: look is {row['needs_review']!r}: {row['remarks']}")
        if points == ALL and not remark and row["remarks"]:
            wrong.append(f"{name}: {row['remarks']!r}")
    assert "\n".join(wrong) == ""


def test_a_file_that_is_no_notebook_is_a_row_with_a_remark_and_ends_nothing(
    graded, rows
):
    names = [name.rsplit(".", 1)[0] for name in FILES if name.endswith(".ipynb")]
    names += ["packed.zip", "nothing", "another course"]
    names += ["pipe", "link"] if os.name == "posix" else []
    for name in names:
        assert rows[name]["needs_review"] == "yes", name
        assert rows[name]["remarks"], name
        assert rows[name]["points"] == "0", name
    assert len(rows) == len(graded.expected) + len(names)


def test_only_what_ends_a_kernel_costs_another(graded):
    """Starting kernels is what a class takes minutes for, on any machine."""
    enders = ("stubborn", "all memory", "os-exit", "minus signs")
    rehearsal = 1
    most = len(graded.expected) + rehearsal + len(enders)
    assert len(graded.expected) < graded.kernels <= most


def test_nothing_was_written_outside(graded):
    assert not graded.outside.exists() or graded.way == "none"


class Text(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.said, self.asks = "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.asks += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.said += data


def page(graded, name, folder="small"):
    path = graded.out / "feedback" / folder / f"{name}.html"
    return Text(path.read_text("utf-8"))


def test_everybody_gets_a_page_with_marks_and_messages(graded, rows):
    for name, row in rows.items():
        folder = "small" if row["assignment"] else "not-graded"
        shown = page(graded, name, folder)
        assert shown.asks == []
        assert f"{row['points']} of {row['of']} points" in shown.said
    assert "double of 3?" in page(graded, "in part").said
    assert "passed in part" in page(graded, "in part").said
    assert "Not answered" in page(graded, "empty").said


def test_nothing_hidden_reaches_a_page(graded):
    """As it is, in hexadecimal, in base 64, reversed; nor what is the teacher's."""
    words = [SECRET, "secret", "2 * number", "SECRET_OF_A_TEACHER"]
    words = [form for w in words for form in (w, w[::-1], w.encode().hex())]
    words += [base64.b64encode(SECRET[k:].encode()).decode()[4:16] for k in range(3)]
    for path in graded.out.glob("feedback/*/*.html"):
        said = re.sub(r"<pre.*?</pre>", "", path.read_text("utf-8"), flags=re.S)
        for word in words:
            assert word not in said, path.name
        if path.stem != "friend":
            assert "SECRET_OF_A_FRIEND" not in said
    if graded.way != "none":
        assert "0 found" in page(graded, "reads").said


def test_a_message_of_a_hidden_check_is_shown_and_no_other():
    hidden = "assert f(3) == 9, f'f({3}) is {f(3)}, not nine'\nassert g, 'no g'"
    assert grade.may_be_said("no g", hidden) == "no g"
    assert grade.may_be_said("f(3) is 8.5, not nine", hidden)
    assert grade.may_be_said("f(3) is assert f, not nine", hidden) == ""
    assert grade.may_be_said("TypeError: assert g", hidden) == (
        "it stopped with TypeError"
    )
    assert grade.may_be_said("assert g: x", hidden) == ""


def test_a_check_believes_nobody_without_its_tokens():
    check = grade.Check("assert a, 'no a'\nassert b, 'no b'")
    done = [[t, "", ""] for _, t, _, _ in check.sent]
    for place, (_, _, kind, words) in enumerate(check.sent):
        if kind == "fails":
            done[place] = [None, "AssertionError", words]
    assert check.read(done) == (1.0, "", True)
    places = [n for n, sent in enumerate(check.sent) if sent[2] == "assert"]
    done[places[1]] = [None, "AssertionError", "no b"]
    assert check.read(done) == (0.5, "no b", True)
    done[places[0]] = ["made up", "", ""]
    assert check.read(done)[0] == 0
    assert check.read(done[:-1]) == (0.0, "", False)


def test_every_check_has_an_assertion_that_must_fail_at_any_place():
    places = set()
    for _ in range(60):
        kinds = [kind for *_, kind, _ in grade.Check("assert a\nassert b").sent]
        assert "fails" in kinds
        places.add(kinds.index("fails"))
    assert len(places) > 2


# -- one of them again ----------------------------------------------------------------


def test_one_student_is_graded_again_and_the_others_keep_their_marks(
    small, graded, rows, way, tmp_path
):
    out = tmp_path / "graded"
    shutil.copytree(graded.out, out)
    (tmp_path / "in").mkdir()
    for name in ("loop", "empty"):
        better = Student(small.assignment).solve()
        nbformat.write(better.notebook, tmp_path / "in" / f"{name}.ipynb")
    settings = grade.Settings(LIMIT, way, small.folder / "warm")
    grade.grade_all(tmp_path / "in", out, settings, small.folder, student="loop")
    with (out / "marks.csv").open(encoding="utf-8-sig") as file:
        points = {row["student"]: row["points"] for row in csv.DictReader(file)}
    assert points["loop"] == "6"
    assert points["empty"] == "0"
    assert len(points) == len(rows)


# -- finding what was handed in -------------------------------------------------------


def hand_in(folder, name, notebook):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook), "utf-8")
    return path


def test_names_of_moodle_canvas_macos_and_windows_are_read(small, tmp_path):
    notebook = Student(small.assignment).solve().notebook
    hand_in(tmp_path, "Jürgen Müller_1234567_assignsubmission_file_/a.ipynb", notebook)
    hand_in(tmp_path, "meierada_LATE_12345_6789013_small-2.ipynb", notebook)
    signed = Student(small.assignment).solve()
    signed.cell("small-name").source += "Anna Blume"
    hand_in(tmp_path, "anna/r.ipynb", signed.notebook)
    hand_in(tmp_path, "anna/__MACOSX/._r.ipynb", notebook)
    hand_in(tmp_path, "anna/.ipynb_checkpoints/r-checkpoint.ipynb", notebook)
    hand_in(tmp_path, "Zoe\u0301.IPYNB", notebook)
    with_mark = hand_in(tmp_path, "bom.ipynb", notebook)
    with_mark.write_text("\ufeff" + with_mark.read_text("utf-8"), "utf-8")
    found = {s.student: s for s in submissions.find(tmp_path, small.known)}
    assert set(found) == {"Jürgen Müller", "meierada", "anna", "Zoé", "bom"}
    assert all(s.assignment == "small" for s in found.values())
    assert (found["anna"].name, found["bom"].name) == ("Anna Blume", "")
    assert found["Jürgen Müller"].identifier == "1234567"
    assert (found["meierada"].identifier, found["meierada"].late) == ("12345", True)


def test_a_name_in_an_old_encoding_is_made_readable():
    assert submissions.readable(os.fsdecode(b"M\xfcller")) in ("Müller", "Mller")


def test_the_newest_of_two_files_counts_and_the_older_is_named(small, tmp_path):
    notebook = Student(small.assignment).solve().notebook
    new = hand_in(tmp_path, "meier/a (1).ipynb", notebook)
    old = hand_in(tmp_path, "meier/a.ipynb", notebook)
    os.utime(old, (1e9, 1e9))
    os.utime(new, (2e9, 2e9))
    older, newer = sorted(submissions.find(tmp_path, small.known), key=lambda s: s.time)
    assert newer.notebook is not None
    assert older.notebook is None
    assert older.needs_review
    assert "a (1).ipynb of the same student is newer" in older.remarks[-1]


def test_answers_are_found_without_metadata_and_ids(small):
    student = Student(small.assignment).solve()
    for number, cell in enumerate(student.notebook.cells):
        cell.metadata, cell.id = nbformat.from_dict({}), f"x{number}"
    said = []
    whole = submissions.restore(student.notebook, small.assignment, said.append)
    sources = {grade_id(cell): cell.source for cell in whole.cells}
    assert [sources[t.label] for t in small.assignment.tasks] == [
        t.solution for t in small.assignment.tasks
    ]
    assert said == []

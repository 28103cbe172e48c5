"""Tables and pages: nothing that was graded is lost, and every platform reads it."""

import csv
from datetime import datetime
from types import SimpleNamespace

import pytest

from tools.classroom import marks
from tools.classroom.marks import Answer, Result, Rule, Store

LONG = "def double(x):\n    # mine\n    a_very_long_name_of_a_number = x + x\n" * 2


def result(student, ex1=2.0, ex2=4.0, code="", **more):
    answers = {
        "small_ex1": Answer("total = 6", visible=ex1 / 2, hidden=ex1 / 2),
        "small_ex2": Answer(code, visible=ex2 / 2, hidden=ex2 / 2),
    }
    given = {"assignment": "small", "time": "2026-11-03 17:00"} | more
    return Result(student, f"{student}.ipynb", answers=answers, **given)


def table(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def room(small, tmp_path):
    def open_store(rule=marks.NO_RULE):
        return Store(tmp_path, small.known, rule)

    return SimpleNamespace(open=open_store, folder=tmp_path)


def test_a_row_is_there_as_soon_as_it_is_known_and_stays_for_the_next_week(room):
    room.open().add(result("ada"))
    assert [r["student"] for r in table(room.folder / "marks.csv")] == ["ada"]
    room.open().add(result("bo", ex1=0.0))
    rows = table(room.folder / "marks.csv")
    assert [(r["student"], r["points"]) for r in rows] == [("ada", "6"), ("bo", "4")]


def test_a_second_grading_takes_the_place_of_the_first(room):
    room.open().add(Result("ada", "ada.ipynb", remarks=["cannot be read"]))
    room.open().add(result("ada", ex1=1.0))
    room.open().add(result("ada"))
    [row] = table(room.folder / "marks.csv")
    assert row["points"] == "6"


def test_corrections_and_comments_survive_and_are_said(room, capsys):
    room.open().add(result("ada", ex2=0.0))
    (room.folder / "corrections.csv").write_text(
        "\ufeffstudent;assignment;exercise;points;comment\n"
        "ada;small;small_ex2;2,5;a nice idea\n"
        "ada;small;;;see me\n"
        "ada;small;small_ex9;1;\n"
        "ada;small;small_ex1;two;\n",
        "utf-8",
    )
    room.open().write()
    room.open().add(result("ada", ex2=0.0))
    [row] = table(room.folder / "marks.csv")
    assert (row["points"], row["small_ex2"]) == ("4.5", "2.5")
    page = (room.folder / "feedback/small/ada.html").read_text("utf-8")
    assert "a nice idea" in page
    assert "see me" in page
    said = capsys.readouterr().err
    assert "no exercise 'small_ex9'" in said
    assert "'two' is no number" in said


def test_equal_answers_are_listed_and_short_ones_and_the_books_own_are_not(room):
    store = room.open()
    store.add(result("ada", code=LONG))
    store.add(result("bo", code=LONG.replace("# mine", "# my own  ")))
    store.add(result("cy", code="def double(x): return x + x"))
    store.add(result("di", code="def double(x): return x + x"))
    same = {r["student"]: r["same_as"] for r in table(room.folder / "marks.csv")}
    assert same == {"ada": "small_ex2: bo", "bo": "small_ex2: ada", "cy": "", "di": ""}


def test_handing_in_late_costs_what_the_rule_says(room):
    deadline = datetime(2026, 11, 3, 18)
    store = room.open(Rule(deadline, 10))
    store.add(result("early"))
    store.add(result("late", time="2026-11-03 18:01"))
    store.add(result("later", time="2026-11-05 17:00"))
    store.add(result("never", time="2027-11-05 17:00"))
    rows = {r["student"]: r for r in table(room.folder / "marks.csv")}
    assert [rows[n]["points"] for n in ("early", "late", "later", "never")] == [
        "6", "5.4", "4.8", "0",
    ]  # fmt: skip
    assert rows["later"]["days_late"] == "2"
    assert "1 days late" in (room.folder / "feedback/small/late.html").read_text()
    assert Rule(None, 10).days(result("canvas", late=True, time="")) == 1


def test_moodle_and_canvas_get_tables_with_ids_that_no_program_takes_for_formulas(room):
    store = room.open()
    store.add(result("=HYPERLINK(1)", identifier="12"))
    store.add(result("Zoé", ex1=1.5, identifier="34"))
    store.write()
    moodle = room.folder / "moodle-small.csv"
    assert moodle.read_bytes().startswith(b"\xef\xbb\xbf")
    first, second = table(moodle)
    assert first["Full name"] == "'=HYPERLINK(1)"
    assert (second["Identifier"], second["Grade"]) == ("Participant 34", "5.5")
    possible, _, zoe = table(room.folder / "canvas.csv")
    assert possible["small"] == "6"
    assert (zoe["ID"], zoe["small"]) == ("34", "5.5")


def test_every_result_has_a_page_of_its_own(room):
    store = room.open()
    for name in ("meier", "meier (2)", "Meier", "a/b", "..", "M\udcfcller"):
        store.add(result(name))
    store.add(Result("meier", "older.ipynb", remarks=["not graded"]))
    store.add(Result("meier", "oldest.ipynb", remarks=["not graded"]))
    store.write()
    pages = sorted(room.folder.glob("feedback/**/*.html"))
    assert len(pages) == 8
    assert len({str(page).casefold() for page in pages}) == 8
    for page in pages:
        assert page.resolve().is_relative_to(room.folder.resolve() / "feedback")
    assert {p.parent.name for p in pages} == {"small", "not-graded"}

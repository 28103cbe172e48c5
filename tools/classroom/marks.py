"""The tables and pages of a class: kept from run to run, corrected, exported.

Every result is a file of its own in `results/`; tables and pages are made from these
and from `corrections.csv`, which belongs to the teacher and is never written to.
"""

import csv
import hashlib
import json
import math
import os
import re
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from tools.classroom import feedback

CORRECTIONS = ["student", "assignment", "exercise", "points", "comment"]
SHORTEST = (
    60  # characters of an answer that can be equal to another by more than chance
)
DAY = 24 * 60 * 60


@dataclass
class Answer:
    """What became of one answer."""

    code: str = ""
    untouched: bool = False
    stopped_with: str = ""
    visible: float = 0.0
    hidden: float = 0.0
    visible_said: str = ""
    hidden_said: str = ""


@dataclass
class Result:
    """Marks of one submission, and everything that its page says."""

    student: str
    file: str
    assignment: str | None = None
    identifier: str = ""
    name: str = ""
    time: str = ""
    late: bool = False
    remarks: list[str] = field(default_factory=list)
    needs_review: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """All points together."""
        return round(sum(a.visible + a.hidden for a in self.answers.values()), 2)

    def say(self, remark: str, look: bool = False) -> None:
        """Add a remark once."""
        if remark not in self.remarks:
            self.remarks.append(remark)
        self.needs_review |= look


@dataclass(frozen=True)
class Rule:
    """What handing in late costs: percents of the points for each day begun."""

    deadline: datetime | None = None
    percent: float = 0.0

    def days(self, result) -> int:
        """Count the days begun between the deadline and the hand-in."""
        if result.late and not (self.deadline and result.time):
            return 1
        if not (self.deadline and result.time):
            return 0
        seconds = (datetime.fromisoformat(result.time) - self.deadline).total_seconds()
        return max(0, math.ceil(seconds / DAY))

    def keeps(self, result) -> float:
        """Give the share of the points that is left."""
        return max(0.0, 1 - self.percent / 100 * self.days(result))


NO_RULE = Rule()


@dataclass(frozen=True)
class Correction:
    """A line of the teacher's file; without an exercise it is a comment on all."""

    exercise: str
    points: float | None
    comment: str


def defuse(text: str) -> str:
    """Keep a spreadsheet from taking words for a formula."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_table(path: Path, rows: list[list]) -> None:
    """Write a table for spreadsheets, whole or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(
            [defuse(x) if isinstance(x, str) else x for x in row] for row in rows
        )
    os.replace(new, path)


def file_name(student: str) -> str:
    """Make a name of a file that every system takes."""
    return re.sub(r"[^\w .()-]", "_", student)[:80].strip(" .") or "student"


class Store:
    """What is known of a class, in one folder."""

    def __init__(self, folder: Path, assignments: dict, rule: Rule):
        self.folder, self.assignments, self.rule = folder, assignments, rule
        (folder / "results").mkdir(parents=True, exist_ok=True)
        self.results = {
            path: self._load(path) for path in sorted(folder.glob("results/*.json"))
        }
        if not (folder / "corrections.csv").exists():
            write_table(folder / "corrections.csv", [CORRECTIONS])
        self.corrections = self._read_corrections()
        self.pages = self._names_of_pages()

    def _load(self, path: Path):
        values = json.loads(path.read_text("utf-8"))
        values["answers"] = {k: Answer(**v) for k, v in values["answers"].items()}
        return Result(**values)

    def add(self, result) -> None:
        """Keep a result in the place of an earlier one of the same student."""
        for path, other in list(self.results.items()):
            if other.student == result.student and (
                other.file == result.file
                or bool(result.answers and other.answers)
                & (other.assignment == result.assignment)
            ):
                path.unlink()
                del self.results[path]
        key = json.dumps([result.student, result.assignment, result.file])
        number = hashlib.sha256(key.encode()).hexdigest()[:8]
        ascii_name = file_name(result.student).encode("ascii", "replace").decode()
        name = ascii_name.replace("?", "_")[:40] + f"-{number}.json"
        path = self.folder / "results" / name
        path.write_text(json.dumps(asdict(result), indent=1), "utf-8")
        self.results[path] = result
        self.pages = self._names_of_pages()
        self._write_marks()
        self._write_page(path, result)

    def write(self) -> None:
        """Write all tables and pages anew."""
        for old in self.folder.glob("feedback/*/*.html"):
            old.unlink()
        for path, result in self.results.items():
            self._write_page(path, result)
        self._write_marks()
        self._write_moodle()
        self._write_canvas()

    # -- the teacher's corrections -----------------------------------------------------

    def _read_corrections(self) -> dict[tuple, list[Correction]]:
        """Read the file; a line that cannot be read is said and left out."""
        found = defaultdict(list)
        path = self.folder / "corrections.csv"
        text = path.read_text("utf-8-sig")
        head = text.split("\n", 1)[0]
        delimiter = ";" if head.count(";") > head.count(",") else ","
        table = csv.DictReader(text.splitlines(), delimiter=delimiter)
        if missing := set(CORRECTIONS) - set(table.fieldnames or ()):
            raise SystemExit(f"{path} lacks the columns {', '.join(sorted(missing))}")
        for row in table:
            said = (row["points"] or "").strip().replace(",", ".")
            try:
                points = float(said) if said else None
            except ValueError:
                self._complain(table.line_num, f"{said!r} is no number of points")
                continue
            student = (row["student"] or "").removeprefix("'")
            if row["assignment"] not in self.assignments:
                self._complain(table.line_num, f"no assignment {row['assignment']!r}")
                continue
            labels = {t.label for t in self.assignments[row["assignment"]].tasks}
            if row["exercise"] not in labels | {""}:
                self._complain(table.line_num, f"no exercise {row['exercise']!r}")
                continue
            found[student, row["assignment"]].append(
                Correction(row["exercise"], points, row["comment"] or "")
            )
        return found

    def _complain(self, line: int, said: str) -> None:
        print(f"corrections.csv, line {line}, is left out: {said}", file=sys.stderr)

    def corrections_of(self, result) -> list[Correction]:
        """List what the teacher has said about a result."""
        return self.corrections.get((result.student, result.assignment), [])

    def points(self, result) -> dict[str, float]:
        """Give the points of each exercise, corrected."""
        points = {k: round(a.visible + a.hidden, 2) for k, a in result.answers.items()}
        for correction in self.corrections_of(result):
            if correction.exercise and correction.points is not None:
                points[correction.exercise] = correction.points
        return points

    def total(self, result) -> float:
        """Give all points of a result, after corrections and the rule for late ones."""
        return round(sum(self.points(result).values()) * self.rule.keeps(result), 2)

    def possible(self, result) -> int:
        """Give the points that there are."""
        known = self.assignments.get(result.assignment)
        return known.points if known else 0

    # -- equal answers -----------------------------------------------------------------

    def same_as(self) -> dict[int, str]:
        """Name for each result those whose answers are equal, space and notes aside."""
        groups = defaultdict(list)
        for result in self.results.values():
            known = self.assignments.get(result.assignment)
            solved = {t.label: bare(t.solution) for t in known.tasks} if known else {}
            for label, answer in result.answers.items():
                code = bare(answer.code)
                own = not answer.untouched and code != solved.get(label)
                if own and len(code) >= SHORTEST:
                    groups[label, code].append(result)
        found = defaultdict(list)
        for (label, _), results in groups.items():
            for result in results:
                others = {r.student for r in results} - {result.student}
                if others:
                    found[id(result)].append(f"{label}: {', '.join(sorted(others))}")
        return {key: "; ".join(lines) for key, lines in found.items()}

    # -- tables ------------------------------------------------------------------------

    def rows(self):
        """Give the results in the order of the table."""
        return sorted(
            self.results.values(), key=lambda r: (r.student, r.assignment or "", r.file)
        )

    def _write_marks(self) -> None:
        labels = dict.fromkeys(x for r in self.rows() for x in r.answers)
        same = self.same_as()
        head = ["student", "id", "name", "assignment", "points", "of", *labels]
        head += ["days_late", "needs_review", "same_as", "handed_in", "file", "remarks"]
        table = [head]
        for result in self.rows():
            points = self.points(result)
            comments = [c.comment for c in self.corrections_of(result) if c.comment]
            table.append(
                [
                    result.student,
                    result.identifier,
                    result.name,
                    result.assignment or "",
                    plain(self.total(result)),
                    self.possible(result),
                    *(plain(points[x]) if x in points else "" for x in labels),
                    self.rule.days(result) or "",
                    "yes" if result.needs_review else "",
                    same.get(id(result), ""),
                    result.time,
                    result.file,
                    "; ".join(
                        said.replace("; ", ", ")
                        for said in [*result.remarks, *comments]
                    ),
                ]
            )
        write_table(self.folder / "marks.csv", table)

    def _graded(self) -> dict[str, list]:
        """Sort the results that count by assignment."""
        found = defaultdict(list)
        for result in self.rows():
            if result.answers:
                found[result.assignment].append(result)
        return found

    def _write_moodle(self) -> None:
        """Write a grading worksheet for each assignment, as Moodle reads it back."""
        head = ["Identifier", "Full name", "Grade", "Maximum grade"]
        for name, results in self._graded().items():
            table = [[*head, "Feedback comments"]]
            for result in results:
                number = f"Participant {result.identifier}" if result.identifier else ""
                comments = [c.comment for c in self.corrections_of(result) if c.comment]
                grade, most = plain(self.total(result)), self.possible(result)
                table.append([number, result.student, grade, most, " ".join(comments)])
            write_table(self.folder / f"moodle-{name}.csv", table)

    def _write_canvas(self) -> None:
        """Write a table for the import of a Canvas gradebook."""
        graded = self._graded()
        head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *graded]
        possible = ["    Points Possible", "", "", "", ""]
        possible += [self.assignments[name].points for name in graded]
        people = {
            (r.student, r.identifier): None
            for results in graded.values()
            for r in results
        }
        table = [head, possible]
        for student, identifier in people:
            row = [student, identifier, "", "", ""]
            for results in graded.values():
                mine = [r for r in results if r.student == student]
                row.append(plain(self.total(mine[0])) if mine else "")
            table.append(row)
        write_table(self.folder / "canvas.csv", table)

    # -- pages -------------------------------------------------------------------------

    def _names_of_pages(self) -> dict[Path, Path]:
        """Give every result a page of its own."""
        taken, names = set(), {}
        for path, result in sorted(self.results.items()):
            folder = result.assignment if result.answers else "not-graded"
            stem = file_name(result.student)
            page, number = Path(folder, f"{stem}.html"), 1
            while str(page).casefold() in taken:
                number += 1
                page = Path(folder, f"{stem} ({number}).html")
            taken.add(str(page).casefold())
            names[path] = page
        return names

    def _write_page(self, path: Path, result) -> None:
        page = self.folder / "feedback" / self.pages[path]
        page.parent.mkdir(parents=True, exist_ok=True)
        known = self.assignments.get(result.assignment)
        said = feedback.Page(
            tasks=known.tasks if known else (),
            points=self.points(result),
            total=self.total(result),
            possible=self.possible(result),
            days=self.rule.days(result),
            percent=self.rule.percent,
            comments={c.exercise: c.comment for c in self.corrections_of(result)},
        )
        page.write_text(
            feedback.page(result, said), "utf-8", errors="xmlcharrefreplace"
        )


def plain(points: float) -> str:
    """Write points with at most two decimals."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def bare(code: str) -> str:
    """Take space and comments out of a program."""
    return re.sub(r"\s", "", re.sub(r"#.*", "", code))

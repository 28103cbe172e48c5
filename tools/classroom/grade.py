"""Grade a folder of notebooks.

The answers of a notebook run in a kernel of its own, in the sandbox of `sandbox.py`,
and after each the check that students see. The hidden checks come last, when no answer
is left that could say what they are. What an answer does to its kernel, be it an
endless loop, its end or a flood of text, costs that answer and no other.

A check hands back a token of this run for every assertion that held, and has among its
assertions some that must fail: where one of these passes, nothing of that notebook is
believed.
"""

import ast
import builtins
import json
import os
import queue
import random
import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import nbformat

from als_course.java import JavaError, find_java
from als_course.storage import cache_folder
from tools import chapters
from tools.classroom import marks, sandbox, submissions
from tools.classroom.assignments import (
    ANSWER_NOTE,
    Assignment,
    Task,
    grade_id,
    read_all,
    statements,
)
from tools.classroom.marks import Answer, Result
from tools.classroom.release import CLASSROOM
from tools.classroom.submissions import Submission

GRADED = CLASSROOM / "graded"
SETUP = 5  # the chapter's own cells may take this many times the limit of a cell
PATIENCE = 12  # a whole notebook may take this many times the limit of a cell
START = 120  # seconds until a kernel is there, or a chapter's cell is done
NOTEBOOK = 300  # seconds that any notebook may take in all
FLOOD = 20_000_000  # bytes that a kernel may send
PROCESSES = 4096  # with their threads, of one kernel
WORDS = re.compile(
    r"get_ipython|_transformers|displayhook|\bctypes\b|_getframe|currentframe|"
    r"\bsettrace|\bsetprofile|sys\.modules|sys\.monitoring|__builtins__|\bbuiltins\b|"
    r"\bf_back|\bf_globals|\bf_locals|__eq__|__bool__|__array_|\bgc\.|linecache|"
    r"ALS_SCRATCH|/proc\b|\b_?In\s*\[|\b_ih\b|\batexit\b|\bos\.(?:fork|kill|dup|write)|"
    r"\bsignal\b|\bexec\s*\(|\beval\s*\(|__import__|\bclassroom\b|__subclasses__|"
    r"AssertionError|inspect\.(?:stack|currentframe)|__main__|/dev/"
)


@dataclass(frozen=True)
class Settings:
    """How a class is graded."""

    limit: float = 60  # seconds of work for a cell
    way: str = "none"  # to build the sandbox
    warm: Path = CLASSROOM / "warm"  # what Numba has compiled for the solutions
    workers: int = 1
    memory: int = 4 << 30  # bytes that one kernel may have


class EndedError(Exception):
    """The kernel is gone, or not to be used any more; says what it did."""


# -- one kernel -----------------------------------------------------------------------


class Kernel:
    """The grader's end of a running kernel."""

    def __init__(self, process, limit: float, options: dict):
        self.process, self.limit = process, limit
        self.longest = 0.0  # seconds of work of a student's cell
        self.lines: queue.Queue = queue.Queue()
        self.notes: list[tuple[str, str]] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._send({"id": "start", **options})
        self._wait("start", START)

    def _read(self) -> None:
        """Hand over what the kernel says, up to what is too much."""
        size = 0
        with self.process.stdout as output:
            while size < FLOOD and (line := output.readline(FLOOD)):
                size += len(line)
                self.lines.put(line)
        self.lines.put(None)

    def _send(self, request: dict) -> None:
        try:
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()
        except OSError:
            raise EndedError(self.end()) from None

    def end(self) -> str:
        """Say how the process ended."""
        try:
            status = self.process.wait(timeout=1)
        except Exception:  # still there, and silent
            return "closed its connection to the grader"
        return self.too_long() if status == 86 else "ended the kernel"

    def too_long(self) -> str:
        """Say that the time is over."""
        return f"was stopped after {self.limit:g} seconds"

    def _wait(self, number: str, seconds: float) -> dict:
        """Wait for the reply with this number; keep what is said before it."""
        end = datetime.now().timestamp() + seconds
        while True:
            try:
                left = end - datetime.now().timestamp()
                line = self.lines.get(timeout=max(left, 0.01))
            except queue.Empty:
                raise EndedError(self.too_long()) from None
            if line is None:
                raise EndedError(self.end())
            try:
                said = json.loads(line)
                if "tried" in said:
                    kind, what = said["tried"]
                    self.notes.append((f"tried to {kind}", str(what)[:200]))
                elif "started" in said:
                    self.notes.append(("started", str(said["started"])[:100]))
                elif said["id"] == number:
                    return said
                else:
                    raise KeyError(number)
            except (ValueError, KeyError, TypeError):
                raise EndedError("spoke to the grader in the kernel's place") from None

    def ask(self, do: str, factor: float = 1, **request) -> dict:
        """Have something done; an empty reply if it took too long and was stopped."""
        self.notes.clear()
        number, limit = secrets.token_hex(8), self.limit * factor
        self._send({"id": number, "do": do, "limit": limit, **request})
        more = 10 if factor == 1 else START  # the chapter's cells may wait for a disk
        reply = self._wait(number, 3 * limit + more)
        if factor == 1 and isinstance(reply.get("took"), float):
            self.longest = max(self.longest, reply["took"])
        return reply


@contextmanager
def started(assignment: Assignment, settings: Settings, warm_up: bool = False):
    """Start a kernel for an assignment."""
    shown = [chapters.BOOK / "als_course", chapters.BOOK / "jobs", cache_folder()]
    if data := os.environ.get("ALS_COURSE_DATA"):
        shown.append(Path(data).absolute())
    fonts = matplotlib_cache()
    shown.append(fonts)
    settings.warm.mkdir(parents=True, exist_ok=True)
    if not warm_up:
        shown.append(settings.warm)
    if assignment.uses_java:
        with_java(shown)
    each = memory() * 4 // 5 // settings.workers
    options = {
        "copies": {"matplotlib": str(fonts), "numba": str(settings.warm)},
        "cache": str(cache_folder().absolute()),
        "memory": None if assignment.uses_java else min(settings.memory, each),
        "file": 1 << 30,
        "processes": None if settings.way == "none" else PROCESSES,
    }
    path = [str(chapters.BOOK), str(chapters.BOOK / "jobs")]
    writable = settings.warm if warm_up else None
    with sandbox.start(settings.way, shown, path, writable) as process:
        yield Kernel(process, settings.limit, options)


def with_java(shown: list[Path]) -> None:
    """Show the Java that the course would use."""
    try:
        shown.append(find_java())
    except JavaError as problem:
        raise SystemExit(f"Spark's notebooks cannot be graded: {problem}") from None


def memory() -> int:
    """Give the bytes of memory of this machine."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 8 << 30


def matplotlib_cache() -> Path:
    """Give a folder with the list of fonts, which takes seconds to make."""
    import matplotlib

    return Path(matplotlib.get_cachedir())


# -- checks ---------------------------------------------------------------------------


class Check:
    """A check as it is sent to a kernel, with its tokens and assertions that lie."""

    def __init__(self, code: str):
        self.sent: list[tuple[str, str, str, str]] = []  # code, token, kind, words
        steps = statements(code)
        first = sum(step.kind == "guard" for step in steps)
        surely = random.randint(first, len(steps))
        for place, step in enumerate([*steps, None]):
            if place == surely:
                self._add_about_numbers(holds=False)
            elif place >= first and random.random() < 0.5:
                self._add_about_numbers(holds=random.random() < 0.7)
            if step:
                self.sent.append((step.code, secrets.token_hex(8), step.kind, ""))

    def _add_about_numbers(self, holds: bool) -> None:
        """Add an assertion that holds, or not, whatever the answer is."""
        a, b = random.randint(11, 99), random.randint(11, 99)
        said = a * b + (0 if holds else random.randint(1, 9))
        words = secrets.token_hex(4)
        code = f"assert {a} * {b} == {said}, '{words}'"
        kind = "holds" if holds else "fails"
        self.sent.append((code, secrets.token_hex(8), kind, words))

    @property
    def items(self) -> list[tuple[str, str]]:
        """What the kernel gets."""
        return [(code, token) for code, token, _, _ in self.sent]

    def read(self, results: list) -> tuple[float, str, bool]:
        """Give the share that passed, the first message, and whether it was honest."""
        share, passed, said, honest, open_guard = 0, 0, "", True, False
        if len(results) != len(self.sent):
            return 0.0, "", False
        for (_, token, kind, words), (back, name, text) in zip(
            self.sent, results, strict=True
        ):
            good = back == token
            if kind == "holds":
                honest &= good
            elif kind == "fails":
                honest &= not good and name == "AssertionError" and text == words
            else:
                share += kind == "assert"
                passed += good and kind == "assert"
                open_guard |= kind == "guard" and not good
                if not good and not said:
                    said = text if name == "AssertionError" and text else ""
                    said = said or f"{name}: {text}".strip(": ")
        return (0.0 if open_guard or not share else passed / share), said, honest


def templates(code: str) -> Iterator[re.Pattern]:
    """Give what the messages of a hidden check can look like, numbers in the slots."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assert) and node.msg is not None:
            parts = (
                node.msg.values if isinstance(node.msg, ast.JoinedStr) else [node.msg]
            )
            yield re.compile(
                "".join(
                    re.escape(str(part.value))
                    if isinstance(part, ast.Constant)
                    else r"[-+\d.,e%/ \[\]()]{0,40}"
                    for part in parts
                )
            )


def may_be_said(said: str, hidden: str) -> str:
    """Keep of what a hidden check said only what the check itself can say."""
    if any(pattern.fullmatch(said) for pattern in templates(hidden)):
        return said
    kind = said.partition(":")[0]
    is_known = isinstance(getattr(builtins, kind, None), type)
    return f"it stopped with {kind}" if is_known else ""


# -- one notebook ---------------------------------------------------------------------


class Grading:
    """One notebook in one kernel after the other, until one comes to its end."""

    def __init__(self, submission, assignment, settings, result, warm_up=False):
        self.notebook, self.assignment = submission.notebook, assignment
        self.settings, self.result, self.warm_up = settings, result, warm_up
        self.tasks = {task.label: task for task in assignment.tasks}
        self.place: int | None = None
        self.stopped: set[str] = set()  # exercises whose checks took too long
        self.honest = True
        self.longest = 0.0
        limit = settings.limit
        seconds = max(NOTEBOOK, (PATIENCE + 2 * SETUP) * limit)
        self.end = datetime.now().timestamp() + seconds

    def grade(self) -> None:
        """Run the notebook, as often as an answer ends its kernel."""
        for _ in range(len(self.notebook.cells) + 1):
            self.result.answers = self.blank()
            self.place, self.stopped = None, set()
            try:
                with started(self.assignment, self.settings, self.warm_up) as kernel:
                    self.run(kernel)
                    self.longest = kernel.longest
            except EndedError as reason:
                if not self.go_on(str(reason)):
                    break
            else:
                break
        if not self.honest:
            for answer in self.result.answers.values():
                answer.visible = answer.hidden = 0.0
            self.result.say(
                "no marks: a check that must fail passed, so none can be believed", True
            )

    def blank(self) -> dict[str, Answer]:
        """Make the answers without marks."""
        sources = {grade_id(cell): cell.source for cell in self.notebook.cells}
        answers = {}
        for label, task in self.tasks.items():
            code = sources.get(label, "")
            untouched = code.replace(ANSWER_NOTE, "").strip() == task.stub
            answers[label] = Answer(code, untouched)
        return answers

    def go_on(self, reason: str) -> bool:
        """Take out what ended the kernel; whether there is sense in another run."""
        say = self.result.say
        if "in the kernel's place" in reason:
            self.honest = False
            say(f"an answer {reason}", True)
            return False
        if self.place is None:
            say("could not be graded: its kernel did not start", True)
            return False
        try:
            say(submissions.take_out(self.notebook, self.place, reason))
        except RuntimeError as problem:
            say(f"could not be graded: {problem}", True)
            return False
        if datetime.now().timestamp() > self.end:
            say("stopped: it took the time of a whole notebook", True)
            return False
        return True

    def run(self, kernel: Kernel) -> None:
        """Run all cells in their order, then the hidden checks."""
        name, begun = self.assignment.name, False
        for place, cell in enumerate(self.notebook.cells):
            self.place, role = place, grade_id(cell) or ""
            if cell.cell_type != "code" or role.endswith("-hidden"):
                continue
            if datetime.now().timestamp() > self.end:
                self.result.say("stopped: it took the time of a whole notebook", True)
                break
            own = role.startswith((f"{name}-ready", f"{name}-setup"))
            if not own and role and not begun:
                kernel.ask("begin", SETUP)
                begun = True
            if own or role.endswith("-given"):
                reply = kernel.ask("run", SETUP, code=cell.source)
                if said := reply.get("error") or reply.get("stopped"):
                    self.own_failed(role, said)
            elif role.endswith("-visible"):
                self.check(kernel, self.tasks[role.removesuffix("-visible")], "visible")
            else:
                self.answer(kernel, cell, role)
        for label, task in self.tasks.items():
            answer = self.result.answers[label]
            hopeless = answer.untouched and not answer.visible
            if not hopeless and label not in self.stopped:
                self.place = next(
                    n for n, cell in enumerate(self.notebook.cells)
                    if grade_id(cell) == f"{label}-hidden"
                )  # fmt: skip
                self.check(kernel, task, "hidden")

    def own_failed(self, role: str, said) -> None:
        """Tell that a cell which no student wrote did not do its work."""
        kind = "took too long" if said is True else f"stopped with {said[0]}"
        self.result.say(f"{role}: a cell of the chapter {kind}", True)

    def answer(self, kernel: Kernel, cell, role: str) -> None:
        """Run an answer, or a cell that was added."""
        reply = kernel.ask("run", code=cell.source)
        where = role or "a cell that was added"
        self.note(kernel, where)
        if reply.get("stopped"):
            cell.source = submissions.STOPPED.format(reason=kernel.too_long())
            what = f"{role}: the answer" if role else where
            self.result.say(f"{what} {kernel.too_long()}")
        error = reply.get("error")
        if not error:
            return
        kind, words = str(error[0]), str(error[1])
        if kind.endswith("MemoryError"):
            raise EndedError("took all the memory")
        if kind in (
            "SyntaxError",
            "IndentationError",
            "TabError",
            "UnicodeEncodeError",
        ):
            line = (
                f" in line {reply['line']}"
                if isinstance(reply.get("line"), int)
                else ""
            )
            said = words.split(" (")[0]
            self.result.say(f"{where}: no Python, {said[:100]}{line}")
        if role in self.result.answers:
            said = f"{kind}: {words}".strip(": ")
            self.result.answers[role].stopped_with = said[:200]

    def check(self, kernel: Kernel, task: Task, part: str) -> None:
        """Run one of the two checks of a task and give its points."""
        code = task.visible if part == "visible" else task.hidden
        check, answer = Check(code), self.result.answers[task.label]
        reply = kernel.ask(
            "check",
            items=check.items,
            names=self.assignment.chapters_names(code),
            start=task.label if part == "hidden" else None,
            keep=task.label if part == "visible" else None,
        )
        self.note(kernel, task.label, details=part == "visible")
        if reply.get("stopped"):
            self.result.say(f"{task.label}: the answer {kernel.too_long()}")
            answer.visible_said = answer.hidden_said = kernel.too_long()
            self.stopped.add(task.label)
            return
        share, said, honest = check.read(reply["results"])
        self.honest &= honest
        for name in reply["changed"]:
            self.result.say(
                f"{task.label}: {str(name)[:80]} was changed, and put back", True
            )
        for name in reply["replaced"]:
            self.result.say(
                f"{task.label}: {name} is the chapter's and was given another value; "
                "the check takes the chapter's"
            )
        if answer.untouched and share < 1:
            share = 0.0
        if part == "hidden" and said:
            said = may_be_said(said, task.hidden)
        setattr(answer, part, round(share * task.points, 2))
        setattr(answer, f"{part}_said", said[:500])

    def note(self, kernel: Kernel, where: str, details: bool = True) -> None:
        """Pass on what the sandbox refused; what a hidden check did, without words."""
        for kind, what in kernel.notes[:20]:
            if kind == "started":
                if not self.assignment.uses_java:
                    program = f" {what}" if details else ""
                    self.result.say(f"{where}: started another program{program}", True)
            else:
                object_ = f" {what}" if details else " something"
                self.result.say(f"{where}: {kind}{object_} and was refused", True)


def look_at_words(notebook: nbformat.NotebookNode, assignment, result: Result) -> None:
    """Point a person to what most answers do not need, and to misplaced answers."""
    known = {task.label: task for task in assignment.tasks}
    own = {}
    for number, cell in enumerate(notebook.cells):
        name = grade_id(cell)
        if cell.cell_type == "code" and (name is None or name in known):
            own[name or f"a cell that was added ({number})"] = cell.source
    given = {name: WORDS.findall(task.solution) for name, task in known.items()}
    for name, source in own.items():
        found = sorted(
            {w.strip() for w in WORDS.findall(source)} - set(given.get(name, ()))
        )
        if found:
            where = re.sub(r" \(\d+\)$", "", name)
            result.say(f"{where}: look at {', '.join(found)}", True)
    for label, task in known.items():
        if own.get(label, "").replace(ANSWER_NOTE, "").strip() != task.stub:
            continue
        for wanted in re.findall(r"^(?:def |class )?(\w+)\b", task.stub, re.M):
            there = rf"^(?:def |class )?{wanted}\b(?!.*\.\.\.$)"
            if any(
                re.search(there, source, re.M)
                for name, source in own.items() if name != label
            ):  # fmt: skip
                result.say(
                    f"{label}: {wanted} stands in another cell than that of the "
                    "answer, and is not seen there"
                )


def grade(submission: Submission, assignments: dict, settings: Settings) -> Result:
    """Grade one submission; whatever it does, the result is marks and remarks."""
    result = Result(
        student=submission.student,
        file=submissions.readable(submission.path.name) if submission.path else "",
        assignment=submission.assignment,
        identifier=submission.identifier,
        name=submission.name,
        time=f"{submission.time:%Y-%m-%d %H:%M}" if submission.time else "",
        late=submission.late,
        remarks=submission.remarks,
        needs_review=submission.needs_review,
    )
    if submission.notebook is None:
        return result
    assignment = assignments[submission.assignment]
    look_at_words(submission.notebook, assignment, result)
    grading = Grading(submission, assignment, settings, result)
    result.answers = grading.blank()
    try:
        grading.grade()
    except Exception as problem:  # one hand-in is no reason to lose the others
        result.say(f"could not be graded ({type(problem).__name__})", True)
    return result


def rehearse(assignment: Assignment, settings: Settings) -> tuple[list[str], float]:
    """Grade the book's own solutions: what they do not get, nobody can get here.

    Returns
    -------
    lines : list of str
        What went wrong.
    seconds : float
        The time of its longest cell, without which no student should be left.
    """
    notebook = nbformat.reads(nbformat.writes(assignment.release), as_version=4)
    solutions = {task.label: task.solution for task in assignment.tasks}
    for cell in notebook.cells:
        cell.source = solutions.get(grade_id(cell), cell.source)
    submission = Submission("the book", None, notebook=notebook)
    result = Result("the book", "", assignment.name)
    patient = replace(settings, limit=SETUP * settings.limit)
    grading = Grading(submission, assignment, patient, result, warm_up=True)
    grading.grade()
    found = []
    for task in assignment.tasks:
        answer = result.answers[task.label]
        if answer.visible + answer.hidden < 2 * task.points:
            why = answer.stopped_with or answer.visible_said or answer.hidden_said
            found.append(f"here the book's own solution fails: {task.title} ({why})")
    found += [f"here the book's own solution has: {x}" for x in result.remarks]
    return found, grading.longest


# -- the class ------------------------------------------------------------------------


def grade_all(
    folder: Path,
    out: Path,
    settings: Settings,
    classroom: Path = CLASSROOM,
    student: str | None = None,
    rule: marks.Rule = marks.NO_RULE,
) -> list[Result]:
    """Grade everybody, or one; write each row and page as soon as it is known."""
    assignments = read_all(classroom)
    found = submissions.find(folder, assignments)
    if student:
        found = [s for s in found if s.student == student]
        if not found:
            raise SystemExit(f"{folder} has nothing of a student called {student}")
    warnings, own = {}, {}
    for name in sorted({s.assignment for s in found if s.notebook is not None}):
        warnings[name], seconds = rehearse(assignments[name], settings)
        own[name] = replace(settings, limit=max(settings.limit, 3 * seconds))
        for line in warnings[name]:
            print(f"{name}: {line}", flush=True)
    store = marks.Store(out, assignments, rule)
    results = []
    with ThreadPoolExecutor(settings.workers) as pool:
        waiting = [
            pool.submit(grade, s, assignments, own.get(s.assignment, settings))
            for s in found
        ]
        for future in as_completed(waiting):
            result = future.result()
            for line in warnings.get(result.assignment, ()):
                result.say(line, True)
            results.append(result)
            store.add(result)
            total = assignments[result.assignment].points if result.assignment else 0
            name = result.student.encode("ascii", "backslashreplace").decode()
            print(f"{name}: {result.points:g} of {total}", flush=True)
    store.write()
    return results


def fetch_data(assignments: dict[str, Assignment]) -> None:
    """Get the data of these assignments while there is a network."""
    from als_course import datasets

    for fetch in sorted({f for each in assignments.values() for f in each.fetches}):
        getattr(datasets, fetch)()

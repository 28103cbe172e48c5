"""The exercises: each from its chapter, with the file of answers to it.

A chapter has the task, the hint, the solution and the visible checks of each of its
exercises. `book/answers/<chapter>.md` has, under a heading with the exercise's
label, what only a class and the tests need::

    ## ratings-and-sparsity_ex1

    ### Hidden checks
    ```python
    assert ...            # further asserts, other seeds, other inputs
    ```

    ### Wrong: the position, not the number
    > Not half yet          (the first words of the message that it must meet)
    ```diff
    -n_half = int(np.searchsorted(total, total[-1] / 2)) + 1
    +n_half = int(np.searchsorted(total, total[-1] / 2))
    ```

    ### Right: a loop
    ```python
    ...                   # another route to the same answer
    ```

An answer is either a whole program in a `python` fence, or a `diff` against the
chapter's solution. `### Stub` is written only where the one derived from the solution
(each name that the task asks for set to `...`, each function emptied) reads badly.
"""

import ast
import dis
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType

import nbformat

from tools import chapters

ANSWERS = chapters.BOOK / "answers"
PROGRAM = re.compile(r"^```(python|diff)\n(.*?)^```$", re.M | re.S)
POINTS_PER_LEVEL = 2  # half for the visible checks, half for the hidden ones


@dataclass(frozen=True)
class Answer:
    """An answer that somebody might give, and the message it must meet if wrong."""

    title: str
    code: str
    message: str | None = None


@dataclass
class Extras:
    """What the file of answers says of one exercise."""

    hidden: str = ""
    stub: str | None = None
    wrong: list[Answer] = field(default_factory=list)
    right: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Exercise:
    """One exercise with all its parts; `task` and `explanation` are MyST."""

    label: str
    title: str
    level: int
    time: str
    task: str
    hint: str
    given: str
    solution: str
    explanation: str
    check: str
    hidden: str
    stub: str
    wrong: tuple[Answer, ...]
    right: tuple[Answer, ...]

    @property
    def points(self) -> int:
        """Points for the visible checks; the hidden checks give as many again."""
        return self.level * POINTS_PER_LEVEL // 2


def only(found: list, what: str, where: str):
    """Return the one thing that was found."""
    if len(found) != 1:
        raise ValueError(f"{where}: one {what} is needed, found {len(found)}")
    return found[0]


@cache
def read(name: str) -> tuple[Exercise, ...]:
    """Read the exercises of a chapter, and the file of answers to them."""
    found: dict[str, dict] = {}
    for cell, kind, label, heading in chapters.pieces(chapters.read(name)):
        if kind:
            empty = {"title": heading, "exercise": [], "solution": []}
            found.setdefault(label, empty)[kind].append(cell)
    path = ANSWERS / f"{name}.md"
    solved = {
        label: chapters.code_of(shown(parts["solution"]))
        for label, parts in found.items()
    }
    extras = read_answers(path, solved) if path.exists() else {}
    return tuple(
        read_exercise(label, parts, extras.get(label, Extras()))
        for label, parts in found.items()
    )


def shown(solution: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Leave out of a solution the cell of checks, and what a reader does not see."""
    return [
        cell for cell in solution if not chapters.tags(cell) & {"check", "remove-cell"}
    ]


def read_exercise(label: str, parts: dict, extras: Extras) -> Exercise:
    """Make an exercise from the cells of its task and of its solution."""
    task, solution = chapters.as_text(parts["exercise"]), shown(parts["solution"])
    hint = only(
        [b for b in chapters.FENCE.finditer(task) if b["title"] == "Hint"],
        "hint",
        label,
    )
    level, time = only(
        re.findall(r"^\*Level (\d), (.+?)\.\*$", task, re.M),
        "line with its level",
        label,
    )
    checks = [c for c in parts["solution"] if "check" in chapters.tags(c)]
    code, asked = chapters.code_of(solution), task.replace(hint[0], "").strip("\n")
    return Exercise(
        label=label,
        title=parts["title"],
        level=int(level),
        time=time,
        task=asked,
        hint=hint["body"].strip(),
        given=chapters.code_of(parts["exercise"]),
        solution=code,
        explanation=chapters.as_text(solution),
        check=only(checks, "cell of checks", label).source.strip("\n"),
        hidden=extras.hidden,
        stub=derive_stub(code, asked) if extras.stub is None else extras.stub,
        wrong=tuple(extras.wrong),
        right=tuple(extras.right),
    )


# -- answers --------------------------------------------------------------------------


def read_answers(path: Path, solutions: dict[str, str]) -> dict[str, Extras]:
    """Read the answers to a chapter's exercises."""
    found: dict[str, Extras] = {}
    for part in re.split(r"^## ", path.read_text("utf-8"), flags=re.M)[1:]:
        label, _, rest = part.partition("\n")
        if label not in solutions:
            raise ValueError(f"{path.name}: {label} is no exercise of the chapter")
        extras = found[label] = Extras()
        for section in re.split(r"^### ", rest, flags=re.M)[1:]:
            heading, _, body = section.partition("\n")
            where = f"{path.name}: {label}: {heading}"
            kind, _, named = heading.partition(": ")
            language, code = only(PROGRAM.findall(body), "program", where)
            code = code.rstrip("\n")
            if language == "diff":
                code = apply_diff(code, solutions[label], where)
            if heading == "Hidden checks":
                extras.hidden = code
            elif heading == "Stub":
                extras.stub = code
            elif kind in ("Wrong", "Right") and named:
                message = re.search(r"^> (.+)$", body, re.M)
                if (kind == "Wrong") != bool(message):
                    raise ValueError(
                        f"{where}: a wrong answer quotes its message "
                        "after '> ', a right one has none"
                    )
                answer = Answer(named, code, message and message[1].strip())
                (extras.wrong if kind == "Wrong" else extras.right).append(answer)
            else:
                raise ValueError(
                    f"{where}: not one of 'Hidden checks', 'Stub', "
                    "'Wrong: ...', 'Right: ...'"
                )
    return found


def apply_diff(diff: str, solution: str, where: str) -> str:
    """Change the solution as a diff says; each hunk must fit in exactly one place."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        lines = [line or " " for line in hunk.strip("\n").split("\n")]
        if bad := [line for line in lines if line[0] not in "+- "]:
            raise ValueError(
                f"{where}: a line of a diff starts with + - or a space, "
                f"not as {bad[0]!r} does"
            )
        old = "\n".join(line[1:] for line in lines if line[0] != "+") + "\n"
        new = "".join(line[1:] + "\n" for line in lines if line[0] != "-")
        if (count := ("\n" + solution + "\n").count("\n" + old)) != 1:
            raise ValueError(
                f"{where}: these lines stand {count} times in the "
                f"chapter's solution, and must once:\n{old}"
            )
        solution = ("\n" + solution + "\n").replace("\n" + old, "\n" + new)[1:-1]
    return solution


# -- stubs ----------------------------------------------------------------------------


def bound(code: str) -> list[str]:
    """Names that a program gives a value, in their order; loops in lists have none."""
    steps = dis.get_instructions(compile(code, "exercise", "exec"))
    return list(dict.fromkeys(s.argval for s in steps if s.opname == "STORE_NAME"))


def free(code: str) -> set[str]:
    """Names that a program reads, in its functions too, and gives no value."""

    def read_in(part: CodeType) -> set[str]:
        steps = dis.get_instructions(part)
        found = {s.argval for s in steps if s.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
        inner = [c for c in part.co_consts if isinstance(c, CodeType)]
        return found.union(*map(read_in, inner))

    return read_in(compile(code, "exercise", "exec")) - set(bound(code))


def named(task: str) -> list[str]:
    """Pieces of code that a task has in backticks; programs in it name nothing."""
    text = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", task, flags=re.M | re.S)
    text = re.sub(r"^`{3,}.*$", "", text, flags=re.M)  # the ends of a box
    return re.findall(r"`([^`]+)`", text)


def derive_stub(solution: str, task: str) -> str:
    """Take the answers out of a solution: a program that runs and is not right.

    Imports stay, functions and classes that the task names are emptied, and its other
    names are set to `...`.
    """
    asked = {re.match(r"\w*", piece)[0] for piece in named(task)}
    source, lines, kept = solution.split("\n"), [], set()
    for node in ast.parse(solution).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.append("\n".join(source[node.lineno - 1 : node.end_lineno]))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in asked:
            lines += ["", emptied(node, source)]
            kept.add(node.name)
    empty = [f"{n} = ..." for n in bound(solution) if n in asked - kept]
    return "\n".join([*lines, *([""] if lines and empty else []), *empty]).strip()


def emptied(node: ast.FunctionDef | ast.ClassDef, source: list[str]) -> str:
    """Keep a function's or class's first lines and docstring, and no body."""
    has_docstring = ast.get_docstring(node) is not None
    last = node.body[0].end_lineno if has_docstring else node.body[0].lineno - 1
    head = "\n".join(source[node.lineno - 1 : last])
    return f'{head}\n    raise NotImplementedError("write {node.name}")'


def left_open(stub: str) -> Iterator[str]:
    """Names that a stub leaves to be given: functions, and what has a `...` in it."""
    for node in ast.parse(stub).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            parts = [
                part.value for part in ast.walk(node.value) if hasattr(part, "value")
            ]
            if ... in parts:
                yield from (t.id for t in node.targets if isinstance(t, ast.Name))


def guard(stub: str) -> str:
    """Lines for the checks that say which answer is still missing."""
    return "\n".join(
        f"assert {name} is not ..., \\\n"
        f'    "{name} is still ...: write your answer above"'
        for name in re.findall(r"^(\w+) = \.\.\.", stub, re.M)
    )

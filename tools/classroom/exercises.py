"""Read the exercises: each from its chapter, and what a page need not show beside it.

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
(each name that the checks ask for set to `...`, each function emptied) reads badly.
"""

import ast
import builtins
import contextlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
BESIDE = BOOK / "answers"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.M | re.S)
FITS = {"rating_table", "ranking_table"}  # they fit the models of their first argument
MODULES = {"np", "pd", "plt", "plots", "ax", "axes", "fig"}  # calls change nothing kept
BUILTINS = set(dir(builtins))  # `for x in zip(a, b): x.append(1)` does not change zip
SETTINGS = {"threadpool_limits", "warnings"}  # they hold for the whole program
BLOCKS = ("def ", "class ", "@", "for ", "with ", "if ")
SHOWS = {
    "head",
    "tail",
    "round",
    "describe",
    "show",
    "astype",
    "join",
    "sort_values",
    "printSchema",
    "toPandas",
}
POINTS_PER_LEVEL = 2  # half for the visible checks, half for the hidden ones


@dataclass(frozen=True)
class Answer:
    """An answer that somebody might give, and the message it must meet if wrong."""

    title: str
    code: str
    message: str | None = None


@dataclass(frozen=True)
class Exercise:
    """One exercise with all its parts."""

    label: str
    title: str
    level: int
    time: str
    task: str
    hint: str
    given: str
    solution: str
    solution_prose: str
    check: str
    hidden: str = ""
    stub: str = ""
    asked: tuple[str, ...] = ()
    wrong: tuple[Answer, ...] = ()
    right: tuple[Answer, ...] = ()

    @property
    def points(self) -> int:
        """Points for the visible checks; the hidden checks give as many again."""
        return self.level * POINTS_PER_LEVEL // 2

    def programs(self) -> list[str]:
        """Every program that may use what the chapter has defined."""
        answers = [answer.code for answer in (*self.wrong, *self.right)]
        checks = [self.check, self.hidden]
        return [
            "\n".join([self.given, code, *checks])
            for code in (self.solution, self.stub, *answers)
        ]


@dataclass(frozen=True)
class Chapter:
    """A chapter's exercises and the code they stand on."""

    name: str
    title: str
    setup: str
    sets: tuple[str, ...] = ()
    exercises: tuple[Exercise, ...] = field(default=())


# -- which names a program binds, uses and changes ------------------------------------


class Names(ast.NodeVisitor):
    """Names that statements bind, change in place, and use before they bind them."""

    def __init__(self, bound: Iterable[str] = ()) -> None:
        self.outer = set(bound)
        self.bound: dict[str, None] = {}
        self.changed: set[str] = set()
        self.free: set[str] = set()

    def visit_Name(self, node):
        """Note a name that is read or written."""
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.bound and node.id not in self.outer:
                self.free.add(node.id)
            if node.id.endswith("rng"):  # a draw changes what is drawn next
                self.changed.add(node.id)
        else:
            self.bound[node.id] = None

    def visit_Assign(self, node):
        """Read the value before the name is written."""
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node):
        """Read and write the name."""
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            if node.target.id not in self.bound:
                self.free.add(node.target.id)
            self.changed.add(node.target.id)
        self.visit(node.target)

    def visit_For(self, node):
        """Bind the target before the body; changing it changes the source."""
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)
        if names_in(node.target) & self.changed - MODULES:
            self.changed |= names_in(node.iter) - BUILTINS

    def visit_Subscript(self, node):
        """Note that an assignment to an element changes the whole."""
        if not isinstance(node.ctx, ast.Load):
            self._change(node)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript  # noqa: N815

    def visit_Call(self, node):
        """Note the functions that change what they are given."""
        if getattr(node.func, "id", None) in FITS and isinstance(
            node.args[0], ast.Name
        ):
            self.changed.add(node.args[0].id)
        self.generic_visit(node)

    def visit_Expr(self, node):
        """Note a call whose value nobody keeps: it is made for a change."""
        call = node.value
        shown = isinstance(call, ast.Call) and getattr(call.func, "attr", "") in SHOWS
        if isinstance(call, ast.Call) and not shown:
            self._change(call.func)
        self.generic_visit(node)

    def _change(self, node) -> None:
        while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
            made_here = isinstance(node, ast.Call)  # what a call gives is kept nowhere
            node = node.func if made_here else node.value
            if isinstance(node, ast.Name) and not made_here:
                self.changed.add(node.id)

    def _inner(self, parts, bound=()) -> None:
        inner = Names({*self.outer, *self.bound, *bound})
        for part in parts:
            inner.visit(part)
        self.free |= inner.free
        self.changed |= inner.changed - set(inner.bound) - set(bound)

    def _comprehension(self, node) -> None:
        values = (
            [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        )
        self._inner([*node.generators, *values])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = (  # noqa: N815
        _comprehension
    )

    def visit_comprehension(self, node):
        """Read the source before the target is bound."""
        for part in (node.iter, node.target, *node.ifs):
            self.visit(part)

    def _function(self, node) -> None:
        arguments = node.args
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        own = {a.arg for a in ast.walk(arguments) if isinstance(a, ast.arg)}
        if isinstance(node, ast.Lambda):
            self._inner([node.body], own)
            return
        for part in (*node.decorator_list, *[a for a in (node.returns,) if a]):
            self.visit(part)
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg) and argument.annotation:
                self.visit(argument.annotation)
        self.bound[node.name] = None
        self._inner(node.body, own)

    visit_FunctionDef = visit_Lambda = _function  # noqa: N815

    def visit_ClassDef(self, node):
        """Bind the name of a class; its body has names of its own."""
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self.visit(part)
        self.bound[node.name] = None
        self._inner(node.body)

    def visit_Import(self, node):
        """Bind the first part of the name, or what it is called."""
        for alias in node.names:
            self.bound[alias.asname or alias.name.split(".")[0]] = None

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_ExceptHandler(self, node):
        """Bind the name of an exception."""
        if node.name:
            self.bound[node.name] = None
        self.generic_visit(node)


def names(code: str | ast.AST) -> Names:
    """Find what the statements of a program bind, change and use."""
    found = Names()
    found.visit(ast.parse(code) if isinstance(code, str) else code)
    return found


@dataclass(frozen=True)
class Statement:
    """A statement of a chapter and what it does to names."""

    cell: int
    text: str
    node: ast.stmt
    found: Names

    @property
    def makes(self) -> set[str]:
        """Names that are others after it: bound or changed, loop variables left out."""
        loops = [n for n in ast.walk(self.node) if isinstance(n, ast.For)]
        temporary = set().union(*(names_in(loop.target) for loop in loops))
        return (set(self.found.bound) | (self.found.changed - MODULES)) - temporary

    @property
    def is_setting(self) -> bool:
        """Whether it sets what no name shows: the threads, or the warnings."""
        call = getattr(self.node, "value", None)
        return isinstance(call, ast.Call) and bool(names_in(call.func) & SETTINGS)

    @property
    def is_definition(self) -> bool:
        """Whether it only gives something a name, so that earlier values are lost."""
        kinds = (
            ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
        )
        return isinstance(self.node, kinds)


def names_in(node: ast.AST) -> set[str]:
    """All names in a piece of code."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def statements_of(cells: list[str]) -> list[Statement]:
    """Cut cells into statements, each with the comment above it."""
    found = []
    for number, cell in enumerate(cells):
        lines, end = cell.split("\n"), 0
        for node in ast.parse(cell).body:
            starts = [node.lineno, *(d.lineno for d in decorators(node))]
            first = min(starts) - 1
            while first > end and lines[first - 1].startswith("#"):
                first -= 1
            text = "\n".join(lines[first : node.end_lineno])
            found.append(Statement(number, text, node, names(node)))
            end = node.end_lineno
    return found


def needed_part(cells: list[str], wanted: set[str]) -> str:
    """Keep the statements that the wanted names depend on, in order.

    Goes backwards with the names that are still needed. Who uses a function needs what
    the function uses. Settings stay; assertions and drawings that nobody needs go.
    """
    statements = [s for s in statements_of(cells) if not isinstance(s.node, ast.Assert)]
    inside = {
        statement.node.name: statement.found.free
        for statement in statements
        if isinstance(statement.node, ast.FunctionDef | ast.ClassDef)
    }

    def with_what_they_use(found: set[str]) -> set[str]:
        todo, done = list(found), set()
        while todo:
            name = todo.pop()
            if name not in done:
                done.add(name)
                todo += inside.get(name, ())
        return done

    needed, kept = with_what_they_use(wanted), []
    for statement in reversed(statements):
        if statement.makes & needed or statement.is_setting:
            kept.append(statement)
            if statement.is_definition:
                needed -= set(statement.found.bound)
            needed |= with_what_they_use(statement.found.free)
    return joined(kept[::-1])


def joined(statements: list[Statement]) -> str:
    """Write statements as a program, with a blank line between cells."""
    text, last = "", None
    for statement in statements:
        block = statement.text.startswith((*BLOCKS, "#"))
        after_block = last is not None and last.text.startswith(BLOCKS)
        if last is not None:
            new = statement.cell != last.cell and not imports(statement.node)
            text += "\n\n" if new or block or after_block else "\n"
        text, last = text + statement.text, statement
    return text


def decorators(node: ast.AST) -> list[ast.AST]:
    """List the decorators of a function or class, which stand above it."""
    return getattr(node, "decorator_list", [])


def imports(node: ast.AST) -> bool:
    """Whether the statement is an import."""
    return isinstance(node, ast.Import | ast.ImportFrom)


# -- stubs ----------------------------------------------------------------------------


def derive_stub(solution: str, asked: Iterable[str]) -> str:
    """Take the answers out of a solution: a program that runs and is not right."""
    asked, lines, done, empty = set(asked), [], set(), []
    source = solution.split("\n")
    for node in ast.parse(solution).body:
        if imports(node):
            lines.append("\n".join(source[node.lineno - 1 : node.end_lineno]))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in asked:
            lines += ["", emptied(node, source)]
            done.add(node.name)
        else:
            for name in names(node).bound:
                if name in asked and name not in done:
                    done.add(name)
                    empty.append(f"{name} = ...")
    return "\n".join([*lines, *([""] if lines and empty else []), *empty]).strip()


def emptied(node: ast.FunctionDef | ast.ClassDef, source: list[str]) -> str:
    """Keep a function's or class's first lines and docstring, and no body."""
    body = node.body
    has_docstring = ast.get_docstring(node) is not None
    last = body[0].end_lineno if has_docstring else body[0].lineno - 1
    head = "\n".join(source[node.lineno - 1 : last])
    return f'{head}\n    raise NotImplementedError("write {node.name}")'


def asked_for(task: str, solution: str, check: str, hidden: str) -> tuple[str, ...]:
    """Names that the solution binds and that the checks or the task ask for."""
    used = names(check).free | names(hidden).free
    for inline in re.findall(r"`([^`\n]+)`", task):
        used |= set(re.findall(r"^[A-Za-z_]\w*", inline))
    functions = [n for n in ast.parse(solution).body if not imports(n)]
    bound = dict.fromkeys(name for n in functions for name in names(n).bound)
    return tuple(name for name in bound if name in used)


def guard(stub: str) -> str:
    """Lines for the checks that say which answer is still missing."""
    return "\n".join(
        f"assert {node.targets[0].id} is not ..., \\\n"
        f'    "{node.targets[0].id} is still ...: write your answer above"'
        for node in ast.parse(stub).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and node.value.value is ...
    )


# -- reading --------------------------------------------------------------------------


def without_tags(cell: str) -> tuple[str, list[str]]:
    """Split a cell into its code and its tags."""
    header = re.match(r"---\n(.*?)^---\n|((?::[^\n]*\n)+)", cell, re.M | re.S)
    if not header:
        return cell.strip("\n"), []
    found = re.search(r"tags: *\[([^\]]*)\]", header[0])
    tags = [tag.strip() for tag in found[1].split(",")] if found else []
    return cell[header.end() :].strip("\n"), tags


def code_of(text: str) -> list[tuple[str, list[str]]]:
    """List the cells in a piece of a page, each with its tags."""
    return [without_tags(cell) for cell in CELL.findall(text)]


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


def fence(body: str, kinds: str, where: str) -> tuple[str, str]:
    """Find the one code fence of a section: its kind and its text."""
    found = re.findall(rf"^```({kinds})\n(.*?)^```$", body, re.M | re.S)
    if len(found) != 1:
        raise ValueError(f"{where}: one fence ({kinds}) is needed, found {len(found)}")
    return found[0][0], found[0][1].rstrip("\n")


@dataclass
class Beside:
    """What the file beside a chapter says of one exercise."""

    hidden: str = ""
    stub: str | None = None
    wrong: list[Answer] = field(default_factory=list)
    right: list[Answer] = field(default_factory=list)


def read_beside(path: Path, solutions: dict[str, str]) -> dict[str, Beside]:
    """Read the file beside a chapter."""
    found: dict[str, Beside] = {}
    for part in re.split(r"^## ", path.read_text("utf-8"), flags=re.M)[1:]:
        label, _, rest = part.partition("\n")
        if label not in solutions:
            raise ValueError(f"{path.name}: {label} is no exercise of the chapter")
        beside = found[label] = Beside()
        for section in re.split(r"^### ", rest, flags=re.M)[1:]:
            heading, _, body = section.partition("\n")
            where = f"{path.name}: {label}: {heading}"
            kind, _, title = heading.partition(": ")
            if heading == "Hidden checks":
                beside.hidden = fence(body, "python", where)[1]
            elif heading == "Stub":
                beside.stub = fence(body, "python", where)[1]
            elif kind in ("Wrong", "Right") and title:
                language, code = fence(body, "python|diff", where)
                if language == "diff":
                    code = apply_diff(code, solutions[label], where)
                message = re.search(r"^> (.+)$", body, re.M)
                if (kind == "Wrong") != bool(message):
                    raise ValueError(
                        f"{where}: a wrong answer quotes its message "
                        "after '> ', a right one has none"
                    )
                answer = Answer(title, code, message and message[1].strip())
                (beside.wrong if kind == "Wrong" else beside.right).append(answer)
            else:
                raise ValueError(
                    f"{where}: not one of 'Hidden checks', 'Stub', "
                    "'Wrong: ...', 'Right: ...'"
                )
    return found


def split_exercises(text: str) -> list[dict]:
    """Take the exercises from the page."""
    first = r"^```\{exercise-start\} ([^\n]+)\n:label: (\S+)\n```\n"
    start = first + r"(.*?)^```\{exercise-end\}"
    found = []
    for title, label, task in re.findall(start, text, re.M | re.S):
        opening = f"```{{solution-start}} {label}\n:class: dropdown\n```\n"
        solution = text.split(opening)[1].split("```{solution-end}")[0]
        hint = re.search(
            r"^```\{admonition\} Hint\n:class: dropdown\n(.*?)^```$", task, re.M | re.S
        )
        level, time = re.search(r"^\*Level (\d), (.+?)\.\*$", task, re.M).groups()
        cells = code_of(solution)
        [check] = [code for code, tags in cells if "check" in tags]
        hidden_tags = {"check", "remove-cell"}
        found.append(
            {
                "label": label,
                "title": title,
                "level": int(level),
                "time": time,
                "task": task.replace(hint[0], "").strip("\n"),
                "hint": hint[1].strip(),
                "given": "\n\n".join(code for code, _ in code_of(task)),
                "solution": "\n\n".join(
                    code for code, tags in cells if not hidden_tags & set(tags)
                ),
                "solution_prose": without_checks(solution),
                "check": check,
            }
        )
    return found


def without_checks(solution: str) -> str:
    """Leave the cell of checks out of a solution, and what a reader does not see."""

    def keep(cell):
        hidden = {"check", "remove-cell"} & set(without_tags(cell[1])[1])
        return "" if hidden else cell[0]

    return re.sub(r"\n{3,}", "\n\n", CELL.sub(keep, solution)).strip()


@cache
def read(name: str) -> Chapter:
    """Read a chapter and the file beside it."""
    text = (BOOK / f"{name}.md").read_text("utf-8")
    body, _, tail = text.partition("\n## Exercises\n")
    parts = split_exercises(tail)
    path = BESIDE / f"{name}.md"
    solutions = {part["label"]: part["solution"] for part in parts}
    beside = read_beside(path, solutions) if path.exists() else {}
    exercises = []
    for part in parts:
        extra = beside.get(part["label"], Beside())
        asked = asked_for(part["task"], part["solution"], part["check"], extra.hidden)
        stub = extra.stub
        if stub is None:
            stub = derive_stub(part["solution"], asked)
        exercises.append(
            Exercise(
                **part,
                hidden=extra.hidden,
                stub=stub,
                asked=asked,
                wrong=tuple(extra.wrong),
                right=tuple(extra.right),
            )
        )
    wanted = set()
    for exercise in exercises:
        for program in exercise.programs():
            wanted |= names(program).free
        inline = r"(?<!\})`([A-Za-z_]\w*)"  # not the target of a role
        mentioned = set(re.findall(inline, exercise.task + exercise.hint))
        wanted |= mentioned - set(names(exercise.solution).bound)
    cells = [code for code, _ in code_of(body)]
    title = re.search(r"^# (.+)$", body, re.M)[1]
    setup = needed_part(cells, wanted)
    sets = re.findall(r"datasets\.((?:fetch|make)_\w+)", setup)
    return Chapter(name, title, setup, tuple(dict.fromkeys(sets)), tuple(exercises))


# -- running --------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of an answer: whether it ran, what each part of the checks said."""

    ran: Exception | None
    visible: Exception | None
    hidden: Exception | None
    printed: str = ""

    @property
    def right(self) -> bool:
        """Whether nothing was found."""
        return self.ran is self.visible is self.hidden is None

    @property
    def messages(self) -> str:
        """What the student reads."""
        return "\n".join(str(e) for e in (self.visible, self.hidden) if e)

    @property
    def share(self) -> float:
        """Share of the exercise's points."""
        if self.ran:
            return 0.0
        return ((self.visible is None) + (self.hidden is None)) / 2


class Room:
    """A namespace as a notebook has it, in which answers are tried one by one."""

    def __init__(self, setup: str) -> None:
        self.names = {"__name__": "__main__"}
        self._run(setup)
        self.clean = dict(self.names)

    def _run(self, code: str) -> None:
        exec(compile(code, "<exercise>", "exec"), self.names)

    def _fault(self, code: str) -> Exception | None:
        try:
            self._run(code)
        except Exception as error:
            return error
        return None

    def try_out(self, exercise: Exercise, code: str) -> Verdict:
        """Run an answer and the checks in a fresh copy of the namespace."""
        self.names.clear()
        self.names.update(self.clean)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            ran = self._fault(f"{exercise.given}\n\n{code}")
            printed_by_answer = printed.getvalue()
            visible = self._fault(f"{guard(exercise.stub)}\n{exercise.check}")
            hidden = self._fault(exercise.hidden)
        return Verdict(ran, visible, hidden, printed_by_answer)

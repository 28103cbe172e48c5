"""Read the exercises: each from its chapter, and what a page need not show beside it.

A chapter has the task, the hint, the solution and the visible checks of each of its
exercises. `book/exercises/<chapter>.md` has, under a heading with the exercise's
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
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BESIDE = BOOK / "exercises"
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.M | re.S)
FITS = {"rating_table", "ranking_table"}  # they fit the models of their first argument
SHOWS = {"head", "tail", "round", "describe", "show", "astype", "join"}
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

    def visit_Name(self, node):  # noqa: N802
        """A name that is read or written."""
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.bound and node.id not in self.outer:
                self.free.add(node.id)
            if node.id.endswith("rng"):  # a draw changes what is drawn next
                self.changed.add(node.id)
        else:
            self.bound[node.id] = None

    def visit_Assign(self, node):  # noqa: N802
        """The value is read before the name is written."""
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node):  # noqa: N802
        """The name is read and written."""
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            if node.target.id not in self.bound:
                self.free.add(node.target.id)
            self.changed.add(node.target.id)
        self.visit(node.target)

    def visit_For(self, node):  # noqa: N802
        """The target is bound before the body runs."""
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_Subscript(self, node):  # noqa: N802
        """An assignment to an element changes the whole."""
        if not isinstance(node.ctx, ast.Load):
            self._change(node)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript  # noqa: N815

    def visit_Call(self, node):  # noqa: N802
        """Some functions change what they are given."""
        if getattr(node.func, "id", None) in FITS and isinstance(node.args[0], ast.Name):
            self.changed.add(node.args[0].id)
        self.generic_visit(node)

    def visit_Expr(self, node):  # noqa: N802
        """A call whose value nobody keeps is made for what it changes."""
        call = node.value
        shown = isinstance(call, ast.Call) and getattr(call.func, "attr", "") in SHOWS
        if isinstance(call, ast.Call) and not shown:
            self._change(call.func)
        self.generic_visit(node)

    def _change(self, node) -> None:
        while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
            node = node.func if isinstance(node, ast.Call) else node.value
            if isinstance(node, ast.Name):
                self.changed.add(node.id)

    def _inner(self, parts, bound=()) -> None:
        inner = Names({*self.outer, *self.bound, *bound})
        for part in parts:
            inner.visit(part)
        self.free |= inner.free
        self.changed |= inner.changed - set(inner.bound) - set(bound)

    def _comprehension(self, node) -> None:
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._inner([*node.generators, *values])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = (  # noqa: N815
        _comprehension
    )

    def visit_comprehension(self, node):
        """The source is read before the target is bound."""
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

    def visit_ClassDef(self, node):  # noqa: N802
        """A class binds its name; its body has names of its own."""
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self.visit(part)
        self.bound[node.name] = None
        self._inner(node.body)

    def visit_Import(self, node):  # noqa: N802
        """An import binds the first part of the name, or what it is called."""
        for alias in node.names:
            self.bound[alias.asname or alias.name.split(".")[0]] = None

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_ExceptHandler(self, node):  # noqa: N802
        """An exception may have a name."""
        if node.name:
            self.bound[node.name] = None
        self.generic_visit(node)


def names(code: str | ast.AST) -> Names:
    """What the statements of a program bind, change and use."""
    found = Names()
    found.visit(ast.parse(code) if isinstance(code, str) else code)
    return found


def needed_part(cells: list[str], wanted: set[str]) -> str:
    """The statements of the cells that the wanted names depend on, in order.

    Errs on the side of keeping: all statements that bind or change a needed name stay.
    Assertions and drawings that nobody needs go.
    """
    statements = []
    for number, cell in enumerate(cells):
        lines = cell.split("\n")
        modules = {"plt", "plots", "np", "pd"}
        end = 0
        for node in ast.parse(cell).body:
            first = min([node.lineno, *(d.lineno for d in decorators(node))]) - 1
            while first > end and lines[first - 1].startswith("#"):
                first -= 1
            text = "\n".join(lines[first : node.end_lineno])
            end = node.end_lineno
            found = names(node)
            makes = set(found.bound) | (found.changed - modules)
            if not isinstance(node, ast.Assert):
                statements.append((number, text, makes, found.free, imports(node)))
    wanted, before = set(wanted), None
    while before != wanted:
        before = set(wanted)
        for _, _, makes, free, _ in statements:
            if makes & wanted:
                wanted |= free | makes if len(makes) == 1 else free
    kept: dict[int, list[str]] = {}
    for number, text, makes, _, imported in statements:
        if makes & wanted:
            lines = kept.setdefault(number, [])
            if lines and not imported:
                gap = "\n" if text.startswith(("def ", "class ", "@", "#")) else ""
                text = gap + text
            lines.append(text)
    return "\n\n".join("\n".join(lines) for lines in kept.values())


def decorators(node: ast.AST) -> list[ast.AST]:
    """Decorators of a function or class; they stand above its first line."""
    return getattr(node, "decorator_list", [])


def imports(node: ast.AST) -> bool:
    """Whether the statement is an import."""
    return isinstance(node, ast.Import | ast.ImportFrom)


# -- stubs ----------------------------------------------------------------------------


def derive_stub(solution: str, asked: Iterable[str]) -> str:
    """The solution with its answers taken out: a program that runs and is not right."""
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
    """A function or class with its first lines and docstring, and no body."""
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
        f'assert {node.targets[0].id} is not ..., \\\n'
        f'    "{node.targets[0].id} is still ...: write your answer above"'
        for node in ast.parse(stub).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and node.value.value is ...
    )


# -- reading --------------------------------------------------------------------------


def without_tags(cell: str) -> tuple[str, list[str]]:
    """The code of a cell and its tags."""
    header = re.match(r"---\n(.*?)^---\n|((?::[^\n]*\n)+)", cell, re.M | re.S)
    if not header:
        return cell.strip("\n"), []
    found = re.search(r"tags: *\[([^\]]*)\]", header[0])
    tags = [tag.strip() for tag in found[1].split(",")] if found else []
    return cell[header.end() :].strip("\n"), tags


def code_of(text: str) -> list[tuple[str, list[str]]]:
    """The cells in a piece of a page, each with its tags."""
    return [without_tags(cell) for cell in CELL.findall(text)]


def apply_diff(diff: str, solution: str, where: str) -> str:
    """Change the solution as a diff says; each hunk must fit in exactly one place."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        lines = [line or " " for line in hunk.strip("\n").split("\n")]
        if bad := [line for line in lines if line[0] not in "+- "]:
            raise ValueError(f"{where}: a line of a diff starts with + - or a space, "
                             f"not as {bad[0]!r} does")
        old = "\n".join(line[1:] for line in lines if line[0] != "+") + "\n"
        new = "".join(line[1:] + "\n" for line in lines if line[0] != "-")
        if (count := ("\n" + solution + "\n").count("\n" + old)) != 1:
            raise ValueError(f"{where}: these lines stand {count} times in the "
                             f"chapter's solution, and must once:\n{old}")
        solution = ("\n" + solution + "\n").replace("\n" + old, "\n" + new)[1:-1]
    return solution


def fence(body: str, kinds: str, where: str) -> tuple[str, str]:
    """The one code fence of a section: its kind and its text."""
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
                    raise ValueError(f"{where}: a wrong answer quotes its message "
                                     "after '> ', a right one has none")
                answer = Answer(title, code, message and message[1].strip())
                (beside.wrong if kind == "Wrong" else beside.right).append(answer)
            else:
                raise ValueError(f"{where}: not one of 'Hidden checks', 'Stub', "
                                 "'Wrong: ...', 'Right: ...'")
    return found


def split_exercises(text: str) -> list[dict]:
    """The exercises as the page has them."""
    start = r"^```\{exercise-start\} ([^\n]+)\n:label: (\S+)\n```\n(.*?)^```\{exercise-end\}"
    found = []
    for title, label, task in re.findall(start, text, re.M | re.S):
        opening = f"```{{solution-start}} {label}\n:class: dropdown\n```\n"
        solution = text.split(opening)[1].split("```{solution-end}")[0]
        hint = re.search(r"^```\{admonition\} Hint\n:class: dropdown\n(.*?)^```$", task,
                         re.M | re.S)
        level, time = re.search(r"^\*Level (\d), (.+?)\.\*$", task, re.M).groups()
        cells = code_of(solution)
        [check] = [code for code, tags in cells if "check" in tags]
        hidden_tags = {"check", "remove-cell"}
        found.append({
            "label": label, "title": title, "level": int(level), "time": time,
            "task": task.replace(hint[0], "").strip("\n"), "hint": hint[1].strip(),
            "given": "\n\n".join(code for code, _ in code_of(task)),
            "solution": "\n\n".join(
                code for code, tags in cells if not hidden_tags & set(tags)),
            "solution_prose": without_checks(solution), "check": check,
        })
    return found


def without_checks(solution: str) -> str:
    """The solution as a reader sees it, less the cell of checks."""
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
        exercises.append(Exercise(
            **part, hidden=extra.hidden, stub=stub, asked=asked,
            wrong=tuple(extra.wrong), right=tuple(extra.right)))
    wanted = set()
    for exercise in exercises:
        for program in exercise.programs():
            wanted |= names(program).free
        inline = r"(?<!\})`([A-Za-z_]\w*)"  # not the target of a role
        wanted |= set(re.findall(inline, exercise.task + exercise.hint))
    cells = [code for code, _ in code_of(body)]
    title = re.search(r"^# (.+)$", body, re.M)[1]
    setup = needed_part(cells, wanted)
    sets = re.findall(r"datasets\.((?:fetch|make)_\w+)", setup)
    return Chapter(name, title, setup, tuple(dict.fromkeys(sets)), tuple(exercises))


# -- running --------------------------------------------------------------------------


class Room:
    """A namespace as a notebook has it, in which answers are tried one by one."""

    def __init__(self, setup: str) -> None:
        self.names = {"__name__": "__main__"}
        exec(compile(setup, "<setup>", "exec"), self.names)
        self.clean = dict(self.names)

    def fault(self, *programs: str) -> BaseException | None:
        """Run the programs one after the other; what the first failing one raised."""
        for number, program in enumerate(programs):
            try:
                exec(compile(program, f"<program {number}>", "exec"), self.names)
            except Exception as error:
                error.program = number
                return error
        return None

    def reset(self) -> None:
        """Forget what the answers have bound."""
        self.names.clear()
        self.names.update(self.clean)

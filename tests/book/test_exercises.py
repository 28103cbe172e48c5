"""Exercises teach and check: what is right passes, what is wrong meets its message."""

import ast
import re
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from threadpoolctl import threadpool_limits

from alterations import alterations, same
from namespace import Namespace, fit_each_once, fit_spark_once
from tools import chapters, exercises

# Results that checks need not refuse when altered, each with the reason.
ALLOWED = tomllib.loads(Path(__file__).with_name("altered_results.toml").read_text())
# These take half an hour together, so `make weekly` tries their answers. Each push runs
# their solutions and checks, hidden ones too, in the comparison of stored outputs.
SLOW = {
    "als-dialects",
    "baselines-and-evaluation",
    "counts",
    "fast-als",
    "implicit-als",
    "kernels-and-roofline",
    "large-ranks",
    "museum",
    "nightly-loop",
    "post-mortem",
    "rank-and-regularisation",
    "ranking-evaluation",
    "serving",
    "simple-als",
    "spark-als",
    "spark-cluster",
    "spark-operations",
    "splits-and-lists",
    "state-of-the-art",
    "stochastic-gradient",
    "what-the-factors-found",
    "when-to-use-als",
}


@pytest.fixture
def in_the_book(monkeypatch):
    """Chapters run in `book`, and draw without a screen."""
    monkeypatch.chdir(chapters.BOOK)
    plt.switch_backend("agg")
    fit_each_once(monkeypatch)
    with threadpool_limits():  # puts back what a chapter sets
        yield


def printed_in_the_chapter(name, exercise):
    """What the stored notebook has for the cells of a task and its solution."""
    stored = nbformat.read(chapters.stored_path(name, chapters.REAL), 4)
    return "".join(
        output.text
        for cell in stored.cells
        for output in cell.outputs
        if cell.source in f"{exercise.given}\n\n{exercise.solution}"
        and output.get("name") == "stdout"
    )


def altered_results(answered, exercise):
    """What mistakes make of each result of a solution, and of each two exchanged."""
    words = set(re.findall(r"\w+", " ".join(exercises.named(exercise.task))))
    asked = list(exercises.left_open(exercise.stub))
    for place, name in enumerate(asked):
        value = answered[name]
        for what, altered in alterations(value, lambda column: str(column) in words):
            yield f"{name} {what}", {name: altered}
        for other in asked[place + 1 :]:
            if type(value) is type(answered[other]) and not (
                callable(value) or same(value, answered[other])
            ):
                changes = {name: answered[other], other: value}
                yield f"{name} and {other} exchanged", changes


def not_refused(namespace, exercise):
    """Altered results of the solution, which was tried last, that no check refuses."""
    for what, changes in altered_results(dict(namespace.answered), exercise):
        if namespace.passes(exercise, changes) and all(
            getattr(value, "used", True) for value in changes.values()
        ):
            yield what


def faults(namespace, name, exercise):
    """Everything that is not as it should be with one exercise."""
    stub = namespace.try_out(exercise, exercise.stub)
    if stub.ran:
        yield f"the stub does not run: {stub.ran!r}"
    if stub.visible is None or stub.hidden is None:
        yield "the stub passes a part of the checks"
    for answer in exercise.wrong:
        tried = namespace.try_out(exercise, answer.code)
        if tried.ran:
            yield f"{answer.title}: does not run: {tried.ran!r}"
        elif answer.message not in tried.messages:
            yield f"{answer.title}: meets {tried.messages!r}, not {answer.message!r}"
    for answer in exercise.right:
        tried = namespace.try_out(exercise, answer.code)
        if not tried.right:
            yield f"{answer.title}: {tried.ran!r} {tried.messages!r}"
    # The solution is last: if an answer before it has changed the data, it shows.
    solution = namespace.try_out(exercise, exercise.solution)
    if not solution.right:
        yield f"the solution: {solution.ran!r} {solution.messages!r}"
    if chapters.have_real_data(name) and solution.printed != printed_in_the_chapter(
        name, exercise
    ):
        yield "the solution prints other things than in the chapter"
    allowed = ALLOWED.get(exercise.label, {})
    missed = list(not_refused(namespace, exercise))
    yield from (f"no check refuses: {what}" for what in missed if what not in allowed)
    yield from (f"is refused after all: {what}" for what in allowed.keys() - missed)


# A wrong answer may divide by zero, and no figure has a screen here.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.weekly] if name in SLOW else [])
        for name in chapters.teaching_chapters()
    ],
)
def test_right_answers_pass_and_stubs_and_wrong_ones_meet_their_message(
    name, in_the_book, monkeypatch
):
    namespace, found = Namespace(chapters.setup_cells(name)), []
    if "spark" in namespace.clean:
        fit_spark_once(monkeypatch)
    for exercise in exercises.read(name):
        found += [f"{exercise.label}: {f}" for f in faults(namespace, name, exercise)]
        plt.close("all")
    if "spark" in namespace.clean:
        namespace.clean["spark"].stop()
    assert found == []


def test_each_stub_leaves_something_open_that_is_refused():
    for name in chapters.teaching_chapters():
        for exercise in exercises.read(name):
            refused = re.findall(r"assert (\w+) is not", exercises.guard(exercise.stub))
            refused += [
                node.name
                for node in ast.parse(exercise.stub).body
                if isinstance(node, ast.FunctionDef)
                and "NotImplementedError" in ast.unparse(node)
            ]
            asked = set(exercises.left_open(exercise.stub))
            assert asked & set(refused), exercise.label


def test_a_stub_keeps_names_signatures_and_docstrings_and_no_answer():
    solution = (
        "from scipy import sparse\n\n"
        'def cost(n: int) -> int:\n    """Cost of n."""\n    return 7 * n\n\n'
        "helper = 3\nbreak_even, other = helper / 7, 1"
    )
    task = "Write `cost(n)`, and store in `break_even` where both are equal."
    stub = exercises.derive_stub(solution, task)
    assert stub == (
        "from scipy import sparse\n\n"
        'def cost(n: int) -> int:\n    """Cost of n."""\n'
        '    raise NotImplementedError("write cost")\n\n'
        "break_even = ..."
    )
    assert "7" not in stub


@pytest.mark.parametrize(
    ("diff", "said"),
    [
        ("-b = 3\n+b = 4", "stand 0 times"),
        ("-a = 1\n+a = 2", "stand 2 times"),
        ("b = 2", "starts with"),
    ],
)
def test_a_diff_that_does_not_fit_its_solution_says_so(diff, said):
    with pytest.raises(ValueError, match=said):
        exercises.apply_diff(diff, "a = 1\nb = 2\na = 1", "page: ex")
    assert exercises.apply_diff("-b = 2\n+b = 3", "a = 1\nb = 2", "") == "a = 1\nb = 3"

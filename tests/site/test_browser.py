"""Every page in a browser: complete, quiet, light, and open to every reader."""

import asyncio
import base64
import gzip
import io
import json
import re
from itertools import pairwise
from urllib.parse import quote, urlsplit

import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from playwright.sync_api import sync_playwright

import browser
from als_course import datasets, metrics
from tools import chapters

pytestmark = pytest.mark.skipif(
    not browser.CHROMIUM, reason="install chromium to test the site in a browser"
)
CHAPTER = f"book/{chapters.teaching_chapters()[0]}.html"
HOME = "book/index.html"
SEARCH = "search.html"


@pytest.fixture(scope="session")
def visits():
    """What the browser saw of each page."""
    return asyncio.run(browser.visit_all())


@pytest.fixture(params=browser.paths(), ids=lambda path: path.removeprefix("book/"))
def seen(request, visits):
    return visits[request.param]


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=browser.CHROMIUM, args=browser.ARGUMENTS
        )
        yield running
        running.close()


@pytest.fixture
def page(chromium):
    with browser.served() as base:
        context = chromium.new_context(base_url=base)
        yield context.new_page()
        context.close()


def test_nothing_is_asked_of_another_host(seen):
    hosts = {urlsplit(url).hostname for url in seen["requests"]}
    assert hosts - {None, "127.0.0.1"} == set()
    schemes = {urlsplit(url).scheme for url in seen["file requests"]}
    assert schemes - {"file", "data"} == set()


def test_no_error_under_a_sub_path(seen):
    assert seen["troubles"] == []
    assert all(
        urlsplit(u).path.startswith("/als/")
        for u in seen["requests"]
        if u[:4] == "http"
    )


def test_no_error_from_a_file(seen):
    assert seen["from file"] == []
    assert len(seen["file requests"]) > 5


def test_formulas_pictures_and_tables_are_complete(seen):
    for facts in (seen, seen["opened"]):
        assert facts["untypeset"] == 0
        assert facts["flatFormulas"] == []
        assert facts["bareTables"] == 0
        assert facts["brokenPictures"] == []


@pytest.fixture(scope="session")
def shapes():
    """The characters that the icon fonts in the style sheet have a shape for."""
    sheet = browser.SITE / "_static" / "styles" / "pydata-sphinx-theme.css"
    fonts = re.findall(r"url\(data:font/woff2;base64,([^)]+)\)", sheet.read_text())
    packed = [TTFont(io.BytesIO(base64.b64decode(font))) for font in fonts]
    return set().union(*(font.getBestCmap() or () for font in packed if "cmap" in font))


def test_every_icon_has_its_shape(seen, shapes):
    icons = {tuple(icon) for facts in (seen, seen["opened"]) for icon in facts["icons"]}
    assert icons
    assert {font for _, font in icons} == {'"Font Awesome 6 Free"'}
    assert {hex(code) for code, _ in icons if code not in shapes} == set()


def test_headings_are_in_order(seen):
    levels = seen["opened"]["headings"]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), levels


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(seen, scheme):
    assert seen[scheme] == []


def test_no_page_scrolls_sideways(seen):
    assert seen["sticking out"] == []


def test_a_phone_cuts_no_number_and_no_code_of_a_box(seen):
    assert seen["cut up"] == []


def test_nothing_moves_while_a_page_loads(seen):
    assert seen["shift"] < 0.01


def file_of(url: str):
    """The file of the site that an address leads to."""
    return browser.SITE / urlsplit(url).path.removeprefix("/als/")


def packed(path) -> int:
    """Bytes of a file as web servers send it."""
    return len(gzip.compress(path.read_bytes(), 6))


def test_a_first_visit_and_the_next_are_light(visits):
    known = set()
    for path, seen in visits.items():
        page = browser.SITE / path
        asked = {file_of(u) for u in seen["requests"] if u.startswith("http")}
        names = re.findall(r'src="\.\./(_images/[^"]+)"', page.read_text("utf-8"))
        later = {browser.SITE / name for name in names}  # as the reader scrolls down
        assert sum(f.stat().st_size for f in asked | later) < 1_500_000, path
        if known:
            new = (asked | later) - known
            assert sum(f.stat().st_size for f in new) < 300_000, path
            assert sum(map(packed, new)) < 100_000, path
        known = asked


# -- what a reader does ----------------------------------------------------------------

FOCUSABLE = "a[href], button, summary, input, select, textarea, [tabindex='0']"
VISIBLE = f"""() => [...document.querySelectorAll(`{FOCUSABLE}`)].filter(e =>
  !e.disabled && e.tabIndex >= 0 && e.checkVisibility({{visibilityProperty: true}})
  && !e.closest('dialog:not([open])') && e.getClientRects().length)
  .filter((e, n, all) => e.type !== "radio"  // Tab stops once in a group of these
    || all.find(other => other.name === e.name) === e)
  .map((e, n) => (e.dataset.n = n))"""
FOCUSED = """() => {
  const e = document.activeElement, s = getComputedStyle(e);
  return [e.dataset.n ?? null, s.outlineStyle !== "none" || s.boxShadow !== "none",
          e.outerHTML.slice(0, 150)];
}"""


@pytest.mark.parametrize("path", [HOME, CHAPTER, SEARCH])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(page, path):
    page.goto(path)
    page.wait_for_load_state("load")
    expected = {str(n) for n in page.evaluate(VISIBLE)}
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.parentElement.className")
    reached = set()
    for _ in range(len(expected) + 20):
        number, visible, html = page.evaluate(FOCUSED)
        if number is not None:
            assert visible, f"no sign of the focus on {html}"
            reached.add(number)
        page.keyboard.press("Tab")
    left = expected - reached
    lost = [page.evaluate("n => document.querySelector(`[data-n='${n}']`).outerHTML", n)
            for n in sorted(left)]  # fmt: skip
    assert lost == []


def test_the_skip_link_leads_to_the_content(page):
    page.goto(CHAPTER)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#main-content", timeout=10_000)


def test_a_term_shows_its_meaning_to_pointer_and_keyboard(page):
    page.goto(CHAPTER)
    term = page.locator('.bd-article p > a[href*="#term-"]').first
    card = page.locator(f"#{term.get_attribute('aria-describedby')}")
    assert not card.is_visible()
    term.hover()
    assert card.is_visible()
    assert len(card.inner_text()) > 20
    card.hover()
    page.wait_for_timeout(300)
    assert card.is_visible(), "a card stays while the pointer is on it"
    page.keyboard.press("Escape")
    assert not card.is_visible()
    term.focus()
    assert card.is_visible()
    box = card.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]


# What a reader types, and the page that must come first.
QUESTIONS = {
    "evaluation": "ranking-evaluation",
    "how do I evaluate a recommender": "ranking-evaluation",
    "nDCG": "ranking-evaluation",
    "implicit feedback": "implicit-als",
    "confidence": "implicit-als",
    "regularisation": "rank-and-regularisation",
    "regularization": "rank-and-regularisation",
    "how many factors should I use?": "rank-and-regularisation",
    "overfitting": "rank-and-regularisation",
    "cold start": "splits-and-lists",
    "train test split": "splits-and-lists",
    "matrix factorization": "factorising-by-hand",
    "gradient descent": "factorising-by-hand",
    "how do I run Spark": "spark-als",
    "run on a cluster": "spark-cluster",
    "spark submit": "spark-operations",
    "is Spark faster than NumPy?": "one-machine-or-cluster",
    "why does ALS lose to the mean": "post-mortem",
    "Numba": "fast-als",
    "sparse matrix": "ratings-and-sparsity",
    "common mistakes": "museum",
    "when to use ALS": "when-to-use-als",
    "download MovieLens": "datasets",
    "teach a class": "teaching",
    "leakage": "baselines-and-evaluation",
    "noise floor": "what-the-factors-found",
    "API": "library",
}
RESULTS = "#search-results li a"


def found_by(page, words: str) -> list[str]:
    """Search for words and return the pages found, the first result first."""
    page.goto(f"{SEARCH}?q={quote(words)}")
    page.wait_for_selector("#search-results .search-summary:not(:empty)")
    links = page.locator(RESULTS)
    found = [links.nth(n).get_attribute("href") for n in range(links.count())]
    return [re.sub(r".*/|\.html.*", "", href) for href in found]


@pytest.mark.parametrize("words", QUESTIONS)
def test_the_search_leads_to_the_chapter_that_answers(page, words):
    assert found_by(page, words)[:1] == [QUESTIONS[words]]


def test_every_page_that_the_search_puts_first_is_there():
    script = (chapters.BOOK / "_static" / "search.js").read_text("utf-8")
    named = re.findall(r'^    "book/([\w-]+)": \[', script, re.M)
    assert len(named) > 20
    assert set(named) <= set(chapters.pages())


@pytest.mark.parametrize(
    "pair", [("regularised", "regularized"), ("factorisation", "factorizations")]
)
def test_both_spellings_find_the_same_pages(page, pair):
    british, american = (set(found_by(page, word)) for word in pair)
    assert british == american != set()


def test_the_beginning_of_a_word_and_words_of_different_pages_find_pages(page):
    assert "spark-als" in found_by(page, "pyspa")
    assert found_by(page, "spark museum hypothesis zebra")
    assert found_by(page, "qqzz") == []


def test_a_found_formula_is_no_soup_and_small_words_are_not_marked(page):
    found_by(page, "how do I minimise the objective of ALS")
    page.wait_for_selector("#search-results p.context")
    page.wait_for_timeout(500)
    assert "⊤" not in page.locator("#search-results").inner_text()
    marked = {t.lower() for t in page.locator(".highlighted").all_inner_texts()}
    assert marked
    assert marked <= {"minimise", "objective", "als"}


def test_marks_are_in_the_text_and_only_for_who_comes_from_the_search(page):
    found_by(page, "how do I run Spark")
    page.locator(RESULTS).first.click()
    page.wait_for_selector(".bd-article .highlighted")
    marks = page.locator(".highlighted")
    assert {t.lower() for t in marks.all_text_contents()} <= {"run", "spark"}
    assert marks.count() == page.locator(".bd-article .highlighted").count()
    found_by(page, "matrix")
    page.goto(CHAPTER)
    page.wait_for_timeout(200)
    assert marks.count() == 0


def test_the_icon_of_the_search_does_not_lie_on_the_text(page):
    page.goto(SEARCH)
    icon = page.locator(".bd-search-container .fa-magnifying-glass").bounding_box()
    field = page.locator(".bd-search-container input").bounding_box()
    assert icon["width"] > 5
    assert icon["x"] + icon["width"] <= field["x"] + 1


def test_search_works_from_a_file_without_an_error(chromium):
    page = chromium.new_page()
    said = []
    page.on("console", lambda m: m.type in ("error", "warning") and said.append(m.text))
    page.goto((browser.SITE / SEARCH).as_uri() + "?q=sparsity")
    page.wait_for_selector(RESULTS, timeout=10_000)
    links = page.locator(RESULTS)
    found = [links.nth(n).get_attribute("href") for n in range(links.count())]
    page.wait_for_timeout(300)
    page.close()
    assert any(CHAPTER in href for href in found)
    assert said == []


# -- where the reader is ---------------------------------------------------------------


def test_chapters_have_numbers_and_plain_names_wherever_one_is_led_to_them(page):
    page.goto(CHAPTER)
    listed = page.locator(".bd-docs-nav li a:has(.number)")
    assert listed.count() == len(chapters.teaching_chapters())
    for number, text in enumerate(listed.all_inner_texts(), start=1):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        assert " ".join(lines).startswith(f"{number} "), text
        assert len(lines) == 3, "the number, the title, and below it the plain name"
    onward = page.locator(".prev-next-area .right-next").inner_text()
    assert re.search(r"2 · .+, \d+ minutes to read", onward)


def test_the_bar_says_how_much_is_left_to_read(page):
    page.goto(CHAPTER)
    place = page.locator(".left-to-read")
    count = len(chapters.teaching_chapters())
    begins = re.fullmatch(
        rf"1 of {count}, about (\d+) minutes left", place.inner_text()
    )
    page.evaluate("scrollTo(0, document.querySelector('.bd-article').scrollHeight / 2)")
    page.wait_for_timeout(200)
    halfway = re.search(r"about (\d+) minutes left", place.inner_text())
    assert 0.3 < int(halfway[1]) / int(begins[1]) < 0.7
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(200)
    assert place.inner_text().endswith("the end")


def test_arrow_keys_turn_pages_but_not_where_they_mean_something_else(page):
    page.goto(CHAPTER)
    page.locator("input[type=radio]").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert CHAPTER in page.url
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/{chapters.pages()[2]}.html")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/{CHAPTER}")


def test_the_link_of_a_heading_is_reached_by_tab_and_by_touch(page, chromium):
    page.goto(CHAPTER)
    link = page.locator(".bd-article h2 a.headerlink").first
    link.focus()
    assert page.evaluate("document.activeElement.className") == "headerlink"
    assert link.bounding_box()["width"] > 5
    with browser.served() as base:
        phone = chromium.new_context(
            base_url=base,
            has_touch=True,
            is_mobile=True,
            viewport={"width": 390, "height": 800},
        )
        touched = phone.new_page()
        touched.goto(CHAPTER)
        shown = touched.locator(".bd-article h2 a.headerlink").first
        assert shown.evaluate("e => getComputedStyle(e).clipPath") == "none"
        phone.close()


def test_lines_of_text_are_as_long_as_reads_well(page):
    page.goto(CHAPTER)
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        lengths = page.evaluate(
            """() => [...document.querySelectorAll("section > p")].map(p => {
              const high = parseFloat(getComputedStyle(p).lineHeight);
              const lines = Math.round(p.getBoundingClientRect().height / high);
              return lines > 3 ? p.textContent.length / lines : 0;
            }).filter(Boolean).sort((a, b) => a - b)"""
        )
        assert 50 < lengths[len(lengths) // 2] <= 80, lengths


# -- what is folded, and what can be opened --------------------------------------------


def test_a_solution_opens_by_its_title_and_every_button_says_what_it_opens(page):
    page.goto(CHAPTER)
    solution = page.locator(".admonition.solution").first
    assert solution.locator(".admonition-title a").count() == 0
    body = solution.locator("section").first
    assert not body.is_visible()
    solution.locator(".admonition-title").click(position={"x": 120, "y": 10})
    assert body.is_visible()
    page.wait_for_timeout(100)
    names = page.locator("button.toggle-button").evaluate_all(
        "buttons => buttons.map(b => b.getAttribute('aria-label'))"
    )
    assert all(re.match(r"Click to (show|hide): \w", name) for name in names), names
    assert any(name.startswith("Click to hide: Solution to Exercise") for name in names)


def test_imports_are_folded_and_figures_say_that_their_code_can_be_seen(page):
    page.goto(CHAPTER)
    first = page.locator("div.cell").first
    assert "imports" in first.locator("summary").inner_text()
    assert not first.locator("pre").first.is_visible()
    first.locator("summary").click()
    assert first.locator("pre").first.is_visible()
    shown = page.locator("details.hide summary:visible").all_inner_texts()
    assert not any("code cell" in text for text in shown), shown


def test_a_figure_is_enlarged_by_tap_and_by_keyboard(page):
    page.goto(CHAPTER)
    page.set_viewport_size({"width": 390, "height": 800})
    figure = page.locator(".cell_output img").first
    figure.scroll_into_view_if_needed()
    small = figure.bounding_box()["width"]
    figure.click()
    large = page.locator("dialog.enlarged img")
    assert large.bounding_box()["width"] > 1.5 * small
    page.keyboard.press("Escape")
    assert not large.is_visible()
    page.locator("button.enlarge").first.focus()
    page.keyboard.press("Enter")
    assert large.is_visible()
    assert large.get_attribute("alt") == figure.get_attribute("alt")
    page.get_by_role("button", name="Close").click()
    assert not large.is_visible()


def test_the_foot_says_licence_citation_and_version(page):
    page.goto(HOME)
    foot = page.locator("footer.bd-footer-content")
    assert "CC BY 4.0" in foot.inner_text()
    assert re.search(r"Version \d+\.\d+\.\d+", foot.inner_text())
    entry = foot.locator(".cite pre")
    assert not entry.is_visible()
    foot.get_by_text("Cite this course").click()
    assert entry.inner_text().startswith("@misc{als-course,")
    assert entry.inner_text().count("{") == entry.inner_text().count("}")


def test_a_wrong_address_gets_a_page_that_leads_back(page):
    page.goto("404.html")
    assert page.locator("h1").inner_text() == "There is no such page"
    hrefs = page.locator("a").evaluate_all(
        "links => links.map(a => a.getAttribute('href'))"
    )
    assert [href.lstrip("/") for href in hrefs] == [HOME, SEARCH]


def test_code_is_copied_whole(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(CHAPTER)
    page.evaluate(browser.OPEN_ALL)
    cell = page.locator("div.cell_input div.highlight").first
    cell.hover()
    cell.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    first = chapters.code_cells(chapters.read(chapters.teaching_chapters()[0]))[0]
    assert copied.strip() == first.source.strip()


def test_the_scheme_can_be_chosen_and_is_kept(page):
    page.goto(HOME)
    button = page.locator("button.theme-switch-button").first
    chosen = set()
    for _ in range(3):
        button.click()
        chosen.add(page.evaluate("document.documentElement.dataset.mode"))
    assert chosen == {"auto", "light", "dark"}
    kept = page.evaluate("document.documentElement.dataset.mode")
    page.goto(CHAPTER)
    assert page.evaluate("document.documentElement.dataset.mode") == kept


def test_figures_follow_the_scheme_of_the_page_and_not_of_the_machine(page):
    page.goto(CHAPTER)
    figure = page.locator(".cell_output img[src$='.svg']").first
    figure.scroll_into_view_if_needed()
    paper = {}
    for _ in range(3):
        page.locator("button.theme-switch-button").first.click()
        page.mouse.move(0, 0)
        with Image.open(io.BytesIO(figure.screenshot())) as image:
            theme = page.evaluate("document.documentElement.dataset.theme")
            paper[theme] = image.convert("L").getpixel((12, image.height // 2))
    assert paper["light"] == 255
    assert paper["dark"] < 40


def test_long_code_can_be_folded(page):
    for name in chapters.teaching_chapters():
        page.goto(f"book/{name}.html")
        long = page.locator("details.long:visible")
        if long.count():
            code = long.first.locator("pre").first
            assert code.is_visible()
            long.first.locator("summary").click()
            assert not code.is_visible()
            return
    raise AssertionError("no chapter has a long cell; this test has nothing to look at")


def test_downloads_are_offered_and_come(page):
    page.goto(CHAPTER)
    page.get_by_role("button", name="Download this page").press("Enter")
    notebooks = page.locator("a.btn-download-notebook, a.btn-download-solutions")
    assert notebooks.count() == 2
    for n in range(2):
        with page.expect_download() as download:
            notebooks.nth(n).click()
        assert json.loads(download.value.path().read_text("utf-8"))["nbformat"] == 4
        page.get_by_role("button", name="Download this page").press("Enter")


def test_nothing_moves_for_a_reader_who_asked_for_calm(chromium):
    with browser.served() as base:
        context = chromium.new_context(base_url=base, reduced_motion="reduce")
        page = context.new_page()
        page.goto(CHAPTER)
        moving = page.evaluate(
            """() => [...document.querySelectorAll("*")].filter(e => {
            const s = getComputedStyle(e);
            return s.animationName !== "none" || s.scrollBehavior === "smooth"
              || (s.transitionProperty !== "none" && s.transitionDuration !== "0s");
            }).map(e => e.outerHTML.slice(0, 80))"""
        )
        context.close()
    assert moving == []


def test_print_shows_the_chapter_and_nothing_else(page):
    page.goto(CHAPTER)
    page.emulate_media(media="print")
    assert page.locator(".bd-article h1").is_visible()
    for part in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
        assert not page.locator(part).first.is_visible()
    assert page.locator(".copybtn:visible").count() == 0


def test_a_sheet_prints_without_answers_once(page):
    page.add_init_script("window.print = () => window.printed = true")
    page.goto(CHAPTER)
    page.get_by_role("button", name="Download this page").press("Enter")
    page.get_by_text("Print without answers").click()
    assert page.evaluate("window.printed")
    page.emulate_media(media="print")
    answers = page.locator(".admonition.solution, .quiz .dropdown")
    assert answers.count() > 5
    assert not any(answers.nth(n).is_visible() for n in range(answers.count()))
    assert page.locator(".exercise").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert answers.last.is_visible()


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_cheat_sheet_prints_alone_on_one_page(page, paper):
    page.goto("book/als-dialects.html#als-cheat-sheet")
    assert page.pdf(format=paper).count(b"/Type /Page\n") == 1
    page.emulate_media(media="print")
    assert page.locator("section:has(> #als-cheat-sheet) table").count() == 2
    assert page.locator("h1:visible, footer:visible").count() == 0


def test_a_quiz_checks_itself_with_the_keyboard_alone(page):
    page.goto(CHAPTER)
    quiz = page.locator(".admonition.quiz").first
    said = quiz.get_by_role("status")
    group = quiz.get_by_role("radiogroup")
    assert group.get_attribute("aria-labelledby")
    check = quiz.get_by_role("button", name="Check")
    check.focus()
    page.keyboard.press("Enter")
    assert said.inner_text() == "Choose an answer first."
    assert not quiz.locator(".dropdown").is_visible(), "until the reader has tried"
    answers = quiz.locator(".dropdown li").all_text_contents()
    radios = group.get_by_role("radio")
    assert radios.count() == len(answers)
    radios.first.focus()
    page.keyboard.press("Space")
    for answer in answers:
        assert said.inner_text() == ""
        check.focus()
        page.keyboard.press("Enter")
        assert said.inner_text().strip() == answer.strip()
        right = answer.startswith("Right")
        assert said.get_attribute("data-right") == str(right).lower()
        group.locator("input:checked").focus()
        page.keyboard.press("ArrowDown")


def test_every_quiz_of_every_chapter_is_live(page):
    for name in chapters.teaching_chapters():
        page.goto(f"book/{name}.html")
        text = chapters.page_path(name).read_text("utf-8")
        quizzes = text.count("\n:class: quiz\n")
        assert page.locator(".quiz-options").count() == quizzes >= 3, name


def test_a_quiz_is_a_plain_list_without_scripts(chromium):
    with browser.served() as base:
        context = chromium.new_context(base_url=base, java_script_enabled=False)
        page = context.new_page()
        page.goto(CHAPTER)
        quiz = page.locator(".admonition.quiz").first
        assert quiz.locator(":scope > ul > li").count() >= 3
        assert quiz.get_by_role("button", name="Check").count() == 0
        context.close()


# -- the lens over the first page's matrix ---------------------------------------------


def test_a_lens_reads_how_much_of_a_block_is_filled(page):
    ratings = datasets.fetch_movielens_100k().ratings
    page.goto(HOME)
    said, matrix = page.locator("#lens-said"), page.locator("#lens-matrix")

    def share(users, films):
        """Per cent of the places of some users and films, by their places in order."""
        order = [ratings[c].value_counts() for c in ("user_id", "item_id")]
        places = [list(counts.index) for counts in order]
        inside = ratings.user_id.isin(places[0][slice(*users)])
        inside &= ratings.item_id.isin(places[1][slice(*films)])
        size = (users[1] - users[0]) * (films[1] - films[0])
        return 100 * inside.sum() / size

    assert said.inner_text().startswith("users 1 to 58, films 1 to 70: ")
    corner = int(re.findall(r"(\d+) %", said.inner_text())[0])
    assert abs(corner - share((0, 58), (0, 70))) < 2  # equal counts may change places
    matrix.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert said.inner_text().startswith("users 1 to 58, films 71 to 140: ")
    frame = page.locator("#lens-frame")
    assert float(frame.get_attribute("x")) == 20
    page.locator("#lens-sort").click()
    ids = int(re.findall(r"(\d+) %", said.inner_text())[0])
    inside = ratings.user_id.le(58) & ratings.item_id.between(71, 140)
    assert ids == round(100 * inside.sum() / (58 * 70))
    page.locator("#lens-matrix rect").nth(16 * 24 - 1).hover()
    assert "films 1612 to 1682" in said.inner_text()


# -- five films in order ---------------------------------------------------------------


def test_four_metrics_of_an_order_are_those_of_the_library(page):
    page.goto("book/ranking-evaluation.html")
    said, k = page.locator("#order-said"), page.locator("#order-k")
    films, liked = page.locator("#order-list button"), {0, 2, 5}
    functions = {
        "precision": metrics.precision_at_k,
        "recall": metrics.recall_at_k,
        "AP": metrics.average_precision_at_k,
        "nDCG": metrics.ndcg_at_k,
    }

    def check():
        order = ["ABCDE".index(text.strip()[0]) for text in films.all_inner_texts()]
        n = int(k.input_value())
        wanted = {name: f(order, liked, n) for name, f in functions.items()}
        assert said.inner_text() == ", ".join(
            f"{name}@{n} {value:.4f}" for name, value in wanted.items()
        )
        return order

    orders = [check()]
    for film, keys in (("A", 2), ("E", -3), ("C", 4), ("B", -1)):
        for _ in range(abs(keys)):
            page.locator(f"[data-film='{film}']").focus()
            page.keyboard.press("ArrowDown" if keys > 0 else "ArrowUp")
        orders.append(check())
        for n in (1, 2, 3, 5):
            k.fill(str(n))
            check()
    assert len({tuple(order) for order in orders}) > 3
    films.nth(0).drag_to(films.nth(4))
    assert check()[4] == orders[-1][0]

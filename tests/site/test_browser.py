"""Every page in a browser: complete, quiet, light, and open to every reader."""

import asyncio
import base64
import gzip
import io
import json
import re
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from playwright.sync_api import sync_playwright

import browser
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
    assert page.url.endswith("#main-content")


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


def test_search_finds_a_chapter_from_a_file(chromium):
    page = chromium.new_page()
    page.goto((browser.SITE / SEARCH).as_uri() + "?q=sparsity")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    links = page.locator("#search-results li a")
    found = [links.nth(n).get_attribute("href") for n in range(links.count())]
    page.close()
    assert any(CHAPTER in href for href in found)


def test_code_is_copied_whole(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(CHAPTER)
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

"""The built site: complete, linked, labelled, and asking no other host for anything."""

from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlparse

import pytest

import chapters

SITE = chapters.ROOT / "_build" / "html"
PAGES = [SITE / "book" / f"{name}.html" for name in chapters.pages()]


class Page(HTMLParser):
    """What the tests need of one page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.ids, self.text = [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids |= {attributes[k] for k in ("id", "name") if attributes.get(k)}

    def handle_data(self, data):
        self.text.append(data)

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@cache
def parse(path) -> Page:
    return Page(path)


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request):
    assert request.param.exists(), "build the site first: `make book`"
    return request.param


def test_no_page_asks_another_host_for_anything(page):
    loaded = [a.get("src", "") for a in parse(page).all("script", "img", "iframe")]
    links = parse(page).all("link")
    loaded += [a["href"] for a in links if a.get("rel") not in ("canonical", None)]
    assert [url for url in loaded if urlparse(url).netloc] == []


def test_every_link_within_the_site_leads_somewhere(page):
    for attributes in parse(page).all("a"):
        url = urlparse(attributes.get("href") or "")
        if url.scheme or url.netloc or not (url.path or url.fragment):
            continue
        target = (page.parent / unquote(url.path)).resolve() if url.path else page
        assert target.exists(), f"{page.name}: {attributes['href']}"
        if url.fragment and target.suffix == ".html":
            assert unquote(url.fragment) in parse(target).ids, attributes["href"]


def test_every_picture_has_alt_text(page):
    images = [a for a in parse(page).all("img") if "logo" not in a.get("class", "")]
    assert [a.get("src") for a in images if not (a.get("alt") or "").strip()] == []


def test_every_page_has_one_title_and_a_language(page):
    html = page.read_text("utf-8")
    for_print = html.split('<div id="jb-print-docs-body"')[1].split("</h1>")[0]
    assert html.replace(for_print, "").count("<h1") == 1
    assert parse(page).all("html")[0].get("lang") == "en"


def test_no_formula_is_left_as_tex(page):
    text = "".join(parse(page).text)
    assert "$$" not in text
    assert "\\frac" not in text


def test_no_page_shows_a_traceback_or_a_warning(page):
    text = "".join(parse(page).text)
    for sign in ("Traceback (most recent", "Warning:", "WARN "):
        assert sign not in text


def test_a_page_on_amazon_reviews_shows_what_they_are():
    for name in chapters.notebooks():
        if len(chapters.variants(name)) > 1:
            text = "".join(parse(SITE / "book" / f"{name}.html").text)
            kind = ": real" if chapters.have_real_amazon() else " (look-alike)"
            assert f"Amazon Musical Instruments{kind}" in text


def test_hidden_assertions_are_not_shown_and_checks_are():
    for name in chapters.teaching_chapters():
        text = "".join(parse(SITE / "book" / f"{name}.html").text)
        for cell in chapters.code_cells(chapters.read(name)):
            hidden = "remove-cell" in cell.metadata.get("tags", [])
            assert (cell.source.strip() in text) != hidden, cell.source


def test_the_root_leads_to_the_landing_page():
    assert "book/index.html" in (SITE / "index.html").read_text("utf-8")

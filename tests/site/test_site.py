"""The built site: complete, linked, labelled, and asking no other host for anything."""

import base64
import importlib
import io
import json
import pkgutil
import re
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import version
from urllib.parse import unquote, urlparse

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

import als_course
from als_course import datasets, plots
from tools import chapters
from tools.site import figures, theme_fixes

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
    loaded += re.findall(r"url\(['\"]?(https?:[^)]+)\)", page.read_text("utf-8"))
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
    assert len(parse(page).all("h1")) == 1
    assert parse(page).all("html")[0].get("lang") == "en"


def meta(page) -> dict[str, str]:
    """The descriptions in a page's head."""
    tags = parse(page).all("meta")
    return {a.get("name") or a.get("property"): a.get("content") for a in tags}


def test_every_page_says_what_it_is_about(page):
    said = meta(page)
    assert 40 <= len(said["description"]) <= 200
    assert said["og:description"] == said["description"]
    assert said["og:title"]


def test_no_two_pages_say_the_same_about_themselves():
    assert len({meta(page)["description"] for page in PAGES}) == len(PAGES)


def test_machines_read_what_a_page_teaches(page):
    html = page.read_text("utf-8")
    block = re.search(r'<script type="application/ld\+json">(.*?)</script>', html, re.S)
    said = json.loads(block[1])
    assert said["@context"] == "https://schema.org"
    assert "LearningResource" in said["@type"]
    assert said["name"] in re.sub(r"\s+", " ", "".join(parse(page).text))
    if page.stem in chapters.teaching_chapters():
        assert said["position"] == chapters.teaching_chapters().index(page.stem) + 1
        assert len(said["teaches"]) >= 3
        assert re.fullmatch(r"PT\d+M", said["timeRequired"])
    if page.stem == "index":
        assert len(said["hasPart"]) == len(chapters.teaching_chapters())


def test_previous_and_next_lead_through_the_whole_book():
    page, seen = PAGES[0], []
    while page:
        seen.append(page)
        onward = [a["href"] for a in parse(page).all("link") if a.get("rel") == "next"]
        page = (page.parent / onward[0]).resolve() if onward else None
    assert seen == PAGES


def test_a_chapter_says_where_the_reader_is():
    for name in chapters.teaching_chapters():
        text = " ".join(parse(SITE / "book" / f"{name}.html").text)
        assert re.search(r"Part \d of \d\s+ .+, chapter \d+ of \d+", text), name


def test_every_term_has_its_meaning_on_the_page(page):
    anchors = {a.get("href", "").partition("#")[2] for a in parse(page).all("a")}
    terms = {anchor for anchor in anchors if anchor.startswith("term-")}
    if page.stem != "glossary":
        assert terms <= {i.removeprefix("card-") for i in parse(page).ids}


def test_every_picture_has_its_size_and_every_figure_keeps_its_text(page):
    for image in parse(page).all("img"):
        assert int(image["width"]) > 0, image
        assert int(image["height"]) > 0, image
        if "_images" in image["src"] and image["src"].endswith(".svg"):
            figure = (page.parent / image["src"]).resolve().read_text("utf-8")
            assert "<text" in figure
            assert "<metadata>" not in figure
            assert len(figure) < 200_000, image["src"]


def test_dark_figures_keep_black_text_on_light_data_and_nowhere_else(tmp_path):
    figure, (squares, plane) = plt.subplots(2)
    squares.imshow([[1, 5]])
    squares.text(1, 0, "on a square")
    squares.set_title("above the squares")
    plane.fill([0, 1, 0], [0, 0, 1], color="#fee838")
    plane.add_patch(plt.Rectangle((2, 0), 1, 1, color="#00224e"))
    plane.add_patch(plt.Rectangle((4, 0), 1, 1, color="white"))
    plane.contourf([6, 7], [0, 1], [[0, 1], [0, 1]])
    plane.set(xlim=(0, 8), ylim=(0, 1))
    for x, y, text in [(0.2, 0.2, "on yellow"), (0.8, 0.8, "beside yellow"),
                       (2.2, 0.2, "on blue"), (4.2, 0.2, "on white"),
                       (6.35, 0.5, "on stripes")]:  # fmt: skip
        plane.text(x, y, text)
    path = tmp_path / "figure.svg"
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)
    plt.close(figure)
    figures.lighten_figure(path)
    svg = path.read_text("utf-8")
    black = re.findall(r"<text [^>]*fill: #000;[^>]*>([^<]+)", svg)
    assert black == ["on a square", "on yellow"]
    assert re.findall(r"<text [^>]*--edge[^>]*>([^<]+)", svg) == ["on stripes"]
    assert svg.count("prefers-color-scheme: dark") == 1
    assert svg.count("font-family") == 1
    figures.lighten_figure(path)
    assert path.read_text("utf-8") == svg


def strange_colours(svg: str) -> set[str]:
    """The colours of a figure that dark pages have no counterpart for."""
    data = {to_hex(c) for c in plt.get_cmap("cividis")(np.arange(256))}
    data |= {colour.lower() for colour in plots.OKABE_ITO}
    known = data | figures.DARK.keys() | figures.DARK_TEXT.keys()
    used = re.findall(
        r"(?<!-)\b(?:fill|stroke): ?(#[0-9a-f]{6}|[a-z]+)", light_part(svg)
    )
    return set(used) - known - {"none", "url"}  # a pattern has colours of its own


def light_part(svg: str) -> str:
    """A figure without its style for dark pages."""
    return re.sub(r"<style.*?</style>", "", svg, flags=re.S)


def test_every_colour_of_a_figure_is_one_that_dark_pages_know(page):
    for image in parse(page).all("img"):
        if "_images" in image["src"] and image["src"].endswith(".svg"):
            figure = (page.parent / image["src"]).resolve().read_text("utf-8")
            assert strange_colours(figure) == set(), f"{image['src']}: use plots.py's"


def test_a_colour_that_dark_pages_do_not_know_is_refused(tmp_path):
    figure, ax = plt.subplots()
    ax.bar([1, 2], [1, 2], color=["#dcebf6", plots.OKABE_ITO[2]])
    ax.axhline(1, color="crimson")
    figure.savefig(tmp_path / "figure.svg")
    plt.close(figure)
    figures.lighten_figure(tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text("utf-8")
    assert strange_colours(svg) == {"#dcebf6", "#dc143c"}


def test_a_lighter_outline_stays_where_it_was():
    turn = np.linspace(0, 2 * np.pi, 2000)
    circle = np.column_stack([100 * np.cos(turn), 100 * np.sin(turn)]).round(2)
    along = [*range(100, 161), *range(159, 119, -1)]  # out, and part of the way back
    edge = np.column_stack([along, np.zeros(101)])
    drawn = [f"{x:g} {y:g}" for x, y in [*circle, *edge]]
    old = "M " + " L ".join(drawn) + " z"
    new = figures.straighten(old)
    kept = np.array(re.findall(r"[ML] (\S+) (\S+)", new), dtype=float)
    assert len(kept) < 500
    assert kept[-2:].tolist() == [[160, 0], [120, 0]]
    middles = (kept[:-3] + kept[1:-2]) / 2
    assert np.abs(np.hypot(*middles.T) - 100).max() < 0.05
    assert figures.straighten(new.replace("L", "C", 1)) == new.replace("L", "C", 1)


@pytest.mark.parametrize("colours", [2, 5, 200, 400])
def test_a_smaller_picture_has_the_same_pixels(colours):
    rng = np.random.default_rng(colours)
    palette = rng.integers(0, 256, (colours, 4), dtype="uint8")
    pixels = palette[rng.integers(0, colours, (40, 30))]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    old = base64.b64encode(out.getvalue()).decode()
    new = figures.smaller_png(re.fullmatch(".*", old))
    assert len(new) <= len(old)
    with Image.open(io.BytesIO(base64.b64decode(new))) as picture:
        assert (np.asarray(picture.convert("RGBA")) == pixels).all()


def test_build_status_tells_of_every_run_and_every_package():
    page = parse(SITE / "book" / "build-status.html")
    text = re.sub(r"\s+", " ", "".join(page.text))
    for name in chapters.notebooks():
        assert f"{name}.html" in {a.get("href") for a in page.all("a")}
        assert re.search(rf"book/{name} \S+ \S+ cache \d+\.\d+ ✅", text), name
    assert f"jupyter-book=={version('jupyter-book')} # builds the site" in text
    assert "accessible-pygments" not in text


def test_the_theme_is_mended_and_mending_twice_changes_nothing(page):
    html = page.read_text("utf-8")
    assert theme_fixes.clean(html, page) == html


def test_the_library_page_has_every_module_and_every_name_it_offers():
    ids = parse(SITE / "book" / "library.html").ids
    for found in pkgutil.iter_modules(als_course.__path__, "als_course."):
        assert f"module-{found.name}" in ids, found.name
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", []):
            if callable(getattr(module, name)):  # autodoc leaves out bare constants
                assert f"{found.name}.{name}" in ids, name
    assert "als_course.als.ExplicitALS.fit" in ids, "also what it inherits"


def test_the_first_use_of_a_function_leads_to_the_library():
    for name in chapters.teaching_chapters():
        links = [a["href"] for a in parse(SITE / "book" / f"{name}.html").all("a")
                 if a.get("class") == "to-library"]  # fmt: skip
        assert links, name
        assert all(link.startswith("library.html#als_course.") for link in links)
        assert len(set(links)) == len(links), "one for each name"


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
        if "fetch_amazon_reviews" in chapters.fallbacks(name):
            text = "".join(parse(SITE / "book" / f"{name}.html").text)
            real = datasets.fetch_amazon_reviews().source == "real"
            kind = ": real" if real else " (look-alike)"
            assert f"Amazon Musical Instruments{kind}" in text


def test_hidden_assertions_are_not_shown_and_checks_are():
    for name in chapters.teaching_chapters():
        text = "".join(parse(SITE / "book" / f"{name}.html").text)
        for cell in chapters.code_cells(chapters.read(name)):
            hidden = "remove-cell" in cell.metadata.get("tags", [])
            assert (cell.source.strip() in text) != hidden, cell.source


def test_the_root_leads_to_the_landing_page():
    assert "book/index.html" in (SITE / "index.html").read_text("utf-8")

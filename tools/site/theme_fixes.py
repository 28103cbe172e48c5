"""What the theme leaves undone: lighter pages, and mark-up that every reader can use.

The built pages are read once more after the build. Each change is one line in
`CHANGES`, named after its reason. One that matches nowhere in the whole course is a
warning: then the theme has changed, and so must the line.
"""

import base64
import logging
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import pydata_sphinx_theme
from fontTools import subset
from PIL import Image
from sphinx.util import logging as sphinx_logging

from tools.site.figures import lighten_figure

LOGGER = sphinx_logging.getLogger(__name__)
THEME = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static"
SIDEBARS = {"primary": "Chapters", "secondary": "On this page"}


def bare(signature: str) -> str:
    """Leave out the spans of a signature that hold nothing but text."""
    span = r'<span class="(?:pre|o|default_value|sig-paren)">([^<]*)</span>'
    return re.sub(span, r"\1", signature)


PLACE_LIST = """{
  const list = document.getElementById("pst-primary-sidebar");
  const kept = parseInt(sessionStorage.getItem("sidebar-scroll-top"), 10);
  const here = [...list.querySelectorAll(".bd-docs-nav .active")].pop();
  const y = here ? here.getBoundingClientRect().y : 0;
  if (!isNaN(kept)) list.scrollTop = kept;
  else if (y > innerHeight / 2)
    list.scrollTop = y - list.getBoundingClientRect().y - list.clientHeight / 4;
}"""

CHANGES = [
    # -- lighter: what no page uses
    (r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^"]*"></script>', ""),
    (r'\s*<div id="jb-print-docs-body".*?(?=\s*<div id="searchbox")', ""),
    (r'<div id="ethical-ad-placement".*?</div>', ""),
    # -- the scheme is known before the page is first painted, and without a script
    (
        r'dataset\.theme = localStorage\.getItem\("theme"\) \|\| "auto";',
        'dataset.theme = document.documentElement.dataset.mode !== "auto" '
        "? document.documentElement.dataset.mode "
        ': matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";',
    ),
    (r'(<html [^>]*data-theme=)"auto"', r'\1"light"'),
    # -- the list of chapters is where it will be before the page is first painted
    (
        r'</div>\s*<main id="main-content"',
        f'</div>\n<script>{PLACE_LIST}</script>\n<main id="main-content"',
    ),
    # -- scripts wait until the page is shown
    (r'<script( data-sd-tabs-storage-prefix="[^"]*")? '
     r'src="(?![^"]*documentation_options)', r'<script\1 defer src="'),
    # -- a style sheet that a first build writes after the pages gets its sum only later
    (r'((?:mystnb\.[0-9a-f]+|exercise)\.css)(\?v=[0-9a-f]+)?', r"\1"),
    # -- one viewport, and no empty statement about a version
    (r'<meta name="viewport" content="width=device-width, initial-scale=1"\s*/>', ""),
    (r'\s*<meta name="docsearch:version" content=""\s*/>', ""),
    # -- names that a screen reader says are the names that stand there
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch[^>]*?)\s+title="[^"]*">', r'\1 aria-hidden="true">'),
    (r'(<summary) aria-label="Toggle hidden content"', r"\1"),
    (r'(<button class="sidebar-toggle (\w+)-toggle[^>]*?) title="Toggle [^"]*"',
     lambda m: f'{m[1]} title="{SIDEBARS[m[2]]}" aria-label="{SIDEBARS[m[2]]}"'),
    # -- roles and ids that the standards do not allow where they stand
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r' role="doc-biblioentry"', ""),
    (r' id="(?:solution|exercise|proof)-content"', ""),
    (r'<p aria-level="2" class="caption" role="heading">', '<p class="caption">'),
    (r"<th></th>", "<td></td>"),
    (r'<th class="head"><p></p></th>', "<td></td>"),
    # -- everything stands in a landmark
    (
        r'<div id="pst-primary-sidebar" class',
        '<div id="pst-primary-sidebar" role="region" aria-label="Course" class',
    ),
    # -- headers say what they head
    (r"(<thead>.*?</thead>)", lambda m: re.sub(r"<th(?=[ >])(?! scope)",
                                               '<th scope="col"', m[1])),
    (r"(<tr>\s*)<th>", r'\1<th scope="row">'),
    # -- a wide table scrolls, and so the keyboard must reach it
    (r'<div class="output text_html">(?=\s*<div>)',
     '<div class="output text_html" tabindex="0" role="group" aria-label="table">'),
    # -- lighter: names, marks and spaces of code look like code without a span each
    (r'(<dt class="sig .*?</dt>)',
     lambda m: bare(bare(m[1]))),  # one stands in another
    (r'<span class="[wnp]">([^<]*)</span>', r"\1"),
    (r"<style scoped>.*?</style>\s*", ""),
    # -- long cells can be folded and start open
    (r'<details class="admonition hide above-input long">',
     '<details class="admonition hide above-input long" open>'),
    # -- the title of a solution opens it, and is no link to what stands above it
    (r'(<p class="admonition-title">Solution to)<a [^>]*>([^<]*)</a>', r"\1\2"),
    # -- British spelling
    (r'aria-label="Color mode" data-bs-title="Color mode"',
     'aria-label="Colour scheme" data-bs-title="Colour scheme"'),
    # -- the search knows more than Sphinx's own
    (r'(language_data\.js[^>]*></script>\s*)(?=<script[^>]*searchindex)',
     r'\1<script defer src="_static/search.js"></script>\n  '),
    # -- a download is saved, not opened
    (r'(<a href="[^"]*") target="_blank"(\s+class="btn btn-sm btn-download-)',
     r"\1 download\2"),
]  # fmt: skip

SEARCH = (
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>'
)


# Words are marked in the text alone, and only for who comes from the search.
MARKS = [
    ('document.querySelector("body")', 'document.querySelector(".bd-article")'),
    ('localStorage.getItem("sphinx_highlight_terms")',
     '(/search\\.html/.test(document.referrer) ? '
     'localStorage.getItem("sphinx_highlight_terms") : "")'),
]  # fmt: skip


def clean(html: str, page: Path, found: Counter | None = None) -> str:
    """Apply every change to a page; doing so twice changes nothing more.

    `found` counts how often each pattern matched.
    """
    changes = CHANGES if page.name == "search.html" else [(SEARCH, ""), *CHANGES]
    for pattern, new in changes:
        html, times = re.subn(pattern, new, html, flags=re.S)
        if found is not None:
            found[pattern] += times
    first = iter([True])

    def sized(tag: re.Match) -> str:
        """Give a picture its size, so that nothing moves when it arrives."""
        source = re.search(r'src="([^":?]+)"', tag[0])
        path = (page.parent / source[1]).resolve() if source else None
        if not path or not path.exists() or " width=" in tag[0]:
            return tag[0]
        width, height = image_size(path)
        soon = "logo" in tag[0] or next(first, False)
        wait = "" if soon else ' loading="lazy" decoding="async"'
        return f'<img width="{width}" height="{height}"{wait}{tag[0][4:]}'

    return re.sub(r"<img\b[^>]*>", sized, html)


@cache
def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in CSS pixels."""
    if path.suffix != ".svg":
        with Image.open(path) as image:
            return image.size
    text = path.read_text("utf-8")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    scale = 4 / 3 if re.search(r'width="[\d.]+pt"', text) else 1
    return round(float(box[1]) * scale), round(float(box[2]) * scale)


def trim_icons(site: Path) -> None:
    """Put the icons that the site shows, and no more, into the style sheet."""
    fonts = site / "_static" / "vendor"
    if not fonts.exists():  # nothing was written since the last time
        return
    pages = "".join(p.read_text("utf-8") for p in site.rglob("*.html"))
    shown = set(re.findall(r"\bfa-([a-z0-9-]+)", pages))
    sheet = site / "_static" / "styles" / "pydata-sphinx-theme.css"

    def used(rule: re.Match) -> str:
        return rule[0] if shown & set(re.findall(r"fa-([a-z0-9-]+)", rule[1])) else ""

    icon = r'((?:\.fa-[a-z0-9-]+:+before,?)+)\{content:"[^"]*"\}'
    sheet.write_text(re.sub(icon, used, sheet.read_text("utf-8")), "utf-8")
    styles = "".join(p.read_text("utf-8") for p in site.glob("_static/**/*.css"))
    # written as "\f0eb" by one sheet and as the character itself by another
    codes = {int(c, 16) for c in re.findall(r'"\\([ef][0-9a-f]{3})"', styles)}
    codes |= {ord(c) for c in re.findall("[\ue000-\uf8ff]", styles)}
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    css, options = sheet.read_text("utf-8"), subset.Options(flavor="woff2")
    for file in fonts.rglob("*.woff2"):
        font = subset.load_font(
            str(THEME / file.relative_to(site / "_static")), options
        )
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=codes)
        subsetter.subset(font)
        subset.save_font(font, str(file), options)
        packed = base64.b64encode(file.read_bytes()).decode()
        both = rf"url\([^)]*{file.name}\)[^,]*,url\([^)]*{file.stem}\.ttf\)"
        inside = f"url(data:font/woff2;base64,{packed})"
        css = re.sub(both + r' format\("truetype"\)', f'{inside} format("woff2")', css)
    sheet.write_text(css, "utf-8")
    shutil.rmtree(fonts)


def note_written(app, pagename, templatename, context, doctree) -> None:
    """Remember which pages this build writes."""
    app.pages_written.add(pagename)


def finish(app, error) -> None:
    """Go over the built pages, their figures and their icons."""
    if error or app.builder.format != "html":
        return
    site, found = Path(app.outdir), Counter()
    for figure in (site / "_images").glob("*.svg"):
        lighten_figure(figure)
    for page in site.rglob("*.html"):
        old = page.read_text("utf-8")
        new = clean(old, page, found)
        if new != old:
            page.write_text(new, "utf-8")
    trim_icons(site)
    marks = site / "_static" / "sphinx_highlight.js"
    script = marks.read_text("utf-8")
    for old, new in MARKS:
        if new not in script:
            found[old] += script.count(old)
            script = script.replace(old, new)
    marks.write_text(script, "utf-8")
    whole = app.pages_written >= app.env.found_docs
    if app.config.theme_fixes_all_match and app.builder.name == "html" and whole:
        for pattern in [pattern for pattern in found if not found[pattern]]:
            LOGGER.warning("theme_fixes: nothing on any page matches %r", pattern)


def share_visitors(app) -> None:
    """Let one long page have the visitors of many pages.

    sphinx-exercise registers some for `singlehtml`; Sphinx then asks for no others.
    """
    visitors = app.registry.translation_handlers
    visitors["singlehtml"] = visitors["html"] | visitors.get("singlehtml", {})


def setup(app):
    """Connect to Sphinx."""
    app.pages_written = set()
    # off in a small book, which has no table, no citation, no exercise to mend
    app.add_config_value("theme_fixes_all_match", True, "")
    app.connect("builder-inited", share_visitors)
    app.connect("html-page-context", note_written)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Print the whole book as one PDF: `python pdf.py OUT.pdf`, after a singlehtml build.

Chromium does the printing, so the PDF has what the pages have. Before it prints, the
page gets a cover and a table of contents, everything folded is opened, and chapters
start on pages of their own. The PDF has bookmarks, page numbers and working links.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOOTER = (
    '<div style="width:100%;font-size:8px;color:#555;text-align:center;'
    'font-family:sans-serif"><span class="pageNumber"></span></div>'
)
PREPARE = """() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (tag, text, parent, href) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (href) made.href = href;
    parent.append(made);
    return made;
  };
  const say = heading => heading.firstChild.textContent.trim();

  // everything that is folded is opened
  all("details").forEach(folded => folded.open = true);
  all(".toggle-hidden").forEach(box => box.classList.remove("toggle-hidden"));
  all("img").forEach(image => image.loading = "eager");

  // ids that several chapters use get the number of their chapter
  const chapters = all('[id^="document-"]').map(mark => mark.nextElementSibling);
  all(".bd-article a").forEach(link => {
    if (link.getAttribute("href").includes("index.html#")) link.href = link.hash;
  });
  chapters.forEach((chapter, n) => {
    const inside = new Set(all("[id]", chapter).map(e => e.id).concat(chapter.id));
    for (const link of all('a[href^="#"]', chapter)) {
      const id = decodeURIComponent(link.hash.slice(1));
      if (inside.has(id)) link.setAttribute("href", `#c${n}-${id}`);
    }
    all("[id]", chapter).concat(chapter).forEach(e => e.id = `c${n}-${e.id}`);
  });
  for (const link of all('.bd-article a[href^="#"]')) {
    const id = decodeURIComponent(link.hash.slice(1));
    const n = chapters.findIndex((_, n) => document.getElementById(`c${n}-${id}`));
    if (document.getElementById(id) || n < 0) continue;
    link.setAttribute("href", `#c${n}-${id}`);
  }
  all(".bd-article a[href]").forEach(link => {
    if (!/^(#|https?:|mailto:)/.test(link.getAttribute("href"))) {
      link.removeAttribute("href");  // a file that lies beside the site, not the paper
    }
  });

  // a cover, the contents, and the names of the parts
  const article = document.querySelector(".bd-article");
  const cover = document.createElement("div");
  cover.className = "cover";
  cover.append(document.querySelector(".logo__image").cloneNode());
  make("p", say(article.querySelector("h1")), cover).className = "cover-title";
  make("p", document.querySelector(".component-author").textContent, cover);
  make("p", "Text and figures CC BY 4.0, code BSD 3-Clause", cover);
  const contents = document.createElement("nav");
  contents.className = "book-contents";
  make("p", "Contents", contents).className = "contents-title";
  const parts = all(".bd-docs-nav p.caption").map(p => p.textContent);
  all(".bd-article .toctree-wrapper").forEach((part, n) => {
    make("p", parts[n], contents).className = "contents-part";
    const name = document.createElement("p");
    name.className = "part";
    name.textContent = parts[n];
    const first = part.querySelector("section");
    first.prepend(name);
    const list = make("ul", "", contents);
    chapters.filter(chapter => part.contains(chapter)).forEach(chapter => {
      const entry = make("li", "", list);
      make("a", say(chapter.querySelector("h2")), entry, "#" + chapter.id);
      const inner = make("ul", "", entry);
      all(":scope > section > h3", chapter).forEach(heading => make(
        "a", say(heading), make("li", "", inner), "#" + heading.parentNode.id));
    });
  });
  article.prepend(cover, contents);
}"""
STYLE = """
.cover { height: 23cm; display: flex; flex-direction: column; justify-content: center; }
.cover img { width: 9cm !important; height: auto !important; margin-bottom: 2cm; }
.cover-title { font-size: 2.4rem; line-height: 1.2; }
.book-contents { break-before: page; }
.contents-title, .part { font-size: 1.6rem; }
.contents-part { font-weight: 700; margin: .8rem 0 .2rem; break-after: avoid; }
.book-contents ul { padding-left: 1rem; margin: 0; list-style: none; }
.book-contents li { break-inside: avoid; margin: .15rem 0; }
.book-contents ul ul { columns: 2; font-size: .85em; }
.part { color: #555; margin: 0 0 1cm; }
h1, section:has(> h2) > section { break-before: auto; }
h1, [id^="c"]:has(> h2) { break-before: page; }
.bd-article a { text-decoration: none !important; color: #0b5cc9 !important; }
.bd-article h2 { font-size: 2rem; }
"""


def find_chromium() -> str | None:
    """Return where Chromium is, if anywhere; `ALS_COURSE_CHROMIUM` may name it."""
    named = os.environ.get("ALS_COURSE_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def at_the_root(site: Path) -> Path:
    """Put the long page where its own links to pictures and styles lead from."""
    page = site / "als-course.html"
    [written] = (site / "book").glob("*.html")
    shutil.copy(written, page)
    return page


def print_book(page_path: Path, out: Path) -> None:
    """Print one long page to a PDF."""
    chromium = find_chromium()
    if not chromium:
        sys.exit("no Chromium here; install it, or name it in ALS_COURSE_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(color_scheme="light")
        page.goto(page_path.as_uri())
        page.evaluate(PREPARE)
        page.add_style_tag(content=STYLE)
        page.wait_for_function("[...document.images].every(i => i.complete)")
        out.parent.mkdir(parents=True, exist_ok=True)
        page.pdf(
            path=str(out),
            format="A4",
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print_book(at_the_root(ROOT / "_build" / "singlehtml"), target)
    print(f"The book is at {target}, {target.stat().st_size / 1e6:.1f} MB")

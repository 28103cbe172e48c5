"""Open every page of the built site in the machine's own Chromium, once, and note all.

One browser visits the pages, two at a time: each as a first visitor's, in light and in
dark, on a wide screen and on a phone, from a server under a sub-path and from a file.
The tests read what was noted.
"""

import asyncio
import os
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

from playwright.async_api import async_playwright

from tools import chapters, pdf

SITE = chapters.ROOT / "_build" / "html"
CHROMIUM = pdf.find_chromium()
# No other host can be found, so nothing from outside can be missed on a quiet network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
NARROW, MIDDLE, WIDE = 360, 1050, 1280
PARALLEL = 2

WATCH = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const e of list.getEntries()) if (!e.hadRecentInput) window.shift += e.value;
}).observe({type: "layout-shift", buffered: true});
"""
OPEN_ALL = """() => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  document.querySelectorAll("button.toggle-button-hidden").forEach(b => b.click());
}"""
FACTS = """() => {
  const seen = e => e.getClientRects().length > 0;
  const all = s => [...document.querySelectorAll(s)];
  return {
    headings: all("h1, h2, h3, h4, h5, h6").filter(seen).map(h => +h.tagName[1]),
    flatFormulas: all("math").filter(m => {
      const box = m.getBoundingClientRect();
      return seen(m) && (box.width < 1 || box.height < 4);
    }).map(m => m.textContent),
    untypeset: all(".math").filter(m => !m.querySelector("math")).length,
    bareTables: all("table").filter(t => seen(t) && !t.querySelector("th")).length,
    brokenPictures: all("img").filter(i => i.complete && !i.naturalWidth)
      .map(i => i.src),
    shift: window.shift,
    icons: all("body *").flatMap(e => ["::before", "::after"].flatMap(side => {
      const {content, fontFamily} = getComputedStyle(e, side);
      return [...content].filter(c => c >= "\\ue000" && c <= "\\uf8ff")
        .map(c => [c.codePointAt(0), fontFamily.split(",")[0]]);
    })),
  };
}"""
STICKING_OUT = """() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return [];
  return [...document.querySelectorAll("main *")]
    .filter(e => e.getBoundingClientRect().right > room + 1)
    .map(e => e.outerHTML.slice(0, 120)).slice(-3).concat("wider than " + room);
}"""
CUT_UP = """() => {
  const lines = e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size;
  };
  const numbers = [...document.querySelectorAll("main table.dataframe :is(td, th)")]
    .filter(e => /^[\\w.,%]+$/.test(e.textContent) && lines(e) > 1);
  const codes = [...document.querySelectorAll("main .admonition :is(p, li) code")]
    .filter(e => e.getBoundingClientRect().right
                 > e.closest(".admonition").getBoundingClientRect().right + 1);
  return [...numbers, ...codes].map(e => e.textContent);
}"""
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOURS = ["color-contrast", "link-in-text-block"]
# Visited on every push; all the others every week, as a visit takes five seconds.
ONE_OF_EACH_KIND = (
    "index", "playground", "ratings-and-sparsity", "spark-als", "ranking-evaluation",
    "datasets", "notation",
)  # fmt: skip


def axe_source() -> str:
    """Return axe: the one from npm where there is one, else that of a package."""
    newest = Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"
    if newest.exists():
        return newest.read_text("utf-8")
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


class Quiet(SimpleHTTPRequestHandler):
    """Serve the site under /als/ and nothing else."""

    def translate_path(self, path):
        inside = unquote(urlsplit(path).path)
        if not inside.startswith("/als/"):
            return str(SITE / "there is nothing outside the sub-path")
        return super().translate_path(inside.removeprefix("/als"))

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=600")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def served():
    """Serve the site on a free port; the value is the address of its folder."""
    handler = partial(Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/als/"
        server.shutdown()
        thread.join()


def paths() -> list[str]:
    """Every page of the site that a reader can reach; on a push, one of each kind."""
    names = chapters.pages()
    if "ALS_COURSE_WEEKLY" not in os.environ:
        names = [name for name in names if name in ONE_OF_EACH_KIND]
    return [*(f"book/{name}.html" for name in names), "search.html"]


def note_troubles(page, troubles: list, requests: list) -> None:
    """Write down what a page asks for and what goes wrong on it."""
    page.on("request", lambda r: requests.append(r.url))
    page.on("requestfailed", lambda r: troubles.append(f"failed: {r.url}"))
    page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
    page.on(
        "response",
        lambda r: r.status >= 400 and troubles.append(f"{r.status}: {r.url}"),
    )
    page.on(
        "console",
        lambda m: (
            m.type in ("error", "warning")
            and troubles.append(f"console {m.type}: {m.text}")
        ),
    )


async def check_axe(page, rules: list[str]) -> list[str]:
    """Return each barrier that axe finds: rule, where, what to do.

    Text in the colour of its background is one, though axe leaves it for review.
    """
    options = {"runOnly": rules, "resultTypes": ["violations", "incomplete"]}
    found = await page.evaluate("options => axe.run(document, options)", options)
    hidden = [
        f"{rule['id']}: {node['html'][:150]} -- has the colour of its background"
        for rule in found["incomplete"]
        for node in rule["nodes"]
        if any("'equalRatio'" in repr(check["data"]) for check in node["any"])
    ]
    return hidden + [
        f"{v['id']}: {n['html'][:150]} -- {n['failureSummary'][:300]}"
        for v in found["violations"]
        for n in v["nodes"]
    ]


async def visit(browser, base: str, path: str, axe: str) -> dict:
    """Visit one page in every way and return what was seen."""
    seen = {"troubles": [], "requests": [], "from file": [], "file requests": []}
    context = await browser.new_context(viewport={"width": WIDE, "height": 900})
    await context.add_init_script(WATCH)
    page = await context.new_page()
    note_troubles(page, seen["troubles"], seen["requests"])
    await page.goto(base + path, wait_until="load")
    await page.wait_for_timeout(150)
    seen |= await page.evaluate(FACTS)
    await page.evaluate(OPEN_ALL)
    seen["opened"] = await page.evaluate(FACTS)
    await page.evaluate(axe)
    seen["light"] = await check_axe(page, STANDARDS)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    seen["dark"] = await check_axe(page, COLOURS)
    seen["sticking out"] = []
    for width in (MIDDLE, NARROW):
        await page.set_viewport_size({"width": width, "height": 740})
        await page.wait_for_timeout(50)
        seen["sticking out"] += await page.evaluate(STICKING_OUT)
    seen["cut up"] = await page.evaluate(CUT_UP)
    await page.close()

    page = await context.new_page()
    note_troubles(page, seen["from file"], seen["file requests"])
    await page.goto((SITE / path).as_uri(), wait_until="load")
    await page.wait_for_timeout(50)
    await context.close()
    return seen


async def visit_all() -> dict[str, dict]:
    """Visit every page, a few at a time, in one browser."""
    gate, axe = asyncio.Semaphore(PARALLEL), axe_source()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS
        )

        async def one(path):
            async with gate:
                return await visit(browser, base, path, axe)

        with served() as base:
            seen = await asyncio.gather(*map(one, paths()))
        await browser.close()
    return dict(zip(paths(), seen, strict=True))

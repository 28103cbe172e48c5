"""Cells that readers run and change on the page, in their own browser.

The extension numbers the cells that can run there, puts on each page what the script
needs to know, and serves Python with the library beside the pages. What a browser lacks
decides which cells can run: those that import it cannot, nor those that use a name of
one that cannot. Without Python for the browser the site has no buttons, and each page
says so.
"""

import ast
import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tools import chapters, exercises, pyodide

LOGGER = logging.getLogger(__name__)
LIVE = chapters.BOOK / "_static" / "live"
PROGRAMS = ("als_course/**/*.py", "jobs/publish_als.py")
# What browsers lack, and what a page says of it.
LACKING = {
    "als_course.kernels": "compiled kernels",
    "als_course.spark": "Spark",
    "babel": "the package Babel",
    "implicit": "the library implicit",
    "numba": "compiled kernels",
    "py4j": "Spark",
    "pyspark": "Spark",
    "subprocess": "other programs",
    "urllib": "a network",
    "voyager": "the library Voyager",
}
# The same, where it is no module: NumPy hangs there on a part of that look-alike.
LACKING_IN_CALLS = {
    'engine="numba"': "compiled kernels",
    "fetch_amazon_reviews": "the reviews of instruments",
}
ABSENT = (
    "This copy of the site was built without Python for the browser, so its cells do "
    "not run here; the notebook of this page does, and the download menu has it."
)


# -- what can run ----------------------------------------------------------------------


class Cell(NamedTuple):
    """A cell that readers see, and what keeps it from running in a browser."""

    number: int  # among all code cells of the page
    code: str
    tags: set[str]
    label: str  # of the exercise it belongs to, or ""
    lacks: frozenset[str]


def imports(code: str, inside_functions: bool = True) -> set[str]:
    """Names of the modules that code imports, with what is taken from each."""
    todo, found = [ast.parse(code)], set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if inside_functions or not isinstance(node, ast.FunctionDef):
            todo += ast.iter_child_nodes(node)
    return found


def lacking(module: str) -> str:
    """Say what of a module a browser lacks, if anything."""
    return next((s for m, s in LACKING.items() if f"{module}.".startswith(m + ".")), "")


@cache
def scan(name: str) -> tuple[tuple[Cell, ...], dict[str, str]]:
    """List the cells of a page that readers see outside solutions.

    Returns
    -------
    cells : tuple of Cell
    dead : dict of str to str
        Names that no cell can give a value in a browser, and what each lacks.
    """
    found, dead, number = [], {}, -1
    for cell, kind, label, _ in chapters.pieces(chapters.read(name)):
        if cell.cell_type != "code":
            continue
        number += 1
        tags = chapters.tags(cell)
        if kind == "solution" or tags & {"remove-cell", "remove-input"}:
            continue
        names, lacks = exercises.bound(cell.source), lacked_by(cell.source, dead)
        for one in names:
            dead.pop(one, None)
        if lacks:
            dead |= dict.fromkeys(names, min(lacks))
        found.append(Cell(number, cell.source, tags, label, frozenset(lacks)))
    return tuple(found), dead


def lacked_by(code: str, dead: dict[str, str]) -> set[str]:
    """Say what code needs that browsers lack."""
    lacks = {lacking(module) for module in imports(code)} - {""}
    lacks |= {what for call, what in LACKING_IN_CALLS.items() if call in code}
    return lacks | {dead[name] for name in exercises.free(code) if name in dead}


def cells(name: str) -> tuple[Cell, ...]:
    """List the cells of a page that readers see outside solutions."""
    return scan(name)[0]


def files_of(module: str) -> list[Path]:
    """List the files of the library that importing a module runs."""
    root, *parts = module.split(".")
    if root != "als_course":
        file = chapters.BOOK / "jobs" / f"{root}.py"
        return [file] if file.is_file() else []
    places = [chapters.BOOK.joinpath(root, *parts[:n]) for n in range(len(parts) + 1)]
    files = [f for p in places for f in (p.with_suffix(".py"), p / "__init__.py")]
    return [file for file in files if file.is_file()]


def needed(codes: list[str], inside_functions: bool = True) -> list[str]:
    """List the packages that programs need, through the modules of the library."""
    known = pyodide.pins()["packages"]
    package_of = {name: key for key in known for name in known[key]["imports"]}
    seen, todo = set(), {module for code in codes for module in imports(code)}
    while todo - seen:
        module = (todo - seen).pop()
        seen.add(module)
        if not lacking(module):
            for file in files_of(module):
                todo |= imports(file.read_text("utf-8"), inside_functions)
    roots = {module.partition(".")[0] for module in seen}
    return sorted({package_of[root] for root in roots if root in package_of})


def with_dependencies(names: list[str]) -> list[str]:
    """Add to packages those that they depend on."""
    known, found = pyodide.pins()["packages"], []
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.append(name)
            todo += known[name]["depends"]
    return found


def sentence(name: str) -> str:
    """Say what of a page does not run in a browser, and why; nothing if all does."""
    shown = cells(name)
    lacks = sorted(set().union(*(cell.lacks for cell in shown)))
    if not lacks:
        return ""
    *first, last = lacks
    what = f"{', '.join(first)} and {last}" if first else last
    if all(cell.lacks for cell in shown):
        return f"The cells of this page need {what}, so they do not run in a browser."
    return f"Cells without a button need {what}, so they do not run in a browser."


class Packages(SphinxDirective):
    """The directive `{live-packages}`: what is served to browsers, with its licence."""

    def run(self):
        """Write a table and let the page's parser read it."""
        lines = ["| package | version | licence |", "|---|---|---|"]
        lines += [
            f"| {name} | {package['version']} | {package['licence']} |"
            for name, package in pyodide.pins()["packages"].items()
        ]
        return self.parse_text_to_nodes("\n".join(lines))


# -- what a page is told ---------------------------------------------------------------


@cache
def about(name: str) -> dict:
    """Collect what the script of a page needs to know; hidden checks are not in it."""
    able = [cell for cell in cells(name) if not cell.lacks]
    setup = [cell for cell in able if "setup" in cell.tags]
    hidden, number = [], -1
    for cell in chapters.code_cells(chapters.read(name)):
        number += 1
        if {"setup", "remove-cell"} <= chapters.tags(cell):
            hidden.append([number, cell.source])
    tasks = []
    for exercise in exercises.read(name):
        given = [cell for cell in able if cell.label == exercise.label]
        code = "\n".join([exercise.given, exercise.solution, exercise.check])
        if lacked_by(code, scan(name)[1]):
            continue
        tasks.append(
            {
                "label": exercise.label,
                "title": exercise.title,
                "stub": exercise.stub,
                "check": f"{exercises.guard(exercise.stub)}\n{exercise.check}".strip(),
                "needs": sorted(cell.number for cell in [*setup, *given]),
            }
        )
    codes = [cell.code for cell in able]
    codes += [task["stub"] + "\n" + task["check"] for task in tasks]
    text = "\n".join(codes)
    sets = {
        "ml-100k.zip": "fetch_movielens",
        "hetrec2011-lastfm-2k.zip": "fetch_lastfm",
    }
    return {
        "page": name,
        "first": needed(codes[:1], False),
        "packages": needed(codes),
        "hidden": hidden,
        "data": [file for file, fetch in sets.items() if fetch in text],
        "exercises": tasks,
    }


def sizes(served: Path, names: list[str]) -> int:
    """Return the bytes that a page loads for some packages, with Python."""
    known = pyodide.pins()["packages"]
    files = [known[name]["file_name"] for name in with_dependencies(names)]
    return sum(
        (served / file).stat().st_size for file in [*files, *pyodide.pins()["core"]]
    )


@cache
def version() -> str:
    """Name what is served beside the pages by its contents."""
    found = hashlib.sha256()
    for path in sorted([*LIVE.iterdir(), *programs().values()]):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def programs() -> dict[str, Path]:
    """Map the files of the library that are served to where they are."""
    paths = [p for pattern in PROGRAMS for p in sorted(chapters.BOOK.glob(pattern))]
    named = {p.relative_to(chapters.BOOK).as_posix(): p for p in paths}
    return {n: p for n, p in named.items() if not lacking(n[:-3].replace("/", "."))}


def is_live(name: str) -> bool:
    """Whether some cell of a page can run in a browser."""
    return chapters.is_notebook(name) and any(not c.lacks for c in cells(name))


class NumberCells(SphinxPostTransform):
    """Give each cell that can run its number, as an id that the script finds."""

    default_priority = 190  # before cells are folded
    formats = ("html",)

    def run(self, **kwargs):
        """Go through the cells in the order of the page."""
        name = self.env.docname.rpartition("/")[2]
        if self.app.builder.name != "html" or name not in chapters.pages():
            return
        if not self.app.live or not is_live(name):
            if chapters.is_notebook(name) and cells(name):
                self.say(ABSENT if not self.app.live else sentence(name))
            return
        left = {cell.number: cell for cell in cells(name)}
        for node in list(self.document.findall(nodes.container)):
            if node.get("nb_element") != "cell_code" or not node.children:
                continue
            code = node.children[0].astext().strip()
            same = (n for n, cell in left.items() if cell.code.strip() == code)
            number = next(same, None)
            if number is not None and not left.pop(number).lacks:
                node["ids"].append(f"live-{number}")
        if left:
            raise ExtensionError(f"{name}: cells {[*left]} are not on the page")
        if sentence(name):
            self.say(sentence(name))

    def say(self, text: str) -> None:
        """Put a sentence before the first cell of the page."""
        cell = next(
            n
            for n in self.document.findall(nodes.container)
            if n.get("nb_element") == "cell_code"
        )
        place = cell.parent.index(cell)
        said = nodes.paragraph("", "", nodes.emphasis("", text), classes=["live-said"])
        cell.parent.insert(place, said)


def tell_page(app, pagename, templatename, context, doctree) -> None:
    """Add script, style and what they need to know to a page."""
    name = pagename.rpartition("/")[2]
    if doctree is None or app.builder.name != "html":
        return
    if name == chapters.read_toc()[0]:
        told = {"chapters": counts()}
    elif name in chapters.teaching_chapters() or is_live(name):
        told = {"page": name, "quizzes": counts().get(name, [0, 0])[1]}
        if app.live and is_live(name):
            told |= about(name)
            told["bytes"] = sizes(app.live, told["first"])
    else:
        return
    told |= {"version": version(), "python": app.live.name if app.live else ""}
    data = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
    context["body"] += f'<script type="application/json" id="live">{data}</script>\n'
    app.add_css_file("live/live.css")
    app.add_js_file("live/live.js", loading_method="defer")


@cache
def counts() -> dict[str, list[int]]:
    """Count exercises and quizzes of each chapter."""
    return {
        name: [
            len(exercises.read(name)),
            chapters.page_path(name).read_text("utf-8").count("\n:class: quiz\n"),
        ]
        for name in chapters.teaching_chapters()
    }


def out_of_date(app, env, added, changed, removed) -> list[str]:
    """List all live pages where what is served beside them has changed."""
    now = version() + (app.live.name if app.live else "")
    before, env.live_version = getattr(env, "live_version", now), now
    if before == now:
        return []
    return [n for n in env.found_docs if n.rpartition("/")[2] in chapters.notebooks()]


# -- what is served --------------------------------------------------------------------


def find_python(app) -> None:
    """Look for Python for the browser where it is kept; ask no network."""
    pyodide.obtain(online=False)
    app.live = pyodide.served() if app.builder.name == "html" else None
    if app.builder.name == "html" and not app.live:
        LOGGER.info("There is no Python for the browser: pages get no Run buttons")


def put(source: Path, target: Path) -> None:
    """Let a file be in a second place, by a link where that is possible."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copyfile(source, target)


def serve(app, error) -> None:
    """Write what pages load when a reader presses Run."""
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    live = site / "_static" / "live"
    for old in live.glob("python-*"):
        shutil.rmtree(old)
    if not app.live:
        return
    python = live / f"python-{app.live.name}"
    python.mkdir(parents=True)
    for path in app.live.iterdir():
        put(path, python / path.name)
    library = {name: path.read_text("utf-8") for name, path in programs().items()}
    (live / "library.json").write_text(json.dumps(library), "utf-8")
    worker = (LIVE / "sw.js").read_text("utf-8")
    (site / "sw.js").write_text(worker.replace("VERSION", app.live.name), "utf-8")
    write_work(live / "work")


def write_work(folder: Path) -> None:
    """Write the notebooks that readers' answers are put into, as a class gets them."""
    from tools.classroom import release

    folder.mkdir(exist_ok=True)
    for name in filter(is_live, chapters.teaching_chapters()):
        notebook = release.for_students(release.source_notebook(name))
        nbformat.write(notebook, folder / f"{name}.ipynb")


def setup(app):
    """Connect to Sphinx."""
    app.live = None
    app.add_directive("live-packages", Packages)
    app.add_post_transform(NumberCells)
    app.connect("builder-inited", find_python)
    app.connect("env-get-outdated", out_of_date)
    app.connect("html-page-context", tell_page, priority=590)
    app.connect("build-finished", serve, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

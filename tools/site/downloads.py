"""What a reader can take away from a page: notebooks, the source, and where to run it.

Every chapter is offered as a notebook without solutions, as one with them, and as the
MyST file it is written in. Where `_config.yml` names the repository, there are links
to edit the page and to open it in Colab and Binder; where it names none, there are no
such links.
"""

import re
import zipfile
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import nbformat
from pybtex.database import parse_file
from sphinx.errors import ConfigError

from tools import chapters

FOLDER = "_downloads"
ZIP = "als-course-notebooks.zip"
TASK = "# Your solution: give the variables of the task their values here."
SETUP = """\
# Only where the course is not on this machine, as in Colab: fetch what is missing.
import importlib.util, pathlib, subprocess, sys

if importlib.util.find_spec("als_course") is None:
    if not pathlib.Path("als-course").exists():
        clone = ["git", "clone", "--depth=1", "{url}", "als-course"]
        subprocess.run(clone, check=True)
    missing = [line for module, line in {needed}.items()
               if importlib.util.find_spec(module) is None]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *missing], check=True)
    sys.path.insert(0, "als-course/book")"""


# -- from a chapter to a notebook that any Jupyter shows well --------------------------


def make_notebook(name: str, solutions: bool, plain=str):
    """Turn a chapter into a notebook; `plain` rewrites its text."""
    made = chapters.read(name)
    cells, before = [], chapters.Piece(None)
    for piece in chapters.pieces(made):
        cell, kind, label, title = piece
        tags, solved = chapters.tags(cell), kind == "solution"
        begins = (kind, label) != (before.kind, before.label)
        before = piece
        if solved and not solutions:
            if "check" not in tags:
                continue
            cells.append(nbformat.v4.new_code_cell(TASK))
        elif solved and begins:
            cells.append(nbformat.v4.new_markdown_cell("**Solution**"))
        if cell.cell_type == "code":
            new = nbformat.v4.new_code_cell(cell.source)
            new.metadata = {"tags": sorted(tags)} if tags else {}
        else:
            heading = (
                f"### Exercise: {title}\n\n" if kind == "exercise" and begins else ""
            )
            new = nbformat.v4.new_markdown_cell(heading + plain(cell.source))
        if new.source.strip():
            cells.append(new)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.cells, made.metadata = cells, {"kernelspec": kernel}
    return made


class Roles:
    """Write a role as the text that the site shows, linked if there is a site.

    Parameters
    ----------
    env : sphinx.environment.BuildEnvironment
        Knows what the labels lead to.
    site : str
        Address of the published site; without one, references are text, not links.
    """

    def __init__(self, env, site: str):
        self.env, self.site = env, site
        self.labels = env.get_domain("std").labels
        self.places = env.get_domain("std").anonlabels
        self.papers = parse_file(str(chapters.BOOK / "references.bib")).entries

    def __call__(self, name: str, text: str, target: str | None) -> str:
        """Write one role."""
        if name == "term":
            return text
        if name.startswith("cite"):
            said = [self.paper(key.strip()) for key in text.split(",")]
            return ", ".join(said) if name == "cite:t" else f"({'; '.join(said)})"
        if name == "eq":
            return f"({self.env.get_domain('math').equations[text][1]})"
        page, anchor = self.places[target or text][:2]
        if name == "numref":
            number = self.env.toc_fignumbers[page]["figure"][anchor]
            text = f"Fig. {'.'.join(map(str, number))}"
        elif not target:
            text = self.labels[text][2]
        return f"[{text}]({self.site}{page}.html#{anchor})" if self.site else text

    def paper(self, key: str) -> str:
        """Name a paper by its authors and year."""
        entry = self.papers[key]
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [" ".join([*p.prelast_names, *p.last_names]) for p in people]
        who = names[0] if names else entry.fields["title"]
        who += f" and {names[1]}" if len(names) == 2 else ""
        who += " et al." if len(names) > 2 else ""
        return f"{who}, {entry.fields['year']}".replace("{", "").replace("}", "")


# -- where they can be opened ----------------------------------------------------------


def repository(config) -> dict:
    """Read the one setting, `repository_url` in `_config.yml`; derive the addresses."""
    options = config.html_theme_options
    url = (options.get("repository_url") or "").rstrip("/")
    if not url:
        return {}
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    if parts.scheme != "https" or parts.netloc != "github.com" or len(path) != 2:
        message = f"repository_url in _config.yml is {url!r}; "
        raise ConfigError(message + "write https://github.com/OWNER/NAME, or nothing")
    branch = options.get("repository_branch") or "main"
    name = "/".join(path)
    return {
        "url": url,
        "edit": f"{url}/edit/{branch}/{{page}}.md",
        "colab": "https://colab.research.google.com/github/"
        f"{name}/blob/gh-pages/{FOLDER}/{{name}}.ipynb",
        "binder": f"https://mybinder.org/v2/gh/{name}/{branch}"
        "?urlpath=lab/tree/{page}.md",
    }


def link(text, url, label, icon, tooltip):
    """Describe an entry of one of the theme's menus."""
    return {
        "type": "link",
        "text": text,
        "url": url,
        "label": label,
        "icon": f"fas fa-{icon}",
        "tooltip": tooltip,
    }


def menus(app, page: str, up: str) -> list[dict]:
    """List the menus of a page: what to download, where to run it, how to edit it."""
    name = page.rsplit("/", 1)[-1]
    source = link(
        "Source of this page", f"{up}_sources/{page}.md", "download-source", "file",
        "Markdown, .md"
    )  # fmt: skip
    paper = {
        "type": "javascript",
        "javascript": "window.print()",
        "text": "Print, or save as PDF",
        "icon": "fas fa-print",
        "label": "print",
    }
    sheet = paper | {
        "javascript": "document.body.classList.add('no-answers'); window.print()",
        "text": "Print without answers",
        "label": "print-sheet",
    }
    entries, places = [source, paper], []
    if is_chapter(page):
        ipynb = f"{up}{FOLDER}/{name}"
        entries[:0] = [
            link("Notebook without solutions", f"{ipynb}.ipynb",
                 "download-notebook", "code", "For Jupyter, .ipynb"),
            link("Notebook with solutions", f"{ipynb}-solutions.ipynb",
                 "download-solutions", "key", "For Jupyter, .ipynb"),
        ]  # fmt: skip
        entries.append(sheet)
    known = repository(app.config)
    if known and is_chapter(page):
        places = [
            link("Colab", known["colab"].format(name=name), "colab", "play",
                 "Open in Colab"),
            link("Binder", known["binder"].format(page=page), "binder", "rocket",
                 "Open in Binder"),
        ]  # fmt: skip
    if known:
        places.append(link("Edit this page", known["edit"].format(page=page), "edit",
                           "pencil-alt", "Propose a change"))  # fmt: skip
    groups = [
        ("Download this page", "download", entries),
        ("Run or edit", "rocket", places),
    ]
    return [
        {"type": "group", "tooltip": said, "icon": f"fas fa-{icon}", "buttons": shown,
         "label": f"{icon}-buttons"}
        for said, icon, shown in groups if shown
    ]  # fmt: skip


def is_chapter(page: str) -> bool:
    """Say whether a page is a notebook that readers run."""
    return page.rpartition("/")[2] in chapters.teaching_chapters()


def add_menus(app, pagename, templatename, context, doctree) -> None:
    """Put our menus where the theme has its own."""
    if doctree is not None and app.builder.name == "html":
        theirs = [b for b in context["header_buttons"] if b["type"] != "group"]
        context["header_buttons"] = (
            menus(app, pagename, context["content_root"]) + theirs
        )


def write_notebooks(app, error) -> None:
    """Write the notebooks of all chapters, and one archive with the library."""
    if error or app.builder.name != "html":
        return
    site = app.config.html_baseurl
    role = Roles(app.env, site.rstrip("/") + "/" if site else "")
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    files = {"requirements.txt": (chapters.ROOT / "requirements.txt").read_bytes()}
    for path in sorted(chapters.BOOK.glob("als_course/**/*.py")):
        files[path.relative_to(chapters.BOOK).as_posix()] = path.read_bytes()
    for page in filter(is_chapter, sorted(app.env.found_docs)):
        name = page.rpartition("/")[2]
        for suffix, solutions in (("", False), ("-solutions", True)):
            made = make_notebook(
                name, solutions, partial(chapters.to_markdown, role=role)
            )
            note, setup = opening(app, page)
            made.cells[:0] = [note, *setup]
            text = nbformat.writes(nbformat.validator.normalize(made)[1]) + "\n"
            (folder / f"{name}{suffix}.ipynb").write_text(text, "utf-8")
            files[f"{name}{suffix}.ipynb"] = text.encode()
    with zipfile.ZipFile(folder / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            stamp = zipfile.ZipInfo(f"als-course/{name}", (1980, 1, 1, 0, 0, 0))
            stamp.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(stamp, content)


def opening(app, page: str):
    """Write the cells that say what the notebook needs, and fetch it where they can."""
    known = repository(app.config)
    site = app.config.html_baseurl
    home = f"[the course]({urljoin(site, page)}.html)" if site else "the course"
    note = (
        f"This notebook is a chapter of {home}.\n"
        "It imports `als_course`, the course's library: "
        "run it where the folder `als_course` is, "
        f"or unpack `{ZIP}`, which holds both."
    )
    cells = [nbformat.v4.new_markdown_cell(note, id="about")]
    if not known:
        return cells[0], []
    setup = SETUP.format(url=known["url"], needed=needed_modules())
    return cells[0], [nbformat.v4.new_code_cell(setup, id="setup")]


def needed_modules() -> str:
    """List the packages that a chapter may import and Colab may lack, with versions."""
    text = (chapters.ROOT / "requirements.txt").read_text("utf-8")
    part = re.search(r"# -- the mathematics.*?(?=# -- the checks)", text, re.S)[0]
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", part, flags=re.M)
    modules = {"scikit-learn": "sklearn"}
    lines = [f'    "{modules.get(n, n)}": "{n}=={v}",' for n, v in pins]
    return "{\n    " + "\n    ".join(lines) + "\n    }"


def setup(app):
    """Connect to Sphinx."""
    app.connect("config-inited", lambda app, config: repository(config))
    app.connect("html-page-context", add_menus, priority=502)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

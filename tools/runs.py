"""The runs of the pages: each page is run once, and its run is kept until it is stale.

nbval compares a run with the stored outputs, and the site shows the very run that was
compared: both take it from here, and whichever comes first puts it here. jupyter-cache
keeps the runs. It looks at the code of a page alone; what a page prints also depends on
the library that it imports, the programs and tables that it reads, the packages and the
data, so a digest of all that lies beside each run.
"""

import ast
import hashlib
import platform
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import nbformat
from filelock import FileLock
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.cache.main import JupyterCacheBase
from jupyter_cache.readers import get_reader
from nbclient import NotebookClient

from tools import chapters

FOLDER = chapters.ROOT / "_build" / ".jupyter_cache"
# What a page may import, run or read; it depends on those that it names.
READ = ("als_course/**/*.py", "jobs/*.py", "_static/*.csv")


class Run(NamedTuple):
    """A page's run: the executed notebook, how long it took, and what names it."""

    notebook: nbformat.NotebookNode
    seconds: float
    name: str


# -- what makes a run stale ------------------------------------------------------------


@cache
def contents(path: Path) -> str:
    """Read what a file says to a page: of a program no comment and no docstring."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def name_of(path: Path) -> str:
    """Say how others call a file: the module's name, or that of the table."""
    if path.suffix != ".py":
        return path.name
    return path.parent.name if path.stem == "__init__" else path.stem


def read_by(code: str) -> list[tuple[str, str]]:
    """List the files that code names, and those that these name, with their contents.

    A name that stands there for something else costs an execution too many; none that
    is needed is missed.
    """
    left = {
        path.relative_to(chapters.BOOK).as_posix(): path
        for pattern in READ
        for path in chapters.BOOK.glob(pattern)
    }
    found, texts = [], [code]
    while texts:
        text = texts.pop()
        for file, path in list(left.items()):
            if re.search(rf"\b{re.escape(name_of(path))}\b", text):
                del left[file]
                texts.append(contents(path))
                found.append((file, texts[-1]))
    return sorted(found)


@cache
def packages() -> list[str]:
    """List Python and all that is installed."""
    # `sys.path` has more on it where setuptools was imported: packages of its own.
    where = [sysconfig.get_path("purelib")]
    installed = {f"{d.name}=={d.version}" for d in distributions(path=where)}
    return [f"Python {platform.python_version()}", *sorted(installed)]


@cache
def fetched(name: str) -> str:
    """Say what a function that fetches data gets here."""
    from als_course import datasets

    if not hasattr(datasets, name):
        return "no set of the course"
    got = getattr(datasets, name)()
    return f"{got.source} {datasets.fingerprint(got.ratings)}"


def digest(page: Path) -> str:
    """Hash what the page's outputs depend on, apart from its own code."""
    code = "\n".join(cell.source for cell in chapters.code_cells(read(page)))
    data = [fetched(name) for name in sorted(set(re.findall(r"\bfetch_\w+", code)))]
    whole = repr([packages(), data, read_by(code)])
    return hashlib.sha256(whole.encode()).hexdigest()


# -- the runs --------------------------------------------------------------------------


def read(page: Path) -> nbformat.NotebookNode:
    """Read a page as MyST-NB does, so that it finds the run."""
    return get_reader({"type": "plugin", "name": "myst_nb_md"})(str(page))


@contextmanager
def opened() -> Iterator[JupyterCacheBase]:
    """Open the cache, for one process at a time."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER.with_name(".runs-lock")):
        version = FOLDER / "__version__.txt"  # written last when the folder is made
        if FOLDER.exists() and not (version.exists() and version.read_text("utf-8")):
            shutil.rmtree(FOLDER)
        yield get_cache(FOLDER)


def forget(page: Path) -> None:
    """Forget the run of a page."""
    with opened() as kept:
        _, key = kept.create_hashed_notebook(read(page))
        shutil.rmtree(FOLDER / "executed" / key, ignore_errors=True)
        for record in kept.list_cache_records():
            if record.hashkey == key:
                NbCacheRecord.remove_record(record.pk, kept.db)


def find(page: Path) -> Run | None:
    """Find the run of a page; one that is stale or half stored is forgotten."""
    notebook, wanted = read(page), digest(page)
    with opened() as kept, suppress(KeyError, ValueError):
        record = kept.match_cache_notebook(notebook)
        if record.data.get("digest") == wanted:
            # A kill may have left the record without its notebook, or with half.
            _, whole = kept.merge_match_into_notebook(notebook)
            return Run(whole, record.data["execution_seconds"], record.data["run"])
    forget(page)
    return None


def store(
    page: Path, notebook: nbformat.NotebookNode, seconds: float, state: str
) -> Run:
    """Store a run of a page, made in the state of that digest."""
    join_streams(notebook)
    name = hashlib.sha256(nbformat.writes(notebook).encode()).hexdigest()
    data = {"execution_seconds": seconds, "digest": state, "run": name}
    bundle = CacheBundleIn(notebook, str(page), data=data)
    with opened() as kept:
        kept.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return Run(notebook, seconds, name)


def execute(page: Path, timeout: float = 300) -> Run:
    """Run a page where readers run it, and store the run."""
    notebook, state, begin = read(page), digest(page), time.monotonic()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        record_timing=False,  # the cache would not know cells again that hold times
        resources={"metadata": {"path": str(page.parent)}},
    )
    client.execute(
        env=chapters.kernel_environment(chapters.REAL),
        stderr=subprocess.DEVNULL,  # the kernel greets with a warning
    )
    return store(page, notebook, time.monotonic() - begin, state)


def join_streams(notebook: nbformat.NotebookNode) -> None:
    """Join the pieces in which a busy kernel may send one text.

    Between two of them MyST-NB would begin a new line on the page.
    """
    for cell in notebook.cells:
        joined = []
        for output in cell.get("outputs", []):
            last = joined[-1] if joined else {}
            streams = output.output_type == last.get("output_type") == "stream"
            if streams and output.name == last.name:
                last.text += output.text
            else:
                joined.append(output)
        if "outputs" in cell:
            cell.outputs = joined

"""Decide when a chapter's stored outputs are stale.

jupyter-cache looks at the code of a page alone. What a page prints also depends on
the library it imports, on the programs it runs, on the packages installed and on the
data, so a digest of all that names the folder of the cache: change one and every page
is executed anew.

Stale pages are run two at a time before Sphinx reads the first. One that fails is left
for myst-nb, which runs it again and reports its traceback.
"""

import hashlib
import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import is_myst_markdown_notebook
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
READER = "myst_nb_md"
LOGGER = logging.getLogger(__name__)
# What the pages import, run or read, apart from data sets.
READ = ("book/als_course/*.py", "book/jobs/*.py", "book/_static/*.csv")


def digest() -> str:
    """Hash the library, the environment and the data that the pages will see."""
    if str(ROOT / "book") not in sys.path:
        sys.path.insert(0, str(ROOT / "book"))
    from als_course import datasets

    packages = sorted(f"{d.name}=={d.version}" for d in distributions())
    data = [datasets.fetch_movielens_100k(), datasets.fetch_amazon_reviews()]
    parts = [
        *(path.read_bytes() for name in READ for path in sorted(ROOT.glob(name))),
        (ROOT / "requirements.txt").read_bytes(),
        platform.python_version().encode(),
        "\n".join(packages).encode(),
        *(f"{d.source} {datasets.fingerprint(d.ratings)}".encode() for d in data),
    ]
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def name_cache(app, config) -> None:
    """Point myst-nb at the cache that belongs to the present state."""
    cache = ROOT / "_build" / ".jupyter_cache" / digest()
    forget_half_stored(cache)
    config.nb_execution_cache_path = str(cache)


def forget_half_stored(folder: Path) -> None:
    """Forget the runs that a kill or a full disk cut off while they were stored.

    jupyter-cache writes a record first and its notebook then, and believes the record.
    """
    if not folder.exists():
        return
    version = folder / "__version__.txt"  # written last when the folder is made
    if not (version.exists() and version.read_text("utf-8")):
        shutil.rmtree(folder)
        return
    cache = get_cache(folder)
    for record in cache.list_cache_records():
        stored = folder / "executed" / record.hashkey / "base.ipynb"
        try:
            nbformat.read(stored, nbformat.NO_CONVERT)
        except (OSError, ValueError):
            LOGGER.info(f"{Path(record.uri).name}: half stored, executed anew")
            shutil.rmtree(stored.parent, ignore_errors=True)
            NbCacheRecord.remove_record(record.pk, cache.db)


def run_stale(app, env, docnames) -> None:
    """Execute the pages that the cache lacks, two at a time, and store their runs."""
    config = env.mystnb_config
    cache = get_cache(config.execution_cache_path)
    pages = [Path(env.doc2path(name)) for name in docnames]
    staged = [
        cache.add_nb_to_project(str(page), read_data={"type": "plugin", "name": READER})
        for page in pages
        if page.suffix == ".md" and is_myst_markdown_notebook(page.read_text("utf-8"))
    ]
    stale = cache.list_unexecuted(filter_pks=[record.pk for record in staged])
    notebooks = [cache.get_project_notebook(record.pk).nb for record in stale]

    def run(page, notebook):
        folder, timeout = str(Path(page.uri).parent), config.execution_timeout
        return single_nb_execution(notebook, folder, timeout, allow_errors=False)

    with ThreadPoolExecutor(2) as pool:
        results = pool.map(run, stale, notebooks)
        for page, notebook, result in zip(stale, notebooks, results, strict=True):
            if result.err is None:
                LOGGER.info(f"{Path(page.uri).name}: executed in {result.time:.1f} s")
                join_streams(notebook)
                seconds = {"execution_seconds": result.time}
                bundle = CacheBundleIn(notebook, page.uri, data=seconds)
                cache.cache_notebook_bundle(
                    bundle, check_validity=False, overwrite=True
                )


def join_streams(notebook) -> None:
    """Join the pieces in which a busy kernel may send one text.

    Between two of them myst-nb would begin a new line on the page.
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


def setup(app):
    """Connect to Sphinx."""
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars, and their times, on pages
    app.connect("config-inited", name_cache)
    app.connect("env-before-read-docs", run_stale)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

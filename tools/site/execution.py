"""Show the run of each page that is kept, and run those that have none first.

What makes a run stale is in `tools/runs.py`. Pages without a run are executed two at a
time before Sphinx reads the first, those with Spark at the head. One that fails is left
for MyST-NB, which runs it again and reports its traceback.
"""

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from myst_nb.core.read import is_myst_markdown_notebook
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sphinx.util import logging

from tools import runs

LOGGER = logging.getLogger(__name__)


def name_cache(app, config) -> None:
    """Point MyST-NB at the runs."""
    config.nb_execution_cache_path = str(runs.FOLDER)


def notebooks(env, docnames) -> dict[str, Path]:
    """Map those of these pages that have cells to their sources."""
    paths = {name: Path(env.doc2path(name)) for name in docnames}
    return {
        name: path
        for name, path in paths.items()
        if path.suffix == ".md" and is_myst_markdown_notebook(path.read_text("utf-8"))
    }


def find_stale(app, env, added, changed, removed) -> list[str]:
    """List the pages that have no run, or another than the one that was read."""
    env.runs_shown = getattr(env, "runs_shown", {})
    found = {name: runs.find(p) for name, p in notebooks(env, env.found_docs).items()}
    return [
        name
        for name, run in found.items()
        if run is None or run.name != env.runs_shown.get(name)
    ]


def run_stale(app, env, docnames) -> None:
    """Execute the pages that have no run, and remember which runs are shown."""
    pages = notebooks(env, docnames)
    found = {name: runs.find(page) for name, page in pages.items()}
    stale = [name for name, run in found.items() if run is None]
    stale.sort(key=lambda name: "get_spark" not in pages[name].read_text("utf-8"))
    timeout = env.mystnb_config.execution_timeout
    left = len(stale)
    with ThreadPoolExecutor(2) as pool:
        begun = {pool.submit(runs.execute, pages[n], timeout): n for n in stale}
        for ended in as_completed(begun):
            name, left = begun[ended], left - 1
            try:
                found[name] = ended.result()
            except (CellExecutionError, CellTimeoutError, DeadKernelError):
                LOGGER.info(f"{name}: failed; {left} left to run")
            else:
                seconds = found[name].seconds
                LOGGER.info(f"{name}: ran for {seconds:.0f} s; {left} left to run")
    env.runs_shown |= {name: run.name for name, run in found.items() if run}


def setup(app):
    """Connect to Sphinx."""
    app.connect("config-inited", name_cache)
    app.connect("env-get-outdated", find_stale)
    app.connect("env-before-read-docs", run_stale)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

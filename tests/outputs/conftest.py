"""Strict nbval for MyST chapters: one run is compared, and the site shows that run.

nbval compares notebooks. Here each stored notebook must have the very code of its
chapter, every cell must have been executed, and the kernel runs in `book`, where a
reader's kernel runs too. A run whose cells all agree goes to `tools/runs.py`, from
where the site takes it, figures included. If the site came first, its run is the one
that is compared, as long as nothing changed since that a page depends on; one that does
not agree is forgotten. `make clean` before it has all pages run anew.
"""

import itertools
import os
import subprocess
import time
from pathlib import Path

import nbformat
import nbval.plugin
import pytest
from nbval.kernel import RunningKernel, start_new_kernel

from tools import chapters, runs

FIGURES = ("image/svg+xml",)  # nbval itself leaves out PNG and JPEG
OUTPUTS = ("stream", "display_data", "execute_result", "error")


class BookKernel(RunningKernel):
    """A kernel in `book` that keeps the outputs as they came.

    nbval joins all that a cell prints, across figures too.
    """

    def __init__(self, kernel_name: str, variant: str, startup_timeout: float):
        self.cells = {}
        self.km, self.kc = start_new_kernel(
            startup_timeout,
            kernel_name,
            stderr=subprocess.DEVNULL,  # the kernel greets with a warning
            cwd=str(chapters.BOOK),
            env=chapters.kernel_environment(variant),
        )
        self._ensure_iopub_up()
        self.language_info = self.kc.kernel_info(reply=True)["content"]["language_info"]

    def execute_cell_input(self, cell_input, allow_stdin=None):
        """Run a cell as Jupyter does, so that a trailing `;` silences its value."""
        sent = self.kc.execute(
            cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )
        number = len(self.cells) + 1
        self.cells[sent] = nbformat.v4.new_code_cell(cell_input, execution_count=number)
        return sent

    def get_message(self, stream, timeout=None):
        """Hand a message on, and keep it if it is an output."""
        message = super().get_message(stream, timeout)
        cell = self.cells.get(message["parent_header"].get("msg_id"))
        if stream == "iopub" and cell and message["msg_type"] in OUTPUTS:
            cell.outputs.append(nbformat.v4.output_from_msg(message))
        return message


class KeptRun:
    """The site's run of a page, told to nbval as a kernel would tell it."""

    def __init__(self, notebook: nbformat.NotebookNode):
        self.left = iter(chapters.code_cells(notebook))
        self.number = itertools.count()

    def execute_cell_input(self, cell_input, allow_stdin=None):
        """Find what the next cell put out."""
        cell = next(self.left)
        assert cell.source == cell_input
        sent = next(self.number)
        contents = [(output.output_type, output) for output in cell.outputs]
        contents.append(("status", {"execution_state": "idle"}))
        self.messages = iter(
            {"msg_type": kind, "content": content, "parent_header": {"msg_id": sent}}
            for kind, content in contents
        )
        return sent

    def get_message(self, stream, timeout=None):
        """Hand on the next output of the cell."""
        return next(self.messages)

    def await_reply(self, msg_id, timeout=None):
        """Do not wait: all is there."""

    def is_alive(self):
        """Say that cells can be run."""
        return True

    def stop(self):
        """Have nothing to stop."""


def left_to_weekly(stored: Path) -> bool:
    """Whether the outputs are of a look-alike where the real data are."""
    name, variant = chapters.name_and_variant(stored)
    return variant == chapters.LOOK_ALIKE and chapters.have_real_data(name)


class StoredNotebook(nbval.plugin.IPyNbFile):
    """A stored notebook that is refused when it is not a run of its chapter."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.chapter, self.variant = chapters.name_and_variant(self.path)
        self.page = chapters.page_path(self.chapter)
        self.skip_compare += FIGURES
        self.agreed, self.failed = set(), False

    def collect(self):
        """Collect the cells after checking that they are the chapter's."""
        items = list(super().collect())
        source = chapters.code_cells(chapters.read(self.chapter))
        stored = chapters.code_cells(self.nb)
        if [cell.source for cell in source] != [cell.source for cell in stored]:
            self.refuse("its code is not the chapter's")
        if any(cell.execution_count is None for cell in stored):
            self.refuse("it has cells that never ran, which nbval would pass over")
        if any(item.options.get("skip") for item in items):
            self.refuse("some of its cells are skipped")
        two_sources = len(chapters.variants(self.chapter)) > 1
        real = two_sources and self.variant == chapters.REAL
        if real and not chapters.have_real_data(self.chapter):
            reason = "the real data are not here: set ALS_COURSE_DATA"
            for item in items:
                item.add_marker(pytest.mark.skip(reason=reason))
        if left_to_weekly(self.path):
            for item in items:
                item.add_marker(pytest.mark.weekly)
        return items

    def refuse(self, why: str):
        """Stop with the way out."""
        raise pytest.Collector.CollectError(
            f"{self.path.name}: {why}; run `make outputs` and read the diff"
        )

    def setup(self):
        """Take the site's run, or start a kernel."""
        self.shown = self.variant == chapters.shown_variant(self.chapter)
        kept = runs.find(self.page) if self.shown else None
        if kept:
            self.kernel = KeptRun(kept.notebook)
        else:
            self.state, self.begin = runs.digest(self.page), time.monotonic()
            timeout = self.config.option.nbval_kernel_startup_timeout
            name = nbval.plugin.CURRENT_ENV_KERNEL_NAME
            self.kernel = BookKernel(name, self.variant, timeout)
        self.setup_sanitize_files()

    def teardown(self):
        """Hand the run to the site if all of it agreed."""
        ran = isinstance(self.kernel, BookKernel)
        super().teardown()
        whole = len(self.agreed) == len(chapters.code_cells(self.nb))
        if self.shown and ran and whole:
            runs.store(self.page, self.run(), time.monotonic() - self.begin, self.state)
        elif self.shown and self.failed:
            runs.forget(self.page)

    def run(self) -> nbformat.NotebookNode:
        """Put the outputs that were compared into the page."""
        notebook = runs.read(self.page)
        notebook.metadata.language_info = self.kernel.language_info
        cells = chapters.code_cells(notebook)
        for cell, ran in zip(cells, self.kernel.cells.values(), strict=True):
            assert cell.source == ran.source
            cell.execution_count, cell.outputs = ran.execution_count, ran.outputs
        return notebook


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note which cells agree."""
    report = yield
    if isinstance(item.parent, StoredNotebook) and report.when == "call":
        if report.passed:
            item.parent.agreed.add(item.cell_num)
        else:
            item.parent.failed = True
    return report


class Progress:
    """Say page by page how many cells agree, the seconds, and what is left."""

    def __init__(self, config):
        self.plugins = config.pluginmanager
        stored = sorted(Path(__file__).parent.glob("*.ipynb"))
        self.left = {
            path.name: len(chapters.code_cells(nbformat.read(path, 4)))
            for path in stored
            if "ALS_COURSE_WEEKLY" in os.environ or not left_to_weekly(path)
        }
        self.seconds = dict.fromkeys(self.left, 0)
        self.differing = dict.fromkeys(self.left, 0)

    def pytest_runtest_logreport(self, report):
        """Count a cell, and say so when it is the page's last."""
        name = Path(report.nodeid.split("::")[0]).name
        self.seconds[name] += report.duration
        self.differing[name] += report.failed
        if report.when == "teardown":
            self.left[name] -= 1
        if report.when == "teardown" and not self.left[name]:
            failed = self.differing[name]
            said = f"{failed} CELLS DO NOT AGREE" if failed else "agrees"
            left = sum(cells > 0 for cells in self.left.values())
            reporter = self.plugins.get_plugin("terminalreporter")
            reporter.write_line(
                f"{name}: {said}, {self.seconds[name]:.0f} s; {left} left"
            )

    def pytest_report_teststatus(self, report):
        """Leave out the dots."""
        if report.passed and report.when == "call":
            return "passed", "", ""
        return None


def pytest_configure(config):
    """Follow the pages where the results come together."""
    if config.option.nbval and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


def _from_parent(cls, parent, **kwargs):
    """Let nbval's own hook make a `StoredNotebook`."""
    if cls is nbval.plugin.IPyNbFile:
        return StoredNotebook.from_parent(parent, **kwargs)
    return super(nbval.plugin.IPyNbFile, cls).from_parent(parent, **kwargs)


nbval.plugin.IPyNbFile.from_parent = classmethod(_from_parent)


def pytest_collection_modifyitems(session, config, items):
    """Every chapter has all its stored notebooks."""
    if not config.option.nbval:
        return
    wanted = {
        chapters.stored_path(name, variant)
        for name in chapters.notebooks()
        for variant in chapters.variants(name)
    }
    there = set(Path(__file__).parent.glob("*.ipynb"))
    if wanted != there:
        raise pytest.UsageError(
            "run `make outputs`: "
            f"missing {sorted(p.name for p in wanted - there)}, "
            f"without a chapter {sorted(p.name for p in there - wanted)}"
        )

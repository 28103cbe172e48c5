"""Strict nbval for MyST chapters.

nbval compares notebooks. Here each stored notebook must have the very code of its
chapter, every cell must have been executed, and the kernel runs in `book`, where a
reader's kernel runs too.
"""

import subprocess
from pathlib import Path

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel, start_new_kernel

from tools import chapters

FIGURES = ("image/svg+xml",)  # nbval itself leaves out PNG and JPEG


class BookKernel(RunningKernel):
    """A kernel in `book`, with the data that the stored notebook was made from."""

    def __init__(self, kernel_name: str, variant: str, startup_timeout: float):
        self.km, self.kc = start_new_kernel(
            startup_timeout,
            kernel_name,
            stderr=subprocess.DEVNULL,  # the kernel greets with a warning
            cwd=str(chapters.BOOK),
            env=chapters.kernel_environment(variant),
        )
        self._ensure_iopub_up()

    def execute_cell_input(self, cell_input, allow_stdin=None):
        """Run a cell as Jupyter does, so that a trailing `;` silences its value."""
        return self.kc.execute(
            cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )


class StoredNotebook(nbval.plugin.IPyNbFile):
    """A stored notebook that is refused when it is not a run of its chapter."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.chapter, self.variant = chapters.name_and_variant(self.path)
        self.skip_compare += FIGURES

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
        if real and not chapters.have_real_amazon():
            reason = "no real Amazon reviews here: set ALS_COURSE_DATA"
            for item in items:
                item.add_marker(pytest.mark.skip(reason=reason))
        return items

    def refuse(self, why: str):
        """Stop with the way out."""
        raise pytest.Collector.CollectError(
            f"{self.path.name}: {why}; run `make outputs` and read the diff"
        )

    def setup(self):
        """Start the kernel."""
        timeout = self.config.option.nbval_kernel_startup_timeout
        name = nbval.plugin.CURRENT_ENV_KERNEL_NAME
        self.kernel = BookKernel(name, self.variant, timeout)
        self.setup_sanitize_files()


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

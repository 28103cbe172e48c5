"""Nothing half written is taken for done, and a full disk is named.

A build that was cut off, by a kill or a full disk, leaves a mark: the next one trusts
none of its pages and pictures and writes them anew from the stored runs. A build waits
for another that works in the same checkout.
"""

import logging
import shutil
import sys
from pathlib import Path

from myst_nb.core.execute import ExecutionError
from sqlalchemy.exc import OperationalError

from tools import lock

LOCK = Path(__file__).resolve().parents[2] / "_build" / ".lock"


def mark_of(app) -> Path:
    """Where the mark of an unfinished build is."""
    site = Path(app.outdir)
    return site.with_name(f".{site.name}-unfinished")


def begin(app, config) -> None:
    """Wait for another build, and clear away one that was cut off."""
    app.lock = lock.hold(LOCK)
    site, mark = Path(app.outdir), mark_of(app)
    if mark.exists():
        print("The last build was cut off: every page is written anew.", flush=True)
        for folder in (site, site.with_name("jupyter_execute"), Path(app.doctreedir)):
            if folder.exists():
                shutil.rmtree(folder)
        Path(app.doctreedir).mkdir()
    mark.touch()
    app.unwritten = Unwritten()
    logging.getLogger("sphinx").addHandler(app.unwritten)


class Unwritten(logging.Handler):
    """Remember the files that Sphinx could not write, of which it only warns."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.errors = []

    def emit(self, record):
        """Keep the errors of the system that a warning mentions."""
        said = record.args if isinstance(record.args, tuple) else ()
        self.errors += [arg for arg in said if isinstance(arg, OSError)]


def why_unwritten(app, error) -> str | None:
    """Say which file could not be written and why, if that is what went wrong."""
    while error is not None:
        if isinstance(error, OperationalError):
            return f"{app.config.nb_execution_cache_path}: {error.orig}"
        if isinstance(error, OSError):
            break
        error = error.__cause__
    error = error or next(iter(app.unwritten.errors), None)
    if error is None:
        return None
    # of a copy, the second name is that of what is written
    place = error.filename2 or error.filename or app.outdir
    return f"{place}: {error.strerror}"


def end(app, error) -> None:
    """Take the mark away, unless pages or pictures may be half written."""
    if reason := why_unwritten(app, error):
        print(
            f"Cannot write {reason}. Make room there, or get the right to write; "
            "then build again.",
            file=sys.stderr,
        )
    elif error is None or isinstance(error, ExecutionError):
        mark_of(app).unlink(missing_ok=True)


def setup(app):
    """Connect to Sphinx: before everything else, and after it."""
    app.connect("config-inited", begin, priority=1)
    app.connect("build-finished", end, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

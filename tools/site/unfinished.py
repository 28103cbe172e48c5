"""One build at a time, and nothing half written is taken for done.

A build that was cut off, by a kill or a full disk, leaves a mark: the next one trusts
none of its pages and pictures and writes them anew from the stored runs.
"""

import logging
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from myst_nb.core.execute import ExecutionError
from sqlalchemy.exc import OperationalError

LOCK = Path(__file__).resolve().parents[2] / "_build" / ".lock"


class Unwritten(logging.Handler):
    """Remember the files that Sphinx could not write, of which it only warns."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.errors = []

    def emit(self, record):
        """Keep the errors of the system that a warning mentions."""
        said = record.args if isinstance(record.args, tuple) else ()
        self.errors += [arg for arg in said if isinstance(arg, OSError)]


def mark_of(app) -> Path:
    """Where the mark of an unfinished build is."""
    site = Path(app.outdir)
    return site.with_name(f".{site.name}-unfinished")


def begin(app, config) -> None:
    """Wait for another build, and clear away one that was cut off."""
    app.lock = FileLock(LOCK)  # open again when this process ends, however it ends
    try:
        app.lock.acquire(blocking=False)
    except Timeout:
        said = f"Another process works in {LOCK.parent}; this one waits."
        print(said, file=sys.stderr, flush=True)
        app.lock.acquire()
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


def is_unwritable(error) -> bool:
    """Whether a file, or the cache, that could not be written led to an error."""
    while error is not None and not isinstance(error, OSError | OperationalError):
        error = error.__cause__
    return error is not None


def end(app, error) -> None:
    """Take the mark away, unless pages or pictures may be half written."""
    if is_unwritable(error) or app.unwritten.errors:
        place = f"Cannot write all that belongs into {LOCK.parent}. "
        what = "Make room there, or get the right to write; then build again."
        print(place + what, file=sys.stderr)
    elif error is None or isinstance(error, ExecutionError):
        mark_of(app).unlink(missing_ok=True)


def setup(app):
    """Connect to Sphinx: before everything else, and after it."""
    app.connect("config-inited", begin, priority=1)
    app.connect("build-finished", end, priority=1000)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""One at a time: what writes into a folder waits for what does so already.

Two builds in one checkout would write into each other's pages, two set-ups into each
other's environment. The lock belongs to the system, which opens it when its holder
ends, however that ends: nothing is left over. Windows has no such lock, and none is
taken there.

As a program, `lock.py FILE COMMAND [ARGUMENT ...]` runs a command while it holds FILE.
Any Python runs it, before there is an environment.
"""

import os
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def hold(path: Path, shared: bool = False):
    """Lock a file until what is returned is closed, or this process ends.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is not there.
    shared : bool
        Let others that share go on, as those that only read; the rest wait.

    Returns
    -------
    file
        Keep it: the lock lasts as long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    if fcntl is None:
        return file
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        print(
            f"Another process works in {path.parent.resolve()}; this one waits until "
            "that one ends.",
            file=sys.stderr,
            flush=True,
        )
        fcntl.flock(file, kind)
    return file


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: lock.py FILE COMMAND [ARGUMENT ...]")
    # The command takes the place of this program, and with it the signals and the lock.
    held = hold(Path(sys.argv[1]))
    os.set_inheritable(held.fileno(), True)
    os.execvp(sys.argv[2], sys.argv[2:])

"""Let one command at a time work in a folder: `lock.py FILE COMMAND [ARGUMENT ...]`.

For the Makefile, whose set-up begins before there is any package: any Python runs it.
The system opens the lock when its holder ends, however that ends, so nothing is left
over. It is the lock that `filelock` takes in a build, and the two wait for each other.
"""

import fcntl
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: lock.py FILE COMMAND [ARGUMENT ...]")
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        place = path.parent.resolve()
        print(f"Another process works in {place}; this one waits.", file=sys.stderr)
        fcntl.flock(held, fcntl.LOCK_EX)
    # The command takes the place of this program, and with it the signals and the lock.
    os.set_inheritable(held, True)
    os.execvp(sys.argv[2], sys.argv[2:])

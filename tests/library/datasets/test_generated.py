"""Generated ratings: what is planted in them, and that they are the same anywhere."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from als_course import datasets
from small_sets import timed


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

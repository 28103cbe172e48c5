"""Splits keep every rating once and hold back the ones that they promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from als_course import splits

SPLITS = [splits.random_split, splits.user_last_split, splits.global_time_split]
TIMED = SPLITS[1:]


def make_ratings(seed, n_ratings, n_times=7):
    """Ratings with unique pairs, many equal timestamps and an odd index."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(60)[:n_ratings]
    columns = {
        "user_id": pairs // 10,
        "item_id": pairs % 10,
        "rating": rng.integers(1, 6, n_ratings),
        "timestamp": rng.integers(0, n_times, n_ratings),
    }
    return pd.DataFrame(columns, index=rng.permutation(n_ratings) + 100)


cases = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10**6)
sizes = st.integers(2, 60)
shares = st.floats(0.05, 0.5)


@pytest.mark.parametrize("split", SPLITS)
@cases
@given(seed=seeds, n_ratings=sizes, share=shares)
def test_every_rating_is_in_one_part_in_its_order(split, seed, n_ratings, share):
    ratings = make_ratings(seed, n_ratings)
    train, test = split(ratings, share)
    is_test = ratings.index.isin(test.index)
    pd.testing.assert_frame_equal(train, ratings[~is_test])
    pd.testing.assert_frame_equal(test, ratings[is_test])


@pytest.mark.parametrize("split", TIMED)
@cases
@given(seed=seeds, n_ratings=sizes, share=shares)
def test_timed_splits_do_not_depend_on_the_order_of_rows(split, seed, n_ratings, share):
    ratings = make_ratings(seed, n_ratings)
    _, test = split(ratings, share)
    _, again = split(ratings.sample(frac=1, random_state=seed), share)
    assert set(again.index) == set(test.index)


@pytest.mark.parametrize("seed", [42, 7])
def test_random_split_is_that_of_scikit_learn(seed):
    ratings = make_ratings(0, 57)
    train, test = splits.random_split(ratings, 0.2, seed)
    theirs = train_test_split(ratings, test_size=0.2, random_state=seed)
    assert set(train.index) == set(theirs[0].index)
    assert set(test.index) == set(theirs[1].index)


@cases
@given(seed=seeds, n_ratings=sizes, share=shares)
def test_user_last_split_rounds_up_and_leaves_each_user_one(seed, n_ratings, share):
    ratings = make_ratings(seed, n_ratings)
    train, test = splits.user_last_split(ratings, share)
    for user, rows in ratings.groupby("user_id"):
        expected = min(int(np.ceil(share * len(rows))), len(rows) - 1)
        assert (test.user_id == user).sum() == expected
        clock = ["timestamp", "item_id"]
        before = train.loc[train.user_id == user, clock].apply(tuple, axis=1)
        after = test.loc[test.user_id == user, clock].apply(tuple, axis=1)
        assert expected == 0 or before.max() < after.min()


@cases
@given(seed=seeds, n_ratings=sizes, share=shares)
def test_global_time_split_trains_on_the_past_only(seed, n_ratings, share):
    ratings = make_ratings(seed, n_ratings)
    train, test = splits.global_time_split(ratings, share)
    clock = ["timestamp", "user_id", "item_id"]
    assert len(test) == np.ceil(share * n_ratings)
    before, after = (part[clock].apply(tuple, axis=1) for part in (train, test))
    assert before.max() < after.min()


def test_timed_splits_by_hand():
    ratings = pd.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2, 3],
            "item_id": [7, 8, 9, 7, 8, 7],
            "timestamp": [5, 1, 5, 9, 2, 9],
        }
    )
    assert splits.user_last_split(ratings, 0.5)[1].index.tolist() == [0, 2, 3]
    assert splits.user_last_split(ratings, 0.2)[1].index.tolist() == [2, 3]
    assert splits.global_time_split(ratings, 0.2)[1].index.tolist() == [3, 5]
    assert splits.global_time_split(ratings, 0.1)[1].index.tolist() == [5]


@pytest.mark.parametrize("split", SPLITS)
def test_validation_is_cut_from_train_by_the_same_split(split):
    ratings = make_ratings(3, 50)
    train, validation, test = splits.train_validation_test(ratings, split, 0.2)
    rest, expected = split(ratings, 0.2)
    pd.testing.assert_frame_equal(test, expected)
    for part, other in zip((train, validation), split(rest, 0.2), strict=True):
        pd.testing.assert_frame_equal(part, other)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_impossible_share_is_refused(split, share):
    with pytest.raises(ValueError, match="test_size must lie between 0 and 1"):
        split(make_ratings(0, 10), share)


@pytest.mark.parametrize("split", SPLITS)
def test_bad_ratings_are_refused(split):
    with pytest.raises(ValueError, match="0 rows"):
        split(make_ratings(0, 0))
    with pytest.raises(TypeError, match="must be a DataFrame, got ndarray"):
        split(np.eye(3))


@pytest.mark.parametrize("split", TIMED)
@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_missing_columns_and_values_are_refused(split, column):
    ratings = make_ratings(0, 10)
    with pytest.raises(ValueError, match=f"no column {column}"):
        split(ratings.drop(columns=column))
    ratings[column] = ratings[column].where(ratings.index != 103)
    with pytest.raises(ValueError, match=f"missing values in '{column}'"):
        split(ratings)


def test_global_time_split_leaves_something_to_train_on():
    with pytest.raises(ValueError, match="leaves none to train on"):
        splits.global_time_split(make_ratings(0, 3), 0.9)

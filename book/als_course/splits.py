"""Deterministic ways to hold ratings back for testing.

Every split takes a DataFrame with the columns ``user_id``, ``item_id``, ``rating``
and ``timestamp`` (others are kept) and returns ``(train, test)``: all of its rows,
each in exactly one part, in their order and with their index.
"""

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from sklearn.model_selection import train_test_split

from als_course.checks import check_columns

__all__ = [
    "global_time_split",
    "random_split",
    "train_validation_test",
    "user_last_split",
]


def random_split(ratings, test_size=0.2, seed=42):
    """Hold back ratings drawn at random, whoever gave them and whenever.

    The rows drawn are those of scikit-learn's ``train_test_split`` with
    ``random_state=seed``, so they depend on the order of the rows.

    Parameters
    ----------
    ratings : DataFrame of shape (n_ratings, ...)
    test_size : float
        Share of the ratings to hold back, above 0 and below 1. The number of test
        rows is rounded up.
    seed : int

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    TypeError, ValueError
        If `ratings` is no DataFrame or has fewer than two rows, or `test_size` is
        out of range.

    Examples
    --------
    >>> import pandas as pd
    >>> train, test = random_split(pd.DataFrame({"rating": [3, 4, 5, 1, 2]}))
    >>> test.index.tolist()
    [1]
    """
    _check(ratings, test_size, columns=[])
    _, test = train_test_split(
        np.arange(len(ratings)), test_size=test_size, random_state=seed
    )
    return _cut(ratings, test)


def user_last_split(ratings, test_size=0.2):
    """Hold back the last ratings of each user.

    A user with ``n`` ratings gives the last ``ceil(test_size * n)`` of them by
    (timestamp, item_id), but never all: a user with one rating stays in train. Note
    that one user's train ratings may be later than another user's test ratings.
    The order of the rows does not matter unless a user rated an item twice at once.

    Parameters
    ----------
    ratings : DataFrame of shape (n_ratings, ...)
        With columns ``user_id``, ``item_id`` and ``timestamp``.
    test_size : float
        Share of each user's ratings to hold back, above 0 and below 1.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    TypeError, ValueError
        If `ratings` is no DataFrame, has fewer than two rows, lacks a column or a
        value in one, its timestamps are neither numbers nor times, or `test_size` is
        out of range.
    """
    _check(ratings, test_size, ["user_id", "item_id", "timestamp"])
    rows = ratings.reset_index(drop=True).sort_values(["timestamp", "item_id"])
    by_user = rows.groupby("user_id", sort=False).timestamp
    n_ratings = by_user.transform("size")
    n_test = np.minimum(np.ceil(test_size * n_ratings), n_ratings - 1)
    is_last = by_user.cumcount(ascending=False) < n_test
    return _cut(ratings, rows.index[is_last])


def global_time_split(ratings, test_size=0.2):
    """Hold back everyone's last ratings by the clock.

    All test ratings are given after the train ratings, as in a service that is
    trained today and used tomorrow. Equal timestamps are ordered by user_id, then
    item_id. The order of the rows does not matter unless a user rated an item twice
    at once.

    Parameters
    ----------
    ratings : DataFrame of shape (n_ratings, ...)
        With columns ``user_id``, ``item_id`` and ``timestamp``.
    test_size : float
        Share of the ratings to hold back, above 0 and below 1. The number of test
        rows is rounded up.

    Returns
    -------
    train, test : DataFrame

    Raises
    ------
    TypeError, ValueError
        If `ratings` is no DataFrame, has fewer than two rows, lacks a column or a
        value in one, its timestamps are neither numbers nor times, or `test_size`
        leaves nothing to train on.
    """
    _check(ratings, test_size, ["timestamp", "user_id", "item_id"])
    n_test = int(np.ceil(test_size * len(ratings)))
    if n_test == len(ratings):
        raise ValueError(
            f"test_size={test_size} of {len(ratings)} ratings leaves none to train on; "
            "choose a smaller test_size"
        )
    rows = ratings.reset_index(drop=True)
    rows = rows.sort_values(["timestamp", "user_id", "item_id"])
    return _cut(ratings, rows.index[-n_test:])


def train_validation_test(ratings, split=random_split, size=0.2):
    """Split twice: the test part first, then a validation part of what is left.

    Choose settings on the validation part; look at the test part once.

    Parameters
    ----------
    ratings : DataFrame of shape (n_ratings, ...)
    split : callable
        One of the splits of this module.
    size : float
        Share to hold back, each time.

    Returns
    -------
    train, validation, test : DataFrame

    Raises
    ------
    TypeError, ValueError
        As `split` does.
    """
    rest, test = split(ratings, size)
    return *split(rest, size), test


def _check(ratings, test_size, columns):
    if not isinstance(ratings, pd.DataFrame):
        raise TypeError(f"ratings must be a DataFrame, got {type(ratings).__name__}")
    if len(ratings) < 2:
        raise ValueError(f"ratings has {len(ratings)} rows; a split needs at least two")
    if not 0 < test_size < 1:
        raise ValueError(f"test_size must lie between 0 and 1, got {test_size}")
    check_columns(ratings, columns)
    for column in columns:
        if ratings[column].isna().any():
            raise ValueError(f"ratings has missing values in {column!r}; drop them")
    if "timestamp" in columns:
        times = ratings.timestamp.dtype
        # Text is sorted by its first digit, and 999999999 follows 1000000000.
        if not (is_numeric_dtype(times) or is_datetime64_any_dtype(times)):
            raise TypeError(
                f"timestamp is {times}, which is not in the order of time; make it "
                "numbers by pandas.to_numeric, or times by pandas.to_datetime"
            )


def _cut(ratings, test_positions):
    is_test = np.zeros(len(ratings), dtype=bool)
    is_test[test_positions] = True
    return ratings[~is_test], ratings[is_test]

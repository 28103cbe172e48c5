"""The results table that the chapters repeat: baselines first, then the models."""

import numpy as np
import pandas as pd

from als_course.datasets import ratings_matrix
from als_course.metrics import (
    bootstrap_interval,
    bootstrap_rmse,
    mae,
    ranking_scores,
    rmse,
)

__all__ = ["ranking_table", "rating_table"]


def rating_table(models, train, test):
    """Fit models on ratings and score their predictions.

    Parameters
    ----------
    models : dict of str to Recommender
        Fitted here, and left fitted, in the order of the table's rows.
    train, test : DataFrame
        With columns ``user_id``, ``item_id`` and ``rating``.

    Returns
    -------
    DataFrame of shape (n_models, 6)
        RMSE on train and test, the 95 % bootstrap interval of the latter over users
        (``low``, ``high``), and the test MAE, all in stars; and the number of test
        rows whose user or item has no rating in `train` (``unknown``): for these the
        training mean stands in.
    """
    matrix, users, items = _on_shared_axes(train, test)
    known = test.user_id.isin(train.user_id) & test.item_id.isin(train.item_id)
    rows = {}
    for name, model in models.items():
        model.fit(matrix)
        seen = model.predict(*_positions(train, users, items))
        predicted = model.predict(*_positions(test, users, items))
        interval = bootstrap_rmse(test.user_id, test.rating - predicted)
        rows[name] = {
            "train RMSE": rmse(train.rating, seen),
            "test RMSE": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "test MAE": mae(test.rating, predicted),
            "unknown": np.sum(~known),
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"unknown": int})


def ranking_table(models, train, test, n=10, liked=4):
    """Fit models on ratings and score their lists of recommendations.

    A test item is relevant if it was rated `liked` stars or more. What a user has
    rated in `train` is not recommended.

    Parameters
    ----------
    models : dict of str to Recommender
        Fitted here, and left fitted, in the order of the table's rows.
    train, test : DataFrame
        With columns ``user_id``, ``item_id`` and ``rating``.
    n : int
        Length of the lists.
    liked : int
        Stars from which on an item counts as relevant.

    Returns
    -------
    DataFrame of shape (n_models, 7)
        Means over the users with a relevant item of nDCG at n with its 95 % bootstrap
        interval (``low``, ``high``), precision and recall at n, the number of such
        users, and how many of them have no rating in `train` (``unknown``): they are
        shown what is popular.
    """
    matrix, users, items = _on_shared_axes(train, test)
    relevant, _, _ = ratings_matrix(test[test.rating >= liked], users, items)
    unknown = ~np.isin(users, train.user_id)
    rows = {}
    for name, model in models.items():
        lists, _ = model.fit(matrix).recommend(np.arange(len(users)), n)
        scores = ranking_scores(lists, relevant, n)
        interval = bootstrap_interval(scores.ndcg)
        rows[name] = {
            f"nDCG@{n}": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            f"precision@{n}": scores.precision.mean(),
            f"recall@{n}": scores.recall.mean(),
            "users": scores.ndcg.count(),
            "unknown": scores.ndcg[unknown].count(),
        }
    whole = {"users": int, "unknown": int}
    return pd.DataFrame.from_dict(rows, orient="index").astype(whole)


def _on_shared_axes(train, test):
    """Make the training matrix, with room for everything in train or test."""
    users = np.union1d(train.user_id, test.user_id)
    items = np.union1d(train.item_id, test.item_id)
    return ratings_matrix(train, users, items)


def _positions(ratings, users, items):
    """Find the row and column numbers of ratings."""
    return users.searchsorted(ratings.user_id), items.searchsorted(ratings.item_id)

"""The results table: right numbers, on axes that train and test share."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from als_course import baselines, comparison, splits


def frame(rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


TRAIN = frame([(1, 10, 5), (1, 20, 3), (2, 10, 4), (2, 40, 2), (3, 10, 1)])
TEST = frame([(1, 40, 2), (3, 30, 5), (9, 10, 4)])  # item 30 and user 9 are new


def test_rating_table_by_hand():
    table = comparison.rating_table({"mean": baselines.GlobalMean()}, TRAIN, TEST)
    mean = 3.0
    row = table.loc["mean"]
    assert row["train RMSE"] == pytest.approx(np.std([5, 3, 4, 2, 1]))
    assert row["test RMSE"] == pytest.approx(
        root_mean_squared_error(TEST.rating, np.full(3, mean))
    )
    assert row["test MAE"] == pytest.approx(
        mean_absolute_error(TEST.rating, np.full(3, mean))
    )
    assert row["low"] <= row["test RMSE"] <= row["high"]
    assert row["unknown"] == 2


def test_items_and_users_unknown_in_training_are_scored_not_dropped():
    table = comparison.rating_table({"items": baselines.ItemMean()}, TRAIN, TEST)
    expected = [2, 3, 10 / 3]  # item 40's mean, the mean of all, item 10's mean
    assert table.loc["items", "test RMSE"] == pytest.approx(
        root_mean_squared_error(TEST.rating, expected)
    )


def test_ranking_table_by_hand():
    """Popularity: item 10 (3 ratings), then 20, 40 and 30 by column."""
    table = comparison.ranking_table(
        {"popular": baselines.MostPopular()}, TRAIN, TEST, n=2
    )
    # User 3 likes item 30 and is shown 20, 40; user 9 likes item 10 and sees it first.
    # User 1 gave two stars: nothing to find, so not counted.
    row = table.loc["popular"]
    assert row["users"] == 2
    assert row["unknown"] == 1  # user 9
    assert row["precision@2"] == pytest.approx((0 + 1 / 2) / 2)
    assert row["recall@2"] == pytest.approx((0 + 1) / 2)
    assert row["nDCG@2"] == pytest.approx((0 + 1) / 2)


def test_rows_keep_the_order_of_the_models():
    models = {"b": baselines.GlobalMean(), "a": baselines.ItemMean()}
    assert list(comparison.rating_table(models, TRAIN, TEST).index) == ["b", "a"]


def test_baselines_on_movielens_stand_in_their_known_order(movielens):
    train, test = splits.random_split(movielens.ratings)
    table = comparison.rating_table(
        {
            "mean": baselines.GlobalMean(),
            "items": baselines.ItemMean(),
            "biases": baselines.DampedBiases(),
        },
        train,
        test,
    )["test RMSE"]
    assert table["mean"] == pytest.approx(1.124, abs=1e-3)
    assert table["biases"] == pytest.approx(0.941, abs=2e-3)
    assert table["mean"] > table["items"] > table["biases"]

"""The results tables hold the right numbers, and sentences claim no more than those."""

import doctest
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from als_course import baselines, comparison, metrics, splits


def frame(rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


TRAIN = frame([(1, 10, 5), (1, 20, 3), (2, 10, 4), (2, 40, 2), (3, 10, 1)])
TEST = frame([(1, 40, 2), (3, 30, 5), (9, 10, 4)])  # item 30 and user 9 are new


def test_examples_in_docstrings_hold():
    result = doctest.testmod(comparison)
    assert result.attempted > 0
    assert result.failed == 0


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


# Unknown rows, and chance -----------------------------------------------------------


def test_the_table_counts_what_train_does_not_know():
    table = comparison.rating_table({"mean": baselines.GlobalMean()}, TRAIN, TEST)
    assert table.unknown.tolist() == [2]  # item 30, and user 9
    said = comparison.unknown_rows(TRAIN, TEST)
    assert said.startswith("2 of 3 ")
    assert "(1 user, 1 item)" in said


def test_chance_is_what_random_lists_score_on_average():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers([60, 40], size=(600, 2)), axis=0)
    rng.shuffle(pairs)
    ratings = pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(rating=5)
    models = {seed: baselines.RandomRanking(seed) for seed in range(100)}
    train, test = ratings[:300], ratings[300:]
    table = comparison.ranking_table(models, train, test, n=5, details=True)
    assert table["nDCG@5"].mean() == pytest.approx(table.chance[0], rel=0.02)
    assert table.lift.mean() == pytest.approx(1, rel=0.02)
    # Seen at random or not, all of an unseen half: the fewer are left, the likelier.
    longer = comparison.ranking_table(
        {0: baselines.RandomRanking()}, train, test, n=40, details=True
    )
    assert longer.chance[0] > 2 * table.chance[0]


def test_unknown_users_of_lists_are_those_that_are_scored():
    table = comparison.ranking_table(
        {"popular": baselines.MostPopular()}, TRAIN, TEST, n=2, details=True
    )
    assert table.unknown.tolist() == [1]  # user 9
    # One of three items left, one of four: of a list of two, by its places.
    gains = 1 + 1 / np.log2(3)
    assert table.chance.iloc[0] == pytest.approx((gains / 3 + gains / 4) / 2)
    assert table.lift.iloc[0] == pytest.approx(0.5 / table.chance.iloc[0])


# Telling apart ---------------------------------------------------------------------


def one_sided(seed, n_users=100, n_each=20, shift=0.0):
    """Errors of two models whose difference each user has a leaning in."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), n_each)
    leaning = rng.normal(shift, 0.5, n_users)[users]
    base = rng.normal(size=len(users))
    return users, base + leaning, base


def covered(interval, truth=0.0):
    return interval.low <= truth <= interval.high


def test_intervals_cover_when_users_are_drawn_and_do_not_when_rows_are():
    """Two scores by row whose expected difference is 0, alike within each user."""
    by_user, by_row = [], []
    for seed in range(300):
        users, first, second = one_sided(seed, n_users=60, n_each=10)
        how = {"n_resamples": 400}
        by_user.append(covered(metrics.paired_bootstrap(first, second, users, **how)))
        by_row.append(covered(metrics.paired_bootstrap(first, second, **how)))
    assert 0.92 <= np.mean(by_user) <= 0.98
    assert np.mean(by_row) < 0.7


def test_intervals_of_few_users_are_wide_enough():
    rng = np.random.default_rng(0)
    hits = [
        covered(metrics.paired_bootstrap(rng.normal(size=8), np.zeros(8)))
        for _ in range(500)
    ]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_intervals_of_rmse_cover():
    """The second model's errors are the first's with another sign for each user."""
    hits = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        users = np.repeat(np.arange(150), rng.integers(1, 20, 150))
        size = rng.gamma(4, size=(2, 150))[:, users]
        first, second = size * rng.normal(size=(2, len(users)))
        hits.append(
            covered(
                metrics.paired_bootstrap(
                    first**2, second**2, users, root=True, n_resamples=400
                )
            )
        )
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_intervals_cover_what_three_starts_leave_open(spread):
    both, users_only = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        starts = rng.normal(0, spread, (3, 1))
        scores = rng.normal(size=200) + starts + rng.normal(0, 0.3, (3, 200))
        zeros, how = np.zeros(200), {"n_resamples": 400}
        both.append(covered(metrics.paired_bootstrap(scores, zeros, **how)))
        users_only.append(
            covered(metrics.paired_bootstrap(scores.mean(axis=0), zeros, **how))
        )
    assert 0.93 <= np.mean(both) <= 0.995  # on the wide side, never the narrow one
    assert np.mean(users_only) < (0.97 if spread < 0.1 else 0.5)


def test_paired_bootstrap_of_a_mean_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=(2, 2000))
    found = metrics.paired_bootstrap(*values)
    gap = values[0] - values[1]
    assert found.estimate == pytest.approx(gap.mean())
    half = 1.96 * gap.std() / np.sqrt(len(gap))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_pairing_is_by_rows_and_a_user_brings_all_of_them():
    """Hard rows are hard for both; the users' names say nothing."""
    rng = np.random.default_rng(1)
    users = rng.integers(50, size=1000)
    first = rng.gamma(1, size=1000)
    found = metrics.paired_bootstrap(first + 0.1, first, users)
    assert found == pytest.approx((0.1, 0.1, 0.1))
    broken = metrics.paired_bootstrap(first + 0.1, rng.permutation(first), users)
    assert broken.high - broken.low > 0.05
    names = np.array([f"user {u}" for u in users])
    assert metrics.paired_bootstrap(first, first**2, users) == metrics.paired_bootstrap(
        first, first**2, names
    )


def test_two_thousand_resamples_of_twenty_thousand_rows_are_quick():
    errors = np.random.default_rng(0).normal(size=(3, 20_000)) ** 2
    users = np.arange(20_000) % 943
    begin = time.process_time()
    metrics.paired_bootstrap(errors, errors[:1], users, root=True)
    assert time.process_time() - begin < 1


def three(values, seed=0, spread=0.01):
    rng = np.random.default_rng(seed)
    return [values + rng.normal(0, spread, len(values)) for _ in range(3)]


def test_sentences_say_who_is_ahead_of_whom():
    users, _, base = one_sided(0)
    good, bad = three(base), three(1.1 * base, seed=1)
    found = comparison.tell_apart({"good": good, "bad": bad}, "RMSE", users=users)
    gap = np.mean([metrics.rmse(0 * base, e) for e in bad])
    gap -= np.mean([metrics.rmse(0 * base, e) for e in good])
    assert found.told_apart
    assert found.ahead == pytest.approx(gap, abs=5e-4)
    assert 0 < found.low < found.ahead < found.high
    assert str(found) == (
        f"good is ahead of bad by {found.ahead:.3f} RMSE [{found.low:.3f}, "
        f"{found.high:.3f}] over 2,000 ratings of 100 users and 3 starts: told apart."
    )


def test_swapping_the_models_negates_and_says_the_same():
    users, _, base = one_sided(0)
    models = {"a": three(base), "b": three(1.1 * base, seed=1)}
    there = comparison.tell_apart(models, "RMSE", users=users)
    back = comparison.tell_apart(dict(reversed(models.items())), "RMSE", users=users)
    assert str(there) == str(back)
    assert (back.ahead, back.low, back.high) == (-there.ahead, -there.high, -there.low)
    assert (back.first, back.second) == ("b", "a")
    absolute = comparison.tell_apart(models, "MAE", users=users)
    assert absolute.told_apart
    assert absolute.ahead < there.ahead


@pytest.mark.parametrize("measure", ["RMSE", "nDCG@10"])
def test_a_model_cannot_be_told_from_itself(measure):
    users, _, base = one_sided(0)
    found = comparison.tell_apart({"a": base, "b": base}, measure, users, starts=False)
    assert not found.told_apart
    assert found[3:6] == (0, 0, 0)
    assert "a and b cannot be told apart here: 0.000" in str(found)
    assert "-0.000" not in str(found)


def test_noise_is_not_told_apart_but_what_is_there_is():
    told = {0.0: 0, 0.15: 0}
    for shift in told:
        for seed in range(100):
            users, first, second = one_sided(seed, shift=shift)
            found = comparison.tell_apart(
                {"a": first, "b": second}, "score", users, starts=False
            )
            told[shift] += found.told_apart
    assert told[0.0] <= 10
    assert told[0.15] > 70


def test_the_words_agree_with_the_printed_numbers():
    """An interval printed as [0.000, ...] is not called apart from zero."""
    gap = np.full(50, 0.0004)
    models = {"a": gap, "b": 0 * gap}
    assert not comparison.tell_apart(models, "s", starts=False).told_apart
    assert comparison.tell_apart(models, "s", starts=False, decimals=4).told_apart


def test_more_comparisons_ask_for_wider_intervals():
    users, first, second = one_sided(3)
    models = {"a": first, "b": second}
    one, ten = (
        comparison.tell_apart(models, "s", users, starts=False, comparisons=n)
        for n in (1, 10)
    )
    assert one.ahead == ten.ahead
    assert ten.low < one.low
    assert ten.high > one.high
    assert "all 10 comparisons" in str(ten)
    assert "comparisons" not in str(one)


def test_users_without_a_score_are_left_out_and_counted():
    scores = np.random.default_rng(0).random(40)
    with_gaps = np.where(np.arange(40) < 7, np.nan, scores)
    models = {"ours": [with_gaps + 0.1] * 3, "popular": with_gaps}
    found = comparison.tell_apart(models, "nDCG@10")
    assert found.unit == "33 users and 3 starts (7 without a score left out)"
    assert found.ahead == pytest.approx(0.1)
    models["popular"] = scores
    with pytest.raises(ValueError, match="same rows"):
        comparison.tell_apart(models, "nDCG@10")


def test_lower_can_be_better_for_scores_too():
    models = {"slow": [3.0, 4.0, 5.0], "quick": [1.0, 2.0, 2.5]}
    found = comparison.tell_apart(models, "s", starts=False, better="lower")
    assert str(found).startswith("quick is ahead of slow by 2.167 s")


ONES = np.ones(4)
IDS = [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ({"a": ONES, "b": ONES}, {"users": IDS}, "fewer than 3 starts.*starts=False"),
        ({"a": [ONES], "b": [ONES]}, {"users": IDS}, "fewer than 3 starts"),
        ({"a": [ONES] * 2, "b": ONES}, {"users": IDS}, "fewer than 3 starts"),
        ({"a": [ONES] * 4, "b": [ONES] * 3}, {"users": IDS}, "numbers of starts"),
        ({"a": [ONES] * 3, "b": ONES}, {}, "needs users"),
        ({"a": [ONES] * 3, "b": ONES}, {"users": [1, 2]}, "users of shape"),
        ({"a": [ONES] * 3, "b": ONES}, {"users": [1] * 4}, "at least two users"),
        ({"a": [ONES] * 3, "b": ONES[:3]}, {"users": IDS}, "'a' has 4 rows and 'b' 3"),
        ({"a": [ONES, ONES, ONES[:2]], "b": ONES}, {"users": IDS}, "one flat array"),
        ({"a": [ONES] * 3, "b": ONES * np.inf}, {"users": IDS}, "infinity"),
        ({"a": [ONES * np.nan] * 3, "b": ONES * np.nan}, {"users": IDS}, "are nan"),
        ({"a": [ONES] * 3}, {"users": IDS}, "two models"),
        ({"a": [ONES] * 3, "b": ONES}, {"users": IDS, "better": "up"}, "better must"),
        ({"a": [ONES] * 3, "b": ONES}, {"users": IDS, "better": "higher"}, "lower"),
        ({"a": [ONES] * 3, "b": ONES}, {"users": IDS, "comparisons": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, settings, message):
    with pytest.raises(ValueError, match=message):
        comparison.tell_apart(models, "RMSE", **settings)


def test_rows_in_another_order_are_refused():
    there = pd.Series(ONES, index=[1, 2, 3, 4])
    models = {"a": [there] * 3, "b": there[::-1]}
    with pytest.raises(ValueError, match="index"):
        comparison.tell_apart(models, "RMSE", users=IDS)


@pytest.mark.parametrize(
    ("first", "second", "settings", "message"),
    [
        ([1, 2], [1, 2, 3], {}, "2 rows of first, 3 of second"),
        (np.ones((2, 3)), np.ones((3, 3)), {}, "2 starts of first, 3 of second"),
        ([1, np.nan], [1, 2], {}, "first must be finite"),
        ([1, 2], [1, -2], {"root": True}, "second must be squared"),
        ([1, 2], [1, 2], {"users": [1, np.nan]}, "nan"),
    ],
)
def test_paired_bootstrap_refuses_what_it_cannot_pair(first, second, settings, message):
    with pytest.raises(ValueError, match=message):
        metrics.paired_bootstrap(first, second, **settings)


# Fits ------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_over_fits_are_those_of_scipy(paired):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 6), rng.normal(1, 3, 6 if paired else 4)
    found = comparison.tell_fits_apart(
        {"a": a, "b": b}, "score", "higher", paired=paired, decimals=9
    )
    test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
    assert found.ahead == pytest.approx(a.mean() - b.mean())


def test_fits_are_counted_and_three_are_needed():
    fits = {"a": [0.90, 0.91, 0.92], "b": [0.93, 0.94, 0.935, 0.94]}
    found = comparison.tell_fits_apart(fits, "RMSE", "lower")
    assert str(found).startswith("a is ahead of b")
    assert "3 and 4 fits" in str(found)
    same = {"a": [1, 1, 1], "b": [1, 1, 1]}
    assert not comparison.tell_fits_apart(same, "RMSE", "lower").told_apart
    for wrong, settings, message in [
        ({"a": [1, 2], "b": [1, 2, 3]}, {}, "'a' has 2 fits, needs 3"),
        ({"a": [1, 2, np.nan], "b": [1, 2, 3]}, {}, "finite"),
        (fits, {"paired": True}, "cannot be paired"),
        (fits, {"better": "up"}, "better must"),
    ]:
        with pytest.raises(ValueError, match=message):
            comparison.tell_fits_apart(
                wrong, **({"measure": "RMSE", "better": "lower"} | settings)
            )


# Choosing --------------------------------------------------------------------------


def bowl(seed, x, y=0):
    """A model that is its own score; the start that flatters it is not the same."""
    return (x - 2) ** 2 + (y - 1) ** 2 + 0.1 * ((3 * seed + x) % 3)


def choose(grid, fit=bowl, better="lower", **settings):
    return comparison.choose_settings(grid, fit, lambda m: m, better, **settings)


@pytest.mark.parametrize(
    ("grid", "edges"),
    [
        ({"x": [1, 2, 3]}, {}),
        ({"x": [2]}, {}),  # one value is no grid, and has no edge
        ({"x": [3, 2, 4]}, {"x": "smallest"}),  # by value, not by place
        ({"x": [0, 1]}, {"x": "largest"}),
        ({"x": [1, 2, 3], "y": [0, 1, 2]}, {}),
        ({"x": [2, 3], "y": [0, 1, 2]}, {"x": "smallest"}),
        ({"x": [2, 3], "y": [-1, 0]}, {"x": "smallest", "y": "largest"}),
        ({"x": [1, 2, 3], "y": [0]}, {}),
        ({"x": [1, 2, 3], "y": [True, False]}, {}),  # no order, no edge
    ],
)
def test_edges_of_the_grid_are_found(grid, edges):
    found = choose(grid)
    assert found.edges == edges
    assert found.best["x"] in grid["x"]
    for name, end in edges.items():
        assert f"{name} = {found.best[name]} is the {end} tried" in str(found)
    assert ("inside the grid" in str(found)) == (not edges)


def test_higher_is_better_when_said_so():
    assert choose({"x": [0, 1, 2, 5]}, better="higher").best == {"x": 5}
    assert choose({"x": [0, 1, 2, 5]}, better="lower").best == {"x": 2}


def test_the_mean_over_starts_chooses_and_not_the_luckiest():
    """Setting 7 has the best single fit and the worst mean."""
    scores = {1: [0.5, 0.5, 0.5], 7: [0.1, 0.9, 0.9]}
    found = choose({"x": [7, 1]}, fit=lambda seed, x: scores[x][seed])
    assert found.best == {"x": 1}
    assert found.table["min"].tolist() == [0.1, 0.5]
    assert found.table["mean"].tolist() == pytest.approx([1.9 / 3, 0.5])


def test_tries_are_counted_and_each_is_made_once():
    made = []

    def fit(seed, x, y):
        made.append((seed, x, y))
        return x + y

    found = choose({"x": [1, 2], "y": [3, 4, 5]}, fit=fit, starts=(5, 6, 7, 8))
    assert len(made) == len(set(made)) == 24
    assert {seed for seed, _, _ in made} == {5, 6, 7, 8}
    assert "Tried: 6 settings x 4 starts = 24 fits." in str(found)
    made.clear()
    found = choose({"x": [1, 2], "y": [3]}, fit=fit, starts=None)
    assert made == [(None, 1, 3), (None, 2, 3)]
    assert "Tried: 2 settings." in str(found)


def test_of_equal_settings_the_first_is_taken_on_every_machine():
    scores = {1: 0.7, 2: 0.5, 3: 0.5 - 1e-13}
    assert choose({"x": [1, 2, 3]}, fit=lambda seed, x: scores[x]).best == {"x": 2}


def test_settings_that_cannot_be_told_from_the_best_are_named():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 10)
    base = rng.normal(size=500)
    found = comparison.choose_settings(
        {"scale": [1.0, 1.0001, 2.0]},
        lambda seed, scale: scale * base + 0.001 * seed,
        lambda model: model,
        "lower",
        measure="RMSE",
        users=users,
    )
    assert found.table.level.tolist() == [True, True, False]
    assert found.best == {"scale": 1.0}
    assert "1 of the others cannot be told apart from it." in str(found)
    expected = np.mean([metrics.rmse(0 * base, base + 0.001 * s) for s in range(3)])
    assert found.table["mean"][0] == pytest.approx(expected)
    assert "level" not in choose({"x": [1, 2]}).table


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": (0,)}, "1 start, but the choice needs 3"),
        ({"starts": (0, 0, 0)}, "1 start, but the choice needs 3 different"),
        ({"grid": {}}, "empty"),
        ({"grid": {"x": []}}, "empty"),
        ({"better": "up"}, "better must"),
        ({"better": "higher", "measure": "RMSE"}, "RMSE is better lower"),
        ({"fit": lambda seed, x: np.nan}, "score of {'x': 1} is"),
    ],
)
def test_a_bad_search_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        choose(**({"grid": {"x": [1, 2]}} | settings))


# Timing ----------------------------------------------------------------------------


def test_versions_take_turns_and_the_first_place_goes_round():
    calls = []
    times = comparison.time_versions(
        {name: lambda name=name: calls.append(name) for name in "abc"}, n_runs=6
    )
    assert calls[:3] == list("abc")  # the warm-up
    rounds = ["".join(calls[i : i + 3]) for i in range(3, len(calls), 3)]
    assert rounds == ["abc", "bca", "cab"] * 2
    assert times.runs.tolist() == [6, 6, 6]
    assert (times["min"] <= times["median"]).all()
    assert (times["median"] <= times["max"]).all()


def test_times_are_medians_and_ranges_of_the_clock(monkeypatch):
    ticks = iter(np.cumsum([0, 1, 0, 5, 0, 2, 0, 9, 0, 3]).tolist())
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: next(ticks))
    times = comparison.time_versions({"one": lambda: None})
    assert times.loc["one"].tolist() == [3, 1, 9, 5]
    shown = comparison.format_times(times, unit="s", decimals=0)
    assert shown["one"] == "3 s (1 to 9)"


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="at least 5, got 4"):
        comparison.time_versions({"one": lambda: None}, n_runs=4)
    with pytest.raises(ValueError, match="at least one version"):
        comparison.time_versions({})
    with pytest.raises(ValueError, match="unit must be"):
        comparison.format_times(pd.DataFrame(), unit="h")


def test_a_share_above_the_roof_accuses_the_roof():
    assert comparison.roof_share(1, 1) == "100 %"
    assert comparison.roof_share(1.24, 1) == "124 %: the roof is wrong"
    assert comparison.roof_share(1.004, 1).endswith("wrong")
    assert comparison.roof_share(np.float64(5), np.float64(4)) == (
        "125 %: the roof is wrong"
    )
    with pytest.raises(ValueError, match="roof > 0"):
        comparison.roof_share(1, 0)

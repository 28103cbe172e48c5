"""Metrics agree with scikit-learn, with hand-worked examples and with each other."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, ndcg_score

from als_course import als, metrics, splits

AT_K = {
    "precision": metrics.precision_at_k,
    "recall": metrics.recall_at_k,
    "map": metrics.average_precision_at_k,
    "ndcg": metrics.ndcg_at_k,
}
cases = settings(deadline=None, derandomize=True, max_examples=100)
seeds = st.integers(0, 10**6)


@pytest.mark.parametrize("module", [metrics, splits, als])
def test_examples_in_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_errors_by_hand():
    assert metrics.rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(np.sqrt(20 / 3))
    assert metrics.mae([1, 2, 3], [1, 4, 7]) == pytest.approx(2)


@pytest.mark.parametrize("metric", [metrics.rmse, metrics.mae])
@pytest.mark.parametrize(
    "pair",
    [
        *[([1, 2], [1]), ([], []), ([1], [np.nan]), ([np.inf], [1])],
        *[([[1, 2]], [[1, 2]]), ([1, 2], [[1], [2]]), ([[1], [2]], [1, 2])],
    ],
)
def test_errors_of_unfit_arrays_are_refused(metric, pair):
    with pytest.raises(ValueError):  # noqa: PT011 - scikit-learn words them
        metric(*pair)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("precision", 2 / 5),
        ("recall", 2 / 3),
        ("map", (1 / 1 + 2 / 4) / 3),
        ("ndcg", (1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / 2)),
    ],
)
def test_ranking_by_hand(name, expected):
    # Hits in places 1 and 4; item 99 is relevant and not in the list.
    value = AT_K[name]([4, 8, 2, 6, 0], {4, 6, 99}, 5)
    assert value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("metric", AT_K.values())
def test_ranking_at_its_limits(metric):
    assert metric([1, 2, 3], {7}, 3) == 0
    assert metric([1, 2, 3], {1, 2, 3}, 3) == 1
    assert np.isnan(metric([1, 2, 3], set(), 3))
    # Places below k and empty places count for nothing.
    assert metric([9, 5, 1], {1, 5}, 2) == metric([9, 5], {1, 5}, 2)
    assert metric([9, 1], {1, 5}, 4) == metric([9, 1, 8, 7], {1, 5}, 4)


def test_precision_divides_by_k_even_if_fewer_are_relevant():
    assert metrics.precision_at_k([1, 2, 3, 4], {1}, 4) == 0.25


def test_average_precision_and_ndcg_stop_the_ideal_at_k():
    relevant = set(range(20))
    assert metrics.average_precision_at_k([0, 1], relevant, 2) == 1
    assert metrics.ndcg_at_k([0, 1], relevant, 2) == 1


@cases
@given(seed=seeds, n_items=st.integers(2, 30), k=st.integers(1, 30))
def test_ranking_agrees_with_scikit_learn(seed, n_items, k):
    rng = np.random.default_rng(seed)
    truth = rng.random(n_items) < 0.4
    truth[rng.integers(n_items)] = True
    scores = rng.permutation(n_items) / n_items
    ranked = np.argsort(-scores)
    relevant = set(np.flatnonzero(truth))
    ndcg = metrics.ndcg_at_k(ranked, relevant, k)
    assert ndcg == pytest.approx(ndcg_score([truth], [scores], k=k))
    full = metrics.average_precision_at_k(ranked, relevant, n_items)
    assert full == pytest.approx(average_precision_score(truth, scores))


@cases
@given(seed=seeds, k=st.integers(1, 8), width=st.integers(1, 8))
def test_scores_of_many_users_are_those_of_each(seed, k, width):
    rng = np.random.default_rng(seed)
    likes = rng.random((12, 9)) < 0.3  # more users than items, too
    likes[2] = False
    lists = np.array([rng.permutation(9)[:width] for _ in likes])
    lists[1, rng.integers(width) :] = -1
    table = metrics.ranking_scores(lists, csr_array(likes.astype(float)), k)
    assert list(table) == list(AT_K)
    for user, liked in enumerate(likes):
        ranked = [item for item in lists[user] if item >= 0]
        for name, metric in AT_K.items():
            expected = metric(ranked, np.flatnonzero(liked), k)
            np.testing.assert_allclose(table.loc[user, name], expected, rtol=1e-14)


def test_stored_zero_is_relevant():
    test = csr_array(([0.0], ([0], [1])), shape=(1, 3))
    assert metrics.ranking_scores(np.array([[1, 2]]), test, 2)["recall"][0] == 1


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0, 1]], "one row of ints for each of 2 users"),
        ([0, 1], "one row of ints for each of 2 users"),
        ([[0.0, 1], [0, 1]], "float64"),
        ([[0, 1], [2, 2]], "list of user 1 repeats"),
        ([[0, 1], [0, 0]], "list of user 1 repeats"),
        ([[0, 1, 2], [0, 2, 2]], "list of user 1 repeats"),
        ([[0, 1], [2, 3]], r"outside -1\.\.2"),
    ],
)
def test_unfit_lists_are_refused(lists, message):
    with pytest.raises(ValueError, match=message):
        metrics.ranking_scores(np.array(lists), csr_array(np.eye(2, 3)), 2)
    with pytest.raises(TypeError, match="must be a SciPy CSR"):
        metrics.ranking_scores(np.array(lists), np.eye(2, 3), 2)


def test_the_same_single_item_for_all_is_no_repeat():
    likes = csr_array([[0, 1, 0], [0, 1, 1]])
    found = metrics.ranking_scores(np.array([[1], [1]]), likes, 1)
    assert found["recall"].tolist() == [1, 0.5]


@pytest.mark.parametrize("metric", AT_K.values())
def test_repeats_and_empty_lists_are_refused(metric):
    with pytest.raises(ValueError, match="repeats an item"):
        metric([1, 1], {1}, 2)
    with pytest.raises(ValueError, match="== 0, must be >= 1"):
        metric([1], {1}, 0)


def test_top_k_breaks_ties_by_column():
    columns, best = metrics.top_k([1.0, 3.0, 3.0, 2.0, 3.0], 4)
    assert columns.tolist() == [1, 2, 4, 3]
    assert best.tolist() == [3, 3, 3, 2]


def test_top_k_leaves_out_and_fills_up():
    scores = np.array([[5.0, 4, 4, 1], [0, 0, 0, 0]])
    seen = csr_array(([0.0, 1, 1, 1], ([0, 1, 1, 1], [0, 0, 1, 3])), shape=(2, 4))
    before = scores.copy()
    columns, best = metrics.top_k(scores, 9, exclude=seen)
    assert columns.tolist() == [[1, 2, 3, -1], [2, -1, -1, -1]]
    assert best.tolist() == [[4, 4, 1, -np.inf], [0, -np.inf, -np.inf, -np.inf]]
    np.testing.assert_array_equal(scores, before)


@cases
@given(seed=seeds, k=st.integers(1, 12))
def test_top_k_is_a_sort_by_score_and_column(seed, k):
    scores = np.random.default_rng(seed).integers(0, 4, (3, 10)).astype(float)
    for row, columns in zip(scores, metrics.top_k(scores, k)[0], strict=True):
        expected = sorted(range(10), key=lambda column: (-row[column], column))
        assert columns.tolist() == expected[:k]


def test_top_k_refuses_what_has_no_rank():
    with pytest.raises(ValueError, match="nan"):
        metrics.top_k([1.0, np.nan], 1)
    with pytest.raises(ValueError, match="== 0, must be >= 1"):
        metrics.top_k([1.0], 0)
    with pytest.raises(ValueError, match=r"shape \(1, 3\), not \(1, 2\)"):
        metrics.top_k([1.0, 2.0], 1, exclude=csr_array(np.eye(1, 3)))


def test_bootstrap_of_a_mean_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(1).normal(size=2000)
    found = metrics.bootstrap_interval(np.append(values, np.nan), n_resamples=2000)
    error = 1.96 * values.std() / np.sqrt(2000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)
    assert found == metrics.bootstrap_interval(values, n_resamples=2000)
    assert found != metrics.bootstrap_interval(values, n_resamples=2000, seed=1)


def test_bootstrap_of_rmse_draws_users_not_ratings():
    # Every user errs by an own amount, the same 50 times over.
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.normal(size=100), 50)
    users = np.repeat(np.arange(100), 50)
    found = metrics.bootstrap_rmse([f"user {u}" for u in users], errors)
    assert found.estimate == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert found.low < found.estimate < found.high
    as_if_independent = metrics.bootstrap_rmse(np.arange(5000), errors)
    ratio = (found.high - found.low) / (as_if_independent.high - as_if_independent.low)
    assert ratio == pytest.approx(np.sqrt(50), rel=0.15)


def test_bootstrap_of_rmse_weighs_ratings_alike():
    # All resamples of two such users lie between their own RMSEs, 1 and 3.
    found = metrics.bootstrap_rmse([0, 0, 0, 1], [1, -1, 1, 3])
    assert found == pytest.approx((np.sqrt(3), 1, 3))


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 1.0], [1.0, np.inf]])
def test_bootstrap_of_too_little_is_refused(values):
    with pytest.raises(ValueError, match="at least two users and finite"):
        metrics.bootstrap_interval(values)


def test_bootstrap_of_rmse_refuses_unfit_errors():
    with pytest.raises(ValueError, match=r"\(2,\) users but \(1,\) errors"):
        metrics.bootstrap_rmse([1, 2], [0.5])
    with pytest.raises(ValueError, match="at least two users and finite"):
        metrics.bootstrap_rmse([1, 2], [0.5, np.nan])


def test_paired_bootstrap_is_that_of_a_loop_over_users():
    rng = np.random.default_rng(4)
    users = np.repeat(np.arange(12), rng.integers(1, 6, size=12))
    first, second = rng.gamma(2, size=(2, 3, len(users)))
    rows_of = [np.flatnonzero(users == user) for user in range(12)]
    gaps = []
    for _ in range(20_000):
        rows = np.concatenate([rows_of[u] for u in rng.integers(12, size=12)])
        roots = [np.sqrt(v[:, rows].mean(axis=1)) for v in (first, second)]
        gaps.append(np.mean(roots[0] - roots[1]))
    by_start = np.sqrt(first.mean(axis=1)) - np.sqrt(second.mean(axis=1))
    gaps += stats.t.rvs(2, size=len(gaps), random_state=rng) * stats.sem(by_start)
    tail = stats.norm.cdf(np.sqrt(12 / 11) * stats.t.ppf(0.1, 11))
    found = metrics.paired_bootstrap(
        first, second, users, root=True, n_resamples=20_000, confidence=0.8
    )
    assert found.estimate == pytest.approx(by_start.mean())
    wanted = np.quantile(gaps, [tail, 1 - tail])
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.03 * np.ptp(wanted))


def test_a_flat_model_is_paired_with_each_start_of_the_other():
    rng = np.random.default_rng(5)
    starts, flat = rng.normal(size=(3, 40)), rng.normal(size=40)
    found = metrics.paired_bootstrap(starts, flat)
    assert found == metrics.paired_bootstrap(starts, np.tile(flat, (3, 1)))
    turned = metrics.paired_bootstrap(flat, starts)
    assert turned.estimate == pytest.approx(-found.estimate)


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        ([1, np.nan], [1, 2], {}, "first must be finite"),
        ([1, 2], [1, np.inf], {}, "second must be finite"),
        (np.ones((1, 1, 2)), [1, 2], {}, "first must be finite, one row"),
        ([1, 2], [-1, 2], {"root": True}, "second must be squared errors"),
        ([1, 2, 3], [1, 2], {}, "3 rows of first, 2 of second"),
        (np.ones((2, 4)), np.ones((3, 4)), {}, "2 starts of first, 3 of second"),
        ([1, 2], [1, 2], {"users": [1, 2, 3]}, r"users of shape \(3,\) for 2 rows"),
        ([1, 2], [1, 2], {"users": [7, 7]}, "at least two users"),
        ([1, 2, 3], [1, 2, 3], {"users": [1, 2, np.nan]}, "none of them nan"),
    ],
)
def test_what_cannot_be_paired_is_refused(first, second, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.paired_bootstrap(first, second, **options)


def test_squared_errors_of_zero_and_two_users_are_enough():
    zeros = metrics.paired_bootstrap([0, 0], [0, 0], root=True)
    assert zeros == (0, 0, 0)


def test_percentiles_of_two_users_are_as_far_out_as_students_t_says():
    """Each user alone is a quarter of the draws: Student's t with one degree of
    freedom puts both ends among them at this confidence, with three it does not."""
    found = metrics.paired_bootstrap([0, 1], [0, 0], confidence=0.32)
    assert found == (0.5, 0, 1)

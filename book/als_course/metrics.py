"""Measure how good predicted ratings and ranked lists are.

One definition each. For lists, an item is relevant or it is not, and a list that is
shorter than ``k`` counts as filled up with misses. A user without a relevant item
scores nan, so that means over users leave that user out.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from als_course.checks import check_count, check_csr

__all__ = [
    "Interval",
    "average_precision_at_k",
    "bootstrap_interval",
    "bootstrap_rmse",
    "mae",
    "ndcg_at_k",
    "paired_bootstrap",
    "precision_at_k",
    "ranking_scores",
    "recall_at_k",
    "rmse",
    "top_k",
]


def rmse(actual, predicted):
    """Root of the mean squared error, in the unit of the ratings.

    Parameters
    ----------
    actual, predicted : array-like of shape (n_ratings,)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the two differ in length, are empty, not flat, or hold nan or infinity.

    Examples
    --------
    >>> rmse([4, 2], [3, 2])
    0.7071067811865476
    """
    _check_flat(actual, predicted)
    return float(root_mean_squared_error(actual, predicted))


def mae(actual, predicted):
    """Mean absolute error, in the unit of the ratings.

    Parameters
    ----------
    actual, predicted : array-like of shape (n_ratings,)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the two differ in length, are empty, not flat, or hold nan or infinity.

    Examples
    --------
    >>> mae([4, 2], [3, 2])
    0.5
    """
    _check_flat(actual, predicted)
    return float(mean_absolute_error(actual, predicted))


def precision_at_k(recommended, relevant, k):
    """Share of the first `k` recommendations that are relevant.

    Divides by `k`, however few items are relevant, so a user with three relevant
    items scores 0.3 at best for ``k=10``. The library *implicit* divides by
    ``min(k, number of relevant items)`` instead.

    Parameters
    ----------
    recommended : sequence of int
        Item columns, best first, no repeats; a row of what `recommend` gives for
        several users, where -1 is an empty place, too.
    relevant : collection of int
        Item columns that the user likes.
    k : int
        How many places of the list count.

    Returns
    -------
    float
        nan if nothing is relevant.

    Raises
    ------
    TypeError, ValueError
        If `recommended` is not flat or repeats an item, or `k` is no integer or
        below 1.

    Examples
    --------
    >>> precision_at_k([7, 1, 3, 5], relevant={1, 5, 9}, k=4)
    0.5
    """
    return float(_precision(*_hits_of_one(recommended, relevant, k)))


def recall_at_k(recommended, relevant, k):
    """Share of the relevant items that are among the first `k` recommendations.

    Arguments, return value and errors are those of `precision_at_k`.

    Examples
    --------
    >>> recall_at_k([7, 1, 3, 5], relevant={1, 5, 9, 8}, k=4)
    0.5
    """
    return float(_recall(*_hits_of_one(recommended, relevant, k)))


def average_precision_at_k(recommended, relevant, k):
    """Mean, over the relevant items, of the precision at the place of each.

    Relevant items outside the first `k` count 0. Divides by ``min(k, number of
    relevant items)``, so that a perfect list scores 1. Its mean over users is MAP@k.

    Arguments, return value and errors are those of `precision_at_k`.

    Examples
    --------
    Hits in places 2 and 4, of two that are relevant: (1/2 + 2/4) / 2.

    >>> average_precision_at_k([7, 1, 3, 5], relevant={1, 5}, k=4)
    0.5
    """
    return float(_average_precision(*_hits_of_one(recommended, relevant, k)))


def ndcg_at_k(recommended, relevant, k):
    """Normalised discounted cumulative gain of the first `k` recommendations.

    A hit in place ``p = 1, 2, ...`` gains ``1 / log2(p + 1)``. The sum is divided by
    that of the best possible list, which has ``min(k, number of relevant items)``
    hits at its head. Follows Järvelin and Kekäläinen (2002) [1]_ with binary gains.

    Arguments, return value and errors are those of `precision_at_k`.

    References
    ----------
    .. [1] K. Järvelin, J. Kekäläinen, "Cumulated gain-based evaluation of IR
       techniques", ACM TOIS 20(4), 2002.

    Examples
    --------
    >>> ndcg_at_k([7, 3, 1], relevant={1}, k=3)
    0.5
    """
    return float(_ndcg(*_hits_of_one(recommended, relevant, k)))


def top_k(scores, n, exclude=None):
    """Find the `n` best columns of each row of scores.

    Parameters
    ----------
    scores : array-like of shape (n_items,) or (n_users, n_items)
        A score of minus infinity takes a column out.
    n : int
        Length of the lists.
    exclude : CSR array of shape (n_users, n_items), optional
        Columns with a stored entry are taken out; for flat scores, one row.

    Returns
    -------
    columns : int array of shape (n,) or (n_users, n)
        Highest score first; equal scores by column, ascending. At most ``n_items``
        wide. Where too few columns are left, -1.
    best : float64 array of the same shape
        Their scores; minus infinity where `columns` is -1.

    Raises
    ------
    TypeError, ValueError
        If the score of a column that is not excluded is nan, `n` is no integer or
        below 1, or `exclude` is not CSR or has another shape.

    Notes
    -----
    The scores are not sorted. The columns fall into groups, and the n-th of the groups'
    best scores is a bound which n columns at least reach; only these few are sorted.

    Examples
    --------
    >>> columns, best = top_k([0.5, 0.9, 0.5, 0.1], n=3)
    >>> columns.tolist()
    [1, 0, 2]
    """
    check_count(n, "n")
    block = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if exclude is not None:
        check_csr(exclude, "exclude")
        if exclude.shape != block.shape:
            raise ValueError(f"exclude has shape {exclude.shape}, not {block.shape}")
        block = block.copy()
        rows = np.repeat(np.arange(len(block)), np.diff(exclude.indptr))
        block[rows, exclude.indices] = -np.inf
    n_rows, n_items = block.shape
    n = min(n, n_items)
    columns, best = np.full((n_rows, n), -1), np.full((n_rows, n), -np.inf)
    if block.size:
        group = max(1, n_items // (8 * n))
        tops = np.maximum.reduceat(block, np.arange(0, n_items, group), axis=1)
        if np.isnan(tops).any():
            raise ValueError("scores hold nan, which has no rank")
        bound = np.partition(tops, -n, axis=1)[:, [-n]]
        bound = np.maximum(bound, -np.finfo(np.float64).max)  # minus infinity is out
        rows, found = np.divmod(np.flatnonzero(block >= bound), n_items)
        # Of those at the bound itself none is needed behind n others of its row.
        needed = (_places(rows) < n) | (block[rows, found] > bound[rows, 0])
        rows, found = rows[needed], found[needed]
        reached = block[rows, found]
        order = np.lexsort((-reached, rows))  # stable: equal ones by column
        places = _places(rows)
        first = places < n
        at = rows[first], places[first]
        columns[at], best[at] = found[order][first], reached[order][first]
    return (columns, best) if np.ndim(scores) == 2 else (columns[0], best[0])


def _places(rows):
    """Count for each of these sorted numbers the equal ones before it."""
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(begins, np.diff(begins, append=len(rows)))


def ranking_scores(recommended, test, n=10):
    """Score the lists of many users at once.

    Parameters
    ----------
    recommended : int array of shape (n_users, length)
        Item columns, best first, no repeats; -1 for an empty place.
    test : CSR array of shape (n_users, n_items)
        Each stored entry is a relevant item, whatever its value.
    n : int
        How many places of each list count, the k of precision at k.

    Returns
    -------
    DataFrame of shape (n_users, 4)
        Columns ``precision``, ``recall``, ``map`` and ``ndcg``, as defined by the
        functions of this module; one row a user, nan for users without a relevant
        item. ``.mean()`` leaves those out and ``.count()`` tells how many are left.

    Raises
    ------
    TypeError, ValueError
        If `test` is not CSR, `n` is no integer or below 1, shapes do not fit, or an
        item is unknown or repeated.
    """
    check_count(n, "n")
    check_csr(test, "test")
    lists = np.asarray(recommended)
    _check_lists(lists, *test.shape)
    lists = np.pad(
        lists[:, :n], ((0, 0), (0, max(0, n - lists.shape[1]))), constant_values=-1
    )
    n_relevant = np.diff(test.indptr)
    # A user and an item make one number, so that one look-up finds all hits.
    first = np.arange(test.shape[0], dtype=np.int64) * test.shape[1]
    relevant = np.repeat(first, n_relevant) + test.indices
    hits = np.isin(lists + first[:, None], relevant) & (lists >= 0)
    return pd.DataFrame(
        {
            "precision": _precision(hits, n_relevant),
            "recall": _recall(hits, n_relevant),
            "map": _average_precision(hits, n_relevant),
            "ndcg": _ndcg(hits, n_relevant),
        }
    )


class Interval(NamedTuple):
    """An estimate with the two ends of its confidence interval.

    Attributes
    ----------
    estimate, low, high : float
    """

    estimate: float
    low: float
    high: float


def bootstrap_interval(values, n_resamples=1000, confidence=0.95, seed=0):
    """Mean over users, with its percentile bootstrap interval.

    Users are drawn, not ratings: ratings of one user resemble each other. To compare
    two models, give the differences of their scores, user by user.

    Parameters
    ----------
    values : array-like of shape (n_users,)
        One score a user; nan (nothing to score) is left out.
    n_resamples : int
    confidence : float
        Between 0 and 1.
    seed : int

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If fewer than two users have a score, or one is infinite.

    References
    ----------
    B. Efron, R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return _bootstrap((values,), np.mean, n_resamples, confidence, seed)


def bootstrap_rmse(users, errors, n_resamples=1000, confidence=0.95, seed=0):
    """RMSE with its percentile bootstrap interval over users.

    Each user drawn brings all of his or her errors along.

    Parameters
    ----------
    users : array-like of shape (n_ratings,)
        Who gave each rating; any kind of id.
    errors : array-like of shape (n_ratings,)
        Actual minus predicted rating.
    n_resamples : int
    confidence : float
        Between 0 and 1.
    seed : int

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If the two differ in length, hold fewer than two users, or an error is nan or
        infinite.
    """
    if np.shape(users) != np.shape(errors):
        raise ValueError(f"{np.shape(users)} users but {np.shape(errors)} errors")
    codes, _ = pd.factorize(np.asarray(users))
    counts = np.bincount(codes)
    squares = np.bincount(codes, weights=np.square(errors))

    def pooled(squares, counts, axis=-1):
        return np.sqrt(squares.sum(axis=axis) / counts.sum(axis=axis))

    return _bootstrap((squares, counts), pooled, n_resamples, confidence, seed)


def paired_bootstrap(
    first, second, users=None, root=False, n_resamples=2000, confidence=0.95, seed=0
):
    """Mean of one model minus that of another, with the interval of the difference.

    Both models are scored on the same rows, and each resample draws users with
    replacement, each with all of his or her rows and for both models: what makes a
    user hard for both cancels. Ratings of one user resemble each other, so drawing
    rows instead would make the interval too narrow.

    A model fitted from several starts has a row of values for each. The difference is
    averaged over the starts, and every resample is shifted by a draw of Student's t
    with ``n_starts - 1`` degrees of freedom times the standard error over the starts.
    Three starts are too few to be drawn with replacement themselves: no mean of such a
    draw leaves their range, which misses the truth one time in four. With starts the
    interval errs a little on the wide side.

    Parameters
    ----------
    first, second : array-like of shape (n_rows,) or (n_starts, n_rows)
        Finite values of the two models on the same rows; with `root`, squared errors.
        A flat one stands for a model without a start.
    users : array-like of shape (n_rows,), optional
        Whose each row is; any kind of id. Each row is a user of its own if left out.
    root : bool
        Compare the roots of the means: with squared errors, the RMSE.
    n_resamples : int
    confidence : float
        Between 0 and 1.
    seed : int

    Returns
    -------
    Interval
        Of first minus second; from percentiles that are a little further out than
        `confidence` says, as Student's t is than the normal distribution, since those
        of few users fall short [1]_.

    Raises
    ------
    ValueError
        If shapes differ, a value is nan or infinite (with `root`, or negative), or
        there are fewer than two users.

    References
    ----------
    .. [1] T. Hesterberg, "What teachers should know about the bootstrap", The American
       Statistician 69(4), 2015, on expanded percentile intervals.

    Examples
    --------
    >>> better, worse = [0.5, 0.25, 1.0, 0.75], [0.25, 0.0, 0.75, 0.5]
    >>> paired_bootstrap(better, worse)
    Interval(estimate=0.25, low=0.25, high=0.25)
    """
    first, second = (np.atleast_2d(np.asarray(v, float)) for v in (first, second))
    codes = _check_paired(first, second, users, root)
    per_user = [np.bincount(codes, weights=row) for row in (*first, *second)]
    sums = np.column_stack([*per_user, np.bincount(codes)])

    def per_start(totals):
        means = totals[..., :-1] / totals[..., -1:]
        means = np.sqrt(means) if root else means
        return means[..., : len(first)] - means[..., len(first) :]

    found = per_start(sums.sum(axis=0))
    rng = np.random.default_rng(seed)
    draws = per_start(_resampled_sums(sums, n_resamples, rng)).mean(axis=-1)
    if len(found) > 1:
        places = (np.arange(n_resamples) + 0.5) / n_resamples
        shifts = stats.t.ppf(places, len(found) - 1) * stats.sem(found)
        draws += rng.permutation(shifts)
    n_users = len(sums)
    wide = np.sqrt(n_users / (n_users - 1)) * stats.t.isf(
        (1 - confidence) / 2, n_users - 1
    )
    low, high = np.quantile(draws, [stats.norm.sf(wide), stats.norm.cdf(wide)])
    return Interval(float(found.mean()), float(low), float(high))


def _check_flat(actual, predicted):
    if np.ndim(actual) != 1 or np.ndim(predicted) != 1:
        raise ValueError(
            "actual and predicted must be flat, got shapes "
            f"{np.shape(actual)} and {np.shape(predicted)}"
        )


def _check_lists(lists, n_users, n_items):
    if lists.ndim != 2 or len(lists) != n_users or lists.dtype.kind != "i":
        raise ValueError(
            f"recommended must be one row of ints for each of {n_users} users, "
            f"got shape {lists.shape} of {lists.dtype}"
        )
    if lists.size and not -1 <= lists.min() <= lists.max() < n_items:
        raise ValueError(f"recommended holds columns outside -1..{n_items - 1}")
    ordered = np.sort(lists, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if repeated.any():
        user = np.flatnonzero(repeated.any(axis=1))[0]
        raise ValueError(f"the list of user {user} repeats an item")


def _hits_of_one(recommended, relevant, k):
    """One user's hits in the first k places, and the number of relevant items."""
    check_count(k, "k")
    if any(np.ndim(item) for item in recommended):
        raise ValueError(
            "recommended must be the items of one user; `recommend` gives them first "
            "and their scores second, one row each for several users"
        )
    recommended = [item for item in recommended if item != -1]
    relevant = set(relevant)
    if len(set(recommended)) < len(recommended):
        raise ValueError(f"recommended repeats an item: {recommended}")
    hits = [item in relevant for item in recommended[:k]]
    return np.pad(np.array(hits, dtype=bool), (0, k - len(hits))), len(relevant)


# These take hits, a boolean array (..., k), and n_relevant, an int array (...).


def _precision(hits, n_relevant):
    return np.where(np.equal(n_relevant, 0), np.nan, hits.mean(axis=-1))


def _recall(hits, n_relevant):
    return _divide(hits.sum(axis=-1), n_relevant)


def _average_precision(hits, n_relevant):
    k = hits.shape[-1]
    precisions = np.cumsum(hits, axis=-1) / np.arange(1, k + 1)
    return _divide((precisions * hits).sum(axis=-1), np.minimum(k, n_relevant))


def _ndcg(hits, n_relevant):
    k = hits.shape[-1]
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gains)])
    return _divide((hits * gains).sum(axis=-1), ideal[np.minimum(k, n_relevant)])


def _divide(total, number):
    """Divide, with nan where there is nothing to divide by."""
    total = np.asarray(total, dtype=np.float64)
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number != 0)


def _check_paired(first, second, users, root):
    """Return numbers for the users of the rows; refuse what cannot be paired."""
    for values, name in [(first, "first"), (second, "second")]:
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, one row of values a start")
        if root and (values < 0).any():
            raise ValueError(f"{name} must be squared errors, but some are negative")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} rows of first, {second.shape[1]} of second")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"{len(first)} starts of first, {len(second)} of second")
    users = np.arange(first.shape[1]) if users is None else np.asarray(users)
    if users.shape != first.shape[1:]:
        raise ValueError(f"users of shape {users.shape} for {first.shape[1]} rows")
    codes, names = pd.factorize(users)
    if len(names) < 2 or (codes < 0).any():
        raise ValueError("the bootstrap needs at least two users, none of them nan")
    return codes


def _resampled_sums(sums, n_resamples, rng):
    """Totals over users drawn with replacement, of sums (n_users, n_columns)."""
    n_users = len(sums)
    size = max(1, 2**17 // n_users)
    totals = []
    for start in range(0, n_resamples, size):
        n = min(size, n_resamples - start)
        drawn = rng.integers(n_users, size=(n, n_users), dtype=np.int64)
        drawn = drawn.astype(np.intp, copy=False)  # 32 bits wide in a browser
        drawn += n_users * np.arange(n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * n_users)
        totals.append(times.reshape(n, n_users).astype(float) @ sums)
    return np.concatenate(totals)


def _bootstrap(samples, statistic, n_resamples, confidence, seed):
    if len(samples[0]) < 2 or not np.isfinite(samples[0]).all():
        raise ValueError("the bootstrap needs at least two users and finite scores")
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=n_resamples,
        batch=100,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),  # its name before SciPy 1.15, too
    )
    low, high = result.confidence_interval
    return Interval(float(statistic(*samples)), float(low), float(high))

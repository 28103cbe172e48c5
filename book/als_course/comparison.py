"""What the chapters compare with: the tables, and how much a number carries.

`rating_table` and `ranking_table` score models beside their baselines, `tell_apart`
tells two models apart, `choose_settings` chooses, and `time_versions` times.
"""

import itertools
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, stats

from als_course.datasets import ratings_matrix
from als_course.datasets.matrix import sorted_ids
from als_course.metrics import (
    Interval,
    bootstrap_interval,
    bootstrap_rmse,
    mae,
    paired_bootstrap,
    ranking_scores,
    rmse,
)

__all__ = [
    "Comparison",
    "Search",
    "choose_settings",
    "format_times",
    "ranking_table",
    "rating_table",
    "roof_share",
    "tell_apart",
    "tell_fits_apart",
    "time_versions",
    "unknown_rows",
]

MIN_STARTS = 3
MIN_RUNS = 5
# What is done to an error, and whether the root of its mean is taken.
ERRORS = {"RMSE": (np.square, True), "MAE": (np.abs, False)}
UNITS = {"s": 1, "ms": 1e3, "µs": 1e6}


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
            "unknown": _unknown(train, test).sum(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"unknown": int})


def ranking_table(models, train, test, n=10, liked=4, details=False):
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
    details : bool
        Also give ``chance``, the nDCG that lists drawn at random have on average, and
        ``lift``, how many times as good as chance the model is. Two protocols leave
        different numbers of items to choose from, so compare their lifts and not
        their scores.

    Returns
    -------
    DataFrame of shape (n_models, 7), with `details` (n_models, 9)
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
    table = pd.DataFrame.from_dict(rows, orient="index").astype(whole)
    if not details:
        return table
    chance = np.nanmean(_chance(matrix, relevant, n))
    return table.assign(chance=chance, lift=table[f"nDCG@{n}"] / chance)


def unknown_rows(train, test):
    """Count the test rows whose user or item has no rating in train.

    Parameters
    ----------
    train, test : DataFrame
        With columns ``user_id`` and ``item_id``.

    Returns
    -------
    str
        A sentence with the counts, to print.

    Examples
    --------
    >>> train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7]})
    >>> test = pd.DataFrame({"user_id": [2, 3], "item_id": [8, 9]})
    >>> unknown_rows(train, test)
    '1 of 2 test ratings are of users or items that train lacks (1 user, 1 item).'
    """
    unknown = _unknown(train, test)
    users = len(np.setdiff1d(test.user_id, train.user_id))
    items = len(np.setdiff1d(test.item_id, train.item_id))
    return (
        f"{unknown.sum():,} of {len(test):,} test ratings are of users or items that "
        f"train lacks ({_plural(users, 'user')}, {_plural(items, 'item')})."
    )


class Comparison(NamedTuple):
    """Two models compared; printed, it is the sentence that a page may say.

    Attributes
    ----------
    first, second : str
        Names of the models.
    measure : str
    ahead, low, high : float
        By how much `first` is better than `second`, whichever way is better, and the
        interval; rounded as printed.
    told_apart : bool
        Whether the interval, as printed, lies on one side of zero.
    unit : str
        What was drawn, and how many of it, in words.
    decimals : int
    """

    first: str
    second: str
    measure: str
    ahead: float
    low: float
    high: float
    told_apart: bool
    unit: str
    decimals: int

    def __str__(self):
        """Return the sentence."""
        one, other = self.first, self.second
        ahead, low, high = self.ahead, self.low, self.high
        if ahead < 0:
            one, other = other, one
            ahead, low, high = -ahead, -high, -low
        by, low, high = (f"{v + 0.0:.{self.decimals}f}" for v in (ahead, low, high))
        if self.told_apart:
            return (
                f"{one} is ahead of {other} by {by} {self.measure} [{low}, {high}] "
                f"over {self.unit}: told apart."
            )
        return (
            f"{self.first} and {self.second} cannot be told apart here: {by} "
            f"{self.measure} in favour of {one} [{low}, {high}] over {self.unit}."
        )


def tell_apart(
    models,
    measure,
    users=None,
    better=None,
    starts=True,
    comparisons=1,
    decimals=3,
    seed=0,
):
    """Tell two models apart by paired resamples of users, and of starts.

    Give it scores on rows that chose neither model: on the rows that chose, the winner
    is partly the luckiest. It answers whether the difference would keep its sign with
    other *users*; where the question is what other *fits* give, see `tell_fits_apart`.
    A difference that is told apart may still be too small to matter.

    Parameters
    ----------
    models : dict of str to array-like
        Two models, by name. Each has the values of its rows, or a list of three or more
        such arrays, one for each start, that is, each fit with another `random_state`.
    measure : str
        "RMSE" or "MAE" if the values are errors, actual minus predicted; anything else
        is the name of a score that each row has and whose mean is taken, "nDCG@10" for
        example. There nan is a row without a score, and left out.
    users : array-like of shape (n_rows,), optional
        Whose each row is. Needed for errors, since ratings of one user are not
        independent; if left out, each row is a user.
    better : {"higher", "lower"}, optional
        Which scores are good; "higher" if left out. Errors are better lower.
    starts : bool
        False if no fit depends on a start, as with means and popularity.
    comparisons : int
        How many comparisons the page makes: the intervals are widened, by Bonferroni's
        rule, so that all of them hold together in 95 of 100 cases.
    decimals : int
    seed : int
        Of the 2,000 resamples.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there are not two models, their rows differ in number, in index or in which
        have a score, a value is missing or infinite, or fewer than three starts.

    See Also
    --------
    als_course.metrics.paired_bootstrap : The statistics.

    Examples
    --------
    >>> ours, theirs = [0.5, 0.3, 0.9, 0.6], [0.2, 0.2, 0.5, 0.4]
    >>> print(tell_apart({"ours": ours, "theirs": theirs}, "nDCG@10", starts=False))
    ours is ahead of theirs by 0.250 nDCG@10 [0.100, 0.400] over 4 users: told apart.
    """
    _check_better(better or "higher")
    errors = measure in ERRORS
    if errors and (users is None or better == "higher"):
        raise ValueError(
            f"{measure} needs users, since ratings of one user are not independent, "
            "and is better lower: tell_apart(..., users=test.user_id)"
        )
    values = _same_rows(_two(models))
    if starts:
        _check_starts({name: len(v) for name, v in values.items()})
    first, second = values.values()
    missing = np.isnan(first[0])
    if any((np.isnan(row) != missing).any() for row in (*first, *second)):
        raise ValueError(
            "some rows have a score from one model or start but none from another; "
            "score both on the same rows"
        )
    if errors and missing.any():
        raise ValueError(
            f"{missing.sum()} errors are nan: answer unknown users and items with the "
            "training mean instead of leaving them out"
        )
    ids = np.arange(len(missing)) if users is None else np.asarray(users)
    if ids.shape != missing.shape:
        raise ValueError(f"users of shape {ids.shape} for {len(missing)} rows")
    ids = ids[~missing]
    change, root = ERRORS.get(measure, (np.asarray, False))
    found = paired_bootstrap(
        change(first[:, ~missing]),
        change(second[:, ~missing]),
        ids,
        root=root,
        confidence=_confidence(comparisons),
        seed=seed,
    )
    n_users = _plural(len(pd.unique(ids)), "user")
    parts = [n_users if users is None else f"{len(ids):,} ratings of {n_users}"]
    n_starts = max(len(first), len(second))
    if n_starts > 1:
        parts.append(f"{n_starts} starts")
    unit = " and ".join(parts)
    if missing.any():
        unit += f" ({missing.sum():,} without a score left out)"
    return _compare(
        models, measure, found, errors or better == "lower", unit, comparisons, decimals
    )


def tell_fits_apart(models, measure, better, paired=False, comparisons=1, decimals=3):
    """Tell apart what two ways of fitting give, with the fit as the unit.

    For questions about starts: whether another `random_state` would turn the order on
    these very rows. Ten thousand users do not make three fits more than three. The
    interval is that of Welch's t, which takes fits to scatter normally.

    Parameters
    ----------
    models : dict of str to array-like of shape (n_fits,)
        Two ways of fitting, by name, each with one number for each fit, three or more.
    measure : str
        What the numbers are.
    better : {"higher", "lower"}
    paired : bool
        The fits belong together, one by one: they share a split, for example.
    comparisons, decimals : int
        As in `tell_apart`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there are not two ways, fewer than three fits of one, or a number is not
        finite.

    Examples
    --------
    >>> fits = {"svd": [0.91, 0.92, 0.91], "random": [0.95, 0.96, 0.94]}
    >>> print(tell_fits_apart(fits, "RMSE", better="lower"))
    svd is ahead of random by 0.037 RMSE [0.016, 0.057] over 3 and 3 fits: told apart.
    """
    _check_better(better)
    fits = {name: np.asarray(v, dtype=float) for name, v in _two(models).items()}
    for name, numbers in fits.items():
        if numbers.ndim != 1 or not np.isfinite(numbers).all():
            raise ValueError(f"{name!r} must be one finite number for each fit")
        if len(numbers) < MIN_STARTS:
            raise ValueError(
                f"{name!r} has {_plural(len(numbers), 'fit')}, needs {MIN_STARTS}"
            )
    first, second = fits.values()
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} fits cannot be paired")
    middle = first.mean() - second.mean()
    parts = [first - second] if paired else [first, second]
    variances = np.array([stats.sem(part) ** 2 for part in parts])
    spread = variances.sum()
    if spread > 0:
        freedom = spread**2 / sum(
            v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True)
        )
        tail = (1 + _confidence(comparisons)) / 2
        half = stats.t.ppf(tail, freedom) * np.sqrt(spread)
    else:
        half = 0.0
    found = Interval(middle, middle - half, middle + half)
    unit = (
        f"{len(first)} pairs of fits"
        if paired
        else (f"{len(first)} and {len(second)} fits")
    )
    return _compare(
        models, measure, found, better == "lower", unit, comparisons, decimals
    )


def _check_better(better):
    if better not in ("higher", "lower"):
        raise ValueError(f"better must be 'higher' or 'lower', got {better!r}")


def _two(models):
    if len(models) != 2:
        raise ValueError(
            f"give two models, {{name: values, name: values}}, got {len(models)}"
        )
    return models


def _same_rows(models):
    """Values of each model as (n_starts, n_rows), after a check that rows agree."""
    values, indexes = {}, []
    for name, given in models.items():
        starts = given if isinstance(given, (list, tuple)) else [given]
        if starts and np.ndim(starts[0]) == 0:
            starts = [starts]  # one start, given as a plain list
        elif len(starts) == 1 and np.ndim(starts[0]) == 2:
            starts = list(np.asarray(starts[0]))
        indexes += [start.index for start in starts if isinstance(start, pd.Series)]
        shapes = {np.shape(start) for start in starts}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(
                f"{name!r} must be one flat array of values, or a list of them, one "
                f"for each start; got shapes {sorted(shapes)}"
            )
        values[name] = np.array([np.asarray(start, dtype=float) for start in starts])
        if np.isinf(values[name]).any():
            raise ValueError(f"{name!r} holds infinity")
    (a, first), (b, second) = values.items()
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{a!r} has {first.shape[1]} rows and {b!r} {second.shape[1]}; score both "
            "on the same"
        )
    if any(not index.equals(indexes[0]) for index in indexes):
        raise ValueError(f"the rows of {a!r} and {b!r} differ in their index")
    return values


def _check_starts(numbers):
    """Refuse fewer starts than tell anything about starts."""
    if max(numbers.values()) < MIN_STARTS:
        raise ValueError(
            f"{' and '.join(map(repr, numbers))} have fewer than {MIN_STARTS} starts: "
            f"give a list of {MIN_STARTS} arrays or more, one for each random_state; "
            "say starts=False only where neither model draws anything"
        )
    if min(numbers.values()) not in (1, max(numbers.values())):
        raise ValueError(f"the numbers of starts differ: {numbers}")


def _confidence(comparisons):
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    return 1 - 0.05 / comparisons


def _compare(models, measure, found, lower, unit, comparisons, decimals):
    """Make the result; it is decided on the numbers as printed."""
    middle, low, high = (round(float(v), decimals) + 0.0 for v in found)
    if lower:
        middle, low, high = -middle + 0.0, -high + 0.0, -low + 0.0
    if comparisons > 1:
        unit += f", 95 % for all {comparisons} comparisons together"
    told = low > 0 or high < 0
    return Comparison(*models, measure, middle, low, high, told, unit, decimals)


@dataclass(frozen=True)
class Search:
    """What `choose_settings` found; printed, it is the sentence a page may say.

    Attributes
    ----------
    table : DataFrame of shape (n_settings, ...)
        In the order tried: the settings, the ``mean`` of the score over the starts,
        its ``min`` and ``max``, and, if scores are given by row, ``level``: whether the
        setting cannot be told apart from the best.
    best : dict
        The settings with the best mean; of equal ones, those tried first.
    edges : dict of str to {"smallest", "largest"}
        Settings whose best value is the last of its grid at that end.
    measure : str
    n_starts : int
    decimals : int
    """

    table: pd.DataFrame
    best: dict
    edges: dict
    measure: str
    n_starts: int
    decimals: int

    def __str__(self):
        """Return the sentences."""
        n_settings = len(self.table)
        at = self._best_row()
        tried = _plural(n_settings, "setting")
        if self.n_starts > 1:
            tried += f" x {self.n_starts} starts = {n_settings * self.n_starts} fits"
        chosen = ", ".join(f"{name} = {_short(v)}" for name, v in self.best.items())
        mean = f"{self.table['mean'].loc[at]:.{self.decimals}f}"
        lines = [f"Tried: {tried}.", f"Best {self.measure}: {mean} with {chosen}."]
        if self.edges:
            places = " and ".join(
                f"{name} = {_short(self.best[name])} is the {end} tried"
                for name, end in self.edges.items()
            )
            lines.append(f"On the edge of the grid: {places}.")
        else:
            lines.append("The best lies inside the grid.")
        if "level" in self.table:
            others = self.table.level.sum() - 1
            lines.append(f"{others} of the others cannot be told apart from it.")
        return "\n".join(lines)

    def _best_row(self):
        same = [self.table[name] == value for name, value in self.best.items()]
        return self.table.index[np.logical_and.reduce(same)][0]


def choose_settings(
    grid,
    fit,
    score,
    better,
    measure="validation score",
    users=None,
    starts=(0, 1, 2),
    decimals=3,
):
    """Try all settings of a grid from several starts, and choose by the mean score.

    One start would choose the luckiest fit instead of the best setting. More tries make
    the best one look better than it is, so the number is printed: judge the choice on
    rows that chose nothing.

    Parameters
    ----------
    grid : dict of str to list
        The values to try of each setting.
    fit : callable
        ``fit(seed, **setting)`` returns a model fitted with that `random_state`.
    score : callable
        ``score(model)`` returns a number; or, so that the settings as good as the best
        are found, one value for each row, as `tell_apart` takes them.
    better : {"higher", "lower"}
    measure : str
        What the score is, in the printed sentence. With "RMSE" or "MAE", values by row
        are errors.
    users : array-like of shape (n_rows,), optional
        Whose each row is.
    starts : sequence of int or None
        Three seeds or more; None if no fit depends on one, which is then fitted once
        with ``seed=None``.
    decimals : int

    Returns
    -------
    Search

    Raises
    ------
    ValueError
        If the grid is empty, there are fewer than three starts, a score is nan, or
        `better` does not fit `measure`.

    Examples
    --------
    >>> search = choose_settings(
    ...     {"k": [1, 2, 4], "lam": [0.1]},
    ...     fit=lambda seed, k, lam: (k - 2) ** 2 + lam + seed / 100,
    ...     score=lambda model: model,
    ...     better="lower",
    ... )
    >>> print(search)
    Tried: 3 settings x 3 starts = 9 fits.
    Best validation score: 0.110 with k = 2, lam = 0.1.
    The best lies inside the grid.
    >>> search.best
    {'k': 2, 'lam': 0.1}
    """
    _check_better(better)
    if measure in ERRORS and better == "higher":
        raise ValueError(f"{measure} is better lower")
    if not grid or not all(len(values) for values in grid.values()):
        raise ValueError("the grid is empty; give {name: [value, ...]}")
    if starts is not None and len(set(starts)) < MIN_STARTS:
        raise ValueError(
            f"{_plural(len(set(starts)), 'start')}, but the choice needs {MIN_STARTS} "
            "different ones; starts=None says that no fit depends on a start"
        )
    seeds = [None] if starts is None else list(starts)
    rows, found = [], []
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        scores = [score(fit(seed, **setting)) for seed in seeds]
        numbers = [_mean_score(one, measure) for one in scores]
        if not np.isfinite(numbers).all():
            raise ValueError(f"the score of {setting} is {numbers}")
        mean = np.mean(numbers)
        rows.append(setting | {"mean": mean, "min": min(numbers), "max": max(numbers)})
        found.append(scores)
    table = pd.DataFrame(rows)
    # Rounded, so that a tie is a tie on every machine.
    means = table["mean"].round(9)
    at = means.idxmin() if better == "lower" else means.idxmax()
    best = {name: rows[at][name] for name in grid}
    if np.ndim(found[at][0]) == 1:
        kind = {"users": users, "starts": starts is not None, "decimals": decimals}
        kind |= {} if measure in ERRORS else {"better": better}
        told = [
            tell_apart({"it": scores, "best": found[at]}, measure, **kind).told_apart
            for scores in found
        ]
        table["level"] = np.logical_not(told)
    return Search(table, best, _edges(grid, best), measure, len(seeds), decimals)


def _mean_score(values, measure):
    """One number from a score, or from the values of its rows."""
    if np.ndim(values) == 0:
        return float(values)
    change, root = ERRORS.get(measure, (np.asarray, False))
    mean = float(np.nanmean(change(np.asarray(values, dtype=float))))
    return mean**0.5 if root else mean


def _edges(grid, best):
    """Find the settings that lie at an end of two values or more; words have none."""
    edges = {}
    for name, values in grid.items():
        ordered = all(
            isinstance(v, (int, float, np.number)) and not isinstance(v, bool)
            for v in values
        )
        if (
            ordered
            and len(set(values)) > 1
            and best[name] in (min(values), max(values))
        ):
            edges[name] = "smallest" if best[name] == min(values) else "largest"
    return edges


def _short(value):
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def time_versions(versions, n_runs=5, warm_up=1):
    """Time versions of a program, taking turns.

    In each run every version has its turn, and the first place goes round, so that a
    machine that is busy for a while slows all of them. Nothing is asserted: on a
    machine that others use the order may turn. Processor caches are warm, and what is
    compiled at first use is compiled in the warm-up.

    Parameters
    ----------
    versions : dict of str to callable
        Called without arguments.
    n_runs : int
        Timed runs of each version, at least five.
    warm_up : int
        Runs of each version before, which are not timed.

    Returns
    -------
    DataFrame of shape (n_versions, 4)
        ``median``, ``min`` and ``max`` in seconds, and ``runs``.

    Raises
    ------
    ValueError
        If there is no version, or `n_runs` is below five.

    Examples
    --------
    >>> times = time_versions({"sum": lambda: sum(range(100)), "none": lambda: None})
    >>> list(times.index), times.runs.tolist()
    (['sum', 'none'], [5, 5])
    """
    if not versions:
        raise ValueError("give at least one version, {name: callable}")
    if n_runs < MIN_RUNS:
        raise ValueError(f"n_runs must be at least {MIN_RUNS}, got {n_runs}")
    names = list(versions)
    for name in names * warm_up:
        versions[name]()
    seconds = {name: [] for name in names}
    for run in range(n_runs):
        first = run % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            versions[name]()
            seconds[name].append(time.perf_counter() - begin)
    table = pd.DataFrame(seconds).agg(["median", "min", "max"]).T
    return table.assign(runs=n_runs)


def format_times(times, unit="ms", decimals=1):
    """Write times as "median (min to max)", all in one unit.

    Parameters
    ----------
    times : DataFrame
        With columns ``median``, ``min`` and ``max`` in seconds.
    unit : {"s", "ms", "µs"}
    decimals : int

    Returns
    -------
    Series of str
        One for each row of `times`.

    Raises
    ------
    ValueError
        If the unit is unknown.

    Examples
    --------
    >>> times = pd.DataFrame({"median": [0.012], "min": [0.01], "max": [0.02]})
    >>> format_times(times)[0]
    '12.0 ms (10.0 to 20.0)'
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    return (times[["median", "min", "max"]] * UNITS[unit]).apply(
        lambda row: (
            f"{row['median']:,.{decimals}f} {unit} "
            f"({row['min']:,.{decimals}f} to {row['max']:,.{decimals}f})"
        ),
        axis=1,
    )


def roof_share(rate, roof):
    """Write what share of a machine's limit a program reaches.

    Parameters
    ----------
    rate, roof : float
        In the same unit, operations or bytes a second.

    Returns
    -------
    str
        In per cent. Nothing is faster than a limit, so a share above 100 % says that
        the roof was measured wrongly.

    Raises
    ------
    ValueError
        If the rate is negative or the roof not above 0.

    Examples
    --------
    >>> roof_share(3e9, 4e9)
    '75 %'
    >>> roof_share(5e9, 4e9)
    '125 %: the roof is wrong'
    """
    if not (rate >= 0 and roof > 0):
        raise ValueError(f"need rate >= 0 and roof > 0, got {rate} and {roof}")
    share = 100 * float(rate / roof)
    return f"{share:.0f} %" + ": the roof is wrong" * (share > 100)


def _on_shared_axes(train, test):
    """Make the training matrix, with room for everything in train or test."""
    users = sorted_ids(train.user_id, test.user_id)
    items = sorted_ids(train.item_id, test.item_id)
    return ratings_matrix(train, users, items)


def _positions(ratings, users, items):
    """Find the row and column numbers of ratings."""
    return users.searchsorted(ratings.user_id), items.searchsorted(ratings.item_id)


def _unknown(train, test):
    """Tell for each test row whether its user or its item is not in train."""
    known = test.user_id.isin(train.user_id) & test.item_id.isin(train.item_id)
    return ~known.to_numpy()


def _chance(seen, relevant, k):
    """Compute by user the expected nDCG at k of a random list of unseen items.

    Each place holds a relevant item with one probability, their share in the items
    left. A user without a relevant item has nan.
    """
    n_left = seen.shape[1] - np.diff(seen.indptr)
    n_relevant = np.diff(relevant.indptr)
    gains = np.append(0.0, np.cumsum(1 / np.log2(np.arange(2, k + 2))))
    seen_too = _ones(relevant).multiply(_ones(seen)).sum(axis=1)
    share = (n_relevant - np.ravel(seen_too)) / np.maximum(n_left, 1)
    best = np.where(n_relevant > 0, gains[np.minimum(k, n_relevant)], np.nan)
    return share * gains[np.minimum(k, n_left)] / best


def _ones(matrix):
    """Return the places of the stored entries, zeros included, as ones."""
    places = np.ones(matrix.nnz), matrix.indices, matrix.indptr
    return sparse.csr_array(places, shape=matrix.shape)


def _plural(number, noun):
    return f"{number:,} {noun}{'s' * (number != 1)}"

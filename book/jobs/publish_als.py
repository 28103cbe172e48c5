"""Publish a fitted ALS model as one folder, which serve_als.py answers from.

    python publish_als.py RESULT RUNS

RESULT is the output folder of train_als.py, RUNS where the folders of all runs lie. A
run is written whole or not at all: it gets its name by one rename when all is on the
disk, and then the file ``RUNS/current`` is replaced by one that holds that name.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from als_course.als import ExplicitALS, ImplicitALS
from als_course.baselines import DampedBiases
from als_course.datasets import ratings_matrix
from als_course.half_step import SINGULAR, Formula, half_step
from als_course.metrics import ndcg_at_k, paired_bootstrap, top_k
from als_course.spark import get_spark

try:
    import fcntl
except ImportError:  # Windows, where a file that is mapped cannot be renamed anyway
    fcntl = None

FORMAT = 1  # of a run's folder; raise it when a service of before would read it wrongly
LONGEST_ID = 256  # bytes
GOLDEN = 20  # users whose lists are written down
TRIED = (1, 2, 3, 5, 8, 13, 20, 30)  # likes of newcomers, to find the hand-over
FEWEST = 30  # newcomers without whom nothing is measured
LEFT = 5  # ratings that a newcomer must have beyond those tried, to be tested with
CELLS = 2**24  # scores held at once while that is measured: 128 MB
UNMEASURED = 5  # likes from which on a newcomer's list is personal, for want of better
COMPILED_FROM = 1_000_000  # ratings from which on it pays to load the compiled kernel
NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")  # of a run's folder: time, contents
FORGOTTEN = 86_400  # seconds after which what a publisher left unfinished is deleted


class PublishError(Exception):
    """What the user can put right; the text says what, where, and what to do."""


class Fitted(NamedTuple):
    """A fitted model and what it was fitted on, rows and columns as in the training.

    Attributes
    ----------
    user_ids, item_ids : list of str
    ratings : csr_array of shape (n_users, n_items)
    times : array of shape (n_ratings,), or None
        When each stored rating was given.
    item_factors : array of shape (n_items, k)
    item_biases : array of shape (n_items,), or None
    settings : dict
        ``formula``, ``regularization``, ``weighted``, and with biases ``mean`` and
        ``damping``: what it takes to solve a user.
    report : dict
        With ``paired`` and ``ranking`` as in the report of train_als.py.
    lists : dict of str to list of str
        Lists that the training made, by user; may be empty.
    """

    user_ids: list
    item_ids: list
    ratings: csr_array
    times: np.ndarray | None
    item_factors: np.ndarray
    item_biases: np.ndarray | None
    settings: dict
    report: dict
    lists: dict


# -- where a model comes from ----------------------------------------------------------


def from_model(model, table, report):
    """Take an ExplicitALS or ImplicitALS of the course.

    Parameters
    ----------
    model : ExplicitALS or ImplicitALS
        Fitted on `table` by way of ``datasets.ratings_matrix(table)``.
    table : DataFrame
        Columns ``user_id``, ``item_id``, ``rating``, and ``timestamp`` if there is one.
    report : dict
        What the test said; a service asks for ``report["paired"]
        ["ndcg_above_most_popular"]`` with ``mean``, ``low`` and ``high``.

    Returns
    -------
    Fitted

    Raises
    ------
    PublishError
        If the table is not the one that the model was fitted on.
    """
    ratings, user_ids, item_ids = ratings_matrix(table)
    if ratings.shape != (model.n_users_, model.n_items_):
        raise PublishError(
            f"the table has {ratings.shape} users and items, the model was fitted on "
            f"{(model.n_users_, model.n_items_)}; give the table that it was fitted on"
        )
    biased = isinstance(model, ExplicitALS) and model.biases
    settings = {
        "formula": list(model.formula),
        "regularization": model.regularization,
        "weighted": model.weighted_regularization,
    }
    if biased:
        settings |= {"mean": model.mean_, "damping": DampedBiases().damping}
    times = None
    if "timestamp" in table:
        rows, columns = (
            ids.searchsorted(table[name])
            for ids, name in ((user_ids, "user_id"), (item_ids, "item_id"))
        )
        times = table.timestamp.to_numpy()[np.lexsort((columns, rows))]
    ratings.sort_indices()
    return Fitted(
        [str(it) for it in user_ids],
        [str(it) for it in item_ids],
        ratings,
        times,
        model.item_factors_,
        model.item_biases_ if biased else None,
        settings,
        report,
        {},
    )


def from_job(result, spark=None):
    """Take the output folder of train_als.py, whose tables Spark reads.

    Parameters
    ----------
    result : path
        On a file system of this machine.
    spark : SparkSession, optional
        One of this machine is started if left out.

    Returns
    -------
    Fitted

    Raises
    ------
    PublishError
        If the run is not finished, or has no factor below zero by decree: such users
        are not the solution of a linear system.
    """
    result = Path(result)
    if not (result / "_SUCCESS").exists():
        raise PublishError(f"{result} has no _SUCCESS: no finished run of train_als.py")
    report = json.loads((result / "report.json").read_text("utf-8"))
    asked = report["arguments"]
    if asked["nonnegative"]:
        raise PublishError(
            f"{result} was trained with --nonnegative, and the service folds users in "
            "without that bound; train without it"
        )
    spark = spark or get_spark("publish_als")

    def table(name):
        # Not by toPandas, which warns where PyArrow is not installed.
        rows = spark.read.parquet((result / name).resolve().as_uri())
        return pd.DataFrame.from_records(rows.collect(), columns=rows.columns)

    users, items = (table(name).sort_values(name[:-1]) for name in ("users", "items"))
    rows = table("split").sort_values(["user", "item"])
    factors = table("model/itemFactors")
    lists = table("recommendations").query("source == 'als'")
    item_factors = np.zeros((len(items), asked["rank"]))
    item_factors[factors.id] = factors.features.tolist()
    starts = np.searchsorted(rows.user, np.arange(len(users) + 1))
    parts = rows.rating.to_numpy(float), rows.item.to_numpy(), starts
    settings = {
        "formula": [1.0, asked["alpha"], 1.0] if asked["implicit"] else [0.0, 0.0, 1.0],
        "regularization": asked["reg_param"],
        "weighted": True,
    }
    # Users are solved again with all ratings, so a model without the newest of them
    # makes other lists than the training did.
    few = lists.user_id.drop_duplicates().head(0 if asked["no_refit"] else GOLDEN)
    few = lists[lists.user_id.isin(few)].sort_values("rank").groupby("user_id")
    return Fitted(
        users.user_id.tolist(),
        items.item_id.tolist(),
        csr_array(parts, shape=(len(users), len(items))),
        None if rows.time.isna().any() else rows.time.to_numpy(),
        item_factors,
        None,
        settings,
        report,
        few.item_id.agg(list).to_dict(),
    )


# -- solving and measuring -------------------------------------------------------------


def solve_users(fitted, ratings):
    """Solve users from the item factors: one half-step.

    Parameters
    ----------
    fitted : Fitted
    ratings : csr_array of shape (n_users, n_items)
        Of these or of other users.

    Returns
    -------
    float64 array of shape (n_users, k)
        Zero for users who like nothing.

    Raises
    ------
    PublishError
        If a system is singular.
    """
    settings, formula = fitted.settings, Formula(*fitted.settings["formula"])
    if fitted.item_biases is not None:
        left = ratings.data - settings["mean"] - fitted.item_biases[ratings.indices]
        left = csr_array((left, ratings.indices, ratings.indptr), shape=ratings.shape)
        sums, counts = left.sum(axis=1), np.diff(left.indptr)
        left.data -= np.repeat(sums / (counts + settings["damping"]), counts)
        ratings = left
    asking = formula.asks(ratings.data), ratings.indices, ratings.indptr
    counts = csr_array(asking, shape=ratings.shape).sum(axis=1)
    penalties = settings["regularization"] * (
        counts if settings["weighted"] else np.ones(len(counts))
    )
    solve = half_step
    if ratings.nnz >= COMPILED_FROM:
        with suppress(ImportError):  # without Numba it takes longer
            from als_course.kernels import half_step as solve
    solved, _, failed = solve(
        ratings,
        np.ascontiguousarray(fitted.item_factors, float),
        penalties,
        counts > 0,
        formula,
        SINGULAR["float64"],
        loss=False,
    )
    if failed.any():
        raise PublishError(
            f"the system of user {fitted.user_ids[np.argmax(failed)]} is singular; "
            "train with a larger regularisation or fewer factors"
        )
    return solved


def scores_of(fitted, users, rows):
    """Score all items for some users; a user's own bias orders nothing."""
    scores = users[rows] @ fitted.item_factors.T
    return scores if fitted.item_biases is None else scores + fitted.item_biases


def golden_lists(fitted, users, n=10):
    """Make lists by the full product in the training's order, for a service to check.

    Parameters
    ----------
    fitted : Fitted
    users : array of shape (n_users, k)
    n : int

    Returns
    -------
    dict of str to list of str
        Item ids by user id, without what the user has rated.

    Raises
    ------
    PublishError
        If the training made other lists.
    """
    row_of = {name: row for row, name in enumerate(fitted.user_ids)}
    names = list(fitted.lists)
    if not names:
        known = np.flatnonzero(users.any(axis=1))
        chosen = np.random.default_rng(0).permutation(known)[:GOLDEN]
        names = [fitted.user_ids[row] for row in np.sort(chosen)]
    rows = [row_of[name] for name in names]
    found, _ = top_k(scores_of(fitted, users, rows), n, exclude=fitted.ratings[rows])
    golden = {
        name: [fitted.item_ids[column] for column in best if column >= 0]
        for name, best in zip(names, found, strict=True)
    }
    same = [
        len({*golden[name]} & {*items[:n]}) / len(items[:n])
        for name, items in fitted.lists.items()
    ]
    if same and not np.mean(same) > 0.9:
        raise PublishError(
            f"of the lists that the training made, {np.mean(same):.0%} come out again: "
            "model, ids and ratings are not from one run"
        )
    return golden


def measure_hand_over(fitted, n=10):
    """Find from how many ratings on a newcomer is better served by a fold-in.

    By the clock: a model is fitted on the first four fifths of the ratings; newcomers
    are those who come later. Their first ratings, in the order in which they gave
    them, are known, the rest is the test.

    Parameters
    ----------
    fitted : Fitted
    n : int
        Length of the lists whose nDCG is compared.

    Returns
    -------
    dict
        ``likes``, from which on the service folds in; ``measured``, whether newcomers
        said so; and ``tried``, a dict for each number of ratings: ``popular`` and
        ``fold_in``, the nDCG of both, and ``low`` and ``high``, the interval of 95 %
        of the difference. `likes` is the first from which on all intervals lie above
        0; where none does, one more than the largest number tried.
    """
    unknown = {"likes": UNMEASURED, "measured": False, "tried": []}
    if fitted.times is None:
        return unknown
    ratings, times = fitted.ratings, fitted.times
    counts = np.diff(ratings.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    cut = np.quantile(times, 0.8)
    past = times <= cut
    first = np.full(len(counts), np.inf)
    np.minimum.at(first, rows, times)
    new = np.flatnonzero((first > cut) & (counts >= TRIED[0] + LEFT))
    new = np.random.default_rng(0).permutation(new)[: CELLS // ratings.shape[1]]
    if len(new) < FEWEST:
        return unknown
    before = _kept(ratings, past)
    model = refit(fitted, before)
    like = Formula(*fitted.settings["formula"]).asks(before.data)
    least = 0.0 if fitted.settings["formula"][0] else before.data.mean()
    popular = np.bincount(before.indices[like], minlength=ratings.shape[1])
    tried = []
    for likes in TRIED:
        some = new[counts[new] >= likes + LEFT]
        parts = [_first(ratings, times, row, likes) for row in some]
        known = csr_array(
            (
                np.concatenate([ratings.data[at] for at, _ in parts] or [[]]),
                np.concatenate([ratings.indices[at] for at, _ in parts] or [[]]),
                likes * np.arange(len(some) + 1),
            ),
            shape=(len(some), ratings.shape[1]),
        )
        wanted = [
            set(ratings.indices[at][ratings.data[at] > least].tolist())
            for _, at in parts
        ]
        tested = np.array([bool(items) for items in wanted], bool)
        if tested.sum() < FEWEST:
            break
        folded = scores_of(model, solve_users(model, known), slice(None))
        lists = {
            "popular": top_k(np.broadcast_to(popular, folded.shape), n, known)[0],
            "fold_in": top_k(folded, n, known)[0],
        }
        ndcg = {
            name: np.array(
                [
                    ndcg_at_k(best[best >= 0], items, n)
                    for best, items in zip(found, wanted, strict=True)
                    if items
                ]
            )
            for name, found in lists.items()
        }
        gap = paired_bootstrap(ndcg["fold_in"], ndcg["popular"], some[tested])
        tried.append(
            {"likes": likes, "users": int(tested.sum())}
            | {name: float(values.mean()) for name, values in ndcg.items()}
            | {"low": float(gap.low), "high": float(gap.high)}
        )
    return {"likes": choose(tried), "measured": bool(tried), "tried": tried}


def choose(tried):
    """Take the first number of ratings from which on the fold-in is told to be ahead.

    Parameters
    ----------
    tried : list of dict
        As `measure_hand_over` returns, in ascending order.

    Returns
    -------
    int
        One more than the largest tried if that one is not told to be ahead.
    """
    if not tried:
        return UNMEASURED
    likes = tried[-1]["likes"] + 1
    for row in reversed(tried):
        if not row["low"] > 0:
            break
        likes = row["likes"]
    return likes


def refit(fitted, ratings):
    """Fit the model of the same settings on other ratings, with the library."""
    settings, formula = fitted.settings, Formula(*fitted.settings["formula"])
    shared = {
        "n_factors": fitted.item_factors.shape[1],
        "regularization": settings["regularization"],
        "weighted_regularization": settings["weighted"],
    }
    if formula.hole:
        confidence = "1+alpha*r" if formula.base else "alpha*r"
        model = ImplicitALS(alpha=formula.alpha, confidence=confidence, **shared)
    else:
        model = ExplicitALS(biases=fitted.item_biases is not None, **shared)
    model.fit(ratings)
    biases = None if fitted.item_biases is None else model.item_biases_
    if biases is not None:
        settings = settings | {"mean": model.mean_}
    return fitted._replace(
        item_factors=model.item_factors_, item_biases=biases, settings=settings
    )


def _kept(ratings, keep):
    """Keep some of the stored ratings."""
    ends = np.concatenate([[0], np.cumsum(keep)])[ratings.indptr]
    parts = ratings.data[keep], ratings.indices[keep], ends
    return csr_array(parts, shape=ratings.shape)


def _first(ratings, times, row, likes):
    """Positions of a user's first ratings by the clock, and of the rest."""
    at = np.arange(ratings.indptr[row], ratings.indptr[row + 1])
    order = at[np.argsort(times[at], kind="stable")]
    return np.sort(order[:likes]), order[likes:]


# -- writing ---------------------------------------------------------------------------


def publish(fitted, runs, hand_over=None, keep=7, swap=True):
    """Write a run's folder, let ``current`` name it, and prune old runs.

    Parameters
    ----------
    fitted : Fitted
    runs : path
        Made if it is not there.
    hand_over : int, optional
        Ratings from which on a newcomer's list is personal; measured if left out.
    keep : int
        How many runs stay, at least 1. The one named by ``current`` and those that a
        service has open stay in any case.
    swap : bool
        Replace ``current``.

    Returns
    -------
    Path
        Of the run's folder.

    Raises
    ------
    PublishError
        If factors are not finite, or ids are not usable. Nothing is left behind.
    OSError
        If the disk is full, or not writable. Nothing is left behind.
    """
    if not np.isfinite(fitted.item_factors).all():
        raise PublishError("the item factors hold nan or infinity; do not publish them")
    ids = [as_bytes(fitted.user_ids, "user"), as_bytes(fitted.item_ids, "item")]
    fitted = as_served(fitted)
    users = solve_users(fitted, fitted.ratings)
    golden = golden_lists(fitted, users)
    if hand_over is None:
        hand_over = measure_hand_over(fitted)
    else:
        hand_over = {"likes": hand_over, "measured": False, "tried": []}
    arrays = arrange(fitted, users, *ids)
    described = {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "users": len(ids[0]),
        "items": len(ids[1]),
        "settings": fitted.settings | {"biases": fitted.item_biases is not None},
        "hand_over": hand_over,
        "golden": golden,
    }
    runs = Path(runs)
    runs.mkdir(parents=True, exist_ok=True)
    folder = write_run(runs, arrays, fitted.report, described)
    if swap:
        set_current(runs, folder.name)
    prune(runs, keep)
    return folder


def as_bytes(ids, kind):
    """Pack ids into an array in which a service can search without reading it."""
    packed = np.array([it.encode() for it in ids], "S")
    if packed.dtype.itemsize > LONGEST_ID:
        raise PublishError(f"a {kind} id has more than {LONGEST_ID} bytes; shorten it")
    if any(it.endswith("\0") or not it for it in ids):
        raise PublishError(f"a {kind} id is empty or ends in a null byte; rename it")
    if len(np.unique(packed)) < len(ids):
        raise PublishError(f"a {kind} id occurs twice as text; rename one")
    return packed


def as_served(fitted):
    """Round to the 32 bits that a service reads, which users are then solved from."""

    def rounded(values):
        return None if values is None else np.asarray(values, "f4").astype(float)

    ratings = fitted.ratings
    parts = rounded(ratings.data), ratings.indices, ratings.indptr
    return fitted._replace(
        item_factors=rounded(fitted.item_factors),
        item_biases=rounded(fitted.item_biases),
        ratings=csr_array(parts, shape=ratings.shape),
    )


def arrange(fitted, users, user_ids, item_ids):
    """Put users in the order of their ids, and items longest first.

    Returns
    -------
    dict of str to array
        The files of a run, by name. With biases, an item's is the last number of its
        vector and each user's last is 1, so that a score is still a product.
    """
    items, ratings = fitted.item_factors, fitted.ratings
    if fitted.item_biases is not None:
        items = np.column_stack([items, fitted.item_biases])
        users = np.column_stack([users, np.ones(len(users))])
    items = items.astype("f4")
    norms = np.linalg.norm(items.astype(float), axis=1)
    longest = np.argsort(-norms, kind="stable")
    by_name = np.argsort(user_ids)
    place = np.empty(len(longest), "i4")
    place[longest] = np.arange(len(longest))
    ratings = ratings[by_name]
    ratings = csr_array(
        (ratings.data.astype("f4"), place[ratings.indices], ratings.indptr),
        shape=ratings.shape,
    )
    ratings.sort_indices()
    likes = ratings.indices[Formula(*fitted.settings["formula"]).asks(ratings.data)]
    return {
        "user_ids": user_ids[by_name],
        "user_factors": users[by_name].astype("f4"),
        "item_ids": item_ids[longest],
        "item_order": np.argsort(item_ids[longest]).astype("i4"),
        "item_factors": items[longest],
        # Rounded up, so that no product is larger than the norms allow.
        "item_norms": np.nextafter(norms[longest].astype("f4"), np.float32(np.inf)),
        "indptr": ratings.indptr.astype("i8"),
        "indices": ratings.indices.astype("i4"),
        "ratings": ratings.data,
        "popular": np.argsort(
            -np.bincount(likes, minlength=len(items)), kind="stable"
        ).astype("i4"),
    }


def write_run(runs, arrays, report, described):
    """Write all files of a run beside their final place, then rename the folder."""
    part = runs / f".{os.getpid()}-{time.monotonic_ns()}.part"
    part.mkdir()
    try:
        files = {}
        for name, array in arrays.items():
            write_file(part / f"{name}.npy", lambda file, it=array: np.save(file, it))
            files[f"{name}.npy"] = summary(part / f"{name}.npy")
        write_json(part / "report.json", report)
        files["report.json"] = summary(part / "report.json")
        text = json.dumps([described["settings"], files], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        stamp = re.sub(r"[-:Z]", "", described["made"])
        described = {"run": f"{stamp}-{digest}"} | described | {"files": files}
        write_json(part / "run.json", described)
        for path in part.iterdir():
            path.chmod(0o444)  # a service has them mapped: never write into them
        sync_folder(part)
        folder = runs / described["run"]
        if folder.exists():  # the same contents, published in the same second
            shutil.rmtree(part)
            return folder
        part.rename(folder)
        sync_folder(runs)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def write_file(path, write):
    """Write a file to the disk, not only to the system's memory."""
    with path.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_json(path, content):
    """Write a dict."""
    text = json.dumps(content, indent=1) + "\n"
    write_file(path, lambda file: file.write(text.encode()))


def summary(path):
    """Length and hash of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def sync_folder(path):
    """Write the names in a folder to the disk, where the system has that."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def set_current(runs, name):
    """Let ``current`` name a run; whoever reads it finds the old name or the new."""
    part = Path(runs) / f".current-{os.getpid()}"
    part.unlink(missing_ok=True)
    write_file(part, lambda file: file.write(f"{name}\n".encode()))
    part.replace(Path(runs) / "current")
    sync_folder(runs)


def prune(runs, keep):
    """Delete all but the newest runs, the current one, and what a service has open.

    A service holds a shared lock on the ``run.json`` of each run that it has mapped.

    Parameters
    ----------
    runs : path
    keep : int
        At least 1.

    Returns
    -------
    list of str
        Names of the runs that are gone.
    """
    runs = Path(runs)
    current = runs / "current"
    named = current.read_text("utf-8").strip() if current.exists() else None
    names = sorted(path.name for path in runs.iterdir() if NAME.fullmatch(path.name))
    gone = []
    for name in names[: -max(keep, 1)]:
        if name != named and _delete(runs / name):
            gone.append(name)
    for path in runs.glob(".*.part"):
        if path.stat().st_mtime < time.time() - FORGOTTEN:
            shutil.rmtree(path, ignore_errors=True)
    return gone


def _delete(folder):
    """Delete a run unless a service has it open; by its new name nobody opens it."""
    try:
        with (folder / "run.json").open("rb") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = folder.with_name(f".{folder.name}.part")
            folder.rename(gone)
    except OSError:  # open, or gone already
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def main(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="publish_als.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("result", metavar="RESULT", help="output of train_als.py")
    parser.add_argument("runs", metavar="RUNS", help="folder of all runs")
    parser.add_argument(
        "--hand-over",
        type=int,
        metavar="N",
        help="likes from which on a newcomer's list is personal; default: measured",
    )
    parser.add_argument(
        "--keep", type=int, default=7, metavar="N", help="runs that stay (default: 7)"
    )
    parser.add_argument(
        "--no-swap", action="store_true", help="leave the file current as it is"
    )
    args = parser.parse_args(argv)
    if args.keep < 1 or (args.hand_over is not None and args.hand_over < 0):
        parser.error("--keep must be at least 1, and --hand-over at least 0")
    try:
        fitted = from_job(args.result)
        folder = publish(
            fitted, args.runs, args.hand_over, args.keep, swap=not args.no_swap
        )
    except (PublishError, OSError) as error:
        print(f"publish_als.py: error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every set is given as, a table of ratings, and what can be made of it."""

import hashlib
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, issparse

from als_course.checks import check_columns
from als_course.storage import DatasetError

__all__ = [
    "COLUMNS",
    "Dataset",
    "fingerprint",
    "ratings_frame",
    "ratings_matrix",
    "sha256_of_rows",
    "sorted_ids",
    "verify",
]

COLUMNS = ["user_id", "item_id", "rating", "timestamp"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Ratings, and what is known about them.

    Attributes
    ----------
    name : str
        What to call the set in a sentence.
    ratings : pandas.DataFrame
        One row per rating, in the order of the file: ``user_id`` and ``item_id``
        (int64, or str for the reviews), ``rating`` (int64, 1 to 5 stars, or a
        number of plays) and ``timestamp`` (int64, seconds since 1970-01-01 UTC; 0
        where there are no times).
    source : {"real", "generated", "look-alike"}
        Whether people gave these ratings. A page built on a look-alike says so.
    citation : str
        What to cite when you use the set.
    items : pandas.DataFrame or None
        One row per item where titles are known: ``item_id`` (int64), ``title`` (str,
        without the year), ``year`` (Int64, may be missing) and ``genres`` (str, names
        joined by ``|``).
    path : pathlib.Path or None
        The file on disk. For the reviews it holds one JSON object a line.
    kinds : dict of str to pandas.Series or None
        For the biased ratings, the truth behind them: ``kinds["users"]`` maps every
        user_id to "silent", "harsh", "generous" or "typical", ``kinds["items"]``
        every item_id to "bad" or "good".
    """

    name: str
    ratings: pd.DataFrame = field(repr=False)
    source: Literal["real", "generated", "look-alike"]
    citation: str = field(repr=False)
    items: pd.DataFrame | None = field(default=None, repr=False)
    path: Path | None = field(default=None, repr=False)
    kinds: dict[str, pd.Series] | None = field(default=None, repr=False)

    def _repr_html_(self):
        """Show the set as a box, which warns where the ratings are a look-alike."""
        like = self.source == "look-alike"
        say = (
            "The real set could not be had where this page was made, so a "
            "generated look-alike stands in. Its counts are the original's, its "
            "rows are nobody's: do not draw conclusions from them."
            if like
            else f"{len(self.ratings):,} ratings. Cite: {escape(self.citation)}"
        )
        kind = "warning" if like else "note"
        title = escape(self.name if like else f"{self.name}: {self.source}")
        return (
            f'<div class="admonition {kind}"><p class="admonition-title">{title}</p>'
            f"<p>{say}</p></div>"
        )


def fingerprint(ratings):
    """Return a SHA-256 of the ratings that depends on neither file nor row order.

    Parameters
    ----------
    ratings : pandas.DataFrame
        With the columns ``user_id, item_id, rating, timestamp``.

    Returns
    -------
    str
        64 hexadecimal digits: the SHA-256 of the rows as tab-separated text with whole
        numbers, sorted as strings, each ending in a newline.

    Raises
    ------
    ValueError
        If a column is missing, or a rating or timestamp is not a whole number.
    """
    check_columns(ratings, COLUMNS)
    columns = [ratings[column].tolist() for column in COLUMNS[:2]]
    for column in COLUMNS[2:]:
        values = ratings[column].to_numpy(dtype="float64")
        if not np.array_equal(values, np.trunc(values)):
            raise ValueError(f"column {column} holds values that are not whole numbers")
        columns.append(values.astype("int64").tolist())
    return sha256_of_rows(map("%s\t%s\t%d\t%d\n".__mod__, zip(*columns, strict=True)))


def ratings_matrix(
    ratings,
    user_ids=None,
    item_ids=None,
):
    """Turn a table of ratings into a sparse matrix: rows are users, columns items.

    Parameters
    ----------
    ratings : pandas.DataFrame or sparse array
        A table with the columns ``user_id, item_id, rating``, or a SciPy matrix in the
        format COO, CSC, CSR, DOK or LIL; each pair at most once. SciPy itself makes CSR
        of COO by adding up what is stored twice, so that 5 and 4 stars become 9.
    user_ids, item_ids : array_like or None
        The ids of the rows and of the columns, in their order, so that a training and
        a test set can share their axes. By default the ids that occur, sorted; of a
        matrix, its row and column numbers.

    Returns
    -------
    matrix : scipy.sparse.csr_array of float64, shape (n_users, n_items)
        The ratings. What is not stored is missing, not zero.
    user_ids : numpy.ndarray, shape (n_users,)
        Row ``u`` of the matrix belongs to ``user_ids[u]``.
    item_ids : numpy.ndarray, shape (n_items,)
        Column ``i`` belongs to ``item_ids[i]``.

    Raises
    ------
    TypeError
        If `ratings` is neither a table nor such a matrix.
    ValueError
        If there are no ratings, a column is missing, a rating is not a finite number,
        an id is missing or not on the axis given, ids mix numbers and text, or a pair
        occurs twice (SciPy would add the two ratings up).
    """
    if issparse(ratings):
        ratings, user_ids, item_ids = _as_table(ratings, user_ids, item_ids)
    if not isinstance(ratings, pd.DataFrame):
        raise TypeError(
            f"ratings must be a table with a row for each rating, got "
            f"{type(ratings).__name__}; scipy.sparse.csr_array makes the matrix of an "
            "array in which every 0 is a place without a rating"
        )
    check_columns(ratings, COLUMNS[:3])
    if ratings.empty:
        raise ValueError("there are no ratings: the table is empty")
    try:
        values = ratings["rating"].to_numpy(dtype="float64", na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column rating holds what is no number: {error}") from error
    if not np.isfinite(values).all():
        row = ratings.index[~np.isfinite(values)][0]
        raise ValueError(
            f"the rating of row {row} is missing or infinite; drop such rows first"
        )
    rows, user_ids = _positions(ratings["user_id"], user_ids)
    columns, item_ids = _positions(ratings["item_id"], item_ids)
    # A csr_array keeps the width of its indices: 64 bits would cost a third more.
    places = rows.astype(np.int32), columns.astype(np.int32)
    matrix = csr_array((values, places), shape=(len(user_ids), len(item_ids)))
    if matrix.nnz < len(ratings):
        twice = ratings.duplicated(["user_id", "item_id"])
        user, item = ratings.loc[twice, ["user_id", "item_id"]].iloc[0]
        raise ValueError(
            f"{twice.sum()} pairs of user and item occur more than once, first user "
            f"{user} and item {item}; keep one of each with "
            "ratings.drop_duplicates(['user_id', 'item_id'])"
        )
    return matrix, user_ids, item_ids


def sorted_ids(*columns):
    """Return the ids that occur in columns of ids, sorted.

    Parameters
    ----------
    columns : Series

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    ValueError
        If an id is missing, or some are numbers and some are text.
    """
    ids = pd.concat(columns)
    if ids.isna().any():
        raise ValueError(f"column {ids.name} has missing ids; drop such rows first")
    try:
        return np.unique(ids.to_numpy())
    except TypeError as error:
        kinds = " and ".join(sorted({type(value).__name__ for value in ids}))
        raise ValueError(
            f"column {ids.name} mixes {kinds}, so that 1 and '1' are two ids; make "
            f"them one type, by .astype(str) for example"
        ) from error


def sha256_of_rows(rows):
    """Hash lines of text, whatever their order."""
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()


def verify(where, what, actual, expected):
    """Raise DatasetError unless a fingerprint is the one expected."""
    if actual != expected:
        raise DatasetError(
            f"{where} can be read, but its {what} are not those of the original: the "
            f"SHA-256 of the sorted rows is {actual}, expected {expected}. Replace the "
            "file by the original, or take it away"
        )


def ratings_frame(user_id, item_id, rating, timestamp):
    """Make a table of ratings from its four columns."""
    return pd.DataFrame(
        dict(zip(COLUMNS, (user_id, item_id, rating, timestamp), strict=True))
    )


def _as_table(matrix, user_ids, item_ids):
    """Return the stored entries of a sparse matrix as a table, and its axes."""
    if matrix.ndim != 2 or matrix.format not in ("coo", "csc", "csr", "dok", "lil"):
        raise TypeError(
            f"cannot tell which entries of a {matrix.format} array of shape "
            f"{matrix.shape} are ratings; give two dimensions as COO, CSC or CSR"
        )
    entries = matrix.tocoo()
    axes = [
        np.arange(size) if ids is None else ids
        for size, ids in zip(matrix.shape, (user_ids, item_ids), strict=True)
    ]
    if tuple(map(len, axes)) != matrix.shape:
        raise ValueError(
            f"{len(axes[0])} user_ids and {len(axes[1])} item_ids for a "
            f"matrix of shape {matrix.shape}"
        )
    users, items = (
        np.asarray(a)[at] for a, at in zip(axes, entries.coords, strict=True)
    )
    table = pd.DataFrame({"user_id": users, "item_id": items, "rating": entries.data})
    return table, *axes


def _positions(ids, axis):
    """Return the place of every id on the axis, and the axis."""
    found = sorted_ids(ids)
    index = pd.Index(found if axis is None else axis)
    if not index.is_unique:
        repeated = index[index.duplicated()].tolist()[0]
        raise ValueError(f"{ids.name}s on the axis given repeat, first {repeated!r}")
    positions = index.get_indexer(ids)
    if (positions < 0).any():
        unknown = ids[positions < 0]
        raise ValueError(
            f"{len(unknown)} ratings have a {ids.name} that is not on the axis given, "
            f"first {unknown.tolist()[0]!r}; drop them, or give an axis that has it"
        )
    return positions, index.to_numpy()

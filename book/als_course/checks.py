"""Checks of what a caller gives, each with one error for one mistake."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse

__all__ = ["check_amount", "check_columns", "check_count", "check_csr"]


def check_count(value, name):
    """Refuse what is no whole number of at least 1.

    Parameters
    ----------
    value : int
    name : str
        What the caller calls it, for the message.

    Raises
    ------
    TypeError
        If `value` is no integer; True and False are none.
    ValueError
        If it is below 1.
    """
    if isinstance(value, bool):  # which Python counts among the integers
        raise TypeError(f"{name} must be an instance of int, not bool.")
    _check_scalar(value, name, Integral, min_val=1)


def check_amount(value, name, positive=False):
    """Refuse what is no finite number of at least 0, or above 0.

    Parameters
    ----------
    value : float
    name : str
        What the caller calls it, for the message.
    positive : bool
        Refuse 0, too.

    Raises
    ------
    TypeError
        If `value` is no number.
    ValueError
        If it is out of range, infinite or nan.
    """
    ends = "neither" if positive else "left"
    _check_scalar(value, name, Real, min_val=0, max_val=np.inf, include_boundaries=ends)
    if np.isnan(value):  # which compares with nothing
        raise ValueError(f"{name} == nan, must be a number.")


def check_csr(matrix, name):
    """Refuse what is no CSR array or matrix.

    Parameters
    ----------
    matrix : CSR array or matrix
    name : str
        What the caller calls it, for the message.

    Raises
    ------
    TypeError
        If `matrix` is anything else, another sparse format too.
    ValueError
        If it has one dimension.
    """
    if sparse.issparse(matrix) and matrix.ndim == 1:
        raise ValueError(
            f"{name} must have two dimensions, got shape {matrix.shape}; take one row "
            "as R[[0]]"
        )
    if sparse.issparse(matrix) and matrix.format == "csr":
        return
    kind = getattr(matrix, "format", type(matrix).__name__)
    hint = (
        "als_course.datasets.ratings_matrix makes one of a table or of another sparse "
        "matrix, and refuses what is rated twice, which SciPy would add up"
    )
    if isinstance(matrix, np.ndarray):
        hint = (
            "scipy.sparse.csr_array makes one of an array in which every 0 is a place "
            "without a rating"
        )
    raise TypeError(
        f"{name} must be a SciPy CSR array, users in rows and items in columns, got "
        f"{kind}; {hint}"
    )


def check_columns(table, columns):
    """Refuse a table of ratings that lacks a column.

    Parameters
    ----------
    table : DataFrame
    columns : sequence of str

    Raises
    ------
    ValueError
        The text names what is missing and what there is.
    """
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"the table of ratings has no column {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}"
        )


def _check_scalar(*what, **limits):
    from sklearn.utils import check_scalar  # in a browser, seconds that datasets spare

    check_scalar(*what, **limits)

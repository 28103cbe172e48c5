"""What a slip makes of a result: off by one, negated, scaled, in another order.

An alteration that differs from the result is wrong, whatever the exercise asked for.
Lists, dictionaries and the columns of a table are altered as a whole, since a slip is
made in the code and not in one of the numbers.
"""

import functools
import types
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import sparse

NUMBERS: dict[str, Callable] = {
    "one more": lambda x: x + 1,
    "negated": lambda x: -x,
    "a tenth more": lambda x: x * 1.1,
    "in per cent": lambda x: x * 100,
}
ORDERS: dict[str, Callable] = {
    "moved on by one": lambda n: np.roll(np.arange(n), 1),
    "without its last": lambda n: np.arange(n - 1),
}
ALL = (*NUMBERS, *ORDERS, "the opposite", "read backwards")


def alterations(value, columns: Callable[[str], bool]) -> Iterator[tuple[str, object]]:
    """Give what a result may be by mistake, each with the mistake's name.

    Of a table, the columns count for which `columns` is true.
    """
    for what in ALL:
        if isinstance(value, types.FunctionType):
            yield f"{what}, returned", returning(value, what)
        elif isinstance(value, pd.DataFrame) and what != "without its last":
            for column in filter(columns, value):
                altered = value.copy()
                altered[column] = change(value[column], what)
                if not same(altered, value):
                    yield f"{column} {what}", altered
        else:
            altered = change(value, what)
            if not same(altered, value):
                yield what, altered


def change(value, what: str):
    """Alter a value in one way; what cannot be altered so is returned as it is."""
    if isinstance(value, pd.Series):
        array = change(value.to_numpy(), what)
        return pd.Series(array, value.index[: len(array)], name=value.name)
    if isinstance(value, pd.DataFrame):
        if what == "without its last":
            return value.iloc[:-1]
        return value.apply(change, what=what)
    if sparse.issparse(value):
        altered = value.copy()
        altered.data = change(value.data, what if what in NUMBERS else "")
        return altered
    if isinstance(value, np.ndarray) and value.ndim:
        if what in ORDERS:
            return value[ORDERS[what](len(value))]
        return _change_number(value, value.dtype.kind, what)
    if type(value) in (list, tuple):
        if what in ORDERS:
            return type(value)(value[place] for place in ORDERS[what](len(value)))
        return type(value)(change(part, what) for part in value)
    if isinstance(value, dict):
        if what in ORDERS:
            moved = [list(value.values())[p] for p in ORDERS[what](len(value))]
            return dict(zip(value, moved, strict=False))
        return {key: change(part, what) for key, part in value.items()}
    if isinstance(value, str):
        return value[::-1] if what == "read backwards" else value
    if isinstance(value, bool | int | float | np.generic):
        return _change_number(value, np.asarray(value).dtype.kind, what)
    return value


def _change_number(value, kind, what):
    if kind == "b":
        return ~np.asarray(value) if what == "the opposite" else value
    if kind in "iuf" and what in NUMBERS and (kind == "f" or what != "a tenth more"):
        return NUMBERS[what](value)
    return value


def returning(function, what: str):
    """Wrap a function: what it returns is altered, and `used` tells whether ever."""

    @functools.wraps(function)
    def altered(*args, **kwargs):
        result = function(*args, **kwargs)
        wrong = change(result, what)
        altered.used |= not same(wrong, result)
        return wrong

    altered.used = False
    return altered


def same(one, other) -> bool:
    """Whether two results are equal in every place."""
    if isinstance(one, pd.Series | pd.DataFrame):
        return one.equals(other)
    if sparse.issparse(one):
        return one.shape == other.shape and (one != other).nnz == 0
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, np.ndarray):
        nan = one.dtype.kind == "f"
        return one.shape == other.shape and np.array_equal(one, other, equal_nan=nan)
    return one is other or bool(one == other) or bool(one != one and other != other)

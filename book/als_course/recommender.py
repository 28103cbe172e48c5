"""What every model of the course can do, and the checks of its input.

All models work on a SciPy CSR array whose **rows are users and columns are items**.

One rule answers for whom a model has not seen in training: a missing user or item is
predicted with the mean where stars are predicted, and a user without ratings gets the
most popular items as a list. `Recommender.count_unknown` tells how often that was so.
"""

import json
import os
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.exceptions import NotFittedError

from als_course.checks import check_csr
from als_course.metrics import top_k

__all__ = ["FactorRecommender", "Recommender", "check_ratings"]

FORMAT = "als_course model 1"
CSR_PARTS = ("data", "indices", "indptr", "shape")
BLOCK_PAIRS = 4096  # factor rows gathered at once by `_dot_pairs`
BLOCK_CELLS = 2**20  # scores held at once by `recommend`: 8 MB


def check_ratings(ratings, allow_empty=False, dtype="float64"):
    """Check a ratings matrix and return it as floats.

    A stored entry is a rating, a stored zero too; all else is unknown.

    Parameters
    ----------
    ratings : CSR array or matrix of shape (n_users, n_items)
        Of integers or floats, with at most one entry for a user and an item.
    allow_empty : bool
        Accept a matrix without any rating.
    dtype : {"float64", "float32"}
        Of what is returned.

    Returns
    -------
    csr_array of shape (n_users, n_items)
        A copy with sorted columns.

    Raises
    ------
    TypeError
        If `ratings` is not CSR or not numeric.
    ValueError
        If it is empty, or holds nan, infinity, numbers too large for `dtype`, or two
        ratings for one user and item.
    """
    check_csr(ratings, "ratings")
    if ratings.dtype.kind not in "iuf":
        raise TypeError(f"ratings must be integers or floats, got {ratings.dtype}")
    if ratings.nnz == 0 and not allow_empty:
        raise ValueError(f"the ratings matrix {ratings.shape} holds no rating")
    with np.errstate(over="ignore"):
        data = ratings.data.astype(dtype)
    small = max(*ratings.shape, ratings.nnz) < 2**31
    index = np.int32 if small else np.int64
    parts = data, ratings.indices.astype(index), ratings.indptr.astype(index)
    checked = sparse.csr_array(parts, shape=ratings.shape)
    checked.check_format(full_check=True)
    checked.sort_indices()
    # Two neighbours with one column are the same place unless a row begins between.
    repeated = checked.indices[1:] == checked.indices[:-1]
    starts = checked.indptr[1:-1]
    repeated[starts[(starts > 0) & (starts < checked.nnz)] - 1] = False
    for bad, problem in [
        (~np.isfinite(checked.data), f"is not finite in {dtype}; drop or mend it"),
        (repeated, "is there more than once; keep one, or their mean"),
    ]:
        if bad.any():
            at = np.flatnonzero(bad)[0]
            user = np.searchsorted(checked.indptr, at, side="right") - 1
            where = f"user {user}, item {checked.indices[at]}"
            raise ValueError(f"the rating of {where} {problem}")
    return checked


class Recommender:
    """What every model of the course can do; a base class, not a model.

    A subclass defines ``_fit(ratings)`` and ``_score(users, items)`` for int arrays
    that broadcast against each other. One that ranks the items alike for everybody
    says ``personal = False``; it needs no rule for users whom it has not seen. It is a
    dataclass whose fields are its parameters, and checks them in ``_check_settings()``.

    Attributes
    ----------
    n_users_, n_items_ : int
        Shape of the ratings matrix given to `fit`.
    known_users_, known_items_ : bool arrays of shape (n_users,) and (n_items,)
        Who and what had a rating there; in `ImplicitALS`, a rating above 0.
    popularity_ : int array of shape (n_items,)
        How many such ratings each item had.
    """

    personal = True

    def __post_init__(self):
        """Check the parameters."""
        self._check_settings()

    def _check_settings(self):
        """Refuse parameters that cannot be; `fit` does so too, as they may change."""

    def fit(self, ratings):
        """Learn from ratings.

        Parameters
        ----------
        ratings : CSR array or matrix of shape (n_users, n_items)
            Stored entries are the ratings, stored zeros included.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `check_ratings` does.
        """
        self._check_settings()
        ratings = check_ratings(ratings)
        self._fit(ratings)
        by_item = np.bincount(ratings.indices, minlength=ratings.shape[1])
        self._remember(ratings, np.diff(ratings.indptr), by_item)
        return self

    def get_params(self, deep=True):
        """Return the parameters, so that scikit-learn's ``clone`` can copy the model.

        Parameters
        ----------
        deep : bool
            Makes no difference, as no parameter is a model.

        Returns
        -------
        dict of str to object
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self, **params):
        """Change parameters, which `fit` checks.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for {type(self).__name__}; it has "
                    f"{', '.join(known) or 'none'}"
                )
            setattr(self, name, value)
        return self

    def predict(self, users, items):
        """Score pairs of users and items, elementwise.

        Parameters
        ----------
        users, items : int or int array-like of shape (n_pairs,)
            Row and column numbers in the ratings matrix; of one shape.

        Returns
        -------
        float64 array of shape (n_pairs,), or float
            Predicted ratings, not clipped to the scale; for models that only rank,
            scores. Where the model has not seen the user or the item, the training
            mean stands in for what it would have learnt, or popularity for a score.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If a user or an item is unknown, or the shapes differ.
        """
        users, items = self._check_pairs(users, items)
        return self._score(users.ravel(), items.ravel()).reshape(users.shape)[()]

    def recommend(self, user, n=10, exclude_seen=True):
        """Rank the items for one user or for several.

        Parameters
        ----------
        user : int or int array-like of shape (n_asked,)
            Row numbers in the ratings matrix.
        n : int
            Length of the list. Fewer items come back when fewer are left.
        exclude_seen : bool
            Leave out what the user has rated.

        Returns
        -------
        items : int array of shape (n,) or (n_asked, n)
            Item columns, highest score first; equal scores by column, ascending. With
            several users, lists too short are filled up with -1.
        scores : float64 array of the same shape
            Minus infinity where `items` is -1.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If a user is unknown or `n` is below 1; with `exclude_seen`, if the model
            was saved without its ratings.

        Notes
        -----
        A user without a rating in training gets the most popular items, and their
        numbers of ratings as scores, from every model whose lists are personal.
        """
        users = self._check_users(user)
        if users.ndim == 0:
            items, scores = self.recommend(users[None], n, exclude_seen)
            return items[items >= 0], scores[items >= 0]
        lists = []
        size = max(1, BLOCK_CELLS // self.n_items_)
        for start in range(0, max(1, len(users)), size):
            block = users[start : start + size]
            seen = self._rated(block) if exclude_seen else None
            scores = self._score_all(block)
            known = self.known_users_[block, None]
            if self.personal and not known.all():
                scores = np.where(known, scores, self.popularity_)
            lists.append(top_k(scores, n, exclude=seen))
        items, scores = zip(*lists, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    def count_unknown(self, users, items):
        """Count the pairs whose user or item the model has not seen in training.

        For these `predict` falls back on the rule: the training mean instead of what
        there was nothing to learn from. Print the count beside a score.

        Parameters
        ----------
        users, items : int or int array-like of shape (n_pairs,)
            As for `predict`.

        Returns
        -------
        int

        Raises
        ------
        NotFittedError, ValueError
            As `predict` does.
        """
        users, items = self._check_pairs(users, items)
        return int(np.sum(~(self.known_users_[users] & self.known_items_[items])))

    def save(self, path, ratings=True):
        """Write the fitted model to a file, to be read by `load`.

        The file is NumPy's ``.npz``, arrays and no code: reading one that others made
        runs nothing of theirs, unlike a pickle.

        Parameters
        ----------
        path : str or os.PathLike
            Written under exactly this name; a file of that name is replaced at once.
        ratings : bool
            Keep the ratings. Without them the file is smaller and does not tell who
            rated what, and the model read back can neither leave out of a list what a
            user has seen nor explain a score. `ItemNeighbours` predicts from ratings
            and keeps their residuals either way.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If a parameter is no number, text or None, as a Generator.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from als_course.baselines import MostPopular
        >>> model = MostPopular().fit(sparse.csr_array([[5, 0, 4], [0, 0, 3]]))
        >>> with TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.npz")
        ...     again = MostPopular.load(f"{folder}/model.npz")
        >>> again.recommend(1)[0].tolist()
        [0, 1]
        """
        self._check_fitted()
        settings = self.get_params()
        try:
            header = json.dumps([FORMAT, type(self).__name__, settings], default=_plain)
        except TypeError as error:
            raise TypeError(
                f"{error}; give a number or a name instead, by "
                "model.set_params(random_state=0) for example"
            ) from error
        arrays = {"header": header}
        for name, value in vars(self).items():
            if name in settings or (name == "_ratings" and not ratings):
                continue
            if sparse.issparse(value):
                arrays |= {f"{name}.{part}": getattr(value, part) for part in CSR_PARTS}
            else:
                arrays[name] = value
        part = Path(f"{os.fspath(path)}.part")
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path):
        """Read a model that `save` has written.

        Parameters
        ----------
        path : str or os.PathLike

        Returns
        -------
        Recommender
            Of this class, fitted, with the parameters that it was saved with.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it holds no model of this class.
        """
        try:
            with Path(path).open("rb") as file:
                arrays = dict(np.load(file, allow_pickle=False))
            kind, name, settings = json.loads(arrays.pop("header").item())
        except (
            ValueError,
            KeyError,
            EOFError,
            AttributeError,
            zipfile.BadZipFile,
        ) as e:
            raise ValueError(f"{path} is no file that a model was saved in") from e
        if (kind, name) != (FORMAT, cls.__name__):
            raise ValueError(
                f"{path} holds {kind}, {name}; need {FORMAT}, {cls.__name__}"
            )
        model, parts = cls(**settings), {}
        for key, array in arrays.items():
            name, _, part = key.partition(".")
            if part:
                parts.setdefault(name, {})[part] = array
            else:
                setattr(model, name, array if array.ndim else array.item())
        for name, part in parts.items():
            shape = tuple(part.pop("shape").tolist())
            places = (part[key] for key in CSR_PARTS[:3])
            setattr(model, name, sparse.csr_array(tuple(places), shape=shape))
        return model

    def _rated(self, users):
        """Return the rows of some users in the training ratings."""
        if not hasattr(self, "_ratings"):
            raise ValueError(
                "the model was saved without its ratings, so that what a user has seen "
                "is unknown; say exclude_seen=False, or save it with ratings=True"
            )
        return self._ratings[users]

    def _remember(self, ratings, user_counts, item_counts):
        self._ratings = ratings
        self.n_users_, self.n_items_ = ratings.shape
        self.known_users_, self.known_items_ = user_counts > 0, item_counts > 0
        self.popularity_ = item_counts

    def _score_all(self, users):
        """Scores of all items for each of the users, (n_asked, n_items)."""
        scores = self._score(users[:, None], np.arange(self.n_items_))
        return np.broadcast_to(scores, (len(users), self.n_items_))

    def _check_fitted(self):
        if not hasattr(self, "n_users_"):
            raise NotFittedError(f"call {type(self).__name__}.fit(ratings) first")

    def _check_pairs(self, users, items):
        users, items = self._check_users(users), self._check_items(items)
        if users.shape != items.shape:
            raise ValueError(
                f"users {users.shape} and items {items.shape} differ in shape; "
                "give one item for each user"
            )
        return users, items

    def _check_users(self, users):
        self._check_fitted()
        return _check_numbers(users, self.n_users_, "user")

    def _check_items(self, items):
        self._check_fitted()
        return _check_numbers(items, self.n_items_, "item")


class FactorRecommender(Recommender):
    """What a model of user and item factors can do; a base class, not a model.

    Its score is their dot product.

    Attributes
    ----------
    user_factors_, item_factors_ : arrays of shape (n_users, k) and (n_items, k)
    """

    def similar_items(self, item, n=10):
        """Find the items whose factors point the same way.

        Parameters
        ----------
        item : int
            Column number in the ratings matrix.
        n : int
            Length of the list; fewer come back when there are fewer other items.

        Returns
        -------
        items : int array of shape (n,)
            Without `item` itself; highest similarity first, equal ones by column.
        similarities : float64 array of shape (n,)
            Cosines, from -1 to 1; 0 with an item whose factors are all 0.

        Raises
        ------
        NotFittedError, ValueError
            Before `fit`; if the item is unknown or `n` is below 1.
        """
        item = self._check_item(item)
        return _most_similar(item, n, self.item_factors_)

    def similar_users(self, user, n=10):
        """Find the users whose factors point the same way, as `similar_items` does."""
        user = self._check_user(user)
        return _most_similar(user, n, self.user_factors_)

    def _check_user(self, user):
        return _require_one(self._check_users(user))

    def _check_item(self, item):
        return _require_one(self._check_items(item))

    def _score(self, users, items):
        return _dot_pairs(self.user_factors_, self.item_factors_, users, items)

    def _score_all(self, users):
        scores = self.user_factors_[users] @ self.item_factors_.T
        return scores.astype(np.float64, copy=False)


def _dot_pairs(user_factors, item_factors, users, items):
    """Dot products of the factors of each pair, a block of pairs at a time."""
    products = np.empty(len(users))
    for start in range(0, len(users), BLOCK_PAIRS):
        block = slice(start, start + BLOCK_PAIRS)
        products[block] = np.einsum(
            "ij,ij->i", user_factors[users[block]], item_factors[items[block]]
        )
    return products


def _plain(value):
    """Return a NumPy number as Python's own, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a parameter cannot be saved: {value!r}")


def _check_numbers(numbers, size, kind):
    """Row or column numbers as an int array, or an error that names the first bad."""
    numbers = np.asarray(numbers)
    if numbers.size == 0:
        return numbers.astype(np.intp)
    hint = f"give the {kind}'s number in the matrix, by pandas.factorize for example"
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"{kind} must be an integer, got {numbers.dtype}; {hint}")
    bad = (numbers < 0) | (numbers >= size)
    if bad.any():
        raise ValueError(f"{kind} {numbers[bad][0]} is not in 0..{size - 1}; {hint}")
    return numbers.astype(np.intp)


def _require_one(number):
    if number.ndim:
        raise ValueError(f"give one number, got an array of shape {number.shape}")
    return number


def _most_similar(number, n, factors):
    lengths = np.linalg.norm(factors, axis=1)
    lengths[lengths == 0] = 1.0
    directions = factors / lengths[:, None]
    cosines = directions @ directions[number]
    cosines[number] = -np.inf
    found, best = top_k(cosines, n)
    return found[found >= 0], best[found >= 0]

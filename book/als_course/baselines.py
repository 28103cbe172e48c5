"""What a recommender must beat: constants, means, biases, popularity and chance.

All models of the course, these and those of ``als_course.als``, work on a SciPy CSR
matrix whose **rows are users and columns are items**, and share `Recommender`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.exceptions import NotFittedError

from als_course.metrics import top_k

__all__ = [
    "DampedBiases",
    "GlobalMean",
    "ItemMean",
    "ItemNeighbours",
    "MostPopular",
    "RandomRanking",
    "Recommender",
    "check_ratings",
]

BLOCK_CELLS = 2**22  # scores held at once by `recommend`: 32 MB


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
    if not sparse.issparse(ratings) or ratings.format != "csr":
        kind = getattr(ratings, "format", type(ratings).__name__)
        raise TypeError(
            "ratings must be a SciPy CSR matrix, users in rows and items in columns, "
            f"got {kind}; build one with scipy.sparse.csr_array((rating, (user, item)))"
        )
    if ratings.dtype.kind not in "iuf":
        raise TypeError(f"ratings must be integers or floats, got {ratings.dtype}")
    if ratings.ndim != 2:
        raise ValueError(f"ratings must have two dimensions, got shape {ratings.shape}")
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
    that broadcast against each other.

    Attributes
    ----------
    n_users_, n_items_ : int
        Shape of the ratings matrix given to `fit`.
    """

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
        ratings = check_ratings(ratings)
        self._fit(ratings)
        self._remember(ratings)
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
            scores.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If a user or an item is unknown, or the shapes differ.
        """
        users, items = self._check_users(users), self._check_items(items)
        if users.shape != items.shape:
            raise ValueError(
                f"users {users.shape} and items {items.shape} differ in shape; "
                "give one item for each user"
            )
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
            If a user is unknown or `n` is below 1.
        """
        users = self._check_users(user)
        if users.ndim == 0:
            items, scores = self.recommend(users[None], n, exclude_seen)
            return items[items >= 0], scores[items >= 0]
        lists = []
        size = max(1, BLOCK_CELLS // self.n_items_)
        for start in range(0, max(1, len(users)), size):
            block = users[start : start + size]
            seen = self._ratings[block] if exclude_seen else None
            lists.append(top_k(self._score_all(block), n, exclude=seen))
        items, scores = zip(*lists, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    def _remember(self, ratings):
        self._ratings = ratings
        self.n_users_, self.n_items_ = ratings.shape

    def _score_all(self, users):
        """Scores of all items for each of the users, (n_asked, n_items)."""
        scores = self._score(users[:, None], np.arange(self.n_items_))
        return np.broadcast_to(scores, (len(users), self.n_items_))

    def _check_fitted(self):
        if not hasattr(self, "n_users_"):
            raise NotFittedError(f"call {type(self).__name__}.fit(ratings) first")

    def _check_users(self, users):
        self._check_fitted()
        return _check_numbers(users, self.n_users_, "user")

    def _check_items(self, items):
        self._check_fitted()
        return _check_numbers(items, self.n_items_, "item")


@dataclass(eq=False)
class GlobalMean(Recommender):
    """Predict the mean of all ratings, always.

    Attributes
    ----------
    mean_ : float
    """

    def _fit(self, ratings):
        self.mean_ = float(ratings.data.mean())

    def _score(self, users, items):
        return np.full(items.shape, self.mean_)


@dataclass(eq=False)
class ItemMean(Recommender):
    """Predict the mean of the item's ratings, damped towards the global mean.

    With sum s and number n of an item's ratings and global mean μ it predicts
    (s + damping μ) / (n + damping). An item without ratings gets μ.

    Parameters
    ----------
    damping : float
        At least 0, in ratings; 0 gives the plain mean.

    Attributes
    ----------
    mean_ : float
    item_biases_ : float64 array of shape (n_items,)
        Prediction minus global mean.

    Raises
    ------
    ValueError
        If the damping is negative or not finite.
    """

    damping: float = 0.0

    def __post_init__(self):
        """Check the parameter."""
        if not 0 <= self.damping < np.inf:
            raise ValueError(
                f"damping must be finite and at least 0, got {self.damping}"
            )

    def _fit(self, ratings):
        self.mean_ = float(ratings.data.mean())
        centred = ratings.copy()
        centred.data -= self.mean_
        self.item_biases_ = _damped_means(centred.T.tocsr(), self.damping)

    def _score(self, users, items):
        return self.mean_ + self.item_biases_[items]


@dataclass(eq=False)
class DampedBiases(ItemMean):
    r"""Predict the mean plus a bias of the item plus a bias of the user.

    .. math::

        b_i = \frac{\sum_{u} (r_{ui} - \mu)}{n_i + \beta}, \qquad
        b_u = \frac{\sum_{i} (r_{ui} - \mu - b_i)}{n_u + \beta}

    over the observed ratings [1]_ (there with one β for items, one for users). The
    damping β acts as that many further ratings without bias: it pulls the biases of
    the little known towards 0. Users and items without ratings have bias 0.

    Parameters
    ----------
    damping : float
        β, at least 0, in ratings.

    Attributes
    ----------
    mean_ : float
    item_biases_ : float64 array of shape (n_items,)
    user_biases_ : float64 array of shape (n_users,)

    Raises
    ------
    ValueError
        If the damping is negative or not finite.

    References
    ----------
    .. [1] Y. Koren, "Factor in the neighbors: scalable and accurate collaborative
       filtering", ACM TKDD 4(1), 2010, section 2.1.
    """

    damping: float = 5.0

    def _fit(self, ratings):
        super()._fit(ratings)
        self.user_biases_ = self._user_biases(ratings)

    def _user_biases(self, ratings):
        """Biases of the rows of ratings, given the items' biases."""
        residuals = ratings.copy()
        residuals.data -= self.mean_ + self.item_biases_[ratings.indices]
        return _damped_means(residuals, self.damping)

    def _score(self, users, items):
        return super()._score(users, items) + self.user_biases_[users]


@dataclass(eq=False)
class ItemNeighbours(DampedBiases):
    r"""Predict the biases plus what the user thinks of the most similar items.

    The residual of a rating is :math:`e_{ui} = r_{ui} - \mu - b_u - b_i`. With
    :math:`n_{ij}` users who rated both, two items are as similar as

    .. math::

        s_{ij} = \frac{n_{ij}}{n_{ij} + \gamma} \cdot
        \frac{\sum_u e_{ui} e_{uj}}{\sqrt{\sum_u e_{ui}^2 \sum_u e_{uj}^2}}

    over these users, and 0 where that is negative. To the biases it adds the mean of
    the user's residuals on the `n_neighbours` rated items most similar to item i,
    weighted by their similarity; nothing where there is none.

    Parameters
    ----------
    damping : float
        Of the biases, at least 0, in ratings.
    n_neighbours : int
        At least 1. Where several are equally similar to the last, all of them count.
    shrinkage : float
        γ, at least 0, in users: halves a similarity that as many users stand for.

    Attributes
    ----------
    similarities_ : float64 array of shape (n_items, n_items)
        Its diagonal is 0. It grows with the square of the items: 23 MB for MovieLens
        100K, 80 GB for 100,000 items.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    Who likes one of the first two items likes the other, and not the third.

    >>> ratings = sparse.csr_array([[5, 5, 1], [1, 1, 5], [5, 0, 1]])
    >>> ratings.eliminate_zeros()
    >>> model = ItemNeighbours(damping=0, shrinkage=1).fit(ratings)
    >>> bool(model.predict(2, 1) > DampedBiases(0).fit(ratings).predict(2, 1))
    True
    """

    n_neighbours: int = 40
    shrinkage: float = 100.0

    def __post_init__(self):
        """Check the parameters."""
        super().__post_init__()
        if self.n_neighbours < 1:
            raise ValueError(
                f"n_neighbours must be at least 1, got {self.n_neighbours}"
            )
        if not 0 <= self.shrinkage < np.inf:
            raise ValueError(
                f"shrinkage must be finite and at least 0, got {self.shrinkage}"
            )

    def _fit(self, ratings):
        super()._fit(ratings)
        users = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
        data = ratings.data - super()._score(users, ratings.indices)

        def products(first, second):
            """Sum over the users who rated both items, (n_items, n_items)."""
            parts = ratings.indices, ratings.indptr
            one, other = (
                sparse.csr_array((values, *parts), shape=ratings.shape)
                for values in (first, second)
            )
            return (one.T @ other).toarray()

        ones = np.ones(ratings.nnz)
        n_both, squares = products(ones, ones), products(data**2, ones)
        size = np.sqrt(squares * squares.T)
        # Of items with no residual in common the sum is 0, and 0 / tiny is 0.
        tiny = np.finfo(np.float64).tiny
        similarities = products(data, data) / np.maximum(size, tiny)
        similarities *= n_both / np.maximum(n_both + self.shrinkage, tiny)
        np.fill_diagonal(similarities, 0)
        self.similarities_ = np.maximum(similarities, 0)
        self._residuals = sparse.csr_array(
            (data, ratings.indices, ratings.indptr), shape=ratings.shape
        )

    def _score(self, users, items):
        users, items = np.broadcast_arrays(users, items)
        scores = np.array(super()._score(users, items))
        order = np.argsort(users, axis=None, kind="stable")
        asked, starts = np.unique(users.ravel()[order], return_index=True)
        # Not strict: where no user is asked for, the split gives one empty part.
        for user, places in zip(asked, np.split(order, starts[1:]), strict=False):
            scores.flat[places] += self._taste(user, items.ravel()[places])
        return scores

    def _taste(self, user, items):
        """Weighted mean of one user's residuals on the neighbours of some items."""
        row = slice(*self._residuals.indptr[user : user + 2])
        rated, left = self._residuals.indices[row], self._residuals.data[row]
        weights = self.similarities_[np.ix_(items, rated)]
        if len(rated) > self.n_neighbours:
            last = np.partition(weights, -self.n_neighbours, axis=1)
            weights[weights < last[:, [-self.n_neighbours]]] = 0
        total = weights.sum(axis=1)
        mean = np.zeros(len(items))
        return np.divide(weights @ left, total, out=mean, where=total > 0)


@dataclass(eq=False)
class MostPopular(Recommender):
    """Rank items by their number of ratings, alike for all users.

    Attributes
    ----------
    counts_ : int array of shape (n_items,)
        Number of ratings; the score that `predict` and `recommend` give.
    """

    def _fit(self, ratings):
        self.counts_ = np.bincount(ratings.indices, minlength=ratings.shape[1])

    def _score(self, users, items):
        return self.counts_[items].astype(np.float64)


@dataclass(eq=False)
class RandomRanking(Recommender):
    """Rank items at random, anew for each user; what no model may lose to.

    Parameters
    ----------
    seed : int
        With the user's row number, it fixes the scores, uniform between 0 and 1.
    """

    seed: int = 0

    def _fit(self, ratings):
        pass

    def _score_all(self, users):
        scores = np.empty((len(users), self.n_items_))
        for row, user in zip(scores, users.tolist(), strict=True):
            np.random.default_rng([self.seed, user]).random(out=row)
        return scores

    def _score(self, users, items):
        rows, places = np.unique(users, return_inverse=True)
        return self._score_all(rows)[places, items]


def _damped_means(matrix, damping):
    """Sum of the stored values of each row over (their number + damping)."""
    counts = np.diff(matrix.indptr)
    sums = matrix.sum(axis=1)
    # Rows without values have sum 0; the maximum only avoids 0 / 0.
    return sums / np.maximum(counts + damping, np.finfo(np.float64).tiny)


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

"""What a recommender must beat: constants, means, biases, popularity and chance."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from als_course.checks import check_amount, check_count, check_csr
from als_course.recommender import Recommender

__all__ = [
    "DampedBiases",
    "GlobalMean",
    "ItemMean",
    "ItemNeighbours",
    "MostPopular",
    "RandomRanking",
    "residuals",
]


@dataclass(eq=False)
class GlobalMean(Recommender):
    """Predict the mean of all ratings, always.

    Attributes
    ----------
    mean_ : float
    """

    personal = False

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

    personal = False

    def _check_settings(self):
        check_amount(self.damping, "damping")

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
        centred = _with_data(
            ratings, ratings.data - (self.mean_ + self.item_biases_[ratings.indices])
        )
        self.user_biases_ = _damped_means(centred, self.damping)

    def residuals(self, ratings):
        """Take the mean and the biases off ratings, of these users or of others.

        The items' biases are those of the training ratings; a row's own bias is
        computed from what the row holds, by the formula above.

        Parameters
        ----------
        ratings : CSR array or matrix of shape (n_rows, n_items)

        Returns
        -------
        csr_array of shape (n_rows, n_items)
            What is left over; a residual of 0 stays stored. float32 for float32
            ratings, else float64.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError, ValueError
            If `ratings` is not CSR or has another number of columns.
        """
        self._check_fitted()
        check_csr(ratings, "ratings")
        if ratings.shape[1] != self.n_items_:
            raise ValueError(f"ratings must have {self.n_items_} columns")
        return residuals(ratings, self.mean_, self.item_biases_, self.damping)

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
    personal = True

    def _check_settings(self):
        super()._check_settings()
        check_count(self.n_neighbours, "n_neighbours")
        check_amount(self.shrinkage, "shrinkage")

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

    personal = False

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
    personal = False  # chance knows nobody; the floor stays a floor

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


def residuals(ratings, mean, item_biases, damping):
    """Take mean and biases off, as `DampedBiases.residuals` does, its items' given.

    Parameters
    ----------
    ratings : CSR array or matrix of shape (n_rows, n_items)
    mean : float
    item_biases : array of shape (n_items,)
    damping : float

    Returns
    -------
    csr_array of shape (n_rows, n_items)
    """
    left = ratings.data - (mean + item_biases[ratings.indices])
    biases = _damped_means(_with_data(ratings, left), damping)
    left -= np.repeat(biases, np.diff(ratings.indptr))
    narrow = ratings.dtype == np.float32
    return _with_data(ratings, left.astype("f4" if narrow else "f8", copy=False))


def _with_data(ratings, data):
    """Put other numbers in the same places."""
    parts = data, ratings.indices, ratings.indptr
    return sparse.csr_array(parts, shape=ratings.shape)


def _damped_means(matrix, damping):
    """Sum of the stored values of each row over (their number + damping)."""
    counts = np.diff(matrix.indptr)
    sums = matrix.sum(axis=1)
    # Rows without values have sum 0; the maximum only avoids 0 / 0.
    return sums / np.maximum(counts + damping, np.finfo(np.float64).tiny)

"""What a recommender must beat: constants, means, biases, popularity and chance."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from als_course.checks import check_amount, check_csr
from als_course.recommender import Recommender

__all__ = [
    "DampedBiases",
    "GlobalMean",
    "ItemMean",
    "MostPopular",
    "RandomRanking",
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

    def __post_init__(self):
        """Check the parameter."""
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
        centred = _with_data(ratings, self._centre(ratings))
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
        left = self._centre(ratings)
        biases = _damped_means(_with_data(ratings, left), self.damping)
        left -= np.repeat(biases, np.diff(ratings.indptr))
        narrow = ratings.dtype == np.float32
        return _with_data(ratings, left.astype("f4" if narrow else "f8", copy=False))

    def _centre(self, ratings):
        return ratings.data - (self.mean_ + self.item_biases_[ratings.indices])

    def _score(self, users, items):
        return super()._score(users, items) + self.user_biases_[users]


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

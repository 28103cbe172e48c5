"""Alternating least squares on sparse ratings.

**Rows are users and columns are items.** A sweep is two half-steps: solve every user
with the items held fixed, then every item with the users held fixed. Each is an
exact least-squares problem, so the objective never rises.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dposv
from threadpoolctl import threadpool_limits

from als_course.baselines import DampedBiases, Recommender, check_ratings
from als_course.metrics import top_k

__all__ = ["ExplicitALS"]

BLOCK_PAIRS = 4096  # factor rows gathered at once by `_dot_pairs`
SINGULAR = 1e-13  # smallest over largest pivot; below it hardly a digit holds


class _FactorModel(Recommender):
    """What models with user and item factors share."""

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
        NotFittedError
            Before `fit`.
        ValueError
            If the item is unknown or `n` is below 1.
        """
        return _most_similar(self._check_items(item), n, self.item_factors_)

    def similar_users(self, user, n=10):
        """Find the users whose factors point the same way.

        Parameters
        ----------
        user : int
            Row number in the ratings matrix.
        n : int
            Length of the list; fewer come back when there are fewer other users.

        Returns
        -------
        users : int array of shape (n,)
            Without `user`; highest similarity first, equal ones by row.
        similarities : float64 array of shape (n,)
            Cosines, from -1 to 1; 0 with a user whose factors are all 0.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the user is unknown or `n` is below 1.
        """
        return _most_similar(self._check_users(user), n, self.user_factors_)

    def _score(self, users, items):
        return _dot_pairs(self.user_factors_, self.item_factors_, users, items)

    def _score_all(self, users):
        return self.user_factors_[users] @ self.item_factors_.T


@dataclass(eq=False)
class ExplicitALS(_FactorModel):
    r"""Factorise ratings by alternating least squares.

    Minimises, over the observed ratings :math:`\Omega`,

    .. math::

        \sum_{(u,i) \in \Omega} (r_{ui} - x_u \cdot y_i)^2
        + \lambda \Bigl( \sum_u w_u \lVert x_u \rVert^2
        + \sum_i w_i \lVert y_i \rVert^2 \Bigr)

    A sweep costs O(n_ratings k² + (n_users + n_items) k³) time; memory is
    O(n_ratings + (n_users + n_items) k). The arithmetic is float64 on one thread, so
    the result does not depend on how many there are.

    Parameters
    ----------
    n_factors : int
        The rank k, at least 1.
    regularization : float
        λ, at least 0. With 0, every user and item needs k ratings or more whose
        factors are independent, or none at all.
    n_iterations : int
        Number of sweeps, at least 1.
    weighted_regularization : bool
        If true, w is the number of ratings of the user or item: ALS-WR [1]_, also
        what Spark does. If false, w is 1.
    biases : bool
        If true, `DampedBiases` with its default damping is fitted first and held
        fixed, and the factors are fitted on what it leaves over.
    random_state : int or numpy.random.Generator
        Seed of the first item factors, normal with variance 1/k.

    Attributes
    ----------
    user_factors_ : float64 array of shape (n_users, k)
        Zero for users without ratings, whose prediction is 0, or the bias.
    item_factors_ : float64 array of shape (n_items, k)
        Likewise.
    mean_, user_biases_, item_biases_ : float, arrays (n_users,) and (n_items,)
        Added to the product of the factors. All 0 without `biases`.
    history_ : float64 array of shape (n_iterations,)
        The objective after each sweep; with `biases`, on what they leave over.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of range.

    References
    ----------
    .. [1] Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan, "Large-scale parallel
       collaborative filtering for the Netflix Prize", AAIM 2008.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> ratings = csr_array([[5, 4, 0], [4, 0, 1], [0, 5, 2]])
    >>> model = ExplicitALS(n_factors=1, regularization=0.01).fit(ratings)
    >>> items, scores = model.recommend(user=1)
    >>> items.tolist()
    [1]
    """

    n_factors: int = 10
    regularization: float = 0.1
    n_iterations: int = 15
    weighted_regularization: bool = True
    biases: bool = False
    random_state: int | np.random.Generator = 0

    def __post_init__(self):
        """Check the parameters."""
        for name in ("n_factors", "n_iterations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.regularization < np.inf:
            raise ValueError(
                f"regularization must be finite and at least 0, "
                f"got {self.regularization}"
            )

    def fit(self, ratings, start=None):
        """Learn the factors from ratings.

        Parameters
        ----------
        ratings : CSR array or matrix of shape (n_users, n_items)
            Stored entries are the ratings, stored zeros included.
        start : pair of arrays (n_users, n_factors) and (n_items, n_factors), optional
            User and item factors to begin with. A sweep solves the users first, so
            only the item factors matter.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `check_ratings` does; if `start` does not fit; if a system is singular,
            which takes a regularisation of 0 or nearly so.
        """
        ratings = check_ratings(ratings)
        self._fit_biases(ratings)
        by_user = self._residuals(ratings, self.user_biases_)
        by_item = by_user.T.tocsr()
        users = np.repeat(np.arange(ratings.shape[0]), np.diff(by_user.indptr))
        user_penalties = self._penalties(by_user)
        item_penalties = self._penalties(by_item)
        item_factors = self._start(ratings.shape, start)
        history = []
        # One thread: the systems are too small to share out.
        with threadpool_limits(limits=1, user_api="blas"):
            for _ in range(self.n_iterations):
                user_factors = _half_step(by_user, item_factors, user_penalties, "user")
                item_factors = _half_step(by_item, user_factors, item_penalties, "item")
                fitted = _dot_pairs(user_factors, item_factors, users, by_user.indices)
                history.append(
                    np.sum((by_user.data - fitted) ** 2)
                    + user_penalties @ np.sum(user_factors**2, axis=1)
                    + item_penalties @ np.sum(item_factors**2, axis=1)
                )
        self.user_factors_, self.item_factors_ = user_factors, item_factors
        self.history_ = np.array(history)
        self._remember(ratings)
        return self

    def fold_in(self, ratings_row):
        """Solve the factors of a user never seen, the item factors held fixed.

        For a user of the training ratings it gives what one more half-step would;
        `user_factors_` are older by half a sweep. With `biases`, the user's bias is
        taken off first, by the formula of `DampedBiases`.

        Parameters
        ----------
        ratings_row : CSR array or matrix of shape (1, n_items)

        Returns
        -------
        float64 array of shape (n_factors,)
            Zero if the row holds no rating. ``item_biases_ + item_factors_ @ factors``
            ranks the items for this user.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError, ValueError
            As `check_ratings` does, or if the row has another shape.
        """
        self._check_fitted()
        row = check_ratings(ratings_row, allow_empty=True)
        if row.shape != (1, self.n_items_):
            raise ValueError(
                f"ratings_row has shape {row.shape}, must be (1, {self.n_items_}): "
                "one user, and the items that the model was fitted on"
            )
        user_biases = self._biases._user_biases(row) if self.biases else np.zeros(1)
        residuals = self._residuals(row, user_biases)
        penalties = self._penalties(residuals)
        return _half_step(residuals, self.item_factors_, penalties, "user")[0]

    def _fit_biases(self, ratings):
        n_users, n_items = ratings.shape
        self.mean_ = 0.0
        self.user_biases_, self.item_biases_ = np.zeros(n_users), np.zeros(n_items)
        if self.biases:
            self._biases = DampedBiases().fit(ratings)
            self.mean_ = self._biases.mean_
            self.user_biases_ = self._biases.user_biases_
            self.item_biases_ = self._biases.item_biases_

    def _residuals(self, ratings, user_biases):
        """Take the biases off; a residual of 0 stays stored."""
        residuals = ratings.copy()
        residuals.data -= self.mean_ + self.item_biases_[ratings.indices]
        residuals.data -= np.repeat(user_biases, np.diff(ratings.indptr))
        return residuals

    def _penalties(self, ratings):
        """λ w of each row."""
        n_ratings = np.diff(ratings.indptr)
        weights = n_ratings if self.weighted_regularization else np.ones(len(n_ratings))
        return self.regularization * weights

    def _start(self, shape, start):
        """Return the first item factors."""
        if start is None:
            rng = np.random.default_rng(self.random_state)
            size = (shape[1], self.n_factors)
            return rng.normal(scale=self.n_factors**-0.5, size=size)
        factors = [np.asarray(part, dtype=np.float64) for part in start]
        wanted = [(size, self.n_factors) for size in shape]
        if [part.shape for part in factors] != wanted:
            raise ValueError(
                f"start has shapes {[part.shape for part in factors]}, must be {wanted}"
            )
        if not np.isfinite(factors[1]).all():
            raise ValueError("start holds nan or infinity")
        return factors[1]

    def _score(self, users, items):
        biases = self.mean_ + self.user_biases_[users] + self.item_biases_[items]
        return biases + super()._score(users, items)

    def _score_all(self, users):
        biases = self.mean_ + self.user_biases_[users, None] + self.item_biases_
        return biases + super()._score_all(users)


def _half_step(ratings, fixed, penalties, kind):
    """Solve the factors of each row of ratings, those of its columns held fixed.

    Row by row, with X the fixed factors of what the row rated and r its ratings,
    solves ``(XᵀX + penalty I) x = Xᵀr``: the normal equations of ridge regression.

    Parameters
    ----------
    ratings : csr_array of shape (n_rows, n_columns), float64
    fixed : float64 array of shape (n_columns, k)
    penalties : float64 array of shape (n_rows,)
    kind : str
        "user" or "item", for the error message.

    Returns
    -------
    float64 array of shape (n_rows, k)
        Zero for rows without ratings.
    """
    k = fixed.shape[1]
    solved = np.zeros((ratings.shape[0], k))
    for row in np.flatnonzero(np.diff(ratings.indptr)):
        rated = slice(ratings.indptr[row], ratings.indptr[row + 1])
        X = fixed[ratings.indices[rated]]
        gram = X.T @ X
        gram.flat[:: k + 1] += penalties[row]
        cholesky, solved[row], failed = dposv(gram, ratings.data[rated] @ X)
        pivots = cholesky.diagonal() ** 2
        # Written so that nan, from numbers too large to square, counts as singular.
        if failed or not pivots.min() > SINGULAR * pivots.max():
            raise ValueError(
                f"the system of {kind} {row} ({len(X)} ratings, {k} factors) is "
                "singular; raise regularization or lower n_factors"
            )
    return solved


def _dot_pairs(user_factors, item_factors, users, items):
    """Dot products of the factors of each pair, a block of pairs at a time."""
    products = np.empty(len(users))
    for start in range(0, len(users), BLOCK_PAIRS):
        block = slice(start, start + BLOCK_PAIRS)
        products[block] = np.einsum(
            "ij,ij->i", user_factors[users[block]], item_factors[items[block]]
        )
    return products


def _most_similar(number, n, factors):
    if number.ndim:
        raise ValueError(f"give one number, got an array of shape {number.shape}")
    lengths = np.linalg.norm(factors, axis=1)
    lengths[lengths == 0] = 1.0
    directions = factors / lengths[:, None]
    cosines = directions @ directions[number]
    cosines[number] = -np.inf
    found, best = top_k(cosines, n)
    return found[found >= 0], best[found >= 0]

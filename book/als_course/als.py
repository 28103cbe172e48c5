"""Alternating least squares on sparse ratings.

**Rows are users and columns are items.** A sweep is two half-steps: solve every user
with the items held fixed, then every item with the users held fixed. Each is an
exact least-squares problem, so the objective never rises.

Two engines solve it: NumPy, here, one row after the other, and Numba, in
``als_course.kernels``, compiled and on all threads.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dposv, sposv
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController

from als_course.baselines import DampedBiases, Recommender, check_ratings
from als_course.metrics import top_k

__all__ = ["ExplicitALS", "ImplicitALS"]

BLOCK_PAIRS = 4096  # factor rows gathered at once by `_dot_pairs`
BLAS = ThreadpoolController()  # once, as finding the libraries takes 4 ms
COMPILED_FROM = 1e7  # from this n_ratings x n_factors x n_iterations "auto" compiles
CHOICES = {"engine": ("auto", "numba", "numpy"), "dtype": ("float64", "float32")}
SOLVERS = {"float64": dposv, "float32": sposv}
# Smallest over largest pivot of a system; below it hardly a digit holds.
SINGULAR = {"float64": 1e-13, "float32": 2e-6}


class _FactorModel(Recommender):
    """What models with user and item factors share; a base class, not a model.

    A subclass defines the normal equations of a row, ``_products(X, values)`` -> XᵀWX
    and Xᵀt, and the objective at the ratings, ``_loss(values, fitted)``. The numbers of
    ``_formula()`` say the same to `kernels.half_step`.
    """

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
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                known = " or ".join(map(repr, choices))
                raise ValueError(f"{name} must be {known}, got {value!r}")

    def fit(self, ratings, start=None):
        """Learn the factors from ratings.

        Parameters
        ----------
        ratings : CSR array or matrix of shape (n_users, n_items)
            Stored entries are the ratings, stored zeros included.
        start : pair of arrays (n_users, n_factors) and (n_items, n_factors), or "svd"
            User and item factors to begin with; normal item factors if left out. A
            sweep solves the users first, so only the item factors matter. With "svd"
            they are singular vectors of the matrix with zeros for holes, by the
            randomised algorithm [1]_, which saves sweeps where holes count as zeros,
            or nearly so: in `ImplicitALS`, and in `ExplicitALS` with `biases`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `check_ratings` does; if `start` does not fit; if a system is singular,
            which takes a regularisation of 0 or nearly so; in `ImplicitALS` also if
            no rating is above 0.
        ImportError
            If `engine` is "numba" and Numba cannot be imported.

        References
        ----------
        .. [1] N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with
           randomness", SIAM Review 53(2), 2011, section 1.6.
        """
        ratings = check_ratings(ratings, dtype=self.dtype)
        kernels = self._load_kernels(ratings)
        self.engine_ = "numba" if kernels else "numpy"
        by_user = self._prepare(ratings)
        by_item = by_user.T.tocsr()
        user_penalties = self._penalties(by_user)
        item_penalties = self._penalties(by_item)
        users, items = self._counts(by_user) > 0, self._counts(by_item) > 0
        history = []
        # One thread: the systems are too small to share out.
        with BLAS.limit(limits=1, user_api="blas"):
            item_factors = self._start(by_user, start)
            for _ in range(self.n_iterations):
                older = item_factors
                user_factors, _ = self._half_step(
                    by_user, older, user_penalties, users, "user", kernels
                )
                item_factors, loss = self._half_step(
                    by_item, user_factors, item_penalties, items, "item", kernels
                )
                history.append(
                    loss
                    + np.sum(self._holes(user_factors) * self._holes(item_factors))
                    + user_penalties @ np.sum(user_factors**2, axis=1)
                    + item_penalties @ np.sum(item_factors**2, axis=1)
                )
        self.user_factors_, self.item_factors_ = user_factors, item_factors
        self._older_item_factors = older  # those that the users were solved with
        self.history_ = np.array(history)
        self._remember(ratings)
        return self

    def fold_in(self, ratings_row):
        """Solve the factors of a user never seen, the item factors held fixed.

        For a user of the training ratings it gives what one more half-step would;
        `user_factors_` are older by half a sweep. `ExplicitALS` with `biases` takes
        the user's bias off first, by the formula of `DampedBiases`.

        Parameters
        ----------
        ratings_row : CSR array or matrix of shape (1, n_items)

        Returns
        -------
        float64 array of shape (n_factors,)
            Zero if the row holds no rating, or no like. ``item_factors_ @ factors``
            scores the items for this user; `ExplicitALS` adds ``item_biases_``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError, ValueError
            As `check_ratings` does, or if the row has another shape.
        """
        self._check_fitted()
        row = check_ratings(ratings_row, allow_empty=True, dtype=self.dtype)
        if row.shape != (1, self.n_items_):
            raise ValueError(
                f"ratings_row has shape {row.shape}, must be (1, {self.n_items_}): "
                "one user, and the items that the model was fitted on"
            )
        penalties = self._penalties(row)
        row, asked = self._prepare_row(row), self._counts(row) > 0
        return self._half_step(row, self.item_factors_, penalties, asked, "user")[0][0]

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
        item = _one(self._check_items(item))
        return _most_similar(item, n, self.item_factors_)

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
        user = _one(self._check_users(user))
        return _most_similar(user, n, self.user_factors_)

    def _load_kernels(self, ratings):
        """Import the compiled kernels if the engine asks for them, else return None."""
        size = ratings.nnz * self.n_factors * self.n_iterations
        small = self.engine == "auto" and size < COMPILED_FROM
        if self.engine == "numpy" or small:
            return None
        try:
            from als_course import kernels  # half a second, so only where needed
        except ImportError as error:
            if self.engine == "auto":
                return None
            raise ImportError(
                "engine='numba' needs Numba, which cannot be imported; install "
                "requirements.txt, or take engine='numpy'"
            ) from error
        return kernels

    def _prepare(self, ratings):
        """Return what the factors are fitted on; a chance to check and to learn."""
        return ratings

    def _prepare_row(self, row):
        """Do the same for the row of a user never seen."""
        return row

    def _counts(self, ratings):
        """Count the ratings of each row that ask for factors."""
        return np.diff(ratings.indptr)

    def _holes(self, factors):
        """Return what all places, rated or not, add to a Gram matrix."""
        return 0.0

    def _penalties(self, ratings):
        """λ w of each row."""
        counts = self._counts(ratings)
        weights = counts if self.weighted_regularization else np.ones(len(counts))
        return self.regularization * weights

    def _filled(self, ratings):
        """Return the matrix whose stored entries the factors should reproduce."""
        return ratings

    def _start(self, ratings, start):
        """Return the first item factors."""
        if start is None or isinstance(start, str):
            rng = np.random.default_rng(self.random_state)
            size = (ratings.shape[1], self.n_factors)
            factors = rng.normal(scale=self.n_factors**-0.5, size=size)
            if start == "svd":
                seed = int(rng.integers(2**32))
                found = _singular_vectors(self._filled(ratings), self.n_factors, seed)
                factors[:, : found.shape[1]] = found
            elif start is not None:
                raise ValueError(f"start must be 'svd' or arrays, got {start!r}")
            return factors.astype(self.dtype, copy=False)
        factors = [np.asarray(part, dtype=self.dtype) for part in start]
        wanted = [(size, self.n_factors) for size in ratings.shape]
        if [part.shape for part in factors] != wanted:
            raise ValueError(
                f"start has shapes {[part.shape for part in factors]}, must be {wanted}"
            )
        if not np.isfinite(factors[1]).all():
            raise ValueError("start holds nan or infinity")
        return factors[1]

    def _half_step(self, ratings, fixed, penalties, asked, kind, kernels=None):
        """Solve the factors of each row of ratings, those of its columns held fixed.

        With X the fixed factors of what a row rated, solves
        ``(XᵀWX + holes + penalty I) x = Xᵀt``: the normal equations of weighted ridge
        regression.

        Parameters
        ----------
        ratings : csr_array of shape (n_rows, n_columns)
        fixed : array of shape (n_columns, k)
        penalties : float64 array of shape (n_rows,)
        asked : bool array of shape (n_rows,)
            Which rows ask for factors.
        kind : str
            "user" or "item", for the error message.
        kernels : module, optional
            What solves; NumPy otherwise.

        Returns
        -------
        solved : array of shape (n_rows, k)
            Zero for rows that do not ask.
        loss : float
            The objective at the ratings; 0 if `kind` is "user", as nobody asks.
        """
        solve = kernels.half_step if kernels else self._solve_rows
        solved, loss, failed = solve(
            ratings,
            fixed,
            self._holes(fixed),
            penalties,
            asked,
            self._formula(),
            SINGULAR[self.dtype],
            loss=kind == "item",
        )
        if failed.any():
            row = np.argmax(failed)
            n_ratings = ratings.indptr[row + 1] - ratings.indptr[row]
            raise ValueError(
                f"the system of {kind} {row} ({n_ratings} ratings, {fixed.shape[1]} "
                "factors) is singular; raise regularization or lower n_factors"
                + ", or take dtype='float64'"
                * (self.dtype == "float32")
            )
        return solved, loss

    def _solve_rows(
        self, ratings, fixed, holes, penalties, asked, formula, singular, loss
    ):
        """Do what `kernels.half_step` does, up to the first singular system."""
        n_rows, k = ratings.shape[0], fixed.shape[1]
        solved, failed = np.zeros((n_rows, k), fixed.dtype), np.zeros(n_rows, bool)
        solver = SOLVERS[self.dtype]
        for row in np.flatnonzero(asked):
            rated = slice(ratings.indptr[row], ratings.indptr[row + 1])
            X = fixed[ratings.indices[rated]]
            gram, target = self._products(X, ratings.data[rated])
            gram += holes
            gram.flat[:: k + 1] += penalties[row]
            cholesky, solved[row], not_positive = solver(gram, target)
            pivots = cholesky.diagonal() ** 2
            # Written so that nan, from numbers too big to square, counts as singular.
            if not_positive or not pivots.min() > singular * pivots.max():
                failed[row] = True
                break
        if not loss:
            return solved, 0.0, failed
        rows = np.repeat(np.arange(n_rows), np.diff(ratings.indptr))
        fitted = _dot_pairs(solved, fixed, rows, ratings.indices)
        return solved, self._loss(ratings.data, fitted), failed

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
    O(n_ratings + (n_users + n_items) k). The result does not depend on the number of
    threads: NumPy runs on one, and Numba solves each user or item on one.

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
    engine : {"auto", "numba", "numpy"}
        What solves. With "auto", Numba does if it is installed and there are
        1e7 ratings times factors times sweeps or more, so that it pays to load it.
        The factors agree to 1e-9 of the largest, in float32 to 1e-5.
    dtype : {"float64", "float32"}
        Type of the ratings and factors while fitting. float32 takes half the memory
        and, with Numba, two thirds of the time.

    Attributes
    ----------
    user_factors_ : array of shape (n_users, k)
        Zero for users without ratings, whose prediction is 0, or the bias.
    item_factors_ : array of shape (n_items, k)
        Likewise.
    mean_, user_biases_, item_biases_ : float, arrays (n_users,) and (n_items,)
        Added to the product of the factors. All 0 without `biases`.
    history_ : float64 array of shape (n_iterations,)
        The objective after each sweep; with `biases`, on what they leave over.
    engine_ : {"numba", "numpy"}
        What solved.

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
    engine: str = "auto"
    dtype: str = "float64"

    def _prepare(self, ratings):
        n_users, n_items = ratings.shape
        self.mean_ = 0.0
        self.user_biases_, self.item_biases_ = np.zeros(n_users), np.zeros(n_items)
        if self.biases:
            self._biases = DampedBiases().fit(ratings)
            self.mean_ = self._biases.mean_
            self.user_biases_ = self._biases.user_biases_
            self.item_biases_ = self._biases.item_biases_
        return self._residuals(ratings, self.user_biases_)

    def _prepare_row(self, row):
        user_biases = self._biases._user_biases(row) if self.biases else np.zeros(1)
        return self._residuals(row, user_biases)

    def _residuals(self, ratings, user_biases):
        """Take the biases off; a residual of 0 stays stored."""
        if not self.biases:
            return ratings
        residuals = ratings.copy()
        residuals.data -= self.mean_ + self.item_biases_[ratings.indices]
        residuals.data -= np.repeat(user_biases, np.diff(ratings.indptr))
        return residuals

    def _formula(self):
        return 0.0, 0.0, 1.0

    def _products(self, X, values):
        return X.T @ X, values @ X

    def _loss(self, values, fitted):
        return np.sum((values - fitted) ** 2)

    def _score(self, users, items):
        biases = self.mean_ + self.user_biases_[users] + self.item_biases_[items]
        return biases + super()._score(users, items)

    def _score_all(self, users):
        biases = self.mean_ + self.user_biases_[users, None] + self.item_biases_
        return biases + super()._score_all(users)


@dataclass(eq=False)
class ImplicitALS(_FactorModel):
    r"""Factorise likes, where what is not stored counts as well, a little.

    A rating r above 0 is a like, preference p = 1; all else, holes included, is
    p = 0. Each place has a confidence c. Minimises, over **all** users and items [1]_,

    .. math::

        \sum_{u,i} c_{ui} (p_{ui} - x_u \cdot y_i)^2
        + \lambda \Bigl( \sum_u w_u \lVert x_u \rVert^2
        + \sum_i w_i \lVert y_i \rVert^2 \Bigr)

    No dense matrix is made: :math:`Y^T C_u Y = Y^T Y + Y_u^T (C_u - I) Y_u`, where
    :math:`Y_u` are the items that user u rated and the first term is the same for all
    users. A sweep costs O(n_ratings k² + (n_users + n_items) k³) time; memory is
    O(n_ratings + (n_users + n_items) k). The result does not depend on the number of
    threads: NumPy runs on one, and Numba solves each user or item on one.

    Parameters
    ----------
    n_factors : int
        The rank k, at least 1.
    regularization : float
        λ, at least 0.
    alpha : float
        α, above 0: how fast confidence grows with r.
    n_iterations : int
        Number of sweeps, at least 1.
    random_state : int or numpy.random.Generator
        Seed of the first item factors, normal with variance 1/k.
    confidence : {"alpha*r", "1+alpha*r"}
        The formula of c at a stored rating; holes have c = 1. The first is that of
        the library implicit, where αr = 1 weighs a like no more than a hole; the
        second that of the paper and of Spark.
    weighted_regularization : bool
        If false, w is 1, as in implicit. If true, w is the number of likes of the user
        or item, as in Spark.
    engine : {"auto", "numba", "numpy"}
        What solves. With "auto", Numba does if it is installed and there are
        1e7 ratings times factors times sweeps or more, so that it pays to load it.
        The factors agree to 1e-9 of the largest, in float32 to 1e-5.
    dtype : {"float64", "float32"}
        Type of the ratings and factors while fitting. float32 takes half the memory
        and, with Numba, two thirds of the time.

    Attributes
    ----------
    user_factors_ : array of shape (n_users, k)
        Zero for users without likes, whose scores are 0.
    item_factors_ : array of shape (n_items, k)
        Likewise.
    history_ : float64 array of shape (n_iterations,)
        The objective after each sweep.
    engine_ : {"numba", "numpy"}
        What solved.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of range.

    Notes
    -----
    The paper has no ratings below 0. As in implicit and Spark, such a rating is a
    dislike: p = 0 with the confidence of its absolute value. A stored zero has p = 0
    and c = 0 or 1 by the formula, so with "alpha*r" it is left out of the sum and with
    "1+alpha*r" it is a hole. Both count as seen in `recommend`.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback
       datasets", ICDM 2008.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> likes = csr_array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])
    >>> model = ImplicitALS(n_factors=2).fit(likes)
    >>> items, scores = model.recommend(user=0)
    >>> items.tolist()
    [2, 3]
    """

    n_factors: int = 50
    regularization: float = 0.01
    alpha: float = 1.0
    n_iterations: int = 15
    random_state: int | np.random.Generator = 0
    confidence: str = "alpha*r"
    weighted_regularization: bool = False
    engine: str = "auto"
    dtype: str = "float64"

    def __post_init__(self):
        """Check the parameters."""
        super().__post_init__()
        if not 0 < self.alpha < np.inf:
            raise ValueError(f"alpha must be finite and above 0, got {self.alpha}")
        if self.confidence not in ("alpha*r", "1+alpha*r"):
            raise ValueError(
                f"confidence must be 'alpha*r' or '1+alpha*r', got {self.confidence!r}"
            )

    def explain(self, user, item, n=10):
        r"""Find which of a user's likes carry the score of an item.

        Section 5 of the paper: the score is a sum over the items j that the user
        likes,

        .. math::

            x_u \cdot y_i = \sum_j y_i^T W_u y_j c_{uj}, \qquad
            W_u = (Y^T C_u Y + \lambda w_u I)^{-1}.

        The y_j and Y are the item factors that the user was solved with, half a sweep
        older than `item_factors_`, so that the contributions of all likes sum to what
        `predict` and `recommend` give.

        Parameters
        ----------
        user, item : int
            Row and column number in the ratings matrix.
        n : int
            Length of the list; fewer come back when the user likes fewer.

        Returns
        -------
        items : int array of shape (n,)
            Liked items, highest contribution first, equal ones by column.
        contributions : float64 array of shape (n,)
            Below 0 where a like speaks against the item.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the user or item is unknown or `n` is below 1.
        """
        user, item = _one(self._check_users(user)), _one(self._check_items(item))
        row = self._ratings[[user]]
        X = self._older_item_factors[row.indices]
        gram, _ = self._products(X, row.data)
        gram += self._holes(self._older_item_factors)
        gram.flat[:: self.n_factors + 1] += self._penalties(row)
        # Not singular, or `fit` had said so, unless there are no likes to be summed.
        _, weighted, _ = SOLVERS[self.dtype](gram, self.item_factors_[item])
        liked = row.data > 0
        contributions = self._confidences(row.data) * (X @ weighted)
        found, best = top_k(contributions[liked], n)
        return row.indices[liked][found], best

    def _prepare(self, ratings):
        if not (ratings.data > 0).any():
            raise ValueError("no rating is above 0, so there is no like to learn from")
        return ratings

    def _filled(self, ratings):
        likes = (ratings.data > 0).astype(ratings.dtype)
        return csr_array((likes, ratings.indices, ratings.indptr), shape=ratings.shape)

    def _counts(self, ratings):
        likes = (ratings.data > 0, ratings.indices, ratings.indptr)
        return csr_array(likes, shape=ratings.shape) @ np.ones(ratings.shape[1], "i4")

    def _confidences(self, values):
        return (self.confidence == "1+alpha*r") + self.alpha * np.abs(values)

    def _holes(self, factors):
        return factors.T @ factors

    def _formula(self):
        return 1.0, self.alpha, self._confidences(0)

    def _products(self, X, values):
        confidences = self._confidences(values)
        # The holes hold each place once already.
        return (X.T * (confidences - 1)) @ X, (confidences * (values > 0)) @ X

    def _loss(self, values, fitted):
        errors = (values > 0) - fitted
        return np.sum(self._confidences(values) * errors**2 - fitted**2)


def _dot_pairs(user_factors, item_factors, users, items):
    """Dot products of the factors of each pair, a block of pairs at a time."""
    products = np.empty(len(users))
    for start in range(0, len(users), BLOCK_PAIRS):
        block = slice(start, start + BLOCK_PAIRS)
        products[block] = np.einsum(
            "ij,ij->i", user_factors[users[block]], item_factors[items[block]]
        )
    return products


def _singular_vectors(matrix, k, seed):
    """Right singular vectors, each times the root of its singular value."""
    k = min(k, *matrix.shape)
    # One power iteration: what it leaves to be found, a sweep finds sooner.
    _, values, vectors = randomized_svd(
        matrix,
        k,
        n_oversamples=8,
        n_iter=1,
        power_iteration_normalizer="QR",
        random_state=seed,
    )
    return vectors.T * np.sqrt(values)


def _one(number):
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

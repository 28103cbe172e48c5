"""Alternating least squares on sparse ratings.

**Rows are users and columns are items.** A sweep is two half-steps: solve every user
with the items held fixed, then every item with the users held fixed. Each is an
exact least-squares problem, so the objective never rises.

Two engines solve the rows of a half-step: NumPy, in ``als_course.half_step``, one after
the other, and Numba, in ``als_course.kernels``, compiled and on all threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import ThreadpoolController

from als_course import half_step
from als_course.baselines import DampedBiases, residuals
from als_course.checks import check_amount, check_count
from als_course.half_step import SINGULAR, SOLVERS, Formula, normal_equation
from als_course.metrics import top_k
from als_course.recommender import FactorRecommender, check_ratings

__all__ = ["ExplicitALS", "ImplicitALS"]

BLAS = ThreadpoolController()  # once, as finding the libraries takes 4 ms
GRADIENT_FROM = 96  # from this n_factors on solver "auto" takes conjugate gradient
COMPILED_FROM = 1e7  # from this n_ratings x n_factors x n_iterations "auto" compiles
LINEAR = "alpha*r", "1+alpha*r"
CONFIDENCES = *LINEAR, "1+alpha*log(1+r/eps)", "r"
CHOICES = {
    "engine": ("auto", "numba", "numpy"),
    "dtype": ("float64", "float32"),
    "solver": ("exact", "cg", "auto"),
}


class _Side(NamedTuple):
    """One side of a sweep: the ratings of the users, or of the items, in rows."""

    ratings: csr_array
    penalties: np.ndarray  # λ w of each row
    counts: np.ndarray  # how many ratings of each row ask for factors


class _AlternatingLeastSquares(FactorRecommender):
    """What both models share; a base class, not a model.

    A subclass has a `formula`.
    """

    def _check_settings(self):
        check_count(self.n_factors, "n_factors")
        check_count(self.n_iterations, "n_iterations")
        check_count(self.cg_steps, "cg_steps")
        check_amount(self.regularization, "regularization")
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
            If a parameter is of the wrong type or out of range; as `check_ratings`
            does; if `start` does not fit; if a system is singular, which takes a
            regularisation of 0 or nearly so; in `ImplicitALS` if there is no like.
        ImportError
            If `engine` is "numba" and Numba cannot be imported.

        References
        ----------
        .. [1] N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with
           randomness", SIAM Review 53(2), 2011, section 1.6.
        """
        self._check_settings()
        ratings = check_ratings(ratings, dtype=self.dtype)
        engine = self._load_engine(ratings)
        by_steps = self.solver_ == "cg"
        by_user, taken_off = self._targets(ratings)
        users, items = self._side(by_user), self._side(by_user.T.tocsr())
        if not users.counts.any():
            raise ValueError("no rating is above 0, so there is no like to learn from")
        history = []
        # One thread: the systems are too small to share out.
        with BLAS.limit(limits=1, user_api="blas"):
            item_factors = self._start(by_user, start)
            user_factors = np.zeros((ratings.shape[0], self.n_factors), self.dtype)
            for _ in range(self.n_iterations):
                older = item_factors
                user_factors, _ = self._solve(
                    users, older, "user", engine, user_factors if by_steps else None
                )
                item_factors, loss = self._solve(
                    items, user_factors, "item", engine, older if by_steps else None
                )
                history.append(
                    loss
                    + self._loss_of_holes(user_factors, item_factors)
                    + users.penalties @ np.sum(user_factors**2, axis=1)
                    + items.penalties @ np.sum(item_factors**2, axis=1)
                )
        self.user_factors_, self.item_factors_ = user_factors, item_factors
        self._older_item_factors = older  # those that the users were solved with
        self.history_ = np.array(history)
        self._remember(ratings, users.counts, items.counts)
        vars(self).update(taken_off)
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
        NotFittedError, TypeError, ValueError
            Before `fit`; as `check_ratings` does; if the row has another shape.
        """
        self._check_fitted()
        row = check_ratings(ratings_row, allow_empty=True, dtype=self.dtype)
        if row.shape != (1, self.n_items_):
            raise ValueError(
                f"ratings_row has shape {row.shape}, must be (1, {self.n_items_}): "
                "one user, and the items that the model was fitted on"
            )
        side = self._side(self._targets_of_new(row))
        return self._solve(side, self.item_factors_, "user", half_step)[0][0]

    def _load_engine(self, ratings):
        """Return the module that solves, and remember engine and solver."""
        self.engine_ = "numpy"
        large = self.n_factors >= GRADIENT_FROM
        self.solver_ = self.solver if self.solver != "auto" else ("exact", "cg")[large]
        size = ratings.nnz * self.n_factors * self.n_iterations
        small = self.engine == "auto" and size < COMPILED_FROM
        if self.engine == "numpy" or small:
            return half_step
        try:
            from als_course import kernels  # half a second, so only where needed
        except ImportError as error:
            if self.engine == "auto":
                return half_step
            raise ImportError(
                "engine='numba' needs Numba, which cannot be imported; install "
                "requirements.txt, or take engine='numpy'"
            ) from error
        self.engine_ = "numba"
        return kernels

    def _targets(self, ratings):
        """Return what the factors are fitted on, and what is added to predictions."""
        return ratings, {}

    def _targets_of_new(self, ratings):
        """Return the same for a user who was not there in training."""
        return ratings

    def _side(self, ratings):
        """Count what asks for factors in each row, and weigh its penalty."""
        asking = self.formula.asks(ratings.data), ratings.indices, ratings.indptr
        ones = np.ones(ratings.shape[1], "i4")
        counts = csr_array(asking, shape=ratings.shape) @ ones
        weights = counts if self.weighted_regularization else np.ones(len(counts))
        return _Side(ratings, self.regularization * weights, counts)

    def _loss_of_holes(self, user_factors, item_factors):
        """Sum hole (x y)² over all places; the loss takes it off at the rated ones."""
        hole, X, Y = self.formula.hole, user_factors, item_factors
        return hole and hole * np.sum((X.T @ X) * (Y.T @ Y))

    def _start(self, ratings, start):
        """Return the first item factors."""
        if start is None or isinstance(start, str):
            rng = np.random.default_rng(self.random_state)
            size = (ratings.shape[1], self.n_factors)
            factors = rng.normal(scale=self.n_factors**-0.5, size=size)
            if start == "svd":
                seed = int(rng.integers(2**32))
                _, p = self.formula(ratings.data)
                parts = p.astype(self.dtype), ratings.indices, ratings.indptr
                preferences = csr_array(parts, shape=ratings.shape)
                found = _singular_vectors(preferences, self.n_factors, seed)
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

    def _solve(self, side, fixed, kind, engine, start=None):
        """Do a half-step, or say which user or item has a singular system.

        It is exact without a start, and else some steps from there. The loss is
        computed with the items only, as nobody asks for the users'.
        """
        asked, loss = side.counts > 0, kind == "item"
        given = side.ratings, fixed, side.penalties, asked, self.formula
        if start is None:
            solved, loss, failed = engine.half_step(*given, SINGULAR[self.dtype], loss)
        else:
            solved, loss, failed = engine.half_step_by_gradient(
                *given, start, self.cg_steps, loss
            )
        if failed.any():
            row = np.argmax(failed)
            n_ratings = side.ratings.indptr[row + 1] - side.ratings.indptr[row]
            raise ValueError(
                f"the system of {kind} {row} ({n_ratings} ratings, {fixed.shape[1]} "
                "factors) is singular; raise regularization or lower n_factors"
                + ", or take dtype='float64'"
                * (self.dtype == "float32")
            )
        return solved, loss


@dataclass(eq=False)
class ExplicitALS(_AlternatingLeastSquares):
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
    solver : {"exact", "cg", "auto"}
        How a half-step is done: every system solved, or `cg_steps` steps of conjugate
        gradient from the factors of the sweep before. They never raise the objective
        either, and a step costs k operations for each rating instead of k². "auto"
        takes them from 96 factors on.
    cg_steps : int
        At least 1; 3 is what the library implicit takes.

    Attributes
    ----------
    user_factors_, item_factors_ : arrays of shape (n_users, k) and (n_items, k)
        Zero where there is no rating.
    mean_ : float
        Mean of the training ratings. With `biases` it is added to every prediction;
        without, it is the prediction where the user or the item has no rating.
    user_biases_, item_biases_ : arrays of shape (n_users,) and (n_items,)
        Added to the product of the factors. All 0 without `biases`.
    history_ : float64 array of shape (n_iterations,)
        The objective after each sweep; with `biases`, on what they leave over.
    engine_, solver_ : {"numba", "numpy"} and {"exact", "cg"}
        What solved, and how.

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
    solver: str = "exact"
    cg_steps: int = 3

    formula = Formula(hole=0.0, alpha=0.0, base=1.0)

    def _targets(self, ratings):
        if self.biases:
            fitted = DampedBiases().fit(ratings)
            names = "mean_", "user_biases_", "item_biases_"
            return fitted.residuals(ratings), {n: getattr(fitted, n) for n in names}
        mean = float(np.mean(ratings.data, dtype=np.float64))
        of_users, of_items = map(np.zeros, ratings.shape)
        none = {"mean_": mean, "user_biases_": of_users, "item_biases_": of_items}
        return ratings, none

    def _targets_of_new(self, ratings):
        if not self.biases:
            return ratings
        return residuals(ratings, self.mean_, self.item_biases_, DampedBiases.damping)

    def _score(self, users, items):
        products = super()._score(users, items)
        if self.biases:
            return products + (
                self.mean_ + self.user_biases_[users] + self.item_biases_[items]
            )
        known = self.known_users_[users] & self.known_items_[items]
        return np.where(known, products, self.mean_)

    def _score_all(self, users):
        scores = super()._score_all(users)
        if self.biases:
            scores += self.mean_ + self.user_biases_[users, None] + self.item_biases_
        else:
            scores[:, ~self.known_items_] = self.mean_
            scores[~self.known_users_[users]] = self.mean_
        return scores


@dataclass(eq=False)
class ImplicitALS(_AlternatingLeastSquares):
    r"""Factorise likes, where what is not stored counts as well, a little.

    A rating r above 0 is a like, preference p = 1; all else, holes included, is
    p = 0. Each place has a confidence c. Minimises, over **all** users and items [1]_,

    .. math::

        \sum_{u,i} c_{ui} (p_{ui} - x_u \cdot y_i)^2
        + \lambda \Bigl( \sum_u w_u \lVert x_u \rVert^2
        + \sum_i w_i \lVert y_i \rVert^2 \Bigr)

    No dense matrix is made: :math:`Y^T C_u Y = Y^T Y + Y_u^T (C_u - I) Y_u`, where
    :math:`Y_u` are the items that user u rated and the first term is the same for all
    users. Time and memory are those of `ExplicitALS`.

    Parameters
    ----------
    n_factors, regularization, n_iterations, random_state, engine, dtype
        As in `ExplicitALS`; a regularisation of 0 asks for less here.
    alpha : float
        α, above 0: how fast confidence grows with r.
    confidence : {"alpha*r", "1+alpha*r", "1+alpha*log(1+r/eps)", "r"} or function
        The formula of c at a stored rating. The first is that of the library implicit,
        where αr = 1 weighs a like no more than a hole; the second that of the paper,
        equation 5, and of Spark; the third that of its equation 6; with "r" a stored
        rating is its confidence, for weights of your own. A function gets the CSR
        array of ratings, or of one user's in `fold_in` and `explain`, and gives a c,
        at least 0, for each stored rating, in their order.
    weighted_regularization : bool
        If false, w is 1, as in implicit. If true, w is the number of likes of the user
        or item, as in Spark.
    eps : float
        ε of the logarithm, above 0: the rating from which confidence grows slower.
    unobserved_weight : float
        Confidence of a hole, above 0; 1 in the paper, in Spark and in implicit.
    solver, cg_steps
        As in `ExplicitALS`.
    nu : float or None
        If given, w is (likes + `unobserved_weight` places) ** nu, where places are the
        items for a user and the users for an item: the penalty of iALS [2]_.

    Attributes
    ----------
    user_factors_, item_factors_, history_, engine_, solver_
        As in `ExplicitALS`. A user without likes has zeros for factors, and the items'
        numbers of likes for scores.

    Notes
    -----
    The paper has no ratings below 0. As in implicit and Spark, such a rating is a
    dislike: p = 0 with the confidence of its absolute value. A stored zero has p = 0
    and c = 0 or 1 by the formula, so with "alpha*r" it is left out of the sum and with
    "1+alpha*r" it is a hole. Both count as seen in `recommend`.

    iALS [2]_ sums (x·y - 1)² over the likes, a₀ (x·y)² over all places and λ times the
    penalty, with w = (likes + a₀ places) ** ν. On likes that are ones, its minimum is
    that of ``alpha=1 + a0, unobserved_weight=a0, regularization=lam * (1 + a0),
    nu=nu``, whose factors are √(1 + a₀) times as long: the order of a list is the same.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative filtering for implicit feedback
       datasets", ICDM 2008.
    .. [2] S. Rendle, W. Krichene, L. Zhang, Y. Koren, "Revisiting the performance of
       iALS on item recommendation benchmarks", RecSys 2022.

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
    confidence: str | Callable = "alpha*r"
    weighted_regularization: bool = False
    engine: str = "auto"
    dtype: str = "float64"
    eps: float = 1.0
    unobserved_weight: float = 1.0
    nu: float | None = None
    solver: str = "exact"
    cg_steps: int = 3

    def _check_settings(self):
        super()._check_settings()
        for name in ("alpha", "eps", "unobserved_weight"):
            check_amount(getattr(self, name), name, positive=True)
        if self.nu is not None:
            check_amount(self.nu, "nu")
            if self.weighted_regularization:
                raise ValueError("nu is another weight than weighted_regularization's")
        if self.confidence not in CONFIDENCES and not callable(self.confidence):
            known = " or ".join(map(repr, CONFIDENCES))
            raise ValueError(
                f"confidence must be a function or {known}, got {self.confidence!r}"
            )

    @property
    def formula(self):
        """What the model asks of a place; see `_targets` for what is not linear."""
        linear = self.confidence in LINEAR
        alpha = float(self.alpha) if linear else 1.0
        base = float(self.confidence == "1+alpha*r")
        return Formula(float(self.unobserved_weight), alpha, base)

    def _targets(self, ratings):
        return self._targets_of_new(ratings), {}

    def _targets_of_new(self, ratings):
        """Write confidences for ratings, c of a like and -c of all else."""
        if self.confidence in LINEAR:
            return ratings
        r = ratings.data
        if self.confidence == "r":
            c = np.abs(r)
        elif callable(self.confidence):
            c = np.asarray(self.confidence(ratings.copy()))
            if c.shape != r.shape or not (np.isfinite(c) & (c >= 0)).all():
                raise ValueError(
                    f"confidence must give {len(r)} numbers of at least 0, one for "
                    f"each stored rating, got shape {c.shape}"
                    + f" and a least one of {c.min()}"
                    * (c.shape == r.shape)
                )
        else:
            c = 1 + self.alpha * np.log1p(np.abs(r) / self.eps)
        signed = np.where(r > 0, c, -c).astype(self.dtype)
        return csr_array((signed, ratings.indices, ratings.indptr), ratings.shape)

    def _side(self, ratings):
        side = super()._side(ratings)
        if self.nu is None:
            return side
        weights = side.counts + self.unobserved_weight * ratings.shape[1]
        return side._replace(penalties=self.regularization * weights**self.nu)

    def explain(self, user, item, n=10):
        r"""Find which of a user's likes carry the score of an item.

        Section 5 of the paper: the score is a sum over the items j that the user
        likes,

        .. math::

            x_u \cdot y_i = \sum_j y_i^T W_u y_j c_{uj}, \qquad
            W_u = (Y^T C_u Y + \lambda w_u I)^{-1}.

        The y_j and Y are the item factors that the user was solved with, half a sweep
        older than `item_factors_`, so that the contributions of all likes sum to what
        `predict` and `recommend` give; with the solver "cg", nearly so.

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
        NotFittedError, ValueError
            Before `fit`; if the user or item is unknown or `n` is below 1, or the
            model was saved without its ratings.
        """
        user = self._check_user(user)
        item = self._check_item(item)
        row = self._targets_of_new(self._rated([user]))
        Y, formula = self._older_item_factors, self.formula
        F, (c, p) = Y[row.indices], formula(row.data)
        holes, penalty = formula.hole * (Y.T @ Y), self._side(row).penalties[0]
        gram, _ = normal_equation(F, row.data, formula, holes, penalty)
        # Not singular, or `fit` had said so, unless there are no likes to be summed.
        _, weighted, _ = SOLVERS[self.dtype](gram, self.item_factors_[item])
        found, best = top_k((c * p * (F @ weighted))[p], n)
        return row.indices[p][found], best

    def _score(self, users, items):
        scores = super()._score(users, items)
        return np.where(self.known_users_[users], scores, self.popularity_[items])


def _singular_vectors(matrix, k, seed):
    """Right singular vectors, each times the root of its singular value."""
    k = min(k, *matrix.shape)
    # n_iter=1: a second power iteration costs more than the sweep that it saves.
    how = {"n_oversamples": 8, "n_iter": 1, "power_iteration_normalizer": "QR"}
    _, values, vectors = randomized_svd(matrix, k, random_state=seed, **how)
    return vectors.T * np.sqrt(values)

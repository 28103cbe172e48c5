"""A half-step: every user solved with the items held fixed, or every item.

What a model asks of a rating is a `Formula`, three numbers; with it `normal_equation`
is the system of one user or item, in both models and for every engine.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv, sposv

__all__ = [
    "SINGULAR",
    "SOLVERS",
    "Formula",
    "half_step",
    "half_step_by_gradient",
    "normal_equation",
]

SOLVERS = {"float64": dposv, "float32": sposv}
# Smallest over largest pivot of a system; below it hardly a digit holds.
SINGULAR = {"float64": 1e-13, "float32": 2e-6}


class Formula(NamedTuple):
    """What a model asks of a place: a confidence c and a preference p.

    Called with ratings r it gives c = base + alpha abs(r), and p. Places without one
    have c = hole and p = 0. If hole is 0, the explicit model, they ask for nothing, and
    p = r; otherwise, in the implicit model, p is whether r is above 0, a like.

    A confidence that grows in another way needs no other formula: give the ratings
    +c for a like and -c for all else, with alpha = 1 and base = 0.
    """

    hole: float
    alpha: float
    base: float

    def __call__(self, r):
        """Confidences and preferences of ratings."""
        return self.base + self.alpha * np.abs(r), (r > 0 if self.hole else r)

    def asks(self, r):
        """Whether each rating asks for factors; one that only denies needs none."""
        return r > 0 if self.hole else np.ones(len(r), bool)


def normal_equation(F, r, formula, holes, penalty):
    """Make the linear system for the factors x of one user or item.

    Weighted ridge regression of the preferences on the other side's factors f,

        (hole Σ f fᵀ + Σ (c - hole) f fᵀ + penalty I) x = Σ c p f,

    where the first sum runs over all places and the others over the rated ones.

    Parameters
    ----------
    F, r : arrays of shape (n_rated, k) and (n_rated,)
        The factors f of what was rated, and the ratings.
    formula : Formula
    holes : array of shape (k, k), or 0
        The first sum, ``formula.hole`` included: the same for every row.
    penalty : float

    Returns
    -------
    gram, target : arrays of shape (k, k) and (k,)
    """
    c, p = formula(r)
    gram = holes + (F.T * (c - formula.hole)) @ F
    gram.flat[:: len(gram) + 1] += penalty
    return gram, (c * p) @ F


def half_step(ratings, fixed, penalties, asked, formula, singular, loss=True):
    """Solve the factors of each row of ratings, those of its columns held fixed.

    `als_course.kernels.half_step` does the same, compiled, and says what all this is.
    This one stops at the first singular system.
    """
    n_rows, k = ratings.shape[0], fixed.shape[1]
    solved, failed = np.zeros((n_rows, k), fixed.dtype), np.zeros(n_rows, bool)
    solver, total = SOLVERS[fixed.dtype.name], 0.0
    holes = formula.hole and formula.hole * (fixed.T @ fixed)
    for row in np.flatnonzero(asked):
        rated = slice(ratings.indptr[row], ratings.indptr[row + 1])
        F, r = fixed[ratings.indices[rated]], ratings.data[rated]
        system = normal_equation(F, r, formula, holes, penalties[row])
        cholesky, solved[row], not_positive = solver(*system)
        pivots = cholesky.diagonal() ** 2
        # Written so that nan, from numbers too big to square, counts as singular.
        if not_positive or not pivots.min() > singular * pivots.max():
            failed[row] = True
            break
        if loss:
            total += _loss(F @ solved[row], r, formula)
    return solved, total, failed


def half_step_by_gradient(
    ratings, fixed, penalties, asked, formula, start, steps, loss=True
):
    """Approach the factors of each row by a few steps of conjugate gradient.

    The system of a row is not built: a product with it takes the k x k matrix of all
    holes and the factors of what was rated, 2 k (k + 2 n_rated) operations instead of
    the k² n_rated of `normal_equation` [1]_. No step raises the row's objective.

    Parameters
    ----------
    ratings, fixed, penalties, asked, formula, loss
        As for `half_step`.
    start : array of shape (n_rows, k)
        Where the steps begin: the factors of the sweep before.
    steps : int
        With k or more it solves the system, but for rounding.

    Returns
    -------
    solved, loss, failed
        As `half_step` does; no system fails.

    References
    ----------
    .. [1] G. Takács, I. Pilászy, D. Tikk, "Applications of the conjugate gradient
       method for implicit feedback collaborative filtering", RecSys 2011.
    """
    solved, total = np.zeros_like(start), 0.0
    holes = formula.hole * (fixed.T @ fixed)
    for row in np.flatnonzero(asked):
        rated = slice(ratings.indptr[row], ratings.indptr[row + 1])
        F, r = fixed[ratings.indices[rated]], ratings.data[rated]
        c, p = formula(r)
        extra = (c - formula.hole).astype(fixed.dtype)

        def times(x, F=F, extra=extra, penalty=penalties[row]):
            return holes @ x + (extra * (F @ x)) @ F + fixed.dtype.type(penalty) * x

        x = start[row].copy()
        residual = (c * p).astype(fixed.dtype) @ F - times(x)
        direction, size = residual, residual @ residual
        enough = np.finfo(fixed.dtype).eps ** 2 * size
        for _ in range(steps):
            if size <= enough:  # as near as rounding lets it come
                break
            along = times(direction)
            slope = direction @ along
            if not slope > 0:  # a direction that costs nothing
                break
            x = x + size / slope * direction
            residual = residual - size / slope * along
            size, older = residual @ residual, size
            direction = residual + size / older * direction
        solved[row] = x
        if loss:
            total += _loss(F @ x, r, formula)
    return solved, total, np.zeros(len(asked), bool)


def _loss(fitted, r, formula):
    """Sum what ratings add to the objective beyond what holes in their place would."""
    fitted, (c, p) = fitted.astype(np.float64), formula(r)
    return np.sum(c * (p - fitted) ** 2 - formula.hole * fitted**2)

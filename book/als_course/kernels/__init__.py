"""The half-step of ALS, compiled with Numba: a plain version and a tiled one.

Both do what `half_step.half_step` does in NumPy. `plain` is the one to read, and the
reference; `tiled` is the one to run, several times faster, and may be missing.
`gradient` does what `half_step.half_step_by_gradient` does.
"""

import numpy as np

from als_course.kernels import gradient, plain

try:
    from als_course.kernels import tiled
except (ImportError, AttributeError):  # deleted, or Numba's internals have moved
    tiled = None

__all__ = ["half_step", "half_step_by_gradient"]


def half_step(
    ratings, fixed, penalties, asked, formula, singular, loss=True, version=None
):
    """Solve the factors of each row of ratings, those of its columns held fixed.

    It runs on `numba.config.NUMBA_NUM_THREADS` threads, which the environment
    variable of that name sets. In its loops it allocates nothing.

    Parameters
    ----------
    ratings : csr_array of shape (n_rows, n_columns)
        Of the type of `fixed`.
    fixed : float32 or float64 array of shape (n_columns, k)
    penalties : array of shape (n_rows,)
        What is added to the diagonal.
    asked : bool array of shape (n_rows,)
        Which rows to solve.
    formula : half_step.Formula
    singular : float
        Smallest over largest pivot, below which a system counts as singular.
    loss : bool
        Compute the loss; otherwise 0 comes back.
    version : module, optional
        `plain` or `tiled`; the tiled one, if there is one, unless told otherwise.

    Returns
    -------
    solved : array of shape (n_rows, k)
        Of the type of `fixed`. Zero for rows not asked for, undefined for failed ones.
    loss : float
        Σ c (p - f)² - hole f² over the ratings of the rows that were solved, f the
        dot product of both factors.
    failed : bool array of shape (n_rows,)
        Which systems are singular.
    """
    dtype = fixed.dtype
    solved = np.zeros((len(asked), fixed.shape[1]), dtype)
    losses, failed = np.zeros(len(asked)), np.zeros(len(asked), bool)
    hole, fixed = dtype.type(formula[0]), np.ascontiguousarray(fixed)
    (version or tiled or plain).solve_rows(
        (ratings.indptr, ratings.indices, ratings.data),
        fixed,
        hole * (fixed.T @ fixed) if hole else np.zeros((fixed.shape[1],) * 2, dtype),
        np.asarray(penalties, dtype),
        asked,
        tuple(dtype.type(number) for number in formula),
        dtype.type(singular),
        (solved, losses[: len(asked) * loss], failed),
    )
    return solved, losses.sum(), failed


def half_step_by_gradient(
    ratings, fixed, penalties, asked, formula, start, steps, loss=True
):
    """Approach the factors of each row by a few steps of conjugate gradient.

    `als_course.half_step.half_step_by_gradient` says what all this is.
    """
    dtype = fixed.dtype
    solved, losses = np.array(start, dtype, order="C"), np.zeros(len(asked))
    hole, fixed = dtype.type(formula[0]), np.ascontiguousarray(fixed)
    gradient.approach_rows(
        (ratings.indptr, ratings.indices, ratings.data),
        fixed,
        hole * (fixed.T @ fixed),
        np.asarray(penalties, dtype),
        asked,
        tuple(dtype.type(number) for number in formula),
        steps,
        (solved, losses[: len(asked) * loss]),
    )
    return solved, losses.sum(), np.zeros(len(asked), bool)

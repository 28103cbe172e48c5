"""A few steps of conjugate gradient for each row of a half-step, compiled with Numba.

It does what `half_step.half_step_by_gradient` does in NumPy. Rows are taken a few at a
time: their factors are gathered once, and all steps are made from there, while the
product with the matrix of all holes is one of two matrices, by BLAS. Which rows go
together depends on their numbers only, so that threads change no bit of the result.
"""

import numpy as np
from numba import prange

from als_course.kernels.plain import compiled, confidence_and_preference

__all__ = ["approach_rows"]

TOGETHER = 8  # rows


@compiled(parallel=True, fastmath={"reassoc", "contract", "nsz"})
def approach_rows(ratings, fixed, holes, penalties, asked, formula, steps, results):
    """Move the rows asked for, which hold their start, by some steps."""
    (indptr, indices, data), (solved, losses) = ratings, results
    k, hole, zero = fixed.shape[1], formula[0], fixed[0, 0] * 0
    for block in prange((len(asked) + TOGETHER - 1) // TOGETHER):
        first = block * TOGETHER
        n_rows = min(TOGETHER, len(asked) - first)
        begin, end = indptr[first], indptr[first + n_rows]
        gathered = np.empty((end - begin, k), fixed.dtype)
        extra = np.empty(end - begin, fixed.dtype)
        X = solved[first : first + n_rows]
        residual, along = np.zeros_like(X), np.zeros_like(X)
        if hole > 0:
            np.dot(X, holes, along)
        for row in range(n_rows):
            for t in range(indptr[first + row], indptr[first + row + 1]):
                c, p = confidence_and_preference(data[t], formula)
                factors, at = fixed[indices[t]], gathered[t - begin]
                fitted = zero
                for i in range(k):
                    at[i] = factors[i]
                    fitted += factors[i] * X[row, i]
                extra[t - begin] = c - hole
                left = c * p - (c - hole) * fitted
                for i in range(k):
                    residual[row, i] += left * at[i]
            for i in range(k):
                residual[row, i] -= along[row, i] + penalties[first + row] * X[row, i]
        direction, sizes = residual.copy(), np.zeros(n_rows, fixed.dtype)
        for row in range(n_rows):
            for i in range(k):
                sizes[row] += residual[row, i] ** 2
        enough = sizes * np.finfo(fixed.dtype).eps ** 2
        for _ in range(steps):
            if hole > 0:
                np.dot(direction, holes, along)
            else:
                along[:] = 0
            for row in range(n_rows):
                if sizes[row] <= enough[row]:  # as near as rounding lets it come
                    continue
                for t in range(indptr[first + row], indptr[first + row + 1]):
                    at = gathered[t - begin]
                    fitted = zero
                    for i in range(k):
                        fitted += at[i] * direction[row, i]
                    fitted *= extra[t - begin]
                    for i in range(k):
                        along[row, i] += fitted * at[i]
                slope = zero
                for i in range(k):
                    along[row, i] += penalties[first + row] * direction[row, i]
                    slope += direction[row, i] * along[row, i]
                if not slope > 0:  # a direction that costs nothing
                    continue
                length, size = sizes[row] / slope, zero
                for i in range(k):
                    X[row, i] += length * direction[row, i]
                    residual[row, i] -= length * along[row, i]
                    size += residual[row, i] ** 2
                for i in range(k):
                    direction[row, i] = (
                        residual[row, i] + size / sizes[row] * direction[row, i]
                    )
                sizes[row] = size
        for row in range(n_rows):
            if not asked[first + row]:
                X[row] = 0
            elif len(losses):
                for t in range(indptr[first + row], indptr[first + row + 1]):
                    c, p = confidence_and_preference(data[t], formula)
                    fitted = 0.0
                    for i in range(k):
                        fitted += gathered[t - begin, i] * X[row, i]
                    losses[first + row] += c * (p - fitted) ** 2 - hole * fitted**2

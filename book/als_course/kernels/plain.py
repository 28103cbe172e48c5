"""The half-step of ALS, compiled with Numba: the version to read, and the reference.

For each row of ratings, with x_t the fixed factors of what its rating t is about, c_t
its confidence and p_t its preference, it builds and solves `half_step.normal_equation`,

    (holes + Σ_t (c_t - hole) x_t x_tᵀ + penalty I) x = Σ_t c_t p_t x_t.

Threads take rows as they become free, and one thread solves a row from start to end,
so that the number of threads changes no bit of the result.
"""

import numpy as np
from numba import njit, prange

__all__ = ["compiled", "confidence_and_preference", "solve_rows"]


def compiled(**options):
    """Compile with Numba, and keep the machine code on disk.

    Numba keeps it beside this file or, where it may not write there, in the user's
    cache folder. With neither it raises RuntimeError; then every process compiles.
    """

    def decorate(function):
        try:
            return njit(function, cache=True, error_model="numpy", **options)
        except RuntimeError:
            return njit(function, error_model="numpy", **options)

    return decorate


@njit
def confidence_and_preference(rating, formula):
    """Do what `half_step.Formula` does when called, for one rating of any float."""
    hole, alpha, base = formula
    p = rating
    if hole > 0:
        p = np.sign(rating) if rating > 0 else rating - rating  # 1 or 0 of this type
    return base + alpha * abs(rating), p


@compiled(parallel=True)
def solve_rows(ratings, fixed, holes, penalties, asked, formula, singular, results):
    """Solve the rows asked for; the arguments are those of `half_step`, typed."""
    (indptr, indices, data), (solved, losses, failed) = ratings, results
    k, hole = fixed.shape[1], formula[0]
    for row in prange(len(asked)):
        if not asked[row]:
            continue
        rated = range(indptr[row], indptr[row + 1])
        gram, x = holes.copy(), solved[row]
        for t in rated:
            c, p = confidence_and_preference(data[t], formula)
            factors = fixed[indices[t]]
            for i in range(k):
                x[i] += c * p * factors[i]
                for j in range(i + 1):
                    gram[i, j] += (c - hole) * factors[i] * factors[j]
        # Cholesky: gram = L Lᵀ, with L written over the lower triangle.
        smallest, largest = np.inf, 0.0
        for i in range(k):
            gram[i, i] += penalties[row]
            for j in range(i + 1):
                for m in range(j):
                    gram[i, j] -= gram[i, m] * gram[j, m]
                if j < i:
                    gram[i, j] /= gram[j, j]
            smallest, largest = min(smallest, gram[i, i]), max(largest, gram[i, i])
            failed[row] |= not gram[i, i] > 0 or not smallest > singular * largest
            gram[i, i] = np.sqrt(gram[i, i])
        # Solve L y = b, then Lᵀ x = y, in place.
        for i in range(k):
            for j in range(i):
                x[i] -= gram[i, j] * x[j]
            x[i] /= gram[i, i]
        for i in range(k - 1, -1, -1):
            for j in range(i + 1, k):
                x[i] -= gram[j, i] * x[j]
            x[i] /= gram[i, i]
        if len(losses):
            for t in rated:
                c, p = confidence_and_preference(data[t], formula)
                fitted = 0.0
                for i in range(k):
                    fitted += fixed[indices[t], i] * x[i]
                losses[row] += c * (p - fitted) ** 2 - hole * fitted**2

"""The half-step of ALS, compiled with Numba: a plain version and a tiled one.

Both do what the NumPy engine of ``als_course.als`` does. For each row of ratings, with
x_t the fixed factors of what its rating t is about, c_t its confidence and p_t its
preference, they build and solve the normal equations

    (holes + Σ_t (c_t - hole) x_t x_tᵀ + penalty I) x = Σ_t c_t p_t x_t.

In the explicit model c is 1, p is the rating, and ``hole``, the confidence of a place
without a rating, is 0. In the implicit model p is 1 for a like and ``hole`` is 1.

The plain version is the one to read, and the reference; the tiled one is the one to
use. Threads take rows as they become free, and one thread solves a row from start to
end, so that the number of threads changes no bit of the result.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llvmlite import ir
from numba import config, njit, prange, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

__all__ = ["half_step", "registers"]


def half_step(
    ratings, fixed, holes, penalties, asked, formula, singular, loss=True, tiled=True
):
    """Solve the factors of each row of ratings, those of its columns held fixed.

    It runs on `numba.config.NUMBA_NUM_THREADS` threads, which the environment
    variable of that name sets. In its loops it allocates nothing.

    Parameters
    ----------
    ratings : csr_array of shape (n_rows, n_columns)
        Of the type of `fixed`.
    fixed : float32 or float64 array of shape (n_columns, k)
    holes : array of shape (k, k)
        What all places, rated or not, add to a Gram matrix.
    penalties : array of shape (n_rows,)
        What is added to the diagonal.
    asked : bool array of shape (n_rows,)
        Which rows to solve.
    formula : three numbers: hole, alpha, base
        A rating r has confidence base + alpha abs(r), a hole has confidence `hole`. If
        that is 0, r is what is to be fitted, else it is 1 where r is above 0 and 0
        elsewhere.
    singular : float
        Smallest over largest pivot, below which a system counts as singular.
    loss : bool
        Compute the loss; otherwise 0 comes back.
    tiled : bool
        Use the tiled version, or the plain one.

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
    run = _run_tiled if tiled else _plain
    run(
        (ratings.indptr, ratings.indices, ratings.data),
        np.ascontiguousarray(fixed),
        np.zeros((fixed.shape[1],) * 2, dtype) + np.asarray(holes, dtype),
        np.asarray(penalties, dtype),
        asked,
        tuple(dtype.type(number) for number in formula),
        dtype.type(singular),
        (solved, losses[: len(asked) * loss], failed),
    )
    return solved, losses.sum(), failed


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
def _place(rating, formula):
    """Return confidence and preference of a place with this rating."""
    hole, alpha, base = formula
    preference = rating
    if hole > 0:
        preference = hole if rating > 0 else hole - hole
    return base + alpha * abs(rating), preference


# -- the plain version --------------------------------------------------------------
@compiled(parallel=True)
def _plain(ratings, fixed, holes, penalties, asked, formula, singular, results):
    (indptr, indices, data), (solved, losses, failed) = ratings, results
    k, hole = fixed.shape[1], formula[0]
    for row in prange(len(asked)):
        if not asked[row]:
            continue
        rated = range(indptr[row], indptr[row + 1])
        gram, x = holes.copy(), solved[row]
        for t in rated:
            c, p = _place(data[t], formula)
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
                c, p = _place(data[t], formula)
                fitted = 0.0
                for i in range(k):
                    fitted += fixed[indices[t], i] * x[i]
                losses[row] += c * (p - fitted) ** 2 - hole * fitted**2


# -- the tiled version --------------------------------------------------------------
CHUNK = 4096  # numbers gathered at once: 16 or 32 kB, which the first cache holds
SHARE = 8  # rows that a thread takes at a time


def registers():
    """Return number and bytes of the vector registers of the processor compiled for.

    It is this machine's, or the one that the environment variables NUMBA_CPU_NAME and
    NUMBA_CPU_FEATURES describe. Numba keeps the machine code of each apart.
    """
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    features = features.split(",")
    if "+avx512f" in features:
        return 32, 64
    if "+avx" in features:
        return 16, 32
    return (32 if triple.startswith(("aarch64", "arm64")) else 16), 16


N_REGISTERS, VECTOR_BYTES = registers()
# A tile is 8 x 3 or 4 x 3 vectors; the other registers hold what it is made from.
TILE = 8 if N_REGISTERS == 32 else 4


def _tile(kind, n_rows, n_vectors):
    """Make the innermost loop, a matrix product whose sums stay in registers.

    With S = left[start:stop, i:].T @ right[start:stop, column:], it adds S to
    ``out[row:, column:]``, subtracts it, or stores it there, as `kind` says. Of `out`
    it changes `n_rows` rows and as many columns as `n_vectors` vectors hold. Numba
    would not tile the loop by itself, so its LLVM instructions are written here.
    """
    cells = [(r, v) for r in range(n_rows) for v in range(n_vectors)]

    @intrinsic
    def tile(typing, out, row, column, left, i, right, start, stop):
        def generate(context, builder, signature, args):
            _, row, column, _, i, _, start, stop = args
            number = context.get_value_type(signature.args[0].dtype)
            size = context.get_abi_sizeof(number)
            lanes = VECTOR_BYTES // size
            vector, lane = ir.VectorType(number, lanes), ir.IntType(32)
            # a * b + c, in one instruction where the processor has it
            multiply_add = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fmuladd.v{lanes}f{8 * size}",
            )

            def address(argument, *cell):
                kind, array = signature.args[argument], args[argument]
                array = context.make_array(kind)(context, builder, array)
                place = cgutils.get_item_pointer(context, builder, kind, array, cell)
                return builder.bitcast(place, vector.as_pointer())

            def spread(place):
                """Return a vector with the number at this place in each lane."""
                value = builder.load(builder.bitcast(place, number.as_pointer()))
                one = builder.insert_element(vector(ir.Undefined), value, lane(0))
                zeros = ir.VectorType(lane, lanes)(None)
                return builder.shuffle_vector(one, one, zeros)

            # LLVM gives each of these variables a register.
            sums = {cell: cgutils.alloca_once(builder, vector) for cell in cells}
            for total in sums.values():
                builder.store(vector(None), total)
            columns = [
                builder.add(column, column.type(v * lanes)) for v in range(n_vectors)
            ]
            with cgutils.for_range_slice(builder, start, stop, start.type(1)) as (t, _):
                wide = [builder.load(address(5, t, c), align=size) for c in columns]
                for r in range(n_rows):
                    factor = spread(address(3, t, builder.add(i, i.type(r))))
                    for v in range(n_vectors):
                        product = [factor, wide[v], builder.load(sums[r, v])]
                        builder.store(builder.call(multiply_add, product), sums[r, v])
            for (r, v), total in sums.items():
                place = address(0, builder.add(row, row.type(r)), columns[v])
                new = builder.load(total)
                if kind != "store":
                    combine = builder.fadd if kind == "add" else builder.fsub
                    new = combine(builder.load(place, align=size), new)
                builder.store(new, place, align=size)
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, n, n, left, n, right, n, n), generate

    return tile


@njit(fastmath={"reassoc", "contract"})
def _dot(a, b):
    """Dot product, summed in any order, so that LLVM can use vectors."""
    total = a.dtype.type(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@intrinsic
def _take(typing, queue, n):
    """Add n to queue[0], whatever other threads do, and return what it was."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.atomic_rmw("add", array.data, args[1], "monotonic")

    return types.intp(queue, types.intp), generate


def _strip(kind, n_rows):
    """Make a function that does what `_tile` does, from `column` to the width.

    It begins with the vector that holds `column`.
    """
    one, two, three = (_tile(kind, n_rows, n) for n in (1, 2, 3))

    @njit
    def strip(out, row, column, width, left, i, right, start, stop):
        lanes = VECTOR_BYTES // out.itemsize
        column = column // lanes * lanes
        while width - column >= 3 * lanes:
            three(out, row, column, left, i, right, start, stop)
            column += 3 * lanes
        if width - column == 2 * lanes:
            two(out, row, column, left, i, right, start, stop)
        elif width - column == lanes:
            one(out, row, column, left, i, right, start, stop)

    return strip


_add_row, _add_rows = _strip("add", 1), _strip("add", TILE)
_subtract_rows, _store_rows = _strip("subtract", TILE), _strip("store", TILE)


@compiled(nogil=True)
def _tiled(
    queue, ratings, fixed, holes, penalties, asked, formula, singular, space, results
):
    """Solve rows until none is left in the queue."""
    (indptr, indices, data), (solved, losses, failed) = ratings, results
    left, right, gram, inverses, x = space
    k, width, hole = solved.shape[1], fixed.shape[1], formula[0]
    while True:
        first = _take(queue, SHARE)
        if first >= len(asked):
            return
        for row in range(first, min(first + SHARE, len(asked))):
            if not asked[row]:
                continue
            gram[:, :] = holes
            for i in range(width):
                gram[i, i] += penalties[row] if i < k else 1
            # Gather some ratings; add their products while the first cache holds them.
            for start in range(indptr[row], indptr[row + 1], len(left)):
                n = min(len(left), indptr[row + 1] - start)
                for t in range(n):
                    c, p = _place(data[start + t], formula)
                    item = indices[start + t]
                    for j in range(width):
                        right[t, j] = fixed[item, j]
                    if hole > 0:
                        for j in range(width):
                            left[t, j] = (c - hole) * fixed[item, j]
                    left[t, width] = c * p
                for i in range(0, k, TILE):
                    _add_rows(gram, i, i, width, left, i, right, 0, n)
                _add_row(gram, width, 0, width, left, width, right, 0, n)
            for i in range(width):
                gram[i, width] = gram[width, i]
            if not _factor(gram, inverses, k, width, singular):
                failed[row] = True
                continue
            _substitute(gram, inverses, x, width)
            for i in range(k):
                solved[row, i] = x[0, i]
            if len(losses):
                for t in range(indptr[row], indptr[row + 1]):
                    c, p = _place(data[t], formula)
                    fitted = np.float64(_dot(fixed[indices[t]], x[0]))
                    losses[row] += c * (p - fitted) ** 2 - hole * fitted**2


@njit(error_model="numpy")
def _factor(gram, inverses, k, width, singular):
    """Turn gram into U, with gram = Uᵀ U, and its column b at `width` into U⁻ᵀ b.

    A block of TILE rows at a time: take off what the rows above explain, then
    multiply with the inverse, transposed, of the factor of the block at the diagonal.
    """
    smallest, largest = np.inf, 0.0
    end = gram.shape[1]
    for top in range(0, width, TILE):
        _subtract_rows(gram, top, top, end, gram, top, gram, 0, top)
        block = inverses[top : top + TILE]
        for i in range(TILE):
            for j in range(i, TILE):
                total = gram[top + i, top + j]
                for m in range(i):
                    total -= block[m, TILE + i] * block[m, TILE + j]
                if j == i:
                    if top + i < k:
                        smallest, largest = min(smallest, total), max(largest, total)
                        if not total > 0 or not smallest > singular * largest:
                            return False
                    scale = 1 / np.sqrt(total)
                block[i, TILE + j] = total * scale
            block[i, i] = scale
            for j in range(i):
                total = block[j, j] * block[j, TILE + i]
                for m in range(j + 1, i):
                    total += block[j, m] * block[m, TILE + i]
                block[j, i] = -total * scale
        _store_rows(gram, top, top, end, inverses, 0, gram, top, top + TILE)
    return True


@njit(error_model="numpy")
def _substitute(gram, inverses, x, width):
    """Solve U x = y, where y is the column of U at `width`, from the last block up."""
    lanes = VECTOR_BYTES // gram.itemsize
    x[0, :] = 0
    for top in range(width - TILE, -1, -TILE):
        start = (top + TILE) // lanes * lanes
        for i in range(top, top + TILE):
            gram[i, width] -= _dot(gram[i, start:width], x[0, start:])
        for i in range(TILE):
            total = x[0, top + i]
            for j in range(i, TILE):
                total += inverses[top + i, j] * gram[top + j, width]
            x[0, top + i] = total


def _run_tiled(ratings, fixed, holes, penalties, asked, *rest):
    """Pad rows to whole vectors, give each thread its space, and run."""
    dtype, k = fixed.dtype, fixed.shape[1]
    lanes = VECTOR_BYTES // dtype.itemsize
    width = -(-k // max(lanes, TILE)) * max(lanes, TILE)
    if width > k:
        fixed = np.pad(fixed, [(0, 0), (0, width - k)])
    holes = np.pad(holes, [(0, width + 1 - k), (0, width + lanes - k)])
    queue = np.zeros(1, np.intp)
    n_threads = min(config.NUMBA_NUM_THREADS, -(-len(asked) // SHARE))

    def empty(n_rows, n_columns):
        """Make zeros that begin at the border of a cache line."""
        raw = np.zeros(n_rows * n_columns * dtype.itemsize + 64, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + len(raw) - 64].view(dtype).reshape(n_rows, n_columns)

    def work(_):
        right = empty(max(16, CHUNK // width), width + lanes)
        left = right if rest[0][0] == 0 else empty(*right.shape)
        gram, inverses = empty(*holes.shape), empty(width, 2 * TILE)
        space = left, right, gram, inverses, empty(1, width)
        _tiled(
            queue, ratings, fixed, holes, penalties, asked, *rest[:2], space, rest[2]
        )

    if n_threads == 1:
        return work(0)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_threads)))  # a list, so that errors are raised

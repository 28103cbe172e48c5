"""The half-step of ALS with the sums of its matrix product kept in vector registers.

**Optional: delete this file, and the plain version takes over**, slower but the same to
rounding; ``kernels/__init__.py`` does so as well when the import below fails. What may
break it are internals that Numba and llvmlite promise to nobody: the LLVM builder
(`llvmlite.ir`, `numba.core.cgutils`, `numba.extending.intrinsic`), pointers that carry
a type, and the name of the processor (`cpu_target.target_context.codegen`). Read at
Numba 0.68 and llvmlite 0.50; ``tests`` hold both versions against dense formulas.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from als_course.kernels.plain import compiled, confidence_and_preference

__all__ = ["registers", "solve_rows"]

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
# 24 (or 12) sums of 32 (or 16) registers; 3 more hold a row of `right`, and the rest a
# number of `left` in every lane.
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
def solve_queue(
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
                    c, p = confidence_and_preference(data[start + t], formula)
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
                    c, p = confidence_and_preference(data[t], formula)
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


def solve_rows(ratings, fixed, holes, penalties, asked, *rest):
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
        solve_queue(
            queue, ratings, fixed, holes, penalties, asked, *rest[:2], space, rest[2]
        )

    if n_threads == 1:
        return work(0)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_threads)))  # a list, so that errors are raised

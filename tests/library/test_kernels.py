"""The compiled kernels against NumPy, on any processor and any number of threads.

What least squares promises is in `test_factor_models`, which runs with both engines.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numba import config
from numba.core.runtime import _nrt_python
from scipy.sparse import csr_array

from als_course import als, kernels
from als_course.als import ExplicitALS, ImplicitALS
from tools import chapters

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}  # of the largest factor
EXPLICIT, PAPER = als.Formula(0.0, 0.0, 1.0), als.Formula(1.0, 0.7, 1.0)
LIBRARY, LIGHT_HOLES = als.Formula(1.0, 0.7, 0.0), als.Formula(0.25, 0.7, 1.0)
# Below a vector, one and several, and what leaves one, two and three to a strip.
RANKS = [1, 3, 8, 10, 16, 17, 33, 48, 64, 70, 100]


@pytest.fixture(scope="module")
def ratings():
    """Few to many ratings a row, -2 to 5 and stored zeros; empty rows and columns."""
    rng = np.random.default_rng(0)
    shares = np.sort(rng.random(60)) ** 3
    known = rng.random((60, 400)) < shares[:, None]
    known[5], known[[0, 40]], known[:, [0, 300]] = True, False, False
    stars = rng.integers(-2, 6, known.shape)[known].astype(float)
    return csr_array((stars, np.nonzero(known)), shape=known.shape)


def problem(ratings, k, dtype, formula):
    rng = np.random.default_rng(k)
    fixed = rng.normal(scale=k**-0.5, size=(ratings.shape[1], k)).astype(dtype)
    penalties = rng.uniform(0.5, 2, ratings.shape[0])
    asked = np.diff(ratings.indptr) > 0
    return ratings.astype(dtype), fixed, penalties, asked, formula


def dense_half_step(ratings, fixed, penalties, asked, formula):
    """Solve by LU over all places; the loss from dense matrices."""
    known = csr_array((np.ones(ratings.nnz), ratings.indices, ratings.indptr))
    known.resize(ratings.shape)
    known, stars = known.toarray() > 0, ratings.toarray().astype(float)
    hole, alpha, base = formula
    confidences = np.where(known, base + alpha * np.abs(stars), hole)
    targets = stars > 0 if hole else stars
    fixed = fixed.astype(float)
    grams = (fixed.T * confidences[:, None, :]) @ fixed
    grams += penalties[:, None, None] * np.eye(len(fixed.T))
    solved = np.linalg.solve(grams, ((confidences * targets) @ fixed)[:, :, None])
    solved = solved[:, :, 0] * asked[:, None]
    fitted = solved @ fixed.T
    losses = confidences * (targets - fitted) ** 2 - hole * fitted**2
    return solved, losses[known & asked[:, None]].sum()


VERSIONS = {
    "numpy": als.half_step.half_step,
    "plain": partial(kernels.half_step, version=kernels.plain),
    "tiled": partial(kernels.half_step, version=kernels.tiled),
}
every_version = pytest.mark.parametrize("solve", VERSIONS.values(), ids=VERSIONS)


@pytest.mark.parametrize("formula", [EXPLICIT, PAPER, LIBRARY, LIGHT_HOLES])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_version
def test_half_step_is_the_dense_solution(ratings, solve, dtype, formula):
    for k in RANKS:
        given = problem(ratings, k, dtype, formula)
        solved, loss, failed = solve(*given, als.SINGULAR[dtype])
        expected, expected_loss = dense_half_step(*given)
        assert not failed.any()
        assert solved.dtype == dtype
        error = np.abs(solved - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[dtype], (k, error)
        assert loss == pytest.approx(expected_loss, rel=TOLERANCE[dtype])
        assert (solved[~given[3]] == 0).all()


@every_version
def test_rows_not_asked_for_are_left_alone(ratings, solve):
    given = problem(ratings, 10, "float64", PAPER)
    whole, _ = dense_half_step(*given)
    given[3][::3] = False
    solved, loss, _ = solve(*given, 1e-13)
    assert (solved[::3] == 0).all()
    np.testing.assert_allclose(solved[given[3]], whole[given[3]], rtol=1e-10)
    assert loss == pytest.approx(dense_half_step(*given)[1], rel=1e-9)
    assert solve(*given, 1e-13, loss=False)[1] == 0


@pytest.mark.parametrize(
    "version", [kernels.plain, kernels.tiled], ids=lambda m: m.__name__
)
def test_singular_systems_are_named_and_the_others_solved(ratings, version):
    k = 20
    given = list(problem(ratings, k, "float64", EXPLICIT))
    given[2][:] = 0
    solved, _, failed = kernels.half_step(*given, 1e-13, version=version)
    counts = np.diff(ratings.indptr)
    np.testing.assert_array_equal(failed, (counts > 0) & (counts < k))
    assert failed.any()
    enough = counts >= k
    given[2][~enough] = 1.0
    expected, _ = dense_half_step(*given)
    np.testing.assert_allclose(solved[enough], expected[enough], rtol=1e-6, atol=1e-8)
    for bad in (np.nan, np.inf):
        given[1][7, 3] = bad
        _, _, failed = kernels.half_step(*given, 1e-13, version=version)
        assert failed[ratings[:, [7]].toarray().any(axis=1)].all()


MODELS = [
    ExplicitALS(n_factors=20, regularization=0.1, biases=True),
    ExplicitALS(n_factors=7, regularization=5, weighted_regularization=False),
    ImplicitALS(n_factors=20, regularization=1, alpha=3),
    ImplicitALS(40, 0.1, confidence="1+alpha*r", weighted_regularization=True),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_engines_agree(ratings, model, dtype):
    fits = []
    for engine in ("numba", "numpy"):
        changes = {"engine": engine, "dtype": dtype, "n_iterations": 4}
        fits.append(replace(model, **changes).fit(ratings))
    compiled, reference = fits
    assert (compiled.engine_, reference.engine_) == ("numba", "numpy")
    for name in ("user_factors_", "item_factors_"):
        found, expected = getattr(compiled, name), getattr(reference, name)
        assert found.dtype == expected.dtype == dtype
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[dtype]
        np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(
        compiled.history_, reference.history_, rtol=TOLERANCE[dtype]
    )
    row = ratings[[8]]
    np.testing.assert_allclose(
        compiled.fold_in(row), reference.fold_in(row), atol=10 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("formula", [EXPLICIT, PAPER])
def test_threads_do_not_change_a_bit(ratings, monkeypatch, dtype, formula):
    given = problem(ratings, 33, dtype, formula)
    results = []
    for n_threads in (1, 2, 4):
        monkeypatch.setattr(config, "NUMBA_NUM_THREADS", n_threads)
        results.append(kernels.half_step(*given, 1e-13))
    for solved, loss, _ in results[1:]:
        np.testing.assert_array_equal(solved, results[0][0])
        assert loss == results[0][1]


def test_the_number_of_threads_is_that_of_numba(ratings, monkeypatch):
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, n_threads):
            asked.append(n_threads)
            super().__init__(n_threads)

    monkeypatch.setattr(kernels.tiled, "ThreadPoolExecutor", Pool)
    for n_threads in (1, 3, 4):
        monkeypatch.setattr(config, "NUMBA_NUM_THREADS", n_threads)
        kernels.half_step(*problem(ratings, 10, "float64", EXPLICIT), 1e-13)
    assert asked == [3, 4]


def test_models_can_be_fitted_at_the_same_time(ratings):
    model = ExplicitALS(engine="numba", n_iterations=3)
    expected = model.fit(ratings).item_factors_
    with ThreadPoolExecutor(4) as pool:
        fits = [
            pool.submit(ExplicitALS(engine="numba", n_iterations=3).fit, ratings)
            for _ in range(8)
        ]
    for fit in fits:
        np.testing.assert_array_equal(fit.result().item_factors_, expected)


def test_loops_allocate_nothing(ratings, monkeypatch):
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 1)
    _nrt_python.memsys_enable_stats()
    allocated = []
    try:
        for n_rows in (20, 60):
            given = problem(ratings[:n_rows], 33, "float64", PAPER)
            before = _nrt_python.memsys_get_stats_alloc()
            kernels.half_step(*given, 1e-13)
            allocated.append(_nrt_python.memsys_get_stats_alloc() - before)
    finally:
        _nrt_python.memsys_disable_stats()
    assert allocated[0] == allocated[1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [ExplicitALS, ImplicitALS])
def test_memory_stays_below_three_times_ratings_and_factors(kind, dtype):
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 4000 * 3000, 400_000))
    stars = rng.integers(1, 6, len(cells)).astype(dtype)
    known = csr_array((stars, np.divmod(cells, 3000)), shape=(4000, 3000))
    kernels.half_step(*problem(known[:9], 16, dtype, EXPLICIT), 1e-13)  # is compiled
    tracemalloc.start()
    try:
        model = kind(16, engine="numba", dtype=dtype, n_iterations=2).fit(known)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    given = sum(part.nbytes for part in (known.data, known.indices, known.indptr))
    given += model.user_factors_.nbytes + model.item_factors_.nbytes
    assert peak + given < 3 * given  # what was given is there, too


PROGRAM = """
import json, sys
import numpy as np
import test_kernels
from als_course import kernels

ratings = test_kernels.ratings._get_wrapped_function()()
errors = []
for k, formula in [(33, test_kernels.EXPLICIT), (70, test_kernels.PAPER)]:
    given = test_kernels.problem(ratings, k, "float32", formula)
    solved, _, _ = kernels.half_step(*given, 2e-6)
    expected, _ = test_kernels.dense_half_step(*given)
    errors.append(float(np.abs(solved - expected).max() / np.abs(expected).max()))
hits = sum(kernels.tiled.solve_queue.stats.cache_hits.values())
json.dump({
    "registers": kernels.tiled.registers(),
    "tile": kernels.tiled.TILE,
    "errors": errors,
    "hits": hits,
}, sys.stdout)
"""
# What Numba is told of the processor, and the registers that it is to find there.
PROCESSORS = {"this one": (None, None)}
if platform.machine().lower() in ("x86_64", "amd64"):
    PROCESSORS["SSE"] = "+sse,+sse2", [16, 16]
    PROCESSORS["AVX2"] = "+sse,+sse2,+avx,+avx2,+fma", [16, 32]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.weekly
def test_tiles_fit_the_registers_of_each_processor(name, tmp_path):
    """In a process of its own, AVX-512 off; this one in a second, from the cache."""
    features, registers = PROCESSORS[name]
    paths = [str(chapters.BOOK), str(chapters.ROOT / "tests" / "library")]
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    if features:
        environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    for run in range(1 if features else 2):
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        found = json.loads(process.stdout)
        assert max(found["errors"]) < TOLERANCE["float32"]
        assert found["hits"] == run
        registers = registers or found["registers"]
        assert found["registers"] == registers
        assert found["tile"] == (8 if registers[0] == 32 else 4)


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(monkeypatch):
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "ZipCacheLocator")
    assert kernels.plain.compiled()(lambda x: x + 1)(1) == 2


def test_small_problems_do_not_load_numba(ratings):
    program = """
import sys
from scipy.sparse import csr_array
from als_course.als import ExplicitALS
model = ExplicitALS(n_factors=2).fit(csr_array([[5, 4, 0], [4, 0, 1.0]]))
print(model.engine_, "numba" in sys.modules)
"""
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=chapters.BOOK,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split() == ["numpy", "False"]


def test_auto_takes_numba_from_the_size_that_is_documented(ratings, monkeypatch):
    k = 10
    needed = int(1e7 // (ratings.nnz * k)) + 1
    for n_iterations, engine in [(needed - 1, "numpy"), (needed, "numba")]:
        model = ExplicitALS(k, n_iterations=n_iterations)
        with monkeypatch.context() as patch:
            patch.setattr(model, "_start", lambda *_: 1 / 0)  # chosen, and not fitted
            with pytest.raises(ZeroDivisionError):
                model.fit(ratings)
        assert model.engine_ == engine


def test_without_numba_auto_is_numpy_and_numba_an_error(ratings, monkeypatch):
    import als_course

    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("als_course.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(als_course, "kernels")
    monkeypatch.setattr(als, "COMPILED_FROM", 0)
    assert ExplicitALS(n_iterations=1).fit(ratings).engine_ == "numpy"
    with pytest.raises(ImportError, match=r"needs Numba.*or take engine='numpy'"):
        ExplicitALS(engine="numba").fit(ratings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"engine": "cuda"}, "must be 'auto' or 'numba' or 'numpy', got 'cuda'"),
        ({"dtype": "float16"}, "must be 'float64' or 'float32', got 'float16'"),
        ({"dtype": np.float32}, "must be 'float64' or 'float32', got <class"),
    ],
)
@pytest.mark.parametrize("kind", [ExplicitALS, ImplicitALS])
def test_unknown_engines_and_types_are_refused(kind, setting, message):
    with pytest.raises(ValueError, match=message):
        kind(**setting)


@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_what_float32_cannot_hold_is_refused(engine):
    large = csr_array([[5, 1e39], [3, 0]])
    with pytest.raises(ValueError, match="user 0, item 1 is not finite in float32"):
        ExplicitALS(engine=engine, dtype="float32").fit(large)
    flat = csr_array(np.ones((3, 3)))
    start = np.zeros((3, 2)), np.ones((3, 2))
    for dtype, advice in [("float64", r"n_factors$"), ("float32", "'float64'$")]:
        model = ExplicitALS(2, 1e-8, engine=engine, dtype=dtype)
        if dtype == "float64":
            model.fit(flat, start)
            model.regularization = 0
        with pytest.raises(ValueError, match=r"user 0 .* is singular.*" + advice):
            model.fit(flat, start)


@pytest.mark.weekly
def test_without_the_tiled_file_the_plain_version_keeps_every_promise(tmp_path):
    """The course's properties of least squares, with the file deleted."""
    library = tmp_path / "als_course"
    shutil.copytree(Path(als.__file__).parent, library)
    (library / "kernels" / "tiled.py").unlink()
    (tmp_path / "absent.py").write_text(
        "from als_course import kernels\nassert kernels.tiled is None\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "absent", "-c", "pytest.ini"),
            *("-k", "numba and (gradient or history or fold_in)"),
            Path(__file__).with_name("test_factor_models.py"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert " passed" in process.stdout

"""Time of a sweep over a million ratings, 6,040 users and 3,706 items.

Run it by name: ``pytest tests/benchmarks/bench_als.py``. How others compare with it
is what ``compare.py`` beside it prints.
"""

import numpy as np
import pytest
from scipy.sparse import csr_array

from als_course.als import ExplicitALS, ImplicitALS

SHAPE, N_RATINGS = (6040, 3706), 1_000_000


def make_million():
    """Ratings of which few users and items have many, as in MovieLens 1M."""
    rng = np.random.default_rng(0)
    shares = [rng.lognormal(sigma=1.1, size=SHAPE[0])]
    shares += [rng.lognormal(sigma=1.6, size=SHAPE[1])]
    shares = [share / share.sum() for share in shares]
    cells = np.empty(0, dtype=np.int64)
    while len(cells) < N_RATINGS:
        users, items = (rng.choice(len(p), N_RATINGS, p=p) for p in shares)
        cells = np.union1d(cells, users * SHAPE[1] + items)
    cells = rng.choice(cells, N_RATINGS, replace=False)
    stars = rng.integers(1, 6, N_RATINGS).astype(float)
    return csr_array((stars, np.divmod(cells, SHAPE[1])), shape=SHAPE)


@pytest.fixture(scope="module")
def million():
    return make_million()


@pytest.mark.parametrize("n_factors", [16, 64, 128])
@pytest.mark.parametrize("kind", [ExplicitALS, ImplicitALS])
@pytest.mark.parametrize(
    ("engine", "dtype"),
    [("numba", "float32"), ("numba", "float64"), ("numpy", "float64")],
)
def test_sweep(benchmark, million, kind, n_factors, engine, dtype):
    model = kind(n_factors=n_factors, n_iterations=1, engine=engine, dtype=dtype)
    benchmark.pedantic(model.fit, args=(million,), rounds=3, warmup_rounds=1)

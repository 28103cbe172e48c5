"""Conjugate gradient: what steps that solve nothing exactly promise all the same."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from test_factor_models import (
    EXPLICIT,
    IMPLICIT,
    both,
    cases,
    engine,  # noqa: F401, a fixture for every test here
    make_ratings,
)
from threadpoolctl import threadpool_limits

from als_course.als import GRADIENT_FROM, ExplicitALS, ImplicitALS


@both
@cases
@given(data=st.data(), steps=st.integers(1, 5))
def test_no_sweep_raises_the_objective_and_history_is_it(case, data, steps):
    ratings, settings = data.draw(case.problems)
    settings |= {"solver": "cg", "cg_steps": steps}
    models = case.sweeps(ratings, settings)
    found = models[-1].history_
    expected = [
        case.objective(m, ratings, m.user_factors_, m.item_factors_) for m in models
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=case.rounding)
    assert (np.diff(expected) <= 1e-10 * expected[0]).all()


@both
@cases
@given(data=st.data())
def test_many_steps_solve_the_system(case, data):
    ratings, settings = data.draw(case.problems)
    settings["regularization"] = max(0.1, settings["regularization"])
    exact = case.model(**settings, n_iterations=1).fit(ratings)
    steps = case.model(**settings, n_iterations=1, solver="cg", cg_steps=30)
    steps.fit(ratings)
    for name in ("user_factors_", "item_factors_"):
        expected = getattr(exact, name)
        scale = 1 + np.abs(expected).max()
        found = getattr(steps, name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("steps", [1, 3])
def test_factors_are_those_of_the_conjugate_gradient_of_implicit(steps):
    ratings = make_ratings(0, 60, 40, share=0.2, lowest=-2)
    V = np.random.default_rng(1).normal(size=(40, 8))
    with threadpool_limits(limits=1, user_api="blas"):  # or implicit warns
        other = AlternatingLeastSquares(
            factors=8,
            regularization=2.0,
            alpha=3.0,
            dtype=np.float64,
            iterations=6,
            num_threads=1,
        )
        other.cg_steps = steps
        other.user_factors, other.item_factors = np.zeros((60, 8)), V.copy()
        other.fit(csr_matrix(ratings), show_progress=False)
    model = ImplicitALS(8, 2.0, 3.0, 6, solver="cg", cg_steps=steps)
    model.fit(ratings, start=(other.user_factors, V))
    exact = ImplicitALS(8, 2.0, 3.0, 6).fit(ratings, start=(other.user_factors, V))
    for name in ("user_factors", "item_factors"):
        found, expected = getattr(model, name + "_"), getattr(other, name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
        assert np.abs(getattr(exact, name + "_") - expected).max() > 1e-4


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@both
def test_engines_agree_and_threads_change_no_bit(case, dtype):
    ratings = make_ratings(3, 90, 61, 0.2, case.lowest)
    settings = {"n_factors": 24, "n_iterations": 3, "solver": "cg", "dtype": dtype}
    one = case.model(**settings, engine="numpy").fit(ratings)
    fits = []
    for n_threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(n_threads)
        fits.append(case.model(**settings, engine="numba").fit(ratings))
    for name in ("user_factors_", "item_factors_"):
        first, second = (getattr(fit, name) for fit in fits)
        np.testing.assert_array_equal(first, second)
        scale, close = np.abs(first).max(), {"float64": 1e-9, "float32": 1e-3}[dtype]
        np.testing.assert_allclose(getattr(one, name), first, atol=close * scale)
        assert first.dtype == dtype


@pytest.mark.parametrize("model", [ExplicitALS, ImplicitALS])
def test_auto_takes_steps_at_large_ranks_only(model):
    ratings = make_ratings(0, 20, 15, 0.5, 1)
    for k, solver in [(GRADIENT_FROM - 1, "exact"), (GRADIENT_FROM, "cg")]:
        assert model(k, n_iterations=1, solver="auto").fit(ratings).solver_ == solver


def test_who_asks_for_nothing_gets_nothing():
    ratings = make_ratings(1, 12, 9, 0.4, -2)
    model = ImplicitALS(2, solver="cg", n_iterations=2).fit(ratings)
    likes = ratings.toarray() > 0
    assert (model.user_factors_[~likes.any(axis=1)] == 0).all()
    assert (model.item_factors_[~likes.any(axis=0)] == 0).all()


@pytest.mark.parametrize("case", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize(
    ("settings", "message"),
    [({"solver": "fast"}, "solver must be"), ({"cg_steps": 0}, "cg_steps == 0")],
)
def test_bad_settings_are_refused(case, settings, message):
    with pytest.raises(ValueError, match=message):
        case.model(**settings)

"""What least squares promises of both models, held against dense formulas written anew.

The solver is seen through its public face only: ``n`` sweeps and ``n + 1`` sweeps
from the same start give the factors before and after every half-step.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from als_course import als
from als_course.als import ExplicitALS, ImplicitALS

cases = settings(
    deadline=None, derandomize=True, max_examples=60, report_multiple_bugs=False
)
seeds = st.integers(0, 10**6)


@pytest.fixture(params=["numpy", "numba"], scope="module", autouse=True)
def engine(request):
    """Solve everything with this engine, however small it is."""
    smallest = {"numpy": np.inf, "numba": 0}[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(als, "COMPILED_FROM", smallest)
        yield request.param


# -- problems and their dense formulas -------------------------------------------------


def as_csr(dense, known):
    users, items = np.nonzero(known)
    return csr_array((dense[users, items], (users, items)), shape=dense.shape)


def make_ratings(seed, n_users, n_items, share, lowest=0):
    """Stars from the lowest to 5, at least one a like; some rows and columns empty."""
    rng = np.random.default_rng(seed)
    known = rng.random((n_users, n_items)) < share
    stars = rng.integers(lowest, 6, known.shape).astype(float)
    liked = rng.integers(n_users), rng.integers(n_items)
    known[liked], stars[liked] = True, 3.0
    return as_csr(stars, known)


def known_places(ratings):
    known = csr_array((np.ones(ratings.nnz), ratings.indices, ratings.indptr))
    known.resize(ratings.shape)
    return known.toarray() > 0


def weigh(model, asking):
    """Give the penalties of users and items from which places ask for factors."""
    weights = [asking.sum(axis=1), asking.sum(axis=0)]
    if getattr(model, "nu", None) is not None:
        places = zip(weights, reversed(asking.shape), strict=True)
        weights = [(w + model.unobserved_weight * n) ** model.nu for w, n in places]
    elif not model.weighted_regularization:
        weights = [np.ones(size) for size in asking.shape]
    return [model.regularization * w for w in weights]


def dense_explicit(model, ratings):
    """Residuals, confidences (1 where there is a rating), penalties of both sides."""
    known = known_places(ratings)
    biases = model.user_biases_[:, None] + model.item_biases_
    biases += model.mean_ * model.biases
    residuals = np.where(known, ratings.toarray() - biases, 0.0)
    return residuals, known * 1.0, *weigh(model, known)


def twice_as_many(ratings):
    """Give a confidence of 2 to each stored rating, whatever it is."""
    return np.full(ratings.nnz, 2)


def dense_implicit(model, ratings):
    """Preferences, confidences, penalties of both sides."""
    stars = ratings.toarray()
    likes = stars > 0
    confidences = {
        "alpha*r": model.alpha * np.abs(stars),
        "1+alpha*r": 1 + model.alpha * np.abs(stars),
        "1+alpha*log(1+r/eps)": 1 + model.alpha * np.log(1 + np.abs(stars) / model.eps),
        "r": np.abs(stars),
        twice_as_many: 2.0 + np.zeros_like(stars),
    }[model.confidence]
    confidences[~known_places(ratings)] = model.unobserved_weight
    return likes * 1.0, confidences, *weigh(model, likes)


def with_one_penalty(settings):
    """Let nu and the other weight of a penalty not meet, as the model refuses that."""
    if settings.get("nu") is not None:
        settings["weighted_regularization"] = False
    return settings


class Case(NamedTuple):
    """A model, how to draw its problems, and its dense formulas."""

    model: type
    dense: Callable
    lowest: int  # star
    rounding: float  # of the objective: sums over all places cancel
    settings: dict  # what the other model does not have

    @property
    def problems(self):
        """Small ratings matrices, each with the settings of a model."""
        shared = {
            "n_factors": st.integers(1, 4),
            "regularization": st.sampled_from([0.01, 0.1, 1.0, 10.0]),
            "weighted_regularization": st.booleans(),
            "random_state": seeds,
        }
        size, share = st.integers(1, 9), st.floats(0.2, 1.0)
        ratings = st.builds(
            make_ratings, seeds, size, size, share, lowest=st.just(self.lowest)
        )
        settings = st.fixed_dictionaries(shared | self.settings)
        return st.tuples(ratings, settings.map(with_one_penalty))

    def sweeps(self, ratings, settings, n=4):
        """Models after 1, 2, ... n sweeps from one start."""
        return [
            self.model(**settings, n_iterations=i + 1).fit(ratings) for i in range(n)
        ]

    def half_steps(self, old, new, ratings):
        """Both half-steps of a sweep: what was solved, held fixed, targets, c, λw."""
        targets, confidences, of_users, of_items = self.dense(new, ratings)
        users, items = new.user_factors_, new.item_factors_
        yield users, old.item_factors_, targets, confidences, of_users
        yield items, users, targets.T, confidences.T, of_items

    def objective(self, model, ratings, U, V):
        targets, confidences, of_users, of_items = self.dense(model, ratings)
        penalty = of_users @ (U**2).sum(axis=1) + of_items @ (V**2).sum(axis=1)
        return (confidences * (targets - U @ V.T) ** 2).sum() + penalty


CONFIDENCES = {
    "alpha": st.sampled_from([0.1, 1.0, 40.0]),
    "confidence": st.sampled_from(
        ["alpha*r", "1+alpha*r", "1+alpha*log(1+r/eps)", "r", twice_as_many]
    ),
    "eps": st.sampled_from([0.5, 1.0]),
    "unobserved_weight": st.sampled_from([0.05, 1.0, 3.0]),
    "nu": st.sampled_from([None, 0.0, 0.5, 1.0]),
}
EXPLICIT = Case(ExplicitALS, dense_explicit, 0, 1e-18, {"biases": st.booleans()})
IMPLICIT = Case(ImplicitALS, dense_implicit, -2, 1e-10, CONFIDENCES)
both = pytest.mark.parametrize(
    "case", [EXPLICIT, IMPLICIT], ids=lambda case: case.model.__name__
)
drawn = given(data=st.data())


# -- what holds for every problem ------------------------------------------------------


@both
@cases
@drawn
def test_half_step_never_raises_the_objective(case, data):
    ratings, settings = data.draw(case.problems)
    for old, new in pairwise(case.sweeps(ratings, settings)):
        path = [
            case.objective(new, ratings, old.user_factors_, old.item_factors_),
            case.objective(new, ratings, new.user_factors_, old.item_factors_),
            case.objective(new, ratings, new.user_factors_, new.item_factors_),
        ]
        assert path[1] <= path[0] * (1 + 1e-12)
        assert path[2] <= path[1] * (1 + 1e-12)


@both
@cases
@drawn
def test_history_is_the_objective_after_each_sweep(case, data):
    ratings, settings = data.draw(case.problems)
    models = case.sweeps(ratings, settings)
    found = models[-1].history_
    expected = [
        case.objective(m, ratings, m.user_factors_, m.item_factors_) for m in models
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=case.rounding)
    assert (np.diff(found) <= 1e-10 * expected[0]).all()


@both
@cases
@drawn
def test_gradient_is_zero_after_a_half_step(case, data):
    ratings, settings = data.draw(case.problems)
    old, new = case.sweeps(ratings, settings, n=2)
    for U, V, targets, confidences, penalties in case.half_steps(old, new, ratings):
        errors = targets - U @ V.T
        gradient = -(confidences * errors) @ V + penalties[:, None] * U
        largest = max(1, np.abs(targets).max()) * confidences.max()
        assert np.abs(gradient).max() < 1e-11 * (1 + largest * np.abs(V).max())


@both
@cases
@drawn
def test_half_step_solves_weighted_ridge_regression_of_each_row(case, data):
    ratings, settings = data.draw(case.problems)
    old, new = case.sweeps(ratings, settings, n=2)
    for solved, fixed, targets, confidences, penalties in case.half_steps(
        old, new, ratings
    ):
        for row, found in enumerate(solved):
            roots = np.sqrt(confidences[row])
            damping = np.sqrt(penalties[row]) * np.eye(len(found))
            system = np.vstack([roots[:, None] * fixed, damping])
            target = np.append(roots * targets[row], np.zeros(len(found)))
            expected = np.linalg.lstsq(system, target)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


@both
@cases
@drawn
def test_fold_in_is_the_next_half_step(case, data):
    ratings, settings = data.draw(case.problems)
    old, new = case.sweeps(ratings, settings, n=2)
    for user, expected in enumerate(new.user_factors_):
        found = old.fold_in(ratings[[user]])
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


@both
@cases
@given(data=st.data(), seed=seeds)
def test_permuting_users_and_items_permutes_the_factors(case, data, seed):
    ratings, settings = data.draw(case.problems)
    rng = np.random.default_rng(seed)
    n_users, n_items = ratings.shape
    users, items = rng.permutation(n_users), rng.permutation(n_items)
    V = rng.normal(size=(n_items, settings["n_factors"]))
    U = np.zeros((n_users, settings["n_factors"]))
    model = case.model(**settings, n_iterations=3)
    model.fit(ratings, start=(U, V))
    before = model.user_factors_[users], model.item_factors_[items]
    model.fit(ratings[users][:, items].tocsr(), start=(U, V[items]))
    after = model.user_factors_, model.item_factors_
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-8)


# -- starts, seeds and threads ---------------------------------------------------------


@both
def test_threads_do_not_change_the_result(case):
    ratings = make_ratings(0, 300, 200, 0.3, case.lowest)
    results = []
    for n_threads in (1, 2, 4):
        with threadpool_limits(limits=n_threads, user_api="blas"):
            model = case.model(n_factors=64, n_iterations=5).fit(ratings, start="svd")
            folded = [model.fold_in(ratings[[0]])]
            if case is IMPLICIT:
                folded.append(model.explain(0, 0)[1])
        results.append([model.user_factors_, model.item_factors_, *folded])
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@both
def test_fit_is_fixed_by_its_seed_and_leaves_the_ratings_alone(case):
    ratings = make_ratings(0, 20, 15, 0.5, case.lowest)
    before = ratings.copy()
    first, again, other = (
        case.model(n_factors=3, random_state=seed).fit(ratings).user_factors_
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_array_equal(ratings.data, before.data)


@both
def test_start_matters_through_its_item_factors_only(case):
    ratings = make_ratings(0, 20, 15, 0.5, case.lowest)
    rng = np.random.default_rng(1)
    model = case.model(n_factors=2, n_iterations=1)
    V = rng.normal(size=(15, 2))
    first = model.fit(ratings, start=(np.zeros((20, 2)), V)).user_factors_
    same = model.fit(ratings, start=(rng.normal(size=(20, 2)), V)).user_factors_
    other = model.fit(ratings, start=(np.zeros((20, 2)), 1 + V)).user_factors_
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01


@both
def test_svd_start_is_that_of_the_targets(case):
    # 11 random directions for 9 columns: the randomised algorithm is exact.
    ratings = make_ratings(4, 12, 9, 0.6, case.lowest)
    model = case.model(n_factors=3, n_iterations=1)
    if case is EXPLICIT:
        model.biases = True
    targets = case.dense(model.fit(ratings), ratings)[0]
    by_chance = model.user_factors_ @ model.item_factors_.T
    _, values, vectors = np.linalg.svd(targets)
    start = (np.zeros((12, 3)), vectors[:3].T * np.sqrt(values[:3]))
    wanted = model.fit(ratings, start=start).user_factors_ @ model.item_factors_.T
    found = model.fit(ratings, start="svd").user_factors_ @ model.item_factors_.T
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert np.abs(by_chance - wanted).max() > 0.01


@both
def test_fitting_on_continues_where_the_start_left_off(case):
    ratings = make_ratings(0, 20, 15, 0.5, case.lowest)
    half = case.model(n_iterations=2).fit(ratings)
    start = (half.user_factors_, half.item_factors_)
    resumed = case.model(n_iterations=3).fit(ratings, start=start)
    whole = case.model(n_iterations=5).fit(ratings)
    np.testing.assert_array_equal(resumed.item_factors_, whole.item_factors_)
    np.testing.assert_array_equal(resumed.history_, whole.history_[2:])

"""What least squares promises, held against dense formulas written anew here.

The solver is seen through its public face only: ``n`` sweeps and ``n + 1`` sweeps
from the same start give the factors before and after every half-step.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from als_course import als, metrics, splits
from als_course.als import ExplicitALS
from als_course.baselines import DampedBiases, GlobalMean

cases = settings(
    deadline=None, derandomize=True, max_examples=60, report_multiple_bugs=False
)
seeds = st.integers(0, 10**6)


def as_csr(dense, known):
    users, items = np.nonzero(known)
    return csr_array((dense[users, items], (users, items)), shape=dense.shape)


@pytest.fixture(params=["numpy", "numba"], scope="module", autouse=True)
def engine(request):
    """Solve everything with this engine, however small it is."""
    smallest = {"numpy": np.inf, "numba": 0}[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(als, "COMPILED_FROM", smallest)
        yield request.param


def make_ratings(seed, n_users, n_items, share):
    """Ratings 0 to 5, stored zeros among them; some rows and columns stay empty."""
    rng = np.random.default_rng(seed)
    known = rng.random((n_users, n_items)) < share
    known[rng.integers(n_users), rng.integers(n_items)] = True
    return as_csr(rng.integers(0, 6, known.shape).astype(float), known)


@st.composite
def problems(draw):
    """Draw a small ratings matrix and the settings of a model."""
    ratings = make_ratings(
        draw(seeds),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 9)),
        draw(st.floats(0.2, 1.0)),
    )
    return ratings, {
        "n_factors": draw(st.integers(1, 4)),
        "regularization": draw(st.sampled_from([0.01, 0.1, 1.0, 10.0])),
        "weighted_regularization": draw(st.booleans()),
        "biases": draw(st.booleans()),
        "random_state": draw(seeds),
    }


def dense_problem(model, ratings):
    """Dense residuals, where they are known, and the penalties of users and items."""
    known = csr_array((np.ones(ratings.nnz), ratings.indices, ratings.indptr))
    known.resize(ratings.shape)
    known = known.toarray() > 0
    biases = model.user_biases_[:, None] + model.item_biases_
    biases += model.mean_ * model.biases
    residuals = np.where(known, ratings.toarray() - biases, 0.0)
    weights = [known.sum(axis=1), known.sum(axis=0)]
    if not model.weighted_regularization:
        weights = [np.ones(size) for size in known.shape]
    return residuals, known, *(model.regularization * w for w in weights)


def objective(model, ratings, user_factors, item_factors):
    residuals, known, of_users, of_items = dense_problem(model, ratings)
    errors = (residuals - user_factors @ item_factors.T)[known]
    penalty = of_users @ (user_factors**2).sum(1) + of_items @ (item_factors**2).sum(1)
    return (errors**2).sum() + penalty


def sweeps(ratings, settings, n=4):
    """Models after 1, 2, ... n sweeps from one start."""
    return [ExplicitALS(**settings, n_iterations=i + 1).fit(ratings) for i in range(n)]


@cases
@given(problem=problems())
def test_half_step_never_raises_the_objective(problem):
    ratings, settings = problem
    models = sweeps(ratings, settings)
    for old, new in pairwise(models):
        path = [
            objective(new, ratings, old.user_factors_, old.item_factors_),
            objective(new, ratings, new.user_factors_, old.item_factors_),
            objective(new, ratings, new.user_factors_, new.item_factors_),
        ]
        assert path[1] <= path[0] * (1 + 1e-12)
        assert path[2] <= path[1] * (1 + 1e-12)


@cases
@given(problem=problems())
def test_history_is_the_objective_after_each_sweep(problem):
    ratings, settings = problem
    models = sweeps(ratings, settings)
    expected = [objective(m, ratings, m.user_factors_, m.item_factors_) for m in models]
    np.testing.assert_allclose(models[-1].history_, expected, rtol=1e-10, atol=1e-18)


@cases
@given(problem=problems())
def test_gradient_is_zero_after_a_half_step(problem):
    ratings, settings = problem
    old, new = sweeps(ratings, settings, n=2)
    residuals, known, of_users, of_items = dense_problem(new, ratings)
    for U, V, errors, penalties in [
        (new.user_factors_, old.item_factors_, residuals, of_users),
        (new.item_factors_, new.user_factors_, residuals.T, of_items),
    ]:
        mask = known if errors is residuals else known.T
        gradient = -(mask * (errors - U @ V.T)) @ V + penalties[:, None] * U
        scale = 1 + np.abs(errors).max() * np.abs(V).max()
        assert np.abs(gradient).max() < 1e-11 * scale


@cases
@given(problem=problems())
def test_half_step_solves_ridge_regression_of_each_row(problem):
    ratings, settings = problem
    old, new = sweeps(ratings, settings, n=2)
    residuals, known, of_users, of_items = dense_problem(new, ratings)
    for solved, fixed, targets, mask, penalties in [
        (new.user_factors_, old.item_factors_, residuals, known, of_users),
        (new.item_factors_, new.user_factors_, residuals.T, known.T, of_items),
    ]:
        for row, found in enumerate(solved):
            damping = np.sqrt(penalties[row]) * np.eye(len(found))
            system = np.vstack([fixed[mask[row]], damping])
            target = np.append(targets[row, mask[row]], np.zeros(len(found)))
            expected = np.linalg.lstsq(system, target)[0]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


@cases
@given(problem=problems())
def test_fold_in_is_the_next_half_step(problem):
    ratings, settings = problem
    old, new = sweeps(ratings, settings, n=2)
    for user in range(ratings.shape[0]):
        found = old.fold_in(ratings[[user]])
        expected = new.user_factors_[user]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


@cases
@given(problem=problems())
def test_who_has_no_ratings_has_no_factors(problem):
    ratings, settings = problem
    model = ExplicitALS(**settings).fit(ratings)
    known = dense_problem(model, ratings)[1]
    for factors, biases, rated in [
        (model.user_factors_, model.user_biases_, known.any(axis=1)),
        (model.item_factors_, model.item_biases_, known.any(axis=0)),
    ]:
        assert np.isfinite(factors).all()
        assert (factors[~rated] == 0).all()
        assert (biases[~rated] == 0).all()
    for user in np.flatnonzero(~known.any(axis=1)):
        predicted = model.predict(
            np.full(len(model.item_biases_), user), range(len(known.T))
        )
        expected = model.mean_ + model.item_biases_
        np.testing.assert_array_equal(predicted, expected)
        assert model.mean_ == pytest.approx(ratings.data.mean())
        assert (model.fold_in(ratings[[user]]) == 0).all()


@cases
@given(problem=problems(), seed=seeds)
def test_permuting_users_and_items_permutes_the_factors(problem, seed):
    ratings, settings = problem
    rng = np.random.default_rng(seed)
    n_users, n_items = ratings.shape
    users, items = rng.permutation(n_users), rng.permutation(n_items)
    V = rng.normal(size=(n_items, settings["n_factors"]))
    U = np.zeros((n_users, settings["n_factors"]))
    model = ExplicitALS(**settings, n_iterations=3)
    model.fit(ratings, start=(U, V))
    before = model.user_factors_[users], model.item_factors_[items]
    model.fit(ratings[users][:, items].tocsr(), start=(U, V[items]))
    for old, new in zip(
        before, (model.user_factors_, model.item_factors_), strict=True
    ):
        np.testing.assert_allclose(new, old, rtol=1e-6, atol=1e-8)


@cases
@given(problem=problems(), scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_scaling_ratings_and_lambda_scales_the_predictions(problem, scale):
    ratings, settings = problem
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(n, settings["n_factors"])) for n in ratings.shape]
    model = ExplicitALS(**settings, n_iterations=3).fit(ratings, start=start)
    settings = settings | {"regularization": scale * settings["regularization"]}
    scaled = ExplicitALS(**settings, n_iterations=3)
    scaled.fit(scale * ratings, start=[np.sqrt(scale) * part for part in start])
    for name in ("user_factors_", "item_factors_"):
        expected = np.sqrt(scale) * getattr(model, name)
        np.testing.assert_allclose(
            getattr(scaled, name), expected, rtol=1e-6, atol=1e-8
        )
    np.testing.assert_allclose(scaled.history_, scale**2 * model.history_, rtol=1e-8)


def test_rank_one_is_recovered_from_a_third_of_its_cells():
    rng = np.random.default_rng(0)
    truth = np.outer(rng.uniform(1, 2, 40), rng.uniform(1, 2, 30))
    ratings = as_csr(truth, rng.random(truth.shape) < 1 / 3)
    model = ExplicitALS(n_factors=1, regularization=0, n_iterations=30).fit(ratings)
    np.testing.assert_allclose(
        model.user_factors_ @ model.item_factors_.T, truth, rtol=1e-9
    )


def test_planted_factors_are_found_up_to_rotation_with_rmse_near_the_noise():
    rng = np.random.default_rng(0)
    noise = 0.1
    U, V = rng.normal(size=(200, 3)), rng.normal(size=(150, 3))
    noisy = U @ V.T + rng.normal(scale=noise, size=(200, 150))
    known = rng.random(noisy.shape) < 0.5
    model = ExplicitALS(n_factors=3, regularization=1e-3).fit(as_csr(noisy, known))
    found = model.user_factors_ @ model.item_factors_.T
    # A factor of about 1.03 is the price of 1,050 parameters and 15,000 ratings.
    unseen = metrics.rmse(noisy[~known], found[~known])
    assert 0.97 * noise < unseen < 1.08 * noise
    assert np.degrees(subspace_angles(model.item_factors_, V)).max() < 1
    assert np.degrees(subspace_angles(model.user_factors_, U)).max() < 1


def test_threads_do_not_change_the_result():
    ratings = make_ratings(0, 300, 200, share=0.3)
    results = []
    for n_threads in (1, 2, 4):
        with threadpool_limits(limits=n_threads, user_api="blas"):
            model = ExplicitALS(n_factors=64, n_iterations=5).fit(ratings)
            folded = model.fold_in(ratings[[0]])
        results.append((model.user_factors_, model.item_factors_, folded))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_fit_is_fixed_by_its_seed_and_leaves_the_ratings_alone():
    ratings = make_ratings(0, 20, 15, share=0.5)
    before = ratings.copy()
    first, again, other = (
        ExplicitALS(biases=True, random_state=seed).fit(ratings).user_factors_
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_array_equal(ratings.data, before.data)


def test_start_matters_through_its_item_factors_only():
    ratings = make_ratings(0, 20, 15, share=0.5)
    rng = np.random.default_rng(1)
    model = ExplicitALS(n_factors=2, n_iterations=1)
    V = rng.normal(size=(15, 2))
    first = model.fit(ratings, start=(np.zeros((20, 2)), V)).user_factors_
    same = model.fit(ratings, start=(rng.normal(size=(20, 2)), V)).user_factors_
    other = model.fit(ratings, start=(np.zeros((20, 2)), 1 + V)).user_factors_
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01


def test_svd_start_is_that_of_what_the_biases_leave():
    # 10 random directions for 8 columns: the randomised algorithm is exact.
    ratings = make_ratings(3, 11, 8, share=0.6)
    model = ExplicitALS(n_factors=2, biases=True, n_iterations=1)
    residuals = dense_problem(model.fit(ratings), ratings)[0]
    by_chance = model.user_factors_ @ model.item_factors_.T
    _, values, vectors = np.linalg.svd(residuals)
    start = (np.zeros((11, 2)), vectors[:2].T * np.sqrt(values[:2]))
    wanted = model.fit(ratings, start=start).user_factors_ @ model.item_factors_.T
    found = model.fit(ratings, start="svd").user_factors_ @ model.item_factors_.T
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    assert np.abs(by_chance - wanted).max() > 0.01


def test_fitting_on_continues_where_the_start_left_off():
    ratings = make_ratings(0, 20, 15, share=0.5)
    half = ExplicitALS(n_iterations=2).fit(ratings)
    start = (half.user_factors_, half.item_factors_)
    resumed = ExplicitALS(n_iterations=3).fit(ratings, start=start)
    whole = ExplicitALS(n_iterations=5).fit(ratings)
    np.testing.assert_array_equal(resumed.item_factors_, whole.item_factors_)
    np.testing.assert_array_equal(resumed.history_, whole.history_[2:])


def test_biases_are_those_of_the_baseline():
    ratings = make_ratings(0, 20, 15, share=0.5)
    model = ExplicitALS(regularization=1e6, biases=True).fit(ratings)
    baseline = DampedBiases().fit(ratings)
    users, items = np.indices(ratings.shape).reshape(2, -1)
    expected = baseline.predict(users, items)
    np.testing.assert_allclose(model.predict(users, items), expected, atol=1e-4)


def test_scores_of_recommendations_are_the_predictions_biases_included():
    ratings = make_ratings(1, 20, 15, share=0.5)
    model = ExplicitALS(n_factors=3, biases=True).fit(ratings)
    items, scores = model.recommend(np.arange(20), n=15, exclude_seen=False)
    predicted = model.predict(np.repeat(np.arange(20), 15), items.ravel())
    np.testing.assert_allclose(scores.ravel(), predicted, rtol=1e-9)


def test_similar_by_hand():
    model = ExplicitALS(n_factors=2).fit(make_ratings(0, 6, 6, share=1.0))
    factors = np.array([[2.0, 0], [0, 3], [5, 0], [0, 0], [1, 1], [-1, 0]])
    model.item_factors_ = model.user_factors_ = factors
    for similar in (model.similar_items, model.similar_users):
        found, cosines = similar(0)
        assert found.tolist() == [2, 4, 1, 3, 5]
        np.testing.assert_allclose(cosines, [1, np.sqrt(0.5), 0, 0, -1], atol=1e-15)
        assert similar(0, n=2)[0].tolist() == [2, 4]
        assert similar(3)[0].tolist() == [0, 1, 2, 4, 5]
        for unfit in (6, -1, 0.5, "a", [0, 1]):
            with pytest.raises(ValueError, match=r"is not in|integer|one number"):
                similar(unfit)


@pytest.mark.parametrize(
    ("setting", "value", "error", "message"),
    [
        ("n_factors", 0, ValueError, "n_factors == 0, must be >= 1"),
        (
            "n_factors",
            2.0,
            TypeError,
            "n_factors must be an instance of int, not float",
        ),
        (
            "n_factors",
            True,
            TypeError,
            "n_factors must be an instance of int, not bool",
        ),
        ("n_iterations", 0, ValueError, "n_iterations == 0, must be >= 1"),
        ("regularization", -0.1, ValueError, "regularization == -0.1, must be >= 0"),
        (
            "regularization",
            np.nan,
            ValueError,
            "regularization == nan, must be a number",
        ),
        ("regularization", np.inf, ValueError, "regularization == inf, must be < inf"),
    ],
)
def test_bad_settings_are_refused(setting, value, error, message):
    with pytest.raises(error, match=message):
        ExplicitALS(**{setting: value})


def test_singular_system_is_refused_by_name():
    model = ExplicitALS(n_factors=3, regularization=0, n_iterations=2)
    full = np.random.default_rng(0).normal(size=(9, 8))
    model.fit(as_csr(full, full < np.inf))  # eight ratings for three factors will do
    known = np.ones_like(full, dtype=bool)
    known[4, 2:] = False
    message = r"user 4 \(2 ratings, 3 factors\) is singular; raise regularization"
    with pytest.raises(ValueError, match=message):
        model.fit(as_csr(full, known))
    known[:] = True
    known[:7, 5] = False
    with pytest.raises(ValueError, match=r"item 5 \(2 ratings, 3 factors\)"):
        model.fit(as_csr(full, known))
    start = (np.zeros((9, 3)), np.outer(np.arange(8.0), [1, 2, 3]))
    with pytest.raises(ValueError, match=r"user 0 \(8 ratings, 3 factors\)"):
        model.fit(as_csr(full, full < np.inf), start=start)


def test_ratings_too_large_to_square_are_refused():
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="is singular"):
        ExplicitALS(n_factors=2).fit(csr_array(np.full((3, 3), 1e300)))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ((np.ones((5, 2)), np.ones((6, 3))), r"must be \[\(5, 2\), \(6, 2\)\]"),
        ((np.ones((6, 2)), np.ones((5, 2))), r"must be \[\(5, 2\), \(6, 2\)\]"),
        ([np.ones((6, 2))], r"must be \[\(5, 2\), \(6, 2\)\]"),
        ((np.ones((5, 2)), np.full((6, 2), np.nan)), "nan or infinity"),
        ("random", "start must be 'svd' or arrays, got 'random'"),
    ],
)
def test_unfit_start_is_refused(start, message):
    with pytest.raises(ValueError, match=message):
        ExplicitALS(n_factors=2).fit(make_ratings(0, 5, 6, share=0.5), start=start)


def test_unfit_fold_in_is_refused():
    model = ExplicitALS(n_factors=2)
    for call in (model.fold_in, model.similar_items, model.similar_users):
        with pytest.raises(NotFittedError, match=r"call ExplicitALS\.fit"):
            call(0)
    ratings = make_ratings(0, 5, 6, share=0.5)
    model.fit(ratings)
    for row in (ratings[:1, :5], ratings[:2]):
        with pytest.raises(ValueError, match=r"must be \(1, 6\)"):
            model.fold_in(row)
    with pytest.raises(TypeError, match="must be a SciPy CSR array"):
        model.fold_in(np.ones((1, 6)))


def test_on_movielens_regularisation_decides_between_losing_and_winning(movielens):
    train, test = splits.random_split(movielens.ratings)

    def as_columns(part):
        return part.user_id.to_numpy() - 1, part.item_id.to_numpy() - 1

    ratings = csr_array((train.rating.astype(float), as_columns(train)), (943, 1682))

    def error(model):
        return metrics.rmse(test.rating, model.fit(ratings).predict(*as_columns(test)))

    mean, biases = error(GlobalMean()), error(DampedBiases())
    assert biases < 0.85 * mean
    assert error(ExplicitALS(weighted_regularization=False)) > 1.02 * mean
    assert error(ExplicitALS()) < 0.99 * biases
    on_residuals = ExplicitALS(
        n_factors=20, regularization=15, weighted_regularization=False, biases=True
    )
    assert error(on_residuals) < 0.98 * biases

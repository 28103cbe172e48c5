"""What `ExplicitALS` promises beyond what both models do (`test_factor_models`)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from test_factor_models import (
    EXPLICIT,
    as_csr,
    cases,
    engine,  # noqa: F401, a fixture for every test here
    known_places,
    make_ratings,
)

from als_course import metrics, splits
from als_course.als import ExplicitALS
from als_course.baselines import DampedBiases, GlobalMean


@cases
@given(problem=EXPLICIT.problems)
def test_who_has_no_ratings_has_no_factors(problem):
    ratings, settings = problem
    model = ExplicitALS(**settings).fit(ratings)
    known = known_places(ratings)
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
@given(problem=EXPLICIT.problems, scale=st.sampled_from([0.1, 3.0, 100.0]))
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


@pytest.mark.weekly
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

"""What `ImplicitALS` promises beyond what both models do (`test_factor_models`)."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_array, csr_matrix
from sklearn.exceptions import NotFittedError
from test_factor_models import (
    IMPLICIT,
    as_csr,
    cases,
    dense_implicit,
    engine,  # noqa: F401, a fixture for every test here
)
from test_factor_models import make_ratings as make_stars
from threadpoolctl import threadpool_limits

from als_course import metrics, splits
from als_course.als import ImplicitALS
from als_course.baselines import MostPopular
from als_course.datasets import ratings_matrix

make_ratings = partial(make_stars, lowest=-2)


@cases
@given(problem=IMPLICIT.problems)
def test_explanation_sums_to_the_score(problem):
    ratings, settings = problem
    model = ImplicitALS(**settings, n_iterations=3).fit(ratings)
    stars = ratings.toarray()
    for user, item in np.ndindex(ratings.shape):
        items, contributions = model.explain(user, item, n=ratings.shape[1])
        assert set(items) == set(np.flatnonzero(stars[user] > 0))
        score = model.user_factors_[user] @ model.item_factors_[item]
        assert abs(contributions.sum() - score) < 1e-10
        order = np.lexsort((items, -contributions))
        np.testing.assert_array_equal(order, np.arange(len(items)))


@cases
@given(problem=IMPLICIT.problems)
def test_explanation_is_the_formula_of_the_paper(problem):
    ratings, settings = problem
    old, new = IMPLICIT.sweeps(ratings, settings, n=2)
    likes, confidences, penalties, _ = dense_implicit(new, ratings)
    Y = old.item_factors_
    for user in np.flatnonzero(likes.any(axis=1)):
        gram = Y.T @ np.diag(confidences[user]) @ Y + penalties[user] * np.eye(len(Y.T))
        W = np.linalg.inv(gram)
        terms = new.item_factors_ @ W @ Y.T * (confidences * likes)[user]
        for item, expected in enumerate(terms):
            items, found = new.explain(user, item, n=2)
            np.testing.assert_allclose(found, expected[items], rtol=1e-7, atol=1e-9)
            assert len(items) == min(2, likes[user].sum())


@cases
@given(problem=IMPLICIT.problems)
def test_who_has_no_likes_has_no_factors(problem):
    ratings, settings = problem
    model = ImplicitALS(**settings).fit(ratings)
    likes = ratings.toarray() > 0
    for factors, liked in [
        (model.user_factors_, likes.any(axis=1)),
        (model.item_factors_, likes.any(axis=0)),
    ]:
        assert np.isfinite(factors).all()
        assert (factors[~liked] == 0).all()
        assert (factors[liked] != 0).any()
    for user in np.flatnonzero(~likes.any(axis=1)):
        assert (model.fold_in(ratings[[user]]) == 0).all()
        assert len(model.explain(user, 0)[0]) == 0


@cases
@given(
    problem=IMPLICIT.problems,
    confidence=st.sampled_from(["alpha*r", "1+alpha*r"]),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
)
def test_only_the_product_of_alpha_and_rating_matters(problem, confidence, scale):
    ratings, settings = problem
    settings["confidence"] = confidence
    model = ImplicitALS(**settings).fit(ratings)
    settings = settings | {"alpha": settings["alpha"] / scale}
    scaled = ImplicitALS(**settings).fit(scale * ratings)
    for name in ("user_factors_", "item_factors_", "history_"):
        found, expected = getattr(scaled, name), getattr(model, name)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 40.0])
@pytest.mark.parametrize("regularization", [0.01, 10.0])
def test_factors_are_those_of_the_library_implicit(alpha, regularization):
    ratings = make_ratings(0, 60, 40, share=0.2)
    rng = np.random.default_rng(1)
    start = [rng.normal(size=(size, 8)) for size in ratings.shape]
    model = ImplicitALS(8, regularization, alpha).fit(ratings, start=start)
    with threadpool_limits(limits=1, user_api="blas"):  # or implicit warns
        other = AlternatingLeastSquares(
            factors=8,
            regularization=regularization,
            alpha=alpha,
            dtype=np.float64,
            use_cg=False,
            iterations=15,
            num_threads=1,
        )
        other.user_factors, other.item_factors = (part.copy() for part in start)
        other.fit(csr_matrix(ratings), show_progress=False)
    for name in ("user_factors", "item_factors"):
        found, expected = getattr(model, name + "_"), getattr(other, name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
        assert np.abs(expected).max() > 0.1


def test_the_two_formulas_of_confidence_differ_by_one():
    ratings = make_ratings(0, 20, 15, share=0.5)
    ratings.data = np.where(ratings.data > 0, ratings.data, 1.0)
    paper = ImplicitALS(alpha=2.0, confidence="1+alpha*r").fit(ratings)
    ratings.data = 1 + 2 * ratings.data
    same = ImplicitALS(alpha=1.0, confidence="alpha*r").fit(ratings)
    np.testing.assert_allclose(paper.item_factors_, same.item_factors_, atol=1e-10)


@cases
@given(
    seed=st.integers(0, 10**6),
    a0=st.sampled_from([0.02, 0.5, 1.0, 2.0]),
    nu=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_objective_of_ials_is_found_by_the_settings_that_notes_give(seed, a0, nu):
    """The gradient of the sum in the paper is zero after each half-step, rescaled."""
    likes = as_csr(np.ones((12, 9)), np.random.default_rng(seed).random((12, 9)) < 0.4)
    if not likes.nnz:
        return
    lam = 0.3
    settings = {
        "n_factors": 2,
        "alpha": 1 + a0,
        "unobserved_weight": a0,
        "regularization": lam * (1 + a0),
        "nu": nu,
    }
    old, new = (ImplicitALS(**settings, n_iterations=n).fit(likes) for n in (1, 2))
    liked, root = likes.toarray(), np.sqrt(1 + a0)
    for X, Y, S in [
        (new.user_factors_ / root, old.item_factors_ / root, liked),
        (new.item_factors_ / root, new.user_factors_ / root, liked.T),
    ]:
        penalty = lam * (S.sum(axis=1) + a0 * S.shape[1]) ** nu
        scores = X @ Y.T
        gradient = (S * (scores - 1) + a0 * scores) @ Y + penalty[:, None] * X
        asked = S.any(axis=1)
        assert np.abs(gradient[asked]).max() < 1e-10 * (1 + np.abs(Y).max() ** 2)
        assert np.abs(X[asked]).max() > 1e-6


def test_a_function_may_weigh_by_the_user_and_fold_in_asks_it_too():
    counts = make_ratings(0, 30, 20, share=0.5)
    counts.data = np.abs(counts.data) + 1

    def of_the_mean(rows):
        sums = np.add.reduceat(rows.data, rows.indptr[:-1])
        n = np.diff(rows.indptr)
        return 1 + rows.data / np.repeat(sums / n, n)

    model = ImplicitALS(3, confidence=of_the_mean, n_iterations=2).fit(counts)
    weights = counts.copy()
    weights.data = of_the_mean(counts)
    same = ImplicitALS(3, confidence="r", n_iterations=2).fit(weights)
    np.testing.assert_array_equal(model.item_factors_, same.item_factors_)
    np.testing.assert_array_equal(
        model.fold_in(counts[[4]]), same.fold_in(weights[[4]])
    )
    assert model.explain(4, 3)[1].tolist() == same.explain(4, 3)[1].tolist()
    raw = ImplicitALS(3, confidence="r", n_iterations=2).fit(counts)
    assert np.abs(raw.item_factors_ - model.item_factors_).max() > 0.01


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        (lambda r: np.ones(r.nnz + 1), "got shape"),
        (lambda r: -np.ones(r.nnz), "a least one of -1"),
        (lambda r: np.full(r.nnz, np.nan), "must give"),
    ],
)
def test_confidences_that_fit_no_ratings_are_refused(confidence, message):
    with pytest.raises(ValueError, match=message):
        ImplicitALS(2, confidence=confidence).fit(make_ratings(0, 9, 8, share=0.5))


def test_a_model_whose_confidence_is_a_function_cannot_be_saved(tmp_path):
    ratings = make_ratings(0, 9, 8, share=0.5)
    model = ImplicitALS(2, confidence=lambda r: np.ones(r.nnz)).fit(ratings)
    with pytest.raises(TypeError, match="cannot be saved: <function"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_likes_that_weigh_no_more_than_holes_give_the_shrunk_svd():
    # Of all products of rank k, and with both penalties, the best has the singular
    # values of the likes, each lowered by λ: R. Mazumder et al., JMLR 11, 2010.
    likes = as_csr(np.ones((9, 8)), np.random.default_rng(0).random((9, 8)) < 0.5)
    left, values, right = np.linalg.svd(likes.toarray())
    shrunk = np.maximum(values[:3] - 0.2, 0)
    expected = left[:, :3] * shrunk @ right[:3]
    model = ImplicitALS(3, regularization=0.2, n_iterations=300).fit(likes)
    found = model.user_factors_ @ model.item_factors_.T
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_dislikes_lower_the_score_and_zeros_do_as_the_formula_says():
    stars = np.array([[5, 4, 0, 0], [4, 5, 3, 0], [0, 2, 4, 5.0]])
    holes = as_csr(stars, stars > 0)
    disliked = stars.copy()
    disliked[0, 2] = -5
    disliked = as_csr(disliked, disliked != 0)
    zeros = as_csr(stars, np.ones_like(stars, dtype=bool))
    scores = {}
    for confidence in ("alpha*r", "1+alpha*r"):
        model = ImplicitALS(n_factors=2, confidence=confidence)
        scores[confidence] = [
            model.fit(ratings).predict(0, 2) for ratings in (disliked, holes, zeros)
        ]
    low, middle, high = scores["alpha*r"]
    assert low + 0.1 < middle < high - 0.1  # a zero weighs nothing, a hole 1
    low, middle, same = scores["1+alpha*r"]
    assert low + 0.1 < middle
    assert middle == pytest.approx(same, abs=1e-12)


def test_recommend_leaves_out_what_was_seen_dislikes_too():
    ratings = make_ratings(0, 20, 15, share=0.5)
    model = ImplicitALS(n_factors=3).fit(ratings)
    for user in range(20):
        seen = ratings[[user]].indices
        items, scores = model.recommend(user, n=15)
        assert set(items) == set(range(15)) - set(seen)
        np.testing.assert_allclose(
            scores, model.item_factors_[items] @ model.user_factors_[user], atol=1e-12
        )
        assert len(model.recommend(user, n=15, exclude_seen=False)[0]) == 15


def test_two_tastes_are_told_apart():
    # Users and items of odd and even numbers; each user likes most of his or her kind.
    kind = np.add.outer(np.arange(20), np.arange(16)) % 2 == 0
    known = kind & (np.random.default_rng(0).random(kind.shape) < 0.6)
    model = ImplicitALS(n_factors=2).fit(as_csr(kind * 1.0, known))
    assert (model.similar_items(3, n=7)[0] % 2 == 1).all()
    assert (model.similar_users(4, n=9)[0] % 2 == 0).all()
    for user in range(20):
        n_left = (kind[user] & ~known[user]).sum()
        assert (model.recommend(user)[0][:n_left] % 2 == user % 2).all()
        assert (model.explain(user, user % 2)[1] > 0).all()


def test_nothing_dense_is_made():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 20_000, (2, 3000))
    likes = csr_array((np.ones(3000), cells), shape=(20_000, 20_000))
    tracemalloc.start()
    try:
        model = ImplicitALS(n_factors=4, n_iterations=2).fit(likes)
        model.explain(cells[0, 0], 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # one byte for each place would be 400e6


def test_svd_start_saves_sweeps(movielens):
    ratings = ratings_matrix(movielens.ratings[movielens.ratings.rating >= 4])[0]
    model = ImplicitALS(n_factors=10, regularization=10, n_iterations=5)
    by_chance = model.fit(ratings).history_
    assert model.fit(ratings, start="svd").history_[1] < by_chance[4]


def test_svd_start_fills_up_with_chance():
    ratings = make_ratings(5, 4, 6, share=0.7)
    results = []
    for seed in (0, 0, 1):
        model = ImplicitALS(n_factors=9, n_iterations=3, random_state=seed)
        results.append(model.fit(ratings, start="svd").item_factors_)
        assert (np.diff(model.history_) <= 1e-9).all()
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 0.001


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
        ("n_iterations", 0, ValueError, "n_iterations == 0, must be >= 1"),
        (
            "n_iterations",
            True,
            TypeError,
            "n_iterations must be an instance of int, not bool",
        ),
        ("regularization", -0.1, ValueError, "regularization == -0.1, must be >= 0"),
        (
            "regularization",
            np.nan,
            ValueError,
            "regularization == nan, must be a number",
        ),
        ("alpha", 0, ValueError, "alpha == 0, must be > 0"),
        ("alpha", -1.0, ValueError, "alpha == -1.0, must be > 0"),
        ("alpha", np.nan, ValueError, "alpha == nan, must be a number"),
        ("alpha", np.inf, ValueError, "alpha == inf, must be < inf"),
        ("confidence", "1 + alpha*r", ValueError, "or 'r', got '1 "),
        ("confidence", None, ValueError, "must be a function or .* got None"),
        ("eps", 0, ValueError, "eps == 0, must be > 0"),
        ("unobserved_weight", 0.0, ValueError, "unobserved_weight == 0.0, must be > 0"),
        ("nu", -1, ValueError, "nu == -1, must be >= 0"),
    ],
)
def test_bad_settings_are_refused(setting, value, error, message):
    with pytest.raises(error, match=message):
        ImplicitALS(**{setting: value})


def test_two_weights_of_one_penalty_are_refused():
    with pytest.raises(ValueError, match="nu is another weight"):
        ImplicitALS(nu=1.0, weighted_regularization=True)


@pytest.mark.parametrize(
    ("ratings", "error", "message"),
    [
        (np.ones((3, 3)), TypeError, "must be a SciPy CSR array"),
        (csr_array((3, 3)), ValueError, "holds no rating"),
        (-csr_array(np.eye(3)), ValueError, "no rating is above 0"),
        (csr_array([[1, np.nan]]), ValueError, "user 0, item 1 is not finite"),
        (csr_array(([1, 1], [0, 0], [0, 2])), ValueError, "more than once"),
    ],
)
def test_unfit_ratings_are_refused(ratings, error, message):
    with pytest.raises(error, match=message):
        ImplicitALS(n_factors=2).fit(ratings)


def test_unfit_start_and_singular_system_are_refused():
    ratings = make_ratings(0, 5, 6, share=1.0)
    with pytest.raises(ValueError, match=r"must be \[\(5, 2\), \(6, 2\)\]"):
        ImplicitALS(n_factors=2).fit(ratings, start=np.ones((2, 6, 2)))
    start = (np.zeros((5, 2)), np.ones((6, 2)))
    with pytest.raises(ValueError, match=r"user 0 \(6 .* singular; raise regulariz"):
        ImplicitALS(n_factors=2, regularization=0).fit(ratings, start=start)


def test_unfit_questions_are_refused():
    model = ImplicitALS(n_factors=2)
    for call in (model.fold_in, model.similar_items, model.similar_users):
        with pytest.raises(NotFittedError, match=r"call ImplicitALS\.fit"):
            call(0)
    with pytest.raises(NotFittedError, match=r"call ImplicitALS\.fit"):
        model.explain(0, 0)
    ratings = make_ratings(0, 5, 6, share=0.5)
    model.fit(ratings)
    with pytest.raises(ValueError, match=r"must be \(1, 6\)"):
        model.fold_in(ratings[:2])
    for user, item, message in [
        (5, 0, r"user 5 is not in 0\.\.4"),
        (0, 6, r"item 6 is not in 0\.\.5"),
        (0, [1, 2], "give one number"),
        ([0], 1, "give one number"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.explain(user, item)
    with pytest.raises(ValueError, match="n == 0, must be >= 1"):
        model.explain(0, 0, n=0)


@pytest.mark.weekly
def test_on_movielens_tuned_likes_beat_popularity_on_the_random_split(movielens):
    likes = movielens.ratings[movielens.ratings.rating >= 4].assign(rating=1)
    _, users, items = ratings_matrix(likes)
    train, test = (
        ratings_matrix(part, users, items)[0] for part in splits.random_split(likes)
    )

    def ndcg(model):
        lists, _ = model.fit(train).recommend(np.arange(len(users)))
        return metrics.ranking_scores(lists, test).ndcg.mean()

    popular = ndcg(MostPopular())
    tuned = ndcg(ImplicitALS(regularization=10))
    assert 1.8 * popular < tuned < 2.3 * popular
    assert 1.3 * popular < ndcg(ImplicitALS()) < 0.85 * tuned

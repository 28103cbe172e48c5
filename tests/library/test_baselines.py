"""Baselines by hand, and the manners that every recommender shares."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError

from als_course import baselines, recommender
from als_course.als import ExplicitALS, ImplicitALS
from als_course.recommender import check_ratings

NAN = np.nan
#: Users x items; nan is unknown. The last user and the last item have no rating.
TOY = np.array(
    [
        [5, 4, NAN, 1, NAN],
        [4, NAN, 2, NAN, NAN],
        [NAN, 5, 1, NAN, NAN],
        [NAN, NAN, NAN, NAN, NAN],
    ]
)
MEAN = 22 / 7


def as_csr(dense):
    users, items = np.nonzero(~np.isnan(dense))
    return csr_array((dense[users, items], (users, items)), shape=dense.shape)


MODELS = [
    baselines.GlobalMean(),
    baselines.ItemMean(),
    baselines.DampedBiases(),
    baselines.ItemNeighbours(),
    baselines.MostPopular(),
    baselines.RandomRanking(),
    ExplicitALS(n_factors=2),
    ExplicitALS(n_factors=2, biases=True),
    ImplicitALS(n_factors=2),
]
every_model = pytest.mark.parametrize(
    "model", MODELS, ids=lambda m: type(m).__name__ + " b" * getattr(m, "biases", False)
)


def test_global_mean_by_hand():
    model = baselines.GlobalMean().fit(as_csr(TOY))
    assert model.mean_ == pytest.approx(MEAN)
    assert model.predict([0, 3], [0, 4]) == pytest.approx([MEAN, MEAN])


def test_item_mean_by_hand():
    model = baselines.ItemMean().fit(as_csr(TOY))
    expected = [4.5, 4.5, 1.5, 1, MEAN]
    assert model.predict([3] * 5, range(5)) == pytest.approx(expected)
    damped = baselines.ItemMean(damping=2).fit(as_csr(TOY))
    assert damped.predict(0, 0) == pytest.approx((9 + 2 * MEAN) / 4)


def test_damped_biases_by_hand():
    model = baselines.DampedBiases(damping=3).fit(as_csr(TOY))
    item = np.array([9 - 2 * MEAN, 9 - 2 * MEAN, 3 - 2 * MEAN, 1 - MEAN, 0])
    item /= np.array([5, 5, 5, 4, 3])
    first = (10 - 3 * MEAN - item[[0, 1, 3]].sum()) / 6
    assert model.item_biases_ == pytest.approx(item)
    assert model.user_biases_[[0, 3]] == pytest.approx([first, 0])
    assert model.predict(0, 2) == pytest.approx(MEAN + item[2] + first)


def test_more_damping_shrinks_every_bias():
    small, large = (baselines.DampedBiases(d).fit(as_csr(TOY)) for d in (1, 10))
    assert (np.abs(large.item_biases_) <= np.abs(small.item_biases_)).all()
    assert np.abs(large.item_biases_).sum() < np.abs(small.item_biases_).sum()


def test_most_popular_counts_and_breaks_ties_by_column():
    model = baselines.MostPopular().fit(as_csr(TOY))
    items, scores = model.recommend(3)
    assert items.tolist() == [0, 1, 2, 3, 4]
    assert scores.tolist() == [2, 2, 2, 1, 0]


def test_random_ranking_is_fixed_by_seed_and_user():
    ratings = csr_array(np.ones((300, 40)))
    model = baselines.RandomRanking(seed=1).fit(ratings)
    lists, _ = model.recommend(np.arange(300), n=1, exclude_seen=False)
    again, _ = model.recommend(7, n=1, exclude_seen=False)
    assert again[0] == lists[7, 0]
    assert (np.bincount(lists[:, 0], minlength=40) > 0).all()
    other = baselines.RandomRanking(seed=2).fit(ratings)
    assert (other.recommend(np.arange(300), 1, False)[0] != lists).any()


@every_model
def test_recommend_ranks_the_predictions_of_what_is_unseen(model):
    model.fit(as_csr(TOY))
    for user, row in enumerate(TOY):
        items, scores = model.recommend(user)
        assert sorted(items) == np.flatnonzero(np.isnan(row)).tolist()
        order = sorted(zip(-scores, items, strict=True))
        assert [item for _, item in order] == items.tolist()
        if not model.known_users_[user] and model.personal:
            continue  # popularity, and held below
        predicted = model.predict(np.full(len(items), user), items)
        np.testing.assert_allclose(scores, predicted, rtol=1e-12)


PERSONAL = [model for model in MODELS if model.personal]
STARS = [m for m in MODELS if isinstance(m, (ExplicitALS, baselines.DampedBiases))]


def called(model):
    return type(model).__name__ + " with biases" * getattr(model, "biases", False)


@pytest.mark.parametrize("model", PERSONAL, ids=called)
def test_a_user_never_seen_gets_what_is_popular(model):
    model.fit(as_csr(TOY))
    popular = baselines.MostPopular().fit(as_csr(TOY))
    for n in (2, 9):
        lists, counts = model.recommend([0, 3], n, exclude_seen=False)
        expected, n_ratings = popular.recommend(3, n)
        np.testing.assert_array_equal(lists[1], expected)
        np.testing.assert_array_equal(counts[1], n_ratings)
    assert not np.array_equal(counts[0], counts[1])


@pytest.mark.parametrize("model", STARS, ids=called)
def test_a_user_and_an_item_never_seen_are_predicted_with_the_mean(model):
    model.fit(as_csr(TOY))
    assert model.predict(3, 4) == pytest.approx(MEAN)
    if getattr(model, "biases", True):  # what is known of the other side still counts
        mean, of_user, of_item = model.mean_, model.user_biases_, model.item_biases_
        assert model.predict(3, 0) == pytest.approx(mean + of_item[0])
        assert model.predict(0, 4) == pytest.approx(mean + of_user[0])
    else:
        assert model.predict([3, 0], [0, 4]) == pytest.approx([MEAN, MEAN])
        items, scores = model.recommend(0)
        assert scores[items == 4] == pytest.approx(MEAN)
    assert model.predict(0, 0) != pytest.approx(MEAN)


def test_scores_of_likes_for_a_user_never_seen_are_popularity():
    dislikes_only = csr_array([[3.0, 1, 0], [2, 0, 0], [-1, 0, -2], [0, 0, 0]])
    model = ImplicitALS(n_factors=2).fit(dislikes_only)
    assert model.known_users_.tolist() == [True, True, False, False]
    assert model.known_items_.tolist() == [True, True, False]
    for user in (2, 3):
        assert model.predict([user] * 3, range(3)).tolist() == [2, 1, 0]


@every_model
def test_the_pairs_that_the_rule_answers_are_counted(model):
    model.fit(as_csr(TOY))
    assert model.count_unknown([0, 3, 0, 3, 1], [0, 0, 4, 4, 2]) == 3
    assert model.count_unknown(3, 0) == model.count_unknown(0, 4) == 1
    assert model.count_unknown([], []) == model.count_unknown(0, 0) == 0
    with pytest.raises(ValueError, match="differ in shape"):
        model.count_unknown([0, 1], [0])


def test_what_biases_leave_over_by_hand():
    model = baselines.DampedBiases(damping=3).fit(as_csr(TOY))
    known = ~np.isnan(TOY)
    expected = TOY - model.mean_ - model.user_biases_[:, None] - model.item_biases_
    left = model.residuals(as_csr(TOY))
    np.testing.assert_allclose(left.toarray()[known], expected[known], rtol=1e-12)
    assert left.nnz == known.sum()
    # Somebody else, whose bias comes from these two ratings.
    row = csr_array([[2.0, 0, 5, 0, 0]])
    centred = np.array([2, 5]) - model.mean_ - model.item_biases_[[0, 2]]
    of_row = model.residuals(row).data
    np.testing.assert_allclose(of_row, centred - centred.sum() / 5, rtol=1e-12)
    assert model.residuals(row.astype("f4")).dtype == "f4"
    assert model.residuals(row.astype("i8")).dtype == "f8"
    for bad, error in [(row[:, :4], ValueError), (row.tocsc(), TypeError)]:
        with pytest.raises(error, match="must"):
            model.residuals(bad)
    with pytest.raises(NotFittedError):
        baselines.DampedBiases().residuals(row)


@every_model
def test_recommend_for_several_is_that_for_each(model, monkeypatch):
    monkeypatch.setattr(recommender, "BLOCK_CELLS", 5)  # one user a block
    model.fit(as_csr(TOY))
    asked, score_all = [], model._score_all
    monkeypatch.setattr(
        model, "_score_all", lambda users: asked.append(users) or score_all(users)
    )
    lists, scores = model.recommend([3, 0, 0], n=4)
    assert [users.tolist() for users in asked] == [[3], [0], [0]]
    assert lists.shape == scores.shape == (3, 4)
    for place, user in enumerate([3, 0, 0]):
        items, best = model.recommend(user, n=4)
        filled = lists[place] >= 0
        assert lists[place, filled].tolist() == items.tolist()
        np.testing.assert_allclose(scores[place, filled], best, rtol=1e-12)
        assert (scores[place, ~filled] == -np.inf).all()
    assert model.recommend([], n=4)[0].shape == (0, 4)


@every_model
def test_recommend_gives_all_there_is_when_asked_for_more(model):
    model.fit(as_csr(TOY))
    assert len(model.recommend(0, n=99)[0]) == 2
    assert len(model.recommend(0, n=99, exclude_seen=False)[0]) == 5


@every_model
def test_predict_keeps_the_shape(model):
    model.fit(as_csr(TOY))
    assert isinstance(model.predict(0, 1), float)
    assert model.predict([0], [1]).shape == (1,)
    assert model.predict([], []).shape == (0,)
    assert model.predict([[0, 1]], [[1, 2]]).shape == (1, 2)


@every_model
@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (4, 0, r"user 4 is not in 0\.\.3.*factorize"),
        (-1, 0, "user -1 is not in"),
        (0, 5, r"item 5 is not in 0\.\.4.*factorize"),
        ([0, 3_000_000_000], [0, 0], "user 3000000000 is not in"),
        ([2**63], [0], "user 9223372036854775808 is not in"),
        (0, 3e9, "item must be an integer, got float64.*factorize"),
        ("A2IBPI20UZIR0U", 0, "user must be an integer, got <U14.*factorize"),
        (True, 0, "user must be an integer, got bool"),
        ([0, 1], [0], "differ in shape"),
    ],
)
def test_unknown_users_and_items_are_refused(model, users, items, message):
    model.fit(as_csr(TOY))
    with pytest.raises(ValueError, match=message):
        model.predict(users, items)


@every_model
def test_recommend_refuses_the_unknown_and_the_empty(model):
    model.fit(as_csr(TOY))
    with pytest.raises(ValueError, match="user 4 is not in"):
        model.recommend(4)
    with pytest.raises(ValueError, match="n == 0, must be >= 1"):
        model.recommend(0, n=0)


@every_model
def test_nothing_works_before_fit(model):
    fresh = type(model)()
    for call in (fresh.predict, lambda u, i: fresh.recommend(u)):
        with pytest.raises(NotFittedError, match=f"call {type(model).__name__}.fit"):
            call(0, 0)


BAD_RATINGS = {
    "dense": (TOY, TypeError, "must be a SciPy CSR array.*got ndarray"),
    "coo": (as_csr(TOY).tocoo(), TypeError, "got coo"),
    "csc": (as_csr(TOY).tocsc(), TypeError, "got csc"),
    "bool": (csr_array(np.eye(2, dtype=bool)), TypeError, "got bool"),
    "complex": (csr_array(np.eye(2) * 1j), TypeError, "got complex128"),
    "no rating": (csr_array((3, 4)), ValueError, r"\(3, 4\) holds no rating"),
    "no user": (csr_array((0, 4)), ValueError, r"\(0, 4\) holds no rating"),
    "nan": (csr_array([[1, 0], [0, NAN]]), ValueError, "user 1, item 1 is not finite"),
    "infinity": (csr_array([[1, -np.inf]]), ValueError, "user 0, item 1 is not finite"),
    "flat": (csr_array(np.ones(3)), ValueError, "two dimensions"),
    "repeated": (
        csr_array(([5.0, 1, 4], [2, 0, 2], [0, 3]), shape=(1, 3)),
        ValueError,
        "user 0, item 2 is there more than once",
    ),
    "repeated at the end, where the first user has none": (
        csr_array(([5.0, 1], [2, 2], [0, 0, 2]), shape=(2, 3)),
        ValueError,
        "user 1, item 2 is there more than once",
    ),
    "column": (
        csr_array(([5.0], [2], [0, 1]), shape=(1, 3)),
        ValueError,
        "indices",
    ),
}
BAD_RATINGS["column"][0].indices[0] = 7


@every_model
@pytest.mark.parametrize("bad", BAD_RATINGS)
def test_bad_ratings_are_refused(model, bad):
    ratings, error, message = BAD_RATINGS[bad]
    with pytest.raises(error, match=message):
        model.fit(ratings)


@every_model
@pytest.mark.parametrize("kind", [sparse.csr_matrix, csr_array])
@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_kind_and_type_of_the_matrix_do_not_matter(model, kind, dtype):
    expected = model.fit(as_csr(TOY)).predict([0, 3], [2, 4])
    given = kind(as_csr(TOY).astype(dtype))
    np.testing.assert_array_equal(model.fit(given).predict([0, 3], [2, 4]), expected)


def test_a_users_last_item_may_be_the_next_users_first():
    stars = csr_array([[5.0, 3, 0], [0, 4, 2], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(check_ratings(stars).toarray(), stars.toarray())


def test_indices_are_as_narrow_as_they_may_be():
    wide = csr_array(np.eye(3, 100))
    wide.indices = wide.indices.astype(np.int64)
    assert check_ratings(wide).indices.dtype == np.int32


@every_model
def test_order_of_stored_entries_does_not_matter_and_stays(model):
    columns = np.array([2, 0, 1])
    given = csr_array((np.array([1.0, 5, 3]), columns, [0, 2, 3]), shape=(2, 3))
    expected = model.fit(csr_array([[5.0, 0, 1], [0, 3, 0]])).recommend(1)
    for found, wanted in zip(model.fit(given).recommend(1), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert given.indices.tolist() == [2, 0, 1]


def test_stored_zero_is_a_rating():
    stored = csr_array(([4.0, 0.0], ([0, 0], [0, 1])), shape=(1, 3))
    assert baselines.GlobalMean().fit(stored).mean_ == 2
    assert baselines.MostPopular().fit(stored).recommend(0)[0].tolist() == [2]


@pytest.mark.parametrize("model", [baselines.ItemMean, baselines.DampedBiases])
@pytest.mark.parametrize("damping", [-1, NAN, np.inf])
def test_bad_damping_is_refused(model, damping):
    with pytest.raises(ValueError, match=r"damping == .*, must be"):
        model(damping=damping)


def neighbours_by_loops(dense, biases, n_neighbours, shrinkage):
    """Predictions of `ItemNeighbours`, by its definition and nothing faster."""
    left = dense - biases
    n_users, n_items = dense.shape
    similar = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            both = ~np.isnan(left[:, i]) & ~np.isnan(left[:, j])
            one, other = left[both, i], left[both, j]
            size = np.sqrt((one**2).sum() * (other**2).sum())
            if i != j and size > 0:
                similar[i, j] = one @ other / size * both.sum()
                similar[i, j] /= both.sum() + shrinkage
    predicted = biases.copy()
    for u in range(n_users):
        rated = np.flatnonzero(~np.isnan(left[u]))
        for i in range(n_items):
            nearest = sorted(rated, key=lambda j: -similar[i, j])[:n_neighbours]
            weights = np.maximum(similar[i, nearest], 0)
            if weights.sum() > 0:
                predicted[u, i] += weights @ left[u, nearest] / weights.sum()
    return predicted


@pytest.mark.parametrize("n_neighbours", [1, 3, 40])
@pytest.mark.parametrize("shrinkage", [0, 2.5])
def test_item_neighbours_are_their_definition(n_neighbours, shrinkage):
    rng = np.random.default_rng(3)
    dense = np.where(rng.random((30, 12)) < 0.6, rng.normal(3, 1, (30, 12)), NAN)
    model = baselines.ItemNeighbours(2, n_neighbours, shrinkage).fit(as_csr(dense))
    places = np.indices(dense.shape)
    biases = baselines.DampedBiases(2).fit(as_csr(dense)).predict(*places)
    expected = neighbours_by_loops(dense, biases, n_neighbours, shrinkage)
    assert model.predict(*places) == pytest.approx(expected)
    _, best = model.recommend(range(30), n=1, exclude_seen=False)
    assert best[:, 0] == pytest.approx(expected.max(axis=1))


def test_item_neighbours_find_the_taste_that_biases_cannot_hold():
    """Two kinds of users with opposite tastes, and nothing but noise for a bias."""
    rng = np.random.default_rng(0)
    taste = np.outer(rng.choice([-1, 1], 120), rng.choice([-1, 1], 40))
    dense = 3 + taste + 0.2 * rng.normal(size=taste.shape)
    hidden = rng.random(taste.shape) < 0.3
    known = as_csr(np.where(hidden, NAN, dense))
    at = np.nonzero(hidden)
    error = {
        model: np.sqrt(np.mean((model.fit(known).predict(*at) - dense[at]) ** 2))
        for model in (baselines.DampedBiases(), baselines.ItemNeighbours())
    }
    biases, neighbours = error.values()
    assert biases > 0.9
    assert neighbours < 0.3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_neighbours": 0}, "n_neighbours"),
        ({"shrinkage": -1}, "shrinkage"),
        ({"shrinkage": NAN}, "shrinkage"),
        ({"damping": -1}, "damping"),
    ],
)
def test_item_neighbours_refuse_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        baselines.ItemNeighbours(**settings)


def test_similar_by_hand():
    model = ExplicitALS(n_factors=2).fit(csr_array(np.ones((6, 6))))
    factors = np.array([[2.0, 0], [0, 3], [5, 0], [0, 0], [1, 1], [-1, 0]])
    model.item_factors_ = model.user_factors_ = factors
    for similar in (model.similar_items, model.similar_users):
        found, cosines = similar(0)
        assert found.tolist() == [2, 4, 1, 3, 5]
        np.testing.assert_allclose(cosines, [1, np.sqrt(0.5), 0, 0, -1], atol=1e-15)
        assert similar(0, n=2)[0].tolist() == [2, 4]
        assert similar(3)[0].tolist() == [0, 1, 2, 4, 5]
        assert similar(3)[1].tolist() == [0] * 5
        for unfit in (6, -1, 0.5, "a", [0, 1]):
            with pytest.raises(ValueError, match=r"is not in|integer|one number"):
                similar(unfit)

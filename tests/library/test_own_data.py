"""What people bring along: matrices, types, times and tables not the course's."""

import io
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from als_course import baselines, comparison, metrics, recommender, splits
from als_course.als import ExplicitALS, ImplicitALS
from als_course.datasets import ratings_matrix

TABLE = pd.DataFrame(
    {
        "user_id": [0, 0, 1, 1, 2, 3],
        "item_id": [1, 0, 1, 2, 2, 0],
        "rating": [5.0, 3.0, 4.0, 1.0, 2.0, 5.0],
        "timestamp": [956703932, 978300760, 999999999, 10**9, 1046454590, 1046454591],
    }
)
MATRIX, _, _ = ratings_matrix(TABLE)
MODELS = [
    ExplicitALS(2),
    ExplicitALS(n_factors=np.int64(2), biases=True, random_state=7),
    ExplicitALS(2, dtype="float32", regularization=np.float32(0.5)),
    ImplicitALS(2, alpha=3, confidence="1+alpha*r", random_state=None),
    baselines.GlobalMean(),
    baselines.DampedBiases(2),
    baselines.ItemNeighbours(n_neighbours=2),
    baselines.MostPopular(),
    baselines.RandomRanking(seed=3),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=repr)


# -- matrices --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coo", "csc", "csr", "lil", "dok"])
@pytest.mark.parametrize("of", [sparse.coo_array, sparse.coo_matrix])
def test_a_sparse_matrix_of_any_format_gives_the_same_ratings(kind, of):
    given = of((TABLE.rating, (TABLE.user_id, TABLE.item_id))).asformat(kind)
    matrix, users, items = ratings_matrix(given)
    np.testing.assert_array_equal(matrix.toarray(), MATRIX.toarray())
    assert (matrix.nnz, users.tolist(), items.tolist()) == (6, [0, 1, 2, 3], [0, 1, 2])
    named, users, _ = ratings_matrix(given, user_ids=list("dcba"))
    np.testing.assert_array_equal(named.toarray(), MATRIX.toarray())
    assert users.tolist() == list("dcba")


@pytest.mark.parametrize("kind", ["coo", "csc"])
def test_what_is_rated_twice_is_refused_and_not_added_up(kind):
    places = [5, 4, 3.0], ([0, 0, 0], [1, 1, 0])
    given = sparse.coo_array(places, shape=(1, 2))
    if kind == "csc":  # by hand, as SciPy's conversion would add up
        given = sparse.csc_array(([3, 5, 4.0], [0, 0, 0], [0, 1, 3]), shape=(1, 2))
    with pytest.raises(ValueError, match="user 0 and item 1"):
        ratings_matrix(given)


def test_empty_rows_and_stored_zeros_of_a_matrix_stay():
    given = sparse.coo_array(([0.0, 4.0], ([0, 3], [1, 0])), shape=(5, 3))
    matrix, _, _ = ratings_matrix(given)
    assert (matrix.shape, matrix.nnz) == ((5, 3), 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (MATRIX.toarray(), "got ndarray; scipy.sparse.csr_array makes"),
        ([[5, 0]], "got list"),
        (sparse.bsr_array(MATRIX), "cannot tell which entries of a bsr array"),
        (sparse.dia_array(MATRIX), "cannot tell which entries of a dia array"),
        (sparse.coo_array([5.0, 4.0]), r"coo array of shape \(2,\)"),
    ],
)
def test_what_may_hold_zeros_that_are_no_ratings_is_refused(given, message):
    with pytest.raises(TypeError, match=message):
        ratings_matrix(given)
    with pytest.raises((TypeError, ValueError), match=r"CSR array|two dimensions"):
        ExplicitALS(2).fit(given)


def test_axes_of_a_matrix_must_be_as_long_as_it():
    with pytest.raises(ValueError, match=r"3 user_ids and 3 item_ids .*\(4, 3\)"):
        ratings_matrix(MATRIX, user_ids=[1, 2, 3])


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (MATRIX.tocoo(), "als_course.datasets.ratings_matrix .* SciPy would add up"),
        (MATRIX.T, "als_course.datasets.ratings_matrix"),
        (TABLE, "got DataFrame; als_course.datasets.ratings_matrix"),
        (MATRIX.toarray(), "csr_array makes one of an array in which every 0"),
    ],
)
def test_fit_names_a_way_out_that_adds_nothing_up(given, way_out):
    with pytest.raises(TypeError, match=way_out):
        ExplicitALS(2).fit(given)


def test_a_row_taken_as_a_vector_is_told_how_to_be_taken():
    model = ExplicitALS(2).fit(MATRIX)
    with pytest.raises(ValueError, match=r"one row as R\[\[0\]\]"):
        model.fold_in(MATRIX[0])
    assert model.fold_in(MATRIX[[0]]).shape == (2,)


# -- ids and times ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "times",
    [
        TABLE.timestamp.astype(str),
        TABLE.timestamp.astype("string"),
        TABLE.timestamp.astype(str).astype("category"),
        TABLE.timestamp.astype(object),
        pd.to_datetime(TABLE.timestamp, unit="s").dt.strftime("%m %d, %Y"),
    ],
    ids=["str", "string", "category", "object", "month first"],
)
@pytest.mark.parametrize("split", [splits.global_time_split, splits.user_last_split])
def test_times_that_are_text_are_refused(split, times):
    with pytest.raises(TypeError, match=r"timestamp is .* pandas.to_datetime"):
        split(TABLE.assign(timestamp=times))


@pytest.mark.parametrize(
    "times",
    [
        TABLE.timestamp,
        TABLE.timestamp.astype("float32").astype("Float64"),
        pd.to_datetime(TABLE.timestamp, unit="s"),
        pd.to_datetime(TABLE.timestamp, unit="s", utc=True),
        pd.to_numeric(TABLE.timestamp.astype(str)),
    ],
    ids=["int", "Float64", "datetime", "with zone", "to_numeric"],
)
def test_numbers_and_times_are_split_by_the_clock(times):
    _, test = splits.global_time_split(TABLE.assign(timestamp=times), test_size=0.3)
    assert test.index.tolist() == [4, 5]


@pytest.mark.parametrize("kind", ["str", "string", "category", "Int64", "float64"])
def test_ids_of_any_one_type_give_the_same_scores(kind):
    train, test = splits.random_split(TABLE, 0.5)
    expected = comparison.rating_table({"mean": baselines.ItemMean()}, train, test)
    types = {"user_id": kind, "item_id": kind}
    table = comparison.rating_table(
        {"mean": baselines.ItemMean()}, train.astype(types), test.astype(types)
    )
    pd.testing.assert_frame_equal(table, expected)


def test_ids_of_two_types_are_refused():
    with pytest.raises(ValueError, match="column user_id mixes int and str"):
        ratings_matrix(TABLE.assign(user_id=[0, "0", 1, 1, 2, 3]))
    with pytest.raises(ValueError, match="column item_id mixes int and str"):
        comparison.rating_table(
            {"mean": baselines.GlobalMean()}, TABLE, TABLE.astype({"item_id": str})
        )


def test_unseen_users_are_scored_by_the_mean_and_counted():
    test = TABLE.assign(user_id=TABLE.user_id + 3)  # only user 3 is known
    models = {"mean": baselines.GlobalMean(), "ALS": ExplicitALS(2)}
    table = comparison.rating_table(models, TABLE, test)
    assert table.unknown.tolist() == [4, 4]
    strangers = test[test.user_id > 3]
    table = comparison.rating_table(models, TABLE, strangers)
    ours, of_mean = table.loc["ALS"], table.loc["mean"]
    assert ours["test RMSE"] == of_mean["test RMSE"]  # not that of zero stars


# -- lists -----------------------------------------------------------------------------


def test_scores_of_a_list_take_what_recommend_gives():
    model = baselines.MostPopular().fit(MATRIX)
    lists, scores = model.recommend(np.arange(4), n=3)
    assert lists[0].tolist() == [2, -1, -1]
    relevant = sparse.csr_array(np.ones((4, 3)))
    table = metrics.ranking_scores(lists, relevant, n=3)
    for name, score in [
        ("precision", metrics.precision_at_k),
        ("recall", metrics.recall_at_k),
        ("map", metrics.average_precision_at_k),
        ("ndcg", metrics.ndcg_at_k),
    ]:
        of_each = [score(row, {0, 1, 2}, 3) for row in lists]
        np.testing.assert_allclose(of_each, table[name])
        alone = [score(model.recommend(u, n=3)[0], {0, 1, 2}, 3) for u in range(4)]
        np.testing.assert_allclose(alone, table[name])
    for both in ((lists, scores), lists, model.recommend(0)):
        with pytest.raises(ValueError, match="the items of one user"):
            metrics.precision_at_k(both, {0}, 3)


def test_recommend_sorts_no_more_than_it_must_and_breaks_ties_by_column(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (30, 97)).astype(float)
    scores[0], scores[1, 5:] = -np.inf, -np.inf
    sizes, lexsort = [], np.lexsort

    def count(keys):
        sizes.append(len(keys[0]))
        return lexsort(keys)

    monkeypatch.setattr(np, "lexsort", count)
    for n in (1, 3, 10, 97, 200):
        columns, best = metrics.top_k(scores, n)
        width = min(n, 97)
        assert columns.shape == best.shape == (30, width)
        for row, found, values in zip(scores, columns, best, strict=True):
            order = sorted(range(97), key=lambda c, row=row: (-row[c], c))[:width]
            wanted = [c if row[c] > -np.inf else -1 for c in order]
            assert found.tolist() == wanted
            assert values.tolist() == [row[c] for c in order]
    metrics.top_k(np.zeros((30, 97)), 3)
    assert sizes[-1] == 30 * 3  # all are equal, and the first three of a row will do


# -- files and parameters --------------------------------------------------------------


@every_model
def test_a_model_read_back_answers_as_the_one_saved(model, tmp_path):
    model = clone(model).fit(MATRIX)
    path = tmp_path / "a model"  # written under this very name
    model.save(path)
    again = type(model).load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a model"]
    assert again.get_params() == model.get_params()
    everybody = np.arange(4)
    for answer, expected in zip(
        again.recommend(everybody), model.recommend(everybody), strict=True
    ):
        np.testing.assert_array_equal(answer, expected)
    users, items = np.indices(MATRIX.shape).reshape(2, -1)
    predicted = model.predict(users, items)
    np.testing.assert_array_equal(again.predict(users, items), predicted)
    assert {n: type(v) for n, v in vars(again).items()} == {
        n: type(v) for n, v in vars(model).items()
    } | {n: type(v) for n, v in again.get_params().items()}
    if hasattr(model, "fold_in"):
        np.testing.assert_array_equal(
            again.fold_in(MATRIX[[1]]), model.fold_in(MATRIX[[1]])
        )
        np.testing.assert_array_equal(
            again.similar_items(0)[1], model.similar_items(0)[1]
        )


@every_model
def test_without_its_ratings_a_model_predicts_and_says_what_it_cannot(model, tmp_path):
    model = clone(model).fit(MATRIX)
    model.save(tmp_path / "m.npz", ratings=False)
    again = type(model).load(tmp_path / "m.npz")
    assert again.predict(1, 0) == model.predict(1, 0)
    kept = np.load(tmp_path / "m.npz")
    assert not [name for name in kept if name.startswith("_ratings")]
    for answer, expected in zip(
        again.recommend(2, exclude_seen=False),
        model.recommend(2, exclude_seen=False),
        strict=True,
    ):
        np.testing.assert_array_equal(answer, expected)
    with pytest.raises(ValueError, match=r"exclude_seen=False.*ratings=True"):
        again.recommend(2)
    if hasattr(model, "explain"):
        assert sorted(model.explain(1, 0)[0]) == [1, 2]
        with pytest.raises(ValueError, match="saved without its ratings"):
            again.explain(1, 0)


def test_explanations_are_read_back(tmp_path):
    model = ImplicitALS(2).fit(MATRIX)
    model.save(tmp_path / "m.npz")
    for answer, expected in zip(
        ImplicitALS.load(tmp_path / "m.npz").explain(1, 0),
        model.explain(1, 0),
        strict=True,
    ):
        np.testing.assert_array_equal(answer, expected)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


OTHER_VERSION = json.dumps(["als_course model 9", "ExplicitALS", {}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(ExplicitALS(2)), "is no file that a model was saved in"),
        (b"", "is no file that"),
        (b"user,item\n", "is no file that"),
        (npz(a=np.ones(3)), "is no file that"),
        (npz(header=np.ones(3)), "is no file that"),
        (npz(header=np.array([print], dtype=object)), "is no file that"),
        (npz(header=OTHER_VERSION), "holds als_course model 9, ExplicitALS; need"),
    ],
    ids=["pickle", "empty", "text", "arrays", "numbers", "objects", "version"],
)
def test_a_file_that_holds_no_model_is_refused(content, message, tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ExplicitALS.load(path)


def test_a_file_cut_off_or_of_another_class_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    ImplicitALS(2).fit(MATRIX).save(path)
    with pytest.raises(ValueError, match="holds als_course model 1, ImplicitALS"):
        ExplicitALS.load(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="is no file that"):
        ImplicitALS.load(path)
    with pytest.raises(FileNotFoundError):
        ImplicitALS.load(tmp_path / "none.npz")


def test_what_cannot_be_saved_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "m.npz"
    model = ExplicitALS(2).fit(MATRIX)
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(NotFittedError):
        ExplicitALS(2).save(path)
    model.set_params(random_state=np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"Generator.*set_params"):
        model.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@every_model
def test_parameters_are_read_set_and_cloned_as_scikit_learn_does(model):
    fitted = clone(model).fit(MATRIX)
    other = clone(fitted)
    assert type(other) is type(model)
    assert other.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        other.predict(0, 0)
    for name, value in model.get_params().items():
        assert other.set_params(**{name: value}) is other
    with pytest.raises(ValueError, match="Invalid parameter"):
        other.set_params(colour="red")


@pytest.mark.parametrize(
    ("model", "setting", "error", "message"),
    [
        (ExplicitALS(2), {"n_factors": 0}, ValueError, "n_factors == 0"),
        (ExplicitALS(2), {"regularization": "0.1"}, TypeError, "regularization must"),
        (ExplicitALS(2), {"engine": "gpu"}, ValueError, "engine must be"),
        (ImplicitALS(2), {"alpha": 0}, ValueError, "alpha == 0"),
        (ImplicitALS(2), {"confidence": "log"}, ValueError, "confidence must be"),
        (baselines.DampedBiases(), {"damping": -1}, ValueError, "damping == -1"),
        (baselines.ItemNeighbours(), {"shrinkage": -1}, ValueError, "shrinkage == -1"),
    ],
)
def test_a_setting_that_came_later_is_checked_before_fitting(
    model, setting, error, message
):
    with pytest.raises(error, match=message):
        clone(model).set_params(**setting).fit(MATRIX)


def test_blocks_of_users_give_the_lists_of_each(monkeypatch):
    models = [clone(model).fit(MATRIX) for model in MODELS]
    whole = [model.recommend([3, 1, 1, 0], n=2) for model in models]
    monkeypatch.setattr(recommender, "BLOCK_CELLS", 4)  # one user at a time
    for model, expected in zip(models, whole, strict=True):
        items, scores = model.recommend([3, 1, 1, 0], n=2)
        np.testing.assert_array_equal(items, expected[0])
        np.testing.assert_allclose(scores, expected[1], rtol=1e-6)

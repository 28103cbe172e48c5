"""Listening counts: read whole or refused, and a look-alike that comes near them."""

import hashlib

import numpy as np
import pytest
from conftest import load_real

from als_course import datasets, metrics
from als_course.als import ImplicitALS
from als_course.baselines import MostPopular
from als_course.datasets import DatasetError, lastfm
from faultserver import content
from small_sets import zipped

FILE, ZIP = "user_artists.dat", "hetrec2011-lastfm-2k.zip"
ROWS = [(2, 51, 13883), (2, 52, 11690), (7, 51, 1)]


def dat(rows=ROWS, header="userID\tartistID\tweight") -> bytes:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    return "".join(line + "\r\n" for line in lines).encode()


@pytest.fixture
def known(monkeypatch):
    """Let three rows pass for the real set."""
    lines = sorted("\t".join(map(str, [*row, 0])) + "\n" for row in ROWS)
    found = hashlib.sha256("".join(lines).encode()).hexdigest()
    monkeypatch.setattr(lastfm, "LASTFM_FINGERPRINT", found)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("name", [FILE, f"hetrec2011-lastfm-2k/{FILE}", ZIP])
def test_counts_are_read_from_the_folder_and_the_zip(data, name):
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_bytes(zipped({FILE: dat()}) if name == ZIP else dat())
    loaded = datasets.fetch_lastfm_2k()
    assert loaded.source == "real"
    assert loaded.path == data / name
    assert loaded.ratings.to_numpy().tolist() == [[*row, 0] for row in ROWS]


@pytest.mark.usefixtures("known")
def test_the_zip_is_fetched_once_and_kept(server, cache):
    server.answers[f"/{ZIP}"] = content(zipped({FILE: dat()}))
    assert datasets.fetch_lastfm_2k().path == cache / ZIP
    assert datasets.fetch_lastfm_2k().source == "real"
    assert server.asked.count(f"/{ZIP}") == 1


@pytest.mark.weekly
def test_without_a_network_the_lookalike_stands_in_and_the_cache_remembers(cache):
    assert datasets.fetch_lastfm_2k().source == "look-alike"
    assert "127.0.0.1" in (cache / lastfm.LASTFM_MARKER).read_text("utf-8")
    assert datasets.fetch_lastfm_2k().source == "look-alike"


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is empty"),
        (dat(header="user\tartist\tplays"), r"line 1: .* found 'user\\tartist"),
        (dat([*ROWS, ("9", "a", "1")]), r"line 5: .* found '9\\ta\\t1'"),
        (dat([*ROWS, ("9", "1", "-4")]), "line 5"),
        (dat([*ROWS, ("9", "1")]), "line 5"),
        (dat([*ROWS, (9, 1, 1)]), "counts"),
        (dat(ROWS[:2]), "counts"),
    ],
)
def test_a_damaged_original_is_refused_by_its_line(data, body, said):
    (data / FILE).write_bytes(body)
    with pytest.raises(DatasetError, match=said) as error:
        datasets.fetch_lastfm_2k()
    assert str(data / FILE) in str(error.value)


def test_a_zip_without_the_counts_is_refused(data):
    (data / ZIP).write_bytes(zipped({"artists.dat": b""}))
    with pytest.raises(DatasetError, match="holds none of user_artists"):
        datasets.fetch_lastfm_2k()


def test_the_lookalike_may_be_asked_for_and_nothing_else(monkeypatch):
    monkeypatch.setenv("ALS_COURSE_LASTFM", "look-alike")
    assert datasets.fetch_lastfm_2k().source == "look-alike"
    monkeypatch.setenv("ALS_COURSE_LASTFM", "yes")
    with pytest.raises(DatasetError, match="ALS_COURSE_LASTFM is 'yes'"):
        datasets.fetch_lastfm_2k()


# -- the look-alike --------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    return datasets.make_lastfm_lookalike()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    loaded = load_real(datasets.fetch_lastfm_2k, tmp_path_factory.mktemp("cache"))
    if loaded is None:
        pytest.skip("no Last.fm 2K here: run python -m als_course.datasets in book/")
    return loaded


def counts_of(ratings, column):
    return ratings[column].value_counts().to_numpy()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_lookalike_is_counted_like_the_original(seed):
    ratings = datasets.make_lastfm_lookalike(seed).ratings
    assert len(ratings) == 92_834
    assert ratings.user_id.nunique() == 1_892
    assert ratings.item_id.nunique() == 17_632
    assert not ratings.duplicated(["user_id", "item_id"]).any()
    assert (counts_of(ratings, "user_id") == 50).sum() == 1_829
    assert ratings.rating.agg(["min", "max"]).tolist() == [1, 352_698]
    assert not ratings.timestamp.any()


def test_the_lookalike_is_as_known_and_played_as_the_original(made, real):
    known, wanted = (counts_of(s.ratings, "item_id") for s in (made, real))
    assert np.abs(known - wanted).cumsum().max() / wanted.sum() < 0.06
    played, plays = (np.sort(np.log(s.ratings.rating)) for s in (made, real))
    assert np.abs(played - plays).mean() < 0.05
    for part in (made.ratings, real.ratings):
        plays = np.log(part.rating)
        of_user = plays.groupby(part.user_id).transform("mean")
        assert (plays - of_user).std() == pytest.approx(0.83, abs=0.02)


def test_the_lookalike_has_a_taste_that_als_finds(made):
    matrix, *_ = datasets.ratings_matrix(made.ratings)
    matrix.data[:] = 1
    held_out = np.random.default_rng(0).random(matrix.nnz) < 0.2
    parts = matrix.copy(), matrix.copy()
    for part, mask in zip(parts, (~held_out, held_out), strict=True):
        part.data[~mask] = 0
        part.eliminate_zeros()
    scores = []
    for model in (MostPopular(), ImplicitALS(32, 10.0, 20.0, 5)):
        lists, _ = model.fit(parts[0]).recommend(np.arange(matrix.shape[0]), 10)
        scores.append(metrics.ranking_scores(lists, parts[1], 10).ndcg.mean())
    assert scores[1] > 1.5 * scores[0]


def test_the_lookalike_is_decided_by_its_seed(made):
    found = datasets.fingerprint(made.ratings)
    assert found == datasets.LASTFM_LOOKALIKE_FINGERPRINT
    other = datasets.make_lastfm_lookalike(seed=1).ratings
    assert datasets.fingerprint(other) != found

"""The Amazon reviews: the original, every container of it, and damaged ones."""

import gzip
import logging

import pandas as pd
import pytest

import faultserver
from als_course import datasets
from als_course.datasets import DatasetError
from small_sets import (
    AMAZON_CONTAINERS,
    KAGGLE,
    REAL_AMAZON,
    TINY_REVIEWS,
    UCSD,
    json_lines,
    kaggle_csv,
    names_in,
    put,
    reviews_in,
    sha256_of_rows,
    tiny_review,
    zipped,
)


def test_amazon_reviews_have_the_counts_and_the_fingerprint_of_the_original(
    real_amazon,
):
    ratings = real_amazon.ratings
    assert (ratings.user_id.nunique(), ratings.item_id.nunique()) == (1429, 900)
    assert ratings.iloc[0].tolist() == ["A2IBPI20UZIR0U", "1384719342", 5, 1393545600]
    stars = ratings.rating.value_counts().sort_index().tolist()
    assert stars == [217, 250, 772, 2084, 6938]
    rows = list(ratings.itertuples(index=False, name=None))
    assert sha256_of_rows(rows) == REAL_AMAZON
    assert sum("reviewerName" not in r for r in reviews_in(real_amazon.path)) == 27


@pytest.mark.parametrize("name", [f"{UCSD}.gz", "Musical_Instruments_5.json", KAGGLE])
def test_real_reviews_are_the_same_from_every_container(name, real_amazon, data):
    reviews = reviews_in(real_amazon.path)
    body = kaggle_csv(reviews) if name == KAGGLE else json_lines(reviews)
    put(data, {name: gzip.compress(body, 1) if name.endswith(".gz") else body})
    loaded = datasets.fetch_amazon_reviews()
    pd.testing.assert_frame_equal(loaded.ratings, real_amazon.ratings)
    assert loaded.path.read_bytes() == real_amazon.path.read_bytes()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("folder", ["", "amazon-musical-instruments/"])
@pytest.mark.parametrize("name", AMAZON_CONTAINERS)
def test_reviews_are_the_same_from_every_container(name, folder, data, cache):
    put(data, {folder + name: AMAZON_CONTAINERS[name]()})
    loaded = datasets.fetch_amazon_reviews()
    assert loaded.source == "real"
    assert loaded.path.parent == cache
    assert loaded.path.read_bytes() == json_lines()
    assert loaded.ratings.rating.tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert (loaded.ratings.dtypes[["rating", "timestamp"]] == "int64").all()
    assert names_in(cache) == [UCSD]


@pytest.mark.usefixtures("tiny")
def test_the_lookalike_stays_until_the_network_is_asked_again(server, caplog):
    caplog.set_level(logging.INFO, logger="als_course")
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert "a generated look-alike stands in" in caplog.text
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gzip.compress(json_lines()))
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert len(server.asked) == 1
    assert datasets.fetch_amazon_reviews(retry=True).source == "real"
    assert datasets.fetch_amazon_reviews().source == "real"
    assert len(server.asked) == 2


def reviews_with(**changes) -> list[dict]:
    return [*TINY_REVIEWS[:3], tiny_review(3, **changes), *TINY_REVIEWS[4:]]


def without(field: str) -> list[dict]:
    return [
        {name: value for name, value in review.items() if name != field or number != 3}
        for number, review in enumerate(TINY_REVIEWS)
    ]


BAD_AMAZON = {
    "truncated gz": ({f"{UCSD}.gz": gzip.compress(json_lines())[:-30]}, "gz.*cut off"),
    "HTML as gz": ({f"{UCSD}.gz": b"<html>"}, "gzip file but is an HTML page"),
    "truncated zip": (
        {f"{KAGGLE}.zip": zipped({KAGGLE: kaggle_csv()})[:-30]}, "zip.*cut off"
    ),
    "HTML page": ({UCSD: b"\n<html>"}, "should hold data but is an HTML page"),
    "truncated json": ({UCSD: json_lines()[:-30]}, f"{UCSD}, line 7: "),
    "truncated csv": ({KAGGLE: kaggle_csv()[:-40]}, f"{KAGGLE}, line "),
    "cut within quotes": (
        {KAGGLE: kaggle_csv()[: kaggle_csv().rindex(b"Line one")]},
        f"{KAGGLE}, line .*unexpected end of data",
    ),
    "missing field": (
        {UCSD: json_lines(without("asin"))}, f"{UCSD}, line 4: the review has no asin"
    ),
    "not an object": ({UCSD: b"[1, 2]\n"}, "line 1: expected a JSON object"),
    "missing column": (
        {KAGGLE: kaggle_csv().replace(b"asin", b"asim", 1)}, "the review has no asin"
    ),
    "rating of 7": (
        {UCSD: json_lines(reviews_with(overall=7.0))},
        f"{UCSD}, line 4: overall should be 1, 2, 3, 4 or 5; found 7.0",
    ),
    "text rating": (
        {KAGGLE: kaggle_csv(reviews_with(overall="great"))},
        # Each review's text has a line break: the fourth ends on line 9.
        f"{KAGGLE}, line 9: overall should be .* found 'great'",
    ),
    "no time": (
        {UCSD: json_lines(reviews_with(unixReviewTime="yesterday"))},
        "line 4: unixReviewTime should be whole seconds; found 'yesterday'",
    ),
    "byte changed": (
        {UCSD: json_lines(reviews_with(overall=3.0))},
        "its reviews are not those of the original",
    ),
    "empty file": ({UCSD: b""}, f"{UCSD} is empty"),
    "empty gz": ({f"{UCSD}.gz": b""}, f"{UCSD}.gz is empty"),
}  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", BAD_AMAZON)
def test_a_bad_original_of_the_reviews_is_an_error_that_names_it(
    fault, data, cache, server
):
    files, message = BAD_AMAZON[fault]
    put(data, files)
    with pytest.raises(DatasetError, match=message) as raised:
        datasets.fetch_amazon_reviews()
    assert str(data) in str(raised.value)
    assert server.asked == []
    assert names_in(cache) == []


def test_the_look_alike_can_be_asked_for_where_the_real_reviews_are(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("ALS_COURSE_AMAZON", "look-alike")
    data = datasets.fetch_amazon_reviews()
    assert data.source == "look-alike"
    assert datasets.fingerprint(data.ratings) == datasets.LOOKALIKE_FINGERPRINT


def test_asking_for_an_unknown_kind_of_reviews_is_an_error(monkeypatch):
    monkeypatch.setenv("ALS_COURSE_AMAZON", "fake")
    with pytest.raises(DatasetError, match=r"'fake'.*look-alike"):
        datasets.fetch_amazon_reviews()


# -- other editions --------------------------------------------------------------------

REVIEWS_2018 = [
    {"overall": 5.0, "vote": "2", "verified": True, "reviewTime": "01 1, 2018",
     "reviewerID": "A1", "asin": "B1", "style": {"Size:": " L"}, "reviewerName": "Jo",
     "reviewText": "Good", "summary": "Good", "unixReviewTime": 1514764800},
    {"overall": 1.0, "verified": False, "reviewTime": "01 2, 2018",
     "reviewerID": "A2", "asin": "B1", "unixReviewTime": 1514851200},  # no text at all
]  # fmt: skip
REVIEWS_2023 = [
    {"rating": 5.0, "title": "Good", "text": "Good", "images": [], "asin": "B9",
     "parent_asin": "B1", "user_id": "A1", "timestamp": 1514764800123,
     "helpful_vote": 0, "verified_purchase": True},
    {"rating": 1.0, "title": "", "text": "", "images": [], "asin": "B1",
     "parent_asin": "B1", "user_id": "A2", "timestamp": 1514851200000,
     "helpful_vote": 0, "verified_purchase": True},
]  # fmt: skip
RATINGS_2023 = (
    b"user_id,parent_asin,rating,timestamp\r\n"
    b"A1,B1,5.0,1514764800123\r\nA2,B1,1.0,1514851200000\r\n"
)
OWN_FILES = {
    "Musical_Instruments_5.json": json_lines(REVIEWS_2018),
    "Musical_Instruments_5.json.gz": gzip.compress(json_lines(REVIEWS_2018)),
    "Musical_Instruments.jsonl.gz": gzip.compress(json_lines(REVIEWS_2023)),
    "Musical_Instruments.jsonl": b"\xef\xbb\xbf" + json_lines(REVIEWS_2023) + b"\n",
    "Musical_Instruments.csv": RATINGS_2023,
    "Musical_Instruments.csv.gz": gzip.compress(RATINGS_2023),
}


@pytest.mark.parametrize("name", OWN_FILES)
def test_own_reviews_of_any_edition_are_the_same_ratings(name, tmp_path):
    put(tmp_path, {name: OWN_FILES[name]})
    ratings = datasets.read_amazon_reviews(tmp_path / name)
    assert ratings.to_dict("list") == {
        "user_id": ["A1", "A2"],
        "item_id": ["B1", "B1"],
        "rating": [5, 1],
        "timestamp": [1514764800, 1514851200],
    }


def test_own_reviews_of_2014_are_the_ratings_of_the_course(tmp_path):
    put(tmp_path, {UCSD: json_lines(), KAGGLE: kaggle_csv()})
    for name in (UCSD, KAGGLE):
        ratings = datasets.read_amazon_reviews(str(tmp_path / name))
        assert ratings.rating.tolist() == [1, 2, 3, 4, 5, 1, 2]
        assert ratings.timestamp.iloc[0] == 1393545600


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"A1,B1,5.0,1514764800\nA2,B1,1.0,1514851200\n", "no review: .*need"),
        ("a.json", b'{"user": 1}\n', "after 0 reviews: no review"),
        ("a.json", b"[1]\n", "no review"),
        ("a.json", json_lines(REVIEWS_2018)[:-9], "after 1 reviews: "),
        (
            "a.json",
            json_lines([REVIEWS_2018[0] | {"overall": 7}]),
            "overall .* found 7",
        ),
        ("a.json.gz", gzip.compress(json_lines(REVIEWS_2018))[:-9], "after"),
        ("a.json.gz", json_lines(REVIEWS_2018), "after 0 reviews: Not a gzipped file"),
        ("a.json", b"", "holds no review"),
    ],
)
def test_own_files_that_are_no_reviews_are_refused(name, content, message, tmp_path):
    put(tmp_path, {name: content})
    with pytest.raises(DatasetError, match=message):
        datasets.read_amazon_reviews(tmp_path / name)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", [n for n in OWN_FILES if ".csv" not in n])
def test_another_edition_among_the_originals_is_named(name, data):
    put(data, {name: OWN_FILES[name]})
    edition = "2023" if "jsonl" in name else "2018"
    with pytest.raises(
        DatasetError, match=f"edition of {edition}.*read_amazon_reviews"
    ):
        datasets.fetch_amazon_reviews()

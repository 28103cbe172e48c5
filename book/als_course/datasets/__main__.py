"""Fetch every set once: ``python -m als_course.datasets``."""

import logging
import sys
from functools import partial

from als_course.datasets import (
    DatasetError,
    fetch_amazon_reviews,
    fetch_lastfm_2k,
    fetch_movielens_100k,
    make_biased_ratings,
)

__all__ = ["main"]


def main():
    """Fetch every set once and print a line about each; return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    again = [partial(f, retry=True) for f in (fetch_amazon_reviews, fetch_lastfm_2k)]
    try:
        for load in (make_biased_ratings, fetch_movielens_100k, *again):
            data = load()
            where = data.path or "in memory"
            print(f"{data.name}: {len(data.ratings):,} ratings, {data.source}, {where}")
    except DatasetError as error:
        print(f"als_course.datasets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

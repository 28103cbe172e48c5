"""The four sets of ratings that the course learns from.

=======================================  =========================================
function                                 what it gives
=======================================  =========================================
`make_biased_ratings`                    generated in memory, always there
`fetch_movielens_100k`                   100,000 real ratings of films
`fetch_amazon_reviews`                   10,261 real reviews of musical instruments
`fetch_lastfm_2k`                        92,834 real counts of plays of artists
`make_movielens_lookalike`               what stands in for the ratings of films
`make_amazon_lookalike`                  what stands in for the reviews
`make_lastfm_lookalike`                  what stands in for the counts
=======================================  =========================================

A ``fetch_`` function looks in this order: the folder named by the environment
variable ``ALS_COURSE_DATA`` (your own originals, never written to), the cache
(``ALS_COURSE_CACHE``, or the usual place of the operating system), the network, and
last a fallback. ``ALS_COURSE_OFFLINE=1`` skips everything that needs the network.

Whatever file the rows arrive in, they count only if their `fingerprint` is the known
one. ``python -m als_course.datasets`` fetches every set once.
"""

from als_course.datasets.amazon import (
    AMAZON_FINGERPRINT,
    fetch_amazon_reviews,
    read_amazon_reviews,
)
from als_course.datasets.generated import BIASED_FINGERPRINT, make_biased_ratings
from als_course.datasets.lastfm import (
    LASTFM_FINGERPRINT,
    LASTFM_LOOKALIKE_FINGERPRINT,
    fetch_lastfm_2k,
    make_lastfm_lookalike,
)
from als_course.datasets.lookalike import LOOKALIKE_FINGERPRINT, make_amazon_lookalike
from als_course.datasets.matrix import Dataset, fingerprint, ratings_matrix
from als_course.datasets.movielens import (
    MOVIELENS_FINGERPRINT,
    MOVIELENS_ITEMS_FINGERPRINT,
    MOVIELENS_LOOKALIKE_FINGERPRINT,
    fetch_movielens_100k,
    make_movielens_lookalike,
)
from als_course.storage import CacheError, DatasetError, UnavailableError

__all__ = [
    "AMAZON_FINGERPRINT",
    "BIASED_FINGERPRINT",
    "LASTFM_FINGERPRINT",
    "LASTFM_LOOKALIKE_FINGERPRINT",
    "LOOKALIKE_FINGERPRINT",
    "MOVIELENS_FINGERPRINT",
    "MOVIELENS_ITEMS_FINGERPRINT",
    "MOVIELENS_LOOKALIKE_FINGERPRINT",
    "CacheError",
    "Dataset",
    "DatasetError",
    "UnavailableError",
    "fetch_amazon_reviews",
    "fetch_lastfm_2k",
    "fetch_movielens_100k",
    "fingerprint",
    "make_amazon_lookalike",
    "make_biased_ratings",
    "make_lastfm_lookalike",
    "make_movielens_lookalike",
    "ratings_matrix",
    "read_amazon_reviews",
]

"""The three sets of ratings that the course learns from.

=======================================  =========================================
function                                 what it gives
=======================================  =========================================
`make_biased_ratings`                    generated in memory, always there
`fetch_movielens_100k`                   100,000 real ratings of films
`fetch_amazon_reviews`                   10,261 real reviews of musical instruments
`make_amazon_lookalike`                  what stands in for them without a network
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
from als_course.datasets.lookalike import LOOKALIKE_FINGERPRINT, make_amazon_lookalike
from als_course.datasets.matrix import Dataset, fingerprint, ratings_matrix
from als_course.datasets.movielens import (
    MOVIELENS_FINGERPRINT,
    MOVIELENS_ITEMS_FINGERPRINT,
    fetch_movielens_100k,
)
from als_course.storage import CacheError, DatasetError, UnavailableError

__all__ = [
    "AMAZON_FINGERPRINT",
    "BIASED_FINGERPRINT",
    "LOOKALIKE_FINGERPRINT",
    "MOVIELENS_FINGERPRINT",
    "MOVIELENS_ITEMS_FINGERPRINT",
    "CacheError",
    "Dataset",
    "DatasetError",
    "UnavailableError",
    "fetch_amazon_reviews",
    "fetch_movielens_100k",
    "fingerprint",
    "make_amazon_lookalike",
    "make_biased_ratings",
    "ratings_matrix",
    "read_amazon_reviews",
]

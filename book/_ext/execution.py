"""Decide when a chapter's stored outputs are stale.

jupyter-cache looks at the code of a page alone. What a page prints also depends on
the library it imports, on the programs it runs, on the packages installed and on the
data, so a digest of all that names the folder of the cache: change one and every page
is executed anew.
"""

import hashlib
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What the pages import, run or read, apart from data sets.
READ = ("book/als_course/*.py", "book/jobs/*.py", "book/measurements/*.csv")


def digest() -> str:
    """Hash the library, the environment and the data that the pages will see."""
    if str(ROOT / "book") not in sys.path:
        sys.path.insert(0, str(ROOT / "book"))
    from als_course import datasets

    packages = sorted(f"{d.name}=={d.version}" for d in distributions())
    data = [datasets.fetch_movielens_100k(), datasets.fetch_amazon_reviews()]
    parts = [
        *(path.read_bytes() for name in READ for path in sorted(ROOT.glob(name))),
        (ROOT / "requirements.txt").read_bytes(),
        platform.python_version().encode(),
        "\n".join(packages).encode(),
        *(f"{d.source} {datasets.fingerprint(d.ratings)}".encode() for d in data),
    ]
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def name_cache(app, config) -> None:
    """Point myst-nb at the cache that belongs to the present state."""
    cache = ROOT / "_build" / ".jupyter_cache" / digest()
    config.nb_execution_cache_path = str(cache)


def setup(app):
    """Connect to Sphinx."""
    app.connect("config-inited", name_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

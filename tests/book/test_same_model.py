"""One model has one score, whichever chapter prints it."""

import re

import nbformat

from tools import chapters


def printed(name):
    """All text that the stored outputs of a page show."""
    stored = nbformat.read(chapters.stored_path(name, chapters.REAL), 4)
    outputs = [o for cell in stored.cells for o in cell.outputs]
    plain = [o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join([o.get("text", "") for o in outputs] + plain)


def test_simple_als_has_the_same_error_where_it_is_built_and_where_it_is_mended():
    built = re.search(r"mean of the three: (\d\.\d+)", printed("simple-als"))[1]
    ladder = printed("rank-and-regularisation").split("split 2")[1]
    mended = re.search(r"plain ALS, λ = 0\.1 +(\d\.\d+)", ladder)[1]
    assert mended == built

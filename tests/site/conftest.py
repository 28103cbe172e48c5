"""While the tests of the site run, no build writes into it."""

import pytest

from tools import chapters, lock


@pytest.fixture(scope="session", autouse=True)
def _site_at_rest():
    with lock.hold(chapters.ROOT / "_build" / ".lock", shared=True):
        yield

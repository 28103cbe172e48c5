"""Settings that all tests share: the longest begin, and no skip is silent."""

import os

import pytest

# Where files are shared among processes, the longest go first, or one waits at the end.
LONG = ("exercises", "cluster", "classroom", "build", "train_als", "spark")


def pytest_configure(config):
    """Keep pytest-xdist from putting the files with the fewest tests last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Begin with what takes long: some tests, and the stored pages of Spark."""
    names = {item: item.path.stem.removeprefix("test_") for item in items}
    items.sort(key=lambda item: not names[item].startswith(LONG))


@pytest.fixture(scope="session")
def movielens():
    """MovieLens 100K, from wherever this machine has it."""
    from als_course import datasets

    return datasets.fetch_movielens_100k()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Where `ALS_COURSE_NO_SKIP=1`, as in CI, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("ALS_COURSE_NO_SKIP") == "1":
        reporter.write_line(f"{len(skipped)} skipped, and nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""Settings that all tests share: the longest begin, and no skip is silent."""

import os

import pytest

# With several processes the longest go first, or one of them waits at the end.
LONG = ("exercises", "cluster", "grading", "build", "train_als", "spark")
# Files whose tests share nothing: each test goes wherever a process is free.
APART = ("test_exercises.py", "test_build.py", "test_reliability.py")


def pytest_configure(config):
    """Keep pytest-xdist from putting the files with the fewest tests last."""
    config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file together, as they share what is slow to make."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if file.endswith(APART) else file

    return Files(config, log)


def pytest_collection_modifyitems(config, items):
    """Begin with what takes long, and leave what takes too long to `make weekly`."""
    if "ALS_COURSE_WEEKLY" not in os.environ:
        weekly = [item for item in items if item.get_closest_marker("weekly")]
        config.hook.pytest_deselected(items=weekly)
        items[:] = [item for item in items if item not in set(weekly)]
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

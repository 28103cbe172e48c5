"""Settings that all tests share: where the real data are, and no silent skip."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE_TESTS = {f"test_{n}.py" for n in ("site", "downloads", "browser", "playground")}
BESIDE = ROOT.parent / "shared" / "data"
# Where files are shared among processes, the longest go first, or one waits at the end.
LONG = ("exercises", "cluster", "classroom", "build", "train_als", "spark")

if BESIDE.is_dir():
    os.environ.setdefault("ALS_COURSE_DATA", str(BESIDE))


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


@pytest.fixture(scope="session", autouse=True)
def _site_at_rest(request):
    """While the tests of the site run, no build writes into it."""
    import alone

    names = {item.path.name for item in request.session.items}
    if names & SITE_TESTS:
        with alone.hold(ROOT / "_build" / ".lock", shared=True):
            yield
    else:
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Where `ALS_COURSE_NO_SKIP=1`, as in CI, a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("ALS_COURSE_NO_SKIP") == "1":
        reporter.write_line(f"{len(skipped)} skipped, and nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""What must not matter does not: hash seed, threads, locale, time zone, place, company.

The interruptions and full disks of a build are in test_build.py, those of the data in
datasets/test_storage.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import metadata

import pytest
import yaml
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools import chapters

LOCK = chapters.ROOT / "tools" / "lock.py"
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="install make")

# -- what surrounds the process --------------------------------------------------------

# What the pages are made of: data, splits, factors, lists, dates, a table as HTML.
RESULTS = """
import hashlib
import pandas as pd
from als_course import baselines, comparison, datasets, splits
from als_course.als import ExplicitALS, ImplicitALS

reviews = datasets.make_amazon_lookalike()
print(datasets.fingerprint(reviews.ratings))
print(hashlib.sha256(reviews.path.read_bytes()).hexdigest())
data = datasets.make_biased_ratings(300, 200)
print(hashlib.sha256(data.ratings.to_csv().encode()).hexdigest())
days = pd.to_datetime(data.ratings.timestamp, unit="s").dt
print(days.date.iloc[:3].tolist(), days.day_name().value_counts().to_dict())
ids = [datasets.ratings_matrix(data.ratings)[n].tolist() for n in (1, 2)]
for split in (splits.random_split, splits.user_last_split, splits.global_time_split):
    train, test = split(data.ratings)
    print(split.__name__, hashlib.sha256(str(test.index.tolist()).encode()).hexdigest())
models = {"popular": baselines.MostPopular()}
for engine in ("numpy", "numba"):
    options = {"n_factors": 4, "random_state": 1, "engine": engine}
    models[f"explicit {engine}"] = ExplicitALS(**options)
    models[f"implicit {engine}"] = ImplicitALS(**options)
matrix, _, _ = datasets.ratings_matrix(train, *ids)
for name, model in models.items():
    model.fit(matrix)
    print(name, model.recommend(7, 20)[0].tolist())
    print([f"{p:.9f}" for p in model.predict([1, 2, 3], [4, 5, 6])])
print(comparison.ranking_table(models, train, test).to_html())
"""
SURROUNDINGS = [
    {"PYTHONHASHSEED": "0", "TZ": "Asia/Kolkata", "threads": "1"},
    {"PYTHONHASHSEED": "1", "TZ": "America/St_Johns", "threads": "4", "locale": "C"},
    {"TZ": "Pacific/Auckland", "threads": "2", "locale": "tr_TR"},
]


def with_locale(name, folder):
    """Variables for a locale; Turkish, whose i has another capital, where it is."""
    if name == "tr_TR" and shutil.which("localedef"):
        made = folder / "tr_TR.UTF-8"
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(made)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return {"LC_ALL": "tr_TR.UTF-8", "LOCPATH": str(folder)}
    return {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.weekly
def test_results_do_not_depend_on_what_surrounds_them(tmp_path):
    said = {}
    for number, changed in enumerate(SURROUNDINGS):
        variables = {k: v for k, v in changed.items() if k.isupper()}
        for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            variables[f"{pool}_NUM_THREADS"] = changed["threads"]
        if "locale" in changed:
            variables |= with_locale(changed["locale"], tmp_path)
        variables["ALS_COURSE_CACHE"] = str(tmp_path / f"cache {number}")
        run = subprocess.run(
            [sys.executable, "-c", RESULTS],
            cwd=chapters.BOOK,
            capture_output=True,
            encoding="utf-8",
            env=os.environ | variables,
        )
        assert run.returncode == 0, run.stderr
        said[number] = run.stdout
    assert said[0].count("\n") > 20
    assert said[1] == said[0]
    assert said[2] == said[0]


# -- which Python ----------------------------------------------------------------------


def supported():
    """The versions that the workflow tests."""
    workflow = chapters.ROOT / ".github" / "workflows" / "check.yml"
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    return jobs["make"]["strategy"]["matrix"]["python"]


def pins():
    """What requirements.txt pins, with the marker that says for whom."""
    text = (chapters.ROOT / "requirements.txt").read_text("utf-8")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line]


def meant_for(pin, python):
    """Whether a pin is meant for this version of Python."""
    surroundings = {"python_version": python, "python_full_version": f"{python}.9"}
    return pin.marker is None or pin.marker.evaluate(surroundings)


def refusing(python):
    """Name the pinned packages that say they do not run on this version."""
    here = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate()]
    return [
        pin.name
        for pin in here
        if meant_for(pin, python)
        and not SpecifierSet(metadata(pin.name).get("Requires-Python", "")).contains(
            f"{python}.9"
        )
    ]


def test_every_pinned_package_runs_on_every_version_that_is_promised():
    for python in supported():
        assert refusing(python) == []


def test_the_oldest_version_promised_is_the_oldest_that_the_pins_allow():
    major, minor = supported()[0].split(".")
    assert {"numpy", "pyspark"} <= set(refusing(f"{major}.{int(minor) - 1}"))


def test_every_file_that_names_the_versions_names_the_same():
    *others, newest = supported()
    oldest = others[0]
    for name, words in {
        "README.md": f"You need Python {', '.join(others)} or {newest},",
        "requirements.txt": f"Python {oldest} to {newest}.",
        "Makefile": f"sys.version_info < ({oldest.replace('.', ', ')})",
        "pyproject.toml": f'target-version = "py{oldest.replace(".", "")}"',
    }.items():
        assert words in (chapters.ROOT / name).read_text("utf-8"), name
    binder = (chapters.ROOT / ".binder" / "runtime.txt").read_text("utf-8")
    assert binder.strip().removeprefix("python-") in supported()


# -- one at a time ---------------------------------------------------------------------


@contextmanager
def locked(file, code):
    """Run Python code with the Makefile's program while it holds a lock."""
    with subprocess.Popen(
        [sys.executable, LOCK, str(file), sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        yield process
        process.kill()


@needs_make
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_second_waits_for_the_first_says_so_and_outlives_it(end, tmp_path):
    file = tmp_path / "ü b" / "lock"
    forever = "import time; print('held', flush=True); time.sleep(99)"
    with locked(file, forever) as holder:
        assert holder.stdout.readline() == "held\n"
        with locked(file, "print('done')") as second:
            said = second.stderr.readline()
            holder.send_signal(end)
            out, _ = second.communicate(timeout=30)
    assert said.startswith(f"Another process works in {file.parent}; this one waits")
    assert (second.returncode, out) == (0, "done\n")


@needs_make
def test_a_command_of_the_makefile_waits_for_a_build(tmp_path):
    held = FileLock(tmp_path / "lock")
    with held.acquire(blocking=False), locked(held.lock_file, "print('done')") as run:
        assert "this one waits" in run.stderr.readline()
        assert run.poll() is None
        held.release()
        assert run.communicate(timeout=30)[0] == "done\n"


@needs_make
def test_a_held_lock_passes_on_the_status_of_its_command(tmp_path):
    with locked(tmp_path / "lock", "raise SystemExit(3)") as run:
        run.communicate(timeout=30)
    assert run.returncode == 3


# -- the set-up ------------------------------------------------------------------------

FAKE = """#!/bin/sh
# Stands in for Python: makes an environment of files, slowly, and no package.
case "$*" in
  *lock.py*) exec '{python}' "$@" ;;
  *"-m venv"*) echo set-up >> log; mkdir -p venv/bin && cp "$0" venv/bin/python ;;
  *"-m pip"*)
    test -e venv/half && exit 0  # as pip: what is there counts as installed
    touch venv/half; sleep $SLOW; mv venv/half venv/whole ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose Python is a stand-in that takes its time to install."""
    for name in (
        "Makefile",
        "requirements.txt",
        "requirements-serve.txt",
        "pyproject.toml",
        "tools/lock.py",
        "tools/pyodide.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(chapters.ROOT / name, tmp_path / name)
    shutil.copytree(chapters.ROOT / ".binder", tmp_path / ".binder")
    fake = tmp_path / "python"
    fake.write_text(FAKE.format(python=sys.executable), "utf-8")
    fake.chmod(0o755)
    (tmp_path / "npm").symlink_to("/bin/true")
    return tmp_path


def set_up(checkout, slow, *, group=False):
    """Start `make` of the environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    environment |= {"SLOW": str(slow), "PATH": f"{checkout}:{environment['PATH']}"}
    return subprocess.Popen(
        ["make", "PYTHON=./python", "VENV=venv", "venv/installed"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=group,
    )


@needs_make
def test_two_that_set_up_at_once_install_once(checkout):
    with set_up(checkout, 1) as first, set_up(checkout, 1) as second:
        said = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert sum("this one waits" in text for text in said) == 1
    assert (checkout / "log").read_text() == "set-up\n"


@needs_make
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_set_up_that_was_cut_off_is_begun_anew(end, checkout):
    with set_up(checkout, 60, group=True) as first:
        while not (checkout / "venv" / "half").exists():
            assert first.poll() is None, first.stdout.read()
            time.sleep(0.02)
        os.killpg(first.pid, end)
        first.communicate(timeout=30)
    assert not (checkout / "venv" / "installed").exists()
    with set_up(checkout, 0) as second:
        said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    names = {path.name for path in (checkout / "venv").iterdir()}
    assert {"installed", "whole"} <= names
    assert not {"half", "unfinished"} & names


# -- where the checkout and the data are -----------------------------------------------


@needs_make
@pytest.mark.parametrize("name", ["ALS_COURSE_DATA", "ALS_COURSE_CACHE"])
@pytest.mark.parametrize("folder", ["Kurs für ALS", "/some where/é", "plain", "~/data"])
def test_make_hands_folders_on_whatever_their_names(name, folder, tmp_path):
    shown = tmp_path / "show.mk"
    shown.write_text(f"shown:\n\t@printenv {name}\n")
    run = subprocess.run(
        ["make", "-f", "Makefile", "-f", str(shown), "shown"],
        cwd=chapters.ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        | {name: folder},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    begins = re.match(r"[/~]", folder)
    whole = folder if begins else f"{chapters.ROOT}/{folder}"
    assert run.stdout == f"{whole}\n"

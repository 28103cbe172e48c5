"""What README and CONTRIBUTING tell people to type and to look at is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from als_course.java import find_java
from tools import chapters

BIN = Path(sys.executable).parent
README = (chapters.ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (chapters.ROOT / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, flags=re.M | re.S)

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="install make")


def make(*arguments: str) -> str:
    """What make prints, as if it were not called from another make."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    run = subprocess.run(
        ["make", *arguments],
        cwd=chapters.ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return run.stdout


def recipe(target: str) -> str:
    """What make would run for a target on a machine where nothing is set up."""
    return make("--always-make", "--dry-run", target)


@needs_make
def test_every_make_command_named_anywhere_exists():
    pages = [chapters.page_path(name) for name in chapters.pages()]
    texts = [README, CONTRIBUTING, *(page.read_text("utf-8") for page in pages)]
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", "\n".join(texts), flags=re.M))
    assert {"book", "test", "lab", "outputs", "help"} <= named
    for target in named:
        assert recipe(target)


@needs_make
def test_commands_without_make_are_those_of_the_makefile():
    done = recipe("test").replace(".venv/bin/python -m pytest", "pytest")
    done = done.replace(".venv/bin/", "").replace("python3 -m venv", "python -m venv")
    lines = BLOCKS[1].splitlines()
    assert lines[1] == "source .venv/bin/activate"
    done = done.replace(" --quiet", "")  # pip's progress
    for line in [lines[0], *lines[2:]]:
        assert line in done


@needs_make
def test_help_lists_every_target():
    makefile = (chapters.ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.M)[1].split()
    assert [line.split()[0] for line in make("help").splitlines()] == phony


def test_every_path_named_exists():
    named = re.findall(r"\]\(([^)]+)\)", README + CONTRIBUTING)
    named += re.findall(r"^\| `([^`*]+)` \|", README, flags=re.M)
    named += re.findall(r"[` ]((?:book|tests|tools)/[\w./-]+)`", CONTRIBUTING)
    assert len(named) >= 20
    for path in named:
        assert (chapters.ROOT / path).exists(), path


def test_what_an_upgrade_may_break_is_where_contributing_says():
    table = CONTRIBUTING.split("## Before you upgrade")[1]
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]*`[^|]*) \| ([^|]*`[^|]*) \|$", table, flags=re.M
    )
    assert len(rows) >= 8
    for touched, where in rows:
        files = [chapters.ROOT / file for file in re.findall("`([^`]+)`", where)]
        text = "".join(file.read_text("utf-8") for file in files)
        for name in re.findall("`([^`]+)`", touched):
            assert name in text, (name, where)


@pytest.mark.parametrize("line", BLOCKS[2].splitlines())
def test_commands_for_own_ratings_tell_what_they_take(line):
    words = line.split()
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("SPARK_HOME", None)  # another Spark's
    if words[0] == "spark-submit" and not shutil.which("java"):
        environment["JAVA_HOME"] = str(find_java())
    run = subprocess.run(
        words, cwd=chapters.ROOT, capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    program = next(Path(word).name for word in words if word.endswith(".py"))
    assert run.stdout.startswith(f"usage: {program} ")
    takes_ratings = program in ("train_als.py", "night.py")
    assert ("--ratings PATH" in run.stdout) == takes_ratings


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-serve.txt"])
def test_every_requirement_is_pinned_and_every_named_one_has_a_reason(file):
    text = (chapters.ROOT / file).read_text("utf-8")
    named, pulled_in = text.split("# -- what those pull in")
    lines = [li for li in named.splitlines() if li and not li.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==\S+ +# \S.{10,}", line), line
    for line in pulled_in.splitlines()[1:]:
        assert re.fullmatch(r"[a-z0-9_.-]+==[^\s;]+( ; .+)?", line), line


def test_what_serves_has_the_pins_of_the_course():
    course, service = (
        set(
            re.findall(
                r"^([a-z0-9-]+)==(\S+)", (chapters.ROOT / name).read_text(), re.M
            )
        )
        for name in ("requirements.txt", "requirements-serve.txt")
    )
    named = {package for package, _ in course}
    assert {pin for pin in service if pin[0] in named} <= course
    assert {"starlette", "uvicorn"} <= {package for package, _ in service}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-serve.txt"])
def test_nothing_that_is_installed_with_the_requirements_is_left_unpinned(file):
    text = (chapters.ROOT / file).read_text("utf-8")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    pinned = [Requirement(line) for line in lines if line]
    names = {canonicalize_name(requirement.name) for requirement in pinned}
    here = [r for r in pinned if r.marker is None or r.marker.evaluate()]
    for requirement in here:
        assert requirement.specifier.contains(version(requirement.name)), requirement
        for needed in map(Requirement, requires(requirement.name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in names, (requirement, needed)


@pytest.mark.weekly
def test_every_extension_fits_this_jupyterlab():
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "labextension", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = listed.stdout + listed.stderr
    assert re.search(r"jupyterlab-jupytext v\S+ .*enabled.*OK", said), said
    assert re.search(r"jupyterlab-myst v\S+ .*enabled.*OK", said), said
    assert "not compatible" not in said


def test_binder_gets_what_the_other_machines_get():
    folder = chapters.ROOT / ".binder"
    read = {path.name: path.read_text("utf-8").strip() for path in folder.iterdir()}
    both = "-r ../requirements.txt\n-r ../requirements-serve.txt"
    assert read["requirements.txt"] == both
    assert read["apt.txt"] in (chapters.ROOT / ".ci" / "run").read_text("utf-8")
    assert os.access(folder / "postBuild", os.X_OK)
    first = json.loads(read["overrides.json"])[
        "@jupyterlab/docmanager-extension:plugin"
    ]
    assert first["defaultViewers"]["markdown"] == "Jupytext Notebook"

"""Break the course on purpose, one small mistake at a time, and see a check turn red.

A tool of its own, not part of `make test`::

    make mutants                              all of them; writes mutants.md
    python tests/mutants/mutants.py tie seed  those with a word in their name or file
    python tests/mutants/mutants.py --fit     none; list those that fit no longer

`mutants.toml` has mistakes that people make. Each replaces a text that stands exactly
once in its file, and in the `stored` notebook where one is named: an author made the
mistake and then ran `make outputs`. In `arithmetic.py` Cosmic Ray changes five modules
in every place it finds. All are made in copies of the project, where the check that a
mutant names must turn red. Before any mutant these checks run on an unchanged copy: one
that is red already proves nothing. A run that was interrupted goes on where it stopped.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import arithmetic

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DONE = ROOT / "_build" / "mutants.jsonl"
LIMIT = 300  # processor seconds, three times what any check here takes unbroken
# What tests of the library import. A server that has it is forked for each mutant, or
# most of the time would go into imports.
MODULES = ["numpy", "pandas", "scipy.sparse", "scipy.stats", "scipy.linalg.lapack"]
MODULES += ["sklearn.metrics", "sklearn.model_selection", "sklearn.utils.extmath"]
MODULES += ["hypothesis.extra.numpy", "threadpoolctl", "pytest"]


@dataclass(eq=False)
class Mutant:
    """One small mistake, and the check that must see it."""

    name: str
    file: str
    texts: dict[str, str]  # each changed file with the mistake in it
    check: str
    line: str = ""  # as Cosmic Ray changed it

    @property
    def key(self) -> str:
        """What a result stands for: the mistake and the check as they are now."""
        parts = [self.name, self.check, *self.texts.values()]
        test = (ROOT / self.check.partition("::")[0]).read_bytes()
        return hashlib.sha256("\0".join(parts).encode() + test).hexdigest()


def by_hand() -> list[Mutant]:
    """Read `mutants.toml`; refuse what no longer fits the project, all at once."""
    found, misfits = {}, []
    entries = tomllib.loads((HERE / "mutants.toml").read_text("utf-8"))["mutant"]
    for entry in entries:
        texts = {}
        for file in filter(None, (entry["file"], entry.get("stored"))):
            path = ROOT / file
            text = path.read_text("utf-8") if path.is_file() else ""
            if (times := text.count(entry["old"])) != 1:
                misfits.append(f"{entry['name']}: stands {times} times in {file}")
            texts[file] = text.replace(entry["old"], entry["new"])
        file, _, test = entry["check"].partition("::")
        path = ROOT / file
        test = f"\ndef {test.partition('[')[0]}(" if test else ""
        if not path.is_file() or test not in path.read_text("utf-8"):
            misfits.append(f"{entry['name']}: no check {entry['check']}")
        if entry["name"] in found:
            misfits.append(f"{entry['name']}: a second mutant of this name")
        name = entry["name"]
        found[name] = Mutant(name, entry["file"], texts, entry["check"])
    if misfits:
        raise SystemExit("\n".join(["Write anew in mutants.toml:", *misfits]))
    return list(found.values())


def by_cosmic_ray() -> list[Mutant]:
    """Let Cosmic Ray change the arithmetic, leaving out what changes no result."""
    return [
        Mutant(
            f"{module}: {line}",
            file := f"book/als_course/{module}.py",
            {file: changed},
            f"tests/library/test_{tests}.py",
            line,
        )
        for module, tests, line, changed in arithmetic.generate(ROOT)
    ]


def copy_of_the_project(folder: Path) -> Path:
    """Copy what git knows of, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


def in_a_fork(folder: Path, checks: list[str], said: Path) -> None:
    """Run checks here and write what pytest says to a file."""
    with said.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 9))
    # Of all plugins nbval takes two seconds to load, and only stored pages need it.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest
    from hypothesis import Phase, settings

    # The first counterexample will do, and none is kept for the next mutant.
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("first", phases=phases, database=None)
    settings.load_profile("first")
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # as preloaded
    if checks[0].startswith("tests/outputs/"):
        options += ["-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
    status = pytest.main([*options, *checks])
    sys.stdout.flush()
    os._exit(status)


def first_failure(folder: Path, checks: list[str]) -> str:
    """Run checks until one fails, and give its name, or nothing if all are green."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said"
        process = context.Process(target=in_a_fork, args=(folder, checks, said))
        process.start()
        process.join()
        text = said.read_text("utf-8", "replace") if said.exists() else ""
    if process.exitcode == -signal.SIGXCPU:
        return "no end"
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - |$)", text, re.M)
    if process.exitcode != 0 and not failed:
        raise RuntimeError(
            f"{checks} ended with status {process.exitcode}, which says nothing about "
            f"the mutant:\n{text[-2000:]}"
        )
    return failed[1] if failed else ""


def try_out(folder: Path, mutant: Mutant) -> str:
    """Make one mistake, see which check finds it, and take the mistake back."""
    originals = {file: (folder / file).read_text("utf-8") for file in mutant.texts}
    begin = time.perf_counter()
    try:
        for file, text in mutant.texts.items():
            (folder / file).write_text(text, "utf-8")
        by = first_failure(folder, [mutant.check])
    finally:
        for file, text in originals.items():
            (folder / file).write_text(text, "utf-8")
    seconds = time.perf_counter() - begin
    print(f"{seconds:5.1f} s  {mutant.name}: {by or 'SURVIVED'}", flush=True)
    return by


def must_be_green(folder: Path, checks: set[str]) -> None:
    """Run the expected checks of one file where nothing is broken."""
    if red := first_failure(folder, sorted(checks)):
        raise RuntimeError(f"red without any mutant: {red}")


def code(text: str) -> str:
    """Quote for a table, whatever is in it."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(results: dict[Mutant, str]) -> str:
    """Write the tables of what was broken and what noticed."""
    ours, made = [], []
    for mutant, by in results.items():
        row = [Path(mutant.file).name, code(by) if by else "SURVIVED"]
        if mutant.line:
            made.append([code(mutant.line), *row])
        else:
            ours.append([mutant.name, *row])
    equal = [
        [code(line), f"{module}.py", why]
        for name, why in arithmetic.EQUIVALENT.items()
        for module, _, line in [name.partition(": ")]
    ]
    survived = sum(not by for by in results.values())
    return f"""\
# What happens when the course is broken on purpose

Written by `make mutants`. Each line is one small mistake, made in a copy of the project, and the first check that turned red.

{len(results)} mutants, {survived} survived.

## {len(ours)} mistakes that people make

{table(["mistake", "in", "caught by"], ours)}

## {len(made)} changes of the arithmetic, made by Cosmic Ray

One operator, comparison or sign of a line became another. The line is shown as it was tried.

{table(["line", "in", "caught by"], made)}

Cosmic Ray made these, too. They change no result, so no check can see them, and they were left out.

{table(["line", "in", "why nothing changes"], equal)}
"""  # noqa: E501


def main() -> int:
    """Try the mutants out and return the exit status: 1 if one survived."""
    parser = argparse.ArgumentParser(description="Break the course on purpose.")
    parser.add_argument("words", nargs="*", help="of names or files; otherwise all")
    parser.add_argument("-n", type=int, default=2, help="mutants at a time")
    parser.add_argument("--fit", action="store_true", help="only see whether all fit")
    options = parser.parse_args()
    if options.fit:
        print(f"{len(by_hand())} mutants fit")
        return 0
    os.environ["ALS_COURSE_OFFLINE"] = "1"
    chosen = [
        mutant
        for mutant in [*by_hand(), *by_cosmic_ray()]
        if not options.words
        or any(word in f"{mutant.name} {mutant.file}" for word in options.words)
    ]
    if not chosen:
        raise SystemExit(f"no mutant has one of {options.words} in its name or file")
    known = {}
    if DONE.exists() and not options.words:
        known = dict(map(json.loads, DONE.read_text("utf-8").splitlines()))
    left = [mutant for mutant in chosen if mutant.key not in known]
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as base,
        ThreadPoolExecutor(options.n) as pool,
    ):
        folders = Queue()
        for number in range(options.n):
            folders.put(copy_of_the_project(Path(base) / f"copy{number}"))

        def in_a_copy(task, what):
            folder = folders.get()
            try:
                return task(folder, what)
            finally:
                folders.put(folder)

        def one(mutant):
            by = in_a_copy(try_out, mutant)
            if by:
                DONE.parent.mkdir(exist_ok=True)
                with DONE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([mutant.key, by]) + "\n")
            return mutant.key, by

        expected: dict[str, set[str]] = {}
        for check in (mutant.check for mutant in left):
            expected.setdefault(check.partition("::")[0], set()).add(check)
        list(pool.map(lambda c: in_a_copy(must_be_green, c), expected.values()))
        known |= pool.map(one, left)
    results = {mutant: known[mutant.key] for mutant in chosen}
    survived = [mutant.name for mutant, by in results.items() if not by]
    if not options.words:
        (HERE / "mutants.md").write_text(report(results), "utf-8")
        if not survived:
            DONE.unlink(missing_ok=True)
    print(f"{len(results)} mutants, survived: {survived or 'none'}")
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main())

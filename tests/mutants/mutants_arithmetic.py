"""Mutants of the library's arithmetic, made by Cosmic Ray and not by us.

`mutants.py` takes them from here. Of Cosmic Ray only the operators are used, which put
another operator, comparison or sign into a syntax tree. Its own runner starts Python
anew for each mutant, and most of that time goes into imports; here a server that has
imported NumPy, pandas and scikit-learn is forked, and pytest loads no plugins.
"""

import multiprocessing
import os
import re
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "book/als_course/"
# Modules changed, each held by the tests of its name. The solver is not among them: its
# tests take half a minute, and mutants of it by hand are in `test_als_mutants`.
CHANGED = ["metrics", "splits", "baselines", "comparison"]
# Where `make mutants` puts Cosmic Ray and the 17 packages that it needs, apart from the
# environment: a page is executed anew when a package is added there.
TOOLS = Path(sys.prefix) / "mutants"
LIMIT = 120  # processor seconds, three times what any tests here take unbroken
# One neighbour of each operator: the others change more, and are easier to see.
OPERATORS = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Pow_Mul"),
    *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq"),
    *("Is_IsNot", "IsNot_Is", "BitAnd_BitOr", "BitOr_BitAnd"),
    *("USub_UAdd", "Delete_Invert", "Delete_Not"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd"),
)
# Lines that Cosmic Ray makes and that change no result, with the reason.
EQUIVALENT: dict[str, str] = {
    "baselines: BLOCK_CELLS = 2*22  # scores held at once by `recommend`: 32 MB": (
        "the lists are made in smaller blocks, and are the same"
    ),
    "baselines: small = max(*ratings.shape, ratings.nnz) <= 2**31": (
        "one row, column or rating more still fits 32 bits, as numbers begin at 0"
    ),
}
MODULES = ["numpy", "pandas", "scipy.sparse", "scipy.stats", "scipy.linalg.lapack"]
MODULES += ["sklearn.metrics", "sklearn.model_selection", "sklearn.utils.extmath"]
MODULES += ["hypothesis.extra.numpy", "threadpoolctl", "pytest"]


@dataclass(frozen=True)
class Generated:
    """A module with one token changed."""

    name: str
    file: str
    line: str
    changed: str
    checks: tuple[str, ...]
    fuller = ()  # the tests of its own module must see it

    def texts(self, folder: Path) -> dict[str, str]:
        """Give the file with the mistake in it."""
        return {self.file: self.changed}


def generate(root: Path) -> list[Generated]:
    """Let Cosmic Ray change each module in every place, and leave out what is equal."""
    sys.path.append(str(TOOLS))
    if not find_spec("cosmic_ray"):
        raise SystemExit("Cosmic Ray is missing; `make mutants` installs it first")
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    endings = tuple(f"{mark}{name}" for name in OPERATORS for mark in "_/")
    operators = [
        get_operator(name)() for name in operator_names() if name.endswith(endings)
    ]
    found, idle = {}, dict(EQUIVALENT)
    for module in CHANGED:
        file = f"{LIBRARY}{module}.py"
        source = (root / file).read_text("utf-8")
        nodes = list(ast_nodes(get_ast(source)))
        for operator in operators:
            places = [p for node in nodes for p in operator.mutation_positions(node)]
            for number, ((row, _), _) in enumerate(places):
                changed = mutate_code(source, operator, number)
                line = changed.splitlines()[row - 1].strip()
                if f"{module}: {line}" in EQUIVALENT:
                    idle.pop(f"{module}: {line}", None)
                    continue
                found.setdefault(
                    changed,
                    Generated(
                        f"{module}: {line}",
                        file,
                        line,
                        changed,
                        (f"tests/test_{module}.py",),
                    ),
                )
    if idle:
        raise ValueError(f"Cosmic Ray no longer makes these lines: {sorted(idle)}")
    return list(found.values())


def is_about_the_library(check: str) -> bool:
    """Whether a check needs no notebook, browser or Spark, so that `run` will do."""
    names = {*CHANGED, "als", "implicit_als", "kernels"}
    return Path(check.partition("::")[0]).stem.removeprefix("test_") in names


def first_failure(said: str) -> str:
    """Find in what pytest said the name of the first check that failed."""
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - |$)", said, re.M)
    return failed[1] if failed else ""


def _check(folder: str, checks: list[str], said: str) -> None:
    """Run checks in a forked process, and write what pytest says to a file."""
    with open(said, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    import resource  # not on Windows, where `test_mutants` imports this file, too

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 9))
    # Of all plugins nbval takes two seconds to load, and no test of the library asks.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest
    from hypothesis import Phase, settings

    # The first counterexample will do, and none is kept for the next mutant.
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("first", phases=phases, database=None)
    settings.load_profile("first")
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # as preloaded
    status = pytest.main([*options, *checks])
    sys.stdout.flush()
    os._exit(status)


def run(folder: Path, checks: list[str]) -> tuple[bool, str, str]:
    """Run checks until one fails: whether one did, which, and what was said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said"
        process = context.Process(target=_check, args=(str(folder), checks, str(said)))
        process.start()
        process.join()
        text = said.read_text("utf-8", "replace") if said.exists() else ""
    failed = first_failure(text)
    if process.exitcode == -signal.SIGXCPU:
        return True, "no end", text
    if process.exitcode != 0 and not failed:
        raise RuntimeError(
            f"{checks} ended with status {process.exitcode}, so it says nothing about "
            f"the mutant:\n{text[-2000:]}"
        )
    return process.exitcode != 0, failed, text

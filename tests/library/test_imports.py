"""Imports of the library go one way, and nobody touches another's private names."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import als_course

LIBRARY = Path(als_course.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["book/als_course", "book/jobs", "tools", "tests/benchmarks", "tests/support"]
# What others keep to themselves and offer in no other way; look here at an upgrade.
NEEDED = {
    ("spark.py", "_gateway"): "PySpark does not say how to end the Java it started",
    ("spark.py", "_jvm"): "as above",
    ("train_als.py", "_jvm"): "PySpark offers no file system, Hadoop's is in Java",
    ("train_als.py", "_jsc"): "as above: its configuration",
    ("train_als.py", "_jdf"): "PySpark does not tell how large a table is",
    ("orientation.py", "_terms"): "Sphinx lists the terms of a glossary nowhere else",
}


def module_name(path):
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(LIBRARY.rglob("*.py"))}


def imported(path):
    """The modules of the library that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package, _, module = (node.module or "").partition(".")
            if package == "als_course":
                for alias in node.names:
                    name = f"{module}.{alias.name}".lstrip(".")
                    yield name if name in MODULES else module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("als_course."):
                    yield alias.name.removeprefix("als_course.")


def test_imports_go_one_way():
    graph = {name: set(imported(path)) for name, path in MODULES.items()}
    assert {"baselines", "recommender", "kernels"} <= graph["als"]  # it does see them
    assert {"kernels.plain", "kernels.tiled"} <= graph["kernels"]
    TopologicalSorter(graph).prepare()  # raises CycleError and names the cycle


# An underscore that means something else: these are documented for everybody.
PUBLIC = {"_exit", "_replace"}


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def foreign(tree):
    """Private names that a file takes from others, by import or as an attribute.

    Its own are those that it defines, or stores, somewhere in the file.
    """
    own, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            base = node.value
            if isinstance(base, ast.Call):  # super()
                base = base.func
            mine = isinstance(base, ast.Name) and base.id in ("self", "cls", "super")
            if not mine:
                used.add(node.attr)
            elif isinstance(node.ctx, ast.Store):
                own.add(node.attr)
    return {name for name in used - own if is_private(name)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_nobody_touches_the_private_names_of_another(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    taken = {
        (path.name, name)
        for path in files
        for name in foreign(ast.parse(path.read_text("utf-8")))
    }
    assert taken <= set(NEEDED)


def test_what_is_needed_of_others_is_still_used():
    taken = {
        (path.name, name)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for name in foreign(ast.parse(path.read_text("utf-8")))
    }
    assert taken == set(NEEDED)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from als_course.als import _start", {"_start"}),
        ("model._start()", {"_start"}),
        ("ImplicitALS(1)._loss(2)", {"_loss"}),
        ("class A:\n    def f(self):\n        self._x = 1; super()._y()", set()),
        ("class A:\n    def _x(self): pass\n    def f(a, b): return b._x()", set()),
        ("model.__class__, model.start_", set()),
    ],
)
def test_private_names_are_seen(source, expected):
    assert foreign(ast.parse(source)) == expected

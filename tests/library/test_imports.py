"""The modules of the library: imports go one way, and leave private names alone."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import als_course

MODULES = sorted(Path(als_course.__file__).parent.glob("*.py"))


def imports(path: Path) -> dict[str, list[str]]:
    """Names that a module takes from others of the library, by module."""
    taken = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package, _, module = (node.module or "").partition(".")
            if package == "als_course":
                names = [alias.name for alias in node.names]
                for name in [module] if module else names:
                    taken.setdefault(name, []).extend(names if module else [])
    return taken


def test_imports_go_one_way():
    graph = {path.stem: imports(path) for path in MODULES}
    assert graph["als"]  # it does see them
    TopologicalSorter(graph).prepare()  # raises CycleError and names the cycle


def test_no_module_takes_a_private_name_of_another():
    taken = [
        f"{path.stem}: {module}.{name}"
        for path in MODULES
        for module, names in imports(path).items()
        for name in names
        if name.startswith("_")
    ]
    assert not taken

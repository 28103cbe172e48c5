"""Changes of the library's arithmetic, made by Cosmic Ray and not by us.

Of Cosmic Ray only the operators are used, which put another operator, comparison or
sign into a syntax tree. Its own runner starts Python anew for each change.
"""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# Modules changed, and whose tests hold them. The solver is not among them: its tests
# take half a minute, and `mutants.toml` has its mistakes.
CHANGED = {
    "metrics": "metrics",
    "splits": "splits",
    "recommender": "baselines",
    "baselines": "baselines",
    "comparison": "comparison",
}
# Where `make mutants` puts Cosmic Ray and the 17 packages that it needs, apart from the
# environment: a page is executed anew when a package is added there.
TOOLS = Path(sys.prefix) / "mutants"
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
    "metrics: size = max(1, 2**17 * n_users)": "all resamples are drawn at once",
    "metrics: size = max(1, 2*17 // n_users)": "few resamples are drawn at once",
    "metrics: draws = per_start(_resampled_sums(sums, n_resamples, rng)).mean("
    "axis=+1)": "there are two axes, and the second is the last",
    "recommender: BLOCK_CELLS = 2*22  # scores held at once by `recommend`: 32 MB": (
        "the lists are made in smaller blocks, and are the same"
    ),
    "recommender: small = max(*ratings.shape, ratings.nnz) <= 2**31": (
        "one row, column or rating more still fits 32 bits, as numbers begin at 0"
    ),
}


def generate(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Give each changed line: its module, whose tests, the line, the module's text."""
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
    idle, seen = dict(EQUIVALENT), set()
    for module, tests in CHANGED.items():
        source = (root / f"book/als_course/{module}.py").read_text("utf-8")
        nodes = list(ast_nodes(get_ast(source)))
        for operator in operators:
            places = [p for node in nodes for p in operator.mutation_positions(node)]
            for number, ((row, _), _) in enumerate(places):
                changed = mutate_code(source, operator, number)
                line = changed.splitlines()[row - 1].strip()
                if f"{module}: {line}" in EQUIVALENT:
                    idle.pop(f"{module}: {line}", None)
                elif changed not in seen:
                    seen.add(changed)
                    yield module, tests, line, changed
    if idle:
        raise SystemExit(f"Cosmic Ray no longer makes these lines: {sorted(idle)}")

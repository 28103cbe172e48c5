"""The properties notice when the solver is broken on purpose.

Each mutant is a copy of the solver with one piece of its text changed. At least one
of the property tests must fail on it; all of them pass on an unchanged copy.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

TESTS = Path(__file__).resolve().parent
SOLVER = TESTS.parent / "book" / "als_course" / "als.py"
PROPERTIES = {
    "ExplicitALS": [
        "test_gradient_is_zero_after_a_half_step",
        "test_history_is_the_objective_after_each_sweep",
        "test_half_step_never_raises_the_objective",
        "test_fold_in_is_the_next_half_step",
    ],
    "ImplicitALS": [
        "test_gradient_is_zero_after_a_half_step",
        "test_history_is_the_objective_over_all_places",
        "test_explanation_sums_to_the_score",
    ],
}

ITEM_STEP = """item_factors, loss = self._half_step(
                    by_item, user_factors, item_penalties, items, "item", kernels
                )"""
SHARED = {
    "drops lambda": ("gram.flat[:: k + 1] += penalties[row]", "pass"),
    "drops lambda where the system allows": (
        "+= penalties[row]",
        "+= penalties[row] * (len(X) < k)",
    ),
    "swaps the axes of the answer": (
        "self.user_factors_, self.item_factors_ = user_factors, item_factors",
        "self.user_factors_, self.item_factors_ = item_factors, user_factors",
    ),
    "swaps the axes of the ratings": (
        "by_item = by_user.T.tocsr()",
        "by_item = by_user.copy()\n        by_item.resize(by_user.shape[::-1])",
    ),
    "solves items from stale users": (
        ITEM_STEP,
        "item_factors, loss = self._half_step(by_item, vars(self).setdefault('_stale', "
        "user_factors), item_penalties, items, 'item')",
    ),
    "never updates the items": (ITEM_STEP, ITEM_STEP.replace("item_factors,", "_,")),
    "counts the ratings of columns, not rows": (
        "counts = self._counts(ratings)",
        "counts = np.resize(np.bincount(ratings.indices), ratings.shape[0])",
    ),
    "forgets the weights": ("if self.weighted_regularization else", "if False else"),
    "always weights": ("if self.weighted_regularization else", "if True else"),
    "leaves the penalty out of the history": (
        "+ user_penalties @ np.sum(user_factors**2, axis=1)",
        "",
    ),
}
EXPLICIT = {
    "solves on zero-filled holes": (
        "        return 0.0\n",
        "        return factors.T @ factors\n",
    ),
    "drops ratings of zero": (
        "return self._residuals(ratings, self.user_biases_)",
        "ratings.eliminate_zeros()\n"
        "        return self._residuals(ratings, self.user_biases_)",
    ),
}
IMPLICIT = {
    "forgets the Gram matrix of all items": ("            gram += holes\n", ""),
    "takes the holes' confidence off nowhere": (
        "(confidences - 1)) @ X",
        "confidences) @ X",
    ),
    "takes the rating for the preference": (
        "(confidences * (values > 0)) @ X",
        "(confidences * np.maximum(values, 0)) @ X",
    ),
    "takes dislikes for likes": (
        "(confidences * (values > 0)) @ X",
        "confidences @ X",
    ),
    "trusts dislikes less than nothing": ("np.abs(values)", "values"),
    "ignores alpha": ("self.alpha * np.abs", "np.abs"),
    "always adds one": ('(self.confidence == "1+alpha*r")', "1"),
    "never adds one": ('(self.confidence == "1+alpha*r")', "0"),
    "counts dislikes as likes": (
        "(ratings.data > 0, ratings",
        "(ratings.data != 0, ratings",
    ),
    "leaves the holes out of the history": (
        "+ np.sum(self._holes(user_factors) * self._holes(item_factors))",
        "",
    ),
    "counts rated places as holes too in the history": (
        "* errors**2 - fitted**2",
        "* errors**2",
    ),
    "explains with items the user was not solved with": (
        "self._older_item_factors = older",
        "self._older_item_factors = item_factors",
    ),
    "explains without confidence": (
        "self._confidences(row.data) * (X @ weighted)",
        "X @ weighted",
    ),
}
MUTANTS = [
    (model, name, *change)
    for model, changes in [
        ("ExplicitALS", SHARED | EXPLICIT),
        ("ImplicitALS", SHARED | IMPLICIT),
    ]
    for name, change in changes.items()
]


def load(path, name):
    """Import a file under another name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def properties():
    """The property tests of each model, copies that do not shrink what fails."""
    settings.register_profile("as found", phases=[Phase.generate])
    before = settings.get_current_profile_name()
    settings.load_profile("as found")
    explicit = load(TESTS / "test_als.py", "als_properties")
    with pytest.MonkeyPatch.context() as patch:
        # Whose settings the other file imports.
        patch.setitem(sys.modules, "test_als", explicit)
        implicit = load(TESTS / "test_implicit_als.py", "implicit_properties")
    yield {"ExplicitALS": explicit, "ImplicitALS": implicit}
    settings.load_profile(before)


@pytest.fixture
def run_properties(properties, tmp_path, monkeypatch):
    """A function that installs a solver of this text and then checks it."""

    def run(model, source):
        copy = tmp_path / "als.py"
        copy.write_text(source, encoding="utf-8")
        mutant = getattr(load(copy, "als_mutant"), model)
        monkeypatch.setattr(properties[model], model, mutant)
        for name in PROPERTIES[model]:
            getattr(properties[model], name)()

    return run


@pytest.mark.parametrize("model", PROPERTIES)
def test_unbroken_solver_passes(run_properties, model):
    run_properties(model, SOLVER.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("model", "name", "old", "new"), MUTANTS, ids=[f"{m[0]} {m[1]}" for m in MUTANTS]
)
def test_broken_solver_fails(run_properties, model, name, old, new):
    source = SOLVER.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"als.py no longer holds, once, {old!r}"
    # A wrong result, or a system that is singular where the true one is not.
    with pytest.raises((AssertionError, ValueError)) as caught:
        run_properties(model, source.replace(old, new))
    if caught.type is ValueError:
        assert "is singular" in str(caught.value)

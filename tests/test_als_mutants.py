"""The properties notice when the solver is broken on purpose.

Each mutant is a copy of the solver with one piece of its text changed. At least one
of the property tests must fail on it; all of them pass on an unchanged copy.
"""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import Phase, settings

TESTS = Path(__file__).resolve().parent
SOLVER = TESTS.parent / "book" / "als_course" / "als.py"
PROPERTIES = [
    "test_gradient_is_zero_after_a_half_step",
    "test_history_is_the_objective_after_each_sweep",
    "test_half_step_never_raises_the_objective",
    "test_fold_in_is_the_next_half_step",
]

ITEM_STEP = 'item_factors = _half_step(by_item, user_factors, item_penalties, "item")'
MUTANTS = {
    "drops lambda": ("gram.flat[:: k + 1] += penalties[row]", "pass"),
    "drops lambda where the system allows": (
        "+= penalties[row]",
        "+= penalties[row] * (len(X) < k)",
    ),
    "solves on zero-filled holes": ("gram = X.T @ X", "gram = fixed.T @ fixed"),
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
        "item_factors = _half_step(by_item, vars(self).setdefault('_stale', "
        "user_factors), item_penalties, 'item')",
    ),
    "never updates the items": (ITEM_STEP, "pass"),
    "counts the ratings of columns, not rows": (
        "n_ratings = np.diff(ratings.indptr)",
        "n_ratings = np.resize(np.bincount(ratings.indices), ratings.shape[0])",
    ),
    "forgets the weights": ("if self.weighted_regularization else", "if False else"),
    "always weights": ("if self.weighted_regularization else", "if True else"),
    "drops residuals of zero": (
        "        return residuals\n",
        "        residuals.eliminate_zeros()\n        return residuals\n",
    ),
    "leaves the penalty out of the history": (
        "+ user_penalties @ np.sum(user_factors**2, axis=1)",
        "",
    ),
}


def load(path, name):
    """Import a file under another name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def properties():
    """The property tests, a copy that does not shrink what fails."""
    settings.register_profile("as found", phases=[Phase.generate])
    before = settings.get_current_profile_name()
    settings.load_profile("as found")
    yield load(TESTS / "test_als.py", "als_properties")
    settings.load_profile(before)


@pytest.fixture
def run_properties(properties, tmp_path, monkeypatch):
    """A function that installs a solver of this text and then checks it."""

    def run(source):
        copy = tmp_path / "als.py"
        copy.write_text(source, encoding="utf-8")
        monkeypatch.setattr(
            properties, "ExplicitALS", load(copy, "als_mutant").ExplicitALS
        )
        for name in PROPERTIES:
            getattr(properties, name)()

    return run


def test_unbroken_solver_passes(run_properties):
    run_properties(SOLVER.read_text(encoding="utf-8"))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_solver_fails(run_properties, mutant):
    source, (old, new) = SOLVER.read_text(encoding="utf-8"), MUTANTS[mutant]
    assert source.count(old) == 1, f"als.py no longer holds, once, {old!r}"
    # A wrong result, or a system that is singular where the true one is not.
    with pytest.raises((AssertionError, ValueError)) as caught:
        run_properties(source.replace(old, new))
    if caught.type is ValueError:
        assert "is singular" in str(caught.value)

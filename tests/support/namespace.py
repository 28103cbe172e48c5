"""A namespace as a notebook has it, in which answers are tried one by one."""

import contextlib
import functools
import io
from copy import deepcopy
from dataclasses import dataclass

import joblib
import matplotlib.pyplot as plt

from als_course.als import ExplicitALS, ImplicitALS
from tools.exercises import Exercise, guard


@dataclass(frozen=True)
class Verdict:
    """What became of an answer: whether it ran, what each part of the checks said."""

    ran: Exception | None
    visible: Exception | None
    hidden: Exception | None
    printed: str

    @property
    def right(self) -> bool:
        """Whether nothing was found."""
        return self.ran is self.visible is self.hidden is None

    @property
    def messages(self) -> str:
        """What the student reads."""
        return "\n".join(str(e) for e in (self.visible, self.hidden) if e)


class Namespace:
    """What the set-up cells of a chapter define; what they show is dropped."""

    def __init__(self, setup: list[str]) -> None:
        self.names = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()):
            for cell in setup:
                self._run(cell)
        plt.close("all")
        for model in self.names.values():
            own = isinstance(model, type) and model.__module__ == "__main__"
            if own and hasattr(model, "fit"):
                model.fit = remembered(model.fit)
        self.clean = dict(self.names)
        self.given = None
        self.answered = {}

    def _run(self, code: str) -> None:
        exec(compile(code, "<exercise>", "exec"), self.names)

    def _fault(self, code: str) -> Exception | None:
        try:
            self._run(code)
        except Exception as error:
            return error
        return None

    def _begin(self, exercise: Exercise) -> None:
        """Run what the task gives, once for all answers to it."""
        if self.given and self.given[0] == exercise.label:
            return
        self.names.clear()
        self.names.update(self.clean)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self._run(exercise.given)
        self.given = exercise.label, dict(self.names), printed.getvalue()

    def try_out(self, exercise: Exercise, code: str) -> Verdict:
        """Run an answer and the checks in a fresh copy of the namespace."""
        self._begin(exercise)
        _, names, already = self.given
        self.names.clear()
        self.names.update(names)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            ran = self._fault(code)
            self.answered = dict(self.names)
            printed_by_answer = already + printed.getvalue()
            visible = self._fault(f"{guard(exercise.stub)}\n{exercise.check}")
            hidden = self._fault(exercise.hidden)
        return Verdict(ran, visible, hidden, printed_by_answer)

    def passes(self, exercise: Exercise, changes: dict) -> bool:
        """Whether the last answer tried, with some names changed, passes the checks."""
        self.names.clear()
        self.names.update(self.answered | changes)
        with contextlib.redirect_stdout(io.StringIO()):
            visible = f"{guard(exercise.stub)}\n{exercise.check}"
            return not (self._fault(visible) or self._fault(exercise.hidden))


def fit_each_once(monkeypatch) -> None:
    """Fit a model to the same ratings once: most wrong answers err after the fit."""
    for model in (ExplicitALS, ImplicitALS):
        monkeypatch.setattr(model, "fit", remembered(model.fit))


def fit_spark_once(monkeypatch) -> None:
    """Fit Spark's ALS with the same settings to the same rows once."""
    from pyspark.ml.recommendation import ALS

    seen, fit = {}, ALS.fit

    def fit_once(self, dataset, params=None):
        if isinstance(params, (list, tuple)):
            return fit(self, dataset, params)
        chosen = self.extractParamMap(params or {}).items()
        settings = sorted((param.name, str(value)) for param, value in chosen)
        key = str(settings), dataset.semanticHash()
        if key not in seen:
            seen[key] = fit(self, dataset, params)
        return seen[key]

    monkeypatch.setattr(ALS, "fit", fit_once)


def remembered(fit):
    """Give a fit that copies what an equal model has learnt from equal ratings."""
    seen = {}

    @functools.wraps(fit)
    def fit_once(self, *args, **options):
        if any(map(callable, vars(self).values())):
            return fit(self, *args, **options)  # equal functions cannot be told
        key = joblib.hash((type(self).__name__, vars(self), args, options))
        if key not in seen:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                fit(self, *args, **options)
            seen[key] = deepcopy(vars(self)), printed.getvalue()
        learnt, said = seen[key]
        vars(self).update(deepcopy(learnt))
        print(said, end="")
        return self

    return fit_once

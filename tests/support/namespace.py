"""A namespace as a notebook has it, in which answers are tried one by one."""

import contextlib
import io
from dataclasses import dataclass

import matplotlib.pyplot as plt

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
        self.clean = dict(self.names)

    def _run(self, code: str) -> None:
        exec(compile(code, "<exercise>", "exec"), self.names)

    def _fault(self, code: str) -> Exception | None:
        try:
            self._run(code)
        except Exception as error:
            return error
        return None

    def try_out(self, exercise: Exercise, code: str) -> Verdict:
        """Run an answer and the checks in a fresh copy of the namespace."""
        self.names.clear()
        self.names.update(self.clean)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            ran = self._fault(f"{exercise.given}\n\n{code}")
            printed_by_answer = printed.getvalue()
            visible = self._fault(f"{guard(exercise.stub)}\n{exercise.check}")
            hidden = self._fault(exercise.hidden)
        return Verdict(ran, visible, hidden, printed_by_answer)

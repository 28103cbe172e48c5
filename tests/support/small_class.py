"""A course of two small exercises, and students of it who are made by tests."""

import os
from copy import deepcopy

from nbformat.v4 import new_code_cell

from tools.classroom.assignments import grade_id
from tools.exercises import Exercise

LIMIT = float(os.environ.get("ALS_COURSE_LIMIT", "1"))  # seconds of work for a cell
SETUP = "import numpy as np\n\ncounts = np.array([1, 2, 3])"
NUMBER = Exercise(
    label="small_ex1",
    title="Add up",
    level=1,
    time="ten minutes",
    task="Store the sum of `counts` in `total`.",
    hint="There is a method.",
    given="",
    solution="total = int(counts.sum())",
    explanation="Add.",
    check="assert np.isclose(total, 6), f'total: {total} is not it'",
    hidden="secret = 2 * counts.sum()\n"
    "assert 2 * total == secret, 'total: not the sum'",
    stub="total = ...",
    wrong=(),
    right=(),
)
FUNCTION = Exercise(
    label="small_ex2",
    title="Double",
    level=2,
    time="ten minutes",
    task="Write `double(x)`.",
    hint="Twice.",
    given="numbers = [2, 3]",
    solution="def double(x):\n    return 2 * x",
    explanation="Twice.",
    check="assert double(2) == 4, 'double of 2?'\n"
    "assert double(3) == 6, 'double of 3?'",
    hidden="for number in range(10, 20):\n"
    "    assert double(number) == 2 * number, f'double of {number}?'",
    stub='def double(x):\n    raise NotImplementedError("write double")',
    wrong=(),
    right=(),
)


class Student:
    """A notebook in the making; the exercises are numbered from 1."""

    def __init__(self, assignment):
        self.notebook = deepcopy(assignment.release)
        self.tasks = assignment.tasks

    def cell(self, name):
        return next(c for c in self.notebook.cells if grade_id(c) == f"{name}")

    def answer(self, number, code):
        self.cell(self.tasks[number - 1].label).source = code
        return self

    def solve(self, *numbers):
        for number in numbers or range(1, len(self.tasks) + 1):
            self.answer(number, self.tasks[number - 1].solution)
        return self

    def remove(self, *names):
        keep = [c for c in self.notebook.cells if grade_id(c) not in names]
        self.notebook.cells = keep
        return self

    def add(self, after, code):
        place = self.notebook.cells.index(self.cell(after)) + 1
        self.notebook.cells.insert(place, new_code_cell(code))
        return self

"""Printed numbers stand far enough from where they would be rounded to others."""

import ast
import json

import pytest

from tools import chapters, everywhere


def test_no_number_that_moves_stands_close_to_another_rounding():
    record = json.loads(everywhere.RECORD.read_text("utf-8"))
    close = [
        f"{name}: {number} is {precise} and moves by {moved}"
        for name, cells in record.items()
        for cell in chapters.code_cells(chapters.read(name))
        for number, precise, moved in cells.get(everywhere.key(cell.source), [])
        if everywhere.too_close(number, precise, moved)
    ]
    assert close == []


@pytest.mark.parametrize(
    ("number", "precise", "moved", "close"),
    [
        ("1.04", 1.0449, 0.0002, True),
        ("1.04", 1.0449, 0.000011, True),
        ("1.04", 1.0449, 0.000009, False),
        ("1.0", 1.0449, 0.0002, False),
        ("1.1", 1.0501, 0.0002, True),
        ("-3", -3.4, 0.02, True),
        ("-3", -3.4, 0.009, False),
        ("1,234", 1234.1, 0.03, False),
        ("2.5e-05", 2.549e-05, 1e-9, True),
        ("2.5e-05", 2.52e-05, 1e-9, False),
    ],
)
def test_a_number_keeps_ten_times_what_it_moves_by(number, precise, moved, close):
    assert everywhere.too_close(number, precise, moved) == close


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print(f'{x:.2f} {x:8.1%} {x:>{w}.1f}')", "1.234568 123.45679%    1.23457"),
        ("print('{:.2f}'.format(x), '%.1f' % x)", "1.234568 1.23457"),
        ("print(round(x, 2), np.round(x, decimals=1))", "1.234568 1.23457"),
        ("print(pd.Series([x]).round(1).tolist())", "[1.23457]"),
        ("print(f'{x:.2f} of v1.2f'); assert x > 3", "1.234568 of v1.2f"),
    ],
)
def test_code_prints_more_digits_and_checks_nothing(code, printed, capsys):
    tree = everywhere.MoreDigits().visit(ast.parse(code))
    names = {"x": 1.2345678901, "w": 10}
    exec("import numpy as np, pandas as pd", names)
    exec(compile(ast.fix_missing_locations(tree), "", "exec"), names)
    assert capsys.readouterr().out.rstrip("\n") == printed


def test_what_moves_is_found_number_by_number():
    here, there = "users 943 rmse 0.941234", "users 943 rmse 0.941254"
    [[number, precise, moved]] = everywhere.measured(
        "users 943 rmse 0.94", here, [there]
    )
    assert (number, precise) == ("0.94", 0.941234)
    assert moved == pytest.approx(0.00002)
    assert everywhere.measured("users 943 rmse 0.94", here, [here]) == []
    assert everywhere.measured("users 943 rmse 0.94", here, ["rmse 0.94"]) is None

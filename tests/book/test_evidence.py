"""Hidden cells say which sentence they hold."""

import ast

import pytest

from tools import chapters


def holds(code: str) -> bool:
    """Whether a cell asserts something itself, not in a function that it defines."""
    return any(isinstance(statement, ast.Assert) for statement in ast.parse(code).body)


@pytest.mark.parametrize("name", chapters.notebooks())
def test_a_hidden_assert_begins_with_the_sentence_it_holds(name):
    hidden = [
        cell.source.strip()
        for cell in chapters.code_cells(chapters.read(name))
        if "remove-cell" in cell.metadata.get("tags", []) and holds(cell.source)
    ]
    silent = [code for code in hidden if not code.startswith("# ")]
    shown = "\n...\n".join(code[:120] for code in silent)
    assert not silent, f"{len(silent)} of {len(hidden)} begin without it:\n{shown}"

"""The mutants still fit the course; `make mutants` tries them out."""

import re

import mutants
import pytest

from tools import chapters

MUTANTS = {mutant.name: mutant for mutant in mutants.MUTANTS}


def test_there_are_enough_mutants_and_each_has_its_own_name():
    assert len(MUTANTS) == len(mutants.MUTANTS) >= 80
    assert sum("kernels.py" in mutant.file for mutant in MUTANTS.values()) >= 8


@pytest.mark.parametrize("name", MUTANTS)
def test_the_text_of_a_mutant_stands_once_in_its_file(name):
    mutant = MUTANTS[name]
    for file, text in mutant.texts(chapters.ROOT).items():
        assert text != (chapters.ROOT / file).read_text("utf-8")


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_of_a_mutant_exists(name):
    for check in MUTANTS[name].checks:
        file, _, test = check.partition("::")
        path = chapters.ROOT / file
        assert path.is_file()
        if test:
            assert f"\ndef {test.partition('[')[0]}(" in path.read_text("utf-8")


def test_the_report_is_of_these_mutants_and_none_survived():
    text = mutants.REPORT.read_text("utf-8")
    found = re.search(r"(\d+) mutants, 0 survived\.", text)
    ours = text.split("\n## ")[1].splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in ours if "| `" in line]
    assert rows == [name.replace("|", "\\|") for name in MUTANTS]
    assert int(found[1]) > len(rows)

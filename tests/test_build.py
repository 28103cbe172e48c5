"""Building the site: failures are loud, and no stored run outlives its reasons."""

import os
import shutil
import subprocess
import sys

import pytest

import chapters

PAGE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
(tiny)=
# Tiny

The answer of the library, see {ref}`tiny`.

```{code-cell} ipython3
from als_course import answer

print(f"answer {answer.ANSWER}")
```
"""


@pytest.fixture
def book(tmp_path):
    """A book of one page, with this project's settings and extensions."""
    ignore = shutil.ignore_patterns("*.md", "__pycache__", "*.ipynb")
    shutil.copytree(chapters.BOOK, tmp_path / "book", ignore=ignore)
    for name in ("_config.yml", "requirements.txt"):
        shutil.copy(chapters.ROOT / name, tmp_path)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/tiny\n", "utf-8")
    (tmp_path / "book" / "tiny.md").write_text(PAGE, "utf-8")
    (tmp_path / "book" / "als_course" / "answer.py").write_text("ANSWER = 41\n")
    return tmp_path


def build(book, **environment):
    """Build the site as `make book` does."""
    command = "from jupyter_book.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "build", "-W", "-n", "--keep-going", "."],
        cwd=book,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def shown(book):
    return (book / "_build" / "html" / "book" / "tiny.html").read_text("utf-8")


def runs(book):
    """How many states of library, packages and data have stored runs."""
    return len(list((book / "_build" / ".jupyter_cache").iterdir()))


def test_a_stored_run_is_used_until_library_data_or_requirements_change(book):
    first = build(book)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "answer 41" in shown(book)
    build(book)
    assert runs(book) == 1

    (book / "book" / "als_course" / "answer.py").write_text("ANSWER = 42\n")
    assert build(book).returncode == 0
    assert "answer 42" in shown(book)
    assert "answer 41" not in shown(book)
    assert runs(book) == 2

    with (book / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    build(book)
    assert runs(book) == 3


def test_two_pages_run_at_a_time_and_each_once(book):
    meet = """
```{code-cell} ipython3
import pathlib, time

with open("runs.txt", "a") as file:
    file.write("HERE\\n")
end = time.monotonic() + 60
while len(pathlib.Path("runs.txt").read_text().split()) < 2:
    assert time.monotonic() < end, "the other page does not run"
    time.sleep(0.1)
```
"""
    (book / "book" / "tiny.md").write_text(PAGE + meet.replace("HERE", "tiny"), "utf-8")
    other = PAGE.replace("tiny", "other") + meet.replace("HERE", "other")
    (book / "book" / "other.md").write_text(other, "utf-8")
    with (book / "_toc.yml").open("a") as toc:
        toc.write("chapters: [{file: book/other}]\n")
    for _ in range(2):
        result = build(book)
        assert result.returncode == 0, result.stdout + result.stderr
    text = (book / "book" / "runs.txt").read_text("utf-8")
    assert sorted(text.split()) == ["other", "tiny"]


def test_the_source_of_the_data_is_part_of_the_state(book):
    def state(**environment):
        command = "import execution; print(execution.digest())"
        return subprocess.run(
            [sys.executable, "-c", command],
            cwd=book / "book" / "_ext",
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | environment,
        ).stdout

    generated = state(ALS_COURSE_AMAZON="look-alike")
    assert generated == state(ALS_COURSE_AMAZON="look-alike", PYTHONHASHSEED="7")
    assert (state() == generated) == (not chapters.have_real_amazon())


def test_a_failing_cell_fails_the_build_with_its_traceback(book):
    page = book / "book" / "tiny.md"
    page.write_text(PAGE.replace("answer.ANSWER", "answer.ANSWER / 0"), "utf-8")
    result = build(book)
    assert result.returncode != 0
    assert "ZeroDivisionError" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("{ref}`tiny`", "{ref}`nowhere`", "nowhere"),
        ("The answer", "$\\frac{1$ is no formula. The answer", "braces"),
        ("The answer", "$\\nosuch x$ is no formula. The answer", "nosuch"),
        ("The answer", "$x^$ is no formula. The answer", "Missing"),
        ("The answer", "$x &= 1$ is no formula. The answer", "alignment"),
    ],
)
def test_a_warning_fails_the_build_and_says_where(book, good, bad, named):
    (book / "book" / "tiny.md").write_text(PAGE.replace(good, bad), "utf-8")
    result = build(book)
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "tiny.md" in said
    assert named in said

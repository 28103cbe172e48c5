"""Building the site: failures are loud, and no stored run outlives its reasons."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from als_course import datasets
from tools import chapters, pdf, runs

needs_groups = pytest.mark.skipif(os.name == "nt", reason="no groups of processes")

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


SMALL = "    theme_fixes_all_match: false\n"  # no table, no citation


@pytest.fixture
def book(tmp_path):
    """A book of one page, with this project's settings and extensions.

    Its folder has a name that programs stumble over.
    """
    folder = tmp_path / "Kurs für ALS é"
    ignore = shutil.ignore_patterns("*.md", "__pycache__", "*.ipynb")
    shutil.copytree(chapters.BOOK, folder / "book", ignore=ignore)
    shutil.copytree(chapters.ROOT / "tools", folder / "tools", ignore=ignore)
    for name in ("_config.yml", "requirements.txt", "CITATION.cff"):
        shutil.copy(chapters.ROOT / name, folder)
    config = folder / "_config.yml"
    text = config.read_text("utf-8").replace("  config:\n", f"  config:\n{SMALL}", 1)
    config.write_text(text, "utf-8")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/tiny\n", "utf-8")
    (folder / "book" / "tiny.md").write_text(PAGE, "utf-8")
    (folder / "book" / "als_course" / "answer.py").write_text("ANSWER = 41\n")
    return folder


def start(book, *options, before="", **environment):
    """Begin to build the site as `make book` does."""
    command = before + "from jupyter_book.cli.main import main; main()"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            command,
            "build",
            "-W",
            "-n",
            "--keep-going",
            *options,
            ".",
        ],
        cwd=book,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(book / "book")} | environment,
        start_new_session=True,
    )


def build(book, *options, before="", **environment):
    """Build the site as `make book` does."""
    with start(book, *options, before=before, **environment) as run:
        out, err = run.communicate()
    return subprocess.CompletedProcess(run.args, run.returncode, out, err)


def shown(book):
    return (book / "_build" / "html" / "book" / "tiny.html").read_text("utf-8")


def test_a_page_is_run_anew_when_the_library_changes_in_what_it_does(book):
    first = build(book)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "answer 41" in shown(book)
    assert re.search(r"book/tiny: ran for \d+ s; 0 left to run", first.stdout)
    assert "Executing notebook" not in first.stderr, "MyST-NB runs it once more"

    (book / "book" / "als_course" / "answer.py").write_text("ANSWER = 42\n", "utf-8")
    second = build(book)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "answer 42" in shown(book)
    assert "answer 41" not in shown(book)


def test_without_python_for_the_browser_a_page_has_no_buttons_and_says_so(
    book, tmp_path
):
    nothing = {"ALS_COURSE_PYODIDE": "", "ALS_COURSE_CACHE": str(tmp_path / "empty")}
    result = build(book, **nothing)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "built without Python for the browser" in shown(book)
    assert 'id="live-0"' not in shown(book)
    assert not list((book / "_build" / "html").rglob("python-*"))


@pytest.mark.weekly
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
    result = build(book)
    assert result.returncode == 0, result.stdout + result.stderr
    text = (book / "book" / "runs.txt").read_text("utf-8")
    assert sorted(text.split()) == ["other", "tiny"]


@pytest.fixture
def state(book, monkeypatch):
    """Asks what the run of the page depends on, apart from its own code."""
    monkeypatch.setattr(chapters, "BOOK", book / "book")

    def ask():
        runs.contents.cache_clear()
        runs.fetched.cache_clear()
        return runs.digest(book / "book" / "tiny.md")

    yield ask
    runs.contents.cache_clear()
    runs.fetched.cache_clear()


STATE = """
import pathlib, sys
from tools import chapters, runs

chapters.BOOK = pathlib.Path(sys.argv[1])
print(runs.digest(chapters.BOOK / "tiny.md"))
"""


def test_a_run_is_named_alike_by_another_process(book, state):
    # That one imports setuptools, which brings packages of its own.
    command = [sys.executable, "-c", f"import setuptools\n{STATE}", str(book / "book")]
    again = subprocess.run(
        command,
        cwd=chapters.ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert again.stdout == f"{state()}\n"


def test_a_run_goes_stale_by_what_its_page_depends_on_and_by_nothing_else(book, state):
    page, library = book / "book" / "tiny.md", book / "book" / "als_course"
    first = state()
    answer = library / "answer.py"
    answer.write_text('"""A docstring."""\n\nANSWER = 41  # a comment\n', "utf-8")
    with (library / "spark.py").open("a") as file:
        file.write("\nANOTHER = 1\n")
    with (book / "book" / "jobs" / "train_als.py").open("a") as file:
        file.write("\nANOTHER = 1\n")
    assert state() == first, "the page uses neither, nor has the answer changed"
    answer.write_text("from als_course import helper\n\nANSWER = 41\n", "utf-8")
    (library / "helper.py").write_text("HELP = 1\n", "utf-8")
    second = state()
    (library / "helper.py").write_text("HELP = 2\n", "utf-8")
    third = state()
    page.write_text(PAGE.replace("print(", "import train_als\nprint("), "utf-8")
    assert len({first, second, third, state()}) == 4


def test_the_source_of_the_data_is_part_of_the_state(book, state, monkeypatch):
    page = book / "book" / "tiny.md"
    fetching = "from als_course import answer, datasets\ndatasets.fetch_amazon_reviews"
    page.write_text(PAGE.replace("from als_course import answer", fetching), "utf-8")
    before = state()
    real = datasets.fetch_amazon_reviews().source == chapters.REAL
    monkeypatch.setenv("ALS_COURSE_AMAZON", "look-alike")
    assert (state() != before) == real


def test_a_failing_cell_fails_the_build_with_its_traceback(book):
    page = book / "book" / "tiny.md"
    page.write_text(PAGE.replace("answer.ANSWER", "answer.ANSWER / 0"), "utf-8")
    result = build(book)
    assert result.returncode != 0
    assert "ZeroDivisionError" in result.stdout + result.stderr


LESSON = (
    PAGE.replace("tiny", "lesson")
    .replace("# Tiny", "# Lesson")
    .replace("answer {", "lesson {")
    + """
```{exercise-start} Try it
:label: lesson_ex1
```
Give `x` a value.
```{exercise-end}
```
"""
)


def addressed(book, repository, site):
    """Give a book of two pages the addresses of its repository and its site."""
    (book / "book" / "lesson.md").write_text(LESSON, "utf-8")
    toc = "format: jb-book\nroot: book/tiny\nchapters:\n  - file: book/lesson\n"
    (book / "_toc.yml").write_text(toc, "utf-8")
    config = (book / "_config.yml").read_text("utf-8")
    config = config.replace('repository_url: ""', f'repository_url: "{repository}"')
    config = config.replace('  baseurl: "" ', f'  baseurl: "{site}" ')
    (book / "_config.yml").write_text(config, "utf-8")


@pytest.mark.weekly
def test_without_addresses_none_is_made_up(book):
    addressed(book, "", "")
    assert build(book).returncode == 0
    page = (book / "_build" / "html" / "book" / "lesson.html").read_text("utf-8")
    for word in (
        "colab",
        "mybinder",
        "/edit/",
        'rel="canonical"',
        "og:url",
        "og:image",
    ):
        assert word not in page
    assert not (book / "_build" / "html" / "sitemap.xml").exists()


@pytest.mark.weekly
def test_an_address_that_is_no_repository_is_refused(book):
    addressed(book, "https://github.com/only-owner", "")
    result = build(book)
    assert result.returncode != 0
    assert "https://github.com/OWNER/NAME" in result.stdout + result.stderr


@pytest.mark.weekly
@pytest.mark.skipif(not pdf.find_chromium(), reason="install chromium to print")
def test_the_whole_book_prints_with_links_that_lead_somewhere(book):
    addressed(book, "", "")
    assert build(book, "--builder", "singlehtml").returncode == 0
    out = book / "_build" / "pdf" / "book.pdf"
    pdf.print_book(pdf.at_the_root(book / "_build" / "singlehtml"), out)
    printed = out.read_bytes()
    pages = len(re.findall(rb"/Type /Page\b", printed))
    assert pages == 4, "a cover, the contents, and a page for each chapter"
    assert b"/Outlines" in printed
    assert b"file:" not in printed
    wanted = re.findall(rb"/Dest /(\S+)", printed)
    assert len(wanted) >= 3, "the contents, and what each page says of itself"
    for name in wanted:
        assert re.search(rb"/" + re.escape(name) + rb" \[", printed), name


@pytest.mark.weekly
def test_each_warning_fails_the_build_and_says_where(book):
    wrong = {
        "nowhere": "See {ref}`nowhere`.",
        "braces": "$\\frac{1$ is no formula.",
        "nosuch": "$\\nosuch x$ is no formula.",
        "Missing": "$x^$ is no formula.",
        "alignment": "$x &= 1$ is no formula.",
    }
    for named, text in wrong.items():
        (book / "book" / f"page-{named}.md").write_text(f"# Page\n\n{text}\n", "utf-8")
    files = ", ".join(f"{{file: book/page-{named}}}" for named in wrong)
    with (book / "_toc.yml").open("a") as toc:
        toc.write(f"chapters: [{files}]\n")
    result = build(book)
    assert result.returncode != 0
    for named in wrong:
        assert re.search(rf"page-{named}\.md.*{named}", result.stderr), named


@pytest.mark.weekly
def test_a_change_to_the_theme_that_finds_nothing_to_change_fails_the_build(book):
    config = book / "_config.yml"
    config.write_text(config.read_text("utf-8").replace(SMALL, ""), "utf-8")
    result = build(book)
    assert result.returncode != 0
    said = re.findall(r"nothing on any page matches (.*)", result.stderr)
    assert any("citation-list" in pattern for pattern in said), "the page cites nobody"
    assert not any("fontawesome" in pattern for pattern in said), "every page has it"


# -- interrupted, in company, and again ------------------------------------------------

PICTURE = """
```{code-cell} ipython3
import matplotlib.pyplot as plt
from als_course import plots

plots.use_course_style()
plt.plot([40, answer.ANSWER]);
```
"""
TERMS = """
```{glossary}
sweep
  Both half-steps, once.
```
"""
WAIT = """
```{code-cell} ipython3
import pathlib, time

with open("runs.txt", "a") as file:
    file.write("run\\n")
end = time.monotonic() + 60
while not pathlib.Path("go.txt").exists() and time.monotonic() < end:
    time.sleep(0.1)
```
"""


def until_it_runs(book, process):
    """Wait until the page that waits is being executed."""
    while not (book / "book" / "runs.txt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)


@needs_groups
@pytest.mark.weekly
def test_a_build_that_was_killed_is_finished_by_the_next(book):
    (book / "book" / "tiny.md").write_text(PAGE + PICTURE + WAIT, "utf-8")
    with start(book) as first:
        until_it_runs(book, first)
        os.killpg(first.pid, signal.SIGKILL)
    (book / "book" / "go.txt").touch()
    second = build(book)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "The last build was cut off" in second.stdout
    whole = shown(book)
    assert "answer 41" in whole

    # Later cuts: a page, a picture and a stored run of which one half was written.
    made = book / "_build"
    [run] = made.glob(".jupyter_cache/executed/*/base.ipynb")
    [picture] = made.glob("jupyter_execute/*.svg")
    for path in (made / "html" / "book" / "tiny.html", picture, run):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (made / ".html-unfinished").touch()
    half = picture.read_bytes()
    third = build(book)
    assert third.returncode == 0, third.stdout + third.stderr
    assert shown(book) == whole
    assert len(picture.read_bytes()) > len(half)
    assert not (made / ".html-unfinished").exists()


@pytest.mark.weekly
def test_two_builds_at_once_take_turns_and_both_succeed(book):
    (book / "book" / "tiny.md").write_text(PAGE + WAIT, "utf-8")
    with start(book) as first:
        until_it_runs(book, first)
        with start(book) as second:
            said = ""
            while "Another process works in" not in said:
                said = second.stderr.readline()
                assert said, "it neither waits nor says so"
            (book / "book" / "go.txt").touch()
            ended = [run.communicate() for run in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), ended
    assert (book / "book" / "runs.txt").read_text() == "run\n"
    assert "answer 41" in shown(book)


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit here")
@pytest.mark.weekly
def test_a_full_disk_is_named_and_the_next_build_is_whole(book):
    """The system refuses every file of more than 20 kB, as a full disk does."""
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    )
    first = build(book, before=full)
    assert first.returncode != 0
    said = first.stdout + first.stderr
    assert re.search(r"Cannot write .*_build.*Make room there", said), said[-3000:]
    second = build(book)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "answer 41" in shown(book)


def test_a_text_that_arrives_in_pieces_is_shown_in_one():
    def stream(text, name="stdout"):
        return nbformat.v4.new_output("stream", text=text, name=name)

    picture = nbformat.v4.new_output("display_data", {"text/plain": "a picture"})
    pieces = [stream("bias:"), stream(" 0.39\n"), stream("!\n", "stderr"), picture]
    cell = nbformat.v4.new_code_cell(outputs=[*pieces, stream("after\n")])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(), cell])
    runs.join_streams(notebook)
    whole = [stream("bias: 0.39\n"), stream("!\n", "stderr"), picture]
    assert cell.outputs == [*whole, stream("after\n")]


def check_addresses(site):
    """See that pages link to Colab, Binder, the editor and themselves."""
    page = (site / "book" / "lesson.html").read_text("utf-8")
    for url in (
        "https://colab.research.google.com/github/some/course/blob/gh-pages/"
        "_downloads/lesson.ipynb",
        "https://mybinder.org/v2/gh/some/course/main?urlpath=lab/tree/book/lesson.md",
        "https://github.com/some/course/edit/main/book/lesson.md",
    ):
        assert f'href="{url}"' in page
    own = "https://some.example/als/book/lesson.html"
    assert f'<link rel="canonical" href="{own}"' in page
    assert f'<meta property="og:url" content="{own}"' in page
    card = "https://some.example/als/_static/card.png"
    assert f'<meta property="og:image" content="{card}"' in page
    assert (site / "_static" / "card.png").exists()
    sitemap = (site / "sitemap.xml").read_text("utf-8")
    assert f"<loc>{own}</loc>" in sitemap
    notebook = nbformat.read(site / "_downloads" / "lesson.ipynb", 4)
    first = next(c.source for c in notebook.cells if c.cell_type == "code")
    assert "https://github.com/some/course" in first
    compile(first, "the cell that sets up Colab", "exec")


@pytest.mark.weekly
def test_with_addresses_pages_link_there_and_the_same_sources_give_the_same_bytes(book):
    addresses = {
        "ALS_COURSE_REPOSITORY": "https://github.com/some/course",
        "ALS_COURSE_SITE": "https://some.example/als",
    }
    addressed(book, *addresses.values())
    (book / "book" / "lesson.md").write_text(LESSON + PICTURE + TERMS, "utf-8")

    def built(**environment):
        result = build(book, **environment)
        assert result.returncode == 0, result.stdout + result.stderr
        site = book / "_build" / "html"
        return {
            path.relative_to(site).as_posix(): path.read_bytes()
            for path in site.rglob("*")
            if path.is_file()
        }

    first = built(PYTHONHASHSEED="0", TZ="Asia/Kolkata")
    check_addresses(book / "_build" / "html")
    (book / "book" / "tiny.md").touch()
    again = built() | {"sitemap.xml": first["sitemap.xml"]}  # it lists what was written
    assert again == first, "written once more, over what is there"
    shutil.rmtree(book / "_build")
    config = book / "_config.yml"
    text = config.read_text("utf-8")
    for address in addresses.values():
        text = text.replace(f'"{address}"', '""')
    config.write_text(text, "utf-8")
    second = built(PYTHONHASHSEED="1", TZ="Pacific/Auckland", **addresses)
    assert first.keys() == second.keys()
    assert any(name.endswith(".svg") for name in first)
    assert [name for name in first if first[name] != second[name]] == []

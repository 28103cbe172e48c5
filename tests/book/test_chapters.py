"""The shape that every chapter has, checked on its source and its stored outputs."""

import ast
import re
import subprocess
import sys

import nbformat
import pytest

from tools import chapters, exercises

NOTEBOOKS = chapters.notebooks()
TEACHING = chapters.teaching_chapters()
ROLES = r"\{(?:ref|numref|eq|doc|prf:ref)\}`(?:[^`<]*<)?([^`>]+)>?`"


def prose(markdown: str) -> str:
    """What a reader reads: no code, formulas, directive options, roles or links."""
    unread = r"^(```+|:::+)\{(code-block|bibliography).*?^\1$"
    text = re.sub(unread, "", markdown, flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.S)
    text = re.sub(r"\{[a-z:]+\}`[^`]*`|`[^`]*`", "", text)
    marks = r"^(```|:::).*$|^:\w.*$|^\([\w-]+\)=$|^\+\+\+.*$"
    text = re.sub(marks, "", text, flags=re.M)
    return re.sub(r"\]\([^)]*\)|https?://\S+", "]", text)


def measured_numbers(text: str) -> list[str]:
    """Numbers that look measured: two decimals, a percentage, or four digits more."""
    return re.findall(r"\d+\.\d{2,}|\d+(?:\.\d+)?\s?%", text)


def source(name: str) -> str:
    return chapters.page_path(name).read_text("utf-8")


def markdown_cells(name: str) -> list[str]:
    return [c.source for c in chapters.read(name).cells if c.cell_type == "markdown"]


def named(task: str) -> set[str]:
    """Names that a task has in backticks."""
    return set(re.findall(r"\w+", " ".join(exercises.named(task))))


def labels(name: str) -> set[str]:
    """Everything on a page that another place may refer to."""
    text = source(name)
    patterns = [
        r"^\(([\w-]+)\)=$",
        r"^:label: *([\w-]+)",
        r"^\$\$ *\(([\w-]+)\)$",
        r"^    name: *([\w-]+)",
        r"^:name: *([\w-]+)",
    ]
    return {name} | {m for p in patterns for m in re.findall(p, text, flags=re.M)}


def lint(code: str, rules: list[str]) -> None:
    """Fail where the linter finds something."""
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--quiet", "--isolated", *rules, "-"],
        input=code + "\n",
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", TEACHING)
def test_chapter_opens_with_label_title_lead_and_box(name):
    first = markdown_cells(name)[0]
    label, title, rest = first.split("\n", 2)
    assert label == f"({name})="
    assert title.startswith("# ")
    lead = rest.partition("```{admonition}")[0]
    box = chapters.directives(rest)[0]
    assert box[:3] == ("admonition", "In this chapter", ":class: tip\n")
    assert 2 <= len(re.findall(r"[.?!]\s", lead)) <= 4, "two to four sentences"
    parts = ["After it you can", "You need", "Time", "Data"]
    found = re.findall(r"\*\*([^*]+)\*\*", box.body)
    assert found == parts, f"the box has {found}"
    time = re.search(r"\*\*Time\*\* (.*?)\*\*", box.body, flags=re.S)[1]
    assert "to read" in time
    assert "to run" in time


@pytest.mark.parametrize("name", TEACHING)
def test_chapter_ends_with_what_to_remember_quiz_exercises_and_references(name):
    headings = re.findall(r"^## (.+)$", "\n".join(markdown_cells(name)), flags=re.M)
    end = ["What to remember", "Before you go on", "Exercises", "References"]
    assert headings[-len(end) :] == end


@pytest.mark.parametrize("name", TEACHING)
def test_quiz_has_an_explanation_for_each_option_and_one_right_answer(name):
    text = source(name).split("\n## Before you go on\n")[1].split("\n## ")[0]
    quizzes = chapters.directives(text)
    assert 3 <= len(quizzes) <= 5
    places = set()
    for name, title, options, quiz in quizzes:
        assert (name, options) == ("admonition", ":class: quiz\n"), title
        [rest] = chapters.directives(quiz)
        assert rest[:3] == ("admonition", "Answers", ":class: dropdown\n"), title
        question = quiz.partition("```{admonition}")[0]
        assert question.split("\n\n")[0].rstrip().endswith("?"), f"{title}: a question"
        options = re.findall(r"^- (.+)$", question, re.M)
        answers = re.findall(r"^- (.+)$", rest.body, re.M)
        assert len(options) == len(answers) >= 3, title
        right = [n for n, text in enumerate(answers) if text.startswith("**Right**")]
        assert len(right) == 1, f"{title}: one right answer"
        others = [text for text in answers if not text.startswith("**Right**")]
        assert all(re.match(r"No\b|Not\b", text) for text in others), title
        assert min(len(text.split()) for text in answers) >= 6, f"{title}: explain"
        places |= {right[0]}
    assert len(places) > 1, "the right answer is not always at the same place"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_shown_cell_has_prose_before_it(name):
    previous = None
    for cell in chapters.read(name).cells:
        if cell.cell_type == "markdown":
            paragraphs = re.split(r"\n\n|\n```$", prose(cell.source).strip())
            bare = [p for p in paragraphs if p.strip() and not p.startswith("#")]
            previous = "prose" if bare else "heading"
            continue
        tags = set(cell.metadata.get("tags", []))
        if not tags & {"remove-cell", "remove-input"}:
            assert previous == "prose", f"no sentence before:\n{cell.source[:200]}"
            previous = "code"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_has_name_caption_and_alt_text(name):
    cells = chapters.code_cells(chapters.read(name))
    stored_at = chapters.stored_path(name, chapters.variants(name)[-1])
    stored = chapters.code_cells(nbformat.read(stored_at, 4))
    names = []
    for cell, run in zip(cells, stored, strict=True):
        plain = [o.get("data", {}).get("text/plain", "") for o in run.outputs]
        shown = [text for text in plain if "<Figure" in text]
        if not shown:
            continue
        assert len(shown) == 1, "one figure a cell, so that each has its own text"
        options = cell.metadata.get("mystnb", {})
        alt = options.get("image", {}).get("alt", "")
        figure = options.get("figure", {})
        assert len(alt.split()) >= 10, f"alt text says the conclusion: {alt!r}"
        assert figure.get("name", "").startswith("fig-")
        assert len(figure.get("caption", "").split()) >= 4
        assert alt != figure["caption"]
        names.append(figure["name"])
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", TEACHING)
def test_every_exercise_has_level_hint_solution_and_check(name):
    found = exercises.read(name)
    assert 3 <= len(found) <= 7
    assert [e.label for e in found] == [
        f"{name}_ex{n}" for n in range(1, len(found) + 1)
    ]
    for exercise in found:
        label = exercise.label
        assert exercise.title.strip(), f"{label} has a title"
        assert exercise.level in (1, 2, 3), label
        assert exercise.hint, label
        assert exercise.solution, f"{label} has an executed solution"
        asserts = f"\n{exercise.check}".split("\nassert ")[1:]
        assert 2 <= len(asserts) <= 4, label
        for assertion in asserts:
            said = re.search(r",\s*\\?\s*\(?\s*f?\"", assertion)
            assert said, f"{label} says what a wrong answer means"
    opening = "```{{solution-start}} {}\n:class: dropdown\n```"
    text = source(name)
    assert [e.label for e in found if text.count(opening.format(e.label)) != 1] == []
    assert text.count("```{admonition} Hint\n:class: dropdown\n") == len(found)


@pytest.mark.parametrize("name", TEACHING)
def test_every_exercise_is_complete_for_a_class(name):
    for exercise in exercises.read(name):
        assert len(re.findall(r"^assert ", exercise.hidden, re.M)), exercise.label
        assert len(exercise.wrong) >= 2, f"{exercise.label}: two wrong answers"
        assert exercise.right, f"{exercise.label}: a right answer by another route"
        answers = [a.code for a in (*exercise.wrong, *exercise.right)]
        answers += [exercise.stub, exercise.solution]
        assert len(set(answers)) == len(answers), f"{exercise.label}: twice the same"
        for answer in exercise.wrong:
            checks = exercise.check + exercise.hidden
            said = re.sub(r'"\s*\n?\s*f?"', "", checks)
            assert answer.message.split("{")[0] in said, f"{answer.message} is not said"


@pytest.mark.parametrize("name", TEACHING)
def test_checks_ask_only_for_what_the_task_names(name):
    for exercise in exercises.read(name):
        made = exercises.bound(exercise.solution)
        asked = exercises.free(f"{exercise.check}\n{exercise.hidden}") & set(made)
        imported = set(re.findall(r"(?:import|as) (\w+)", exercise.solution))
        assert asked - imported <= named(exercise.task), exercise.label


def test_a_program_in_a_task_names_nothing_and_upsets_no_backticks():
    task = (
        "Store `first`.\n\n"
        "```python\nlast = 1  # not `last`, nor half a pair: `\n```\n\n"
        "Not second: store `third` in `fourth\nfifth`.\n\n"
        "````{admonition} Note\n```python\nsixth\n```\nStore `seventh`.\n````"
    )
    assert named(task) == {"first", "third", "fourth", "fifth", "seventh"}


@pytest.mark.parametrize("name", TEACHING)
def test_answers_pass_the_linter(name):
    for exercise in exercises.read(name):
        answers = [a.code for a in (*exercise.wrong, *exercise.right)]
        for code in (exercise.hidden, exercise.stub, *answers):
            assert [line for line in code.split("\n") if len(line) > 88] == []
    text = (exercises.ANSWERS / f"{name}.md").read_text("utf-8")
    for language, program in exercises.PROGRAM.findall(text):
        if language == "diff":
            continue
        # F821, F841: what an answer uses is the chapter's, what it binds the checks'.
        rules = ["--select=E,F,B,C4,NPY,UP", "--ignore=E402,E501,E703,B018,F821,F841"]
        lint(program, rules)


@pytest.mark.parametrize("name", chapters.pages())
def test_every_label_referred_to_exists(name):
    known = set().union(*(labels(page) for page in chapters.pages()))
    used = {m.strip() for m in re.findall(ROLES, source(name))}
    assert used <= known, f"unknown: {sorted(used - known)}"


@pytest.mark.parametrize("name", chapters.pages())
def test_every_term_is_in_the_glossary(name):
    glossary = source("glossary")
    used = re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", source(name))
    known = {m.lower() for m in re.findall(r"^(\S.*)$", glossary, flags=re.M)}
    assert {u.strip().lower() for u in used} <= known


@pytest.mark.parametrize("name", chapters.pages())
def test_prose_quotes_no_measured_number(name):
    texts = [prose(text) for text in markdown_cells(name)]
    for cell in chapters.code_cells(chapters.read(name)):
        options = cell.metadata.get("mystnb", {})
        texts.append(options.get("image", {}).get("alt", ""))
        texts.append(options.get("figure", {}).get("caption", ""))
    found = [number for text in texts for number in measured_numbers(text)]
    allowed = {"100 %"}
    assert not set(found) - allowed, "let a cell print it"


@pytest.mark.parametrize("name", TEACHING[1:])
def test_exercises_are_not_called_by_a_number(name):
    """Their numbers run through the whole book; only the first chapter's are safe."""
    assert not re.findall(r"(?i)\bexercise \d", source(name))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_output_that_is_not_checked_says_why(name):
    for cell in chapters.code_cells(chapters.read(name)):
        tags = cell.metadata.get("tags", [])
        assert "nbval-skip" not in tags
        assert "NBVAL" not in cell.source
        if "nbval-ignore-output" in tags:
            assert cell.source.startswith("# Not compared: "), cell.source[:100]


@pytest.mark.parametrize(
    "path", sorted(chapters.OUTPUTS.glob("*.ipynb")), ids=lambda path: path.stem
)
def test_no_stored_output_holds_a_warning_or_a_path(path):
    for cell in chapters.code_cells(nbformat.read(path, 4)):
        assert not [o for o in cell.outputs if o.get("name") == "stderr"], cell.source
        shown = nbformat.v4.writes_json(nbformat.v4.new_notebook(cells=[cell]))
        assert not re.search(r"site-packages|Warning:|/tmp/|/home/", shown), cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_fits_the_page(name):
    lines = "\n".join(c.source for c in chapters.code_cells(chapters.read(name)))
    assert [line for line in lines.split("\n") if len(line) > 76] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_passes_the_linter(name):
    code = "\n\n".join(c.source for c in chapters.code_cells(chapters.read(name)))
    # E402, E703, B018: notebooks import where they need to and end cells in a value.
    rules = ["--select=E,F,B,C4,NPY,UP", "--ignore=E402,E501,E703,B018"]
    lint(code, rules)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_seeds_every_random_choice(name):
    code = "\n".join(c.source for c in chapters.code_cells(chapters.read(name)))
    assert not re.search(r"default_rng\(\)|np\.random\.(?!default_rng|Generator)", code)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("the test RMSE is 0.931 here", ["0.931"]),
        ("about 15.5 % of films", ["15.5 %"]),
        ("943 users, the 3 x 4 toy, level 2.5", []),
        ("`0.931` and $0.18$ stand in code and formulas", []),
    ],
)
def test_the_rule_on_measured_numbers_sees_them(text, numbers):
    assert measured_numbers(prose(text)) == numbers


def asserts(code):
    """Whether a cell asserts something itself, not in a function that it defines."""
    return any(isinstance(statement, ast.Assert) for statement in ast.parse(code).body)


@pytest.mark.parametrize("name", chapters.notebooks())
def test_a_hidden_assert_begins_with_the_sentence_it_holds(name):
    silent = [
        cell.source
        for cell in chapters.code_cells(chapters.read(name))
        if "remove-cell" in chapters.tags(cell)
        and asserts(cell.source)
        and not cell.source.lstrip().startswith("# ")
    ]
    assert silent == []

"""The page that a student gets back: marks, remarks, and what the checks said.

Written here and not by `nbgrader generate_feedback`, because nbgrader's page shows the
code of the hidden tests to whoever fails them (its issue 917).
"""

import re
from html import escape

from tools.classroom.release import ANSWER_NOTE

ANSI = re.compile(r"\x1b\[[0-9;]*m")
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
       padding: 0 1rem; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8888; }
table { border-collapse: collapse; }
th, td { border: 1px solid #8888; padding: .25rem .75rem; text-align: left; }
"""


def errors(notebook, name: str) -> list[str]:
    """List what a cell raised, without the code that raised it."""
    found = []
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == name:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    kind, said = output.ename, ANSI.sub("", output.evalue)
                    plain = kind == "AssertionError" and said
                    found.append(said if plain else f"{kind}: {said}".strip(": "))
    return found


def answer(notebook, label: str) -> str:
    """Take what the student wrote."""
    sources = [
        cell.source
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade_id") == label
    ]
    return sources[0] if sources else ""


def section(result, exercise) -> str:
    """One exercise: points, what each part of the checks said, the answer."""
    visible, hidden = result.scores[exercise.label]
    lines = [f"<h2>{escape(exercise.title)}</h2>"]
    lines.append(f"<p>{visible + hidden:g} of {2 * exercise.points} points.</p>")
    if result.notebook is None:
        return "\n".join(lines)
    code = answer(result.notebook, exercise.label)
    if code.replace(ANSWER_NOTE, "").strip() == exercise.stub:
        return "\n".join([*lines, "<p>Not answered.</p>"])
    lines.append("<ul>")
    raised = errors(result.notebook, exercise.label)
    lines += [f"<li>Your answer stopped with: {escape(said)}</li>" for said in raised]
    for kind, score in (("visible", visible), ("hidden", hidden)):
        said = errors(result.notebook, f"{exercise.label}-{kind}")
        word = "passed" if score else "not passed"
        why = f": {escape(said[0])}" if said else ""
        lines.append(f"<li>{kind.capitalize()} checks {word}{why}</li>")
    lines.append("</ul>")
    lines.append(f'<pre tabindex="0"><code>{escape(code)}</code></pre>')
    return "\n".join(lines)


def page(result, exercises) -> str:
    """Write the whole page; it holds no line of the hidden checks."""
    total = sum(2 * exercise.points for exercise in exercises)
    name = escape(result.student)
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Feedback for {name}</title><style>{STYLE}</style></head><body><main>\n"
        f"<h1>Feedback for {name}</h1>\n"
    )
    body = [f"<p>{escape(result.assignment or 'No assignment')}: "]
    body.append(f"<strong>{result.points:g} of {total} points</strong>.</p>")
    if result.remarks:
        body.append("<h2>Remarks</h2><ul>")
        body += [f"<li>{escape(remark)}</li>" for remark in result.remarks]
        body.append("</ul>")
    body += [section(result, exercise) for exercise in exercises]
    return head + "\n".join(body) + "\n</main></body></html>\n"

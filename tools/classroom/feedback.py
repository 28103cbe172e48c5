"""The page that a student gets back: marks, remarks, and what the checks said.

Written here and not by `nbgrader generate_feedback`, because nbgrader's page shows the
code of the hidden tests to whoever fails them (its issue 917).
"""

from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
       padding: 0 1rem; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8888; }
"""


@dataclass(frozen=True)
class Page:
    """What a page says besides the result itself."""

    tasks: tuple
    points: dict[str, float]
    total: float
    possible: int
    days: int
    percent: float
    comments: dict[str, str]


def section(task, answer, said: Page) -> str:
    """One exercise: points, what each part of the checks said, the answer."""
    lines = [f"<h2>{escape(task.title)}</h2>"]
    lines.append(f"<p>{said.points[task.label]:g} of {2 * task.points} points.</p>")
    if comment := said.comments.get(task.label):
        lines.append(f"<p><strong>Your teacher:</strong> {escape(comment)}</p>")
    if answer.untouched:
        return "\n".join([*lines, "<p>Not answered.</p>"])
    lines.append("<ul>")
    if answer.stopped_with:
        lines.append(
            f"<li>Your answer stopped with: {escape(answer.stopped_with)}</li>"
        )
    for kind in ("visible", "hidden"):
        score, why = getattr(answer, kind), getattr(answer, f"{kind}_said")
        word = "passed" if score == task.points else "passed in part"
        word = word if score else "not passed"
        why = f": {escape(why)}" if why else ""
        lines.append(f"<li>{kind.capitalize()} checks {word}{why}</li>")
    lines.append("</ul>")
    lines.append(f'<pre tabindex="0"><code>{escape(answer.code)}</code></pre>')
    return "\n".join(lines)


def page(result, said: Page) -> str:
    """Write the whole page; it holds no line of the hidden checks."""
    name = escape(result.student)
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Feedback for {name}</title><style>{STYLE}</style></head><body><main>\n"
        f"<h1>Feedback for {name}</h1>\n"
    )
    body = [f"<p>{escape(result.assignment or 'No assignment')}: "]
    body.append(f"<strong>{said.total:g} of {said.possible} points</strong>.</p>")
    if said.days:
        body.append(
            f"<p>Handed in {said.days} days late: {said.percent:g} % of the points "
            "are taken off for each.</p>"
        )
    if comment := said.comments.get(""):
        body.append(f"<p><strong>Your teacher:</strong> {escape(comment)}</p>")
    if result.remarks:
        body.append("<h2>Remarks</h2><ul>")
        body += [f"<li>{escape(remark)}</li>" for remark in result.remarks]
        body.append("</ul>")
    if result.answers:
        body += [section(t, result.answers[t.label], said) for t in said.tasks]
    return head + "\n".join(body) + "\n</main></body></html>\n"

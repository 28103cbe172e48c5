"""The foot of every page, and the page for a wrong address.

The foot says under which licences the course may be used, how to cite it (both from
`CITATION.cff`) and, in a checkout, from which commit the page was made.
"""

import subprocess
from functools import cache
from html import escape
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LICENCES = {
    "text": "https://creativecommons.org/licenses/by/4.0/",
    "code": "https://opensource.org/license/bsd-3-clause",
}
FOOT = """\
<p>Text and figures <a rel="license" href="{text}">CC BY 4.0</a>, code
<a href="{code}">BSD 3-Clause</a>. {made}</p>
<details class="cite"><summary>Cite this course</summary>
<div class="highlight"><pre>{bibtex}</pre></div></details>"""
LOST = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>No such page - {title}</title>
<style>body {{font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; padding: 0 1rem;
margin: 15vh auto; color-scheme: light dark}}</style></head>
<body><main><h1>There is no such page</h1>
<p>The address is wrong, or the page has another name now.</p>
<p>Go to <a href="{base}book/index.html">the first page of the course</a>, where all
chapters are listed, or <a href="{base}search.html">search</a> for what you
wanted.</p></main></body></html>
"""


def bibtex(said: dict, url: str) -> str:
    """Write the citation for LaTeX."""
    fields = {
        "title": f"{{{said['title']}}}",
        "author": f"{{{' and '.join(a['name'] for a in said['authors'])}}}",
        "year": said["date-released"][:4],
        "version": said["version"],
    } | ({"url": url} if url else {})
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["@misc{als-course,", *lines, "}"])


@cache
def commit() -> str:
    """Name the commit and its day, where this is a checkout that git can read."""
    command = ["git", "-C", ROOT, "log", "-1", "--format=commit %h of %cs"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def write_foot(app, pagename, templatename, context, doctree) -> None:
    """Hand the foot to the theme; a page says from which commit it was made."""
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    made = ", ".join(filter(None, (f"Version {said['version']}", commit())))
    entry = escape(bibtex(said, app.config.html_baseurl))
    context["theme_extra_footer"] = FOOT.format(
        made=f"{made}.", bibtex=entry, **LICENCES
    )


def write_lost(app, error) -> None:
    """Write the page that a server shows for an address that it does not know."""
    if error is None and app.builder.name == "html":
        base = app.config.html_baseurl.rstrip("/") + "/"
        text = LOST.format(title=escape(app.config.html_title), base=base)
        (Path(app.outdir) / "404.html").write_text(text, "utf-8")


def setup(app):
    """Connect to Sphinx."""
    app.connect("html-page-context", write_foot, priority=900)
    app.connect("build-finished", write_lost, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

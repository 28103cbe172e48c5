"""The directive `build-status`: what this very build ran, with what, on which data.

It takes one word, `pages`, `packages` or `data`, and becomes a table. The tables are
made anew at every build and are the only thing on the site that differs between two
builds of the same sources.
"""

import platform
import re
from importlib.metadata import version
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from tools.site.execution import digest

ROOT = Path(__file__).resolve().parents[2]


class Status(nodes.General, nodes.Element):
    """Where a table of the build goes, until every page has been run."""


class BuildStatus(SphinxDirective):
    """Mark the place of one of the tables."""

    required_arguments = 1

    def run(self):
        """Refuse a word that names no table."""
        if self.arguments[0] not in TABLES:
            names = ", ".join(TABLES)
            raise self.error(f"{self.arguments[0]!r} is no table; write one of {names}")
        return [Status(what=self.arguments[0])]


def pages(env, builder, here):
    """List every page that runs code and how long that took."""
    ran = NbMetadataCollector.get_doc_data(env)
    rows, total = [], 0.0
    for page in [p for p in env.config.external_site_map if p in ran]:
        data = ran[page].get("exec_data")
        if data:
            title = nodes.inline(text=env.titles[page].astext())
            link = make_refnode(builder, here, page, None, title)
            rows.append([link, f"{data['runtime']:.1f}"])
            total += data["runtime"]
    rows.append(["all pages", f"{total:.1f}"])
    return ["page", "seconds to run"], rows


def packages(env, builder, here):
    """List the packages that the project names itself, and Python."""
    text = (ROOT / "requirements.txt").read_text("utf-8")
    named = text.split("# -- what those pull in")[0]
    found = re.findall(r"^([a-z0-9-]+)==\S+ +# (.+)$", named, flags=re.M)
    python = ["Python", platform.python_version(), "runs everything"]
    return (
        ["package", "version here", "why it is there"],
        [python, *([name, version(name), why] for name, why in found)],
    )


def data(env, builder, here):
    """List the data sets: where the ratings came from and their fingerprints."""
    from als_course import datasets

    sets = {
        "MovieLens 100K": datasets.fetch_movielens_100k(),
        "Amazon Musical Instruments": datasets.fetch_amazon_reviews(),
        "biased ratings": datasets.make_biased_ratings(),
    }
    rows = [
        [
            name,
            found.source,
            f"{len(found.ratings):,}",
            nodes.literal(text=datasets.fingerprint(found.ratings)),
        ]
        for name, found in sets.items()
    ]
    state = [
        "library, packages and data together",
        "",
        "",
        nodes.literal(text=digest()),
    ]
    return ["data", "source", "ratings", "fingerprint (SHA-256)"], [*rows, state]


TABLES = {"pages": pages, "packages": packages, "data": data}


def table(header, rows):
    """Build a table of plain texts and nodes; its first column heads the rows."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    for part, row in [(head, header), *((body, row) for row in rows)]:
        line = nodes.row()
        for cell in row:
            inside = nodes.paragraph()
            inside += nodes.Text(cell) if isinstance(cell, str) else cell
            line += nodes.entry("", inside)
        part += line
    return nodes.table("", group, classes=["colwidths-auto"])


class FillIn(SphinxPostTransform):
    """Put the tables where the directive stands."""

    default_priority = 8

    def run(self, **kwargs):
        """Replace each mark; by now every page has been run."""
        for mark in list(self.document.findall(Status)):
            make = TABLES[mark["what"]]
            made = table(*make(self.env, self.app.builder, self.env.docname))
            mark.replace_self(made)


def always(app, env, added, changed, removed):
    """Write the page anew at every build."""
    return [page for page in env.found_docs if page.endswith("build-status")]


def setup(app):
    """Connect to Sphinx."""
    app.add_directive("build-status", BuildStatus)
    app.add_post_transform(FillIn)
    app.connect("env-get-outdated", always)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

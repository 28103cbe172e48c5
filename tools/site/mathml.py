"""Formulas as MathML, written into the page at build time.

Every current browser lays MathML out by itself and every screen reader reads it, so
a page needs no script, no font and no other host to show a formula.
"""

import re
from html import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

LOG = logging.getLogger(__name__)


def to_mathml(node, tex: str, display: str) -> str:
    """Convert one formula; a bad one becomes a warning that names its place."""
    try:
        mathml = convert(tex, display=display)
        problem = fault(tex, mathml)
    except Exception as error:  # latex2mathml raises many kinds; all mean "bad TeX"
        mathml, problem = f"<code>{escape(tex)}</code>", repr(error)
    if problem:
        LOG.warning("formula %r: %s", tex, problem, location=node, type="mathml")
    return mathml


def fault(tex: str, mathml: str) -> str | None:
    """Say what is wrong with a formula that latex2mathml lets pass."""
    braces = re.sub(r"\\.", "", tex)
    if braces.count("{") != braces.count("}"):
        return "the braces do not match"
    if ">&<" in mathml:
        return "an alignment mark & would be shown as it stands; use matrix"
    unknown = re.search(r">(\\[A-Za-z]+)<", mathml)
    return f"unknown command {unknown[1]}" if unknown else None


def visit_inline(self, node) -> None:
    """Write an inline formula."""
    self.body.append(to_mathml(node, node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node) -> None:
    """Write a displayed formula, with its number and link where it has a label."""
    self.body.append(self.starttag(node, "div", CLASS="math", tabindex="0"))
    self.body.append(to_mathml(node, node.astext(), "block"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

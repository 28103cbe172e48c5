"""What machines read about a page: description, schema.org, canonical link, sitemap.

Where `html.baseurl` in `_config.yml` gives the address of the published site, pages
also carry their own address and the picture for links to them, and there is a
sitemap; without it nothing is made up.
"""

import json
import os
import re
from html import unescape
from urllib.parse import urljoin

from docutils import nodes

from tools import chapters

CARD = "_static/card.png"
CARD_ALT = "A matrix of ratings, mostly holes, and the two thin matrices that fill them"
LICENCE = "https://creativecommons.org/licenses/by/4.0/"


def site(config) -> str:
    """Address of the published site with a slash at its end, or nothing."""
    return config.html_baseurl.rstrip("/") + "/" if config.html_baseurl else ""


def take_addresses(app, config) -> None:
    """Take the addresses from the environment, as the workflow that publishes does."""
    if repository := os.environ.get("ALS_COURSE_REPOSITORY"):
        config.html_theme_options["repository_url"] = repository
    if published := os.environ.get("ALS_COURSE_SITE"):
        config.html_baseurl = published


def add_extensions(app, config) -> None:
    """Give Open Graph what it needs; a sitemap needs an address."""
    config.ogp_site_url = config.ogp_canonical_url = site(config)
    config.ogp_image = CARD if site(config) else ""
    config.ogp_image_alt = CARD_ALT
    config.ogp_site_name = config.html_title
    if site(config):
        config.html_baseurl = site(config)
        app.setup_extension("sphinx_sitemap")
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["search.html"]


def box(doctree) -> dict[str, str]:
    """Read the box at the head of a chapter: what follows each of its bold keys."""
    said = {}
    for admonition in doctree.findall(nodes.admonition):
        if admonition.next_node(nodes.title).astext() != "In this chapter":
            continue
        for paragraph in admonition.findall(nodes.paragraph):
            key = None
            for child in paragraph.children:
                if isinstance(child, nodes.strong):
                    key = child.astext()
                    said[key] = ""
                elif key:
                    said[key] += child.astext()
    return {key: text.strip() for key, text in said.items()}


def learning_resource(app, page: str, doctree, description: str) -> dict:
    """Describe a page as a schema.org LearningResource."""
    config, env = app.config, app.env
    said = {
        "@context": "https://schema.org",
        "@type": "LearningResource",
        "name": env.titles[page].astext(),
        "description": description,
        "inLanguage": config.language,
        "isAccessibleForFree": True,
        "license": LICENCE,
        "author": {"@type": "Organization", "name": config.author},
    }
    base = site(config)
    if base:
        said["url"] = urljoin(base, f"{page}.html")
        said["image"] = urljoin(base, CARD)
    taught = [f"book/{name}" for name in chapters.teaching_chapters()]
    if page == config.root_doc:
        said["@type"] = ["Book", "LearningResource"]
        said["learningResourceType"] = "course"
        said["hasPart"] = [
            {"@type": "LearningResource", "position": n, "name": env.titles[p].astext()}
            for n, p in enumerate(taught, start=1)
        ]
        return said
    said["isPartOf"] = {"@type": "Book", "name": config.html_title}
    if page in taught:
        head = box(doctree)
        said["learningResourceType"] = "chapter"
        said["position"] = taught.index(page) + 1
        minutes = re.match(r"(\d+) minutes to read", head.get("Time", ""))
        if minutes:
            said["timeRequired"] = f"PT{minutes[1]}M"
        if head:
            aims = head["After it you can"].split(";")
            said["teaches"] = [aim.strip(" .") for aim in aims]
            said["competencyRequired"] = head["You need"]
    return said


def describe(app, pagename, templatename, context, doctree) -> None:
    """Add what schema.org wants to what Open Graph wrote into a page's head."""
    if doctree is None or app.builder.name != "html":
        return
    tags = context["metatags"]
    if not site(app.config):
        tags = re.sub(r'<meta property="og:url"[^>]*>\n?', "", tags)
    found = re.search(r'name="description" content="([^"]*)"', tags)
    words = unescape(found[1]) if found else ""  # a page may be all code
    said = json.dumps(learning_resource(app, pagename, doctree, words), indent=1)
    said = said.replace("<", "\\u003c")
    context["metatags"] = f'{tags}<script type="application/ld+json">{said}</script>\n'


def setup(app):
    """Connect to Sphinx."""
    app.setup_extension("sphinxext.opengraph")
    app.connect("config-inited", take_addresses, priority=100)
    app.connect("config-inited", add_extensions)
    app.connect("html-page-context", describe, priority=700)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

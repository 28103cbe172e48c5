"""The figures that matplotlib wrote: small, and right on light and dark pages.

`theme_fixes` calls `lighten_figure` for each picture of the built site. Only what
nobody can see is left out.
"""

import base64
import io
import re
from itertools import pairwise
from math import inf
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from matplotlib.path import Path as Outline
from PIL import Image

from als_course import plots

# Dark pages get figures of their own colours: paper and ink change places, what stands
# for data keeps its colour.
DARK = {
    plots.PAPER: "#121212",
    plots.INK: "#e0e0e0",
    plots.HOLE: "#3c3c3c",
    plots.ESTIMATE: "#17384d",
    **dict(zip(plots.GREYS, ("#a6a6a6", "#808080", "#999999", "#4a4a4a"), strict=True)),
}
DARK_TEXT = {plots.OKABE_ITO[0].lower(): "#56b4e9", plots.DARK_ORANGE: "#f0a060"}
PAPER = {plots.PAPER, plots.HOLE, plots.ESTIMATE}  # they change with the ink on them


def dark_style() -> str:
    """Write the style of dark pages; its condition follows the page's switch."""
    rules = [
        f"text {{fill: {DARK[plots.INK]}}}",
        f'text[style*="--edge"] {{stroke: {DARK[plots.PAPER]}; stroke-width: 3px; '
        "paint-order: stroke}",
    ]
    for light, dark in DARK.items():
        for part in ("fill", "stroke"):
            but = ":not(text)" if (part, light) == ("fill", plots.PAPER) else ""
            rule = f'[style*="{part}: {light}"]{but} {{{part}: {dark} !important}}'
            rules += [rule] if light != dark else []
    for light, dark in DARK_TEXT.items():
        rules.append(f'text[style*="fill: {light}"] {{fill: {dark} !important}}')
    return "\n@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"


def lighten_figure(path: Path) -> None:
    """Make a figure of matplotlib's small, and ready for light and dark pages.

    Coordinates are rounded to hundredths of a point, which nobody can see, and all
    texts share one statement of their font.
    """
    old = path.read_text("utf-8")
    if "<metadata>" in old:  # matplotlib wrote it, and this has not seen it yet
        new = keep_ink_on_colours(old)
        new = re.sub(r"\s*<metadata>.*?</metadata>", "", new, flags=re.S)
        places = r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*|(?<=transform=")[^"]*'
        new = re.sub(places, lambda m: round_numbers(m[0]), new)
        for part in ("font-family", "font-size"):
            every = re.findall(rf"{part}: [^;\"]*(?=; )", new)
            if every and len(every) == new.count("<text "):
                usual = max(every, key=every.count)
                new = new.replace(usual + "; ", "")
                new = new.replace("</style>", f"\ntext {{{usual}}}</style>", 1)
        new = new.replace("</style>", dark_style() + "</style>", 1)
        new = re.sub(r'(?<= d=")[^"]*', lambda m: straighten(m[0]), new)
        new = re.sub(r'(?<=href="data:image/png;base64,)[^"]*', smaller_png, new)
        new = re.sub(r"<!--.*?-->", "", new, flags=re.S)
        new = new.replace('xlink:href="#', 'href="#').replace(
            "; stroke-linecap: butt", ""
        )
        new = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", new)
        new = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"\n\s*", "\n", new))
        alone = r"<g>\n(<(?:path|use) [^>]*/>|<text [^>]*>[^<]*</text>)\n</g>"
        new = re.sub(alone, r"\1", new)
        new = re.sub(r"(?:<(use|path) [^>]*/>\n)(?:<\1 [^>]*/>\n)+", share_style, new)
        for number, name in enumerate(
            re.findall(r'(?<= id=")[mhp][0-9a-f]{10}(?=")', new)
        ):
            new = new.replace(name, f"{name[0]}{number}")
        path.write_text(new, "utf-8")


def share_style(marks: re.Match) -> str:
    """State once the style, and what cuts them off, that many marks in a row have."""
    shared, runs = re.compile(r'((?: clip-path="[^"]*")? style="[^"]*")'), []
    for mark in marks[0].splitlines():
        style = "".join(shared.findall(mark))
        if not runs or runs[-1][0] != style:
            runs.append((style, []))
        runs[-1][1].append(mark)
    lines = []
    for style, run in runs:
        if len(run) > 2 and style:
            run = [f"<g{style}>", *(mark.replace(style, "") for mark in run), "</g>"]
        lines += run
    return "\n".join(lines) + "\n"


def straighten(path: str) -> str:
    """Leave out points of a polygon that lie on the line between their neighbours."""
    points = re.findall(r"([ML]) (\S+) (\S+)", path)
    end = path[-1:] if path[-1:] == "z" else ""
    if (
        len(points) < 40
        or path != " ".join(map(" ".join, points)) + " z"[: 2 * len(end)]
    ):
        return path
    kept, skipped = points[:1], []
    for point, after in pairwise([*points[1:], ("M", "nan", "nan")]):
        skipped.append(point)
        if "M" in (point[0], after[0]) or off_line(kept[-1], after, skipped) > 0.015:
            kept, skipped = [*kept, point], []
    return " ".join(map(" ".join, kept)) + " z"[: 2 * len(end)]


def off_line(first, last, between) -> float:
    """Return how far points lie from the segment between two others."""
    (a, b), (c, d) = ([float(n) for n in point[1:]] for point in (first, last))
    length = ((c - a) ** 2 + (d - b) ** 2) ** 0.5
    if not length:
        return inf
    found = [(float(x) - a, float(y) - b) for _, x, y in between]
    along = [(x * (c - a) + y * (d - b)) / length for x, y in found]
    if along != sorted(along) or along[0] < 0 or along[-1] > length:
        return inf  # the line turns back
    return max(abs(y * (c - a) - x * (d - b)) / length for x, y in found)


def smaller_png(coded: re.Match) -> str:
    """Write a picture of few colours with a palette, and every one as small as can be.

    No pixel changes.
    """
    out = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(coded[0]))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    colours, place = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) <= 256:
        small = Image.fromarray(place.reshape(pixels.shape[:2]).astype("uint8"), "P")
        small.putpalette(colours[:, :3].tobytes())
        small.save(out, "png", optimize=True, transparency=colours[:, 3].tobytes())
    else:
        Image.fromarray(pixels).save(out, "png", optimize=True)
    return min(coded[0], base64.b64encode(out.getvalue()).decode(), key=len)


def keep_ink_on_colours(svg: str) -> str:
    """Say of a text without a colour that it is black, where data lies beneath it.

    On the stripes of a contour plot, which marks may cover, it gets an edge instead.
    """
    name = "{http://www.w3.org/2000/svg}"
    coloured, striped, figure = [], [], ElementTree.fromstring(svg)
    for part in figure.iter(name + "g"):
        kind = part.get("id", "").partition("_")[0]
        inside = {g.get("id", "").partition("_")[0] for g in part.iter(name + "g")}
        if kind == "axes":
            if "QuadMesh" in inside or part.find(f".//{name}image") is not None:
                coloured.append(outline(next(part.iter(name + "path"))))
        elif kind == "QuadContourSet":
            striped += [outline(shape) for shape in part.iter(name + "path")]
        elif kind in ("patch", "FillBetweenPolyCollection"):
            for shape in part.iter(name + "path"):
                fill = re.search(r"fill: (#\w+)", shape.get("style", ""))
                if fill and fill[1] not in PAPER and luminance(fill[1]) > 0.18:
                    coloured.append(outline(shape))
    texts = iter(figure.iter(name + "text"))

    def inked(tag: re.Match) -> str:
        text = next(texts)
        at = float(text.get("x", "nan")), float(text.get("y", "nan"))
        if " fill:" in tag[1]:
            return tag[0]
        if any(shape.contains_point(at) for shape in coloured):
            return tag[0] + "fill: #000; "
        on_stripes = any(shape.contains_point(at) for shape in striped)
        return tag[0] + ("--edge: 1; " if on_stripes else "")

    return re.sub(r'<text style="(?=([^"]*)")', inked, svg)


def outline(shape: ElementTree.Element) -> Outline:
    """Return the corners of a path, its curves taken as straight."""
    numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", shape.get("d"))]
    return Outline(list(zip(numbers[::2], numbers[1::2], strict=True)))


def luminance(colour: str) -> float:
    """Return how light a colour such as #d55e00 is, from 0 to 1 (WCAG)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [((p + 0.055) / 1.055) ** 2.4 if p > 0.04 else p / 12.92 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def round_numbers(text: str) -> str:
    """Write each number with two decimals at most and each gap as one space."""

    def rounded(number: re.Match) -> str:
        short = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
        return "0" if short == "-0" else short

    return " ".join(re.sub(r"-?\d*\.\d+(?:e-?\d+)?", rounded, text).split())

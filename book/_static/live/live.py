"""Python of a live page: it runs the reader's cells and hands on what they show.

The worker imports it in the reader's browser. It is the front end that notebooks have
in IPython, and the backend of matplotlib.
"""

import ast
import io
import linecache
import logging
import os
import re
import sys
import time
import traceback
import types
from pathlib import Path

MOST = 200_000  # characters that one cell may print
DATA = Path("/data")
SETS = {
    "ml-100k.zip": ("ALS_COURSE_MOVIELENS", "fetch_movielens_100k"),
    "hetrec2011-lastfm-2k.zip": ("ALS_COURSE_LASTFM", "fetch_lastfm_2k"),
}
DATA.mkdir(exist_ok=True)
os.environ.update(
    {variable: "look-alike" for variable, _ in SETS.values()},
    ALS_COURSE_AMAZON="look-alike",
    ALS_COURSE_CACHE="/cache",
    ALS_COURSE_DATA=str(DATA),
    ALS_COURSE_OFFLINE="1",
    MPLBACKEND="module://live",
)
os.chdir("/home/pyodide/book")
# It says that it builds the list of fonts, which is no output of a cell.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
namespace = {"__name__": "__main__"}
emit = print  # set to what takes the outputs of the running cell


# -- what IPython has for notebooks ----------------------------------------------------


class Shown:
    """Text that a page shows as it is, or as HTML."""

    def __init__(self, data):
        self.data = data

    def __repr__(self):
        """Return the text."""
        return self.data


class Html(Shown):
    """HTML."""

    def _repr_html_(self):
        return self.data


def display(*values):
    """Show values among the printed lines."""
    sys.stdout.flush()
    for value in values:
        html = getattr(value, "_repr_html_", None)
        html = html() if html and not isinstance(value, type) else None
        if html:
            emit("html", re.sub(r"<style scoped>.*?</style>\s*", "", html, flags=re.S))
        else:
            emit("text", f"{value!r}\n")


def stand_in(name, **content):
    """Let a module of IPython be found."""
    module = types.ModuleType(name)
    module.__dict__.update(content, __path__=[])
    sys.modules[name] = module


stand_in("matplotlib_inline")
stand_in("matplotlib_inline.backend_inline", set_matplotlib_formats=lambda *_, **__: 0)
stand_in("IPython", get_ipython=lambda: None)
stand_in("IPython.display", HTML=Html, Markdown=Shown, display=display)
namespace["display"] = display


# -- what matplotlib asks of a backend -------------------------------------------------


def __getattr__(name):
    """Give matplotlib its canvas, which takes a second to load, when it asks."""
    if name != "FigureCanvas":
        raise AttributeError(name)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    globals()[name] = FigureCanvasAgg
    return FigureCanvasAgg


def show(*_, **__):
    """Show the open figures as SVG, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in pyplot.get_fignums() if pyplot else ():
        figure, file = pyplot.figure(number), io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
        sys.stdout.flush()
        emit("figure", file.getvalue(), describe(figure))
        pyplot.close(figure)


def describe(figure):
    """Say what stands on a figure, for those who do not see it."""
    said = ["The figure of your run"]
    for axes in figure.axes:
        titles = [axes.get_title(loc) for loc in ("left", "center", "right")]
        labels = [axes.get_xlabel(), axes.get_ylabel()]
        said.append(", ".join(filter(None, [*titles, *labels])))
    return ". ".join(filter(None, said)) + "."


# -- running ---------------------------------------------------------------------------


class Printed(io.TextIOBase):
    """What a cell prints, handed on ten times a second and bounded."""

    def __init__(self):
        self.held, self.length, self.last = [], 0, 0.0

    def write(self, text):
        """Keep text, and hand it on now and then."""
        if self.length <= MOST:
            self.length += len(text)
            if self.length > MOST:
                text = "\n... more than a page can hold; the rest is left out\n"
            self.held.append(text)
            if self.length > MOST or time.monotonic() - self.last > 0.1:
                self.flush()
        return len(text)

    def flush(self):
        """Hand on what is kept."""
        if self.held:
            emit("text", "".join(self.held))
        self.held, self.last = [], time.monotonic()


def run(source, name, hand_on):
    """Run a cell.

    Parameters
    ----------
    source, name : str
    hand_on : callable
        Takes a kind ("text", "html" or "figure") and what belongs to it.

    Returns
    -------
    dict or None
        Of a cell that failed: ``error``, its traceback; ``line``, where in the cell;
        ``stopped``, whether the reader stopped it.
    """
    global emit
    emit = hand_on
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    before, sys.stdout = (sys.stdout, sys.stderr), Printed()
    sys.stderr = sys.stdout
    try:
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and is_shown(tree, source) else None
        exec(compile(tree, name, "exec"), namespace)
        if last:
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
            if value is not None:
                display(value)
        show()
    except BaseException as error:  # KeyboardInterrupt is how the reader stops a cell
        sys.stdout.flush()
        return explain(error, name)
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


def is_shown(tree, source):
    """Whether the last line of a cell is an expression without a semicolon."""
    return isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";")


def explain(error, name):
    """Write the traceback of an error from the reader's cell on."""
    if isinstance(error, KeyboardInterrupt):
        return {"error": "Stopped. The variables are kept.", "stopped": True}
    place, line = error.__traceback__, getattr(error, "lineno", None)
    while place and place.tb_frame.f_code.co_filename == __file__:
        place = place.tb_next
    for frame, number in traceback.walk_tb(place):
        if frame.f_code.co_filename == name:
            line = number
    lines = traceback.format_exception(type(error), error, place)
    return {"error": "".join(lines).rstrip(), "line": line, "stopped": False}


def check(source):
    """Run the visible check of an exercise; return what it says of a wrong answer."""
    try:
        exec(compile(source, "check", "exec"), dict(namespace))
    except AssertionError as error:
        return str(error) or "A check fails."
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# -- data of the reader's own ----------------------------------------------------------


def keep(name, content):
    """Put a file that was verified where the library looks for it."""
    (DATA / name).write_bytes(bytes(content))
    os.environ.pop(SETS[name][0], None)


def offer(name, content):
    """Verify a file by loading it; return what is wrong with it, if anything."""
    from als_course import datasets

    keep(name, content)
    try:
        getattr(datasets, SETS[name][1])()
    except datasets.DatasetError as error:
        (DATA / name).unlink()
        os.environ[SETS[name][0]] = "look-alike"
        return f"This file is not used: {error}"
    return ""

"""The figures that chapters share: one look, safe for colour-blind readers.

Amounts are shown in cividis, kinds in the Okabe-Ito colours, and never by colour alone.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib_inline.backend_inline import set_matplotlib_formats

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours for kinds, in the order of use (Okabe and Ito, 2008)."""

STARS = ListedColormap(plt.get_cmap("cividis")(np.linspace(0, 1, 5)), name="stars")
"""Five steps of cividis, one for each of the ratings 1 to 5."""

# Every other colour that a figure may use. The site has a dark counterpart of each.
PAPER, INK = "#ffffff", "#000000"
HOLE = "#e8e8e8"
"""The grey of a place in the matrix where nobody has rated."""
ESTIMATE = "#dcebf5"
"""The pale blue beneath a number that a model gave."""
DARK_ORANGE = "#8a3c00"
"""`OKABE_ITO[1]` for letters, which need more contrast than marks."""
GREYS = ("#696969", "#808080", "#999999", "#cccccc")
"""Lines that help to read: "dimgray", "grey", "0.6", and the frame of a legend."""


def use_course_style():
    """Set matplotlib to the look of the course, for the running kernel.

    Figures are SVG with text kept as text: sharp at every size, small, and the same
    bytes on every run.
    """
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (6, 3.4),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.prop_cycle": plt.cycler(color=OKABE_ITO),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "image.cmap": "cividis",
            "svg.fonttype": "none",
            "svg.hashsalt": "als-course",
        }
    )
    set_matplotlib_formats("svg", metadata={"Date": None})


def show_matrix(matrix, ax=None, row_label="user", column_label="film"):
    """Draw a small ratings matrix: a coloured square for a rating, grey for a hole.

    Parameters
    ----------
    matrix : DataFrame of shape (n_rows, n_columns)
        Ratings in stars, ``NaN`` where there is none. Squares carry their number as
        long as there are at most 60 of them.
    ax : matplotlib Axes, optional
        Where to draw; a new figure if not given.
    row_label, column_label : str
        What a row and a column stand for.

    Returns
    -------
    matplotlib Axes
    """
    ax = ax or plt.subplots()[1]
    ax.set_facecolor(HOLE)
    image = ax.imshow(matrix, cmap=STARS, norm=star_norm(), interpolation="nearest")
    ax.set_xticks(range(matrix.shape[1]), matrix.columns)
    ax.set_yticks(range(matrix.shape[0]), matrix.index)
    ax.set(xlabel=column_label, ylabel=row_label)
    if matrix.size <= 60:
        for (row, column), stars in np.ndenumerate(matrix.to_numpy(dtype=float)):
            if np.isfinite(stars):
                ink = "white" if stars <= 3 else "black"
                ax.text(column, row, f"{stars:g}", ha="center", va="center", color=ink)
    add_star_bar(image, ax)
    return ax


def star_norm():
    """Map the ratings 1 to 5 to the five steps of `STARS`."""
    return BoundaryNorm(np.arange(0.5, 6), STARS.N)


def add_star_bar(mappable, ax):
    """Add the colour bar of the ratings 1 to 5 beside `ax`."""
    bar = ax.figure.colorbar(mappable, ax=ax, ticks=range(1, 6), shrink=0.8)
    bar.set_label("rating (stars)")


def show_density(matrix, ax=None, bins=(60, 90)):
    """Draw how many ratings fall into each block of a large sparse matrix.

    Parameters
    ----------
    matrix : scipy.sparse matrix of shape (n_users, n_items)
        Its stored entries are counted, whatever their value.
    ax : matplotlib Axes, optional
        Where to draw; a new figure if not given.
    bins : (int, int)
        Number of blocks along users and along items.

    Returns
    -------
    matplotlib Axes
        Blocks without a single rating are grey.
    """
    ax = ax or plt.subplots(figsize=(6, 4))[1]
    coordinates = matrix.tocoo()
    edges = [np.linspace(0, n, k + 1) for n, k in zip(matrix.shape, bins, strict=True)]
    counts, _, _ = np.histogram2d(coordinates.row, coordinates.col, bins=edges)
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    share = 100 * np.ma.masked_equal(counts, 0) / area
    ax.set_facecolor(HOLE)
    extent = (0, matrix.shape[1], matrix.shape[0], 0)
    norm = LogNorm(0.1, 100)
    image = ax.imshow(share, extent=extent, aspect="auto", norm=norm)
    bar = ax.figure.colorbar(image, ax=ax, ticks=[0.1, 1, 10, 100])
    bar.ax.set_yticklabels(["0.1", "1", "10", "100"])
    bar.set_label("places filled in a block (%)")
    return ax

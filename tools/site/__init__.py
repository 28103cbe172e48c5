"""The extensions of Sphinx that make the site, with the library of this checkout."""

import sys
from pathlib import Path

BOOK = str(Path(__file__).resolve().parents[2] / "book")
if BOOK not in sys.path:  # whether it is installed or not
    sys.path.insert(0, BOOK)

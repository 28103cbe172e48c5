"""Run pages as other machines would, and list each printed number that moves.

`make outputs-everywhere`, or `make outputs-everywhere CHAPTER=simple-als`. A sum in
another order has other last digits, and the order depends on the processor and on the
number of threads. So each page runs in several surroundings, and prints four digits
more than it does for readers: that tells by how much a number moves before it moves on
the page. A number must keep ten times that distance from the place where it would be
rounded to another; `tests/outputs/everywhere.json` records those that move at all, and
`tests/book/test_everywhere.py` refuses one that stands closer.
"""

import argparse
import ast
import hashlib
import html
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools import chapters

RECORD = chapters.OUTPUTS / "everywhere.json"
MORE = 4  # digits
MARGIN = 10  # times what a number moves by
NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*)(?:\.\d+)?(?:e[+-]?\d+)?")
# of a format: `.2f` in an f-string, `{:.2f}` and `%.2f` in others
SPEC = re.compile(r"(?<=\.)(\d+)(?=[feg%])")
IN_TEXT = re.compile(r"(?<=\.)(\d+)(?=[feg%]\})|(?<=%\.)(\d+)(?=[feg])")


def without_vectors() -> str:
    """Name the features of this processor that NumPy can do without."""
    return ",".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))


def places() -> dict[str, dict[str, str]]:
    """Map a name to the environment that makes a kernel compute as it does there."""
    plain = {"NPY_DISABLE_CPU_FEATURES": without_vectors(), "NUMBA_CPU_NAME": "generic"}
    made = {
        "Nehalem, 1 thread, no vectors": ("Nehalem", 1, plain),
        "Haswell, 2 threads": ("Haswell", 2, {}),
        "Zen, 4 threads, no vectors": ("Zen", 4, plain),
        "SkylakeX, 1 thread": ("SkylakeX", 1, {}),
        "SkylakeX, 4 threads": ("SkylakeX", 4, {}),
    }
    cpu = Path("/proc/cpuinfo")
    if not (cpu.exists() and "avx512f" in cpu.read_text("utf-8")):
        made = {name: m for name, m in made.items() if m[0] != "SkylakeX"}
        print("SkylakeX is left out: this processor has no AVX-512")
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        name: {"OPENBLAS_CORETYPE": core} | dict.fromkeys(pools, str(threads)) | other
        for name, (core, threads, other) in made.items()
    }


# -- more digits -----------------------------------------------------------------------


def more(match: re.Match) -> str:
    """Ask for more digits."""
    return str(int(match[0]) + MORE)


class MoreDigits(ast.NodeTransformer):
    """Let code print more digits than it says, and check nothing."""

    def visit_Assert(self, node):
        """Leave out what may depend on rounded numbers."""
        return ast.Pass()

    def visit_FormattedValue(self, node):
        """Widen the format of a value in an f-string."""
        for part in ast.walk(node.format_spec) if node.format_spec else ():
            if isinstance(part, ast.Constant):
                part.value = SPEC.sub(more, part.value)
        node.value = self.visit(node.value)
        return node

    def visit_Constant(self, node):
        """Widen the formats in other strings."""
        if isinstance(node.value, str):
            node.value = IN_TEXT.sub(more, node.value)
        return node

    def visit_Call(self, node):
        """Round to more digits."""
        self.generic_visit(node)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        options = [k.value for k in node.keywords if k.arg in ("decimals", "precision")]
        last = node.args[-1:] if name in ("round", "set_option") else []
        for value in [*last, *options]:
            if isinstance(value, ast.Constant) and type(value.value) is int:
                value.value += MORE
        return node


FIRST = f"""
import sys
sys.path.append({str(chapters.ROOT)!r})
import numpy, pandas
from tools.everywhere import MORE, MoreDigits
pandas.set_option("display.precision", 6 + MORE)
numpy.set_printoptions(precision=8 + MORE)
get_ipython().ast_transformers.append(MoreDigits())
"""


def execute(name: str, variables: dict[str, str], first: str) -> list[str]:
    """Run a page in some surroundings, and list what each cell prints."""
    notebook = chapters.read(name)
    notebook.cells = chapters.code_cells(notebook)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    variant = chapters.shown_variant(name)
    client = NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(chapters.BOOK)}}
    )
    environment = chapters.kernel_environment(variant) | variables
    client.execute(env=environment, stderr=subprocess.DEVNULL)
    return ["".join(map(text_of, cell.outputs)) for cell in notebook.cells[1:]]


def text_of(output: nbformat.NotebookNode) -> str:
    """Read an output; of a table the cells, which are never broken into lines."""
    data = output.get("data", {})
    if "text/html" in data:
        return html.unescape(
            re.sub(r"<style.*?</style>|<[^>]*>", " ", data["text/html"], flags=re.S)
        )
    if any(kind.startswith("image/") for kind in data):
        return ""
    return output.get("text", "") + data.get("text/plain", "")


# -- what moves ------------------------------------------------------------------------


def decimals(number: str) -> int:
    """Count the decimals that are printed."""
    mantissa, _, power = number.partition("e")
    return len(mantissa.partition(".")[2]) - int(power or 0)


def value(number: str) -> float:
    """Read a printed number."""
    return float(number.replace(",", ""))


def room(printed: str, precise: float) -> float:
    """Say how far a number is from where it would be printed as another."""
    unit = 10.0 ** -decimals(printed)
    return abs(precise / unit % 1 - 0.5) * unit


def measured(printed: str, here: str, there: list[str]) -> list[list] | None:
    """List the numbers of a cell that move: as printed, precisely, and by how much.

    Parameters
    ----------
    printed, here : str
        What readers see, and the same with more digits.
    there : list of str
        The latter in other surroundings.

    Returns
    -------
    list or None
        None if the texts do not have the same numbers of numbers, although they differ.
    """
    shown, digits = NUMBER.findall(printed), NUMBER.findall(here)
    others = [NUMBER.findall(text) for text in there]
    if all(text == here for text in there):
        return []
    if any(len(found) != len(shown) for found in (digits, *others)):
        return None
    moving = []
    for number, precise, *elsewhere in zip(shown, digits, *others, strict=True):
        moved = max(abs(value(other) - value(precise)) for other in elsewhere)
        if moved:
            moving.append([number, value(precise), moved])
    return moving


def too_close(number: str, precise: float, moved: float) -> bool:
    """Whether a number stands too close to where it would be rounded to another."""
    return room(number, precise) < MARGIN * moved


def key(source: str) -> str:
    """Name a cell, whatever stands before it."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def examine(name: str) -> tuple[dict, list[str]]:
    """Run a page everywhere; return the numbers that move, and what is to be mended."""
    surroundings = places()
    variants = {"here": {}} | surroundings
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(execute, name, {}, "")
        jobs = {
            place: pool.submit(execute, name, variables, FIRST)
            for place, variables in variants.items()
        }
        said = {place: job.result() for place, job in jobs.items()}
    cells = [cell.source for cell in chapters.code_cells(chapters.read(name))]
    record, wrong = {}, []
    for number, source in enumerate(cells):
        texts = {place: outputs[number] for place, outputs in said.items()}
        here = texts.pop("here")
        moving = measured(plain.result()[number], here, list(texts.values()))
        if moving is None:
            differing = [place for place, text in texts.items() if text != here]
            wrong.append(f"{name}, cell {number}: its text differs in {differing}")
        elif moving:
            record[key(source)] = moving
            wrong += [
                f"{name}, cell {number}: {n} is {p:.8g}, and moves by {m:.1g}"
                for n, p, m in moving
                if too_close(n, p, m)
            ]
    return record, wrong


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.everywhere", description=__doc__.splitlines()[0]
    )
    parser.add_argument("pages", nargs="*", help="all, where none is named")
    known = chapters.notebooks()
    pages = parser.parse_args().pages or known
    if unknown := sorted(set(pages) - set(known)):
        parser.error(f"no page with cells is called {unknown}; there are {known}")
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    record = {name: numbers for name, numbers in record.items() if name in known}
    found = []
    for name in pages:
        try:
            record[name], wrong = examine(name)
        except CellExecutionError as error:
            wrong = [f"{name}: a cell fails:\n{error}"]
        print(f"{name}: {len(wrong) or 'nothing'} to mend", flush=True)
        found += wrong
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

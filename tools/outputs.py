"""Write stored outputs anew: `make outputs`, or `make outputs CHAPTER=simple-als`.

Each page runs in `book` from a fresh kernel. Of its outputs the text is kept, which is
what nbval compares.
"""

import argparse
import subprocess

import nbformat
from nbclient import NotebookClient

from tools import chapters


def execute(name: str, variant: str) -> nbformat.NotebookNode:
    """Run a page and keep what nbval compares."""
    notebook = chapters.read(name)
    notebook.cells = chapters.code_cells(notebook)
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(chapters.BOOK)}}
    )
    client.execute(
        env=chapters.kernel_environment(variant),
        stderr=subprocess.DEVNULL,  # the kernel greets with a warning
    )
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        for output in cell.outputs:
            output.metadata = {}
            for kind in [k for k in output.get("data", {}) if k.startswith("image/")]:
                del output.data[kind]
            if output.output_type == "stream":
                del output["metadata"]
    return notebook


def write(names: list[str]) -> None:
    """Write the stored notebooks of these pages."""
    for name in names:
        for variant in chapters.variants(name):
            path = chapters.stored_path(name, variant)
            real = variant == chapters.REAL and len(chapters.variants(name)) > 1
            if real and not chapters.have_real_data(name):
                print(f"{path.name}: kept, the real data are not here")
                continue
            nbformat.write(execute(name, variant), path)
            print(f"{path.name}: written", flush=True)


def remove_orphans() -> None:
    """Remove stored notebooks without a page."""
    wanted = {
        chapters.stored_path(name, variant)
        for name in chapters.notebooks()
        for variant in chapters.variants(name)
    }
    for path in set(chapters.OUTPUTS.glob("*.ipynb")) - wanted:
        path.unlink()
        print(f"{path.name}: removed, it has no page")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.outputs", description=__doc__
    )
    known = chapters.notebooks()
    parser.add_argument("pages", nargs="*", help="all, where none is named")
    pages = parser.parse_args().pages
    if unknown := sorted(set(pages) - set(known)):
        parser.error(f"no page with cells is called {unknown}; there are {known}")
    write(pages or known)
    remove_orphans()


if __name__ == "__main__":
    main()

"""Set the course up from this folder alone: python install.py [lab]."""

import os
import subprocess
import sys
import venv
from pathlib import Path

PACKED_FOR = (3, 11)  # `kit.py` writes here which Python the wheels are for
NOTEBOOKS = "assignments"  # and here which folder JupyterLab opens
HERE = Path(__file__).resolve().parent
BIN = HERE / "venv" / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")


def environment() -> dict[str, str]:
    """Say where the data and Java are, and that no network is to be asked."""
    found = dict(os.environ, ALS_COURSE_OFFLINE="1", ALS_COURSE_DATA=str(HERE / "data"))
    found["ALS_COURSE_CACHE"] = str(HERE / "cache")
    return found


def install() -> None:
    """Make the environment from the wheels, and ask for the data."""
    if sys.version_info[:2] != PACKED_FOR:
        version = ".".join(map(str, PACKED_FOR))
        sys.exit(f"This kit is for Python {version}, this is {sys.version}")
    if not PYTHON.exists():
        venv.create(HERE / "venv", with_pip=True)
    wheels = ["--no-index"]
    for place in (HERE, HERE.parent / "students"):
        wheels += ["--find-links", str(place / "wheels")]
    wanted = ["-r", str(HERE / "requirements.txt")]
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *wheels, *wanted], check=True)
    course = HERE / NOTEBOOKS
    for part in ("als_course.datasets", "als_course.java"):
        asked = [str(PYTHON), "-m", part]
        if subprocess.run(asked, cwd=course, env=environment()).returncode:
            print(f"{part} is not ready: the line above says what is missing")
    print("Installed. Now: python install.py lab")


def lab() -> None:
    """Open JupyterLab with the notebooks."""
    command = [str(PYTHON), "-m", "jupyterlab", f"--notebook-dir={HERE / NOTEBOOKS}"]
    sys.exit(subprocess.run(command, env=environment()).returncode)


if __name__ == "__main__":
    lab() if sys.argv[1:] == ["lab"] else install()

"""Pack one folder from which a room without a network can be set up.

What goes in: the course as it is in the repository, a wheel of everything pinned, the
built site, and the assignments. What does not: MovieLens 100K and the Amazon reviews,
whose terms do not let us pass them on; the kit says where a teacher's own copy goes.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tools.classroom.exercises import ROOT
from tools.classroom.release import CLASSROOM

KIT = ROOT / "_build" / "offline-kit"
SITE = ROOT / "_build" / "html"
README = """\
# The course without a network

Made for Python {python} on {machine}; make a kit of its own for any other.

1. Copy this folder to every machine.
2. Put your own copy of MovieLens 100K, GroupLens's ml-100k.zip, into `data/`. Its
   terms do not let us pack it. The Amazon reviews may stand beside it, as
   Musical_Instruments_5.json.gz; without them the Spark pages use generated reviews and
   say so. Every other set is generated.
3. The Spark pages need Java 17 or newer. {java}
4. In this folder: `python install.py`. It needs no network, makes `venv/`, and says
   what is missing. Then `python install.py lab` opens JupyterLab with the chapters,
   and `site/index.html` is the book to read.

Assignments for students are in `assignments/`.
"""
INSTALL = '''\
"""Set the course up from this folder alone: python install.py [lab]."""

import os
import subprocess
import sys
import venv
from pathlib import Path

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
    if sys.version_info[:2] != {python}:
        version = ".".join(map(str, {python}))
        sys.exit(f"This kit is for Python {{version}}, this is {{sys.version}}")
    if not PYTHON.exists():
        venv.create(HERE / "venv", with_pip=True)
    wheels = ["--no-index", "--find-links", str(HERE / "wheels")]
    wanted = ["-r", str(HERE / "course" / "requirements.txt")]
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *wheels, *wanted], check=True)
    course = HERE / "course" / "book"
    for part in ("als_course.datasets", "als_course.java"):
        asked = [str(PYTHON), "-m", part]
        if subprocess.run(asked, cwd=course, env=environment()).returncode:
            print(f"{{part}} is not ready: the line above says what is missing")
    print("Installed. Now: python install.py lab")


def lab() -> None:
    """Open JupyterLab with the chapters."""
    book = HERE / "course" / "book"
    command = [str(PYTHON), "-m", "jupyterlab", f"--notebook-dir={{book}}"]
    sys.exit(subprocess.run(command, env=environment()).returncode)


if __name__ == "__main__":
    lab() if sys.argv[1:] == ["lab"] else install()
'''


def pack(
    out: Path = KIT,
    requirements: Path = ROOT / "requirements.txt",
    pip_options: tuple[str, ...] = (),
) -> None:
    """Write the kit into a folder, which is emptied before."""
    for made, by in ((SITE, "book"), (CLASSROOM / "release", "classroom")):
        if not made.is_dir():
            raise SystemExit(f"{made} is not there. Make it first: make {by}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    copy_course(out / "course", requirements)
    shutil.copytree(SITE, out / "site")
    shutil.copytree(CLASSROOM / "release", out / "assignments")
    (out / "data").mkdir()
    (out / "data" / "README").write_text(
        "Put ml-100k.zip from GroupLens here: your own copy, under its own terms.\n",
        "utf-8",
    )
    java = copy_java(out / "cache")
    collect_wheels(out / "wheels", requirements, pip_options)
    about = {"python": platform.python_version(), "machine": machine(), "java": java}
    (out / "README.md").write_text(README.format(**about), "utf-8")
    version = repr(sys.version_info[:2])
    (out / "install.py").write_text(INSTALL.format(python=version), "utf-8")


def machine() -> str:
    """Name the kind of machine that the wheels are for."""
    return f"{platform.system()} {platform.machine()}"


def copy_course(target: Path, requirements: Path) -> None:
    """Copy what git tracks, and nothing that a run has left behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
    shutil.copy(requirements, target / "requirements.txt")


def copy_java(target: Path) -> str:
    """Copy the Java that the course has fetched, if it has; say which it is."""
    sys.path.insert(0, str(ROOT / "book"))
    from als_course.java import cached_java

    home = cached_java()
    if not home.is_dir():
        return "Install it on every machine: the kit was made on one that has its own."
    shutil.copytree(home, target / home.name, symlinks=True)
    return "The kit brings one, in `cache/`."


def collect_wheels(
    target: Path, requirements: Path, pip_options: tuple[str, ...]
) -> None:
    """Download or build a wheel of everything pinned, for this Python and machine."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--wheel-dir", target, "--requirement", requirements, *pip_options],
        check=True,
    )

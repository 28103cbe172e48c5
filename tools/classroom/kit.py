"""Pack two folders from which a room without a network can be set up.

What goes in: for students the assignments and a wheel of everything pinned; for the
teacher the course as it is in the repository, the built site and the answer key. What
does not: MovieLens 100K and the Amazon reviews, whose terms do not let us pass them
on; the kit says where a teacher's own copy goes.
"""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from als_course.java import JavaError, find_java
from als_course.storage import cache_folder
from tools.chapters import ROOT
from tools.classroom.release import CLASSROOM

KIT = ROOT / "_build" / "offline-kit"
SITE = ROOT / "_build" / "html"
README = """\
# The course without a network

Made for Python {python} on {machine}; make a kit of its own for any other.

`students/` has the notebooks without solutions: copy it to every machine. `teacher/`
has the course with its solutions, the site and the answer key: keep it for yourself,
beside `students/`, whose wheels it uses.

1. Put your own copy of MovieLens 100K, GroupLens's ml-100k.zip, into `data/` of
   either folder. Its terms do not let us pack it. The Amazon reviews of 2014 may stand
   beside it, as reviews_Musical_Instruments_5.json.gz (without "reviews_" it is the
   file of 2018, which is refused); without them the Spark pages use generated reviews
   and say so. Every other set is generated.
2. The Spark pages need Java 17 or newer. {java}
3. In the folder: `python install.py`. It needs no network, makes `venv/`, and says
   what is missing. Then `python install.py lab` opens JupyterLab. The book to read is
   `teacher/site/index.html`.
"""
INSTALL = Path(__file__).with_name("install.py")


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
    students, teacher = out / "students", out / "teacher"
    shutil.copytree(CLASSROOM / "release", students / "assignments")
    copy_course(teacher / "course", requirements)
    shutil.copytree(SITE, teacher / "site")
    for part in ("source", "answer-key"):
        shutil.copytree(CLASSROOM / part, teacher / "classroom" / part)
    for part in ("points.csv", "points.md"):
        shutil.copy(CLASSROOM / part, teacher / "classroom")
    java = copy_java(students / "cache")
    if (students / "cache").is_dir():
        shutil.copytree(students / "cache", teacher / "cache", symlinks=True)
    collect_wheels(students / "wheels", requirements, pip_options)
    about = {"python": platform.python_version(), "machine": machine(), "java": java}
    (out / "README.md").write_text(README.format(**about), "utf-8")
    for side, notebooks in ((students, "assignments"), (teacher, "course/book")):
        (side / "data").mkdir()
        (side / "data" / "README").write_text(
            "Put ml-100k.zip from GroupLens here: your own copy, its own terms.\n",
            "utf-8",
        )
        shutil.copy(requirements, side / "requirements.txt")
        program = INSTALL.read_text("utf-8")
        for name, value in (
            ("PACKED_FOR", repr(sys.version_info[:2])),
            ("NOTEBOOKS", repr(notebooks)),
        ):
            program = re.sub(rf"^{name} = .*", f"{name} = {value}", program, flags=re.M)
        (side / "install.py").write_text(program, "utf-8")


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
    cache = cache_folder().resolve()
    with contextlib.suppress(JavaError):
        home = find_java().resolve()
        if home.is_relative_to(cache):
            name = home.relative_to(cache).parts[0]
            shutil.copytree(cache / name, target / name, symlinks=True)
            return "The kit brings one, in `cache/`."
    return "Install it on every machine: the kit was made on one that has its own."


def collect_wheels(
    target: Path, requirements: Path, pip_options: tuple[str, ...]
) -> None:
    """Download or build a wheel of everything pinned, for this Python and machine."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--wheel-dir", target, "--requirement", requirements, *pip_options],
        check=True,
    )

"""The first cell of a student's notebook: what is missing, and how to get it."""

import os
import sys
from pathlib import Path

DATA = []  # `release.py` writes here which sets the chapter fetches,
JAVA = False  # and here whether it starts Spark

for folder in (Path.cwd(), *Path.cwd().parents):
    for place in (folder, folder / "book"):
        if (place / "als_course").is_dir():
            sys.path.append(str(place))
try:
    import als_course
    from als_course import datasets
except ImportError as problem:
    raise SystemExit(
        f"{problem}. Keep this notebook beside the folder als_course, "
        "and start Jupyter where requirements.txt is installed:\n"
        f"    {sys.executable} -m pip install -r requirements.txt"
    ) from None
library = Path(als_course.__file__).parents[1]
sys.path.append(str(library / "jobs"))
if DATA or JAVA:
    os.environ["ALS_COURSE_OFFLINE"] = "1"  # no waiting for a network
try:
    for fetch in DATA:
        getattr(datasets, fetch)()
except datasets.DatasetError as problem:
    raise SystemExit(
        f"The data are not on this machine. Once, with a network:\n"
        f"    cd {library} && {sys.executable} -m als_course.datasets\n"
        f"What was tried: {problem}"
    ) from None
if JAVA:
    from als_course.java import JavaError, find_java

    try:
        find_java()
    except JavaError as problem:
        raise SystemExit(
            "Spark is a Java program, and no Java here can run it.\n"
            "Install one, or let this course fetch it, once, with a network:\n"
            f"    cd {library} && {sys.executable} -m als_course.java\n"
            f"What was tried: {problem}"
        ) from None
print("Everything is here.")

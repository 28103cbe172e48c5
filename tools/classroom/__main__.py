"""Commands for a teacher: `make classroom` and `make grade` run these."""

import argparse
import os
from pathlib import Path

from tools import chapters
from tools.classroom import grade, kit, release, submissions


def make(options: argparse.Namespace) -> None:
    """Make the assignments of the chapters named, or of all."""
    release.make(options.chapters or chapters.teaching_chapters())
    print(f"For students: {release.CLASSROOM / 'release'}")
    print(f"For the teacher: {release.CLASSROOM}/source, answer-key and points.md")


def mark(options: argparse.Namespace) -> None:
    """Grade a folder of notebooks."""
    if data := os.environ.get("ALS_COURSE_DATA"):
        os.environ["ALS_COURSE_DATA"] = str(Path(data).absolute())
    if not (release.CLASSROOM / "gradebook.db").exists():
        make(argparse.Namespace(chapters=[]))
    found = submissions.read_releases(release.CLASSROOM / "release")
    grade.fetch_data(list(found))
    results = grade.grade_all(
        options.submissions, options.out, options.limit, options.workers
    )
    review = sum(result.needs_review for result in results)
    print(f"{len(results)} graded, {review} to review: {options.out / 'marks.csv'}")
    print(f"A page for each: {options.out / 'feedback'}")


def pack(options: argparse.Namespace) -> None:
    """Pack the course, its wheels, the site and the assignments for an offline room."""
    kit.pack(options.out)
    print(f"The kit, with a README: {options.out}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.classroom", description=__doc__
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make", help=make.__doc__)
    command.add_argument("chapters", nargs="*", help="all, where none is named")
    command.set_defaults(run=make)
    command = commands.add_parser("grade", help=mark.__doc__)
    command.add_argument("submissions", type=Path)
    command.add_argument("--out", type=Path, default=grade.GRADED)
    command.add_argument("--limit", type=int, default=60, help="seconds for a cell")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    command.set_defaults(run=mark)
    command = commands.add_parser("kit", help=pack.__doc__)
    command.add_argument("--out", type=Path, default=kit.KIT)
    command.set_defaults(run=pack)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()

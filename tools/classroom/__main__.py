"""Commands for a teacher: `make classroom`, `make grade`, `make marks` run these."""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path

from tools import chapters
from tools.classroom import assignments, grade, kit, marks, release, sandbox


def make(options: argparse.Namespace) -> None:
    """Make the assignments of the chapters named, or of all."""
    names = options.chapters or chapters.teaching_chapters()
    release.make(names, site=options.site or "")
    print(f"For students: {release.CLASSROOM / 'release'}, and release.zip beside it")
    print(f"For the teacher: {release.CLASSROOM}/source, answer-key and points.md")


def rule(options: argparse.Namespace) -> marks.Rule:
    """Read what handing in late costs."""
    return marks.Rule(options.deadline, options.late)


def mark(options: argparse.Namespace) -> None:
    """Grade a folder of notebooks."""
    if data := os.environ.get("ALS_COURSE_DATA"):
        os.environ["ALS_COURSE_DATA"] = str(Path(data).absolute())
    way = sandbox.find(options.sandbox or None)
    if way == "none":
        print("SANDBOX=none: the notebooks run with all your rights.")
    if not (release.CLASSROOM / "release").exists():
        make(argparse.Namespace(chapters=[], site=""))
    grade.fetch_data(assignments.read_all(release.CLASSROOM))
    settings = grade.Settings(
        limit=options.limit,
        way=way,
        warm=release.CLASSROOM / "warm",
        workers=options.workers,
    )
    results = grade.grade_all(
        options.submissions,
        options.out,
        settings,
        student=options.student or None,
        rule=rule(options),
    )
    review = sum(result.needs_review for result in results)
    print(f"{len(results)} graded, {review} to review: {options.out / 'marks.csv'}")
    print(f"A page for each: {options.out / 'feedback'}")


def write(options: argparse.Namespace) -> None:
    """Write tables and pages anew, after corrections."""
    known = assignments.read_all(release.CLASSROOM)
    marks.Store(options.out, known, rule(options)).write()
    print(f"Written: {options.out / 'marks.csv'}, and a page for each")


def rehearse(options: argparse.Namespace) -> None:
    """Grade the book's own solutions: each gets full marks, and no remark."""
    known = assignments.read_all(release.CLASSROOM)
    settings = grade.Settings(way=sandbox.find(options.sandbox or None))
    failed = False
    for name in options.chapters or known:
        lines, seconds = grade.rehearse(known[name], settings)
        failed |= bool(lines)
        said = "; ".join(lines) or "all points"
        print(f"{name}: {said}, {seconds:.0f} s for the longest cell", flush=True)
    sys.exit(failed)


def pack(options: argparse.Namespace) -> None:
    """Pack the course, its wheels, the site and the assignments for an offline room."""
    kit.pack(options.out)
    print(f"The kit, with a README: {options.out}")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.classroom", description=__doc__
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make", help=make.__doc__)
    command.add_argument("chapters", nargs="*", help="all, where none is named")
    command.add_argument("--site", help="address of the site, to link to chapters")
    command.set_defaults(run=make)
    late = argparse.ArgumentParser(add_help=False)
    late.add_argument("--out", type=Path, default=grade.GRADED)
    late.add_argument(
        "--deadline", type=datetime.fromisoformat, help='as "2026-11-03 18:00"'
    )
    late.add_argument(
        "--late", type=float, default=0, help="percent of the points for a day begun"
    )
    command = commands.add_parser("grade", help=mark.__doc__, parents=[late])
    command.add_argument("submissions", type=Path)
    command.add_argument("--student", help="grade this one only")
    command.add_argument("--limit", type=float, default=60, help="seconds for a cell")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    command.add_argument("--sandbox", help="bwrap, unshare or none")
    command.set_defaults(run=mark)
    command = commands.add_parser("marks", help=write.__doc__, parents=[late])
    command.set_defaults(run=write)
    command = commands.add_parser("rehearse", help=rehearse.__doc__)
    command.add_argument("chapters", nargs="*", help="all, where none is named")
    command.add_argument("--sandbox", help="bwrap, unshare or none")
    command.set_defaults(run=rehearse)
    command = commands.add_parser("kit", help=pack.__doc__)
    command.add_argument("--out", type=Path, default=kit.KIT)
    command.set_defaults(run=pack)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()

"""Train tonight's run, test it, publish it, and say how its lists differ.

    python night.py WORK --ratings ratings.csv --implicit --alpha 5 ...
    python night.py WORK --generated

WORK keeps what train_als.py writes in ``results`` and what serve_als.py reads in
``runs``. Arguments that are not its own go to train_als.py. Ids keep the numbers that
they had last night, so that the same seed begins at the same place. Nothing is
published unless the lists beat the most popular items; then last night's run goes on
answering.
"""

import argparse
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import publish_als
import train_als

from als_course.datasets import make_biased_ratings
from als_course.spark import get_spark

PATIENCE = 60.0  # seconds in which a service must take the new run
FIRST_NIGHT = 330  # days of the generated year before the first night
GENERATED = ["--rank", "2", "--top-n", "20", "--blocks", "2", "--max-iter", "5"]


def generate(path, nights):
    """Write the generated ratings of the days so far, one more each night."""
    ratings = make_biased_ratings(1000, 200).ratings
    day = (ratings.timestamp - pd.Timestamp("2024-01-01").timestamp()) // 86_400
    ratings[day < FIRST_NIGHT + nights].to_csv(path, index=False)


def finished(results):
    """List the results of the nights before, oldest first."""
    return sorted(path.parent for path in results.glob("*/_SUCCESS"))


def wait_for(service, run):
    """Wait until a service answers from a run.

    Raises
    ------
    RuntimeError
        If it refuses the run, or does not take it in time.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{service}/health", timeout=5) as answer:
            told = json.load(answer)
        if told["run"] == run:
            return
        if run in told["refused"]:
            raise RuntimeError(f"{service} refuses {run}: {told['refused'][run]}")
        time.sleep(0.2)
    raise RuntimeError(f"{service} has not taken {run} within {PATIENCE:.0f} s")


def summary(report, folder):
    """Say in four lines what the night brought."""
    ranking, gap = report["ranking"], report["paired"]["ndcg_above_most_popular"]
    counts, overlap = report["counts"], report["lists"].get("overlap")
    hand_over = json.loads((folder / "run.json").read_text("utf-8"))["hand_over"]
    same = "no night before to compare with"
    if overlap:
        same = (
            f"{overlap['mean']:.0%} of last night's places come again "
            f"({overlap['users']:,} users)"
        )
    return (
        f"ratings: {counts['ratings']:,} of {counts['users']:,} users\n"
        f"nDCG@{ranking['at']}: {ranking['als']['ndcg']:.4f}, most popular "
        f"{ranking['most_popular']['ndcg']:.4f}, ahead by {gap['mean']:.4f} "
        f"[{gap['low']:.4f}, {gap['high']:.4f}]\n"
        f"lists: {same}\n"
        f"published: {folder}; newcomers get what is popular until "
        f"{hand_over['likes']} ratings are known"
    )


def night(work, ratings, options, service=None, keep=7, spark=None):
    """Do one night.

    Parameters
    ----------
    work : Path
    ratings : Path or None
        None for the generated ones.
    options : list of str
        Arguments for train_als.py.
    service : str, optional
        Address of a service that must have taken the run in the end.
    keep : int
        Results and runs that stay.
    spark : SparkSession, optional

    Returns
    -------
    int
        The status to end with: 0, published; 2, something is to be put right, and the
        message says what; 3, the lists are not good enough; 4, the service does not
        take them.
    """
    results, before = work / "results", finished(work / "results")
    results.mkdir(parents=True, exist_ok=True)
    if ratings is None:
        ratings = work / "ratings.csv"
        generate(ratings, len(before))
    output = results / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    argv = ["--ratings", str(ratings), "--output", str(output)]
    argv += ["--must-beat", "most_popular"]
    if before:
        argv += ["--ids", str(before[-1]), "--compare", str(before[-1])]
    spark = spark or get_spark("night")
    status = train_als.main([*argv, *options], spark)
    if status:
        return status
    try:
        fitted = publish_als.from_job(output, spark)
        folder = publish_als.publish(fitted, work / "runs", keep=keep)
        if service:
            wait_for(service, folder.name)
    except publish_als.PublishError as error:
        print(f"night.py: error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, urllib.error.URLError) as error:
        print(f"night.py: error: {error}", file=sys.stderr)
        return 4
    for old in [*before, output][:-keep]:
        shutil.rmtree(old)
    print(summary(fitted.report, folder))
    return 0


def main(argv=None, spark=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="night.py",
        description=__doc__.splitlines()[0],
        epilog="Other arguments go to train_als.py, which see.",
        allow_abbrev=False,
    )
    parser.add_argument("work", metavar="WORK", type=Path, help="results and runs")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ratings", type=Path, metavar="PATH", help="file or folder")
    source.add_argument(
        "--generated", action="store_true", help="a year of generated ratings"
    )
    parser.add_argument(
        "--service", metavar="URL", help="fail unless this service takes the run"
    )
    parser.add_argument(
        "--keep", type=int, default=7, metavar="N", help="nights that stay (default: 7)"
    )
    args, options = parser.parse_known_args(argv)
    if args.keep < 1:
        parser.error("--keep must be at least 1")
    options = [*(GENERATED if args.generated else []), *options]
    return night(args.work, args.ratings, options, args.service, args.keep, spark)


if __name__ == "__main__":
    sys.exit(main())

"""Train ALS on ratings or events, measure it against baselines, publish its lists.

    python train_als.py --ratings ratings.csv --output result
    spark-submit --master ... train_als.py --ratings ... --output ...

One file, which ``spark-submit`` takes as it is. It needs classic Spark 3.5 or newer,
and NumPy for the Python of the driver and, unless ``--lists spark``, of the executors.
Paths are what Spark understands (a local file, file:, hdfs:, s3a:); where there are
several machines, all must see the ratings, the output and the checkpoints.
"""

import argparse
import contextlib
import json
import math
import os
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
from functools import reduce
from zlib import crc32

import numpy as np
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkFiles
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import LongType, NumericType, StringType, StructField, StructType


def make_all(work, args):
    """Make every stage that is not finished, each from those above it."""
    keep = work.keep
    ratings = work.table("_work/ratings", lambda: clean(work.read(), args, work.newest))
    users = work.table("users", lambda: number_ids(ratings, "user", work.old("users")))
    items = work.table("items", lambda: number_ids(ratings, "item", work.old("items")))
    numbered = work.table("_work/numbered", lambda: add_numbers(ratings, users, items))
    rule = (args.split, args.test_share, args.seed)
    both = work.table("split", lambda: split_ratings(numbered, *rule), "part")
    counts = work.count(both, users, items)
    training, test = parts_of(both, args)

    tested = "model" if args.no_refit else "_work/tested_model"
    model = work.model(tested, lambda: train(training, args))
    scores = work.json(
        "_work/scores", lambda: measure(model, training, test, args, keep)
    )
    require(scores, args.must_beat, work.of("_work/scores"))
    if not args.no_refit:
        model = work.model("model", lambda: train(both, args))

    people = both.select("user").distinct()
    best = work.table("_work/best", lambda: rank_items(model, people, both, args, keep))
    lists = work.table(
        "recommendations", lambda: fill_up(best, both, users, items, args)
    )
    before = work.old("recommendations")
    told = {name: it for name, it in vars(args).items() if name not in UNTOLD}
    described = {"spark": work.spark.version, "arguments": told, "counts": counts}
    described |= {**scores, "lists": describe(lists, counts, args, before)}
    work.json("report.json", lambda: described)


EXTENSIONS = {
    ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".bz2", ".zst")
SEPARATORS = ("::", "\t", ";", "|", ",")  # that are looked for, in this order
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
LARGEST = 3.4028234e38  # that fits into the 32 bits in which ALS takes a rating
UNREADABLE = "_unreadable"  # where Spark keeps a line that it cannot parse
SHOWN = 300  # characters of a row in an error
DAMPING = 5.0  # of the biases, in ratings; the same as in als_course.baselines
SHARES = 2**53  # so many different shares a hash can become; a double holds them
NORMAL = 1.959964  # standard errors on each side of an interval of 95 %
CHUNK = 128  # neighbouring items whose best score is looked at first
BLOCK = 2**24  # scores that a task holds at once, of 4 bytes each
BEAT = 10.0  # seconds between signs of life of a run
PATIENCE = 60.0  # seconds without one after which a run is taken for dead
# What the job sets unless it is set already.
SETTINGS = {
    "spark.sql.legacy.parquet.nanosAsLong": "true",  # pandas writes such times
    "spark.sql.legacy.javaCharsets": "true",  # Windows-1252 and its like
}
# For one machine without spark-submit: few tasks, and few lines but ours.
LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
# Arguments that say nothing about the result, and those that may change on resume too.
UNTOLD = {"output", "resume", "master", "checkpoint_dir"}
FREE = UNTOLD | {"must_beat", "compare", "lists"}


class JobError(Exception):
    """What the user can put right; the text says what, where, and what to do."""


class NotBetterError(Exception):
    """ALS does not beat what it has to, so that nothing is published."""


# -- the command line ----------------------------------------------------------------

OUTPUT = """\
the output folder gets its name when all of this is in it, then its _SUCCESS:
  report.json      counts; errors and lists beside baselines, paired intervals
  users, items     Parquet: every id, as text, and the number that stands for it
  split            Parquet: the ratings by numbers, part=train and part=test
  model            what ALSModel.load reads, fitted on both parts
  recommendations  Parquet: user_id, item_id, rank, score, source: als, or
                   popular where ALS knows too few items (and score is null)
Until then the work lies in DIR.part. A stage of it is finished when its marker,
written last, agrees with its files; --resume makes the others.

exit status: 0, done; 2, the arguments, the ratings or the output folder are not
right, and the message says what to do; 3, ALS does not beat what --must-beat
names, and nothing is published; anything else, Spark or a machine failed.
"""


class _Help(
    argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter
):
    def _get_help_string(self, action):
        plain = action.default is None or action.default is False
        return action.help if plain else super()._get_help_string(action)


def parse_arguments(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="train_als.py",
        description=__doc__.splitlines()[0],
        epilog=OUTPUT,
        formatter_class=_Help,
    )
    for title, options in _options().items():
        group = parser.add_argument_group(title)
        for flag, kind, default, metavar, text in options:
            if kind is bool:
                group.add_argument(flag, action="store_true", help=text)
            else:
                how = {"choices": kind} if isinstance(kind, list) else {"type": kind}
                group.add_argument(
                    flag, default=default, metavar=metavar, help=text, **how
                )
    args = parser.parse_args(argv)
    args.repeats = args.repeats or ("sum" if args.implicit else "latest")
    columns = [args.user_col, args.item_col, args.rating_col, args.time_col]
    if (args.ratings is None) == (args.table is None):
        parser.error("give --ratings or --table, one of them")
    if args.output is None:
        parser.error("the following arguments are required: --output")
    if len(set(columns)) < len(columns):
        parser.error(f"two columns have the same name: {', '.join(columns)}")
    if args.half_life and args.repeats not in ("sum", "count"):
        parser.error("--half-life needs --repeats sum or count")
    if args.implicit and args.must_beat == "global_mean":
        parser.error("with --implicit there are no errors: --must-beat most_popular")
    return args


def _options():
    formats = sorted(set(EXTENSIONS.values()))
    return {
        "what and where": [
            ("--ratings", str, None, "PATH", "file, folder or pattern"),
            ("--table", str, None, "NAME", "instead: a table of Spark's catalogue"),
            ("--output", str, None, "DIR", "folder that is to be made"),
            ("--resume", bool, False, None, "go on with an interrupted run"),
            ("--ids", str, None, "PREVIOUS", "output of an earlier run, whose numbers "
             "of users and items are kept; new ids get numbers behind them"),
            ("--compare", str, None, "PREVIOUS", "output of an earlier run: report how "
             "much of its lists is in the new ones"),
            ("--must-beat", ["most_popular", "global_mean"], None, None, "publish "
             "nothing, and end with status 3, unless ALS has better lists (nDCG) or a "
             "smaller error on the test part: the whole interval, not the mean alone"),
            ("--master", str, None, "URL", "without spark-submit: default "
             "$SPARK_MASTER or local[2]"),
        ],
        "how the ratings are written": [
            ("--format", formats, None, None, "default: by extension; json is JSON "
             "lines; csv has any separator"),
            ("--user-col", str, "user_id", "NAME", "text or whole numbers"),
            ("--item-col", str, "item_id", "NAME", "text or whole numbers"),
            ("--rating-col", str, "rating", "NAME", "numbers; not needed with "
             "--repeats count"),
            ("--time-col", str, "timestamp", "NAME", "numbers such as Unix seconds; "
             "may be missing with --split hash"),
            ("--columns", _names, None, "A,B,...", "the CSV file has no header, and "
             "these columns"),
            ("--sep", _separator, None, "SEP", "between the columns of CSV; default: "
             "the one of :: tab ; | , with which the first line has the columns"),
            ("--quote", str, '"', "MARK", "around text with separators in it; '' if "
             "marks are part of the text"),
            ("--escape", str, '"', "MARK", "before a mark within marks; Spark itself "
             "writes a backslash"),
            ("--encoding", str, "UTF-8", "NAME", "of CSV and JSON, such as "
             "windows-1252"),
            ("--decimal-comma", bool, False, None, "numbers are written 4,5"),
        ],
        "what a rating is": [
            ("--implicit", bool, False, None, "a rating is a sign, not a number of "
             "stars: above 0 a like, below 0 a dislike; no errors are reported"),
            ("--repeats", ["latest", "sum", "count", "mean"], None, None, "what "
             "rows of one user and item make; default: latest, or sum if implicit"),
            ("--half-life", _above_zero, None, "DAYS", "after which a row weighs "
             "half, with sum or count"),
            ("--max-rated", _count, None, "N", "use a user's latest N items only; what "
             "is older may be recommended again"),
            ("--liked", float, None, "RATING", "from which a test rating is a hit of a "
             "list; default: the mean of the training part, with --implicit above 0"),
        ],
        "what is held back for testing": [
            ("--split", ["time", "hash"], "time", None, "the last ratings by the "
             "clock, or those that a hash of user and item picks"),
            ("--test-share", _share, 0.2, "SHARE", "of all ratings"),
            ("--no-refit", bool, False, None, "publish the model that was tested, "
             "which has not seen the test part, instead of one fitted on everything"),
        ],
        "the model": [
            ("--rank", _count, 10, "K", "number of factors"),
            ("--max-iter", _count, 10, "N", "number of sweeps"),
            ("--reg-param", _amount, 0.1, "LAMBDA", "times the number of ratings of "
             "each user or item"),
            ("--alpha", _amount, 1.0, "ALPHA", "with --implicit: confidence is 1 + "
             "alpha x rating"),
            ("--nonnegative", bool, False, None, "no factor below 0"),
            ("--blocks", _count, None, "N", "of users and of items; default: twice the "
             "task slots; part of the result, as the first guess is drawn by block"),
            ("--seed", int, 0, "SEED", "of the first guess and of --split hash"),
            ("--checkpoint-dir", str, None, "DIR", "default: within DIR.part"),
            ("--checkpoint-interval", _count, 5, "N", "sweeps between checkpoints; a "
             "lost machine costs the sweeps since"),
        ],
        "the lists": [
            ("--top-n", _count, 10, "N", "items for each user"),
            ("--lists", ["numpy", "spark"], "numpy", None, "who multiplies: NumPy on "
             "the executors, or Spark's recommendForUserSubset, which needs no Python "
             "there"),
        ],
    }  # fmt: skip


def _count(text):
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _amount(text):
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return float(text)


def _above_zero(text):
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return float(text)


def _share(text):
    if not 0 < _number(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return float(text)


def _number(text):
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


def _names(text):
    return text.split(",")


def _separator(text):
    return text.replace("\\t", "\t")


# -- files ---------------------------------------------------------------------------


class Folder:
    """A folder or file on any file system that Spark knows.

    Its `path` has the scheme, such as ``file:/data`` or ``hdfs://host/data``. A path
    that makes no sense, or whose file system is out of reach, raises a `JobError`.
    """

    def __init__(self, spark, path):
        self.spark = spark
        self._as_path = spark._jvm.org.apache.hadoop.fs.Path
        if ":" in path.split("/")[0] and not re.match(r"\w[\w+.-]+:/", path):
            path = f"./{path}"  # what stands before the colon is no scheme
        try:
            place = self._as_path(path)
            self._files = place.getFileSystem(spark._jsc.hadoopConfiguration())
            self.path = self._files.makeQualified(place).toString()
        except (Py4JJavaError, PySparkException) as error:
            raise JobError(f"cannot use the path {path}: {reason(error)}") from error

    def of(self, name):
        """Path of what is called `name` in the folder; of the folder itself for ''."""
        return f"{self.path}/{name}" if name else self.path

    def exists(self, name=""):
        """Whether there is such a file or folder."""
        return self._files.exists(self._as_path(self.of(name)))

    def delete(self, name=""):
        """Delete a file or a folder with all that is in it, if it is there."""
        self._files.delete(self._as_path(self.of(name)), True)

    def rename(self, name, target):
        """Rename to a full path where nothing may be yet."""
        there = self._as_path(target)
        self._files.mkdirs(there.getParent())
        # Hadoop would move a folder into one that is there.
        if self._files.exists(there) or not self._files.rename(
            self._as_path(self.of(name)), there
        ):
            raise JobError(
                f"cannot rename {self.of(name)} to {target}; look whether something "
                "is there, or whether you may write there, and use --resume"
            )

    def sizes(self):
        """Bytes of each file in the folder, by its name within."""
        found, files = {}, self._files.listFiles(self._as_path(self.path), True)
        while files.hasNext():
            file = files.next()
            name = file.getPath().toString().removeprefix(f"{self.path}/")
            found[name] = file.getLen()
        return found

    def total(self, name):
        """Count the files of a part, and their bytes."""
        summary = self._files.getContentSummary(self._as_path(self.of(name)))
        return {"files": summary.getFileCount(), "bytes": summary.getLength()}

    def modified(self, name):
        """When a file was last written, or None where it is not."""
        there = (
            self._files.listStatus(self._as_path(self.path)) if self.exists() else ()
        )
        times = {it.getPath().getName(): it.getModificationTime() for it in there}
        return times.get(name)

    def length(self):
        """Bytes of all that is there or matches the pattern."""
        found = self._files.globStatus(self._as_path(self.path))
        sizes = [self._files.getContentSummary(each.getPath()) for each in found]
        return sum(size.getLength() for size in sizes)

    def write_json(self, name, content):
        """Write a dict to a file; whoever dies meanwhile leaves one that is no JSON."""
        stream = self._files.create(self._as_path(self.of(name)), True)
        stream.write(bytearray(json.dumps(content, indent=2) + "\n", "utf-8"))
        stream.close()

    def read_json(self, name):
        """Read a dict, or None if there is none or it was not written to its end."""
        if not self.exists(name):
            return None
        stream = self._files.open(self._as_path(self.of(name)))
        try:
            read = self.spark._jvm.org.apache.commons.io.IOUtils.toString
            return json.loads(read(stream, "UTF-8"))
        except ValueError:
            return None
        except Py4JJavaError as error:
            if "ChecksumException" in reason(error):
                return None
            raise
        finally:
            stream.close()


class Work(Folder):
    """The folder ``OUTPUT.part``, whose stages are finished when their marker says so.

    A marker ``_done/STAGE`` is written last and holds the number of files and bytes
    there. So neither a name nor a file left by a write or copy that died is trusted.
    `output` is what the folder is renamed to; `newest` the time of the latest row, None
    without times.
    """

    def __init__(self, spark, args):
        self.output = Folder(spark, args.output.rstrip("/"))
        super().__init__(spark, f"{self.output.path}.part")
        self.plan = Folder(spark, f"{self.output.path}.publishing")
        self.args = args
        self.newest = None
        self._kept = []
        self._remade = False

    def make(self, name, write):
        """Let ``write(path)`` make a stage, unless an earlier run finished it."""
        marker = f"_done/{name}"
        kept = not self._remade and self.exists(name)
        if kept and self.read_json(marker) == self.total(name):
            say(f"{name}: taken from the earlier run")
            return
        self._remade = True  # so what was made of it is made again
        start = time.perf_counter()
        say(f"{name}: started")
        self.delete(marker)
        self.delete(name)
        write(self.of(name))
        self.write_json(marker, self.total(name))
        while self._kept:
            self._kept.pop().unpersist()
        say(f"{name}: done in {time.perf_counter() - start:.1f} s")

    def table(self, name, make, *partitions):
        """Make a table unless it is finished, and read it."""
        self.make(
            name, lambda path: make().write.partitionBy(*partitions).parquet(path)
        )
        return self.spark.read.parquet(self.of(name))

    def model(self, name, make):
        """Make a model unless it is finished, and read it."""
        with checkpoints(self.spark, self.args, self):
            self.make(name, lambda path: make().save(path))
        return ALSModel.load(self.of(name))

    def json(self, name, make):
        """Make a dict unless it is finished, and read it."""
        self.make(name, lambda _: self.write_json(name, make()))
        return self.read_json(name)

    def keep(self, rows):
        """Keep a table in memory until the stage is finished."""
        self._kept.append(rows.persist())
        return rows

    def read(self):
        """Read the ratings as they are in the input."""
        return read_ratings(self.spark, self.args)

    def old(self, name):
        """Read a table of the run that ``--ids`` or ``--compare`` names, or None."""
        option = "compare" if name == "recommendations" else "ids"
        path = getattr(self.args, option)
        if path is None:
            return None
        before = Folder(self.spark, path.rstrip("/"))
        if not before.exists(name):
            raise JobError(
                f"{before.path} has no {name}; --{option} takes the output folder of "
                "an earlier run"
            )
        return self.spark.read.parquet(before.of(name))

    def count(self, both, users, items):
        """Count for the report, mostly from the footers of the files."""
        parts = dict(both.groupBy("part").count().collect())
        counts = {"rows": self.read_json("run.json")["rows"]}
        counts |= {"ratings": sum(parts.values())}
        if self.args.ids:
            there = both.agg(
                sf.count_distinct("user"), sf.count_distinct("item")
            ).head()
            counts |= dict(zip(("users", "items"), there, strict=True))
        else:
            counts |= {"users": users.count(), "items": items.count()}
        counts |= {part: parts.get(part, 0) for part in ("train", "test")}
        if not (counts["train"] and counts["test"]):
            self.delete()
            raise JobError(
                f"of {counts['ratings']} ratings, {counts['train']} are for training "
                f"and {counts['test']} for testing; change --test-share or give more "
                "ratings"
            )
        if self.args.implicit:
            signs = {"zero": sf.col("rating") == 0, "negative": sf.col("rating") < 0}
            found = [sf.count_if(sign).alias(name) for name, sign in signs.items()]
            counts |= both.agg(*found).head().asDict()
            zero, negative = counts["zero"], counts["negative"]
            if zero + negative == counts["ratings"]:
                self.delete()
                raise JobError(
                    "no rating is above 0, so there is no like to learn from"
                )
            if zero + negative:
                say(
                    f"{zero:,} ratings are 0, which says nothing, and {negative:,} are "
                    "below, which are dislikes; none of them counts as a like"
                )
        return counts

    def publish(self):
        """Give the work the name of the output, and the output its ``_SUCCESS``.

        A rename happens at once on a local disk and on HDFS. An object store copies
        file by file, and may die in between: so what has to be there is written down
        first, and files that are still here are moved one by one.
        """
        wanted = self.plan.read_json("files")
        if wanted is None:
            own = ("_work/", "_done/")
            sizes = self.sizes().items()
            wanted = {name: size for name, size in sizes if not name.startswith(own)}
            self.plan.write_json("files", wanted)
        for name in ("_work", "_done"):
            self.delete(name)
        if not self.output.exists():
            self.rename("", self.output.path)
        for name in wanted if self.exists() else ():
            if self.exists(name):
                self.output.delete(name)
                self.rename(name, self.output.of(name))
        self.output.delete("_SUCCESS")
        if self.output.sizes() != wanted:
            raise JobError(
                f"{self.output.path} lacks files that {self.plan.path} lists; "
                "delete both and begin anew"
            )
        self.delete()
        self.output.write_json("_SUCCESS", summary(wanted))
        self.plan.delete()

    def is_published(self):
        """Whether the output is there with all its files."""
        sizes = self.output.sizes() if self.output.exists() else {}
        sizes.pop("_SUCCESS", None)
        return bool(sizes) and self.output.read_json("_SUCCESS") == summary(sizes)


def summary(sizes):
    """Count files and their bytes, as a marker has it."""
    return {"files": len(sizes), "bytes": sum(sizes.values())}


def literal(path):
    """Write a path so that Hadoop does not take its brackets for a pattern."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


@contextlib.contextmanager
def only_run(lock):
    """Hold a lock file, so that a second run into the same output does not begin.

    The file is written anew every `BEAT` seconds. A lock is taken over if its process,
    on this machine, is dead, or if nobody has written it for `PATIENCE` seconds.
    """
    machine = f"{socket.gethostname()} {uuid.getnode():x}"
    if lock.exists("owner") and _lives(lock, machine):
        raise JobError(
            f"another run writes into this output, as {lock.path} says; wait for its "
            "end, or choose another --output"
        )
    lock.write_json("owner", {"machine": machine, "process": os.getpid()})
    end = threading.Event()

    def beat():
        while not end.wait(BEAT):
            try:
                lock.write_json("owner", {"machine": machine, "process": os.getpid()})
            except (Py4JError, OSError) as error:
                say(f"cannot renew {lock.path}: {reason(error)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        lock.delete()


def _lives(lock, machine):
    owner = lock.read_json("owner") or {}
    if owner.get("machine") == machine:
        try:
            os.kill(owner["process"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's process: it is there
    say(f"looking for up to {PATIENCE:.0f} s whether the owner of {lock.path} lives")
    seen, start = lock.modified("owner"), time.monotonic()
    while time.monotonic() < start + PATIENCE:
        time.sleep(min(1.0, BEAT / 10))
        if lock.modified("owner") != seen:
            return lock.exists("owner")
    return False


@contextlib.contextmanager
def checkpoints(spark, args, work):
    """Let ALS save checkpoints, and delete what it leaves of them."""
    own = f"train_als-{crc32(work.path.encode()):08x}"
    place = Folder(spark, args.checkpoint_dir or work.of("_work/checkpoints"))
    spark.sparkContext.setCheckpointDir(place.of(own))
    yield
    place.delete(own)


def say(text):
    """Tell on standard error how far the program is."""
    print(f"train_als: {text}", file=sys.stderr, flush=True)


def reason(error):
    """Take the message of the innermost cause, without its stack trace."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    return (java.toString() if java else str(error)).strip().splitlines()[0]


# -- reading and checking --------------------------------------------------------------


def read_ratings(spark, args):
    """Read the columns as they are in the input.

    The table has ``user_id``, ``item_id``, ``rating``, ``time`` and `UNREADABLE`. All
    are text, except from Parquet or a table. A column that is not there, and need not
    be, is null. An unknown format or column raises a `JobError`.
    """
    columns = {
        args.user_col: "user_id", args.item_col: "item_id",
        args.rating_col: "rating", args.time_col: "time",
    }  # fmt: skip
    kind = kind_of(args)
    path = None if args.table else find(spark, args.ratings)
    reader = spark.read.options(
        columnNameOfCorruptRecord=UNREADABLE, encoding=args.encoding
    )
    if kind == "table":
        found = spark.table(args.table)
    elif kind == "parquet":
        found = reader.parquet(path)
    elif kind == "json":
        # Spark asks for the end of a line where it is not UTF-8.
        ends = {} if args.encoding.upper() == "UTF-8" else {"lineSep": "\n"}
        found = reader.options(**ends).schema(text_schema(columns)).json(path)
    else:
        found = read_csv(spark, path, args)
    wanted = {"user_id", "item_id"}
    wanted |= {"rating"} if args.repeats != "count" else set()
    wanted |= {"time"} if args.split == "time" or args.half_life else set()
    there = [name for name in found.columns if name != UNREADABLE]
    for column, name in columns.items():
        if column in there:
            check_type(found.schema[column], name)
        elif name in wanted:
            raise missing_column(args, name, f"they have {there}{hint(there, args)}")
    columns[UNREADABLE] = UNREADABLE
    return found.select(
        *(
            sf.col(quoted(column)).alias(name)
            if column in found.columns
            else sf.lit(None).cast("string").alias(name)
            for column, name in columns.items()
        )
    )


def quoted(column):
    """Write a column's name so that Spark takes it as one name."""
    return "`" + column.replace("`", "``") + "`"


def kind_of(args):
    """Tell the format, if need be by the extension, be the file compressed or not."""
    if args.table or args.format:
        return "table" if args.table else args.format
    path = args.ratings
    stem, extension = os.path.splitext(path.rstrip("/").lower())
    if extension in COMPRESSED:
        extension = os.path.splitext(stem)[1]
    if extension not in EXTENSIONS:
        raise JobError(
            f"{path} has none of the extensions {', '.join(EXTENSIONS)}; "
            "say with --format what it is"
        )
    return EXTENSIONS[extension]


def find(spark, path):
    """Find what a path, which may be a pattern, stands for."""
    place = Folder(spark, path)
    if place.exists():
        name = os.path.basename(place.path)
        is_file = place._files.getFileStatus(place._as_path(place.path)).isFile()
        if is_file and place.path.startswith("file:") and ":" in name:
            raise JobError(
                f"Hadoop reads no local file with a colon in its name: {place.path}"
            )
        return literal(place.path)
    if not place._files.globStatus(place._as_path(place.path)):
        raise JobError(f"there is no {place.path}; look at --ratings")
    return place.path


def csv_options(spark, path, args):
    """Tell Spark how a CSV file is written, by its first line where nobody says so."""
    given = {"encoding": args.encoding, "quote": args.quote, "escape": args.escape}
    line = spark.read.options(encoding=args.encoding, sep="\x01", quote="").csv(path)
    first = line.head()
    first = first[0].strip("\ufeff") if first else ""
    if "\0" in first:
        raise JobError(
            f"{path} is UTF-16, which Spark cannot cut into lines: convert it"
        )
    if args.sep:
        return given | {"sep": args.sep}
    wanted = {args.user_col, args.item_col}

    def fit(sep):
        fields = [field.strip('" ') for field in first.split(sep)]
        right = (
            len(fields) == len(args.columns) if args.columns else wanted <= {*fields}
        )
        return right, len(fields)

    return given | {"sep": max(SEPARATORS, key=fit)}


def read_csv(spark, path, args):
    """Read the columns as text, and keep each line that has more or fewer of them."""
    reader = spark.read.options(
        **csv_options(spark, path, args),
        header=not args.columns,
        enforceSchema=False,
        columnNameOfCorruptRecord=UNREADABLE,
        # With it Spark looks at no column that is not asked for, nor counts them.
        columnPruning=False,
    )
    return reader.schema(text_schema(args.columns or reader.csv(path).columns)).csv(
        path
    )


def hint(there, args):
    """Say what may be wrong with the header of a CSV file."""
    if there and there[0].startswith("sep="):
        return "; delete the first line, which is for spreadsheets"
    if not args.columns and any(re.match(NUMBER, name) for name in there):
        return (
            "; that looks like a row, so if there is no header, say --columns user_id,"
            "item_id,rating,timestamp in the order of the file"
        )
    return ""


def check_quotes(spark, args):
    """Refuse lines of CSV whose quotation marks do not pair up.

    A line break within marks leaves two such lines, and either may have as many columns
    as a whole row. So may a row whose marks are written in another way.
    """
    path = find(spark, args.ratings)
    sep = csv_options(spark, path, args)["sep"]
    say(f"the columns are separated by {sep!r}")
    if not args.quote:
        return
    mark, escape, sep = (re.escape(it) for it in (args.quote, args.escape, sep))
    pair = mark * 2 if escape == mark else f"{escape}."
    field = f"{mark}(?:[^{mark}{escape}]++|{pair})*+{mark}"
    left = sf.regexp_replace("value", rf"(^\ufeff?|{sep}){field}(?={sep}|$)", "$1")
    bad = spark.read.text(path).where(left.contains(args.quote))
    n, line = bad.agg(sf.count("*"), sf.min("value")).head()
    if n:
        raise JobError(
            f"quotes do not pair up in {n:,} line(s), for example {line[:SHOWN]}; "
            "Spark takes each line for a row, so write JSON lines or Parquet if there "
            'are line breaks within quotes; if quotes in quotes are written \\", say '
            "--escape '\\'; if quotes are part of the text, say --quote ''"
        )


def text_schema(columns):
    """Make a schema that takes every column as text, and keeps what is unreadable."""
    names = [*columns, UNREADABLE]
    return StructType([StructField(name, StringType()) for name in names])


def column_of(args, name):
    """Find what the file calls a column of ours."""
    return getattr(args, f"{name.removesuffix('_id')}_col")


def missing_column(args, name, found):
    """Make the error for a column that is not in the ratings."""
    option = f"--{name.removesuffix('_id')}-col"
    instead = {
        "time": ", or choose --split hash, which needs no time",
        "rating": ", or --repeats count, which needs no rating",
    }.get(name, "")
    return JobError(
        f"the ratings have no {column_of(args, name)!r}: {found}; say with {option} "
        f"what it is called{instead}"
    )


def check_type(field, name):
    """Refuse a column of a table whose type cannot be an id, a rating or a time."""
    kind = field.dataType.simpleString()
    whole = kind in ("tinyint", "smallint", "int", "bigint")
    if name.endswith("_id"):
        right, need = whole or kind == "string", "text or whole numbers"
    else:
        right = kind == "string" or isinstance(field.dataType, NumericType)
        right = right or (name == "time" and kind.startswith(("timestamp", "date")))
        need = "numbers" if name == "rating" else "numbers or timestamps"
    if not right:
        raise JobError(
            f"column {field.name!r} of the ratings has type {kind}, but {need} are "
            "needed; convert it first"
        )


def as_number(ratings, name, args):
    """Make a double of a column, null where it is no finite number."""
    kind = dict(ratings.dtypes)[name]
    number = sf.col(name)
    if kind.startswith(("timestamp", "date")):
        return sf.unix_micros(number.cast("timestamp")).cast("double")
    if kind == "string":
        if args.decimal_comma:
            number = sf.translate(number, ".,", ",.")
        number = sf.when(number.rlike(NUMBER), number)
    number = number.cast("double")
    return sf.when(sf.abs(number) <= (LARGEST if name == "rating" else 1.7e308), number)


def checked_input(spark, args):
    """Read the ratings, and look at every row."""
    try:
        raw = read_ratings(spark, args)
        if kind_of(args) == "csv":
            check_quotes(spark, args)
        return raw, *check_ratings(raw, args)
    except (PySparkException, Py4JJavaError) as error:
        raise JobError(
            f"cannot read {args.ratings or args.table}: {reason(error)}; look at "
            "--format and --encoding, and at what else lies there"
        ) from error


def check_ratings(raw, args):
    """Look at every row once, and refuse the ratings if one is not right.

    Returns the number of rows and the latest time, None if there are no times. The
    `JobError` names the fault, in how many rows it is, and one of them.
    """
    ids = [sf.coalesce(sf.col(f"{kind}_id").cast("string"), sf.lit(""))
           for kind in ("user", "item")]  # fmt: skip
    bad = {
        UNREADABLE: sf.col(UNREADABLE).isNotNull(),
        "undecoded": sf.concat(*ids).contains("\ufffd"),
        "user_id": ids[0] == "",
        "item_id": ids[1] == "",
        "rating": as_number(raw, "rating", args).isNull(),
        "time": as_number(raw, "time", args).isNull(),
    }
    names = [name for name in raw.columns if name != UNREADABLE]
    named = [sf.col(name).alias(column_of(args, name)) for name in names]
    shown = sf.to_json(sf.struct(*named), {"ignoreNullFields": "false"})
    shown = sf.coalesce(sf.col(UNREADABLE), shown)
    seen = raw.agg(
        sf.count("*").alias("rows"),
        sf.max(as_number(raw, "time", args)).alias("newest"),
        *(sf.count(name).alias(f"{name}_there") for name in raw.columns),
        *(sf.count_if(fault).alias(f"{name}_bad") for name, fault in bad.items()),
        *(sf.min(sf.when(fault, shown)).alias(f"{name}_row")
          for name, fault in bad.items()),
    ).head().asDict()  # fmt: skip
    if not seen["rows"]:
        raise JobError(f"there is no rating in {args.ratings}; look at --ratings")
    for name in bad:
        there = seen.get(f"{name}_there")
        if name == "time" and not there and args.split == "hash" and not args.half_life:
            continue
        if name == "rating" and args.repeats == "count":
            continue
        if name in names and not there:
            # Only JSON comes here without the column: it has no header to look into.
            example = raw.select(shown).head()[0][:SHOWN]
            if args.ratings:
                path = find(raw.sparkSession, args.ratings)
                example = raw.sparkSession.read.text(path).head()[0][:SHOWN]
            raise missing_column(args, name, f"the first row is {example}")
        if seen[f"{name}_bad"]:
            raise faulty(args, name, seen)
    return seen["rows"], seen["newest"]


def faulty(args, name, seen):
    """Make the error for a fault that some rows have."""
    column = column_of(args, name) if name.endswith(("_id", "rating", "time")) else ""
    row = seen[f"{name}_row"][:SHOWN]
    comma = name == "rating" and re.search(r"\d,\d", row)
    what, to_do = {
        UNREADABLE: ("cannot be parsed, or have more or fewer columns than the first",
                     "mend or delete them, or look at --sep"),
        "undecoded": (f"have ids with bytes that are no {args.encoding}",
                      "say with --encoding what it is, windows-1252 for example"),
        "user_id": (f"have no user id in {column!r}", "drop them, or fill it in"),
        "item_id": (f"have no item id in {column!r}", "drop them, or fill it in"),
        "rating": (f"have no number in {column!r}", "say --decimal-comma" if comma
                   else "convert or drop them"),
        "time": (f"have no number in {column!r}", "give Unix seconds, for example"),
    }[name]  # fmt: skip
    return JobError(
        f"{seen[f'{name}_bad']:,} of {seen['rows']:,} rows {what}, for example "
        f"{row}; {to_do}"
    )


# -- the stages ------------------------------------------------------------------------


def clean(raw, args, newest=None):
    """Turn checked rows into one rating a user and item.

    `newest` is the latest time, from which ``--half-life`` counts back. The table has
    ``user_id``, ``item_id`` (text), ``rating``, ``time`` (double, of the latest row).
    With ``--repeats latest``, of rows of one time, the highest counts.
    """
    text = [sf.col(name).cast("string").alias(name) for name in ("user_id", "item_id")]
    rating = sf.lit(1.0) if args.repeats == "count" else as_number(raw, "rating", args)
    rows = raw.select(
        *text, as_number(raw, "time", args).alias("time"), rating.alias("rating")
    )
    if args.half_life:
        age = (newest - sf.col("time")) / half_life_of(newest, args)
        rows = rows.withColumn("rating", sf.col("rating") * sf.pow(sf.lit(0.5), age))
    made = {
        "latest": sf.max(sf.struct("time", "rating"))["rating"],
        "mean": sf.avg("rating"),
    }.get(args.repeats, sf.sum("rating"))
    rows = rows.groupBy("user_id", "item_id").agg(
        made.alias("rating"), sf.max("time").alias("time")
    )
    if args.max_rated:
        latest = Window.partitionBy("user_id").orderBy(sf.desc("time"), "item_id")
        rows = rows.withColumn("place", sf.row_number().over(latest))
        rows = rows.where(sf.col("place") <= args.max_rated).drop("place")
    return rows


def half_life_of(newest, args):
    """Give the half-life in the unit of the times, which their size tells."""
    scales = (1.0, 1e3, 1e6, 1e9)  # seconds to nanoseconds; now is about 10**9.2 s
    scale = min(scales, key=lambda it: abs(math.log10(max(newest, 1.0) / it) - 9.2))
    return args.half_life * 86_400 * scale


def number_ids(ratings, kind, before=None):
    """Give each id a number from 0, in order of length, then of text.

    The order puts 9 before 10, so ids that are numbers keep their order, and does not
    depend on how the rows are distributed. It costs one sort of the ids, spread over
    the executors; Spark's StringIndexer collects all ids in the driver instead. Numbers
    of an earlier run, `before`, stay, and new ids are numbered behind them. The table
    has the columns `kind` ("user" or "item"), an int, and the id; Spark's ALS takes
    2,147,483,647 ids, and with more Spark fails on the overflow.
    """
    name = f"{kind}_id"
    ids, first = ratings.select(name).distinct(), 0
    if before is not None:
        ids = ids.join(before, name, "anti")
        first = before.agg(sf.max(kind)).head()[0] + 1
    numbered = add_place(ids.sort(sf.length(name), name), "place").select(
        (sf.col("place") + first).cast("int").alias(kind), name
    )
    return numbered if before is None else before.select(kind, name).union(numbered)


def add_place(rows, name):
    """Add a column that numbers the rows of a sorted table from 0."""
    if hasattr(rows, "zipWithIndex"):
        return rows.zipWithIndex(name)
    schema = StructType([*rows.schema.fields, StructField(name, LongType())])
    pairs = rows.rdd.zipWithIndex()  # before Spark 4.2, with Python on the executors
    return rows.sparkSession.createDataFrame(
        pairs.map(lambda pair: (*pair[0], pair[1])), schema
    )


def add_numbers(ratings, users, items):
    """Join the ratings with the numbers of their ids."""
    return ratings.join(users, "user_id").join(items, "item_id")


def split_ratings(ratings, how, share, seed):
    """Tell each rating whether it is for training or for testing, as ``part``.

    ``time`` holds back the last ``ceil(share * n)`` ratings in the order of time, user
    and item, as ``als_course.splits.global_time_split`` does; it costs one sort.
    ``hash`` holds back a rating if a hash of its ids and the seed says so, whatever
    other ratings there are. It costs nothing, and the test part is `share` of the
    ratings give or take chance.
    """
    if how == "hash":
        hashed = sf.xxhash64("user_id", "item_id", sf.lit(seed).cast("bigint"))
        is_test = sf.pmod(hashed, sf.lit(SHARES)) < share * SHARES
    else:
        n_ratings = ratings.count()
        ratings = add_place(ratings.sort("time", "user", "item"), "place")
        is_test = sf.col("place") >= n_ratings - math.ceil(share * n_ratings)
    part = sf.when(is_test, "test").otherwise("train").alias("part")
    return ratings.select("user", "item", "rating", "time", part)


def parts_of(both, args):
    """Take the parts of the split; with a half-life, as old as on their last day.

    The weight of a training row counts back from the latest row of all, of which
    training must not know: what is learnt then weighs less than it will in the model
    that is published. So its weights are counted from the latest of the part.
    """
    training, test = (both.where(sf.col("part") == part) for part in ("train", "test"))
    if args.half_life:
        last = dict(both.groupBy("part").agg(sf.max("time")).collect())
        newest = max(last.values())
        age = (newest - last["train"]) / half_life_of(newest, args)
        training = training.withColumn("rating", sf.col("rating") * 2.0**age)
    return training, test


def train(ratings, args):
    """Fit ALS, to predict nan for users and items without factors."""
    als = ALS(
        rank=args.rank,
        maxIter=args.max_iter,
        regParam=args.reg_param,
        alpha=args.alpha,
        implicitPrefs=args.implicit,
        nonnegative=args.nonnegative,
        numUserBlocks=args.blocks,
        numItemBlocks=args.blocks,
        checkpointInterval=args.checkpoint_interval,
        seed=args.seed,
    )
    if args.implicit:
        ratings = ratings.where(sf.col("rating") != 0)  # which has no weight
    try:
        return als.fit(ratings.select("user", "item", sf.col("rating").cast("float")))
    except (Py4JJavaError, PySparkException) as error:
        if "SingularMatrixException" not in reason(error):
            raise
        raise JobError(
            "a user or item has no single solution; raise --reg-param, or lower --rank"
        ) from error


def add_baselines(test, ratings):
    """Predict the test ratings by the mean, and by damped biases of items and users.

    Learnt is from `ratings` only. The columns ``global_mean`` and ``biases`` are added
    to the test ratings; the biases are those of ``als_course.baselines.DampedBiases``,
    and unknown ones are 0.
    """
    mean = ratings.agg(sf.avg("rating")).head()[0]

    def bias(left_over):
        return sf.sum(left_over) / (sf.count("*") + DAMPING)

    above = sf.col("rating") - mean
    items = ratings.groupBy("item").agg(bias(above).alias("item_bias"))
    users = ratings.join(items, "item").groupBy("user")
    users = users.agg(bias(above - sf.col("item_bias")).alias("user_bias"))
    known = test.join(items, "item", "left").join(users, "user", "left")
    biases = [sf.coalesce(f"{kind}_bias", sf.lit(0.0)) for kind in ("item", "user")]
    return known.select(
        *test.columns,
        sf.lit(mean).alias("global_mean"),
        (mean + biases[0] + biases[1]).alias("biases"),
    )


def measure(model, training, test, args, keep=DataFrame.persist):
    """Measure errors and lists on the test part, beside their baselines."""
    errors, better = measure_errors(model, test, training, args)
    ranking, nearer = measure_ranking(model, test, training, args, keep)
    return errors | {"ranking": ranking, "paired": better | nearer}


def measure_errors(model, test, ratings, args):
    """Root mean squared errors of the baselines and of ALS on the test ratings.

    In the report, ``test_not_scored`` counts the test ratings of users or items that
    training never saw, for which ALS has no factors. ``rmse`` gives, for each model,
    ``all``, over all test ratings, where the biases help ALS out, and ``scored``, over
    those that ALS can score. With ``--implicit`` it is None: preferences are no
    ratings. Returned as well is by how much the mean squared error of ALS is below that
    of a baseline, over the ratings that it can score.
    """
    rows = model.transform(add_baselines(test, ratings))
    scored = ~sf.isnan("prediction")
    helped = sf.when(scored, sf.col("prediction")).otherwise(sf.col("biases"))
    predicted = {
        "global_mean": sf.col("global_mean"), "biases": sf.col("biases"), "als": helped
    }  # fmt: skip
    error = {name: (sf.col("rating") - it) ** 2 for name, it in predicted.items()}
    found = rows.agg(
        sf.count_if(~scored).alias("test_not_scored"),
        *(
            sf.struct(
                sf.sqrt(sf.avg(each)).alias("all"),
                sf.sqrt(sf.avg(sf.when(scored, each))).alias("scored"),
            ).alias(name)
            for name, each in error.items()
        ),
    )
    found = found.head().asDict(recursive=True)
    report = {"test_not_scored": found.pop("test_not_scored"), "rmse": found}
    if args.implicit:
        return report | {"rmse": None}, {}
    names = ("global_mean", "biases")
    users = rows.where(scored).groupBy("user").agg(
        sf.count("*").alias("n"),
        *(sf.sum(error[name] - error["als"]).alias(f"mse_below_{name}")
          for name in names),
    )  # fmt: skip
    return report, intervals(users, [f"mse_below_{name}" for name in names])


def intervals(users, names):
    """Mean difference of two models with a normal interval of 95 % over users.

    `users` has a row a user: ``n``, how many differences, and the sum of them by name.
    Users are drawn, not their ratings, so the mean is a ratio of two sums, whose error
    is linearised.
    """
    sums = {f"{name} sum": sf.sum(name) for name in names}
    sums |= {f"{name} square": sf.sum(sf.pow(sf.col(name), 2)) for name in names}
    sums |= {f"{name} cross": sf.sum(sf.col(name) * sf.col("n")) for name in names}
    sums |= {"n": sf.sum("n"), "n square": sf.sum(sf.pow("n", sf.lit(2)))}
    found = users.agg(
        sf.count("*").alias("users"), *(it.alias(name) for name, it in sums.items())
    ).head()
    return {name: interval(found, name) for name in names}


def interval(found, name):
    """Make the interval of one difference from the sums over users."""
    n_users, n = found["users"], found["n"]
    if n_users < 2:
        return {"mean": None, "low": None, "high": None, "users": n_users}
    mean = found[f"{name} sum"] / n
    spread = found[f"{name} square"] - 2 * mean * found[f"{name} cross"]
    spread = max(0.0, spread + mean**2 * found["n square"]) * n_users / (n_users - 1)
    width = NORMAL * math.sqrt(spread) / n
    return {"mean": mean, "low": mean - width, "high": mean + width, "users": n_users}


def measure_ranking(model, test, ratings, args, keep):
    """Precision, recall and nDCG of the lists of ALS and of the most popular items.

    The report has means over the users who are in both parts and like a test item;
    definitions as in ``als_course.metrics``. What is liked, ``--liked`` says. Returned
    as well is by how much recall and nDCG of ALS are above those of the most popular.
    """
    n, least = args.top_n, args.liked
    if least is None and not args.implicit:
        least = ratings.agg(sf.avg("rating")).head()[0]
    liked = likes(test, args)
    if least is not None:
        liked = liked.where(sf.col("rating") >= least)
    users = ratings.select("user").distinct().join(liked, "user", "semi")
    lists = {
        "most_popular": rank_popular(users, likes(ratings, args), ratings, n),
        "als": rank_items(model, users, ratings, args, keep),
    }
    rows = liked.select("user", "item").join(users, "user", "semi")
    for name, best in lists.items():
        best = best.select("user", "item", sf.col("rank").alias(name))
        rows = rows.join(best, ["user", "item"], "left")
    gain = {name: sf.sum(1 / sf.log2(sf.col(name) + 1)) for name in lists}
    rows = rows.groupBy("user").agg(
        sf.count("*").alias("relevant"),
        *(sf.count(name).alias(f"{name} hits") for name in lists),
        *(
            sf.coalesce(it, sf.lit(0.0)).alias(f"{name} gain")
            for name, it in gain.items()
        ),
    )
    best = f"sequence(1, least({n}, relevant))"
    ideal = f"aggregate({best}, 0D, (sum, i) -> sum + 1 / log2(i + 1))"
    scores = {}
    for name in lists:
        hits = sf.col(f"{name} hits")
        scores[name, "precision"] = hits / n
        scores[name, "recall"] = hits / sf.col("relevant")
        scores[name, "ndcg"] = sf.col(f"{name} gain") / sf.expr(ideal)
    kinds = ("precision", "recall", "ndcg")
    above = [f"{kind}_above_most_popular" for kind in kinds[1:]]
    table = keep(rows.select(
        sf.lit(1).alias("n"),
        *(it.alias(" ".join(key)) for key, it in scores.items()),
        *((scores["als", kind] - scores["most_popular", kind]).alias(name)
          for kind, name in zip(kinds[1:], above, strict=True)),
    ))  # fmt: skip
    means = table.agg(
        sf.count("*").alias("users"),
        *(sf.avg(" ".join(it)).alias(" ".join(it)) for it in scores),
    ).head()
    report = {"at": n, "liked": least, "users": means["users"]}
    report |= {
        name: {kind: means[f"{name} {kind}"] for kind in kinds} for name in lists
    }
    return report, intervals(table, above)


def likes(ratings, args):
    """Leave out what ``--implicit`` does not take for a like."""
    return ratings.where(sf.col("rating") > 0) if args.implicit else ratings


def require(scores, rival, place):
    """End the run unless ALS beats a rival by more than chance."""
    if rival:
        name = {"most_popular": "ndcg_above_most_popular",
                "global_mean": "mse_below_global_mean"}[rival]  # fmt: skip
        found = scores["paired"][name]
        if found["low"] is None or found["low"] <= 0:
            raise NotBetterError(
                f"ALS does not beat {rival}, so nothing is published: {name} is "
                f"{found}; all scores are in {place}"
            )


def rank_items(model, users, seen, args, keep=DataFrame.persist):
    """Find the best items of users whom the model has factors of.

    What is in `seen` is left out. ``rank`` counts from 1, highest score first, then
    lowest item number; a list is shorter where fewer items are left.
    """
    rank = rank_with_numpy if args.lists == "numpy" else rank_with_spark
    return rank(model, users, seen.select("user", "item"), args.top_n, keep)


def rank_with_numpy(model, users, seen, n, keep):
    """Multiply blocks of users by all items, which the tasks map from one file.

    The driver and each machine need 4 bytes for every factor of every item; a task
    needs 128 MB for its scores. The functions stand within, as executors do not have
    this module.
    """
    context, chunk, block_size = users.sparkSession.sparkContext, CHUNK, BLOCK

    def pack(rows):
        rows = list(rows)
        yield [row[0] for row in rows], np.array([row[1] for row in rows], "f4")

    packed = (
        model.itemFactors.rdd.mapPartitions(pack).filter(lambda it: it[0]).collect()
    )
    ids = np.concatenate([ids for ids, _ in packed]).astype("i4")
    order = np.argsort(ids)
    ids, n_items = ids[order], len(ids)
    items = np.zeros((-(-n_items // chunk) * chunk, model.rank), "f4")
    items[:n_items] = np.concatenate([factors for _, factors in packed])[order]
    folder = tempfile.mkdtemp(
        dir=SparkFiles.getRootDirectory()
    )  # goes with the session
    name = f"{os.path.basename(folder)}.npy"
    np.save(os.path.join(folder, name), items)
    context.addFile(os.path.join(folder, name))

    def rank(rows):
        items = np.load(SparkFiles.get(name), mmap_mode="r")
        step = max(1, block_size // len(items))
        while block := [row for _, row in zip(range(step), rows, strict=False)]:
            scores = np.array([row[1] for row in block], "f4") @ items.T
            scores[:, n_items:] = -np.inf
            for (user, _, rated), score in zip(block, scores, strict=True):
                rated = np.array(rated or [], "i4")
                at = np.searchsorted(ids, rated).clip(max=n_items - 1)
                score[at[ids[at] == rated]] = -np.inf
                # n chunks have a best score of at least this, so n items have one.
                best = score.reshape(-1, chunk).max(axis=1)
                least = np.partition(best, -n)[-n] if len(best) >= n else -np.inf
                found = np.flatnonzero((score >= least) & (score > -np.inf))
                found = found[np.argsort(-score[found], kind="stable")[:n]]
                for place, it in enumerate(found.tolist(), 1):
                    yield user, int(ids[it]), float(score[it]), place

    rated = seen.groupBy("user").agg(sf.collect_list("item").alias("rated"))
    rows = model.userFactors.withColumnRenamed("id", "user").join(users, "user")
    rows = rows.join(rated, "user", "left").select("user", "features", "rated")
    ranked = rows.repartition(4 * context.defaultParallelism).rdd.mapPartitions(rank)
    schema = "user int, item int, score float, rank int"
    return users.sparkSession.createDataFrame(ranked, schema, verifySchema=False)


def rank_with_spark(model, users, seen, n, keep):
    """Let Spark make lists long enough for what is left out of them.

    Among items of equal score Spark chooses which are still in a list that it cuts.
    As a few users have rated very much, users are taken in groups, each with lists up
    to twice as long as those of the last.
    """
    rated = users.join(seen.groupBy("user").count(), "user", "left").na.fill(
        0, ["count"]
    )
    level = sf.ceil(sf.log2(sf.greatest(sf.col("count") / n, sf.lit(1.0))))
    rated = keep(rated.withColumn("level", level))
    groups = rated.groupBy("level").agg(sf.max("count")).collect()
    lists = [
        model.recommendForUserSubset(rated.where(sf.col("level") == level), n + longest)
        for level, longest in sorted(groups)
    ]
    scored = reduce(DataFrame.union, lists).select("user", sf.inline("recommendations"))
    scored = scored.withColumnRenamed("rating", "score")
    scored = scored.join(seen, ["user", "item"], "anti")
    by_score = Window.partitionBy("user").orderBy(sf.desc("score"), "item")
    ranked = scored.withColumn("rank", sf.row_number().over(by_score))
    return ranked.where(sf.col("rank") <= n)


def rank_popular(users, ratings, seen, n):
    """Find the most popular items that users have not seen."""
    counts = ratings.groupBy("item").count().sort(sf.desc("count"), "item")
    order = add_place(counts, "place").select("item", "place")
    # So many places from the top hold n items that the user has not seen.
    n_seen = seen.groupBy("user").agg((sf.count("*") + n).alias("depth"))
    depth = sf.coalesce("depth", sf.lit(n).cast("bigint"))
    near = users.join(n_seen, "user", "left").select(
        "user",
        sf.explode(sf.sequence(sf.lit(0).cast("bigint"), depth - 1)).alias("place"),
    )
    left = near.join(order, "place").join(seen, ["user", "item"], "anti")
    by_place = Window.partitionBy("user").orderBy("place")
    ranked = left.withColumn("rank", sf.row_number().over(by_place))
    return ranked.where(sf.col("rank") <= n).select("user", "item", "rank")


def fill_up(best, both, users, items, args):
    """Fill lists that are too short with the most popular items, and name all ids.

    ``source`` is als, or popular, and then the score is null.
    """
    have = best.groupBy("user").agg(sf.count("*").cast("int").alias("have"))
    short = both.select("user").distinct().join(have, "user", "left")
    short = short.na.fill(0, ["have"]).where(sf.col("have") < args.top_n)
    seen = both.select("user", "item").union(best.select("user", "item"))
    seen = seen.join(short, "user", "semi")
    more = rank_popular(short.select("user"), likes(both, args), seen, args.top_n)
    more = more.join(short, "user").withColumn("rank", sf.col("rank") + sf.col("have"))
    more = more.where(sf.col("rank") <= args.top_n)
    columns = ["user", "item", "rank", "score", "source"]
    best = best.withColumn("source", sf.lit("als")).select(columns)
    more = more.withColumns(
        {"score": sf.lit(None).cast("float"), "source": sf.lit("popular")}
    )
    named = best.union(more.select(columns)).join(users, "user").join(items, "item")
    return named.select("user_id", "item_id", *columns[2:])


def describe(lists, counts, args, before=None):
    """Describe the lists that are published."""
    is_als = sf.col("source") == "als"
    users = lists.groupBy("user_id").agg(
        sf.count("*").alias("n"), sf.count_if(is_als).alias("als")
    )
    found = users.agg(
        sf.count_if(sf.col("n") >= args.top_n).alias("full"),
        sf.count_if(sf.col("als") == 0).alias("popular"),
    ).head()
    shown = lists.select("item_id").distinct().count()
    told = {
        "refitted": not args.no_refit,
        "full_lists": found["full"] / counts["users"],
        "popular_only": found["popular"] / counts["users"],
        "coverage": shown / counts["items"],
    }
    if before is not None:
        pair = ["user_id", "item_id"]
        again = before.select(pair).withColumn("again", sf.lit(1))
        rows = lists.join(before.select("user_id"), "user_id", "semi")
        rows = rows.join(again, pair, "left").groupBy("user_id")
        rows = rows.agg((sf.count("again") / sf.count("*")).alias("share"))
        told["overlap"] = rows.agg(
            sf.count("*").alias("users"), sf.avg("share").alias("mean")
        ).head().asDict()  # fmt: skip
    return told


# -- the run -------------------------------------------------------------------------


def wanted_result(spark, args):
    """Collect what decides the result: arguments, and the length of the ratings."""
    arguments = {name: value for name, value in vars(args).items() if name not in FREE}
    if args.table:
        plan = spark.table(args.table)._jdf.queryExecution().optimizedPlan()
        return {"arguments": arguments, "bytes": int(str(plan.stats().sizeInBytes()))}
    place = Folder(spark, find(spark, args.ratings))
    arguments["ratings"] = place.path
    return {"arguments": arguments, "bytes": place.length()}


def check_same(folder, wanted):
    """Refuse to go on with work for other arguments or other ratings."""
    before = folder.read_json("run.json")
    old, new = before["arguments"], wanted["arguments"]
    changed = [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if before["bytes"] != wanted["bytes"]:
        changed.append(
            f"the ratings had {before['bytes']} bytes, have {wanted['bytes']}"
        )
    if changed:
        raise JobError(
            f"cannot resume {folder.path}, because {'; '.join(changed)}; give the "
            "arguments of the first run, or choose another --output"
        )


def is_complete(work, args):
    """Tell whether the output is complete already.

    What is there and cannot be gone on with, or without ``--resume``, is a `JobError`.
    """
    there = [folder for folder in (work.output, work, work.plan) if folder.exists()]
    if there and not args.resume:
        raise JobError(
            f"{there[0].path} is there already; choose another --output, delete it, or "
            "use --resume if it is from an interrupted run with the same arguments"
        )
    begun = [folder for folder in there if folder.read_json("run.json")]
    if there and not begun:
        raise JobError(
            f"{there[0].path} has no run.json, so there is nothing to go on with; "
            "delete it, or choose another --output"
        )
    if begun:
        check_same(begun[0], wanted_result(work.spark, args))
    if work.plan.exists() or not work.output.exists():
        return False
    if not work.is_published():
        raise JobError(
            f"{work.output.path} lacks files that its _SUCCESS counts; delete it, "
            "or choose another --output"
        )
    return True


def begin(work, args):
    """Check the input, choose what the cluster decides, and write down both."""
    spark, wanted = work.spark, wanted_result(work.spark, args)
    for name in ("users", "items", "recommendations"):
        work.old(name)
    _, rows, newest = checked_input(spark, args)
    if newest is None and args.repeats == "latest":
        say("no times, so of repeated ratings the highest counts")
    if args.lists == "numpy":
        check_executors(spark)
    slots = spark.sparkContext.defaultParallelism
    blocks = args.blocks or 2 * slots
    if blocks % slots:
        say(f"{blocks} blocks leave some of {slots} task slots idle; give a multiple")
    work.write_json(
        "run.json", wanted | {"rows": rows, "newest": newest, "blocks": blocks}
    )


def check_executors(spark):
    """See that an executor runs Python with NumPy, before hours have passed."""

    def version(_):
        return np.__version__

    try:
        spark.sparkContext.parallelize([0], 1).map(version).collect()
    except (Py4JJavaError, PySparkException) as error:
        raise JobError(
            f"the executors do not run Python with NumPy: {reason(error)}; give them "
            "one (PYSPARK_PYTHON, --archives), or say --lists spark"
        ) from error


def run(spark, args):
    """Do all stages that are not done, then give the output its name."""
    if not hasattr(spark, "_jsc"):
        raise JobError("this needs classic Spark, not Spark Connect: use spark-submit")
    work = Work(spark, args)
    with only_run(Folder(spark, f"{work.output.path}.lock")):
        if is_complete(work, args):
            say(f"{args.output} is complete already")
            return
        if not work.plan.read_json("files"):
            if not work.exists("run.json"):
                begin(work, args)
            known = work.read_json("run.json")
            args.blocks, work.newest = known["blocks"], known["newest"]
            make_all(work, args)
        work.publish()
        say(f"{args.output} is complete")


def start_spark(args):
    """Start Spark, or take the session that spark-submit has configured."""
    builder, settings = SparkSession.builder.appName("train_als"), SETTINGS
    if "SPARK_REMOTE" in os.environ:
        raise JobError(
            "this needs classic Spark, not Spark Connect: unset SPARK_REMOTE"
        )
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        master = args.master or os.environ.get("SPARK_MASTER") or "local[2]"
        builder = builder.master(master)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            settings = LOCAL | SETTINGS
    elif args.master:
        raise JobError("give --master to spark-submit, before the name of this file")
    try:
        given = SparkConf()
        unset = {name: it for name, it in settings.items() if not given.contains(name)}
        spark = builder.config(map=unset).getOrCreate()
    except PySparkRuntimeError as error:
        raise JobError(
            f"Spark does not start: {reason(error)}; it needs Java 17 or newer, "
            "at JAVA_HOME or on the PATH"
        ) from error
    if [int(part) for part in spark.version.split(".")[:2]] < [3, 5]:
        raise JobError(f"this needs Spark 3.5 or newer, here is {spark.version}")
    return spark


def main(argv=None, spark=None):
    """Run the program."""
    args = parse_arguments(argv)
    own = None
    try:
        own = None if spark else start_spark(args)
        run(spark or own, args)
    except (JobError, NotBetterError) as error:
        print(f"train_als.py: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, JobError) else 3
    finally:
        if own:
            own.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train ALS on a file of ratings, measure it against baselines, save what it learnt.

    python train_als.py --ratings ratings.csv --output result
    spark-submit --master ... train_als.py --ratings ... --output ...

One file that needs PySpark 4.2 or newer, and NumPy where its driver runs; executors run
no Python. ``spark-submit`` takes the file as it is, whatever the cluster.
Paths are what Spark understands (a local file, file:, hdfs:, s3a:). On a cluster of
several machines all of them must see the ratings, the output and the checkpoints.

The output folder appears under its name when everything in it is complete:

===================  =================================================================
``report.json``      counts, errors and ranking scores beside their baselines
``users, items``     Parquet: every id, as text, and the number that stands for it
``split``            Parquet: the ratings with numbers, ``part=train`` and ``part=test``
``model``            what ``ALSModel.load`` reads
``recommendations``  Parquet: the best items of each user, without those rated already
===================  =================================================================

Until then the work lies beside it, in ``OUTPUT.part``, with a folder for each finished
stage; ``--resume`` goes on from there. Each ends with a rename, which happens at once
on a local disk and on HDFS; an object store such as S3 copies file by file.

Exit status: 0, done; 2, the arguments, the ratings or the output folder are not right
and the message says what to do; anything else, Spark or a machine failed.
"""

import argparse
import json
import math
import os
import sys
import time
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import NumericType, StringType, StructField, StructType

EXTENSIONS = {
    ".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"
}  # fmt: skip
COMPRESSED = (".gz", ".bz2", ".zst")
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
UNREADABLE = "_unreadable"  # where Spark keeps a line that it cannot parse
SHOWN = 300  # characters of a row in an error
DAMPING = 5.0  # of the biases, in ratings; the same as in als_course.baselines
SHARES = 2**53  # so many different shares a hash can become; a double holds them
# For one machine without spark-submit: few tasks, and few lines but ours.
LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
FREE = {"output", "resume", "master", "checkpoint_dir"}  # do not change the result


class JobError(Exception):
    """What the user can put right; the text says what, where, and what to do."""


# -- the command line ----------------------------------------------------------------


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        plain = action.default is None or action.default is False
        return action.help if plain else super()._get_help_string(action)


def parse_arguments(argv=None):
    """Read the command line.

    Parameters
    ----------
    argv : list of str, optional
        Without the program's name; by default that of the process.

    Returns
    -------
    argparse.Namespace

    Raises
    ------
    SystemExit
        With status 2 if an argument is missing or out of range.
    """
    parser = argparse.ArgumentParser(
        prog="train_als.py",
        description=__doc__.splitlines()[0],
        epilog="Where a user rated an item several times, the latest rating counts.",
        formatter_class=_Help,
    )
    add = parser.add_argument
    add("--ratings", required=True, metavar="PATH", help="file, folder or pattern")
    add("--output", required=True, metavar="DIR", help="folder that is to be made")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--master", help="without spark-submit: default $SPARK_MASTER or local[2]")

    add = parser.add_argument_group("the ratings").add_argument
    formats = sorted(set(EXTENSIONS.values()))
    add("--format", choices=formats, help="default: by extension; json is JSON lines")
    add("--user-col", default="user_id", metavar="NAME", help="text or whole numbers")
    add("--item-col", default="item_id", metavar="NAME", help="text or whole numbers")
    add("--rating-col", default="rating", metavar="NAME", help="numbers")
    add("--time-col", default="timestamp", metavar="NAME", help="numbers such as Unix "
        "seconds; may be missing with --split hash")  # fmt: skip

    add = parser.add_argument_group("what is held back for testing").add_argument
    add("--split", choices=["time", "hash"], default="time", help="the last ratings "
        "by the clock, or those that a hash of user and item picks")  # fmt: skip
    add(
        "--test-share", type=_share, default=0.2, metavar="SHARE", help="of all ratings"
    )
    _add_model_arguments(parser.add_argument_group("the model").add_argument)

    args = parser.parse_args(argv)
    columns = [args.user_col, args.item_col, args.rating_col, args.time_col]
    if len(set(columns)) < len(columns):
        parser.error(f"two columns have the same name: {', '.join(columns)}")
    return args


def _add_model_arguments(add):
    add("--rank", type=_count, default=10, metavar="K", help="number of factors")
    add("--max-iter", type=_count, default=10, metavar="N", help="number of sweeps")
    add("--reg-param", type=_amount, default=0.1, metavar="LAMBDA",
        help="times the number of ratings of each user or item")  # fmt: skip
    add("--implicit", action="store_true", help="a rating is a sign, not a number of "
        "stars; its errors are not reported then")  # fmt: skip
    add("--alpha", type=_amount, default=1.0, help="with --implicit: confidence is "
        "1 + alpha x rating")  # fmt: skip
    add("--nonnegative", action="store_true", help="no factor below 0")
    add("--blocks", type=_count, default=10, metavar="N", help="of users and of items; "
        "part of the result, as the first guess is drawn block by block")  # fmt: skip
    add("--seed", type=int, default=0, help="of the first guess and of --split hash")
    add("--top-n", type=_count, default=10, metavar="N", help="items for each user")
    add("--checkpoint-dir", metavar="DIR", help="default: within DIR.part")
    add("--checkpoint-interval", type=_count, default=5, metavar="N", help="sweeps "
        "between checkpoints; a lost machine costs the sweeps since")  # fmt: skip


def _count(text):
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _amount(text):
    if not 0 <= _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
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


# -- files ---------------------------------------------------------------------------


class Folder:
    """A folder on any file system that Spark knows, through Hadoop's FileSystem.

    Parameters
    ----------
    spark : SparkSession
    path : str

    Attributes
    ----------
    path : str
        With its scheme, such as ``file:/data`` or ``hdfs://host/data``.

    Raises
    ------
    JobError
        If the path makes no sense or its file system is unknown or out of reach.
    """

    def __init__(self, spark, path):
        self._spark = spark
        self._as_path = spark._jvm.org.apache.hadoop.fs.Path
        try:
            place = self._as_path(path)
            self._files = place.getFileSystem(spark._jsc.hadoopConfiguration())
            self.path = self._files.makeQualified(place).toString()
        except Py4JJavaError as error:
            raise JobError(
                f"cannot use the path {path}: {first_line(error)}"
            ) from error

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
        # Hadoop would move a folder into one that is there.
        if self._files.exists(there) or not self._files.rename(
            self._as_path(self.of(name)), there
        ):
            raise JobError(
                f"cannot rename {self.of(name)} to {target}; look whether something "
                "is there, or whether you may write there, and use --resume"
            )

    def write_json(self, name, content):
        """Write a dict to a file, which has its name when it is complete."""
        stream = self._files.create(self._as_path(self.of(name + ".tmp")), True)
        stream.write(bytearray(json.dumps(content, indent=2) + "\n", "utf-8"))
        stream.close()
        self.rename(name + ".tmp", self.of(name))

    def read_json(self, name):
        """Read a dict that `write_json` wrote."""
        return json.loads(
            self._spark.read.text(self.of(name), wholetext=True).head()[0]
        )

    def make(self, name, write):
        """Let ``write(path)`` make a part, unless an earlier run finished it."""
        if self.exists(name):
            say(f"{name}: taken from the earlier run")
            return
        start = time.perf_counter()
        say(f"{name}: started")
        self.delete(name + ".tmp")
        write(self.of(name + ".tmp"))
        self.rename(name + ".tmp", self.of(name))
        say(f"{name}: done in {time.perf_counter() - start:.1f} s")


def size_of(spark, pattern):
    """Bytes in all files that match a path, with or without ``*``.

    Raises
    ------
    JobError
        If there is no such file.
    """
    place = Folder(spark, pattern)
    found = place._files.globStatus(place._as_path(pattern))
    if not found:
        raise JobError(f"there is no {place.path}; look at --ratings")
    sizes = [place._files.getContentSummary(each.getPath()) for each in found]
    return sum(size.getLength() for size in sizes)


def say(text):
    """Tell on standard error how far the program is."""
    print(f"train_als: {text}", file=sys.stderr, flush=True)


def first_line(error):
    """Take the message of a Spark or Java error, without its stack trace."""
    java = getattr(error, "java_exception", None)
    return (java.toString() if java else str(error)).strip().splitlines()[0]


# -- reading and checking --------------------------------------------------------------


def read_ratings(spark, args):
    """Read the columns as they are in the file.

    Parameters
    ----------
    spark : SparkSession
    args : argparse.Namespace

    Returns
    -------
    DataFrame
        Columns ``user_id``, ``item_id``, ``rating``, ``time`` and `UNREADABLE`. All
        are text, except from Parquet. A column that the file lacks is null.

    Raises
    ------
    JobError
        If the format is unknown, a column is missing or of a type that cannot be used.
    """
    kind = args.format or format_of(args.ratings)
    columns = {
        args.user_col: "user_id", args.item_col: "item_id",
        args.rating_col: "rating", args.time_col: "time",
    }  # fmt: skip
    reader = spark.read.option("columnNameOfCorruptRecord", UNREADABLE)
    if kind == "parquet":
        found = reader.parquet(args.ratings)
    elif kind == "json":
        found = reader.schema(text_schema(columns)).json(args.ratings)
    else:
        # The default escape is a backslash; what spreadsheets and pandas write is "".
        reader = reader.options(header=True, escape='"', enforceSchema=False)
        header = reader.csv(args.ratings).columns
        found = reader.schema(text_schema(header)).csv(args.ratings)
    for column, name in columns.items():
        if column not in found.columns and not (
            name == "time" and args.split == "hash"
        ):
            raise missing_column(args, name, f"they have {found.columns}")
        if column in found.columns:
            check_type(found.schema[column], name)
    columns[UNREADABLE] = UNREADABLE
    return found.select(
        *(
            (sf.col(f"`{column}`") if column in found.columns else sf.lit(None)).alias(
                name
            )
            for column, name in columns.items()
        )
    )


def format_of(path):
    """Tell the format by the extension, be the file compressed or not."""
    stem, extension = os.path.splitext(path.rstrip("/"))
    if extension in COMPRESSED:
        extension = os.path.splitext(stem)[1]
    if extension.lower() not in EXTENSIONS:
        raise JobError(
            f"{path} has none of the extensions {', '.join(EXTENSIONS)}; "
            "say with --format what it is"
        )
    return EXTENSIONS[extension.lower()]


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
    hint = ", or choose --split hash, which needs no time" if name == "time" else ""
    return JobError(
        f"the ratings have no {column_of(args, name)!r}: {found}; say with {option} "
        f"what it is called{hint}"
    )


def check_type(field, name):
    """Refuse a column of Parquet whose type cannot be an id, a rating or a time."""
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


def as_number(ratings, name):
    """Make a double of a column, null where it is no finite number."""
    kind = dict(ratings.dtypes)[name]
    number = sf.col(name)
    if kind.startswith(("timestamp", "date")):
        return sf.unix_micros(number.cast("timestamp")).cast("double")
    if kind == "string":
        number = sf.when(number.rlike(NUMBER), number)
    number = number.cast("double")
    return sf.when(sf.abs(number) < math.inf, number)


def check_ratings(raw, args):
    """Look at every row once, and refuse the ratings if one is not right.

    Parameters
    ----------
    raw : DataFrame
        From `read_ratings`.
    args : argparse.Namespace

    Returns
    -------
    rows : int
    timed : bool
        Whether there are times.

    Raises
    ------
    JobError
        That names the fault, in how many rows it is, and one of them.
    """
    bad = {
        UNREADABLE: sf.col(UNREADABLE).isNotNull(),
        "user_id": sf.coalesce(sf.col("user_id").cast("string"), sf.lit("")) == "",
        "item_id": sf.coalesce(sf.col("item_id").cast("string"), sf.lit("")) == "",
        "rating": as_number(raw, "rating").isNull(),
        "time": as_number(raw, "time").isNull(),
    }
    named = [sf.col(name).alias(column_of(args, name)) for name in list(bad)[1:]]
    shown = sf.to_json(sf.struct(*named), {"ignoreNullFields": "false"})
    shown = sf.coalesce(sf.col(UNREADABLE), shown)
    seen = raw.agg(
        sf.count("*").alias("rows"),
        *(sf.count(name).alias(f"{name}_there") for name in raw.columns),
        *(sf.count_if(fault).alias(f"{name}_bad") for name, fault in bad.items()),
        *(sf.min(sf.when(fault, shown)).alias(f"{name}_row")
          for name, fault in bad.items()),
    ).head().asDict()  # fmt: skip
    if not seen["rows"]:
        raise JobError(f"there is no rating in {args.ratings}; look at --ratings")
    timed = seen["time_there"] > 0
    for name in bad:
        if name == "time" and not timed and args.split == "hash":
            continue
        if name != UNREADABLE and not seen[f"{name}_there"]:
            # Only JSON comes here without the column: it has no header to look into.
            first = raw.sparkSession.read.text(args.ratings).head()[0][:SHOWN]
            raise missing_column(args, name, f"the first row is {first}")
        if seen[f"{name}_bad"]:
            raise faulty(args, name, seen)
    return seen["rows"], timed


def faulty(args, name, seen):
    """Make the error for a fault that some rows have."""
    column = "" if name == UNREADABLE else column_of(args, name)
    what, to_do = {
        UNREADABLE: ("cannot be parsed", "mend or delete them; CSV may not have line "
                     "breaks within quotes, write JSON lines or Parquet then"),
        "user_id": (f"have no user id in {column!r}", "drop them, or fill it in"),
        "item_id": (f"have no item id in {column!r}", "drop them, or fill it in"),
        "rating": (f"have no number in {column!r}", "convert or drop them"),
        "time": (f"have no number in {column!r}", "give Unix seconds, for example"),
    }[name]  # fmt: skip
    return JobError(
        f"{seen[f'{name}_bad']:,} of {seen['rows']:,} rows {what}, for example "
        f"{seen[f'{name}_row'][:SHOWN]}; {to_do}"
    )


# -- the stages ------------------------------------------------------------------------


def clean(raw):
    """Turn checked rows into one rating a user and item.

    Parameters
    ----------
    raw : DataFrame
        From `read_ratings`.

    Returns
    -------
    DataFrame
        ``user_id``, ``item_id`` (text), ``rating``, ``time`` (double). Of repeated
        ratings the latest is left; of those of one time, the highest.
    """
    text = [sf.col(name).cast("string").alias(name) for name in ("user_id", "item_id")]
    numbers = [as_number(raw, name).alias(name) for name in ("time", "rating")]
    last = sf.max(sf.struct("time", "rating")).alias("last")
    rows = raw.select(*text, *numbers).groupBy("user_id", "item_id").agg(last)
    return rows.select("user_id", "item_id", "last.rating", "last.time")


def number_ids(ratings, kind):
    """Give each id a number from 0, in order of length, then of text.

    The order puts 9 before 10, so ids that are numbers keep their order, and does not
    depend on how the rows are distributed. It costs one sort of the ids, spread over
    the executors; Spark's StringIndexer collects all ids in the driver instead.

    Parameters
    ----------
    ratings : DataFrame
        With the column ``user_id`` or ``item_id``.
    kind : {"user", "item"}

    Returns
    -------
    DataFrame
        Columns `kind`, an int, and the id.
        Spark's ALS takes 2,147,483,647 ids; with more, Spark fails on the overflow.
    """
    name = f"{kind}_id"
    ids = ratings.select(name).distinct().sort(sf.length(name), name)
    return ids.zipWithIndex("number").select(
        sf.col("number").cast("int").alias(kind), name
    )


def split_ratings(ratings, how, share, seed):
    """Tell each rating whether it is for training or for testing.

    Parameters
    ----------
    ratings : DataFrame
        Columns ``user``, ``item``, ``user_id``, ``item_id``, ``rating``, ``time``.
    how : {"time", "hash"}
        ``time`` holds back the last ``ceil(share * n)`` ratings in the order of time,
        user and item, as ``als_course.splits.global_time_split`` does; it costs one
        sort. ``hash`` holds back a rating if a hash of its ids and the seed says so,
        whatever other ratings there are. It costs nothing, and the test part is `share`
        of the ratings give or take chance.
    share : float
    seed : int
        Used by ``hash``.

    Returns
    -------
    DataFrame
        Columns ``user``, ``item``, ``rating``, ``time`` and ``part``.
    """
    if how == "hash":
        hashed = sf.xxhash64("user_id", "item_id", sf.lit(seed).cast("bigint"))
        is_test = sf.pmod(hashed, sf.lit(SHARES)) < share * SHARES
    else:
        n_ratings = ratings.count()
        ratings = ratings.sort("time", "user", "item").zipWithIndex("place")
        is_test = sf.col("place") >= n_ratings - math.ceil(share * n_ratings)
    part = sf.when(is_test, "test").otherwise("train").alias("part")
    return ratings.select("user", "item", "rating", "time", part)


def train(ratings, args):
    """Fit ALS.

    Parameters
    ----------
    ratings : DataFrame
        Columns ``user``, ``item`` and ``rating``.
    args : argparse.Namespace

    Returns
    -------
    ALSModel
        That predicts nan for users and items without factors.
    """
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
    return als.fit(ratings.select("user", "item", sf.col("rating").cast("float")))


def add_baselines(test, ratings):
    """Predict the test ratings by the mean, and by damped biases of items and users.

    Parameters
    ----------
    test, ratings : DataFrame
        Columns ``user``, ``item`` and ``rating``; learnt is from `ratings` only.

    Returns
    -------
    DataFrame
        The test ratings with the columns ``global_mean`` and ``biases``. The biases are
        those of ``als_course.baselines.DampedBiases``; unknown ones are 0.
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


def measure_errors(model, test, ratings, implicit):
    """Root mean squared errors of the baselines and of ALS on the test ratings.

    Parameters
    ----------
    model : ALSModel
    test, ratings : DataFrame
        Columns ``user``, ``item`` and ``rating``.
    implicit : bool
        Whether the model predicts preferences, which have no error in ratings.

    Returns
    -------
    dict
        ``test_not_scored`` counts the test ratings of users or items that training
        never saw, for which ALS has no factors. ``rmse`` gives, for each model,
        ``all``, over all test ratings, and ``scored``, over those that ALS can score.
        For ``all``, ALS is helped out by the biases where it has nothing to say.
    """
    rows = model.transform(add_baselines(test, ratings))
    scored = ~sf.isnan("prediction")
    predicted = {
        "global_mean": sf.col("global_mean"),
        "biases": sf.col("biases"),
        "als": sf.when(scored, sf.col("prediction")).otherwise(sf.col("biases")),
    }

    def rmse(prediction):
        return sf.sqrt(sf.avg(sf.pow(sf.col("rating") - prediction, 2)))

    found = rows.agg(
        sf.count_if(~scored).alias("test_not_scored"),
        *(rmse(it).alias(f"{name} all") for name, it in predicted.items()),
        *(rmse(sf.when(scored, it)).alias(f"{name} scored")
          for name, it in predicted.items()),
    ).head()  # fmt: skip
    table = {
        name: {over: found[f"{name} {over}"] for over in ("all", "scored")}
        for name in predicted
    }
    if implicit:
        table["als"] = None
    return {"test_not_scored": found["test_not_scored"], "rmse": table}


def rank_items(model, ratings, n):
    """Find the best items of each user that has factors.

    Spark's lists hold what a user has rated already, so each list is asked for longer,
    by as many as he or she has rated. As a few users have rated very much, users are
    taken in groups, each with lists up to four times as long as those of the last.

    Parameters
    ----------
    model : ALSModel
    ratings : DataFrame
        Columns ``user``, ``item`` and ``part``.
    n : int

    Returns
    -------
    DataFrame
        Columns ``user``, ``item``, ``score``, and two ranks from 1, highest score
        first, then lowest item number. ``place`` leaves out the items rated in
        training, ``rank`` those of the test part too. The rows have a ``rank`` of at
        most `n`, or are test ratings, with no ``rank`` and a ``place`` of at most `n`.
    """
    level = sf.ceil(sf.log(4.0, sf.greatest(sf.col("count") / n, sf.lit(1.0))))
    rated = ratings.groupBy("user").count().withColumn("level", level)
    groups = rated.groupBy("level").agg(sf.max("count")).collect()
    lists = [
        model.recommendForUserSubset(rated.where(sf.col("level") == level), n + longest)
        for level, longest in sorted(groups)
    ]
    scored = reduce(DataFrame.union, lists).select("user", sf.inline("recommendations"))
    scored = scored.withColumnRenamed("rating", "score")
    known = ratings.select("user", "item", "part")
    scored = scored.join(known, ["user", "item"], "left").where(
        sf.coalesce("part", sf.lit("new")) != "train"
    )
    by_score = Window.partitionBy("user").orderBy(sf.desc("score"), "item")
    so_far = by_score.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    place = sf.row_number().over(by_score)
    ranked = scored.withColumn("place", place).withColumn(
        "rank", sf.when(sf.col("part").isNull(), place - sf.count("part").over(so_far))
    )
    wanted = (
        sf.when(sf.col("part").isNull(), sf.col("rank")).otherwise(sf.col("place")) <= n
    )
    return ranked.where(wanted).select("user", "item", "score", "place", "rank")


def rank_popular(ratings, test, n):
    """Find the test ratings that the most popular items would have hit.

    Parameters
    ----------
    ratings, test : DataFrame
        Columns ``user`` and ``item``. Popular is what `ratings` has most often.
    n : int

    Returns
    -------
    DataFrame
        Columns ``user`` and ``item``: rows of `test` among the `n` most popular items
        that are not in the user's `ratings`.
    """
    counts = ratings.groupBy("item").count()
    order = counts.sort(sf.desc("count"), "item").zipWithIndex("place")
    order = order.select("item", "place")
    n_seen = ratings.groupBy("user").agg(sf.count("*").alias("n_seen"))
    # An item moves up one place for each more popular one that the user has seen.
    near = test.select("user", "item").join(order, "item").join(n_seen, "user")
    near = near.where(sf.col("place") < n + sf.col("n_seen"))
    seen = ratings.join(order, "item").select(
        "user", sf.col("place").alias("seen_place")
    )
    ahead = sf.count_if(sf.col("seen_place") < sf.col("place"))
    moved = near.join(seen, "user").groupBy("user", "item", "place")
    moved = moved.agg(ahead.alias("ahead"))
    return moved.where(sf.col("place") - sf.col("ahead") < n).select("user", "item")


def measure_ranking(ranked, ratings, test, n):
    """Precision and recall of the lists of ALS and of the most popular items.

    Parameters
    ----------
    ranked : DataFrame
        From `rank_items`.
    ratings, test : DataFrame
        Columns ``user`` and ``item``.
    n : int
        Length of the lists, which leave out the user's `ratings`.

    Returns
    -------
    dict
        Means over the users who are in both parts. Every test rating counts as a hit,
        a low one too; definitions as in ``als_course.metrics``.
    """
    hits = {
        "most_popular": rank_popular(ratings, test, n),
        "als": ranked.where(sf.col("rank").isNull()).select("user", "item"),
    }
    rows = test.join(ratings.select("user").distinct(), "user", "semi")
    for name, hit in hits.items():
        rows = rows.join(hit.withColumn(name, sf.lit(1)), ["user", "item"], "left")
    n_hits = [sf.count(name).alias(name) for name in hits]
    users = rows.groupBy("user").agg(sf.count("*").alias("relevant"), *n_hits)
    found = users.agg(
        sf.count("*").alias("users"),
        *(sf.avg(sf.col(name) / n).alias(f"{name} precision") for name in hits),
        *(sf.avg(sf.col(name) / sf.col("relevant")).alias(f"{name} recall")
          for name in hits),
    ).head()  # fmt: skip
    table = {
        name: {score: found[f"{name} {score}"] for score in ("precision", "recall")}
        for name in hits
    }
    return {"at": n, "users": found["users"], **table}


# -- the run -------------------------------------------------------------------------


def open_work(spark, args):
    """Open the folder of the unfinished work, or find that all is done.

    Returns
    -------
    Folder or None
        None if the output is complete already.

    Raises
    ------
    JobError
        If something is there and ``--resume`` is not given or cannot go on with it.
    """
    output = Folder(spark, args.output.rstrip("/"))
    work = Folder(spark, output.path + ".part")
    there = next((folder for folder in (output, work) if folder.exists()), None)
    if there and not args.resume:
        raise JobError(
            f"{there.path} is there already; choose another --output, delete it, or "
            "use --resume if it is from an interrupted run with the same arguments"
        )
    if there and there.exists("run.json"):
        check_same(there, wanted_result(spark, args))
    elif there:
        raise JobError(
            f"{there.path} has no run.json, so there is nothing in it to go on with; "
            "delete it, or choose another --output"
        )
    return None if there is output else work


def wanted_result(spark, args):
    """Collect what decides the result: arguments, and the length of the ratings."""
    arguments = {name: value for name, value in vars(args).items() if name not in FREE}
    arguments["ratings"] = Folder(spark, args.ratings).path
    return {"arguments": arguments, "bytes": size_of(spark, args.ratings)}


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


def begin(spark, args, work):
    """Check the ratings, and write down what the run is for."""
    wanted = wanted_result(spark, args)
    try:
        raw = read_ratings(spark, args)
        rows, timed = check_ratings(raw, args)
    except (PySparkException, Py4JJavaError) as error:
        raise JobError(
            f"cannot read {args.ratings}: {first_line(error)}; look at --format"
        ) from error
    if not timed:
        say("no times, so of repeated ratings the highest counts")
    work.write_json("run.json", wanted | {"rows": rows})


def run(spark, args):
    """Do all stages that are not done, then give the output its name.

    Parameters
    ----------
    spark : SparkSession
    args : argparse.Namespace
        From `parse_arguments`.

    Raises
    ------
    JobError
        If the arguments, the ratings or the output folder are not right.
    """
    work = open_work(spark, args)
    if work is None:
        say(f"{args.output} is complete already")
        return
    if not work.exists():
        begin(spark, args, work)
    if not work.exists("report.json"):
        checkpoints = args.checkpoint_dir or work.of("_work/checkpoints")
        spark.sparkContext.setCheckpointDir(checkpoints)
        make_all(spark, args, work)
    work.delete("_work")
    work.rename("", work.path.removesuffix(".part"))
    say(f"{args.output} is complete")


def make_all(spark, args, work):
    """Make every part of the output that is not there yet; the report is the last."""

    def table(name):
        return spark.read.parquet(work.of(name))

    def save(name, make, *partitions):
        work.make(
            name, lambda path: make().write.partitionBy(*partitions).parquet(path)
        )

    save("_work/ratings", lambda: clean(read_ratings(spark, args)))
    ratings = table("_work/ratings")
    save("users", lambda: number_ids(ratings, "user"))
    save("items", lambda: number_ids(ratings, "item"))
    numbered = ratings.join(table("users"), "user_id").join(table("items"), "item_id")
    rule = (args.split, args.test_share, args.seed)
    save("split", lambda: split_ratings(numbered, *rule), "part")
    both = table("split")
    training, test = (both.where(sf.col("part") == part) for part in ("train", "test"))
    parts = dict(both.groupBy("part").count().collect())
    counts = {
        "rows": work.read_json("run.json")["rows"],
        "ratings": sum(parts.values()),
    }
    counts |= {kind: table(kind).count() for kind in ("users", "items")}
    counts |= {part: parts.get(part, 0) for part in ("train", "test")}
    if not (counts["train"] and counts["test"]):
        work.delete()
        raise JobError(
            f"of {counts['ratings']} ratings, {counts['train']} are for training and "
            f"{counts['test']} for testing; change --test-share or give more ratings"
        )

    work.make("model", lambda path: train(training, args).save(path))
    model = ALSModel.load(work.of("model"))
    save("_work/ranked", lambda: rank_items(model, both, args.top_n))
    ranked = table("_work/ranked")
    save("recommendations", lambda: with_ids(ranked, table("users"), table("items")))
    report = {"spark": spark.version, "counts": counts}
    report |= measure_errors(model, test, training, args.implicit)
    report["ranking"] = measure_ranking(ranked, training, test, args.top_n)
    report["arguments"] = work.read_json("run.json")["arguments"]
    work.write_json("report.json", report)


def with_ids(ranked, users, items):
    """Keep what was never rated, with the ids of the file instead of numbers."""
    new = ranked.where(sf.col("rank").isNotNull())
    named = new.join(users, "user").join(items, "item")
    return named.select("user_id", "item_id", "rank", "score")


def start_spark(args):
    """Start Spark, or take the session that spark-submit has configured.

    Raises
    ------
    JobError
        If Spark does not start, or ``--master`` is given in the wrong place.
    """
    builder = SparkSession.builder.appName("train_als")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        master = args.master or os.environ.get("SPARK_MASTER") or "local[2]"
        builder = builder.master(master)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            builder = builder.config(map=LOCAL)
    elif args.master:
        raise JobError("give --master to spark-submit, before the name of this file")
    try:
        spark = builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise JobError(
            f"Spark does not start: {first_line(error)}; it needs Java 17 or newer, "
            "at JAVA_HOME or on the PATH"
        ) from error
    if not hasattr(DataFrame, "zipWithIndex"):
        raise JobError(f"this needs Spark 4.2 or newer, here is {spark.version}")
    return spark


def main(argv=None, spark=None):
    """Run the program.

    Parameters
    ----------
    argv : list of str, optional
        As `parse_arguments` takes it.
    spark : SparkSession, optional
        To run in; it is not stopped then.

    Returns
    -------
    int
        The exit status.
    """
    args = parse_arguments(argv)
    own = None
    try:
        own = None if spark else start_spark(args)
        run(spark or own, args)
    except JobError as error:
        print(f"train_als.py: error: {error}", file=sys.stderr)
        return 2
    finally:
        if own:
            own.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

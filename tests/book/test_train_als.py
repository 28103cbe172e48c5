"""The Spark program: equal results from every format, honest numbers, clear errors."""

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from als_course import baselines, metrics, splits
from als_course.spark import SHORT_LIVED, archive_option

PROGRAM = Path(__file__).resolve().parents[2] / "book" / "jobs" / "train_als.py"
BIG = 3_000_000_000_000_000_000  # an id that no double holds exactly
SMALL_MODEL = ["--rank", "3", "--max-iter", "3", "--blocks", "2", "--top-n", "4"]
# A few hundred rows are done before code for them would be compiled.
QUICK = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
}
needs_spark = pytest.mark.skipif(
    os.name == "nt" or not (shutil.which("java") or os.environ.get("JAVA_HOME")),
    reason="Spark writes files on Linux and macOS, with Java 17: install it",
)


def load_program():
    spec = importlib.util.spec_from_file_location("train_als", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train_als = load_program()


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Let every Spark that starts here, the programs' too, be quick on few rows."""
    settings = [f"--conf {name}={value}" for name, value in QUICK.items()]
    java = f"--driver-java-options '{archive_option()} {SHORT_LIVED}'"
    arguments = " ".join([java, *settings, "pyspark-shell"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", arguments)
        yield


@pytest.fixture(scope="module")
def spark(quick):
    asked = ["--ratings", "-", "--output", "-", "--master", "local[2]"]
    session = train_als.start_spark(train_als.parse_arguments(asked))
    for name, value in QUICK.items():
        session.conf.set(name, value)
    yield session
    session.stop()


@pytest.fixture(scope="module")
def ratings():
    """Ratings of 40 users, two of them new, and 25 items, many at equal times."""
    rng = np.random.default_rng(5)
    cells = rng.permutation(40 * 25)[:420]
    users, items = np.divmod(cells, 25)
    return pd.DataFrame(
        {
            "user_id": BIG + users**3,
            "item_id": items * 7 + 1,
            "rating": np.clip(rng.normal(3 + items % 3, 1).round(1), 1, 5),
            "timestamp": 1_000_000_000 + rng.integers(60, size=420) + 60 * (users > 37),
        }
    )


@pytest.fixture(scope="module")
def files(spark, ratings, tmp_path_factory):
    """The same ratings in every format, each with its rows in another order."""
    folder = tmp_path_factory.mktemp("ratings")
    rows = [ratings.sample(frac=1, random_state=seed) for seed in range(6)]
    rows[0].to_csv(folder / "r.csv", index=False)
    rows[1].to_csv(folder / "r.csv.gz", index=False)
    rows[2].to_json(folder / "r.jsonl", orient="records", lines=True)
    as_text = rows[3].astype({"user_id": str, "item_id": str, "rating": str})
    as_text.to_json(folder / "text.json", orient="records", lines=True)
    signed = rows[4].assign(rating=(rows[4].rating - 2).round())
    signed.to_json(folder / "signed.jsonl", orient="records", lines=True)
    spark.read.csv(str(folder / "r.csv"), header=True, inferSchema=True).repartition(
        3
    ).write.parquet(str(folder / "r.parquet"))
    spark.read.json(str(folder / "text.json")).write.parquet(
        str(folder / "text.parquet")
    )
    return folder


class Job:
    """Runs the program in the session of the tests."""

    def __init__(self, spark, capsys, folder):
        self.spark, self.capsys, self.output = spark, capsys, folder / "out"

    def run(self, ratings, *options):
        """The exit status and what went to standard error."""
        argv = ["--ratings", str(ratings), "--output", str(self.output), *options]
        status = train_als.main(argv, self.spark)
        return status, self.capsys.readouterr().err

    def refuse(self, ratings, *options):
        """The error, after looking that it is one line and that nothing is left."""
        before = snapshot(self.output.parent)
        status, err = self.run(ratings, *options)
        lines = [line for line in err.splitlines() if "train_als: " not in line]
        assert status == 2, err
        assert len(lines) == 1, err
        assert lines[0].startswith("train_als.py: error: ")
        assert snapshot(self.output.parent) == before
        return lines[0]


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def job(spark, capsys, tmp_path):
    return Job(spark, capsys, tmp_path)


def table(spark, path):
    """A Parquet table as a DataFrame of pandas, sorted."""
    rows = spark.read.parquet(str(path))
    frame = pd.DataFrame([row.asDict() for row in rows.collect()], columns=rows.columns)
    order = [name for name in frame if not isinstance(frame[name].iloc[0], list)]
    return frame.sort_values(order, ignore_index=True)


class Result:
    """What one run of the program left."""

    def __init__(self, spark, folder):
        self.folder = folder
        self.report = json.loads((folder / "report.json").read_text("utf-8"))
        names = ["users", "items", "split", "recommendations"]
        self.users, self.items, self.split, self.recommendations = (
            table(spark, folder / name) for name in names
        )
        factors = [
            table(spark, folder / "model" / f"{k}Factors") for k in ("user", "item")
        ]
        shape = len(self.users), len(self.items)
        self.user_factors, self.item_factors = (
            self._dense(rows, n) for rows, n in zip(factors, shape, strict=True)
        )
        self.scores = self.user_factors @ self.item_factors.T
        self.shape = shape

    @staticmethod
    def _dense(rows, n):
        """Factors in the order of the numbers; nan where there are none."""
        out = np.full((n, len(rows.features[0])), np.nan)
        out[rows.id] = np.array(rows.features.tolist())
        return out

    def part(self, name):
        """Rows of one part, and the same as a matrix."""
        rows = self.split[self.split.part == name]
        cells = (rows.user.to_numpy(), rows.item.to_numpy())
        return rows, sparse.csr_array((rows.rating.to_numpy(), cells), shape=self.shape)


def finished(spark, folder, ratings, *options):
    """What a run leaves in a folder that is to be made."""
    argv = ["--ratings", str(ratings), "--output", str(folder), *SMALL_MODEL]
    assert train_als.main([*argv, *options], spark) == 0
    return Result(spark, folder)


@pytest.fixture(scope="module")
def result(spark, files, tmp_path_factory):
    return finished(spark, tmp_path_factory.mktemp("result") / "out", files / "r.csv")


@pytest.fixture(scope="module")
def tested(spark, files, tmp_path_factory):
    """The same run, but for the model, which is the one that was tested."""
    folder = tmp_path_factory.mktemp("tested") / "out"
    return finished(spark, folder, files / "r.csv", "--no-refit")


@pytest.fixture(scope="module")
def hashed(spark, files, tmp_path_factory):
    """Another: JSON, some ratings 0 or below, hash split, implicit, lists by Spark."""
    options = ["--split", "hash", "--implicit", "--nonnegative", "--alpha", "3"]
    options += ["--lists", "spark", "--no-refit"]
    folder = tmp_path_factory.mktemp("hashed") / "out"
    return finished(spark, folder, files / "signed.jsonl", *options)


def arguments(ratings, *options):
    return train_als.parse_arguments(
        ["--ratings", str(ratings), "--output", "-", *options]
    )


def cleaned(spark, ratings, *options):
    """The rows that a run would use, sorted."""
    args = arguments(ratings, *options)
    raw, _, newest = train_als.checked_input(spark, args)
    return sorted(map(tuple, train_als.clean(raw, args, newest).collect()))


# -- reading -------------------------------------------------------------------------


@needs_spark
@pytest.mark.parametrize(
    "name", ["r.csv", "r.csv.gz", "r.jsonl", "text.json", "r.parquet", "text.parquet"]
)
def test_every_format_gives_the_same_ratings_and_numbers(spark, files, ratings, name):
    args = arguments(files / name)
    raw, *seen = train_als.checked_input(spark, args)
    assert seen == [len(ratings), ratings.timestamp.max()]
    clean = train_als.clean(raw, args)
    rows = [
        (int(row.user_id), int(row.item_id), row.rating, row.time)
        for row in clean.collect()
    ]
    columns = ["user_id", "item_id", "rating", "timestamp"]
    wanted = ratings[columns].astype({"timestamp": float})
    assert sorted(rows) == sorted(wanted.itertuples(index=False, name=None))
    ids = {row.user: int(row.user_id) for row in users_of(clean)}
    assert ids == dict(enumerate(sorted(set(ratings.user_id))))


def users_of(rows):
    return train_als.number_ids(rows, "user").collect()


@needs_spark
def test_ids_that_are_words_or_odd_numbers_stay_apart(spark):
    ids = ["10", "9", "09", " 9", "9.0", "Zoë", "zoe", "-1", "A1", "日本", "1e1", "NaN"]
    rows = spark.createDataFrame([(each,) for each in ids], ["item_id"])
    found = [row.item_id for row in train_als.number_ids(rows, "item").collect()]
    assert sorted(found) == sorted(ids)
    assert found == sorted(ids, key=lambda text: (len(text), text.encode()))


@needs_spark
@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_numbers_of_ids_do_not_depend_on_partitions(spark, partitions):
    ids = spark.range(500).selectExpr("cast(id * 37 % 500 as string) AS user_id")
    again = ids.union(ids).repartition(partitions)
    found = train_als.number_ids(again, "user").collect()
    assert {(row.user, row.user_id) for row in found} == {
        (i, str(i)) for i in range(500)
    }


@needs_spark
def test_old_numbers_stay_and_new_ids_stand_behind_them(spark):
    before = spark.createDataFrame(
        [(0, "b"), (2, "zzz"), (1, "gone")], "user int, user_id string"
    )
    rows = spark.createDataFrame([(it,) for it in ["zzz", "a", "b", "c"]], ["user_id"])
    found = train_als.number_ids(rows, "user", before).collect()
    assert {row.user_id: row.user for row in found} == {
        "b": 0, "gone": 1, "zzz": 2, "a": 3, "c": 4
    }  # fmt: skip


@needs_spark
def test_an_older_spark_numbers_rows_alike(spark, monkeypatch):
    rows = spark.range(50).selectExpr("-id AS x").repartition(3).sort("x")
    new = train_als.add_place(rows, "place").collect()
    with monkeypatch.context() as patch:
        patch.setattr(train_als, "hasattr", lambda *_: False, raising=False)
        assert train_als.add_place(rows, "place").collect() == new


REPEATED = [
    ("u", "i", 5, 0),
    ("u", "i", 2, 86_400),
    ("u", "i", 1, 86_400),
    ("u", "j", 4, 0),
]


@needs_spark
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], [2, 4]),
        (["--implicit"], [8, 4]),
        (["--repeats", "count"], [3, 1]),
        (["--repeats", "count", "--rating-col", "none"], [3, 1]),
        (["--repeats", "mean"], [8 / 3, 4]),
        (["--repeats", "sum", "--half-life", "1"], [5 / 2 + 3, 4 / 2]),
        (
            ["--implicit", "--repeats", "count", "--half-life", "0.5"],
            [1 / 4 + 2, 1 / 4],
        ),
    ],
)
@pytest.mark.weekly
def test_repeated_rows_make_one_rating(spark, job, options, wanted):
    file = write_csv(job, [(u, i, r, t + 1_000_000_000) for u, i, r, t in REPEATED])
    rows = cleaned(spark, file, *options)
    assert [row[:2] for row in rows] == [("u", "i"), ("u", "j")]
    assert [row[2] for row in rows] == pytest.approx(wanted)
    assert [row[3] - 1_000_000_000 for row in rows] == [86_400, 0]


@needs_spark
@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
def test_a_half_life_knows_the_unit_of_the_times(scale):
    args = arguments("r.csv", "--implicit", "--half-life", "2")
    for second in (8e8, 1e9, 1.7e9, 2.5e9):
        assert train_als.half_life_of(second * scale, args) == 2 * 86_400 * scale


@needs_spark
def test_training_rows_weigh_as_on_the_last_day_of_their_part(spark):
    day, args = 86_400.0, arguments("r.csv", "--implicit", "--half-life", "1")
    rows = [(0, 0, 0.25, 1e9, "train"), (0, 1, 0.5, 1e9 + day, "train"),
            (0, 2, 1.0, 1e9 + 2 * day, "test")]  # fmt: skip
    both = spark.createDataFrame(
        rows, "user int, item int, rating double, time double, part string"
    )
    training, test = train_als.parts_of(both, args)
    assert sorted(row.rating for row in training.collect()) == [0.5, 1.0]
    assert [row.rating for row in test.collect()] == [1.0]


@needs_spark
def test_a_cap_keeps_the_latest(spark, job):
    rows = [("u", f"i{t}", 3, 10 * t) for t in range(6)] + [("v", "i1", 4, 1)]
    found = cleaned(spark, write_csv(job, rows), "--max-rated", "2")
    assert [row[1] for row in found] == ["i4", "i5", "i1"]


@needs_spark
def test_columns_may_have_any_name_and_order(spark, job):
    file = job.output.parent / "odd.jsonl"
    file.write_text(
        '{"x y": 4.0, "t.s": 7, "review": {"a": 1}, "asin": "b", "é": 12}\n'
    )
    names = ["--user-col", "é", "--item-col", "asin", "--rating-col", "x y"]
    rows = cleaned(spark, file, *names, "--time-col", "t.s")
    assert rows == [("12", "b", 4.0, 7.0)]


RATING = [("Jörgen", "a", 1.5, 2.0), ("Jürgen", "a", 5.0, 1.0)]


@needs_spark
@pytest.mark.parametrize(
    ("name", "header", "line", "options"),
    [
        ("u.data", "", "{0}\t{1}\t{2}\t{3}", ["--format", "csv"]),
        ("ratings.dat", "", "{0}::{1}::{2}::{3}", ["--format", "csv"]),
        ("r.tsv", "item_id\tuser_id\ttimestamp\trating", "{1}\t{0}\t{3}\t{2}", []),
        ("r.csv", "user_id;item_id;rating;timestamp", "{0};{1};{2};{3}", []),
        ("r.CSV", "a|user_id|item_id|rating|timestamp", "x,y|{0}|{1}|{2}|{3}", []),
        ("r [2014].csv", "user_id,item_id,rating,timestamp", "{0},{1},{2},{3}", []),
        ("r{1}*.csv", "user_id,item_id,rating,timestamp", "{0},{1},{2},{3}", []),
        ("r.csv", "user_id,item_id,rating,timestamp,text", '{0},{1},{2},{3},"5"" x"',
         []),
        ("r.csv", "user_id,item_id,rating,timestamp,text", '{0},{1},{2},{3},"5\\" x"',
         ["--escape", "\\"]),
        ("r.csv", "user_id,item_id,rating,timestamp,text", '{0},{1},{2},{3},5" x',
         ["--quote", ""]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "encoding", ["UTF-8", pytest.param("windows-1252", marks=pytest.mark.weekly)]
)
def test_a_file_is_read_as_it_is_found(
    spark, job, name, header, line, options, encoding
):
    lines = [header] if header else []
    lines += [line.format(*row) for row in RATING]
    file = job.output.parent / name
    file.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    if not header:
        assert "if there is no header, say --columns" in job.refuse(file, *options)
        options = [*options, "--columns", "user_id,item_id,rating,timestamp"]
    if encoding != "UTF-8":
        assert "2 of 2 rows have ids with bytes" in job.refuse(file, *options)
    assert cleaned(spark, file, *options, "--encoding", encoding) == RATING


@needs_spark
def test_commas_may_stand_in_numbers(spark, job):
    file = write(job, "r.csv", "user_id;item_id;rating;timestamp\nu;i;4,5;1,0\n")
    assert "say --decimal-comma" in job.refuse(file)
    assert cleaned(spark, file, "--decimal-comma") == [("u", "i", 4.5, 1.0)]


@needs_spark
def test_a_table_of_the_catalogue_is_read(spark, files, ratings, job):
    spark.read.parquet(str(files / "r.parquet")).createOrReplaceTempView("stars")
    args = train_als.parse_arguments(["--table", "stars", "--output", "-"])
    _, *seen = train_als.checked_input(spark, args)
    assert seen == [len(ratings), ratings.timestamp.max()]
    assert train_als.wanted_result(spark, args)["bytes"] > 0


@needs_spark
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("way", ["excel", "spark", "bare"])
@pytest.mark.weekly
def test_no_text_becomes_a_rating(spark, job, seed, way):
    """Every row is read as it was written, or all are refused."""
    rng = np.random.default_rng(seed)
    parts = [",", '"', "\n", "\\", "u9,i9,5,1,x", ' "', "a", "", '",', "é"]
    rows = [
        ("".join(rng.choice(parts, rng.integers(1, 5))), f"u{i}", "i", 3.0, float(i),
         "".join(rng.choice(parts, rng.integers(1, 4))))
        for i in range(2)
    ]  # fmt: skip
    text = io.StringIO()
    header = ["text", "user_id", "item_id", "rating", "timestamp", "more"]
    if way == "bare":
        text.write("\n".join(",".join(map(str, row)) for row in [header, *rows]))
    elif way == "excel":
        csv.writer(text, quoting=csv.QUOTE_NONNUMERIC).writerows([header, *rows])
    else:
        csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, doublequote=False,
                   escapechar="\\").writerows([header, *rows])  # fmt: skip
    file = write(job, "r.csv", text.getvalue())
    for options in ([], ["--escape", "\\"]):
        try:
            found = cleaned(spark, file, *options)
        except train_als.JobError:
            continue
        assert found == [row[1:5] for row in rows]


# -- splitting -------------------------------------------------------------------------


def split_of(spark, frame, how, partitions=1, seed=0):
    """The cells that a split holds back."""
    rows = [
        (int(u), int(i), str(u), str(i), float(r), float(t))
        for u, i, r, t in frame.itertuples(index=False)
    ]
    columns = ["user", "item", "user_id", "item_id", "rating", "time"]
    given = spark.createDataFrame(rows, columns).repartition(partitions)
    parts = train_als.split_ratings(given, how, 0.2, seed).collect()
    assert len(parts) == len(frame)
    return {(row.user, row.item) for row in parts if row.part == "test"}


@needs_spark
def test_time_split_is_that_of_the_library(spark, ratings):
    _, test = splits.global_time_split(ratings, 0.2)
    wanted = set(zip(test.user_id, test.item_id, strict=True))
    for partitions in (1, 5):
        assert split_of(spark, ratings, "time", partitions) == wanted


@needs_spark
def test_hash_split_depends_on_ids_and_seed_only(spark, ratings):
    first = split_of(spark, ratings, "hash")
    assert split_of(spark, ratings.sample(frac=1, random_state=1), "hash", 5) == first
    assert split_of(spark, ratings, "hash", seed=1) != first
    half = ratings[::2]
    cells = set(zip(half.user_id, half.item_id, strict=True))
    assert split_of(spark, half, "hash") == first & cells
    deviation = np.sqrt(0.2 * 0.8 * len(ratings))
    assert abs(len(first) - 0.2 * len(ratings)) < 4 * deviation


# -- the result ------------------------------------------------------------------------


@needs_spark
def test_split_holds_the_ratings_by_their_numbers(result, ratings):
    named = result.split.merge(result.users).merge(result.items)
    named = named.astype({"user_id": "int64", "item_id": "int64", "time": "int64"})
    named = named.rename(columns={"time": "timestamp"})[ratings.columns]
    order = ["user_id", "item_id"]
    pd.testing.assert_frame_equal(
        named.sort_values(order, ignore_index=True),
        ratings.sort_values(order, ignore_index=True),
    )


@needs_spark
def test_report_counts_add_up(result, ratings):
    train, test = splits.global_time_split(ratings, 0.2)
    unknown = ~test.user_id.isin(train.user_id) | ~test.item_id.isin(train.item_id)
    assert unknown.any(), "these ratings should have a cold start"
    assert result.report["test_not_scored"] == unknown.sum()
    assert result.report["counts"] == {
        "rows": len(ratings),
        "ratings": len(ratings),
        "users": ratings.user_id.nunique(),
        "items": ratings.item_id.nunique(),
        "train": len(train),
        "test": len(test),
    }


@needs_spark
def test_ratings_that_are_no_likes_are_counted(hashed):
    assert hashed.report["counts"]["zero"] == (hashed.split.rating == 0).sum() > 0
    assert hashed.report["counts"]["negative"] == (hashed.split.rating < 0).sum() > 0


@needs_spark
@pytest.mark.weekly
def test_refitting_changes_the_lists_and_no_score(result, tested):
    for part in ("rmse", "ranking", "paired", "counts", "test_not_scored"):
        assert approximate(result.report[part]) == approximate(tested.report[part])
    assert result.report["lists"]["refitted"]
    assert not tested.report["lists"]["refitted"]
    assert np.isfinite(result.scores).all()
    assert np.isnan(tested.scores).any(), "training lacks nobody"


@needs_spark
def test_errors_are_those_computed_with_numpy(tested):
    (train, matrix), (test, _) = tested.part("train"), tested.part("test")
    als = tested.scores[test.user, test.item]
    scored = ~np.isnan(als)
    biases = baselines.DampedBiases().fit(matrix)
    biases = biases.predict(test.user.to_numpy(), test.item.to_numpy())
    predicted = {
        "global_mean": np.full(len(test), train.rating.mean()),
        "biases": biases,
        "als": np.where(scored, als, biases),
    }
    assert tested.report["rmse"].keys() == predicted.keys()
    for name, values in predicted.items():
        wanted = {
            "all": metrics.rmse(test.rating, values),
            "scored": metrics.rmse(test.rating[scored], values[scored]),
        }
        assert tested.report["rmse"][name] == pytest.approx(wanted, rel=1e-6), name
    squares = {name: (test.rating - it) ** 2 for name, it in predicted.items()}
    for name in ("global_mean", "biases"):
        gain = (squares[name] - squares["als"])[scored]
        check_interval(
            tested.report["paired"][f"mse_below_{name}"], gain, test.user[scored]
        )


def check_interval(found, gain, users):
    """Compare with the percentiles of resampled users."""
    by_user = pd.DataFrame({"gain": gain, "user": users}).groupby("user").gain
    total, n = by_user.sum().to_numpy(), by_user.count().to_numpy()
    assert found["users"] == len(n)
    assert found["mean"] == pytest.approx(gain.mean())
    drawn = np.random.default_rng(0).integers(len(n), size=(4000, len(n)))
    means = total[drawn].sum(axis=1) / n[drawn].sum(axis=1)
    width = found["high"] - found["low"]
    assert width == pytest.approx(2 * 1.96 * means.std(), rel=0.15)
    assert found["high"] + found["low"] == pytest.approx(2 * found["mean"])


def lists_of(run, score, rated):
    score = np.where(np.isnan(score), -np.inf, score)
    return metrics.top_k(score, 4, exclude=rated)


@needs_spark
@pytest.mark.parametrize("name", ["tested", "hashed"])
def test_ranking_scores_are_those_of_the_library(name, request):
    run = request.getfixturevalue(name)
    (rows, _), (test_rows, _) = run.part("train"), run.part("test")
    implicit = name == "hashed"
    least = None if implicit else rows.rating.mean()
    likes = rows[rows.rating > 0] if implicit else rows
    liked = test_rows[test_rows.rating > 0 if implicit else test_rows.rating >= least]
    counts = np.bincount(likes.item, minlength=run.shape[1]).astype(float)
    counts[counts == 0] = -np.inf
    seen = sparse.csr_array(
        (np.ones(len(rows)), (rows.user.to_numpy(), rows.item.to_numpy())),
        shape=run.shape,
    )
    relevant = sparse.csr_array(
        (np.ones(len(liked)), (liked.user.to_numpy(), liked.item.to_numpy())),
        shape=run.shape,
    )
    known = np.diff(seen.indptr) > 0
    popular = np.broadcast_to(counts, run.shape)
    found = run.report["ranking"]
    assert found["at"] == 4
    assert found["liked"] == (None if implicit else pytest.approx(least))
    kinds, scores = ["precision", "recall", "ndcg"], {}
    for model, score in (("als", run.scores), ("most_popular", popular)):
        items = lists_of(run, score, seen)[0]
        scores[model] = metrics.ranking_scores(items, relevant, n=4)[known].dropna()
        assert found["users"] == len(scores[model])
        wanted = scores[model][kinds].mean().to_dict()
        assert found[model] == pytest.approx(wanted), model
        assert found[model]["recall"] > 0
    for kind in kinds[1:]:
        gain = scores["als"][kind] - scores["most_popular"][kind]
        check_interval(
            run.report["paired"][f"{kind}_above_most_popular"], gain, gain.index
        )


@needs_spark
@pytest.mark.parametrize("name", ["result", "tested", "hashed"])
def test_everybody_gets_the_best_that_are_not_seen(name, request):
    """Of ALS as far as it has factors, then the most popular."""
    run = request.getfixturevalue(name)
    cells = run.split.user.to_numpy(), run.split.item.to_numpy()
    rated = sparse.csr_array((np.ones(len(run.split)), cells), shape=run.shape)
    items, best = lists_of(run, run.scores, rated)
    found = run.recommendations.merge(run.users).merge(run.items)
    unseen = run.shape[1] - np.diff(rated.indptr)
    per_user = found.groupby("user")["rank"].agg(["count", "max", "min", "nunique"])
    assert list(per_user.index) == list(range(run.shape[0])), "somebody has no list"
    for column in ("count", "max", "nunique"):
        np.testing.assert_array_equal(per_user[column], np.minimum(4, unseen))
    assert (per_user["min"] == 1).all()
    assert not rated[found.user, found.item].any()
    als = found[found.source == "als"]
    assert len(als) == np.isfinite(best).sum()
    np.testing.assert_array_equal(items[als.user, als["rank"] - 1], als.item)
    np.testing.assert_allclose(best[als.user, als["rank"] - 1], als.score, rtol=1e-4)
    popular = found[found.source == "popular"]
    assert len(als) + len(popular) == len(found)
    assert popular.score.isna().all()
    assert (len(popular) > 0) == np.isnan(run.scores).any()
    likes = run.split[run.split.rating > 0] if name == "hashed" else run.split
    order = likes.item.value_counts().reset_index()
    order = order.sort_values(["count", "item"], ascending=[False, True]).item.tolist()
    for user, rows in popular.groupby("user"):
        taken = {*rated[[user]].indices, *als.item[als.user == user]}
        left = [item for item in order if item not in taken]
        assert rows.sort_values("rank").item.tolist() == left[: len(rows)]
    lists = run.report["lists"]
    assert lists["full_lists"] == np.mean(unseen >= 4)
    assert lists["coverage"] == found.item.nunique() / run.shape[1]
    alone = ~np.isin(np.arange(run.shape[0]), als.user)
    assert lists["popular_only"] == alone.mean()


@needs_spark
def test_options_of_the_model_reach_it(result, hashed):
    assert result.user_factors.shape[1] == 3
    assert np.nanmin(result.item_factors) < 0
    assert np.nanmin(hashed.item_factors) >= 0
    assert hashed.report["rmse"] is None
    assert hashed.report["arguments"]["alpha"] == 3


@needs_spark
@pytest.mark.parametrize("how", ["numpy", "spark"])
@pytest.mark.parametrize(
    "n", [3, *(pytest.param(n, marks=pytest.mark.weekly) for n in (1, 30))]
)
def test_both_ways_to_make_lists_give_the_same(spark, how, n, monkeypatch):
    """Scores are whole numbers with many ties; some users have seen nearly all."""
    monkeypatch.setattr(train_als, "BLOCK", 5 * 128)
    monkeypatch.setattr(train_als, "CHUNK", 8)
    rng = np.random.default_rng(n)
    users, items = (rng.integers(-2, 3, size=(size, 2)) for size in (17, 60))
    known = np.arange(60) * 3  # numbers with gaps
    rated = rng.random((17, 60)) < np.linspace(0, 1, 17)[:, None]
    model = fitted(spark, users, items, known)
    seen = [(int(u), int(known[i])) for u, i in zip(*rated.nonzero(), strict=True)]
    seen += [(0, 1), (3, 1000)]  # items without factors
    seen = spark.createDataFrame(seen, "user int, item int")
    asked = spark.createDataFrame([(u,) for u in range(1, 20)], "user int")
    args = arguments("r.csv", "--top-n", str(n), "--lists", how)
    found = train_als.rank_items(model, asked, seen, args).collect()
    score = np.where(rated, -np.inf, users @ items.T)
    wanted = {
        (u, rank): (int(known[i]), score[u, i])
        for u in range(1, 17)
        for rank, i in enumerate(np.lexsort((known, -score[u]))[:n], 1)
        if np.isfinite(score[u, i])
    }
    got = {(row.user, row["rank"]): (row.item, row.score) for row in found}
    if how == "spark":  # which cuts its own lists wherever among equal scores
        assert all(score[u, i // 3] == it for (u, _), (i, it) in got.items())
        got, wanted = ({at: it for at, (_, it) in x.items()} for x in (got, wanted))
    assert got == wanted


def fitted(spark, users, items, item_ids):
    """An ALSModel that has these factors."""
    one = spark.createDataFrame([(0, 0, 1.0)], "user int, item int, rating double")
    args = arguments("r.csv", "--rank", "2", "--max-iter", "1", "--blocks", "1")
    model = train_als.train(one, args)
    frames = [
        spark.createDataFrame(
            [
                (int(i), [float(x) for x in row])
                for i, row in zip(ids, factors, strict=True)
            ],
            "id int, features array<float>",
        )
        for ids, factors in ((np.arange(len(users)), users), (item_ids, items))
    ]
    jvm = spark._jvm.org.apache.spark.ml.recommendation
    made = jvm.ALSModel(model.uid, 2, *(frame._jdf for frame in frames))
    return train_als.ALSModel(made.setUserCol("user").setItemCol("item"))


# -- interruption ----------------------------------------------------------------------


@needs_spark
@pytest.mark.weekly
def test_a_run_killed_at_every_stage_ends_with_the_same_result(
    job, files, result, monkeypatch
):
    """Each run dies where a stage is made but for its marker, the next one stage on."""
    write_json, died = train_als.Folder.write_json, []

    def die(folder, name, content):
        if name.startswith("_done/") and name not in died:
            died.append(name)
            raise KeyboardInterrupt
        write_json(folder, name, content)

    file, status = files / "r.csv", None
    with monkeypatch.context() as patch:
        patch.setattr(train_als.Folder, "write_json", die)
        while status is None:
            try:
                status, _ = job.run(file, "--resume", *SMALL_MODEL)
            except KeyboardInterrupt:
                assert not job.output.exists()
    assert status == 0
    assert len(died) == 11
    assert [path.name for path in job.output.parent.iterdir()] == ["out"]
    assert not list(job.output.glob("_[a-z]*"))
    again = Result(job.spark, job.output)
    assert approximate(again.report) == approximate(result.report)
    pd.testing.assert_frame_equal(again.recommendations, result.recommendations)


@needs_spark
@pytest.mark.parametrize("deletes", ["each file", "at the end"])
@pytest.mark.parametrize("share", [0, 0.3, 0.99, 1, 1.3])
def test_a_rename_that_died_while_it_copied_is_finished(
    job, files, result, deletes, share, monkeypatch
):
    """On a store that copies file by file, the last one in parts, then deletes."""
    work = job.output.with_name("out.part")
    shutil.copytree(result.folder, work)
    (work / "_SUCCESS").unlink()
    (work / "_work").mkdir()
    (work / "_work" / "x").write_text("x")

    def copy_and_die(folder, name, target):
        files = (path for path in work.rglob("*") if path.is_file())
        names = sorted(path.relative_to(work) for path in files)
        last = round(share * len(names))
        for number, each in enumerate(names[: last + 1]):
            (job.output / each).parent.mkdir(parents=True, exist_ok=True)
            data = (work / each).read_bytes()
            whole = number < last
            (job.output / each).write_bytes(data if whole else data[: len(data) // 2])
            if whole and deletes == "each file":
                (work / each).unlink()
        if deletes == "at the end":
            for each in names[: max(0, last - len(names))]:
                (work / each).unlink()
        raise KeyboardInterrupt

    args = arguments(files / "r.csv", *SMALL_MODEL)
    args.output = str(job.output)
    with monkeypatch.context() as patch:
        patch.setattr(train_als.Folder, "rename", copy_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_als.Work(job.spark, args).publish()
    assert not (job.output / "_SUCCESS").exists()
    status, err = job.run(files / "r.csv", "--resume", *SMALL_MODEL)
    assert (status, "started" in err) == (0, False)
    assert [path.name for path in job.output.parent.iterdir()] == ["out"]
    for path in result.folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".crc"):
            copy = job.output / path.relative_to(result.folder)
            assert copy.read_bytes() == path.read_bytes()


@needs_spark
@pytest.mark.parametrize("harm", ["marker", "file", "bytes", "marker cut", "before"])
def test_a_stage_is_trusted_if_its_marker_agrees_with_its_files(job, harm):
    args = arguments("r.csv")
    args.output = str(job.output)
    folder = job.output.with_name("out.part")

    def make():
        """Two stages; the names of those that were made."""
        work, made = train_als.Work(job.spark, args), []
        for name in ("_work/first", "second"):

            def write(path, name=name):
                made.append(name)
                place = Path(path.removeprefix("file:"))
                place.mkdir(parents=True)
                for part in ("a", "b"):
                    (place / part).write_text(f"{name} {part}")

            work.make(name, write)
        return made

    assert make() == ["_work/first", "second"]
    assert make() == []
    marker, stage = folder / "_done" / "second", folder / "second"
    if harm == "marker":
        marker.unlink()
    elif harm == "marker cut":
        marker.write_text(marker.read_text()[:20])
    elif harm == "file":
        (stage / "b").unlink()
    elif harm == "bytes":
        (stage / "b").write_text("sec")
    else:
        (folder / "_work" / "first" / "a").unlink()
    wanted = ["_work/first", "second"] if harm == "before" else ["second"]
    assert make() == wanted
    assert make() == []


@needs_spark
def test_a_second_run_into_one_output_is_refused(job, files, monkeypatch):
    monkeypatch.setattr(train_als, "BEAT", 0.2)
    monkeypatch.setattr(train_als, "PATIENCE", 3.0)
    lock = train_als.Folder(job.spark, f"{job.output}.lock")
    with train_als.only_run(lock):
        status, err = job.run(files / "r.csv", *SMALL_MODEL)
        assert status == 2
        assert "another run writes into this output" in err
    assert not lock.exists()


@needs_spark
@pytest.mark.parametrize("owner", ["dead here", "silent elsewhere", "cut off"])
def test_the_lock_of_a_dead_run_is_taken_over(job, owner, monkeypatch):
    monkeypatch.setattr(train_als, "PATIENCE", 600 if owner == "dead here" else 0.5)
    path = f"{job.output}.lock"
    lock = train_als.Folder(job.spark, path)
    with train_als.only_run(lock):
        left = lock.read_json("owner")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left["process"] = gone.pid
    if owner == "silent elsewhere":
        left["machine"] = "elsewhere"
    lock.write_json("owner", left)
    if owner == "cut off":
        Path(path, "owner").write_text('{"machine": ')
    with train_als.only_run(lock):
        assert lock.read_json("owner")["process"] == os.getpid()
    assert not lock.exists()


@needs_spark
@pytest.mark.weekly
def test_a_gate_publishes_nothing_and_the_next_night_keeps_the_numbers(
    job, files, ratings, result
):
    """Ratings by chance do not beat the mean; without the gate the run goes on."""
    rows = ratings.assign(rating=np.random.default_rng(1).integers(1, 6, len(ratings)))
    rows.loc[0, ["user_id", "item_id"]] = 5, 2  # new, and shorter than all others
    rows = rows[rows.user_id != ratings.user_id[1]]
    file = job.output.parent / "r.csv"
    rows.to_csv(file, index=False)
    options = [*SMALL_MODEL, "--ids", str(result.folder), "--lists", "spark"]
    status, err = job.run(file, *options, "--must-beat", "global_mean")
    assert status == 3
    assert "ALS does not beat global_mean, so nothing is published: mse_below" in err
    assert not job.output.exists()
    options += ["--compare", str(result.folder)]
    status, err = job.run(file, *options, "--resume")
    assert (status, "tested_model: taken" in err) == (0, True)
    night = Result(job.spark, job.output)
    for name, old in (("users", result.users), ("items", result.items)):
        now = getattr(night, name)
        assert now.merge(old).shape == old.shape, "an old number has changed"
        assert len(now) == len(old) + 1
        assert now[name[:-1]].max() == len(old)
    assert night.report["counts"]["users"] == rows.user_id.nunique()
    assert night.report["counts"]["items"] == rows.item_id.nunique()
    asked = {str(user) for user in rows.user_id}
    assert {*night.recommendations.user_id} == asked
    pair, old = ["user_id", "item_id"], result.recommendations
    new = night.recommendations[night.recommendations.user_id.isin(old.user_id)]
    common = new.merge(old, on=pair).groupby("user_id").size()
    share = (common / new.groupby("user_id").size()).fillna(0)
    overlap = night.report["lists"]["overlap"]
    assert overlap == pytest.approx({"users": len(share), "mean": share.mean()})
    assert 0 < overlap["mean"] < 1


def approximate(report):
    """A report with its floats cut to nine digits; sums depend on the order of rows."""
    return json.loads(json.dumps(report), parse_float=lambda text: f"{float(text):.9g}")


@needs_spark
def test_resume_leaves_a_complete_result_alone(job, files, result):
    shutil.copytree(result.folder, job.output)
    before = snapshot(job.output)
    status, err = job.run(files / "r.csv", "--resume", *SMALL_MODEL)
    assert status == 0
    assert "is complete already" in err
    assert snapshot(job.output) == before
    assert "rank was 3, is 5" in job.refuse(
        files / "r.csv", "--resume", *SMALL_MODEL, "--rank", "5"
    )
    assert "is there already; choose another --output" in job.refuse(
        files / "r.csv", *SMALL_MODEL
    )
    next((job.output / "model").rglob("*.parquet")).unlink()
    assert "lacks files that its _SUCCESS counts" in job.refuse(
        files / "r.csv", "--resume", *SMALL_MODEL
    )


@needs_spark
@pytest.mark.weekly
def test_a_killed_process_is_resumed_by_another(job, files):
    command = [sys.executable, str(PROGRAM), "--ratings", str(files / "r.jsonl")]
    command += ["--output", str(job.output), *SMALL_MODEL]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr:
            if "tested_model: started" in line:
                os.killpg(process.pid, 9)
                break
    assert process.wait() == -9
    assert not job.output.exists()
    status, err = job.run(files / "r.jsonl", *SMALL_MODEL, "--resume")
    assert status == 0
    assert "split: taken from the earlier run" in err
    assert "tested_model: done" in err
    assert (job.output / "_SUCCESS").exists()
    assert [path.name for path in job.output.parent.iterdir()] == ["out"]


# -- what is refused -------------------------------------------------------------------


def write_csv(job, rows, name="r.csv", header="user_id,item_id,rating,timestamp"):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    return write(job, name, "\n".join(lines) + "\n")


def write(job, name, text):
    path = job.output.parent / name
    path.write_text(text, encoding="utf-8")
    return path


GOOD = [(f"u{i % 3}", f"i{i}", 1 + i % 5, 100 + i) for i in range(9)]


@needs_spark
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("u", "i", "five", 1), r"1 of 10 rows have no number in 'rating'.*\"five\""),
        (("u", "i", "", 1), "1 of 10 rows have no number in 'rating'"),
        (("u", "i", "NaN", 1), "1 of 10 rows have no number in 'rating'"),
        (("u", "i", "1e999", 1), "1 of 10 rows have no number in 'rating'"),
        (("u", "i", "4d", 1), "1 of 10 rows have no number in 'rating'"),
        (("", "i", 4, 1), "1 of 10 rows have no user id in 'user_id'.*drop them"),
        (("u", '""', 4, 1), "1 of 10 rows have no item id in 'item_id'"),
        (("u", "i", 4, "2014-07-22"), "no number in 'timestamp'.*2014-07-22.*Unix"),
        (("u", "i", 4), "1 of 10 rows cannot be parsed, or have .*for example u,i,4;"),
        (("u", "i", 4, 1, 9), "1 of 10 rows cannot be parsed"),
        (("u", "i", "1e39", 1), "1 of 10 rows have no number in 'rating'"),
        (
            ("u", "i", 4, '"1'),
            'quotes do not pair up in 1 line.s., for example u,i,4,"1',
        ),
    ],
)
def test_a_faulty_row_is_counted_and_shown(job, row, expected):
    file = write_csv(job, [*GOOD, row])
    assert re.search(expected, job.refuse(file, "--split", "hash"))


@needs_spark
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"user_id": "u", "item', "1 of 2 rows cannot be parsed"),
        ('{"user_id": null, "item_id": 1, "rating": 3, "timestamp": 1}', "no user id"),
        ('{"user_id": 1, "item_id": 1, "rating": "good", "timestamp": 1}', '"good"'),
        ('{"user_id": 1, "item_id": 1, "rating": true, "timestamp": 1}', '"true"'),
    ],
)
def test_a_faulty_line_of_json_is_counted_and_shown(job, line, expected):
    good = '{"user_id": "a", "item_id": "b", "rating": 3, "timestamp": 1}'
    assert expected in job.refuse(write(job, "r.json", f"{good}\n{line}\n"))


@needs_spark
@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
@pytest.mark.parametrize("column", ["user", "item", "rating", "time"])
def test_a_missing_column_is_named_with_those_that_are_there(job, files, name, column):
    error = job.refuse(files / name, f"--{column}-col", "Stars")
    assert f"no 'Stars': {'the first row' if 'json' in name else 'they have'}" in error
    assert "item_id" in error
    assert f"say with --{column}-col what it is called" in error
    assert ("--split hash" in error) == (column == "time")


@needs_spark
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("r.csv", "user_id,item_id,rating,timestamp\n", "there is no rating in"),
        ("r.csv", "", "have no 'user_id'"),
        ("r.jsonl", "", "there is no rating in"),
        ("r.dat", "1\t2\t3\t4\n", "none of the extensions .json, .jsonl"),
        ("r.parquet", "1,2,3,4\n", "cannot read .*r.parquet: .*; look at --format"),
        ("r:1.csv", "1,2,3,4\n", "reads no local file with a colon in its name"),
        ("r.csv", "sep=,\nuser_id,item_id\n", "delete the first line"),
        (
            "r.csv",
            "title,user_id,item_id,rating,timestamp\nHeat,1,12,5,100\n"
            "American President, The,1,11,4,101\n",
            "1 of 2 rows cannot be parsed.*American President, The,1,11,4,101",
        ),
        ("r.csv.gz", "not compressed", "cannot read .*r.csv.gz: .*look at --format"),
        (
            "r.csv",
            "user_id,item_id,rating,timestamp\nu,i,3,1\n",
            "of 1 ratings, 0 are for training and 1 for testing; change --test-share",
        ),
    ],
)
def test_a_file_that_cannot_serve_is_refused(job, name, text, expected):
    assert re.search(expected, job.refuse(write(job, name, text)))


@needs_spark
def test_files_that_do_not_belong_together_are_refused_with_the_cause(job):
    folder = job.output.parent / "ratings"
    folder.mkdir()
    write(job, "ratings/a.csv", "user_id,item_id,rating,timestamp\nu,i,3,1\n")
    write(job, "ratings/b.csv", "item_id,user_id,rating,timestamp\ni,u,3,1\n")
    assert "CSV header does not conform" in job.refuse(folder, "--format", "csv")


@needs_spark
def test_implicit_without_a_like_is_refused(job):
    file = write_csv(job, [(u, i, -1 * (t % 2), t) for u, i, _, t in GOOD])
    assert "no rating is above 0" in job.refuse(file, "--implicit", *SMALL_MODEL)


@needs_spark
def test_an_output_may_have_a_colon_in_its_name(job):
    job.output = job.output.with_name("run-18:30")
    args = arguments("r.csv")
    args.output = str(job.output)
    assert train_als.Work(job.spark, args).path == f"file:{job.output}.part"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(job.output.parent)
        there = train_als.Folder(job.spark, "run-18:30")
        assert there.path.endswith("/run-18:30")
        with train_als.only_run(train_als.Folder(job.spark, f"{there.path}.lock")):
            pass


@needs_spark
def test_types_of_parquet_that_cannot_serve_are_refused(job, spark, files):
    rows = spark.read.parquet(str(files / "r.parquet"))
    for column, kind in [("user_id", "double"), ("rating", "array<double>")]:
        path = job.output.parent / f"{column}.parquet"
        value = f"array({column})" if "array" in kind else f"cast({column} as {kind})"
        rows.selectExpr(
            *(value + f" AS {c}" if c == column else c for c in rows.columns)
        ).write.parquet(str(path))
        assert f"{column!r} of the ratings has type {kind}, but" in job.refuse(path)


@needs_spark
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/no/such/ratings.csv", "there is no file:/no/such/ratings.csv"),
        ("nonsense://x/ratings.csv", 'cannot use the path nonsense.*"nonsense"'),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(job, path, expected):
    assert re.search(expected, job.refuse(path))


@needs_spark
def test_what_lies_where_the_output_should_be_is_not_touched(job, files):
    for place in (job.output, job.output.with_name("out.part")):
        place.mkdir()
        (place / "mine.txt").write_text("mine")
        there = "is there already; choose another --output, delete it, or use --resume"
        assert f"{place} {there}" in job.refuse(files / "r.csv")
        assert f"{place} has no run.json" in job.refuse(files / "r.csv", "--resume")
        shutil.rmtree(place)


@needs_spark
def test_resume_refuses_other_arguments_and_other_ratings(job, monkeypatch):
    file = write_csv(job, GOOD)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_als, "make_all", die)
        with pytest.raises(KeyboardInterrupt):
            job.run(file)
    assert "use --resume if it is from an interrupted run" in job.refuse(file)
    error = job.refuse(file, "--resume", "--seed", "3", "--split", "hash")
    assert "because seed was 0, is 3; split was 'time', is 'hash'; give the" in error
    write_csv(job, [*GOOD, ("u", "i", 1, 1)])
    assert re.search(r"the ratings had \d+ bytes, have", job.refuse(file, "--resume"))


@pytest.mark.parametrize(
    "options",
    [
        ["--rank", "0"],
        ["--rank", "2.5"],
        ["--test-share", "1"],
        ["--test-share", "a fifth"],
        ["--reg-param", "-1"],
        ["--alpha", "nan"],
        ["--user-col", "item_id"],
        ["--split", "random"],
        ["--half-life", "3"],
        ["--implicit", "--half-life", "0", "--repeats", "sum"],
        ["--implicit", "--must-beat", "global_mean"],
        ["--table", "t"],
    ],
)
def test_arguments_out_of_range_are_refused_before_spark_starts(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_als.main(["--ratings", "r.csv", "--output", "out", *options])
    assert "train_als.py: error: " in capsys.readouterr().err


def test_help_names_every_option_and_needs_no_java():
    environment = os.environ | {"JAVA_HOME": "/nowhere", "COLUMNS": "80"}
    command = [sys.executable, str(PROGRAM), "--help"]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    for name in vars(arguments("r.csv")):
        assert f"--{name.replace('_', '-')} " in re.sub(r"[],;)\n]", " ", text)
    assert "(default: None)" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.skipif(os.name == "nt", reason="the shell says it in other words there")
def test_a_missing_java_is_told_without_a_traceback(tmp_path):
    environment = os.environ | {"JAVA_HOME": str(tmp_path)}
    command = [sys.executable, str(PROGRAM), "--ratings", "r.csv", "--output", "out"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 2
    assert "train_als.py: error: Spark does not start" in run.stderr
    assert "Java 17 or newer" in run.stderr
    assert "Traceback" not in run.stderr

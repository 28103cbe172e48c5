"""The Spark program: equal results from every format, honest numbers, clear errors."""

import importlib.util
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
from als_course.spark import SHORT_LIVED

PROGRAM = Path(__file__).resolve().parents[2] / "book" / "jobs" / "train_als.py"
BIG = 3_000_000_000_000_000_000  # an id that no double holds exactly
SMALL_MODEL = ["--rank", "3", "--max-iter", "3", "--blocks", "2", "--top-n", "4"]
# A few hundred rows are done before code for them would be compiled.
QUICK = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
}
STAGES = [
    "_work/ratings", "users", "items", "split", "model", "_work/ranked",
    "recommendations", "report.json",
]  # fmt: skip

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
    java = f"--driver-java-options '{SHORT_LIVED}'"
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
        assert status == 2
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


@pytest.fixture(scope="module")
def result(spark, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("result") / "out"
    argv = ["--ratings", str(files / "r.csv"), "--output", str(output), *SMALL_MODEL]
    assert train_als.main(argv, spark) == 0
    return Result(spark, output)


@pytest.fixture(scope="module")
def hashed(spark, files, tmp_path_factory):
    """Another run: JSON of text, hash split, implicit, nonnegative."""
    output = tmp_path_factory.mktemp("hashed") / "out"
    argv = [
        "--ratings",
        str(files / "text.json"),
        "--output",
        str(output),
        *SMALL_MODEL,
    ]
    argv += ["--split", "hash", "--implicit", "--nonnegative", "--alpha", "3"]
    assert train_als.main(argv, spark) == 0
    return Result(spark, output)


# -- reading -------------------------------------------------------------------------


@needs_spark
@pytest.mark.parametrize(
    "name", ["r.csv", "r.csv.gz", "r.jsonl", "text.json", "r.parquet", "text.parquet"]
)
def test_every_format_gives_the_same_ratings_and_numbers(spark, files, ratings, name):
    argv = ["--ratings", str(files / name), "--output", "-"]
    args = train_als.parse_arguments(argv)
    raw = train_als.read_ratings(spark, args)
    assert train_als.check_ratings(raw, args) == (len(ratings), True)
    rows = [
        (int(row.user_id), int(row.item_id), row.rating, row.time)
        for row in train_als.clean(raw).collect()
    ]
    columns = ["user_id", "item_id", "rating", "timestamp"]
    wanted = ratings[columns].astype({"timestamp": float})
    assert sorted(rows) == sorted(wanted.itertuples(index=False, name=None))
    ids = {row.user: int(row.user_id) for row in numbers(raw, "user").collect()}
    assert ids == dict(enumerate(sorted(set(ratings.user_id))))


def numbers(raw, kind):
    return train_als.number_ids(train_als.clean(raw), kind)


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
def test_latest_rating_wins_and_then_the_highest(spark, job):
    rows = [("u", "i", 5, 10), ("u", "i", 2, 30), ("u", "i", 1, 30), ("u", "j", 4, 20)]
    file = write_csv(job, rows * 2)
    args = train_als.parse_arguments(["--ratings", str(file), "--output", "-"])
    found = train_als.clean(train_als.read_ratings(spark, args)).collect()
    assert sorted(map(tuple, found)) == [("u", "i", 2.0, 30.0), ("u", "j", 4.0, 20.0)]


@needs_spark
def test_columns_may_have_any_name_and_order(spark, job):
    file = job.output.parent / "odd.jsonl"
    file.write_text(
        '{"x y": 4.0, "t.s": 7, "review": {"a": 1}, "asin": "b", "é": 12}\n'
    )
    names = ["--user-col", "é", "--item-col", "asin", "--rating-col", "x y"]
    argv = ["--ratings", str(file), "--output", "-", *names, "--time-col", "t.s"]
    args = train_als.parse_arguments(argv)
    raw = train_als.read_ratings(spark, args)
    assert train_als.check_ratings(raw, args) == (1, True)
    assert [tuple(row) for row in train_als.clean(raw).collect()] == [
        ("12", "b", 4.0, 7.0)
    ]


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
def test_errors_are_those_computed_with_numpy(result):
    (train, matrix), (test, _) = result.part("train"), result.part("test")
    als = result.scores[test.user, test.item]
    scored = ~np.isnan(als)
    biases = baselines.DampedBiases().fit(matrix)
    biases = biases.predict(test.user.to_numpy(), test.item.to_numpy())
    predicted = {
        "global_mean": np.full(len(test), train.rating.mean()),
        "biases": biases,
        "als": np.where(scored, als, biases),
    }
    assert result.report["rmse"].keys() == predicted.keys()
    for name, values in predicted.items():
        wanted = {
            "all": metrics.rmse(test.rating, values),
            "scored": metrics.rmse(test.rating[scored], values[scored]),
        }
        assert result.report["rmse"][name] == pytest.approx(wanted, rel=1e-6), name


@needs_spark
@pytest.mark.parametrize("name", ["result", "hashed"])
def test_ranking_scores_are_those_of_the_library(name, request):
    run = request.getfixturevalue(name)
    (_, train), (_, test) = run.part("train"), run.part("test")
    known = np.diff(train.indptr) > 0
    score = np.where(np.isnan(run.scores), -np.inf, run.scores)
    lists = {
        "als": metrics.top_k(score, 4, exclude=train)[0],
        "most_popular": baselines.MostPopular().fit(train).recommend(
            np.arange(run.shape[0]), 4
        )[0],
    }  # fmt: skip
    found = run.report["ranking"]
    assert found["at"] == 4
    for model, items in lists.items():
        wanted = metrics.ranking_scores(items, test, n=4)[known].dropna()
        assert found["users"] == len(wanted)
        assert found[model] == pytest.approx(
            wanted[["precision", "recall"]].mean().to_dict()
        ), model
        assert found[model]["recall"] > 0


@needs_spark
@pytest.mark.parametrize("name", ["result", "hashed"])
def test_recommendations_are_the_best_that_are_not_seen(name, request):
    run = request.getfixturevalue(name)
    rated = sparse.csr_array(run.part("train")[1] + run.part("test")[1])
    score = np.where(np.isnan(run.scores), -np.inf, run.scores)
    items, best = metrics.top_k(score, 4, exclude=rated)
    found = run.recommendations.merge(run.users).merge(run.items)
    assert found["rank"].min() == 1
    assert found["rank"].max() == 4
    assert len(found) == np.isfinite(best).sum()
    assert not rated[found.user, found.item].any()
    np.testing.assert_array_equal(items[found.user, found["rank"] - 1], found.item)
    np.testing.assert_allclose(
        best[found.user, found["rank"] - 1], found.score, rtol=1e-4
    )


@needs_spark
def test_options_of_the_model_reach_it(result, hashed):
    assert result.user_factors.shape[1] == 3
    assert np.nanmin(result.item_factors) < 0
    assert np.nanmin(hashed.item_factors) >= 0
    assert hashed.report["rmse"]["als"] is None
    assert hashed.report["rmse"]["biases"]["all"] > 0
    assert hashed.report["arguments"]["alpha"] == 3


# -- interruption ----------------------------------------------------------------------


@needs_spark
def test_a_run_killed_at_every_stage_ends_with_the_same_result(
    job, files, result, monkeypatch
):
    """Each run does one more stage, and dies before or after giving it its name."""
    rename = train_als.Folder.rename
    made = []

    def rename_and_die(folder, name, target):
        stage = name.removesuffix(".tmp")
        after = name == "run.json.tmp" or stage in died
        if after:
            rename(folder, name, target)
            made.append(stage)
        died.add(stage)
        if stage not in ("run.json", ""):
            raise KeyboardInterrupt

    died = set()
    file = files / "r.csv"
    with monkeypatch.context() as patch:
        patch.setattr(train_als.Folder, "rename", rename_and_die)
        for _ in range(2 * len(STAGES)):
            with pytest.raises(KeyboardInterrupt):
                job.run(file, "--resume", *SMALL_MODEL)
            assert not job.output.exists()
    assert made == ["run.json", *STAGES]
    kept = snapshot(job.output.with_name("out.part") / "model")
    assert job.run(file, "--resume", *SMALL_MODEL)[0] == 0
    assert [path.name for path in job.output.parent.iterdir()] == ["out"]
    assert not (job.output / "_work").exists()
    assert sorted(kept.values()) == sorted(snapshot(job.output / "model").values())
    again = Result(job.spark, job.output)
    assert approximate(again.report) == approximate(result.report)
    pd.testing.assert_frame_equal(again.recommendations, result.recommendations)


def approximate(report):
    """A report with its floats cut to nine digits; sums depend on the order of rows."""
    return json.loads(json.dumps(report), parse_float=lambda text: f"{float(text):.9g}")


@needs_spark
def test_resume_leaves_a_complete_result_alone(job, files):
    options = [*SMALL_MODEL, "--max-iter", "1"]
    assert job.run(files / "r.parquet", *options)[0] == 0
    before = snapshot(job.output)
    status, err = job.run(files / "r.parquet", "--resume", *options)
    assert status == 0
    assert "is complete already" in err
    assert snapshot(job.output) == before
    assert "rank was 3, is 5" in job.refuse(
        files / "r.parquet", "--resume", *options, "--rank", "5"
    )
    assert "is there already; choose another --output" in job.refuse(
        files / "r.parquet", *options
    )


@needs_spark
def test_a_killed_process_is_resumed_by_another(job, files):
    command = [sys.executable, str(PROGRAM), "--ratings", str(files / "r.jsonl")]
    command += ["--output", str(job.output), *SMALL_MODEL]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr:
            if "model: started" in line:
                os.killpg(process.pid, 9)
                break
    assert process.wait() == -9
    assert not job.output.exists()
    status, err = job.run(files / "r.jsonl", *SMALL_MODEL, "--resume")
    assert status == 0
    assert "split: taken from the earlier run" in err
    assert "model: done" in err
    assert (job.output / "report.json").exists()


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
        (("u", "i", 4), "1 of 10 rows cannot be parsed, for example u,i,4;"),
        (("u", "i", 4, 1, 9), "1 of 10 rows cannot be parsed"),
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
    for name in vars(train_als.parse_arguments(["--ratings", "r", "--output", "o"])):
        assert f"--{name.replace('_', '-')} " in text.replace("]", " ")
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

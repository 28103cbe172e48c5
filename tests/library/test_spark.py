"""Spark is quiet and gives the same numbers again.

Sessions are started in processes of their own.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from als_course import spark
from als_course.java import JavaError, find_java
from als_course.storage import cache_folder

BOOK = Path(spark.__file__).parents[1]
SESSION_TIMEOUT = 300  # seconds; far more than any of them needs


def test_a_setting_by_another_name_than_sparks_is_refused():
    with pytest.raises(ValueError, match="'master' is no setting of Spark"):
        spark.get_spark(master="local[1]")


def test_spark_submit_keeps_the_last_word(monkeypatch):
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "12345")
    with pytest.raises(RuntimeError, match="started by spark-submit"):
        spark.get_spark()


@pytest.fixture(scope="module")
def real_java():
    """The Java of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALS_COURSE_OFFLINE", "1")
        try:
            return find_java()
        except JavaError:
            pytest.skip("install Java 17 or newer")


def run(folder, code, **variables):
    """Run a program in an empty folder; return its answer, which is all it prints."""
    (folder / "work").mkdir(parents=True)
    (folder / "cache").mkdir()
    for archive in cache_folder().glob("*.jsa"):
        (folder / "cache" / archive.name).symlink_to(archive)
    ours = {"PYTHONPATH": str(BOOK), "ALS_COURSE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder / "work",
        env=os.environ | ours | variables,
        capture_output=True,
        text=True,
        timeout=SESSION_TIMEOUT,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1, done.stdout
    assert list((folder / "work").iterdir()) == []
    return json.loads(done.stdout)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


FIT = """
import json, os
import numpy as np
from als_course.spark import SHORT_LIVED, get_spark
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.recommendation import ALS

before = dict(os.environ)
few_rows = {
    "spark.sql.codegen.wholeStage": False,
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": SHORT_LIVED,
}
spark = get_spark(**few_rows)
rng = np.random.default_rng(0)
pairs = rng.permutation(60 * 40)[:1500]
liking = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 40))
rows = [(int(p // 40), int(p % 40), float(liking.flat[p])) for p in pairs]
schema = "user int, item int, rating float"
train = spark.createDataFrame(rows[:1200], schema)
test = spark.createDataFrame(rows[1200:], schema)
model = ALS(
    rank=3, maxIter=4, regParam=0.1, seed=0, userCol="user", itemCol="item",
    numUserBlocks=2, numItemBlocks=2, coldStartStrategy="drop",
).fit(train)
rmse = RegressionEvaluator(labelCol="rating").evaluate(model.transform(test))
top = model.recommendForAllUsers(5).orderBy("user").collect()
answer = {
    "rmse": rmse,
    "mean": float(np.std([rating for _, _, rating in rows[1200:]])),
    "top": [[row.user, [item for item, _ in row.recommendations]] for row in top],
    "master": spark.sparkContext.master,
    "epoch": spark.sql("SELECT string(timestamp_seconds(0))").first()[0],
    "address": spark.conf.get("spark.driver.host"),
    "partitions": spark.range(8).rdd.getNumPartitions(),
    "after a shuffle": spark.conf.get("spark.sql.shuffle.partitions"),
    "java": spark.sparkContext._gateway.proc.pid,
    "environment kept": {
        name: before.get(name) == os.environ.get(name)
        for name in ("JAVA_HOME", "SPARK_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")
    },
}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def fits(real_java, tmp_path_factory):
    """The same fit with 1, 2 (the default) and 4 threads, on three awkward machines."""
    folder = tmp_path_factory.mktemp("fits")
    found = {"PATH": str(real_java / "bin") + os.pathsep + os.environ["PATH"]}
    machines = {
        "local[1]": {"SPARK_MASTER": "local[1]", "JAVA_HOME": "/gone", **found},
        "local[2]": {
            "SPARK_MASTER": "",
            "TZ": "America/New_York",
            "PYTHONWARNINGS": "error",
        },
        "local[4]": {
            "SPARK_MASTER": "local[4]",
            "SPARK_HOME": "/gone",
            "PYSPARK_PYTHON": "/gone/python",
            "PYSPARK_DRIVER_PYTHON": "/gone/jupyter",
        },
    }
    with ThreadPoolExecutor(2) as pool:
        started = {
            master: pool.submit(run, folder / master, FIT, **variables)
            for master, variables in machines.items()
        }
    return {master: future.result() for master, future in started.items()}


@pytest.mark.weekly
def test_spark_master_says_where_the_work_is_done(fits):
    assert {master: fit["master"] for master, fit in fits.items()} == {
        master: master for master in fits
    }


@pytest.mark.weekly
def test_the_number_of_threads_changes_neither_rmse_nor_recommendations(fits):
    one, two, four = fits.values()
    assert one["rmse"] < 0.5 * one["mean"]  # it has learnt something
    assert two["rmse"] == pytest.approx(one["rmse"], abs=1e-6)
    assert four["rmse"] == pytest.approx(one["rmse"], abs=1e-6)
    assert len(one["top"]) == 60
    assert one["top"] == two["top"] == four["top"]


@pytest.mark.weekly
def test_the_number_of_threads_does_not_change_the_partitions(fits):
    assert {(fit["partitions"], fit["after a shuffle"]) for fit in fits.values()} == {
        (2, "4")
    }


@pytest.mark.weekly
def test_times_are_in_utc_wherever_the_reader_is(fits):
    assert {fit["epoch"] for fit in fits.values()} == {"1970-01-01 00:00:00"}


@pytest.mark.weekly
def test_spark_listens_on_loopback_only(fits):
    assert {fit["address"] for fit in fits.values()} == {"127.0.0.1"}


@pytest.mark.weekly
def test_the_end_of_python_ends_java(fits):
    for fit in fits.values():
        assert not is_running(fit["java"])


@pytest.mark.weekly
def test_the_environment_is_left_as_it_was(fits):
    for fit in fits.values():
        assert all(fit["environment kept"].values()), fit["environment kept"]


LIFE = """
import json, os
from als_course.java import JavaError
from als_course.spark import get_spark, stop_spark

def memory():
    runtime = getattr(spark._jvm, "java.lang.Runtime").getRuntime()
    return runtime.maxMemory() / 2**20

def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True

def refused(error, **conf):
    try:
        get_spark(**conf)
    except error as caught:
        return str(caught)

stop_spark()
answer = {"no start": refused(JavaError, **{"spark.driver.memory": "much"})}
with get_spark() as spark:
    answer["same"] = get_spark() is spark and get_spark("other name") is spark
    answer["other"] = refused(RuntimeError, **{"spark.sql.shuffle.partitions": 7})
    answer["memory"] = [memory()]
    answer["folder"] = spark.conf.get("spark.sql.warehouse.dir").removeprefix("file:")
    answer["java"] = [spark.sparkContext._gateway.proc.pid]
    spark.range(3).write.saveAsTable("numbers")
    answer["tables"] = os.listdir(answer["folder"])
spark = get_spark(**{"spark.driver.memory": "1g", "spark.speculation": True})
answer["memory"].append(memory())
answer["flag"] = spark.conf.get("spark.speculation")
answer["java"].append(spark.sparkContext._gateway.proc.pid)
stop_spark()
stop_spark()
answer["java runs"] = [runs(process) for process in answer["java"]]
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def life(real_java, tmp_path_factory):
    """A process that starts, reuses and stops sessions."""
    return run(tmp_path_factory.mktemp("life") / "it", LIFE)


def test_a_running_session_is_given_again(life):
    assert life["same"]


def test_a_running_session_with_other_settings_is_an_error(life):
    assert "spark.sql.shuffle.partitions is 4, wanted 7. Call" in life["other"]
    assert "spark.driver" not in life["other"]


def test_a_new_session_after_a_stopped_one_has_its_own_settings(life):
    assert life["memory"] == pytest.approx([2048, 1024], rel=0.05)
    assert life["flag"] == "true"


def test_stop_spark_ends_every_java_that_was_started(life):
    assert len(set(life["java"])) == 2
    assert life["java runs"] == [False, False]


def test_tables_are_written_elsewhere_and_removed(life):
    assert life["tables"] == ["numbers"]
    assert not Path(life["folder"]).exists()


def test_a_java_that_does_not_start_spark_shows_the_end_of_the_log(life):
    assert "Java did not start Spark. The last lines of" in life["no start"]
    assert "much" in life["no start"]


@pytest.mark.weekly
def test_nothing_of_java_reaches_a_notebook(real_java, tmp_path, monkeypatch):
    ours = {"PYTHONPATH": str(BOOK), "ALS_COURSE_CACHE": str(tmp_path / "cache")}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    cells = [
        "from pyspark.sql import functions as F\n"
        "from als_course.spark import get_spark, stop_spark\n"
        "spark = get_spark()",
        "print(spark.range(10**6).groupBy(F.col('id') % 7).count().count())",
        "try:\n"
        "    spark.range(3).select(1 / F.col('id')).collect()\n"
        "except ArithmeticError:\n"
        "    print('divided by zero')\n"
        "except Exception as error:\n"
        "    print(error.getCondition())",
        "stop_spark()",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SESSION_TIMEOUT,
        resources={"metadata": {"path": str(tmp_path / "work")}},
    ).execute()
    shown = [
        [(output.output_type, output.get("name"), output.get("text")) for output in c]
        for c in (cell.outputs for cell in notebook.cells)
    ]
    assert shown == [
        [],
        [("stream", "stdout", "7\n")],
        [("stream", "stdout", "DIVIDE_BY_ZERO\n")],
        [],
    ]
    assert list((tmp_path / "work").iterdir()) == []
    # It was said, but elsewhere: else the test would have nothing to find.
    said = (tmp_path / "cache" / "spark.log").read_text("utf-8")
    assert "WARNING: Using incubator modules" in said
    assert "DIVIDE_BY_ZERO" in said

"""A real Spark cluster on loopback: it survives a killed worker and leaves nothing."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from als_course.spark import SHORT_LIVED

JOBS = Path(__file__).resolve().parents[2] / "book" / "jobs"
TRAIN = JOBS / "train_als.py"
CLUSTER = JOBS / "local_cluster.py"
N_RATINGS = 1_000_000
N_USERS, N_ITEMS = N_RATINGS // 100, 1_000
NOISE = 0.25  # the ratings' noise is uniform between -NOISE and NOISE

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not (shutil.which("java") or os.environ.get("JAVA_HOME")),
    reason="the cluster needs Linux or macOS, with Java 17: install it",
)

# Every column is a function of the row's number alone, so that a lost part comes back
# equal. The mean of each user and item is 3: the baselines learn nothing, while the
# cosine of a difference is a product of two factors each.
GENERATE = f"""
import sys
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate().sql('''
    WITH draws AS (
        SELECT id AS time, pmod(xxhash64(id, 1), {N_USERS}) AS u,
            pmod(xxhash64(id, 2), {N_ITEMS}) AS i,
            pmod(xxhash64(id, 3), 1000) / 999 AS x
        FROM range(0, {N_RATINGS}, 1, 4))
    SELECT concat('u', u) AS user_id, i AS item_id, time AS timestamp,
        3 + cos(2.4 * u - 1.7 * i) + {NOISE} * (2 * x - 1) AS rating
    FROM draws''').write.parquet(sys.argv[1])
"""
OPTIONS = [
    "--split", "hash", "--rank", "8", "--max-iter", "6", "--reg-param", "0.01",
    "--blocks", "4", "--checkpoint-interval", "2", "--top-n", "5",
]  # fmt: skip
# A shell lets what it starts in the background ignore interrupts.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
QUICK = {
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.extraJavaOptions": SHORT_LIVED,
    "spark.executor.extraJavaOptions": SHORT_LIVED,
}


def load_program():
    spec = importlib.util.spec_from_file_location("local_cluster", CLUSTER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


local_cluster = load_program()


@pytest.fixture
def processes(monkeypatch):
    """Commands of what the test has started and still runs, by a mark they inherit."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("ALS_COURSE_TEST", mark)

    def find():
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("ALS_COURSE_TEST") == mark
                if ours and process.pid != os.getpid():
                    found.append(" ".join(process.cmdline()))
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue  # another's, or gone while we looked
        return found

    yield find
    assert not find(), "these were started and not stopped"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Ratings in Parquet, and the result of a run without disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    environment = os.environ | {
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --driver-memory 2g "
        f"--driver-java-options '{SHORT_LIVED}' pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    ratings, output = folder / "ratings.parquet", folder / "out"
    train = [str(TRAIN), "--ratings", str(ratings), "--output", str(output), *OPTIONS]
    for program in (["-c", GENERATE, str(ratings)], train):
        run = subprocess.run(
            [sys.executable, *program], env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
    return ratings, output


def report_in(output):
    return json.loads((output / "report.json").read_text("utf-8"))


def executors_in(commands):
    """Ids of the executors; a child that one starts has, at first, its command too."""
    pattern = r"CoarseGrainedExecutorBackend.*--executor-id (\d+)"
    return set(re.findall(pattern, "\n".join(commands)))


def wait_until(condition, seconds, driver):
    """Wait for a condition while a driver runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, "the program ended too early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


@pytest.mark.weekly
def test_a_killed_worker_and_a_killed_driver_change_nothing(
    generated, processes, tmp_path, monkeypatch
):
    """The worker dies in the first fit, the driver in the second; another resumes."""
    signalled = []

    def note_and_kill(group, number, killpg=os.killpg):
        signalled.append(group)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", note_and_kill)
    ratings, there = generated
    undisturbed = report_in(there)
    output, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    command = [str(TRAIN), "--ratings", str(ratings), "--output", str(output), *OPTIONS]
    command += ["--checkpoint-dir", str(checkpoints)]
    with local_cluster.LocalCluster(workers=2, memory="1500m") as cluster:
        driver = cluster.submit(command, QUICK)
        wait_until(lambda: any(checkpoints.glob("*/*/rdd-*")), 400, driver)
        before = executors_in(processes())
        assert len(before) == 2
        cluster.kill_worker(0)
        log = cluster.log_of("driver-0")
        assert "tested_model: done" not in log, "killed after training"
        assert cluster.running() == ["master", "worker-1", "driver-0"]
        assert len(executors_in(processes()) & before) == 1
        second = "train_als: model: started"
        wait_until(lambda: second in cluster.log_of("driver-0"), 600, driver)
        assert local_cluster.LOST in cluster.log_of("driver-0")
        os.killpg(driver.pid, signal.SIGKILL)
        assert driver.wait(timeout=30) == -signal.SIGKILL
        assert not output.exists()
        command += ["--resume", "--compare", str(there)]
        driver = cluster.submit(command, QUICK)
        assert driver.wait(timeout=600) == 0, cluster.log_of("driver-1")
        log = cluster.log_of("driver-1")
        assert "tested_model: taken from the earlier run" in log
        assert "train_als: model: done" in log
    # The numbers of the dead may belong to strangers by now.
    assert signalled.count(cluster.processes["worker-0"].pid) == 1
    assert driver.pid not in signalled
    assert not any(checkpoints.iterdir()), "a checkpoint is left"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "checkpoints"}
    report = report_in(output)
    assert report["lists"]["overlap"]["users"] == N_USERS
    # Scores that differ in their last digits may change places, or the tenth item.
    assert report["lists"]["overlap"]["mean"] > 0.999
    assert report["counts"] == undisturbed["counts"]
    assert report["counts"]["rows"] == N_RATINGS
    assert report["test_not_scored"] == undisturbed["test_not_scored"]
    for kind in ("rmse", "ranking", "paired"):
        assert report[kind].keys() == undisturbed[kind].keys()
        for model, wanted in undisturbed[kind].items():
            assert report[kind][model] == pytest.approx(wanted, abs=1e-3), (kind, model)
    # Between the noise and the baseline, much nearer to the noise.
    floor, baseline = NOISE / 3**0.5, report["rmse"]["biases"]["scored"]
    assert 0.7 < baseline < 0.8
    assert floor < report["rmse"]["als"]["scored"] < 0.5 * baseline


@pytest.mark.weekly
def test_a_failing_program_and_an_error_leave_nothing(processes, tmp_path):
    command = [str(TRAIN), "--ratings", "/no/such.csv", "--output", str(tmp_path / "o")]
    cluster = local_cluster.LocalCluster(workers=1, folder=tmp_path)

    def use_it():
        with cluster:
            assert cluster.url.startswith("spark://127.0.0.1:")
            assert cluster.submit(command).wait(timeout=120) == 2
            misplaced = [*command, "--master", "local"]
            assert cluster.submit(misplaced).wait(timeout=120) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_it()
    assert not cluster.running()
    log = cluster.log_of("driver-0")
    assert "train_als.py: error: there is no file:/no/such.csv" in log
    assert "Traceback" not in log
    assert "\tat " not in log
    assert "give --master to spark-submit" in cluster.log_of("driver-1")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.weekly)]
)
def test_an_interrupted_cluster_leaves_nothing(processes, tmp_path, number):
    sleep = tmp_path / "sleep.py"
    sleep.write_text("import time\nprint('asleep', flush=True)\ntime.sleep(600)\n")
    command = [str(CLUSTER), "--workers", "1", "--", str(sleep), "--x"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # logs stay after a failure
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *command],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as program:
        for line in program.stdout:
            if line.startswith("asleep"):
                break
        try:
            assert len(processes()) >= 4, "a cluster, a driver and our program"
            program.send_signal(number)
            assert program.wait(timeout=60) != 0
        finally:
            program.terminate()


def test_a_cluster_that_cannot_start_says_why(processes, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with (
        pytest.raises(local_cluster.ClusterError, match="Java 17 or newer"),
        local_cluster.LocalCluster(folder=tmp_path),
    ):
        pytest.fail("there is no Java")

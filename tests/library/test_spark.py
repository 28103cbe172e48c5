"""Java is found or fetched, and Spark is quiet and gives the same numbers again.

The search meets made-up Javas, which are shell scripts, and a web server on loopback
in the place of the download site. Sessions are started in processes of their own.
"""

import functools
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cjdk
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import faultserver
from als_course import spark
from als_course.spark import JavaError
from faultserver import FaultServer

BOOK = Path(spark.__file__).parents[1]
COMMANDS = ["sudo apt install", "sudo dnf install", "brew install", "winget install"]
SESSION_TIMEOUT = 300  # seconds; far more than any of them needs

# -- made-up Javas ------------------------------------------------------------------

# It needs no other program, so it works with an empty PATH.
SCRIPT = """#!/bin/sh
case "$*" in
*--list-modules*) echo java.base@{version}; echo {module}@{version} ;;
*-version*) echo "    java.home = ${{0%/bin/java}}" >&2
            echo 'openjdk version "{version}" 2023-10-17' >&2 ;;
*) exit 3 ;;
esac
"""


def script(version="17.0.9", module="jdk.incubator.vector"):
    return SCRIPT.format(version=version, module=module)


def java(home, text=None, mode=0o755):
    """Put a java into a folder, and return the folder."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(text or script(), "utf-8")
    program.chmod(mode)
    return home


def path_of(*homes):
    return os.pathsep.join(str(home / "bin") for home in homes)


@pytest.fixture
def machine(tmp_path, monkeypatch, caplog):
    """A machine without Java and without a network; gives a folder to put some in."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    monkeypatch.setattr(spark, "JAVA_TIMEOUT", 5)
    caplog.set_level(logging.INFO, "als_course.spark")
    return tmp_path


OLD = "#!/bin/sh\necho 'java version \"1.8.0_392\"' >&2\n"  # as Java 8 says it
BROKEN = {
    "exits": ("#!/bin/sh\necho no libjvm.so >&2\nexit 1\n", "status 1", "no libjvm.so"),
    "is-silent": ("#!/bin/sh\n", "does not say its version"),
    "is-no-program": ("\0\0\0\0", "cannot be run"),
    "is-java-8": (OLD, "Java 8, older than 17"),
    "is-java-11": (script("11.0.21"), "Java 11, older than 17"),
    "lacks-the-module": (script(module="java.sql"), "lacks the module jdk.incubator"),
    "hides-its-home": (
        script().replace("java.home", "user.home"),
        "does not say its java.home",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("where", ["JAVA_HOME", "PATH"])
def test_a_java_that_will_not_do_is_skipped_with_the_reason(
    machine, monkeypatch, caplog, kind, where
):
    text, *reasons = BROKEN[kind]
    broken, good = java(machine / "broken", text), java(machine / "good")
    if where == "JAVA_HOME":
        monkeypatch.setenv("JAVA_HOME", str(broken))
        monkeypatch.setenv("PATH", path_of(good))
    else:
        monkeypatch.setenv("PATH", path_of(broken, good))
    assert spark.find_java() == good
    (skipped,) = [line for line in caplog.messages if line.startswith("Not ")]
    assert str(broken) in skipped
    for reason in reasons:
        assert reason in skipped


@pytest.mark.parametrize("kind", ["no-folder", "a-file", "empty", "not-executable"])
def test_a_java_home_without_a_java_is_skipped(machine, monkeypatch, caplog, kind):
    home = machine / "home"
    if kind == "a-file":
        home.write_text("not a folder")
    elif kind == "empty":
        (home / "bin").mkdir(parents=True)
    elif kind == "not-executable":
        java(home, mode=0o644)
    good = java(machine / "good")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(good))
    assert spark.find_java() == good
    assert f"Not JAVA_HOME={home}: {home / 'bin'} holds no program java" in caplog.text


def test_a_java_that_hangs_is_given_up(machine, monkeypatch, caplog):
    monkeypatch.setattr(spark, "JAVA_TIMEOUT", 0.5)
    hanging = java(machine / "hanging", "#!/bin/sh\nexec /bin/sleep 60\n")
    good = java(machine / "good")
    monkeypatch.setenv("JAVA_HOME", str(hanging))
    monkeypatch.setenv("PATH", path_of(hanging, good))
    started = time.monotonic()
    assert spark.find_java() == good
    assert time.monotonic() - started < 10
    assert caplog.text.count("gave no answer in 0.5 seconds") == 1  # not asked twice


def test_java_home_comes_before_the_path(machine, monkeypatch):
    home, other = java(machine / "home"), java(machine / "other")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(other))
    assert spark.find_java() == home


def test_java_8_in_front_does_not_hide_the_java_in_java_home(machine, monkeypatch):
    home = java(machine / "home")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", path_of(java(machine / "old", OLD)))
    assert spark.find_java() == home


@pytest.mark.parametrize("version", ["17", "17.0.9", "21.0.5", "25-ea"])
def test_17_and_everything_newer_will_do(machine, monkeypatch, version):
    good = java(machine / "good", script(version))
    monkeypatch.setenv("PATH", path_of(good))
    assert spark.find_java() == good


def test_a_script_on_the_path_leads_to_the_home_of_what_it_runs(machine, monkeypatch):
    good = java(machine / "good")
    shim = java(machine / "shims", f'#!/bin/sh\nexec "{good}/bin/java" "$@"\n')
    monkeypatch.setenv("PATH", path_of(shim))
    assert spark.find_java() == good


def test_without_any_java_the_error_lists_all_that_was_tried(machine, monkeypatch):
    old, broken = (
        java(machine / "old", OLD),
        java(machine / "broken", BROKEN["exits"][0]),
    )
    monkeypatch.setenv("JAVA_HOME", str(machine / "gone"))
    monkeypatch.setenv("PATH", path_of(old, broken))
    with pytest.raises(JavaError) as caught:
        spark.find_java()
    said = str(caught.value).splitlines()
    tried = [line for line in said if line.startswith("  - ")]
    assert "Java 17 or newer with the module jdk.incubator.vector" in said[0]
    assert f"JAVA_HOME={machine / 'gone'}" in tried[0]
    assert f"{old}/bin/java on the PATH: it is Java 8" in tried[1]
    assert "ended with status 1" in tried[2]
    assert "download: not tried, ALS_COURSE_OFFLINE is set" in tried[3]
    for command in COMMANDS:
        assert any(command in line for line in said), command


# -- the download site --------------------------------------------------------------


def archive(text=None, name="jdk-17.0.9+9/bin/java"):
    """A packed Java, padded so that half of it is well inside."""
    packed = io.BytesIO()
    noise = np.random.default_rng(0).bytes(100_000)
    members = {name: (text or script()).encode(), "jdk-17.0.9+9/lib/modules": noise}
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o755
            file.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def index(url, vendor="adoptium"):
    releases = {f"jdk@{vendor}": {"1.17.0.9": url, "1.8.0.392": url + ".old"}}
    systems = ("linux", "darwin", "windows")
    return json.dumps(
        {system: {"amd64": releases, "arm64": releases} for system in systems}
    ).encode()


@pytest.fixture
def site(machine, monkeypatch):
    """A healthy download site on loopback, which a test may spoil."""
    monkeypatch.delenv("ALS_COURSE_OFFLINE")
    insecure = functools.partial(cjdk.java_home, _allow_insecure_for_testing=True)
    monkeypatch.setattr(cjdk, "java_home", insecure)
    monkeypatch.setattr(spark, "TIMEOUT", 0.5)
    # The bars hold on to the stderr that was there when they were imported.
    monkeypatch.setenv("CJDK_HIDE_PROGRESS_BARS", "1")
    with FaultServer() as server:
        monkeypatch.setenv("CJDK_INDEX_URL", server.url("/index.json"))
        mend(server)
        yield server


def mend(server):
    packed = "tgz+" + server.url("/java.tar.gz")
    server.answers["/index.json"] = faultserver.content(index(packed))
    server.answers["/java.tar.gz"] = faultserver.content(archive())


def test_java_is_fetched_once_and_then_needs_no_network(machine, site, monkeypatch):
    home = spark.find_java()
    assert home == machine / "cache" / "java-17"
    assert os.access(home / "bin" / "java", os.X_OK)
    assert site.asked == ["/index.json", "/java.tar.gz"]
    site.answers.clear()
    assert spark.find_java() == home
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    assert spark.find_java() == home
    assert len(site.asked) == 2
    assert [path.name for path in (machine / "cache").iterdir()] == ["java-17"]


def test_a_download_shows_its_progress(machine, site, monkeypatch):
    monkeypatch.delenv("CJDK_HIDE_PROGRESS_BARS")
    monkeypatch.setenv("PYTHONPATH", str(BOOK))
    code = (
        "import cjdk, functools; from als_course import spark;"
        "cjdk.java_home = functools.partial("
        "    cjdk.java_home, _allow_insecure_for_testing=True);"
        "raise SystemExit(spark.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"Java for Spark: {machine / 'cache' / 'java-17'}\n"
    assert "Installing JDK adoptium:1.17.0.9" in done.stderr
    assert re.search(r"Download\W.*100%", done.stderr)


@pytest.mark.parametrize("path", ["/index.json", "/java.tar.gz"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faultserver.status(404), "404"),
        (faultserver.status(503), "503"),
        (faultserver.html_page(), "Invalid|invalid|not a gzip file"),
        (faultserver.content(b""), "Invalid|empty file"),
        (faultserver.content("é".encode() * 99), "codec|not a gzip file"),
        (faultserver.content(archive()[:60_000]), "codec|end|Invalid"),
        (faultserver.breaks_off(archive(), 60_000), "broken|IncompleteRead"),
        (faultserver.hangs(archive(), 60_000), "timed out"),
        (faultserver.hangs(), "timed out"),
    ],
    ids=[
        "404",
        "503",
        "page",
        "empty",
        "bytes",
        "cut",
        "breaks-off",
        "stalls",
        "hangs",
    ],
)
def test_a_failed_download_is_a_clear_error_and_leaves_nothing(
    machine, site, path, fault, reason
):
    site.answers[path] = fault
    with pytest.raises(JavaError, match=f"- download: .*({reason})") as caught:
        spark.find_java()
    for command in COMMANDS:
        assert command in str(caught.value)
    assert list((machine / "cache").iterdir()) == []
    mend(site)
    assert spark.find_java() == machine / "cache" / "java-17"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (archive(BROKEN["exits"][0]), "status 1"),
        (archive(OLD), "older than 17"),
        (archive(script(module="java.sql")), "lacks the module"),
        (archive(name="jdk-17.0.9+9/readme"), "does not look like it contains a JDK"),
    ],
    ids=["broken", "old", "trimmed", "no-java"],
)
def test_a_fetched_java_that_will_not_do_is_not_kept(machine, site, packed, reason):
    site.answers["/java.tar.gz"] = faultserver.content(packed)
    with pytest.raises(JavaError, match=f"- download: .*{reason}"):
        spark.find_java()
    assert list((machine / "cache").iterdir()) == []


def test_a_machine_that_nobody_builds_java_for_is_told_so(site):
    other = index(site.url("/java.tar.gz"), vendor="zulu")
    site.answers["/index.json"] = faultserver.content(other)
    with pytest.raises(JavaError, match="No adoptium JDK is available for"):
        spark.find_java()


def test_a_refused_connection_is_a_clear_error(machine, site, monkeypatch):
    monkeypatch.setenv("CJDK_INDEX_URL", "http://127.0.0.1:9/index.json")
    with pytest.raises(JavaError, match="Connection refused") as caught:
        spark.find_java()
    assert all(command in str(caught.value) for command in COMMANDS)


def test_a_cached_java_that_broke_is_fetched_anew(machine, site):
    home = spark.find_java()
    (home / "bin" / "java").unlink()
    assert spark.find_java() == home
    assert (home / "bin" / "java").exists()
    assert [path.name for path in (machine / "cache").iterdir()] == ["java-17"]


def test_a_cache_that_cannot_be_written_is_named(machine, site, monkeypatch):
    (machine / "file").write_text("")
    monkeypatch.setenv("ALS_COURSE_CACHE", str(machine / "file" / "cache"))
    with pytest.raises(JavaError, match="download: cannot write in the cache"):
        spark.find_java()


def test_the_command_prints_the_folder_or_the_error(machine, monkeypatch, capsys):
    assert spark.main() == 1
    assert "sudo apt install" in capsys.readouterr().err
    monkeypatch.setenv("PATH", path_of(java(machine / "good")))
    assert spark.main() == 0
    assert capsys.readouterr().out == f"Java for Spark: {machine / 'good'}\n"


# -- sessions -----------------------------------------------------------------------


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
            return spark.find_java()
        except JavaError:
            pytest.skip("install Java 17 or newer")


def run(folder, code, **variables):
    """Run a program in an empty folder; return its answer, which is all it prints."""
    (folder / "work").mkdir(parents=True)
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
from als_course.spark import get_spark
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.recommendation import ALS

before = dict(os.environ)
spark = get_spark()
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


def test_spark_master_says_where_the_work_is_done(fits):
    assert {master: fit["master"] for master, fit in fits.items()} == {
        master: master for master in fits
    }


def test_the_number_of_threads_changes_neither_rmse_nor_recommendations(fits):
    one, two, four = fits.values()
    assert one["rmse"] < 0.5 * one["mean"]  # it has learnt something
    assert two["rmse"] == pytest.approx(one["rmse"], abs=1e-6)
    assert four["rmse"] == pytest.approx(one["rmse"], abs=1e-6)
    assert len(one["top"]) == 60
    assert one["top"] == two["top"] == four["top"]


def test_the_number_of_threads_does_not_change_the_partitions(fits):
    assert {(fit["partitions"], fit["after a shuffle"]) for fit in fits.values()} == {
        (2, "4")
    }


def test_times_are_in_utc_wherever_the_reader_is(fits):
    assert {fit["epoch"] for fit in fits.values()} == {"1970-01-01 00:00:00"}


def test_spark_listens_on_loopback_only(fits):
    assert {fit["address"] for fit in fits.values()} == {"127.0.0.1"}


def test_the_end_of_python_ends_java(fits):
    for fit in fits.values():
        assert not is_running(fit["java"])


def test_the_environment_is_left_as_it_was(fits):
    for fit in fits.values():
        assert all(fit["environment kept"].values()), fit["environment kept"]


LIFE = """
import json, os
from als_course.spark import JavaError, get_spark, stop_spark

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

"""One quiet, reproducible Spark session.

``spark = get_spark()`` starts Spark on this machine, or gives the session that runs
already. It ends with the Python process; `stop_spark` ends it earlier. What Java has to
say goes to the file ``spark.log`` in the cache folder (``ALS_COURSE_CACHE``, or the
usual place of the operating system), never into a notebook.

``python -m als_course.spark`` writes an archive of the classes that Spark loads into
the cache (170 MB); with it a session starts in about half the time.
"""

import atexit
import hashlib
import logging
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from als_course.java import JavaError, find_java
from als_course.storage import CacheError, cache_folder, staging

__all__ = ["archive_option", "get_spark", "stop_spark"]

STOP_TIMEOUT = 120.0  # seconds for Java to end, and to write an archive before

# A file that does not exist: another machine's native library would round otherwise.
NO_NATIVE_BLAS = " ".join(
    f"-Ddev.ludovic.netlib.{part}.nativeLib=none.so" for part in ("blas", "lapack")
)
# A simple collector starts at once; the many steps of an ALS fit need more stack.
SMALL = "-XX:+UseSerialGC -Xss4m"
# Several times slower where a fit computes, as nonnegative least squares does.
SHORT_LIVED = f"-XX:TieredStopAtLevel=1 {SMALL}"
# They repeat as JSON on stderr what the exception says anyway.
ECHOING_LOGGERS = ("DataFrameQueryContextLogger", "SQLQueryContextLogger")

_running = ExitStack()  # what `stop_spark` undoes, the last thing first


# -- the public functions -----------------------------------------------------------


def get_spark(app_name="als-course", short_lived=False, **conf):
    """Start a quiet Spark session whose results can be had again, or give the running.

    Parameters
    ----------
    app_name : str
        What Spark calls the session. A running session keeps its name.
    short_lived : bool
        Whether Java compiles each method once and not better and better, which is
        quicker where all rows are few and slower where a fit computes for long.
    **conf
        Settings by Spark's own names, which replace those below:
        ``get_spark(**{"spark.driver.memory": "4g"})``.

    Returns
    -------
    pyspark.sql.SparkSession
        Works in a ``with`` block as well, which stops it at the end.

    Raises
    ------
    JavaError
        No Java that can run Spark was found or could be fetched, or it did not start.
    als_course.storage.CacheError
        The cache folder, where the log goes, cannot be written.
    RuntimeError
        A session with other settings runs already, or ``spark-submit`` runs this
        program and has chosen the settings.
    ValueError
        A setting's name does not begin with "spark.".

    Notes
    -----
    The environment variable ``SPARK_MASTER`` says where the work is done; unless set,
    two threads of this process do it (``local[2]``). Spark listens at the address in
    ``SPARK_LOCAL_IP``, unless set at 127.0.0.1, which nobody else can reach; the
    workers of a cluster on other machines need one that they can. Pinned are the
    partitions (2 by default, 4 after a shuffle), the session's time zone (UTC), the
    driver's memory (2 GB), and BLAS in Java rather than the machine's own. Tables are
    written to a temporary folder. The settings are explained on
    https://spark.apache.org/docs/latest/configuration.html.

    ``collect`` gives times in the time zone of Python, as PySpark always does; ``show``
    and ``toPandas`` give them in UTC.
    """
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        raise RuntimeError(
            "this program was started by spark-submit, whose command line decides the "
            "settings; use pyspark.sql.SparkSession.builder.getOrCreate() instead"
        )
    java = f"{NO_NATIVE_BLAS} {SHORT_LIVED if short_lived else SMALL}"
    settings = _settings(app_name, {"spark.driver.extraJavaOptions": java} | conf)
    running = SparkSession.getActiveSession()
    if running is None:
        return _start(settings)
    _require_same(running, settings)
    return running


def stop_spark():
    """End the session and its Java; where none runs, do nothing.

    Python does so by itself when it ends. Settings of Java, such as
    ``spark.driver.memory``, can change only with a new one.
    """
    _running.close()


def archive_option(home=None):
    """Return the option of Java that uses the archive of classes, or "" without one.

    A program that is started by ``spark-submit`` may be given it, too, by
    ``--driver-java-options``. Java passes over an archive that does not fit.

    Parameters
    ----------
    home : pathlib.Path, optional
        The folder of the Java, as `find_java` gives it.

    Returns
    -------
    str
    """
    path = _archive(home or find_java())
    return f'-XX:SharedArchiveFile="{path}"' if path.exists() else ""


def main():
    """Write the archive of classes, unless it is there; return the exit status.

    Returns
    -------
    int
    """
    path = _archive(find_java())
    if path.exists():
        print(f"{path} is there already")
        return 0
    with staging() as folder:
        part = folder / path.name
        options = f'{NO_NATIVE_BLAS} {SMALL} -XX:ArchiveClassesAtExit="{part}"'
        with get_spark(**{"spark.driver.extraJavaOptions": options}) as spark:
            _use(spark)
        stop_spark()
        if not part.exists():
            print("this Java writes no archive of classes; Spark starts without one")
            return 0
        part.replace(path)
    print(f"{path} is written; Spark starts quicker with it")
    return 0


# -- the session --------------------------------------------------------------------


def _settings(app_name, conf):
    address = os.environ.get("SPARK_LOCAL_IP") or "127.0.0.1"
    settings = {
        "spark.app.name": app_name,
        "spark.master": os.environ.get("SPARK_MASTER") or "local[2]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.default.parallelism": "2",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.session.timeZone": "UTC",
        # Arrow is not installed; PySpark would warn at every exchange with pandas.
        "spark.sql.execution.arrow.pyspark.enabled": "false",
        "spark.sql.catalogImplementation": "in-memory",  # Hive's litters the folder
        "spark.driver.memory": "2g",
        "spark.driver.host": address,
        "spark.driver.bindAddress": address,
        "spark.executor.extraJavaOptions": NO_NATIVE_BLAS,
    }
    for name, value in conf.items():
        if not name.startswith("spark."):
            raise ValueError(
                f"{name!r} is no setting of Spark: their names begin with 'spark.', as "
                "in get_spark(**{'spark.driver.memory': '4g'})"
            )
        settings[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return settings


def _archive(home):
    """Name the archive after all that it depends on: Java, Spark, and their places."""
    spark = Path(pyspark.__file__).parent
    release = home / "release"
    what = [home.resolve(), spark, pyspark.__version__]
    what += [release.read_bytes()] if release.exists() else []
    key = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    return cache_folder() / f"spark-classes-{key}.jsa"


def _use(spark):
    """Let Spark load what a page about ALS needs."""
    from pyspark.ml.recommendation import ALS

    rows = [
        (user, item, float((user * item) % 5)) for user in range(9) for item in range(9)
    ]
    ratings = spark.createDataFrame(rows, "user int, item int, rating float")
    with tempfile.TemporaryDirectory() as folder:
        ratings.write.parquet(f"{folder}/ratings")
        ratings = spark.read.parquet(f"{folder}/ratings").cache()
        settings = {"rank": 2, "maxIter": 2, "numUserBlocks": 2, "numItemBlocks": 2}
        model = ALS(**settings, seed=0).fit(ratings)
        model.transform(ratings).groupBy("user").count().orderBy("user").collect()
        model.recommendForAllUsers(2).collect()


def _require_same(running, settings):
    differences = []
    for name, wanted in settings.items():
        actual = running.conf.get(name, "not set")
        # Spark puts options of its own, or the "file:" of an address, in front.
        same = actual == wanted or actual.endswith((f" {wanted}", f":{wanted}"))
        if name != "spark.app.name" and not same:
            differences.append(f"{name} is {actual}, wanted {wanted}")
    if differences:
        raise RuntimeError(
            "a Spark session with other settings is running: "
            + "; ".join(differences)
            + ". Call als_course.spark.stop_spark() first, then get_spark again"
        )


def _start(settings):
    home = find_java()
    stop_spark()
    _stop_java()  # of a session that was started without get_spark and has ended
    for name in ECHOING_LOGGERS:
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL + 1)
    with ExitStack() as stack:
        tables = stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix="als-course-", ignore_cleanup_errors=True
            )
        )
        settings = {"spark.sql.warehouse.dir": tables} | settings
        options = settings["spark.driver.extraJavaOptions"]
        if "ArchiveClassesAtExit" not in options:
            # In front, as what is asked for must stand at the end: see _require_same.
            options = f"{archive_option(home)} {options}".strip()
        settings["spark.driver.extraJavaOptions"] = options
        conf = SparkConf().setAll(list(settings.items()))
        stack.callback(_stop_java)
        with mock.patch.dict(
            os.environ,
            JAVA_HOME=str(home),
            SPARK_HOME=str(Path(pyspark.__file__).parent),  # not an older one's
            SPARK_LOCAL_IP=settings["spark.driver.bindAddress"],
            PYSPARK_PYTHON=sys.executable,
            PYSPARK_DRIVER_PYTHON=sys.executable,
        ):
            gateway = _start_java(conf)
            session = SparkSession(SparkContext(conf=conf, gateway=gateway))
        stack.callback(session.stop)
        _running.callback(stack.pop_all().close)
    atexit.unregister(stop_spark)
    atexit.register(stop_spark)  # now, to come before what Spark itself registered
    return session


def _start_java(conf):
    """Start Java with its output, and that of all it starts, sent to the log file."""
    path = cache_folder() / "spark.log"
    with _open_log(path) as output:
        try:
            return launch_gateway(conf, {"stdout": output, "stderr": output})
        except PySparkRuntimeError as error:
            lines = path.read_text("utf-8", errors="replace").splitlines()
            raise JavaError(
                f"Java did not start Spark. The last lines of {path}:\n  "
                + "\n  ".join(lines[-10:])
            ) from error


def _open_log(path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        output = path.open("ab")  # several notebooks may write to it
        output.truncate(0)
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror}. Make room there, or set "
            "ALS_COURSE_CACHE to a folder that you may write in"
        ) from error
    return output


def _stop_java():
    # Private names of PySpark 4, read at 4.3: it offers no way to end its Java.
    gateway = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = None
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # for which Java waits
        gateway.proc.wait(STOP_TIMEOUT)


if __name__ == "__main__":
    sys.exit(main())

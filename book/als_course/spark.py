"""One quiet, reproducible Spark session, and the Java that it needs.

``spark = get_spark()`` starts Spark on this machine, or gives the session that runs
already. It ends with the Python process; `stop_spark` ends it earlier. What Java has to
say goes to the file ``spark.log`` in the cache folder (``ALS_COURSE_CACHE``, or the
usual place of the operating system), never into a notebook.

Spark is a Java program. `find_java` looks for one in ``JAVA_HOME``, on the ``PATH``, in
the cache, and last on the network, which ``ALS_COURSE_OFFLINE=1`` skips.
``python -m als_course.spark`` does so once, shows every step, and starts nothing.
"""

import atexit
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import cjdk
import pyspark
import requests
from py4j.clientserver import ClientServer
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from als_course.storage import CacheError, cache_folder, offline, staging

__all__ = ["JavaError", "find_java", "get_spark", "stop_spark"]

JAVA_VERSION = 17  # the oldest that PySpark 4 runs on, and the one that is fetched
JAVA_MODULE = "jdk.incubator.vector"  # PySpark 4 asks for it; trimmed runtimes lack it
JAVA_TIMEOUT = 30.0  # seconds for a java to say which it is
STOP_TIMEOUT = 30.0  # seconds for Java to end
TIMEOUT = 10.0  # seconds without a byte from a server

INSTALL_JAVA = """\
  Debian, Ubuntu  sudo apt install default-jre-headless
                  (Ubuntu 22.04: openjdk-17-jre-headless)
  Fedora          sudo dnf install java-21-openjdk-headless
  macOS           brew install --cask temurin@17
  Windows         winget install EclipseAdoptium.Temurin.17.JDK"""

# A file that does not exist: another machine's native library would round otherwise.
NO_NATIVE_BLAS = " ".join(
    f"-Ddev.ludovic.netlib.{part}.nativeLib=none.so" for part in ("blas", "lapack")
)
# They repeat as JSON on stderr what the exception says anyway.
ECHOING_LOGGERS = ("DataFrameQueryContextLogger", "SQLQueryContextLogger")

log = logging.getLogger("als_course.spark")
_running = ExitStack()  # what `stop_spark` undoes, the last thing first


class JavaError(RuntimeError):
    """No Java runs Spark; the text says which were tried, why not, and what to do."""


class _RefusedError(Exception):
    """Why one Java, or the download of one, will not do."""


# -- the public functions -----------------------------------------------------------


def get_spark(app_name: str = "als-course", **conf: object) -> SparkSession:
    """Start a quiet Spark session whose results can be had again, or give the running.

    Parameters
    ----------
    app_name : str
        What Spark calls the session. A running session keeps its name.
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
    settings = _settings(app_name, conf)
    running = SparkSession.getActiveSession()
    if running is None:
        return _start(settings)
    _require_same(running, settings)
    return running


def stop_spark() -> None:
    """End the session and its Java; where none runs, do nothing.

    Python does so by itself when it ends. Settings of Java, such as
    ``spark.driver.memory``, can change only with a new one.
    """
    _running.close()


def find_java() -> Path:
    """Return the folder of a Java that runs Spark, for ``JAVA_HOME``.

    It is the first of these that is version 17 or newer and has the module
    jdk.incubator.vector: the one in ``JAVA_HOME``; each ``java`` on the ``PATH``; the
    one fetched earlier; Eclipse Temurin 17, fetched now into the cache (190 MB, once).

    Returns
    -------
    pathlib.Path
        The folder that has ``bin/java`` in it.

    Raises
    ------
    JavaError
        There is none, and none could be fetched.
    """
    refused = []
    for name, folder in _candidates():
        try:
            return _check_java(folder)
        except _RefusedError as error:
            log.info("Not %s: %s", name, error)
            refused.append(f"{name}: {error}")
    try:
        return _fetch_java()
    except (_RefusedError, CacheError) as error:
        refused.append(f"download: {error}")
        raise JavaError(
            f"PySpark needs Java {JAVA_VERSION} or newer with the module {JAVA_MODULE}."
            " Tried, in this order:\n  - "
            + "\n  - ".join(refused)
            + f"\nInstall one, then try again:\n{INSTALL_JAVA}"
        ) from error


# -- Java ---------------------------------------------------------------------------


def _candidates() -> Iterator[tuple[str, Path]]:
    """Give each place where a java may be: what to call it, and its folder."""
    seen = set()
    if home := os.environ.get("JAVA_HOME"):
        folder = Path(home).expanduser() / "bin"
        seen.add((folder / "java").resolve())
        yield f"JAVA_HOME={home}", folder
    for entry in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        program = shutil.which("java", path=entry)
        if program and Path(program).resolve() not in seen:
            seen.add(Path(program).resolve())
            yield f"{program} on the PATH", Path(entry)
    cached = _cached_java()
    if cached.exists():
        yield f"{cached} in the cache", cached / "bin"


def _check_java(folder: Path) -> Path:
    """Return the home of the java in a folder; refuse one that cannot run PySpark."""
    program = shutil.which("java", path=folder)
    if program is None:
        raise _RefusedError(f"{folder} holds no program java")
    about = _ask(program, "-XshowSettings:properties", "-version")
    version = re.search(r'version "(?:1\.)?(\d+)', about)
    if version is None:
        raise _RefusedError(f"it does not say its version, but {about[:60]!r}")
    if int(version[1]) < JAVA_VERSION:
        raise _RefusedError(f"it is Java {version[1]}, older than {JAVA_VERSION}")
    # Asked rather than guessed: the program may be a link or a script elsewhere.
    home = re.search(r"^ *java\.home = (.+?)\s*$", about, re.MULTILINE)
    if home is None:
        raise _RefusedError(f"Java {version[1]} does not say its java.home")
    if JAVA_MODULE not in _ask(program, "--list-modules"):
        raise _RefusedError(f"Java {version[1]} here lacks the module {JAVA_MODULE}")
    log.info("Java %s in %s", version[1], home[1])
    return Path(home[1])


def _ask(program: str, *options: str) -> str:
    asked = " ".join(["java", *options])
    # On macOS /usr/bin/java runs what JAVA_HOME names, which was asked already.
    environment = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
    try:
        done = subprocess.run(
            [program, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=JAVA_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise _RefusedError(
            f"{asked} gave no answer in {JAVA_TIMEOUT:g} seconds"
        ) from error
    except OSError as error:
        raise _RefusedError(f"it cannot be run: {error.strerror}") from error
    if done.returncode:
        said = " ".join(done.stdout.split())[:200] or "nothing"
        raise _RefusedError(
            f"{asked} ended with status {done.returncode} and said {said}"
        )
    return done.stdout


def _cached_java() -> Path:
    return cache_folder() / f"java-{JAVA_VERSION}"


def _fetch_java() -> Path:
    """Fetch Java into the cache, where it appears whole and tried out or not at all."""
    if offline():
        raise _RefusedError("not tried, ALS_COURSE_OFFLINE is set")
    target = _cached_java()
    log.info("Fetching Java %s into %s", JAVA_VERSION, target)
    with staging() as folder:
        if target.exists():  # refused a moment ago
            target.rename(folder / "refused")
        home = _download_java(folder)
        _check_java(home / "bin")
        if not target.exists():  # or another process was faster
            home.rename(target)
    return target


def _download_java(folder: Path) -> Path:
    # cjdk waits for ever on a server that has gone silent.
    impatient = partial(requests.get, timeout=TIMEOUT)
    try:
        with mock.patch.object(requests, "get", impatient):
            return cjdk.java_home(jdk=f"adoptium:{JAVA_VERSION}", cache_dir=folder)
    except Exception as error:  # those of tarfile, zlib and json pass through cjdk
        said = " ".join(str(error).split()) or "no reason given"
        raise _RefusedError(f"{type(error).__name__}: {said}") from error


# -- the session --------------------------------------------------------------------


def _settings(app_name: str, conf: dict[str, object]) -> dict[str, str]:
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
        "spark.driver.extraJavaOptions": NO_NATIVE_BLAS,
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


def _require_same(running: SparkSession, settings: dict[str, str]) -> None:
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


def _start(settings: dict[str, str]) -> SparkSession:
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
        conf = SparkConf().setAll(list(settings.items()))
        stack.callback(_stop_java)
        with _environment(
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


def _start_java(conf: SparkConf) -> ClientServer:
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


def _open_log(path: Path) -> BinaryIO:
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


def _stop_java() -> None:
    gateway = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = None
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # for which Java waits
        gateway.proc.wait(STOP_TIMEOUT)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables, and put back what they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main() -> int:
    """Find or fetch Java, print where it is, and return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        print(f"Java for Spark: {find_java()}")
    except JavaError as error:
        print(f"als_course.spark: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

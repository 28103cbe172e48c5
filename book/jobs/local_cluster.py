"""Run a program on a real Spark cluster that lives on this machine for as long.

    python local_cluster.py train_als.py --ratings ratings.parquet --output result
    python local_cluster.py --kill-worker -- train_als.py --ratings ... --output ...

Starts Spark's standalone master and its workers from the installed PySpark, each a
process of its own on 127.0.0.1 with free ports, submits the program, and stops all that
it started: at the end, on an error, on Ctrl-C and when it is terminated. Each process
leads a group of its own, in which its executors are too. Needs Java 17 or newer, and
Linux or macOS.

With ``--kill-worker``, one worker is killed together with its executor, as if a
machine had lost its power while the program was at work.

Exit status: that of the program; 1 if the cluster did not start or did not stop.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyspark

SPARK = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"
START_SECONDS = 120
STOP_SECONDS = 15
LOST = "Lost executor"  # what the driver logs when an executor is gone


class ClusterError(RuntimeError):
    """The cluster did not start or did not stop; the text says what to look at."""


class LocalCluster:
    """Spark's standalone master and workers on loopback, to be used with ``with``.

    Parameters
    ----------
    workers : int
    cores : int
        Of each worker; it runs one executor that has them all.
    memory : str
        Of each executor, such as ``"2g"``; Java takes it only when it is needed.
    folder : str or pathlib.Path, optional
        Where logs and scratch files go; by default a temporary folder, which is
        deleted afterwards unless something failed.

    Attributes
    ----------
    url : str
        Of the master, such as ``spark://127.0.0.1:41234``.
    folder : pathlib.Path
    processes : dict of str to subprocess.Popen
        By name: ``master``, ``worker-0``, ``driver-0``, ... Each leads a process group.
        The log of each is ``<name>.log`` in the folder.

    Raises
    ------
    ClusterError
        If there is no Java, if a process does not start within two minutes, or if one
        is left over afterwards.

    Examples
    --------
    ::

        with LocalCluster(workers=2) as cluster:
            driver = cluster.submit(["train_als.py", "--ratings", "r.parquet", ...])
            cluster.kill_worker(0)
            status = driver.wait()
    """

    def __init__(self, workers=2, cores=1, memory="2g", folder=None):
        self.workers, self.cores, self.memory = workers, cores, memory
        self.url = ""
        self.processes = {}
        self._ended = set()
        self._handlers = {}
        self._temporary = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="spark-cluster-"))
        self.folder = self.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        """Start the master, then the workers, and wait until they know each other."""
        self._catch_signals()
        try:
            self._start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, error, trace):
        """Stop everything, and make sure of it."""
        for number in self._handlers:  # a second Ctrl-C must not leave a mess
            signal.signal(number, signal.SIG_IGN)
        try:
            self.stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        drivers = [it for name, it in self.processes.items() if "driver" in name]
        if self._temporary and not kind and not any(it.returncode for it in drivers):
            shutil.rmtree(self.folder)

    def _start(self):
        if os.name == "nt" or not shutil.which("ps"):
            raise ClusterError("needs Linux or macOS, and ps (Debian: package procps)")
        deploy = "org.apache.spark.deploy"
        here = ["--host", LOOPBACK, "--port", "0", "--webui-port", "0"]
        self._launch("master", "spark-class", f"{deploy}.master.Master", *here)
        self.url = self._wait_for("master", r"Starting Spark master at (spark://\S+)")
        self._wait_for("master", "New state: ALIVE")
        for i in range(self.workers):
            size = ["--cores", str(self.cores), "--memory", self.memory]
            size += ["--work-dir", str(self.folder / f"worker-{i}"), self.url]
            worker = f"{deploy}.worker.Worker"
            self._launch(f"worker-{i}", "spark-class", worker, *here, *size)
        for i in range(self.workers):
            self._wait_for(f"worker-{i}", "Successfully registered with master")

    def submit(self, arguments, conf=None):
        """Hand a program to ``spark-submit``.

        Parameters
        ----------
        arguments : list of str
            The program's file and its arguments.
        conf : dict of str to str, optional
            More settings of Spark.

        Returns
        -------
        subprocess.Popen
            Of the driver, which runs until the program ends. Its output, and Spark's
            log, go to `log_of` this driver.
        """
        name = f"driver-{sum('driver' in known for known in self.processes)}"
        settings = {
            "spark.driver.host": LOOPBACK,
            "spark.driver.bindAddress": LOOPBACK,
            "spark.executor.cores": str(self.cores),
            "spark.executor.memory": self.memory,
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        } | (conf or {})
        flags = [flag for it in settings.items() for flag in ("--conf", "=".join(it))]
        command = ["spark-submit", "--master", self.url, *flags, *arguments]
        return self._launch(name, *command)

    def kill_worker(self, i):
        """Kill a worker and its executors at once, with SIGKILL, and see them dead.

        Raises
        ------
        ClusterError
            If something of it still runs after 15 seconds.
        """
        self._signal(f"worker-{i}", signal.SIGKILL)
        if not self._wait_for_end([f"worker-{i}"]):
            raise ClusterError(f"worker-{i} does not end")

    def log_of(self, name):
        """Text that a process has written so far."""
        return (self.folder / f"{name}.log").read_text("utf-8", errors="replace")

    def stop(self):
        """Stop all processes, those started last first.

        Raises
        ------
        ClusterError
            If a process is still there after SIGKILL.
        """
        started = list(reversed(self.processes))
        for number in (signal.SIGTERM, signal.SIGKILL):
            for name in started:
                self._signal(name, number)
            if self._wait_for_end(started):
                return
        raise ClusterError(f"still running: {self.running()}; end them by hand")

    def _wait_for_end(self, names):
        """Wait until nothing runs of these processes; tell whether that is so."""
        end = time.monotonic() + STOP_SECONDS
        while set(names) & set(self.running()):
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        for name in names:
            self.processes[name].wait()  # else it stays in the table of processes
        return True

    def running(self):
        """Names of the processes of which something runs, be it only an executor."""
        alive = live_groups()
        known = self.processes.items()
        self._ended |= {name for name, process in known if process.pid not in alive}
        return [name for name, _ in known if name not in self._ended]

    def _signal(self, name, number):
        """Send a signal to all processes of a group that has not ended."""
        process = self.processes[name]
        # Once Python has collected its exit status, the number may be a stranger's.
        if name not in self._ended and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _launch(self, name, script, *arguments):
        command = [str(SPARK / "bin" / script), *arguments]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def _environment(self):
        """Make the environment without settings of another Spark, all on loopback."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith("SPARK_")}
        return ours | {
            "SPARK_HOME": str(SPARK),
            "SPARK_LOCAL_IP": LOOPBACK,
            "SPARK_LOCAL_DIRS": str(self.folder / "scratch"),
            "SPARK_DAEMON_MEMORY": "512m",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
        }

    def _wait_for(self, name, pattern):
        """Wait for a line in a log; return its first group, if it has one."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            ended = self.processes[name].poll() is not None
            if found := re.search(pattern, self.log_of(name)):
                return found[found.lastindex or 0]
            if ended:
                break
            time.sleep(0.1)
        log = "\n".join(self.log_of(name).splitlines()[-10:])
        raise ClusterError(
            f"the {name} did not start (no {pattern!r} in {self.folder / name}.log). "
            f"Spark needs Java 17 or newer. The log ends:\n{log}"
        )

    def _catch_signals(self):
        """Let SIGTERM end the program as Ctrl-C does, through every ``finally``."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                signal.SIGINT: signal.getsignal(signal.SIGINT),
                signal.SIGTERM: signal.signal(signal.SIGTERM, _exit),
            }


def _exit(number, frame):
    sys.exit(128 + number)


def live_groups():
    """Find the process groups in which something runs; the dead do not count.

    Returns
    -------
    set of int
    """
    table = subprocess.run(
        ["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in table.splitlines()]
    return {int(group) for group, state in rows if not state.startswith("Z")}


def parse_arguments(argv=None):
    """Read the command line; what follows the first program belongs to it."""
    parser = argparse.ArgumentParser(
        prog="local_cluster.py",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=int, default=2, help="how many")
    add("--cores", type=int, default=1, help="of each worker")
    add("--memory", default="2g", help="of each worker's executor")
    add("--kill-worker", action="store_true", help="kill one while the program runs")
    add("--kill-when", default="model: started", metavar="REGEX", help="it is killed "
        "after the program's output has this")  # fmt: skip
    add("--kill-after", type=float, default=5.0, metavar="SECONDS", help="by so much")
    add("program", help="the file to submit")
    add("arguments", nargs=argparse.REMAINDER, help="its arguments")
    return parser.parse_args(argv)


def run(args):
    """Start a cluster, run the program on it, and show what it writes.

    Returns
    -------
    int
        The exit status of the program.
    """
    with LocalCluster(args.workers, args.cores, args.memory) as cluster:
        print(f"cluster: {cluster.url}, logs in {cluster.folder}", flush=True)
        driver = cluster.submit([args.program, *args.arguments])
        kill = threading.Timer(args.kill_after, cluster.kill_worker, [0])
        for line in follow(cluster.folder / "driver-0.log", driver):
            if " INFO " not in line:
                print(line, end="", flush=True)
            if args.kill_worker and re.search(args.kill_when, line) and not kill.ident:
                kill.start()
        kill.cancel()
        lost = LOST in cluster.log_of("driver-0")
    if args.kill_worker and not lost and not driver.returncode:
        raise ClusterError(
            "the program ended before a worker was lost; see --kill-when, --kill-after"
        )
    return driver.returncode if driver.returncode >= 0 else 128 - driver.returncode


def follow(path, process):
    """Give the lines of a growing log until the process that writes it has ended."""
    with path.open(encoding="utf-8", errors="replace") as log:
        while True:
            ended = process.poll() is not None
            yield from log
            if ended:
                return
            time.sleep(0.2)


if __name__ == "__main__":
    try:
        sys.exit(run(parse_arguments()))
    except (ClusterError, KeyboardInterrupt) as error:
        sys.exit(f"local_cluster.py: {error or 'interrupted'}")

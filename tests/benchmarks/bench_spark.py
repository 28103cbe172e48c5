"""Time and memory of ALS on one machine and on Spark, for tables of many sizes.

Run it by hand, on a machine that does nothing else::

    python tests/benchmarks/bench_spark.py --ratings 1e5 1e6 --rank 10 --cores 2 \
        --csv book/_static/spark-scaling.csv

Each run adds a row to the CSV, which the page ``one-machine-or-cluster`` reads; of
several runs of the same kind it shows the median and the range.
Compiled kernels are measured with ``--engine numba`` where `ExplicitALS` has them.

Both engines do the same job, each in a process of its own: start, read the same CSV of
generated ratings from disk, fit. Measured are, in seconds,

``start``   from the beginning of the process until the engine can work;
``read``    until the ratings are in memory;
``fit``     the first fit, of ten sweeps, with every delay of a first time;
``sweep``   one more sweep in a process that has warmed up: the difference of two more
            fits, of two sweeps and of ten, divided by eight;

and ``peak_mb``, the largest sum of resident memory of the process and all it started,
looked at twenty times a second until the first fit is done. A Java that may take
memory takes it, so Spark's peak is also a matter of ``--driver-memory``, which stands
in the row. ``rmse`` is the error on the ratings learnt from, to see that both engines
did the job.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import psutil
import scipy

BOOK = Path(__file__).resolve().parents[2] / "book"
sys.path.insert(0, str(BOOK))

SWEEPS, LAMBDA, SEED = 10, 0.1, 0
# Users and items as in the MovieLens sets of about that size.
SHAPES = {
    100_000: (943, 1_682),
    300_000: (2_400, 2_500),
    1_000_000: (6_040, 3_706),
    3_000_000: (20_000, 6_300),
    10_000_000: (69_878, 10_677),
    20_000_000: (138_493, 26_744),
}
COLUMNS = [
    "engine", "ratings", "users", "items", "rank", "cores", "start", "read", "fit",
    "sweep", "peak_mb", "driver_memory", "rmse",
]  # fmt: skip


def generate(n_ratings):
    """Make ratings of which few users and items have many, as in real ones.

    Parameters
    ----------
    n_ratings : int
        A key of `SHAPES`.

    Returns
    -------
    DataFrame
        Columns ``user``, ``item``, ``rating``: no pair twice, rows in random order;
        stars are a mean, two factors and noise, cut to whole stars from 1 to 5.
    """
    shape = SHAPES[n_ratings]
    rng = np.random.default_rng(SEED)
    shares = [
        rng.lognormal(sigma=sigma, size=size)
        for size, sigma in zip(shape, (1.0, 1.3), strict=True)
    ]
    cells = np.empty(0, dtype=np.int64)
    while len(cells) < n_ratings:
        users, items = (
            rng.choice(len(share), n_ratings, p=share / share.sum()) for share in shares
        )
        cells = np.union1d(cells, users * shape[1] + items)
    cells = rng.choice(cells, n_ratings, replace=False)
    users, items = np.divmod(cells, shape[1])
    taste = [rng.normal(scale=0.8, size=(size, 2)) for size in shape]
    stars = 3.5 + np.einsum("nk,nk->n", taste[0][users], taste[1][items])
    stars = np.clip(np.rint(stars + rng.normal(scale=0.7, size=n_ratings)), 1, 5)
    return pd.DataFrame({"user": users, "item": items, "rating": stars.astype(int)})


class NumpyEngine:
    """`ExplicitALS`, in this process."""

    options = MappingProxyType({})

    def __init__(self, args):
        from als_course.als import ExplicitALS

        self.model = lambda sweeps: ExplicitALS(
            args.rank, LAMBDA, sweeps, random_state=SEED, **self.options
        )
        self.shape = SHAPES[args.one]

    def read(self, path):
        """Read the CSV into a CSR matrix."""
        from scipy.sparse import csr_array

        rows = pd.read_csv(path, dtype={"user": "i4", "item": "i4", "rating": "f8"})
        where = (rows.user.to_numpy(), rows.item.to_numpy())
        self.ratings = csr_array((rows.rating.to_numpy(), where), shape=self.shape)

    def fit(self, sweeps):
        """Fit; return the factors as arrays when asked for."""
        model = self.model(sweeps).fit(self.ratings)
        return lambda: (model.user_factors_, model.item_factors_)

    def stop(self):
        """Nothing runs."""


class NumbaEngine(NumpyEngine):
    """`ExplicitALS` with compiled kernels, where it has them."""

    options = MappingProxyType({"engine": "numba"})


class SparkEngine:
    """Spark's ALS in local mode, as the course starts Spark, with more memory."""

    def __init__(self, args):
        from als_course.spark import get_spark

        os.environ["SPARK_MASTER"] = f"local[{args.cores}]"
        self.spark = get_spark(**{"spark.driver.memory": args.driver_memory})
        self.args = args

    def read(self, path):
        """Read the CSV into Spark's cache."""
        schema = "user int, item int, rating float"
        rows = self.spark.read.csv(str(path), schema, header=True)
        self.ratings = rows.repartition(self.args.blocks).cache()
        self.ratings.count()

    def fit(self, sweeps):
        """Fit; return the factors as arrays when asked for."""
        from pyspark.ml.recommendation import ALS

        model = ALS(
            rank=self.args.rank, maxIter=sweeps, regParam=LAMBDA, seed=SEED,
            numUserBlocks=self.args.blocks, numItemBlocks=self.args.blocks,
        ).fit(self.ratings)  # fmt: skip
        return lambda: [
            self._array(factors, size)
            for factors, size in zip(
                (model.userFactors, model.itemFactors),
                SHAPES[self.args.one],
                strict=True,
            )
        ]

    def _array(self, factors, size):
        rows = factors.toPandas()
        array = np.zeros((size, self.args.rank))
        array[rows.id] = np.array(rows.features.tolist())
        return array

    def stop(self):
        """End Spark."""
        from als_course.spark import stop_spark

        stop_spark()


ENGINES = {"numpy": NumpyEngine, "numba": NumbaEngine, "spark": SparkEngine}


def measure_here(args):
    """Do the job in this process; print what it took."""
    engine = ENGINES[args.engine](args)
    marks = [time.time()]
    engine.read(args.file)
    marks.append(time.time())
    factors = engine.fit(SWEEPS)
    marks.append(time.time())
    print("the first fit is done", flush=True)
    seconds = {}
    for sweeps in (2, 10):
        begin = time.time()
        engine.fit(sweeps)
        seconds[sweeps] = time.time() - begin
    users, items = factors()
    part = pd.read_csv(args.file, nrows=100_000)
    fitted = np.einsum("nk,nk->n", users[part.user], items[part.item])
    engine.stop()
    found = {
        "start": marks[0] - args.began,
        "read": marks[1] - marks[0],
        "fit": marks[2] - marks[1],
        "sweep": (seconds[10] - seconds[2]) / 8,
        "rmse": float(np.sqrt(np.mean((part.rating - fitted) ** 2))),
    }
    print(json.dumps(found), flush=True)


def measure(args, engine, n_ratings, rank, cores, path):
    """Do the job in a process of its own; return a row of the table."""
    command = [sys.executable, __file__, "--one", str(n_ratings), "--engine", engine]
    command += ["--rank", str(rank), "--cores", str(cores), "--file", str(path)]
    command += ["--blocks", str(args.blocks), "--driver-memory", args.driver_memory]
    command += ["--began", repr(time.time())]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command,
            stdout=output,
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        ) as process,
    ):
        root, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            if not os.fstat(output.fileno()).st_size:  # the first fit goes on
                peak = max(peak, resident(root))
            time.sleep(0.05)
        output.seek(0)
        lines = output.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{engine} with {n_ratings:,} ratings failed; see above")
    row = json.loads(lines[-1]) | {
        "engine": engine, "ratings": n_ratings, "rank": rank, "cores": cores,
        "users": SHAPES[n_ratings][0], "items": SHAPES[n_ratings][1],
        "peak_mb": peak / 1e6,
        "driver_memory": args.driver_memory if engine == "spark" else "",
    }  # fmt: skip
    return row


def resident(root):
    """Bytes of resident memory of a process and of all that it has started."""
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return 0
    return total


def machine():
    """Describe where and with what it was measured, as lines of comment."""
    memory = psutil.virtual_memory().total / 2**30
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
    lines = [
        f"measured {time.strftime('%Y-%m-%d')} on {model}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, {platform.system()}",
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"SciPy {scipy.__version__}, PySpark {version('pyspark')}",
        f"{SWEEPS} sweeps, lambda {LAMBDA}, times in seconds; "
        "tests/benchmarks/bench_spark.py explains the columns",
    ]
    return [f"# {line}" for line in lines]


def store(row, path):
    """Add a run to the CSV; refuse one that holds runs of another machine."""
    header = machine()
    table = pd.DataFrame([row])[COLUMNS]
    if path.exists():
        known = [
            line for line in path.read_text("utf-8").splitlines() if line[0] == "#"
        ]
        for old, new in zip(known, header, strict=True):
            if old.split(" on ")[-1] != new.split(" on ")[-1]:
                raise SystemExit(f"{path} is of another machine; choose another --csv")
        header = known
        table = pd.concat(
            [pd.read_csv(path, comment="#", keep_default_na=False), table]
        )
    table = table.sort_values(["rank", "cores", "engine", "ratings"], kind="stable")
    table = table.astype({"peak_mb": float}).round(
        {"start": 2, "read": 2, "fit": 2, "sweep": 3, "peak_mb": 0, "rmse": 4}
    )
    path.write_text("\n".join(header) + "\n" + table.to_csv(index=False), "utf-8")


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument

    def size(text):
        number = int(float(text))
        if number not in SHAPES:
            raise argparse.ArgumentTypeError(f"one of {sorted(SHAPES)}")
        return number

    add("--engine", nargs="+", choices=ENGINES, default=["numpy", "spark"])
    add("--ratings", nargs="+", type=size, default=[100_000, 1_000_000])
    add("--rank", nargs="+", type=int, default=[10])
    add("--cores", nargs="+", type=int, default=[2], help="the process is held to them")
    add("--blocks", type=int, default=4, help="of users and of items, in Spark")
    add("--driver-memory", default="12g", help="what Spark's Java may take")
    add("--csv", type=Path, help="where to store the rows")
    add("--data", type=Path, default=Path(tempfile.gettempdir()) / "als-bench",
        help="where the generated ratings are kept")  # fmt: skip
    add("--only-data", action="store_true", help="generate the ratings and stop")
    add("--one", type=int, help=argparse.SUPPRESS)
    add("--file", type=Path, help=argparse.SUPPRESS)
    add("--began", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args.engine, args.rank, args.cores = args.engine[0], args.rank[0], args.cores[0]
    return args


def main():
    """Measure every combination asked for."""
    args = parse_arguments()
    if args.one:
        measure_here(args)
        return
    args.data.mkdir(parents=True, exist_ok=True)
    for n_ratings in args.ratings:
        path = args.data / f"ratings-{n_ratings}.csv"
        if not path.exists():
            generate(n_ratings).to_csv(path.with_suffix(".tmp"), index=False)
            path.with_suffix(".tmp").rename(path)
        if args.only_data:
            continue
        for cores in args.cores:
            for rank in args.rank:
                for engine in args.engine:
                    row = measure(args, engine, n_ratings, rank, cores, path)
                    print(json.dumps(row), flush=True)
                    if args.csv:
                        store(row, args.csv)


if __name__ == "__main__":
    main()

"""Print how fast ALS is here, beside NumPy, implicit, cmfrec and Spark.

``make bench`` runs it; ``--help`` lists the parts. A million generated ratings, rank
64, float32, two threads, unless the table says otherwise. Contenders take turns,
round after round in one process, and each figure is the median of its rounds, so that
what else the machine does falls on all of them.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median

N_THREADS = 2
os.environ["NUMBA_NUM_THREADS"] = str(N_THREADS)  # before Numba is imported
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent / "book"), str(HERE)]

import numpy as np  # noqa: E402
from bench_als import make_million  # noqa: E402
from scipy.sparse import csr_array, csr_matrix, load_npz, save_npz  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from als_course import kernels  # noqa: E402
from als_course.als import ExplicitALS, Formula, ImplicitALS  # noqa: E402

ALPHA, LAMBDA = 2.0, 0.1
EXPLICIT = Formula(hole=0.0, alpha=0.0, base=1.0)
KINDS = {"explicit": ExplicitALS, "implicit": ImplicitALS}


def clock(function, *args, **kwargs):
    """Seconds that a call takes."""
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start


def per_sweep(fit, n=3):
    """Seconds of a sweep: what n more of them add to a fit of one."""
    one = clock(fit, 1)
    return (clock(fit, 1 + n) - one) / n


# -- the contenders: each returns the seconds of one sweep ----------------------------
def ours(kind, ratings, k, engine="numba", dtype="float32", solver="exact"):
    """Time a sweep of als_course, the objective computed as well."""
    settings = {"alpha": ALPHA} if kind == "implicit" else {}

    def fit(n):
        model = KINDS[kind](k, LAMBDA, n_iterations=n, solver=solver, **settings)
        model.engine, model.dtype = engine, dtype
        model.fit(ratings)

    few = engine == "numpy" or (solver == "exact" and k > 128)
    return per_sweep(fit, n=1 if few else 4)


def implicit_model(k, n_iterations, use_cg):
    """Return implicit's model and the list that its sweeps' seconds go to."""
    from implicit.cpu.als import AlternatingLeastSquares

    seconds = []
    with threadpool_limits(1, "blas"):  # or implicit warns
        model = AlternatingLeastSquares(
            factors=k,
            regularization=LAMBDA,
            alpha=ALPHA,
            dtype=np.float32,
            use_cg=use_cg,
            iterations=n_iterations,
            num_threads=N_THREADS,
            random_state=0,
        )
    model.fit_callback = lambda _, elapsed, loss: seconds.append(elapsed)
    return model, seconds


def library_implicit(kind, ratings, k, use_cg):
    """Time a sweep of implicit, which has no explicit model."""
    model, seconds = implicit_model(k, 3, use_cg)
    with threadpool_limits(1, "blas"):
        model.fit(csr_matrix(ratings), show_progress=False)
    return median(seconds)


def cmfrec(kind, ratings, k, use_cg):
    """Time a sweep of cmfrec."""
    import cmfrec

    options = {"k": k, "lambda_": LAMBDA, "use_cg": use_cg, "finalize_chol": False}
    options |= {"nthreads": N_THREADS, "use_float": True, "verbose": False}
    options |= {"precompute_for_predictions": False}
    if kind == "implicit":
        make, more = cmfrec.CMF_implicit, {"alpha": ALPHA}
    else:
        more = {"user_bias": False, "item_bias": False, "center": False}
        make, more = cmfrec.CMF, more | {"scale_lam": True}
    given = ratings.astype(np.float32).tocoo()

    def fit(n):
        make(niter=n, **options, **more).fit(given)

    with threadpool_limits(1, "blas"):  # its own threads share out the rows
        return per_sweep(fit, n=1 if not use_cg else 4)


def contenders(kind):
    """Functions of ratings and k by name."""
    found = {
        "Numba, float32": lambda *a: ours(kind, *a),
        "Numba, float64": lambda *a: ours(kind, *a, dtype="float64"),
        "cmfrec, conjugate gradient": lambda *a: cmfrec(kind, *a, use_cg=True),
        "cmfrec, Cholesky": lambda *a: cmfrec(kind, *a, use_cg=False),
        "NumPy, float32": lambda *a: ours(kind, *a, engine="numpy"),
    }
    if kind == "implicit":
        for name, use_cg in [("conjugate gradient", True), ("Cholesky", False)]:
            found[f"implicit, {name}"] = lambda *a, use_cg=use_cg: library_implicit(
                kind, *a, use_cg=use_cg
            )
    return found


def print_table(head, rows):
    """Print a table in Markdown."""
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


# -- the parts of the report ----------------------------------------------------------
def machine():
    """Describe the machine and measure its peak."""
    print("## The machine\n")
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next(
            s.split(":")[1].strip() for s in lines if s.startswith("model name")
        )
    number, size = kernels.tiled.registers()
    print(f"- {name}, {os.cpu_count()} cores; {N_THREADS} threads used")
    print(f"- {number} vector registers of {8 * size} bits")
    print(f"- Python {platform.python_version()}, {platform.system()}")
    packages = ["numpy", "scipy", "numba", "implicit", "cmfrec", "pyspark"]
    packages = [name for name in packages if find_spec(name)]
    print("- " + ", ".join(f"{name} {version(name)}" for name in packages))
    print()
    peaks = {"as NumPy chooses": peak({})}
    if size == 64:
        # OpenBLAS takes its AVX2 kernels on processors that it does not know.
        peaks["AVX-512 kernels"] = peak({"OPENBLAS_CORETYPE": "SKYLAKEX"})
    for how, (one, both) in peaks.items():
        print(
            f"- float32 matrix product of NumPy, {how}: "
            f"{one:.0f} GFLOP/s on 1 thread, {both:.0f} on {N_THREADS}"
        )
    print(flush=True)
    return max(both for _, both in peaks.values())


def peak(environment):
    """Best GFLOP/s of a large matrix product, on one thread and on all."""
    program = f"""
import time, numpy as np, threadpoolctl
a = np.random.default_rng(0).random((3072, 3072), dtype=np.float32)
for n in (1, {N_THREADS}):
    with threadpoolctl.threadpool_limits(n):
        best = 1e9
        for _ in range(8):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
    print(2 * 3072**3 / best / 1e9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(float(line) for line in done.stdout.split())


def sweeps(ratings, rounds):
    """Compare the seconds of a sweep at k = 64, in rounds."""
    print("## Seconds per sweep, k = 64\n")
    rows = []
    for kind in KINDS:
        found = contenders(kind)
        seconds = {name: [] for name in found}
        for number in range(rounds):
            for name, run in found.items():
                slow = "NumPy" in name or "cmfrec, Ch" in name
                if number == 0 or not slow:
                    seconds[name].append(run(ratings, 64))
        ours = seconds["Numba, float32"]
        for name, values in seconds.items():
            ratio = median(values[i] / ours[i] for i in range(len(values)))
            spread = f"{min(values):.3f} to {max(values):.3f}"
            rows.append([kind, name, f"{median(values):.3f}", spread, f"{ratio:.1f}"])
    head = ["model", "who", "median", "range", "times ours"]
    print_table(head, rows)


def ranks(ratings, rounds):
    """Time our sweep by rank, and its Gram part against the peak."""
    print("## Seconds per sweep of ours, by rank\n")
    rows = []
    for k in (32, 64, 128):
        cells = [str(k)]
        for kind in KINDS:
            for dtype in ("float32", "float64"):
                times = [ours(kind, ratings, k, dtype=dtype) for _ in range(rounds)]
                cells.append(f"{median(times):.3f}")
        rows.append(cells)
    head = ["k"] + [f"{kind}, {d}" for kind in KINDS for d in ("float32", "float64")]
    print_table(head, rows)


def gram(ratings, rounds, best):
    """Tell the Gram part from the rest: what half of the ratings take less."""
    print("## The Gram part, explicit, float32, gathering included\n")
    ratings = ratings.astype(np.float32)
    half = ratings.copy()
    half.data[::2] = 0
    half.eliminate_zeros()
    rows = []
    for k in (32, 64, 128):
        rng = np.random.default_rng(0)
        times = {"all": [], "half": []}
        for _ in range(5 * rounds):
            for name, by_user in [("all", ratings), ("half", half)]:
                total = 0.0
                for part in (by_user, by_user.T.tocsr()):
                    fixed = rng.normal(size=(part.shape[1], k)).astype(np.float32)
                    asked = np.diff(part.indptr) > 0
                    args = [part, fixed, np.ones(len(asked)), asked, EXPLICIT, 2e-6]
                    total += clock(kernels.half_step, *args, loss=False)
                times[name].append(total)
        whole, less = (median(times[name]) for name in ("all", "half"))
        seconds = (whole - less) * ratings.nnz / (ratings.nnz - half.nnz)
        rate = 2 * ratings.nnz * k * (k + 1) / seconds / 1e9
        rows.append(
            [
                f"{k}",
                f"{seconds:.3f}",
                f"{whole:.3f}",
                f"{rate:.0f}",
                f"{rate / best:.0%}",
            ]
        )
    print_table(["k", "seconds", "of a sweep of", "GFLOP/s", "of the peak"], rows)


def solvers(ratings, rounds):
    """Time a sweep of conjugate gradient, ours and implicit's, and of exact ones."""
    print("## Seconds per sweep of implicit models, by solver\n")
    rows = []
    for k in (32, 64, 128, 256, 512):
        found = {"theirs": [], "ours": [], "exact": []}
        for number in range(rounds):
            found["theirs"].append(library_implicit("implicit", ratings, k, True))
            found["ours"].append(ours("implicit", ratings, k, solver="cg"))
            if number == 0 or k < 256:
                found["exact"].append(ours("implicit", ratings, k))
        pairs = zip(found["theirs"], found["ours"], strict=True)
        share = median(o / t for t, o in pairs)
        spread = [
            f"{median(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in found.values()
        ]
        rows.append([f"{k}", *spread, f"{share:.2f}"])
    head = ["k", "implicit, CG", "ours, CG", "ours, exact", "ours / implicit, CG"]
    print_table(head, rows)


def objective(model, ratings):
    """Return the objective of ImplicitALS at implicit's factors."""
    users, items = (
        np.asarray(part, np.float64)
        for part in (model.user_factors, model.item_factors)
    )
    fitted = np.empty(ratings.nnz)
    for user, (start, stop) in enumerate(pairwise(ratings.indptr)):
        fitted[start:stop] = items[ratings.indices[start:stop]] @ users[user]
    c, p = ImplicitALS(alpha=ALPHA).formula(ratings.data)
    at_ratings = np.sum(c * (p - fitted) ** 2 - fitted**2)
    holes = np.sum((users.T @ users) * (items.T @ items))
    return at_ratings + holes + LAMBDA * ((users**2).sum() + (items**2).sum())


def race(ratings, rounds):
    """Time until the objective that implicit has after 15 sweeps of its default."""
    print("## Time to the objective of 15 conjugate-gradient sweeps of implicit\n")
    rows = []
    for k in (32, 64, 128, 256, 512):
        given, fits = csr_matrix(ratings), {}
        model, _ = implicit_model(k, 15, use_cg=True)
        fresh, _ = implicit_model(k, 0, use_cg=True)
        with threadpool_limits(1, "blas"):
            for each in (model, fresh):
                each.fit(given, show_progress=False)
        goal = objective(model, ratings)
        same = fresh.user_factors, fresh.item_factors
        starts = {"normal": None, "svd": "svd", "implicit's": same}
        tried = [("exact", name) for name in starts] if k < 256 else []
        for solver, name in [*tried, *(("cg", name) for name in starts)]:
            options = {"engine": "numba", "dtype": "float32", "alpha": ALPHA}
            found = ImplicitALS(k, LAMBDA, n_iterations=25, solver=solver, **options)
            history = found.fit(ratings, start=starts[name]).history_
            there = history <= goal * (1 + 1e-6)  # float32 rounds in another order
            if there.any():
                found.n_iterations = int(np.argmax(there)) + 1
                fits[solver, name] = found
            else:
                rows.append([f"{k}", "", solver, name, "not in 25", "", ""])
        theirs, times = [], {name: [] for name in fits}
        for _ in range(rounds):
            model, seconds = implicit_model(k, 15, use_cg=True)
            with threadpool_limits(1, "blas"):
                model.fit(given, show_progress=False)
            theirs.append(sum(seconds))
            for (solver, name), found in fits.items():
                seconds = clock(found.fit, ratings, start=starts[name])
                times[solver, name].append(seconds)
        for (solver, name), seconds in times.items():
            ratio = median(t / o for t, o in zip(theirs, seconds, strict=True))
            needed = fits[solver, name].n_iterations
            row = [f"{k}", f"{median(theirs):.2f}", solver, name, f"{needed}"]
            rows.append([*row, f"{median(seconds):.2f}", f"{ratio:.1f}"])
    print("Theirs is the sweeps alone; ours is the whole fit, checks included.\n")
    head = ["k", "implicit, s", "ours", "start", "sweeps", "ours, s", "times faster"]
    print_table(head, rows)


def large(rounds):
    """Fit 20 million ratings, and the first users' 1.7 million, each in a process."""
    print("## 20 million ratings, 138,493 x 26,744, k = 64, explicit, float32\n")
    with tempfile.TemporaryDirectory() as folder:
        makes = f"import compare; compare.make_large({folder!r})"
        subprocess.run([sys.executable, "-c", makes], cwd=HERE, check=True)
        rows = []
        for name in ("large", "small"):
            program = f"import compare; compare.fit_large({folder!r}, {name!r})"
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=HERE,
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append([float(field) for field in done.stdout.split()])
    cells = []
    for n, seconds, given, peak in rows:
        row = [f"{n / 1e6:.1f} million", f"{seconds:.2f}", f"{given:.0f}"]
        cells.append([*row, f"{peak:.0f}", f"{peak / given:.1f}"])
    head = ["ratings", "s per sweep", "ratings and factors, MB", "peak, MB", "ratio"]
    print_table(head, cells)
    print(f"Times as long: {rows[0][1] / rows[1][1]:.1f}, ", end="")
    print(f"for {rows[0][0] / rows[1][0]:.1f} times the ratings.\n", flush=True)


def make_large(folder):
    """Write 20 million ratings, and those of as many users as give 1.7 million."""
    shape, n_ratings = (138_493, 26_744), 20_000_000
    rng = np.random.default_rng(0)
    shares = [
        rng.lognormal(sigma=s, size=n) for s, n in zip((1.1, 1.6), shape, strict=True)
    ]
    users = rng.choice(shape[0], int(1.3 * n_ratings), p=shares[0] / shares[0].sum())
    items = rng.choice(shape[1], len(users), p=shares[1] / shares[1].sum())
    cells = np.unique(users * shape[1] + items)
    cells = np.sort(rng.choice(cells, n_ratings, replace=False))
    stars = rng.integers(1, 6, n_ratings).astype(np.float32)
    places = [part.astype(np.int32) for part in np.divmod(cells, shape[1])]
    ratings = csr_array((stars, places), shape=shape)
    n_users = np.searchsorted(ratings.indptr, 1_700_000)
    save_npz(f"{folder}/large.npz", ratings, compressed=False)
    save_npz(f"{folder}/small.npz", ratings[:n_users], compressed=False)


def resident_peak():
    """Bytes that this process had in memory at most; what the system counts.

    ``getrusage`` would do, but its peak is that of the parent before the program began.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def fit_large(folder, name):
    """Print ratings, seconds of a sweep, and megabytes given and at the peak."""
    kernels.half_step(  # compiled, or loaded, before memory is counted
        csr_array(np.ones((2, 2), np.float32)),
        np.ones((2, 1), np.float32),
        np.ones(2),
        np.ones(2, bool),
        EXPLICIT,
        0.0,
    )
    before = resident_peak()
    ratings = load_npz(f"{folder}/{name}.npz")
    given = ratings.data.nbytes + ratings.indices.nbytes + ratings.indptr.nbytes
    given += 4 * 64 * sum(ratings.shape)
    seconds = {}
    for n in (1, 5):  # each a model of its own, so that none holds two fits' factors
        options = {"n_iterations": n, "engine": "numba", "dtype": "float32"}
        seconds[n] = clock(ExplicitALS(64, LAMBDA, **options).fit, ratings)
    sweep = (seconds[5] - seconds[1]) / 4
    print(ratings.nnz, sweep, given / 1e6, (resident_peak() - before) / 1e6)


def spark(ratings):
    """Time a sweep of Spark on two threads of this machine."""
    from pyspark.ml.recommendation import ALS

    from als_course.spark import get_spark, stop_spark

    print("## Spark, k = 64, seconds per sweep\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        coo = ratings.tocoo()
        np.savetxt(f"{folder}/r.csv", np.c_[(*coo.coords, coo.data)], "%d", ",")
        session = get_spark()
        schema = "user int, item int, rating float"
        table = session.read.csv(f"{folder}/r.csv", schema).repartition(2).cache()
        table.count()
        columns = {"userCol": "user", "itemCol": "item", "ratingCol": "rating"}
        for kind in KINDS:

            def fit(n, kind=kind):
                ALS(
                    rank=64,
                    maxIter=n,
                    regParam=LAMBDA,
                    implicitPrefs=kind == "implicit",
                    alpha=ALPHA,
                    numUserBlocks=N_THREADS,
                    numItemBlocks=N_THREADS,
                    seed=0,
                    **columns,
                ).fit(table)

            fit(1)  # warms up
            rows.append([kind, f"{per_sweep(fit, n=2):.1f}"])
        stop_spark()
    print_table(["model", "seconds"], rows)


def main():
    """Run the parts that are asked for."""
    parts = ["sweeps", "ranks", "gram", "solvers", "race", "large", "spark"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", module="implicit")
    ratings, wanted = make_million(), chosen.parts or parts
    for kind in KINDS:  # compiled before anything is timed
        for dtype in ("float32", "float64"):
            ours(kind, ratings[:100], 8, dtype=dtype)
    best = machine()
    for name, args in [
        ("sweeps", (ratings, chosen.rounds)),
        ("ranks", (ratings, chosen.rounds)),
        ("gram", (ratings, chosen.rounds, best)),
        ("solvers", (ratings, chosen.rounds)),
        ("race", (ratings, chosen.rounds)),
        ("large", (chosen.rounds,)),
        ("spark", (ratings,)),
    ]:
        if name in wanted:
            globals()[name](*args)


if __name__ == "__main__":
    main()

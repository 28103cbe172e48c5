"""How many answers a second serve_als.py gives, how late, and whether all are right.

    python tests/benchmarks/serve_load.py [--items 100000 1000000] [--seconds 20]

It publishes two generated runs, starts the service on this machine's own address, and
asks from a few connections: as fast as it answers, then at half that rate, then at half
that rate while the service takes the second run. Every list is compared with the exact
one of the run that the answer names. It is for a machine that does nothing else.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
from scipy.sparse import csr_array

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book" / "jobs")]
import publish_als  # noqa: E402

FACTORS, USERS, LIKES, SPREAD = 64, 1000, 30, 0.8
REPORT = {"paired": {"ndcg_above_most_popular": {"mean": 1, "low": 1, "high": 1}}}


def make_run(runs, n_items, seed, swap):
    """Publish items in random directions, their lengths log-normal."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(n_items, FACTORS))
    lengths = np.exp(SPREAD * rng.normal(size=n_items))
    items *= (lengths / np.linalg.norm(items, axis=1))[:, None]
    columns = [
        np.sort(rng.choice(n_items, LIKES, replace=False, p=lengths / lengths.sum()))
        for _ in range(USERS)
    ]
    parts = np.ones(USERS * LIKES), np.concatenate(columns)
    ratings = csr_array((*parts, LIKES * np.arange(USERS + 1)), shape=(USERS, n_items))
    fitted = publish_als.Fitted(
        [f"u{n}" for n in range(USERS)],
        [f"i{n}" for n in range(n_items)],
        ratings,
        None,
        items,
        None,
        {"formula": [1.0, 5.0, 1.0], "regularization": 20.0, "weighted": False},
        REPORT,
        {},
    )
    return publish_als.publish(fitted, runs, hand_over=3, swap=swap)


def exact_lists(folder):
    """Scores of the ten best unseen items by the full product, by user and item."""
    files = (
        "user_ids",
        "user_factors",
        "item_ids",
        "item_factors",
        "indptr",
        "indices",
    )
    names, users, ids, items, indptr, indices = (
        np.load(folder / f"{name}.npy") for name in files
    )
    lists = {}
    for row, name in enumerate(names):
        scores = items @ users[row]
        scores[indices[indptr[row] : indptr[row + 1]]] = -np.inf
        best = np.argpartition(scores, -10)[-10:]
        lists[name.decode()] = {ids[c].decode() for c in best}
    return lists


class Load:
    """Asks, and keeps how long each answer took, and which were wrong."""

    def __init__(self, address, exact):
        self.host, self.port = address
        self.exact, self.times, self.runs = exact, [], set()
        self.errors = self.wrong = 0

    async def ask(self, reader, writer, user):
        """One request on a connection that is kept."""
        path = f"/recommend?user={user}&n=10"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if not head.startswith(b"HTTP/1.1 200"):
            self.errors += 1
            return
        self.runs.add(answer["run"])
        found = {row["item"] for row in answer["items"]}
        self.wrong += found != self.exact[answer["run"]][user]

    async def connection(self, number, seconds, pause):
        """Ask for so many seconds, at a steady pace if there is a pause."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        rng = np.random.default_rng(number)
        begin = due = time.perf_counter() + pause * rng.random()
        while due < begin + seconds:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            # From when it was due, so that a stall delays all that wait behind it.
            since = due if pause else time.perf_counter()
            try:
                await self.ask(reader, writer, f"u{rng.integers(USERS)}")
            except (OSError, asyncio.IncompleteReadError):
                self.errors += 1
                reader, writer = await asyncio.open_connection(self.host, self.port)
            self.times.append(time.perf_counter() - since)
            due = due + pause if pause else time.perf_counter()
        writer.close()

    async def run(self, connections, seconds, rate=None):
        """Ask from all connections at once."""
        pause = connections / rate if rate else 0.0
        await asyncio.gather(
            *(self.connection(n, seconds, pause) for n in range(connections))
        )


def measure(process, address, exact, seconds, rate=None, swap=None):
    """One row of the report."""

    async def scene():
        load = Load(address, exact)
        asking = asyncio.create_task(load.run(4, seconds, rate))
        if swap:
            await asyncio.sleep(seconds / 3)
            swap()
        await asking
        return load

    watched = psutil.Process(process.pid)
    before, begin = sum(watched.cpu_times()[:2]), time.perf_counter()
    load = asyncio.run(scene())
    took = time.perf_counter() - begin
    n, ms = len(load.times), 1e3 * np.array(load.times)
    cpu = 1e3 * (sum(watched.cpu_times()[:2]) - before) / n
    print(
        f"  {n:,} requests, {n / took:,.0f}/s, {cpu:.2f} CPU ms each "
        f"({1e3 / cpu:,.0f}/s a core), p50 {np.median(ms):.1f} ms, "
        f"p99 {np.quantile(ms, 0.99):.1f} ms, longest {ms.max():.0f} ms; "
        f"{load.errors} errors, {load.wrong} wrong, {len(load.runs)} run(s)",
        flush=True,
    )
    return n / took, load.errors + load.wrong


def bench(n_items, seconds):
    """All rows for one size of the catalogue; the number of errors."""
    print(f"{n_items:,} items of {FACTORS} factors")
    with tempfile.TemporaryDirectory() as folder:
        first = make_run(folder, n_items, 0, swap=True)
        second = make_run(folder, n_items, 1, swap=False)
        exact = {run.name: exact_lists(run) for run in (first, second)}
        command = [sys.executable, str(ROOT / "book" / "jobs" / "serve_als.py"), folder]
        process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        try:
            url = process.stdout.readline().split()[-1]
            host, port = url.removeprefix("http://").split(":")
            one = (process, (host, int(port)), exact, seconds)
            rate, bad = measure(*one)
            bad += measure(*one, rate=rate / 2)[1]
            bad += measure(
                *one,
                rate=rate / 2,
                swap=lambda: publish_als.set_current(folder, second.name),
            )[1]
            with urllib.request.urlopen(f"{url}/health", timeout=20) as answer:
                told = json.load(answer)
            if told["run"] != second.name:
                print(f"  the swap did not happen: {told['refused']}")
                bad += 1
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            process.stdout.close()
    return bad


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    args = parser.parse_args()
    return int(sum(bench(n_items, args.seconds) for n_items in args.items) > 0)


if __name__ == "__main__":
    sys.exit(main())

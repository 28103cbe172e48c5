"""Answer with the lists of a run that publish_als.py has published.

    python serve_als.py RUNS

RUNS holds a folder for each run and a file ``current`` that names one. When it names
another, that run is checked while the old one goes on answering, and then replaces it;
a run that is refused answers nothing, and /health says why.

    GET  /recommend?user=ID&n=10         GET /similar?item=ID&n=10      GET /health
    POST /fold-in {"likes": [ID, ...]}   GET /explain?user=ID&item=ID&n=10

A fold-in may also give {"ratings": {ID: NUMBER, ...}}, and "n". Every answer names its
run. There is no log-in: the address is this machine's own unless --host says otherwise,
and whoever opens it to others puts a proxy in front.
"""

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import os
import re
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route
from threadpoolctl import threadpool_limits
from uvicorn.supervisors import Multiprocess

try:
    import fcntl
except ImportError:  # Windows, where a file that is mapped cannot be renamed anyway
    fcntl = None

FORMAT = 1
SAMPLE = 50  # users whom the certificate solves again
APART = 1e-3  # relative distance of a user's factors from the half-step's; float32
SAME = 0.9  # of the golden lists must come out again; equal scores may change places
FIRST = 4096  # items that the scan reads first; then twice as many
BLOCK = 2**16  # items that are read at once to be checked
SLACK = 1 + 1e-5  # what 32 bits may add to a product of two vectors
RECALL = 0.95  # of the approximate index, below which it is not used
DEPTH = 256  # how far the approximate index looks
MOST = 100  # places of a list
LIKES = 1000  # in a fold-in
BODY = 2**16  # bytes of a request
LARGEST = 1e6  # rating in a fold-in
LONGEST_ID = 256  # bytes
PATIENCE = 10.0  # seconds that a client has to send a body, and a request at the end
SETTINGS = "SERVE_ALS"  # the variable that carries the arguments to the workers


class RefusedError(Exception):
    """Why a run is not served."""


class Run:
    """One run: read once and never changed, so that any thread may read it.

    Arrays are mapped, not read, so workers on one machine share the memory.

    Parameters
    ----------
    folder : path
    approximate : bool
        Search with voyager where its recall on this run's users is high enough.

    Attributes
    ----------
    name, search : str
    certificate : float
        Median relative distance of `SAMPLE` users from what the items give.

    Raises
    ------
    RefusedError
        The text says which check failed, and by how much.
    OSError, ValueError, KeyError
        If a file is missing or is not what it should be.
    """

    def __init__(self, folder, approximate=False):
        folder = Path(folder)
        # Held as long as the run lives: publish_als.py deletes nobody's open run.
        held = (folder / "run.json").open("rb")
        weakref.finalize(self, held.close)
        if fcntl:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.told = json.load(held)
        self.name, self.settings = folder.name, self.told["settings"]
        if self.told["format"] != FORMAT:
            raise RefusedError(
                f"its format is {self.told['format']}, not {FORMAT}: publish it with "
                "the program that belongs to this service"
            )
        self.check_files(folder)
        self.report = json.loads((folder / "report.json").read_bytes())

        def mapped(name):
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        self.user_ids, self.users = mapped("user_ids"), mapped("user_factors")
        self.item_ids, self.items = mapped("item_ids"), mapped("item_factors")
        self.item_order, self.norms = mapped("item_order"), mapped("item_norms")
        self.indptr, self.indices = mapped("indptr"), mapped("indices")
        self.ratings, self.popular = mapped("ratings"), mapped("popular")
        self.check_shapes()
        # Without the items' biases, which are their last number.
        self.vectors = self.items[:, :-1] if self.settings["biases"] else self.items
        self.gram = np.zeros((self.vectors.shape[1],) * 2)
        for start in range(0, len(self.vectors), BLOCK):
            block = self.vectors[start : start + BLOCK].astype(float)
            self.gram += block.T @ block
        self.lengths = np.linalg.norm(self.vectors, axis=1)
        self.check_order()
        self.check_report()
        self.certificate = self.certify()
        self.check_golden()
        self.index, self.search = None, "exact"
        if approximate:
            self.index, self.search = self.build_index()

    # -- what is refused ---------------------------------------------------------------

    def check_files(self, folder):
        """Refuse a run of which a file is shorter or other than when it was written."""
        if self.told["run"] != self.name:
            raise RefusedError(f"run.json is of run {self.told['run']}")
        for name, wanted in self.told["files"].items():
            with (folder / name).open("rb") as file:
                found = os.fstat(file.fileno()).st_size
                if found != wanted["bytes"]:
                    raise RefusedError(
                        f"{name} has {found} bytes, not {wanted['bytes']}"
                    )
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    raise RefusedError(f"{name} is not the file that was published")

    def check_shapes(self):
        """Refuse parts whose rows do not match."""
        n_users, n_items = len(self.user_ids), len(self.item_ids)
        found = {
            "user_factors": len(self.users),
            "indptr": len(self.indptr) - 1,
            "item_factors": len(self.items),
            "item_order": len(self.item_order),
            "item_norms": len(self.norms),
            "popular": len(self.popular),
            "ratings": len(self.ratings),
            "width of user_factors": self.users.shape[1],
        }
        wanted = dict.fromkeys(found, n_items)
        wanted |= {
            "user_factors": n_users,
            "indptr": n_users,
            "ratings": len(self.indices),
            "width of user_factors": self.items.shape[1],
        }
        for name, number in found.items():
            if number != wanted[name]:
                raise RefusedError(f"{name} is {number}, must be {wanted[name]}")

    def check_order(self):
        """Refuse factors that are no numbers, or norms by which no scan may stop."""
        if not (np.isfinite(self.gram).all() and np.isfinite(self.users).all()):
            raise RefusedError("factors hold nan or infinity")
        norms = np.linalg.norm(self.items, axis=1)
        if (np.diff(self.norms) > 0).any() or (norms > self.norms * SLACK).any():
            raise RefusedError("items are not longest first, or their norms are wrong")

    def check_report(self):
        """Refuse a run whose lists are not shown to be better than popularity's."""
        gap = self.report["paired"]["ndcg_above_most_popular"]
        if gap["low"] is None or not gap["low"] > 0:
            raise RefusedError(
                "its lists do not beat the most popular items: the difference in nDCG "
                f"is {gap['mean']}, from {gap['low']} to {gap['high']}"
            )

    def certify(self):
        """Solve some users again: it tells parts of two runs, and wrong settings."""
        asked = np.flatnonzero(np.diff(self.indptr))
        asked = np.random.default_rng(0).permutation(asked)[:SAMPLE]
        solved = np.array([self.solve(*self.rated(row)) for row in asked])
        stored = self.users[asked]
        size = np.linalg.norm(stored, axis=1)
        away = np.linalg.norm(solved - stored, axis=1) / np.where(size, size, 1)
        found = float(np.median(away))
        if not found < APART:  # written so that nan is refused too
            raise RefusedError(
                f"users are {found:.1%} away from what the items give: parts of two "
                "runs, or other settings than those of the training"
            )
        return found

    def check_golden(self):
        """Refuse ids that stand for other rows than in the training."""
        shares = []
        for name, wanted in self.told["golden"].items():
            row = self.find_user(name)
            if row is None:
                raise RefusedError(f"user {name} of the golden lists is not there")
            found, _, _ = self.scan(self.users[row], len(wanted), self.rated(row)[0])
            same = {*wanted} & {self.item_id(column) for column in found}
            shares.append(len(same) / max(len(wanted), 1))
        if not np.mean(shares) > SAME:
            raise RefusedError(
                f"only {np.mean(shares):.0%} of the golden lists come out again: ids "
                "do not belong to these factors"
            )

    # -- who and what ------------------------------------------------------------------

    def find_user(self, name):
        """Row of a user, or None."""
        row = place_of(name, self.user_ids)
        there = row < len(self.user_ids) and self.user_ids[row] == name.encode()
        return row if there else None

    def find_item(self, name):
        """Column of an item, or None."""
        ids, order = self.item_ids, self.item_order
        place = place_of(name, ids, order)
        if place == len(order) or ids[order[place]] != name.encode():
            return None
        return int(order[place])

    def item_id(self, column):
        """Name the item in a column."""
        return self.item_ids[column].decode()

    def rated(self, row):
        """Columns that a user has rated, ascending, and the ratings."""
        part = slice(self.indptr[row], self.indptr[row + 1])
        return self.indices[part], self.ratings[part]

    # -- the arithmetic ----------------------------------------------------------------

    def system(self, columns, ratings):
        """Make the normal equations of one user.

        Returns
        -------
        gram : array of shape (k, k)
        pull : array of shape (n_rated,)
            Confidence times preference: the right-hand side is their sum over vectors.
        F : array of shape (n_rated, k)
        """
        hole, alpha, base = self.settings["formula"]
        F, r = np.asarray(self.vectors[columns], float), np.asarray(ratings, float)
        if self.settings["biases"]:
            r = r - self.settings["mean"] - self.items[columns, -1]
            r = r - r.sum() / (len(r) + self.settings["damping"])
        confidence = base + alpha * np.abs(r)
        pull = confidence * (r > 0) if hole else r
        asking = np.sum(r > 0) if hole else len(r)
        gram = hole * self.gram + (F.T * (confidence - hole)) @ F
        weight = asking if self.settings["weighted"] else 1
        gram.flat[:: len(gram) + 1] += self.settings["regularization"] * weight
        return gram, pull, F

    def solve(self, columns, ratings):
        """Fold a user in: one half-step, from what he or she has rated."""
        width = self.items.shape[1]
        if not len(columns):
            return np.zeros(width, "f4")
        gram, pull, F = self.system(columns, ratings)
        found = np.linalg.solve(gram, pull @ F) if pull.any() else np.zeros(len(gram))
        return np.append(found, np.ones(width - len(found))).astype("f4")

    def scan(self, query, n, without):
        """Find the best items exactly, and stop when no shorter one can be among them.

        No product is larger than the product of the two norms (Cauchy-Schwarz), and
        items stand longest first: once the n-th best score reaches that of the next
        norm, the rest need not be read.

        Parameters
        ----------
        query : float32 array of shape (k,)
        n : int
        without : int array
            Columns to leave out, ascending.

        Returns
        -------
        columns, scores : arrays of shape (n,)
            Highest score first, of equal ones the longer item. Fewer where fewer are
            left.
        read : float
            Share of the items that was read; 1 is the full product.

        Notes
        -----
        Where more than half would be read, all are, in one product: on norms that are
        nearly equal the scan has nothing to stop it, and says so by its `read` of 1.
        """
        reach = float(np.linalg.norm(query)) * SLACK
        columns, scores, start, size = np.empty(0, int), np.empty(0, "f4"), 0, FIRST
        while start < len(self.items):
            if len(scores) == n and scores[-1] >= reach * self.norms[start]:
                break
            stop = min(start + size, len(self.items))
            if 2 * stop > len(self.items):  # nearly all is needed: all in one product
                stop = len(self.items)
            block = self.items[start:stop] @ query
            low, high = np.searchsorted(without, (start, stop))
            block[without[low:high] - start] = -np.inf
            least = scores[-1] if len(scores) == n else -np.inf
            if len(block) > n:
                least = max(least, np.partition(block, -n)[-n])
            found = np.flatnonzero((block >= least) & (block > -np.inf))
            columns = np.concatenate([columns, found + start])
            scores = np.concatenate([scores, block[found]])
            best = np.lexsort((columns, -scores))[:n]
            columns, scores = columns[best], scores[best]
            start, size = stop, 2 * size
        return columns, scores, start / len(self.items)

    def build_index(self):
        """Build an approximate index, and measure it on this run's own users.

        Returns
        -------
        index : voyager.Index or None
        search : str
            Which search answers, and with what recall.
        """
        try:
            from voyager import Index, Space
        except ImportError as error:
            raise RefusedError("--approximate needs the package voyager") from error
        index = Index(Space.InnerProduct, self.items.shape[1])
        # One thread, so that the longest items are the first: searches begin at them.
        index.add_items(np.array(self.items), num_threads=1)
        known = np.flatnonzero(np.diff(self.indptr))
        rows = np.random.default_rng(1).permutation(known)[:200]
        n = min(10, len(self.items))
        exact = [self.scan(self.users[row], n, np.empty(0, int))[0] for row in rows]
        found, _ = index.query(self.users[rows], n, 1, DEPTH)
        same = [
            len({*a} & {*b}) / n for a, b in zip(exact, found.tolist(), strict=True)
        ]
        if not np.mean(same) >= RECALL:
            return None, f"exact, as the index has a recall of {np.mean(same):.3f}"
        return index, f"approximate, recall {np.mean(same):.3f}"

    def best(self, query, n, without):
        """Search as the service was told to."""
        wanted = n + len(without)
        if self.index is None or wanted > DEPTH or wanted > len(self.items):
            return self.scan(query, n, without)
        found = self.index.query(query, wanted, query_ef=DEPTH)[0].astype(int)
        found = found[~np.isin(found, without)][:n]
        return found, self.items[found] @ query, None

    # -- the answers -------------------------------------------------------------------

    def listed(self, columns, scores=None):
        """Name the items of a list."""
        if scores is None:
            return [{"item": self.item_id(column)} for column in columns]
        return [
            {"item": self.item_id(column), "score": float(score)}
            for column, score in zip(columns, scores, strict=True)
        ]

    def advise(self, query, n, without):
        """List items for a user's factors, or what is popular if these are zero."""
        n_factors = self.vectors.shape[1]
        if query is None or not query[:n_factors].any():
            some = self.popular[: n + len(without)]
            some = some[~np.isin(some, without)][:n]
            return {"run": self.name, "source": "popular", "items": self.listed(some)}
        columns, scores, read = self.best(query, n, without)
        items = self.listed(columns, scores)
        return {"run": self.name, "source": "als", "items": items, "read": read}

    def recommend(self, user, n):
        """List items for a user of the run."""
        row = self.find_user(user)
        if row is None:
            raise HTTPException(
                404, f"no user {user!r}: POST to /fold-in what they like"
            )
        return self.advise(self.users[row], n, self.rated(row)[0])

    def similar(self, item, n):
        """List the items whose factors point the same way."""
        column = self.find_item(item)
        if column is None:
            raise HTTPException(404, f"no item {item!r}")
        lengths = np.where(self.lengths, self.lengths, 1)
        scores = self.vectors @ self.vectors[column] / (lengths * lengths[column])
        scores[column] = -np.inf
        n = min(n, len(scores) - 1)
        least = np.partition(scores, -n)[-n] if n else np.inf
        found = np.flatnonzero(scores >= least)
        found = found[np.lexsort((found, -scores[found]))[:n]]
        return {"run": self.name, "items": self.listed(found, scores[found])}

    def fold_in(self, given, n):
        """List items for somebody of whom only these ratings are known."""
        known = {name: self.find_item(name) for name in given}
        unknown = [name for name, column in known.items() if column is None]
        pairs = sorted((c, given[name]) for name, c in known.items() if c is not None)
        columns = np.array([column for column, _ in pairs], int)
        query = None
        if len(pairs) >= self.told["hand_over"]["likes"]:
            query = self.solve(columns, np.array([rating for _, rating in pairs]))
        return self.advise(query, n, columns) | {"unknown": unknown}

    def explain(self, user, item, n):
        """List the likes that carry a score; with the item's bias all sum to it."""
        row, column = self.find_user(user), self.find_item(item)
        if row is None or column is None:
            what = f"user {user!r}" if row is None else f"item {item!r}"
            raise HTTPException(404, f"no {what}")
        columns, ratings = self.rated(row)
        if not len(columns):
            raise HTTPException(404, f"user {user!r} has rated nothing")
        gram, pull, F = self.system(columns, ratings)
        bias = float(self.items[column, -1]) if self.settings["biases"] else 0.0
        each = pull * (F @ np.linalg.solve(gram, self.vectors[column].astype(float)))
        order = np.lexsort((columns, -each))[:n]
        because = [
            {"item": self.item_id(columns[at]), "contribution": float(each[at])}
            for at in order
        ]
        score = bias + float(each.sum())
        return {"run": self.name, "score": score, "bias": bias, "because": because}


def place_of(name, ids, order=None):
    """Find where an id stands, or would stand, among ids sorted by their bytes."""
    # One longer than all would be searched for in a longer copy of all.
    wanted = np.array(name.encode()[: ids.dtype.itemsize], ids.dtype)
    return int(np.searchsorted(ids, wanted, sorter=order))


class Service:
    """Which run answers. `run` is replaced as a whole, so a request sees one run.

    Parameters
    ----------
    runs : path
    approximate : bool
    threads : int
        Requests that are worked on at once.
    waiting : int
        Requests that may wait beyond those.
    poll : float
        Seconds between two looks at ``current``.
    """

    def __init__(self, runs, approximate=False, threads=2, waiting=64, poll=1.0):
        self.runs, self.approximate, self.poll = Path(runs), approximate, poll
        self.run, self.refused, self.named = None, {}, None
        self.room = threads + waiting
        self.threads = ThreadPoolExecutor(threads, "answer")
        self.loader = ThreadPoolExecutor(1, "load")  # so that loading delays nobody

    def read_current(self):
        """Name of the run that shall answer, or None."""
        with contextlib.suppress(OSError):
            return (self.runs / "current").read_text("utf-8")[:LONGEST_ID].strip()
        return None

    def load(self, name):
        """Open a run, or note why not."""
        try:
            if not name or Path(name).name != name or name.startswith("."):
                raise RefusedError("that is no name of a run")
            run = Run(self.runs / name, self.approximate)
        except (RefusedError, OSError, ValueError, KeyError, TypeError) as error:
            kind = (
                "" if isinstance(error, RefusedError) else f"{type(error).__name__}: "
            )
            self.refused[name] = f"{kind}{error}"
            print(f"serve_als: {name} is refused: {kind}{error}", file=sys.stderr)
            return None
        self.refused.pop(name, None)
        return run

    def start(self):
        """Serve the current run; if it is refused, the newest that is not.

        Raises
        ------
        RefusedError
            If there is none.
        """
        self.named = self.read_current()
        names = sorted(path.parent.name for path in self.runs.glob("[!.]*/run.json"))
        for name in [self.named, *reversed(names)]:
            if name and name not in self.refused:
                self.run = self.load(name)
                if self.run:
                    return
        raise RefusedError(f"there is no run to serve in {self.runs}: {self.refused}")

    def look(self):
        """Take another run if ``current`` has come to name one."""
        name = self.read_current()
        if name is None or name == self.named:
            return
        self.named = name
        if name != self.run.name:
            self.run = self.load(name) or self.run

    async def watch(self):
        """Look again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.poll)
            await loop.run_in_executor(self.loader, self.look)

    async def work(self, method, *arguments):
        """Let a thread work, with the run of this moment to the end of the request."""
        if self.room == 0:
            raise HTTPException(
                503, "too many requests at once, ask again", {"Retry-After": "1"}
            )
        self.room -= 1
        loop = asyncio.get_running_loop()
        task = functools.partial(getattr(self.run, method), *arguments)
        # A client who goes away frees no thread, so the place is given back by these.
        future = loop.run_in_executor(self.threads, task)
        future.add_done_callback(self._leave)
        return JSONResponse(await asyncio.shield(future))

    def _leave(self, future):
        self.room += 1
        if not future.cancelled():
            future.exception()  # looked at, though nobody may wait for it any more

    async def recommend(self, request):
        """GET /recommend."""
        asked = request.query_params
        return await self.work("recommend", name_in(asked, "user"), length_in(asked))

    async def similar(self, request):
        """GET /similar."""
        asked = request.query_params
        return await self.work("similar", name_in(asked, "item"), length_in(asked))

    async def explain(self, request):
        """GET /explain."""
        asked = request.query_params
        names = name_in(asked, "user"), name_in(asked, "item")
        return await self.work("explain", *names, length_in(asked))

    async def fold_in(self, request):
        """POST /fold-in."""
        asked = await read_body(request)
        return await self.work("fold_in", ratings_in(asked), length_in(asked))

    async def health(self, request):
        """GET /health."""
        run = self.run
        told = {
            "run": run.name,
            "made": run.told["made"],
            "users": len(run.users),
            "items": len(run.items),
            "factors": run.vectors.shape[1],
            "certificate": run.certificate,
            "search": run.search,
            "hand_over": run.told["hand_over"]["likes"],
            "current": self.named,
            "refused": self.refused,
        }
        return JSONResponse(told)


# -- what a request may say ------------------------------------------------------------


def name_in(asked, key):
    """Take an id from the query."""
    if not asked.get(key):
        raise HTTPException(400, f"say which {key}: ?{key}=ID")
    return checked_name(asked[key])


def checked_name(name):
    """Refuse what is no id."""
    if not isinstance(name, str):
        raise HTTPException(422, f"ids are text, in quotes, not {name!r}")
    if len(name.encode(errors="replace")) > LONGEST_ID or "\ufffd" in name:
        raise HTTPException(422, f"an id is UTF-8 of at most {LONGEST_ID} bytes")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise HTTPException(422, "an id is no valid Unicode") from error
    return name


def length_in(asked):
    """Take the length of the list."""
    n = asked.get("n", 10)
    if isinstance(n, str) and re.fullmatch(r"-?[0-9]{1,9}", n):
        n = int(n)
    if isinstance(n, bool) or not isinstance(n, int):
        raise HTTPException(400, f"n is a whole number, not {str(n)[:50]!r}")
    if not 1 <= n <= MOST:
        raise HTTPException(422, f"n is from 1 to {MOST}")
    return n


async def read_body(request):
    """Read JSON that is neither long nor slow."""
    body = b""
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in request.stream():
                body += piece
                if len(body) > BODY:
                    raise HTTPException(413, f"a body has at most {BODY} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"no body within {PATIENCE:.0f} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the body breaks off") from error
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error
    if not isinstance(asked, dict):
        raise HTTPException(422, 'send an object: {"likes": [ID, ...]}')
    return asked


def ratings_in(asked):
    """Take the ratings of a fold-in; a like is a rating of 1."""
    likes, ratings = asked.get("likes"), asked.get("ratings")
    if (likes is None) == (ratings is None):
        raise HTTPException(422, 'send "likes" or "ratings", one of them')
    if likes is not None:
        if not isinstance(likes, list):
            raise HTTPException(422, '"likes" is a list of ids')
        given = {checked_name(name): 1.0 for name in likes}
    else:
        if not isinstance(ratings, dict):
            raise HTTPException(422, '"ratings" is an object: {ID: NUMBER, ...}')
        given = {checked_name(name): rating for name, rating in ratings.items()}
    if len(given) > LIKES:
        raise HTTPException(422, f"at most {LIKES} items, not {len(given)}")
    for name, rating in given.items():
        number = isinstance(rating, (int, float)) and not isinstance(rating, bool)
        if not number or not abs(rating) <= LARGEST:  # so that nan is refused too
            raise HTTPException(422, f"the rating of {name!r} is no number to use")
    return given


# -- the program -----------------------------------------------------------------------


async def as_json(request, error):
    """Answer an error with its sentence."""
    headers = getattr(error, "headers", None)
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


def make_app(service):
    """Make the application of a service that has a run."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        watcher = asyncio.create_task(service.watch())
        # One BLAS thread each: requests run side by side anyway.
        with threadpool_limits(1, user_api="blas"):
            yield
        watcher.cancel()

    routes = [
        Route("/recommend", service.recommend),
        Route("/similar", service.similar),
        Route("/explain", service.explain),
        Route("/health", service.health),
        Route("/fold-in", service.fold_in, methods=["POST"]),
    ]
    handlers = {HTTPException: as_json}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def app_of_worker():
    """Make the application in a worker process, whose arguments the parent left."""
    service = Service(**json.loads(os.environ[SETTINGS]))
    service.start()
    return make_app(service)


def main(argv=None):
    """Read the command line and serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="serve_als.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("runs", metavar="RUNS", help="folder of all runs")
    for flag, kind, default, text in [
        ("--host", str, "127.0.0.1", "address to listen at"),
        ("--port", int, 8000, "port; 0 takes a free one and prints it"),
        ("--workers", int, 1, "processes"),
        ("--threads", int, 2, "requests that a worker works on at once"),
        ("--waiting", int, 64, "requests that may wait beyond those"),
        ("--poll", float, 1.0, "seconds between two looks at RUNS/current"),
    ]:
        parser.add_argument(
            flag, type=kind, default=default, help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help=f"search with voyager where its recall is at least {RECALL}",
    )
    args = parser.parse_args(argv)
    if min(args.workers, args.threads) < 1 or args.waiting < 0 or not args.poll > 0:
        parser.error(
            "--workers, --threads and --poll are above 0, --waiting at least 0"
        )
    names = ("runs", "approximate", "threads", "waiting", "poll")
    options = {name: getattr(args, name) for name in names}
    os.environ[SETTINGS] = json.dumps(options)  # for the workers
    config = uvicorn.Config(
        "serve_als:app_of_worker",
        factory=True,
        host=args.host,
        port=args.port,
        workers=args.workers,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=int(PATIENCE),
        timeout_graceful_shutdown=int(PATIENCE),
        server_header=False,
    )
    try:
        if args.workers == 1:
            service = Service(**options)
            service.start()
            config.app, config.factory = make_app(service), False
        else:
            Service(**options).start()  # better an error here than in every worker
        socket = config.bind_socket()
        socket.listen(config.backlog)  # who comes while the application starts, waits
        address = socket.getsockname()
        print(f"serving at http://{address[0]}:{address[1]}", flush=True)
        if args.workers > 1:
            Multiprocess(config, sockets=[socket]).run()
        else:
            uvicorn.Server(config).run(sockets=[socket])
    except (RefusedError, OSError) as error:
        print(f"serve_als.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

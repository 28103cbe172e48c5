"""The service: right answers, clear refusals, and no answer of two runs at once."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import publish_als
import pytest
import serve_als
from scipy.sparse import csr_array

import small_runs
from als_course.als import ExplicitALS, ImplicitALS
from als_course.datasets import ratings_matrix
from als_course.metrics import top_k

PROGRAM = Path(serve_als.__file__)


class Client:
    """Asks an application in this process."""

    def __init__(self, app):
        self.app = app

    async def ask(self, method, path, **what):
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.request(method, path, **what)

    def get(self, path, **what):
        return asyncio.run(self.ask("GET", path, **what))

    def post(self, path, **what):
        return asyncio.run(self.ask("POST", path, **what))


@pytest.fixture(scope="module")
def table():
    return small_runs.likes()


@pytest.fixture(scope="module")
def model(table):
    return small_runs.fit(table)


@pytest.fixture(scope="module")
def published(table, model, tmp_path_factory):
    """Two good runs, of two seeds; the first is current."""
    runs = tmp_path_factory.mktemp("published")
    small_runs.publish(runs, table, model)
    time.sleep(1.1)  # names count seconds, and the later run is to be the newer one
    small_runs.publish(runs, table, small_runs.fit(table, seed=1), swap=False)
    return runs


@pytest.fixture
def runs(published, tmp_path):
    return shutil.copytree(published, tmp_path / "runs")


@pytest.fixture
def service(runs):
    made = serve_als.Service(runs)
    made.start()
    return made


@pytest.fixture
def client(service):
    return Client(serve_als.make_app(service))


def names(runs):
    """The two runs, the current one first."""
    current = (runs / "current").read_text().strip()
    found = {path.name for path in runs.iterdir() if path.is_dir()}
    return [current, *sorted(found - {current})]


def ids(answer):
    return [row["item"] for row in answer["items"]]


# -- right answers ---------------------------------------------------------------------


def test_lists_are_those_of_the_model(client, table, model):
    matrix, users, items = ratings_matrix(table)
    for row in range(0, len(users), 7):
        seen = matrix[[row]]
        scores = model.item_factors_ @ model.fold_in(seen)
        best, high = top_k(scores, 10, exclude=None if row % 2 else seen)
        if row % 2:
            continue
        answer = client.get("/recommend", params={"user": users[row]}).json()
        assert ids(answer) == items[best].tolist()
        assert [it["score"] for it in answer["items"]] == pytest.approx(high, rel=1e-4)
        assert answer["source"] == "als"


@pytest.mark.parametrize("biases", [False, True])
def test_lists_of_stars_are_those_of_the_model(biases, tmp_path):
    table = small_runs.likes(seed=3)
    table["rating"] = 1.0 + np.random.default_rng(0).integers(5, size=len(table))
    matrix, users, items = ratings_matrix(table)
    model = ExplicitALS(4, 0.3, biases=biases, n_iterations=5).fit(matrix)
    run = serve_als.Run(small_runs.publish(tmp_path, table, model))
    scores = model.item_factors_ @ model.fold_in(matrix[[5]]) + model.item_biases_
    best, high = top_k(scores, 8, exclude=matrix[[5]])
    answer = run.recommend(users[5], 8)
    assert ids(answer) == items[best].tolist()
    assert [it["score"] for it in answer["items"]] == pytest.approx(high, rel=1e-4)
    told = run.explain(users[5], items[best[0]], 99)
    assert told["score"] == pytest.approx(high[0], rel=1e-4)
    given = dict(zip(items[matrix[[5]].indices], matrix[[5]].data, strict=True))
    assert ids(run.fold_in(given, 8)) == ids(answer)


def test_similar_items_are_those_of_the_model(client, table, model):
    _, _, items = ratings_matrix(table)
    found, cosines = model.similar_items(4, 6)
    answer = client.get("/similar", params={"item": items[4], "n": 6}).json()
    assert ids(answer) == items[found].tolist()
    assert [it["score"] for it in answer["items"]] == pytest.approx(cosines, abs=1e-5)


def test_a_newcomer_with_a_users_likes_gets_the_users_list(client, table):
    liked = table[table.user_id == "u7"].item_id.tolist()
    known = client.get("/recommend", params={"user": "u7"}).json()
    answer = client.post("/fold-in", json={"likes": [*liked, "never seen"]}).json()
    assert ids(answer) == ids(known)
    assert answer["unknown"] == ["never seen"]
    weighed = {"ratings": {liked[0]: 50, liked[1]: 1, liked[2]: -1}, "n": 5}
    assert client.post("/fold-in", json=weighed).json()["source"] == "als"


def test_below_the_hand_over_newcomers_get_what_is_popular(client, table):
    popular = table.item_id.value_counts()
    for liked in ([], [popular.index[0]], popular.index[:2].tolist()):
        answer = client.post("/fold-in", json={"likes": liked}).json()
        assert answer["source"] == "popular"
        assert not set(ids(answer)) & set(liked)
        best = popular.drop(liked).head(10)
        assert sorted(popular[ids(answer)]) == sorted(best)


def test_an_explanation_sums_to_the_score(client, table):
    best = client.get("/recommend", params={"user": "u3", "n": 1}).json()["items"][0]
    asked = {"user": "u3", "item": best["item"]}
    all_of_it = client.get("/explain", params=asked | {"n": 100}).json()
    parts = [row["contribution"] for row in all_of_it["because"]]
    assert sum(parts) == pytest.approx(best["score"], rel=1e-4)
    assert {row["item"] for row in all_of_it["because"]} == set(
        table[table.user_id == "u3"].item_id
    )
    assert parts == sorted(parts, reverse=True)
    short = client.get("/explain", params=asked | {"n": 2}).json()
    assert short["because"] == all_of_it["because"][:2]
    assert short["score"] == all_of_it["score"]


def bare_run(norms, k=8, seed=0):
    """A run of which only the scan is used."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(len(norms), k))
    items *= (np.sort(norms)[::-1] / np.linalg.norm(items, axis=1))[:, None]
    run = object.__new__(serve_als.Run)
    run.items = items.astype("f4")
    run.norms = np.linalg.norm(run.items, axis=1)
    return run, rng


def full_scan(run, query, n, without):
    scores = run.items @ query
    scores[without] = -np.inf
    return np.argsort(-scores, kind="stable")[:n]


@pytest.mark.parametrize(
    ("spread", "most"), [(1.5, 0.3), (0.0, 1.0)], ids=["spread", "equal"]
)
def test_the_scan_that_stops_finds_what_the_full_product_finds(spread, most):
    rng = np.random.default_rng(1)
    run, rng = bare_run(np.exp(spread * rng.normal(size=60_000)))
    shares = []
    for n in (1, 10, 100):
        query = rng.normal(size=8).astype("f4")
        without = np.sort(rng.choice(500, 40, replace=False))
        found, scores, read = run.scan(query, n, without)
        assert found.tolist() == full_scan(run, query, n, without).tolist()
        assert (np.diff(scores) <= 0).all()
        shares.append(read)
    assert max(shares) <= most
    assert (min(shares) == 1) == (spread == 0)


def test_the_scan_gives_what_is_left_when_little_is():
    run, _ = bare_run(np.ones(12))
    found, _, _ = run.scan(np.ones(8, "f4"), 10, np.arange(9))
    assert sorted(found) == [9, 10, 11]
    assert run.scan(np.ones(8, "f4"), 10, np.arange(12))[0].size == 0


def test_of_equal_scores_the_longer_item_is_first():
    run, _ = bare_run(np.ones(9000))
    run.items[:] = run.items[0]
    run.norms[:] = run.norms[0]
    assert run.scan(run.items[0], 5, np.array([1]))[0].tolist() == [0, 2, 3, 4, 5]


def test_the_index_answers_where_its_recall_is_high_enough(runs, monkeypatch):
    folder = runs / names(runs)[0]
    exact, index = serve_als.Run(folder), serve_als.Run(folder, approximate=True)
    assert index.search == "approximate, recall 1.000"
    for user in ("u1", "u2", "u40"):
        assert ids(index.recommend(user, 5)) == ids(exact.recommend(user, 5))
    monkeypatch.setattr(serve_als, "RECALL", 1.1)
    worse = serve_als.Run(folder, approximate=True)
    assert worse.search == "exact, as the index has a recall of 1.000"
    assert worse.index is None


# -- bad requests ----------------------------------------------------------------------

BAD = [
    ("/recommend", 400, "say which user"),
    ("/recommend?user=nobody", 404, "no user 'nobody': POST to /fold-in"),
    ("/recommend?user=u1&n=ten", 400, "n is a whole number"),
    ("/recommend?user=u1&n=1_0", 400, "n is a whole number"),
    ("/recommend?user=u1&n=0", 422, "n is from 1 to 100"),
    ("/recommend?user=u1&n=101", 422, "n is from 1 to 100"),
    ("/recommend?user=" + 300 * "x", 422, "at most 256 bytes"),
    ("/recommend?user=%ff", 422, "UTF-8"),
    ("/similar?item=none", 404, "no item 'none'"),
    ("/explain?user=u1", 400, "say which item"),
    ("/explain?user=u1&item=none", 404, "no item 'none'"),
    ("/explain?user=nobody&item=i1", 404, "no user 'nobody'"),
    ("/nothing", 404, "Not Found"),
    ("/fold-in", 405, "Method Not Allowed"),
]


@pytest.mark.parametrize(("path", "status", "said"), BAD)
def test_bad_questions_are_answered_with_a_sentence(client, path, status, said):
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]


BODIES = [
    (b"", 400, "no JSON"),
    (b"[" * 60_000, 400, "no JSON"),
    (b"\xff", 400, "no JSON"),
    (b"[1]", 422, "send an object"),
    (b"{}", 422, 'send "likes" or "ratings"'),
    (b'{"likes": [], "ratings": {}}', 422, "one of them"),
    (b'{"likes": "i1"}', 422, "a list of ids"),
    (b'{"likes": [1]}', 422, "ids are text"),
    (b'{"likes": ["\\ud800"]}', 422, "no valid Unicode"),
    (b'{"ratings": ["i1"]}', 422, "is an object"),
    (b'{"ratings": {"i1": "5"}}', 422, "no number to use"),
    (b'{"ratings": {"i1": true}}', 422, "no number to use"),
    (b'{"ratings": {"i1": NaN}}', 422, "no number to use"),
    (b'{"ratings": {"i1": 1' + 400 * b"0" + b"}}", 422, "no number to use"),
    (b'{"likes": ["i1"], "n": 2.5}', 400, "n is a whole number"),
    (b'{"likes": ["i1"], "n": true}', 400, "n is a whole number"),
    (
        json.dumps({"likes": [f"x{n}" for n in range(1001)]}).encode(),
        422,
        "at most 1000",
    ),
    (b" " * 70_000, 413, "at most 65536 bytes"),
]


@pytest.mark.parametrize(("body", "status", "said"), BODIES)
def test_bad_bodies_are_answered_with_a_sentence(client, body, status, said):
    answer = client.post("/fold-in", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_who_sends_no_body_is_not_waited_for(service, monkeypatch):
    monkeypatch.setattr(serve_als, "PATIENCE", 0.05)
    app, sent = serve_als.make_app(service), []
    scope = {"type": "http", "method": "POST", "path": "/fold-in", "headers": []}
    scope |= {"query_string": b"", "http_version": "1.1"}

    async def receive():
        await asyncio.sleep(99)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


def test_more_requests_than_there_is_room_for_are_sent_away(runs, monkeypatch):
    service = serve_als.Service(runs, threads=1, waiting=1)
    service.start()
    go_on = threading.Event()

    def slow(*asked):
        assert go_on.wait(10)
        return {}

    monkeypatch.setattr(service.run, "recommend", slow)
    client = Client(serve_als.make_app(service))

    async def scene():
        slow_ones = [
            asyncio.create_task(client.ask("GET", "/recommend?user=u1"))
            for _ in range(2)
        ]
        while service.room:
            await asyncio.sleep(0.01)
        refused = await client.ask("GET", "/recommend?user=u1")
        healthy = await client.ask("GET", "/health")
        go_on.set()
        return refused, healthy, await asyncio.gather(*slow_ones)

    refused, healthy, answered = asyncio.run(scene())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert healthy.status_code == 200
    assert [one.status_code for one in answered] == [200, 200]
    assert service.room == 2


# -- runs that are refused, and the swap -----------------------------------------------


def other_users(folder, other):
    wrong = np.load(other / "user_factors.npy")
    small_runs.replace(folder, "user_factors.npy", lambda _: wrong)


def other_items(folder, other):
    for name in ("item_ids", "item_order", "item_factors", "item_norms"):
        wrong = np.load(other / f"{name}.npy")
        small_runs.replace(folder, f"{name}.npy", lambda _, wrong=wrong: wrong)


def exchanged_ids(folder, other):
    small_runs.replace(folder, "item_ids.npy", lambda names: np.roll(names, 1))


def with_nan(folder, other):
    def spoil(factors):
        factors[3, 2] = np.nan
        return factors

    small_runs.replace(folder, "user_factors.npy", spoil)


def worse_than_popular(folder, other):
    small_runs.replace(folder, "report.json", lambda _: small_runs.report(low=-0.01))


def not_measured(folder, other):
    def forget(report):
        report["paired"]["ndcg_above_most_popular"]["low"] = float("nan")
        return report

    small_runs.replace(folder, "report.json", forget)


def one_user_less(folder, other):
    small_runs.replace(folder, "user_factors.npy", lambda factors: factors[:-1])


def shortest_first(folder, other):
    small_runs.replace(folder, "item_norms.npy", lambda norms: norms[::-1])


def wrong_alpha(folder, other):
    def change(told):
        told["settings"]["formula"][1] = 5.5
        return told

    small_runs.replace(folder, "run.json", change)


def cut_off(folder, other):
    path = folder / "item_factors.npy"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 64)


def one_bit(folder, other):
    small_runs.replace(folder, "ratings.npy", lambda it: it + 1, seal=False)


def missing_file(folder, other):
    (folder / "popular.npy").unlink()


def other_name(folder, other):
    shutil.copytree(other, folder, dirs_exist_ok=True)


def later_format(folder, other):
    small_runs.replace(folder, "run.json", lambda told: told | {"format": 2})


SPOILED = [
    (other_users, "parts of two runs"),
    (other_items, "parts of two runs"),
    (wrong_alpha, "other settings"),
    (exchanged_ids, "golden lists"),
    (with_nan, "nan or infinity"),
    (worse_than_popular, "do not beat the most popular"),
    (not_measured, "do not beat the most popular"),
    (one_user_less, "user_factors is 119, must be 120"),
    (shortest_first, "longest first"),
    (cut_off, "item_factors.npy has"),
    (one_bit, "ratings.npy is not the file"),
    (missing_file, "FileNotFoundError"),
    (other_name, "run.json is of run"),
    (later_format, "its format is 2"),
]


@pytest.mark.parametrize(
    ("spoil", "said"), SPOILED, ids=[spoil.__name__ for spoil, _ in SPOILED]
)
def test_a_spoiled_run_is_refused_and_the_old_one_answers(
    spoil, said, runs, service, client
):
    good, bad = names(runs)
    spoil(runs / bad, runs / good)
    publish_als.set_current(runs, bad)
    service.look()
    told = client.get("/health").json()
    assert told["run"] == good
    assert told["current"] == bad
    assert said in told["refused"][bad]
    assert client.get("/recommend?user=u1").json()["run"] == good
    again = serve_als.Service(runs)  # as after a crash
    again.start()
    assert again.run.name == good


def test_the_service_takes_a_good_run_and_says_so(runs, service, client):
    first, second = names(runs)
    assert client.get("/health").json()["run"] == first
    publish_als.set_current(runs, second)
    service.look()
    told = client.get("/health").json()
    assert (told["run"], told["refused"]) == (second, {})
    assert told["certificate"] < 1e-5
    assert client.get("/recommend?user=u1").json()["run"] == second


@pytest.mark.parametrize("name", ["../runs", ".hidden", "", "/etc", "a/b", "no run"])
def test_what_is_no_run_is_no_reason_to_stop(name, runs, service, client):
    (runs / "current").write_text(name)
    service.look()
    assert client.get("/health").json()["run"] == service.run.name
    assert service.refused or not name


def test_without_a_good_run_there_is_no_service(runs, tmp_path, capsys):
    for name in names(runs):
        worse_than_popular(runs / name, None)
    assert serve_als.main([str(runs), "--port", "0"]) == 2
    assert "do not beat the most popular" in capsys.readouterr().err
    assert serve_als.main([str(tmp_path / "nowhere"), "--port", "0"]) == 2
    assert "there is no run to serve" in capsys.readouterr().err


@pytest.mark.skipif(serve_als.fcntl is None, reason="Windows keeps open files itself")
def test_an_open_run_is_not_pruned_and_a_deleted_one_still_answers(runs, service):
    mapped, other = names(runs)
    publish_als.set_current(runs, other)
    assert publish_als.prune(runs, keep=1) == []
    answer = service.run.recommend("u1", 5)
    shutil.rmtree(runs / mapped)
    assert service.run.recommend("u1", 5) == answer
    service.look()
    assert service.run.name == other


# -- the program -----------------------------------------------------------------------


# A fold-in whose body is still to come.
LATE = b"POST /fold-in HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"


class Program:
    """The service in a process of its own."""

    def __init__(self, runs, *options):
        command = [sys.executable, str(PROGRAM), str(runs), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--poll", "0.05", *options], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().split()[-1]
        host, port = self.url.removeprefix("http://").split(":")
        self.address = host, int(port)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return json.load(answer)

    def until(self, asked):
        """Ask for /health until it is as it should be."""
        for _ in range(400):
            told = self.get("/health")
            if asked(told):
                return told
            threading.Event().wait(0.02)
        raise AssertionError(told)

    def maps(self):
        """What the workers have mapped, a text each."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [Path(f"/proc/{child}/maps").read_text() for child in children]

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(20)


@contextlib.contextmanager
def running(runs, *options):
    program = Program(runs, *options)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.end(signal.SIGTERM)
        program.process.stdout.close()


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGTERM to wait for"
)
def test_under_load_no_answer_is_lost_or_mixed(runs, capfd):
    good, next_one = names(runs)
    bad = shutil.copytree(runs / next_one, runs / "20990101T000000-00000000")
    small_runs.replace(bad, "run.json", lambda told: told | {"run": bad.name})
    other_items(bad, runs / good)
    users = [f"u{n}" for n in range(40)]
    wanted = {
        name: {user: ids(run.recommend(user, 10)) for user in users}
        for name in (good, next_one)
        for run in [serve_als.Run(runs / name)]
    }
    answers, over = [], threading.Event()

    def ask(program, offset):
        n = offset
        while not over.is_set():
            user = users[n % len(users)]
            answers.append((user, program.get(f"/recommend?user={user}")))
            n += 1

    with running(runs) as program, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, program, 10 * n) for n in range(4)]
        for _ in range(5):  # clients who go away in the middle
            with socket.create_connection(program.address) as gone:
                gone.sendall(LATE + b'{"li')
        publish_als.set_current(runs, bad.name)
        told = program.until(lambda told: bad.name in told["refused"])
        assert told["run"] == good
        publish_als.set_current(runs, next_one)
        program.until(lambda told: told["run"] == next_one)
        seen = len(answers)
        while len(answers) < seen + 20:
            threading.Event().wait(0.01)
        over.set()
        for one in asking:
            one.result()
        program.end(signal.SIGKILL)
    assert {answer["run"] for _, answer in answers} == {good, next_one}
    for user, answer in answers:
        assert ids(answer) == wanted[answer["run"]][user]

    publish_als.set_current(runs, bad.name)
    with running(runs, "--workers", "2") as program:
        told = program.until(lambda told: bad.name in told["refused"])
        assert told["run"] == next_one
        if Path("/proc").exists():
            mapped = str(runs / next_one / "item_factors.npy")
            end = time.monotonic() + 60  # the second worker may still be loading
            while sum(mapped in maps for maps in program.maps()) < 2:
                assert time.monotonic() < end, "the workers do not share the pages"
                time.sleep(0.1)
        with socket.create_connection(program.address) as late:
            late.sendall(LATE)
            program.get("/health")
            threading.Event().wait(0.2)  # so that a worker has begun with it
            program.process.send_signal(signal.SIGTERM)
            threading.Event().wait(0.2)
            late.sendall(b'{"likes": ["i1"]}')
            said = b"".join(iter(lambda: late.recv(4096), b""))
        assert said.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(said.split(b"\r\n\r\n")[1])["run"] == next_one
        program.process.wait(20)
    assert "Traceback" not in capfd.readouterr().err


def test_asked_for_help_it_says_how_to_ask(capsys):
    with pytest.raises(SystemExit, match="0"):
        serve_als.main(["--help"])
    assert "RUNS" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        serve_als.main(["runs", "--threads", "0"])


def test_the_normal_equation_is_that_of_the_library(published, table, model):
    matrix, _, items = ratings_matrix(table)
    run = serve_als.Run(published / names(published)[0])
    ratings = np.array([3.0, 1.0, -2.0, 0.0])
    columns = [run.find_item(name) for name in items[:4]]
    row = csr_array((ratings, np.arange(4), [0, 4]), shape=(1, len(items)))
    assert run.solve(columns, ratings) == pytest.approx(
        model.fold_in(row), rel=1e-3, abs=1e-5
    )
    assert isinstance(model, ImplicitALS)
    assert matrix.shape == (len(run.users), len(run.items))

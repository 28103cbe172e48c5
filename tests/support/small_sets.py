"""A MovieLens and reviews of a few rows, in every container that the real ones have."""

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from als_course import datasets
from als_course.datasets import amazon, lastfm, movielens

BOOK = Path(datasets.__file__).parents[1]
WHEEL = "recbole-1.2.1-py3-none-any.whl"
UCSD = "reviews_Musical_Instruments_5.json"
KAGGLE = "Musical_instruments_reviews.csv"
# What facts of the original files say; written down here apart from the library.
REAL_MOVIELENS = "3c61dc9b90a365d2ac50bdee9df8024ddf0eea4b1a15678d9934a77e75fe0ede"
REAL_AMAZON = "3e49bda93a70b9bd3f8b17800505cb7457632f0e1f045eccdf958cecca59a5d6"
TINY_RATINGS = [
    (9, 2, 3, 881250949),
    (1, 1, 5, 874965758),
    (1, 267, 1, 878887116),
    (10, 1412, 4, 877881320),
    (9, 543, 2, 886397596),
]
ITEMS_HEADER = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
)
# As in u.item, as in the wheel's .item, and as both should be read.
TINY_ITEMS = [
    ("Toy Story (1995)", "Toy Story\t1995", (1, "Toy Story", 1995), [3, 4, 5]),
    ("Shall We Dance? (Dansu) (1996)", "Shall We Dance? (Dansu)\t1996",
     (2, "Shall We Dance? (Dansu)", 1996), [5]),
    ("unknown", "unkonwn\tunkonwn", (267, "unknown", None), [0]),
    ("Misérables, Les (1995)", "Misérables, Les\t1995",
     (543, "Misérables, Les", 1995), [8, 12]),
    ("Land Before Time III (1995) (V)", "Land Before Time III (1995)\tV",
     (1412, "Land Before Time III", 1995), [3, 4]),
]  # fmt: skip


def sha256_of_rows(rows: list[tuple]) -> str:
    lines = sorted("\t".join(map(str, row)) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            entry = zipfile.ZipInfo(name)  # the same bytes at any time
            archive.writestr(entry, body, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def u_data(rows=TINY_RATINGS) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def u_item(encoding: str = "latin-1") -> bytes:
    lines = []
    for title, _, (item, *_), genres in TINY_ITEMS:
        flags = "|".join("1" if genre in genres else "0" for genre in range(19))
        lines.append(f"{item}|{title}|01-Jan-1995||http://example.org/|{flags}\n")
    return "".join(lines).encode(encoding)


def ml_100k_zip(data: bytes | None = None) -> bytes:
    data = u_data() if data is None else data
    return zipped(
        {"ml-100k/README": b"", "ml-100k/u.data": data, "ml-100k/u.item": u_item()}
    )


def recbole_wheel() -> bytes:
    header = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    lines = [ITEMS_HEADER]
    for _, title, (item, *_), genres in TINY_ITEMS:
        names = " ".join(movielens.GENRES[genre] for genre in genres)
        lines.append(f"{item}\t{title}\t{names}")
    folder, info = "recbole/dataset_example/ml-100k", "recbole-1.2.1.dist-info"
    return zipped(
        {
            f"{folder}/ml-100k.inter": header + u_data(),
            f"{folder}/ml-100k.item": "\n".join(lines).encode() + b"\n",
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: recbole\n"
            b"Version: 1.2.1\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            b"Tag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
    )


def tiny_review(number: int, **changes) -> dict:
    review = {
        "reviewerID": f"A{number % 3}",
        "asin": f"B00{number}",
        "reviewerName": f'Jo "the, {number}" é',
        "helpful": [0, number],
        "reviewText": f"Line one,\nline two: {'á' * number} 😀",
        "overall": float(1 + number % 5),
        "summary": "",
        "unixReviewTime": 1393545600 + 86400 * number,
        "reviewTime": "02 28, 2014",
    }
    if number == 2:
        del review["reviewerName"]
    return review | changes


TINY_REVIEWS = [tiny_review(number) for number in range(7)]


def json_lines(reviews=TINY_REVIEWS) -> bytes:
    return "".join(json.dumps(review) + "\n" for review in reviews).encode()


def kaggle_csv(reviews=TINY_REVIEWS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, tiny_review(0), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(reviews)
    return text.getvalue().encode()


AMAZON_CONTAINERS: dict[str, Callable[[], bytes]] = {
    UCSD: json_lines,
    f"{UCSD}.gz": lambda: gzip.compress(json_lines()),
    "Musical_Instruments_5.json": json_lines,
    "Musical_Instruments_5.json.gz": lambda: gzip.compress(json_lines()),
    KAGGLE: kaggle_csv,
    f"{KAGGLE}.zip": lambda: zipped({KAGGLE: kaggle_csv()}),
    "amazon-music-reviews.zip": lambda: zipped(
        {"Musical_Instruments_5.json": json_lines(), KAGGLE: kaggle_csv()}
    ),
}
MOVIELENS_CONTAINERS: dict[str, Callable[[], dict[str, bytes]]] = {
    "folder": lambda: {"ml-100k/u.data": u_data(), "ml-100k/u.item": u_item()},
    "flat": lambda: {"u.data": u_data(), "u.item": u_item()},
    "utf8": lambda: {"u.data": u_data(), "u.item": u_item("utf-8")},
    "zip": lambda: {"ml-100k.zip": ml_100k_zip()},
    "wheel": lambda: {WHEEL: recbole_wheel()},
}


def module_of(constant: str):
    modules = {"AMAZON": amazon, "LASTFM": lastfm}
    return modules.get(constant.partition("_")[0], movielens)


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_tiny_movielens(loaded: datasets.Dataset) -> None:
    assert list(loaded.ratings.itertuples(index=False, name=None)) == TINY_RATINGS
    items = loaded.items.astype(object).where(loaded.items.notna(), None)
    rows = list(items.itertuples(index=False, name=None))
    assert [row[:3] for row in rows] == [item[2] for item in TINY_ITEMS]
    assert rows[0][3] == "Animation|Children's|Comedy"
    assert rows[2][3] == "unknown"


def timed(load: Callable) -> float:
    """Seconds of processor time, which other work on the machine does not stretch."""
    start = time.process_time()
    load()
    return time.process_time() - start


def reviews_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


ALTERED = u_data([(9, 2, 4, 881250949), *TINY_RATINGS[1:]])  # one byte, same length


def start_python(
    code: str, constants: dict[str, str], *, bound_by_permissions: bool = False
) -> subprocess.Popen:
    """Run code in a process of its own that takes the small sets for the real ones."""
    names = [*constants, "MOVIELENS_URL", "AMAZON_URL", "LASTFM_URL"]
    modules = {name: module_of(name) for name in names}
    lines = [f"{m.__name__}.{n} = {getattr(m, n)!r}" for n, m in modules.items()]
    imports = ["import als_course.storage", "import als_course.datasets as d"]
    script = "\n".join([*imports, *lines, code])
    command = [sys.executable, "-c", script]
    if bound_by_permissions and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere: install util-linux (setpriv)")
        drop = "--bounding-set=-dac_override,-dac_read_search"
        command = ["setpriv", drop, *command]
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(BOOK)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, constants: dict[str, str], **options) -> tuple[int, str, str]:
    with start_python(code, constants, **options) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err

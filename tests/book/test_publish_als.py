"""What is published: whole or not at all, exact, and the same as the training made."""

import errno
import json
import os
import shutil
import time

import night
import numpy as np
import pandas as pd
import publish_als
import pytest
import serve_als
import train_als

import small_runs
from als_course.datasets import ratings_matrix
from als_course.spark import SHORT_LIVED, archive_option

# A few hundred rows are done before code for them would be compiled.
QUICK = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.shuffle.partitions": "2",
}
needs_spark = pytest.mark.skipif(
    os.name == "nt" or not (shutil.which("java") or os.environ.get("JAVA_HOME")),
    reason="Spark writes files on Linux and macOS, with Java 17: install it",
)


@pytest.fixture(scope="module")
def table():
    return small_runs.likes(seed=2)


@pytest.fixture(scope="module")
def model(table):
    return small_runs.fit(table)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- what a run holds ------------------------------------------------------------------


def test_items_stand_longest_first_and_users_solve_their_own_equation(
    table, model, tmp_path
):
    folder = small_runs.publish(tmp_path, table, model)
    run = serve_als.Run(folder)
    matrix, users, items = ratings_matrix(table)
    norms = np.linalg.norm(run.items, axis=1)
    assert (np.diff(norms) <= 1e-6).all()
    assert (run.norms >= norms).all()
    for name in users[:5]:
        row = run.find_user(name)
        columns, ratings = run.rated(row)
        assert {run.item_id(c) for c in columns} == {
            *table[table.user_id == name].item_id
        }
        known = model.fold_in(matrix[[users.tolist().index(name)]])
        assert run.users[row] == pytest.approx(known, rel=1e-4, abs=1e-6)
        assert run.solve(columns, ratings) == pytest.approx(run.users[row], abs=1e-6)
    for name in items:
        column = items.tolist().index(name)
        assert run.items[run.find_item(name)] == pytest.approx(
            model.item_factors_[column], rel=1e-6
        )
    assert run.find_item("i9999") is None
    assert run.find_user("u0" + 300 * "x") is None
    assert run.find_user("zzz") is None
    assert run.find_user("") is None


def test_ids_of_any_script_are_found_again(tmp_path):
    table = small_runs.likes(30, 20)
    table["item_id"] = table.item_id.map(lambda name: f"фильм {name[1:]} 映画")
    run = serve_als.Run(small_runs.publish(tmp_path, table, small_runs.fit(table)))
    for name in table.item_id.unique():
        assert run.item_id(run.find_item(name)) == name


def test_the_name_tells_time_and_contents_and_current_names_the_run(
    table, model, tmp_path
):
    folder = small_runs.publish(tmp_path, table, model)
    assert publish_als.NAME.fullmatch(folder.name)
    assert (tmp_path / "current").read_text() == f"{folder.name}\n"
    again = small_runs.publish(tmp_path / "b", table, model)
    assert again.name.split("-")[1] == folder.name.split("-")[1]
    other = small_runs.publish(tmp_path / "b", table, small_runs.fit(table, seed=1))
    assert other.name.split("-")[1] != folder.name.split("-")[1]


# -- whole or not at all ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1", 1], "occurs twice as text"),
        (["x" * 257, "y"], "more than 256 bytes"),
        (["", "y"], "is empty"),
        (["a\0", "y"], "null byte"),
    ],
)
def test_ids_that_cannot_be_searched_are_refused(names, said, tmp_path):
    fitted = publish_als.from_model(
        small_runs.fit(small_runs.likes()), small_runs.likes(), small_runs.report()
    )
    users = [str(it) for it in names] + fitted.user_ids[2:]
    with pytest.raises(publish_als.PublishError, match=said):
        publish_als.publish(fitted._replace(user_ids=users), tmp_path)
    assert left_in(tmp_path) == []


def test_a_table_that_the_model_was_not_fitted_on_is_refused(table, model):
    with pytest.raises(publish_als.PublishError, match="was fitted on"):
        publish_als.from_model(model, table.head(50), small_runs.report())


def test_factors_that_are_no_numbers_are_refused(table, model, tmp_path):
    fitted = publish_als.from_model(model, table, small_runs.report())
    broken = fitted._replace(item_factors=np.full_like(fitted.item_factors, np.nan))
    with pytest.raises(publish_als.PublishError, match="nan"):
        publish_als.publish(broken, tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("n_files", [0, 3, 9])
def test_a_full_disk_leaves_the_run_before_and_nothing_else(
    n_files, table, model, tmp_path, monkeypatch
):
    small_runs.publish(tmp_path, table, model)
    before = left_in(tmp_path)
    save, saved = np.save, []

    def full(file, array):
        if len(saved) == n_files:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(save(file, array))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        small_runs.publish(tmp_path, table, small_runs.fit(table, seed=1))
    assert left_in(tmp_path) == before


def test_old_runs_are_pruned_but_for_the_current_and_the_newest(tmp_path):
    for day in range(1, 6):
        folder = tmp_path / f"2026010{day}T000000-0000000{day}"
        folder.mkdir()
        (folder / "run.json").write_text("{}")
    (tmp_path / "current").write_text("20260101T000000-00000001\n")
    unfinished = [tmp_path / ".1-1.part", tmp_path / ".2-2.part"]
    for folder in unfinished:
        folder.mkdir()
    long_ago = time.time() - 2 * publish_als.FORGOTTEN
    os.utime(unfinished[0], (long_ago, long_ago))
    gone = publish_als.prune(tmp_path, keep=2)
    assert [name[:8] for name in gone] == ["20260102", "20260103"]
    assert left_in(tmp_path) == [
        ".2-2.part",
        "20260101T000000-00000001",
        "20260104T000000-00000004",
        "20260105T000000-00000005",
        "current",
    ]


# -- where the hand-over lies ----------------------------------------------------------


def test_the_hand_over_is_where_the_fold_in_is_ahead_and_stays_so():
    def rows(*lows):
        return [{"likes": n, "low": low} for n, low in enumerate(lows, start=1)]

    assert publish_als.choose(rows(-1, 0.1, 0.2)) == 2
    assert publish_als.choose(rows(0.1, -1, 0.2)) == 3
    assert publish_als.choose(rows(0.1, 0.1)) == 1
    assert publish_als.choose(rows(0.1, 0.0)) == 3
    assert publish_als.choose([]) == publish_als.UNMEASURED


def test_newcomers_are_measured_by_the_clock_on_what_came_before_them():
    table = small_runs.likes(n_users=600, seed=4)
    fitted = publish_als.from_model(small_runs.fit(table), table, small_runs.report())
    found = publish_als.measure_hand_over(fitted)
    assert found["measured"]
    assert found["likes"] == publish_als.choose(found["tried"]) == 5
    tried = pd.DataFrame(found["tried"]).set_index("likes")
    assert tried.users.is_monotonic_decreasing
    # One like tells the kind of a newcomer less well than fame tells what is liked.
    assert tried.high[1] < 0 < tried.low[5]
    gap = tried.fold_in - tried.popular
    assert ((tried.low < gap) & (gap < tried.high)).all()


def test_without_times_or_newcomers_nothing_is_measured(table, model):
    fitted = publish_als.from_model(model, table, small_runs.report())
    assert not publish_als.measure_hand_over(fitted._replace(times=None))["measured"]
    one_day = fitted._replace(times=np.zeros(len(fitted.times)))
    assert publish_als.measure_hand_over(one_day)["likes"] == publish_als.UNMEASURED


# -- from Spark, and a night -----------------------------------------------------------


@pytest.fixture(scope="module")
def spark():
    settings = [f"--conf {name}={value}" for name, value in QUICK.items()]
    java = f"--driver-java-options '{archive_option()} {SHORT_LIVED}'"
    arguments = " ".join([java, *settings, "pyspark-shell"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", arguments)
        asked = ["--ratings", "-", "--output", "-", "--master", "local[2]"]
        session = train_als.start_spark(train_als.parse_arguments(asked))
        yield session
        session.stop()


OPTIONS = ["--implicit", "--split", "hash", "--rank", "4", "--max-iter", "3"]
OPTIONS += ["--alpha", "5", "--reg-param", "0.05", "--blocks", "2"]


@needs_spark
@pytest.mark.weekly
def test_two_nights_are_trained_tested_published_and_compared(
    spark, tmp_path, capsys, monkeypatch
):
    table = small_runs.likes(200, 120, seed=6, taste=60)
    ratings, work = tmp_path / "ratings.csv", tmp_path / "work"
    argv = [str(work), "--ratings", str(ratings), "--keep", "1", *OPTIONS]

    table[table.user_id != "u199"].to_csv(ratings, index=False)
    assert night.main(argv, spark) == 0
    assert "no night before" in capsys.readouterr().out
    service = serve_als.Service(work / "runs")
    service.start()
    first = service.run.name
    assert service.run.find_user("u199") is None

    table.to_csv(ratings, index=False)
    assert night.main(argv, spark) == 0
    said = capsys.readouterr().out
    assert "of last night's places come again" in said
    service.look()
    run = service.run
    assert run.name != first
    assert run.name in said
    assert not service.refused
    [result] = night.finished(work / "results")
    # The service gives the lists that Spark made, by name.
    made = spark.read.parquet(str(result / "recommendations"))
    made = pd.DataFrame.from_records(made.collect(), columns=made.columns)
    made = made.sort_values("rank").groupby("user_id").item_id.agg(list)
    assert len(made) == 200
    told = {
        name: [row["item"] for row in run.recommend(name, 10)["items"]]
        for name in made.index
    }
    same = [told[name] == wanted for name, wanted in made.items()]
    assert np.mean(same) > 0.95

    # A night whose lists are not good enough publishes nothing.
    monkeypatch.setattr(train_als, "main", lambda argv, spark: 3)
    assert night.main(argv, spark) == 3
    assert (work / "runs" / "current").read_text().strip() == run.name

    fitted = publish_als.from_job(result, spark)
    lists = dict.fromkeys(fitted.lists, fitted.item_ids[:10])
    with pytest.raises(publish_als.PublishError, match="come out again"):
        publish_als.publish(fitted._replace(lists=lists), work / "runs")
    report = json.loads((result / "report.json").read_text("utf-8"))
    report["arguments"]["nonnegative"] = True
    (result / "report.json").write_text(json.dumps(report))
    with pytest.raises(publish_als.PublishError, match="nonnegative"):
        publish_als.from_job(result, spark)
    (result / "_SUCCESS").unlink()
    assert publish_als.main([str(result), str(work / "runs")]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_a_night_waits_until_the_service_has_taken_the_run(monkeypatch):
    answers = [{"run": "old", "refused": {}}, {"run": "new", "refused": {}}]

    class Answer:
        def __init__(self, url, timeout):
            self.told = answers.pop(0)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self):
            return json.dumps(self.told)

    monkeypatch.setattr(night.urllib.request, "urlopen", Answer)
    night.wait_for("http://x", "new")
    assert not answers
    answers[:] = [{"run": "old", "refused": {"new": "worse"}}]
    with pytest.raises(RuntimeError, match="refuses new: worse"):
        night.wait_for("http://x", "new")
    monkeypatch.setattr(night, "PATIENCE", 0.01)
    answers[:] = 99 * [{"run": "old", "refused": {}}]
    with pytest.raises(RuntimeError, match="has not taken new"):
        night.wait_for("http://x", "new")

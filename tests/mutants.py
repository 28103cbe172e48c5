"""Break the course on purpose, one small mistake at a time, and see a check turn red.

A tool of its own, not part of `make test`::

    python tests/mutants.py              every mutant; writes tests/mutants.md
    python tests/mutants.py tie seed     those with one of these words in their name

Each mutant replaces one text in one file of a copy of the project. The text must stand
there exactly once, so a mutant that no longer fits fails loudly. Then the check that is
expected to see it runs, and only if that one stays green a fuller set does. Before any
mutant all expected checks run on an unchanged copy: a check that is red already proves
nothing.

Twenty-odd further mutants of the solver itself are in `test_als_mutants.py`, which
`make test` runs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "tests" / "mutants.md"
LIBRARY = "book/als_course/"
WORKERS = 2
TIMEOUT = 600.0  # seconds for one run of checks
FULLER = [
    *(
        f"tests/test_{name}.py"
        for name in (
            "imports",
            "metrics",
            "splits",
            "baselines",
            "comparison",
            "als",
            "implicit_als",
            "chapters",
            "nbval",
            "readme",
            "datasets",
            "exercises",
        )
    ),
]
CHAPTER = "ratings-and-sparsity"
PAGE = f"book/{CHAPTER}.md"
STORED = f"tests/outputs/{CHAPTER}.ipynb"


@dataclass(frozen=True)
class Mutant:
    """One small mistake, and the check that is expected to see it."""

    name: str
    file: str
    old: str
    new: str
    check: str

    def text(self, folder: Path) -> str:
        """Give the file with the mistake in it."""
        text = (folder / self.file).read_text("utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(
                f"mutant {self.name!r}: its text stands {found} times in {self.file}, "
                f"and must once; write the mutant anew:\n{self.old}"
            )
        return text.replace(self.old, self.new)


def unit(test: str) -> str:
    """Expand `file::test` to the node id that pytest takes."""
    file, _, name = test.partition("::")
    return f"tests/test_{file}.py::{name}"


def page(test: str, file: str = "chapters") -> str:
    """Give the node id of a test that runs for each chapter, for the one used here."""
    return f"tests/test_{file}.py::{test}[{CHAPTER}]"


def library(file: str, changes: dict[str, tuple[str, str, str]]) -> list[Mutant]:
    """List mutants of one module: name -> (old, new, expected check)."""
    return [
        Mutant(name, f"{LIBRARY}{file}.py", old, new, unit(check))
        for name, (old, new, check) in changes.items()
    ]


ALS = library(
    "als",
    {
        "lambda is doubled": (
            "return self.regularization * weights",
            "return 2 * self.regularization * weights",
            "als::test_gradient_is_zero_after_a_half_step",
        ),
        "the model's seed is ignored": (
            "np.random.default_rng(self.random_state)",
            "np.random.default_rng(0)",
            "als::test_fit_is_fixed_by_its_seed_and_leaves_the_ratings_alone",
        ),
        "one sweep fewer than asked for": (
            "for _ in range(self.n_iterations):",
            "for _ in range(max(1, self.n_iterations - 1)):",
            "als::test_history_is_the_objective_after_each_sweep",
        ),
        "the start is ignored": (
            "if start is None:",
            "if True:",
            "als::test_fitting_on_continues_where_the_start_left_off",
        ),
        "fold-in uses the item factors of half a sweep ago": (
            "self._half_step(row, self.item_factors_, penalties",
            "self._half_step(row, self._older_item_factors, penalties",
            "als::test_fold_in_is_the_next_half_step",
        ),
        "an item is similar to itself": (
            "    cosines[number] = -np.inf\n",
            "",
            "als::test_similar_by_hand",
        ),
        "similarity is a dot product, not a cosine": (
            "directions = factors / lengths[:, None]",
            "directions = factors",
            "als::test_similar_by_hand",
        ),
        "predictions forget the user's bias": (
            "biases = self.mean_ + self.user_biases_[users] + self.item_biases_[items]",
            "biases = self.mean_ + self.item_biases_[items]",
            "als::test_biases_are_those_of_the_baseline",
        ),
        "a dislike counts as a like": (
            "errors = (values > 0) - fitted",
            "errors = (values != 0) - fitted",
            "implicit_als::test_history_is_the_objective_over_all_places",
        ),
        "explanations list dislikes": (
            "liked = row.data > 0",
            "liked = row.data != 0",
            "implicit_als::test_explanation_is_the_formula_of_the_paper",
        ),
    },
)
METRICS = library(
    "metrics",
    {
        "RMSE without its root": (
            "return float(root_mean_squared_error(actual, predicted))",
            "return float(root_mean_squared_error(actual, predicted)) ** 2",
            "metrics::test_errors_by_hand",
        ),
        "MAE is the largest error": (
            "return float(mean_absolute_error(actual, predicted))",
            "return float(np.abs(np.subtract(actual, predicted)).max())",
            "metrics::test_errors_by_hand",
        ),
        "precision divides by the number of likes": (
            "np.where(np.equal(n_relevant, 0), np.nan, hits.mean(axis=-1))",
            "_divide(hits.sum(axis=-1), np.minimum(hits.shape[-1], n_relevant))",
            "metrics::test_precision_divides_by_k_even_if_fewer_are_relevant",
        ),
        "recall divides by k": (
            "return _divide(hits.sum(axis=-1), n_relevant)",
            "return _divide(hits.sum(axis=-1), hits.shape[-1] * (n_relevant > 0))",
            "metrics::test_ranking_by_hand",
        ),
        "average precision divides by k": (
            "(precisions * hits).sum(axis=-1), np.minimum(k, n_relevant))",
            "(precisions * hits).sum(axis=-1), k * (n_relevant > 0))",
            "metrics::test_ranking_by_hand",
        ),
        "the discount of nDCG starts one place late": (
            "gains = 1 / np.log2(np.arange(2, k + 2))",
            "gains = 1 / np.log2(np.arange(3, k + 3))",
            "metrics::test_ranking_agrees_with_scikit_learn",
        ),
        "the ideal list of nDCG has no end": (
            "ideal[np.minimum(k, n_relevant)]",
            "ideal[np.full_like(n_relevant, k) * (np.asarray(n_relevant) > 0)]",
            "metrics::test_ranking_by_hand",
        ),
        "a user without likes scores zero": (
            "out=np.full_like(total, np.nan)",
            "out=np.zeros_like(total)",
            "metrics::test_ranking_at_its_limits",
        ),
        "top-N drops the first": (
            'kind="stable")[:, :k]',
            'kind="stable")[:, 1 : k + 1]',
            "metrics::test_top_k_is_a_sort_by_score_and_column",
        ),
        "top-N is one too long": (
            'kind="stable")[:, :k]',
            'kind="stable")[:, : k + 1]',
            "metrics::test_top_k_is_a_sort_by_score_and_column",
        ),
        "ties go to the larger column": (
            'np.argsort(-block, axis=1, kind="stable")[:, :k]',
            'np.argsort(block, axis=1, kind="stable")[:, ::-1][:, :k]',
            "metrics::test_top_k_breaks_ties_by_column",
        ),
        "the bootstrap ignores its seed": (
            "rng=np.random.default_rng(seed)",
            "rng=np.random.default_rng()",
            "metrics::test_bootstrap_of_a_mean_has_the_width_of_the_normal_interval",
        ),
        "the bootstrap draws ratings, not users": (
            "codes, _ = pd.factorize(np.asarray(users))",
            "codes = np.arange(len(users))",
            "metrics::test_bootstrap_of_rmse_draws_users_not_ratings",
        ),
    },
)
SPLITS = library(
    "splits",
    {
        "the random split ignores its seed": (
            "test_size=test_size, random_state=seed\n",
            "test_size=test_size, random_state=42\n",
            "splits::test_random_split_is_that_of_scikit_learn",
        ),
        "a split leaks one row": (
            "    return ratings[~is_test], ratings[is_test]",
            "    is_train = ~is_test\n    is_train[test_positions[0]] = True\n"
            "    return ratings[is_train], ratings[is_test]",
            "splits::test_every_rating_is_in_one_part_in_its_order",
        ),
        "each user's first ratings are held back": (
            "by_user.cumcount(ascending=False)",
            "by_user.cumcount(ascending=True)",
            "splits::test_timed_splits_by_hand",
        ),
        "a user may lose every rating": (
            "np.minimum(np.ceil(test_size * n_ratings), n_ratings - 1)",
            "np.ceil(test_size * n_ratings)",
            "splits::test_user_last_split_rounds_up_and_leaves_each_user_one",
        ),
        "the past is held back": (
            "rows.index[-n_test:]",
            "rows.index[:n_test]",
            "splits::test_global_time_split_trains_on_the_past_only",
        ),
        "validation is cut from everything, test included": (
            "return *split(rest, size), test",
            "return *split(ratings, size), test",
            "splits::test_validation_is_cut_from_train_by_the_same_split",
        ),
    },
)
BASELINES = library(
    "baselines",
    {
        "seen items are recommended": (
            "seen = self._ratings[block] if exclude_seen else None",
            "seen = None",
            "baselines::test_recommend_ranks_the_predictions_of_what_is_unseen",
        ),
        "damping does nothing": (
            "np.maximum(counts + damping,",
            "np.maximum(counts,",
            "baselines::test_damped_biases_by_hand",
        ),
        "user biases do not allow for the items": (
            "residuals.data -= self.mean_ + self.item_biases_[ratings.indices]",
            "residuals.data -= self.mean_",
            "baselines::test_damped_biases_by_hand",
        ),
        "popular means many stars, not many ratings": (
            "np.bincount(ratings.indices, minlength=ratings.shape[1])",
            "np.bincount(ratings.indices, ratings.data, ratings.shape[1])",
            "baselines::test_most_popular_counts_and_breaks_ties_by_column",
        ),
        "random lists are the same for all": (
            "np.random.default_rng([self.seed, user])",
            "np.random.default_rng([self.seed])",
            "baselines::test_random_ranking_is_fixed_by_seed_and_user",
        ),
        "random lists ignore their seed": (
            "np.random.default_rng([self.seed, user])",
            "np.random.default_rng([0, user])",
            "baselines::test_random_ranking_is_fixed_by_seed_and_user",
        ),
        "two ratings of one pair are accepted": (
            "repeated = checked.indices[1:] == checked.indices[:-1]",
            "repeated = np.zeros(max(0, checked.nnz - 1), dtype=bool)",
            "baselines::test_bad_ratings_are_refused",
        ),
    },
)
COMPARISON = library(
    "comparison",
    {
        "the table shows the training error as the test error": (
            "interval = bootstrap_rmse(test.user_id, test.rating - predicted)",
            "interval = bootstrap_rmse(train.user_id, train.rating - seen)",
            "comparison::test_rating_table_by_hand",
        ),
        "four stars are no like": (
            "test[test.rating >= liked]",
            "test[test.rating > liked]",
            "comparison::test_ranking_table_by_hand",
        ),
        "films are looked up one place off": (
            "users.searchsorted(ratings.user_id), items.searchsorted(ratings.item_id)",
            "users.searchsorted(ratings.user_id), "
            "(items.searchsorted(ratings.item_id) + 1) % len(items)",
            "comparison::test_rating_table_by_hand",
        ),
    },
)
DATA = [
    *library(
        "datasets",
        {
            "ratings are read from the wrong column": (
                "            names=COLUMNS,\n",
                "            names=[*COLUMNS[:2], COLUMNS[3], COLUMNS[2]],\n",
                "datasets::"
                "test_movielens_has_the_counts_and_the_fingerprint_of_the_original",
            ),
            "rows and ids no longer belong together": (
                "    return positions, index.to_numpy()\n",
                "    return positions, index.to_numpy()[::-1]\n",
                "datasets::"
                "test_rows_of_the_matrix_are_sorted_users_and_columns_sorted_items",
            ),
            "users and items are swapped in the matrix": (
                "csr_matrix((values, (rows, columns)), "
                "shape=(len(user_ids), len(item_ids)))",
                "csr_matrix((values, (columns, rows)), "
                "shape=(len(item_ids), len(user_ids)))",
                "datasets::test_the_matrix_gives_every_rating_back",
            ),
            "duplicates are summed": (
                "    if matrix.nnz < len(ratings):\n",
                "    if False:\n",
                "datasets::test_the_matrix_refuses_what_would_mislead",
            ),
            "the fingerprint is not verified": (
                "    if actual != expected:\n",
                "    if False:\n",
                "datasets::test_a_bad_original_of_movielens_is_an_error_that_names_it",
            ),
            "the look-alike passes for real": (
                '        ratings,\n        "look-alike",\n',
                '        ratings,\n        "real",\n',
                "datasets::test_the_lookalike_stays_until_the_network_is_asked_again",
            ),
            "the look-alike steps in without a word": (
                "        log.info(\n            "
                '"The real Amazon reviews could not be had: a generated look-alike '
                'stands "',
                "        log.debug(\n            "
                '"The real Amazon reviews could not be had: a generated look-alike '
                'stands "',
                "datasets::test_a_failing_server_leaves_the_lookalike",
            ),
            "the box does not warn of a look-alike": (
                'like = self.source == "look-alike"',
                "like = False",
                "datasets::test_the_lookalike_stays_until_the_network_is_asked_again",
            ),
            "harsh people are kind": (
                "low = np.where(kind == 0, bad[items], kind == 2)",
                "low = np.where(kind == 0, bad[items], kind == 3)",
                "datasets::test_stars_follow_the_kind_of_user_and_film_and_nothing_else",
            ),
        },
    ),
    *library(
        "storage",
        {
            "a damaged file stays in the cache": (
                "            _discard(cached)\n",
                "            break\n",
                "datasets::test_a_damaged_file_in_the_cache_is_removed_and_fetched_anew",
            ),
            "offline is ignored": (
                'return os.environ.get("ALS_COURSE_OFFLINE", "") not in ("", "0")',
                "return False",
                "datasets::test_offline_asks_neither_the_server_nor_pip",
            ),
            "a file is written under its final name": (
                "            part = folder / name\n",
                "            part = path\n",
                "datasets::test_a_full_disk_leaves_nothing_half_written",
            ),
        },
    ),
]
PAGES = [
    Mutant(
        "a digit of an expected output is edited",
        STORED,
        "100,000 ratings",
        "100,001 ratings",
        STORED,
    ),
    Mutant(
        "a constant in a page changes, the outputs do not",
        PAGE,
        "few = (per_film < 10).mean()",
        "few = (per_film < 11).mean()",
        STORED,
    ),
    Mutant(
        "a claim of a page is reversed",
        PAGE,
        "assert share > 0.7 and few > 0.3",
        "assert share < 0.7 and few > 0.3",
        STORED,
    ),
    Mutant(
        "the library changes what a page shows",
        f"{LIBRARY}datasets.py",
        "user_kind[rng.permutation(n_users)[: 3 * tenth]]",
        "user_kind[rng.permutation(n_users)[-3 * tenth :]]",
        STORED,
    ),
    Mutant(
        "an alt text is removed",
        PAGE,
        "    alt: Of the twelve places of the toy matrix seven hold a rating and five "
        "are grey holes; user 2 is the only one who rated films B and D.\n",
        "",
        page("test_every_figure_has_name_caption_and_alt_text"),
    ),
    Mutant(
        "an exercise's check is emptied",
        PAGE,
        ":tags: [check]\n"
        "assert ordered[:n_half].sum() >= len(ratings) / 2, \\\n"
        '    "Not half yet. One too few? Positions start at 0, counts at 1"\n'
        "assert ordered[: n_half - 1].sum() < len(ratings) / 2, \\\n"
        '    "Fewer films do it too. Did you sort from the most rated down?"\n',
        ":tags: [check]\npass\n",
        page("test_every_exercise_has_level_hint_solution_and_check"),
    ),
    Mutant(
        "an exercise's check lets a wrong answer through",
        PAGE,
        "assert ordered[:n_half].sum() >= len(ratings) / 2, \\",
        "assert ordered[:n_half].sum() >= 0, \\",
        page(
            "test_right_answers_pass_and_stubs_and_wrong_ones_meet_their_message",
            "exercises",
        ),
    ),
    Mutant(
        "a solution no longer solves its exercise",
        PAGE,
        "n_half = int(np.searchsorted(total, total[-1] / 2)) + 1",
        "n_half = int(np.searchsorted(total, total[-1] / 2)) + 2",
        page(
            "test_right_answers_pass_and_stubs_and_wrong_ones_meet_their_message",
            "exercises",
        ),
    ),
    Mutant(
        "prose quotes a measured number",
        PAGE,
        "By these numbers it is a larger and emptier MovieLens.",
        "By these numbers, 96.9 % empty, it is a larger and emptier MovieLens.",
        page("test_prose_quotes_no_measured_number"),
    ),
    Mutant(
        "a link leads nowhere",
        PAGE,
        "{ref}`the data page <datasets>`",
        "{ref}`the data page <data-sets>`",
        page("test_every_label_referred_to_exists"),
    ),
    Mutant(
        "a term is not in the glossary",
        "book/glossary.md",
        "long tail\n  The many items",
        "tail\n  The many items",
        page("test_every_term_is_in_the_glossary"),
    ),
    Mutant(
        "a random choice is not seeded",
        PAGE,
        "rng = np.random.default_rng(0)\n    S = sparse.random",
        "rng = np.random.default_rng()\n    S = sparse.random",
        page("test_code_seeds_every_random_choice"),
    ),
    Mutant(
        "an output is not compared, and nobody says why",
        PAGE,
        "```{code-cell} ipython3\nshare = ordered[:quarter].sum() / ordered.sum()",
        "```{code-cell} ipython3\n:tags: [nbval-ignore-output]\n"
        "share = ordered[:quarter].sum() / ordered.sum()",
        page("test_an_output_that_is_not_checked_says_why"),
    ),
    Mutant(
        "a quiz has two right answers",
        PAGE,
        "- No: that is the order by the ratings that exist.",
        "- **Right**: that is the order by the ratings that exist.",
        page("test_quiz_has_an_explanation_for_each_option_and_one_right_answer"),
    ),
    Mutant(
        "a requirement is not pinned",
        "requirements.txt",
        "scipy==",
        "scipy>=",
        unit(
            "readme::test_every_requirement_is_pinned_and_every_named_one_has_a_reason"
        ),
    ),
    Mutant(
        "README names a command that does not exist",
        "Makefile",
        "outputs: $(VENV)/installed",
        "output: $(VENV)/installed",
        unit("readme::test_every_make_command_named_anywhere_exists"),
    ),
]
MUTANTS = [*ALS, *METRICS, *SPLITS, *BASELINES, *COMPARISON, *DATA, *PAGES]


def copy_of_the_project(folder: Path) -> Path:
    """Copy what git knows of, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


def run(folder: Path, checks: list[str]) -> tuple[bool, str, str]:
    """Run checks until one fails: whether one did, which, and what was said."""
    nbval = ["--nbval", "--nbval-current-env"] if "outputs/" in checks[0] else []
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", *nbval, *checks]
    environment = os.environ | {"ALS_COURSE_OFFLINE": "1"}
    beside = ROOT.parent / "shared" / "data"
    if beside.is_dir():
        environment.setdefault("ALS_COURSE_DATA", str(beside))
    try:
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return True, "no end", f"stopped after {TIMEOUT:g} seconds"
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, re.M)
    if done.returncode not in (0, 1) and not failed:
        raise RuntimeError(
            f"{' '.join(command)} ended with status {done.returncode}, so it says "
            f"nothing about the mutant:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.returncode != 0, failed[1] if failed else "", done.stdout


def try_out(mutant: Mutant, folder: Path) -> dict[str, object]:
    """Make one mistake, see which check finds it, and take the mistake back."""
    path = folder / mutant.file
    original = path.read_text("utf-8")
    begin = time.perf_counter()
    try:
        path.write_text(mutant.text(folder), "utf-8")
        red, by, _ = run(folder, [mutant.check])
        expected = red
        if not red:
            red, by, _ = run(folder, FULLER)
    finally:
        path.write_text(original, "utf-8")
    seconds = time.perf_counter() - begin
    verdict = "caught" if expected else "caught late" if red else "SURVIVED"
    print(f"{verdict:11} {seconds:5.0f} s  {mutant.name}: {by}", flush=True)
    return {"mutant": mutant, "verdict": verdict, "by": by, "seconds": seconds}


def unchanged_passes(folder: Path, mutants: list[Mutant]) -> None:
    """Run all expected checks where nothing is broken."""
    expected = {mutant.check for mutant in mutants}
    stored = sorted(check for check in expected if "outputs/" in check)
    for checks in (sorted(expected - set(stored)), stored):
        if checks:
            red, by, said = run(folder, checks)
            if red:
                raise RuntimeError(f"red without any mutant: {by}\n{said[-2000:]}")


def report(results: list[dict[str, object]], seconds: float) -> str:
    """Write the table of what was broken and what noticed."""
    survived = [r for r in results if r["verdict"] == "SURVIVED"]
    lines = [
        "# What happens when the course is broken on purpose",
        "",
        "Written by `make mutants`. Each line is one small mistake, made in a copy of "
        "the project, and the first check of `make test` that turned red.",
        "",
        f"{len(results)} mutants, {len(survived)} survived, {seconds / 60:.0f} minutes "
        f"with {WORKERS} at a time.",
        "",
        "| mistake | in | caught by | seconds |",
        "|---|---|---|---|",
    ]
    for result in results:
        mutant, by = result["mutant"], result["by"]
        caught = by.replace("|", "\\|") if by else f"**{result['verdict']}**"
        lines.append(
            f"| {mutant.name} | `{Path(mutant.file).name}` | {caught} "
            f"| {result['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Try the mutants out and return the exit status: 1 if one survived."""
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    if not chosen:
        raise SystemExit(f"no mutant has one of {words} in its name")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as base:
        folders = Queue()
        for number in range(WORKERS):
            folders.put(copy_of_the_project(Path(base) / f"copy{number}"))
        for mutant in chosen:  # all of them fit, before the first one is tried
            mutant.text(ROOT)

        def one(mutant):
            folder = folders.get()
            try:
                return try_out(mutant, folder)
            finally:
                folders.put(folder)

        unchanged_passes(folders.queue[0], chosen)
        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(one, chosen))
    if not words:
        REPORT.write_text(report(results, time.perf_counter() - begin), "utf-8")
    survived = [r["mutant"].name for r in results if r["verdict"] == "SURVIVED"]
    print(f"{len(results)} mutants, survived: {survived or 'none'}")
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

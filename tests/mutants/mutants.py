"""Break the course on purpose, one small mistake at a time, and see a check turn red.

A tool of its own, not part of `make test`::

    make mutants                         every mutant; writes tests/mutants.md
    python tests/mutants.py tie seed     those with one of these words in their name

There are two kinds. Here are mistakes that people make, chosen by hand: each replaces
one text, which must stand exactly once in its file, so that a mutant that no longer
fits fails loudly (`test_mutants` asks the same in `make test`). In
`mutants_arithmetic` Cosmic Ray changes the arithmetic of four modules in every place it
finds. All are made in copies of the project.

The check that is expected to see a mutant runs first, and only if it stays green a
fuller set does. Before any mutant the expected checks run on an unchanged copy: a check
that is red already proves nothing. A run that was interrupted goes on where it stopped.

Further mutants of the solver itself are in `test_als_mutants.py`, which
`make test` runs.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Lock

import mutants_arithmetic as arithmetic

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "tests" / "mutants.md"
DONE = ROOT / "_build" / "mutants.jsonl"
LOCK = Lock()
LIBRARY = "book/als_course/"
WORKERS = 2
FULLER = tuple(
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
)
CHAPTER = "ratings-and-sparsity"
PAGE = f"book/{CHAPTER}.md"
STORED = f"tests/outputs/{CHAPTER}.ipynb"
BESIDE = f"book/exercises/{CHAPTER}.md"


@dataclass(frozen=True)
class Mutant:
    """One small mistake, and the check that is expected to see it."""

    name: str
    file: str
    old: str
    new: str
    check: str
    stored: str = ""  # a stored notebook with the same text, changed as well

    def texts(self, folder: Path) -> dict[str, str]:
        """Give each file with the mistake in it."""
        changed = {}
        for file in filter(None, (self.file, self.stored)):
            text = (folder / file).read_text("utf-8")
            if (found := text.count(self.old)) != 1:
                raise ValueError(
                    f"mutant {self.name!r}: its text stands {found} times in {file}, "
                    f"and must once; write the mutant anew:\n{self.old}"
                )
            changed[file] = text.replace(self.old, self.new)
        return changed

    @property
    def checks(self) -> tuple[str, ...]:
        """What is expected to see it."""
        return (self.check,)

    @property
    def fuller(self) -> tuple[str, ...]:
        """What else may see it."""
        return FULLER


def unit(test: str) -> str:
    """Expand `file::test` to the node id that pytest takes."""
    file, _, name = test.partition("::")
    return f"tests/test_{file}.py::{name}"


def page(test: str, file: str = "chapters") -> str:
    """Give the node id of a test that runs for each chapter, for the one used here."""
    return f"tests/test_{file}.py::{test}[{CHAPTER}]"


def beside(chapter: str) -> str:
    """Give the node id of the test that tries out a chapter's exercises."""
    test = "test_right_answers_pass_and_stubs_and_wrong_ones_meet_their_message"
    return f"tests/test_exercises.py::{test}[{chapter}]"


def library(file: str, changes: dict[str, tuple[str, str, str]]) -> list[Mutant]:
    """List mutants of one module: name -> (old, new, expected check)."""
    return [
        Mutant(name, f"{LIBRARY}{file}.py", old, new, unit(check))
        for name, (old, new, check) in changes.items()
    ]


ALS = library(
    "als",
    {
        "lambda is left out": (
            "gram.flat[:: k + 1] += penalties[row]",
            "gram.flat[:: k + 1] += 0.0",
            "als::test_gradient_is_zero_after_a_half_step",
        ),
        "lambda is weighed by the ratings of the other side": (
            "counts = self._counts(ratings)",
            "counts = np.resize(self._counts(ratings.T.tocsr()), ratings.shape[0])",
            "als::test_gradient_is_zero_after_a_half_step",
        ),
        "user and item factors change places": (
            "self.user_factors_, self.item_factors_ = user_factors, item_factors",
            "self.user_factors_, self.item_factors_ = item_factors, user_factors",
            "als::test_gradient_is_zero_after_a_half_step",
        ),
        "items are solved from the users of the first sweep": (
            "by_item, user_factors, item_penalties,",
            "by_item, vars(self).setdefault('_first', user_factors), item_penalties,",
            "als::test_history_is_the_objective_after_each_sweep",
        ),
        "predictions have users and items swapped": (
            "_dot_pairs(self.user_factors_, self.item_factors_, users, items)",
            "_dot_pairs(self.item_factors_, self.user_factors_, users, items)",
            "baselines::test_recommend_ranks_the_predictions_of_what_is_unseen",
        ),
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
        "the start is read upside down": (
            "                older = item_factors\n",
            "                older = item_factors if history else item_factors[::-1]\n",
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
            "comparison::"
            "test_items_and_users_unknown_in_training_are_scored_not_dropped",
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
            "comparison::"
            "test_items_and_users_unknown_in_training_are_scored_not_dropped",
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
                "datasets::test_the_lookalike_stays_until_the_network_is_asked_again",
            ),
            "the box does not warn of a look-alike": (
                'like = self.source == "look-alike"',
                "like = False",
                "datasets::test_the_box_warns_of_a_lookalike_and_of_nothing_else",
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
                "datasets::"
                "test_a_damaged_file_in_the_cache_does_not_stay_when_nothing_replaces_it",
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
# Cells of a page and of its stored notebook: an author made the mistake, and then ran
# `make outputs`, or would have.
IN_BOTH = [
    (
        "a constant of a cell changes, its output does not",
        CHAPTER,
        "few = (per_film < 10).mean()",
        "few = (per_film < 11).mean()",
    ),
    (
        "a claim about popular films is reversed",
        CHAPTER,
        "assert share > 0.7 and few > 0.3",
        "assert share < 0.7 and few > 0.3",
    ),
    (
        "a chapter's solver leaves lambda out",
        "factorising-by-hand",
        "matrix = X.T @ X + regularization * np.eye(k)",
        "matrix = X.T @ X + 1e-9 * np.eye(k)",
    ),
    (
        "a chapter's solver reads holes as zeros",
        "factorising-by-hand",
        "rated = ~np.isnan(stars)",
        "rated, stars = np.ones(len(stars), bool), np.nan_to_num(stars)",
    ),
    (
        "a claim about two solutions is reversed",
        "factorising-by-hand",
        "assert objective(*middle, lam) > first_dip + 0.1",
        "assert objective(*middle, lam) < first_dip + 0.1",
    ),
    (
        "a chapter's sweep solves items from stale users",
        "simple-als",
        "self.R.T, self.known.T, self.user_factors, self.lambda_reg)",
        "self.R.T, self.known.T, 0 * self.user_factors + 1, self.lambda_reg)",
    ),
    (
        "a chapter's RMSE is divided by the number of users",
        "baselines-and-evaluation",
        "return np.sqrt(total / size)",
        "return np.sqrt(total / len(per_user))",
    ),
    (
        "a claim about baselines is reversed",
        "baselines-and-evaluation",
        "assert steps.is_monotonic_decreasing",
        "assert steps.is_monotonic_increasing",
    ),
    (
        "the cure of an exhibit is the disease",
        "museum",
        "[cured.predict(*at(test))],",
        "[filled[at(test)]],",
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
        "a page is edited, its stored notebook is not",
        PAGE,
        "few = (per_film < 10).mean()",
        "few = (per_film < 11).mean()",
        STORED,
    ),
    *(
        Mutant(name, f"book/{page}.md", old, new, path, stored=path)
        for name, page, old, new in IN_BOTH
        for path in [f"tests/outputs/{page}.ipynb"]
    ),
    Mutant(
        "a digit of a table of films is edited",
        "tests/outputs/factorising-by-hand.ipynb",
        "user 1, film B: 0.18",
        "user 1, film B: 0.19",
        "tests/outputs/factorising-by-hand.ipynb",
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
        beside(CHAPTER),
    ),
    Mutant(
        "a solution no longer solves its exercise",
        PAGE,
        "n_half = int(np.searchsorted(total, total[-1] / 2)) + 1",
        "n_half = int(np.searchsorted(total, total[-1] / 2)) + 2",
        beside(CHAPTER),
    ),
    Mutant(
        "a hidden check of an exercise asks nothing",
        "book/exercises/factorising-by-hand.md",
        'assert solve.call_count <= 1, f"solve was called',
        'assert True, f"solve was called',
        beside("factorising-by-hand"),
    ),
    Mutant(
        "a wrong answer is right",
        BESIDE,
        "+n_half = int(np.searchsorted(total, total[-1] / 2))\n",
        "+n_half = int(np.searchsorted(total, total[-1] / 2)) + 1\n",
        beside(CHAPTER),
    ),
    Mutant(
        "another right answer is wrong",
        BESIDE,
        "    if so_far >= len(ratings) / 2:",
        "    if so_far >= len(ratings) / 3:",
        beside(CHAPTER),
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
        "the help promises a command that does not exist",
        "Makefile",
        "outputs: $(VENV)/installed",
        "output: $(VENV)/installed",
        unit("readme::test_help_lists_every_target"),
    ),
]
TILED = "kernels::test_half_step_is_the_dense_solution[tiled"
PLAIN = "kernels::test_half_step_is_the_dense_solution[plain"
KERNELS = library(
    "kernels",
    {
        "padding is singular": (
            "gram[i, i] += penalties[row] if i < k else 1",
            "gram[i, i] += penalties[row] if i < k else 0",
            f"{TILED}-float64-formula0]",
        ),
        "the tiled kernel leaves lambda out": (
            "gram[i, i] += penalties[row] if i < k else 1",
            "gram[i, i] += 0 if i < k else 1",
            f"{TILED}-float64-formula1]",
        ),
        "the plain kernel leaves lambda out": (
            "            gram[i, i] += penalties[row]\n",
            "            gram[i, i] += 0\n",
            f"{PLAIN}-float64-formula1]",
        ),
        "the plain kernel solves from another triangle": (
            "x[i] -= gram[j, i] * x[j]",
            "x[i] -= gram[i, j] * x[j]",
            f"{PLAIN}-float64-formula0]",
        ),
        "targets have no confidence": (
            "left[t, width] = c * p",
            "left[t, width] = p",
            f"{TILED}-float64-formula1]",
        ),
        "holes are counted twice": (
            "left[t, j] = (c - hole) * fixed[item, j]",
            "left[t, j] = c * fixed[item, j]",
            f"{TILED}-float64-formula1]",
        ),
        "a dislike is a like to the kernels": (
            "preference = hole if rating > 0 else hole - hole",
            "preference = hole if rating != 0 else hole - hole",
            f"{TILED}-float64-formula1]",
        ),
        "a dislike has negative confidence": (
            "return base + alpha * abs(rating), preference",
            "return base + alpha * rating, preference",
            f"{TILED}-float64-formula1]",
        ),
        "the last chunk is as long as the others": (
            "n = min(len(left), indptr[row + 1] - start)",
            "n = min(len(left), len(data) - start)",
            f"{TILED}-float64-formula0]",
        ),
        "only the first chunk is read": (
            "for start in range(indptr[row], indptr[row + 1], len(left)):",
            "for start in range(indptr[row], "
            "min(indptr[row + 1], indptr[row] + 1), len(left)):",
            f"{TILED}-float64-formula0]",
        ),
        "tiles of two vectors are forgotten": (
            "        if width - column == 2 * lanes:\n"
            "            two(out, row, column, left, i, right, start, stop)\n"
            "        elif width - column == lanes:\n",
            "        if width - column == lanes:\n",
            f"{TILED}-float64-formula0]",
        ),
        "sums of a tile begin at one": (
            "builder.store(vector(None), total)",
            "builder.store(vector([1.0] * lanes), total)",
            f"{TILED}-float64-formula0]",
        ),
        "no system is singular": (
            "if not total > 0 or not smallest > singular * largest:",
            "if False:",
            "kernels::test_singular_systems_are_named_and_the_others_solved[tiled]",
        ),
        "nan is not singular": (
            "if not total > 0 or not smallest > singular * largest:",
            "if total <= 0 or smallest <= singular * largest:",
            "kernels::test_singular_systems_are_named_and_the_others_solved[tiled]",
        ),
        "two threads solve the same row": (
            "first = _take(queue, SHARE)",
            "first = _take(queue, SHARE - 1)",
            "kernels::test_rows_not_asked_for_are_left_alone",
        ),
        "the last row is never taken": (
            "for row in range(first, min(first + SHARE, len(asked))):",
            "for row in range(first, min(first + SHARE, len(asked) - 1)):",
            "kernels::test_rows_not_asked_for_are_left_alone",
        ),
        "the loss counts rated places as holes too": (
            "fitted = np.float64(_dot(fixed[indices[t]], x[0]))\n"
            "                    losses[row] += c * (p - fitted) ** 2 "
            "- hole * fitted**2",
            "fitted = np.float64(_dot(fixed[indices[t]], x[0]))\n"
            "                    losses[row] += c * (p - fitted) ** 2",
            "kernels::test_rows_not_asked_for_are_left_alone",
        ),
        "the kernels allocate for each row": (
            "            gram[:, :] = holes\n",
            "            gram[:, :] = holes.copy()\n",
            "kernels::test_loops_allocate_nothing",
        ),
        "the number of threads is ignored": (
            "n_threads = min(config.NUMBA_NUM_THREADS, -(-len(asked) // SHARE))",
            "n_threads = min(2, -(-len(asked) // SHARE))",
            "kernels::test_the_number_of_threads_is_that_of_numba",
        ),
    },
)
SPARK = [
    *library(
        "spark",
        {
            "a Java that is too old will do": (
                "    if int(version[1]) < JAVA_VERSION:\n",
                "    if int(version[1]) < 8:\n",
                "spark::test_a_java_that_will_not_do_is_skipped_with_the_reason"
                "[PATH-is-java-11]",
            )
        },
    ),
    Mutant(
        "the split of the Spark program ignores its seed",
        "book/jobs/train_als.py",
        'sf.lit(seed).cast("bigint")',
        'sf.lit(0).cast("bigint")',
        unit("train_als::test_hash_split_depends_on_ids_and_seed_only"),
    ),
    Mutant(
        "the split of the Spark program leaks one row",
        "book/jobs/train_als.py",
        'is_test = sf.col("place") >= n_ratings - math.ceil(share * n_ratings)',
        'is_test = sf.col("place") > n_ratings - math.ceil(share * n_ratings)',
        unit("train_als::test_time_split_is_that_of_the_library"),
    ),
]
ROOM = [
    Mutant(
        "hidden checks are handed out",
        "classroom/release.py",
        '    hidden = "\\n".join([*hidden, "### END HIDDEN TESTS"])',
        '    hidden = "\\n".join([HIDDEN_NOTE, exercise.hidden])',
        unit(
            "classroom::"
            "test_students_get_tasks_stubs_hints_and_visible_checks_and_nothing_else"
        ),
    ),
]
MUTANTS = [*ALS, *KERNELS, *METRICS, *SPLITS, *BASELINES, *COMPARISON]
MUTANTS += [*DATA, *SPARK, *ROOM, *PAGES]


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    mutant: Mutant | arithmetic.Generated
    verdict: str
    by: str
    seconds: float


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
    # Of all plugins nbval takes two seconds to load.
    stored = "outputs/" in checks[0]
    nbval = ["--nbval", "--nbval-current-env"] if stored else ["-p", "no:nbval"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", *nbval, *checks]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    failed = arithmetic.first_failure(done.stdout)
    if done.returncode not in (0, 1) and not failed:
        raise RuntimeError(
            f"{' '.join(command)} ended with status {done.returncode}, so it says "
            f"nothing about the mutant:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.returncode != 0, failed, done.stdout


def try_out(folder: Path, mutant: Mutant | arithmetic.Generated) -> Result:
    """Make one mistake, see which check finds it, and take the mistake back."""
    originals = {
        file: (folder / file).read_text("utf-8") for file in mutant.texts(folder)
    }
    fast = all(arithmetic.is_about_the_library(check) for check in mutant.checks)
    begin = time.perf_counter()
    try:
        for file, text in mutant.texts(folder).items():
            (folder / file).write_text(text, "utf-8")
        first = arithmetic.run if fast else run
        red, by, _ = first(folder, [*mutant.checks])
        verdict = "caught"
        if not red and mutant.fuller:
            red, by, _ = run(folder, [*mutant.fuller])
            verdict = "caught late"
        if not red:
            verdict = "SURVIVED"
    finally:
        for file, text in originals.items():
            (folder / file).write_text(text, "utf-8")
    seconds = time.perf_counter() - begin
    print(f"{verdict:11} {seconds:5.1f} s  {mutant.name}: {by}", flush=True)
    return Result(mutant, verdict, by, seconds)


def key(mutant: Mutant | arithmetic.Generated) -> str:
    """Name the mistake and the checks as they are written now."""
    tests = [(ROOT / check.partition("::")[0]).read_bytes() for check in mutant.checks]
    parts = [*mutant.texts(ROOT).values(), *mutant.checks, mutant.name]
    return hashlib.sha256(b"\0".join([*map(str.encode, parts), *tests])).hexdigest()


def unchanged_passes(folder: Path, file: str, checks: list[str]) -> None:
    """Run the expected checks of one file where nothing is broken."""
    fast = arithmetic.is_about_the_library(file)
    red, by, said = (arithmetic.run if fast else run)(folder, sorted(checks))
    if red:
        raise RuntimeError(f"red without any mutant: {by}\n{said[-2000:]}")


def code(text: str) -> str:
    """Quote for a table, whatever is in it."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(results: list[Result], first: str, cell) -> list[str]:
    """Write one line for each mutant."""
    lines = [f"| {first} | in | caught by | seconds |", "|---|---|---|--:|"]
    for result in results:
        caught = result.by or result.verdict
        names = [cell(result.mutant), Path(result.mutant.file).name, code(caught)]
        lines.append(f"| {' | '.join(names)} | {result.seconds:.1f} |")
    return lines


def report(results: list[Result]) -> str:
    """Write the tables of what was broken and what noticed."""
    survived = sum(result.verdict == "SURVIVED" for result in results)
    ours = [result for result in results if isinstance(result.mutant, Mutant)]
    made = [result for result in results if not isinstance(result.mutant, Mutant)]
    lines = [
        "# What happens when the course is broken on purpose",
        "",
        "Written by `make mutants`. Each line is one small mistake, made in a copy of "
        "the project, and the first check of `make test` that turned red.",
        "",
        f"{len(results)} mutants, {survived} survived. The seconds are those of the "
        f"clock, with {WORKERS} mutants at a time, in one run or several, and whatever "
        "else the machine did.",
        "",
        f"## {len(ours)} mistakes that people make",
        "",
        *table(ours, "mistake", lambda mutant: mutant.name),
        "",
        f"## {len(made)} changes of the arithmetic, made by Cosmic Ray",
        "",
        "One operator, comparison or sign of a line became another. The line is shown "
        "as it was tried.",
        "",
        *table(made, "line", lambda mutant: code(mutant.line)),
        "",
        "Cosmic Ray made these, too. They change no result, so no check can see them, "
        "and they were left out.",
        "",
        "| line | in | why nothing changes |",
        "|---|---|---|",
    ]
    for key, why in arithmetic.EQUIVALENT.items():
        module, _, line = key.partition(": ")
        lines.append(f"| {code(line)} | {module}.py | {why} |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Try the mutants out and return the exit status: 1 if one survived."""
    beside_us = ROOT.parent / "shared" / "data"
    if beside_us.is_dir():
        os.environ.setdefault("ALS_COURSE_DATA", str(beside_us))
    os.environ["ALS_COURSE_OFFLINE"] = "1"
    mutants = [*MUTANTS, *arithmetic.generate(ROOT)]
    chosen = [m for m in mutants if not words or any(w in m.name for w in words)]
    if not chosen:
        raise SystemExit(f"no mutant has one of {words} in its name")
    known = {}
    if not words and DONE.exists():
        entries = [json.loads(line) for line in DONE.read_text("utf-8").splitlines()]
        known = {entry.pop("key"): entry for entry in entries}
    keys = {mutant: key(mutant) for mutant in chosen}  # and so all of them fit
    with tempfile.TemporaryDirectory(prefix="mutants-") as base:
        folders = Queue()
        for number in range(WORKERS):
            folders.put(copy_of_the_project(Path(base) / f"copy{number}"))

        def in_a_copy(task, *arguments):
            folder = folders.get()
            try:
                return task(folder, *arguments)
            finally:
                folders.put(folder)

        def one(mutant):
            if keys[mutant] in known:
                return Result(mutant, **known[keys[mutant]])
            result = in_a_copy(try_out, mutant)
            if result.verdict != "SURVIVED":
                keep = {"key": keys[mutant], **vars(result)}
                del keep["mutant"]
                DONE.parent.mkdir(exist_ok=True)
                with LOCK, DONE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(keep) + "\n")
            return result

        expected = {}
        left = [mutant for mutant in chosen if keys[mutant] not in known]
        for check in {check for mutant in left for check in mutant.checks}:
            expected.setdefault(check.partition("::")[0], []).append(check)
        with ThreadPoolExecutor(WORKERS) as pool:
            green = partial(in_a_copy, unchanged_passes)
            list(pool.map(green, expected, expected.values()))
            results = list(pool.map(one, chosen))
    survived = [r.mutant.name for r in results if r.verdict == "SURVIVED"]
    if not words:
        REPORT.write_text(report(results), "utf-8")
        if not survived:
            DONE.unlink(missing_ok=True)
    print(f"{len(results)} mutants, survived: {survived or 'none'}")
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Small published runs, and ways to spoil them."""

import json

import numpy as np
import pandas as pd
import publish_als

from als_course.als import ImplicitALS
from als_course.datasets import ratings_matrix


def report(low=0.1):
    """What a test says of a run whose lists are better than popularity's from `low`."""
    gap = {"mean": low + 0.1, "low": low, "high": low + 0.2, "users": 100}
    return {"paired": {"ndcg_above_most_popular": gap}}


def likes(n_users=120, n_items=90, seed=0, taste=8):
    """Likes of users who keep to one of three kinds of items, `taste` to 1."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_items) % 3
    fame = rng.pareto(1.5, n_items) + 0.2
    rows = []
    for user in range(n_users):
        weight = fame * np.where(kind == user % 3, taste, 1)
        n = rng.integers(4, 20)
        chosen = rng.choice(n_items, n, replace=False, p=weight / weight.sum())
        start = rng.integers(1000)
        rows += [
            (f"u{user}", f"i{it}", 1.0, start + at) for at, it in enumerate(chosen)
        ]
    names = ["user_id", "item_id", "rating", "timestamp"]
    return pd.DataFrame(rows, columns=names)


def fit(table, seed=0, **settings):
    """ALS for likes, fitted on a table."""
    model = ImplicitALS(
        6,
        2.0,
        alpha=5.0,
        n_iterations=4,
        confidence="1+alpha*r",
        random_state=seed,
        **settings,
    )
    return model.fit(ratings_matrix(table)[0])


def publish(runs, table, model, low=0.1, **options):
    """Publish a model and return the folder of its run."""
    fitted = publish_als.from_model(model, table, report(low))
    return publish_als.publish(fitted, runs, **{"hand_over": 3, "keep": 99} | options)


def replace(folder, name, change, seal=True):
    """Replace a file of a run by what ``change(content)`` makes of it.

    With `seal` the run's list of files is written anew, so that lengths and hashes fit.
    """
    path = folder / name
    path.chmod(0o644)
    if name.endswith(".npy"):
        np.save(path, change(np.load(path)))
    else:
        path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))))
    if seal and name != "run.json":
        replace(folder, "run.json", lambda told: _sealed(told, name, path))


def _sealed(told, name, path):
    told["files"][name] = publish_als.summary(path)
    return told

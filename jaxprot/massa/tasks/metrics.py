"""Figures of predictions, by the kind of a task."""

from __future__ import annotations

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.massa.tasks.tables import IGNORE, Kind


def score(kind: Kind, found: np.ndarray, labels: np.ndarray) -> float:
    """The metric of a kind of task: Spearman correlation of numbers (0 where constant), the share of right classes.

    Args:
      kind: of the task.
      found: (n,) numbers, or classes.
      labels: (n,); `IGNORE` does not count.

    Raises:
      InputError: nothing to count, or predictions that are not finite.
    """
    found, labels = np.asarray(found), np.asarray(labels)
    if kind != "regression":
        found, labels = found[labels != IGNORE], labels[labels != IGNORE]
    if not len(labels):
        raise InputError("no labels to compare with")
    if not np.isfinite(found).all():
        raise InputError("predictions that are not finite")
    if kind != "regression":
        return float(np.mean(found == labels))
    return float(np.nan_to_num(metrics.spearman(found, labels)))


def figures(kind: Kind, found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All usual figures: of numbers `spearman`, `pearson`, `rmse` and `mae`, of classes `accuracy`."""
    if kind != "regression":
        return {"accuracy": score(kind, found, labels)}
    return {
        "spearman": score(kind, found, labels),
        "pearson": float(np.nan_to_num(metrics.pearson(found, labels))),
        "rmse": float(metrics.rmse(found, labels)),
        "mae": float(metrics.mae(found, labels)),
    }

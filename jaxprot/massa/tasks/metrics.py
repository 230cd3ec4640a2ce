"""Figures of predictions, by the kind of a task."""

from __future__ import annotations

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.massa.tasks.tables import IGNORE, Kind


def spearman(found: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; 0 where either is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(found), rankdata(labels)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / scale) if scale > 0 else 0.0


def score(kind: Kind, found: np.ndarray, labels: np.ndarray) -> float:
    """The metric of a kind of task: Spearman correlation of numbers, the share of right classes.

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
    return spearman(found, labels) if kind == "regression" else float(np.mean(found == labels))


def figures(kind: Kind, found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All usual figures: of numbers `spearman`, `pearson`, `rmse` and `mae`, of classes `accuracy`."""
    if kind != "regression":
        return {"accuracy": score(kind, found, labels)}
    found, labels = np.asarray(found, np.float64), np.asarray(labels, np.float64)
    constant = np.ptp(found) == 0 or np.ptp(labels) == 0
    return {
        "spearman": score(kind, found, labels),
        "pearson": 0.0 if constant else float(np.corrcoef(found, labels)[0, 1]),
        "rmse": float(np.sqrt(np.mean((found - labels) ** 2))),
        "mae": float(np.mean(np.abs(found - labels))),
    }

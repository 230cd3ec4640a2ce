"""Figures of predictions, by the kind of a task."""

from __future__ import annotations

from typing import Literal

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


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the precision-recall curve, as the sum of its steps without interpolation; ties are one step.

    Args:
      score: (n,) numbers, higher for positives.
      label: (n,) true or false.

    Returns:
      From the share of positives (by chance) to 1; NaN without positives.
    """
    score, label = np.asarray(score, float), np.asarray(label, bool)
    if not label.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of equal scores
    hits = np.cumsum(label[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float(np.sum(precision * np.diff(hits, prepend=0)) / label.sum())


def pair_figures(kind: Literal["classes", "regression"], found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All usual figures of pairs, without those that are not defined (correlations of constants, curves of one class).

    Of numbers `pearson`, `spearman`, `rmse` and `mae`; of two classes `roc_auc`, `pr_auc` (average precision) and
    `accuracy`; of more the last alone.

    Args:
      kind: of the task.
      found: (n,) numbers, or (n, classes) probabilities.
      labels: (n,).

    Raises:
      InputError: predictions that are not finite.
    """
    if not np.isfinite(found).all():
        raise InputError("predictions that are not finite")
    if kind == "regression":
        told = {
            "pearson": metrics.pearson(found, labels), "spearman": metrics.spearman(found, labels),
            "rmse": metrics.rmse(found, labels), "mae": metrics.mae(found, labels),
        }  # fmt: skip
    else:
        told = {"accuracy": np.mean(found.argmax(-1) == labels)}
        if found.shape[1] == 2:
            score, label = found[:, 1], labels == 1
            told = {"roc_auc": metrics.auroc(score, label), "pr_auc": average_precision(score, label), **told}
            if label.all():
                del told["pr_auc"]  # always 1
    return {name: float(value) for name, value in told.items() if np.isfinite(value)}

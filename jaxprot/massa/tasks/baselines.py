"""What a representation has to beat: linear models on one-hot letters.

Proteins are the mean of their letters; residues the letters of a window about them. Ridge regression for numbers,
multinomial logistic regression for classes; the strength of the penalty is chosen on the validation part.
"""

from __future__ import annotations

import numpy as np

from jaxprot.massa.tasks.metrics import score
from jaxprot.massa.tasks.tables import IGNORE, Table

LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
WINDOW = 7
"""Residues to each side that a residue task sees."""
_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_RESIDUES = 50_000  # training residues of a logistic regression, at most


def composition(sequences: list[str]) -> np.ndarray:
    """(n, 21) shares of the letters; what is no standard letter counts as X."""
    return np.stack([np.eye(len(LETTERS))[_numbers(one)].mean(0) for one in sequences])


def windows(sequence: str, reach: int = WINDOW) -> np.ndarray:
    """(L, (2 reach + 1) * 22) letters about each residue; the last letter stands for beyond the ends."""
    end = len(LETTERS)
    padded = np.pad(_numbers(sequence), reach, constant_values=end)
    near = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.eye(end + 1, dtype=np.float32)[near].reshape(len(sequence), -1)


def one_hot(
    table: Table, seed: int = 0, rows: np.ndarray | None = None, longest: int | None = None
) -> dict[str, float]:
    """Metric of the linear model on the validation and test parts.

    Args:
      table: the task.
      seed: of the choice of residues, where there are too many.
      rows: of the table to train on; its training part by default.
      longest: residues; of longer sequences only so many first ones are read.

    Returns:
      `valid` and `test`, those parts of them that there are.
    """
    chosen_rows = {name: table.part(name) for name in ("train", "valid", "test") if len(table.part(name))}
    if rows is not None:
        chosen_rows["train"] = rows
    parts = {name: table.take(which) for name, which in chosen_rows.items()}
    inputs, targets = {}, {}
    for name, part in parts.items():
        if table.kind == "residue_classes":
            # A window looks beyond the cut, where a network does not; what is told is the same.
            inputs[name] = np.concatenate([windows(one)[:longest] for one in part.sequences])
            targets[name] = np.concatenate([one[:longest] for one in part.labels])
            kept = targets[name] != IGNORE
            inputs[name], targets[name] = inputs[name][kept], targets[name][kept]
        else:
            inputs[name], targets[name] = (
                composition([one[:longest] for one in part.sequences]),
                np.asarray(part.labels),
            )
    x, y = inputs["train"], targets["train"]
    if len(x) > _RESIDUES:
        drawn = np.random.default_rng(seed).permutation(len(x))[:_RESIDUES]
        x, y = x[drawn], y[drawn]
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    inputs = {name: (value - centre) / spread for name, value in inputs.items()}
    x = (x - centre) / spread
    fitted = [ridge(x, y, p) if table.kind == "regression" else logistic(x, y, table.classes, p) for p in _PENALTIES]

    def figure(model: np.ndarray, name: str) -> float:
        found = inputs[name] @ model[:-1] + model[-1]
        return score(table.kind, found[:, 0] if table.kind == "regression" else found.argmax(-1), targets[name])

    chosen = max(fitted, key=lambda model: figure(model, "valid" if "valid" in parts else "train"))
    return {name: figure(chosen, name) for name in ("valid", "test") if name in parts}


def _numbers(sequence: str) -> np.ndarray:
    return np.array([LETTERS.find(letter) % len(LETTERS) for letter in sequence])  # -1 is the last one, X


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """(d + 1, 1) weights of a linear model of numbers, the last row the offset; inputs have mean 0."""
    weights = np.linalg.solve(x.T @ x / len(x) + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean()) / len(x))
    return np.append(weights, y.mean())[:, None]


def logistic(x: np.ndarray, y: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """(d + 1, classes) weights of a linear model of classes, the last row the offsets."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    x = np.concatenate([x, np.ones((len(x), 1))], 1).astype(np.float32)
    rows = np.arange(len(x))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(x.shape[1], classes).astype(np.float32)
        logits = x @ weights
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        slope = np.exp(logs)
        slope[rows, y] -= 1
        gradient = x.T @ slope / len(x) + penalty * weights
        return float(-logs[rows, y].mean() + penalty / 2 * np.sum(weights**2)), gradient.ravel().astype(np.float64)

    found = minimize(loss, np.zeros(x.shape[1] * classes), jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return found.x.reshape(x.shape[1], classes)

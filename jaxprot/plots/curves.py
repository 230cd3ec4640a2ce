"""The course of a training run."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_RATES = ("learning_rate", "lr", "rate")
_VALIDATION = "val_"
# What a run notes about itself; everything else beside the rate and the validation figures is a term of the loss.
_ASIDE = (
    *("step", "count", "epoch", "examples", "grad_norm", "seconds", "seconds_per_step", "steps_per_second"),
    *("data_wait", "programs", "eta", "time", "n", "val_n", "plateau"),
)


def training_curves(records: Sequence[Mapping[str, Any]], path: str | os.PathLike, title: str = "") -> None:
    """Draws the terms of the loss, every validation figure and the learning rate over the steps.

    Args:
      records: one mapping per log entry with `step` and numbers: `val_...` are validation figures, `learning_rate` the
        rate, other names terms of the loss. Missing and non-finite numbers leave gaps.
      path: picture to write; the suffix decides the kind (`.png`, `.svg`, `.pdf`).
      title: text above.

    Raises:
      ValueError: no record holds a number to draw.
      OSError: the picture cannot be written (the caller decides how a half-written file is avoided).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = _series(records)
    losses = {name: xy for name, xy in series.items() if not name.startswith(_VALIDATION) and name not in _RATES}
    panels: list[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]] = [("loss", losses)] if losses else []
    # Figures have scales of their own: one panel each.
    panels += [(name, {name: xy}) for name, xy in series.items() if name.startswith(_VALIDATION)]
    panels += [("learning rate", {name: xy}) for name, xy in series.items() if name in _RATES]
    if not panels:
        raise ValueError("no record holds a loss, a validation figure or a learning rate; has the run logged a step?")

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + (0.3 if title else 0)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, (label, lines) in zip(grid, panels, strict=False):
        evaluated = label.startswith(_VALIDATION)
        for name, (x, y) in lines.items():
            axes.plot(
                x,
                y,
                linewidth=1.2,
                marker="o" if evaluated or np.isfinite(y).sum() < 2 else None,
                markersize=3,
                label=name,
            )
        positive = [y[np.isfinite(y)] for _, y in lines.values()]
        if label == "loss" and all(len(y) and y.min() > 0 for y in positive) and _span(positive) > 30:
            axes.set_yscale("log")
        if len(lines) > 1:
            axes.legend(fontsize=7, frameon=False)
        axes.set_title(f"validation {label[len(_VALIDATION) :]}" if evaluated else label, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _span(values: Sequence[np.ndarray]) -> float:
    return max(y.max() for y in values) / min(y.min() for y in values)


def _series(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of every name, in the order of first mention; null is NaN."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        if not isinstance(record.get("step"), (int, float)):
            continue
        for name, value in record.items():
            if name in _ASIDE or isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
                continue
            steps, values = found.setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(np.nan if value is None else value)
    arrays = {name: (np.array(x, float), np.array(y, float)) for name, (x, y) in found.items()}
    return {name: xy for name, xy in arrays.items() if np.isfinite(xy[1]).any()}

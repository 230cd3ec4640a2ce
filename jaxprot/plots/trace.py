"""The line along the chain: flexibility (or any other value) residue by residue."""

import math
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
_PANEL_HEIGHT = 1.7  # inch
_MOST_PANELS = 24
_MOST_CHAINS = 48  # of more (virus shells) no panel of their own is drawn


def trace(
    values: np.ndarray | Mapping[str, np.ndarray],
    labels: Sequence[str],
    path: str | os.PathLike,
    title: str = "",
    *,
    chains: Sequence[str] | None = None,
    unit: str = "RMSF (Å)",
    per_row: int = 400,
) -> None:
    """Draws one or several values along the residues, a panel for each chain.

    Long chains go over several panels; more than 48 chains follow each other in one. All panels share one scale. The
    line is broken where there is no value and where residue numbers jump; a residue between two breaks is drawn as a
    dot.

    Args:
      values: (L,) one per residue, NaN where there is none; or a table name -> (L,) to compare.
      labels: L residue numbers as in the file, with insertion codes (`"52A"`).
      path: picture to write; the suffix decides the kind (`.png`, `.svg`, `.pdf`).
      title: text above.
      chains: L chain names; a new panel starts where the chain changes.
      unit: text at the vertical axis.
      per_row: residues in a panel at most (more for assemblies of thousands).

    Raises:
      ValueError: lengths that do not agree, or no series.
      OSError: the picture cannot be written (the caller decides how a half-written file is avoided).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = dict(values) if isinstance(values, Mapping) else {"": values}
    series = {name: np.asarray(one, np.float64) for name, one in series.items()}
    length = len(labels)
    wrong = {one.shape for one in series.values()} - {(length,)}
    if not series or wrong or (chains is not None and len(chains) != length):
        raise ValueError(f"values {sorted(wrong)}, {length} labels: lengths do not agree")
    if chains is not None and sum(a != b for a, b in zip(chains, list(chains)[1:], strict=False)) >= _MOST_CHAINS:
        chains = None
    panels = _panels(length, chains, per_row)
    known = np.concatenate([one[np.isfinite(one)] for one in series.values()])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    low = min(low, 0.0)
    high = high if high > low else low + 1.0
    widest = max(stop - start for start, stop in panels)

    left, right, top, bottom, between = 0.75, 0.25, 0.55 if title or len(series) > 1 else 0.25, 0.5, 0.42
    width = float(np.clip(widest * 0.035, 4.5, 12))
    figure_width = left + width + right
    figure_height = top + len(panels) * _PANEL_HEIGHT + (len(panels) - 1) * between + bottom
    figure = Figure(figsize=(figure_width, figure_height), dpi=min(150, 20000 / figure_height))
    FigureCanvasAgg(figure)
    jump = _jumps(labels)
    handles = []
    for number, (start, stop) in enumerate(panels):
        y = top + number * (_PANEL_HEIGHT + between) + _PANEL_HEIGHT
        shown = width * max((stop - start) / widest, 0.02)
        axes = figure.add_axes(
            (left / figure_width, 1 - y / figure_height, shown / figure_width, _PANEL_HEIGHT / figure_height)
        )
        handles = [
            _line(axes, one, start, stop, jump, colour=COLOURS[i % len(COLOURS)], name=name)
            for i, (name, one) in enumerate(series.items())
        ]
        axes.set_xlim(start - 0.5, stop - 0.5)
        axes.set_ylim(low - 0.03 * (high - low), high + 0.06 * (high - low))
        _mark_residues(axes, start, stop, labels, chains, widest)
        if chains is not None and len(set(chains)) > 1:
            axes.text(
                0.006 * widest / (stop - start), 0.95, f"chain {chains[start]}", transform=axes.transAxes, fontsize=8,
                va="top", bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            )  # fmt: skip
        axes.tick_params(labelsize=7, length=2.5, width=0.6, pad=1.5)
        axes.grid(axis="y", linewidth=0.4, color="#dddddd")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_ylabel(unit, fontsize=8, labelpad=3)
        if number == len(panels) - 1:
            axes.set_xlabel("residue", fontsize=8)
    if len(series) > 1:
        figure.legend(
            handles=handles, loc="upper right", fontsize=7, ncols=len(series), frameon=False, borderaxespad=0.3,
            bbox_to_anchor=((left + width) / figure_width, 1),
        )  # fmt: skip
    if title:
        figure.text(left / figure_width, 1 - 0.3 / figure_height, title, fontsize=10, va="baseline", ha="left")
    figure.savefig(path)


def _panels(length: int, chains: Sequence[str] | None, per_row: int) -> list[tuple[int, int]]:
    """Ranges of residues, by chain and at most `per_row` long; longer for assemblies of thousands."""
    if length == 0:
        return [(0, 1)]
    starts = [0] + [i for i in range(1, length) if chains is not None and chains[i] != chains[i - 1]]
    stops = [*starts[1:], length]
    while True:
        panels = []
        for start, stop in zip(starts, stops, strict=True):
            n = max(1, math.ceil((stop - start) / per_row))
            width = math.ceil((stop - start) / n)
            panels += [(at, min(at + width, stop)) for at in range(start, stop, width)]
        if len(panels) <= max(_MOST_PANELS, len(starts)) or per_row >= length:
            return panels
        per_row = math.ceil(per_row * 1.3)


def _jumps(labels: Sequence[str]) -> np.ndarray:
    """(L,) bool, True where the number is not that of the residue before or the next one."""
    found = [re.match(r"-?\d+", str(label)) for label in labels]
    numbers = np.array([int(match[0]) if match else 0 for match in found], np.int64)
    out = np.zeros(len(labels), bool)
    out[1:] = (np.diff(numbers) > 1) | (np.diff(numbers) < 0)
    return out


def _line(axes, values: np.ndarray, start: int, stop: int, jump: np.ndarray, *, colour: str, name: str):
    """A line with breaks at NaN and jumps."""
    x, y = [], []
    alone = []
    stop = min(stop, len(values))  # nothing to draw at all is an empty panel
    for i in range(start, stop):
        broken_before = i == start or jump[i] or not np.isfinite(values[i - 1])
        broken_after = i == stop - 1 or jump[i + 1] or not np.isfinite(values[i + 1])
        if jump[i] and i > start:
            x.append(i - 0.5)
            y.append(np.nan)
        x.append(i)
        y.append(values[i])
        if np.isfinite(values[i]) and broken_before and broken_after:
            alone.append(i)
    (line,) = axes.plot(x, y, color=colour, linewidth=0.9, label=name, solid_joinstyle="round")
    if alone:
        axes.plot(alone, values[alone], ".", color=colour, markersize=3)
    return line


def _mark_residues(
    axes, start: int, stop: int, labels: Sequence[str], chains: Sequence[str] | None, widest: int
) -> None:
    """Ticks at round residue numbers of the file and at the panel's first residue."""
    if not labels:
        axes.set_xticks([])
        return
    every = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 10**9) if widest / step <= 16)
    ticks = [(start, str(labels[start]))]
    for column in range(start + 1, stop):
        number = re.fullmatch(r"-?\d+", str(labels[column]))
        if number and int(number[0]) % every == 0 and column - ticks[-1][0] >= 0.4 * every:
            ticks.append((column, str(labels[column])))
    axes.set_xticks([column for column, _ in ticks], [text for _, text in ticks])

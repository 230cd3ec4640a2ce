"""The 20 x L picture of a site-saturation scan."""

import math
import os
import re
from collections.abc import Sequence

import numpy as np

COLUMNS = "ACDEFGHIKLMNPQRSTVWY"  # order of the 20 values of a residue
ROWS = "GPAVILMCFWYSTNQHKRDE"  # order from top to bottom: neighbours are alike
_CELL_WIDTH, _CELL_HEIGHT = 0.125, 0.135  # inch
_MOST_PANELS = 24


def heatmap(
    ddg: np.ndarray,
    sequence: str,
    labels: Sequence[str],
    path: str | os.PathLike,
    title: str = "",
    *,
    chains: Sequence[str] | None = None,
    limit: float | None = None,
    per_row: int = 100,
    unit: str = "ΔΔG (kcal/mol), positive = destabilising",
) -> None:
    """Draws the effect of every substitution at every residue.

    Long chains are wrapped into several panels. Blue stabilises, red destabilises, white is zero; a dot marks the wild
    type; columns without a value (gaps in the chain) are grey.

    Args:
      ddg: (L, 20) kcal/mol in the order of `COLUMNS`; NaN where there is no value.
      sequence: L letters, `-` or `X` where there is no residue.
      labels: L residue numbers as in the file, with insertion codes (`"52A"`).
      path: picture to write; the suffix decides the kind (`.png`, `.svg`, `.pdf`).
      title: text above.
      chains: L chain names; a line is drawn where the chain changes.
      limit: value of the full colours; by default the 98th percentile of |ddG|, at least 1.
      per_row: residues in a panel at most (more for chains of thousands).
      unit: text at the colour bar.

    Raises:
      ValueError: lengths that do not agree.
      OSError: the picture cannot be written (the caller decides how a half-written file is avoided).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    ddg = np.asarray(ddg, np.float64)
    length = len(sequence)
    if ddg.shape != (length, 20) or len(labels) != length or (chains is not None and len(chains) != length):
        raise ValueError(f"ddg {ddg.shape}, {length} letters, {len(labels)} labels: lengths do not agree")
    known = np.abs(ddg[np.isfinite(ddg)])
    if limit is None:
        limit = max(1.0, math.ceil(2 * float(np.percentile(known, 98))) / 2) if known.size else 1.0

    panels = max(1, math.ceil(length / max(per_row, math.ceil(length / _MOST_PANELS))))
    width = max(1, math.ceil(length / panels))
    left, right, top, bottom, between = 0.62, 1.15, 0.55 if title else 0.25, 0.5, 0.42
    cell = _CELL_WIDTH * min(1.0, 250 / width)
    figure_width = max(left + width * cell + right, 4.5)
    panel_height = 20 * _CELL_HEIGHT
    figure_height = top + panels * panel_height + (panels - 1) * between + bottom
    figure = Figure(figsize=(figure_width, figure_height), dpi=min(150, 20000 / figure_height))
    FigureCanvasAgg(figure)

    order = [COLUMNS.index(letter) for letter in ROWS]
    norm = Normalize(-limit, limit)
    mesh = None
    for panel in range(panels):
        start, stop = panel * width, min((panel + 1) * width, length)
        y = top + panel * (panel_height + between) + panel_height
        axes = figure.add_axes(
            (left / figure_width, 1 - y / figure_height, width * cell / figure_width, panel_height / figure_height)
        )
        axes.set_facecolor("#d0d0d0")
        values = np.ma.masked_invalid(ddg[start:stop, order].T)
        mesh = axes.pcolormesh(
            np.arange(start, stop + 1) - 0.5,
            np.arange(21) - 0.5,
            values,
            cmap="RdBu_r",
            norm=norm,
            edgecolors="white",
            linewidth=0.25,
            rasterized=True,
        )
        axes.set_xlim(start - 0.5, start + width - 0.5)
        axes.set_ylim(19.5, -0.5)
        if stop - start < width:  # the rest of the last panel is paper, not grey
            axes.axvspan(stop - 0.5, start + width - 0.5, color="white", zorder=3)
        native = [(column, ROWS.index(sequence[column])) for column in range(start, stop) if sequence[column] in ROWS]
        if native:
            axes.scatter(*zip(*native, strict=True), s=4.5 * cell / _CELL_WIDTH, c="black", linewidths=0, zorder=4)
        _mark_residues(axes, start, stop, labels, chains)
        axes.set_yticks(range(20), list(ROWS))
        axes.tick_params(axis="y", labelsize=6.5, length=0, pad=2)
        axes.tick_params(axis="x", labelsize=7, length=2.5, width=0.6, pad=1.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if panel == panels - 1:
            axes.set_xlabel("residue", fontsize=8)
        axes.set_ylabel("mutant", fontsize=8, labelpad=3)
    bar_height = min(panel_height, 2.4)
    bar = figure.add_axes(
        (
            (left + width * cell + 0.18) / figure_width,
            1 - (top + bar_height) / figure_height,
            0.13 / figure_width,
            bar_height / figure_height,
        )
    )
    if mesh is not None:
        figure.colorbar(mesh, cax=bar, extend="both" if known.size and known.max() > limit else "neither")
    bar.tick_params(labelsize=7, length=2.5, width=0.6)
    bar.set_ylabel(unit, fontsize=7.5)
    bar.yaxis.set_label_position("right")
    if title:
        figure.text(left / figure_width, 1 - 0.3 / figure_height, title, fontsize=10, va="baseline", ha="left")
    figure.savefig(path)


def _mark_residues(axes, start: int, stop: int, labels: Sequence[str], chains: Sequence[str] | None) -> None:
    """Ticks at every tenth residue number of the file, the sequence's ends included, and lines between chains."""
    ticks = []
    for column in range(start, stop):
        first_of_chain = column == start or (chains is not None and chains[column] != chains[column - 1])
        number = re.fullmatch(r"-?\d+", str(labels[column]))
        if first_of_chain or (number and int(number[0]) % 10 == 0):
            text = str(labels[column])
            if first_of_chain and chains is not None and len(set(chains)) > 1:
                text = f"{chains[column]}:{text}"
            # A chain's first number and the next round one would overlap.
            if ticks and column - ticks[-1][0] < 4 and not first_of_chain:
                continue
            if ticks and column - ticks[-1][0] < 4:
                ticks.pop()
            ticks.append((column, text))
        if chains is not None and column > start and chains[column] != chains[column - 1]:
            axes.axvline(column - 0.5, color="black", linewidth=1.0, zorder=5)
    axes.set_xticks([column for column, _ in ticks], [text for _, text in ticks])

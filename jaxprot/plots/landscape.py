"""The picture of a latent landscape: where particles are, with clusters and paths."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from jaxprot.plots.trace import COLOURS

_MOST_DOTS = 3000  # of more, the density is drawn
_MOST_DRAWN = 20_000  # a side panel's histogram and the limits need no more


def landscape(
    plane: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    *,
    axes: tuple[str, str] = ("PC 1", "PC 2"),
    centres: np.ndarray | None = None,
    sizes: Sequence[int] | None = None,
    paths: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws particles in a plane: dots for up to 3000, a density for more.

    Args:
      plane: (n, 2) places of the particles; those that are not finite are left out.
      path: picture to write; the suffix decides the kind (`.png`, `.svg`, `.pdf`).
      title: text above.
      axes: texts at the axes.
      centres: (c, 2) places of the clusters, numbered from 0.
      sizes: c numbers of particles in the clusters, told beside the picture.
      paths: name -> (s, 2) places along a path (a traversal), joined in their order from an open ring to a full one.

    Raises:
      ValueError: places that are no pairs, or none that is finite.
      OSError: the picture cannot be written (the caller decides how a half-written file is avoided).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plane = np.asarray(plane, np.float64)
    if plane.ndim != 2 or plane.shape[1] != 2 or not np.isfinite(plane).all(1).any():
        raise ValueError(f"places of shape {plane.shape}: expected (n, 2), some of them finite")
    plane = plane[np.isfinite(plane).all(1)]
    legend = sizes is not None and centres is not None and len(centres) > 0
    figure = Figure(figsize=(6.6 if legend else 5.4, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    low, high = _limits(plane, centres, paths)
    if len(plane) > _MOST_DOTS:
        shown = ax.hexbin(
            plane[:, 0], plane[:, 1], gridsize=55, bins="log", mincnt=1, cmap="Greys", linewidths=0.1,
            extent=(low[0], high[0], low[1], high[1]),
        )  # fmt: skip
        # Tones up to a middle grey, on which numbers and paths can be read.
        shown.set_clim(1, max(2.0, float(np.max(shown.get_array())) ** 1.6))
    else:
        ax.scatter(plane[:, 0], plane[:, 1], s=5, color="0.55", alpha=0.5, linewidths=0)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    for number, (name, line) in enumerate((paths or {}).items()):
        line = np.asarray(line, np.float64)
        colour = COLOURS[(number + 1) % len(COLOURS)]
        ax.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.4, marker=".", markersize=4, label=name, zorder=3)
        ax.plot(*line[:1].T, marker="o", markersize=6, markerfacecolor="white", color=colour, zorder=4)
        ax.plot(*line[-1:].T, marker="o", markersize=6, color=colour, zorder=4)
    if centres is not None:
        centres = np.asarray(centres, np.float64)
        ax.scatter(centres[:, 0], centres[:, 1], s=130, color="white", edgecolors=COLOURS[0], linewidths=1.4, zorder=5)
        for number, (x, y) in enumerate(centres):
            ax.text(x, y, str(number), ha="center", va="center", fontsize=8, color="black", zorder=6)
    if paths:
        ax.legend(fontsize=8, frameon=True, loc="best")
    if legend:
        lines = [f"{number:>2}  {size:,}" for number, size in enumerate(sizes or ())]
        shown_lines = lines if len(lines) <= 24 else [*lines[:23], "..."]
        ax.text(
            1.03, 1.0, "\n".join(["cluster: particles", *shown_lines]), transform=ax.transAxes, va="top", fontsize=8,
            family="monospace",
        )  # fmt: skip
    ax.set_xlabel(axes[0], fontsize=9)
    ax.set_ylabel(axes[1], fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    text = f"{title}, {len(plane):,} particles" if title else f"{len(plane):,} particles"
    ax.set_title(text, fontsize=10)
    figure.savefig(path)


def _limits(
    plane: np.ndarray, centres: np.ndarray | None, paths: Mapping[str, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the picture: all but the loosest particles, and all that is drawn on them."""
    some = plane[:: max(1, len(plane) // _MOST_DRAWN)]
    low, high = np.percentile(some, [0.2, 99.8], axis=0) if len(some) > 100 else (some.min(0), some.max(0))
    held = [np.stack([low, high])]
    held += [np.asarray(one, np.float64) for one in [centres, *(paths or {}).values()] if one is not None and len(one)]
    every = np.concatenate(held)
    low, high = every.min(0), every.max(0)
    margin = np.where(high > low, 0.06 * (high - low), 0.5)
    return low - margin, high + margin

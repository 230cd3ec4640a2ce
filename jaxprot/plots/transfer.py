"""Pictures of distances between tasks: the matrix with a tree, a map, and the way of features during training."""

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

_CELL = 0.42  # inch
_MOST_NUMBERS = 16  # tasks up to which the values are written into the cells
_SAME = 4.0  # points (1/72 inch) between places of the map that are drawn as one
# Where a label may stand beside its point, the nearest first, in points.
_OFFSETS = [(r * x, r * y) for r in (1, 3, 5, 8) for x, y in ((5, 4), (5, -4), (-5, 4), (-5, -4))]


def matrix(
    distances: np.ndarray,
    names: Sequence[str],
    path: str | os.PathLike,
    *,
    linkage: np.ndarray | None = None,
    title: str = "",
    unit: str = "distance",
) -> None:
    """Draws a symmetric matrix of distances; tasks that are alike stand together under a tree.

    Args:
      distances: (t, t); the diagonal is left white.
      names: t tasks.
      path: picture to write; the suffix decides the kind (`.png`, `.svg`, `.pdf`).
      linkage: (t - 1, 4) clusters that were merged, their height and size, in the layout of scipy; without it the
        order is that of the names and there is no tree.
      title: text above.
      unit: text at the colour bar.

    Raises:
      ValueError: shapes that do not agree.
      OSError: the picture cannot be written (the caller decides how a half-written file is avoided).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    distances = np.asarray(distances, np.float64)
    t = len(names)
    if t == 0 or distances.shape != (t, t) or (linkage is not None and np.shape(linkage) != (t - 1, 4)):
        raise ValueError(f"distances {distances.shape}, {t} names: sizes do not agree")
    tree = linkage is not None and t > 1
    order, lines = leaves(linkage) if tree else (list(range(t)), [])
    side = max(2.0, t * min(_CELL, 20 / t))
    margin = 0.35 + 0.075 * max(len(name) for name in names)
    above = (0.9 if tree else 0.1) + (0.35 if title else 0.1)
    width, height = margin + side + 1.1, margin + side + above
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    shown = np.ma.masked_array(distances[np.ix_(order, order)], np.eye(t, dtype=bool))
    image = axes.imshow(shown, cmap="viridis_r", interpolation="nearest", aspect="auto", vmin=0)
    labels = [names[index] for index in order]
    size = min(9.0, 300 / t)
    axes.set_xticks(range(t), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(t), labels, fontsize=size)
    axes.tick_params(length=0)
    if t <= _MOST_NUMBERS:
        known = shown.compressed()
        middle = known.max() / 2 if known.size else 0.0
        for row in range(t):
            for column in range(t):
                if row != column:
                    value = shown[row, column]
                    colour = "white" if value > middle else "black"
                    axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=6.5, color=colour)
    bar = figure.add_axes(((margin + side + 0.15) / width, margin / height, 0.14 / width, side / height))
    figure.colorbar(image, cax=bar)
    bar.tick_params(labelsize=7)
    bar.set_ylabel(unit, fontsize=8)
    if tree:
        top = figure.add_axes((margin / width, (margin + side + 0.05) / height, side / width, 0.8 / height))
        for x, y in lines:
            top.plot(x, y, color="0.25", linewidth=1.0, solid_capstyle="round")
        top.set_xlim(-0.5, t - 0.5)
        top.set_ylim(0, None)
        top.axis("off")
    if title:
        figure.text(margin / width, 1 - 0.2 / height, title, fontsize=10, va="center")
    figure.savefig(path)


def leaves(linkage: np.ndarray) -> tuple[list[int], list[tuple[list[float], list[float]]]]:
    """Order of the leaves of a tree so that no branches cross, and the lines (x, y) of its branches."""
    linkage = np.asarray(linkage, np.float64)
    t = len(linkage) + 1
    members: list[list[int]] = [[leaf] for leaf in range(t)]
    for left, right, *_ in linkage:
        members.append(members[int(left)] + members[int(right)])
    order = members[-1]
    x = [0.0] * t
    for place, leaf in enumerate(order):
        x[leaf] = float(place)
    height, lines = [0.0] * t, []
    for left, right, level, _ in linkage:
        a, b = int(left), int(right)
        lines.append(([x[a], x[a], x[b], x[b]], [height[a], level, level, height[b]]))
        x.append((x[a] + x[b]) / 2)
        height.append(float(level))
    return order, lines


def task_map(coordinates: np.ndarray, names: Sequence[str], path: str | os.PathLike, *, title: str = "") -> None:
    """Draws tasks as points of a plane, near ones close to each other.

    Points at one place share a label, and labels are moved aside where they would cover each other.

    Args:
      coordinates: (t, 2).
      names: t tasks.
      path: picture to write; the suffix decides the kind.
      title: text above.

    Raises:
      ValueError: shapes that do not agree.
      OSError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    coordinates = np.asarray(coordinates, np.float64)
    if len(names) == 0 or coordinates.shape != (len(names), 2):
        raise ValueError(f"coordinates {coordinates.shape}, {len(names)} names: sizes do not agree")
    figure = Figure(figsize=(5.2, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(*coordinates.T, s=36, color="#1f77b4", zorder=3)
    axes.margins(0.18)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    _label(figure, axes, coordinates, names)
    figure.savefig(path)


def _label(figure: Any, axes: Any, coordinates: np.ndarray, names: Sequence[str]) -> None:
    """Writes names beside points, each where it covers other names and points, and leaves the picture, least."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured now stays
    pixels = axes.transData.transform(coordinates)
    point = figure.dpi / 72  # in pixels
    groups: list[list[int]] = []
    for index, place in enumerate(pixels):
        near = next((one for one in groups if np.hypot(*(pixels[one[0]] - place)) < _SAME * point), None)
        if near is None:
            groups.append([index])
        else:
            near.append(index)
    taken = [Bbox.from_bounds(*(place - 3 * point), 6 * point, 6 * point) for place in pixels]
    for group in groups:
        text = "\n".join(textwrap.wrap(", ".join(names[index] for index in group), 30, break_long_words=False))
        centre = coordinates[group].mean(0)
        label = axes.annotate(text, centre, xytext=(0, 0), textcoords="offset points", fontsize=8)
        found = []
        for x, y in _OFFSETS:
            side = {"ha": "left" if x > 0 else "right", "va": "bottom" if y > 0 else "top"}
            label.set(position=(x, y), **side)
            box = label.get_window_extent()
            outside = box.width * box.height - _overlap(box, figure.bbox)
            found.append((outside + sum(_overlap(box, other) for other in taken), (x, y), side, box))
        _, place, side, box = min(found, key=lambda one: one[0])  # of equally good ones the first, which is nearest
        label.set(position=place, **side)
        taken.append(box)
        if abs(place[0]) > _OFFSETS[0][0]:
            line = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0}
            axes.annotate("", centre, xytext=place, textcoords="offset points", arrowprops=line)


def _overlap(a: Any, b: Any) -> float:
    """Area that two boxes share."""
    return max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))


def trajectory(
    steps: np.ndarray,
    from_start: np.ndarray,
    to_end: np.ndarray,
    path: str | os.PathLike,
    *,
    score: np.ndarray | None = None,
    metric: str = "validation",
    title: str = "",
    unit: str = "distance",
) -> None:
    """Draws how far features go from where they started, and how near they come to where they end.

    Args:
      steps: (t,) of training.
      from_start: (t,) distances to the first features.
      to_end: (t,) distances to the last.
      path: picture to write; the suffix decides the kind.
      score: (t,) a figure of the same steps, NaN where there is none, on an axis of its own.
      metric: its name.
      title: text above.
      unit: text at the axis of distances.

    Raises:
      ValueError: lengths that do not agree, or fewer than two steps.
      OSError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = [np.asarray(one, np.float64) for one in (from_start, to_end)] + ([] if score is None else [score])
    if len(steps) < 2 or any(np.shape(one) != (len(steps),) for one in series):
        raise ValueError(f"{len(steps)} steps, values {[np.shape(one) for one in series]}: sizes do not agree")
    figure = Figure(figsize=(5.4, 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for values, label, colour in zip(series, ("from the start", "to the end"), ("#1f77b4", "#ff7f0e"), strict=False):
        axes.plot(steps, values, marker="o", markersize=3.5, linewidth=1.3, color=colour, label=label)
    axes.set_ylim(0, None)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    lines, labels = axes.get_legend_handles_labels()
    if score is not None:
        right = axes.twinx()
        right.plot(steps, score, marker="s", markersize=3, linewidth=1, linestyle="--", color="0.45", label=metric)
        right.set_ylabel(metric, fontsize=8)
        right.tick_params(labelsize=7)
        right.spines["top"].set_visible(False)
        more = right.get_legend_handles_labels()
        lines, labels = lines + more[0], labels + more[1]
    figure.legend(lines, labels, fontsize=7, frameon=False, loc="outside lower center", ncols=3)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines["top"].set_visible(False)
    if title:
        axes.set_title(title, fontsize=10)
    figure.savefig(path)

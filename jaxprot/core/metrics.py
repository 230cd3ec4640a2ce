"""Measures of agreement between numbers, coordinates and maps, and bootstrap intervals; the only ones in the house.

Those of numbers reduce the last axis, so a batch of resamples is one call. Where a measure is not defined (fewer than
two points, a constant input) it is NaN, never an exception.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Linear correlation of (..., n) with (..., n)."""
    x, y = _pair(x, y)
    if x.shape[-1] < 2:
        return _out(np.full(x.shape[:-1], np.nan))
    # A constant row stays exactly constant: its mean in floating point could differ from it by a rounding.
    flat = (x == x[..., :1]).all(-1) | (y == y[..., :1]).all(-1)
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Scaling first keeps the squares of very large or very small numbers in range.
        x = x / np.abs(x).max(-1, keepdims=True)
        y = y / np.abs(y).max(-1, keepdims=True)
        value = (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return _out(np.where(flat, np.nan, np.clip(value, -1, 1)))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Rank correlation of (..., n) with (..., n); ties share their mean rank."""
    x, y = _pair(x, y)
    undefined = np.isnan(x).any(-1) | np.isnan(y).any(-1)
    return _out(np.where(undefined, np.nan, pearson(rank(x), rank(y))))


def rank(x: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis of (..., n); ties share their mean rank."""
    x = np.asarray(x, float)
    n = x.shape[-1]
    if n == 0:
        return x.copy()
    rows = x.reshape(-1, n)
    order = np.argsort(rows, axis=-1, kind="stable")
    ordered = np.take_along_axis(rows, order, -1)
    start = np.ones(rows.shape, bool)
    start[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    index = np.arange(n)
    first = np.maximum.accumulate(np.where(start, index, 0), -1)
    # Last member of a tie: one before the next start, read from the right.
    after = np.concatenate([start[:, 1:], np.ones((len(rows), 1), bool)], -1)
    last = np.minimum.accumulate(np.where(after, index, n)[:, ::-1], -1)[:, ::-1]
    out = np.empty(rows.shape)
    np.put_along_axis(out, order, (first + last) / 2 + 1, -1)
    return out.reshape(x.shape)


def rmse(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Root of the mean squared difference of (..., n) and (..., n), in their unit."""
    x, y = _pair(x, y)
    return _mean((x - y) ** 2, np.sqrt)


def mae(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Mean absolute difference of (..., n) and (..., n), in their unit."""
    x, y = _pair(x, y)
    return _mean(np.abs(x - y))


def r2(prediction: np.ndarray, target: np.ndarray) -> np.ndarray | float:
    """Coefficient of determination 1 - SS_residual / SS_total of (..., n); below 0 for worse than the mean."""
    prediction, target = _pair(prediction, target)
    if prediction.shape[-1] < 2:
        return _out(np.full(prediction.shape[:-1], np.nan))
    flat = (target == target[..., :1]).all(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = ((target - target.mean(-1, keepdims=True)) ** 2).sum(-1)
        value = 1 - ((prediction - target) ** 2).sum(-1) / total
    return _out(np.where(flat, np.nan, value))


def auroc(score: np.ndarray, label: np.ndarray) -> np.ndarray | float:
    """Area under the ROC curve: chance that a positive scores above a negative, ties counting half.

    Args:
      score: (..., n) numbers, higher for positives.
      label: (..., n) true or false.
    """
    score, label = np.broadcast_arrays(np.asarray(score, float), np.asarray(label, bool))
    positives = label.sum(-1)
    negatives = label.shape[-1] - positives
    with np.errstate(invalid="ignore", divide="ignore"):
        above = np.where(label, rank(score), 0).sum(-1) - positives * (positives + 1) / 2
        return _out(np.where((positives > 0) & (negatives > 0), above / (positives * negatives), np.nan))


def nmse(reference: np.ndarray, other: np.ndarray) -> np.ndarray | float:
    """Squared difference of (..., n) and (..., n) by the squares of the reference; 0 for equal ones.

    Of two maps: `nmse(a.ravel(), b.ravel())`.
    """
    reference, other = _pair(reference, other)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = ((reference - other) ** 2).sum(-1) / (reference**2).sum(-1)
    return _out(np.where((reference != 0).any(-1), value, np.nan))


def mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray | float:
    """Mean distance of points (..., n, 3) from their partners, in their unit and without superposition.

    What cryoSTAR's code calls the RMSE of alpha carbons; no root of a mean square.
    """
    return _mean(_distances(a, b))


def share_within(a: np.ndarray, b: np.ndarray, cutoff: float = 3.0) -> np.ndarray | float:
    """Share of the points (..., n, 3) that lie closer than `cutoff` to their partners, without superposition."""
    return _mean(_distances(a, b) < cutoff)


class ShellCorrelation(NamedTuple):
    """Correlation of two maps by shells of spatial frequency.

    Attributes:
      frequency: (k,) 1/Å (1/voxel for voxels of 1).
      correlation: (k,) Fourier shell correlation; NaN where one of the maps has nothing.
    """

    frequency: np.ndarray
    correlation: np.ndarray


def fsc(
    first: np.ndarray, second: np.ndarray, voxel: float | np.ndarray = 1.0, *, published: bool = False
) -> ShellCorrelation:
    """Fourier shell correlation of two maps on one grid.

    Shells are as thick as the steps of the longest axis' frequencies. By default shell r holds the frequencies nearest
    to r steps, up to the Nyquist frequency. Between a map and the density of a model this is the map-model FSC.

    Args:
      first: (z, y, x) densities.
      second: the same shape.
      voxel: Å, one or one per x, y, z.
      published: shells as in cryoSTAR's code: shell r begins at r steps instead of half a step below, the last one is
        that before Nyquist and holds everything beyond, the corners too.

    Raises:
      ValueError: shapes that differ or are not three-dimensional.
    """
    from scipy import fft  # keeps float32 maps in single precision, which halves the memory

    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 3 or 0 in first.shape:
        raise ValueError(f"maps of shapes {first.shape} and {second.shape}; expected one shape (z, y, x)")
    edges = np.broadcast_to(np.asarray(voxel, np.float64), (3,))[::-1]
    shape = first.shape
    step = 1 / (np.array(shape) * edges).max()
    lines = [fft.fftfreq(n, edge) for n, edge in zip(shape[:2], edges[:2], strict=True)]
    lines.append(fft.rfftfreq(shape[2], edges[2]))
    squares = sum(np.square(part / step) for part in np.meshgrid(*lines, indexing="ij", sparse=True))
    # Rounding of the frequencies must not decide about shells that begin at whole numbers.
    shell = np.floor(np.sqrt(squares) + (1e-9 if published else 0.5)).astype(np.int64)
    last = int(1 / (2 * edges.min() * step) + 1e-6)
    if published:
        last -= 1
        shell = np.minimum(shell, last)
    # Half of the transform of a real map says it all: its inner columns stand for two.
    weight = np.full(shell.shape[2], 2.0)
    weight[0] = 1
    if shape[2] % 2 == 0:
        weight[-1] = 1

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell.ravel(), (values * weight).ravel(), last + 1)[: last + 1]

    one, other = (fft.rfftn(x if x.dtype.kind == "f" else x.astype(np.float64)) for x in (first, second))
    product = total(one.real * other.real + one.imag * other.imag)
    norm = np.sqrt(total(np.abs(one) ** 2) * total(np.abs(other) ** 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = np.where(norm > 0, product / norm, np.nan)
    return ShellCorrelation(np.arange(last + 1) * step, curve)


def resolution(curve: ShellCorrelation, threshold: float = 0.143, *, published: bool = False) -> float:
    """Resolution at which a shell correlation falls below a threshold.

    Args:
      curve: of `fsc`.
      threshold: 0.143 between half maps, 0.5 between a map and a model.
      published: cryoSTAR's rule: of a line through the shells in steps of 0.001 per voxel, the first point within 0.01
        of the threshold, else the nearest one. The frequencies must be per voxel (`voxel=1`), with `published` shells.

    Returns:
      Å (voxels for voxels of 1), where the line through the shells first crosses the threshold. The last frequency
      where it never does, infinity where the first shell beyond the mean lies below.
    """
    frequency, values = curve
    if published:
        line = np.arange(0, frequency[-1], 0.001)
        distance = np.abs(np.interp(line, frequency, values) - threshold)
        near = np.flatnonzero(distance < 0.01)
        place = line[near[0] if len(near) else np.argmin(distance)]
        return float(1 / place) if place > 0 else float("inf")
    below = np.flatnonzero(~(values[1:] >= threshold)) + 1  # shell 0 is the mean alone, which may be subtracted
    if len(values) < 2 or (len(below) and below[0] == 1):
        return float("inf")
    if len(below) == 0:
        return float(1 / frequency[-1])
    end = below[0]
    high, low = values[end - 1], values[end]
    share = (high - threshold) / (high - low) if np.isfinite(low) else 0.0
    return float(1 / (frequency[end - 1] + share * (frequency[end] - frequency[end - 1])))


def bootstrap_interval(
    metric: Metric,
    x: np.ndarray,
    y: np.ndarray,
    n: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a metric over resampled pairs.

    Args:
      metric: a function of two (..., n) arrays that reduces the last axis, such as those of this module; another
        function of two vectors is called once per resample.
      x: (N,) first argument.
      y: (N,) second argument.
      n: resamples.
      seed: of the resampling.
      groups: (N,) labels; whole groups (proteins) are drawn instead of single pairs, since mutations of one protein
        are no independent observations.
      level: coverage.

    Returns:
      Lower and upper end; NaN where the metric is not defined.

    Raises:
      ValueError: arrays of different lengths, or n < 1.
    """
    x, y = _pair(np.ravel(x), np.ravel(y))
    if n < 1:
        raise ValueError(f"bootstrap_interval needs at least one resample, got {n}")
    if len(x) == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    if groups is not None:
        values = list(_grouped(metric, x, y, n, rng, np.ravel(groups)))
    else:
        batched = metric in _BATCHED
        rows = max(1, min(n, 2_000_000 // len(x))) if batched else 1
        values = []
        for start in range(0, n, rows):
            pick = rng.integers(0, len(x), (min(rows, n - start), len(x)))
            values.extend(np.atleast_1d(metric(x[pick], y[pick]) if batched else metric(x[pick[0]], y[pick[0]])))
    values = np.array(values, float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


_BATCHED = (pearson, spearman, rmse, mae, r2, auroc)


def _grouped(metric: Metric, x: np.ndarray, y: np.ndarray, n: int, rng: np.random.Generator, groups: np.ndarray):
    if len(groups) != len(x):
        raise ValueError(f"{len(groups)} group labels for {len(x)} pairs")
    labels, of = np.unique(groups, return_inverse=True)
    rows = np.arange(len(x))
    for _ in range(n):
        drawn = np.bincount(rng.integers(0, len(labels), len(labels)), minlength=len(labels))
        pick = np.repeat(rows, drawn[of.reshape(-1)])
        yield metric(x[pick], y[pick])


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape[-1:] != y.shape[-1:]:
        raise ValueError(f"arrays of {x.shape} and {y.shape} cannot be compared: last axes differ")
    x, y = np.broadcast_arrays(x, y)
    return x, y


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape[-2:] != b.shape[-2:] or a.shape[-1:] != (3,):
        raise ValueError(f"points of shapes {a.shape} and {b.shape}; expected (..., n, 3) of as many points")
    return np.linalg.norm(a - b, axis=-1)


def _mean(values: np.ndarray, then: Callable = lambda value: value) -> np.ndarray | float:
    if values.shape[-1] == 0:
        return _out(np.full(values.shape[:-1], np.nan))
    return _out(then(values.mean(-1)))


def _out(value: np.ndarray) -> np.ndarray | float:
    return float(value) if np.ndim(value) == 0 else value

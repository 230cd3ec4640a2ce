"""Whether distances predict transfer, beside the scores that are usual for that."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.ot import transferability
from jaxprot.ot.matrix import TransferMatrix, transfer_matrix
from jaxprot.ot.pairs import Settings
from jaxprot.ot.tasks import Task

SCORES = ("logme", "leep", "nce", "hscore", "transrate")
_OF_FEATURES = ("logme", "hscore", "transrate")
_EXPECTED = {"distance": -1} | dict.fromkeys(SCORES, 1)  # sign of the correlation with gain
_MOST = 5040  # relabelings that are all tried; of more, a random 10,000


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Of a predictor with measured gains.

    Attributes:
      name: of the predictor.
      expected: sign that a good predictor has: -1 for a distance, 1 for a score.
      n: pairs.
      spearman: rank correlation, NaN where it is not defined.
      low: lower end of its 95 % interval, whole targets resampled.
      high: upper end.
      pearson: linear correlation.
      p: two-sided, of the rank correlation under relabeling of the tasks (Mantel, Cancer Research 1967).
    """

    name: str
    expected: int
    n: int
    spearman: float
    low: float
    high: float
    pearson: float
    p: float


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """Distances, scores, and gains of every ordered pair of tasks.

    Attributes:
      matrix: the distances.
      source: (k,) names.
      target: (k,) names.
      values: `distance` and the scores -> (k,); NaN where a score is not defined.
      gain: (k,) measured, NaN where not.
      correlations: of each predictor with the gains; empty without gains.
    """

    matrix: TransferMatrix
    source: tuple[str, ...]
    target: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    gain: np.ndarray
    correlations: tuple[Correlation, ...]

    def recommendations(self) -> dict[str, list[str]]:
        """Target -> sources, the nearest first."""
        return {name: [source for source, _ in self.matrix.nearest(name)] for name in self.matrix.names}

    def ranked(self, target: str, by: str = "distance") -> dict[str, np.ndarray]:
        """Sources for a target, the most promising first, with all that is known of each.

        Args:
          target: name of a task.
          by: `distance`, the least first, or one of `SCORES`, the greatest first.

        Returns:
          Columns rank, source, distance, low, high (the 95 % interval of the distance), the scores, and gain.

        Raises:
          InputError: no such task or predictor, one that is not known of every source, or a score of features that is
            the same for every source, as it is where the target's file holds no features of the sources' models.
            Sources at one distance, or with one LEEP or NCE, keep the order of the tasks.
        """
        names = self.matrix.names
        if target not in names:
            raise InputError(f"no task {target}; there are {', '.join(names)}")
        if by not in self.values:
            raise InputError(f"no predictor {by}; there are {', '.join(self.values)}")
        rows = np.array([i for i, name in enumerate(self.target) if name == target])
        value = np.asarray(self.values[by])[rows]
        if not np.isfinite(value).all() or (by in _OF_FEATURES and len(rows) > 1 and np.ptp(value) == 0):
            raise InputError(
                f"{by} tells no source for {target} from another; rank by distance, leep or nce, or give the target's "
                "file an array features_from/SOURCE for each source"
            )
        rows = rows[np.argsort(value if _EXPECTED.get(by, 1) < 0 else -value, kind="stable")]
        places = [names.index(self.source[i]) for i in rows], names.index(target)
        return {
            "rank": np.arange(1, len(rows) + 1),
            "source": np.array([self.source[i] for i in rows], object),
            "distance": self.values["distance"][rows],
            "low": self.matrix.low[places],
            "high": self.matrix.high[places],
            **{name: self.values[name][rows] for name in self.values if name != "distance"},
            "gain": self.gain[rows],
        }

    @property
    def best_predictor(self) -> str | None:
        """The predictor that agrees best with the gains; None without gains, or where none agrees at all."""
        known = [one for one in self.correlations if one.expected * one.spearman > 0]
        return max(known, key=lambda one: one.expected * one.spearman).name if known else None

    def table(self) -> dict[str, np.ndarray]:
        """Columns of the pairs."""
        names = {"source": np.array(self.source, object), "target": np.array(self.target, object)}
        return {**names, **self.values, "gain": self.gain}

    def summary(self) -> dict[str, Any]:
        """What report.json holds."""
        floors = self.matrix.floors
        return {
            "tasks": list(self.matrix.names),
            "settings": dataclasses.asdict(self.matrix.settings),
            "converged": self.matrix.converged,
            "correlations": {one.name: dataclasses.asdict(one) for one in self.correlations},
            "best_predictor": self.best_predictor,
            "recommendations": self.recommendations(),
            "samples": dict(zip(self.matrix.names, self.matrix.samples, strict=False)),
            # Of each task's samples two halves: what nothing looks like at half of them.
            "floors": dict(zip(self.matrix.names, () if floors is None else floors, strict=False)),
            "distances": {
                f"{pair.first}, {pair.second}": {"distance": pair.distance, "low": pair.low, "high": pair.high}
                for pair in self.matrix.pairs
            },
        }

    def write(self, folder: str | os.PathLike, format: str = "csv") -> list[str]:  # noqa: A002
        """Writes report.json, and the pairs as a table."""
        from jaxprot.io.outputs import write_json
        from jaxprot.io.tables import write_table

        folder = Path(folder)
        write_json(folder / "report.json", self.summary())
        return ["report.json", write_table(self.table(), folder / "report", format).name]


def scores(source: Task, target: Task, *, bins: int = 10) -> dict[str, float]:
    """LogME, LEEP, NCE, H-score and TransRate of a source for a target.

    Features of the target's samples are those of the source's model where the target holds them (`features_from`), else
    its own, which makes three of the scores those of the target alone. What the source's model says of these samples
    is `probabilities_from`, else that of a linear discriminant trained on the source's features.

    Raises:
      InputError: no labels, one class only, or features of different widths without `probabilities_from`.
    """
    features = target.features_from.get(source.name, target.features)
    return {**_of_features(features, target, bins), **_of_source(source, target, bins)}


def _of_features(features: np.ndarray, target: Task, bins: int) -> dict[str, float]:
    codes, _ = target.classes(bins)
    numbers = target.kind == "numbers"
    return {
        "logme": transferability.logme(features, target.labels if numbers else codes, regression=numbers),
        "hscore": transferability.hscore(features, codes),
        "transrate": transferability.transrate(features, codes),
    }


def _of_source(source: Task, target: Task, bins: int, model: Any = None) -> dict[str, float]:
    codes, _ = target.classes(bins)
    if source.name in target.probabilities_from:
        probabilities = np.asarray(target.probabilities_from[source.name], np.float64)
    else:
        widths = source.features.shape[1], target.features.shape[1]
        if widths[0] != widths[1]:
            raise InputError(f"{source.told}, {target.told}: features of different widths {widths}; use one embedder")
        if model is None:
            model = transferability.discriminant(source.features, source.classes(bins)[0])
        probabilities = model(target.features)
    return {
        "leep": transferability.leep(probabilities, codes),
        "nce": transferability.nce(probabilities.argmax(1), codes),
    }


def transfer_report(
    tasks: Sequence[Task],
    gains: Mapping[tuple[str, str], float] | None = None,
    settings: Settings | None = None,
    *,
    progress: Any = None,
    floors: bool = False,
    **options: Any,
) -> TransferReport:
    """Distances and scores of every ordered pair of tasks, and how they agree with measured gains.

    Both take the same samples, of each task as many as the smallest has (`Settings.equal`).

    Args:
      tasks: to compare; scores need labels of two or more classes of all of them, and are NaN without.
      gains: (source, target) -> metric of the target after transfer less that from scratch.
      settings: of the distances.
      progress: called with (pairs of the matrix done, pairs).
      floors: see `transfer_matrix`.
      **options: fields of `Settings` to change.

    Raises:
      InputError: gains of unknown tasks, of a task with itself, or not finite; tasks that cannot be compared.
    """
    gains = dict(gains or {})
    names = [task.name for task in tasks]
    unknown = sorted({name for pair in gains for name in pair} - set(names))
    if unknown:
        raise InputError(f"gains of unknown tasks {', '.join(unknown)}; there are {', '.join(names)}")
    wrong = [f"{s} to {t}" for (s, t), gain in gains.items() if s == t or not math.isfinite(gain)]
    if wrong:
        raise InputError(f"gains of {', '.join(wrong[:5])}: a pair has two different tasks and a finite gain")
    matrix = transfer_matrix(tasks, settings, progress=progress, floors=floors, **options)
    settings = matrix.settings
    sampled = settings.sample(tasks)
    t = len(tasks)
    values = {name: np.full((t, t), np.nan) for name in ("distance", *SCORES)}
    values["distance"] = matrix.distances
    if all(task.varied for task in sampled):
        _fill(values, sampled, settings.bins)
    pairs = [(i, j) for i in range(t) for j in range(t) if i != j]
    gain = np.array([gains.get((names[i], names[j]), np.nan) for i, j in pairs])
    correlations = ()
    if gains:
        measured = [pair for pair, number in zip(pairs, gain, strict=True) if np.isfinite(number)]
        known = gain[np.isfinite(gain)]
        correlations = tuple(correlate(name, value, measured, known, settings.seed) for name, value in values.items())
    return TransferReport(
        matrix,
        tuple(names[i] for i, _ in pairs),
        tuple(names[j] for _, j in pairs),
        {name: np.array([value[pair] for pair in pairs]) for name, value in values.items()},
        gain,
        correlations,
    )


def _fill(values: dict[str, np.ndarray], tasks: Sequence[Task], bins: int) -> None:
    """Scores of all pairs; what depends on one task alone is computed once."""
    models = [transferability.discriminant(task.features, task.classes(bins)[0]) for task in tasks]
    for j, target in enumerate(tasks):
        own = None
        for i, source in enumerate(tasks):
            if i == j:
                continue
            if source.name in target.features_from:
                found = _of_features(target.features_from[source.name], target, bins)
            else:
                found = own = own or _of_features(target.features, target, bins)
            for name, number in {**found, **_of_source(source, target, bins, models[i])}.items():
                values[name][i, j] = number


def correlate(
    name: str, values: np.ndarray, pairs: Sequence[tuple[int, int]], gains: np.ndarray, seed: int = 0
) -> Correlation:
    """Correlation of a predictor with gains.

    Pairs share tasks and are no independent observations: for the p-value the tasks of the predictor are relabeled, and
    for the interval whole targets are drawn.

    Args:
      name: of the predictor.
      values: (t, t) predictor from source (row) to target (column); the diagonal is not used.
      pairs: (source, target) places that have a gain.
      gains: (k,) of these pairs.
      seed: of the resampling.
    """
    t = len(values)
    rows, columns = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    own, gains = values[rows, columns], np.asarray(gains, float)
    spearman = float(metrics.spearman(own, gains))
    if not np.isfinite(spearman):
        return Correlation(name, _EXPECTED.get(name, 1), len(gains), *([float("nan")] * 5))
    if math.factorial(t) <= _MOST:
        orders = np.array(list(itertools.permutations(range(t))))
    else:
        rng = np.random.default_rng(seed)
        # The true labels are one of them, so that p is never 0.
        orders = np.concatenate([np.arange(t)[None], np.argsort(rng.random((9999, t)), axis=1)])
    others = metrics.spearman(values[orders[:, rows], orders[:, columns]], gains[None])
    p = float((np.abs(np.nan_to_num(others)) >= abs(spearman) - 1e-12).mean())
    low, high = metrics.bootstrap_interval(metrics.spearman, own, gains, seed=seed, groups=columns)
    pearson = float(metrics.pearson(own, gains))
    return Correlation(name, _EXPECTED.get(name, 1), len(gains), spearman, low, high, pearson, p)

"""Distances between all of some tasks, what they say of transfer, and the way of features during training."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.ot.pairs import Distance, Problems, Settings, change
from jaxprot.ot.tasks import Task

_log = logging.getLogger(__name__)
FEW = 50
"""Samples of a task below which distances are too noisy to rank by."""


@dataclasses.dataclass(frozen=True)
class TransferMatrix:
    """Distances between tasks.

    Samples of one distribution are some way apart, too (`Distance`): compare distances with the floors, and do not take
    an interval for what covers 0.

    Attributes:
      names: t tasks.
      distances: (t, t) symmetric, 0 on the diagonal; squared unit of the features.
      low: (t, t) lower ends of the 95 % intervals (the variance of the samples alone), NaN without.
      high: (t, t) upper ends.
      pairs: the distances above the diagonal with how they were found.
      settings: how.
      samples: of each task that were compared; empty if not known.
      floors: (t,) distance between two random halves of each task's samples, NaN where it is not defined; None if not
        asked for. That of all samples would be smaller.
    """

    names: tuple[str, ...]
    distances: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pairs: tuple[Distance, ...]
    settings: Settings
    samples: tuple[int, ...] = ()
    floors: np.ndarray | None = None

    @property
    def converged(self) -> bool:
        """Whether every problem is solved."""
        return all(pair.converged for pair in self.pairs)

    def nearest(self, target: str) -> list[tuple[str, float]]:
        """Source tasks for a target, the most promising (nearest) first, with their distances.

        Raises:
          InputError: no such task.
        """
        if target not in self.names:
            raise InputError(f"no task {target}; there are {', '.join(self.names)}")
        row = self.distances[self.names.index(target)]
        order = [i for i in np.argsort(row, kind="stable") if self.names[i] != target]
        return [(self.names[i], float(row[i])) for i in order]

    def linkage(self) -> np.ndarray:
        """(t - 1, 4) average linkage of the root distances, in the layout of scipy; empty for fewer than two tasks."""
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import squareform

        if len(self.names) < 2:
            return np.zeros((0, 4))
        roots = np.sqrt(np.maximum(self.distances, 0))
        return linkage(squareform(roots, checks=False), "average")

    def coordinates(self) -> np.ndarray:
        """(t, 2) a map of the tasks by classical scaling (Torgerson, 1952), with distances near their roots."""
        t = len(self.names)
        centre = np.eye(t) - 1 / t
        values, vectors = np.linalg.eigh(-0.5 * centre @ self.distances @ centre)
        out = np.zeros((t, 2))
        kept = min(2, t)
        out[:, :kept] = vectors[:, ::-1][:, :kept] * np.sqrt(np.maximum(values[::-1][:kept], 0))
        # The sign of an eigenvector is arbitrary; the largest entry is made positive.
        largest = out[np.abs(out).argmax(0), np.arange(2)]
        return out * np.where(largest < 0, -1, 1)

    def table(self) -> dict[str, np.ndarray]:
        """Columns of the pairs."""
        pairs = self.pairs
        return {
            "task1": np.array([pair.first for pair in pairs], object),
            "task2": np.array([pair.second for pair in pairs], object),
            "distance": np.array([pair.distance for pair in pairs]),
            "sqrt_distance": np.array([pair.sqrt_distance for pair in pairs]),
            "low": np.array([pair.low for pair in pairs]),
            "high": np.array([pair.high for pair in pairs]),
            "eps": np.array([pair.eps for pair in pairs]),
            "marginal_error": np.array([pair.error for pair in pairs]),
            "converged": np.array([pair.converged for pair in pairs]),
        }

    def floor_table(self) -> dict[str, np.ndarray]:
        """Columns of the floors; of no rows if they were not asked for."""
        floors = np.zeros(0) if self.floors is None else self.floors
        return {
            "task": np.array(self.names[: len(floors)], object),
            "half": np.array([count // 2 for count in self.samples[: len(floors)]], int),
            "distance": floors,
            "sqrt_distance": np.sqrt(np.maximum(floors, 0)),
        }

    def write(self, folder: str | os.PathLike, format: str = "csv") -> list[str]:  # noqa: A002
        """Writes distances, floors if they are there, matrix.png (with a tree of the tasks) and map.png.

        Returns:
          Names of the files.
        """
        from jaxprot.io.outputs import atomic_path
        from jaxprot.io.tables import write_table
        from jaxprot.plots import transfer

        folder = Path(folder)
        written = [write_table(self.table(), folder / "distances", format).name]
        if self.floors is not None:
            written.append(write_table(self.floor_table(), folder / "floors", format).name)
        what = "OTDD" if self.settings.method == "otdd" else "transport distance of features"
        roots, unit = np.sqrt(np.maximum(self.distances, 0)), f"root of {what}"
        with atomic_path(folder / "matrix.png") as temporary:
            transfer.matrix(roots, self.names, temporary, linkage=self.linkage(), unit=unit)
        with atomic_path(folder / "map.png") as temporary:
            transfer.task_map(self.coordinates(), self.names, temporary, title=what)
        return [*written, "matrix.png", "map.png"]


def transfer_matrix(
    tasks: Sequence[Task],
    settings: Settings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    floors: bool = False,
    **options: Any,
) -> TransferMatrix:
    """Distances between all of some tasks, at as many samples of each as the smallest has (`Settings.equal`).

    One eps, a share of the mean cost over all pairs, serves the whole matrix, so that its entries are comparable and
    each task is solved with itself only once. Preprocessing is that of all tasks together.

    Args:
      tasks: at least two, of different names and features of one width.
      settings: how; the defaults if not given.
      progress: called with (pairs done, pairs).
      floors: also the distance between two halves of each task; at most the time of as many distances.
      **options: fields of `Settings` to change.

    Raises:
      InputError: tasks that cannot be compared, or an unknown option.
    """
    settings = change(settings, **options)
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(tasks) < 2 or twice:
        told = f"{', '.join(twice)} occurs twice" if twice else f"{len(tasks)} given"
        raise InputError(f"a matrix needs two or more tasks of different names; {told}")
    _warn_of_few(tasks, settings)
    problems = Problems(tasks, settings)
    places = [(i, j) for i in range(len(tasks)) for j in range(i + 1, len(tasks))]
    eps = None if settings.value == "exact" else problems.eps(places)
    pairs = []
    for done, (i, j) in enumerate(places, 1):
        pairs.append(problems.distance(i, j, eps))
        if progress is not None:
            progress(done, len(places))
    arrays = [np.zeros((len(tasks), len(tasks))) for _ in range(3)]
    for (i, j), pair in zip(places, pairs, strict=True):
        for array, number in zip(arrays, (pair.distance, pair.low, pair.high), strict=True):
            array[i, j] = array[j, i] = number
    return TransferMatrix(
        tuple(names),
        *arrays,
        tuple(pairs),
        settings,
        tuple(len(task) for task in problems.tasks),
        np.array([problems.floor(i, eps) for i in range(len(tasks))]) if floors else None,
    )


def _warn_of_few(tasks: Sequence[Task], settings: Settings) -> None:
    smallest = min(tasks, key=len)
    if len(smallest) < FEW:
        of = f", at which all {len(tasks)} tasks are compared" if settings.equal else ""
        _log.warning(
            "%s has %d samples only%s: distances of so few are noisy; give it at least %d, or leave it out",
            *(smallest.told, len(smallest), of, FEW),
        )


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """How far features have gone during training.

    Attributes:
      steps: (t,) numbers of the snapshots.
      from_start: (t,) distance to the first snapshot.
      to_end: (t,) distance to the last.
      converged: whether every problem is solved.
    """

    steps: np.ndarray
    from_start: np.ndarray
    to_end: np.ndarray
    converged: bool

    def table(self) -> dict[str, np.ndarray]:
        """Columns of the snapshots."""
        return {"step": self.steps, "from_start": self.from_start, "to_end": self.to_end}


def trajectory(
    snapshots: Sequence[np.ndarray],
    labels: np.ndarray | None = None,
    *,
    steps: Sequence[int] | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Trajectory:
    """Distances of features along training, of the same samples at every step.

    Args:
      snapshots: t arrays (n, d), the same samples in the same order.
      labels: (n,); without them features alone are compared.
      steps: numbers of the snapshots; 0, 1, ... if not given.
      settings: how; the defaults if not given.
      **options: fields of `Settings` to change.

    Raises:
      InputError: snapshots of different shapes, or fewer than two.
    """
    shapes = {np.shape(snapshot) for snapshot in snapshots}
    if len(snapshots) < 2 or len(shapes) > 1:
        raise InputError(
            f"a trajectory needs two or more snapshots of one shape; got {len(snapshots)} of {sorted(shapes)}"
        )
    numbers = np.arange(len(snapshots)) if steps is None else np.asarray(steps)
    if numbers.shape != (len(snapshots),):
        raise InputError(f"{numbers.size} steps for {len(snapshots)} snapshots")
    if labels is None:
        options.setdefault("method", "features")
    options.setdefault("resamples", 0)
    problems = Problems(
        [Task(f"step {step}", snapshot, labels) for step, snapshot in zip(numbers, snapshots, strict=True)],
        change(settings, **options),
    )
    last = len(snapshots) - 1
    exact = problems.settings.value == "exact"
    eps = None if exact else problems.eps([(i, end) for i in range(last + 1) for end in (0, last)])
    rows = [[problems.distance(i, end, eps) for i in range(last + 1)] for end in (0, last)]
    values = np.array([[one.distance for one in row] for row in rows])
    return Trajectory(numbers, *values, all(one.converged for row in rows for one in row))

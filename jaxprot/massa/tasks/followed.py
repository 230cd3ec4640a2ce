"""The way of features during fine-tuning: vectors of the same proteins at every evaluation, and their distances."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.io.outputs import atomic_path
from jaxprot.massa.tasks.finetune import FinetuneTask, TaskNetwork

_NAME = re.compile(r"step_(\d+)\.npz")


@functools.partial(jax.jit, static_argnums=0)
def _vectors(graphdef: Any, variables: Any, seq: Any, mask: Any) -> Any:
    return nnx.merge(graphdef, variables).vectors(seq, mask)


class Followed:
    """A task whose network shows the same proteins at the start and at every evaluation.

    It is a task of the engine like the one that it follows. Vectors are means with the published weights of residues,
    by the averaged weights that are evaluated; `record` writes the newest ones, so that an interrupted run keeps what
    it has shown.

    Args:
      task: to follow.
      count: proteins at most, evenly spread over the validation part (the training part, where there is none).
      folder: for `step_000000.npz` and so on: features (n, c), and labels (n,) where proteins have one.

    Raises:
      InputError: fewer than two proteins.
    """

    def __init__(self, task: FinetuneTask, count: int, folder: str | os.PathLike):
        rows = task.data.part("valid")
        rows = rows if len(rows) else task.data.part("train")
        if min(count, len(rows)) < 2:
            raise InputError(f"{min(count, len(rows))} proteins to follow; at least 2 have a distance")
        self.task, self.folder = task, Path(folder)
        self.shown = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]
        self._latest: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # not yet there while a copy is made
            raise AttributeError(name)
        return getattr(self.task, name)

    def build(self, key: PRNGKeyArray) -> TaskNetwork:
        """The network, which shows itself for the first time."""
        net = self.task.build(key)
        graphdef, state = nnx.split(net)
        self._show(graphdef, nnx.to_pure_dict(state))
        if not self._file(0).is_file():  # of a run that goes on the start is known
            self._write(0)
        return net

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Figures of the task; on the way the proteins are shown."""
        evaluate = self.task.evaluator(graphdef)

        def both(variables: Any) -> dict[str, float]:
            self._show(graphdef, variables)
            return evaluate(variables)

        return both

    def record(self, metrics: dict[str, Any]) -> None:
        """Writes what was shown last, if these are the figures of an evaluation."""
        if "val_score" in metrics:
            self._write(int(metrics["step"]))

    def snapshots(self, last: int) -> tuple[list[int], list[np.ndarray]]:
        """Steps up to the last, and vectors (n, c) at each."""
        found = {int(match[1]): path for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))}
        steps = sorted(step for step in found if step <= last)
        out = []
        for step in steps:
            with np.load(found[step], allow_pickle=False) as stored:
                out.append(stored["features"])
        return steps, out

    def _show(self, graphdef: Any, variables: Any) -> None:
        self._latest = np.stack(self.task.run(functools.partial(_vectors, graphdef, variables), self.shown))

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}.npz"

    def _write(self, step: int) -> None:
        if self._latest is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        labels = self.task.data.labels
        more = {} if isinstance(labels, list) else {"labels": labels[self.shown]}
        with atomic_path(self._file(step)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, features=self._latest, **more)

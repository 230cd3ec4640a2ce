"""Predictions of networks that were trained on a task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxprot.core.buckets import pad_to
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import PhysicoChemical, check_letters
from jaxprot.massa.tasks import saved
from jaxprot.massa.tasks.cnn import CNNConfig
from jaxprot.massa.tasks.finetune import FinetuneTask, TaskNetwork, _padded
from jaxprot.weights import module

_ITEMS = 8192  # padded residues at once
_CONFIGS = {"massa": MASSAConfig, "cnn": CNNConfig}


class TaskPredictor:
    """A network with its weights and what its outputs mean.

    Args:
      module: the network.
      task: of the weights' header: kind, classes, class_names, scale and longest.

    Attributes:
      kind: of the task.
      class_names: texts of the classes; empty where classes are numbers.
    """

    def __init__(self, module: TaskNetwork, task: dict[str, Any]):
        self.module, self.task = module, task
        self.kind, self.class_names = task["kind"], tuple(task.get("class_names", ()))
        graphdef, leaves = nnx.split(module)
        wide = isinstance(module.cfg, MASSAConfig)
        self._channels = PhysicoChemical.dim if wide else module.cfg.inputs
        apply = lambda leaves, seq, mask: nnx.merge(graphdef, leaves)(seq, mask)  # noqa: E731
        vectors = lambda leaves, seq, mask: nnx.merge(graphdef, leaves).vectors(seq, mask)  # noqa: E731
        residues = lambda leaves, seq, mask: nnx.merge(graphdef, leaves).features(seq, mask)  # noqa: E731
        self._leaves, self._apply, self._vectors = leaves, jax.jit(apply), jax.jit(vectors)
        self._residues = jax.jit(residues)

    def predict(self, sequences: Sequence[str]) -> list[Any]:
        """Of each sequence a number, a class, or (L,) classes of residues; sequences are cut as in training.

        Raises:
          InputError: a letter that stands for no residue.
        """
        outputs = self._run(self._apply, sequences)
        if self.kind == "residue_classes":
            return [one[: len(text)].argmax(-1) for one, text in zip(outputs, sequences, strict=True)]
        if self.kind == "classes":
            return [int(one.argmax(-1)) for one in outputs]
        mean, deviation = self.task["scale"]
        return [float(one[0]) * deviation + mean for one in outputs]

    def vectors(self, sequences: Sequence[str]) -> np.ndarray:
        """(n, c) vectors that the head reads: features for distances between tasks."""
        return np.stack(self._run(self._vectors, sequences))

    def residues(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """(L, c) features of residues, which the head of a residue task reads; sequences are cut as in training."""
        found = self._run(self._residues, sequences)
        return [one[: min(len(text), self.task["longest"])] for one, text in zip(found, sequences, strict=True)]

    def _run(self, function: Any, sequences: Sequence[str]) -> list[np.ndarray]:
        texts = [check_letters(s, f"sequence {i}")[: self.task["longest"]] for i, s in enumerate(sequences, 1)]
        sizes = np.array([_padded(len(text)) for text in texts])
        out: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            count = max(1, min(64, _ITEMS // int(size)))
            for start in range(0, len(rows), count):
                part = np.resize(rows[start : start + count], count)
                found = PhysicoChemical().embed([texts[row] for row in part])
                seq = np.stack([pad_to(one[:, : self._channels], int(size)) for one in found])
                mask = np.stack([pad_to(np.ones(len(one), bool), int(size)) for one in found])
                for row, one in zip(
                    rows[start : start + count], np.asarray(function(self._leaves, seq, mask)), strict=False
                ):
                    out[row] = one
        return out


def evaluate(predictor: TaskPredictor, task: FinetuneTask) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels of the validation and test parts of a task, as far as there are such."""
    graphdef, leaves = nnx.split(predictor.module)
    apply = jax.jit(lambda leaves, seq, mask: nnx.merge(graphdef, leaves)(seq, mask))
    parts = {name: task.data.part(name) for name in ("valid", "test")}
    return {
        name: task.predict(lambda seq, mask: apply(leaves, seq, mask), rows)
        for name, rows in parts.items()
        if len(rows)
    }


def load(path: str | os.PathLike) -> TaskPredictor:
    """The predictor of a run of fine-tuning, or of its exported weights.

    Args:
      path: `best.safetensors`, or the folder that holds it.

    Raises:
      InputError: no such file.
      CheckpointError: weights of something else.
    """

    def build(header: dict[str, Any]) -> module.Blueprint:
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in header["config"].items()}
        cfg, task = _CONFIGS[header["network"]](**values), header["task"]
        outputs, per_residue = max(1, task["classes"]), task["kind"] == "residue_classes"
        return module.Blueprint(lambda rngs: TaskNetwork(cfg, outputs, per_residue, task["hidden"], rngs=rngs))

    return TaskPredictor(*saved.assemble(path, tuple(_CONFIGS), build, "a fine-tuned network"))

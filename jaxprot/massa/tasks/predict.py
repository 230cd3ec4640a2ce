"""Predictions of networks that were trained on a task."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxprot.core.buckets import pad_to
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.esm2 import predict as esm2
from jaxprot.io.outputs import sha256
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import Embedder, PhysicoChemical, check_letters
from jaxprot.massa.tasks import saved
from jaxprot.massa.tasks.finetune import NETWORKS, FinetuneTask, TaskNetwork, _padded, blueprint

_ITEMS = 8192  # padded residues at once


class TaskPredictor:
    """A network with its weights and what its outputs mean.

    Args:
      module: the network.
      task: of the weights' header: kind, classes, class_names, scale and longest.
      embedder: what the network reads; physico-chemical rows if not given.

    Attributes:
      kind: of the task.
      class_names: texts of the classes; empty where classes are numbers.
    """

    def __init__(self, module: TaskNetwork, task: dict[str, Any], embedder: Embedder | None = None):
        self.module, self.task = module, task
        self.kind, self.class_names = task["kind"], tuple(task.get("class_names", ()))
        graphdef, leaves = nnx.split(module)
        wide = isinstance(module.cfg, MASSAConfig)
        self.embedder = embedder or PhysicoChemical()
        self._channels = self.embedder.dim if wide else module.cfg.inputs
        if wide and module.cfg.seq_dim != self.embedder.dim:
            raise InputError(
                f"{self.embedder.name} gives {self.embedder.dim} channels, the weights read {module.cfg.seq_dim}"
            )
        apply = lambda leaves, seq, mask: nnx.merge(graphdef, leaves)(seq, mask)  # noqa: E731
        vectors = lambda leaves, seq, mask: nnx.merge(graphdef, leaves).vectors(seq, mask)  # noqa: E731
        residues = lambda leaves, seq, mask: nnx.merge(graphdef, leaves).features(seq, mask)  # noqa: E731
        self._leaves, self._apply, self._vectors = leaves, jax.jit(apply), jax.jit(vectors)
        self._residues = jax.jit(residues)
        self._read = jax.jit(lambda leaves, seq, mask: nnx.merge(graphdef, leaves).read(seq, mask))

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
        """(n, c) vectors, see `TaskNetwork.vectors`: features for distances between tasks."""
        return np.stack(self._run(self._vectors, sequences))

    def residues(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """(L, c) features of residues, of the last layer; sequences are cut as in training."""
        found = self._run(self._residues, sequences)
        return [one[: min(len(text), self.task["longest"])] for one, text in zip(found, sequences, strict=True)]

    def read(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """What the head reads of each sequence, see `TaskNetwork.read`: (c,), or (L, c) for classes of residues."""
        found = self._run(self._read, sequences)
        if self.kind != "residue_classes":
            return found
        return [one[: min(len(text), self.task["longest"])] for one, text in zip(found, sequences, strict=True)]

    def _run(self, function: Any, sequences: Sequence[str]) -> list[np.ndarray]:
        texts = [check_letters(s, f"sequence {i}")[: self.task["longest"]] for i, s in enumerate(sequences, 1)]
        sizes = np.array([_padded(len(text)) for text in texts])
        out: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            count = max(1, min(64, _ITEMS // int(size)))
            for start in range(0, len(rows), count):
                chosen = rows[start : start + count]
                embedded = self.embedder.embed([texts[row] for row in chosen])
                found = [embedded[i % len(chosen)] for i in range(count)]  # one shape, one program
                seq = np.stack([pad_to(one[:, : self._channels], int(size)) for one in found])
                mask = np.stack([pad_to(np.ones(len(one), bool), int(size)) for one in found])
                for row, one in zip(chosen, np.asarray(function(self._leaves, seq, mask)), strict=False):
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


def load(path: str | os.PathLike, embedder: str | os.PathLike | None = None) -> TaskPredictor:
    """The predictor of a run of fine-tuning, or of its exported weights.

    Args:
      path: `best.safetensors`, or the folder that holds it.
      embedder: checkpoint of ESM-2 that the network was trained with; where it was by default.

    Raises:
      InputError: no such file, or an embedder for weights that read none.
      CheckpointError: weights of something else, or an embedder that is not that of the training.
    """
    net, task = saved.assemble(path, tuple(NETWORKS), blueprint, "a network fine-tuned on single proteins")
    return TaskPredictor(net, task, _embedder(path, task.get("reads"), embedder))


def _embedder(
    path: str | os.PathLike, reads: dict[str, Any] | None, given: str | os.PathLike | None
) -> Embedder | None:
    if reads is None:
        if given is not None:
            raise InputError(f"{path}: these weights read no embeddings; leave {given} out")
        return None
    file = Path(reads["file"] if given is None else given)
    if not file.is_file():
        raise InputError(
            f"{file}: no such file, and {path} reads embeddings of it (SHA-256 {reads['sha256'][:12]}...); name it by "
            "--embedder"
        )
    if sha256(file) != reads["sha256"]:
        raise CheckpointError(f"{file}: not the checkpoint that {path} was trained with; name that one by --embedder")
    return esm2.load(file)

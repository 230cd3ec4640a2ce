"""Training on a downstream task: MASSA with a head, or the baseline network, by the training engine.

Losses are the published ones: squared error for numbers (standardised here), focal loss for classes of proteins,
cross-entropy for classes of residues. Sequences are all that these tables have, so structure and GO terms are missing.
A frozen backbone reads each protein once: what its head reads is kept.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.core.errors import InputError
from jaxprot.esm2 import predict as esm2
from jaxprot.io.outputs import sha256
from jaxprot.massa import losses, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import Embedder, PhysicoChemical
from jaxprot.massa.featurize import EDGE_SCALARS, NODE_SCALARS, NODE_VECTORS, Features
from jaxprot.massa.heads import Perceptron, Standardised, mean_max, pool
from jaxprot.massa.model import MASSA
from jaxprot.massa.tasks import saved
from jaxprot.massa.tasks.cnn import CNN, CNNConfig
from jaxprot.massa.tasks.metrics import figures
from jaxprot.massa.tasks.tables import BENCHMARKS, IGNORE, Kind, Table, read_task
from jaxprot.nn.gvp import split_key
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.task import Mean, OptimConfig, TrainConfig
from jaxprot.weights import module, registry

_log = logging.getLogger(__name__)
_MEMORY = 2 << 30  # bytes of embeddings or features that are kept
_ROWS = 1 << 14  # that a head reads at once
_MEASURED = 256  # proteins whose features tell how the inputs of a head are spread
NETWORKS: dict[str, type[MASSAConfig] | type[CNNConfig]] = {"massa": MASSAConfig, "cnn": CNNConfig}


Readout = Literal["published", "wide"]
"""What the head reads. Published: the last layer; of proteins a mean with weights from lengths (see `heads.shares`).
Wide: the last layer beside the sequence encoder; of proteins the mean and the maximum of each; where the backbone is
pre-trained, standardised by what they are then."""


class Labelled(NamedTuple):
    """Padded sequences and their labels.

    Attributes:
      seq: (b, n, e) rows of the embedder; with a frozen backbone what the head reads, (b, c) or (b, n, c).
      mask: (b, n) residues that exist.
      label: (b,) standardised numbers, (b,) classes or (b, n) classes of residues, `IGNORE` where none is.
    """

    seq: Any
    mask: Any
    label: Any


def bare(seq: Array, mask: Array, cfg: MASSAConfig) -> Features:
    """Inputs of MASSA that hold sequences alone."""
    lead = mask.shape
    return Features(
        seq, mask,
        jnp.zeros((*lead, NODE_SCALARS)), jnp.zeros((*lead, 3, NODE_VECTORS)),
        jnp.zeros((*lead, 0, EDGE_SCALARS)), jnp.zeros((*lead, 0, 3, 1)),
        jnp.zeros((*lead, 0), jnp.int32), jnp.zeros((*lead, 0), bool),
        jnp.zeros((lead[0], 1, cfg.go_dim)), jnp.zeros((lead[0], 1), bool), jnp.zeros(lead[0], bool),
    )  # fmt: skip


LENGTHS = (64, 128, 256, 384, 512, 768, 1024)
"""Padded lengths in fine-tuning, each a program."""


def _padded(length: int) -> int:
    return bucket_length(length, LENGTHS)


class TaskNetwork(nnx.Module):
    """Residue features, pooled where the task is about whole proteins, and a head.

    Args:
      cfg: sizes of the backbone, of MASSA or of the baseline.
      outputs: of the head.
      per_residue: whether every residue has an output.
      hidden: width of the head.
      readout: what the head reads.
      dropout: rate in a head that is not the published one.
      rngs: for the weights.
    """

    def __init__(
        self,
        cfg: MASSAConfig | CNNConfig,
        outputs: int,
        per_residue: bool,
        hidden: int,
        readout: Readout = "published",
        dropout: float = 0.0,
        *,
        rngs: Any,
    ):
        self.cfg, self.per_residue, self.readout = cfg, per_residue, readout
        self.backbone = MASSA(cfg, rngs=rngs) if isinstance(cfg, MASSAConfig) else CNN(cfg, rngs=rngs)
        layers = 2 if readout == "wide" and isinstance(cfg, MASSAConfig) else 1
        pooled = 2 if readout == "wide" and not per_residue else 1
        inputs = layers * pooled * cfg.width
        self.head: Perceptron | Standardised
        if readout == "published":
            self.head = Perceptron(inputs, hidden, outputs, rngs=rngs)
        else:
            self.head = Standardised(inputs, hidden, outputs, dropout, rngs=rngs)

    def _layers(self, seq: Array, mask: Array, key: PRNGKeyArray | None) -> list[Array]:
        """Features of residues of each layer that may be read, the last one first."""
        if isinstance(self.cfg, MASSAConfig):
            found = self.backbone(bare(seq, mask, self.cfg), key)
            return [found.protein, found.sequence]
        return [self.backbone(seq, mask, key)]

    def features(self, seq: Array, mask: Array, key: PRNGKeyArray | None = None) -> Float[Array, "b n c"]:
        """Of residues, of the last layer."""
        return self._layers(seq, mask, key)[0]

    def vectors(self, seq: Array, mask: Array) -> Float[Array, "b c"]:
        """Of proteins, with the published weights of residues, whatever the head reads: as wide for every task."""
        return pool(self.features(seq, mask), mask)

    def read(self, seq: Array, mask: Array, key: PRNGKeyArray | None = None) -> Array:
        """What the head reads: (b, c), or (b, n, c) for classes of residues."""
        layers = self._layers(seq, mask, key)
        if self.readout == "published":
            return layers[0] if self.per_residue else pool(layers[0], mask)
        return jnp.concatenate(layers if self.per_residue else [mean_max(x, mask) for x in layers], -1)

    def __call__(self, seq: Array, mask: Array, key: PRNGKeyArray | None = None) -> Array:
        """(b, o), or (b, n, o) for classes of residues."""
        keys = split_key(key, 2)
        return self.head(self.read(seq, mask, keys[0]), keys[1])


def blueprint(header: Mapping[str, Any]) -> module.Blueprint:
    """Structure of a network from the header of its weights."""
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in header["config"].items()}
    cfg, task = NETWORKS[header["network"]](**values), header["task"]
    outputs, per_residue = max(1, task["classes"]), task["kind"] == "residue_classes"
    readout = task.get("readout", "published")
    return module.Blueprint(lambda rngs: TaskNetwork(cfg, outputs, per_residue, task["hidden"], readout, rngs=rngs))


class _Kept(dict):
    """Arrays of rows that were computed before, as far as memory is granted."""

    size, full = 0, False

    def add(self, new: Mapping[int, np.ndarray]) -> None:
        for row, array in new.items():
            if self.size + array.nbytes <= _MEMORY:
                self.size += array.nbytes
                self[row] = array
            elif not self.full:
                self.full = True
                _log.warning(
                    "%d proteins are kept in %d GB of memory; the others are computed anew at every step",
                    len(self), _MEMORY >> 30,
                )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FinetuneTask:
    """A benchmark or a user's table.

    Attributes:
      table: name of a benchmark, or a csv file (see `tables.read_task`).
      folder: of the benchmarks' tables.
      kind: of the labels of a csv file, if they do not tell.
      model: sizes of MASSA, or of the baseline network; those of `weights` replace them.
      weights: of the backbone to start from, a file or a registered name; None trains from scratch.
      reads: checkpoint of ESM-2 whose embeddings the backbone reads; None for physico-chemical rows. From scratch the
        backbone gets as many input channels as these have.
      start: file or folder of a network that was trained on this task, its backbone and its head, in place of
        `weights`; as after training the head alone.
      frozen: whether the backbone stays as it is, so that each protein is read once.
      hidden: width of the head.
      readout: what the head reads.
      dropout: rate in a head that is trained alone, on a frozen pre-trained backbone; a whole network has its own.
      items: padded residues of a batch.
      longest: residues; of longer sequences only so many first ones are read, as published.
      share: of the training rows that is used, drawn by `subset`; for curves of data and quick looks.
      subset: seed of that choice.
      evaluated: rows of the validation part at most.
      monitor: `score`, Spearman correlation or accuracy.
    """

    table: str
    folder: str | None = None
    kind: Kind | None = None
    model: MASSAConfig | CNNConfig = MASSAConfig()
    weights: str | None = None
    reads: str | None = None
    start: str | None = None
    frozen: bool = False
    hidden: int = 128
    readout: Readout = "wide"
    dropout: float = 0.3
    items: int = 4096
    longest: int = 512
    share: float = 1.0
    subset: int = 0
    evaluated: int = 2000
    monitor: str = "score"

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")
        if self.reads is not None and not isinstance(self.model, MASSAConfig):
            raise ValueError("embeddings are read by MASSA; the convolutional network reads letters")
        if self.start is not None and self.weights is not None:
            raise ValueError("start brings a backbone of its own; give no weights beside it")

    def fixed(self) -> tuple[str, ...]:
        """Parts of the head that no training changes, see `heads.Standardised`."""
        return ("centre", "spread") if self.readout == "wide" else ()

    def files(self) -> tuple[str, ...]:
        """Data files."""
        known = BENCHMARKS.get(self.table)
        return (self.table,) if known is None else (str(Path(self.folder or ".") / known.file),)

    @functools.cached_property
    def data(self) -> Table:
        """All rows."""
        return read_task(self.table, self.folder, self.kind)

    @functools.cached_property
    def trained_rows(self) -> np.ndarray:
        """Rows of the table that are trained on."""
        rows = self.data.part("train")
        count = max(1, round(self.share * len(rows)))
        return rows if count == len(rows) else np.sort(np.random.default_rng(self.subset).permutation(rows)[:count])

    @functools.cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and deviation of the training labels (of those that `start` had); (0, 1) for classes."""
        if self.data.kind != "regression":
            return 0.0, 1.0
        if self.start is not None:  # its head answers in these units
            return tuple(self._begun[1]["scale"])  # type: ignore[return-value]
        values = np.asarray(self.data.labels)[self.trained_rows]
        return float(values.mean()), float(values.std()) or 1.0

    @functools.cached_property
    def embedder(self) -> Embedder:
        """Of the letters: one-hot for the baseline."""
        return PhysicoChemical() if self.reads is None else esm2.load(self.reads)

    @functools.cached_property
    def _kept(self) -> _Kept:
        """What was computed before: features of a frozen backbone, or embeddings of a network."""
        return _Kept()

    def _known(self, rows: np.ndarray, compute: Callable[[np.ndarray], list[np.ndarray]]) -> list[np.ndarray]:
        """Arrays of rows, those that are kept or else computed."""
        numbers = [int(row) for row in rows]
        missing = np.array([row for row in dict.fromkeys(numbers) if row not in self._kept], int)
        new = dict(zip(missing.tolist(), compute(missing), strict=True)) if len(missing) else {}
        out = [new[row] if row in new else self._kept[row] for row in numbers]
        self._kept.add(new)
        return out

    def _embed(self, rows: np.ndarray) -> list[np.ndarray]:
        """(L, c) of each row."""

        def compute(rows: np.ndarray) -> list[np.ndarray]:
            return self.embedder.embed([self.data.sequences[row][: self.longest] for row in rows])

        return compute(rows) if self.reads is None or self._stays else self._known(rows, compute)

    @property
    def _stays(self) -> bool:
        """Whether the backbone is known before training and not changed by it."""
        return self.frozen and (self.weights is not None or self.start is not None)

    @functools.cached_property
    def _reader(self) -> Callable[[Array, Array], Array]:
        """What the head reads, by the backbone that training begins with."""
        graphdef, leaves = nnx.split(self._fresh(jax.random.key(0)))
        read = jax.jit(lambda leaves, seq, mask: nnx.merge(graphdef, leaves).read(seq, mask))
        return functools.partial(read, leaves)

    def _read(self, rows: np.ndarray) -> list[np.ndarray]:
        """(c,) or (L, c) of each row, what the head reads."""

        def compute(rows: np.ndarray) -> list[np.ndarray]:
            return self._cut(self.run(self._reader, rows), rows)

        return self._known(rows, compute)

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        lengths = [min(len(self.data.sequences[row]), self.longest) for row in self.trained_rows]
        return BucketBatches(lengths, self.items, bucket=_padded, most=64)

    def header(self) -> dict[str, Any]:
        """Of exported weights: sizes of backbone and head, and what the outputs mean."""
        table = self.data
        return {
            "network": type(self._sizes()[0]).__name__.removesuffix("Config").lower(),
            "config": dataclasses.asdict(self._sizes()[0]),
            "untrained": self._untrained(),
            "task": {
                "name": table.name, "kind": table.kind, "classes": table.classes, "class_names": table.class_names,
                "hidden": self.hidden, "readout": self.readout, "scale": self.scale, "longest": self.longest,
                "reads": self._told_reads(),
            },
        }  # fmt: skip

    def _told_reads(self) -> dict[str, Any] | None:
        if self.reads is None:
            return None
        return {"file": os.path.abspath(self.reads), "sha256": sha256(Path(self.reads)), "channels": self.embedder.dim}

    @functools.cached_property
    def _source(self) -> weights.Read:
        """What the file of `weights` holds."""
        return weights.read(registry.resolve(str(self.weights), "massa")[0])

    def _untrained(self) -> list[str]:
        """Inputs that the backbone never learned from: these tables have sequences alone."""
        if self.start is not None:
            return list(saved.header(self.start).get("untrained", ()))
        return ["structure", "go"] if self.weights is None else list(self._source.untrained)

    def _sizes(self) -> tuple[MASSAConfig | CNNConfig, dict[str, np.ndarray] | None]:
        if self.start is not None:
            return self._begun[0], None
        if self.weights is None:
            if self.reads is not None:
                return dataclasses.replace(self.model, seq_dim=self.embedder.dim), None
            return self.model, None
        read = self._source
        if read.config.seq_dim != self.embedder.dim:
            raise InputError(
                f"{self.weights}: reads {read.config.seq_dim} channels, the embedder {self.embedder.name} has "
                f"{self.embedder.dim}; give weights that read these, or none to train from scratch"
            )
        return read.config, read.tensors

    def build(self, key: PRNGKeyArray) -> TaskNetwork:
        """The network with a fresh head, or with that of `start`."""
        net = self._fresh(key)
        if self.weights is not None and isinstance(net.head, Standardised):
            rows = self.trained_rows
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, _MEASURED).astype(int))]
            found = self._read(rows) if self._stays else self._cut(self.run(self._reader, rows), rows)
            net.head.fit_inputs(jnp.concatenate([jnp.atleast_2d(one) for one in found]))
        return net

    def _fresh(self, key: PRNGKeyArray) -> TaskNetwork:
        if self.start is not None:
            _ = self._begun  # checked; the arrays of a network are a run's own, as its steps overwrite them
            return saved.assemble(
                str(self.start), tuple(NETWORKS), blueprint, "a network fine-tuned on single proteins"
            )[0]
        cfg, tensors = self._sizes()
        kind = self.data.kind
        net = TaskNetwork(
            cfg, max(1, self.data.classes), kind == "residue_classes", self.hidden, self.readout,
            self.dropout if self._stays else 0.0, rngs=nnx.Rngs(key),
        )  # fmt: skip
        if tensors is not None:
            net.backbone = weights.assemble_backbone(cfg, tensors)  # type: ignore[arg-type]
        return net

    def _cut(self, found: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """What the head reads of each row, without padding."""
        if self.data.kind != "residue_classes":
            return found
        lengths = [min(len(self.data.sequences[row]), self.longest) for row in rows]
        return [one[:n] for n, one in zip(lengths, found, strict=True)]

    @functools.cached_property
    def _begun(self) -> tuple[MASSAConfig | CNNConfig, dict[str, Any]]:
        """Sizes of the network of `start`, and what its header tells of its task."""
        net, told = saved.assemble(
            str(self.start), tuple(NETWORKS), blueprint, "a network fine-tuned on single proteins"
        )
        table = self.data
        ours = {
            "kind": table.kind, "classes": table.classes, "class_names": list(table.class_names),
            "hidden": self.hidden, "readout": self.readout,
        }  # fmt: skip
        theirs = {**told, "class_names": list(told.get("class_names", ())), "readout": told.get("readout", "published")}
        if other := [name for name, value in ours.items() if theirs[name] != value]:
            first = other[0]
            raise InputError(f"{self.start}: trained on another task: {first} {theirs[first]}, not {ours[first]}")
        if not isinstance(net.cfg, type(self.model)):
            raise InputError(
                f"{self.start}: a network of another kind ({type(net.cfg).__name__.removesuffix('Config')})"
            )
        read, reads = told.get("reads"), self._told_reads()
        if (read or {}).get("sha256") != (reads or {}).get("sha256"):
            which = "physico-chemical rows" if read is None else f"embeddings of {read['file']}"
            raise InputError(f"{self.start}: reads {which}, not those of {self.embedder.name}")
        return net.cfg, told

    def batches(self, step: int, seed: int) -> Batch:
        """Sequences of like length."""
        return self._batches(step, seed)

    def load(self, shape: Hashable, members: np.ndarray) -> Labelled:
        """Padded rows of the training part."""
        rows, length = self.trained_rows[members], int(shape)  # type: ignore[call-overload]
        if not self._stays:
            return self.rows(rows, length)
        read = np.stack([pad_to(x, length) if x.ndim > 1 else x for x in self._read(rows)])
        lengths = [min(len(self.data.sequences[row]), self.longest) for row in rows]
        mask = np.stack([pad_to(np.ones(n, bool), length) for n in lengths])
        return Labelled(read, mask, self._padded_labels(rows, length))

    @functools.cached_property
    def _wide(self) -> bool:
        """Whether the network reads all rows of the embedder, not the letters alone."""
        cfg = self.model if self.start is None else self._begun[0]
        return isinstance(cfg, MASSAConfig) or self.weights is not None

    def rows(self, rows: np.ndarray, length: int) -> Labelled:
        """Padded rows of the table."""
        wide, found = self._wide, self._embed(rows)
        seq = np.stack([pad_to(one if wide else one[:, : CNNConfig().inputs], length) for one in found])
        mask = np.stack([pad_to(np.ones(len(one), bool), length) for one in found])
        return Labelled(seq, mask, self._padded_labels(rows, length))

    def _padded_labels(self, rows: np.ndarray, length: int) -> np.ndarray:
        table = self.data
        if table.kind == "residue_classes":
            padded = [pad_to(table.labels[row][: self.longest], length, IGNORE) for row in rows]
            return np.asarray(np.stack(padded), np.int32)
        label = np.asarray(table.labels)[rows]
        if table.kind == "regression":
            mean, deviation = self.scale
            return np.asarray((label - mean) / deviation, np.float32)
        return np.asarray(label, np.int32)

    def batch_loss(
        self, model: TaskNetwork, batch: Labelled, keys: PRNGKeyArray, weight: Float[Array, "b"], axis: str | None
    ) -> dict[str, Mean]:
        """The published loss; `weight` is 0 for rows that only fill the batch."""
        found = model.head(batch.seq, keys[0]) if self._stays else model(batch.seq, batch.mask, keys[0])
        if self.data.kind == "regression":
            wrong = (found[:, 0] - batch.label) ** 2
            return {"loss": Mean(jnp.sum(wrong * weight), jnp.sum(weight))}
        label = jnp.where(weight.reshape(-1, *[1] * (batch.label.ndim - 1)) > 0, batch.label, IGNORE)
        if self.data.kind == "residue_classes":
            return {"loss": Mean(*losses.cross_entropy(found, label))}
        return {"loss": Mean(*losses.equalised_focal(found, label, axis))}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Figures of the validation part (of the training part, where there is none)."""
        part = self.data.part("valid")
        part = self.trained_rows if not len(part) else part
        if len(part) > self.evaluated:
            part = part[np.linspace(0, len(part) - 1, self.evaluated).astype(int)]
        apply = jax.jit(lambda variables, seq, mask: nnx.merge(graphdef, variables)(seq, mask))
        head = jax.jit(lambda variables, x: nnx.merge(graphdef, variables).head(x))

        def evaluate(variables: Any) -> dict[str, float]:
            if self._stays:
                read = self._read(part)
                cuts = np.cumsum([len(one) if one.ndim > 1 else 1 for one in read])[:-1]
                x = np.concatenate([np.atleast_2d(one) for one in read])
                blocks = [head(variables, x[start : start + _ROWS]) for start in range(0, len(x), _ROWS)]
                outputs = np.concatenate([np.asarray(one) for one in blocks])
                parts = np.split(outputs, cuts) if self.data.kind == "residue_classes" else list(outputs)
                found, labels = self._told(parts, part)
            else:
                found, labels = self.predict(functools.partial(apply, variables), part)
            told = figures(self.data.kind, found, labels)
            return {**told, "score": told["spearman" if self.data.kind == "regression" else "accuracy"]}

        return evaluate

    def run(self, apply: Callable[[Array, Array], Array], rows: np.ndarray) -> list[np.ndarray]:
        """Outputs of rows of the table, in their order, computed in batches of like length.

        Args:
          apply: outputs of sequences and masks.
          rows: of the table.
        """
        lengths = np.array([_padded(min(len(self.data.sequences[row]), self.longest)) for row in rows])
        found: dict[int, np.ndarray] = {}
        for length in np.unique(lengths):
            members = rows[lengths == length]
            size = max(1, min(64, self.items // int(length)))
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                batch = self.rows(np.resize(chosen, size), int(length))
                for row, one in zip(chosen, np.asarray(apply(batch.seq, batch.mask)), strict=False):
                    found[int(row)] = one
        return [found[int(row)] for row in rows]

    def predict(self, apply: Callable[[Array, Array], Array], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and labels of rows, in the units of the table; residues one after another.

        Args:
          apply: outputs of sequences and masks.
          rows: of the table.
        """
        return self._told(self.run(apply, rows), rows)

    def _told(self, found: list[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What outputs of rows mean, and labels."""
        table = self.data
        if table.kind == "residue_classes":
            cut = [table.labels[row][: self.longest] for row in rows]
            classes = [one[: len(label)].argmax(-1) for one, label in zip(found, cut, strict=True)]
            return np.concatenate(classes), np.concatenate(cut)
        outputs = np.stack(found)
        labels = np.asarray(table.labels)[rows]
        if table.kind == "classes":
            return outputs.argmax(-1), labels
        mean, deviation = self.scale
        return outputs[:, 0].astype(np.float64) * deviation + mean, labels


def recipe(
    task: FinetuneTask, *, steps: int = 1000, lr: float = 1e-3, frozen: bool = False, seed: int = 0
) -> TrainConfig:
    """How `jaxprot massa finetune` trains: AdamW with a cosine.

    A pre-trained backbone has a third of the head's rate where the head is fresh. A network that training goes on from
    is kept if it never gets better.

    Args:
      task: what to train on.
      steps: of training.
      lr: highest learning rate.
      frozen: whether the head alone is trained.
      seed: of head, batches and dropout.
    """
    still = (("backbone",) if frozen else ()) + task.fixed()
    return TrainConfig(
        task=task if task.frozen == frozen else dataclasses.replace(task, frozen=frozen),  # a copy reads all anew
        optim=OptimConfig(
            lr=lr, schedule="cosine", warmup=max(1, steps // 20), final=lr / 100, ema=0.99, frozen=still,
            rates=(("backbone", 0.3),) if task.weights is not None and not frozen else (),
        ),
        steps=steps, micro=0, evaluate_every=max(1, steps // 5), evaluate_start=task.start is not None,
        save_every=max(1, steps // 5), log_every=max(1, steps // 20), seed=seed, init_seed=seed, workers=1,
    )  # fmt: skip

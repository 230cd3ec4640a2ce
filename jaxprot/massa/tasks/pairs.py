"""Training on pairs: a protein and a small molecule, or two proteins.

Heads and losses are the published ones: classes of a protein and a molecule by cross-entropy (kinases and their
inhibitors), numbers of such by squared error (PDBbind), numbers of two proteins, scaled to 0..1, by squared error
(SKEMPI). Sequences are all that the tables have, so structure and GO terms are missing.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.massa import losses, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.tasks.finetune import FinetuneTask
from jaxprot.massa.tasks.metrics import pair_figures
from jaxprot.massa.tasks.pair_batches import Paired, inputs_of, items_of, run, shape_of
from jaxprot.massa.tasks.pair_network import NETWORK, PairNetwork, readable
from jaxprot.massa.tasks.pair_tables import BENCHMARKS, DAVIS, PairTable, read_pairs
from jaxprot.train.data import BucketBatches
from jaxprot.train.task import Mean


@dataclasses.dataclass(frozen=True)
class PairTask(FinetuneTask):
    """A benchmark or a user's table of pairs.

    Attributes are those of `FinetuneTask`, where `table` is what `read_pairs` reads, heads have their published sizes
    (`hidden` and `readout` have no meaning, `frozen` saves no time), `items` counts residues and atoms, and
    `monitor` is the ROC-AUC of two classes, the accuracy of more, the Pearson correlation of numbers; and further:

    Attributes:
      longest: residues that are read, as published.
      fold: of a benchmark, the one for validation.
    """

    longest: int = 1022
    fold: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.start is not None:
            raise ValueError("networks of pairs begin with weights; start is for single proteins")
        if self.reads is not None:
            raise ValueError("the networks of pairs read physico-chemical rows; embeddings are for single proteins")
        if not isinstance(self.model, MASSAConfig):
            raise ValueError("the heads of pairs are for MASSA; the convolutional network has none")

    def fixed(self) -> tuple[str, ...]:
        """Nothing: the published heads have no such parts."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Data files."""
        if self.table not in BENCHMARKS:
            return (self.table,)
        return tuple(str(Path(self.folder or os.environ.get("JAXPROT_TASKS", ".")) / name) for name in DAVIS)

    @functools.cached_property
    def data(self) -> PairTable:  # type: ignore[override]
        """All rows."""
        return read_pairs(self.table, self.folder, self.kind, self.fold)  # type: ignore[arg-type]

    @functools.cached_property
    def scale(self) -> tuple[float, float]:
        """(a, b) of labels that the head gives as (label - a) / b.

        Mean and deviation of the training labels; their least and their range for two proteins, whose head ends in a
        sigmoid; (0, 1) for classes.
        """
        if self.data.kind == "classes":
            return 0.0, 1.0
        values = self.data.labels[self.trained_rows]
        if np.ptp(values) == 0:
            raise InputError(f"{self.table}: all labels of this share of the rows are the same; use more of them")
        if self.data.partner == "sequence2":
            return float(values.min()), float(np.ptp(values))
        return float(values.mean()), float(values.std())

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        table, ligands = self.data, self.data.ligands
        codes = [shape_of(table.sequences[i], table.partners[i], ligands, self.longest) for i in self.trained_rows]
        return BucketBatches(codes, self.items, bucket=int, cost=lambda code: items_of(code, bool(ligands)), most=64)

    def header(self) -> dict[str, Any]:
        """Of exported weights: sizes, and what the outputs mean."""
        table = self.data
        return {
            "network": NETWORK,
            "config": dataclasses.asdict(self._sizes()[0]),
            "untrained": self._untrained(),
            "task": {
                "name": table.name, "kind": table.kind, "partner": table.partner, "classes": table.classes,
                "class_names": table.class_names, "scale": self.scale, "longest": self.longest,
            },
        }  # fmt: skip

    def build(self, key: PRNGKeyArray) -> PairNetwork:  # type: ignore[override]
        """The network with a fresh head."""
        cfg, tensors = self._sizes()
        net = PairNetwork(cfg, self.data.partner, self.data.classes, rngs=nnx.Rngs(key))  # type: ignore[arg-type]
        if tensors is not None:
            net.backbone = weights.assemble_backbone(cfg, tensors)  # type: ignore[arg-type]
        return net

    def load(self, shape: Hashable, members: np.ndarray) -> Paired:  # type: ignore[override]
        """Padded rows of the training part."""
        table, rows = self.data, self.trained_rows[members]
        texts = [table.sequences[i] for i in rows], [table.partners[i] for i in rows]
        inputs = inputs_of(*texts, table.ligands, int(shape), self.longest)  # type: ignore[call-overload]
        if table.kind == "classes":
            return Paired(*inputs, np.asarray(table.labels[rows], np.int32))
        start, unit = self.scale
        return Paired(*inputs, np.asarray((table.labels[rows] - start) / unit, np.float32))

    def batch_loss(  # type: ignore[override]
        self, model: PairNetwork, batch: Paired, keys: PRNGKeyArray, weight: Float[Array, "b"], axis: str | None
    ) -> dict[str, Mean]:
        """The published loss; `weight` is 0 for rows that only fill the batch."""
        found = model(batch.chain, batch.partner, keys[0])
        if self.data.kind == "classes":
            wrong, _ = losses.negative_log_likelihood(found, batch.label)
        else:
            wrong = (found - batch.label) ** 2
        return {"loss": Mean(jnp.sum(wrong * weight), jnp.sum(weight))}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Figures of the validation part (of the training part, where there is none)."""
        table = self.data
        part = table.part("valid")
        part = self.trained_rows if not len(part) else part
        if len(part) > self.evaluated:
            part = part[np.linspace(0, len(part) - 1, self.evaluated).astype(int)]
        if len(np.unique(table.labels[part])) < 2:
            raise InputError(
                f"{self.table}: all validation labels are the same, so no weights can be chosen by them; give more "
                "rows, or a column split with both kinds in the part 'valid'"
            )
        apply = jax.jit(lambda variables, *pair: nnx.merge(graphdef, variables)(*pair))

        def evaluate(variables: Any) -> dict[str, float]:
            told = pair_figures(table.kind, *self.predict(functools.partial(apply, variables), part))
            return {**told, "score": told.get(table.monitor, 0.0)}  # constant predictions have no correlation

        return evaluate

    def predict(self, apply: Callable[..., Array], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and labels of rows: numbers in the units of the table, or (n, classes) probabilities.

        Args:
          apply: outputs of proteins and partners.
          rows: of the table.
        """
        table = self.data
        texts = [table.sequences[i] for i in rows], [table.partners[i] for i in rows]
        found = run(apply, *texts, table.ligands, items=self.items, longest=self.longest)
        return readable(found, table.kind, self.scale), table.labels[rows]

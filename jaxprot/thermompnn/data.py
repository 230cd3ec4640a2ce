"""Stability data and the training of ThermoMPNN on it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from jaxprot.core import metrics
from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.core.errors import InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import read_table
from jaxprot.proteinmpnn.data import begin
from jaxprot.proteinmpnn.featurize import BackboneChain, Features, featurize, pad_features, parse_chains
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.losses import correlation_loss, huber
from jaxprot.thermompnn.model import ThermoMPNN
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.task import Mean
from jaxprot.weights import registry

_log = logging.getLogger(__name__)


class StabilityExample(NamedTuple):
    """One protein and its measured single mutations.

    Attributes:
      features: the structure.
      ddg: (n, 20) kcal/mol, positive = destabilising; 0 where not measured.
      measured: (n, 20) 1 where measured.
    """

    features: Features
    ddg: np.ndarray
    measured: np.ndarray


@dataclasses.dataclass(frozen=True)
class StabilitySet:
    """A table of single mutations matched to structures.

    Attributes:
      names: protein of each example.
      examples: the proteins.
      rows: (m, 3) example, residue and mutant letter of each row of the table that was matched.
      ddg: (m,) kcal/mol of each row; a mutation measured twice has two rows, and their mean in its example.
      skipped: rows left out because the structure lacks the residue or has another letter there.
      source: (m,) row of the table (0-based) of each matched row, which pairs tables that correspond row by row.
    """

    names: tuple[str, ...]
    examples: tuple[StabilityExample, ...]
    rows: np.ndarray
    ddg: np.ndarray
    skipped: int
    source: np.ndarray

    @property
    def n(self) -> int:
        """Number of matched rows."""
        return len(self.ddg)


def _place(chain: BackboneChain) -> dict[str, int]:
    """Gap-filled index of each residue id (number and insertion code) of a chain."""
    held = np.flatnonzero(chain.present)
    return {f"{chain.resid[i]}{chain.icode[i]}": int(i) for i in held}


def _residue_ids(column: np.ndarray) -> np.ndarray:
    """Residue ids as text; a column of bare numbers with blanks arrives as floats."""
    if column.dtype.kind == "f":
        return np.array(["" if np.isnan(v) else str(int(v)) for v in column])
    return column.astype(str)


def read_stability_set(
    table: str | pathlib.Path,
    structures: str | pathlib.Path,
    keep: Callable[[dict[str, np.ndarray]], np.ndarray] | None = None,
) -> StabilitySet:
    """Reads a mutation table (columns protein, chain, resid, wt, mut, ddG) and the structures it names.

    Args:
      table: csv, gz or not.
      structures: folder of `PROTEIN.pdb.gz` files.
      keep: chooses rows from the columns; all of them by default.

    Raises:
      InputError: a column or a structure file is missing.
    """
    columns = read_table(table)
    needed = ("protein", "chain", "resid", "wt", "mut", "ddG")
    absent = [name for name in needed if name not in columns]
    if absent:
        raise InputError(f"{table}: no column {', '.join(absent)}; needed are {', '.join(needed)}")
    rows = np.ones(len(columns["ddG"]), bool) if keep is None else np.asarray(keep(columns), bool)
    protein, resid = columns["protein"].astype(str), _residue_ids(columns["resid"])
    names, examples, matched, values, source, skipped = [], [], [], [], [], 0
    for name in np.unique(protein[rows]):
        path = pathlib.Path(structures) / f"{name}.pdb.gz"
        mine = np.flatnonzero(rows & (protein == name))
        try:
            chains = {c.id: c for c in parse_chains(read_structure(path))}
        except (InputError, FileNotFoundError) as error:
            skipped += len(mine)
            _log.info("%s: %d rows left out (%s)", name, len(mine), error)
            continue
        chain = chains.get(str(columns["chain"][mine[0]]), next(iter(chains.values())))
        place = _place(chain)
        features = featurize([chain])
        ddg, count = np.zeros((2, len(chain), 20))
        for r in mine:
            at, mut = place.get(resid[r]), str(columns["mut"][r])
            if at is None or chain.sequence[at] != columns["wt"][r] or mut not in ALPHABET[:20]:
                skipped += 1
                continue
            ddg[at, ALPHABET.index(mut)] += float(columns["ddG"][r])
            count[at, ALPHABET.index(mut)] += 1
            matched.append((len(names), at, ALPHABET.index(mut)))
            values.append(float(columns["ddG"][r]))
            source.append(r)
        if count.any():
            measured = (count > 0).astype(np.float32)
            ddg = (ddg / np.maximum(count, 1)).astype(np.float32)
            names.append(str(name))
            examples.append(StabilityExample(features, ddg, measured))
    rows = np.array(matched, np.int64).reshape(-1, 3)
    return StabilitySet(tuple(names), tuple(examples), rows, np.array(values), skipped, np.array(source, np.int64))


def join(sets: Sequence[StabilitySet]) -> StabilitySet:
    """One set of several, in their order; `source` keeps counting within each table."""
    rows, start = [], 0
    for data in sets:
        rows.append(data.rows + np.array([start, 0, 0]))
        start += len(data.examples)
    return StabilitySet(
        tuple(name for data in sets for name in data.names),
        tuple(example for data in sets for example in data.examples),
        np.concatenate(rows),
        np.concatenate([data.ddg for data in sets]),
        sum(data.skipped for data in sets),
        np.concatenate([data.source for data in sets]),
    )


def pad_example(example: StabilityExample, length: int) -> StabilityExample:
    """Pad to `length` residues."""
    return StabilityExample(
        pad_features(example.features, length), pad_to(example.ddg, length, 0), pad_to(example.measured, length, 0)
    )


def _stack(examples: Iterable[StabilityExample], length: int) -> StabilityExample:
    return jax.tree.map(lambda *arrays: np.stack(arrays), *[pad_example(e, length) for e in examples])


def predict_set(apply: Callable[[Any, Features], Array], params: Any, data: StabilitySet) -> np.ndarray:
    """Predicted ddG of each row of a set."""
    out = np.zeros(data.n)
    for number, example in enumerate(data.examples):
        n = len(example.features.S)
        ddg = np.asarray(apply(params, pad_features(example.features, bucket_length(n))))
        mine = data.rows[:, 0] == number
        out[mine] = ddg[data.rows[mine, 1], data.rows[mine, 2]]
    return out


def figures(predicted: np.ndarray, measured: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Pooled Spearman, Pearson and RMSE, and the mean Spearman of proteins with at least 10 mutations."""
    large = [g for g in np.unique(group) if (group == g).sum() >= 10]
    per_protein = [metrics.spearman(predicted[group == g], measured[group == g]) for g in large]
    return {
        "n": len(predicted),
        "spearman": float(metrics.spearman(predicted, measured)),
        "pearson": float(metrics.pearson(predicted, measured)),
        "rmse": float(metrics.rmse(predicted, measured)),
        "spearman_per_protein": float(np.mean(per_protein)) if per_protein else float("nan"),
    }


@dataclasses.dataclass(frozen=True)
class StabilityTask:
    """ddG of single mutations, the whole network trainable.

    Attributes:
      table: csv of mutations with a `thermompnn_split` column.
      structures: folder of its structures.
      backbone: weights of a ProteinMPNN to start from, a file (ours or an official one) or a registered name such as
        `proteinmpnn:v_48_020`; none starts from scratch. `OptimConfig.frozen=("backbone",)` keeps them as they are.
      extra: further training proteins of the table, which the split leaves out (free of homologues, see
        `scripts/thermompnn_curate.py`).
      more: further (table, structures) whose training split is trained on as well; validation stays with `table`.
      model: sizes of the network.
      noise: largest standard deviation, Å, of the coordinate noise (drawn anew each time, uniform from `least_noise`).
      least_noise: smallest standard deviation, Å. Exact backbones tell which letter they were solved with, and all
        training structures are of wild types: noise hides what would not hold for a mutant's structure.
      background: share of the residues that carry a measured mutant letter instead of the wild type in half of the
        examples; the targets there become differences of ddG, which teaches reverse and mutant-to-mutant changes.
      error: `huber` (half the square up to 2 kcal/mol, linear beyond) or `squared` (as published).
      correlation: weight of (1 - Pearson) beside the error.
      items: padded residues per step; 1 takes one protein at a time.
    """

    table: str
    structures: str
    backbone: str | None
    extra: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    model: ThermoMPNNConfig = ThermoMPNNConfig()
    noise: float = 0.1
    least_noise: float = 0.0
    background: float = 0.1
    error: Literal["huber", "squared"] = "huber"
    correlation: float = 0.3
    items: int = 768
    monitor: str = "spearman"

    def __post_init__(self):
        if self.error not in ("huber", "squared"):
            raise ValueError(f"error must be huber or squared, got {self.error!r}")
        if not 0 <= self.least_noise <= self.noise:
            raise ValueError(f"least_noise must lie in 0..noise ({self.noise}), got {self.least_noise}")

    def training_files(self) -> tuple[str, ...]:
        """Structure files of the training proteins of `table`."""
        columns = read_table(self.table)
        protein = columns["protein"].astype(str)
        names = {*protein[columns["thermompnn_split"].astype(str) == "train"], *self.extra}
        return tuple(str(pathlib.Path(self.structures) / f"{name}.pdb.gz") for name in sorted(names))

    @functools.cached_property
    def training(self) -> StabilitySet:
        """Training proteins."""

        def keep(columns):
            chosen = np.isin(columns["protein"].astype(str), self.extra)
            return (columns["thermompnn_split"].astype(str) == "train") | chosen

        sets = [read_stability_set(*where, keep) for where in ((self.table, self.structures), *self.more)]
        return sets[0] if len(sets) == 1 else join(sets)

    @functools.cached_property
    def held_out(self) -> StabilitySet:
        """Validation proteins."""
        return read_stability_set(
            self.table, self.structures, lambda columns: columns["thermompnn_split"].astype(str) == "val"
        )

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        return BucketBatches([len(e.ddg) for e in self.training.examples], self.items)

    def build(self, key: PRNGKeyArray) -> ThermoMPNN:
        """The network, its backbone from `backbone`."""
        model = ThermoMPNN(self.model, rngs=nnx.Rngs(key))
        if self.backbone is not None:
            model.backbone = begin(self.backbone, self.model.backbone)
        return model

    def files(self) -> tuple[str, ...]:
        """Data files: tables, the training structures of `table`, and the backbone's weights."""
        backbone = [] if self.backbone is None else [str(registry.resolve(self.backbone, "proteinmpnn")[0])]
        return (self.table, *self.training_files(), *(table for table, _ in self.more), *backbone)

    def batches(self, step: int, seed: int) -> Batch:
        """Proteins of like length."""
        return self._batches(step, seed)

    def load(self, shape: int, members: np.ndarray) -> StabilityExample:
        """Proteins padded to `shape` residues."""
        return _stack([self.training.examples[i] for i in members], shape)

    def _mutated(self, example: StabilityExample, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        """Sequence, targets and weights with some residues replaced by measured mutants."""
        k_use, k_where, k_letter = jax.random.split(key, 3)
        use = jax.random.bernoulli(k_use, 0.5)
        any_here = jnp.sum(example.measured, axis=1) > 0
        where = use & any_here & jax.random.bernoulli(k_where, self.background, any_here.shape)
        scores = jnp.where(example.measured > 0, jax.random.gumbel(k_letter, example.measured.shape), -jnp.inf)
        letter = jnp.argmax(scores, axis=1).astype(example.features.S.dtype)
        sequence = jnp.where(where, letter, example.features.S)
        shift = jnp.take_along_axis(example.ddg, letter[:, None], axis=1) * where[:, None]
        native = jax.nn.one_hot(example.features.S, 20)
        known = jnp.where(where[:, None], jnp.maximum(example.measured, native), example.measured)
        return sequence, (example.ddg - shift) * known, known

    def loss(self, model: ThermoMPNN, example: StabilityExample, key: PRNGKeyArray) -> dict[str, Mean]:
        """Mean error over a protein's mutations, so that every protein counts alike."""
        k_scale, k_noise, k_mutate, k_model = jax.random.split(key, 4)
        f = example.features
        sigma = self.least_noise + (self.noise - self.least_noise) * jax.random.uniform(k_scale)
        sequence, ddg, known = self._mutated(example, k_mutate)
        noisy = f._replace(X=f.X + sigma * jax.random.normal(k_noise, f.X.shape), S=sequence)
        predicted = model.member_ddg(noisy, k_model)
        known = known * f.mask[:, None]
        difference = predicted - ddg[None]
        size = huber(difference) if self.error == "huber" else difference**2
        error = jnp.mean(jnp.sum(known[None] * size, axis=(1, 2))) / jnp.maximum(jnp.sum(known), 1.0)
        apart = jnp.mean(jax.vmap(correlation_loss, (0, None, None))(predicted, ddg, known))
        one = jnp.ones(())
        return {
            "loss": Mean(error + self.correlation * apart, one),
            self.error: Mean(error, one, 0.0),
            "one_minus_pearson": Mean(apart, one, 0.0),
        }

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Figures on the validation proteins."""
        apply = jax.jit(lambda params, features: nnx.merge(graphdef, params).ddg(features))
        held_out = self.held_out

        def evaluate(params: Any) -> dict[str, float]:
            found = figures(predict_set(apply, params, held_out), held_out.ddg, held_out.rows[:, 0])
            return {**found, "mse": found["rmse"] ** 2}

        return evaluate

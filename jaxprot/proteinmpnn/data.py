"""Training of ProteinMPNN: backbones in, sequences out."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import CheckpointError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.archives import read_chains
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.decoding import decoding_order, rank_of
from jaxprot.proteinmpnn.featurize import Features, featurize, pad_features, parse_chains
from jaxprot.proteinmpnn.losses import smoothed_cross_entropy
from jaxprot.proteinmpnn.model import ProteinMPNN
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.task import Mean
from jaxprot.weights import inspect, module, registry
from jaxprot.weights.convert import fill

_BACKBONE = ("N", "CA", "C", "O")
_LONGEST_BOND = 1.6


def read_chain_archive(path: str | pathlib.Path) -> list[Features]:
    """Backbones of a packed chain archive (npz of concatenated chains, see the archive's README).

    Sequence offsets follow the file's numbering where the chain is broken (C-N longer than 1.6 Å) and count
    residues elsewhere.

    Raises:
      InputError: the file is missing or not such an archive.
    """
    out = []
    for structure, _ in read_chains(path):
        n, number = structure.n_residues, structure.resid.astype(np.int64)
        x = np.full((n, 4, 3), np.nan, np.float32)
        for column, name in enumerate(_BACKBONE):
            atoms = structure.atom_name == name
            x[structure.atom_residue[atoms], column] = structure.xyz[atoms]
        bond = np.linalg.norm(x[1:, 0] - x[:-1, 2], axis=-1)
        jump = np.clip(np.diff(number), 1, 1000)
        step = np.where(bond > _LONGEST_BOND, jump, 1)
        out.append(
            Features(
                X=np.nan_to_num(x),
                S=np.array([ALPHABET.index(letter) for letter in structure.letters], np.int32),
                mask=np.isfinite(x).all((1, 2)).astype(np.float32),
                residue_idx=np.concatenate([[0], np.cumsum(step)]).astype(np.int32),
                chain_encoding=np.ones(n, np.int32),
                design=np.ones(n, np.float32),
            )
        )
    return out


def begin(weights: str, model: ProteinMPNNConfig) -> ProteinMPNN:
    """A network to train further.

    Args:
      weights: a file, ours or a published one, or a registered name.
      model: the sizes it is to have.

    Raises:
      InputError: neither a file nor a name.
      DownloadError: the weights could not be fetched.
      CheckpointError: damaged, refused, or of other sizes.
    """
    path, _ = registry.resolve(weights, "proteinmpnn")
    blueprint = module.Blueprint(lambda rngs: ProteinMPNN(model, rngs=rngs))
    kind, tensors, _ = inspect.read(path)
    if kind != "safetensors":
        rules, ignored = registry.table("jaxprot.proteinmpnn.weights:OFFICIAL")
        tensors = fill(module.shapes(blueprint), tensors, rules, ignored, str(path))
    try:
        return module.assemble(blueprint, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def stack(features: list[Features], length: int) -> Features:
    """Pad to one length and stack: a batch."""
    padded = [pad_features(f, length) for f in features]
    return Features(*(np.stack(arrays) for arrays in zip(*padded, strict=True)))


@dataclasses.dataclass(frozen=True)
class DesignTask:
    """Recover the native sequence of a backbone, in random decoding orders (Science 2022, methods).

    Attributes:
      train, val: chain archives.
      structures: further training structures, one file each (all chains together).
      start: weights to go on from, a file (ours or a published one) or a registered name such as
        `proteinmpnn:v_48_020`; none begins from scratch.
      model: sizes of the network.
      noise: largest standard deviation, Å, of the Gaussian noise on the coordinates; drawn anew for each chain
        and step, uniform from 0.
      fixed_noise: take `noise` itself as the standard deviation of every draw (as published).
      smoothing: label smoothing.
      items: padded residues per step.
    """

    train: str
    val: str
    structures: tuple[str, ...] = ()
    start: str | None = None
    model: ProteinMPNNConfig = ProteinMPNNConfig()
    noise: float = 0.1
    fixed_noise: bool = False
    smoothing: float = 0.1
    items: int = 1536
    monitor: str = "accuracy"

    @functools.cached_property
    def examples(self) -> list[Features]:
        """Training backbones."""
        files = [featurize(parse_chains(read_structure(path))) for path in self.structures]
        return read_chain_archive(self.train) + files

    @functools.cached_property
    def held_out(self) -> list[Features]:
        """Validation backbones."""
        return read_chain_archive(self.val)

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        return BucketBatches([len(f.S) for f in self.examples], self.items)

    def build(self, key: PRNGKeyArray) -> ProteinMPNN:
        """An initialised network."""
        return ProteinMPNN(self.model, rngs=nnx.Rngs(key)) if self.start is None else begin(self.start, self.model)

    def files(self) -> tuple[str, ...]:
        """Data files, and the weights to go on from."""
        start = () if self.start is None else (str(registry.resolve(self.start, "proteinmpnn")[0]),)
        return (self.train, self.val, *self.structures, *start)

    def batches(self, step: int, seed: int) -> Batch:
        """Chains of like length."""
        return self._batches(step, seed)

    def load(self, shape: int, members: np.ndarray) -> Features:
        """Chains padded to `shape` residues."""
        return stack([self.examples[i] for i in members], shape)

    def loss(self, model: ProteinMPNN, example: Features, key: PRNGKeyArray) -> dict[str, Mean]:
        """Smoothed cross-entropy over the resolved residues with a letter."""
        k_scale, k_noise, k_order, k_model = jax.random.split(key, 4)
        sigma = self.noise if self.fixed_noise else self.noise * jax.random.uniform(k_scale)
        noisy = example._replace(X=example.X + sigma * jax.random.normal(k_noise, example.X.shape))
        rank = rank_of(decoding_order(k_order, example.design * example.mask))
        log_probs = model(noisy, rank, k_model)
        weight = example.mask * (example.S < 20)
        total = jnp.sum(weight * smoothed_cross_entropy(log_probs, example.S, self.smoothing))
        return {"loss": Mean(total, jnp.sum(weight))}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Teacher-forced perplexity and accuracy on the validation chains, one fixed order each."""

        @jax.jit
        def figures(params, example, key):
            rank = rank_of(decoding_order(key, example.design * example.mask))
            log_probs = nnx.merge(graphdef, params)(example, rank)
            weight = example.mask * (example.S < 20)
            nll = -jnp.take_along_axis(log_probs, example.S[:, None], axis=1)[:, 0]
            right = (jnp.argmax(log_probs, axis=-1) == example.S).astype(jnp.float32)
            return jnp.stack([jnp.sum(weight * nll), jnp.sum(weight * right), jnp.sum(weight)])

        def evaluate(params: Any) -> dict[str, float]:
            total, accuracy = np.zeros(3), []
            for i, f in enumerate(self.held_out):
                padded = pad_features(f, bucket_length(len(f.S)))
                one = np.asarray(figures(params, padded, jax.random.key(i)), np.float64)
                total += one
                accuracy.append(one[1] / one[2])
            return {
                "perplexity": float(np.exp(total[0] / total[2])),
                "accuracy": float(total[1] / total[2]),
                "accuracy_per_chain": float(np.mean(accuracy)),
            }

        return evaluate

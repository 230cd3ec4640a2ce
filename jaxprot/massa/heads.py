"""Heads of MASSA's downstream tasks, on residue features of the backbone.

Features are (b, n, c) with masks (b, n). As published, a protein's vector is a mean of its residues with weights from
the lengths of their features.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.ligand import AttentiveFP, Ligand
from jaxprot.massa.model import DecoderLayer
from jaxprot.nn.gvp import dropout, split_key

_MASKED = -1e10
_xavier = nnx.initializers.xavier_uniform()
LIGAND = 128
"""Channels of ligands."""


def _linear(inputs: int, outputs: int, rngs: Any) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=_xavier, rngs=rngs)


def shares(x: Float[Array, "b n c"], mask: Bool[Array, "b n"]) -> Float[Array, "b n"]:
    """Weights of residues: a softmax of the lengths of their features; 0 for padding."""
    squared = jnp.sum(x * x, -1)
    positive = squared > 0  # padding may be 0, where a length has no derivative
    length = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
    return jax.nn.softmax(jnp.where(mask, length, _MASKED), -1)


def pool(x: Float[Array, "b n c"], mask: Bool[Array, "b n"]) -> Float[Array, "b c"]:
    """Vector of each protein, weighted by `shares`."""
    return jnp.einsum("bnc,bn->bc", x, shares(x, mask))


def mean_max(x: Float[Array, "b n c"], mask: Bool[Array, "b n"]) -> Float[Array, "b 2c"]:
    """Mean and maximum of each protein's residues, one behind the other: what is common, and what stands out."""
    there = mask[..., None]
    mean = jnp.sum(jnp.where(there, x, 0), 1) / jnp.maximum(jnp.sum(there, 1), 1)
    most = jnp.max(jnp.where(there, x, -jnp.inf), 1)
    return jnp.concatenate([mean, jnp.where(jnp.any(there, 1), most, 0)], -1)


class Perceptron(nnx.Module):
    """Two linears with a ReLU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, rngs: Any):
        self.fc1, self.fc2 = _linear(inputs, hidden, rngs), _linear(hidden, outputs, rngs)

    def __call__(self, x: Float[Array, "*n i"], key: PRNGKeyArray | None = None) -> Float[Array, "*n o"]:
        """Outputs of each row; the key has no use here."""
        return self.fc2(jax.nn.relu(self.fc1(x)))


class Standardised(nnx.Module):
    """A perceptron on inputs of mean 0 and deviation 1, with dropout before both linears.

    Args:
      inputs: channels.
      hidden: width.
      outputs: of the second linear.
      rate: of dropout.
      rngs: for the weights.

    Attributes:
      centre: mean of the inputs, set by `fit_inputs` and not trained.
      spread: their deviation, likewise.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, rate: float = 0.0, *, rngs: Any):
        self.rate = rate
        self.centre, self.spread = nnx.Param(jnp.zeros(inputs)), nnx.Param(jnp.ones(inputs))
        self.fc1, self.fc2 = _linear(inputs, hidden, rngs), _linear(hidden, outputs, rngs)

    def fit_inputs(self, x: Float[Array, "n i"]) -> None:
        """Takes mean and deviation of examples; a channel that does not vary is left as it is."""
        mean, spread = jnp.mean(x, 0), jnp.std(x, 0)
        self.centre[...] = mean
        self.spread[...] = jnp.where(spread > 1e-5 * (1 + jnp.abs(mean)), spread, 1)

    def __call__(self, x: Float[Array, "*n i"], key: PRNGKeyArray | None = None) -> Float[Array, "*n o"]:
        """Outputs of each row; dropout where a key is given."""
        keys = split_key(key, 2)
        centre, spread = (
            jax.lax.stop_gradient(jnp.broadcast_to(one[...], x.shape)) for one in (self.centre, self.spread)
        )
        x = (x - centre) / spread
        hidden = jax.nn.relu(self.fc1(dropout(x, self.rate, keys[0])))
        return self.fc2(dropout(hidden, self.rate, keys[1]))


class Pooled(nnx.Module):
    """Values of whole proteins: stability, fluorescence (one) or classes of folds."""

    def __init__(self, cfg: MASSAConfig, outputs: int = 1, *, rngs: Any):
        self.head = Perceptron(cfg.width, cfg.width // 2, outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"]) -> Float[Array, "b o"]:
        """Outputs of each protein."""
        return self.head(pool(x, mask))


class PerResidue(nnx.Module):
    """Classes of residues, such as secondary structure.

    As published, features are multiplied by the residue's share, which makes them small in long proteins; `scaled`
    tells whether.
    """

    def __init__(self, cfg: MASSAConfig, outputs: int = 3, scaled: bool = True, *, rngs: Any):
        self.scaled = scaled
        self.head = Perceptron(cfg.width, cfg.width // 2, outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"]) -> Float[Array, "b n o"]:
        """Outputs of each residue."""
        return self.head(x * shares(x, mask)[..., None] if self.scaled else x)


class Complex(nnx.Module):
    """Affinity of two proteins from 0 to 1, which labels are to be scaled to (SKEMPI).

    Each partner attends to the other through the same layer, of which the published code has three and uses the last.
    """

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        c = cfg.width
        self.cross = DecoderLayer(c, cfg.heads, cfg.feedforward, cfg.dropout, rngs=rngs)
        self.fc1, self.fc2 = _linear(c, c // 2, rngs), _linear(c // 2 * 2, 1, rngs)

    def partners(self, x, mask, other, other_mask, key: PRNGKeyArray | None = None) -> tuple[Array, Array]:
        """Residue features of both after they have seen each other."""
        keys = split_key(key, 2)
        first = self.cross(x, mask, other, other_mask, key=keys[0])
        return first, self.cross(other, other_mask, x, mask, key=keys[1])

    def __call__(
        self,
        x: Float[Array, "b n c"],
        mask: Bool[Array, "b n"],
        other: Float[Array, "b m c"],
        other_mask: Bool[Array, "b m"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b"]:
        """Affinity of each pair."""
        pairs = zip(self.partners(x, mask, other, other_mask, key), (mask, other_mask), strict=True)
        hidden = [jax.nn.relu(self.fc1(pool(y, m))) for y, m in pairs]
        return jax.nn.sigmoid(self.fc2(jnp.concatenate(hidden, -1))[:, 0])


class Kinase(nnx.Module):
    """Whether a ligand binds: residues attend to its atoms, two classes."""

    def __init__(self, cfg: MASSAConfig, outputs: int = 2, *, rngs: Any):
        self.ligand = AttentiveFP(LIGAND, rngs=rngs)
        self.to_protein = _linear(LIGAND, cfg.width, rngs)
        self.cross = DecoderLayer(cfg.width, cfg.heads, cfg.feedforward, cfg.dropout, rngs=rngs)
        self.head = Perceptron(cfg.width, cfg.width // 2, outputs, rngs=rngs)

    def attended(
        self, x, mask, atoms: Float[Array, "b a l"], seen: Bool[Array, "b a"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b n c"]:
        """Residue features after they have seen atoms; those of padding too where `seen` says so, as published."""
        return self.cross(x, mask, self.to_protein(atoms), seen, key=key)

    def __call__(
        self,
        x: Float[Array, "b n c"],
        mask: Bool[Array, "b n"],
        ligand: Ligand,
        seen: Bool[Array, "b a"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b o"]:
        """Logits of each pair.

        Args:
          x: features of residues.
          mask: which exist.
          ligand: small molecules.
          seen: atoms that are attended to; those that exist by default. The published code lets as many be seen as the
            SMILES string has characters.
          key: switches dropout on.
        """
        keys = split_key(key, 2)
        atoms = self.ligand(ligand, keys[0])[1]
        x = self.attended(x, mask, atoms, ligand.mask if seen is None else seen, keys[1])
        return self.head(pool(x, mask))


class Affinity(nnx.Module):
    """Affinity of protein and ligand (PDBbind), from features before and after fusion, and the ligand's vector."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.ligand = AttentiveFP(LIGAND, rngs=rngs)
        self.join = _linear(2 * cfg.width, cfg.width, rngs)
        self.head = Perceptron(cfg.width + LIGAND, (cfg.width + LIGAND) // 2, 1, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b n c"],
        mask: Bool[Array, "b n"],
        sequence: Float[Array, "b n c"],
        ligand: Ligand,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b"]:
        """Affinity of each pair.

        Args:
          x: features of residues.
          mask: which exist.
          sequence: what the sequence encoder gave for them.
          ligand: small molecules.
          key: switches dropout on.
        """
        protein = pool(self.join(jnp.concatenate([sequence, x], -1)), mask)
        return self.head(jnp.concatenate([protein, self.ligand(ligand, key)[0]], -1))[:, 0]

"""A small convolutional network on letters: the baseline that a pre-trained representation has to beat."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxprot.nn.gvp import dropout, split_key


@dataclasses.dataclass(frozen=True, kw_only=True)
class CNNConfig:
    """Sizes.

    Attributes:
      inputs: channels of the letters.
      width: channels of all layers, and of a residue's features.
      kernels: residues that each layer sees, odd.
      dropout: rate.
    """

    inputs: int = 21
    width: int = 128
    kernels: tuple[int, ...] = (9, 5, 5)
    dropout: float = 0.1


class CNN(nnx.Module):
    """Features of residues from their letters.

    Args:
      cfg: sizes.
      rngs: for the weights.
    """

    def __init__(self, cfg: CNNConfig, *, rngs: Any):
        self.cfg = cfg
        sizes = [cfg.inputs] + [cfg.width] * len(cfg.kernels)
        self.layers = nnx.List(
            [nnx.Conv(a, b, (k,), rngs=rngs) for a, b, k in zip(sizes[:-1], sizes[1:], cfg.kernels, strict=True)]
        )

    def __call__(
        self, x: Float[Array, "b n i"], mask: Bool[Array, "b n"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b n c"]:
        """Features, 0 for padding; dropout where a key is given."""
        for layer, k in zip(self.layers, split_key(key, len(self.layers)), strict=True):
            x = jnp.where(mask[..., None], x, 0)
            x = dropout(jax.nn.relu(layer(x)), self.cfg.dropout, k)
        return jnp.where(mask[..., None], x, 0)

"""The network of pairs: MASSA and the published head of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.heads import Affinity, Complex, Kinase
from jaxprot.massa.ligand import Ligand
from jaxprot.massa.model import MASSA
from jaxprot.massa.tasks.finetune import bare
from jaxprot.massa.tasks.pair_batches import Chain
from jaxprot.massa.tasks.pair_tables import Partner
from jaxprot.nn.gvp import split_key

NETWORK = "massa-pairs"
"""What exported weights call the network."""


class PairNetwork(nnx.Module):
    """MASSA and the head of a kind of pairs.

    Args:
      cfg: sizes of the backbone.
      partner: what the partners are.
      classes: outputs of the head; 0 for a number.
      rngs: for the weights.
    """

    def __init__(self, cfg: MASSAConfig, partner: Partner, classes: int, *, rngs: Any):
        self.cfg, self.classes = cfg, classes
        self.backbone = MASSA(cfg, rngs=rngs)
        self.head: Complex | Kinase | Affinity
        if partner == "sequence2":
            self.head = Complex(cfg, rngs=rngs)
        else:
            self.head = Kinase(cfg, classes, rngs=rngs) if classes else Affinity(cfg, rngs=rngs)

    def __call__(self, chain: Chain, partner: Chain | Ligand, key: PRNGKeyArray | None = None) -> Array:
        """(b, classes) logits, or (b,) numbers; a key switches dropout on."""
        keys = split_key(key, 2)
        if isinstance(partner, Chain):
            # Both go through the backbone at once, so that it is compiled and run once.
            seq, mask = (jnp.concatenate(both) for both in zip(chain, partner, strict=True))
            x, other = jnp.split(self.backbone(bare(seq, mask, self.cfg), keys[0]).protein, 2)
            return self.head(x, chain.mask, other, partner.mask, keys[1])
        x = self.backbone(bare(chain.seq, chain.mask, self.cfg), keys[0]).protein
        if self.classes:
            return self.head(x, chain.mask, partner, key=keys[1])
        # With the key that the backbone gives its sequence encoder, this is what it computed (the compiler joins them).
        before = self.backbone.sequence(chain.seq, chain.mask, split_key(keys[0], 5)[0])
        return self.head(x, chain.mask, before, partner, keys[1])


def readable(found: np.ndarray, kind: str, scale: Sequence[float]) -> np.ndarray:
    """What a user reads, from what the head gives."""
    found = found.astype(np.float64)
    if kind == "classes":
        shares = np.exp(found - found.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)
    return found * scale[1] + scale[0]

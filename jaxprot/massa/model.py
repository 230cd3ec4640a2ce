"""MASSA: residues from sequence and structure, GO terms from function, each told of the other.

F. Hu et al., Advanced Science 2023, doi 10.1002/advs.202301223. Arrays have a batch axis in front: residues are
(b, n, c), GO terms (b, g, c), masks are True for what exists. A key switches dropout on. A protein without structure
adds nothing to its residues' fusion, and one without GO terms is not attended to from them; `add_structure=False` and
`add_goterm=False` switch a modality off as the published code does, for all proteins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.featurize import EDGE_SCALARS, NODE_SCALARS, NODE_VECTORS, Features
from jaxprot.nn.gvp import GVP, GVPLayer, GVPNorm, dropout, split_key

_MASKED = -1e10
_NO_STRUCTURE = -1e-8  # what the published code puts where structures are switched off
_xavier = nnx.initializers.xavier_uniform()


class Encoded(NamedTuple):
    """What the network knows of proteins.

    Attributes:
      protein: residues (b, n, c).
      go: GO terms (b, g, d).
      sequence: residues as the sequence encoder alone knows them (b, n, c).
    """

    protein: Array
    go: Array
    sequence: Array | None = None


def _linear(inputs: int, outputs: int, rngs: Any) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=_xavier, rngs=rngs)


def _norm(width: int, rngs: Any) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def span(mask: Bool[Array, "b n"]) -> Bool[Array, "b n"]:
    """Places up to the last one that any example of the batch uses: those that exist without buckets."""
    used = jnp.any(mask, 0)
    last = jnp.max(jnp.where(used, jnp.arange(mask.shape[1]), 0))
    return jnp.broadcast_to(jnp.arange(mask.shape[1])[None] <= last, mask.shape)


class Attention(nnx.Module):
    """Of several heads; queries from `x`, keys and values from `source`."""

    def __init__(self, width: int, heads: int, rate: float, *, rngs: Any):
        self.heads, self.rate = heads, rate
        self.q, self.k, self.v, self.out = (_linear(width, width, rngs) for _ in range(4))

    def __call__(
        self,
        x: Float[Array, "b q c"],
        source: Float[Array, "b k c"],
        mask: Bool[Array, "b k"],
        exists: Bool[Array, "b k"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b q c"]:
        q, k, v = (
            layer(y).reshape(*y.shape[:2], self.heads, -1)
            for layer, y in ((self.q, x), (self.k, source), (self.v, source))
        )
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        # Keys that are masked share the attention evenly where all are; those that do not exist never get any.
        logits = jnp.where(mask[:, None, None], logits, _MASKED)
        if exists is not None:
            logits = jnp.where(exists[:, None, None], logits, -jnp.inf)
        weights = dropout(jax.nn.softmax(logits, -1), self.rate, key)
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class FeedForward(nnx.Module):
    """Two linears with a ReLU between."""

    def __init__(self, width: int, wide: int, rate: float, *, rngs: Any):
        self.rate = rate
        self.inner, self.outer = _linear(width, wide, rngs), _linear(wide, width, rngs)

    def __call__(self, x: Float[Array, "b n c"], key: PRNGKeyArray | None = None) -> Float[Array, "b n c"]:
        return self.outer(dropout(jax.nn.relu(self.inner(x)), self.rate, key))


class EncoderLayer(nnx.Module):
    """Attention and feed-forward with residuals; as published, one norm serves both."""

    def __init__(self, width: int, heads: int, wide: int, rate: float, *, rngs: Any):
        self.rate = rate
        self.norm = _norm(width, rngs)
        self.own = Attention(width, heads, rate, rngs=rngs)
        self.forward = FeedForward(width, wide, rate, rngs=rngs)

    def __call__(self, x, mask, exists=None, key: PRNGKeyArray | None = None) -> Float[Array, "b n c"]:
        keys = split_key(key, 4)
        x = self.norm(x + dropout(self.own(x, x, mask, exists, keys[0]), self.rate, keys[1]))
        return self.norm(x + dropout(self.forward(x, keys[2]), self.rate, keys[3]))


class DecoderLayer(nnx.Module):
    """An encoder layer with attention to another modality in its middle; the same norm again."""

    def __init__(self, width: int, heads: int, wide: int, rate: float, *, rngs: Any):
        self.rate = rate
        self.norm = _norm(width, rngs)
        self.own = Attention(width, heads, rate, rngs=rngs)
        self.other = Attention(width, heads, rate, rngs=rngs)
        self.forward = FeedForward(width, wide, rate, rngs=rngs)

    def __call__(
        self, x, mask, source, source_mask, exists=None, source_exists=None, seen=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "b n c"]:
        keys = split_key(key, 6)
        x = self.norm(x + dropout(self.own(x, x, mask, exists, keys[0]), self.rate, keys[1]))
        told = self.other(x, source, source_mask, source_exists, keys[2])
        if seen is not None:  # examples whose other modality is missing hear nothing of it
            told = jnp.where(seen[:, None, None], told, 0)
        x = self.norm(x + dropout(told, self.rate, keys[3]))
        return self.norm(x + dropout(self.forward(x, keys[4]), self.rate, keys[5]))


class Convolution(nnx.Module):
    """Over residues, as a product for each place of the kernel (faster on CPU than the convolution of XLA)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: Any):
        self.kernel = nnx.Param(_xavier(rngs.params(), (size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "b n i"]) -> Float[Array, "b n o"]:
        kernel, n = self.kernel[...], x.shape[1]
        half = kernel.shape[0] // 2
        padded = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
        out = self.bias[...][None, None]
        for place in range(kernel.shape[0]):
            out = out + padded[:, place : place + n] @ kernel[place]
        return out


class SequenceEncoder(nnx.Module):
    """Embeddings of residues and their positions through gated convolutions."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.cfg = cfg
        self.position = nnx.Param(_xavier(rngs.params(), (cfg.max_length, cfg.seq_dim), jnp.float32))
        self.input = _linear(cfg.seq_dim, cfg.width, rngs)
        self.convolutions = nnx.List(
            [Convolution(cfg.width, 2 * cfg.width, cfg.kernel, rngs=rngs) for _ in range(cfg.convolutions)]
        )
        self.norm = _norm(cfg.width, rngs)

    def __call__(self, seq: Float[Array, "b n e"], mask: Bool[Array, "b n"], key: PRNGKeyArray | None = None) -> Array:
        keys = split_key(key, len(self.convolutions))
        keep = span(mask) if self.cfg.pad_mode == "official" else mask
        n, most = seq.shape[1], self.cfg.max_length
        position = self.position[...][: min(n, most)]
        position = jnp.pad(position, ((0, max(0, n - most)), (0, 0)))  # a bucket may be longer than the table
        x = self.input(seq + position[None])
        for layer, k in zip(self.convolutions, keys, strict=True):
            visible = jnp.where(keep[..., None], x, 0)
            a, b = jnp.split(layer(dropout(visible, self.cfg.sequence_dropout, k)), 2, -1)
            x = (a * jax.nn.sigmoid(b) + x) * 0.5**0.5
        return self.norm(x)


class StructureEncoder(nnx.Module):
    """Messages of geometric vector perceptrons over the backbone's graph."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        nodes, edges = (cfg.width, cfg.vectors), (EDGE_SCALARS, 1)
        self.node_norm = GVPNorm(NODE_SCALARS, rngs=rngs)
        self.node = GVP((NODE_SCALARS, NODE_VECTORS), nodes, rngs=rngs)
        self.edge_norm = GVPNorm(EDGE_SCALARS, rngs=rngs)
        self.edge = GVP(edges, edges, rngs=rngs)
        self.layers = nnx.List([GVPLayer(nodes, edges, cfg.structure_dropout, rngs=rngs) for _ in range(cfg.layers)])
        self.output_norm = GVPNorm(cfg.width, rngs=rngs)
        self.output = GVP(nodes, (cfg.width, 0), relu=True, rngs=rngs)
        self.norm = _norm(cfg.width, rngs)

    def __call__(self, features: Features, key: PRNGKeyArray | None = None) -> Float[Array, "b n c"]:
        keys = split_key(key, len(self.layers))
        x = self.node(*self.node_norm(features.node_s, features.node_v))
        edges = self.edge(*self.edge_norm(features.edge_s, features.edge_v))
        for layer, k in zip(self.layers, keys, strict=True):
            x = layer(x, edges, features.index, features.present, k)
        out = self.norm(self.output(*self.output_norm(*x))[0])
        return jnp.where((features.mask & features.has_structure[:, None])[..., None], out, 0)


class Fusion(nnx.Module):
    """Sequence and structure of each residue, then attention over residues."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        c = cfg.width
        self.input = _linear(2 * c, c, rngs)
        self.layers = nnx.List(
            [EncoderLayer(c, cfg.heads, cfg.feedforward, cfg.dropout, rngs=rngs) for _ in range(cfg.fusion_layers)]
        )
        self.norm = _norm(c, rngs)

    def __call__(self, sequence, structure, mask, exists=None, key: PRNGKeyArray | None = None):
        x = jax.nn.relu(self.input(jnp.concatenate([sequence, structure], -1)))
        for layer, k in zip(self.layers, split_key(key, len(self.layers)), strict=True):
            x = layer(x, mask, exists, k)
        return self.norm(x)


class GOEncoder(nnx.Module):
    """Attention over the GO terms of a protein, in any order."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        c = cfg.go_width
        self.input = _linear(cfg.go_dim, c, rngs)
        self.layers = nnx.List(
            [EncoderLayer(c, cfg.go_heads, cfg.go_feedforward, cfg.dropout, rngs=rngs) for _ in range(cfg.go_layers)]
        )
        self.norm = _norm(c, rngs)

    def __call__(self, go, mask, exists=None, key: PRNGKeyArray | None = None) -> Float[Array, "b g d"]:
        x = self.input(go)
        for layer, k in zip(self.layers, split_key(key, len(self.layers)), strict=True):
            x = layer(x, mask, exists, k)
        return self.norm(x)


class CrossFusion(nnx.Module):
    """Residues and GO terms attend to each other."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.cfg = cfg
        c, d, n = cfg.width, cfg.go_width, cfg.live_layers
        self.to_protein, self.to_go = _linear(d, c, rngs), _linear(c, d, rngs)
        self.protein = nnx.List([DecoderLayer(c, cfg.heads, cfg.feedforward, cfg.dropout, rngs=rngs) for _ in range(n)])
        self.go = nnx.List(
            [DecoderLayer(d, cfg.go_heads, cfg.go_feedforward, cfg.dropout, rngs=rngs) for _ in range(n)]
        )

    def __call__(self, protein, mask, go, go_mask, exists, go_exists, seen, key: PRNGKeyArray | None = None) -> Encoded:
        keys = split_key(key, 2 * len(self.protein))
        x, y = protein, go
        for number, (of_protein, of_go) in enumerate(zip(self.protein, self.go, strict=True)):
            from_go, from_protein = self.to_protein(y), self.to_go(x)
            pair = keys[2 * number : 2 * number + 2]
            x = of_protein(x, mask, from_go, go_mask, exists, go_exists, seen, pair[0])
            y = of_go(y, go_mask, from_protein, mask, go_exists, exists, None, pair[1])
        return Encoded(x, y)


class MASSA(nnx.Module):
    """The network without heads: residues and GO terms of proteins.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.cfg = cfg
        self.sequence = SequenceEncoder(cfg, rngs=rngs)
        self.structure = StructureEncoder(cfg, rngs=rngs)
        self.fusion = Fusion(cfg, rngs=rngs)
        self.function = GOEncoder(cfg, rngs=rngs)
        self.cross = CrossFusion(cfg, rngs=rngs)

    def __call__(
        self,
        features: Features,
        key: PRNGKeyArray | None = None,
        *,
        add_structure: bool = True,
        add_goterm: bool = True,
    ) -> Encoded:
        keys = split_key(key, 5)
        features = jax.tree.map(jnp.asarray, features)
        mask, go_mask = features.mask, features.go_mask
        seen: Array | None = jnp.any(go_mask, 1)
        go_exists = None
        if not add_goterm:
            # As published: no term is told from padding, so that attention is even over all slots of the batch.
            go_exists, go_mask, seen = span(go_mask), jnp.zeros_like(go_mask), None
        sequence = self.sequence(features.seq, mask, keys[0])
        if add_structure and features.index.shape[-1] == 0:
            structure = jnp.zeros_like(sequence)  # no slots for neighbours: no protein of the batch has a structure
        elif add_structure:
            structure = self.structure(features, keys[1])
        else:
            structure = jnp.full_like(sequence, _NO_STRUCTURE)
        protein = self.fusion(sequence, structure, mask, None, keys[2])
        go = self.function(features.go, go_mask, go_exists, keys[3])
        fused = self.cross(protein, mask, go, go_mask, None, go_exists, seen, keys[4])
        return fused._replace(sequence=sequence)


class Pretraining(nnx.Module):
    """The network with its heads: classes of residues, GO terms, motifs, domains and regions.

    Heads of local structure (`secondary`, `torsion`, `burial`), which the published network lacks, where `cfg` has any.

    Args:
      cfg: sizes.
      rngs: for the weights.
    """

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.backbone = MASSA(cfg, rngs=rngs)
        self.heads = nnx.Dict(
            {name: _linear(cfg.go_width if name == "go" else cfg.width, n, rngs) for name, n in cfg.classes.items()}
        )

    def logits(self, encoded: Encoded) -> dict[str, Array]:
        """Of each head: `pro`, `motif`, `domain`, `region` (b, n, classes) and `go` (b, g, classes)."""
        return {name: head(encoded.go if name == "go" else encoded.protein) for name, head in self.heads.items()}

    def __call__(self, features: Features, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        return self.logits(self.backbone(features, key))

"""ProteinMPNN as Flax NNX modules (Dauparas et al., Science 2022, doi 10.1126/science.add2187).

Every function takes one structure; batches come from `jax.vmap`. The network computes in the type of its weights, the
geometry before it and the log-probabilities after it in float32. Two exact rearrangements make it fast: the first
linear of each message is split into per-node and per-edge parts, and the last linear is applied after the sum over
neighbours instead of before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxprot.proteinmpnn import geometry
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.decoding import visible_by_rank
from jaxprot.proteinmpnn.featurize import LABELS, Features, LabelledFeatures

VOCABULARY = 21
_xavier = nnx.initializers.xavier_uniform()


class Encoded(NamedTuple):
    """What the encoder knows of a backbone.

    Attributes:
      nodes: residue states (n, c).
      edges: states of the k edges of each residue (n, k, c).
      index: neighbour of each edge (n, k).
      valid: 1 where the neighbour is a residue, 0 where it is padding (n, k).
      mask: 1 where the residue is resolved (n,).
    """

    nodes: Array
    edges: Array
    index: Array
    valid: Array
    mask: Array


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def _norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def _linear(n_in: int, n_out: int, rngs: nnx.Rngs, *, use_bias: bool = True) -> nnx.Linear:
    return nnx.Linear(n_in, n_out, use_bias=use_bias, kernel_init=_xavier, rngs=rngs)


def dropout(x: Array, rate: float, key: PRNGKeyArray | None) -> Array:
    """Inverted dropout; no key means evaluation.

    Random bytes decide, so the rate is rounded to 1/256 (and the scale with it): on CPU the draws of whole
    floats took a fifth of a training step.
    """
    if key is None or rate == 0.0:
        return x
    dropped = max(1, round(256 * rate))
    keep = jax.random.bits(key, x.shape, jnp.uint8) >= dropped
    return jnp.where(keep, x * (256 / (256 - dropped)), 0.0)


def _split(key: PRNGKeyArray | None, n: int) -> list[PRNGKeyArray | None]:
    return [None] * n if key is None else list(jax.random.split(key, n))


class EdgeFeatures(nnx.Module):
    """Geometry and sequence offset of each edge, embedded and normalised; so are labels of residues, where read."""

    def __init__(self, cfg: ProteinMPNNConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        geometric = 9 * cfg.rbf + 7 if cfg.ca_only else 25 * cfg.rbf
        self.positional = _linear(2 * cfg.max_offset + 2, cfg.positional, rngs)
        self.embedding = _linear(cfg.positional + geometric, cfg.width, rngs, use_bias=False)
        self.norm = _norm(cfg.width, rngs)
        if cfg.node_labels:
            self.labels = _linear(len(LABELS), cfg.width, rngs, use_bias=False)
            self.label_norm = _norm(cfg.width, rngs)

    def graph(self, features: Features):
        """Neighbour distances, indices and validity."""
        real = features.chain_encoding > 0
        return geometry.neighbour_graph(features.X[:, 1], features.mask, real, self.cfg.neighbours)

    def raw(self, features: Features, distance: Float[Array, "n k"], index: Int[Array, "n k"]):
        """Geometric channels (n, k, f) and offset classes (n, k)."""
        cfg = self.cfg
        if cfg.ca_only:
            real = features.chain_encoding > 0
            geometric = geometry.ca_features(features.X[:, 1], distance, index, real, cfg.rbf)
        else:
            geometric = geometry.backbone_rbf(features.X, distance, index, cfg.rbf)
        offset = geometry.offset_class(features.residue_idx, features.chain_encoding, index, cfg.max_offset)
        return geometric, offset

    def __call__(self, features: Features, distance: Float[Array, "n k"], index: Int[Array, "n k"]):
        geometric, offset = self.raw(features, distance, index)
        kernel = self.embedding.kernel[...]
        n = self.cfg.positional
        # The one-hot offset passes two linear maps: one table of 66 rows, looked up.
        table = (self.positional.kernel[...] + self.positional.bias[...][None]) @ kernel[:n]
        return self.norm(geometric.astype(kernel.dtype) @ kernel[n:] + table[offset])

    def nodes(self, features: Features | LabelledFeatures) -> Float[Array, "n c"] | None:
        """Embedded labels of the residues, None where the network reads none.

        Raises:
          ValueError: labels where the network reads none, or none where it reads some.
        """
        given = getattr(features, "labels", None)
        if self.cfg.node_labels == 0:
            if given is not None:
                raise ValueError("labels of residues for a network that reads none")
            return None
        if given is None:
            raise ValueError("this network reads labels of residues; give LabelledFeatures")
        # Each residue has one label, so there are as many rows to normalise as labels.
        return self.label_norm(self.labels.kernel[...])[given]


class FeedForward(nnx.Module):
    """Two linears with a GELU between, four times as wide inside."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.w_in = _linear(width, 4 * width, rngs)
        self.w_out = _linear(4 * width, width, rngs)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        return self.w_out(_gelu(self.w_in(x)))


class EncoderLayer(nnx.Module):
    """One round of messages over the backbone graph, then an update of the edges."""

    def __init__(self, cfg: ProteinMPNNConfig, *, rngs: nnx.Rngs):
        c = cfg.width
        self.scale, self.rate = cfg.message_scale, cfg.dropout
        self.norm1, self.norm2, self.norm3 = (_norm(c, rngs) for _ in range(3))
        self.w1, self.w2, self.w3 = _linear(3 * c, c, rngs), _linear(c, c, rngs), _linear(c, c, rngs)
        self.w11, self.w12, self.w13 = _linear(3 * c, c, rngs), _linear(c, c, rngs), _linear(c, c, rngs)
        self.ffn = FeedForward(c, rngs=rngs)

    @staticmethod
    def _first(linear: nnx.Linear, nodes: Array, edges: Array, index: Array) -> Array:
        """The linear on [node i | edge | node j], computed per node and gathered."""
        c = nodes.shape[-1]
        kernel = linear.kernel[...]
        own = nodes @ kernel[:c] + linear.bias[...][None]
        return own[:, None] + edges @ kernel[c : 2 * c] + (nodes @ kernel[2 * c :])[index]

    def __call__(self, nodes, edges, index, attend, mask, key: PRNGKeyArray | None = None):
        keys = _split(key, 3)
        hidden = _gelu(self._first(self.w1, nodes, edges, index))
        hidden = _gelu(self.w2(hidden))
        pooled = jnp.einsum("nkc,nk->nc", hidden, attend)
        update = pooled @ self.w3.kernel[...] + jnp.sum(attend, axis=1, keepdims=True) * self.w3.bias[...][None]
        nodes = self.norm1(nodes + dropout(update / self.scale, self.rate, keys[0]))
        nodes = self.norm2(nodes + dropout(self.ffn(nodes), self.rate, keys[1])) * mask[:, None]
        hidden = _gelu(self._first(self.w11, nodes, edges, index))
        message = self.w13(_gelu(self.w12(hidden)))
        return nodes, self.norm3(edges + dropout(message, self.rate, keys[2]))


class DecoderLayer(nnx.Module):
    """One round of messages that carry the visible letters.

    A neighbour that is visible sends its letter and its current state; another sends its encoder state alone.
    """

    def __init__(self, cfg: ProteinMPNNConfig, *, rngs: nnx.Rngs):
        c = cfg.width
        self.scale, self.rate = cfg.message_scale, cfg.dropout
        self.norm1, self.norm2 = _norm(c, rngs), _norm(c, rngs)
        self.w1, self.w2, self.w3 = _linear(4 * c, c, rngs), _linear(c, c, rngs), _linear(c, c, rngs)
        self.ffn = FeedForward(c, rngs=rngs)

    def parts(self) -> tuple[Array, Array, Array, Array]:
        """Blocks of the first kernel: own node, edge, neighbour's letter, neighbour's node."""
        return tuple(jnp.split(self.w1.kernel[...], 4, axis=0))

    def update(self, nodes, before, valid, mask, key: PRNGKeyArray | None = None):
        """The layer after its first linear: `before` (…, n, k, c) is that linear's output."""
        keys = _split(key, 2)
        hidden = _gelu(self.w2(_gelu(before)))
        pooled = jnp.einsum("nkc,nk->nc", hidden, valid)
        update = pooled @ self.w3.kernel[...] + jnp.sum(valid, axis=1, keepdims=True) * self.w3.bias[...][None]
        nodes = self.norm1(nodes + dropout(update / self.scale, self.rate, keys[0]))
        return self.norm2(nodes + dropout(self.ffn(nodes), self.rate, keys[1])) * mask[:, None]

    def __call__(self, nodes, encoded: Encoded, letters, visible, key: PRNGKeyArray | None = None):
        k_own, k_edge, k_letter, k_node = self.parts()
        n = nodes.shape[0]
        hidden_part = encoded.nodes @ k_node
        shown_part = nodes @ k_node + letters @ k_letter
        table = jnp.concatenate([hidden_part, shown_part])
        sent = table[encoded.index + n * visible.astype(encoded.index.dtype)]
        own = nodes @ k_own + self.w1.bias[...][None]
        return self.update(nodes, own[:, None] + encoded.edges @ k_edge + sent, encoded.valid, encoded.mask, key)


class ProteinMPNN(nnx.Module):
    """Backbone encoder and order-agnostic sequence decoder.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: ProteinMPNNConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.features = EdgeFeatures(cfg, rngs=rngs)
        self.edge_projection = _linear(cfg.width, cfg.width, rngs)
        if cfg.node_labels:
            self.node_projection = _linear(cfg.width, cfg.width, rngs)
        self.letters = nnx.Embed(VOCABULARY, cfg.width, embedding_init=_xavier, rngs=rngs)
        self.encoder = nnx.List([EncoderLayer(cfg, rngs=rngs) for _ in range(cfg.encoder_layers)])
        self.decoder = nnx.List([DecoderLayer(cfg, rngs=rngs) for _ in range(cfg.decoder_layers)])
        self.output = _linear(cfg.width, VOCABULARY, rngs)

    def embed_letters(self, sequence: Int[Array, "n"]) -> Float[Array, "n c"]:
        """Letter embeddings of a sequence in the alphabet ACDEFGHIKLMNPQRSTVWYX."""
        return self.letters.embedding[...][jnp.asarray(sequence)]

    def encode(self, features: Features | LabelledFeatures, key: PRNGKeyArray | None = None) -> Encoded:
        """Encode one backbone; a key switches dropout on."""
        keys = _split(key, len(self.encoder))
        features = jax.tree.map(jnp.asarray, features)
        distance, index, valid = self.features.graph(features)
        edges = self.edge_projection(self.features(features, distance, index))
        mask = features.mask.astype(edges.dtype)
        valid = valid.astype(edges.dtype)
        attend = mask[:, None] * mask[index] * valid
        labels = self.features.nodes(features)
        if labels is None:
            nodes = jnp.zeros((mask.shape[0], self.cfg.width), edges.dtype)
        else:
            nodes = self.node_projection(labels)
        for layer, k in zip(self.encoder, keys, strict=True):
            nodes, edges = layer(nodes, edges, index, attend, mask, k)
        return Encoded(nodes, edges, index, valid, mask)

    def decode(
        self, encoded: Encoded, sequence: Int[Array, "n"], visible: Array, key: PRNGKeyArray | None = None
    ) -> list[Float[Array, "n c"]]:
        """Residue states after each decoder layer.

        Args:
          encoded: the backbone.
          sequence: letters, shown only where visible.
          visible: (n, k), 1 where the edge's neighbour shows its letter.
          key: switches dropout on.
        """
        keys = _split(key, len(self.decoder))
        letters = self.embed_letters(sequence)
        nodes, states = encoded.nodes, []
        for layer, k in zip(self.decoder, keys, strict=True):
            nodes = layer(nodes, encoded, letters, visible, k)
            states.append(nodes)
        return states

    def log_probs(self, nodes: Float[Array, "n c"]) -> Float[Array, "n 21"]:
        """Log-probabilities of the 21 letters from the last decoder state."""
        return jax.nn.log_softmax(self.output(nodes).astype(jnp.float32))

    def __call__(
        self, features: Features | LabelledFeatures, rank: Int[Array, "n"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n 21"]:
        """Teacher-forced log-probabilities, each residue seeing those of lower rank in the decoding order."""
        k_encode, k_decode = _split(key, 2)
        encoded = self.encode(features, k_encode)
        visible = visible_by_rank(rank, encoded.index)
        return self.log_probs(self.decode(encoded, features.S, visible, k_decode)[-1])

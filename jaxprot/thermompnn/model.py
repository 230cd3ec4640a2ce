"""ThermoMPNN (PNAS 2024, doi 10.1073/pnas.2314853121) and ThermoMPNN-D (doi 10.1002/pro.70003) as NNX modules.

Sign: ddG in kcal/mol, positive = destabilising.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxprot.proteinmpnn.featurize import Features
from jaxprot.proteinmpnn.model import Encoded, ProteinMPNN, dropout
from jaxprot.thermompnn.config import ThermoMPNNConfig

LETTERS = 20


class SingleHead(nnx.Module):
    """Stability of all 21 letters at a residue, from its vector.

    The published light attention acts on one residue at a time, where its softmax is 1 and only the centre tap of
    its convolution sees data: it is exactly the linear `value`.
    """

    def __init__(self, cfg: ThermoMPNNConfig, *, rngs: nnx.Rngs):
        self.rate = cfg.dropout
        self.value = nnx.Linear(cfg.width, cfg.width, rngs=rngs)
        sizes = (cfg.width, *cfg.hidden, 21)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in zip(sizes[:-1], sizes[1:], strict=True)])
        self.scale = nnx.Linear(1, 1, rngs=rngs) if cfg.scalar_output else None

    def attended(self, vectors: Float[Array, "n w"]) -> Float[Array, "n w"]:
        """Output of the light attention."""
        return self.value(vectors)

    def raw(self, attended: Float[Array, "n w"]) -> Float[Array, "n 21"]:
        """Output of the perceptron, before the scalar linear."""
        x = attended
        for layer in self.layers:
            x = layer(jax.nn.relu(x))
        return x

    def __call__(self, vectors: Float[Array, "n w"], key: PRNGKeyArray | None = None) -> Float[Array, "n 21"]:
        raw = self.raw(dropout(self.attended(vectors), self.rate, key))
        return raw if self.scale is None else self.scale(raw[..., None])[..., 0]


class PairHead(nnx.Module):
    """Stability of a double mutant from its two mutations, in both orders."""

    def __init__(self, cfg: ThermoMPNNConfig, *, rngs: nnx.Rngs):
        c, width = cfg.pair_width, cfg.width + cfg.backbone.width
        self.rate = cfg.dropout
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.projection = nnx.Linear(width, c, rngs=rngs)
        sizes = (2 * c, c, c, 1)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in zip(sizes[:-1], sizes[1:], strict=True)])

    def embed(self, vectors: Float[Array, "p w"]) -> Float[Array, "p c"]:
        """Embedding of a mutation next to its partner."""
        return jax.nn.relu(self.projection(self.norm(vectors)))

    def ordered(self, first: Float[Array, "p c"], second: Float[Array, "p c"]) -> Float[Array, "p"]:
        """Stability change of the pair in one order."""
        x = self.layers[0](jnp.concatenate([first, second], axis=-1))
        for layer in list(self.layers)[1:]:
            x = layer(jax.nn.relu(x))
        return x[..., 0]

    def __call__(self, first: Float[Array, "p c"], second: Float[Array, "p c"]) -> Float[Array, "p"]:
        return 0.5 * (self.ordered(first, second) + self.ordered(second, first))


def decode_others(
    backbone: ProteinMPNN, encoded: Encoded, sequence: Int[Array, "n"], key: PRNGKeyArray | None = None
) -> list[Float[Array, "n c"]]:
    """Residue states after each decoder layer, none of which depends on the residue's own letter.

    A neighbour sends its letter and its encoder state in every layer: its decoder states have seen the letters
    around it, the receiving residue's among them.
    """
    keys = [None] * len(backbone.decoder) if key is None else list(jax.random.split(key, len(backbone.decoder)))
    letters = backbone.embed_letters(sequence)
    itself = encoded.index == jnp.arange(encoded.index.shape[0])[:, None]
    nodes, states = encoded.nodes, []
    for layer, k in zip(backbone.decoder, keys, strict=True):
        k_own, k_edge, k_letter, k_node = layer.parts()
        hidden = encoded.nodes @ k_node
        # One table of both kinds, looked up once: the residue itself sends no letter.
        sent = jnp.concatenate([hidden, hidden + letters @ k_letter])[encoded.index + len(letters) * ~itself]
        own = nodes @ k_own + layer.w1.bias[...][None]
        nodes = layer.update(nodes, own[:, None] + encoded.edges @ k_edge + sent, encoded.valid, encoded.mask, k)
        states.append(nodes)
    return states


class ThermoMPNN(nnx.Module):
    """One all-visible pass of ProteinMPNN, and a head on its residue states.

    Args:
      cfg: sizes and kind of head.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: ThermoMPNNConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.backbone = ProteinMPNN(cfg.backbone, rngs=rngs)
        self.head = SingleHead(cfg, rngs=rngs) if cfg.kind == "single" else PairHead(cfg, rngs=rngs)
        # Beside `head`, so that weights of one member keep the names of the published layout.
        self.further = nnx.List([SingleHead(cfg, rngs=rngs) for _ in range(cfg.members - 1)])
        self.prior = nnx.Param(jnp.full((1,), 0.5, jnp.float32)) if cfg.prior else None

    def states(
        self, features: Features, key: PRNGKeyArray | None = None
    ) -> tuple[Encoded, list[Float[Array, "n c"]], Float[Array, "n c"]]:
        """Encoded backbone, decoder states with the wild-type sequence fully visible, and letter embeddings."""
        k_encode, k_decode = (None, None) if key is None else jax.random.split(key)
        encoded = self.backbone.encode(features, k_encode)
        if self.cfg.own_letter:
            visible = jnp.ones(encoded.index.shape, jnp.int32)
            states = self.backbone.decode(encoded, features.S, visible, k_decode)
        else:
            states = decode_others(self.backbone, encoded, features.S, k_decode)
        return encoded, states, self.backbone.embed_letters(features.S)

    def residue_vectors(self, states: list[Array], letters: Array) -> Float[Array, "n w"]:
        """[last decoder layer | … | letter] of each residue; no letter where the model does not see it."""
        own = [letters] if self.cfg.own_letter else []
        return jnp.concatenate([*states[::-1][: self.cfg.final_layers], *own], axis=-1)

    def member_ddg(self, features: Features, key: PRNGKeyArray | None = None) -> Float[Array, "m n 20"]:
        """As `ddg`, by each member of the ensemble of heads."""
        k_states, k_head = (None, None) if key is None else jax.random.split(key)
        _, states, letters = self.states(features, k_states)
        vectors, heads = self.residue_vectors(states, letters), [self.head, *self.further]
        keys = [k_head] if k_head is None or len(heads) == 1 else list(jax.random.split(k_head, len(heads)))
        keys = keys * len(heads) if len(keys) == 1 else keys
        u = jnp.stack([head(vectors, k).astype(jnp.float32) for head, k in zip(heads, keys, strict=True)])
        if self.prior is not None:
            u = u - (self.prior[...][0] * self.backbone.log_probs(states[-1]))[None]
        return u[..., :LETTERS] - jnp.take_along_axis(u, features.S[None, :, None], axis=-1)

    def ddg(self, features: Features, key: PRNGKeyArray | None = None) -> Float[Array, "n 20"]:
        """Site-saturation ddG in kcal/mol of the single head: u[mutant] - u[wild type].

        Args:
          features: one structure.
          key: switches dropout on.
        """
        return jnp.mean(self.member_ddg(features, key), axis=0)

    def zero_shot(self, features: Features) -> Float[Array, "n 20"]:
        """-log p(mutant) of the all-visible pass: the paper's ProteinMPNN baseline (no unit)."""
        _, states, _ = self.states(features)
        return -self.backbone.log_probs(states[-1])[:, :LETTERS]

    def pair_inputs(self, features: Features) -> tuple[Array, Array, Array]:
        """What the epistatic head reads: residue vectors (n, w - c), wild-type letters (n, c) and `Encoded`."""
        encoded, states, letters = self.states(features)
        return jnp.concatenate(states[::-1][: self.cfg.final_layers], axis=-1), letters, encoded

    def epistatic(
        self,
        inputs: tuple[Array, Array, Encoded],
        positions: Int[Array, "p 2"],
        mutants: Int[Array, "p 2"],
    ) -> Float[Array, "p"]:
        """ddG in kcal/mol of double mutants.

        Args:
          inputs: from `pair_inputs`.
          positions: residues of the two mutations.
          mutants: their letters.
        """
        nodes, letters, encoded = inputs
        table = self.backbone.letters.embedding[...]

        def vector(p, a, q):
            found = (encoded.index[p] == q[:, None]) & (encoded.valid[p] > 0)
            edge = jnp.einsum("pk,pkc->pc", found.astype(encoded.edges.dtype), encoded.edges[p])
            return jnp.concatenate([nodes[p], letters[p] - table[a], edge], axis=-1)

        first = self.head.embed(vector(positions[:, 0], mutants[:, 0], positions[:, 1]))
        second = self.head.embed(vector(positions[:, 1], mutants[:, 1], positions[:, 0]))
        return self.head(first, second)

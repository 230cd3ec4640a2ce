"""ESM-2 as Flax NNX modules (Lin et al., Science 2023, doi 10.1126/science.ade2574).

Every function takes one sequence; batches come from `jax.vmap`. The blocks are one loop over stacked weights, so that
48 of them compile as fast as one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxprot.esm2.config import ESM2Config
from jaxprot.esm2.tokens import CLS, EOS, MASK, PAD, VOCABULARY

_EPS = 1e-5
_MASKED_IN_TRAINING = 0.15 * 0.8  # share of tokens that training replaced by the mask
_init = nnx.initializers.lecun_normal()


class Linear(nnx.Module):
    """A linear map, or one for each of several layers."""

    def __init__(self, n_in: int, n_out: int, layers: int | None = None, *, rngs: nnx.Rngs):
        stack = () if layers is None else (layers,)
        init = _init if layers is None else nnx.initializers.lecun_normal(batch_axis=(0,))
        self.kernel = nnx.Param(init(rngs.params(), (*stack, n_in, n_out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, n_out)))


class Norm(nnx.Module):
    """Scale and offset of a layer normalisation, or of several."""

    def __init__(self, width: int, layers: int | None = None):
        stack = () if layers is None else (layers,)
        self.scale = nnx.Param(jnp.ones((*stack, width)))
        self.bias = nnx.Param(jnp.zeros((*stack, width)))


def _parts(module: nnx.Module) -> dict[str, Array]:
    names = ("kernel", "bias") if isinstance(module, Linear) else ("scale", "bias")
    return {name: getattr(module, name)[...] for name in names}


def _linear(p: dict[str, Array], x: Array) -> Array:
    return x @ p["kernel"] + p["bias"][None, :]


def _norm(p: dict[str, Array], x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + _EPS)
    return x * p["scale"][None, :] + p["bias"][None, :]


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def rotated(x: Float[Array, "n h d"]) -> Float[Array, "n h d"]:
    """Rotary position embedding over all channels of a head (Su et al., 2021), halves paired."""
    n, _, d = x.shape
    frequency = 10000.0 ** (-jnp.arange(0, d, 2, dtype=jnp.float32) / d)
    angle = jnp.arange(n, dtype=jnp.float32)[:, None] * frequency[None, :]
    cos, sin = (f(angle)[:, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = x[..., : d // 2], x[..., d // 2 :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class Output(NamedTuple):
    """What the blocks give.

    Attributes:
      last: states after the last block and its normalisation (n, c).
      kept: states after the block that was asked for (n, c).
      attention: of all heads (layers, h, n, n); no work where it is not used.
    """

    last: Array
    kept: Array
    attention: Array


class ESM2(nnx.Module):
    """The network.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: ESM2Config, *, rngs: nnx.Rngs):
        self.cfg = cfg
        width, layers = cfg.width, cfg.layers
        self.embedding = nnx.Param(_init(rngs.params(), (VOCABULARY, width), jnp.float32))
        self.blocks = nnx.Dict(
            {name: Linear(width, width, layers, rngs=rngs) for name in ("q", "k", "v", "out")}
            | {"fc1": Linear(width, 4 * width, layers, rngs=rngs), "fc2": Linear(4 * width, width, layers, rngs=rngs)}
            | {name: Norm(width, layers) for name in ("attention_norm", "norm")}
        )
        self.norm = Norm(width)
        if cfg.lm_head:
            self.head = nnx.Dict(dense=Linear(width, width, rngs=rngs), norm=Norm(width))
            self.head_bias = nnx.Param(jnp.zeros(VOCABULARY))
        if cfg.contacts:
            self.contact = Linear(layers * cfg.heads, 1, rngs=rngs)

    def embed(self, tokens: Int[Array, "n"]) -> Float[Array, "n c"]:
        """States before the first block."""
        x = self.embedding[...][tokens]
        real = tokens != PAD
        if self.cfg.token_dropout:
            masked = tokens == MASK
            x = jnp.where(masked[:, None], 0, x)
            share = masked.sum() / jnp.maximum(real.sum(), 1)
            # A sequence of masks alone has states of 0, which no scale changes.
            x = x * ((1 - _MASKED_IN_TRAINING) / jnp.maximum(1 - share, 1e-6)).astype(x.dtype)
        return jnp.where(real[:, None], x, 0)

    def __call__(self, tokens: Int[Array, "n"], keep: Int[Array, ""] | int = 0) -> Output:
        cfg, (n,) = self.cfg, tokens.shape
        d = cfg.width // cfg.heads
        real = tokens != PAD

        def block(carry: tuple, layer: dict[str, Any]) -> tuple:
            x, kept, number = carry
            y = _norm(layer["attention_norm"], x)
            q, k, v = (_linear(layer[name], y).reshape(n, cfg.heads, d) for name in ("q", "k", "v"))
            scores = jnp.einsum("ihd,jhd->hij", rotated(q * d**-0.5), rotated(k))
            attention = jax.nn.softmax(jnp.where(real[None, None, :], scores, -jnp.inf), -1)
            x = x + _linear(layer["out"], jnp.einsum("hij,jhd->ihd", attention, v).reshape(n, cfg.width))
            y = _gelu(_linear(layer["fc1"], _norm(layer["norm"], x)))
            x = x + _linear(layer["fc2"], y)
            number = number + 1
            return (x, jnp.where(number == keep, x, kept), number), attention

        x = self.embed(tokens)
        stacked = {name: _parts(part) for name, part in self.blocks.items()}
        (x, kept, _), attention = jax.lax.scan(block, (x, x, jnp.int32(0)), stacked)
        last = _norm(_parts(self.norm), x)
        return Output(last, jnp.where(jnp.asarray(keep) == cfg.layers, last, kept), attention)

    def logits(self, last: Float[Array, "n c"]) -> Float[Array, "n 33"]:
        """Scores of the vocabulary, from the last states."""
        x = _norm(_parts(self.head["norm"]), _gelu(_linear(_parts(self.head["dense"]), last)))
        return x @ self.embedding[...].T + self.head_bias[...][None, :]

    def contact_logits(self, tokens: Int[Array, "n"], attention: Float[Array, "l h n n"]) -> Float[Array, "n n"]:
        """Logit of the chance that two residues touch (CB closer than 8 Å), at the places of their tokens.

        Logistic regression on attention, made symmetric and corrected for its average product (Rao et al., ICLR 2021).
        """
        residue = (tokens != PAD) & (tokens != EOS) & (tokens != CLS)
        maps = attention.reshape(-1, *attention.shape[2:])
        maps = jnp.where(residue[None, :, None] & residue[None, None, :], maps, 0)
        maps = maps + maps.swapaxes(1, 2)
        rows = maps.sum(2)
        total = jnp.maximum(rows.sum(1), 1e-30)
        # The correction of each map is a product of vectors: it needs no second stack of maps.
        weights = self.contact.kernel[...][:, 0]
        average = (rows * (weights / total)[:, None]).T @ rows
        return jnp.einsum("hij,h->ij", maps, weights) - average + self.contact.bias[...][0]

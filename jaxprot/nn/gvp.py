"""Geometric vector perceptrons: layers that hold scalars and vectors, and turn vectors with the molecule.

B. Jing et al., ICLR 2021, arXiv 2009.01411. Scalars are (..., s), vectors (..., 3, v): the channels of both stand last,
so that every map of channels is one matrix product. Neighbours are a dense table, K per node.

Messages are computed with two exact rearrangements of the published equations. The first perceptron of a message is
linear in its two nodes up to the norms, so those parts are computed once per node and gathered. The last one has no
activation and is followed by a mean over the edges, so the mean is taken before its products instead of after them.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

_TINY = 1e-8  # least squared length of a vector
_xavier = nnx.initializers.xavier_uniform()

Pair = tuple[Array, Array]
"""Scalars (..., s) and vectors (..., 3, v)."""


def lengths(v: Float[Array, "*n 3 v"]) -> Float[Array, "*n v"]:
    """Lengths of vectors, at least 1e-4; a shorter one has no gradient."""
    return jnp.sqrt(jnp.maximum(jnp.sum(v * v, -2), _TINY))


def gather(x: Float[Array, "b n *c"], index: Int[Array, "b n k"]) -> Float[Array, "b n k *c"]:
    """Rows of each example's nodes by number."""
    batch, rows = x.shape[:2]
    # One flat gather: with a batch axis XLA on CPU walks the indices one by one.
    start = (jnp.arange(batch, dtype=index.dtype) * rows)[:, None, None]
    return x.reshape(batch * rows, *x.shape[2:])[index + start]


def split_key(key: PRNGKeyArray | None, n: int) -> list[PRNGKeyArray | None]:
    """`n` keys, or as many None."""
    return [None] * n if key is None else list(jax.random.split(key, n))


def dropout(x: Float[Array, "*n c"], rate: float, key: PRNGKeyArray | None, fixed: int | None = None) -> Array:
    """Inverted dropout; no key means evaluation.

    Random bytes decide, which is several times faster than whole floats, so the rate is rounded to 1/256.

    Args:
      x: values.
      rate: share that is set to zero.
      key: PRNG key.
      fixed: axis along which all values share their fate, -2 for the components of vectors.
    """
    if key is None or rate == 0.0:
        return x
    dropped = max(1, round(256 * rate))
    shape = list(x.shape)
    if fixed is not None:
        shape[fixed] = 1
    keep = _bytes(key, shape) >= dropped
    return jnp.where(keep, x * (256 / (256 - dropped)), 0.0)


def _bytes(key: PRNGKeyArray, shape: list[int]) -> Array:
    """Random bytes; `random.bits` draws a word for each of them, which takes four times as long."""
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:count].reshape(shape)


def pair_dropout(x: Pair, rate: float, key: PRNGKeyArray | None) -> Pair:
    """Dropout of scalars, and of whole vectors."""
    keys = split_key(key, 2)
    return dropout(x[0], rate, keys[0]), dropout(x[1], rate, keys[1], fixed=-2)


def add(x: Pair, y: Pair) -> Pair:
    """Sum of two pairs."""
    return x[0] + y[0], x[1] + y[1]


class GVP(nnx.Module):
    """A perceptron of scalars and vectors.

    Vectors are mixed to h = max(v_in, v_out) hidden ones; scalars and the lengths of the hidden vectors go through a
    linear layer, the hidden vectors through another without bias.

    Args:
      inputs: numbers of scalars and vectors.
      outputs: the same; without vectors the second is 0, and the result's vectors have no channels.
      relu: on the scalars.
      gate: vectors are multiplied by the sigmoid of their own lengths.
      rngs: for the weights.
    """

    def __init__(
        self, inputs: tuple[int, int], outputs: tuple[int, int], *, relu: bool = False, gate: bool = False, rngs: Any
    ):
        hidden = max(inputs[1], outputs[1])
        self.inputs, self.relu, self.gate = inputs, relu, gate
        self.wh = nnx.Linear(inputs[1], hidden, use_bias=False, kernel_init=_xavier, rngs=rngs)
        self.ws = nnx.Linear(inputs[0] + hidden, outputs[0], kernel_init=_xavier, rngs=rngs)
        self.wv = nnx.Linear(hidden, outputs[1], use_bias=False, kernel_init=_xavier, rngs=rngs) if outputs[1] else None

    def activate(self, s: Float[Array, "*n so"], v: Float[Array, "*n 3 vo"]) -> Pair:
        """The two activations."""
        if self.gate:
            v = v * jax.nn.sigmoid(lengths(v))[..., None, :]
        return (jax.nn.relu(s) if self.relu else s), v

    def vectors(self, hidden: Float[Array, "*n 3 h"]) -> Float[Array, "*n 3 vo"]:
        """From hidden vectors to those of the result."""
        return hidden[..., :0] if self.wv is None else self.wv(hidden)

    def __call__(self, s: Float[Array, "*n si"], v: Float[Array, "*n 3 vi"]) -> Pair:
        """Scalars (..., so) and vectors (..., 3, vo)."""
        hidden = self.wh(v)
        kernel, n = self.ws.kernel[...], self.inputs[0]
        out = s @ kernel[:n] + lengths(hidden) @ kernel[n:]
        out = out + _along(self.ws.bias[...], out)  # type: ignore[index]
        return self.activate(out, self.vectors(hidden))


class GVPNorm(nnx.Module):
    """LayerNorm of scalars; vectors are divided by the root mean square of their lengths."""

    def __init__(self, scalars: int, *, rngs: Any):
        self.scalars = nnx.LayerNorm(scalars, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, s: Float[Array, "*n s"], v: Float[Array, "*n 3 v"]) -> Pair:
        """The same shapes."""
        squared = jnp.maximum(jnp.sum(v * v, -2, keepdims=True), _TINY)
        return self.scalars(s), v * jax.lax.rsqrt(jnp.mean(squared, -1, keepdims=True))


class GVPMessage(nnx.Module):
    """Mean over the edges of three perceptrons of [source | edge | node].

    Args:
      nodes: numbers of scalars and vectors of a node.
      edges: the same of an edge.
      rngs: for the weights.
    """

    def __init__(self, nodes: tuple[int, int], edges: tuple[int, int], *, rngs: Any):
        self.nodes, self.edges = nodes, edges
        both = (2 * nodes[0] + edges[0], 2 * nodes[1] + edges[1])
        self.first = GVP(both, nodes, relu=True, gate=True, rngs=rngs)
        self.second = GVP(nodes, nodes, relu=True, gate=True, rngs=rngs)
        self.third = GVP(nodes, nodes, rngs=rngs)

    def __call__(
        self,
        s: Float[Array, "b n s"],
        v: Float[Array, "b n 3 v"],
        edge_s: Float[Array, "b n k e"],
        edge_v: Float[Array, "b n k 3 w"],
        index: Int[Array, "b n k"],
        present: Bool[Array, "b n k"],
    ) -> Pair:
        """Messages (b, n, s) and (b, n, 3, v); zero for a node without edges.

        Args:
          s: scalars of nodes.
          v: vectors of nodes.
          edge_s: scalars of edges.
          edge_v: vectors of edges.
          index: source of each edge; any valid number where there is none.
          present: whether there is an edge.
        """
        (ns, nv), (es, ev) = self.nodes, self.edges
        mix = self.first.wh.kernel[...]
        hidden = gather(v @ mix[:nv], index) + (v @ mix[nv + ev :])[:, :, None] + edge_v @ mix[nv : nv + ev]
        kernel = self.first.ws.kernel[...]
        own = s @ kernel[ns + es : 2 * ns + es] + _along(self.first.ws.bias[...], s)  # type: ignore[index]
        rest = jnp.concatenate([edge_s, lengths(hidden)], -1)
        rest = rest @ jnp.concatenate([kernel[ns : ns + es], kernel[2 * ns + es :]])
        out = gather(s @ kernel[:ns], index) + own[:, :, None] + rest
        m_s, m_v = self.first.activate(out, self.first.vectors(hidden))
        m_s, m_v = self.second(m_s, m_v)
        hidden = self.third.wh(m_v)

        count = jnp.sum(present, -1).astype(s.dtype)
        weight = present.astype(s.dtype) / jnp.maximum(count, 1)[..., None]
        m_s, norms = (jnp.einsum("bnkc,bnk->bnc", x, weight) for x in (m_s, lengths(hidden)))
        hidden = jnp.einsum("bnkxc,bnk->bnxc", hidden, weight)
        kernel = self.third.ws.kernel[...]
        out = m_s @ kernel[:ns] + norms @ kernel[ns:]
        # The mean of no edges is 0, without a bias.
        out = out + _along(self.third.ws.bias[...], out) * (count > 0).astype(s.dtype)[..., None]  # type: ignore[index]
        return out, self.third.vectors(hidden)


class GVPLayer(nnx.Module):
    """Messages and two perceptrons of each node, each with a residual and a norm.

    Args:
      nodes: numbers of scalars and vectors of a node.
      edges: the same of an edge.
      rate: of dropout, used where a key is given.
      rngs: for the weights.
    """

    def __init__(self, nodes: tuple[int, int], edges: tuple[int, int], rate: float, *, rngs: Any):
        self.rate = rate
        wide = (4 * nodes[0], 2 * nodes[1])
        self.message = GVPMessage(nodes, edges, rngs=rngs)
        self.norms = nnx.List([GVPNorm(nodes[0], rngs=rngs) for _ in range(2)])
        self.inner = GVP(nodes, wide, relu=True, gate=True, rngs=rngs)
        self.outer = GVP(wide, nodes, rngs=rngs)

    def __call__(self, x: Pair, edges: Pair, index: Array, present: Array, key: PRNGKeyArray | None = None) -> Pair:
        """Nodes after the layer; arguments as of `GVPMessage`."""
        keys = split_key(key, 2)
        message = self.message(*x, *edges, index, present)
        x = self.norms[0](*add(x, pair_dropout(message, self.rate, keys[0])))
        return self.norms[1](*add(x, pair_dropout(self.outer(*self.inner(*x)), self.rate, keys[1])))


def _along(vector: Array, x: Array) -> Array:
    """(c,) with leading axes of 1, for `x` (..., c)."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)

"""What goes from atoms to pairs and back.

Every function here is linear in each of its arrays, and its derivatives are others of them, so that they can be
differentiated any number of times in reverse (not forward).

Written as plain sums, vectors would be right and slow: XLA on CPU puts the elementwise operations before a sum into the
loop of that sum, activations included, and repeats them for each of the up to 8 components. What stands in a loop of
its own it leaves alone. And the derivative of a gather is a scatter, slow on CPU and of no fixed order on GPU; here it
is a gather through the table of reverse pairs.

Pairs are (b, i, j, ...): target i, and source in slot j.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_UNROLL = 4


class Table(NamedTuple):
    """Neighbours by slot; without one slot j is atom j.

    Attributes:
      index: atom of each slot, 0 where there is none.
      present: whether there is one.
      reverse: slot of the target among the source's own neighbours, flat over (atom, slot).
    """

    index: Int[Array, "b n k"]
    present: Bool[Array, "b n k"]
    reverse: Int[Array, "b n k"]


def table(index: Int[Array, "b n k"]) -> Table:
    """From indices with -1 where there is no neighbour; whoever is a neighbour has the other as one as well."""
    present, index = index >= 0, jnp.maximum(index, 0)
    number = jnp.arange(index.shape[1], dtype=index.dtype)[None, :, None, None]
    back = (gather(index, index) == number) & gather(present, index)  # (b, n, k, slots of the source)
    reverse = index * index.shape[2] + jnp.argmax(back, -1).astype(index.dtype)
    return Table(index, present & jnp.any(back, -1), reverse)


def gather(x: Array, index: Int[Array, "b n k"]) -> Array:
    """Rows of (b, n, ...) by indices (b, n, k)."""
    batch, rows = x.shape[:2]
    # One flat gather: with a batch axis XLA on CPU walks the indices one by one.
    start = (jnp.arange(batch, dtype=index.dtype) * rows)[:, None, None]
    return x.reshape(batch * rows, *x.shape[2:])[index + start]


def _present(x: Array, where: Table | None) -> Array:
    return x if where is None else jnp.where(where.present.reshape(*where.present.shape, *(1,) * (x.ndim - 3)), x, 0)


def _kept(arrays: Any) -> Any:
    """What a derivative needs, under names of its own.

    JAX 0.10 mixes up what it passes on from a scan's arguments where a rule keeps its arguments themselves and is
    differentiated twice.
    """
    return lax.optimization_barrier(arrays) if jax.tree.leaves(arrays) else arrays


def spread(x: Array, slots: int) -> Array:
    """Values (b, n, ...) of the target at each pair."""
    return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], slots, *x.shape[2:]))


@jax.custom_vjp
def flip(x: Float[Array, "b i j h"], where: Table | None) -> Float[Array, "b i j h"]:
    """Pairs with target and source exchanged."""
    if where is None:
        return jnp.swapaxes(x, 1, 2)
    return _present(gather(x.reshape(x.shape[0], -1, *x.shape[3:]), where.reverse), where)


flip.defvjp(lambda x, where: (flip(x, where), _kept(where)), lambda where, g: (flip(_present(g, where), where), None))


@jax.custom_vjp
def to_pairs(x: Float[Array, "b n h"], where: Table | None) -> Float[Array, "b i j h"]:
    """Values of the source at each pair."""
    if where is None:
        return jnp.broadcast_to(x[:, None], (x.shape[0], x.shape[1], *x.shape[1:]))
    return _present(gather(x, where.index), where)


@jax.custom_vjp
def collect(x: Float[Array, "b i j h"], where: Table | None) -> Float[Array, "b n h"]:
    """Sum over the targets of each source."""
    return _sum(jnp.swapaxes(x, 1, 2) if where is None else flip(_present(x, where), where), 2)


to_pairs.defvjp(lambda x, where: (to_pairs(x, where), _kept(where)), lambda where, g: (collect(g, where), None))
collect.defvjp(lambda x, where: (collect(x, where), _kept(where)), lambda where, g: (to_pairs(g, where), None))


@jax.custom_vjp
def carry(weight: Float[Array, "b i j h"], vec: Float[Array, "b n s h"], where: Table | None) -> Array:
    """Sum over sources of weights times the sources' vectors: (b, n, s, h)."""
    return _carry(_present(weight, where), vec, where)


@jax.custom_vjp
def carry_back(weight: Float[Array, "b i j h"], vec: Float[Array, "b n s h"], where: Table | None) -> Array:
    """Sum over targets of weights times the targets' vectors: (b, n, s, h)."""
    if where is not None:
        return _carry(flip(_present(weight, where), where), vec, where)
    return _carry(jnp.swapaxes(weight, 1, 2), vec, None)


@jax.custom_vjp
def product(target: Float[Array, "b n s h"], source: Float[Array, "b n s h"], where: Table | None) -> Array:
    """Sum over components of the target's times the source's vector: (b, i, j, h)."""
    # One product after the other: each is a loop over channels, where a sum over an axis would be one over components.
    out = None
    for s in range(target.shape[2]):
        b = source[:, :, s]
        term = target[:, :, None, s] * (b[:, None] if where is None else gather(b, where.index))
        out = term if out is None else out + term
    assert out is not None
    return _present(out, where)


def _carry_vjp(saved, g):
    weight, vec, where = saved
    return product(g, vec, where), carry_back(weight, g, where), None


def _carry_back_vjp(saved, g):
    weight, vec, where = saved
    return product(vec, g, where), carry(weight, g, where), None


def _product_vjp(saved, g):
    target, source, where = saved
    return carry(g, source, where), carry_back(g, target, where), None


carry.defvjp(lambda *args: (carry(*args), _kept(args)), _carry_vjp)
carry_back.defvjp(lambda *args: (carry_back(*args), _kept(args)), _carry_back_vjp)
product.defvjp(lambda *args: (product(*args), _kept(args)), _product_vjp)


@jax.custom_vjp
def total(x: Float[Array, "b i j h"]) -> Float[Array, "b n h"]:
    """Sum over the sources of each target."""
    return _sum(x, 2)


total.defvjp(lambda x: (total(x), x.shape[2]), lambda slots, g: (spread(g, slots),))


def _sum(x: Array, axis: int) -> Array:
    """Sum over an axis of pairs."""
    loop = lambda x: _loop(x.shape[axis], lambda j: _at(x, j, axis))  # noqa: E731
    return lax.platform_dependent(x, cpu=loop, default=lambda x: jnp.sum(x, axis))


def _carry(weight: Array, vec: Array, where: Table | None) -> Array:
    if where is None:
        return lax.platform_dependent(weight, vec, cpu=_carry_loop, default=_carry_einsum)
    # Everywhere: the vectors of all pairs would be some GB for a large molecule.
    return _loop(
        weight.shape[2],
        lambda j: _at(weight, j, 2)[:, :, None] * gather(vec, _at(where.index, j, 2)[..., None])[:, :, 0],
    )


def _carry_loop(weight: Array, vec: Array) -> Array:
    return _loop(weight.shape[2], lambda j: _at(weight, j, 2)[:, :, None] * _at(vec, j, 1)[:, None])


def _carry_einsum(weight: Array, vec: Array) -> Array:
    return jnp.einsum("bijh,bjsh->bish", weight, vec)


def _loop(length: int, part: Callable[[Array], Array]) -> Array:
    """part(0) + ... + part(length - 1)."""
    add = lambda j, so_far: so_far + part(j)  # noqa: E731
    # Some at a time, so that the sum so far is read and written less often.
    return lax.fori_loop(1, length, add, part(jnp.int32(0)), unroll=max(1, min(_UNROLL, length - 1)))


def _at(x: Array, j: Array, axis: int) -> Array:
    return lax.dynamic_index_in_dim(x, j, axis, keepdims=False)

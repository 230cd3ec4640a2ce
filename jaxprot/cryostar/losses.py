"""Losses of cryoSTAR's first phase: agreement with the images, and what keeps the beads a molecule.

Structures are (n, m, 3) in Å, images (n, y, x), pairs (p, 2) rows of beads. With `axis`, the name of a mapped axis of
devices, sums run over all of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Structures = Float[Array, "n m 3"]
PairRows = Int[Array, "p 2"]

CLASH = 4.0
"""Å below which beads clash."""


def correlation(
    predicted: Float[Array, "n y x"], observed: Float[Array, "n y x"], mask: Float[Array, "y x"]
) -> Float[Array, "n"]:
    """Minus the correlation of each image within a mask, per pixel of it.

    As published, the product is not centred, and standard deviations are over all pixels with zeros outside the mask.
    """
    return disagreement(predicted, normalised(observed, mask), mask)


def normalised(observed: Float[Array, "n y x"], mask: Float[Array, "y x"]) -> Float[Array, "n y x"]:
    """What `disagreement` needs of observed images: within the mask, of deviation 1 / pixels of the mask."""
    weight = mask.astype(observed.dtype)[None]
    observed = observed * weight
    return observed / ((_deviation(observed) + 1e-5) * jnp.sum(weight))[:, None, None]


def disagreement(
    predicted: Float[Array, "n y x"], target: Float[Array, "n y x"], mask: Float[Array, "y x"]
) -> Float[Array, "n"]:
    """`correlation` with images that are `normalised` already."""
    predicted = predicted * mask.astype(predicted.dtype)[None]
    return -jnp.sum(predicted * target, (-2, -1)) / (_deviation(predicted) + 1e-5)


def _deviation(images: Float[Array, "n y x"]) -> Float[Array, "n"]:
    centred = images - jnp.mean(images, (-2, -1), keepdims=True)
    pixels = images.shape[-1] * images.shape[-2]
    return jnp.sqrt(jnp.maximum(jnp.sum(centred**2, (-2, -1)) / (pixels - 1), 1e-30))


def distances(structures: Structures, pairs: PairRows) -> Float[Array, "n p"]:
    """Å between the beads of each pair; beads at one place have no gradient."""
    squared = jnp.sum((structures[:, pairs[:, 0]] - structures[:, pairs[:, 1]]) ** 2, -1)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


def deviations(structures: Structures, pairs: PairRows, native: Float[Array, "p"]) -> Float[Array, "n p"]:
    """Squared differences to the distances of the reference in Å²; the mean of neighbours' is the loss of the chain."""
    return (distances(structures, pairs) - native[None]) ** 2


def kept(
    squared: Float[Array, "n p"],
    chains: Bool[Array, "k p"],
    ratio: float,
    axis: str | None = None,
    weight: Float[Array, "n"] | None = None,
) -> Bool[Array, "p"]:
    """Elastic pairs that are held in this step: adaptive relaxation.

    Pairs of a chain whose deviation varies most over the batch are let go: those at or above the quantile `ratio` of
    the chain's pairs. Pairs between chains are always held. Nothing is differentiated.

    Args:
      squared: deviations of the batch in Å².
      chains: which pairs lie in each chain.
      ratio: share of each chain's pairs that is held, 0 to 1.
      axis: of devices; the variance is that of the whole batch.
      weight: 0 for structures that do not count.
    """
    squared = jax.lax.stop_gradient(squared)
    variance = _variance(squared, axis, weight)
    inside = jnp.where(chains, variance[None], jnp.inf)
    ordered = jnp.sort(inside, axis=1)
    place = ratio * jnp.maximum(jnp.sum(chains, 1) - 1, 0).astype(squared.dtype)
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.ceil(place).astype(jnp.int32)
    lower, upper = (jnp.take_along_axis(ordered, index[:, None], 1)[:, 0] for index in (low, high))
    limit = lower + (upper - lower) * (place - low)
    held = jnp.any(chains & (variance[None] < limit[:, None]), axis=0)
    return held | ~jnp.any(chains, axis=0)


def _variance(x: Float[Array, "n p"], axis: str | None, weight: Float[Array, "n"] | None) -> Float[Array, "p"]:
    """Unbiased, over the batch on all devices."""
    weight = jnp.ones(x.shape[:1], x.dtype) if weight is None else weight
    count, total = jnp.sum(weight), weight @ x
    if axis is not None:
        count, total = jax.lax.psum((count, total), axis)
    squares = weight @ (x - (total / jnp.maximum(count, 1))[None]) ** 2
    if axis is not None:
        squares = jax.lax.psum(squares, axis)
    return squares / jnp.maximum(count - 1, 1)


def elastic(
    squared: Float[Array, "n p"], held: Bool[Array, "p"], weight: Float[Array, "n"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) of the deviations of the pairs that are held; the loss is their quotient."""
    weight = jnp.ones(squared.shape[:1], squared.dtype) if weight is None else weight
    share = held.astype(squared.dtype)
    return weight @ (squared @ share), jnp.sum(share) * jnp.sum(weight)


def clash(
    structures: Structures, pairs: PairRows, weight: Float[Array, "n"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) of the squared overlaps of pairs closer than 4 Å; the loss is their quotient, 0 without any."""
    weight = jnp.ones(structures.shape[:1], structures.dtype) if weight is None else weight
    overlap = jnp.maximum(CLASH - distances(structures, pairs), 0)
    return weight @ jnp.sum(overlap**2, 1), weight @ jnp.sum(overlap > 0, 1).astype(structures.dtype)


def divergence(mean: Float[Array, "n k"], log_var: Float[Array, "n k"], free: float = 3.0) -> Float[Array, "n"]:
    """Kullback-Leibler divergence from a standard normal law, mean over dimensions, at least `free` nats in each."""
    each = -0.5 * (1 + log_var - mean**2 - jnp.exp(log_var))
    return jnp.mean(jnp.maximum(each, free), 1)

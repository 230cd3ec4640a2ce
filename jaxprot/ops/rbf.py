"""Distances as features: radial bases and the cosine cutoff."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cosine_cutoff(distance: Float[Array, "*n"], cutoff: float) -> Float[Array, "*n"]:
    """0.5 (cos(pi d / rc) + 1) below the cutoff and 0 from there on; the first derivative is continuous.

    Args:
      distance: Å.
      cutoff: rc, Å.
    """
    inside = distance < cutoff
    angle = jnp.where(inside, distance, cutoff) * (np.pi / cutoff)
    return jnp.where(inside, 0.5 * (jnp.cos(angle) + 1), 0)


def exponential_normal(
    distance: Float[Array, "*n"], means: Float[Array, "k"], betas: Float[Array, "k"], cutoff: float
) -> Float[Array, "*n k"]:
    """exp(-beta_k (exp(-5 d / rc) - mu_k)**2): Gaussians of an exponential, narrow where atoms are near.

    Without the factor of the cutoff that usually goes with them. PhysNet, J. Chem. Theory Comput. 2019,
    doi 10.1021/acs.jctc.9b00181.

    Args:
      distance: Å.
      means: mu, of exp(-5 d / rc).
      betas: inverse squared widths.
      cutoff: rc, Å.
    """
    place = jnp.exp(distance * (-5 / cutoff))[..., None]
    shape = (1,) * distance.ndim + means.shape
    return jnp.exp(-betas.reshape(shape) * (place - means.reshape(shape)) ** 2)


def gaussian(distance: Float[Array, "*n"], centres: Float[Array, "k"], coefficient: Float[Array, ""]) -> Array:
    """exp(c (d - centre_k)**2), (*n, k).

    Args:
      distance: Å.
      centres: Å.
      coefficient: c, negative, Å**-2.
    """
    return jnp.exp(coefficient * (distance[..., None] - centres.reshape((1,) * distance.ndim + centres.shape)) ** 2)


def exponential_normal_start(count: int, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and betas of `count` evenly placed exponential-normal functions."""
    first = np.exp(-cutoff)
    means = np.linspace(first, 1, count, dtype=np.float32)
    return means, np.full(count, (2 / count * (1 - first)) ** -2, np.float32)


def gaussian_start(count: int, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and coefficient of `count` Gaussians that are as wide as they are apart."""
    centres = np.linspace(0, cutoff, count, dtype=np.float32)
    return centres, np.asarray(-0.5 / (centres[1] - centres[0]) ** 2, np.float32)

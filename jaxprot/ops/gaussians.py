"""Densities of atoms on a grid: sums of Gaussians, each the outer product of three one-dimensional ones.

The formula is that of `molmap` in UCSF Chimera and ChimeraX: for a resolution R the Gaussian has a standard deviation
of `sigma_factor` R, an integral of the atom's weight, and is cut to a cube of `cutoff` standard deviations.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

SIGMA_FACTOR = 1 / (math.pi * math.sqrt(2))
"""Standard deviation per resolution at which the Fourier transform falls to 1/e at 1/R (0.2251)."""

SIGMA_FACTORS = {
    "fourier 1/e at 1/R": SIGMA_FACTOR,
    "fourier 1/2 at 1/R": math.sqrt(math.log(2) / 2) / math.pi,
    "half width R at 1/e": 1 / (2 * math.sqrt(2)),
    "half width R at 1/2": 1 / (2 * math.sqrt(2 * math.log(2))),
}
"""The documented choices (0.225, 0.187, 0.356, 0.425)."""

CUTOFF = 5.0
"""Half the edge of the cube that a Gaussian is cut to, in standard deviations."""

_DNUMS = lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2, 3), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1, 2)
)


def molmap(
    xyz: Float[Array, "n 3"],
    weight: Float[Array, "n"],
    *,
    resolution: float,
    spacing: float | Sequence[float],
    shape: tuple[int, int, int],
    origin: Float[Array, "3"] | Sequence[float] = (0.0, 0.0, 0.0),
    blur: Float[Array, "n"] | None = None,
    max_blur: float | None = None,
    sigma_factor: float = SIGMA_FACTOR,
    cutoff: float = CUTOFF,
) -> Float[Array, "z y x"]:
    """Density of atoms, each a Gaussian cut to a cube.

    Jit it with `resolution`, `spacing`, `shape`, `max_blur`, `sigma_factor` and `cutoff` fixed. Differentiable in
    `xyz`, `weight`, `blur` and `origin` (the edge of the cube counts as fixed); under `vmap` every batch has the same
    grid. Atoms outside the grid give what reaches into it.

    In float32 a coordinate far from the origin of its numbers costs accuracy: take the grid's origin off in float64
    first where the last digits matter (`rmsfnet.simulate.simulate_map` does).

    Args:
      xyz: x, y, z in Å. Atoms of weight 0 add nothing, whatever their coordinates (padding, unknown places).
      weight: integral of each Gaussian, for instance the atomic number.
      resolution: R in Å.
      spacing: distance of grid points in Å, one or one per x, y, z.
      shape: grid points along z, y, x.
      origin: position x, y, z of the first grid point in Å.
      blur: B factors in Å²; the variance of an atom grows by B / 8π². None for none.
      max_blur: the largest B factor to expect, in Å²: it decides how many points an atom is given; a larger one is
        treated as this. Needed where `blur` is traced.
      sigma_factor: standard deviation / R, see `SIGMA_FACTORS`.
      cutoff: half the edge of the cube in standard deviations.

    Returns:
      Density in weight / Å³, in the type of `xyz`.

    Raises:
      ValueError: a resolution, spacing, `sigma_factor` or cut-off that is not positive, or `max_blur` missing.
    """
    steps = np.broadcast_to(np.asarray(spacing, np.float64), (3,))
    sigma = float(resolution) * float(sigma_factor)
    if not (sigma > 0 and cutoff > 0 and (steps > 0).all()):
        raise ValueError(f"resolution {resolution}, sigma_factor {sigma_factor}, cutoff {cutoff}, spacing {spacing}")
    widest = sigma
    variance = jnp.full(xyz.shape[:1], sigma**2, xyz.dtype)
    if blur is not None:
        if max_blur is None:
            raise ValueError("blur needs max_blur, the largest B factor (Å²) that the grid points per atom allow for")
        widest = math.sqrt(sigma**2 + max_blur / (8 * math.pi**2))
        variance = variance + jnp.clip(blur, 0, max_blur) / (8 * math.pi**2)

    present = weight != 0
    xyz = jnp.where(present[:, None], xyz, 0) - jnp.asarray(origin, xyz.dtype)[None]
    std = jnp.sqrt(jnp.where(present, variance, sigma**2))
    peak = weight / ((2 * math.pi) ** 1.5 * std**3)
    profiles, starts, pads = [], [], []
    for axis in (2, 1, 0):
        step = float(steps[axis])
        points = math.floor(2 * cutoff * widest / step * (1 + 1e-6)) + 1
        n = shape[2 - axis]
        # In grid steps: the first point of the cube, then the distance of each of its points from the atom.
        place, reach = xyz[:, axis] / step, lax.stop_gradient(cutoff * std / step)
        first = jnp.ceil(lax.stop_gradient(place) - reach)
        distance = first[:, None] + jnp.arange(points, dtype=xyz.dtype)[None] - place[:, None]
        inside = jnp.abs(lax.stop_gradient(distance)) <= reach[:, None]
        exponent = -0.5 * (distance * (step / std)[:, None]) ** 2
        profiles.append(jnp.where(inside, jnp.exp(jnp.where(inside, exponent, 0)), 0))
        # The grid has a margin of one cube on every side, so that no window is ever cut; far atoms end in it.
        starts.append(jnp.clip(first, -points, n).astype(jnp.int32) + points)
        pads.append(points)
    z, y, x = profiles
    cubes = (peak[:, None] * z)[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]
    padded = jnp.zeros([n + 2 * pad for n, pad in zip(shape, pads, strict=True)], cubes.dtype)
    padded = lax.scatter_add(padded, jnp.stack(starts, 1), cubes, _DNUMS, mode="promise_in_bounds")
    return padded[tuple(slice(pad, pad + n) for n, pad in zip(shape, pads, strict=True))]


def grid_line(side: int, spacing: float, published: bool = True) -> np.ndarray:
    """(side,) float64 coordinates of the pixels of a projection in Å; the origin is pixel side // 2.

    Args:
      side: pixels.
      spacing: Å.
      published: with cryoSTAR's origin for odd sides, one pixel further.
    """
    first = -((side + 1) // 2 if published else side // 2)
    return (first + np.arange(side)) * spacing


def project(
    xy: Float[Array, "n 2"],
    amplitude: Float[Array, "n"],
    sigma: Float[Array, "n"] | float,
    line: Float[Array, "d"],
) -> Float[Array, "d d"]:
    """Image of round Gaussians seen along z, each of height `amplitude`: one matrix product.

    Args:
      xy: places x, y in Å, rotated.
      amplitude: heights; 0 for padding.
      sigma: standard deviations in Å.
      line: coordinates of the pixels in Å, the same for columns (x) and rows (y).

    Returns:
      image[y, x].
    """
    x, y = _profiles(xy, sigma, line)
    return (y * amplitude[:, None]).T @ x


def density(
    xyz: Float[Array, "n 3"],
    amplitude: Float[Array, "n"],
    sigma: Float[Array, "n"] | float,
    line: Float[Array, "d"],
) -> Float[Array, "d d d"]:
    """Map [z, y, x] of the Gaussians whose projections `project` gives, section by section."""
    x, y, z = _profiles(xyz, sigma, line)
    return lax.map(lambda height: (y * (height * amplitude)[:, None]).T @ x, z.T)


def _profiles(
    places: Float[Array, "n k"], sigma: Float[Array, "n"] | float, line: Float[Array, "d"]
) -> Float[Array, "k n d"]:
    """One-dimensional Gaussians of height 1 along each axis."""
    width = jnp.broadcast_to(jnp.asarray(sigma, places.dtype), places.shape[:1])
    scaled = (jnp.asarray(line, places.dtype)[None, None] - places.T[:, :, None]) / width[None, :, None]
    return jnp.exp(-0.5 * scaled**2)

"""Contrast transfer function of every particle.

Conventions of the published code (v2) by default: amplitude contrast enters as -w cos γ, and images are multiplied by
minus the function, so that at low frequencies the filter is positive for bright particles. Its first version, which the
published experiments used and which ignores astigmatism, is kept as `v1-compat`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxprot.ops import fourier

Version = Literal["v2", "v1-compat"]


class CTFParams(NamedTuple):
    """Optics of particles; scalars, or arrays of one shape (such as (n,)).

    Attributes:
      defocus_u: Å, positive for underfocus.
      defocus_v: Å.
      angle: of astigmatism, radians.
      voltage: kV.
      cs: spherical aberration in mm.
      amplitude: amplitude contrast, 0 to 1.
      phase: shift of a phase plate, radians.
      bfactor: Å².
    """

    defocus_u: Float[Array, "*n"]
    defocus_v: Float[Array, "*n"]
    angle: Float[Array, "*n"]
    voltage: Float[Array, "*n"] | float = 300.0
    cs: Float[Array, "*n"] | float = 2.7
    amplitude: Float[Array, "*n"] | float = 0.1
    phase: Float[Array, "*n"] | float = 0.0
    bfactor: Float[Array, "*n"] | float = 0.0


def wavelength(voltage: Float[Array, "*n"] | float) -> Float[Array, "*n"]:
    """Of electrons in Å, relativistic; voltage in kV."""
    volts = jnp.asarray(voltage) * 1e3
    return 12.2639 / jnp.sqrt(volts + 0.97845e-6 * volts**2)


def ctf(params: CTFParams, frequency: Float[Array, "*k"], azimuth: Float[Array, "*k"]) -> Float[Array, "*n *k"]:
    """The function itself: sqrt(1 - w²) sin γ - w cos γ, with an envelope if there is a B factor.

    Args:
      params: optics; its dimensions come first in the result.
      frequency: 1/Å.
      azimuth: angle of the frequency vector from x towards y, radians.
    """
    u, v, angle, voltage, cs, w, phase, bfactor = _beside(params, frequency.ndim)
    frequency, azimuth = (fourier.lifted(x, u.ndim) for x in (frequency, azimuth))
    lam, s2 = wavelength(voltage), frequency**2
    defocus = 0.5 * (u + v + (u - v) * jnp.cos(2 * (azimuth - angle)))
    gamma = 2 * jnp.pi * (-0.5 * defocus * lam * s2 + 0.25 * cs * 1e7 * lam**3 * s2**2) - phase
    value = jnp.sqrt(1 - w**2) * jnp.sin(gamma) - w * jnp.cos(gamma)
    return value * jnp.exp(-bfactor / 4 * s2)


def transfer(params: CTFParams, side: int, pixel: float, version: Version = "v2") -> Float[Array, "*n side side"]:
    """The filter that images are multiplied by, laid out as `ops.fourier.fft` does: minus the function.

    Args:
      params: optics of the images.
      side: pixels.
      pixel: Å.
      version: `v2`, or `v1-compat`: frequencies from -Nyquist to Nyquist inclusive (0 is not the middle pixel of even
        sides), and astigmatism that is a cosine of the angle itself in Å, that is none.
    """
    if version == "v2":
        line = fourier.frequencies(side, pixel)
    elif version == "v1-compat":
        line = np.linspace(-1, 1, side) / (2 * pixel)
    else:
        raise ValueError(f"version {version!r}: v2 or v1-compat")
    frequency = jnp.asarray(np.hypot(line[:, None], line[None]), jnp.float32)
    azimuth = jnp.asarray(np.arctan2(line[:, None], line[None]), jnp.float32)
    if version == "v2":
        return -ctf(params, frequency, azimuth)
    u, v, angle, voltage, cs, w, *_ = _beside(params, 2)
    frequency, azimuth = (fourier.lifted(x, u.ndim) for x in (frequency, azimuth))
    azimuth = jnp.pi / 2 - azimuth  # from y towards x
    lam, s2 = _wavelength_codata(voltage), frequency**2
    defocus = (u + v) / 2 + angle * jnp.cos(2 * (azimuth - angle))
    gamma = jnp.pi / 2 * cs * 1e7 * lam**3 * s2**2 - jnp.pi * lam * s2 * defocus
    return -jnp.sqrt(1 - w**2) * jnp.sin(gamma) + w * jnp.cos(gamma)


def half_transfer(params: CTFParams, side: int, pixel: float, version: Version = "v2") -> Float[Array, "*n side h"]:
    """`transfer` for `ops.fourier.half_filtered`: frequencies of a real transform, that is half of the plane.

    Where a side is even the frequency of Nyquist is its own opposite, and the mean of both signs is taken.
    """
    if version != "v2":
        return fourier.half_plane(transfer(params, side, pixel, version))
    y, x = np.fft.fftfreq(side, pixel), np.fft.rfftfreq(side, pixel)
    value = _at(params, y, x)
    if side % 2:
        return value
    # The sign of one component matters to astigmatism alone.
    middle = side // 2
    last, highest = slice(middle, middle + 1), y[middle : middle + 1]
    row = (_at(params, highest, x) + _at(params, -highest, x)) / 2
    column = (_at(params, y, x[last]) + _at(params, y, -x[last])) / 2
    value = value.at[..., last, :].set(row).at[..., last].set(column)
    return value.at[..., last, last].set(_at(params, highest, -x[last]))


def _at(params: CTFParams, y: np.ndarray, x: np.ndarray) -> Array:
    """The filter at frequencies (y, x) in 1/Å; one sine for each, the rest is done before."""
    u, v, angle, voltage, cs, w, phase, bfactor = _beside(params, 2)
    squared = y[:, None] ** 2 + x[None] ** 2
    some = np.where(squared > 0, squared, 1)
    double = (x[None] ** 2 - y[:, None] ** 2) / some, 2 * y[:, None] * x[None] / some  # of the azimuth
    s2, cosine, sine = (fourier.lifted(value, u.ndim) for value in (squared, *double))
    lam = wavelength(voltage)
    defocus = 0.5 * (u + v + (u - v) * (cosine * jnp.cos(2 * angle) + sine * jnp.sin(2 * angle)))
    gamma = jnp.pi * lam * s2 * (0.5 * cs * 1e7 * lam**2 * s2 - defocus)
    return -jnp.sin(gamma - phase - jnp.arcsin(w)) * jnp.exp(-bfactor / 4 * s2)


def _beside(params: CTFParams, dimensions: int) -> list[Array]:
    """All of one shape, followed by dimensions of 1."""
    values = jnp.broadcast_arrays(*(jnp.asarray(value, jnp.float32) for value in params))
    return [value.reshape(value.shape + (1,) * dimensions) for value in values]


def _wavelength_codata(voltage: Array) -> Array:
    """From the constants; the same to five digits."""
    planck, mass, charge, light = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    volts = voltage * 1e3
    first = planck / np.sqrt(2 * mass * charge) * 1e10 / jnp.sqrt(volts)
    return first / jnp.sqrt(1 + charge / (2 * mass * light**2) * volts)

"""Centred Fourier transforms of images and volumes, and what is done in them: shifts, filters, changes of size.

Everywhere the origin of an image of `n` pixels is pixel `n // 2`, and so is frequency 0 of its transform; transforms
are unnormalised, inverses divide by the number of pixels. Images are `[..., y, x]`, volumes `[..., z, y, x]`, and
shifts are (y, x) in pixels: content moves by +shift.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

Images = Float[Array, "*n y x"]
Spectra = Complex[Array, "*n y x"]
Shift = Literal["exact", "compat"]
PLANE = (-2, -1)


def fft(x: Array, axes: Sequence[int] = PLANE) -> Array:
    """Centred transform, complex."""
    return jnp.fft.fftshift(jnp.fft.fftn(jnp.fft.ifftshift(x, axes), axes=axes), axes)


def ifft(x: Array, axes: Sequence[int] = PLANE) -> Array:
    """Inverse of `fft`, complex."""
    return jnp.fft.fftshift(jnp.fft.ifftn(jnp.fft.ifftshift(x, axes), axes=axes), axes)


def frequencies(side: int, pixel: float = 1.0) -> np.ndarray:
    """(side,) float64 frequencies of `fft` along an axis in 1/Å (pixel in Å); Nyquist is negative."""
    return np.fft.fftshift(np.fft.fftfreq(side, pixel))


def radius(side: int, axes: int = 2) -> np.ndarray:
    """(side,) * axes float64 distances from the origin in pixels."""
    line = np.arange(side) - side // 2
    return np.sqrt(sum(np.square(part) for part in np.meshgrid(*[line] * axes, indexing="ij", sparse=True)))


def window(side: int, radius: float) -> np.ndarray:
    """(side, side) bool: pixels closer to the middle of the image than `radius`, 1 being half of its width.

    The middle lies between pixels where the side is even, and the edge is outside (cryoSTAR's circular mask).
    """
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return line[:, None] ** 2 + line[None] ** 2 < radius**2


def low_pass(side: int, pixel: float, resolution: float) -> np.ndarray:
    """(side, side) bool: frequencies of `fft` below 1 / resolution; a hard edge.

    Args:
      side: pixels.
      pixel: Å.
      resolution: Å.
    """
    line = frequencies(side, pixel)
    return np.sqrt(line[:, None] ** 2 + line[None] ** 2) < 1 / resolution


def filtered(images: Images, weight: Float[Array, "*n y x"] | Bool[Array, "y x"]) -> Images:
    """Images whose spectra are multiplied by a real filter laid out as `fft` does."""
    return ifft(fft(images) * lifted(weight, images.ndim)).real


def half_filtered(images: Images, half: Float[Array, "*n y h"]) -> Images:
    """`filtered` by the half of an even real filter that `half_plane` gives, in half of the time."""
    return jnp.fft.irfft2(jnp.fft.rfft2(images) * half, images.shape[-2:])


def half_plane(weight: Float[Array, "*n y x"]) -> Float[Array, "*n y h"]:
    """The half of a filter laid out as `fft` does that a transform of real images needs, for `half_filtered`.

    Of a filter that is not even only the even part counts, since the imaginary part of the result is dropped.
    """
    n = weight.shape[-1]
    opposite = (2 * (n // 2) - np.arange(n)) % n
    even = (weight + weight[..., opposite, :][..., opposite]) / 2
    return jnp.fft.ifftshift(even, PLANE)[..., : n // 2 + 1]


def lifted(x: np.ndarray | Array, ndim: int) -> Array:
    """With leading dimensions of 1, float64 constants as float32."""
    x = jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else None)
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def translate(images: Images, shift: Float[Array, "*n 2"], method: Shift = "exact") -> Images:
    """Moves images by phases; what leaves at one border comes in at the other.

    Args:
      images: real images.
      shift: (y, x) in pixels, by which the content moves.
      method: `exact`, or `compat` for cryoSTAR's frequencies, which make it a factor D / (D - 1) too long.
    """
    return ifft(fft(images) * _phases(images.shape[-1], shift, method)).real


def _phases(side: int, shift: Float[Array, "*n 2"], method: Shift) -> Spectra:
    if method == "exact":
        line = frequencies(side)
    elif method == "compat":
        line = np.linspace(-1, 1, side) / 2 - (0 if side % 2 else 0.5 / (side - 1))
    else:
        raise ValueError(f"method {method!r}: exact or compat")
    angle = -2 * np.pi * lifted(line, shift.ndim + 1) * shift[..., None]  # (..., 2, side)
    return jnp.exp(1j * (angle[..., 0, :, None] + angle[..., 1, None, :]))


def translate_bilinear(images: Images, shift: Float[Array, "*n 2"]) -> Images:
    """Moves images by bilinear interpolation as cryoSTAR does.

    The corners of the image count as -1 and 1, so that content moves by (D - 1) / D of the shift; coordinates beyond
    wrap, and without a shift the first row and column become the last. The loss looks at the middle, where differences
    to an exact shift are smallest.

    Args:
      images: real images.
      shift: (y, x) in pixels.
    """
    side = images.shape[-1]
    line = lifted(np.linspace(-1, 1, side, dtype=np.float32), shift.ndim + 1)
    place = line - 2 * shift[..., None] / side  # (..., 2, side)
    place = jnp.where(place >= 1, place - 2, place)
    place = jnp.where(place <= -1, place + 2, place)
    place = (jnp.clip(place, -1, 1) + 1) * ((side - 1) / 2)
    low = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, side - 2)
    share = (place - low).astype(images.dtype)

    def along(x: Array, which: int, axis: int) -> Array:
        shape = [*x.shape[:-2], 1, 1]
        shape[axis] = side
        index, part = (value[..., which, :].reshape(shape) for value in (low, share))
        left, right = (jnp.take_along_axis(x, index + step, axis) for step in (0, 1))
        return left + (right - left) * part

    return along(along(images, 0, -2), 1, -1)


def resize(images: Images, side: int) -> Images:
    """Other size by linear interpolation, antialiased when it shrinks; mean intensity stays."""
    return jax.image.resize(images, (*images.shape[:-2], side, side), "linear", antialias=True)


def crop_spectrum(images: Images, side: int) -> Images:
    """Smaller by leaving high frequencies out: those further from 0 than half the new side.

    Intensities grow by the ratio of the numbers of pixels, since the inverse divides by the smaller one.
    """
    whole = images.shape[-1]
    if side > whole:
        raise ValueError(f"cannot crop {whole} pixels to {side}")
    start = whole // 2 - side // 2
    part = fft(images)[..., start : start + side, start : start + side]
    return ifft(part * lifted(radius(side) <= side // 2, images.ndim)).real


def pad_spectrum(images: Images, side: int) -> Images:
    """Larger by high frequencies of 0; those of the images at half their side, which have no opposite, are left out.

    Intensities shrink by the ratio of the numbers of pixels, since the inverse divides by the larger one.
    """
    whole = images.shape[-1]
    if side < whole:
        raise ValueError(f"cannot pad {whole} pixels to {side}")
    start = side // 2 - whole // 2
    part = fft(images) * lifted(radius(whole) < whole / 2, images.ndim)
    room = [(0, 0)] * (images.ndim - 2) + [(start, side - whole - start)] * 2
    return ifft(jnp.pad(part, room)).real


def hartley_to_fourier(h: Float[Array, "*k"], axes: Sequence[int] = PLANE) -> Complex[Array, "*k"]:
    """Spectrum of a real image from its Hartley transform, both centred.

    The frequency opposite to Nyquist is itself where the side is even.
    """
    opposite = h
    for axis in axes:
        n = h.shape[axis]
        opposite = jnp.take(opposite, (2 * (n // 2) - np.arange(n)) % n, axis=axis)
    return (h + opposite) / 2 - 1j * (h - opposite) / 2

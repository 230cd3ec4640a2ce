"""Particle images as both phases read them: of one size, bright on dark, in one file that is mapped into memory.

Stacks are read once, image by image in the order of the files; an epoch never opens them again.
"""

from __future__ import annotations

import functools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxprot.core.errors import InputError
from jaxprot.core.particles import ParticleStack
from jaxprot.cryostar.ctf import CTFParams
from jaxprot.io.outputs import atomic_path, keep_settings
from jaxprot.ops import fourier

log = logging.getLogger(__name__)

Downsampling = Literal["fourier", "linear"]
_AT_ONCE = 1 << 24  # pixels of the original images


class Prepared(NamedTuple):
    """Particles of one image size, in the order of their file.

    Attributes:
      images: (n, D, D) float32 or float16 within a round window, bright on dark; mapped from a file, or in memory.
      rotations: (n, 3, 3) float32, see `core.particles.rotations_from_euler`.
      shifts: (n, 2) float32 y, x in pixels of these images, by which the content is moved to be centred.
      ctf: of (n,) float32 arrays.
      pixel: Å.
    """

    images: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    ctf: CTFParams
    pixel: float

    @property
    def side(self) -> int:
        """Pixels along an edge."""
        return self.images.shape[-1]

    def select(self, rows: np.ndarray) -> Prepared:
        """Particles (m,) int in the order given; their images are copied."""
        ctf = CTFParams(*(np.asarray(value)[rows] for value in self.ctf))
        return Prepared(self.images[rows], self.rotations[rows], self.shifts[rows], ctf, self.pixel)


def prepare(
    stack: ParticleStack,
    folder: str | os.PathLike,
    *,
    side: int | None = None,
    method: Downsampling = "fourier",
    invert: bool = False,
    window: float = 1.0,
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Images down-sampled and cut to a circle, from `images.npy` of the folder where they are there already.

    Args:
      stack: the particles; poses and CTF are needed.
      folder: of `images.npy` and `settings.json`.
      side: pixels of the images; those of the stack if None, but at most 128.
      method: `fourier` leaves high frequencies out and keeps the origin at pixel side // 2; `linear`, published for
        phase 1, interpolates between pixels, which moves the origin by half the difference of the pixels.
      invert: for particles that are dark on bright. (A sign that the file gives is applied in any case.)
      window: radius of the circle, 1 being half of the image's width.
      dtype: of the file; float16 halves it.
      progress: called with (images done, images in all).

    Raises:
      InputError: no poses or CTF, an image cannot be read, or the side is larger than that of the images.
      OutputError: the folder holds images that were made otherwise, or cannot be written to.
    """
    if stack.ctf is None:
        raise InputError(f"{stack.name}: no CTF parameters; estimate them first (CTFFIND, Gctf, cryoSPARC)")
    rotations = stack.rotations.astype(np.float32)
    sides, pixels = _sides(stack), stack.pixel_size
    kinds, whole, original = _usual(sides, pixels)
    side = min(128, whole) if side is None else side
    if not 2 <= side <= whole:
        raise InputError(f"{stack.name}: images of {whole} pixels cannot be made {side} pixels wide; 2 to {whole} can")
    pixel = whole * original / side
    folder = pathlib.Path(folder)
    settings = {
        "particles": stack.name, "count": len(stack), "side": side, "pixel": pixel, "method": method, "invert": invert,
        "window": window, "dtype": dtype, "fingerprint": _fingerprint(stack),
    }  # fmt: skip
    keep_settings(folder, settings)
    path = folder / "images.npy"
    if not path.exists():
        if len(kinds) > 1:
            log.warning("%s: images of %d sizes; all are brought to %.4g Å per pixel", stack.name, len(kinds), pixel)
        with atomic_path(path) as temporary:
            _write(stack, temporary, sides, pixels, (side, pixel, method, window, dtype, invert), progress)
    images = np.load(path, mmap_mode="r")
    shape = (len(stack), side, side)
    if images.shape != shape:
        raise InputError(f"{path}: images of shape {images.shape}, expected {shape}; remove the file")
    return Prepared(images, rotations, (stack.shifts[:, ::-1] / pixel).astype(np.float32), ctf_of(stack), pixel)


def ctf_of(stack: ParticleStack) -> CTFParams:
    """CTF parameters of a stack in the units of `cryostar.ctf`, (n,) float32 each."""
    ctf = stack.ctf
    if ctf is None:
        raise InputError(f"{stack.name}: no CTF parameters")
    columns = (
        ctf.defocus_u, ctf.defocus_v, np.radians(ctf.angle), ctf.voltage, ctf.cs, ctf.amplitude_contrast,
        np.radians(ctf.phase_shift), ctf.b_factor,
    )  # fmt: skip
    return CTFParams(*(np.asarray(values, np.float32) for values in columns))


def original_side(stack: ParticleStack) -> int:
    """Pixels of most of the particles' images, as they are in their files."""
    return _usual(_sides(stack), stack.pixel_size)[1]


def _usual(sides: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Kinds of images (side, pixel size), and side and Å per pixel of most particles, which all are brought to."""
    kinds, count = np.unique(np.stack([sides, pixels], 1), axis=0, return_counts=True)
    most = kinds[count.argmax()]
    return kinds, int(most[0]), float(most[1])


def _sides(stack: ParticleStack) -> np.ndarray:
    sides = stack.side.copy()
    for group in np.unique(stack.optics_group[sides == 0]):  # where no file tells, the first image does
        members = stack.optics_group == group
        sides[members] = stack.images.read(np.flatnonzero(members)[:1]).shape[-1]
    return sides


def _fingerprint(stack: ParticleStack) -> str:
    """Of everything but the pixels: another selection or order of particles has another one."""
    import hashlib

    digest = hashlib.sha256()
    names = [] if stack.image_names is None else stack.image_names.tolist()
    digest.update("\n".join(map(str, names)).encode())
    for array in (stack.pixel_size, stack.sign):
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    return digest.hexdigest()[:16]


def _write(stack: ParticleStack, path: Any, sides: np.ndarray, pixels: np.ndarray, how: tuple, progress: Any) -> None:
    side, pixel, method, window, dtype, invert = how
    with open(path, "wb") as file:  # a name without .npy, which open_memmap would take as well
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(stack), side, side)})
        offset = file.tell()
        file.truncate(offset + len(stack) * side * side * np.dtype(dtype).itemsize)
    out = np.memmap(path, dtype, "r+", offset, (len(stack), side, side))
    mask, done = fourier.window(side, window), 0
    sign = np.asarray(stack.sign, np.float32) * (-1 if invert else 1)
    for start in range(0, len(stack), max(1, _AT_ONCE // int(sides.max()) ** 2)):
        rows = np.arange(start, min(start + max(1, _AT_ONCE // int(sides.max()) ** 2), len(stack)))
        for size, step in np.unique(np.stack([sides[rows], pixels[rows]], 1), axis=0):
            members = rows[(sides[rows] == size) & (pixels[rows] == step)]
            images = stack.images.read(members) * sign[members, None, None]
            small = np.asarray(_resampled(images, side, float(step) / pixel, method)) * mask
            largest = float(np.abs(small).max())
            if dtype == "float16" and largest > 65504:
                raise InputError(f"{stack.name}: intensities of {largest:.3g} do not fit float16; use float32")
            out[members] = small
        done += len(rows)
        if progress is not None:
            progress(done, len(stack))
    out.flush()


@functools.partial(jax.jit, static_argnames=("side", "scale", "method"))
def _resampled(images: Float[Array, "n s s"], side: int, scale: float, method: Downsampling) -> Float[Array, "n d d"]:
    """Images of another size.

    Args:
      images: square ones.
      side: pixels of the result.
      scale: size of a pixel in pixels of the result.
      method: see `prepare`; images that do not span the same field are interpolated in any case.
    """
    whole = images.shape[-1]
    if abs(scale * whole - side) > 1e-3:
        # Jax counts from the edge of the first pixel. What stays in place is what the method keeps there: the middle of
        # the field, or the centre of pixel n // 2.
        half = 0.0 if method == "linear" else 0.5
        middles = (side / 2, whole / 2) if method == "linear" else (side // 2, whole // 2)
        move = jnp.full(2, middles[0] + half - scale * (middles[1] + half))
        shape = (images.shape[0], side, side)
        return jax.image.scale_and_translate(images, shape, (1, 2), jnp.full(2, scale), move, "linear")
    if whole == side:
        return images
    if method == "linear":
        return fourier.resize(images, side)
    if whole < side:  # one field in fewer pixels
        return fourier.pad_spectrum(images, side) * (side / whole) ** 2
    return fourier.crop_spectrum(images, side) * (side / whole) ** 2

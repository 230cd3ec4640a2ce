"""Training of the density network: particles in, losses in Fourier or real space (cryoSTAR's second phase)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.cryostar import density, losses
from jaxprot.cryostar.config import DensityConfig
from jaxprot.cryostar.ctf import CTFParams, Version, transfer
from jaxprot.cryostar.density import Density, Points
from jaxprot.ops import fourier
from jaxprot.train.data import Batch, ShuffledBatches
from jaxprot.train.task import Mean

_SAMPLE = 100  # images that the scale is taken from
_RESIDENT = 2 << 30  # bytes of images that are put on the device


class DensityData(NamedTuple):
    """Particles as the second phase reads them.

    Attributes:
      images: (n, D, D) real images, mapped from a file or in memory, not scaled.
      rotations: (n, 3, 3) float32, see `core.particles.rotations_from_euler`.
      shifts: (n, 2) float32 y, x in pixels, by which the content is moved to be centred.
      ctf: of (n,) float32 arrays.
      pixel: Å.
      latents: (n, k) float32, or None where an encoder finds them.
      scale: the standard deviation of the images' spectra, which images are divided by.
    """

    images: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    ctf: CTFParams
    pixel: float
    latents: np.ndarray | None
    scale: float


class Particle(NamedTuple):
    """What one step reads of an image (or, with leading axes, of several); fields as in `DensityData`."""

    image: Float[Array, "*n y x"]
    rotation: Float[Array, "*n 3 3"]
    shift: Float[Array, "*n 2"]
    ctf: CTFParams
    latent: Float[Array, "*n k"]


def density_data(
    images: np.ndarray,
    rotations: np.ndarray,
    shifts: np.ndarray,
    ctf: CTFParams,
    pixel: float,
    latents: np.ndarray | None = None,
    scale: float | None = None,
) -> DensityData:
    """Checked particles with their scale.

    Args:
      images: (n, D, D) bright on dark, within a round window.
      rotations: (n, 3, 3).
      shifts: (n, 2) y, x in pixels of these images.
      ctf: optics, scalars or (n,) arrays.
      pixel: Å.
      latents: (n, k) of the first phase, in the order of the images; (n, 0) for one density of all.
      scale: to go on with; that of the images, `spectral_deviation`, if None.

    Raises:
      InputError: numbers of particles that do not agree, or values that are not finite.
    """
    n = len(images)
    if n == 0 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise InputError(f"images of shape {images.shape}: expected (n, D, D) with at least one image")
    columns = CTFParams(*(np.broadcast_to(np.asarray(value, np.float32), (n,)) for value in _checked(ctf, n)))
    given = {"rotations": (rotations, (n, 3, 3)), "shifts": (shifts, (n, 2))}
    if latents is not None:
        given["latents"] = (latents, (n, np.shape(latents)[-1] if np.ndim(latents) == 2 else -1))
    for name, (value, shape) in given.items():
        if np.shape(value) != shape:
            raise InputError(
                f"{name} of shape {np.shape(value)} for {n} images: one row for each image is needed, in their order"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{name}: row {int(np.argwhere(~np.isfinite(value))[0][0])} is not finite")
    if scale is None:
        scale = spectral_deviation(images)
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"the images' spectra have a standard deviation of {scale}; are the images empty or damaged?")
    rows = None if latents is None else np.asarray(latents, np.float32)
    return DensityData(
        images, np.asarray(rotations, np.float32), np.asarray(shifts, np.float32), columns, float(pixel), rows, scale
    )


def _checked(ctf: CTFParams, n: int) -> CTFParams:
    for name, value in ctf._asdict().items():
        if np.shape(value) not in ((), (n,)):
            raise InputError(f"CTF {name} of shape {np.shape(value)} for {n} images: one value for each is needed")
        if not np.isfinite(value).all():
            raise InputError(f"CTF {name} is not finite for all images")
    return ctf


def spectral_deviation(images: np.ndarray) -> float:
    """Standard deviation of the images' transforms over all frequencies of about 100 evenly chosen ones (or all).

    Args:
      images: (n, D, D).
    """
    # With fewer than 100 images the published code steps by 0 and fails; all of them are used here.
    chosen = np.asarray(images[:: max(1, len(images) // _SAMPLE)], np.float64)
    side = chosen.shape[-1]
    # Parseval: the spectra's squares sum to those of the pixels times their number; their sum is the middle pixel's.
    squares = side**2 * np.sum(chosen**2)
    mean = chosen[:, side // 2, side // 2].mean()
    return float(np.sqrt(max(squares - chosen.size * mean**2, 0.0) / (chosen.size - 1)))


def observed(
    images: Float[Array, "n y x"], shifts: Float[Array, "n 2"], where: Points, shift: fourier.Shift = "compat"
) -> Complex[Array, "n p"]:
    """Spectra of centred images at points."""
    return density.at_points(fourier.fft(fourier.translate(images, shifts, shift)), where)


def fourier_error(
    predicted: Complex[Array, "n p"], seen: Complex[Array, "n p"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) of squared differences of real and imaginary parts: the loss `fmsf` is their quotient."""
    difference = predicted - seen
    return jnp.sum(difference.real**2 + difference.imag**2), jnp.asarray(2.0 * difference.size)


def real_error(
    predicted: Float[Array, "n y x"], seen: Float[Array, "n y x"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, number) of squared differences of pixels: the loss `rmsf` is their quotient."""
    return jnp.sum((predicted - seen) ** 2), jnp.asarray(float(predicted.size))


@dataclasses.dataclass(frozen=True, eq=False)
class DensityTask:
    """Densities of particles whose poses, CTF and (mostly) latents are known.

    Losses are means over images, so the engine may take them in any groups; `micro=1` is the fastest on CPU.

    Attributes:
      data: the particles.
      model: sizes of the network.
      size: images per step.
      loss_in: `fmsf`, mean squared difference of spectra within the mask, or `rmsf`, that of images.
      ctf: formula of the CTF.
      shift: how images are centred, see `ops.fourier.translate`; `compat` as published.
      free: nats of each latent that are not penalised (with an encoder).
      divergence: weight of the Kullback-Leibler divergence, which is divided by the pixels of the round window.
      held: images that are evaluated, evenly chosen. They are trained on as well: poses and latents are of all images,
        and half sets are two runs.
      monitor: minus the loss of these.
    """

    data: DensityData
    model: DensityConfig
    size: int = 16
    loss_in: Literal["fmsf", "rmsf"] = "fmsf"
    ctf: Version = "v2"
    shift: fourier.Shift = "compat"
    free: float = 3.0
    divergence: float = 1.0
    held: int = 256
    monitor: str = "neg_loss"

    def __post_init__(self):
        if self.loss_in not in ("fmsf", "rmsf"):
            raise ValueError(f"loss_in must be fmsf or rmsf, got {self.loss_in!r}")
        n, side = self.data.images.shape[:2]
        if side != self.model.side:
            raise InputError(f"images of {side} pixels, and the network's side is {self.model.side}")
        if self.size > n:
            raise InputError(f"{n} particles are fewer than the {self.size} of a step; set size to at most {n}")
        latents = self.data.latents
        if latents is None and not self.model.encoder and self.model.latent:
            raise InputError(
                "no latents: give those of the first phase (latents.npy), or set encoder=True, or latent=0"
            )
        if latents is not None and not self.model.encoder and latents.shape[1] != self.model.latent:
            raise InputError(f"latents of {latents.shape[1]} dimensions, and the network reads {self.model.latent}")

    @functools.cached_property
    def points(self) -> Points:
        """Frequencies that the network is asked for."""
        if self.loss_in == "fmsf":
            return density.points(self.model.side, self.model.side // 2 * self.model.mask)
        return density.plane(self.model)

    @functools.cached_property
    def _batches(self) -> ShuffledBatches:
        return ShuffledBatches(len(self.data.images), self.size, "drop")

    def build(self, key: PRNGKeyArray) -> Density:
        """A network to train."""
        return Density(self.model, rngs=nnx.Rngs(key))

    def batches(self, step: int, seed: int) -> Batch:
        """Shuffled particles; an epoch's last ones, fewer than a batch, are left out."""
        return self._batches(step, seed)

    def load(self, shape: Any, members: np.ndarray) -> Particle:
        """Particles by their rows."""
        data = self.data
        images = np.asarray(data.images[members], np.float32)
        rows = np.asarray(members)
        latents = np.zeros((len(rows), self.model.latent), np.float32)
        if data.latents is not None and not self.model.encoder:
            latents = data.latents[rows]
        ctf = CTFParams(*(np.asarray(value)[rows] for value in data.ctf))
        return Particle(images, data.rotations[rows], data.shifts[rows], ctf, latents)

    @property
    def resident(self) -> Callable[[], Particle] | None:
        """All particles, to be put on the devices, where they fit into 2 GiB; else None and they are loaded in turn."""
        if self.data.images.size * 4 > _RESIDENT:
            return None
        return lambda: self.load(None, np.arange(len(self.data.images)))

    def loss(self, model: Density, example: Particle, key: PRNGKeyArray) -> dict[str, Mean]:
        """Terms of one image."""
        one = jax.tree.map(lambda leaf: leaf[None], example)
        noise = jax.random.normal(key, (1, self.model.latent)) if self.model.encoder else None
        return self.terms(model, one, noise)

    def terms(self, model: Density, batch: Particle, noise: Float[Array, "n k"] | None = None) -> dict[str, Mean]:
        """Terms of some images.

        Args:
          model: the network.
          batch: images.
          noise: standard normal, of the draw of latents that an encoder gives; their means are taken if None.

        Returns:
          `fmsf` or `rmsf`, and with an encoder `divergence`.
        """
        images = batch.image / self.data.scale
        latent, found = batch.latent, {}
        if model.encoder is not None:
            latent, log_var = model.encoder(images)
            nats = jnp.sum(losses.divergence(latent, log_var, self.free))
            inside = float(fourier.window(self.model.side, 1.0).sum())
            found["divergence"] = Mean(nats, jnp.asarray(float(images.shape[0])), self.divergence / inside)
            if noise is not None:
                latent = latent + noise * jnp.exp(0.5 * log_var)
        where = self.points
        values = model(latent, batch.rotation, where).astype(jnp.float32)
        spectra = density.to_fourier(values, where)
        filters = transfer(batch.ctf, self.model.side, self.data.pixel, self.ctf)
        if self.loss_in == "fmsf":
            seen = observed(images, batch.shift, where, self.shift)
            total, count = fourier_error(spectra * density.at_points(filters, where), seen)
        else:
            seen = fourier.translate(images, batch.shift, self.shift)
            predicted = fourier.ifft(density.on_grid(spectra, where) * filters).real
            total, count = real_error(predicted, seen)
        return {self.loss_in: Mean(total, count), **found}

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Minus the loss on the held images, of the means of latents."""
        n = len(self.data.images)
        rows = np.unique(np.linspace(0, n - 1, min(self.held, n)).astype(int))

        @jax.jit
        def sums(variables: Any, batch: Particle) -> dict[str, tuple[Array, Array]]:
            model = nnx.merge(graphdef, variables)

            def one(example: Particle):
                found = self.terms(model, jax.tree.map(lambda leaf: leaf[None], example))
                return {name: (mean.total, mean.count) for name, mean in found.items()}

            return jax.tree.map(jnp.sum, jax.lax.map(one, batch))

        def evaluate(variables: Any) -> dict[str, float]:
            found = sums(variables, self.load(None, rows))
            means = {name: float(total / count) for name, (total, count) in found.items()}
            return {"neg_loss": -means[self.loss_in], **means}

        return evaluate

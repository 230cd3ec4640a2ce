"""cryoSTAR's auto-encoder as Flax NNX modules (Nature Methods 2024, doi 10.1038/s41592-024-02486-1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxprot.cryostar.config import VAEConfig
from jaxprot.ops import fourier


def _linear(n_in: int, n_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Uniform in ±1 / sqrt(inputs), weights and biases, as the published layers start."""

    def uniform(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -(n_in**-0.5), n_in**-0.5)

    return nnx.Linear(n_in, n_out, kernel_init=uniform, bias_init=uniform, rngs=rngs)


class MLP(nnx.Module):
    """Linear layers with rectifiers; where a layer keeps the width its input is added to it."""

    def __init__(self, n_in: int, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.input = _linear(n_in, widths[0], rngs)
        self.layers = nnx.List([_linear(a, b, rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)])

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        x = jax.nn.relu(self.input(x))
        for layer in self.layers:
            y = layer(x)
            x = jax.nn.relu(y + x if y.shape == x.shape else y)
        return x


class Encoder(nnx.Module):
    """Images to the mean and the logarithm of the variance of their latents."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        self.mlp = MLP(cfg.inputs, cfg.encoder, rngs=rngs)
        self.mean = _linear(cfg.encoder[-1], cfg.latent, rngs)
        self.log_var = _linear(cfg.encoder[-1], cfg.latent, rngs)
        self.space = cfg.space

    def __call__(self, images: Float[Array, "*n y x"]) -> tuple[Float[Array, "*n k"], Float[Array, "*n k"]]:
        if self.space == "fourier":
            spectrum = fourier.fft(images)
            images = jnp.stack([spectrum.real, spectrum.imag], -1).reshape(*images.shape[:-1], -1)
        hidden = self.mlp(images.reshape(*images.shape[:-2], -1))
        return self.mean(hidden), self.log_var(hidden)


class Decoder(nnx.Module):
    """Latents to the numbers that deform the reference."""

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        self.mlp = MLP(cfg.latent, cfg.decoder, rngs=rngs)
        self.output = _linear(cfg.decoder[-1], cfg.outputs, rngs)

    def __call__(self, latent: Float[Array, "*n k"]) -> Float[Array, "*n o"]:
        return self.output(self.mlp(latent))


class VAE(nnx.Module):
    """Images to conformations.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn.
    """

    def __init__(self, cfg: VAEConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.encoder, self.decoder = Encoder(cfg, rngs=rngs), Decoder(cfg, rngs=rngs)

    def __call__(
        self, images: Float[Array, "*n y x"], noise: Float[Array, "*n k"] | None = None
    ) -> tuple[Float[Array, "*n o"], Float[Array, "*n k"], Float[Array, "*n k"]]:
        """Deformations of a draw (of the mean, without noise), and mean and log variance of the latents."""
        mean, log_var = self.encoder(images)
        latent = mean if noise is None else mean + noise * jnp.exp(0.5 * log_var)
        return self.decoder(latent), mean, log_var


def displaced(deformation: Float[Array, "*n o"], reference: Float[Array, "m 3"]) -> Float[Array, "*n m 3"]:
    """Beads moved by their displacements in Å."""
    moved = deformation.reshape(*deformation.shape[:-1], -1, 3)
    return moved + reference.reshape((1,) * (moved.ndim - 2) + reference.shape)


def along_modes(
    deformation: Float[Array, "*n o"], reference: Float[Array, "m 3"], modes: Float[Array, "m3 k"]
) -> Float[Array, "*n m 3"]:
    """Beads moved along normal modes, then rotated and shifted.

    Args:
      deformation: axis and angle (3), shift in units of 10 Å (3), and a coefficient for each mode.
      reference: Å.
      modes: coordinates of a bead side by side.
    """
    turn, shift, share = deformation[..., :3], 10 * deformation[..., 3:6], deformation[..., 6:]
    moved = displaced(share @ modes.T, reference)
    # The published code contracts the first index, which turns the other way round.
    return jnp.einsum("...ji,...jk->...ik", jnp.swapaxes(moved, -1, -2), rotation(turn)) + shift[..., None, :]


def rotation(vector: Float[Array, "*n 3"]) -> Float[Array, "*n 3 3"]:
    """Rotation about an axis by its length in radians (Rodrigues)."""
    squared = jnp.sum(vector**2, -1)[..., None, None]
    small = squared < 1e-12
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    x, y, z = (vector[..., i] for i in range(3))
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)
    first = jnp.where(small, 1.0, jnp.sin(angle) / angle)
    second = jnp.where(small, 0.5, (1 - jnp.cos(angle)) / jnp.where(small, 1.0, squared))
    eye = jnp.eye(3, dtype=vector.dtype).reshape((1,) * (vector.ndim - 1) + (3, 3))
    return eye + first * cross + second * (cross @ cross)

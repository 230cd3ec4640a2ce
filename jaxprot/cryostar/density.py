"""Densities of conformations: a network of frequencies and latents (cryoSTAR's second phase).

The network gives one number (or real and imaginary part) at a point of frequency space. An image is a plane through the
origin, so it is compared with the network's values on that plane, and a volume is the inverse transform of its values
on a grid. By default the number is the Hartley transform, from which that of real densities follows: opposite
frequencies belong together. They also share the work of the first layer: cosines of opposite points are the same, and
coordinates and sines have the other sign. Nature Methods 2024, doi 10.1038/s41592-024-02486-1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Complex, Float, Int

from jaxprot.core.volume import Volume
from jaxprot.cryostar.config import DensityConfig, VAEConfig
from jaxprot.cryostar.model import Encoder
from jaxprot.ops import elementwise

_ENVELOPE, _WAVE = 30.0, 40.0  # frequencies of the two networks of sines
_EXACT = lax.Precision.HIGHEST  # coordinates are multiplied by up to the side; TensorFloat would turn phases by 0.1


class Points(NamedTuple):
    """Frequencies of a centred grid within a radius, one of each opposite pair first.

    Values at points are kept in the order: first ones of pairs, second ones in the same order, those without a partner
    (the origin, and where the side is even those whose frequency is Nyquist along some axis).

    Attributes:
      paired: (m, d) coordinates x, y (, z) of the first of each pair; the second's are minus those. A step of the grid
        is 2 / (side - 1).
      single: (s, d) coordinates without a partner.
      opposite: (s,) rows of `single` that the grid takes for their opposite: -Nyquist is Nyquist.
      flat: (p,) places in the flattened grid; p = 2 m + s.
      slot: (side ** d,) row of each place of the grid, p where it is outside.
    """

    paired: Float[Array, "m d"]
    single: Float[Array, "s d"]
    opposite: Int[Array, "s"]
    flat: Int[Array, "p"]
    slot: Int[Array, "g"]

    @property
    def count(self) -> int:
        """Points in all."""
        return self.flat.shape[0]


@functools.lru_cache(maxsize=16)
def points(side: int, radius: float | None = None, axes: int = 2) -> Points:
    """Points of a grid, on the host.

    Args:
      side: of the grid.
      radius: largest distance from the origin in steps of the grid; None for all.
      axes: 2 for an image, 3 for a volume.
    """
    line = np.arange(side) - side // 2
    grids = np.meshgrid(*[line] * axes, indexing="ij", sparse=True)
    squared = sum(np.square(part) for part in grids)
    inside = np.ones((side,) * axes, bool) if radius is None else squared <= np.float64(radius) ** 2
    index = np.stack(np.nonzero(inside), 1)  # (p, axes), z first
    flat = np.ravel_multi_index(tuple(index.T), (side,) * axes)
    mirror = np.ravel_multi_index(tuple((2 * (side // 2) - index.T) % side), (side,) * axes)
    alone = (flat == mirror) | ((index == 0).any(1) if side % 2 == 0 else False)
    first = ~alone & (flat < mirror)
    order = np.concatenate([flat[first], mirror[first], flat[alone]])
    slot = np.full(side**axes, len(order), np.int32)
    slot[order] = np.arange(len(order))
    pairs = 2 * int(first.sum())
    step = (index[:, ::-1] - side // 2) * (2 / (side - 1))
    return Points(
        step[first].astype(np.float32),
        step[alone].astype(np.float32),
        (slot[mirror[alone]] - pairs).astype(np.int32),
        order.astype(np.int32),
        slot,
    )


def plane(cfg: DensityConfig) -> Points:
    """The points of an image that are modelled; all of them for a mask of 1, as published."""
    return points(cfg.side, None if cfg.mask == 1 else cfg.mask / 2 * cfg.side)


def ball(cfg: DensityConfig) -> Points:
    """The points of a volume that are modelled."""
    return points(cfg.side, cfg.mask / 2 * cfg.side, 3)


def on_grid(values: Array, where: Points, axes: int = 2) -> Array:
    """Values (..., p) at points laid out on their grid (..., side, side), 0 outside."""
    side = round(where.slot.shape[0] ** (1 / axes))
    padded = jnp.concatenate([values, jnp.zeros((*values.shape[:-1], 1), values.dtype)], -1)
    return padded[..., jnp.asarray(where.slot)].reshape(*values.shape[:-1], *(side,) * axes)


def at_points(grid: Float[Array, "*n y x"] | Complex[Array, "*n y x"], where: Points) -> Array:
    """Values (..., p) of an image or spectrum (..., side, side) at points."""
    return grid.reshape(*grid.shape[:-2], -1)[..., jnp.asarray(where.flat)]


def to_fourier(values: Float[Array, "*n p o"], where: Points) -> Complex[Array, "*n p"]:
    """Spectrum from what the network gives: the Hartley transform, or real and imaginary part."""
    if values.shape[-1] == 2:
        return lax.complex(values[..., 0], values[..., 1])
    values, m = values[..., 0], where.paired.shape[0]
    first, second, single = values[..., :m], values[..., m : 2 * m], values[..., 2 * m :]
    opposite = jnp.concatenate([second, first, single[..., jnp.asarray(where.opposite)]], -1)
    return lax.complex((values + opposite) / 2, (opposite - values) / 2)


class Fixed(nnx.Variable):
    """A variable that is drawn once and never trained."""


class Encoding(nnx.Module):
    """Coordinates as waves: angles to take the cosine and sine of."""

    def __init__(self, cfg: DensityConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        if cfg.encoding in ("gau1", "gau2"):
            scale = cfg.side / {"gau1": 4, "gau2": 8}[cfg.encoding]
            self.directions = Fixed(scale * jax.random.normal(rngs.params(), (cfg.waves, 3)))

    def __call__(self, turned: Float[Array, "*n d 3"]) -> Float[Array, "*n d f"]:
        """Angles of waves at the ends of unit vectors; those at a point are the sums over its coordinates."""
        if self.cfg.encoding in ("gau1", "gau2"):
            return jnp.einsum("...dk,fk->...df", turned, self.directions[...], precision=_EXACT)
        if self.cfg.encoding == "no":
            return turned[..., :0]
        highest = self.cfg.side * (np.pi if self.cfg.encoding == "geo2" else 1)
        bands = highest ** (1 - np.arange(self.cfg.side) / (self.cfg.side - 1))
        bands = jnp.asarray(bands, turned.dtype).reshape((1,) * turned.ndim + (-1,))
        return (turned[..., None] * bands).reshape(*turned.shape[:-1], -1)


class Waves(NamedTuple):
    """Encoded points, see `Encoding`.

    Attributes:
      even: (n, p, f) cosines.
      odd: (n, p, 3 + f) turned coordinates and sines; of the opposite points all have the other sign.
    """

    even: Float[Array, "n p f"]
    odd: Float[Array, "n p g"]


class First(nnx.Module):
    """The first linear layer on latents, coordinates, cosines and sines.

    The part of the latents is computed once for an image, and a point and its opposite share everything else.
    """

    def __init__(self, cfg: DensityConfig, init: Callable[..., Any], *, rngs: nnx.Rngs):
        self.latent, self.waves = cfg.latent, cfg.waves
        self.linear = _linear(cfg.inputs, cfg.hidden, init, rngs)

    def __call__(self, latent: Float[Array, "n k"], waves: Waves, both: bool) -> Float[Array, "n q h"]:
        """The layer at points, and if `both`, behind these at their opposites."""
        kernel = self.linear.kernel[...]
        k, f = self.latent, self.waves
        base = (latent.astype(kernel.dtype) @ kernel[:k] + self.linear.bias[...][None])[:, None]
        odd = _product(waves.odd.astype(kernel.dtype), jnp.concatenate([kernel[k : k + 3], kernel[k + 3 + f :]]))
        even = _product(waves.even.astype(kernel.dtype), kernel[k + 3 : k + 3 + f]) + base if f else base
        return jnp.concatenate([even + odd, even - odd], 1) if both else even + odd


def _uniform(limit: float) -> Callable[..., Any]:
    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def _linear(n_in: int, n_out: int, init: Callable[..., Any] | None, rngs: nnx.Rngs) -> nnx.Linear:
    """Biases, and where `init` is None weights, uniform in ±1 / sqrt(inputs)."""
    usual = _uniform(n_in**-0.5)
    return nnx.Linear(n_in, n_out, kernel_init=init or usual, bias_init=usual, rngs=rngs)


def _apply(layer: nnx.Linear, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
    """In the type of the weights."""
    bias = layer.bias[...]
    return _product(x.astype(bias.dtype), layer.kernel[...]) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


@jax.custom_vjp
def _product(x: Float[Array, "*n i"], kernel: Float[Array, "i o"]) -> Float[Array, "*n o"]:
    """Matrix product whose derivative by the kernel reads both arrays as they lie.

    XLA on CPU transposes the first array of such a product, together with all that it is computed from where nothing
    else needs it: here what is there already, or the narrow one.
    """
    return x @ kernel


def _product_back(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rows = (tuple(range(x.ndim - 1)),) * 2
    if kernel.shape[1] < 8:
        return slope @ kernel.T, lax.dot_general(slope, x, (rows, ((), ()))).T
    return slope @ kernel.T, lax.dot_general(x, slope, (rows, ((), ())))


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_back)


class Residual(nnx.Module):
    """Layers with shortcuts, GELU, and a linear output."""

    def __init__(self, cfg: DensityConfig, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal
        self.input = First(cfg, normal(cfg.inputs**-0.5), rngs=rngs)
        self.layers = nnx.List(
            [_linear(cfg.hidden, cfg.hidden, normal(cfg.hidden**-0.5), rngs) for _ in range(cfg.layers)]
        )
        self.output = _linear(cfg.hidden, cfg.outputs, None, rngs)

    def __call__(self, latent: Float[Array, "n k"], waves: Waves, both: bool) -> Float[Array, "n q o"]:
        """Values at points, and if `both`, behind these at their opposites."""
        x = elementwise.gelu(self.input(latent, waves, both))
        for layer in self.layers:
            x = x + elementwise.gelu(_apply(layer, x))
        return _apply(self.output, x)


class Sines(nnx.Module):
    """A network with sines for activations; `frequency` multiplies what enters them."""

    def __init__(self, cfg: DensityConfig, frequency: float, *, rngs: nnx.Rngs):
        self.frequency = frequency
        hidden = _uniform((6 / cfg.hidden) ** 0.5 / frequency)
        self.input = First(cfg, _uniform(1 / cfg.inputs), rngs=rngs)
        self.layers = nnx.List([_linear(cfg.hidden, cfg.hidden, hidden, rngs) for _ in range(cfg.layers)])
        self.output = _linear(cfg.hidden, cfg.outputs, hidden, rngs)

    def __call__(self, latent: Float[Array, "n k"], waves: Waves, both: bool) -> Float[Array, "n q o"]:
        """Values at points, and if `both`, behind these at their opposites."""
        x = elementwise.sin(self.frequency * self.input(latent, waves, both))
        for layer in self.layers:
            x = elementwise.sin(self.frequency * _apply(layer, x))
        return _apply(self.output, x)


class Enveloped(nnx.Module):
    """An envelope, exponential, times a wave (CryoAI's network).

    The number of layers is that of the other networks, which no published file of this kind was at hand to tell.
    """

    def __init__(self, cfg: DensityConfig, *, rngs: nnx.Rngs):
        self.envelope, self.wave = Sines(cfg, _ENVELOPE, rngs=rngs), Sines(cfg, _WAVE, rngs=rngs)

    def __call__(self, latent: Float[Array, "n k"], waves: Waves, both: bool) -> Float[Array, "n q o"]:
        """Values at points, and if `both`, behind these at their opposites."""
        return jnp.exp(self.envelope(latent, waves, both)) * self.wave(latent, waves, both)


class Density(nnx.Module):
    """Latents to densities, and where `cfg.encoder` images to latents.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn.
    """

    def __init__(self, cfg: DensityConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.encoding = Encoding(cfg, rngs=rngs)
        self.net = (Enveloped if cfg.net == "cryoai" else Residual)(cfg, rngs=rngs)
        # Widths are equal, so every layer but the first has a shortcut.
        sizes = VAEConfig(side=cfg.side, beads=1, latent=max(cfg.latent, 1), encoder=(cfg.hidden,) * 5, space="fourier")
        self.encoder = Encoder(sizes, rngs=rngs) if cfg.encoder else None

    def __call__(
        self, latent: Float[Array, "n k"], rotations: Float[Array, "n 3 3"], where: Points
    ) -> Float[Array, "n p o"]:
        """What the network gives at points of turned grids; `to_fourier` makes a spectrum of it.

        Args:
          latent: of each image; k is 0 for a network without.
          rotations: of each image, from the molecule to the image as everywhere; a point p is at p R in the molecule.
          where: the points, of 2 or 3 coordinates.
        """
        pairs = self.net(latent, self.waves(jnp.asarray(where.paired), rotations), True)
        single = self.net(latent, self.waves(jnp.asarray(where.single), rotations), False)
        return jnp.concatenate([pairs, single], 1)

    def waves(self, xyz: Float[Array, "p d"], rotations: Float[Array, "n 3 3"]) -> Waves:
        """Points encoded in the frame of the molecule."""
        turned = rotations[:, : xyz.shape[1]]
        sine, cosine = elementwise.sincos(_combined(xyz, self.encoding(turned)))
        return Waves(cosine, jnp.concatenate([_combined(xyz, turned), sine], -1))


def _combined(xyz: Float[Array, "p d"], each: Float[Array, "n d c"]) -> Float[Array, "n p c"]:
    """Sums over coordinates, as products that XLA merges with what follows."""
    return sum(xyz[None, :, axis, None] * each[:, None, axis] for axis in range(xyz.shape[1]))


def slices(
    module: Density, latent: Float[Array, "n k"], rotations: Float[Array, "n 3 3"]
) -> Complex[Array, "n side side"]:
    """Spectra of the projections of densities, centred as `ops.fourier.fft`, 0 outside the mask."""
    where = plane(module.cfg)
    return on_grid(to_fourier(module(latent, rotations, where), where), where)


def grid(module: Density, latent: Float[Array, "k"], where: Points, chunk: int = 8192) -> Float[Array, "z y x"]:
    """Density of one latent on a grid, in the units of the images that the network was trained on.

    Args:
      module: the network.
      latent: one.
      where: `ball` of the network's sizes, which may be large, so it is an argument to what is jitted.
      chunk: pairs of points at once.
    """
    side = module.cfg.side
    m = where.paired.shape[0]
    chunk = max(1, min(chunk, m))
    upright = jnp.eye(3)[None]
    latent = latent[None]
    parts = -(-m // chunk)
    paired = jnp.pad(jnp.asarray(where.paired), ((0, parts * chunk - m), (0, 0))).reshape(parts, chunk, 3)

    def part(xyz: Float[Array, "c 3"]) -> Float[Array, "b c o"]:
        return module.net(latent, module.waves(xyz, upright), True).reshape(2, chunk, -1)

    pairs = jnp.moveaxis(lax.map(part, paired), 1, 0).reshape(2, parts * chunk, -1)[:, :m]
    single = module.net(latent, module.waves(jnp.asarray(where.single), upright), False)[0]
    values = jnp.concatenate([pairs.reshape(2 * m, -1), single]).astype(jnp.float32)
    spectrum = on_grid(to_fourier(values, where), where, 3).reshape((side,) * 3)
    return jnp.fft.fftshift(jnp.fft.ifftn(jnp.fft.ifftshift(spectrum))).real


@functools.partial(jax.jit, static_argnames=("graphdef", "chunk"))
def _grid(graphdef: Any, leaves: Any, latent: Array, where: Points, chunk: int) -> Array:
    return grid(nnx.merge(graphdef, leaves), latent, where, chunk)


def volume(
    module: Density, latent: Float[Array, "k"], pixel: float, name: str = "density", chunk: int = 8192
) -> Volume:
    """Density of one latent as a map.

    Args:
      module: the network.
      latent: one; of length 0 for a network without.
      pixel: Å of the images.
      name: of the map.
      chunk: pairs of frequencies at once, which bounds the memory.

    Returns:
      A map with the images' origin, side // 2, at position 0.
    """
    graphdef, leaves = nnx.split(module)
    where = ball(module.cfg)
    data = _grid(graphdef, leaves, jnp.asarray(latent, jnp.float32), where, chunk)
    return Volume(np.asarray(data), np.full(3, pixel), np.full(3, -pixel * (module.cfg.side // 2)), name)

"""RMSF-net as Flax NNX modules (Song et al., Nature Communications 2024, doi 10.1038/s41467-024-49858-x).

A three-dimensional UNet++ on boxes of 40 voxels of which the central 10 are predicted. Each node is evaluated only
where the output depends on it, with zeros exactly where the published network pads: the same result for a quarter of
the work.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.ops.conv3d import Padding, conv3d
from jaxprot.rmsfnet.config import RMSFNetConfig

BOX, CORE = 40, 10
SPACING = 1.5  # Å
_TRACE = 1e-2  # added to blurred densities before the logarithm; inside of proteins they are 0.1 to 0.5
# node (level, column) -> nodes whose outputs it reads at its own level; the last level-(i + 1) node is up-sampled.
NODES = ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3))
_kaiming = nnx.initializers.he_normal(in_axis=-2, out_axis=-1)


class Span(NamedTuple):
    """Half-open range of voxels, the same on the three axes of a box."""

    start: int
    stop: int

    def grown(self, by: int, size: int) -> Span:
        """With `by` more voxels at both ends, within a box of `size`."""
        return Span(max(0, self.start - by), min(size, self.stop + by))

    def joined(self, other: Span | None) -> Span:
        """The smallest range that holds both."""
        return self if other is None else Span(min(self.start, other.start), max(self.stop, other.stop))


def upsampling(size: int) -> np.ndarray:
    """Matrix (2 size, size) of linear interpolation to twice the length with both ends kept."""
    position = np.arange(2 * size) * (size - 1) / (2 * size - 1)
    left = np.minimum(position.astype(int), size - 2)
    matrix = np.zeros((2 * size, size))
    matrix[np.arange(2 * size), left] = 1 - (position - left)
    matrix[np.arange(2 * size), left + 1] = position - left
    return matrix


@functools.cache
def needed(core: int) -> dict[tuple[int, int], Span]:
    """Which part of each node's output the prediction of the central `core` voxels (per axis) depends on.

    The encoder is needed whole in any case.
    """
    whole = {node: Span(0, BOX >> node[0]) for node in NODES}
    if core == BOX:
        return whole
    out = {(0, 3): Span((BOX - core) // 2, (BOX + core) // 2)}
    for level, column in reversed(NODES):
        size = BOX >> level
        wanted = out[level, column]
        reads = wanted.grown(2, size)
        if column == 0:
            if level:
                out[level - 1, 0] = whole[level - 1, 0]
            continue
        for before in range(column):
            out[level, before] = reads.joined(out.get((level, before)))
        columns = np.flatnonzero(upsampling(size // 2)[reads.start : reads.stop].any(0))
        below = Span(int(columns[0]), int(columns[-1]) + 1)
        out[level + 1, column - 1] = below.joined(out.get((level + 1, column - 1)))
    return out


def _crop(x: Array, held: Span, wanted: Span) -> Array:
    part = slice(wanted.start - held.start, wanted.stop - held.start)
    return x[:, part, part, part]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _upsample(x: Array, held: Span, wanted: Span, size: int) -> Array:
    """Values at `wanted` of the doubled grid from those at `held` of a grid of `size`."""
    matrix = upsampling(size)[wanted.start : wanted.stop]
    left = np.argmax(matrix > 0, axis=1)
    share = 1 - matrix[np.arange(len(matrix)), left]
    right = np.minimum(left + 1, held.stop - 1)  # a voxel that hits the grid needs no right neighbour
    for axis in (1, 2, 3):
        shape = [1] * x.ndim
        shape[axis] = len(share)
        fraction = share.reshape(shape).astype(x.dtype)
        low, high = (jnp.take(x, index - held.start, axis=axis) for index in (left, right))
        x = low + (high - low) * fraction
    return x


def _upsample_forward(x, held, wanted, size):
    return _upsample(x, held, wanted, size), None


def _upsample_backward(held, wanted, size, _, grad):
    """Products with the transposed matrix; differentiation would scatter, which is slow on CPU."""
    matrix = jnp.asarray(upsampling(size)[wanted.start : wanted.stop, held.start : held.stop], grad.dtype)
    for axis in (1, 2, 3):
        shape = grad.shape
        lines = grad.reshape(int(np.prod(shape[:axis])), shape[axis], -1)
        grad = jnp.einsum("wh,nwk->nhk", matrix, lines).reshape(*shape[:axis], matrix.shape[1], *shape[axis + 1 :])
    return (grad,)


_upsample.defvjp(_upsample_forward, _upsample_backward)


class Conv(nnx.Module):
    """A three-dimensional convolution with a bias, channels last."""

    def __init__(self, n_in: int, n_out: int, taps: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_kaiming(rngs.params(), (taps, taps, taps, n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out))

    def __call__(self, x: Array, padding: Padding = ((0, 0), (0, 0), (0, 0))) -> Array:
        kernel = self.kernel[...]
        return conv3d(x.astype(kernel.dtype), kernel, padding) + self.bias[...][None, None, None, None]


def _norm(width: int, folded: bool, rngs: nnx.Rngs) -> nnx.BatchNorm | None:
    if folded:
        return None
    return nnx.BatchNorm(width, epsilon=1e-5, momentum=0.9, use_fast_variance=False, rngs=rngs)


def _activate(x: Array, norm: nnx.BatchNorm | None) -> Array:
    return jax.nn.relu(x if norm is None else norm(x))


class Block(nnx.Module):
    """Two convolutions of three taps, each normalised over the batch and rectified."""

    def __init__(self, n_in: int, n_out: int, folded: bool, *, rngs: nnx.Rngs):
        self.conv1, self.norm1 = Conv(n_in, n_out, 3, rngs=rngs), _norm(n_out, folded, rngs)
        self.conv2, self.norm2 = Conv(n_out, n_out, 3, rngs=rngs), _norm(n_out, folded, rngs)

    def __call__(self, x: Array, wanted: Span, size: int) -> Array:
        """Output at `wanted` from input at `wanted.grown(2, size)`."""
        between, reads = wanted.grown(1, size), wanted.grown(2, size)
        # Zeros only where the range meets the border of the box.
        first = (1 - (between.start - reads.start), 1 - (reads.stop - between.stop))
        second = (1 - (wanted.start - between.start), 1 - (between.stop - wanted.stop))
        x = _activate(self.conv1(x, (first,) * 3), self.norm1)
        return _activate(self.conv2(x, (second,) * 3), self.norm2)


class Head(nnx.Module):
    """Two maps of each voxel's channels, read together."""

    def __init__(self, cfg: RMSFNetConfig, folded: bool, *, rngs: nnx.Rngs):
        self.rate = cfg.dropout
        self.conv1, self.norm1 = Conv(cfg.width, cfg.width, 1, rngs=rngs), _norm(cfg.width, folded, rngs)
        self.conv2, self.norm2 = Conv(cfg.width, cfg.width, 1, rngs=rngs), _norm(cfg.width, folded, rngs)
        self.final = Conv(2 * cfg.width, 1, 1, rngs=rngs)

    def __call__(self, x: Array, key: PRNGKeyArray | None = None) -> Array:
        first = _activate(self.conv1(x), self.norm1)
        if key is not None and self.rate > 0:
            keep = jax.random.bernoulli(key, 1 - self.rate, first.shape)
            first = jnp.where(keep, first / (1 - self.rate), 0)
        second = _activate(self.conv2(first), self.norm2)
        return self.final(jnp.concatenate([first, second], axis=-1))[..., 0]


def normalise(boxes: Float[Array, "n 40 40 40 c"]) -> Float[Array, "n 40 40 40 c"]:
    """Divides the first channel by its maximum in the box and cuts it at zero, as published.

    A box whose maximum is not positive, which the published network divides by zero, becomes zeros.
    """
    first = boxes[..., :1]
    largest = jnp.max(first, axis=(1, 2, 3), keepdims=True)
    scaled = jnp.where(largest > 0, jnp.maximum(first, 0) / jnp.where(largest > 0, largest, 1), 0)
    return jnp.concatenate([scaled, boxes[..., 1:]], axis=-1)


def blurred(boxes: Float[Array, "n 40 40 40 c"], widths: tuple[float, ...]) -> Float[Array, "n 40 40 40 w"]:
    """Logarithms of the last density, blurred by Gaussians.

    Args:
      boxes: densities; beyond a box there is none.
      widths: standard deviations in Å.
    """
    last, out = jnp.maximum(boxes[..., -1], 0), []
    for width in widths:
        step = SPACING / width
        weights = np.exp(-0.5 * np.square(step * np.subtract.outer(np.arange(BOX), np.arange(BOX))))
        matrix = jnp.asarray(weights * step / np.sqrt(2 * np.pi), boxes.dtype)
        out.append(
            jnp.log(jnp.einsum("nabc,ax,by,cz->nxyz", last, matrix, matrix, matrix, optimize="optimal") + _TRACE)
        )
    return jnp.stack(out, axis=-1)


class RMSFNet(nnx.Module):
    """log10(RMSF / Å + 1) of the central voxels of boxes.

    Args:
      cfg: sizes.
      folded: without batch normalisation, which `weights.fold` puts into the convolutions.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: RMSFNetConfig, folded: bool = False, *, rngs: nnx.Rngs):
        self.cfg = cfg
        for level, column in NODES:
            width = cfg.width << level
            if column:
                n_in = column * width + 2 * width
            else:
                n_in = width // 2 if level else cfg.channels + len(cfg.context)
            setattr(self, f"conv{level}_{column}", Block(n_in, width, folded, rngs=rngs))
        self.head = Head(cfg, folded, rngs=rngs)

    def nodes(self, boxes: Float[Array, "n 40 40 40 c"], core: int = CORE) -> dict[tuple[int, int], Array]:
        """Outputs of the nodes of the UNet++, where they are needed.

        Args:
          boxes: densities; channel 0 is the map (of the model's, in the variant `pdb`), channel 1 the model's.
          core: only what so many central voxels depend on.
        """
        spans, out = needed(core), {}
        for level, column in NODES:
            size, span = BOX >> level, spans[level, column]
            reads = span.grown(2, size)
            if column:
                parts = [_crop(out[level, before], spans[level, before], reads) for before in range(column)]
                below = (level + 1, column - 1)
                parts.append(_upsample(out[below], spans[below], reads, size // 2))
                x = jnp.concatenate(parts, axis=-1)
            else:
                x = _pool(out[level - 1, 0]) if level else self._seen(boxes)
            block: Any = getattr(self, f"conv{level}_{column}")
            out[level, column] = block(x, span, size)
        return out

    def _seen(self, boxes: Array) -> Array:
        scaled = normalise(boxes)
        if not self.cfg.context:
            return scaled
        # The model's map has units of its own; a map is only known up to a factor.
        density = scaled if self.cfg.variant == "map" else boxes
        return jnp.concatenate([scaled, blurred(density, self.cfg.context)], axis=-1)

    def __call__(
        self, boxes: Float[Array, "n 40 40 40 c"], key: PRNGKeyArray | None = None, core: int = CORE
    ) -> Float[Array, "n core core core"]:
        return self.head(self.nodes(boxes, core)[0, 3], key).astype(jnp.float32)


def _pool(x: Array) -> Array:
    """Maximum over cubes of two voxels."""
    n, d, h, w, c = x.shape
    return jnp.max(x.reshape(n, d // 2, 2, h // 2, 2, w // 2, 2, c), axis=(2, 4, 6))

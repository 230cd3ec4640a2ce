"""Three-dimensional convolution that is fast on CPU as well.

XLA's own three-dimensional convolution is slow on CPU. Folded into the batch, the depth becomes
images of one two-dimensional convolution whose output channels hold the three depth taps, which are then added with a
shift; on GPU and TPU the native operation is used. Both are the same sum.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_DIMENSIONS = ("NDHWC", "DHWIO", "NDHWC")
Padding = Sequence[tuple[int, int]]
_FEW = 8  # channels
_TILE = 8  # columns


def conv3d(
    x: Float[Array, "n d h w c"], kernel: Float[Array, "a b e c o"], padding: Padding = ((0, 0), (0, 0), (0, 0))
) -> Float[Array, "n dd hh ww o"]:
    """Correlation with a kernel (as every deep-learning library's "convolution"), stride 1.

    Args:
      x: images, channels last.
      kernel: taps by depth, height, width, then input and output channels.
      padding: zeros before and after each of the three axes.

    Returns:
      Images whose axes are shorter by the taps less one, plus the padding.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    if kernel.shape[:3] == (1, 1, 1):
        return x @ kernel[0, 0, 0]
    return lax.platform_dependent(x, kernel, cpu=stacked, default=native)


@jax.custom_vjp
def stacked(x: Float[Array, "n d h w c"], kernel: Float[Array, "a b e c o"]) -> Float[Array, "n dd hh ww o"]:
    """The convolution without padding as one two-dimensional one with `a * o` output channels."""
    n, d, h, w, c = x.shape
    taps, rows, columns, _, o = kernel.shape
    flat = jnp.transpose(kernel, (1, 2, 3, 0, 4)).reshape(rows, columns, c, taps * o)
    images = lax.conv_general_dilated(
        x.reshape(n * d, h, w, c), flat, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    parts = images.reshape(n, d, h - rows + 1, w - columns + 1, taps, o)
    depth = d - taps + 1
    return functools.reduce(jnp.add, [parts[:, i : depth + i, :, :, i] for i in range(taps)])


def native(x: Float[Array, "n d h w c"], kernel: Float[Array, "a b e c o"]) -> Float[Array, "n dd hh ww o"]:
    """The convolution without padding as XLA's own operation."""
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "VALID", dimension_numbers=_DIMENSIONS)


def _forward(x, kernel):
    return stacked(x, kernel), (x, kernel)


def _gathered(x, kernel):
    """The same sum with the depth taps as input channels: less to write where the output has more channels."""
    n, d, h, w, c = x.shape
    taps, rows, columns, _, o = kernel.shape
    depth = d - taps + 1
    flat = jnp.transpose(kernel, (1, 2, 0, 3, 4)).reshape(rows, columns, taps * c, o)
    deep = jnp.concatenate([x[:, i : depth + i] for i in range(taps)], axis=-1)
    images = lax.conv_general_dilated(
        deep.reshape(n * depth, h, w, taps * c), flat, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return images.reshape(n, depth, h - rows + 1, w - columns + 1, o)


def _backward(saved, grad):
    """Gradients by convolutions and matrix products of two dimensions.

    Differentiation would make transposed three-dimensional work of both, which is several times slower on CPU.
    """
    x, kernel = saved
    taps, rows, columns, c, o = kernel.shape
    around = [(0, 0), *((n - 1, n - 1) for n in (taps, rows, columns)), (0, 0)]
    turned = jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
    by_x = (_gathered if o < c else stacked)(jnp.pad(grad, around), turned)
    long = grad.shape[3] >= 20 and columns <= 3
    by_kernel = _by_kernel
    if long and 4 <= c <= _FEW and o <= _FEW and grad.shape[3] >= 32:
        by_kernel = _by_kernel_tiled
    elif long and c >= 32 and c >= 2 * o:
        by_kernel = _by_kernel_paired
    return by_x, by_kernel(x, grad, kernel.shape)


def _by_kernel(x, grad, shape):
    """One two-dimensional convolution with the images as channels."""
    taps, rows, columns, c, o = shape
    n, depth, h, w, _ = x.shape
    deep = jnp.pad(grad, [(0, 0), (taps - 1, taps - 1), (0, 0), (0, 0), (0, 0)])
    # The gradient as depth tap i sees it, beside each input image; its channels hold the taps.
    seen = jnp.concatenate([deep[:, taps - 1 - i : taps - 1 - i + depth] for i in range(taps)], axis=-1)
    product = lax.conv_general_dilated(
        x.reshape(n * depth, h, w, c),
        seen.reshape(n * depth, h - rows + 1, w - columns + 1, taps * o),
        (1, 1),
        "VALID",
        dimension_numbers=("CHWN", "IHWO", "NHWC"),
    )
    return jnp.transpose(product.reshape(c, rows, columns, taps, o), (3, 1, 2, 0, 4))


def _by_kernel_tiled(x, grad, shape):
    """Matrix products of tiles of a line, in which columns and channels are one axis.

    Few channels make products too thin to be fast. Tiles make them wide; of each product only the bands that belong to
    a tap are used, which still takes less time: channels 8 to 8 on lines of 40, 0.27 s for 0.41 s.
    """
    taps, rows, columns, c, o = shape
    depth, height, width = grad.shape[1:4]
    tiles = -(-width // _TILE)
    wide = _tiles(x, tiles, _TILE, columns)
    grad = jnp.pad(grad, [(0, 0)] * 3 + [(0, tiles * _TILE - width), (0, 0)]).reshape(-1, _TILE * o)
    out = []
    for i in range(taps):
        for j in range(rows):
            part = wide[:, i : depth + i, j : height + j].reshape(-1, wide.shape[-1])
            product = lax.dot_general(part, grad, (((0,), (0,)), ((), ())))
            out.append(_bands(product.reshape(_TILE + columns - 1, c, _TILE, o), columns))
    return jnp.stack(out).reshape(taps, rows, columns, c, o)


def _by_kernel_paired(x, grad, shape):
    """One matrix product of pairs of columns, the taps in depth and height side by side as channels of the gradient.

    For many channels in and few out (32 to 8 on lines of 28: 0.24 s for 0.48 s).
    """
    taps, rows, columns, c, o = shape
    depth, height, width = x.shape[1], x.shape[2], grad.shape[3]
    pairs = -(-width // 2)
    wide = _tiles(x, pairs, 2, columns)
    around = [(0, 0), (taps - 1, taps - 1), (rows - 1, rows - 1), (0, 2 * pairs - width), (0, 0)]
    grad = jnp.pad(grad, around)
    grad = grad.reshape(*grad.shape[:3], pairs, 2 * o)
    seen = [
        grad[:, taps - 1 - i : taps - 1 - i + depth, rows - 1 - j : rows - 1 - j + height]
        for i in range(taps)
        for j in range(rows)
    ]
    beside = jnp.concatenate(seen, axis=-1).reshape(-1, taps * rows * 2 * o)
    product = lax.dot_general(wide.reshape(-1, wide.shape[-1]), beside, (((0,), (0,)), ((), ())))
    product = product.reshape(columns + 1, c, taps, rows, 2, o).transpose(0, 1, 4, 2, 3, 5)
    return _bands(product, columns).transpose(2, 3, 0, 1, 4)


def _tiles(x, count, size, columns):
    """(n, d, h, count, (size + columns - 1) * c): overlapping tiles of lines, columns and channels one axis."""
    *outer, w, c = x.shape
    if (count + 1) * size < w:
        raise ValueError("tiles do not cover the lines")
    x = jnp.pad(x, [(0, 0)] * 3 + [(0, (count + 1) * size - w), (0, 0)])
    lines = x.reshape(*outer, count + 1, size * c)
    return jnp.concatenate([lines[..., :-1, :], lines[..., 1:, : (columns - 1) * c]], axis=-1)


def _bands(product, columns):
    """Sums over a tile's columns: (columns + tile - 1, c, tile, ...) -> (columns, c, ...), one band for each tap."""
    tile = product.shape[2]
    bands = [[product[v + tap, :, v] for v in range(tile)] for tap in range(columns)]
    return jnp.stack([functools.reduce(jnp.add, band) for band in bands])


stacked.defvjp(_forward, _backward)

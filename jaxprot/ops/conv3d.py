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


def _backward(saved, grad):
    """By the input: a convolution again. By the kernel: one two-dimensional convolution with the images as channels.

    Differentiation would make transposed three-dimensional work of both, which is several times slower on CPU.
    """
    x, kernel = saved
    taps, rows, columns, c, o = kernel.shape
    around = [(0, 0), *((n - 1, n - 1) for n in (taps, rows, columns)), (0, 0)]
    turned = jnp.swapaxes(kernel[::-1, ::-1, ::-1], 3, 4)
    by_x = stacked(jnp.pad(grad, around), turned)
    n, depth, h, w, _ = x.shape
    deep = jnp.pad(grad, [(0, 0), (taps - 1, taps - 1), (0, 0), (0, 0), (0, 0)])
    # The gradient as depth tap i sees it, beside each input image; its channels hold the taps.
    seen = jnp.concatenate([deep[:, taps - 1 - i : taps - 1 - i + depth] for i in range(taps)], axis=-1)
    images = x.reshape(n * depth, h, w, c)
    product = lax.conv_general_dilated(
        images,
        seen.reshape(n * depth, h - rows + 1, w - columns + 1, taps * o),
        (1, 1),
        "VALID",
        dimension_numbers=("CHWN", "IHWO", "NHWC"),
    )
    return by_x, jnp.transpose(product.reshape(c, rows, columns, taps, o), (3, 1, 2, 0, 4))


stacked.defvjp(_forward, _backward)

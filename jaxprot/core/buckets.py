"""Length buckets: few padded shapes, so that few programs are compiled."""

import math

import numpy as np

DEFAULT: tuple[int, ...] = (
    *range(32, 257, 32),
    *range(320, 513, 64),
    *range(640, 1025, 128),
    *range(1280, 2049, 256),
)
"""Steps of 32 up to 256, 64 to 512, 128 to 1024, 256 to 2048; at most a quarter of a longer input is padding."""


def bucket_length(n: int, sizes: tuple[int, ...] = DEFAULT) -> int:
    """Returns the smallest bucket that holds `n` items.

    Beyond the last of `sizes` the buckets grow by a quarter each, rounded up to a multiple of 256.

    Args:
      n: number of items, at least 0.
      sizes: ascending bucket sizes.

    Raises:
      ValueError: `n` is negative or `sizes` is empty.
    """
    if n < 0 or not sizes:
        raise ValueError(f"bucket_length needs n >= 0 and at least one size, got n={n}, sizes={sizes}")
    for size in sizes:
        if n <= size:
            return size
    size = sizes[-1]
    while size < n:
        size = 256 * math.ceil(1.25 * size / 256)
    return size


def pad_to(array: np.ndarray, length: int, value: float = 0) -> np.ndarray:
    """Pads the first axis with `value` up to `length`.

    Args:
      array: (n, ...) with n <= length.
      length: wanted size of the first axis.
      value: fill value, cast to the type of `array`.

    Returns:
      (length, ...) of the same type; the array itself where nothing is to be added.

    Raises:
      ValueError: the array is longer than `length`.
    """
    array = np.asarray(array)
    if len(array) > length:
        raise ValueError(f"cannot pad {len(array)} items to {length}")
    if len(array) == length:
        return array
    out = np.full((length, *array.shape[1:]), value, array.dtype)
    out[: len(array)] = array
    return out

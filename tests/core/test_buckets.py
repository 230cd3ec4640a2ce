"""Length buckets."""

import numpy as np
import pytest

from jaxprot.core import buckets


def test_every_length_fits_and_little_is_wasted():
    lengths = np.arange(1, 6000)
    sizes = np.array([buckets.bucket_length(int(n)) for n in lengths])
    assert (sizes >= lengths).all() and (np.diff(sizes) >= 0).all()
    assert (sizes[lengths > 256] <= 1.25 * lengths[lengths > 256] + 256).all()
    assert len(set(sizes.tolist())) < 30


@pytest.mark.parametrize(("n", "size"), [(0, 32), (1, 32), (32, 32), (33, 64), (256, 256), (257, 320), (513, 640),
                                         (1025, 1280), (2048, 2048), (2049, 2560), (2561, 3328)])  # fmt: skip
def test_bucket_borders(n, size):
    assert buckets.bucket_length(n) == size


def test_padding():
    array = np.arange(6, dtype=np.int16).reshape(3, 2)
    padded = buckets.pad_to(array, 5, -1)
    assert padded.dtype == np.int16 and padded[3:].tolist() == [[-1, -1]] * 2
    assert buckets.pad_to(array, 3) is array
    with pytest.raises(ValueError, match="cannot pad"):
        buckets.pad_to(array, 2)
    with pytest.raises(ValueError, match="n >= 0"):
        buckets.bucket_length(-1)

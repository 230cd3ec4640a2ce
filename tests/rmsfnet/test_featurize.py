"""Geometry of RMSF-net's boxes."""

import numpy as np
import pytest

from jaxprot.rmsfnet import featurize


def test_the_rotations_are_the_24_of_a_cube():
    axes = np.stack(np.meshgrid(*[np.arange(3) - 1.0] * 3, indexing="ij"), -1)
    matrices = set()
    for number in range(24):
        turned = featurize.rotate(axes, number)
        # Where the unit vectors end up: the matrix of the rotation, read off the three axes.
        matrix = np.stack([turned[2, 1, 1], turned[1, 2, 1], turned[1, 1, 2]])
        assert np.linalg.det(matrix) == pytest.approx(1)
        np.testing.assert_array_equal(turned, axes @ matrix)
        matrices.add(tuple(matrix.ravel().tolist()))
    assert len(matrices) == 24
    box = np.random.default_rng(0).normal(size=(4, 4, 4, 2))
    np.testing.assert_array_equal(featurize.rotate(box, 0), box)
    for number in range(24):  # channels stay channels
        np.testing.assert_array_equal(featurize.rotate(box, number)[..., 1], featurize.rotate(box[..., 1], number))
        np.testing.assert_array_equal(featurize.rotate(featurize.rotate(box, number), number, back=True), box)

"""World and grid, and what a volume refuses."""

import numpy as np
import pytest

from jaxprot.core.volume import Volume, grid_around


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    return Volume(rng.normal(size=(4, 5, 6)), voxel=(1.0, 1.5, 2.0), origin=(-3.0, 10.0, 0.5), name="a")


def test_index_is_zyx_and_position_is_xyz(volume):
    np.testing.assert_allclose(volume.to_world([3, 2, 1]), [-3 + 1, 10 + 2 * 1.5, 0.5 + 3 * 2])
    np.testing.assert_allclose(volume.to_grid([-3 + 1, 13, 6.5]), [3, 2, 1])
    np.testing.assert_allclose(volume.cell, [6, 7.5, 8])
    assert volume.shape == (4, 5, 6) and volume.data.dtype == np.float32
    assert "6 x 5 x 4" in repr(volume)


def test_there_and_back(volume):
    xyz = np.random.default_rng(1).normal(size=(7, 2, 3)) * 50
    np.testing.assert_allclose(volume.to_world(volume.to_grid(xyz)), xyz, atol=1e-12)


def test_nearest_marks_what_is_outside(volume):
    xyz = volume.to_world(
        np.array([[0, 0, 0], [3.4, 4.4, 5.4], [-0.6, 0, 0], [3.6, 0, 0], [np.nan, 0, 0], [1e30, 0, 0]])
    )
    index, inside = volume.nearest(xyz)
    assert inside.tolist() == [True, True, False, False, False, False]
    assert index.tolist() == [[0, 0, 0], [3, 4, 5]] + [[0, 0, 0]] * 4


def test_with_data(volume):
    other = volume.with_data(np.ones((4, 5, 6)), name="b")
    assert other.name == "b" and other.data.sum() == 120 and (other.origin == volume.origin).all()
    with pytest.raises(ValueError, match=r"a: data of shape \(4, 5\)"):
        volume.with_data(np.ones((4, 5)))


@pytest.mark.parametrize(
    "wrong",
    [{"voxel": 0}, {"voxel": (1, 1, -1)}, {"voxel": np.nan}, {"origin": (0, 0)}, {"origin": (0, 0, np.inf)},
     {"data": np.zeros((2, 2))}, {"data": np.zeros((2, 0, 2))}],
)  # fmt: skip
def test_refuses(wrong):
    with pytest.raises(ValueError, match="map: "):
        Volume(**({"data": np.zeros((2, 2, 2)), "voxel": 1.0, "origin": (0, 0, 0)} | wrong))


def test_grid_around():
    xyz = np.array([[0, 0, 0], [3, 10, 4.4], [np.nan, 0, 0]])
    origin, shape = grid_around(xyz, 1.5, 6)
    np.testing.assert_allclose(origin, -6)
    assert shape == (11, 15, 10)  # ceil(16.4 / 1.5), ceil(22 / 1.5), ceil(15 / 1.5)
    with pytest.raises(ValueError, match="no finite"):
        grid_around(xyz[2:], 1.5, 6)

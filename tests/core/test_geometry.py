import numpy as np
from scipy.spatial.transform import Rotation

from jaxprot.core.geometry import dihedrals


def chain(angle):
    return np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.5], [np.cos(angle), np.sin(angle), 2.0]])


def test_a_turn_clockwise_seen_along_the_middle_bond_is_positive():
    """Looking from point 2 to point 3 (up z, from below), a turn from x to y is clockwise."""
    angles = np.radians([0, 60, -60, 179, -179, 90])
    np.testing.assert_allclose(dihedrals(np.stack([chain(a) for a in angles])), np.degrees(angles), atol=1e-9)


def test_it_does_not_depend_on_place_or_direction():
    points = np.random.default_rng(0).normal(size=(20, 4, 3))
    turned = points @ Rotation.random(random_state=1).as_matrix().T + 5
    np.testing.assert_allclose(dihedrals(turned), dihedrals(points), atol=1e-9)
    np.testing.assert_allclose(dihedrals(points[:, ::-1]), dihedrals(points), atol=1e-9)
    np.testing.assert_allclose(dihedrals(points * [1, 1, -1]), -dihedrals(points), atol=1e-9)
    assert np.isnan(dihedrals(np.full((4, 3), np.nan)))

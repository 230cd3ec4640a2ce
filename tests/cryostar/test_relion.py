"""Conventions of poses and shifts against projections that RELION made."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxprot.io.maps import read_map
from jaxprot.io.particles import read_particles
from jaxprot.ops import fourier, gaussians


@pytest.fixture(scope="module")
def relion(shared):
    folder = shared / "data" / "heterogeneity" / "relion_projections"
    if not folder.exists():
        pytest.skip("the projections made by RELION are not at hand")
    return folder


def stack(relion, name):
    particles = read_particles(relion / f"rln_proj_{name}.star")
    return particles, particles.images.read(np.arange(len(particles)))


def projected(volume, rotation):
    """Sum along z of the map seen in a pose: x' = R x about pixel side // 2."""
    centre = np.array(volume.shape) // 2
    turn = rotation.T[::-1, ::-1]  # where a voxel (z, y, x) of the turned map is taken from
    turned = ndimage.affine_transform(volume.data, turn, centre - turn @ centre, order=1)
    return turned.sum(0)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_rotations_are_those_of_relion(relion):
    volume = read_map(relion / "ribosome_65.mrc", voxel=1.0)
    particles, images = stack(relion, "65_centered")
    # These images of an odd side are rolled by a pixel, and so is the origin of the published grid (`shift="compat"`).
    images = np.roll(images, (-1, -1), (1, 2))
    assert gaussians.grid_line(65, 1.0)[33] == 0 and gaussians.grid_line(65, 1.0, published=False)[32] == 0
    found = [correlation(projected(volume, r), one) for r, one in zip(particles.rotations, images, strict=True)]
    assert min(found) >= 0.99
    wrong = [correlation(projected(volume, r.T), one) for r, one in zip(particles.rotations, images, strict=True)]
    assert max(wrong) < 0.97


@pytest.mark.parametrize("method", ["exact", "compat"])
def test_shifted_images_are_centred(relion, method):
    particles, shifted = stack(relion, "64_shifted")
    _, centred = stack(relion, "64_centered")
    shifts = (particles.shifts[:, ::-1] / particles.pixel_size[:, None]).astype(np.float32)
    assert np.abs(shifts).max() > 2
    move = fourier.translate if method == "exact" else fourier.translate_bilinear
    found = np.asarray(move(jnp.asarray(shifted), jnp.asarray(shifts)))
    inside = fourier.window(64, 0.9375)
    assert min(correlation(a[inside], b[inside]) for a, b in zip(found, centred, strict=True)) >= 0.99
    back = np.asarray(move(jnp.asarray(shifted), jnp.asarray(-shifts)))
    assert max(correlation(a[inside], b[inside]) for a, b in zip(back, centred, strict=True)) < 0.95

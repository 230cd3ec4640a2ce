"""Preparation of particle images."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.core.errors import InputError, OutputError
from jaxprot.core.particles import ArrayImages, Ctf, Optics, ParticleStack
from jaxprot.cryostar import images
from jaxprot.ops import fourier, gaussians


def stack_of(data, pixel=2.0, **changes):
    n, side = len(data), data.shape[-1]
    values = dict.fromkeys(("angle", "phase_shift", "b_factor"), np.zeros(n)) | {"scale": np.ones(n)}
    ctf = Ctf(np.full(n, 15000.0), np.full(n, 14000.0), voltage=np.full(n, 300.0), cs=np.full(n, 2.7),
              amplitude_contrast=np.full(n, 0.1), **values)  # fmt: skip
    fields = {
        "images": ArrayImages(data),
        "shifts": np.stack([np.arange(n), -np.arange(n)], 1) * 2.0,
        "optics_group": np.zeros(n, int),
        "optics": Optics(("one",), np.array([pixel]), np.array([side])),
        "angles": np.zeros((n, 3)),
        "ctf": ctf,
    }
    return ParticleStack(**(fields | changes))


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=(5, 24, 24)).astype(np.float32)


def test_images_are_kept_and_told_in_pixels(data, tmp_path):
    stack = stack_of(data, sign=np.array([1, 1, -1, 1, 1]))
    seen = []
    found = images.prepare(stack, tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    window = fourier.window(24, 1.0)
    np.testing.assert_array_equal(found.images[[0, 2]], data[[0, 2]] * window * np.array([1, -1])[:, None, None])
    np.testing.assert_allclose(found.shifts[2], [-2, 2])  # y, x; 4 Å of 2 Å pixels
    assert found.pixel == 2 and found.side == 24 and seen[-1] == (5, 5)
    assert found.ctf.defocus_u.dtype == np.float32 and found.ctf.cs[0] == np.float32(2.7)
    inverted = images.prepare(stack, tmp_path / "b", invert=True, dtype="float16")
    assert inverted.images.dtype == np.float16
    np.testing.assert_allclose(inverted.images, -found.images, atol=2e-3)
    part = found.select(np.array([3, 1]))
    np.testing.assert_array_equal(part.images, np.asarray(found.images)[[3, 1]])
    assert part.shifts.shape == (2, 2) and part.ctf.angle.shape == (2,)


def test_the_stack_is_read_once(data, tmp_path):
    stack = stack_of(data)
    first = images.prepare(stack, tmp_path)

    class Gone(ArrayImages):
        def read(self, rows):
            raise AssertionError("read again")

    again = images.prepare(dataclasses.replace(stack, images=Gone(data)), tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    with pytest.raises(OutputError, match="other settings .*side"):
        images.prepare(stack, tmp_path, side=12)
    with pytest.raises(OutputError, match="fingerprint"):
        images.prepare(dataclasses.replace(stack, sign=-np.ones(5)), tmp_path)


def test_a_failed_preparation_leaves_no_images(data, tmp_path):
    class Broken(ArrayImages):
        def read(self, rows):
            raise InputError("image 4 of s.mrcs")

    stack = stack_of(data)
    with pytest.raises(InputError, match="image 4"):
        images.prepare(dataclasses.replace(stack, images=Broken(data)), tmp_path)
    assert not (tmp_path / "images.npy").exists()
    assert images.prepare(stack, tmp_path).images.shape == (5, 24, 24)


@pytest.mark.parametrize("method", ["fourier", "linear"])
def test_smaller_images_show_the_same(tmp_path, method):
    """Gaussians wide enough for both pixels: what is down-sampled is what is drawn small."""
    line, small = (jnp.asarray(gaussians.grid_line(side, 96 / side)) for side in (48, 24))
    places = jnp.array([[-12.0, 5], [8, 14], [3, -9]])
    large = np.asarray(gaussians.project(places, jnp.ones(3), 6.0, line))[None]
    found = images.prepare(stack_of(np.repeat(large, 2, 0)), tmp_path, side=24, method=method)
    assert found.pixel == 4
    # Pixels of the published method lie half the difference of the pixels further, and its weights (1, 3, 3, 1) / 8
    # widen a Gaussian by 3 Å².
    moved, variance = (small, 36) if method == "fourier" else (small + 1.0, 39)
    expected = np.asarray(gaussians.project(places, jnp.full(3, 36 / variance), variance**0.5, moved))
    inside = fourier.window(24, 0.9)
    np.testing.assert_allclose(found.images[1][inside], expected[inside], atol=0.005)


@pytest.mark.parametrize("method", ["linear", "fourier"])
@pytest.mark.parametrize("most", ["coarse", "fine"])
def test_groups_of_other_pixels_are_brought_to_one(method, most, tmp_path):
    """Two groups that show the same field with other pixels, and a third one a larger field."""
    places, drawn = jnp.array([[-12.0, 5], [8, 14], [3, -9]]), []
    sizes = ((24, 4.0), (48, 2.0), (60, 2.0)) if most == "coarse" else ((48, 2.0), (24, 4.0), (30, 4.0))
    for side, pixel in sizes:
        # What a method keeps in place, the middle of the field or a pixel, is at the origin.
        origin = side / 2 - 0.5 if method == "linear" else side // 2
        drawn.append(
            np.asarray(gaussians.project(places, jnp.ones(3), 12.0, jnp.asarray((np.arange(side) - origin) * pixel)))
        )

    class Mixed(ArrayImages):
        def __init__(self):
            pass

        def __len__(self):
            return 4

        def read(self, rows):
            return np.stack([[drawn[0], drawn[0], drawn[1], drawn[2]][row] for row in rows])

    (side, pixel), *others = sizes
    optics = Optics(("a", "b", "c"), np.array([pixel, *(one for _, one in others)]), np.array([side, others[0][0], 0]))
    stack = stack_of(np.zeros((4, 1, 1)), images=Mixed(), optics=optics, optics_group=np.array([0, 0, 1, 2]))
    found = images.prepare(stack, tmp_path, method=method)
    assert found.pixel == pixel
    inside = fourier.window(side, 0.8)
    largest = found.images[0].max()
    for image in found.images[2:]:
        np.testing.assert_allclose(image[inside], found.images[0][inside], atol=0.03 * largest)


def test_what_cannot_be_prepared(data, tmp_path):
    with pytest.raises(InputError, match="no CTF"):
        images.prepare(stack_of(data, ctf=None), tmp_path)
    with pytest.raises(InputError, match="no poses"):
        images.prepare(stack_of(data, angles=None), tmp_path)
    with pytest.raises(InputError, match="2 to 24 can"):
        images.prepare(stack_of(data), tmp_path, side=48)
    with pytest.raises(InputError, match="do not fit float16"):
        images.prepare(stack_of(data * 1e6), tmp_path, dtype="float16")
    assert not list(tmp_path.glob("*.npy"))

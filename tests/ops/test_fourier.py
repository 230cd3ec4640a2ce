"""Centred transforms, shifts and changes of size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ops import fourier


def blob(side, y, x, width=2.0):
    """A Gaussian at (y, x) pixels from the origin."""
    line = np.arange(side) - side // 2
    return np.exp(-((line[:, None] - y) ** 2 + (line[None] - x) ** 2) / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize("side", [8, 9])
def test_transforms_are_centred_and_inverse(side):
    image = np.zeros((side, side), np.float32)
    image[side // 2, side // 2] = 1
    np.testing.assert_allclose(fourier.fft(image), np.ones((side, side)), atol=1e-6)
    random = jax.random.normal(jax.random.key(0), (3, side, side))
    spectrum = fourier.fft(random)
    np.testing.assert_allclose(spectrum[:, side // 2, side // 2].real, random.sum((1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fourier.ifft(spectrum).real, random, atol=1e-5)


@pytest.mark.parametrize("side", [32, 33])
def test_exact_shift_moves_content_by_it(side):
    shift = jnp.array([[2.5, -3.0], [0.0, 1.25]])
    moved = fourier.translate(jnp.asarray(np.stack([blob(side, 1, 0)] * 2)), shift)
    for row, (dy, dx) in enumerate(shift.tolist()):
        np.testing.assert_allclose(moved[row], blob(side, 1 + dy, dx), atol=1e-4)
    bilinear = fourier.translate_bilinear(jnp.asarray(blob(side, 1, 0, 4.0))[None], jnp.array([[2.0, -3.0]]))
    assert np.corrcoef(bilinear[0].ravel(), blob(side, 3, -3, 4.0).ravel())[0, 1] > 0.998


@pytest.mark.slow
def test_shift_under_vmap_and_grad():
    images = jax.random.normal(jax.random.key(0), (3, 12, 12))
    shift = jax.random.normal(jax.random.key(1), (3, 2))
    for move in (fourier.translate, fourier.translate_bilinear):
        np.testing.assert_allclose(jax.vmap(move)(images, shift), move(images, shift), atol=1e-5)
        assert jnp.isfinite(jax.grad(lambda s, move=move: jnp.sum(move(images, s) ** 3))(shift)).all()
    with pytest.raises(ValueError, match="exact or compat"):
        fourier.translate(images, shift, "other")


def test_low_pass_keeps_slow_waves():
    side, pixel = 32, 2.0
    keep = fourier.low_pass(side, pixel, 16.0)
    line = np.arange(side)
    slow, fast = (np.cos(2 * np.pi * k * line / side)[None].repeat(side, 0).astype(np.float32) for k in (2, 6))
    np.testing.assert_allclose(fourier.filtered(jnp.asarray(slow + fast), keep), slow, atol=1e-5)


def test_changes_of_size_keep_slow_content():
    image = jnp.asarray(blob(64, 0, 0, 8.0))
    np.testing.assert_allclose(fourier.crop_spectrum(image, 32) / 4, blob(32, 0, 0, 4.0), atol=1e-3)
    np.testing.assert_allclose(fourier.resize(image, 32).mean(), image.mean(), rtol=1e-4)
    for side in (64, 65):
        larger = fourier.pad_spectrum(jnp.asarray(blob(32, 0, 0, 4.0)), side) * (side / 32) ** 2
        np.testing.assert_allclose(larger, blob(side, 0, 0, 4.0 * side / 32), atol=1e-3)
    with pytest.raises(ValueError, match="cannot pad 64 pixels to 63"):
        fourier.pad_spectrum(image, 63)
    with pytest.raises(ValueError, match="cannot crop 64 pixels to 65"):
        fourier.crop_spectrum(image, 65)


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (5, 5, 5), (4, 4, 4)])
def test_hartley_to_fourier_is_the_transform_of_a_real_image(shape):
    axes = tuple(range(-len(shape), 0))
    spectrum = fourier.fft(jax.random.normal(jax.random.key(0), shape), axes)
    np.testing.assert_allclose(fourier.hartley_to_fourier(spectrum.real - spectrum.imag, axes), spectrum, atol=1e-4)


@pytest.mark.golden
def test_image_operations_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "06_image_ops.npz")
    images, shift = jnp.asarray(z["images"]), jnp.asarray(z["trans_yx_px"][:, 0])

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    close(fourier.translate_bilinear(images, shift), z["spatial"][:, 0])
    close(fourier.translate(images, shift, "compat"), z["fourier_in_real_out"][:, 0])
    close(fourier.resize(jnp.asarray(z["img96"]), 64), z["down64_interp"])
    for side in (64, 45):
        close(fourier.crop_spectrum(jnp.asarray(z["img96"]), side), z[f"down{side}_fft"])
    np.testing.assert_array_equal(fourier.low_pass(64, 2.0, 10.0), z["lowpass_mask"] > 0)
    close(fourier.filtered(images, fourier.low_pass(64, 2.0, 10.0)), z["lowpassed"])
    for name, radius in (("mask_1", 1.0), ("mask_09375", 0.9375)):
        np.testing.assert_array_equal(fourier.window(64, radius), z[name] > 0)
    np.testing.assert_array_equal(fourier.radius(64) <= 0.85 * 32, z["circ_plane_085"])
    np.testing.assert_array_equal(fourier.radius(32, 3) <= 0.85 * 16, z["sphere_085_32"])


@pytest.mark.golden
def test_hartley_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "12_fourier.npz")
    for name, axes in (("even", (-2, -1)), ("odd", (-2, -1))):
        np.testing.assert_allclose(fourier.hartley_to_fourier(z[f"h_{name}"], axes), z[f"f_{name}"], atol=1e-6)
    np.testing.assert_allclose(fourier.hartley_to_fourier(z["h3"], (-3, -2, -1)), z["f3"], atol=1e-6)
    np.testing.assert_allclose(fourier.fft(z["real"]), z["fourier"], rtol=1e-4, atol=1e-5 * np.abs(z["fourier"]).max())

"""The contrast transfer function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.cryostar import ctf
from jaxprot.cryostar.ctf import CTFParams
from jaxprot.ops import fourier


def test_wavelength():
    np.testing.assert_allclose(ctf.wavelength(jnp.array([100.0, 200.0, 300.0])), [0.0370, 0.0251, 0.0197], atol=1e-4)


@pytest.mark.parametrize("side", [32, 33])
def test_the_filter_at_zero_is_the_amplitude_contrast(side):
    params = CTFParams(jnp.array([1e4, 2e4]), jnp.array([1e4, 1.5e4]), jnp.array([0.0, 0.5]), amplitude=0.07)
    found = ctf.transfer(params, side, 2.0)
    assert found.shape == (2, side, side)
    np.testing.assert_allclose(found[:, side // 2, side // 2], 0.07, atol=1e-6)
    assert (found[:, side // 2, side // 2 + 2] > 0).all()  # bright particles stay bright at low resolution


def test_astigmatism_has_its_axis_where_the_angle_says():
    params = CTFParams(jnp.array(2e4), jnp.array(1e4), jnp.array(np.pi / 2))
    whole = ctf.transfer(params, 64, 2.0)
    strong, weak = (ctf.transfer(CTFParams(*map(jnp.array, (d, d, 0.0))), 64, 2.0) for d in (2e4, 1e4))
    np.testing.assert_allclose(whole[33:, 32], strong[33:, 32], atol=1e-4)  # along y: defocus u
    np.testing.assert_allclose(whole[32, 33:], weak[32, 33:], atol=1e-4)


def test_phase_plate_and_envelope():
    base = CTFParams(jnp.array(0.0), jnp.array(0.0), jnp.array(0.0), cs=0.0, amplitude=0.0)
    plate = base._replace(phase=np.pi / 2)
    frequency = jnp.linspace(0, 0.2, 5)
    np.testing.assert_allclose(ctf.ctf(plate, frequency, 0 * frequency), -1, atol=1e-6)
    damped = ctf.ctf(plate._replace(bfactor=100.0), frequency, 0 * frequency)
    np.testing.assert_allclose(damped, -np.exp(-25 * np.asarray(frequency) ** 2), rtol=1e-5)


def test_vmap_and_an_unknown_version():
    params = CTFParams(jnp.array([1e4, 2e4]), jnp.array([1e4, 1.5e4]), jnp.array([0.0, 0.5]))
    each = jax.vmap(lambda u, v, a: ctf.transfer(CTFParams(u, v, a), 16, 2.0))(*params[:3])
    np.testing.assert_allclose(each, ctf.transfer(params, 16, 2.0), atol=1e-5)
    with pytest.raises(ValueError, match="v2 or v1-compat"):
        ctf.transfer(params, 16, 2.0, "v3")


@pytest.mark.golden
def test_filters_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "05_ctf.npz")
    particles = [
        jnp.asarray(scale * z[name][:, 0, 0])
        for name, scale in (("defocusU_um", 1e4), ("defocusV_um", 1e4), ("angle_rad", 1))
    ]
    for side in (64, 65):
        for version, name in (("v2", "v2"), ("v1-compat", "v1")):
            found = ctf.transfer(CTFParams(*particles), side, 2.0, version)
            np.testing.assert_allclose(found, z[f"h_{name}_{side}"], atol=1e-4)
    np.testing.assert_allclose(
        ctf.transfer(CTFParams(*particles, 200.0, 2.0, 0.07), 64, 2.0), z["h_v2_200kV"], atol=1e-4
    )
    one = CTFParams(*map(jnp.array, (12000.0, 11000.0, np.deg2rad(30), 300.0, 2.7, 0.1, np.deg2rad(45), 60.0)))
    np.testing.assert_allclose(-ctf.transfer(one, 64, 2.0), z["compute_ctf_phase45_B60"], atol=1e-4)


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("version", ["v2", "v1-compat"])
def test_half_of_the_plane_filters_as_the_whole(side, version):
    """What is not even (Nyquist with astigmatism, the frequencies of v1) is dropped with the imaginary part."""
    params = CTFParams(*(jnp.asarray(x) for x in ([12000.0, 20000.0], [8000.0, 19000.0], [0.6, -1.0])))
    images = jax.random.normal(jax.random.key(0), (2, side, side))
    whole = fourier.filtered(images, ctf.transfer(params, side, 3.0, version))
    half = fourier.half_filtered(images, ctf.half_transfer(params, side, 3.0, version))
    np.testing.assert_allclose(half, whole, atol=2e-4)
    scalar = ctf.half_transfer(CTFParams(12000.0, 8000.0, 0.6), side, 3.0, version)
    np.testing.assert_allclose(scalar, ctf.half_transfer(params, side, 3.0, version)[0], atol=1e-4)

"""Densities of atoms: against a loop over the atoms, and as a function to differentiate and batch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxprot.ops import gaussians
from jaxprot.ops.gaussians import SIGMA_FACTOR, SIGMA_FACTORS, molmap


def direct(xyz, weight, sigma, spacing, shape, origin=(0, 0, 0), cutoff=5.0):
    """The definition, in float64: every atom on every grid point of its cube."""
    spacing = np.broadcast_to(spacing, 3)
    axes = [np.arange(n) for n in shape[::-1]]  # x, y, z
    out = np.zeros(shape)
    for x, w, s in zip(np.asarray(xyz, float), weight, np.broadcast_to(sigma, len(xyz)), strict=True):
        profile = []
        for a in range(3):
            centre, reach = (x[a] - origin[a]) / spacing[a], cutoff * s / spacing[a]
            inside = (axes[a] >= np.ceil(centre - reach)) & (axes[a] <= np.floor(centre + reach))
            profile.append(np.where(inside, np.exp(-0.5 * ((axes[a] - centre) * spacing[a] / s) ** 2), 0))
        out += w / ((2 * np.pi) ** 1.5 * s**3) * np.einsum("k,j,i->kji", *profile[::-1])
    return out


@pytest.fixture
def atoms():
    rng = np.random.default_rng(0)
    return rng.uniform(-3, 20, (40, 3)).astype(np.float32), rng.integers(1, 17, 40).astype(np.float32)


@pytest.mark.parametrize("spacing", [1.5, (1.1, 0.7, 2.3)])
def test_equals_the_definition_also_across_the_edges(atoms, spacing):
    xyz, weight = atoms
    xyz[0] = [1e5, -1e5, 3]  # far outside
    origin = (-1.0, 2.0, 0.5)
    found = molmap(xyz, weight, resolution=4.0, spacing=spacing, shape=(9, 10, 12), origin=origin)
    expected = direct(xyz, weight, 4 * SIGMA_FACTOR, spacing, (9, 10, 12), origin)
    np.testing.assert_allclose(found, expected, atol=3e-6 * expected.max())


@pytest.mark.parametrize("factor", SIGMA_FACTORS.values())
def test_options(atoms, factor):
    xyz, weight = atoms
    found = molmap(xyz, weight, resolution=5.0, spacing=2, shape=(8, 8, 8), sigma_factor=factor, cutoff=3)
    expected = direct(xyz, weight, 5 * factor, 2, (8, 8, 8), cutoff=3)
    np.testing.assert_allclose(found, expected, atol=3e-6 * expected.max())
    assert [round(f, 3) for f in SIGMA_FACTORS.values()] == [0.225, 0.187, 0.354, 0.425]


def test_blur_widens_every_atom_by_itself(atoms):
    xyz, weight = atoms
    blur = np.linspace(0, 120, len(xyz)).astype(np.float32)
    found = molmap(xyz, weight, resolution=3.0, spacing=1.5, shape=(14, 14, 14), blur=blur, max_blur=120.0)
    sigma = np.sqrt((3 * SIGMA_FACTOR) ** 2 + blur / (8 * np.pi**2))
    expected = direct(xyz, weight, sigma, 1.5, (14, 14, 14))
    np.testing.assert_allclose(found, expected, atol=3e-6 * expected.max())
    with pytest.raises(ValueError, match="max_blur"):
        molmap(xyz, weight, resolution=3.0, spacing=1.5, shape=(14, 14, 14), blur=blur)


def test_integral_is_the_weight():
    xyz, weight = jnp.array([[10.0, 10.3, 9.8]]), jnp.array([7.0])
    found = molmap(xyz, weight, resolution=4.0, spacing=0.7, shape=(30, 30, 30))
    np.testing.assert_allclose(found.sum() * 0.7**3, 7, rtol=1e-5)


def test_no_weight_hides_an_atom_even_if_nan(atoms):
    xyz, weight = atoms
    options = {"resolution": 4.0, "spacing": 1.5, "shape": (8, 8, 8)}
    weight[3] = 0
    expected = molmap(xyz, weight, **options)
    xyz[3] = np.nan
    np.testing.assert_array_equal(molmap(xyz, weight, **options), expected)
    gradient = jax.grad(lambda xyz: molmap(xyz, weight, **options).std())(jnp.asarray(xyz))
    assert np.isfinite(gradient).all() and not gradient[3].any()


@pytest.mark.slow
def test_derivatives(atoms):
    with jax.enable_x64(True):
        xyz, weight = (jnp.asarray(a[:6], jnp.float64) for a in atoms)
        target = jnp.asarray(np.random.default_rng(1).normal(size=(9, 9, 9)))

        def loss(xyz, weight, blur):
            made = molmap(xyz, weight, resolution=4.0, spacing=2.0, shape=(9, 9, 9), blur=blur, max_blur=50.0, cutoff=9)
            return jnp.sum(made * target)

        check_grads(loss, (xyz, weight, jnp.full(6, 20.0)), order=1, modes=("fwd", "rev"), rtol=1e-5)


def test_batch_equals_loop(atoms):
    xyz, weight = atoms
    batch = np.stack([xyz, xyz + 0.4, xyz[::-1]])
    made = jax.jit(lambda xyz: molmap(xyz, weight, resolution=4.0, spacing=1.5, shape=(8, 9, 10)))
    np.testing.assert_allclose(jax.vmap(made)(batch), [made(x) for x in batch], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"resolution": 0.0}, {"spacing": -1}, {"cutoff": 0}, {"sigma_factor": math.nan}])
def test_refuses(atoms, wrong):
    with pytest.raises(ValueError, match="resolution"):
        molmap(*atoms, **({"resolution": 4.0, "spacing": 1.5, "shape": (8, 8, 8)} | wrong))


@pytest.mark.parametrize("side", [8, 9])
def test_projections_of_a_density_are_projections(side):
    xyz = jax.random.normal(jax.random.key(0), (6, 3)) * 2
    amplitude = jnp.arange(1.0, 7.0)
    line = jnp.asarray(gaussians.grid_line(side, 1.5, published=False))
    assert line[side // 2] == 0
    image = gaussians.project(xyz[:, :2], amplitude, 2.0, line)
    fine = jnp.linspace(-30, 30, 400)
    heights = jnp.exp(-0.5 * ((fine[:, None] - xyz[None, :, 2]) / 2.0) ** 2).sum(0) * (fine[1] - fine[0])
    volume = gaussians.density(xyz, amplitude / heights, 2.0, line)
    assert image.shape == (side, side) and volume.shape == (side, side, side)
    x, y, z = (int(jnp.argmin(jnp.abs(line - value))) for value in xyz[0])
    offset = jnp.stack([line[x], line[y], line[z]])[None] - xyz
    np.testing.assert_allclose(
        volume[z, y, x], jnp.sum(amplitude / heights * jnp.exp(-jnp.sum(offset**2, 1) / 8)), rtol=1e-5
    )
    np.testing.assert_allclose(
        image[y, x], jnp.sum(amplitude * jnp.exp(-jnp.sum(offset[:, :2] ** 2, 1) / 8)), rtol=1e-5
    )


@pytest.mark.golden
def test_projections_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "04_projection.npz")
    xyz = jnp.einsum("bij,bnj->bni", jnp.asarray(z["rotmat"]), jnp.asarray(z["mus"]))
    amplitude, sigma = jnp.asarray(z["amps"][0]), jnp.asarray(z["sigmas_var"][0])
    for name, width, side, pixel in (
        ("proj_sigma2", 2.0, 64, 2.0),
        ("proj_sigmavar", sigma, 64, 2.0),
        ("proj_odd33", sigma, 33, 4.0),
    ):
        line = jnp.asarray(gaussians.grid_line(side, pixel))
        found = jax.vmap(lambda x, width=width, line=line: gaussians.project(x[:, :2], amplitude, width, line))(xyz)
        np.testing.assert_allclose(found, z[name], rtol=1e-4, atol=1e-5 * z[name].max())
    np.testing.assert_allclose(gaussians.grid_line(33, 4.0), z["grid_odd33"])
    line = jnp.asarray(gaussians.grid_line(32, 4.0))
    found = gaussians.density(jnp.asarray(z["mus"][0]), amplitude, 2.0, line)
    np.testing.assert_allclose(found, z["density_zyx_32"], rtol=1e-4, atol=1e-5 * z["density_zyx_32"].max())

"""The density network, its slices and volumes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from jaxprot.cryostar import density, weights
from jaxprot.cryostar.config import DensityConfig
from jaxprot.io import maps
from jaxprot.ops import fourier


@functools.cache
def network(**changes):
    cfg = DensityConfig(**{"side": 8, "latent": 2, "hidden": 16, **changes})
    build = lambda key: density.Density(cfg, rngs=nnx.Rngs(key))  # noqa: E731
    state = jax.jit(lambda key: nnx.state(build(key)))(jax.random.key(0))
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: build(0))), state)


def turns(count):
    return jnp.asarray(Rotation.random(count, random_state=0).as_matrix(), jnp.float32)


@pytest.mark.parametrize(("side", "axes"), [(8, 2), (7, 2), (8, 3), (7, 3)])
@pytest.mark.parametrize("radius", [None, 3.4])
def test_points_cover_the_disc_once_and_know_their_opposites(side, axes, radius):
    where = density.points(side, radius, axes)
    distance = fourier.radius(side, axes).ravel()
    inside = np.flatnonzero(distance <= (np.inf if radius is None else radius))
    np.testing.assert_array_equal(np.sort(where.flat), inside)
    np.testing.assert_array_equal(where.slot[where.flat], np.arange(where.count))
    assert (where.slot == where.count).sum() == side**axes - where.count
    index = np.stack(np.unravel_index(where.flat, (side,) * axes), 1)[:, ::-1] - side // 2
    xyz = np.concatenate([where.paired, -where.paired, where.single])
    np.testing.assert_allclose(xyz, index * 2 / (side - 1), atol=1e-6)
    values = np.random.default_rng(0).normal(size=(2, *(side,) * axes)).astype(np.float32)
    expected = fourier.hartley_to_fourier(jnp.asarray(values), range(-axes, 0))
    found = density.to_fourier(jnp.asarray(values).reshape(2, -1)[:, where.flat, None], where)
    np.testing.assert_allclose(found, expected.reshape(2, -1)[:, where.flat], atol=1e-6)


def test_values_at_points_and_on_the_grid_are_inverses():
    where = density.points(8, 3.0)
    values = jnp.arange(where.count, dtype=jnp.float32)[None] + 1
    grid = density.on_grid(values, where)
    np.testing.assert_array_equal(density.at_points(grid, where), values)
    np.testing.assert_array_equal(grid[0] != 0, fourier.radius(8) <= 3)


def plain(net, rows, activation, shortcut):
    frequency = getattr(net, "frequency", 1.0)
    x = activation(net.input.linear(rows), frequency)
    for layer in net.layers:
        x = activation(layer(x), frequency) + shortcut * x
    return net.output(x)


@pytest.mark.parametrize(
    ("net", "encoding"),
    [
        ("cryodrgn", "gau2"),
        ("cryodrgn", "geo1"),
        ("cryodrgn", "no"),
        ("cryodrgn-fourier", "gau1"),
        ("cryoai", "geo2"),
        ("cryoai", "no"),
    ],
)
def test_sharing_the_first_layer_changes_nothing(net, encoding):
    module = network(net=net, encoding=encoding)
    latent, rotations = jax.random.normal(jax.random.key(0), (2, 2)), turns(2)
    where = density.plane(module.cfg)
    found = jax.jit(lambda *a: module(*a, where))(latent, rotations)
    xyz = np.concatenate([where.paired, -where.paired, where.single])
    turned = np.einsum("pa,nak->npk", np.pad(xyz, ((0, 0), (0, 1))), rotations)
    axes = np.asarray(module.encoding(jnp.eye(3)))  # angles at unit vectors
    angle = np.einsum("npk,kf->npf", turned, axes)
    assert found.shape == (2, where.count, module.cfg.outputs)
    waves = np.cos(angle), np.sin(angle)
    spread = np.broadcast_to(np.asarray(latent)[:, None], (*angle.shape[:2], 2))
    rows = jnp.asarray(np.concatenate([spread, turned, *waves], -1), jnp.float32)

    @jax.jit
    def plainly(rows):
        if net == "cryoai":
            sines = lambda part: plain(part, rows, lambda x, w: jnp.sin(w * x), 0)  # noqa: E731
            return jnp.exp(sines(module.net.envelope)) * sines(module.net.wave)
        return plain(module.net, rows, lambda x, w: jax.nn.gelu(x, approximate=False), 1)

    expected = plainly(rows)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("encoding", ["geo1", "geo2"])
def test_waves_along_the_axes_rise_geometrically(encoding):
    angles = network(encoding=encoding).encoding(jnp.eye(3)).reshape(3, 3, 8)
    highest = 8 * (np.pi if encoding == "geo2" else 1)
    np.testing.assert_allclose(angles, np.eye(3)[..., None] * np.geomspace(highest, 1, 8), rtol=1e-5, atol=1e-6)


def test_slices_of_a_batch_are_those_of_each_image():
    module, latent, rotations = network(), jax.random.normal(jax.random.key(0), (3, 2)), turns(3)
    whole = jax.jit(lambda *a: density.slices(module, *a))(latent, rotations)
    one = jax.jit(jax.vmap(lambda a, b: density.slices(module, a[None], b[None])[0]))(latent, rotations)
    np.testing.assert_allclose(one, whole, atol=1e-5)
    assert (np.asarray(whole)[:, fourier.radius(8) > 0.85 * 4] == 0).all()


def test_a_volume_projects_to_the_network_s_own_slice():
    module, latent = network(side=9, mask=0.8), jnp.array([0.3, -1.0])
    made = density.volume(module, latent, 1.5, chunk=10)
    np.testing.assert_allclose(made.origin, -6.0)
    np.testing.assert_allclose(made.voxel, 1.5)
    projected = fourier.fft(jnp.asarray(made.data).sum(0))
    slice_ = jax.jit(lambda z: density.slices(module, z[None], jnp.eye(3)[None])[0])(latent)
    np.testing.assert_allclose(projected, slice_, atol=1e-4 * float(jnp.abs(slice_).max()))
    whole = density.volume(module, latent, 1.5).data
    np.testing.assert_allclose(whole, made.data, atol=1e-5 * np.abs(whole).max())
    many = jax.jit(jax.vmap(lambda z: density.grid(module, z, density.ball(module.cfg), 16)))
    two = many(jnp.stack([latent, -latent]))
    np.testing.assert_allclose(two[0], made.data, atol=1e-5 * np.abs(whole).max())


def test_no_latent_and_half_precision():
    module = network(latent=0)
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    half = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), rest)
    where = density.plane(module.cfg)
    coarse = jax.jit(lambda *a: half(*a, where))(jnp.zeros((2, 0)), turns(2))
    assert coarse.dtype == jnp.bfloat16
    exact = jax.jit(lambda *a: module(*a, where))(jnp.zeros((2, 0)), turns(2))
    assert jnp.isfinite(exact).all()
    np.testing.assert_allclose(coarse.astype(jnp.float32), exact, atol=0.05 * float(jnp.abs(exact).max()))


def test_start_and_what_is_trained():
    module = density.Density(DensityConfig(side=32, hidden=64), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(module.encoding.directions[...].std(), 4, rtol=0.1)
    np.testing.assert_allclose(module.net.input.linear.kernel[...].std(), module.cfg.inputs**-0.5, rtol=0.05)
    np.testing.assert_allclose(module.net.layers[0].kernel[...].std(), 1 / 8, rtol=0.05)
    trained = weights.module.flatten(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    assert "encoding.directions" not in trained and len(trained) == 10


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"net": "other"}, "net must be"), ({"mask": 1.2}, "mask"), ({"latent": 0, "encoder": True}, "latent")],
    ids=["net", "mask", "encoder without latents"],
)
def test_sizes_that_make_no_sense(wrong, match):
    with pytest.raises(ValueError, match=match):
        DensityConfig(side=8, **wrong)


@pytest.mark.golden
def test_the_network_and_volume_of_the_published_code(goldens):
    home = goldens("cryostar")
    cfg, tensors, _ = weights.read(home / "density_ckpt.pt")
    module = weights.assemble(cfg, tensors)
    z = np.load(home / "11_density_a.npz")
    latent, rotations = jnp.asarray(z["z"]), jnp.asarray(z["rotmat"])
    where = density.plane(cfg)
    inside = np.sort(where.flat)
    rows = where.slot[inside]  # the published order is that of the grid
    xyz = jnp.asarray(z["plane_coords"][inside[:8], :2])
    waves = module.waves(xyz, rotations)
    encoded = jnp.concatenate([waves.odd[..., :3], waves.even, waves.odd[..., 3:]], -1)
    np.testing.assert_allclose(encoded, z["pe_first8"], atol=1e-5)
    first = module.net.input(latent, waves, False)
    np.testing.assert_allclose(first, z["lin0_first8"], rtol=1e-4, atol=1e-5 * np.abs(z["lin0_first8"]).max())
    x = density.elementwise.gelu(first)
    x = x + density.elementwise.gelu(density._apply(module.net.layers[0], x))
    np.testing.assert_allclose(x, z["res1_first8"], rtol=1e-4, atol=1e-5 * np.abs(z["res1_first8"]).max())
    values = jax.jit(lambda *a: module(*a, where))(latent, rotations)
    np.testing.assert_allclose(values[:, rows], z["net_out"], rtol=1e-4, atol=1e-5 * np.abs(z["net_out"]).max())
    plane = jax.jit(lambda *a: density.slices(module, *a))(latent, rotations)
    np.testing.assert_allclose(plane, z["fplane"][:, 0], rtol=1e-4, atol=1e-5 * np.abs(z["fplane"]).max())
    made, published = density.volume(module, latent[0], 1.5), maps.read_map(home / "vol_official.mrc")
    for expected in (z["volume"], published.data):
        assert np.abs(made.data - expected).max() <= 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(made.voxel, published.voxel, rtol=1e-6)
    np.testing.assert_allclose(made.origin, published.header_origin, rtol=1e-6)

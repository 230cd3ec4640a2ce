"""The auto-encoder and its deformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from jaxprot.cryostar import model, weights
from jaxprot.cryostar.config import VAEConfig
from jaxprot.weights import inspect, module
from jaxprot.weights.convert import fill

SMALL = VAEConfig(side=8, beads=5, latent=2, encoder=(16, 16, 4), decoder=(4, 16))


@pytest.mark.parametrize("space", ["real", "fourier"])
def test_shapes_and_noise(space):
    cfg = VAEConfig(side=8, beads=5, latent=2, encoder=(16, 16, 4), decoder=(4, 16), space=space)
    net = model.VAE(cfg, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (3, 8, 8))
    moves, mean, log_var = net(images)
    assert moves.shape == (3, 15) and mean.shape == log_var.shape == (3, 2)
    np.testing.assert_array_equal(net(images, jnp.zeros((3, 2)))[0], moves)
    assert (net(images, jnp.ones((3, 2)))[0] != moves).any()
    np.testing.assert_allclose(jax.vmap(lambda x: net(x)[0])(images), moves, atol=1e-5)
    with pytest.raises(ValueError, match="real or fourier"):
        VAEConfig(side=8, beads=5, space="other")


def test_layers_that_keep_their_width_add_their_input():
    mlp = model.MLP(3, (4, 4), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 3))
    hidden = jax.nn.relu(mlp.input(x))
    np.testing.assert_allclose(mlp(x), jax.nn.relu(mlp.layers[0](hidden) + hidden), atol=1e-6)


def test_start_is_that_of_the_published_layers():
    layer = model._linear(100, 2000, nnx.Rngs(0))
    for values in (layer.kernel[...], layer.bias[...]):
        assert np.abs(values).max() <= 0.1
        np.testing.assert_allclose(values.std(), 0.1 / np.sqrt(3), rtol=0.05)


def test_rotation_is_rodrigues_with_a_gradient_at_zero():
    vectors = np.array([[0.3, -1.2, 0.5], [0, 0, 0], [1e-8, 0, 0], [0, 3.0, 0]], np.float32)
    np.testing.assert_allclose(
        model.rotation(jnp.asarray(vectors)), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-6
    )
    slope = jax.jacobian(model.rotation)(jnp.zeros(3))
    np.testing.assert_allclose(slope[2, 1, 0], 1)
    assert jnp.isfinite(slope).all()


@pytest.mark.golden
def test_the_network_of_the_published_code(goldens):
    home = goldens("cryostar")
    _, tensors, _ = inspect.read(home / "atom_ckpt.pt")
    blueprint = module.Blueprint(lambda rngs: model.VAE(VAEConfig(side=64, beads=214), rngs=rngs))
    net = module.assemble(blueprint, fill(module.shapes(blueprint), tensors, weights.OFFICIAL, (), "atom_ckpt.pt"))
    z, images = np.load(home / "08_atom_step.npz"), np.load(home / "07_dataset.npz")["proj"][:, 0]
    reference = np.load(home / "01_structure.npz")["coord"]
    moves, mean, log_var = net(jnp.asarray(images), jnp.asarray(z["eps"]))
    for found, name in ((mean, "mu"), (log_var, "log_var"), (model.displaced(moves, reference), "pred_struc")):
        np.testing.assert_allclose(found, z[name], rtol=1e-4, atol=1e-5 * np.abs(z[name]).max())
    z = np.load(home / "09_decode.npz")
    for component in (1, 2, 3):
        latent = z["z"][z[f"pc{component}_index"]]
        decoded = model.displaced(net.decoder(jnp.asarray(latent)), reference)
        np.testing.assert_allclose(decoded, z[f"pc{component}_struc"], atol=1e-3)


@pytest.mark.golden
def test_normal_modes_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "10_nma.npz")
    found = model.along_modes(*(jnp.asarray(z[name]) for name in ("deformation", "coords", "modes")))
    np.testing.assert_allclose(found, z["out"], rtol=1e-4, atol=1e-5 * np.abs(z["out"]).max())

"""Losses of phase 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.cryostar import gmm, losses
from jaxprot.ops import fourier


def test_correlation_does_not_depend_on_the_scale_of_the_images():
    images = jax.random.normal(jax.random.key(0), (3, 16, 16))
    mask = jnp.asarray(fourier.window(16, 0.9))
    same = losses.correlation(images, 5 * images, mask)
    assert (same < losses.correlation(images, jnp.roll(images, 3, -1), mask)).all()
    np.testing.assert_allclose(same, losses.correlation(2 * images, images, mask), rtol=1e-3)
    assert jnp.isfinite(jax.grad(lambda x: losses.correlation(x, images, mask).sum())(0 * images)).all()


def test_relaxation_lets_go_of_what_varies_most_in_each_chain():
    rng = np.random.default_rng(0)
    spread = np.arange(1, 13, dtype=np.float32)  # of pairs 0..11: five of chain A, five of chain B, two between
    squared = jnp.asarray(rng.normal(size=(400, 12)) * spread)
    chains = np.zeros((2, 12), bool)
    chains[0, :5], chains[1, 5:10] = True, True
    held = losses.kept(squared, jnp.asarray(chains), 0.8)
    variance = np.var(np.asarray(squared), axis=0, ddof=1)
    for chain in chains:
        limit = np.quantile(variance[chain], 0.8)
        np.testing.assert_array_equal(held[chain], variance[chain] < limit)
    assert held[10:].all() and not held[4] and not held[9] and held[3]
    assert losses.kept(squared, jnp.asarray(chains[:0]), 0.8).all()


def test_relaxation_is_that_of_the_whole_batch_on_several_devices():
    squared = jax.random.normal(jax.random.key(0), (8, 20)) ** 2
    chains = jnp.ones((1, 20), bool)
    whole = losses.kept(squared, chains, 0.7)
    halves = jax.vmap(lambda x: losses.kept(x, chains, 0.7, "half"), axis_name="half")(squared.reshape(2, 4, 20))
    np.testing.assert_array_equal(halves, [whole, whole])


def test_clash_counts_violations_alone():
    structures = jnp.array([[[0.0, 0, 0], [3.0, 0, 0], [0, 9, 0]]])
    total, count = losses.clash(structures, jnp.array([[0, 1], [0, 2], [1, 2]]))
    assert (total, count) == (1.0, 1.0)
    assert losses.clash(3 * structures, jnp.array([[0, 1]]))[1] == 0


def test_beads_at_one_place_have_finite_gradients():
    pairs = jnp.array([[0, 1]])
    together = jnp.zeros((1, 2, 3))
    for loss in (lambda s: losses.clash(s, pairs)[0], lambda s: losses.deviations(s, pairs, jnp.ones(1)).sum()):
        assert jnp.isfinite(jax.grad(loss)(together)).all()


def test_divergence_has_free_nats():
    mean, log_var = jnp.array([[3.0, 0.0]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(losses.divergence(mean, log_var, 0.0), [9 / 4])
    np.testing.assert_allclose(losses.divergence(mean, log_var, 3.0), [(4.5 + 3) / 2])


@pytest.fixture(scope="module")
def step(goldens):
    load = {name: np.load(goldens("cryostar") / f"{name}.npz") for name in ("01_structure", "08_atom_step")}
    z, golden = load["01_structure"], load["08_atom_step"]
    n = len(z["coord"])
    beads = gmm.Beads(
        "1ake", z["coord"], np.ones(n, np.float32), np.full(n, "CA"), z["res_name"], z["chain_id"], z["res_id"],
        np.full(n, ""),
    )  # fmt: skip
    pairs = gmm.pairs_of(beads)
    native = [np.linalg.norm(beads.xyz[p[:, 0]] - beads.xyz[p[:, 1]], axis=1) for p in pairs[:3]]
    return golden, pairs, native, jnp.asarray(golden["pred_struc"])


@pytest.mark.golden
def test_values_of_the_published_code(step):
    z, pairs, native, structures = step
    mask = jnp.asarray(fourier.window(64, 0.9375))
    images = losses.correlation(jnp.asarray(z["pred_images"][:, 0]), jnp.asarray(z["gt_lowpassed"][:, 0]), mask)
    np.testing.assert_allclose(images.mean(), z["loss_image"], rtol=2e-4)
    connect = losses.deviations(structures, pairs.connect, native[0]).mean()
    np.testing.assert_allclose(connect, z["loss_connect"], rtol=2e-4)
    squared = losses.deviations(structures, pairs.elastic, native[1])
    np.testing.assert_allclose(squared, z["dist_sq_err"], rtol=1e-4, atol=1e-5 * z["dist_sq_err"].max())
    for ratio in (0.8, 0.99, 1.0):
        held = losses.kept(squared, jnp.asarray(pairs.chains), ratio)
        np.testing.assert_array_equal(held, z[f"keep_{ratio}"])
        total, count = losses.elastic(squared, held)
        np.testing.assert_allclose(total / count, z[f"loss_elastic_{ratio}"], rtol=2e-4)
    total, count = losses.clash(structures, pairs.clash)
    np.testing.assert_allclose(total / count, z["loss_clash"], rtol=2e-4)
    mean, log_var = jnp.asarray(z["mu"]), jnp.asarray(z["log_var"])
    for name, free in (("kl", 3.0), ("kl_nofreebits", 0.0), ("kl_fb005", 0.05)):
        np.testing.assert_allclose(losses.divergence(mean, log_var, free).mean(), z[f"loss_{name}"], rtol=2e-4)


@pytest.mark.golden
def test_gradients_of_the_published_code(step):
    z, pairs, native, structures = step

    def close(found, name):
        np.testing.assert_allclose(found, z[name], rtol=2e-3, atol=1e-5 * np.abs(z[name]).max())

    def clash(s):
        total, count = losses.clash(s, pairs.clash)
        return total / count

    def elastic(s):
        squared = losses.deviations(s, pairs.elastic, native[1])
        total, count = losses.elastic(squared, losses.kept(squared, jnp.asarray(pairs.chains), 0.8))
        return total / count

    close(jax.grad(clash)(structures), "grad_struc_clash")
    close(jax.grad(elastic)(structures), "grad_struc_elastic_0.8")
    connect = jax.grad(lambda s: losses.deviations(s, pairs.connect, native[0]).mean())(structures)
    close(connect, "grad_struc_connect")
    latents = jnp.asarray(z["mu"]), jnp.asarray(z["log_var"])
    found = jax.grad(lambda *of: losses.divergence(*of, 0.05).mean(), (0, 1))(*latents)
    close(found[0], "grad_mu_kl_fb005")
    close(found[1], "grad_logvar_kl_fb005")

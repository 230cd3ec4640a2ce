"""Training of the density network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.cryostar import density, reconstruction, weights
from jaxprot.cryostar.config import DensityConfig
from jaxprot.cryostar.ctf import CTFParams, transfer
from jaxprot.io.particles import read_particles
from jaxprot.ops import fourier
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel
from jaxprot.train.step import Objective
from jaxprot.train.task import OptimConfig, TrainConfig

CFG = DensityConfig(side=8, latent=2, hidden=16)


def particles(n=12, side=8, **changes):
    rng = np.random.default_rng(0)
    given = {
        "images": rng.normal(size=(n, side, side)).astype(np.float32),
        "rotations": np.linalg.qr(rng.normal(size=(n, 3, 3)))[0],
        "shifts": rng.normal(size=(n, 2)),
        "ctf": CTFParams(15000.0, rng.uniform(10000, 14000, n), 0.3),
        "pixel": 2.0,
        "latents": rng.normal(size=(n, 2)),
    }
    return reconstruction.density_data(**(given | changes))


@pytest.mark.parametrize("n", [1, 7, 250])
def test_scale_is_the_deviation_of_all_spectra(n):
    images = np.random.default_rng(0).normal(1.0, 2.0, size=(n, 6, 6)).astype(np.float32)
    spectra = np.asarray(fourier.fft(jnp.asarray(images[:: max(1, n // 100)])), np.complex128)
    expected = np.sqrt((np.abs(spectra - spectra.mean()) ** 2).sum() / (spectra.size - 1))
    np.testing.assert_allclose(reconstruction.spectral_deviation(images), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"latents": np.zeros((11, 2))}, "latents of shape"),
        ({"latents": np.full((12, 2), np.nan)}, "latents: row 0 is not finite"),
        ({"shifts": np.zeros((12, 3))}, "shifts of shape"),
        ({"images": np.zeros((12, 8, 8))}, "empty"),
        ({"images": np.zeros((12, 8, 9))}, "expected"),
        ({"ctf": CTFParams(np.zeros(3), 1.0, 0.0)}, "defocus_u"),
    ],
    ids=["fewer latents", "not finite", "shifts", "empty images", "no squares", "ctf"],
)
def test_particles_that_do_not_fit_are_refused(wrong, match):
    with pytest.raises(InputError, match=match):
        particles(**wrong)


@pytest.mark.parametrize(
    ("data", "cfg", "changes", "match"),
    [
        ({}, CFG, {"size": 13}, "fewer than the 13"),
        ({}, dataclasses.replace(CFG, side=9), {}, "side is 9"),
        ({}, dataclasses.replace(CFG, latent=3), {}, "reads 3"),
        ({"latents": None}, CFG, {}, "no latents"),
    ],
    ids=["too few", "side", "latents of another size", "no latents"],
)
def test_settings_that_do_not_fit_are_refused(data, cfg, changes, match):
    with pytest.raises(InputError, match=match):
        reconstruction.DensityTask(particles(**data), cfg, **{"size": 4, **changes})


@pytest.mark.parametrize("loss", ["fmsf", "rmsf"])
def test_loss_is_zero_for_images_of_the_network_itself(loss):
    """What it makes of a latent and a pose, with CTF and out of the centre, is what the loss compares with."""
    data = particles()
    module = density.Density(dataclasses.replace(CFG, mask=0.75), rngs=nnx.Rngs(0))

    @jax.jit
    def imaged(latents, rotations, shifts, ctf):
        spectra = density.slices(module, latents, rotations) * transfer(ctf, 8, data.pixel)
        return fourier.translate(fourier.ifft(spectra).real, -shifts, "exact")

    images = imaged(data.latents, data.rotations, data.shifts, data.ctf)
    seen = data._replace(images=np.asarray(images), scale=1.0)
    task = reconstruction.DensityTask(seen, module.cfg, size=4, loss_in=loss, shift="exact")
    term = jax.jit(lambda batch: task.terms(module, batch)[loss])(task.load(None, np.arange(12)))
    assert term.total / term.count < 1e-9 < 1e-4 * (images**2).mean()
    other = dataclasses.replace(task, data=seen._replace(shifts=data.shifts + 1))
    worse = jax.jit(lambda batch: other.terms(module, batch)[loss])(other.load(None, np.arange(12)))
    assert worse.total / worse.count > 1e-6


@pytest.mark.parametrize("loss", ["fmsf", "rmsf"])
def test_terms_of_images_add_up_to_those_of_a_batch(loss):
    task = reconstruction.DensityTask(particles(), CFG, size=4, loss_in=loss)
    module = task.build(jax.random.key(0))
    batch = task.load(None, np.arange(4))
    whole = jax.jit(lambda batch: task.terms(module, batch)[loss])(batch)
    each = jax.jit(jax.vmap(lambda one: task.loss(module, one, jax.random.key(0))[loss]))(batch)
    np.testing.assert_allclose(whole.total, each.total.sum(), rtol=1e-4)
    np.testing.assert_allclose(whole.count, each.count.sum())


def test_data_are_resident_where_they_fit(monkeypatch):
    task = reconstruction.DensityTask(particles(), CFG, size=4)
    assert task.resident().image.shape == (12, 8, 8)
    monkeypatch.setattr(reconstruction, "_RESIDENT", 100)
    assert task.resident is None


@pytest.mark.parametrize(
    "encoder", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["latents given", "own encoder"]
)
@pytest.mark.slow
def test_a_run_of_the_engine_learns(encoder, tmp_path):
    cfg = dataclasses.replace(CFG, encoder=encoder)
    task = reconstruction.DensityTask(particles(**({"latents": None} if encoder else {})), cfg, size=4, held=5)
    start = task.evaluator(nnx.graphdef(task.build(jax.random.key(0))))
    optim = OptimConfig(lr=3e-3, schedule="constant", warmup=0, ema=0.0)
    run = TrainConfig(
        task=task, optim=optim, steps=60, chunk=20, evaluate_every=30, save_every=60, log_every=30, workers=0
    )
    records = []
    fit(run, tmp_path / "run", report=records.append, parallel=Parallel("single"))
    figures = [record["val_neg_loss"] for record in records if "val_neg_loss" in record]
    first = start(nnx.to_pure_dict(nnx.state(task.build(jax.random.key(0)))))["neg_loss"]
    assert first < figures[0] < figures[1] < 0
    if encoder:
        np.testing.assert_allclose(records[0]["divergence"], 3.0, rtol=0.5)
    found, tensors, _ = weights.read(_with_header(tmp_path / "run" / "best.safetensors", cfg))
    assert found == cfg
    assert "encoding.directions" in tensors
    assembled = weights.assemble(found, tensors)
    again = task.evaluator(nnx.graphdef(assembled))(nnx.to_pure_dict(nnx.state(assembled)))
    np.testing.assert_allclose(again["neg_loss"], max(figures), rtol=1e-5)


def _with_header(path, cfg):
    _, tensors, _ = weights.inspect.read(path)
    weights.save(path, cfg, tensors)
    return path


@pytest.mark.golden
def test_scale_of_the_published_code(goldens, shared):
    z = np.load(goldens("cryostar") / "12_fourier.npz")
    stack = read_particles(next((shared / "data" / "heterogeneity" / "adk").glob("*.star")))
    images = jnp.asarray(stack.images.read(np.arange(len(stack))), jnp.float32)
    prepared = np.asarray(fourier.crop_spectrum(images, 48) * jnp.asarray(fourier.window(48, 1.0), jnp.float32)[None])
    scale = reconstruction.spectral_deviation(prepared)
    np.testing.assert_allclose(scale, z["f_std_down48"], rtol=1e-4)
    item = z["proj_normalised"][0]
    np.testing.assert_allclose(prepared[int(z["item_idx"])] / scale, item, rtol=1e-3, atol=1e-5 * np.abs(item).max())


@pytest.mark.golden
def test_three_steps_of_the_published_code(goldens):
    """The second record goes on with the weights that the three steps of the first left, without a mask."""
    home = goldens("cryostar")
    cfg, tensors, _ = weights.read(home / "density_ckpt.pt")
    optics = np.load(home / "05_ctf.npz")
    u, v, angle = (optics[name].ravel() for name in ("defocusU_um", "defocusV_um", "angle_rad"))
    params = None
    for name, mask in (("a", 0.85), ("b", 1.0)):
        z = np.load(home / f"11_density_{name}.npz")
        sizes = dataclasses.replace(cfg, mask=mask)
        data = reconstruction.density_data(
            z["target"][:, 0], z["rotmat"], z["trans_yx_px"][:, 0], CTFParams(u * 1e4, v * 1e4, angle), 1.5, z["z"], 1.0
        )
        task = reconstruction.DensityTask(data, sizes, size=3)
        graphdef, first, rest = nnx.split(weights.assemble(sizes, tensors), nnx.Param, ...)
        rest = nnx.to_pure_dict(rest)
        params = nnx.to_pure_dict(first) if params is None else params
        if name == "b":
            module = nnx.merge(graphdef, params, rest)
            plane = jax.jit(lambda *a, module=module: density.slices(module, *a))(z["z"], z["rotmat"])
            np.testing.assert_allclose(plane, z["fplane"][:, 0], rtol=1e-4, atol=1e-5 * np.abs(z["fplane"]).max())
        objective = Objective(task, graphdef, micro=1)
        tx = optax.adamw(1e-4, weight_decay=0.01)
        state = tx.init(params)

        @jax.jit
        def step(params, state, objective=objective, rest=rest, task=task, tx=tx):
            batch = jax.tree.map(jnp.asarray, task.load(None, np.arange(3)))
            nothing = jax.tree.map(lambda _: None, params)
            (loss, _), grad, _ = objective.gradient(params, nothing, rest, batch, jnp.ones(3), jax.random.key(0))
            updates, state = tx.update(grad, state, params)
            return optax.apply_updates(params, updates), state, loss, grad

        for number in range(3):
            params, state, loss, grad = step(params, state)
            np.testing.assert_allclose(loss, z["losses_adamw"][number], rtol=1e-5)
            if number == 0:
                for found, expected in (
                    (grad["net"]["input"]["linear"]["bias"], z["grad_net0_bias"]),
                    (grad["net"]["output"]["kernel"].T, z["grad_last_weight"]),
                ):
                    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(params["net"]["input"]["linear"]["bias"], z["after3_net0_bias"], atol=2e-6)

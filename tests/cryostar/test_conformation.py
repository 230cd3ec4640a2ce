"""Phase 1 as a training task."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.cryostar import conformation, weights
from jaxprot.cryostar.conformation import ConformationTask
from jaxprot.train.config import read_config
from jaxprot.weights import inspect
from jaxprot.weights.convert import fill
from jaxprot.weights.module import flatten


def test_a_low_pass_that_leaves_nothing_is_refused(run):
    task = read_config(run / "config.yaml").task
    with pytest.raises(InputError, match="give at most 24 Å"):
        dataclasses.replace(task, low_pass=24.5).optics  # noqa: B018
    assert dataclasses.replace(task, low_pass=23.5).optics.low_pass == 23.5


@pytest.fixture(scope="module")
def adk(goldens, request, tmp_path_factory):
    """The published task on the first 16 images of the benchmark, and what the published code made of them."""
    data = goldens("cryostar").parents[1] / "data" / "heterogeneity" / "adk"
    if not data.exists():
        pytest.skip("the adenylate kinase benchmark is not at hand")
    task = ConformationTask(
        particles=str(data / "adk_64.star"), reference=str(data / "1ake_A.pdb"),
        cache=str(tmp_path_factory.mktemp("cache") / "images"), low_pass=4.0, ratio=0.8, shift="compat", settle=0,
        size=16, divergence=0.5,
    )  # fmt: skip
    return task, np.load(goldens("cryostar") / "08_atom_step.npz"), goldens("cryostar")


def published(task, home):
    """The network of the golden checkpoint."""
    _, tensors, _ = inspect.read(home / "atom_ckpt.pt")
    model = conformation.ConformationModel(task.model, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    shapes = {name: leaf.shape for name, leaf in flatten(params).items()}
    named = fill(shapes, tensors, weights.OFFICIAL, (), "atom_ckpt.pt")
    leaves = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(named[".".join(str(k.key) for k in path)]), nnx.to_pure_dict(params)
    )
    return graphdef, leaves, nnx.to_pure_dict(rest)


@pytest.mark.golden
def test_images_of_the_published_code(adk):
    task, z, home = adk
    examples, optics = task.examples(np.arange(16)), task.optics
    observed = np.load(home / "07_dataset.npz")["proj"][:, 0]
    np.testing.assert_allclose(examples["images"], observed, rtol=1e-4, atol=1e-5 * np.abs(observed).max())
    window = optics.window
    expected = z["gt_lowpassed"][:, 0] * window
    expected /= (expected.std((1, 2), ddof=1, keepdims=True) + 1e-5) * window.sum()
    np.testing.assert_allclose(examples["target"], expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    ctf = conformation._ctf(examples)
    drawn = optics.predicted(
        jnp.asarray(z["pred_struc"]), jnp.asarray(examples["rotations"]), ctf, jnp.asarray(task.beads.electrons), 2.0
    )
    expected = z["pred_images"][:, 0]
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())


@pytest.mark.golden
@pytest.mark.slow
def test_five_steps_of_the_published_code(adk):
    task, z, home = adk
    examples = jax.tree.map(jnp.asarray, task.examples(np.arange(16)))
    graphdef, params, rest = published(task, home)

    def total(params, rest):
        model = nnx.merge(graphdef, params, rest)
        deformation, mean, log_var = model(examples["images"], jnp.asarray(z["eps"]))
        terms = task.terms(model, task.structures(deformation), mean, log_var, examples, jnp.ones(16))
        return sum(term.weight * term.total / jnp.maximum(term.count, 1e-6) for term in terms.values())

    names = {}  # ours -> theirs
    for key in z["param_names"].tolist():
        rule = next(rule for rule in weights.OFFICIAL if re.fullmatch(rule.pattern, key))
        names[rule.apply(key, np.zeros((1, 1)))[0][0]] = key
    grad = flatten(jax.grad(total)(params, rest))
    norms = dict(zip(z["param_names"].tolist(), z["gradnorm_step0"].tolist(), strict=True))
    for name, theirs in names.items():
        np.testing.assert_allclose(np.linalg.norm(grad[name]), norms[theirs], rtol=2e-3)
        if f"grad_{theirs}" in z:
            expected = z[f"grad_{theirs}"].T
            np.testing.assert_allclose(grad[name], expected, rtol=2e-3, atol=1e-5 * np.abs(expected).max())
    start = [float(total(params, {**rest, "steps": jnp.asarray(step)})) for step in (0, 5000, 20000)]
    np.testing.assert_allclose(start, [z[f"total_step{step}"] for step in (0, 5000, 20000)], rtol=2e-4)
    tx = optax.adamw(1e-4, weight_decay=0.01)

    @jax.jit
    def step(params, opt, count):
        loss, grad = jax.value_and_grad(total)(params, {**rest, "steps": count})
        updates, opt = tx.update(grad, opt, params)
        return optax.apply_updates(params, updates), opt, loss

    opt, found = tx.init(params), []
    for number in range(5):
        params, opt, loss = step(params, opt, jnp.asarray(number))
        found.append(float(loss))
        if number in (0, 4):
            after = flatten(params)
            for name, theirs in names.items():
                if f"after{number + 1}_{theirs}" in z:
                    np.testing.assert_allclose(after[name], z[f"after{number + 1}_{theirs}"].T, atol=2e-6)
    np.testing.assert_allclose(found, z["adamw_losses"], rtol=1e-3)

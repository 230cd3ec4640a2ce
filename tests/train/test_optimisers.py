"""Optimisers: equal to optax where it has them, to the stored trajectory of the published one where it has not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from jaxprot.train.optimisers import merge, optimiser, partition, scale_by_radam, trainable
from jaxprot.train.task import OptimConfig

PLAIN = OptimConfig(clip=None, weight_decay=0.0)


@pytest.fixture
def params(key):
    keys = jax.random.split(key, 6)
    return {
        "backbone": {
            "embedding": {"embedding": jax.random.normal(keys[0], (7, 4))},
            "layers": {
                0: {"kernel": jax.random.normal(keys[1], (4, 6)), "bias": jax.random.normal(keys[2], (6,))},
                1: {"kernel": jax.random.normal(keys[3], (6, 4)), "bias": jax.random.normal(keys[4], (4,))},
            },
        },
        "head": {"conv": jax.random.normal(keys[5], (3, 4, 2))},
    }


def gradients(params, count, scale=1.0):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return [
        jax.tree.unflatten(tree, [jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32) for x in leaves])
        for _ in range(count)
    ]


def run(tx, params, grads, rates=None):
    """Parameters after every step; rates are arguments of one compiled step, or in `tx` where None."""
    state, trajectory, traces = tx.init(params), [], []

    @jax.jit
    def step(params, state, grad, rate):
        traces.append(rate)
        extra = {} if rates is None else {"learning_rate": rate}
        updates, state = tx.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state

    for i, grad in enumerate(grads):
        params, state = step(params, state, grad, jnp.float32(0 if rates is None else rates[i]))
        trajectory.append(params)
    assert len(traces) == 1
    return trajectory


def assert_equal(found, expected, rtol=2e-6, atol=1e-7):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


RATES = np.float32([0.02, 0.05, 0.01, 0.03, 0.0, 0.04])


def schedule(count):
    return jnp.asarray(RATES)[count]


def dimensions(params):
    def of(path, leaf):
        matrix = leaf.ndim == 2 and "embedding" not in jax.tree_util.keystr(path[-2:])
        return contrib.MuonDimensionNumbers() if matrix else None

    return jax.tree_util.tree_map_with_path(of, params)


CASES = {
    "sgd": (PLAIN, lambda p: optax.sgd(schedule)),
    "sgd with momentum": (dataclasses.replace(PLAIN, momentum=0.9), lambda p: optax.sgd(schedule, 0.9)),
    "adam": (PLAIN, lambda p: optax.adam(schedule, b2=0.98)),
    "adam with decay in the gradient": (
        dataclasses.replace(PLAIN, weight_decay=0.1),
        lambda p: optax.chain(optax.add_decayed_weights(0.1), optax.adam(schedule, b2=0.98)),
    ),
    "adamw": (
        OptimConfig(weight_decay=0.1, clip=None),
        lambda p: optax.adamw(schedule, b2=0.98, weight_decay=0.1),
    ),
    "adamw, clipped": (
        OptimConfig(weight_decay=0.1, clip=1.0),
        lambda p: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.1)),
    ),
    "adamw, other moments": (
        OptimConfig(b1=0.8, b2=0.999, eps=1e-3, clip=None),
        lambda p: optax.adamw(schedule, b1=0.8, b2=0.999, eps=1e-3, weight_decay=0.01),
    ),
    "muon": (
        OptimConfig(weight_decay=0.05),
        lambda p: optax.chain(
            optax.clip_by_global_norm(1.0),
            contrib.muon(
                schedule,
                weight_decay=0.05,
                adam_b2=0.98,
                adam_weight_decay=0.0,
                consistent_rms=0.2,
                muon_weight_dimension_numbers=dimensions(p),
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_optax(params, case):
    cfg, make = CASES[case]
    cfg = dataclasses.replace(cfg, name=case.split()[0].rstrip(","))
    grads = gradients(params, len(RATES))
    found, expected = run(optimiser(cfg, params), params, grads, RATES), run(make(params), params, grads)
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon", "radam"])
def test_parameters_that_are_holes_stay_holes(params, name):
    cfg = OptimConfig(name=name, momentum=0.5, lookahead=2, frozen=("layers.0",), no_decay=("bias",))
    trained, fixed = partition(params, trainable(cfg, params))
    grads = gradients(trained, 4)
    last = run(optimiser(cfg, trained), trained, grads, RATES)[-1]
    assert last["backbone"]["layers"][0] == {"kernel": None, "bias": None}
    whole = merge(last, fixed)
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    np.testing.assert_array_equal(whole["backbone"]["layers"][0]["kernel"], params["backbone"]["layers"][0]["kernel"])
    assert (np.asarray(whole["head"]["conv"]) != np.asarray(params["head"]["conv"])).all()


@pytest.mark.golden
def test_radam_with_lookahead_follows_the_published_trajectory(goldens):
    z = np.load(goldens("massa") / "optim.npz")
    cfg = OptimConfig(
        name="radam", b2=0.999, weight_decay=float(z["weight_decay_w"]), no_decay=("b",), lookahead=5, clip=None
    )
    params = {"w": jnp.asarray(z["w0"]), "b": jnp.asarray(z["b0"])}
    grads = [{"w": w, "b": b} for w, b in zip(z["grads_w"], z["grads_b"], strict=True)]
    found = run(optimiser(cfg, params), params, grads, np.full(len(grads), z["lr"]))
    for name in ("w", "b"):
        np.testing.assert_allclose(np.stack([step[name] for step in found]), z[name], atol=1e-6, rtol=1e-6)


def test_radam_without_eps_is_that_of_optax(params):
    grads = gradients(params, 12)
    ours = optax.chain(scale_by_radam(0.9, 0.99, 0.0), optax.scale(-0.1))
    theirs = optax.radam(0.1, b2=0.99, eps=0.0)
    for found, expected in zip(run(ours, params, grads), run(theirs, params, grads), strict=True):
        assert_equal(found, expected, rtol=2e-5, atol=1e-5)  # optax takes differences of large numbers


def test_lookahead_follows_at_steps_one_six_eleven(params):
    cfg = dataclasses.replace(PLAIN, name="sgd", lookahead=5, lookahead_rate=0.25)
    grads = gradients(params, 12)
    found = run(optimiser(cfg, params), params, grads, np.full(12, 0.1))
    fast, slow = params, None
    for step, grad in enumerate(grads, 1):
        fast = jax.tree.map(lambda p, g: p - 0.1 * g, fast, grad)
        if step == 1:
            slow = fast
        elif step in (6, 11):
            slow = jax.tree.map(lambda s, f: s + 0.25 * (f - s), slow, fast)
            fast = slow
        assert_equal(found[step - 1], fast, rtol=1e-5, atol=1e-6)


def test_no_decay_leaves_parts_alone(params):
    cfg = OptimConfig(name="adamw", weight_decay=0.5, no_decay=("bias", "head"))
    zero = jax.tree.map(jnp.zeros_like, params)
    (after,) = run(optimiser(cfg, params), params, [zero], [0.1])
    layer, before = after["backbone"]["layers"][1], params["backbone"]["layers"][1]
    np.testing.assert_array_equal(layer["bias"], before["bias"])
    np.testing.assert_array_equal(after["head"]["conv"], params["head"]["conv"])
    np.testing.assert_allclose(layer["kernel"], 0.95 * before["kernel"], rtol=1e-6)


def test_muon_decays_matrices_that_may_decay_and_nothing_else(params):
    cfg = OptimConfig(name="muon", weight_decay=0.5, no_decay=("layers.0",))
    zero = jax.tree.map(jnp.zeros_like, params)
    (after,) = run(optimiser(cfg, params), params, [zero], [0.1])
    expected = jax.tree.map(lambda x: x, params)
    expected["backbone"]["layers"][1]["kernel"] = 0.95 * params["backbone"]["layers"][1]["kernel"]
    assert_equal(after, expected)


def test_muon_moves_kernels_of_convolutions_as_matrices():
    key = jax.random.key(3)
    params = {"conv": {"kernel": jax.random.normal(key, (3, 3, 3, 4, 8)), "bias": jnp.zeros(8)}}
    grad = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(4), leaf.shape), params)
    (after,) = run(optimiser(OptimConfig(name="muon", weight_decay=0.0), params), params, [grad], [0.1])
    step = np.asarray(params["conv"]["kernel"] - after["conv"]["kernel"]).reshape(-1, 8)
    flat = {"conv": {"kernel": params["conv"]["kernel"].reshape(-1, 8), "bias": params["conv"]["bias"]}}
    slope = {"conv": {"kernel": grad["conv"]["kernel"].reshape(-1, 8), "bias": grad["conv"]["bias"]}}
    (expected,) = run(optimiser(OptimConfig(name="muon", weight_decay=0.0), flat), flat, [slope], [0.1])
    np.testing.assert_allclose(step, flat["conv"]["kernel"] - expected["conv"]["kernel"], rtol=1e-5, atol=1e-6)


def test_rates_of_sub_trees_scale_the_step_and_its_decay(params):
    cfg = OptimConfig(name="adamw", weight_decay=0.1, rates=(("layers.1.bias", 3.0), ("backbone", 0.1), ("head", 0.0)))
    (grad,) = gradients(params, 1)
    (plain,) = run(optimiser(dataclasses.replace(cfg, rates=()), params), params, [grad], [0.1])
    (found,) = run(optimiser(cfg, params), params, [grad], [0.1])

    def moved(tree, *path):
        for part in path:
            tree = tree[part]
        return np.asarray(tree)

    for path, factor in (
        (("backbone", "layers", 1, "bias"), 3.0),
        (("backbone", "layers", 1, "kernel"), 0.1),
        (("backbone", "embedding", "embedding"), 0.1),
        (("head", "conv"), 0.0),
    ):
        start = moved(params, *path)
        np.testing.assert_allclose(
            moved(found, *path) - start, factor * (moved(plain, *path) - start), rtol=1e-4, atol=1e-6
        )


def test_the_norm_that_is_clipped_is_that_of_the_whole_gradient(params):
    cfg = OptimConfig(name="sgd", weight_decay=0.0, clip=0.5)
    (grad,) = gradients(params, 1, scale=10.0)
    (after,) = run(optimiser(cfg, params), params, [grad], [1.0])
    change = optax.tree.norm(jax.tree.map(jnp.subtract, after, params))
    np.testing.assert_allclose(change, 0.5, rtol=1e-5)


def test_the_state_shares_no_buffer_with_the_parameters(params):
    tx = optimiser(OptimConfig(lookahead=5), params)
    state = tx.init(params)
    held = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}
    assert not held & {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)}


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("backbone", {"backbone"}),
        ("head", {"head"}),
        ("layers.1", {"1"}),
        ("bias", {"bias"}),
        ("layers.1.bias", {"1.bias"}),
    ],
)
def test_patterns_name_contiguous_parts_of_paths(params, pattern, frozen):
    mask = trainable(OptimConfig(frozen=(pattern,)), params)
    kept = {
        "backbone.embedding.embedding": mask["backbone"]["embedding"]["embedding"],
        "0.kernel": mask["backbone"]["layers"][0]["kernel"],
        "0.bias": mask["backbone"]["layers"][0]["bias"],
        "1.kernel": mask["backbone"]["layers"][1]["kernel"],
        "1.bias": mask["backbone"]["layers"][1]["bias"],
        "head.conv": mask["head"]["conv"],
    }
    expected = {
        "backbone": {"backbone.embedding.embedding", "0.kernel", "0.bias", "1.kernel", "1.bias"},
        "head": {"head.conv"},
        "layers.1": {"1.kernel", "1.bias"},
        "bias": {"0.bias", "1.bias"},
        "layers.1.bias": {"1.bias"},
    }[pattern]
    assert {name for name, keep in kept.items() if not keep} == expected


@pytest.mark.parametrize("option", ["frozen", "no_decay", "rates"])
def test_a_pattern_that_names_nothing_is_an_error_with_near_ones(params, option):
    cfg = OptimConfig(**{option: (("backbon", 0.1),) if option == "rates" else ("backbon",)})
    with pytest.raises(ValueError, match=f"{option}: no parameter path holds 'backbon'; near ones: backbone"):
        trainable(cfg, params) if option == "frozen" else optimiser(cfg, params)


def test_rates_are_pairs(params):
    with pytest.raises(ValueError, match="gives pairs"):
        optimiser(OptimConfig(rates=("backbone", 0.1)), params)


def test_parts_are_whole_names(params):
    with pytest.raises(ValueError, match="near ones"):
        trainable(OptimConfig(frozen=("back",)), params)
    with pytest.raises(ValueError, match="backbone.layers"):
        trainable(OptimConfig(frozen=("backbone.layer",)), params)


def test_nothing_left_to_train(params):
    with pytest.raises(ValueError, match="nothing is left to train"):
        trainable(OptimConfig(frozen=("backbone", "head")), params)


def test_patterns_may_name_frozen_parts(params):
    cfg = OptimConfig(frozen=("backbone",), no_decay=("bias",), rates=(("backbone", 0.1),))
    trained, _ = partition(params, trainable(cfg, params))
    optimiser(cfg, trained)


def test_partition_and_merge_give_the_tree_back(params):
    mask = trainable(OptimConfig(frozen=("layers.0", "head")), params)
    trained, fixed = partition(params, mask)
    assert len(jax.tree.leaves(trained)) == 3 and len(jax.tree.leaves(fixed)) == 3
    whole = merge(trained, fixed)
    jax.tree.map(np.testing.assert_array_equal, whole, params)


def test_the_rate_of_the_step_is_needed(params):
    tx = optimiser(OptimConfig(), params)
    with pytest.raises(ValueError, match="learning_rate=rate"):
        tx.update(params, tx.init(params), params)


def test_unknown_optimiser(params):
    with pytest.raises(ValueError, match="known: sgd, adam, adamw, muon, radam"):
        optimiser(OptimConfig(name="sgdx"), params)

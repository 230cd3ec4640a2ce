"""Symmetries, padding, layouts, derivatives and the cutoff, on small networks of random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.visnet import exchange, featurize, neighbours
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import energy_and_forces
from jaxprot.visnet.neighbours import Molecules
from jaxprot.visnet.predict import Predictor, references

KINDS = {
    "orders 1 and 2": {},
    "order 1": {"lmax": 1, "activation": "ssp", "attn_activation": "tanh"},
    "order 1, edge variant": {"lmax": 1, "vertex": "edge", "layers": 3},
    "edge variant": {"vertex": "edge", "layers": 3},
    "max_min": {"vecnorm": "max_min", "smooth": False, "lmax": 1, "layers": 3},
    "rms, capped": {"vecnorm": "rms", "smooth": False, "max_neighbors": 6, "layers": 2},
    "one layer, gauss": {"layers": 1, "rbf_type": "gauss"},
}


def rotation():
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_translation_and_order_of_atoms(kind, build, molecule):
    predictor, (z, x) = build(**KINDS[kind]), molecule(12)
    turn, order = rotation(), np.random.default_rng(1).permutation(12)
    if predictor.config.max_neighbors:
        order = np.arange(12)  # which pairs a cap keeps depends on the order, as published
    first = predictor.energy_and_forces(z, x)
    second = predictor.energy_and_forces(z[order], x[order] @ turn.T + [3.0, -20.0, 7.0])
    np.testing.assert_allclose(second.energy, first.energy, rtol=1e-5, atol=1e-5)
    scale = np.abs(first.forces).max()
    assert scale > 1e-3
    np.testing.assert_allclose(second.forces, first.forces[order] @ turn.T, atol=2e-5 * max(scale, 1))
    np.testing.assert_allclose(first.forces.sum(0), 0, atol=2e-5 * max(scale, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_padding_and_tables_change_nothing(kind, build, molecule):
    predictor = build(**KINDS[kind])
    energy, leaves = predictor.pure()
    cutoff = predictor.config.cutoff
    run = jax.jit(lambda m, k=None: energy_and_forces(energy, leaves, m, k), static_argnums=1)
    both = [molecule(12, seed) for seed in (0, 1, 2)] + [molecule(7, 3)]
    batch = featurize.pad(both, 12)
    energies, forces = run(batch)
    in_turns = run(batch, 3)
    table = batch._replace(index=neighbours.table(batch.z, batch.positions, cutoff + 0.5, 13))
    by_table = run(table)
    for row, one in enumerate(both):
        alone, pulls = run(featurize.pad([one], len(one[0])))
        n, scale = len(one[0]), max(1, float(jnp.abs(pulls).max()))
        for found in ((energies, forces), in_turns, by_table):
            np.testing.assert_allclose(found[0][row], alone[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found[1][row, :n], pulls[0], atol=2e-5 * scale)
            np.testing.assert_array_equal(found[1][row, n:], 0)


@pytest.mark.parametrize("kind", ["orders 1 and 2", "order 1, edge variant", "max_min", "rms, capped"])
@pytest.mark.parametrize("layout", ["dense", "table"])
def test_derivatives_are_those_of_finite_differences(kind, layout, build, molecule):
    """Forces, and the derivative of a loss of forces (two reverse passes), in float64."""
    predictor = build(**KINDS[kind])
    z, x = molecule(7, 4)
    with jax.enable_x64(True):
        graphdef, params, rest = nnx.split(predictor.module, nnx.Param, ...)
        params, rest = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (params, rest))
        molecules = Molecules(jnp.asarray(z[None], jnp.int32), jnp.asarray(x[None]))
        if layout == "table":
            molecules = neighbours.compact(molecules, predictor.config.cutoff, 8)

        def energy(params, m):
            return nnx.merge(graphdef, params, rest)(m)

        rng = np.random.default_rng(0)
        aim, step = rng.normal(size=(1, 7, 3)), rng.normal(size=(1, 7, 3))
        direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)

        @jax.jit
        def loss(params, positions):
            energies, forces = energy_and_forces(energy, params, molecules._replace(positions=positions))
            return jnp.sum((forces - aim) ** 2), (energies[0], forces)

        slopes = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        (by_params, by_positions), (_, forces) = slopes(params, molecules.positions)
        h = 1e-5
        up, down = (loss(params, molecules.positions + sign * h * step) for sign in (1, -1))
        np.testing.assert_allclose((up[1][0] - down[1][0]) / (2 * h), -jnp.sum(forces * step), rtol=1e-6)
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), jnp.sum(by_positions * step), rtol=1e-5)
        up, down = (
            loss(jax.tree.map(lambda p, d, s=sign: p + s * h * d, params, direction), molecules.positions)
            for sign in (1, -1)
        )
        expected = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (by_params, direction)), strict=True))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [{}, {"lmax": 1}, {"vertex": "edge"}, {"rbf_type": "gauss"}], ids=str)
@pytest.mark.parametrize("smooth", [True, False])
def test_energy_and_forces_at_the_cutoff(kind, smooth, build):
    """Atoms 0 to 2 and 3 to 5 drift apart; the first pairs to leave the cutoff are those of 0 and 3."""
    predictor = build(layers=3, smooth=smooth, **kind)
    near = np.array([[0.0, 0, 0], [-0.9, 0.5, 0.2], [-0.8, -0.7, 0.4]])
    with jax.enable_x64(True):
        graphdef, state = nnx.split(predictor.module)
        state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), state)
        z = jnp.asarray([[1, 6, 8, 7, 6, 1]], jnp.int32)

        @jax.jit
        def at(gap):
            far = near * jnp.asarray([-1.0, 1, 1]) + jnp.asarray([gap, 0, 0])
            positions = jnp.concatenate([jnp.asarray(near), far])[None]
            return energy_and_forces(lambda s, m: nnx.merge(graphdef, s)(m), state, Molecules(z, positions))

        delta, cutoff = 1e-4, predictor.config.cutoff
        (inner, pull), (outer, rest) = (at(jnp.float64(cutoff + d)) for d in (-delta, delta))
        far_inner = at(jnp.float64(cutoff - 2 * delta))
        jump, kick = abs(float(outer[0] - inner[0])), float(jnp.abs(rest - pull).max())
        if smooth:
            # What is left is of the order of the square and of the distance itself.
            np.testing.assert_allclose(jump, 0, atol=1e-7)
            np.testing.assert_allclose(kick, 0, atol=3e-3)
            within = float(jnp.abs(far_inner[1] - pull).max())
            assert kick < 10 * within + 1e-9
        else:
            assert jump > 1e-5 and kick > 1e-4


def test_nothing_is_lost_to_atoms_own_energies(build, molecule):
    predictor, (z, x) = build(), molecule(6)
    table = np.zeros(10, np.float32)
    table[1:9] = -np.arange(1, 9) * 1e4
    predictor.module.atomref[...] = jnp.asarray(table)
    predictor.module.mean[...] = jnp.asarray([-2.5])
    own = table[z].astype(float).sum() - 2.5
    with_own = Predictor(predictor.module).energy_and_forces(z, x)
    assert references(predictor, z) == own and with_own.energy - own == pytest.approx(with_own.interaction, abs=1e-9)
    padded = np.stack([np.pad(z, (0, 4)), np.zeros(10, int)])
    np.testing.assert_array_equal(references(predictor, padded), [own, -2.5])


def test_many_molecules_and_large_ones(build, molecule, monkeypatch):
    predictor = build(layers=2)
    several = [molecule(n, n) for n in (5, 13, 12, 5)]
    found = predictor.energy_and_forces([z for z, _ in several], [x for _, x in several])
    monkeypatch.setattr(featurize, "DENSE", 8)
    for row, (z, x) in enumerate(several):
        alone = predictor.energy_and_forces(z, x)
        np.testing.assert_allclose(found.energy[row], alone.energy, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.forces[row], alone.forces, atol=2e-5)


def test_lone_atoms_have_energies_and_no_forces(build):
    for kind in ({}, {"vecnorm": "rms", "smooth": False}, {"vecnorm": "max_min", "smooth": False}):
        found = build(**kind).energy_and_forces([6, 1], [[0.0, 0, 0], [9.0, 0, 0]])
        assert np.isfinite(found.energy)
        np.testing.assert_array_equal(found.forces, 0)


@pytest.mark.parametrize(
    ("z", "positions", "message"),
    [
        ([1, 6], [[0, 0, 0]], "needs atomic numbers"),
        ([1, 0], [[0, 0, 0], [1, 0, 0]], "atom 1 has the atomic number 0"),
        ([1, 99], [[0, 0, 0], [1, 0, 0]], "these weights know 1 to 9"),
        ([1, 6], [[0, 0, 0], [np.nan, 0, 0]], "atom 1 has no finite"),
        ([1, 6], [[0, 0, 0], [0.01, 0, 0]], "atoms 0 and 1 are less than"),
        ([1.0, 6.0], [[0, 0, 0], [1, 0, 0]], "whole numbers"),
        ([[1], [1]], [[[0, 0, 0]]], "2 molecules"),
    ],
    ids=["shapes", "no element", "unknown element", "missing", "coincide", "not whole", "lists"],
)
def test_refused(z, positions, message, build):
    if np.ndim(z[0]):
        z, positions = [np.array(one) for one in z], [np.array(one, float) for one in positions]
    with pytest.raises(InputError, match=message):
        build().energy_and_forces(z, positions)


def test_options_that_make_no_sense():
    for wrong, message in (
        ({"max_neighbors": 32}, "smooth needs max_neighbors"),
        ({"vecnorm": "rms"}, "smooth needs vecnorm"),
        ({"hidden": 20}, "multiple of heads"),
        ({"lmax": 3}, "lmax must be one of 1, 2"),
    ):
        with pytest.raises(ValueError, match=message):
            ViSNetConfig(**wrong)
    paper = ViSNetConfig.paper()
    assert ViSNetConfig.from_hyper_parameters(paper.hyper_parameters()) == paper
    assert dataclasses.replace(paper, max_neighbors=None, smooth=True) == ViSNetConfig()


def test_tables_hold_the_lowest_neighbours_in_order(molecule):
    z, x = molecule(300, 2)  # more than are looked at at once
    table = np.asarray(neighbours.table(z[None], x[None].astype(np.float32), 2.5, 12))[0]
    near = np.linalg.norm(x[:, None] - x, axis=-1) < 2.5
    for row in (0, 17, 256, 299):
        expected = np.nonzero(near[row])[0][:12]
        np.testing.assert_array_equal(table[row], np.pad(expected, (0, 12 - len(expected)), constant_values=-1))
    count = neighbours.degrees(z[None], x[None].astype(np.float32), 2.5)[0]
    np.testing.assert_array_equal(count, near.sum(1))
    np.testing.assert_array_equal(featurize.degrees(x, 2.5), near.sum(1))


def test_the_forms_for_other_platforms_agree():
    weight, vec = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(2, 5, 5, 4), (2, 5, 8, 4)]))
    np.testing.assert_allclose(
        exchange._carry_loop(weight, vec), exchange._carry_einsum(weight, vec), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(exchange.total(weight), jnp.sum(weight, 2), rtol=1e-5, atol=1e-5)


def test_maps_over_molecules_and_devices_shapes(build, molecule):
    predictor = build(layers=2)
    energy, leaves = predictor.pure()
    batch = featurize.pad([molecule(6, s) for s in range(3)], 6)
    whole = energy(leaves, batch)
    mapped = jax.vmap(lambda z, x: energy(leaves, Molecules(z[None], x[None]))[0])(
        batch.z, jnp.asarray(batch.positions)
    )
    np.testing.assert_allclose(mapped, whole, rtol=1e-5, atol=1e-5)

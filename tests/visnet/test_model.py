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
from jaxprot.visnet.model import ViSNet, energy_and_forces
from jaxprot.visnet.neighbours import Molecules
from jaxprot.visnet.predict import Predictor, references

SLOW = pytest.mark.slow
KINDS = {
    "orders 1 and 2": {"layers": 3},
    "order 1, edge variant": {"lmax": 1, "vertex": "edge", "layers": 3, "activation": "ssp", "attn_activation": "tanh"},
    "max_min, gauss": {"vecnorm": "max_min", "smooth": False, "lmax": 1, "layers": 2, "rbf_type": "gauss"},
    "layers in one loop": {"layers": 4},
    "edge variant": {"vertex": "edge", "layers": 3},
    "order 1": {"lmax": 1, "layers": 3},
    "rms, capped": {"vecnorm": "rms", "smooth": False, "max_neighbors": 6, "layers": 2},
    "one layer": {"layers": 1},
}
ALL = [pytest.param(kind, marks=[SLOW] if number else []) for number, kind in enumerate(KINDS)]


def rotation():
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.slow
def test_symmetries_batches_padding_and_layouts(kind, build, molecule):
    predictor = build(**KINDS[kind])
    energy, leaves = predictor.pure()
    run = jax.jit(lambda m: energy_and_forces(energy, leaves, m, 3))  # in groups, of which the last is not full
    (z, x), turn, order = molecule(12), rotation(), np.random.default_rng(1).permutation(12)
    if predictor.config.max_neighbors:
        order = np.arange(12)  # which pairs a cap keeps depends on the order, as published
    short, far = molecule(7, 3), (np.array([6, 1]), np.array([[0.0, 0, 0], [9.0, 0, 0]]))
    batch = featurize.pad([(z, x), (z[order], x[order] @ turn.T + [3.0, -20.0, 7.0]), short, far], 12)
    energies, forces = map(np.asarray, run(batch))
    scale = max(1, np.abs(forces).max())
    assert np.abs(forces).max() > 1e-3 and np.isfinite(energies).all()
    np.testing.assert_allclose(energies[1], energies[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(forces[1], forces[0][order] @ turn.T, atol=2e-5 * scale)
    np.testing.assert_allclose(forces.sum(1), 0, atol=2e-5 * scale)
    np.testing.assert_array_equal(forces[2, 7:], 0)
    np.testing.assert_array_equal(forces[3], 0)
    # Each alone, one without padding, and the others' atoms not there.
    for row, one in ((2, short), (0, (z, x))):
        alone = jax.jit(energy)(leaves, featurize.pad([one], len(one[0])))
        np.testing.assert_allclose(alone[0], energies[row], rtol=1e-5, atol=1e-5)
    table = neighbours.table(batch.z, batch.positions, predictor.config.cutoff + 0.5, 13)
    by_table = run(batch._replace(index=table))
    np.testing.assert_allclose(by_table[0], energies, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_table[1], forces, atol=2e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("orders 1 and 2", "dense"),
        ("orders 1 and 2", "table"),
        ("order 1, edge variant", "dense"),
        ("order 1, edge variant", "table"),
        ("max_min, gauss", "dense"),
        ("rms, capped", "table"),
        ("layers in one loop", "dense"),
    ],
)
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
        h = 1e-6
        up, down = (loss(params, molecules.positions + sign * h * step) for sign in (1, -1))
        np.testing.assert_allclose((up[1][0] - down[1][0]) / (2 * h), -jnp.sum(forces * step), rtol=1e-6)
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), jnp.sum(by_positions * step), rtol=1e-5)
        up, down = (
            loss(jax.tree.map(lambda p, d, s=sign: p + s * h * d, params, direction), molecules.positions)
            for sign in (1, -1)
        )
        expected = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (by_params, direction)), strict=True))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "kind",
    [{}, *(pytest.param(kind, marks=SLOW) for kind in ({"lmax": 1}, {"vertex": "edge"}, {"rbf_type": "gauss"}))],
    ids=str,
)
@pytest.mark.parametrize("smooth", [True, False])
def test_energy_and_forces_at_the_cutoff(kind, smooth, build):
    """Atoms 0 to 2 and 3 to 5 drift apart; the first pairs to leave the cutoff are those of 0 and 3."""
    predictor = build(layers=3, smooth=smooth, **kind)
    near = np.array([[0.0, 0, 0], [-0.9, 0.5, 0.2], [-0.8, -0.7, 0.4]])
    with jax.enable_x64(True):
        graphdef, state = nnx.split(predictor.module)
        state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), state)
        z = jnp.asarray([[1, 6, 8, 7, 6, 1]], jnp.int32)
        run = jax.jit(
            lambda positions: energy_and_forces(
                lambda s, m: nnx.merge(graphdef, s)(m), state, Molecules(z, positions), at_once=1
            )
        )

        def at(gap):
            far = near * [-1.0, 1, 1] + [gap, 0, 0]
            energies, forces = run(jnp.asarray(np.concatenate([near, far])[None]))
            return float(energies[0]), np.asarray(forces[0])

        cutoff = predictor.config.cutoff
        jumps, kicks = [], []
        for delta in (1e-3, 1e-4):
            (inner, pull), (outer, rest) = at(cutoff - delta), at(cutoff + delta)
            jumps.append(abs(outer - inner + delta * (pull[3:, 0].sum() + rest[3:, 0].sum())))
            kicks.append(np.abs(rest - pull).max())
        if smooth:
            # A continuous force changes in proportion to the step, and what it leaves of the energy with its square.
            assert kicks[1] < 0.15 * kicks[0] and jumps[1] < 0.03 * jumps[0]
        else:
            assert min(jumps) > 1e-4 and kicks[1] > 0.5 * kicks[0] > 1e-4


def test_nothing_is_lost_to_atoms_own_energies(build, molecule):
    predictor, (z, x) = build(layers=1), molecule(6)
    table = np.zeros(10, np.float32)
    table[1:9] = -np.arange(1, 9) * 1e4
    predictor.module.atomref[...] = jnp.asarray(table)
    predictor.module.mean[...] = jnp.asarray([-2.5])
    own = table[z].astype(float).sum() - 2.5
    with_own = Predictor(predictor.module).energy_and_forces(z, x)
    assert references(predictor, z) == own and with_own.energy - own == pytest.approx(with_own.interaction, abs=1e-9)
    padded = np.stack([np.pad(z, (0, 4)), np.zeros(10, int)])
    np.testing.assert_array_equal(references(predictor, padded), [own, -2.5])


@pytest.mark.slow
def test_many_molecules_and_large_ones(build, molecule, monkeypatch):
    predictor = build(layers=2)
    several = [molecule(n, n) for n in (5, 11, 12)]
    found = predictor.energy_and_forces([z for z, _ in several], [x for _, x in several])
    monkeypatch.setattr(featurize, "DENSE", 8)
    z, x = several[1]
    alone = predictor.energy_and_forces(z, x)
    np.testing.assert_allclose(found.energy[1], alone.energy, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.forces[1], alone.forces, atol=2e-5)
    assert [len(forces) for forces in found.forces] == [5, 11, 12]


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
        build(layers=1).energy_and_forces(z, positions)


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


@pytest.mark.slow
def test_maps_over_molecules(build, molecule):
    predictor = build(layers=1)
    energy, leaves = predictor.pure()
    batch = featurize.pad([molecule(6, s) for s in range(3)], 6)
    whole = energy(leaves, batch)
    mapped = jax.vmap(lambda z, x: energy(leaves, Molecules(z[None], x[None]))[0])(
        batch.z, jnp.asarray(batch.positions)
    )
    np.testing.assert_allclose(mapped, whole, rtol=1e-5, atol=1e-5)


def test_a_fresh_network(molecule):
    cfg = ViSNetConfig(hidden=8, layers=1, heads=2, rbf=4, max_z=9)
    net = ViSNet(cfg, rngs=nnx.Rngs(0))
    found = Predictor(net).energy_and_forces(*molecule(6))
    assert np.isfinite(found.energy) and np.abs(found.forces).max() > 0
    trained = {path[0] for path, _ in nnx.to_flat_state(nnx.state(net, nnx.Param))}
    assert trained == {"embedding", "neighbour", "edge", "layers", "out_norm", "head"}

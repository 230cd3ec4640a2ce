"""Forces between atoms that share no unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ai2bmd import nonbonded, solvent
from jaxprot.ai2bmd.fragment import fragment
from jaxprot.core.units import COULOMB_KJ, KCAL_MOL, KJ_MOL

BOTH = pytest.mark.parametrize("terms", [nonbonded, solvent], ids=["force field", "solvent"])


@pytest.mark.golden
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_energy_and_forces_of_the_published_program(published, wide):
    stored, structure = published
    made = fragment(structure)
    np.testing.assert_allclose(made.charge, stored["charges"], atol=1e-6)
    np.testing.assert_allclose(made.sigma / 10, stored["sigmas_nm"], atol=1e-6)
    np.testing.assert_allclose(made.epsilon * 4.184, stored["epsilons_kJmol"], atol=1e-6)
    with jax.enable_x64(wide):
        xyz = jnp.asarray(stored["pos"], jnp.float64 if wide else jnp.float32)
        value, forces = jax.jit(nonbonded.energy_and_forces)(xyz, nonbonded.parameters(made))
    np.testing.assert_allclose(value, stored["nonbonded_energy"], rtol=1e-5)
    np.testing.assert_allclose(forces, stored["nonbonded_forces"], rtol=1e-5, atol=5e-6)


@pytest.mark.golden
def test_every_residue_has_the_published_parameters(goldens):
    import json

    from jaxprot.ai2bmd import templates

    stored = json.loads((goldens("ai2bmd") / "amber14_nonbonded.json").read_text())["residues"]
    assert set(stored) == set(templates.residues())
    for name, residue in stored.items():
        template = templates.residues()[name]
        found, missing, extra = templates.match(name, list(residue))
        assert not missing and not extra
        order = [found[atom] for atom in template.atoms]
        values = np.stack([template.charge, template.sigma / 10, template.epsilon * 4.184], 1)
        np.testing.assert_allclose(values, np.array(list(residue.values()))[order], atol=1e-9)


def test_pairs_one_by_one(two_chains):
    made = fragment(two_chains)
    together = np.zeros((made.n_atoms, made.n_atoms), bool)
    together[tuple(made.excluded_pairs().T)] = True
    expected = 0.0
    xyz = two_chains.xyz.astype(np.float64)
    for i in range(0, made.n_atoms):
        j = np.arange(i + 1, made.n_atoms)
        j = j[~together[i, j]]
        r = np.linalg.norm(xyz[i] - xyz[j], axis=1)
        s = (0.5 * (made.sigma[i] + made.sigma[j]) / r) ** 6
        expected += (4 * KCAL_MOL * np.sqrt(made.epsilon[i] * made.epsilon[j]) * (s * s - s)).sum()
        expected += (KJ_MOL * COULOMB_KJ * made.charge[i] * made.charge[j] / r).sum()
    with jax.enable_x64(True):
        value = jax.jit(nonbonded.energy)(jnp.asarray(xyz), nonbonded.parameters(made))
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@BOTH
def test_forces_are_the_slope_of_the_energy(chignolin, terms):
    parameters = terms.parameters(fragment(chignolin))
    rng = np.random.default_rng(0)
    value, both = jax.jit(terms.energy), jax.jit(terms.energy_and_forces)
    slope = jax.jit(jax.grad(terms.energy))
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        energy, forces = both(xyz, parameters)
        np.testing.assert_allclose(energy, value(xyz, parameters), rtol=1e-13)
        np.testing.assert_allclose(slope(xyz, parameters), -forces, atol=1e-12)
        for _ in range(3):
            ahead = 1e-4 * jnp.asarray(rng.normal(size=xyz.shape))
            change = (value(xyz + ahead, parameters) - value(xyz - ahead, parameters)) / 2
            np.testing.assert_allclose(-(forces * ahead).sum(), change, rtol=1e-6)
        np.testing.assert_allclose(forces.sum(0), 0, atol=1e-10)
        np.testing.assert_allclose(jnp.cross(xyz, forces).sum(0), 0, atol=1e-9)


@BOTH
def test_charges_have_a_slope_too(chignolin, terms):
    with jax.enable_x64(True):
        parameters = jax.tree.map(jnp.asarray, terms.parameters(fragment(chignolin)))
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        ahead = 1e-4 * jnp.asarray(np.random.default_rng(0).normal(size=len(xyz)))

        @jax.jit
        def value(charge, shift):
            return terms.energy(xyz + shift, parameters._replace(charge=charge))

        slope, by_shift = jax.jit(jax.grad(value, (0, 1)))(parameters.charge, jnp.zeros_like(xyz))
        change = value(parameters.charge + ahead, 0.0) - value(parameters.charge - ahead, 0.0)
        np.testing.assert_allclose((slope * ahead).sum(), change / 2, rtol=1e-6)
        np.testing.assert_allclose(by_shift, -terms.energy_and_forces(xyz, parameters)[1], atol=1e-12)


@BOTH
def test_second_derivatives(chignolin, terms):
    parameters = terms.parameters(fragment(chignolin))
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        ahead = jnp.asarray(np.random.default_rng(0).normal(size=xyz.shape))

        @jax.jit
        def along(x):
            return (jax.grad(terms.energy)(x, parameters, block_pairs=10_000) * ahead).sum()

        change = (along(xyz + 1e-4 * ahead) - along(xyz - 1e-4 * ahead)) / 2e-4
        np.testing.assert_allclose((jax.jit(jax.grad(along))(xyz) * ahead).sum(), change, rtol=1e-5)


@BOTH
def test_blocks_do_not_matter(chignolin, terms):
    parameters = terms.parameters(fragment(chignolin))
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        whole = jax.jit(terms.energy_and_forces)(xyz, parameters)
        for pairs in (20_000, 1):
            parts = jax.jit(terms.energy_and_forces, static_argnames="block_pairs")(xyz, parameters, block_pairs=pairs)
            np.testing.assert_allclose(parts[0], whole[0], rtol=1e-13)
            np.testing.assert_allclose(parts[1], whole[1], atol=1e-13)


@BOTH
def test_order_of_atoms_permutes_forces(chignolin, edit, terms):
    mixed, order = edit.permuted(chignolin)
    both = jax.jit(terms.energy_and_forces)
    with jax.enable_x64(True):
        one = both(jnp.asarray(chignolin.xyz, jnp.float64), terms.parameters(fragment(chignolin)))
        two = both(jnp.asarray(mixed.xyz, jnp.float64), terms.parameters(fragment(mixed)))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-12)
    np.testing.assert_allclose(one[1][order], two[1], atol=1e-12)


@BOTH
def test_single_precision_sums_where_nothing_else_is_enabled(chignolin, terms):
    parameters = terms.parameters(fragment(chignolin))
    value, forces = jax.jit(terms.energy_and_forces)(jnp.asarray(chignolin.xyz), parameters)
    assert value.dtype == forces.dtype == jnp.float32
    with jax.enable_x64(True):
        exact = jax.jit(terms.energy_and_forces)(jnp.asarray(chignolin.xyz, jnp.float64), parameters)
        mixed = jax.jit(terms.energy_and_forces)(jnp.asarray(chignolin.xyz, jnp.float32), parameters)
        assert mixed[0].dtype == jnp.float64 and mixed[1].dtype == jnp.float32
    for given in ((value, forces), mixed):
        np.testing.assert_allclose(given[0], exact[0], rtol=5e-6)
        np.testing.assert_allclose(given[1], exact[1], atol=1e-5)


@BOTH
def test_many_atoms_take_memory_by_rows(terms):
    n = 14_000
    xyz = jax.ShapeDtypeStruct((n, 3), jnp.float32)
    number = jax.ShapeDtypeStruct((n,), jnp.float32)
    if terms is nonbonded:
        parameters = nonbonded.Nonbonded(number, number, number, jax.ShapeDtypeStruct((n, 3), jnp.int32))
    else:
        parameters = solvent.Solvent(number, number, number)
    compiled = jax.jit(jax.value_and_grad(terms.energy)).lower(xyz, parameters).compile()
    # One array of all pairs in single precision would be 784 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 200e6

"""Generalised Born against OpenMM, and its parts."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ai2bmd import solvent
from jaxprot.ai2bmd.fragment import fragment
from jaxprot.core.units import KCAL_MOL, KJ_MOL
from jaxprot.io.structures import read_structure

# Alanine dipeptide at a minimum of amber14 with OBC2: positions in Å, forces of the solvent alone in kcal/mol/Å, from
# OpenMM 8.6.1 (amber14-all, implicit/obc2, Reference platform).
ALANINE = """
ACE H1 3.405 1.573 -1.352  0.2545 0.1353 0.6623
ACE CH3 2.512 1.945 -1.850  -1.0657 -0.9906 -2.3824
ACE H2 2.163 2.844 -1.345  0.1840 0.2235 0.6062
ACE H3 2.740 2.174 -2.889  0.8944 0.8740 0.5391
ACE C 1.429 0.893 -1.788  3.2107 3.1605 7.3796
ACE O 0.956 0.431 -2.826  -2.1116 -2.4670 -7.9306
ALA N 1.035 0.528 -0.570  -1.1052 -1.2457 -1.5686
ALA H 1.482 0.971 0.219  2.5292 1.1807 -0.8761
ALA CA -0.027 -0.438 -0.275  -0.1061 -0.6950 -0.3489
ALA HA -0.756 -0.421 -1.088  -0.8687 -0.4231 0.7113
ALA CB 0.584 -1.844 -0.207  0.6988 0.5747 -0.3918
ALA HB1 -0.203 -2.581 -0.043  -0.2466 0.0926 0.0613
ALA HB2 1.093 -2.076 -1.143  -0.1799 -0.1778 0.5254
ALA HB3 1.300 -1.897 0.614  -0.1561 -0.1161 -0.1844
ALA C -0.775 -0.087 1.029  -2.8204 -4.1905 -5.9249
ALA O -0.216 0.547 1.932  1.5084 3.5337 7.4544
NME N -2.039 -0.517 1.137  1.8717 2.5208 3.4907
NME H -2.424 -1.036 0.359  -1.1696 -1.6451 -2.1067
NME CH3 -2.899 -0.294 2.298  0.9996 0.5373 0.2689
NME HH31 -2.870 0.757 2.592  -1.1390 -0.3444 0.0490
NME HH32 -2.560 -0.905 3.137  -0.8794 -0.3475 -0.0081
NME HH33 -3.930 -0.562 2.058  -0.3032 -0.1903 -0.0257
"""
ENERGY = -53.94822624329636  # kJ/mol


@pytest.fixture(scope="module")
def alanine():
    """Alanine dipeptide and the forces on it."""
    lines, forces = [], []
    for serial, line in enumerate(ALANINE.split("\n")[1:-1], 1):
        residue, name, *numbers = line.split()
        x, y, z, *force = map(float, numbers)
        number = ("ACE", "ALA", "NME").index(residue) + 1
        lines.append(f"ATOM  {serial:5d} {name:>4s} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00")
        forces.append(force)
    return read_structure("\n".join(lines).encode(), name="alanine"), np.array(forces)


def test_alanine_dipeptide_of_another_program(alanine):
    structure, forces = alanine
    with jax.enable_x64(True):
        xyz = jnp.asarray(np.round(structure.xyz.astype(np.float64), 3))
        value, ours = jax.jit(solvent.energy_and_forces)(xyz, solvent.parameters(fragment(structure)))
    np.testing.assert_allclose(float(value) / KJ_MOL, ENERGY, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(ours) / KCAL_MOL, forces, atol=1e-4)


@pytest.mark.parametrize("name", ["chignolin", "trpcage"])
def test_proteins_by_another_program(name, example):
    openmm = pytest.importorskip("openmm")
    from openmm import app, unit

    structure = read_structure(example(name))
    file = app.PDBFile(os.fspath(example(name)))
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    system = field.createSystem(file.topology)
    for force in system.getForces():
        force.setForceGroup(int(isinstance(force, openmm.CustomGBForce)))
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(file.positions)
    state = context.getState(getEnergy=True, getForces=True, groups={1})
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilocalorie_per_mole / unit.angstrom)
    with jax.enable_x64(True):
        xyz = jnp.asarray(np.round(structure.xyz.astype(np.float64), 3))
        value, ours = jax.jit(solvent.energy_and_forces)(xyz, solvent.parameters(fragment(structure)))
    np.testing.assert_allclose(float(value) / KJ_MOL, energy, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(ours) / KCAL_MOL, forces, atol=1e-4)


def test_an_ion_alone_has_borns_energy():
    with jax.enable_x64(True):
        parameters = solvent.Solvent(np.array([1.0]), np.array([2.0]), np.array([0.8]))
        born = solvent.born_radii(jnp.zeros((1, 3)), parameters)
        np.testing.assert_allclose(born, 2.0 - 0.09)
        surface = solvent.SURFACE_TENSION * 3.4**2 * (2 / 1.91) ** 6
        value = solvent.energy(jnp.zeros((1, 3)), parameters)
        np.testing.assert_allclose(value - surface, -0.5 * 14.3996454 * (1 - 1 / 78.5) / 1.91, rtol=1e-7)


def test_inner_atoms_have_larger_radii(trpcage):
    made = fragment(trpcage)
    born = np.asarray(jax.jit(solvent.born_radii)(jnp.asarray(trpcage.xyz), solvent.parameters(made)))
    assert (born >= made.born_radius - 0.0901).all()
    xyz = trpcage.xyz.astype(np.float64)
    crowd = (np.linalg.norm(xyz[:, None] - xyz[None], axis=-1) < 8).sum(1)
    carbon = made.z == 6
    assert np.corrcoef(born[carbon], crowd[carbon])[0, 1] > 0.7


def test_radii_of_hydrogens_depend_on_what_holds_them(chignolin, edit):
    made = fragment(chignolin)
    assert made.born_radius[edit.atom(chignolin, 3, "H")] == made.born_radius[edit.atom(chignolin, 10, "HE1")] == 1.3
    assert made.born_radius[edit.atom(chignolin, 3, "HA")] == made.born_radius[edit.atom(chignolin, 3, "HH")] == 1.2


@pytest.mark.slow
def test_pair_term_is_smooth_where_it_branches():
    inner, reach = 1.61, 0.95  # the sphere of the neighbour comes to overlap, then lies half inside
    with jax.enable_x64(True):
        for branch in (inner - reach, inner + reach):
            around = branch + jnp.array([-1e-6, 1e-6])
            value = solvent._descreening(around, inner, reach)
            slope = jax.vmap(jax.grad(solvent._descreening), (0, None, None))(around, inner, reach)
            np.testing.assert_allclose(value[0], value[1], atol=1e-6)
            np.testing.assert_allclose(slope[0], slope[1], atol=1e-5)
        distances = jnp.linspace(0.7, 12, 300)
        by_hand = solvent._descreening_slope(distances, inner, reach)
        slope = jax.vmap(jax.grad(solvent._descreening), (0, None, None))(distances, inner, reach)
        np.testing.assert_allclose(by_hand, slope, atol=1e-12)
        small = solvent._descreening(jnp.array([0.5, 1.0]), 1.61, 0.4)
        np.testing.assert_array_equal(small == 0, [True, True])
        assert jnp.isfinite(jax.grad(lambda r: solvent._descreening(r, 1.61, 0.4).sum())(jnp.array([0.5, 1.0]))).all()

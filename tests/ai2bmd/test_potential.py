"""The potential of a protein: published numbers, slopes, symmetries, and its ways of computing."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from jaxprot.ai2bmd import cautions, predict, templates
from jaxprot.ai2bmd.fragment import fragment
from jaxprot.ai2bmd.potential import Potential, PotentialConfig, _springs, restraint
from jaxprot.core.errors import InputError
from jaxprot.core.residues import ELEMENTS, atomic_numbers
from jaxprot.io.structures import read_structure
from jaxprot.md import molecule
from jaxprot.visnet import weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet

SMALL = ViSNetConfig(hidden=8, layers=2, heads=2, rbf=4, max_z=20)


@pytest.fixture(scope="module")
def network():
    net = ViSNet(SMALL, rngs=nnx.Rngs(0))
    net.atomref[...] = jnp.arange(20) * -10.0
    net.mean[...] = jnp.array([0.25])
    return net


@pytest.fixture(scope="module")
def alanine(example):
    """A single unit, which compiles fast."""
    return read_structure(example("alanine"))


@pytest.fixture(scope="module")
def small(network, alanine):
    return Potential(network, alanine, PotentialConfig(solvent="gb"))


@pytest.fixture(scope="module")
def potential(network, chignolin):
    return Potential(network, chignolin, PotentialConfig(solvent="gb"))


@pytest.mark.golden
@pytest.mark.slow
def test_the_published_energy_and_forces_of_chignolin(published, goldens):
    arrays, structure = published
    potential = predict.load(goldens("ai2bmd") / "visnet_a.ckpt").potential(structure, caps="compat")
    found = potential.evaluate()
    for name in ("bonded", "nonbonded"):
        expected = float(arrays[f"{name}_energy"])
        assert found.energies[name] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(found.forces[name], arrays[f"{name}_forces"], atol=1e-5)
    assert found.energy == pytest.approx(float(arrays["total_energy"]), rel=1e-5)
    np.testing.assert_allclose(found.total_forces, arrays["total_forces"], atol=1e-5)


def test_forces_are_the_slope_of_the_energy(small):
    rng = np.random.default_rng(0)
    start = np.asarray(small.structure.xyz, np.float64)
    forces = small.evaluate(start).total_forces
    for _ in range(3):
        direction = rng.normal(size=start.shape)
        direction /= np.linalg.norm(direction)
        step = 2e-3
        change = [small.evaluate(start + sign * step * direction).energy for sign in (1, -1)]
        # The network is float32: its energies, some eV, have 1e-6 eV of noise.
        assert (change[0] - change[1]) / (2 * step) == pytest.approx(-np.sum(forces * direction), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("relax", [None, "published"])
def test_forces_are_the_slope_in_float64(network, chignolin, relax):
    with jax.enable_x64(True):
        potential = Potential(network, chignolin, PotentialConfig(relax=relax))
        leaves = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64) if jnp.asarray(leaf).dtype == jnp.float32 else leaf,
            potential.leaves.network,
        )
        potential._narrow = jnp.float64
        leaves = potential.leaves._replace(network=leaves)
        energy, field = jax.jit(potential.energy), jax.jit(potential.field)
        start = jnp.asarray(chignolin.xyz, jnp.float64)
        forces = np.asarray(field(leaves, start)[1])
        assert forces.dtype == np.float64
        rng, step = np.random.default_rng(1), 1e-4
        for _ in range(4):
            direction = rng.normal(size=start.shape)
            change = [float(energy(leaves, start + sign * step * direction)) for sign in (1, -1)]
            slope = (change[0] - change[1]) / (2 * step)
            assert slope == pytest.approx(-np.sum(forces * direction), abs=1e-5)
        np.testing.assert_allclose(forces.sum(0), 0, atol=1e-9)
        if relax is None:
            np.testing.assert_allclose(np.cross(start, forces).sum(0), 0, atol=1e-8)
            turn = Rotation.random(random_state=4).as_matrix()
            turned = start @ turn.T + 20
            assert float(energy(leaves, turned)) == pytest.approx(float(energy(leaves, start)), abs=1e-9)
            np.testing.assert_allclose(field(leaves, turned)[1], forces @ turn.T, atol=1e-8)


@pytest.mark.slow
def test_no_net_force_or_torque_without_solvent_or_with(potential):
    found = potential.evaluate()
    assert set(found.energies) == {"bonded", "nonbonded", "solvent", "constraints"}
    from_middle = potential.structure.xyz - potential.structure.xyz.mean(0)
    for forces in (found.total_forces, found.total_forces - found.forces["solvent"]):
        assert np.abs(forces.sum(0)).max() < 2e-5
        assert np.abs(np.cross(from_middle, forces).sum(0)).max() < 1e-4


@pytest.mark.slow
def test_published_forces_leave_out_those_on_caps(network, chignolin, potential):
    assert PotentialConfig(caps="compat").relax == "published" and potential.cfg.relax == "none"
    other = Potential(network, chignolin, PotentialConfig(caps="compat", relax="none", solvent="gb"))
    mine, theirs = potential.evaluate(), other.evaluate()
    assert mine.energy == pytest.approx(theirs.energy, abs=1e-6)
    np.testing.assert_allclose(mine.forces["solvent"], theirs.forces["solvent"], atol=1e-6)
    assert np.abs(mine.forces["bonded"] - theirs.forces["bonded"]).max() > 1e-3
    assert np.abs(theirs.total_forces.sum(0)).max() > 1e-3


@pytest.mark.slow
def test_a_molecule_may_be_turned_moved_and_reordered(network, potential, chignolin, edit):
    found = potential.evaluate()
    turn = Rotation.random(random_state=0).as_matrix()
    far = np.asarray(chignolin.xyz, np.float64) @ turn.T + [100.0, -50.0, 30.0]
    moved = potential.evaluate(far)
    assert moved.energy == pytest.approx(found.energy, abs=1e-5)
    np.testing.assert_allclose(moved.total_forces, found.total_forces @ turn.T, atol=1e-4)
    structure, order = edit.permuted(chignolin)
    again = Potential(network, structure, potential.cfg).evaluate()
    assert again.energy == pytest.approx(found.energy, abs=1e-5)
    np.testing.assert_allclose(again.total_forces, found.total_forces[order], atol=1e-5)


@pytest.mark.slow
def test_units_may_go_through_the_network_a_few_at_a_time(network, chignolin, potential):
    few = Potential(network, chignolin, PotentialConfig(solvent="gb", pairs=1200)).evaluate()
    whole = potential.evaluate()
    assert few.energy == pytest.approx(whole.energy, abs=1e-5)
    np.testing.assert_allclose(few.total_forces, whole.total_forces, atol=1e-5)


def test_references_are_kept_apart(network, small, alanine):
    made = small.fragmentation
    expected = float((made.row_sign * -10.0 * made.row_z).sum()) + 0.25 * made.unit_sign.sum()
    assert small.references == {"bonded": pytest.approx(expected)}
    energy, leaves = small.pure()
    plain = float(jax.jit(energy)(leaves, jnp.asarray(alanine.xyz)))
    assert small.evaluate().energy == pytest.approx(plain + expected, abs=1e-2)


def test_weights_are_not_differentiated_in_silence(small, alanine):
    energy, leaves = small.pure()
    with pytest.raises(Exception, match="custom_jvp|closed-over|Tracer"):
        jax.grad(lambda net: energy(leaves._replace(network=net), jnp.asarray(alanine.xyz)))(leaves.network)


@pytest.mark.slow
def test_a_whole_molecule_needs_no_fragments(network, chignolin):
    whole = Potential(network, chignolin, PotentialConfig(mode="whole"))
    found = whole.evaluate()
    assert set(found.energies) == {"bonded"} and whole.fragmentation is None
    assert whole.leaves.tables is not None  # 175 atoms: a table of neighbours
    dense = Potential(network, chignolin, PotentialConfig(mode="whole"))
    dense.leaves = dense.leaves._replace(tables=None)
    other = dense.evaluate()
    assert found.energy == pytest.approx(other.energy, abs=1e-4)
    np.testing.assert_allclose(found.total_forces, other.total_forces, atol=1e-5)
    crowded, held = np.asarray(chignolin.xyz) * 0.6, whole.leaves
    said = whole.overflow(crowded)
    assert "the table of neighbours overflowed: an atom has" in said and whole.overflow(chignolin.xyz) is None
    with jax.enable_x64(True):
        energies, forces = whole._jitted(held, jnp.asarray(crowded, jnp.float64))
    assert np.isnan(energies["bonded"]) and np.isnan(forces["bonded"]).all()
    found, other = whole.evaluate(crowded), dense.evaluate(crowded)  # with a larger table
    assert len(whole.leaves.tables) > len(held.tables) and whole.overflow(crowded) is None
    assert found.energy == pytest.approx(other.energy, abs=1e-3)
    np.testing.assert_allclose(found.total_forces, other.total_forces, rtol=1e-4, atol=1e-3)


def test_a_full_table_is_told_where_it_stops_a_minimisation(network, alanine, monkeypatch, tmp_path):
    from jaxprot.ai2bmd import potential
    from jaxprot.md.simulate import SimulationConfig

    monkeypatch.setattr(potential, "_DENSE", 10)
    wide = dataclasses.replace(alanine, xyz=alanine.xyz * np.float32(3))
    made = Potential(network, wide, PotentialConfig(mode="whole"))
    made.structure = alanine
    with pytest.raises(
        InputError, match="minimisation, 0 steps: the table of neighbours overflowed: an atom has 22 with"
    ):
        predict.simulate(made, SimulationConfig(steps=0), tmp_path, downhill=5)
    with pytest.raises(InputError, match="-5 steps of minimisation"):
        predict.simulate(made, SimulationConfig(steps=0), tmp_path, downhill=-5)


def test_a_whole_molecule_with_atoms_in_one_place_is_refused(network, alanine):
    xyz = alanine.xyz.copy()
    xyz[5] = xyz[4]
    for at, message in ((xyz, "0.00 Å apart"), (np.where(xyz == xyz[3], np.nan, xyz), "coordinates are no numbers")):
        with pytest.raises(InputError, match=message):
            Potential(network, dataclasses.replace(alanine, xyz=at), PotentialConfig(mode="whole"))


def alone(structure, made, unit):
    """A unit as a molecule of its own, its caps hydrogens of ACE and NME; the source of each of its atoms."""
    at = slice(*made.unit_start[unit : unit + 2])
    template = templates.stretches((tuple(str(made.unit_name[unit]).split("-")),))
    starts = np.flatnonzero(np.array(template.atoms) == "N")  # ACE has none
    row = np.searchsorted(starts, np.arange(len(template.z)), side="right")
    xyz = cautions.capped_positions(made, structure.xyz)[unit].astype(np.float32)
    n, kinds = len(xyz), ["ACE", *template.name.split("-"), "NME"]
    base = structure.select(np.arange(structure.n_atoms) < n)
    fields = {field: getattr(base, field)[:1].repeat(n) for field in ("altloc", "occupancy", "bfactor", "model")}
    chains = {field: getattr(base, field)[:1] for field in ("chain_id",)}
    rows = {field: getattr(base, field)[:1].repeat(len(kinds)) for field in ("icode", "res_chain", "hetero")}
    lone = dataclasses.replace(
        base, xyz=xyz, atom_name=np.array(template.atoms), element=np.array([ELEMENTS[z] for z in template.z]),
        serial=np.arange(n) + 1, atom_residue=row, resid=np.arange(len(kinds)) + 1, res_name=np.array(kinds),
        **fields, **chains, **rows,
    )  # fmt: skip
    return lone, made.row_source[at]


def test_near_cysteines_and_all_between_have_the_energy_of_one_molecule(network, trpcage, edit):
    structure = edit.bridged(trpcage, 3, 6)
    made = fragment(structure)
    (unit,) = np.flatnonzero(made.unit_name == "CYX-ALA-GLN-CYX")
    lone, _ = alone(structure, made, unit)
    piece = Potential(network, lone)
    assert piece.fragmentation.n_units == 1 and not len(piece.fragmentation.cap_parent)
    assert not len(nonbonded_pairs(piece.fragmentation))
    whole = Potential(network, lone, PotentialConfig(mode="whole"))
    one, other = piece.evaluate(), whole.evaluate()
    assert one.energies["bonded"] == pytest.approx(other.energy, abs=1e-5) and one.energies["nonbonded"] == 0
    np.testing.assert_allclose(one.forces["bonded"], other.total_forces, atol=1e-5)


def nonbonded_pairs(made):
    """Pairs of atoms that no unit holds together."""
    inside = {tuple(pair) for pair in made.excluded_pairs().tolist()}
    return [pair for pair in zip(*np.triu_indices(made.n_atoms, 1), strict=True) if pair not in inside]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "relax"), [((3, 6), "none"), ((5, 9), "published")], ids=str)
def test_no_net_force_with_near_cysteines(network, trpcage, edit, rows, relax):
    structure = edit.bridged(trpcage, *rows)
    found = Potential(network, structure, PotentialConfig(relax=relax)).evaluate()
    for forces in found.forces.values():
        assert np.abs(forces.sum(0)).max() < 2e-5 * max(1, np.abs(forces).max())


def test_a_calculator_of_ase(network, alanine, tmp_path):
    pytest.importorskip("ase")
    import ase

    from jaxprot.ai2bmd import Calculator

    path = tmp_path / "w.safetensors"
    weights.save(path, SMALL, weights.tensors_of(network))
    calculator = Calculator(alanine, path)
    z = calculator.potential.z
    atoms = ase.Atoms(numbers=z, positions=alanine.xyz)
    atoms.calc = calculator
    expected = calculator.potential.evaluate()
    assert atoms.get_potential_energy() == pytest.approx(expected.energy)
    np.testing.assert_allclose(atoms.get_forces(), expected.total_forces, atol=1e-6)
    other = ase.Atoms(numbers=z[::-1], positions=alanine.xyz)
    other.calc = calculator
    with pytest.raises(InputError, match="order"):
        other.get_potential_energy()


def test_energies_are_written(small, tmp_path):
    found = small.evaluate()
    assert predict.write(found, small, tmp_path) == ["energy.json", "forces.npz"]
    told = json.loads((tmp_path / "energy.json").read_text())
    assert told["total_ev"] == pytest.approx(found.energy) and told["units"] == 1 and told["charge"] == 0
    with np.load(tmp_path / "forces.npz") as z:
        np.testing.assert_array_equal(z["total"], found.total_forces)
        assert set(z.files) == {"total", "bonded", "nonbonded", "solvent", "constraints"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"caps": "none"}, "caps"), ({"mode": "whole", "solvent": "gb"}, "solvent needs"), ({"bogus": 1}, "bogus")],
)
def test_options_that_make_no_sense(network, alanine, wrong, message):
    with pytest.raises(InputError, match=message):
        predict.Predictor(network).potential(alanine, **wrong)


@pytest.mark.slow
def test_an_energy_for_jax_md(small, alanine):
    from jax_md import minimize, quantity, space

    energy = small.energy_fn()
    xyz = jnp.asarray(alanine.xyz)
    with jax.enable_x64(False):
        forces = jax.jit(quantity.force(energy))(xyz)
        np.testing.assert_allclose(forces, small.evaluate().total_forces, atol=2e-3)
        init, step = minimize.gradient_descent(energy, space.free()[1], 1e-4)
        assert float(energy(step(init(xyz)))) < float(energy(xyz))


def test_positions_that_make_no_sense(small, network, alanine):
    with pytest.raises(InputError, match="expected"):
        small.evaluate(np.zeros((3, 3)))
    with pytest.raises(InputError, match="not finite"):
        small.evaluate(np.full_like(alanine.xyz, np.nan))
    bromine = dataclasses.replace(alanine, element=np.where(np.arange(alanine.n_atoms) == 5, "BR", alanine.element))
    with pytest.raises(InputError, match="knows those below"):
        Potential(network, bromine, PotentialConfig(mode="whole"))


def test_elements_without_an_energy_of_their_own_are_refused(network, chignolin):
    graphdef, state = nnx.split(network)
    table = np.zeros(network.cfg.max_z, np.float32)
    table[[1, 6, 7]] = -1.0
    state = nnx.to_pure_dict(state) | {"atomref": jnp.asarray(table)}
    with pytest.raises(InputError, match="no molecule with O was among those that these weights learnt from"):
        Potential(nnx.merge(graphdef, state), chignolin)


def beside(xyz, z):
    """A shift that brings one hydrogen of a copy 1.22 Å from a heavy atom, and no others closer than 1.5 Å."""
    for heavy in np.flatnonzero(z > 1):
        out = xyz[heavy] - xyz.mean(0)
        out = out / np.linalg.norm(out)
        hydrogen = np.flatnonzero(z == 1)[np.argmin(xyz[z == 1] @ out)]
        shift = xyz[heavy] + 1.22 * out - xyz[hydrogen]
        apart = np.linalg.norm(xyz[:, None] - (xyz + shift), axis=-1)
        apart[heavy, hydrogen] = 9
        if apart.min() > 1.5:
            return shift
    raise AssertionError


def test_bonds_are_those_of_the_residues(network, chignolin, edit):
    z, xyz = atomic_numbers(chignolin.element), np.asarray(chignolin.xyz, np.float64)
    copy = dataclasses.replace(chignolin, xyz=(xyz + beside(xyz, z)).astype(np.float32))
    both = edit.joined(chignolin, copy)
    potential, one = Potential(network, both), molecule.bonds(z, xyz)
    np.testing.assert_array_equal(potential.bonds, np.concatenate([one, one + len(z)]))
    assert len(molecule.bonds(potential.z, both.xyz)) == 2 * len(one) + 1
    assert len(potential.leaves.springs.pairs) == 2 * (z == 1).sum()


def test_springs_act_on_hydrogens_that_leave_and_on_nothing_else(chignolin):
    z = atomic_numbers(chignolin.element)
    springs = _springs(z, fragment(chignolin).covalent)
    hydrogens = np.flatnonzero(z == 1)
    assert sorted(springs.pairs[z[springs.pairs] == 1]) == sorted(hydrogens)
    at = jnp.asarray(chignolin.xyz)
    assert float(restraint(at, springs)) == 0
    row = int(np.flatnonzero(chignolin.atom_name == "HG1")[0])
    pair, reach = next((p, r) for p, r in zip(springs.pairs, springs.reach, strict=True) if row in p)
    heavy = int(pair[pair != row][0])
    assert chignolin.atom_name[heavy] == "OG1" and reach == pytest.approx(0.31 + 0.66 + 0.2)
    along = chignolin.xyz[row] - chignolin.xyz[heavy]
    far = at.at[row].set(at[heavy] + along / np.linalg.norm(along) * (reach + 0.3))
    assert float(restraint(far, springs)) == pytest.approx(0.5 * 15 * 0.3**2, rel=1e-4)
    pull = -np.asarray(jax.grad(restraint)(far, springs))
    assert np.linalg.norm(pull[row]) == pytest.approx(15 * 0.3, rel=1e-4) and np.count_nonzero(pull.any(1)) == 2
    np.testing.assert_allclose(pull[row], -pull[heavy], atol=1e-6)

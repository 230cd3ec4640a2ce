"""Cap hydrogens, the units' parameters, and energies and forces of the protein."""

import dataclasses
import itertools
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.ai2bmd import caps, templates
from jaxprot.ai2bmd.fragment import fragment

UNITS = "ALA ARG ASN ASP CYS CYX GLN GLU GLY HID HIE ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()


sources = jax.jit(caps.sources, static_argnames=("mode", "how"))
bonded = jax.jit(caps.bonded, static_argnames=("energy", "caps", "relax"))
strain, strain_gradient = jax.jit(caps.strain), jax.jit(caps.strain_gradient)


@pytest.fixture(scope="module")
def stored_units(goldens):
    with np.load(goldens("ai2bmd") / "unit_params.npz") as arrays:
        return {key: arrays[key] for key in arrays}


@pytest.mark.golden
@pytest.mark.parametrize("name", UNITS)
def test_parameters_of_the_published_units(stored_units, name):
    unit = templates.units()[name]
    stored = {key.split("/")[1]: value for key, value in stored_units.items() if key.startswith(f"{name}/")}
    np.testing.assert_array_equal(unit.atoms, stored["atom_name"])
    np.testing.assert_array_equal(unit.z, stored["z"])
    np.testing.assert_allclose(unit.charge * 18.2223, stored["charge_amber"], atol=1e-7)
    depth = np.sqrt(unit.unit_epsilon[:, None] * unit.unit_epsilon[None])
    reach = ((unit.unit_sigma[:, None] + unit.unit_sigma[None]) / 2 * 2 ** (1 / 6)) ** 6
    np.testing.assert_allclose(depth * reach**2, stored["lj_A"], rtol=1e-7)
    np.testing.assert_allclose(2 * depth * reach, stored["lj_B"], rtol=1e-7)
    near = {tuple(pair) for pair in np.argwhere(np.triu(unit.near, 1)).tolist()}
    assert near == {tuple(sorted(pair)) for pair in stored["excluded_pairs"].tolist()}

    hydrogen = (unit.z[unit.bonds] == 1).any(1)
    for places, ours, key, columns in (
        (unit.bonds[hydrogen], (unit.bond_k[hydrogen], unit.bond_length[hydrogen]), "bonds_h", ("k", "eq")),
        (unit.angles, (unit.angle_k, unit.angle_theta), "angles_h", ("k", "eq")),
        (
            unit.dihedrals,
            (unit.dihedral_k, unit.dihedral_n, unit.dihedral_phase),
            "dihedrals_h",
            ("k", "n", "phase"),
        ),
    ):
        ours = _by_place(places, ours)
        theirs = _by_place(stored[key], [stored[f"{key}_{column}"] for column in columns])
        if key == "dihedrals_h":
            theirs = {place: values for place, values in theirs.items() if values[0] != 0}
            # Where the first term of the published tables has no strength, ours is the next; caps are in none of these.
            for place in set(ours) - set(theirs):
                assert "NME" not in _residues(unit, place) and "ACE" not in _residues(unit, place)
            ours = {place: values for place, values in ours.items() if place in theirs}
        assert set(ours) == set(theirs)
        for place, values in ours.items():
            np.testing.assert_allclose(values, theirs[place], rtol=1e-5, atol=1e-5)


def _by_place(places, columns):
    ordered = [tuple(place if place[0] < place[-1] else place[::-1]) for place in np.asarray(places).tolist()]
    return dict(zip(ordered, zip(*columns, strict=True), strict=True))


def _residues(unit, place):
    half = [(set(range(6)), "ACE"), (set(range(len(unit.z) - 6, len(unit.z))), "NME")]
    return {
        name
        for members, name in half
        if any(unit.z[i] == 1 and i in members for i in place)
    }  # fmt: skip


def test_forms_beyond_the_published_units():
    forms = {"HIP": (1, "HIE", 1), "ASH": (0, "ASP", 1), "GLH": (0, "GLU", 1), "LYN": (0, "LYS", -1)}
    for name, (charge, parent, more) in forms.items():
        unit, other = templates.units()[name], templates.units()[parent]
        assert templates.charge(name) == charge and len(unit.z) - len(other.z) == more
        np.testing.assert_allclose(unit.charge.sum(), charge, atol=1e-3)
        # Where caps are, bonds, angles and dihedrals are those of any unit.
        np.testing.assert_array_equal(unit.bond_k[:5], other.bond_k[:5])
        np.testing.assert_array_equal(unit.unit_sigma[:6], other.unit_sigma[:6])


@pytest.mark.golden
def test_caps_of_the_published_program(published):
    stored, structure = published
    made = fragment(structure)
    tables = caps.tables(made)
    rows = np.concatenate([np.flatnonzero(made.row_unit == unit) for unit in np.flatnonzero(made.unit_sign > 0)])
    with jax.enable_x64(True):
        xyz = jnp.asarray(stored["pos"])
        placed = sources(xyz, tables.caps, how="none")
        relaxed = sources(xyz, tables.caps, mode="compat")
        np.testing.assert_allclose(placed[made.row_source[rows]], stored["dipeptide_pos_before_opt"], atol=5e-6)
        np.testing.assert_allclose(relaxed[made.row_source[rows]], stored["dipeptide_pos_after_opt"], atol=5e-6)
        np.testing.assert_allclose(relaxed[made.row_source], stored["frag_pos"], atol=5e-6)
        at = placed[len(xyz) :]
        np.testing.assert_allclose(strain(at, xyz, tables.caps), -30.32, atol=0.01)
        np.testing.assert_allclose(jnp.abs(strain_gradient(at, xyz, tables.caps)).sum(), 433.85, atol=0.01)
        assert caps.one_step(xyz, tables.caps)
    single = sources(jnp.asarray(stored["pos"], jnp.float32), tables.caps, how="published")
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single[made.row_source], stored["frag_pos"], atol=1e-5)


@pytest.mark.golden
def test_forces_of_the_published_program(published):
    stored, structure = published
    made = fragment(structure)
    tables = caps.tables(made)
    # A linear energy with the stored forces, told by which bucket is asked for.
    slopes = iter([np.where(b.mask[..., None], stored["frag_forces"][b.row], 0) for b in tables.buckets])
    values = iter([stored["frag_energy"][b.unit, 0] for b in tables.buckets])

    def energy(z, positions, mask):
        return next(values) - ((positions - jax.lax.stop_gradient(positions)) * next(slopes)).sum((1, 2))

    total, forces = caps.bonded(jnp.asarray(stored["pos"], jnp.float32), tables, energy, caps="compat")
    np.testing.assert_allclose(total, stored["bonded_energy"], rtol=1e-6)
    np.testing.assert_allclose(forces, stored["bonded_forces"], atol=1e-5)
    np.testing.assert_allclose(forces + stored["nonbonded_forces"], stored["total_forces"], atol=1e-5)


@pytest.fixture(scope="module")
def small(chignolin, edit):
    """Chignolin's first three residues between its caps; some caps, some terms of every kind."""
    return shortened(chignolin, edit, 5)


def shortened(chignolin, edit, resid):
    """Residues before a number, and the cap at the end in that one's place."""
    short = edit.chopped(chignolin, resid, 11)
    shift = chignolin.xyz[edit.atom(chignolin, resid, "N")] - chignolin.xyz[edit.atom(chignolin, 12, "N")]
    cap = short.resid[short.atom_residue] == 12
    return edit.replace(short, "xyz", cap, short.xyz[cap] + shift)


def smooth_energy(z, positions, mask):
    """Any energy that depends on everything: of all pairs, smooth."""
    weight = jnp.where(mask, z + 0.5, 0).astype(positions.dtype)
    square = ((positions[:, :, None] - positions[:, None]) ** 2).sum(-1)
    return (weight[:, :, None] * weight[:, None] * jnp.exp(-0.1 * square)).sum((1, 2)) / 100


def of_sources(everything, buckets):
    """The protein's energy from the positions of atoms and caps."""
    positions = caps.unit_positions(everything, buckets)
    return sum((b.sign * smooth_energy(b.z, p, b.mask)).sum() for b, p in zip(buckets, positions, strict=True))


@pytest.mark.parametrize(
    "how", [pytest.param("published", marks=pytest.mark.slow), "none", pytest.param("minimise", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("which", ["few", "many"])
def test_consistent_forces_are_the_slope_of_the_energy(small, chignolin, which, how):
    structure = {"few": small, "many": chignolin}[which]
    tables = caps.tables(fragment(structure))
    assert (len(tables.caps.parent) < caps.FEW) == (which == "few")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        xyz = jnp.asarray(structure.xyz, jnp.float64)
        ahead = jnp.asarray(rng.normal(size=xyz.shape))
        value = jax.jit(lambda x, t: caps.bonded_energy(x, t, smooth_energy, relax=how))
        _, forces = jax.jit(lambda x, t: caps.bonded(x, t, smooth_energy, relax=how))(xyz, tables)
        step = 1e-4
        slope = (value(xyz + step * ahead, tables) - value(xyz - step * ahead, tables)) / (2 * step)
        np.testing.assert_allclose(-(forces * ahead).sum(), slope, rtol=1e-6)
        # An internal energy moves neither the centre nor the whole round it, but the length of the published step is a
        # sum over axes, which is not the same in every direction.
        exact = {"none": 1e-10, "published": 1e-10, "minimise": 1e-7}[how]
        np.testing.assert_allclose(forces.sum(0), 0, atol=exact)
        if how != "published":
            np.testing.assert_allclose(jnp.cross(xyz, forces).sum(0), 0, atol=100 * exact)


def test_a_protein_may_be_turned(chignolin):
    from scipy.spatial.transform import Rotation

    tables, turn = caps.tables(fragment(chignolin)), Rotation.random(random_state=3).as_matrix()
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        energy, forces = bonded(xyz, tables, smooth_energy)
        turned, other = bonded(xyz @ turn.T, tables, smooth_energy)
        np.testing.assert_allclose(turned, energy, rtol=1e-13)
        np.testing.assert_allclose(other, forces @ turn.T, atol=1e-10)
        # What the usual relaxation leaves out: the length of the published step is a sum over axes.
        moved = sources(xyz, tables.caps, mode="compat") @ turn.T
        assert 1e-6 < jnp.abs(sources(xyz @ turn.T, tables.caps, mode="compat") - moved).max() < 1e-3


def test_molecules_far_apart_are_the_sum_of_both(chignolin, edit):
    away = dataclasses.replace(chignolin, xyz=chignolin.xyz + np.float32(500))
    both = edit.joined(chignolin, away)
    with jax.enable_x64(True):
        energies = [
            float(bonded(jnp.asarray(one.xyz, jnp.float64), caps.tables(fragment(one)), smooth_energy)[0])
            for one in (chignolin, both)
        ]
    assert energies[1] == pytest.approx(2 * energies[0], rel=1e-6)  # coordinates are float32 ones


def test_compat_drops_the_forces_on_caps(chignolin):
    tables = caps.tables(fragment(chignolin))
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        one, dropped = bonded(xyz, tables, smooth_energy, caps="compat", relax="none")
        two, whole = bonded(xyz, tables, smooth_energy, relax="none")
        np.testing.assert_allclose(one, two, rtol=1e-14)
        assert jnp.abs(dropped - whole).max() > 1e-3 and jnp.abs(dropped.sum(0)).max() > 1e-3
        everything = sources(xyz, tables.caps, how="none")
        by_source = jax.jit(jax.grad(of_sources))(everything, tables.buckets)
        np.testing.assert_allclose(dropped, -by_source[: len(xyz)], atol=1e-10)


def test_order_of_atoms_permutes_forces(chignolin, edit):
    mixed, order = edit.permuted(chignolin)
    with jax.enable_x64(True):
        results = []
        for structure in (chignolin, mixed):
            xyz = jnp.asarray(structure.xyz, jnp.float64)
            tables = caps.tables(fragment(structure))
            results.append(bonded(xyz, tables, smooth_energy, relax="none"))
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12)
        np.testing.assert_allclose(results[0][1][order], results[1][1], atol=1e-10)


def test_packing_does_not_matter(two_chains):
    made = fragment(two_chains)
    everything = sources(jnp.asarray(two_chains.xyz), caps.tables(made).caps, how="none")
    values = []
    for options in ({}, {"multiple": 16}, {"multiple": 1}, {"sizes": (12, 44)}):
        tables = caps.tables(made, **options)
        assert sorted(itertools.chain(*(b.unit.tolist() for b in tables.buckets))) == list(range(made.n_units))
        assert sum(b.mask.sum() for b in tables.buckets) == len(made.row_z)
        for bucket in tables.buckets:
            np.testing.assert_array_equal(bucket.z[bucket.mask], made.row_z[bucket.row[bucket.mask]])
            assert (bucket.z[~bucket.mask] == 0).all()
        values.append(jax.jit(of_sources)(everything, tables.buckets))
    np.testing.assert_allclose(values, values[0], rtol=1e-5)
    assert [b.z.shape[1] for b in caps.tables(made, sizes=(12, 44)).buckets] == [12, 44]
    with pytest.raises(ValueError, match="a unit has 44 atoms, the largest size is 36"):
        caps.tables(made, sizes=(12, 36))


@pytest.mark.slow
def test_relaxation_lowers_the_strain(chignolin):
    tables = caps.tables(fragment(chignolin)).caps
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        values, slopes = {}, {}
        for how in ("none", "published", "minimise"):
            at = sources(xyz, tables, how=how)[len(xyz) :]
            values[how] = float(strain(at, xyz, tables))
            slopes[how] = float(jnp.abs(strain_gradient(at, xyz, tables)).max())
        assert values["minimise"] < values["published"] < values["none"]
        assert slopes["minimise"] < 1e-6 < slopes["published"]


def test_slope_of_the_strain(small):
    tables = caps.tables(fragment(small)).caps
    with jax.enable_x64(True):
        xyz = jnp.asarray(small.xyz, jnp.float64)
        placed = caps.place(xyz, tables)
        np.testing.assert_allclose(
            strain_gradient(placed, xyz, tables), jax.jit(jax.grad(caps.strain))(placed, xyz, tables), atol=1e-10
        )
        np.testing.assert_allclose(jnp.linalg.norm(placed - xyz[tables.parent], axis=1), tables.length, atol=1e-12)


def test_all_iterations_of_the_optimiser_agree_with_its_first_where_that_is_its_last(chignolin):
    tables = caps.tables(fragment(chignolin)).caps
    with jax.enable_x64(True):
        xyz = jnp.asarray(chignolin.xyz, jnp.float64)
        placed = caps.place(xyz, tables)
        moved = sources(xyz, tables, how="published")[len(xyz) :] - placed
        np.testing.assert_allclose(jnp.abs(moved).sum(), caps.STEP, rtol=1e-12)
        np.testing.assert_allclose(jax.jit(caps._lbfgs)(placed, xyz, tables) - placed, moved, atol=1e-12)


@pytest.mark.slow
def test_optimiser_against_a_plain_one(chignolin, edit):
    structure = shortened(chignolin, edit, 4)
    tables = caps.tables(fragment(structure)).caps
    with jax.enable_x64(True):
        xyz = jnp.asarray(structure.xyz + np.random.default_rng(1).normal(0, 0.1, structure.xyz.shape))
        placed = caps.place(xyz, tables)
        assert not caps.one_step(xyz, tables)
        value = jax.jit(lambda x: caps.strain(x.reshape(-1, 3), xyz, tables))
        slope = jax.jit(lambda x: caps.strain_gradient(x.reshape(-1, 3), xyz, tables).reshape(-1))
        expected, iterations = plain_lbfgs(np.asarray(placed).reshape(-1), value, slope)
        assert iterations > 3
        np.testing.assert_allclose(sources(xyz, tables, how="published")[len(xyz) :].reshape(-1), expected, atol=1e-10)


def plain_lbfgs(x, value, slope):
    """PyTorch's L-BFGS as its documentation describes it, with lists."""
    moves, changes, loss, g, t, scale = [], [], value(x), np.asarray(slope(x)), 0.0, 1.0
    before = d = None
    for i in range(10):
        if i == 0:
            d, t = -g, 0.1 * min(1.0, 1 / np.abs(g).sum())
        else:
            y, s = g - before, d * t
            if y @ s > 1e-10:
                moves.append(s)
                changes.append(y)
                scale = (y @ s) / (y @ y)
            q, alphas = -g, []
            for s, y in zip(moves[::-1], changes[::-1], strict=True):
                alphas.append((s @ q) / (y @ s))
                q = q - alphas[-1] * y
            d = q * scale
            for s, y, alpha in zip(moves, changes, alphas[::-1], strict=True):
                d = d + s * (alpha - (y @ d) / (y @ s))
            t = 0.1
        before = g
        if g @ d > -0.01:
            break
        x = x + t * d
        old, loss, g = loss, value(x), np.asarray(slope(x))
        if np.abs(g).max() <= 0.1 or np.abs(t * d).max() <= 0.01 or abs(loss - old) < 0.01:
            break
    return x, i + 1


def test_no_caps_is_fine(chignolin, edit):
    short = shortened(chignolin, edit, 3)
    tables = caps.tables(fragment(short))
    xyz = jnp.asarray(short.xyz)
    for how in ("published", "minimise"):
        np.testing.assert_array_equal(caps.sources(xyz, tables.caps, how=how), xyz)
    assert caps.strain(caps.place(xyz, tables.caps), xyz, tables.caps) == 0 and caps.one_step(xyz, tables.caps)
    _, forces = caps.bonded(xyz, tables, smooth_energy)
    assert forces.shape == xyz.shape and jnp.isfinite(forces).all()


def test_unknown_options(chignolin):
    tables = caps.tables(fragment(chignolin))
    xyz = jnp.asarray(chignolin.xyz)
    with pytest.raises(ValueError, match="take published, none or minimise"):
        caps.bonded_energy(xyz, tables, smooth_energy, relax="lbfgs")
    with pytest.raises(ValueError, match="take consistent or compat"):
        caps.bonded_energy(xyz, tables, smooth_energy, caps="dropped")


def test_shipped_parameters_are_those_of_the_installed_force_field(root):
    pytest.importorskip("openmm")
    derived = runpy.run_path(str(root / "scripts" / "prepare_amber.py"))["derive"]()
    with np.load(root / "jaxprot" / "ai2bmd" / "parameters.npz") as shipped:
        assert set(shipped) == set(derived)
        for key, values in derived.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(shipped[key], values, rtol=1e-12)
            else:
                np.testing.assert_array_equal(shipped[key], values)

"""RMSF of ensembles and trajectories."""

import csv
import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.io.trajectories import Trajectory, read_trajectory
from jaxprot.ops import rigid
from jaxprot.rmsfnet import targets


@pytest.fixture
def structure(example):
    return read_structure(example("trpcage"))


@pytest.fixture
def trajectory(structure):
    """Every atom with a spread of its own, and every frame turned and moved."""
    rng = np.random.default_rng(0)
    spread = np.linspace(0.1, 0.8, structure.n_atoms)
    frames = structure.xyz[None] + rng.normal(size=(200, structure.n_atoms, 3)) * spread[None, :, None] / np.sqrt(3)
    turned = [frame @ r.as_matrix().T + rng.normal(size=3) * 50 for frame, r in
              zip(frames, Rotation.random(200, rng=rng), strict=True)]  # fmt: skip
    return Trajectory(structure, np.array(turned, np.float32)), spread


def test_ubiquitin_ensemble(shared):
    folder = shared / "data" / "flexibility"
    with open(folder / "2k39_ca_rmsf.csv", newline="") as file:
        expected = np.array([float(row["rmsf_A"]) for row in csv.DictReader(file)])
    ensemble = read_trajectory(folder / "2k39_ca_ensemble.pdb")
    assert ensemble.n_frames == 116
    core = (ensemble.structure.resid <= 70)[ensemble.structure.atom_residue]
    np.testing.assert_allclose(targets.atom_rmsf(ensemble, core), expected, atol=2e-5)
    by_residue = targets.residue_rmsf(ensemble.structure, targets.atom_rmsf(ensemble, core))
    np.testing.assert_allclose(by_residue, expected, atol=2e-5)


@pytest.mark.parametrize("fit", ["heavy", "ca"])
def test_finds_the_spread_behind_any_motion_of_the_whole(trajectory, fit):
    trajectory, spread = trajectory
    found = targets.atom_rmsf(trajectory, fit)
    assert found.dtype == np.float32
    assert np.abs(found / spread - 1).mean() < (0.08 if fit == "heavy" else 0.35)


def test_equals_the_function_of_ops(trajectory):
    trajectory, _ = trajectory
    mask = targets.fit_mask(trajectory.structure, "heavy")
    expected = rigid.rmsf(trajectory.frames, weights=mask.astype(np.float32))
    np.testing.assert_allclose(targets.atom_rmsf(trajectory, rounds=3), expected, atol=2e-3)


def test_far_from_the_origin(trajectory):
    trajectory, _ = trajectory
    moved = dataclasses.replace(trajectory, frames=trajectory.frames + np.float32(512))
    np.testing.assert_allclose(targets.atom_rmsf(moved), targets.atom_rmsf(trajectory), atol=5e-4)


def test_residues(structure):
    values = np.arange(structure.n_atoms, dtype=float)
    values[structure.atom_residue == 2] = np.nan
    ca = targets.residue_rmsf(structure, values)
    heavy = targets.residue_rmsf(structure, values, "heavy")
    assert np.isnan(ca[2]) and np.isnan(heavy[2]) and np.isnan(ca).sum() == 3  # and the caps
    rows = (structure.atom_residue == 5) & (structure.element != "H")
    np.testing.assert_allclose(heavy[5], values[rows].mean())
    np.testing.assert_allclose(ca[5], values[rows & (structure.atom_name == "CA")])


def test_refuses(trajectory):
    trajectory, _ = trajectory
    structure, frames = trajectory.structure, trajectory.frames
    with pytest.raises(InputError, match="at least 2"):
        targets.atom_rmsf(Trajectory(structure, frames[:1]))
    with pytest.raises(InputError, match="2 atoms to superpose"):
        targets.atom_rmsf(trajectory, np.arange(structure.n_atoms) < 2)
    with pytest.raises(InputError, match="choose 'heavy', 'ca'"):
        targets.atom_rmsf(trajectory, "all")
    with pytest.raises(InputError, match="a mask of shape"):
        targets.atom_rmsf(trajectory, np.ones(3, bool))
    torn = frames.copy()
    torn[7, structure.atom_residue >= 10] += 60
    with pytest.raises(InputError, match=r"chain '' is torn apart after residue 10 in frame 8; make molecules whole"):
        targets.atom_rmsf(Trajectory(structure, torn))


def renumbered(structure, by):
    return dataclasses.replace(structure, resid=structure.resid + np.int32(by))


@pytest.fixture
def motion(structure):
    """Some frames whose spread grows along the atoms."""
    rng = np.random.default_rng(1)
    spread = np.linspace(0.1, 0.8, structure.n_atoms)[:, None]
    return Trajectory(structure, (structure.xyz + spread * rng.normal(size=(8, structure.n_atoms, 3))).astype("f4"))


def test_a_model_takes_its_atoms_values(structure, motion, caplog):
    """From a simulation with hydrogens, other chain names, other names of residues and of the last oxygens."""
    heavy = structure.element != "H"
    model = dataclasses.replace(structure.select(heavy), chain_id=np.array(["Q"], "U8"))
    simulated = dataclasses.replace(
        structure,
        res_name=np.where(structure.res_name == "LYS", "LYN", structure.res_name),
        atom_name=np.where(
            (structure.atom_name == "O") & (structure.resid == 20)[structure.atom_residue], "OT1", structure.atom_name
        ),
    )
    found = targets.on_structure(model, Trajectory(simulated, motion.frames))
    expected = targets.atom_rmsf(motion)[heavy]
    protein = (model.letters != "X")[model.atom_residue]
    np.testing.assert_allclose(found[protein], expected[protein], rtol=1e-6)
    assert np.isnan(found[~protein]).all() and not caplog.records  # caps are matched by chain


def test_another_numbering_is_refused(structure, motion):
    for by in (-10, 3, 10):
        shifted = Trajectory(renumbered(structure, by), motion.frames)
        with pytest.raises(
            InputError, match=r"trpcage: \d+ of \d+ residues are of another type in trpcage, the first at"
        ):
            targets.on_structure(structure, shifted)
    with pytest.raises(InputError, match="no atom in common with trpcage; are chains and numbers the same"):
        targets.on_structure(structure, Trajectory(renumbered(structure, 100), motion.frames))


def test_a_mutation_is_told(structure, motion, caplog):
    at = int(np.flatnonzero(structure.letters != "X")[4])
    name = structure.res_name.copy()
    name[at] = "ALA"
    found = targets.on_structure(dataclasses.replace(structure, res_name=name), motion)
    assert np.isfinite(found).all()
    assert (
        f"1 of 20 residues are of another type in trpcage, the first at :{structure.resid[at]} (A here" in caplog.text
    )


def test_parts_of_a_model(structure, motion, caplog):
    def upto(last):
        return motion.select((structure.resid <= last)[structure.atom_residue])

    found = targets.on_structure(structure, upto(15))
    assert "trpcage: 14 of 20 protein residues have a value in trpcage" in caplog.text
    np.testing.assert_array_equal(np.isnan(found), (structure.resid > 15)[structure.atom_residue])
    with pytest.raises(InputError, match="9 of 20 protein residues have a value in trpcage, less than 50%"):
        targets.on_structure(structure, upto(10))


def test_waters_that_carry_numbers_of_residues(structure, motion):
    """As in files of simulations without chain names."""
    water = structure.select((structure.resid == 7)[structure.atom_residue] & (structure.atom_name == "O"))
    water = dataclasses.replace(water, res_name=np.array(["SOL"], "U5"))
    both = {
        field.name: np.concatenate([getattr(structure, field.name), getattr(water, field.name)])
        for field in dataclasses.fields(structure)
        if field.name not in ("name", "chain_id", "atom_residue")
    }
    row = np.append(structure.atom_residue, structure.n_residues).astype(np.int32)
    wet = dataclasses.replace(structure, **both, atom_residue=row)
    frames = np.concatenate([motion.frames, 50 * np.random.default_rng(0).random((8, 1, 3), np.float32)], 1)
    np.testing.assert_allclose(
        targets.on_structure(structure, Trajectory(wet, frames)), targets.on_structure(structure, motion), rtol=1e-6
    )

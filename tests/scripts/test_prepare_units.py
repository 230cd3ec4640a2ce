"""Capped amino acids: structures, what is drawn, and a short run from names to labelled conformations."""

import runpy

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.geometry import dihedrals


@pytest.fixture(scope="module")
def script(root):
    """The globals of the script, without running it."""
    return runpy.run_path(str(root / "scripts" / "prepare_units.py"))


@pytest.fixture(scope="module")
def programs():
    pytest.importorskip("openmm")
    pytest.importorskip("pdbfixer")
    pytest.importorskip("tblite")


@pytest.fixture(scope="module")
def sampled(script, programs, tmp_path_factory):
    """A folder with one start of alanine."""
    folder = tmp_path_factory.mktemp("units")
    assert script["main"](["--units", "ala", "--starts", "1", "--temperatures", "400", "--output", str(folder)]) == 0
    return folder


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def refused(script, capsys, *arguments):
    """The message of a run that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        script["main"]([*map(str, arguments)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_help_needs_no_data_and_no_jax(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script["main"](["--help"])
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--units", "ala,xyz"], "no unit 'xyz'; there are ala, arg,"),
        (["--units", ","], "no unit"),
        (["--units", "ala", "--starts", "0"], "--starts must be 1 or more"),
        (["--units", "ala", "--temperatures", "300,warm"], "give temperatures in K"),
        (["--units", "ala", "--charge", "1"], "go with --label"),
        (["--label", "absent.npz"], "absent.npz: no such file"),
    ],
)
def test_wrong_options_are_one_message_and_leave_nothing(script, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(script, capsys, *arguments, "--output", "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_program_is_named_and_leaves_nothing(script, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "pyscf", None)
    folder = tmp_path / "out"
    assert "pip install pyscf" in refused(script, capsys, "--units", "ala", "--method", "m062x", "--output", folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "charge", "drawn"), [("ala", 0, 2), ("pro", 0, 2), ("hip", 1, 4), ("lyn", 0, 7), ("thr", 0, 4)]
)
def test_units_are_whole_and_their_torsions_turn(script, programs, name, charge, drawn):
    unit = script["build"](name)
    assert unit.charge == charge == script["usual_charge"](unit.z)
    assert sorted(unit.order) == list(range(len(unit.z)))
    assert unit.residue_name[unit.order][0] == "ACE" and unit.residue_name[unit.order][-1] == "NME"
    assert len(unit.torsions) == drawn
    at = {key: i for i, key in enumerate(zip(unit.residue_name, unit.atom_name, strict=True))}
    own = next(residue for residue in unit.residue_name if residue not in ("ACE", "NME"))
    alpha, *others = (unit.positions[at[own, atom]] for atom in ("CA", "N", "C", "CB"))
    assert np.linalg.det(np.array(others) - alpha) > 0  # L
    for first, second in (("ACE", own), (own, "NME")):
        before, after = ("CH3" if first == "ACE" else "CA"), ("CA" if second == own else "C")
        four = [at[first, before], at[first, "C"], at[second, "N"], at[second, after]]
        assert abs(dihedrals(unit.positions[four])) > 150  # trans

    targets = np.random.default_rng(0).uniform(-180, 180, drawn)
    moved = script["turned"](unit.positions, unit.torsions, targets)
    for torsion, target in zip(unit.torsions, targets, strict=True):
        if torsion.moved:
            off = dihedrals(moved[list(torsion.atoms)]) - target
            np.testing.assert_allclose((off + 180) % 360 - 180, 0, atol=1e-8)
    for i, j in unit.topology.bonds():
        lengths = [np.linalg.norm(xyz[i.index] - xyz[j.index]) for xyz in (unit.positions, moved)]
        assert lengths[0] == pytest.approx(lengths[1], abs=1e-9)
    if name == "pro":
        assert not unit.torsions[0].moved and (unit.torsions[0].low, unit.torsions[0].high) == (-100, -45)


def test_files_are_what_training_reads(sampled):
    from jaxprot.visnet.data import read_snapshots

    path = sampled / "ala_0.npz"
    found, raw = read_snapshots(path), arrays(path)
    assert found.name == "ala" and found.positions.shape == (5, 22, 3)
    np.testing.assert_allclose(found.positions.mean(1), 0, atol=1e-5)
    assert raw["kind"].tolist() == [0, 0, 0, 0, 1] and set(raw["temperature"]) == {400} and raw["charge"] == 0
    assert -900 < found.energy.min() and found.energy.max() < -892  # eV
    # What went down the force has less of it left than any other.
    left = np.sqrt((found.forces**2).mean((1, 2)))
    assert left[4] < 0.7 * left[:4].min()
    assert len(np.unique(found.group)) < 5  # the names of the atoms tell φ and ψ


def test_forces_are_the_slope_of_the_energy(script, sampled):
    raw = arrays(sampled / "ala_0.npz")
    evaluate = script["labeller"]("gfn2", raw["Z"], 0, "ala")
    xyz = raw["R"][1].astype(np.float64)
    energy, forces = evaluate(xyz)
    assert energy == pytest.approx(raw["E"][1], abs=1e-6)
    np.testing.assert_allclose(forces, raw["F"][1], atol=1e-4)
    direction = np.random.default_rng(1).normal(size=xyz.shape)
    direction /= np.linalg.norm(direction)
    step = 2e-3
    slope = (evaluate(xyz + step * direction)[0] - evaluate(xyz - step * direction)[0]) / (2 * step)
    assert slope == pytest.approx(-np.sum(forces * direction), abs=2e-3)


def test_a_run_goes_on_and_repeats_itself(script, sampled, tmp_path, capsys):
    path = sampled / "ala_0.npz"
    before = path.stat().st_mtime_ns
    common = ("--units", "ala", "--starts", "1", "--temperatures", "400", "--output")
    assert script["main"]([*common, str(sampled)]) == 0
    assert "is there already" in capsys.readouterr().err and path.stat().st_mtime_ns == before
    assert "made with other settings (starts)" in refused(
        script, capsys, "--units", "ala", "--starts", 2, "--temperatures", 400, "--output", sampled
    )
    assert script["main"]([*common, str(tmp_path)]) == 0
    np.testing.assert_array_equal(arrays(tmp_path / "ala_0.npz")["R"], arrays(path)["R"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ala_0.npz", "settings.json"]


@pytest.fixture
def picked(sampled, tmp_path):
    """Conformations without labels, the second of which has two atoms on top of each other."""
    raw = arrays(sampled / "ala_0.npz")
    positions = raw["R"][:3].copy()
    positions[1, 1] = positions[1, 0] + [0.3, 0, 0]
    path = tmp_path / "ala_picked.npz"
    np.savez(path, Z=raw["Z"], R=positions, temperature=[1, 2, 3])
    return path, raw


def test_given_conformations_are_labelled(script, picked, tmp_path, capsys):
    path, raw = picked
    folder = tmp_path / "out"
    assert script["main"](["--label", str(path), "--output", str(folder)]) == 0
    assert "2 conformations, 1 left out" in capsys.readouterr().err
    made = arrays(folder / "ala_picked.npz")
    assert made["rows"].tolist() == [0, 2] and made["temperature"].tolist() == [1, 3] and made["charge"] == 0
    np.testing.assert_array_equal(made["R"], raw["R"][[0, 2]])
    np.testing.assert_allclose(made["E"], raw["E"][[0, 2]], atol=1e-6)
    np.testing.assert_allclose(made["F"], raw["F"][[0, 2]], atol=1e-4)
    assert script["main"](["--label", str(path), "--output", str(folder)]) == 0
    assert "is there already" in capsys.readouterr().err
    np.savez(path, Z=raw["Z"], R=raw["R"])
    assert "as it is now" in refused(script, capsys, "--label", path, "--output", folder)


def test_frames_of_a_trajectory_are_labelled(script, sampled, tmp_path):
    formats = pytest.importorskip("mdtraj.formats")
    from openmm import app, unit

    one = script["build"]("ala")
    frames = np.empty((2, 22, 3), np.float32)
    raw = arrays(sampled / "ala_0.npz")
    frames[:, one.order] = raw["R"][:2]
    with open(tmp_path / "ala.pdb", "w") as file:
        app.PDBFile.writeFile(one.topology, one.positions * unit.angstrom, file)
    with formats.DCDTrajectoryFile(str(tmp_path / "ala_run.dcd"), "w") as file:
        file.write(frames)
    folder = tmp_path / "out"
    arguments = ["--label", tmp_path / "ala_run.dcd", "--topology", tmp_path / "ala.pdb", "--output", folder]
    assert script["main"]([*map(str, arguments)]) == 0
    made = arrays(folder / "ala_run.npz")
    np.testing.assert_allclose(made["E"], raw["E"][:2], atol=1e-4)
    assert set(made["residue_name"]) == {"ACE", "ALA", "NME"} and len(made["atom_name"]) == 22


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": np.zeros((2, 3, 3))}, r"expected \(A,\) and \(n, A, 3\)"),
        ({"R": np.full((1, 2, 3), np.nan)}, "conformation 0 not finite"),
        ({"Z": np.array([1, 0])}, "of atom 2"),
        ({"Z": np.array([0.5, 1])}, "elements that are not known"),
        ({"temperature": np.zeros(4)}, r"temperature \(4,\); expected \(1,\)"),
        ({"charge": np.zeros(2)}, "no conformations"),
    ],
)
def test_conformations_that_cannot_be_used_are_told(script, tmp_path, change, message):
    path = tmp_path / "h2.npz"
    np.savez(path, **{"Z": np.array([1, 1]), "R": np.zeros((1, 2, 3)), **change})
    with pytest.raises(InputError, match=message):
        script["read_given"](path, None)


def test_charges_are_told_or_known(script, programs, tmp_path, capsys):
    path, folder = tmp_path / "h2.npz", tmp_path / "out"
    content = {"Z": np.array([1, 1]), "R": np.array([[[0, 0, 0], [0.74, 0, 0]]])}
    np.savez(path, **content)
    assert "not the atoms of a unit; give --charge" in refused(script, capsys, "--label", path, "--output", folder)
    wrong = refused(script, capsys, "--label", path, "--charge", 1, "--output", folder)
    assert "a charge of +1 leaves an electron unpaired" in wrong
    assert script["main"](["--label", str(path), "--charge", "0", "--output", str(folder)]) == 0
    np.savez(tmp_path / "broken.npz", R=content["R"])
    assert "broken.npz: no conformations" in refused(
        script, capsys, "--label", tmp_path / "broken.npz", "--output", folder
    )


def test_labels_are_those_of_the_data_at_hand(script, shared):
    pytest.importorskip("tblite")
    path = shared / "data" / "units" / "ala.npz"
    if not path.exists():
        pytest.skip("needs the labelled units")
    raw = arrays(path)
    evaluate = script["labeller"]("gfn2", raw["Z"], int(raw["charge"]), "ala")
    for row in np.random.default_rng(0).choice(len(raw["E"]), 5, replace=False):
        energy, forces = evaluate(raw["R"][row].astype(np.float64))
        assert energy == pytest.approx(raw["E"][row], abs=1e-3)
        np.testing.assert_allclose(forces, raw["F"][row], atol=9e-3)

"""Scripts of AI2BMD's tables: accuracy, speed, thermodynamics."""

import json
import runpy

import numpy as np
import pandas as pd
import pytest

from jaxprot.core.units import BOLTZMANN_EV, KCAL_MOL
from jaxprot.io.dcd import DCDWriter
from jaxprot.io.structures import read_structure, write_structure

SCRIPTS = ("ai2bmd_accuracy", "ai2bmd_speed", "ai2bmd_thermodynamics")


def load(root, name):
    return runpy.run_path(str(root / "scripts" / f"{name}.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(root, name, capsys):
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"](["--help"])
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ai2bmd_accuracy", [], "give --units, --protein, --gfn2 or --couplings"),
        ("ai2bmd_accuracy", ["--units", "absent"], "absent: no labelled conformations"),
        ("ai2bmd_speed", ["absent.pdb"], "absent.pdb: no such file"),
        ("ai2bmd_thermodynamics", ["absent"], "absent: no run of `jaxprot ai2bmd simulate`"),
        ("ai2bmd_thermodynamics", ["absent", "--folded", "2"], "--folded and --skip are shares"),
    ],
)
def test_wrong_input_is_one_message_and_code_two(root, tmp_path, monkeypatch, capsys, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"](arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def two_states(temperature, count, rng):
    """Energies (eV) and whether folded, of a protein that melts at 345 K with 1 eV."""
    folded = rng.random(count) < 1 / (1 + np.exp(-(1 / temperature - 1 / 345) / BOLTZMANN_EV))
    return rng.normal(np.where(folded, -1.0, 0.0), 0.01), folded


def test_thermodynamics_of_a_protein_that_melts_at_345_kelvin(root, tmp_path, example, capsys):
    structure, rng = read_structure(example("trpcage")), np.random.default_rng(0)
    for temperature in (330, 345, 360):
        folder = tmp_path / str(temperature)
        folder.mkdir()
        write_structure(structure, folder / "topology.pdb", fit=True)
        (folder / "run.json").write_text(
            json.dumps({"arguments": {"temperature": temperature, "ensemble": "langevin"}})
        )
        rows = []
        for replica in range(2):
            energy, folded = two_states(temperature, 150, rng)
            with DCDWriter(folder / f"trajectory_{replica:02d}.dcd", structure.n_atoms) as file:
                for one in [True, *folded]:  # the start is a frame, and no sample
                    file.write(structure.xyz * (1.0 if one else 2.5))
            steps = np.arange(151)
            rows.append(pd.DataFrame({
                "step": steps, "time_ps": steps / 1000, "replica": replica, "potential_ev": [0.0, *energy],
            }))  # fmt: skip
        pd.concat(rows).to_csv(folder / "energies.csv", index=False)
    folders = [str(tmp_path / name) for name in ("330", "345", "360")]
    script = load(root, "ai2bmd_thermodynamics")
    assert script["main"]([*folders, "--output", str(tmp_path / "out"), "--draws", "10", "--skip", "0"]) == 0
    told = json.loads((tmp_path / "out" / "thermodynamics.json").read_text())
    assert told["configurations"] == 900 and told["melting_kelvin"] == pytest.approx(345, abs=2)
    low, high = told["melting_interval_kelvin"]
    assert low - 1 < 345 < high + 1
    assert told["enthalpy_kcal_mol"] == pytest.approx(1 / KCAL_MOL, rel=0.02)
    table = pd.read_csv(tmp_path / "out" / "thermodynamics.csv")
    assert len(table) == 71 and np.all(np.diff(table.folded) <= 0)
    assert (tmp_path / "out" / "thermodynamics.png").stat().st_size > 10_000
    assert len(pd.read_csv(tmp_path / "out" / "contacts.csv")) == 900
    assert "melting_kelvin" in capsys.readouterr().out


def test_couplings_beside_measured_ones(root, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    pd.DataFrame({"chain": "A", "resid": [2, 3, 4], "j_hn_ha_hz": [5.0, 7.0, 9.0]}).to_csv(run / "couplings.csv")
    measured = tmp_path / "measured.csv"
    pd.DataFrame({"resid": [3, 4, 9], "j_hn_ha_hz": [6.0, 9.0, 1.0]}).to_csv(measured, index=False)
    script = load(root, "ai2bmd_accuracy")
    assert script["main"](["--couplings", str(run), str(measured), "--output", str(tmp_path)]) == 0
    assert "RMSD 0.71 Hz over 2 residues" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        script["main"](["--couplings", str(run), str(tmp_path / "absent.csv")])
    assert "absent.csv: no such file" in capsys.readouterr().err


def test_errors_leave_a_common_shift_out(root):
    errors = load(root, "ai2bmd_accuracy")["errors"]
    energy, forces = np.array([0.0, 1.0, 3.0]), np.zeros((3, 2, 3))
    found = errors((energy, forces), (energy - 7 + np.array([0.3, -0.3, 0]) * KCAL_MOL, forces + 2 * KCAL_MOL))
    np.testing.assert_allclose(found, (0.2, 2.0), atol=1e-6)


@pytest.mark.slow
def test_frames_of_a_protein_are_labelled_here_once(root, tmp_path, example, capsys):
    pytest.importorskip("tblite")
    path, rng = example("alanine"), np.random.default_rng(0)
    structure = read_structure(path)
    with DCDWriter(tmp_path / "t.dcd", structure.n_atoms) as file:
        for _ in range(5):
            file.write(structure.xyz + rng.normal(size=structure.xyz.shape) * 0.03)
    argv = ["--gfn2", str(path), str(tmp_path / "t.dcd"), "--frames", "3", "--output", str(tmp_path)]
    script = load(root, "ai2bmd_accuracy")
    assert script["main"](argv) == 0
    labels = tmp_path / f"{path.stem}_gfn2.npz"
    with np.load(labels) as file:
        assert file["R"].shape == (3, 22, 3) and int(file["charge"]) == 0
    table = pd.read_csv(tmp_path / "accuracy.csv")
    row = table[table.method == "potential"].iloc[0]
    assert row.conformations == 3 and row.energy_kcal_mol < 3 and row.forces_kcal_mol_angstrom < 3
    before = labels.stat().st_mtime_ns
    assert script["main"](argv) == 0 and labels.stat().st_mtime_ns == before
    capsys.readouterr()


def test_copies_stand_apart_and_are_chains_of_their_own(root, example):
    structure = read_structure(example("chignolin"))
    made = load(root, "ai2bmd_speed")["tandem"](structure, 3)
    n = structure.n_atoms
    assert made.n_atoms == 3 * n and made.n_chains == 3 * structure.n_chains
    assert len(set(made.chain_id)) == made.n_chains and made.n_residues == 3 * structure.n_residues
    for i in range(3):
        offset = made.xyz[i * n : (i + 1) * n] - structure.xyz
        np.testing.assert_allclose(offset, np.broadcast_to(offset[:1], offset.shape), atol=1e-4)
    assert np.linalg.norm(made.xyz[:n, None] - made.xyz[None, n:], axis=-1).min() > 15

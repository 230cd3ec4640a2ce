"""`jaxprot ai2bmd ...` as a user runs it, with a small network of random weights."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.cli.main import main
from jaxprot.io.dcd import read_frames
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.tables import read_table, write_table
from jaxprot.io.trajectories import read_trajectory
from jaxprot.weights import portable


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network whose energies are small."""
    from jaxprot.visnet import weights
    from jaxprot.visnet.config import ViSNetConfig
    from jaxprot.visnet.model import ViSNet

    cfg = ViSNetConfig(hidden=4, layers=2, heads=2, rbf=4, lmax=1, max_z=20)
    net = ViSNet(cfg, rngs=nnx.Rngs(0))
    net.std[...] = jnp.full(1, 1e-3)
    net.atomref[...] = jnp.arange(20) * -10.0
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights.save(path, cfg, weights.tensors_of(net))
    return path


@pytest.fixture(scope="module")
def alanine(example):
    return example("alanine")


@pytest.fixture(scope="module")
def ran(alanine, weights, tmp_path_factory):
    """A short run."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert main(_simulate(alanine, weights, folder, "--steps", "40")) == 0
    return folder


def test_stages_are_lines_where_no_terminal_shows_a_bar(capsys):
    from jaxprot.cli.ai2bmd import _bar
    from jaxprot.md.simulate import SimulationConfig

    cfg = SimulationConfig(steps=4000, record=100, equilibration=150, stages=(1.0, 0.1))
    with _bar(cfg) as report:
        for step in (-300, -200, -150, -50, 0, *range(100, 4001, 100)):
            row = {
                "step": step,
                "time_ps": step / 1000,
                "temperature_kelvin": 300,
                "potential_ev": 1,
                "ns_per_day": None,
            }
            report(row)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "jaxprot: equilibration 1 of 2: -0.150 ps, 300 K, 1.00 eV"
    assert lines[1] == "jaxprot: equilibration 2 of 2: 0.000 ps, 300 K, 1.00 eV" and len(lines) == 12
    assert [line.split(" of ")[0].split()[-1] for line in lines[2:]] == [str(400 * i) for i in range(1, 11)]


def _simulate(alanine, weights, folder, *more):
    return [
        "ai2bmd", "simulate", str(alanine), "--weights", str(weights), "-o", str(folder), "--record", "10",
        "--timestep", "0.1", "--minimise", "5", "--equilibration", "10", *more,
    ]  # fmt: skip


def test_energy_and_forces(alanine, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["ai2bmd", "energy", str(alanine), "--weights", str(weights), "--solvent", "gb", "-o", str(out)]) == 0
    assert "eV (bonded" in capsys.readouterr().out
    told = json.loads((out / "energy.json").read_text())
    assert told["total_ev"] == pytest.approx(told["bonded_ev"] + told["nonbonded_ev"] + told["solvent_ev"])
    assert told["units"] == 1 and told["nonbonded_ev"] == 0  # a single unit: all of it is the network's
    with np.load(out / "forces.npz") as forces:
        assert forces["total"].shape == (22, 3)
    assert (out / "run.json").is_file()


def test_a_warning_is_one_line(alanine, weights, tmp_path, capsys):
    tensors, header = portable.load(weights)
    portable.save(tmp_path / "few.safetensors", tensors, {**header, "units": ["GLY"]})
    argv = ["ai2bmd", "energy", str(alanine), "--weights", str(tmp_path / "few.safetensors")]
    assert main([*argv, "-o", str(tmp_path / "out")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1 and lines[0].startswith("jaxprot: warning: ")
    assert "these weights never learnt from ALA (" in lines[0]


def test_charges_in_vacuum_are_told_of_energies_as_well(alanine, weights, tmp_path, capsys, monkeypatch):
    from jaxprot.ai2bmd import cautions

    seen = []
    monkeypatch.setattr(cautions, "charged_in_vacuum", seen.append)
    for number, solvent in enumerate(("none", "gb")):
        argv = ["ai2bmd", "energy", str(alanine), "--weights", str(weights), "--solvent", solvent]
        assert main([*argv, "-o", str(tmp_path / str(number))]) == 0
        assert len(seen) == 1


def test_help_of_flags_reads_right(capsys):
    with pytest.raises(SystemExit):
        main(["ai2bmd", "prepare", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--no-minimise Leave what was added as it was built; without this flag it is relaxed" in text
    assert "default: True" not in text.split("--no-minimise")[1].split("--")[0]
    with pytest.raises(SystemExit):
        main(["ai2bmd", "energy", "--help"])
    assert "--format" not in capsys.readouterr().out  # it writes no table


def test_fragments(example, tmp_path, capsys):
    paths = [str(example(name)) for name in ("chignolin", "trpcage")]
    assert main(["ai2bmd", "fragment", *paths, "-o", str(tmp_path / "out")]) == 0
    assert "10 dipeptides, 19 units, charge -2" in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "trpcage" / "fragments.json").read_text())
    assert told["n_dipeptides"] == 20 and told["units"][1]["name"] == "ACENME"


def test_a_run_writes_what_it_says(ran, alanine):
    names = {path.name for path in ran.iterdir()}
    assert names >= {
        "trajectory.dcd", "topology.pdb", "energies.csv", "energies.png", "final.pdb", "rmsd.csv", "rmsf.csv",
        "ramachandran.png", "couplings.csv", "analysis.json", "run.json", "torsions.npz",
    }  # fmt: skip
    table = read_table(ran / "energies.csv")
    assert list(table["step"])[:3] == [-50, -40, -30] and list(table["step"])[-1] == 40
    couplings = read_table(ran / "couplings.csv")
    assert list(couplings["resname"]) == ["ALA"] and 0 < couplings["j_hn_ha_hz"][0] < 11
    assert read_structure(ran / "final.pdb").n_atoms == read_structure(alanine).n_atoms
    told = json.loads((ran / "run.json").read_text())
    assert told["ns_per_day"] > 0 and told["minimisation"]["steps"] <= 5
    told, moving = json.loads((ran / "analysis.json").read_text()), np.asarray(table["step"]) > 0
    assert told["total_energy_drift_ev_per_atom_ps"] is None  # a thermostat exchanges heat
    assert told["temperature_mean_kelvin"] == pytest.approx(np.asarray(table["temperature_kelvin"])[moving].mean())


def test_drift_of_the_energy_is_that_of_production(ran, alanine, tmp_path):
    from jaxprot.ai2bmd import predict

    folder = tmp_path / "out"
    shutil.copytree(ran, folder)
    table = read_table(folder / "energies.csv")
    step, time = (np.asarray(table[name], float) for name in ("step", "time_ps"))
    table["total_ev"] = np.where(step > 0, -5 + 0.22 * time, 7.0)  # springs hold what is at step 0
    write_table(table, folder / "energies.csv")
    written = predict.analyse(folder, read_structure(alanine), ensemble="nve", table_format="parquet")
    told = json.loads((folder / "analysis.json").read_text())
    assert told["total_energy_drift_ev_per_atom_ps"] == pytest.approx(0.22 / 22)
    assert {"rmsd.parquet", "rmsf.parquet", "couplings.parquet"} <= set(written)
    for name in ("rmsd", "rmsf", "couplings"):
        first, second = read_table(ran / f"{name}.csv"), read_table(folder / f"{name}.parquet")
        assert list(first) == list(second) and not (folder / f"{name}.csv").exists()


def test_a_run_goes_on_as_one_that_was_not_stopped(ran, alanine, weights, tmp_path, capsys):
    pytest.importorskip("mdtraj")
    folder = tmp_path / "out"
    assert main(_simulate(alanine, weights, folder, "--steps", "20", "--trajectory-format", "xtc")) == 0
    xtc = read_trajectory(folder / "trajectory.xtc", folder / "topology.pdb").frames
    np.testing.assert_allclose(xtc, read_frames(folder / "trajectory.dcd"), atol=0.006)
    assert len(xtc) == 3 and "trajectory.xtc" in capsys.readouterr().out
    capsys.readouterr()
    assert main(_simulate(alanine, weights, folder, "--steps", "40", "--resume")) == 0
    xtc = read_trajectory(folder / "trajectory.xtc", folder / "topology.pdb").frames  # kept up
    assert len(xtc) == 5
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in said] == [" production, step 30 of 40", " production, step 40 of 40"]
    for name in ("trajectory.dcd", "energies.csv", "final.pdb"):
        assert (folder / name).read_bytes() == (ran / name).read_bytes()


@pytest.mark.slow
def test_a_stopped_run_tells_the_way_on_and_keeps_nothing_of_an_older_one(alanine, weights, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(_simulate(alanine, weights, folder, "--steps", "10", "--replicas", "2")) == 0
    listed = capsys.readouterr().out.split("; ")[-1].split(", ")
    assert {"trajectory_00.dcd", "trajectory_01.dcd", "final_00.pdb", "final_01.pdb"} <= set(listed)
    assert all((folder / name.strip()).is_file() for name in listed)

    # The small network holds no atoms together: they fly apart, at first by little.
    wild = ("--steps", "100", "--timestep", "2", "--record", "1", "--equilibration", "0", "--minimise", "0")
    assert main(_simulate(alanine, weights, folder, *wild, "--overwrite")) == 2
    message = capsys.readouterr().err
    assert message.count("jaxprot: error:") == 1 and f"{folder / 'last.pdb'}, with a smaller --timestep" in message
    names = {path.name for path in folder.iterdir()}
    assert {"trajectory.dcd", "last.pdb", "energies.png", "analysis.json", "rmsd.csv"} <= names
    assert not names & {"trajectory_00.dcd", "trajectory_01.dcd", "final_00.pdb", "final_01.pdb", "final.pdb"}
    told = json.loads((folder / "analysis.json").read_text())
    assert told["frames"] == len(read_table(folder / "energies.csv")["step"]) < 100
    assert list(json.loads((folder / "run.json").read_text())["failed"]) == [str(alanine)]

    assert main(_simulate(folder / "last.pdb", weights, folder, "--steps", "10", "--overwrite")) == 2
    assert "give another folder with -o" in capsys.readouterr().err and (folder / "last.pdb").is_file()
    assert main(["ai2bmd", "fragment", str(folder / "last.pdb"), "-o", str(tmp_path / "next")]) == 0  # a start it is


def test_what_cannot_be_simulated(example, alanine, weights, tmp_path, capsys):
    def refused(*argv):
        assert main([*argv, "-o", str(tmp_path / "none")]) == 2
        assert not (tmp_path / "none").exists()
        message = capsys.readouterr().err
        assert message.count("jaxprot: error:") == 1
        return message

    assert "no such file" in refused("ai2bmd", "energy", "none.pdb", "--weights", str(weights))
    heavy = read_structure(alanine)
    write_structure(heavy.select(heavy.element != "H"), tmp_path / "heavy.pdb")
    message = refused("ai2bmd", "fragment", str(tmp_path / "heavy.pdb"))
    assert "heavy.pdb" in message and "ai2bmd prepare" in message and message.count("\n") == 1
    message = refused("ai2bmd", "simulate", str(example("ubiquitin")), "--weights", str(weights))
    assert "ACE" in message
    message = refused("ai2bmd", "simulate", str(alanine), "--weights", str(weights), "--resume")
    assert "no restart/state.npz" in message
    for option, value in (("timestep", "0"), ("temperature", "-3")):
        message = refused("ai2bmd", "simulate", str(alanine), "--weights", str(weights), f"--{option}", value)
        assert f"error: --{option} must be above 0 and finite, got {value}" in message and "Dynamics" not in message
    message = refused("ai2bmd", "simulate", str(alanine), "--weights", str(weights), "--minimise", "-5")
    assert "--minimise -5: give 0 or more" in message
    message = refused("ai2bmd", "energy", str(alanine), "--weights", str(weights), "--devices", "99")
    assert "--devices 99: give a number from 1 to" in message
    message = refused("ai2bmd", "simulate", str(alanine), "--weights", str(weights), "--steps", "250")
    assert "steps (250) must be a multiple of record (100)" in message
    (tmp_path / "wrong.ckpt").write_bytes(b"no checkpoint")
    assert "wrong.ckpt" in refused("ai2bmd", "energy", str(alanine), "--weights", str(tmp_path / "wrong.ckpt"))


@pytest.mark.slow
def test_a_raw_structure_is_prepared(example, tmp_path, capsys):
    pytest.importorskip("pdbfixer")
    raw = read_structure(example("trpcage"))
    heavy = raw.select((raw.element != "H") & ~np.isin(raw.res_name, ["ACE", "NME"])[raw.atom_residue])
    missing = heavy.select(~((heavy.atom_name == "NH1") & (heavy.res_name[heavy.atom_residue] == "ARG")))
    write_structure(missing, tmp_path / "raw.pdb")
    assert main(["ai2bmd", "prepare", str(tmp_path / "raw.pdb"), "-o", str(tmp_path / "out")]) == 0
    made = read_structure(tmp_path / "out" / "prepared.pdb")
    assert made.n_atoms == raw.n_atoms and made.res_name[0] == "ACE" and made.res_name[-1] == "NME"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("NH1" in line for line in report["heavy_atoms_added"])
    assert "charge" in capsys.readouterr().out
    broken = heavy.select(~np.isin(heavy.resid[heavy.atom_residue], [8, 9]))
    write_structure(broken, tmp_path / "broken.pdb")
    assert main(["ai2bmd", "prepare", str(tmp_path / "broken.pdb"), "-o", str(tmp_path / "out2")]) == 2
    assert "the chain is broken at" in capsys.readouterr().err

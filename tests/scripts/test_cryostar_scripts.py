"""cryoSTAR's scripts: what they measure and refuse, and short runs from files to tables."""

import json
import runpy

import numpy as np
import pytest

from jaxprot.io.structures import read_structure, write_structure
from jaxprot.train.config import read_config

SCRIPTS = ("cryostar_1ake", "cryostar_empiar", "cryostar_prior")
SMALL = []
for setting in ("task.encoder=16,8", "task.decoder=8,16", "task.latent=3", "task.held=16", "task.settle=0", "chunk=4"):
    SMALL += ["--set", setting]
SIZES = ["--particles", "32", "--side", "24", "--pixel-size", "2", "--snr", "1", "--frames", "4"]


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch):
    """The scripts choose the cache of compiled programs and the folder of an experiment for their process."""
    import os

    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
    os.environ.update(before)


def load(root, name):
    """The globals of a script, without running it."""
    return runpy.run_path(str(root / "scripts" / f"{name}.py"))


@pytest.fixture(scope="module")
def adenylate(root):
    return load(root, "cryostar_1ake")


@pytest.fixture(scope="module")
def empiar(root):
    return load(root, "cryostar_empiar")


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_data_and_no_jax(root, name, capsys):
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"](["--help"])
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cryostar_1ake", ["--closed", "a.pdb"], "give --open or --path"),
        ("cryostar_1ake", ["--closed", "a.pdb", "--open", "b.pdb", "--path", "c.npz"], "give --open or --path"),
        ("cryostar_1ake", ["--closed", "absent.pdb", "--open", "b.pdb"], "absent.pdb: no such file"),
        ("cryostar_prior", ["--to", "a.pdb"], "--to needs --model"),
        ("cryostar_prior", ["--model", "absent.pdb"], "absent.pdb: no such file"),
    ],
)
def test_wrong_input_is_one_message_and_code_two(root, tmp_path, monkeypatch, capsys, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        load(root, name)["main"]([*arguments, "--output", "out"])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def ends(tmp_path_factory, example):
    """Two conformations of chignolin, one of them in a file with a second chain."""
    import dataclasses

    folder = tmp_path_factory.mktemp("ends")
    first = read_structure(example("chignolin")).first_model()
    write_structure(dataclasses.replace(first, chain_id=np.array(["A"], "U8")), folder / "closed.pdb")
    moved = first.xyz * np.array([1.2, 0.9, 1.0], np.float32)
    second = dataclasses.replace(first, xyz=moved, chain_id=np.array(["A"], "U8"))
    write_structure(second, folder / "open.pdb")
    lines = [line for line in (folder / "open.pdb").read_text().splitlines() if line.startswith("ATOM")]
    lines += ["TER", *(f"{line[:21]}B{line[22:30]}{float(line[30:38]) + 40:8.3f}{line[38:]}" for line in lines)]
    (folder / "two.pdb").write_text("\n".join([*lines, "TER", "END", ""]))
    return folder


@pytest.mark.slow
def test_adenylate_kinase_from_two_files(adenylate, ends, tmp_path, capsys):
    """And again, which goes on with more steps; a file with several chains gives one."""
    out = tmp_path / "out"
    call = ["--closed", ends / "closed.pdb", "--open", ends / "two.pdb", *SIZES, "--batch", "8", *SMALL]
    call = [*map(str, call), "--output", str(out)]
    assert adenylate["main"]([*call, "--steps", "4"]) == 0
    told = capsys.readouterr().out
    assert "| 32 particles, 10 residues | found | reference |" in told and "RMSD, mean over particles" in told
    found = json.loads((out / "figures.json").read_text())
    assert found["particles"] == 32 and 0 <= found["spearman"] <= 1
    assert 0 < found["rmsd_mean"] < 3 and 0 < found["reference"]["rmsd_mean"] < 2
    config = (out / "run" / "config.yaml").read_text()
    assert "ratio: 0.8" in config and "low_pass: 4.0" in config  # of the experiment
    particles = (out / "particles" / "particles.mrcs").read_bytes()
    last = json.loads((out / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_rmsd"] > 0 and (out / "run" / "analysis" / "landscape.png").exists()
    maps = ["--density", "1", "--hidden", "8"]
    assert adenylate["main"]([*call, "--steps", "8", *maps]) == 0
    assert "rank correlation" in capsys.readouterr().out
    assert (out / "run" / "density" / "true_resolution.csv").read_text().startswith("volume,fsc_0.5_angstrom,nmse")
    assert (out / "particles" / "particles.mrcs").read_bytes() == particles
    starts = json.loads((out / "run" / "run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 4]
    with pytest.raises(SystemExit):
        adenylate["main"]([*call, "--steps", "8", "--seed", "1"])
    assert "made with other settings" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        adenylate["main"]([*call, "--chain", "C", "--output", str(tmp_path / "none")])
    assert "no chain C among A, B; give --chain" in capsys.readouterr().err


@pytest.mark.slow
def test_adenylate_kinase_along_a_path(adenylate, ends, tmp_path, capsys):
    alpha = read_structure(ends / "closed.pdb")
    xyz = alpha.xyz[alpha.atom_name == "CA"]
    path = xyz + np.linspace(0, 3, 4)[:, None, None] * np.linspace(-1, 1, 10)[None, :, None]
    np.savez(tmp_path / "path.npz", path_ca=path + 50)  # wherever it is
    np.savez(tmp_path / "short.npz", path_ca=path[:, :9])
    call = ["--closed", ends / "closed.pdb", *SIZES, "--batch", "8", "--experiment", "default", "--steps", "4", *SMALL]
    call = [*map(str, call), "--output", str(tmp_path / "out")]
    assert adenylate["main"]([*call, "--path", str(tmp_path / "path.npz")]) == 0
    truth = np.load(tmp_path / "out" / "particles" / "truth.npz")["path_ca"]
    np.testing.assert_allclose(truth, path - path.mean((0, 1)), atol=1e-4)
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["reference"]["rmsd_mean"] > 0.5
    call[-1] = str(tmp_path / "other")
    with pytest.raises(SystemExit):
        adenylate["main"]([*call, "--path", str(tmp_path / "short.npz")])
    assert "path_ca of shape (4, 9, 3)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        adenylate["main"]([*call[:-1], str(tmp_path / "third"), "--path", str(ends / "open.pdb")])
    assert "no .npz file with path_ca" in capsys.readouterr().err


@pytest.mark.slow
def test_priors(root, ends, tmp_path, capsys):
    script, out = load(root, "cryostar_prior"), tmp_path / "out"
    call = ["--model", ends / "closed.pdb", "--to", ends / "open.pdb", *SIZES, "--batch", "8", "--steps", "4", *SMALL]
    call = [*map(str, call), "--output", str(out)]
    assert script["main"]([*call, "--only", "no clash", "no relaxation", "none"]) == 0
    told = capsys.readouterr().out
    report = json.loads((out / "prior.json").read_text())
    assert list(report["variants"]) == ["no clash", "no relaxation", "none"]
    assert all(name in told for name in ("| no clash |", "| none |", "| reference alone |", "| truth |"))
    tasks = {
        name: read_config(out / f"{name}-0" / "config.yaml").task for name in ("no-clash", "no-relaxation", "none")
    }
    weights = {name: (task.connect > 0, task.elastic > 0, task.clash > 0) for name, task in tasks.items()}
    assert weights == {"no-clash": (True, True, False), "no-relaxation": (True,) * 3, "none": (False,) * 3}
    assert tasks["no-relaxation"].ratio == 1 > tasks["no-clash"].ratio
    assert report["truth"]["bond_deviation"] > 0.1 and report["reference"]["rmsd_mean"] > 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/latents.npy")}
    assert script["main"]([*call, "--only", "none", "--seeds", "0", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what is there is kept
    assert " ± " in capsys.readouterr().out and len(list(out.glob("*/latents.npy"))) == 4


def test_a_row_of_several_seeds(root):
    line = load(root, "cryostar_prior")["line"]
    rows = [{"rmsd_mean": value, "clashes": 2.0} for value in (1.0, 3.0)]
    assert line("x", rows) == "| x | 2.000 ± 1.414 | - | - | - | 2.000 ± 0.000 |"


@pytest.fixture(scope="module")
def download(tmp_path_factory, ends):
    """A folder as EMPIAR data are expected, of images that are too small."""
    from jaxprot.cli import main

    folder = tmp_path_factory.mktemp("empiar") / "10827"
    sizes = ["-n", "32", "--side", "24", "--pixel-size", "2", "--frames", "4", "--snr", "1", "-o", str(folder)]
    model = ["--to", str(ends / "open.pdb")]
    assert main.main(["cryostar", "simulate", str(ends / "closed.pdb"), *model, *sizes]) == 0
    return folder


def test_a_download_that_is_not_there(empiar, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXPROT_EMPIAR", str(tmp_path))
    assert empiar["main"](["10180", "--check"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.startswith("EMPIAR-10180 (pre-catalytic spliceosome): ") for line in told)
    assert "particles.star: no such file" in told[0] and "https://www.ebi.ac.uk/empiar/EMPIAR-10180/" in told[0]
    assert "reference.pdb: no such file" in told[1] and "5NRL" in told[1]


def test_a_download_of_other_images(empiar, download, tmp_path, monkeypatch, capsys):
    import starfile

    monkeypatch.setenv("JAXPROT_EMPIAR", str(download.parent))
    assert empiar["main"](["10827"]) == 2
    told = capsys.readouterr().err
    assert "images of 24 pixels, and the published ones have 224" in told
    assert "pixels of 2 Å, and the published ones have 0.9" in told and "--pixel-size 0.9" in told
    assert empiar["main"](["10827", "--check", "--any-size"]) == 0
    assert "32 particles, 24 pixels of 2 Å" in capsys.readouterr().out
    tables = starfile.read(download / "particles.star", always_dict=True)
    tables["particles"] = tables["particles"].drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    starfile.write(tables, tmp_path / "bare.star")
    arguments = ["--particles", tmp_path / "bare.star", "--dataset-dir", download, "--any-size"]
    assert empiar["main"](["10827", *map(str, arguments)]) == 2
    assert "bare.star: no poses (rot, tilt, psi); refine" in capsys.readouterr().err
    assert empiar["main"](["10827", "--particles", str(tmp_path / "bare.star"), "--any-size"]) == 2
    assert "1 of 1 stacks missing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reference_in_the_corner_of_the_box(empiar, download, tmp_path, monkeypatch, capsys):
    """Deposited models lie in maps whose origin is a corner of the box."""
    import dataclasses

    monkeypatch.setenv("JAXPROT_EMPIAR", str(download.parent))
    model = read_structure(download / "reference.pdb")
    write_structure(dataclasses.replace(model, xyz=model.xyz + 24), tmp_path / "corner.cif")
    arguments = ["10827", "--any-size", "--reference", str(tmp_path / "corner.cif")]
    assert empiar["main"]([*arguments, "--check"]) == 2
    told = capsys.readouterr().err
    assert "outside the box of 48 Å" in told and "--from-corner moves it" in told
    more = ["--from-corner", "--steps", "4", "--batch", "8", "--output", str(tmp_path / "out"), *SMALL]
    assert empiar["main"]([*arguments, *more]) == 0
    centred = read_structure(tmp_path / "out" / "centred.cif")
    np.testing.assert_allclose(centred.xyz, model.xyz, atol=2e-3)
    config = (tmp_path / "out" / "run" / "config.yaml").read_text()
    assert "low_pass: 16.9" in config and "ctf: v1-compat" in config and "side: 24" in config
    assert len(np.load(tmp_path / "out" / "run" / "latents.npy")) == 32
    assert (tmp_path / "out" / "run" / "analysis" / "analysis.json").exists()

"""`jaxprot cryostar density` on a small run and on half sets."""

import csv
import json
import shutil

import numpy as np
import pytest

from jaxprot.cli.main import main
from jaxprot.cryostar import predict
from jaxprot.io.maps import read_map
from jaxprot.io.particles import read_particles
from jaxprot.io.structures import read_structure

SMALL = ["--hidden", "16", "--epochs", "2", "--batch", "8", "--clusters", "3", "--components", "1", "--points", "2"]


def table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_maps_of_a_run(run, tmp_path, capsys):
    predict.load(run).write_latents(run / "latents.npy")
    home = tmp_path / "density"
    assert main(["cryostar", "density", str(run), "-o", str(home), *SMALL]) == 0
    assert "5 maps" in capsys.readouterr().out
    names = [f"vol_kmeans_{i:03d}" for i in range(3)] + [f"vol_pca_1_{i:03d}" for i in range(2)]
    assert sorted(path.stem for path in home.glob("*.mrc")) == names
    volume = read_map(home / f"{names[0]}.mrc")
    assert volume.data.shape == (16,) * 3 and volume.voxel.tolist() == [3] * 3 and volume.data.std() > 0
    np.testing.assert_allclose(volume.origin, -24, atol=1e-4)
    assert len(np.unique(read_structure(home / "kmeans.pdb", models="all").model)) == 3
    rows = table(home / "resolution.csv")
    assert [row["volume"] for row in rows] == names
    curve = [row for row in table(home / "fsc.csv") if row["volume"] == names[1]]
    assert len(curve) == 9 and all(-1 <= float(row["fsc"]) <= 1 for row in curve)
    assert "vol_kmeans_000.mrc" in (home / "view.cxc").read_text()
    assert main(["cryostar", "density", str(run), "-o", str(home), *SMALL]) == 2
    assert "already" in capsys.readouterr().err
    # Fewer maps of the same network leave none of the others behind.
    (home / "vol_mine.mrc").write_bytes(b"")
    fewer = [*SMALL, "--clusters", "2", "--format", "parquet"]
    assert main(["cryostar", "density", str(run), "-o", str(home), *fewer, "--resume"]) == 0
    assert sorted(path.stem for path in home.glob("vol_kmeans*.mrc")) == names[:2]
    assert not (home / "fsc.csv").exists() and (home / "fsc.parquet").exists() and (home / "vol_mine.mrc").exists()
    assert "vol_kmeans_002" not in (home / "view.cxc").read_text()
    assert main(["cryostar", "density", str(run), "-o", str(tmp_path / "b"), *SMALL, "--batch", "1000"]) == 2
    assert "at most 48" in capsys.readouterr().err
    assert main(["cryostar", "density", str(tmp_path / "nothing")]) == 2
    assert "not the folder of a run" in capsys.readouterr().err


@pytest.mark.slow
def test_maps_of_a_run_that_has_gone_on(run, tmp_path, capsys):
    """A network that was trained on other latents is not used, and --overwrite replaces it."""
    shutil.copytree(run, tmp_path / "run")
    home = tmp_path / "run" / "density"
    path = tmp_path / "run" / "latents.npy"
    latents = predict.load(run).write_latents(path)
    words = ["cryostar", "density", str(tmp_path / "run"), *SMALL, "--epochs", "1"]
    assert main(words) == 0
    before = (home / "training" / "best.safetensors").read_bytes()
    np.save(path, latents[:, ::-1])
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    told = capsys.readouterr().err
    assert "made with other settings (latents of the run)" in told and "--overwrite" in told
    assert main([*words, "--overwrite", "--hidden", "0"]) == 2
    assert (home / "training" / "best.safetensors").read_bytes() == before
    assert main([*words, "--overwrite", "--side", "12"]) == 0
    assert (home / "training" / "best.safetensors").read_bytes() != before
    assert read_map(home / "vol_kmeans_000.mrc").data.shape == (12,) * 3


@pytest.mark.parametrize(
    "words", [["--points", "0"], ["--clusters", "0"], ["--clusters", "-3"], ["--components", "-1"]]
)
@pytest.mark.parametrize("command", ["analyze", "density"])
def test_numbers_that_make_no_sense(run, tmp_path, capsys, command, words):
    assert main(["cryostar", command, str(run), "-o", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{words[1]} {words[0][2:]}: give at least" in told and "internal" not in told
    assert not (tmp_path / "out").exists()


def test_maps_that_agree_with_nothing(tmp_path):
    from jaxprot.cli.cryostar_results import _write_fits
    from jaxprot.cryostar import maps

    frequency = np.array([0.0, 0.1])
    fits = [maps.Fit(name, value, frequency, frequency) for name, value in (("a", np.inf), ("b", 4.5))]
    _write_fits(fits, tmp_path, "", "angstrom", "csv")
    assert [row["angstrom"] for row in table(tmp_path / "resolution.csv")] == ["", "4.5"]
    assert maps.best(fits) == "4.50 Å at best" and maps.best(fits[:1]) == "no agreement; train longer"


@pytest.mark.slow
def test_maps_of_half_sets_are_compared(run, tmp_path, capsys):
    for half in ("half1", "half2"):
        shutil.copytree(run, tmp_path / half)
    assert main(["cryostar", "density", str(tmp_path), *SMALL, "--seed", "3"]) == 0
    assert "half-set FSC 0.143" in capsys.readouterr().out
    rows = table(tmp_path / "density" / "half_fsc.csv")
    # Both halves are the same run here, and so are the networks of one seed.
    assert min(float(row["fsc"]) for row in rows) > 0.999
    assert len(table(tmp_path / "density" / "half_resolution.csv")) == 5


@pytest.mark.slow
def test_other_networks_losses_and_the_truth(run, particles, tmp_path, capsys):
    words = ["cryostar", "density", str(run), *SMALL, "--epochs", "1"]
    truth = ["--truth", str(particles / "truth.npz")]
    kinds = (("cryoai", "geo1", "rmsf"), ("cryodrgn-fourier", "gau1", "fmsf"), ("cryodrgn", "no", "fmsf"))
    for net, encoding, loss in kinds:
        home = tmp_path / net
        chosen = ["--net", net, "--encoding", encoding, "--loss", loss]
        assert main([*words, "-o", str(home), *chosen, *truth]) == 0
        assert "rank correlation" in capsys.readouterr().out
        model = json.loads((home / "training" / "settings.json").read_text())["config"]
        assert (model["net"], model["encoding"]) == (net, encoding)
        rows = table(home / "true_resolution.csv")
        assert [row["volume"] for row in rows] == [row["volume"] for row in table(home / "resolution.csv")]
        frames = np.load(particles / "truth.npz")["frame"]
        latents = predict.load(run).read_latents(run / "latents.npy")
        assert rows[0]["true_frame"] in [str(frame) for frame in frames] and len(latents) == len(frames)
        assert all(float(row["best_frame_off_angstrom"]) >= 0 and float(row["nmse"]) <= 1.0001 for row in rows)
    assert main([*words, "-o", str(tmp_path / "cryodrgn"), "--encoding", "no", "--loss", "rmsf", "--resume"]) == 2
    assert "made with other settings (loss)" in capsys.readouterr().err


@pytest.mark.slow
def test_an_encoder_of_its_own(run, tmp_path, capsys):
    home = tmp_path / "density"
    words = ["cryostar", "density", str(run), *SMALL, "--encoder"]
    assert main([*words, "-o", str(home)]) == 0
    latents, labels = np.load(home / "latents.npy"), np.load(home / "labels.npy")
    assert latents.shape == (48, 3) and latents.std() > 0 and not (home / "kmeans.pdb").exists()
    stars = sorted((home / "clusters").glob("cluster_*.star"))
    assert len(stars) == len(np.unique(labels)) == 3 == len(list(home.glob("vol_kmeans_*.mrc")))
    assert sum(len(read_particles(path, run.parent, check_images=False)) for path in stars) == 48
    assert (home / "landscape.png").stat().st_size > 1000 and not (home / "resolution.csv").exists()
    assert main([*words, "-o", str(run), "--overwrite"]) == 2
    assert "holds a run (config.yaml)" in capsys.readouterr().err
    official = tmp_path / "official"
    shutil.copytree(run, tmp_path / "whole" / "run")
    shutil.copytree(home, tmp_path / "whole" / "run" / "density")
    assert main(["cryostar", "export", str(tmp_path / "whole" / "run"), "-o", str(official)]) == 0
    assert not (official / "density_ckpt.pt").exists() and (official / "ckpt.pt").exists()
    for half in ("half1", "half2"):
        shutil.copytree(run, tmp_path / half)
    assert main(["cryostar", "density", str(tmp_path), *SMALL, "--encoder", "-o", str(tmp_path / "b")]) == 2
    assert "no conformations by which" in capsys.readouterr().err


def test_folders_of_something_else_are_left_alone(run, tmp_path, capsys):
    """With --resume or --overwrite as well."""
    other = shutil.copytree(run, tmp_path / "other")
    np.save(other / "latents.npy", np.zeros((48, 3)))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "clusters.csv").write_text("mine")
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "analysis.json").write_text("{}")
    cases = (
        ("density", other, "--resume", "holds a run"),
        ("density", other, "--overwrite", "holds a run"),
        ("analyze", other, "--overwrite", "holds a run"),
        ("density", tmp_path / "kept", "--resume", "already"),
        ("density", tmp_path / "analysis", "--overwrite", "holds other results (analysis.json)"),
    )
    for command, folder, how, message in cases:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        more = SMALL if command == "density" else []
        words = ["cryostar", command, str(run), "-o", str(folder), *more]
        assert main([*words, how]) == 2
        assert message in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    shutil.copytree(run, tmp_path / "both" / "half1")
    shutil.copy(run / "config.yaml", tmp_path / "both")
    for command in ("density", "analyze"):
        assert main(["cryostar", command, str(tmp_path / "both")]) == 2
        assert "holds a run and runs on half sets" in capsys.readouterr().err

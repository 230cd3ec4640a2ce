"""`jaxprot cryostar density` on a small run and on half sets."""

import csv
import shutil

import numpy as np

from jaxprot.cli.main import main
from jaxprot.cryostar import predict
from jaxprot.io.maps import read_map
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
    assert main(["cryostar", "density", str(run), "-o", str(tmp_path / "b"), *SMALL, "--batch", "1000"]) == 2
    assert "at most 48" in capsys.readouterr().err
    assert main(["cryostar", "density", str(tmp_path / "nothing")]) == 2
    assert "not the folder of a run" in capsys.readouterr().err


def test_maps_of_half_sets_are_compared(run, tmp_path, capsys):
    for half in ("half1", "half2"):
        shutil.copytree(run, tmp_path / half)
    assert main(["cryostar", "density", str(tmp_path), *SMALL, "--seed", "3"]) == 0
    assert "half-set FSC 0.143" in capsys.readouterr().out
    rows = table(tmp_path / "density" / "half_fsc.csv")
    # Both halves are the same run here, and so are the networks of one seed.
    assert min(float(row["fsc"]) for row in rows) > 0.999
    assert len(table(tmp_path / "density" / "half_resolution.csv")) == 5

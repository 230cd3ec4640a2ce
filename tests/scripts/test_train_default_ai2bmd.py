"""What is exported as the default potential, and what its errors rest on."""

import json
import runpy
import shutil

import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation

from jaxprot.train.config import write_config
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.visnet import weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.data import EnergyForceTask
from jaxprot.visnet.model import ViSNet
from jaxprot.weights import portable

CFG = ViSNetConfig(hidden=4, layers=2, heads=2, rbf=4, lmax=1, max_z=10)


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "scripts" / "train_default_ai2bmd.py"))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A run on water and methane that began with weights that know ALA; its data are elsewhere now."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    (folder / "moved").mkdir()
    for name, z in (("wat_1", [8, 1, 1]), ("met", [6, 1, 1, 1, 1]), ("out", [1, 1])):
        n, shape = 40, (len(z), 3)
        first = rng.normal(size=shape) * 2
        arrays = {"R": first + rng.normal(size=(n, *shape)) * 0.1, "E": rng.normal(size=n), "F": np.zeros((n, *shape))}
        np.savez(folder / "moved" / f"{name}.npz", Z=np.array(z), **arrays)
    net = ViSNet(CFG, rngs=nnx.Rngs(0))
    weights.save(folder / "start.safetensors", CFG, weights.tensors_of(net), units=["ALA"])
    weights.save(folder / "best.safetensors", CFG, weights.tensors_of(net), step=7, figures={"neg_error": -1.0})
    task = EnergyForceTask(
        data=(str(folder / "gone"),), model=CFG, pairs=200, exclude=("out",), start=str(folder / "start.safetensors")
    )
    cfg = TrainConfig(task=task, optim=OptimConfig(name="adamw", lr=1e-3), steps=10, evaluate_every=5)
    write_config(cfg, folder / "config.yaml", root / "experiments" / "ai2bmd" / "default.py")
    return folder


@pytest.mark.slow
def test_errors_of_data_that_have_moved(script, run, capsys):
    with pytest.raises(SystemExit) as ended:
        script["main"](["errors", "--run", str(run)])
    assert ended.value.code == 2 and "gone" in capsys.readouterr().err
    assert script["main"](["errors", "--run", str(run), "--data", str(run / "moved")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "MET", "OUT (not trained on)", "WAT", "all trained on", "left out",
    ]  # fmt: skip


def test_how_near_what_was_held_back_is(script, run, capsys):
    assert script["main"](["near", "--run", str(run), "--data", str(run / "moved")]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["MET", "WAT"]
    assert all(int(row[1]) > 0 and 0 < float(row[2]) <= float(row[3]) < 0.3 for row in rows)


def test_distances_are_those_after_superposition(script):
    rng = np.random.default_rng(1)
    one = rng.normal(size=(7, 3))
    turned = one @ Rotation.random(random_state=2).as_matrix().T + 5
    others = np.stack([turned, one * [1, 1, -1], one + rng.normal(size=one.shape)])
    found = script["distances"](one, others)
    expected = [np.sqrt(Rotation.align_vectors(one - one.mean(0), x - x.mean(0))[1] ** 2 / len(one)) for x in others]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] < 1e-6 < 0.1 < found[1]


def test_the_export_tells_the_units(script, run, root, tmp_path, monkeypatch):
    there = tmp_path / "jaxprot" / "weights"
    (there / "default").mkdir(parents=True)
    shutil.copy(root / "jaxprot" / "weights" / "registry.toml", there)
    for name, value in (("ROOT", tmp_path), ("DEFAULT", there / "default")):
        monkeypatch.setitem(script["export"].__globals__, name, value)
    assert script["main"](["export", "--run", str(run), "--data", str(run / "moved")]) == 0
    path = there / "default" / "ai2bmd.safetensors"
    assert weights.learnt(path) == ("ALA", "MET", "WAT")
    tensors, header = portable.load(path)
    assert header["step"] == 7 and json.dumps(header["config"])
    np.testing.assert_array_equal(tensors["embedding"], portable.load(run / "best.safetensors")[0]["embedding"])
    from jaxprot.io.outputs import sha256

    assert f'sha256 = "{sha256(path)}"' in (there / "registry.toml").read_text()

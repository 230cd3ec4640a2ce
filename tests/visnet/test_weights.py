"""Published files read and written, portable files, and what does not fit."""

import dataclasses

import numpy as np
import pytest

import jaxprot
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.visnet import predict, weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.weights import inspect, portable, torch_file

SIZES = {"hidden": 8, "layers": 3, "heads": 2, "rbf": 4, "max_z": 9}
CONFIGS = {
    "paper": dataclasses.replace(ViSNetConfig.paper(), **SIZES),
    "own": ViSNetConfig(**SIZES),
    "gauss, max_min": ViSNetConfig(
        **SIZES | {"layers": 1}, lmax=1, rbf_type="gauss", vecnorm="max_min", prior=False, smooth=False
    ),
    "pyg": ViSNetConfig(**SIZES | {"heads": 8}, lmax=1, vertex="edge", max_neighbors=32, smooth=False),
}


def tensors(cfg):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.shapes(cfg).items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_and_portable_files_come_back(name, tmp_path):
    cfg, values = CONFIGS[name], tensors(CONFIGS[name])
    weights.export_official(tmp_path / "a.ckpt", cfg, values)
    weights.save(tmp_path / "a.safetensors", cfg, values)
    for path in (tmp_path / "a.ckpt", tmp_path / "a.safetensors"):
        found, read = weights.read(path)
        assert found == cfg and read.keys() == values.keys()
        assert all((read[key] == values[key]).all() for key in values)
    again = weights.tensors_of(weights.assemble(cfg, values))
    assert again.keys() == values.keys() and all((again[key] == values[key]).all() for key in values)


def test_files_of_pyg_come_back(tmp_path):
    cfg, values = CONFIGS["pyg"], tensors(CONFIGS["pyg"])
    weights.export_official(tmp_path / "a.pt", cfg, values, "pyg")
    found, read = weights.read(tmp_path / "a.pt")
    assert found == cfg and all((read[key] == values[key]).all() for key in values)
    assert weights.read(tmp_path / "a.pt", lmax=2, heads=4)[0] == dataclasses.replace(cfg, lmax=2, heads=4)
    with pytest.raises(ValueError, match="ai2bmd or pyg"):
        weights.export_official(tmp_path / "b.pt", cfg, values, "other")


@pytest.mark.golden
@pytest.mark.parametrize("config", ["a", "b", "c"])
def test_official_files_are_found_and_written_as_they_are(config, goldens, tmp_path):
    path = goldens("ai2bmd") / f"visnet_{config}.ckpt"
    predictor = jaxprot.load(path)
    assert type(predictor).__module__ == "jaxprot.visnet.predict"
    weights.export_official(tmp_path / "a.ckpt", predictor.config, weights.tensors_of(predictor.module))
    theirs, ours = (torch_file.find_state_dict(torch_file.read_torch_file(p)) for p in (path, tmp_path / "a.ckpt"))
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        if not name.endswith("initial_atomref"):
            assert ours[name].shape == value.shape
            np.testing.assert_array_equal(ours[name], value)


def test_what_does_not_fit_is_told(tmp_path):
    cfg, path = CONFIGS["paper"], tmp_path / "a.ckpt"
    weights.export_official(path, cfg, tensors(cfg))
    whole = torch_file.read_torch_file(path)
    state, values = dict(whole["state_dict"]), dict(whole["hyper_parameters"])

    def refused(message, state=state, values=values):
        torch_file.write_torch_file({"state_dict": dict(state), "hyper_parameters": dict(values)}, path)
        with pytest.raises(CheckpointError, match=message):
            predict.load(path)

    short = {name: value for name, value in state.items() if "layers.1.q_proj" not in name}
    refused(r"a\.ckpt: 2 tensors missing", short)
    refused("1 tensor unexpected", state | {"model.representation_model.more": np.zeros(3, np.float32)})
    refused("of wrong shape", state | {"model.std": np.zeros(3, np.float32)})
    refused("not finite", state | {"model.mean": np.full((), np.nan, np.float32)})
    refused("hyper_parameters without num_heads", values={k: v for k, v in values.items() if k != "num_heads"})
    refused("model is 'Other'", values=values | {"model": "Other"})
    refused("vertex must be one of", values=values | {"vertex_type": "Node"})
    refused("of wrong shape", values=values | {"num_rbf": 7})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        predict.load(path)


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    portable.save(path, {"x": np.zeros(2, np.float32)}, {"system": "rmsfnet"})
    with pytest.raises(CheckpointError, match="weights of rmsfnet"):
        predict.load(path)
    cfg = CONFIGS["own"]
    weights.save(path, cfg, {k: v for k, v in tensors(cfg).items() if k != "edge.bias"})
    with pytest.raises(CheckpointError, match=r"1 tensors do not fit its header \(edge\.bias\)"):
        predict.load(path)
    weights.save(path, cfg, tensors(cfg))
    with pytest.raises(InputError, match="no option cutof of ViSNet"):
        predict.load(path, cutof=4)
    assert predict.load(path, smooth=False).config == dataclasses.replace(cfg, smooth=False)
    torch_file.write_torch_file({"a.weight": np.zeros((2, 2), np.float32)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="is this another model"):
        predict.load(tmp_path / "b.pt")


def test_a_converted_file_tells_its_sizes(tmp_path):
    cfg, values = CONFIGS["paper"], tensors(CONFIGS["paper"])
    weights.export_official(tmp_path / "a.ckpt", cfg, values)
    assert inspect.convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors")["system"] == "visnet"
    found, read = weights.read(tmp_path / "b.safetensors")
    assert found == cfg and all((read[key] == values[key]).all() for key in values)

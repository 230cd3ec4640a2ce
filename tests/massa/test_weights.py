"""Published and portable files of MASSA."""

import dataclasses

import numpy as np
import pytest

import jaxprot
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.model import Pretraining
from jaxprot.weights import inspect, module, torch_file

TINY = MASSAConfig(seq_dim=5, max_length=40, width=8, convolutions=2, kernel=3, vectors=3, layers=1, fusion_layers=1,
                   heads=2, feedforward=12, go_dim=3, go_width=4, go_layers=1, go_heads=2, go_feedforward=6,
                   cross_layers=2, go_classes=7, motif_classes=2, domain_classes=3, region_classes=4,
                   residue_classes=20, pad_mode="official", cross_mode="official")  # fmt: skip
HEADS = {"heads": 2, "go_heads": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory, random_module):
    """A file in the published layout, and what went into it."""
    _, tensors = random_module(lambda rngs: Pretraining(TINY, rngs=rngs))
    path = tmp_path_factory.mktemp("published") / "massa.pth"
    weights.export_official(path, TINY, tensors)
    return path, tensors


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.golden
def test_published_sizes_are_told_by_the_shapes(full_state, manifest):
    for name, (_, total, norm) in manifest.items():
        assert abs(full_state[name].sum(dtype=np.float64) - total) < 1e-4 * max(1, abs(total), norm)
    found = weights.from_official(full_state)
    assert found.config == MASSAConfig.paper()
    again = weights.to_official(found.config, found.tensors, found.unused)
    assert list(again) == list(manifest)
    same(again, full_state)
    assert sum(value.size for value in again.values()) == 50_686_594


@pytest.mark.golden
def test_stored_file_is_read_and_written_back(folder, tmp_path):
    path = folder / "massa_small.pth"
    found = weights.read(path, heads=4, go_heads=2)
    assert (found.config.width, found.config.vectors, found.config.cross_layers) == (16, 4, 2)
    weights.export_official(tmp_path / "again.pth", found.config, found.tensors, found.unused)
    before, after = (torch_file.read_torch_file(p) for p in (path, tmp_path / "again.pth"))
    assert list(before) == list(after)
    same(before, after)


def test_unused_tensors_are_written_anew_where_they_are_not_given(published):
    path, tensors = published
    found = weights.read(path, **HEADS)
    assert found.config == TINY
    same(found.tensors, tensors)
    unused = {name for name in found.unused if "dummy_param" not in name}
    assert {name for name in unused if ".pro_layers." not in name and ".go_layers." not in name} == {
        "seq_encoder.gn.weight", "seq_encoder.gn.bias", "struc_encoder.dense.0.weight", "struc_encoder.dense.0.bias",
        "struc_encoder.dense.3.weight", "struc_encoder.dense.3.bias",
    }  # fmt: skip
    assert "pro_go_cross_fusion.pro_layers.0.ea.w_q.weight" in unused
    assert not any(".pro_layers.1." in name for name in unused)


def test_stacked_layers_are_all_read(published):
    path, _ = published
    found = weights.read(path, cross_mode="stacked", **HEADS)
    assert "backbone.cross.protein.1.other.q.kernel" in found.tensors
    assert not any("_layers" in name and "cross" in name for name in found.unused)
    again = weights.to_official(found.config, found.tensors, found.unused)
    same(again, torch_file.read_torch_file(path))


def test_files_are_recognised_converted_and_loaded(published, tmp_path, caplog):
    path, tensors = published
    matches = inspect.examine(path).matches
    assert [(match.system, match.converter) for match in matches] == [("massa", "jaxprot.massa.weights:OFFICIAL")]
    predictor = jaxprot.load(path, **HEADS)
    assert predictor.config == TINY
    with pytest.raises(CheckpointError, match="multiple of heads"):
        jaxprot.load(path, heads=3)
    wide = dataclasses.replace(TINY, heads=8, go_heads=4)
    weights.save(tmp_path / "ours.safetensors", wide, tensors, source="a test")
    found = weights.read(tmp_path / "ours.safetensors")
    assert found.config == wide
    same(found.tensors, tensors)
    header = inspect.convert(path, tmp_path / "converted.safetensors")
    assert "8 and 4 are taken" in caplog.text  # the file does not tell
    assert header["system"] == "massa" and MASSAConfig(**header["config"]) == wide
    same(weights.read(tmp_path / "converted.safetensors").tensors, tensors)


def test_a_network_without_heads_is_loaded(published, tmp_path):
    _, tensors = published
    bare = {name: value for name, value in tensors.items() if name.startswith("backbone.")}
    weights.save(tmp_path / "bare.safetensors", TINY, bare)
    assert jaxprot.load(tmp_path / "bare.safetensors").config == TINY
    assert module.shapes(weights.blueprint(TINY, heads=False)).keys() == bare.keys()


def test_wrong_files_are_refused(published, tmp_path):
    path, tensors = published
    state = dict(torch_file.read_torch_file(path))
    broken = {name: value for name, value in state.items() if name != "seq_encoder.ln.bias"}
    broken["goterm_encoder.ln.bias"] = np.zeros(9, np.float32)
    torch_file.write_torch_file(broken, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"seq_encoder\.ln\.bias") as told:
        weights.read(tmp_path / "broken.pth", **HEADS)
    assert "goterm_encoder.ln.bias" in str(told.value) and "broken.pth" in str(told.value)
    torch_file.write_torch_file({"fc.weight": np.zeros((2, 2), np.float32)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: fits no MASSA"):
        weights.read(tmp_path / "other.pth")
    missing = {name: value for name, value in tensors.items() if not name.startswith("heads.go")}
    with pytest.raises(CheckpointError, match=r"heads\.go\.kernel"):
        weights.to_official(TINY, missing)
    with pytest.raises(InputError, match="no option wdith of MASSA"):
        jaxprot.load(path, wdith=3)


def test_a_published_file_has_the_published_heads_alone(random_module, tmp_path):
    cfg = dataclasses.replace(TINY, secondary_classes=3, burial_classes=8)
    _, tensors = random_module(lambda rngs: Pretraining(cfg, rngs=rngs))
    path = tmp_path / "o.pth"
    weights.export_official(path, cfg, tensors)
    found = weights.read(path, **HEADS).tensors
    ours = {name: value for name, value in tensors.items() if ".secondary." not in name and ".burial." not in name}
    assert len(ours) == len(tensors) - 4
    same(found, ours)

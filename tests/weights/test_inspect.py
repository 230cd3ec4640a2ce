import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.outputs import sha256
from jaxprot.loading import detect_system
from jaxprot.weights import inspect, portable, registry

LAYOUTS = {
    "v_48_020.pt": "jaxprot.proteinmpnn.weights:OFFICIAL",
    "thermoMPNN_default.pt": "jaxprot.thermompnn.weights:OFFICIAL",
    "ThermoMPNN-ens1.ckpt": "jaxprot.thermompnn.weights:ADDITIVE",
    "ThermoMPNN-D-ens1.ckpt": "jaxprot.thermompnn.weights:EPISTATIC",
}


@pytest.mark.golden
@pytest.mark.parametrize(("name", "table"), LAYOUTS.items())
def test_published_layouts_are_told_apart_and_converted(name, table, golden_checkpoint, tmp_path):
    path = golden_checkpoint(name)
    found = inspect.examine(path)
    assert [match.converter for match in found.matches] == [table]
    assert set(found.reasons) == set(registry.layouts()) - {table} >= set(LAYOUTS.values()) - {table}
    assert detect_system(path) == found.matches[0].system

    header = inspect.convert(path, tmp_path / "w.safetensors")
    tensors, written = portable.load(tmp_path / "w.safetensors")
    assert written == header
    assert header["source"]["sha256"] == sha256(path)
    assert (header["system"], header["converter"]) == (found.matches[0].system, table)
    assert all(array.dtype == np.float32 for array in tensors.values())
    assert detect_system(tmp_path / "w.safetensors") == header["system"]


def test_unknown_tensors_fit_no_system(tmp_path):
    path = tmp_path / "w.safetensors"
    portable.save(path, {"a": np.zeros(3, np.float32)}, {})
    assert inspect.examine(path).matches == ()
    with pytest.raises(CheckpointError, match=r"w\.safetensors: fits no system"):
        detect_system(path)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: fits no system"):
        inspect.convert(path, tmp_path / "out.safetensors")


def test_kind_is_told_by_content(writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    kind, tensors, values = inspect.read(writer.write(tmp_path / "a.bin", obj, storages))
    assert (kind, set(tensors), values) == ("torch", {"weight", "bias"}, {"epoch": 3})
    portable.save(tmp_path / "b.safetensors", {"a": np.zeros(3, np.float32)}, {"system": "x"})
    (tmp_path / "b.safetensors").rename(tmp_path / "b.bin")
    assert inspect.read(tmp_path / "b.bin")[0] == "safetensors"


def test_unknown_system_and_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        inspect.examine(tmp_path / "none.pt")
    path = tmp_path / "w.safetensors"
    portable.save(path, {"a": np.zeros(3, np.float32)}, {})
    with pytest.raises(InputError, match="no converter for system 'bogus'"):
        inspect.convert(path, tmp_path / "out.safetensors", "bogus")

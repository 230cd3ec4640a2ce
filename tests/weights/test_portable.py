import ml_dtypes
import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.weights import portable


def test_round_trip(tmp_path):
    tensors = {
        "a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        "b": np.array([1.5], ml_dtypes.bfloat16),
        "c": np.array(3, np.int64),
    }
    header = {"system": "thermompnn", "config": {"width": 128, "name": "ä"}}
    portable.save(tmp_path / "w.safetensors", tensors, header)
    read, read_header = portable.load(tmp_path / "w.safetensors")
    assert read_header == header
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_file_of_another_program_has_an_empty_header(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "w.safetensors")
    assert portable.load(tmp_path / "w.safetensors")[1] == {}
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "w.safetensors", metadata={"jaxprot": "[1]"})
    with pytest.raises(CheckpointError, match="not a JSON object"):
        portable.load(tmp_path / "w.safetensors")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "w.safetensors", metadata={"jaxprot": "{"})
    with pytest.raises(CheckpointError, match="not a readable"):
        portable.load(tmp_path / "w.safetensors")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        portable.load(tmp_path / "w.safetensors")

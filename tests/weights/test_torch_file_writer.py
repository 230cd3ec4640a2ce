"""Checkpoints in PyTorch's layout, written and read back."""

import collections
import pickletools
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxprot.core.errors import OutputError
from jaxprot.weights.torch_file import read_torch_file, write_torch_file


def test_containers_numbers_and_arrays_come_back(tmp_path):
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    obj = {
        "model": collections.OrderedDict(weight=shared, transposed=shared.T, scalar=np.full((), 3.0, np.float32)),
        "epoch": 3, "rate": 0.5, "name": "é", "flags": [True, None, (1, 2)], "again": shared, "empty": np.zeros((0, 4)),
    }  # fmt: skip
    write_torch_file(obj, tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")
    for key in ("epoch", "rate", "name", "flags"):
        assert read[key] == obj[key]
    for key, value in obj["model"].items():
        assert read["model"][key].shape == value.shape
        np.testing.assert_array_equal(read["model"][key], value)
    np.testing.assert_array_equal(read["again"], shared)
    assert read["empty"].shape == (0, 4)


@pytest.mark.parametrize("kind", ["f8", "f4", ">f4", "f2", "bf16", "i8", "i4", "i2", "i1", "u1", "b1", "c8"])
def test_types_of_numbers(kind, tmp_path):
    data = np.array([0, 1, 3]).astype(ml_dtypes.bfloat16 if kind == "bf16" else kind)
    write_torch_file({"x": data}, tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")["x"]
    assert read.dtype == (np.float32 if kind == ">f4" else data.dtype)
    np.testing.assert_array_equal(read, data)


def test_records_are_stored_aligned_and_the_file_is_the_same_each_time(tmp_path):
    obj = {"a": np.ones(5, np.float32), "b": np.ones(7, np.uint8)}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_torch_file(obj, tmp_path / folder / "net.pt")
    assert (tmp_path / "one" / "net.pt").read_bytes() == (tmp_path / "two" / "net.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "net.pt") as archive:
        names = archive.namelist()
        assert names == [
            f"net/{name}"
            for name in (
                "data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0", "data/1", "version",
                ".data/serialization_id",
            )
        ]  # fmt: skip
        for info in archive.infolist():
            archive.fp.seek(info.header_offset + 26)
            start = info.header_offset + 30 + sum(struct.unpack("<HH", archive.fp.read(4)))
            assert start % 64 == 0 and info.compress_type == zipfile.ZIP_STORED
        described = archive.read("net/data.pkl")
    called = [value for code, value, _ in pickletools.genops(described) if code.name == "GLOBAL"]
    assert called == [
        "torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict", "torch ByteStorage"
    ]  # fmt: skip
    assert not any(code.name == "STACK_GLOBAL" for code, _, _ in pickletools.genops(described))


@pytest.mark.parametrize(
    ("value", "match"),
    [(np.array(["a"]), "array of"), (np.float32(1), "float32"), ({1, 2}, "set"), (len, "function")],
    ids=["text", "a numpy number", "set", "function"],
)
def test_what_has_no_place_in_such_a_file_is_refused(value, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write_torch_file({"x": value}, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_torch_file({}, tmp_path / "file" / "a.pt")

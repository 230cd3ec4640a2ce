import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.weights.torch_file import Stub, find_state_dict, read_torch_file

BACKBONE_SHAPES = {
    "features.embeddings.linear.weight": (16, 66),
    "features.embeddings.linear.bias": (16,),
    "features.edge_embedding.weight": (128, 416),
    "features.norm_edges.weight": (128,),
    "W_e.weight": (128, 128),
    "W_s.weight": (21, 128),
    "W_out.weight": (21, 128),
    "W_out.bias": (21,),
    "encoder_layers.2.W1.weight": (128, 384),
    "encoder_layers.0.W11.weight": (128, 384),
    "encoder_layers.1.W13.bias": (128,),
    "encoder_layers.1.dense.W_in.weight": (512, 128),
    "encoder_layers.1.dense.W_out.weight": (128, 512),
    "decoder_layers.2.W1.weight": (128, 512),
    "decoder_layers.0.norm2.bias": (128,),
}
HEADS = {
    "v_48_020.pt": {},
    "thermoMPNN_default.pt": {
        "light_attention.feature_convolution.weight": (384, 384, 9),
        "light_attention.attention_convolution.bias": (384,),
        "both_out.1.weight": (64, 384),
        "both_out.5.bias": (21,),
        "ddg_out.weight": (1, 1),
        "ddg_out.bias": (1,),
    },
    "ThermoMPNN-ens1.ckpt": {
        "light_attention.feature_convolution.weight": (384, 384, 1),
        "ddg_out.1.weight": (64, 384),
        "ddg_out.5.weight": (21, 32),
    },
    "ThermoMPNN-D-ens1.ckpt": {
        "light_attention.0.weight": (512,),
        "light_attention.1.weight": (128, 512),
        "ddg_out.0.weight": (128, 256),
        "ddg_out.6.bias": (1,),
    },
}


@pytest.mark.golden
@pytest.mark.parametrize("name", HEADS)
def test_published_layouts_are_read_without_torch(name, golden_checkpoint):
    tensors = find_state_dict(read_torch_file(golden_checkpoint(name)))
    prefix = "" if name.startswith("v_") else "model.prot_mpnn."
    expected = {prefix + key: shape for key, shape in BACKBONE_SHAPES.items()}
    expected |= {f"model.{key}": shape for key, shape in HEADS[name].items()}
    assert {key: tensors[key].shape for key in expected} == expected
    assert sum(key.startswith(prefix) for key in tensors) == 118
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in tensors.values())


@pytest.mark.golden
def test_plain_values_of_a_published_file_survive(golden_checkpoint):
    obj = read_torch_file(golden_checkpoint("v_48_020.pt"))
    assert (obj["num_edges"], obj["noise_level"]) == (48, 0.2)
    assert len(obj["model_state_dict"]) == 118


def test_state_dict_of_parameters(writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    read = read_torch_file(writer.write(tmp_path / "a.pt", obj, storages))
    assert read["epoch"] == 3
    tensors = find_state_dict(read)
    np.testing.assert_array_equal(tensors["weight"], storages["0"])
    np.testing.assert_array_equal(tensors["bias"], storages["1"])


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"])
def test_number_types(kind, writer, tmp_path):
    data = np.array([0, 1, 5, 100]).astype(kind)
    path = writer.write(tmp_path / "a.pt", {"x": writer.Tensor("0", 4, kind, (4,), (1,))}, {"0": data})
    array = read_torch_file(path)["x"]
    assert array.dtype == np.dtype(kind)
    np.testing.assert_array_equal(array, data)


def test_bfloat16(writer, tmp_path):
    data = np.array([1.5, -2.0, 3e38], ml_dtypes.bfloat16)
    path = writer.write(tmp_path / "a.pt", {"x": writer.Tensor("0", 3, "bf16", (3,), (1,))}, {"0": data})
    np.testing.assert_array_equal(read_torch_file(path)["x"], data)


def test_views_share_a_storage(writer, tmp_path):
    data = np.arange(24, dtype="f4")
    views = {
        "transposed": writer.Tensor("0", 24, "f4", (4, 6), (1, 4)),
        "part": writer.Tensor("0", 24, "f4", (2, 3), (6, 2), offset=1),
        "expanded": writer.Tensor("0", 24, "f4", (3, 4), (0, 1), offset=20),
        "scalar": writer.Tensor("0", 24, "f4", (), (), offset=7),
        "empty": writer.Tensor("0", 24, "f4", (0, 5), (5, 1)),
    }
    read = read_torch_file(writer.write(tmp_path / "a.pt", views, {"0": data}))
    np.testing.assert_array_equal(read["transposed"], data.reshape(6, 4).T)
    np.testing.assert_array_equal(read["part"], [[1, 3, 5], [7, 9, 11]])
    np.testing.assert_array_equal(read["expanded"], np.tile(data[20:], (3, 1)))
    assert read["scalar"].shape == ()
    assert read["scalar"] == 7
    assert read["empty"].shape == (0, 5)


def test_big_endian_file(writer, tmp_path):
    data = np.arange(3, dtype=">f4")
    path = writer.write(
        tmp_path / "a.pt", {"x": writer.Tensor("0", 3, "f4", (3,), (1,))}, {"0": data}, extra={"byteorder": "big"}
    )
    np.testing.assert_array_equal(read_torch_file(path)["x"], [0, 1, 2])


def test_numpy_values(writer, tmp_path):
    call, name = writer.Call, writer.Global
    kind = call(name("numpy", "dtype"), "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    scalar = call(name("numpy._core.multiarray", "scalar"), kind, np.float64(2.5).tobytes())
    array = call(
        name("numpy.core.multiarray", "_reconstruct"),
        name("numpy", "ndarray"),
        (0,),
        b"b",
        state=(1, (2, 2), kind, False, np.arange(4.0).tobytes()),
    )
    read = read_torch_file(writer.write(tmp_path / "a.pt", {"loss": scalar, "curve": array}))
    assert read["loss"] == 2.5
    np.testing.assert_array_equal(read["curve"], [[0, 1], [2, 3]])


def test_objects_of_unknown_classes_become_stubs(writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    callback = writer.Call(
        writer.Global("lightning.callbacks", "ModelCheckpoint"), "dir", 3, state={"best": 0.5, "monitor": "loss"}
    )
    obj["callbacks"] = {writer.Global("some.module", "Callback"): callback}
    obj["optimizer"] = writer.Call(writer.Global("torch.optim", "Adam"), [1])
    obj["sizes"] = writer.Call(writer.Global("torch", "Size"), [2, 3])
    obj["where"] = writer.Call(writer.Global("torch", "device"), "cuda", 0)
    obj["dtype"] = writer.Global("torch", "bfloat16")
    obj["tags"] = writer.Call(writer.Global("__builtin__", "set"), ["a"])
    read = read_torch_file(writer.write(tmp_path / "a.ckpt", obj, storages))
    stub = read["callbacks"]["some.module.Callback"]
    assert isinstance(stub, Stub)
    assert stub.args == ("dir", 3)
    assert stub.state["monitor"] == "loss"
    assert "ModelCheckpoint" in repr(stub)
    assert isinstance(read["optimizer"], Stub)
    assert (read["sizes"], read["where"], read["dtype"], read["tags"]) == ((2, 3), "cuda:0", "bfloat16", {"a"})


def test_unknown_modules_are_never_imported(writer, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = writer.write(tmp_path / "a.pt", {"x": writer.Call(writer.Global("trap", "anything"), 1)})
    assert isinstance(read_torch_file(path)["x"], Stub)


def test_loops_and_shared_parts_keep_their_shape(writer, tmp_path):
    shared = [1, 2]
    loop = {"a": shared, "b": shared}
    loop["self"] = loop
    read = read_torch_file(writer.write(tmp_path / "a.pt", loop))
    assert read["self"] is read
    assert read["a"] is read["b"]


def test_no_tensors_is_an_error():
    with pytest.raises(CheckpointError, match="no named tensors"):
        find_state_dict({"epoch": 1})
    with pytest.raises(CheckpointError, match="no named tensors"):
        find_state_dict([1, 2])


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pt: no such file"):
        read_torch_file(tmp_path / "absent.pt")


def test_compressed_records_are_read(writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    path = writer.write(tmp_path / "a.pt", obj, storages, compression=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(find_state_dict(read_torch_file(path))["weight"], storages["0"])

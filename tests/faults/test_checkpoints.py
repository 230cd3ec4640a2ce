"""Damaged, wrong and malicious files of weights: a clear error that names the file, and nothing is run."""

import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from jaxprot.core.errors import CheckpointError, JaxprotError
from jaxprot.weights import inspect, portable
from jaxprot.weights.torch_file import find_state_dict, read_torch_file

ATTACKS = {
    "os.system": ("os", "system", "touch {mark}"),
    "posix.system": ("posix", "system", "touch {mark}"),
    "nt.system": ("nt", "system", "touch {mark}"),
    "builtins.eval": ("builtins", "eval", "open({mark!r}, 'w')"),
    "builtins.exec": ("builtins", "exec", "open({mark!r}, 'w')"),
    "builtins.open": ("builtins", "open", "{mark}", "w"),
    "builtins.getattr": ("builtins", "getattr", "x", "upper"),
    "builtins.__import__": ("builtins", "__import__", "os"),
    "__builtin__.eval": ("__builtin__", "eval", "1"),
    "subprocess.Popen": ("subprocess", "Popen", ["touch", "{mark}"]),
    "importlib.import_module": ("importlib", "import_module", "os"),
    "shutil.rmtree": ("shutil", "rmtree", "{mark}"),
    "pickle.loads": ("pickle", "loads", b"."),
    "runpy.run_path": ("runpy", "run_path", "{mark}"),
    "ctypes.CDLL": ("ctypes", "CDLL", "libc.so.6"),
    "operator.attrgetter": ("operator", "attrgetter", "system"),
    "types.FunctionType": ("types", "FunctionType", 1),
    "sys.exit": ("sys", "exit", 0),
    "os.path.join": ("os.path", "join", "a"),
    "torch.os.system": ("torch", "os.system", "touch {mark}"),
    "torch.load": ("torch", "load", "{mark}"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_malicious_pickle_is_refused_by_name_and_does_not_run(name, writer, tmp_path):
    mark = tmp_path / "mark"
    module, attribute, *arguments = ATTACKS[name]
    arguments = [text.format(mark=str(mark)) if isinstance(text, str) else text for text in arguments]
    obj, storages = writer.state_dict(np.random.default_rng(0))
    obj["callbacks"] = writer.Call(writer.Global(module, attribute), *arguments)
    path = writer.write(tmp_path / "bad.ckpt", obj, storages)
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: refused") as caught:
        read_torch_file(path)
    assert f"{module}.{attribute}" in str(caught.value)
    assert not mark.exists()


def test_the_attack_would_work_on_a_plain_pickle(tmp_path):
    """Without this the tests above could pass since the attack itself is broken."""

    class Attack:
        def __init__(self, mark):
            self.mark = mark

        def __reduce__(self):
            return os.mkdir, (self.mark,)

    mark = str(tmp_path / "mark")
    data = pickle.dumps(Attack(mark), protocol=2)
    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(CheckpointError, match=r"(posix|nt)\.mkdir"):
        read_torch_file(path)
    assert not os.path.exists(mark)
    pickle.loads(data)
    assert os.path.exists(mark)


@pytest.mark.parametrize("opcode", ["INST", "OBJ", "NEWOBJ", "STACK_GLOBAL"])
def test_other_ways_to_name_a_function_are_refused(opcode, tmp_path):
    mark = tmp_path / "mark"
    text = f"touch {mark}"
    unicode = pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()
    data = {
        "INST": b"(" + unicode + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + unicode + b"o.",
        "NEWOBJ": b"\x80\x02cposix\nsystem\n" + unicode + b"\x85\x81.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + unicode + b"\x85R.",
    }[opcode]
    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        read_torch_file(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), ("torch", "FloatStorage"), ("x", "y")],
    ids=lambda target: ".".join(target),
)
def test_attributes_of_the_readers_own_parts_cannot_be_set(target, writer, tmp_path):
    # A BUILD on the name itself, not on an object made with it.
    path = writer.write(tmp_path / "bad.pt", b"\x80\x02c" + f"{target[0]}\n{target[1]}\n".encode() + b"}U\x01aK\x01sb.")
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        read_torch_file(path)
    obj, storages = writer.state_dict(np.random.default_rng(0))
    np.testing.assert_array_equal(
        find_state_dict(read_torch_file(writer.write(tmp_path / "good.pt", obj, storages)))["weight"], storages["0"]
    )


@pytest.mark.parametrize("part", range(10))
def test_truncated_checkpoint(part, writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    whole = writer.write(tmp_path / "whole.pt", obj, storages).read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: len(whole) * part // 10])
    with pytest.raises(CheckpointError, match=r"cut\.pt: .*again"):
        read_torch_file(path)


@pytest.mark.golden
def test_truncated_published_checkpoint(golden_checkpoint, tmp_path):
    whole = golden_checkpoint("v_48_020.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for part in range(10):
        path.write_bytes(whole[: len(whole) * part // 10])
        with pytest.raises(CheckpointError, match=r"cut\.pt: .*again"):
            read_torch_file(path)


def test_flipped_bytes_give_a_result_or_an_error_that_names_the_file(writer, tmp_path):
    obj, storages = writer.state_dict(np.random.default_rng(0))
    whole = writer.write(tmp_path / "whole.pt", obj, storages).read_bytes()
    path = tmp_path / "flipped.pt"
    random_ = random.Random(0)
    failed = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random_.choice((1, 1, 4))):
            data[random_.randrange(len(data))] = random_.randrange(256)
        path.write_bytes(data)
        try:
            read_torch_file(path)
        except CheckpointError as error:
            assert "flipped.pt" in str(error)
            failed += 1
    assert failed > 100


def test_flipped_pickle_opcodes_never_run_anything(writer, tmp_path):
    """The zip's own checksum hides most damage from the unpickler, so here the pickle is damaged inside a sound zip."""
    obj, storages = writer.state_dict(np.random.default_rng(0))
    obj["callbacks"] = writer.Call(writer.Global("some.module", "Callback"), 1, state={"a": 1})
    whole = writer.dumps(obj)
    random_ = random.Random(1)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(random_.choice((1, 2, 8))):
            data[random_.randrange(len(data))] = random_.randrange(256)
        path = writer.write(tmp_path / "flipped.pt", bytes(data), storages)
        try:
            read_torch_file(path)
        except CheckpointError as error:
            assert "flipped.pt" in str(error)


def tensor_case(writer, **change):
    return {"x": writer.Tensor(**{"key": "0", "count": 6, "kind": "f4", "size": (2, 3), "stride": (3, 1)} | change)}


@pytest.mark.parametrize(
    "change",
    [
        {"size": (2, 4)},
        {"offset": 1},
        {"offset": -1},
        {"stride": (-3, 1)},
        {"stride": (3,)},
        {"size": (-1, 3)},
        {"size": (2**40, 2**40), "stride": (0, 0)},
        {"count": 7},
        {"count": 5},
        {"key": "../../data.pkl"},
        {"key": "9"},
        {"size": ("a", 3)},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_their_storage(change, writer, tmp_path):
    path = writer.write(tmp_path / "bad.pt", tensor_case(writer, **change), {"0": np.zeros(6, "f4")})
    with pytest.raises(CheckpointError, match=r"bad\.pt: .*again"):
        read_torch_file(path)


def test_decompression_bomb(writer, tmp_path):
    path = writer.write(
        tmp_path / "bomb.pt",
        tensor_case(writer),
        {"0": bytes(24), "1": bytes(100 * 2**20)},
        compression=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(CheckpointError, match=r"bomb\.pt: .*bomb"):
        read_torch_file(path)


def test_large_memo_number_allocates_nothing(writer, tmp_path):
    path = writer.write(tmp_path / "a.pt", b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_torch_file(path) == {}


def test_deep_nesting(writer, tmp_path):
    path = writer.write(tmp_path / "deep.pt", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(CheckpointError, match=r"deep\.pt"):
        read_torch_file(path)


def test_legacy_layout_names_the_remedy(writer, tmp_path):
    with pytest.raises(CheckpointError, match=r"old\.pt: .*before 1\.6.*torch\.save\(torch\.load"):
        read_torch_file(writer.write_legacy(tmp_path / "old.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"ATOM      1  N   MET A   1\n", "not a PyTorch checkpoint"),
    ],
    ids=["empty", "web page", "git-lfs pointer", "a structure"],
)
def test_other_files_are_told_apart(content, message, tmp_path):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"other\.pt: .*{message}"):
        read_torch_file(path)


def test_other_zip_archives(writer, tmp_path):
    path = tmp_path / "other.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        read_torch_file(path)
    writer.write(path, {}, extra={"constants.pkl": b"."})
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_torch_file(path)


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_truncated_portable_file(cut, tmp_path):
    path = tmp_path / "cut.safetensors"
    portable.save(path, {"a": np.ones(3, np.float32)}, {"system": "thermompnn"})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: .*again"):
        portable.load(path)


@pytest.mark.golden
def test_checkpoint_of_another_model_tells_what_is_wrong(golden_checkpoint, tmp_path):
    path = golden_checkpoint("v_48_020.pt")
    with pytest.raises(CheckpointError, match=r"v_48_020\.pt: fits no system") as caught:
        inspect.convert(path, tmp_path / "out.safetensors", "thermompnn")
    assert "missing" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_every_failure_is_a_kind_the_command_line_prints(writer, tmp_path):
    path = writer.write(tmp_path / "bad.pt", {"x": 1})
    with pytest.raises(JaxprotError, match=r"bad\.pt: no named tensors"):
        inspect.read(path)

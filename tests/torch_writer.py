"""Writes files in PyTorch's layouts without PyTorch, good and bad ones, for the tests of the reader."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

STORAGE = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage"}
STORAGE |= {"i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage", "b1": "BoolStorage"}
STORAGE["bf16"] = "BFloat16Storage"


class Tensor:
    """A tensor to be written: a storage by its key, and the view on it."""

    def __init__(self, key: str, count: int, kind: str, size, stride, offset=0, parameter=False):
        self.key, self.count, self.kind = key, count, kind
        self.size, self.stride, self.offset, self.parameter = tuple(size), tuple(stride), offset, parameter


class Global:
    """A name that the pickle asks for."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """`function(*arguments)` when the pickle is read, with a state set afterwards if given."""

    def __init__(self, function: Global, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state


class Pickler(pickle._Pickler):
    """Writes names as they are, existing or not."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(tuple(obj.arguments))
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        elif isinstance(obj, Tensor):
            self.save_tensor(obj)
        elif type(obj) is OrderedDict:
            self.save(Call(Global("collections", "OrderedDict")))
            self._batch_setitems(obj.items())
        else:
            super().save(obj, save_persistent_id)

    def save_tensor(self, tensor):
        if tensor.parameter:
            self.save(Global("torch._utils", "_rebuild_parameter"))
            self.write(pickle.MARK)
        self.save(Global("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        for part in ("storage", Global("torch", STORAGE[tensor.kind]), tensor.key, "cpu", tensor.count):
            self.save(part) if part != "storage" else (self.write(pickle.MARK), self.save(part))
        self.write(pickle.TUPLE + pickle.BINPERSID)
        for part in (tensor.offset, tensor.size, tensor.stride, False, OrderedDict()):
            self.save(part)
        self.write(pickle.TUPLE + pickle.REDUCE)
        if tensor.parameter:
            self.save(True)
            self.save(OrderedDict())
            self.write(pickle.TUPLE + pickle.REDUCE)


def dumps(obj) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(obj)
    return stream.getvalue()


def write(path: Path, obj, storages=None, *, root="archive", extra=None, compression=zipfile.ZIP_STORED) -> Path:
    """A checkpoint of `obj` (or of raw pickle bytes) with records of raw bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", obj if isinstance(obj, bytes) else dumps(obj))
        for key, data in (storages or {}).items():
            archive.writestr(f"{root}/data/{key}", data.tobytes() if isinstance(data, np.ndarray) else data)
        archive.writestr(f"{root}/version", "3\n")
        for name, data in (extra or {}).items():
            archive.writestr(f"{root}/{name}", data)
    return path


def write_legacy(path: Path) -> Path:
    """The layout before PyTorch 1.6: several pickles in a row."""
    with open(path, "wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({"little_endian": True}, file, protocol=2)
        pickle.dump({"weight": [1.0]}, file, protocol=2)
        file.write(struct.pack("<q", 1))
    return path


def state_dict(rng) -> tuple[dict, dict]:
    """A small state dict in float32, and its records."""
    weight, bias = rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=3).astype("f4")
    tensors = OrderedDict(
        weight=Tensor("0", 12, "f4", (3, 4), (4, 1), parameter=True), bias=Tensor("1", 3, "f4", (3,), (1,))
    )
    return {"state_dict": tensors, "epoch": 3}, {"0": weight, "1": bias}

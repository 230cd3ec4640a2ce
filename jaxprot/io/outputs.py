"""Where results go: run directories, atomic writes, and the record of a run (`run.json`)."""

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxprot._version import __version__
from jaxprot.core.errors import JaxprotError, OutputError

_RECORDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "gemmi", "scipy", "ott-jax")
_counter = itertools.count()


class RunDirectory:
    """The folder that a command writes into.

    Nothing is created before the first file, so that a run that ends with wrong input leaves nothing behind.

    Args:
      path: the folder; made when needed.
      overwrite: allow a folder that already holds something; files of the same name are replaced, others are kept.

    Raises:
      OutputError: the folder holds something and `overwrite` is off, or the path is a file.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool = False):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; give a folder with -o")
        if self.path.is_dir() and not overwrite:
            held = sorted(item.name for item in self.path.iterdir() if not item.name.startswith("."))
            if held:
                shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
                raise OutputError(f"{self.path}: already holds {shown}; give another folder with -o, or --overwrite")

    def folder(self, stem: str | None = None) -> Path:
        """The folder itself, or the one of input `stem` in it; made if it is not there."""
        path = self.path if stem is None else self.path / stem
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be made ({error.strerror or error})") from error
        return path

    def file(self, name: str, stem: str | None = None) -> Path:
        """Path of a file in the folder (of input `stem`)."""
        return self.folder(stem) / name


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    The temporary name ends like the final one, so writers that look at the suffix do the same for both. Missing
    folders are made.

    Raises:
      OutputError: the file cannot be written (no permission, disk full, ...).
    """
    path = Path(path)
    temporary = path.parent / f".part-{os.getpid()}-{next(_counter)}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, JaxprotError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes JSON atomically; numpy numbers and arrays, paths and dataclasses are allowed, NaN becomes null."""
    write_text(path, json.dumps(_jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def keep_settings(folder: str | os.PathLike, settings: Mapping[str, Any], anew: bool = False) -> None:
    """Notes in `settings.json` what a folder's files were made with, so that a resumed run cannot mix two recipes.

    Args:
      folder: made if need be.
      settings: of the run.
      anew: whether the run begins, whatever the folder holds.

    Raises:
      OutputError: the folder was made with other settings, or holds files and no note of them.
    """
    path = Path(folder) / "settings.json"
    wanted = json.loads(json.dumps(_jsonable(settings)))
    if path.exists() and not anew:
        found = json.loads(path.read_text("utf-8"))
        if found != wanted:
            changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            raise OutputError(f"{folder}: made with other settings ({', '.join(changed)}); choose another folder")
    elif not anew and path.parent.is_dir() and any(path.parent.iterdir()):
        raise OutputError(f"{folder}: holds files and no settings.json that tells how they were made; choose another")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)


def sha256(path: str | os.PathLike) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Iterable[str | os.PathLike]) -> dict[str, str | None]:
    """Path -> hash of its bytes; None for what cannot be read."""
    result: dict[str, str | None] = {}
    for path in paths:
        try:
            result[os.fspath(path)] = sha256(path)
        except OSError:
            result[os.fspath(path)] = None
    return result


def write_run_json(directory: str | os.PathLike, content: Mapping[str, Any]) -> Path:
    """Writes `run.json`: what is needed to repeat a run.

    Args:
      directory: folder of the run.
      content: for instance `command`, `arguments`, `seed`, `inputs` and `weights` (`hashes(...)`), `timings` (s),
        `failed`. Versions, platform and the time are added.

    Returns:
      Path of the file.
    """
    record = {
        "jaxprot": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **content,
        "versions": versions(),
        "platform": {"python": platform.python_version(), "system": sys.platform, "machine": platform.machine()},
    }
    path = Path(directory) / "run.json"
    write_json(path, record)
    return path


def versions(names: Iterable[str] = _RECORDED) -> dict[str, str | None]:
    """Versions of installed packages, read without importing them; None for those not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _jsonable(value.tolist())  # type: ignore[union-attr]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    return str(value)

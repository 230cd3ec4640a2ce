"""Looks into a file of weights: its tensors, its header, and the systems that can read it."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.outputs import sha256
from jaxprot.weights import foreign, portable, registry, torch_file
from jaxprot.weights.convert import rename


@dataclasses.dataclass(frozen=True)
class Match:
    """A system that can use a file.

    Attributes:
      system: its name.
      converter: `module:TABLE` for a foreign layout, empty for our own.
    """

    system: str
    converter: str = ""


@dataclasses.dataclass(frozen=True)
class Examined:
    """What a file holds.

    Attributes:
      path: the file.
      kind: `safetensors` or `torch`.
      tensors: name -> array.
      header: our header; for a foreign file the plain values beside its tensors.
      matches: systems that can read it.
      reasons: table -> why it does not fit.
      told: what it is and what to use instead, for well-known files that no system reads.
    """

    path: Path
    kind: str
    tensors: Mapping[str, np.ndarray]
    header: Mapping[str, Any]
    matches: tuple[Match, ...]
    reasons: Mapping[str, str]
    told: str = ""


def read(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """Kind, tensors and header of a `.safetensors`, `.pt`, `.pth` or `.ckpt` file, told apart by content.

    Raises:
      InputError: no such file.
      CheckpointError: damaged, refused, or well known and of a network that no system has.
    """
    kind, tensors, header = _read(Path(path))
    if told := foreign.of_tensors(tensors):
        raise CheckpointError(f"{path}: {told}")
    return kind, tensors, header


def _read(path: Path) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        tensors, header = portable.load(path)
        return "safetensors", tensors, header
    obj = torch_file.read_torch_file(path)
    try:
        tensors = torch_file.find_state_dict(obj)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    values = {key: value for key, value in obj.items() if isinstance(value, (bool, int, float, str))}
    return "torch", tensors, values


def examine(path: str | os.PathLike) -> Examined:
    """Reads a file and tries every known table on it.

    Raises:
      InputError: no such file.
      CheckpointError: damaged or refused.
    """
    path = Path(path)
    kind, tensors, header = _read(path)
    if kind == "safetensors" and "system" in header:
        return Examined(path, kind, tensors, header, (Match(str(header["system"])),), {})
    matches: list[Match] = []
    reasons: dict[str, str] = {}
    for name, system in registry.layouts().items():
        try:
            rules, ignored = registry.table(name)
            rename(tensors, rules, ignored, source=str(path))
        except CheckpointError as error:
            reasons[name] = _reason(path, error)
        except ImportError as error:
            reasons[name] = f"not in this installation ({error})"
        else:
            matches.append(Match(system, name))
    return Examined(path, kind, tensors, header, tuple(matches), reasons, foreign.of_tensors(tensors))


def convert(path: str | os.PathLike, target: str | os.PathLike, system: str | None = None) -> dict[str, Any]:
    """Writes a foreign checkpoint as one portable file.

    Args:
      path: official `.pt`, `.pth` or `.ckpt` file.
      target: `.safetensors` file to write.
      system: whose tables to try; by default all.

    Returns:
      The header written.

    Raises:
      InputError: no such file or system.
      CheckpointError: damaged, refused, or of another model (every misfit is listed).
    """
    path = Path(path)
    _, tensors, values = read(path)
    names = {name: of for name, of in registry.layouts().items() if system is None or of == system}
    if not names:
        known = sorted(set(registry.layouts().values()))
        raise InputError(f"no converter for system {system!r}; known: {', '.join(known)}")
    failures: dict[str, CheckpointError] = {}
    for name, of in names.items():
        rules, ignored = registry.table(name)
        try:
            ours = rename(tensors, rules, ignored, source=str(path))
        except CheckpointError as error:
            failures[name] = error
            continue
        form = registry.portable_form(name)
        ours, more = (ours, {}) if form is None else form(path)
        header = {
            **more,
            "system": of,
            "converter": name,
            "source": {"file": path.name, "sha256": sha256(path), "values": values},
        }
        portable.save(target, ours, header)
        return header
    if len(failures) == 1:
        raise next(iter(failures.values()))
    reasons = [f"  {name}: {_reason(path, error)}" for name, error in failures.items()]
    raise CheckpointError("\n".join([f"{path}: fits no system", *reasons, "`jaxprot weights inspect` lists its keys."]))


def _reason(path: Path, error: CheckpointError) -> str:
    return str(error).partition("\n")[0].removeprefix(f"{path}: ")

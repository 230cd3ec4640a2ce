"""`jaxprot weights list|fetch|convert|inspect`."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated

import tyro

from jaxprot.core.errors import InputError, OutputError


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
    """Lists the weights that jaxprot knows by name, and whether they are at hand."""
    from jaxprot.weights import registry

    rows = [entry for entry in registry.entries().values() if options.system in (None, entry.system)]
    if not rows:
        systems = sorted({entry.system for entry in registry.entries().values()})
        raise InputError(f"{options.system}: no weights of such a system; one of {', '.join(systems)}")
    if options.json:
        table = [{**dataclasses.asdict(row), "present": row.is_present, "path": str(row.path)} for row in rows]
        print(json.dumps(table, indent=2))
        return 0
    cells = [("name", "state", "MB", "licence", "description")]
    for row in rows:
        absent = "missing" if row.file else "by hand" if row.page else "to fetch"
        state = ("shipped" if row.file else "fetched") if row.is_present else absent
        size = row.path.stat().st_size / 1e6 if row.is_present else row.megabytes
        cells.append((row.name, state, f"{size:.1f}" if size else "", row.licence, row.description))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Options of `weights fetch`."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Registered names (`jaxprot weights list`)."""
    debug: bool = False
    """Show tracebacks."""


def fetch(options: FetchOptions) -> int:
    """Downloads published weights into the cache, checks them, and prints where they are."""
    from jaxprot.weights import registry

    if not options.names:
        raise InputError("name the weights to fetch; `jaxprot weights list` shows all")
    known = registry.entries()
    for name in options.names:
        if name not in known:
            registry.resolve(name)  # explains itself
            raise InputError(f"{name}: is a file already; only registered names can be fetched")
    for name in options.names:
        print(registry.fetch(known[name]))
    return 0


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
        print("can be read by: no system of this version")
    for name, reason in found.reasons.items():
        print(f"  not {name}: {reason}")
    return 0


def _natural(name: str) -> list:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name)]

"""`jaxprot info` and `jaxprot cite`."""

import dataclasses
import os
import platform
import sys

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Options of `info`."""

    debug: bool = False
    """Show tracebacks."""


def info(options: InfoOptions) -> int:
    """Prints versions, devices and folders: what to add to a report of a problem."""
    import jax

    from jaxprot._version import __version__
    from jaxprot.io.outputs import versions
    from jaxprot.weights import registry

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jax-md", "ott-jax", "numpy", "gemmi")
    lines = {"jaxprot": __version__, "python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})"}
    lines |= {name: version or "not installed" for name, version in versions(names).items()}
    try:
        lines["devices"] = ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices())
    except RuntimeError as error:
        lines["devices"] = f"none ({error})"
    lines["cores"] = str(os.cpu_count())
    cache = registry.cache_directory()
    files = [file for file in cache.rglob("*") if file.is_file()] if cache.is_dir() else []
    lines["cache"] = f"{cache} ({len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB)"
    present = [entry.name for entry in registry.entries().values() if entry.is_present]
    lines["weights at hand"] = ", ".join(present) or "none"
    width = max(map(len, lines)) + 2
    for name, text in lines.items():
        print(f"{name:<{width}}{text}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CiteOptions:
    """Options of `cite`."""

    systems: tyro.conf.Positional[tuple[str, ...]] = ()
    """Systems that were used; all if none is given."""
    debug: bool = False
    """Show tracebacks."""


def cite(options: CiteOptions) -> int:
    """Prints BibTeX entries of the library and of the papers behind the systems."""
    from jaxprot import citations

    print(citations.cite(*options.systems), end="")
    return 0

"""jaxprot: protein stability, flexibility, heterogeneity, dynamics and transfer learning in JAX.

`import jaxprot` loads nothing heavy: public names and systems are looked up at first use.

    import jaxprot
    model = jaxprot.load("thermompnn")
    scan = model.scan("2ocj.cif", chains="A")
    scan.write("out/")
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxprot._version import __version__

if TYPE_CHECKING:  # the names below, for type checkers and editors
    from jaxprot import (
        ai2bmd,
        core,
        cryostar,
        esm2,
        io,
        massa,
        md,
        ops,
        ot,
        plots,
        proteinmpnn,
        rmsfnet,
        thermompnn,
        train,
        visnet,
        weights,
    )
    from jaxprot.citations import cite
    from jaxprot.core.errors import CheckpointError, DownloadError, InputError, JaxprotError, OutputError
    from jaxprot.core.structure import Structure
    from jaxprot.core.volume import Volume
    from jaxprot.io.maps import read_map, write_map
    from jaxprot.io.particles import read_particles
    from jaxprot.io.structures import read_structure, write_structure
    from jaxprot.loading import load

# public name -> module that defines it
_NAMES = {
    "load": "jaxprot.loading",
    "cite": "jaxprot.citations",
    "read_structure": "jaxprot.io.structures",
    "write_structure": "jaxprot.io.structures",
    "read_map": "jaxprot.io.maps",
    "write_map": "jaxprot.io.maps",
    "read_particles": "jaxprot.io.particles",
    "Structure": "jaxprot.core.structure",
    "Volume": "jaxprot.core.volume",
    "JaxprotError": "jaxprot.core.errors",
    "InputError": "jaxprot.core.errors",
    "CheckpointError": "jaxprot.core.errors",
    "DownloadError": "jaxprot.core.errors",
    "OutputError": "jaxprot.core.errors",
}
_MODULES = (
    *("ai2bmd", "core", "cryostar", "esm2", "io", "massa", "md", "ops", "ot", "plots", "proteinmpnn", "rmsfnet"),
    *("thermompnn", "train", "visnet", "weights"),
)

__all__ = [
    "CheckpointError",
    "DownloadError",
    "InputError",
    "JaxprotError",
    "OutputError",
    "Structure",
    "Volume",
    "__version__",
    "ai2bmd",
    "cite",
    "core",
    "cryostar",
    "esm2",
    "io",
    "load",
    "massa",
    "md",
    "ops",
    "ot",
    "plots",
    "proteinmpnn",
    "read_map",
    "read_particles",
    "read_structure",
    "rmsfnet",
    "thermompnn",
    "train",
    "visnet",
    "weights",
    "write_map",
    "write_structure",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"jaxprot.{name}")
    else:
        raise AttributeError(f"module 'jaxprot' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

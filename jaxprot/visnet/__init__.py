"""ViSNet: energies and forces of molecules (eV, eV/Å), the network of AI2BMD."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Molecules": "neighbours",
    "Predictor": "predict",
    "ViSNet": "model",
    "ViSNetConfig": "config",
    "energy_and_forces": "model",
    "load": "predict",
    "references": "predict",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

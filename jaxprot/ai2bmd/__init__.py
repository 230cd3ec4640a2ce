"""AI2BMD: energies, forces and dynamics of whole proteins by a network trained on small fragments."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Calculator": "calculator",
    "Evaluation": "potential",
    "Fragmentation": "fragment",
    "Potential": "potential",
    "PotentialConfig": "potential",
    "Predictor": "predict",
    "load": "predict",
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

"""ThermoMPNN: stability changes of mutations (ddG in kcal/mol, positive = destabilising)."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Doubles": "results",
    "Mutants": "results",
    "Predictor": "predict",
    "Scan": "results",
    "ThermoMPNN": "model",
    "ThermoMPNNConfig": "config",
    "antisymmetry": "predict",
    "load": "predict",
    "rank_designs": "design",
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

"""cryoSTAR: conformations of single particles from their images and a reference model."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Beads": "gmm",
    "ConformationTask": "conformation",
    "Heterogeneity": "results",
    "Landscape": "landscape",
    "Predictor": "predict",
    "SimulationConfig": "simulate",
    "VAE": "model",
    "VAEConfig": "config",
    "analyse": "landscape",
    "beads_of": "gmm",
    "check": "checks",
    "default": "settings",
    "load": "predict",
    "pairs_of": "gmm",
    "prepare": "images",
    "published": "settings",
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

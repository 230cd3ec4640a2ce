"""ESM-2: a language model of protein sequences, run from published files."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "ESM2": "model",
    "ESM2Config": "config",
    "Predictor": "predict",
    "encode": "tokens",
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

"""MASSA: one representation of proteins from sequence, structure and function."""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Features": "featurize",
    "Labels": "featurize",
    "MASSA": "model",
    "MASSAConfig": "config",
    "Record": "featurize",
    "batch": "featurize",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_NAMES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

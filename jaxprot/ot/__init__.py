"""Optimal transport between data sets: distances that predict transfer, and the scores beside them.

The only place that knows ott-jax, whose import takes seconds.
"""

import importlib
from typing import Any

# public name -> module that defines it; loaded at first use
_NAMES = {
    "Distance": "distance",
    "Task": "tasks",
    "TransferMatrix": "matrix",
    "TransferReport": "report",
    "Trajectory": "matrix",
    "bures_wasserstein": "bures",
    "bures_wasserstein_samples": "bures",
    "distance": "distance",
    "exact_transport": "exact",
    "hscore": "transferability",
    "label_distances": "otdd",
    "leep": "transferability",
    "logme": "transferability",
    "nce": "transferability",
    "read_task": "tasks",
    "sliced_wasserstein": "exact",
    "solve": "sinkhorn",
    "trajectory": "matrix",
    "transfer_matrix": "matrix",
    "transfer_report": "report",
    "transrate": "transferability",
    "unbalanced_transport": "unbalanced",
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

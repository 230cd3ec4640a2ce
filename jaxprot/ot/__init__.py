"""Optimal transport between data sets: distances that predict transfer, and the scores beside them.

The only place that knows ott-jax, whose import takes seconds.
"""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Distance": "pairs",
        "Task": "tasks",
        "TransferMatrix": "matrix",
        "TransferReport": "report",
        "Trajectory": "matrix",
        "bures_wasserstein": "bures",
        "bures_wasserstein_samples": "bures",
        "distance": "pairs",
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
    },
)

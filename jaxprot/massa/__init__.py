"""MASSA: one representation of proteins from sequence, structure and function."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Features": "featurize",
        "Labels": "featurize",
        "MASSA": "model",
        "MASSAConfig": "config",
        "MASSAEmbedder": "predict",
        "Predictor": "predict",
        "Record": "featurize",
        "batch": "featurize",
        "load": "predict",
    },
)

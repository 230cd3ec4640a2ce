"""ESM-2: a language model of protein sequences, run from published files."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "ESM2": "model",
        "ESM2Config": "config",
        "Predictor": "predict",
        "encode": "tokens",
        "load": "predict",
    },
)

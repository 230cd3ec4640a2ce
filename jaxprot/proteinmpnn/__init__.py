"""ProteinMPNN: sequences for backbones."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Designer": "predict",
        "Designs": "results",
        "Features": "featurize",
        "ProteinMPNN": "model",
        "ProteinMPNNConfig": "config",
        "Scores": "results",
        "decoding_order": "decoding",
        "design_inputs": "inputs",
        "load": "predict",
        "parse_chains": "featurize",
    },
)

"""cryoSTAR: conformations of single particles from their images and a reference model."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
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
    },
)

"""ViSNet: energies and forces of molecules (eV, eV/Å), the network of AI2BMD."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Molecules": "neighbours",
        "Predictor": "predict",
        "ViSNet": "model",
        "ViSNetConfig": "config",
        "energy_and_forces": "model",
        "load": "predict",
        "references": "predict",
    },
)

"""ThermoMPNN: stability changes of mutations (ddG in kcal/mol, positive = destabilising)."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Doubles": "results",
        "Mutants": "results",
        "Predictor": "predict",
        "Scan": "results",
        "ThermoMPNN": "model",
        "ThermoMPNNConfig": "config",
        "antisymmetry": "predict",
        "load": "predict",
        "rank_designs": "design",
    },
)

"""AI2BMD: energies, forces and dynamics of whole proteins by a network trained on small fragments."""

from jaxprot.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {  # public name -> module that defines it; loaded at first use
        "Calculator": "calculator",
        "Evaluation": "potential",
        "Fragmentation": "fragment",
        "Potential": "potential",
        "PotentialConfig": "potential",
        "Predictor": "predict",
        "load": "predict",
    },
)

import numpy as np
import pytest

SIZES = {"layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="session")
def tensors():
    """`tensors(cfg)`: random weights of a small network, in our names."""
    from jaxprot.esm2 import weights

    def make(cfg):
        rng = np.random.default_rng(0)
        out = {}
        for name, shape in weights.shapes(cfg).items():
            scale = shape[0] ** -0.5 if name.endswith("kernel") else 0.3
            out[name] = (scale * rng.normal(size=shape) + name.endswith("scale")).astype(np.float32)
        return out

    return make


@pytest.fixture(scope="session")
def predictor(tensors):
    """A small network of random weights."""
    from jaxprot.esm2 import weights
    from jaxprot.esm2.config import ESM2Config
    from jaxprot.esm2.predict import Predictor

    cfg = ESM2Config(**SIZES)
    return Predictor(weights.assemble(cfg, tensors(cfg)))

import numpy as np
import pytest
from flax import nnx


@pytest.fixture(scope="session")
def build():
    """`build(**config)`: predictor of a small network of random weights."""

    def make(**config):
        from jaxprot.visnet.config import ViSNetConfig
        from jaxprot.visnet.model import ViSNet
        from jaxprot.visnet.predict import Predictor

        sizes = {"hidden": 16, "layers": 4, "heads": 4, "rbf": 8, "max_z": 10, "cutoff": 3.0}
        net = ViSNet(ViSNetConfig(**sizes | config), rngs=nnx.Rngs(0))
        # Fresh biases are 0, which would hide what happens where a message ends.
        rng = np.random.default_rng(0)
        for path, leaf in nnx.iter_graph(net):
            if isinstance(leaf, nnx.Param) and path[-1] in ("bias", "scale"):
                leaf[...] = leaf[...] + rng.normal(size=leaf[...].shape).astype(np.float32) * 0.5
        return Predictor(net)

    return make


@pytest.fixture(scope="session")
def molecule():
    """`molecule(n, seed)`: atomic numbers (n,) and positions (n, 3) at least 0.9 Å apart."""

    def make(n: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        places = [np.zeros(3)]
        while len(places) < n:
            new = places[rng.integers(len(places))] + rng.normal(size=3)
            if min(np.linalg.norm(new - p) for p in places) > 0.9:
                places.append(new)
        return rng.choice([1, 6, 7, 8], n), np.array(places)

    return make

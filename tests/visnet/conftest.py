import numpy as np
import pytest


@pytest.fixture(scope="session")
def build():
    """`build(**config)`: predictor of a small network of random weights."""

    def make(**config):
        from jaxprot.ops import rbf
        from jaxprot.visnet import weights
        from jaxprot.visnet.config import ViSNetConfig
        from jaxprot.visnet.predict import Predictor

        sizes = {"hidden": 16, "layers": 4, "heads": 4, "rbf": 8, "max_z": 10, "cutoff": 3.0}
        cfg = ViSNetConfig(**sizes | config)
        rng, tensors = np.random.default_rng(0), {}
        for name, shape in weights.shapes(cfg).items():
            # Biases of 0, as a fresh network has them, would hide what happens where a message ends.
            scale = {"kernel": shape[0] ** -0.5, "bias": 0.5, "scale": 0.3}.get(name.rpartition(".")[2], 1.0)
            tensors[name] = (rng.normal(size=shape) * scale + name.endswith(".scale")).astype(np.float32)
        start = rbf.exponential_normal_start if cfg.rbf_type == "expnorm" else rbf.gaussian_start
        names = ("means", "betas") if cfg.rbf_type == "expnorm" else ("offset", "coeff")
        for name, value in zip(names, start(cfg.rbf, cfg.cutoff), strict=True):
            tensors[f"radial.{name}"] = value.reshape(-1)
        tensors |= {"mean": np.zeros(1, np.float32), "std": np.ones(1, np.float32)}
        tensors |= {"atomref": np.zeros(cfg.max_z, np.float32)} if cfg.prior else {}
        return Predictor(weights.assemble(cfg, tensors))

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

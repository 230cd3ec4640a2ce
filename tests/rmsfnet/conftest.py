"""The stored network: weights in the published layout, as whole numbers and powers of two."""

import numpy as np
import pytest

from jaxprot.rmsfnet import weights
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.model import RMSFNet
from jaxprot.weights import module
from jaxprot.weights.convert import fill

OTHER = {"map": "exp_model", "pdb": "sim_model"}


@pytest.fixture(scope="session")
def official(goldens):
    """`official("map")`: tensors of a variant under their published names."""
    packed = np.load(goldens("rmsfnet") / "weights_q8.npz")
    tensors = {
        name: np.float32(packed[name]) * np.float32(2.0) ** np.float32(packed[f"{name}|exp"])
        for name in packed.files
        if not name.endswith("|exp")
    }

    def variant(name):
        out = {key: value for key, value in tensors.items() if ":" not in key}
        if name != "both":
            out["conv0_0.conv1.weight"] = tensors[f"{OTHER[name]}:conv0_0.conv1.weight"]
        return out

    return variant


@pytest.fixture(scope="session")
def network(official):
    """`network("both")`: the folded network of a variant."""
    made = {}

    def variant(name):
        if name not in made:
            cfg = RMSFNetConfig.paper(name)
            ours = fill(weights.shapes(cfg), official(name), weights.OFFICIAL, weights.IGNORED, "golden")
            made[name] = weights.folded_model(cfg, ours)
        return made[name]

    return variant


@pytest.fixture(scope="session")
def random_network():
    """`random_network("both")`: a folded network of width 2, drawn by numpy, which compiles nothing."""

    def variant(name, width=2):
        cfg, rng = RMSFNetConfig(variant=name, width=width), np.random.default_rng(3)
        shapes = module.shapes(module.Blueprint(lambda rngs: RMSFNet(cfg, folded=True, rngs=rngs)))
        drawn = {}
        for key, shape in sorted(shapes.items()):
            # Averages with some negative weights: a network as narrow as this stays alive, and its output small.
            value = rng.random(shape) * np.where(rng.random(shape) < 0.15, -1, 1)
            drawn[key] = 0.05 * value if key.endswith("bias") else 1.4 * value / np.abs(value).sum((0, 1, 2, 3))
        return weights.folded_model(cfg, {key: value.astype(np.float32) for key, value in drawn.items()})

    return variant

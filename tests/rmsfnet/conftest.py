"""The stored network: weights in the published layout, as whole numbers and powers of two."""

import numpy as np
import pytest

from jaxprot.rmsfnet import weights
from jaxprot.rmsfnet.config import RMSFNetConfig
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

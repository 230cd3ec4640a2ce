"""Published checkpoints, made anew from their recipe, and batches of the stored inputs."""

import csv
import zlib

import numpy as np
import pytest

from jaxprot.massa.featurize import Labels, Record, batch
from jaxprot.weights import module


def random_tensor(name, shape, base=11):
    """A tensor of the stored outputs by its published name."""
    rng = np.random.RandomState((base * 1000003 + zlib.crc32(name.encode())) % 2**32)
    x = rng.standard_normal(shape)
    if "dummy_param" in name:
        x = np.zeros(shape)
    elif "pos_embedding" in name:
        x = 0.3 * x
    elif len(shape) >= 2:
        x = x / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        x = 1 + 0.2 * x
    else:
        x = 0.1 * x
    return x.astype(np.float32)


@pytest.fixture(scope="session")
def folder(goldens):
    return goldens("massa")


@pytest.fixture(scope="session")
def manifest(folder):
    """Name -> (shape, sum, norm) of the published network."""
    with open(folder / "massa_full_manifest.csv") as file:
        rows = list(csv.DictReader(file))
    return {r["key"]: (tuple(map(int, r["shape"].split("x"))), float(r["sum"]), float(r["l2"])) for r in rows}


@pytest.fixture(scope="session")
def full_state(manifest):
    """State dict of published sizes."""
    return {name: random_tensor(name, shape) for name, (shape, *_) in manifest.items()}


def records(golden):
    """Proteins of a stored batch."""
    out, start = [], 0
    for i, (n, g) in enumerate(zip(golden["lengths"], golden["go_lengths"], strict=True)):
        labels = {
            name: golden[f"label_{name}"][i, : g if name == "go" else n]
            for name in Labels._fields
            if f"label_{name}" in golden
        }
        coords = golden["coords"][start : start + n]
        sequence = str(golden["sequences"][i])
        out.append(Record(f"protein {i}", sequence, golden["seq_emb"][i, :n], coords, golden["go_emb"][i, :g], labels))
        start += n
    return out


@pytest.fixture(scope="session")
def stored():
    """`stored(golden, cfg)`: features and labels of a stored batch, padded further than the published code does."""

    def make(golden, cfg, length=128, terms=16):
        return batch(records(golden), cfg, length=length, terms=terms)

    return make


@pytest.fixture(scope="session")
def recipe():
    """`recipe(name, shape)`: tensor of the stored outputs."""
    return random_tensor


@pytest.fixture(scope="session")
def random_module():
    """`random_module(build)`: (blueprint, tensors) of random weights in our names, without anything compiled."""

    def make(build, seed=0):
        blueprint, rng = module.Blueprint(build), np.random.default_rng(seed)
        tensors = {}
        for name, shape in module.shapes(blueprint).items():
            value = rng.normal(size=shape) / max(1, np.prod(shape[:-1])) ** 0.5
            tensors[name] = (value * (0.3 if len(shape) < 2 else 1) + name.endswith("scale")).astype(np.float32)
        return blueprint, tensors

    return make

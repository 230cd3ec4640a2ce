"""On the published weights, the network's numbers are those of the published program."""

import functools

import jax
import numpy as np
import pytest

from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.core.errors import DownloadError
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn import predict
from jaxprot.proteinmpnn.decoding import decoding_order, rank_of
from jaxprot.proteinmpnn.featurize import featurize, pad_features, parse_chains
from jaxprot.weights import registry

TOLERANCE = 2e-4
DESIGNED = {"5L33": None, "3HTN": ["A", "C"]}
WEIGHTS = ("v_48_002", "v_48_020", "soluble_v_48_020", "ca_v_48_002", "ca_v_48_020")
CASES = [(structure, weights) for structure in DESIGNED for weights in WEIGHTS]


@pytest.fixture(scope="module")
def designer():
    """`designer("ca_v_48_020")`: published weights by name; the first fetch brings all of them."""

    @functools.cache
    def load(name):
        try:
            path = registry.fetch(registry.entries()[f"proteinmpnn:{name}"])
        except DownloadError as error:
            pytest.skip(f"published weights cannot be fetched: {error}")
        return predict.load(path)

    return load


@pytest.fixture(scope="module")
def golden(goldens):
    """`golden("5L33", "ca_v_48_020")`: stored arrays."""
    folder = goldens("proteinmpnn_published")

    def load(structure, weights):
        family = weights if weights.startswith(("ca_", "soluble_")) else f"vanilla_{weights}"
        with np.load(folder / f"{structure}_{family}.npz") as stored:
            return dict(stored)

    return load


@pytest.fixture(scope="module")
def features(goldens):
    """`features("5L33", ca_only)`: our tensors of a structure."""

    @functools.cache
    def read(structure, ca_only):
        chains = parse_chains(read_structure(goldens("thermompnn") / "inputs" / f"{structure}.pdb"), ca_only=ca_only)
        found = featurize(chains, designed=DESIGNED[structure])
        if ca_only:
            mask = np.isfinite(np.concatenate([c.xyz[:, 1] for c in sorted(chains, key=_order(structure))])).all(1)
            found = found._replace(mask=mask.astype(np.float32))
        return found

    return read


def _order(structure):
    designed = DESIGNED[structure]
    return lambda chain: (designed is not None and chain.id not in designed, chain.id)


def everything(model, features, draw):
    order = decoding_order(draw, features.design * features.mask)
    score, everywhere = predict.score_sequences(model, features, features.S[None], draw[None])
    return {
        "log_probs": model(features, rank_of(order)),
        "unconditional_log_probs": predict.unconditional_profile(model, features),
        "score": score[0],
        "global_score": everywhere[0],
    }


@pytest.fixture(scope="module")
def compare(designer, golden, features):
    """`compare("5L33", "v_48_020")`: largest difference of each quantity; weights of one layout share a program."""
    programs = {}

    def run(structure, weights):
        ours, theirs = designer(weights), golden(structure, weights)
        tensors = features(structure, ours.config.ca_only)
        length = bucket_length(len(tensors.S))
        apply, leaves = ours.runner.pure(everything)
        program = programs.setdefault(ours.config, jax.jit(apply))
        # Padded, as every command does: what is behind the last residue may change nothing.
        found = jax.device_get(program(leaves, pad_features(tensors, length), pad_to(theirs["randn"], length)))
        resolved = theirs["mask"] > 0
        worst = {}
        for name, array in found.items():
            rows = resolved if array.ndim == 2 else slice(None)
            worst[name] = float(np.abs(array[: len(theirs[name])][rows] - theirs[name][rows]).max())
        return worst

    return run


@pytest.mark.golden
@pytest.mark.parametrize("ca_only", [False, True], ids=["backbone", "CA only"])
@pytest.mark.parametrize("structure", DESIGNED)
def test_tensors(structure, ca_only, golden, features):
    stored, ours = golden(structure, "ca_v_48_020" if ca_only else "v_48_020"), features(structure, ca_only)
    resolved = stored["mask"] > 0
    np.testing.assert_array_equal(ours.mask, stored["mask"])
    np.testing.assert_allclose((ours.X[:, 1] if ca_only else ours.X)[resolved], stored["X"][resolved], atol=1e-4)
    theirs = ("S", "residue_idx", "chain_encoding_all", "chain_M")
    for name, other in zip(("S", "residue_idx", "chain_encoding", "design"), theirs, strict=True):
        np.testing.assert_array_equal(getattr(ours, name), stored[other])


@pytest.mark.golden
@pytest.mark.parametrize(("structure", "weights"), CASES, ids=["-".join(case) for case in CASES])
def test_published_numbers(structure, weights, compare):
    worst = compare(structure, weights)
    assert set(worst) == {"log_probs", "unconditional_log_probs", "score", "global_score"}
    assert all(value <= TOLERANCE for value in worst.values()), worst

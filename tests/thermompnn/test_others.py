"""ThermoMPNN whose residue states have not seen the own letter, ensembles of heads, and calibration by size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.featurize import featurize, pad_features, parse_chains
from jaxprot.thermompnn import calibration
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.model import ThermoMPNN, decode_others

BACKBONE = ProteinMPNNConfig(width=16, neighbours=12, encoder_layers=2, decoder_layers=3)
OTHERS = ThermoMPNNConfig(backbone=BACKBONE, hidden=(8,), scalar_output=False, own_letter=False, prior=True, members=2)


@pytest.fixture(scope="module")
def features(example):
    return featurize(parse_chains(read_structure(example("trpcage"))))


def build(cfg):
    return ThermoMPNN(cfg, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def scan():
    graphdef, params = nnx.split(build(OTHERS))
    return jax.jit(lambda features: nnx.merge(graphdef, params).ddg(features))


def replaced(features, place, letter):
    sequence = np.array(features.S)
    sequence[place] = ALPHABET.index(letter)
    return features._replace(S=sequence)


def test_reverse_mutations_are_exact_opposites(features, scan):
    place, forth = 5, np.asarray(scan(features))
    wild = ALPHABET[features.S[place]]
    for letter in "AGWDK":
        back = np.asarray(scan(replaced(features, place, letter)))
        there = forth[place, ALPHABET.index(letter)]
        assert back[place, ALPHABET.index(wild)] == pytest.approx(-there, abs=2e-5)
        # Another letter there is seen by the neighbours all the same.
        assert wild == letter or np.abs(np.delete(back - forth, place, axis=0)).max() > 1e-4


def test_the_published_view_is_not_antisymmetric(features):
    model = build(dataclasses.replace(OTHERS, own_letter=True, members=1))
    scan = jax.jit(nnx.merge(*nnx.split(model)).ddg)
    there = float(scan(features)[4, ALPHABET.index("W")])
    back = float(scan(replaced(features, 4, "W"))[4, features.S[4]])
    assert abs(there + back) > 1e-4


def test_no_gradient_from_a_residue_to_itself(features):
    """Letters as continuous embeddings: the state of a residue has no derivative by its own."""
    model = build(OTHERS).backbone
    encoded = jax.jit(model.encode)(features)
    table = model.letters.embedding[...][features.S]

    def states(embedded):
        class Stub:
            decoder = model.decoder

            @staticmethod
            def embed_letters(sequence):
                return embedded

        return decode_others(Stub, encoded, features.S)[-1][:, 0]  # a sum over channels is 0 after the norm

    jacobian = np.abs(np.asarray(jax.jit(jax.jacrev(states))(table))).sum(axis=-1)
    assert np.diag(jacobian).max() == 0
    assert jacobian.max() > 1e-6


def test_padding_changes_nothing(features, scan):
    n = len(features.S)
    np.testing.assert_allclose(scan(pad_features(features, 32))[:n], scan(features), atol=2e-5)


def test_the_ensemble_is_the_mean_of_its_members(features):
    model = build(OTHERS)
    members = np.asarray(model.member_ddg(features))
    assert members.shape == (2, len(features.S), 20)
    assert np.abs(members[0] - members[1]).max() > 1e-4
    np.testing.assert_allclose(model.ddg(features), members.mean(axis=0), atol=1e-6)
    alone = build(dataclasses.replace(OTHERS, members=1))
    alone.backbone, alone.head, alone.prior = model.backbone, model.head, model.prior
    np.testing.assert_allclose(alone.ddg(features), members[0], atol=1e-6)


def test_the_prior_is_the_letter_preference_of_the_backbone(features):
    model = build(dataclasses.replace(OTHERS, members=1))
    with_prior = np.asarray(model.ddg(features))
    _, states, _ = model.states(features)
    log_p = np.asarray(model.backbone.log_probs(states[-1]))
    change = log_p[np.arange(len(features.S)), features.S][:, None] - log_p[:, :20]
    size = float(model.prior[...][0])
    model.prior[...] = jnp.zeros(1)
    np.testing.assert_allclose(with_prior, np.asarray(model.ddg(features)) + size * change, atol=1e-5)


def test_options_of_the_single_head_are_refused_for_the_epistatic_one():
    for more in ({"own_letter": False}, {"prior": True}, {"members": 2}):
        with pytest.raises(ValueError, match="single head"):
            ThermoMPNNConfig(kind="epistatic", **more)
    with pytest.raises(ValueError, match="members must be at least 1"):
        ThermoMPNNConfig(members=0)


def test_large_structures_have_a_calibration_of_their_own():
    law = {"noise": 0.1, "scale": 1.0, "floor": 0.5, "large": {"residues": 80, "scale": 2.0, "floor": 1.0}}
    assert calibration.of_size(law, 79) == (1.0, 0.5)
    assert calibration.of_size(law, 80) == (2.0, 1.0)
    assert calibration.of_size({"scale": 1.0, "floor": 0.5}, 500) == (1.0, 0.5)

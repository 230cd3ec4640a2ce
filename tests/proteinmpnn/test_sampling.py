"""Sequences drawn with given uniforms equal those of the published tool; ties, biases and fixed residues hold."""

import jax
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.residues import ALPHABET
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn import predict
from jaxprot.proteinmpnn.decoding import decoding_order
from jaxprot.proteinmpnn.featurize import featurize, parse_chains
from jaxprot.proteinmpnn.sampling import FAVOURED, HELD_BACK, Constraints, make_ties, prepare, sample, tied_order

VARIANTS = (
    "plain greedy_argmax batch3 biasAA_omitCM fixed bias_by_res omit_by_pos pssm_bias pssm_logodds tied tied_beta"
).split()


@pytest.fixture(scope="module")
def designer(golden_checkpoint):
    return predict.load(golden_checkpoint("v_48_020.pt"))


@pytest.fixture(scope="module")
def golden(goldens):
    return np.load(goldens("thermompnn") / "mpnn_sampling.npz")


@pytest.fixture(scope="module")
def backbone(goldens):
    return featurize(parse_chains(read_structure(goldens("thermompnn") / "inputs" / "5L33.pdb")))


def greedy(model, features, draws, constraints, ties):
    """As `sample_sequences`, taking the likeliest letter."""
    encoded = model.encode(features)
    design = features.design * features.mask
    order = tied_order(decoding_order(draws[0], design), ties)
    zeros = np.zeros(len(features.S), np.float32)
    letters, probs = sample(
        model, encoded, prepare(model, encoded), features.S, design, order, zeros, constraints, ties, greedy=True
    )
    return letters[None], probs[None], order[None]


def orders_of(features, draws, ties):
    design = jax.numpy.asarray(features.design * features.mask)
    ties = jax.tree.map(jax.numpy.asarray, ties)
    return np.stack([np.asarray(tied_order(decoding_order(jax.numpy.asarray(d), design), ties)) for d in draws])


def by_residue(order, by_draw, ties):
    """Uniforms in draw order -> indexed by the residue at which the draw falls."""
    out = np.zeros(order.shape, np.float64)
    for b in range(len(order)):
        drawing = [t for t in order[b] if ties.last[t] and ties.forced[t] < 0]
        out[b, drawing] = by_draw[:, b]
    return out


def off_the_edge(uniforms, probs):
    """Uniforms within float32 rounding of a bound between two letters, moved to the reference's side of it.

    One number of `batch3` lies 2e-8 below such a bound, a third of what float32 resolves there, so which letter it
    picks depends on the last rounding of the probabilities; exact arithmetic picks the other one.
    """
    bounds = np.cumsum(probs.astype(np.float64), axis=-1)
    gap = bounds - uniforms[..., None]
    close = np.abs(gap) < 1e-7
    assert close.any(axis=-1).sum() <= 1
    nearest = np.take_along_axis(gap, np.abs(gap).argmin(axis=-1)[..., None], axis=-1)[..., 0]
    return np.where(close.any(axis=-1), uniforms - np.sign(nearest) * 1e-6, uniforms).astype(np.float32)


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_of_the_published_tool(designer, golden, backbone, variant):
    def get(name, default=None):
        key = f"{variant}__{name}"
        return golden[key] if key in golden.files else default

    n = len(backbone.S)
    constraints = Constraints.neutral(n, float(get("in_temperature")), "CMX" if variant == "biasAA_omitCM" else "X")
    if get("in_bias_AA") is not None:
        constraints = constraints._replace(bias=get("in_bias_AA").astype(np.float32))
    if get("in_bias_by_res") is not None:
        constraints = constraints._replace(bias_by_residue=get("in_bias_by_res").astype(np.float32))
    if get("in_omit_AA_mask") is not None:
        constraints = constraints._replace(omit_by_residue=get("in_omit_AA_mask").astype(np.float32))
    if get("in_pssm_bias") is not None:
        weight = (float(get("in_pssm_multi")) * get("in_pssm_coef")).astype(np.float32)
        constraints = constraints._replace(pssm_weight=weight, pssm=get("in_pssm_bias").astype(np.float32))
    if get("in_pssm_log_odds") is not None:
        passes = get("in_pssm_log_odds") > float(get("in_pssm_threshold"))
        constraints = constraints._replace(favoured=np.where(passes, FAVOURED, HELD_BACK))
    features = backbone
    if get("in_fixed_positions_1based") is not None:
        features = features._replace(design=features.design.copy())
        features.design[get("in_fixed_positions_1based") - 1] = 0
    ties = make_ties(
        features.S, features.mask, get("in_tied_groups_0based", np.zeros((0, 2), int)).tolist(), get("in_tied_beta")
    )
    draws = get("randn").astype(np.float32)
    order = orders_of(features, draws, ties)
    np.testing.assert_array_equal(order, get("decoding_order"))
    if variant == "greedy_argmax":
        letters, probs, _ = designer.runner(greedy, features, draws, constraints, ties)
    else:
        uniforms = off_the_edge(by_residue(order, get("u_by_draw"), ties), get("probs"))
        letters, probs, log_probs, score, global_score, _ = designer.runner(
            predict.sample_sequences, features, draws, uniforms, constraints, ties
        )
        np.testing.assert_allclose(np.asarray(log_probs), get("log_probs"), atol=2e-4)
        np.testing.assert_allclose(np.asarray(score), get("score"), atol=1e-4)
        np.testing.assert_allclose(np.asarray(global_score), get("global_score"), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(letters), get("S"))
    np.testing.assert_allclose(np.asarray(probs), get("probs"), atol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("tied", [False, True], ids=["free", "tied A and C"])
@pytest.mark.slow
def test_several_chains(designer, goldens, tied):
    z = np.load(goldens("thermompnn") / "mpnn_multichain.npz")
    prefix = "sample_tied_T2__" if tied else "sample_T2__"
    structure = read_structure(goldens("thermompnn") / "inputs" / "3HTN.pdb")
    features = featurize(parse_chains(structure), designed=["A", "C"])
    ties = make_ties(features.S, features.mask, z["sample_tied_groups_0based"].tolist() if tied else [])
    draws = z["randn"].reshape(1, -1).astype(np.float32)
    order = orders_of(features, draws, ties)
    np.testing.assert_array_equal(order, z[prefix + "decoding_order"])
    uniforms = by_residue(order, z[prefix + "u_by_draw"], ties).astype(np.float32)
    constraints = Constraints.neutral(len(features.S), 2.0)
    out = designer.runner(predict.sample_sequences, features, draws, uniforms, constraints, ties)
    np.testing.assert_array_equal(np.asarray(out[0]), z[prefix + "S"])
    np.testing.assert_allclose(np.asarray(out[1]), z[prefix + "probs"], atol=1e-4)


@pytest.fixture(scope="module")
def small():
    import dataclasses

    from flax import nnx

    from jaxprot.proteinmpnn.config import ProteinMPNNConfig
    from jaxprot.proteinmpnn.model import ProteinMPNN

    cfg = dataclasses.replace(ProteinMPNNConfig(), width=16, encoder_layers=1, decoder_layers=2, neighbours=8)
    return predict.Designer(ProteinMPNN(cfg, rngs=nnx.Rngs(0)))


def test_sequential_probabilities_equal_the_parallel_pass(small, example):
    designs = small.design(example("ubiquitin"), n=2, temperature=1.0, omit_AA="", seed=3)
    np.testing.assert_allclose(np.log(designs.probs), designs.log_probs, atol=1e-4)


def test_a_seed_gives_the_same_designs_and_another_seed_others(small, example):
    one, again, other = (small.design(example("ubiquitin"), n=2, temperature=1.0, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.letters, again.letters)
    assert (one.letters != other.letters).any()


def test_fixed_residues_keep_their_letters_and_omitted_ones_never_come(small, example):
    designs = small.design(
        example("ubiquitin"), n=4, temperature=5.0, omit_AA="CX", fixed={"ubiquitin": {"A": [1, 2, 3]}}
    )
    assert (designs.letters[:, :3] == designs.native[:3]).all()
    assert not np.isin(designs.letters[:, 3:], [ALPHABET.index("C"), ALPHABET.index("X")]).any()
    assert (designs.probs[:, :3] == 0).all()


def test_tied_residues_get_one_letter(small, example):
    ties = {"ubiquitin": [{"A": [5, 50]}, {"A": [6, 60, 70]}]}
    designs = small.design(example("ubiquitin"), n=4, temperature=2.0, tied=ties)
    assert (designs.letters[:, 4] == designs.letters[:, 49]).all()
    assert (designs.letters[:, [5, 59]] == designs.letters[:, [69]]).all()


def test_scores_of_other_sequences(small, example):
    native = small.score(example("ubiquitin"), draws=3)
    again = small.score(example("ubiquitin"), draws=3, sequences={"same": native.sequences[0], "poly": "A" * 76})
    assert again.labels == ("native", "same", "poly")
    np.testing.assert_allclose(again.score[1], again.score[0])
    assert (again.score[2] != again.score[0]).all()
    with pytest.raises(InputError, match="A: 76 residues"):
        small.score(example("ubiquitin"), sequences={"short": "AAA"})


@pytest.mark.parametrize("options", [{"n": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_senseless_options(small, example, options):
    with pytest.raises(InputError):
        small.design(example("ubiquitin"), **options)


def test_a_residue_tied_twice():
    with pytest.raises(ValueError, match="tied twice"):
        make_ties(np.zeros(5, int), np.ones(5), [[0, 1], [1, 2]])

"""The network equals the published one block by block, and has the symmetries it must have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn import predict
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.decoding import decoding_order, rank_of, visible_by_rank
from jaxprot.proteinmpnn.featurize import Features, featurize, pad_features, parse_chains
from jaxprot.proteinmpnn.geometry import ca_features, neighbour_graph
from jaxprot.proteinmpnn.model import ProteinMPNN, dropout

BLOCK = {"atol": 2e-5, "rtol": 1e-5}
WHOLE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module")
def monomer(goldens):
    return np.load(goldens("thermompnn") / "mpnn_monomer.npz")


@pytest.fixture(scope="module")
def features(monomer):
    z = monomer
    return Features(
        X=z["X"].astype(np.float32),
        S=z["S"].astype(np.int32),
        mask=z["mask"].astype(np.float32),
        residue_idx=z["residue_idx"].astype(np.int32),
        chain_encoding=z["chain_encoding_all"].astype(np.int32),
        design=z["chain_M"].astype(np.float32),
    )


@pytest.fixture(scope="module")
def designer(golden_checkpoint):
    return predict.load(golden_checkpoint("v_48_020.pt"))


@pytest.fixture(scope="module")
def stages(designer, features, monomer):
    """Every intermediate array of one pass."""

    def run(model, features, draw):
        distance, index, _ = model.features.graph(features)
        geometric, offset = model.features.raw(features, distance, index)
        edges = model.features(features, distance, index)
        out = {"D_neighbors": distance, "E_idx": index, "rbf": geometric[:6], "E_rows0_6": edges[:6]}
        h_e = model.edge_projection(edges)
        out["h_E0_rows0_6"] = h_e[:6]
        attend = features.mask[:, None] * features.mask[index]
        h_v = jnp.zeros((len(features.S), 128))
        for i, layer in enumerate(model.encoder, 1):
            h_v, h_e = layer(h_v, h_e, index, attend, features.mask)
            out |= {f"enc{i}_h_V": h_v, f"enc{i}_h_E_rows0_6": h_e[:6]}
        order = decoding_order(draw, features.design * features.mask)
        encoded = model.encode(features)
        states = model.decode(encoded, features.S, visible_by_rank(rank_of(order), index))
        out |= {f"dec{i}_h_V": state for i, state in enumerate(states, 1)}
        return out | {"decoding_order": order, "log_probs": model.log_probs(states[-1])}

    draw = monomer["randn"].reshape(-1).astype(np.float32)
    return jax.device_get(designer.runner(run, jax.tree.map(jnp.asarray, features), draw))


@pytest.mark.golden
@pytest.mark.parametrize("name", ["E_idx", "decoding_order"])
def test_indices_are_exact(stages, monomer, name):
    np.testing.assert_array_equal(stages[name], monomer[name].reshape(stages[name].shape))


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["D_neighbors", "E_rows0_6", "h_E0_rows0_6"]
    + [f"enc{i}_h_{kind}" for i in (1, 2, 3) for kind in ("V", "E_rows0_6")]
    + [f"dec{i}_h_V" for i in (1, 2, 3)],
)
def test_blocks_equal_the_published_ones(stages, monomer, name):
    np.testing.assert_allclose(stages[name], monomer[name].reshape(stages[name].shape), **BLOCK)


@pytest.mark.golden
def test_radial_basis_of_the_25_atom_pairs(stages, monomer):
    np.testing.assert_allclose(stages["rbf"], monomer["edge_raw_rows0_6"][..., 16:], **BLOCK)


@pytest.mark.golden
def test_log_probabilities_and_score(stages, monomer, designer, features):
    np.testing.assert_allclose(stages["log_probs"], monomer["log_probs"], **WHOLE)
    draw = monomer["randn"].reshape(1, -1).astype(np.float32)
    score, _ = designer.runner(predict.score_sequences, features, features.S[None], draw)
    assert float(score[0, 0]) == pytest.approx(float(monomer["score"].item()), abs=1e-5)


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (predict.conditional_profile, "conditional_log_probs"),
        (predict.conditional_backbone_profile, "conditional_backbone_log_probs"),
    ],
)
def test_conditional_profiles(designer, features, monomer, function, name):
    ours = designer.runner(function, features, monomer["randn"].reshape(-1).astype(np.float32))
    np.testing.assert_allclose(np.asarray(ours), monomer[name], **WHOLE)


@pytest.mark.golden
def test_unconditional_profile(designer, features, monomer):
    ours = designer.runner(predict.unconditional_profile, features)
    np.testing.assert_allclose(np.asarray(ours), monomer["unconditional_log_probs"], **WHOLE)


@pytest.mark.golden
@pytest.mark.slow
def test_several_chains_with_unresolved_residues(designer, goldens):
    z = np.load(goldens("thermompnn") / "mpnn_multichain.npz")
    structure = read_structure(goldens("thermompnn") / "inputs" / "3HTN.pdb")
    features = featurize(parse_chains(structure), designed=["A", "C"])
    resolved = features.mask > 0
    draw = z["randn"].reshape(1, -1).astype(np.float32)

    def run(model, features, draw):
        encoded = model.encode(features)
        rank = rank_of(decoding_order(draw, features.design * features.mask))
        return encoded.index, encoded.nodes, model(features, rank)

    index, nodes, log_probs = jax.device_get(designer.runner(run, features, draw[0]))
    # Rows of unresolved residues are arbitrary in the published model; their log-probabilities are not.
    np.testing.assert_array_equal(index[resolved], z["E_idx"].reshape(index.shape)[resolved])
    np.testing.assert_allclose(nodes[resolved], z["enc3_h_V"].reshape(nodes.shape)[resolved], **BLOCK)
    np.testing.assert_allclose(log_probs, z["log_probs"].reshape(log_probs.shape), **WHOLE)
    score, everywhere = designer.runner(predict.score_sequences, features, features.S[None], draw)
    assert float(score[0, 0]) == pytest.approx(float(z["score_designed"].item()), abs=1e-5)
    assert float(everywhere[0, 0]) == pytest.approx(float(z["global_score"].item()), abs=1e-5)


@pytest.mark.golden
def test_both_chains_of_the_edge_file(designer, goldens):
    z = np.load(goldens("thermompnn") / "mpnn_parser_edge.npz")
    structure = read_structure(goldens("thermompnn") / "inputs" / "edge.pdb", models="all")
    features = featurize(parse_chains(structure, compat=True))

    def run(model, features, draw):
        return model(features, rank_of(decoding_order(draw, features.design * features.mask)))

    ours = np.asarray(designer.runner(run, features, z["randn"].reshape(-1).astype(np.float32)))
    np.testing.assert_allclose(ours, z["log_probs"].reshape(ours.shape), **WHOLE)


# Properties, on a small network with random weights.

SMALL = ProteinMPNNConfig(width=16, encoder_layers=1, decoder_layers=2, neighbours=8)


@pytest.fixture(scope="module", params=[False, True], ids=["backbone", "CA only"])
def small(request):
    import dataclasses

    return ProteinMPNN(dataclasses.replace(SMALL, ca_only=request.param), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def ubiquitin(example):
    return featurize(parse_chains(read_structure(example("ubiquitin"))))


def run(model, features, rank=None):
    graphdef, state = nnx.split(model)
    if rank is None:
        rank = np.random.default_rng(1).permutation(len(features.S)).astype(np.int32)
    return np.asarray(jax.jit(lambda s, f: nnx.merge(graphdef, s)(f, rank))(state, features))


def tolerance(model):
    """The quaternions of the CA-only variant take square roots of zero, so rounding of 1e-7 becomes 3e-4 there."""
    return 2e-3 if model.cfg.ca_only else 2e-5


def test_rotation_and_translation_change_nothing(small, ubiquitin):
    if small.cfg.ca_only:
        pytest.skip("the published CA-only quaternions are taken in the global frame; see geometry.ca_features")
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    moved = ubiquitin._replace(X=(ubiquitin.X @ q.T + [3.0, -5.0, 7.0]).astype(np.float32))
    np.testing.assert_allclose(run(small, moved), run(small, ubiquitin), atol=2e-4)


def test_frames_of_ca_stop_at_breaks_and_before_the_ends(ubiquitin):
    """Channels of direction and rotation are those of residues 1 .. L-3, from steps of 3.6 to 4.0 Å."""
    ca, n = ubiquitin.X[:, 1].copy(), len(ubiquitin.S)
    ca[40:] += 5.0  # a break between 39 and 40
    ca[60] = ca[59] + np.float32([0, 0, 2.9])  # a cis peptide's step; the next one is no step of a chain at all
    distance, index, _ = neighbour_graph(jnp.asarray(ca), jnp.ones(n), jnp.ones(n, bool), 8)
    direction = np.asarray(ca_features(jnp.asarray(ca), distance, index, jnp.ones(n, bool), 16))[
        ..., 9 * 16 : 9 * 16 + 3
    ]
    step = np.diff(ca.astype(np.float64), axis=0)
    length = np.linalg.norm(step, axis=1)
    step = np.where(((length > 3.6) & (length < 4.0))[:, None], step / length[:, None], 0)
    assert not step[[39, 59, 60]].any() and step[38].any()
    for i in range(n):
        frame = np.zeros((3, 3))
        if 1 <= i <= n - 3:
            first, second = step[i - 1] - step[i], np.cross(step[i - 1], step[i])
            first, second = (v / max(np.linalg.norm(v), 1e-12) for v in (first, second))
            frame = np.stack([first, second, np.cross(first, second)])
        wanted = (ca[np.asarray(index)[i]] - ca[i]).astype(np.float64) @ frame.T
        wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
        np.testing.assert_allclose(direction[i], wanted, atol=1e-4, err_msg=str(i))


def test_a_mirror_image_is_told_apart(small, ubiquitin):
    mirrored = ubiquitin._replace(X=ubiquitin.X * np.float32([1, 1, -1]))
    assert np.abs(run(small, mirrored) - run(small, ubiquitin)).max() > 1e-3


@pytest.mark.parametrize("length", [77, 96, 128])
def test_padding_changes_nothing(small, ubiquitin, length):
    n = len(ubiquitin.S)
    rank = np.random.default_rng(1).permutation(n)
    padded_rank = np.concatenate([rank + length - n, np.arange(length - n)]).astype(np.int32)
    padded = run(small, pad_features(ubiquitin, length), padded_rank)
    np.testing.assert_allclose(padded[:n], run(small, ubiquitin), atol=tolerance(small))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_chains_shorter_than_the_neighbourhood(small, ubiquitin, n):
    short = jax.tree.map(lambda a: a[:n], ubiquitin)
    alone = run(small, short)
    assert np.isfinite(alone).all()
    assert np.isfinite(run(small, pad_features(short, 32))[:n]).all()


def test_a_batch_equals_a_loop(small, ubiquitin):
    graphdef, state = nnx.split(small)
    rank = np.arange(len(ubiquitin.S), dtype=np.int32)
    other = ubiquitin._replace(X=ubiquitin.X * np.float32(1.01))
    batch = jax.tree.map(lambda *a: np.stack(a), ubiquitin, other)
    apply = lambda f: nnx.merge(graphdef, state)(f, rank)  # noqa: E731
    together = np.asarray(jax.jit(jax.vmap(apply))(batch))
    np.testing.assert_allclose(together[1], np.asarray(jax.jit(apply)(other)), atol=tolerance(small))


def test_no_residue_sees_its_own_letter_or_a_later_one(small, ubiquitin):
    graphdef, state = nnx.split(small)
    n = len(ubiquitin.S)
    rank = np.arange(n, dtype=np.int32)
    apply = jax.jit(lambda s: nnx.merge(graphdef, state)(ubiquitin._replace(S=s), rank))
    changed = ubiquitin.S.copy()
    changed[40:] = (changed[40:] + 1) % 20
    before, after = np.asarray(apply(ubiquitin.S)), np.asarray(apply(changed))
    np.testing.assert_allclose(after[:41], before[:41], atol=1e-6)
    assert np.abs(after[41:] - before[41:]).max() > 1e-4


def test_gradients_of_coordinates_are_finite_and_right(small, ubiquitin):
    graphdef, state = nnx.split(small)
    rank = np.arange(len(ubiquitin.S), dtype=np.int32)

    def loss(x):
        return jnp.sum(nnx.merge(graphdef, state)(ubiquitin._replace(X=x), rank)[:, 3])

    x = jnp.asarray(ubiquitin.X)
    loss = jax.jit(loss)
    gradient = np.asarray(jax.jit(jax.grad(loss))(x))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    if small.cfg.ca_only:
        return  # square roots of zero: no finite difference to compare with
    direction = jnp.asarray(np.random.default_rng(0).normal(size=x.shape), jnp.float32)
    step = 1e-3
    slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(float(jnp.sum(gradient * direction)), rel=0.05, abs=0.02)


def test_gradients_of_a_residue_without_coordinates_are_finite(small, ubiquitin):
    features = ubiquitin._replace(X=ubiquitin.X.copy(), mask=ubiquitin.mask.copy())
    features.X[10], features.mask[10] = 0, 0
    graphdef, state = nnx.split(small)
    rank = np.arange(len(features.S), dtype=np.int32)
    loss = lambda s, x: jnp.sum(nnx.merge(graphdef, s)(features._replace(X=x), rank))  # noqa: E731
    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(state, jnp.asarray(features.X))):
        assert np.isfinite(np.asarray(leaf)).all()


def test_dropout_keeps_the_mean_and_the_rate(key):
    x = dropout(jnp.ones(100_000), 0.1, key)
    assert float((x == 0).mean()) == pytest.approx(0.1, abs=0.01)
    assert float(x.mean()) == pytest.approx(1.0, abs=0.01)
    assert dropout(x, 0.1, None) is x


def products(jaxpr):
    """Types of both factors of every matrix product, inner functions included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(str(v.aval.dtype) for v in equation.invars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(inner, "jaxpr"):
                    inner = inner.jaxpr
                if hasattr(inner, "eqns"):
                    yield from products(inner)


@pytest.mark.slow
def test_weights_in_bfloat16_make_every_product_bfloat16(ubiquitin):
    model = ProteinMPNN(ProteinMPNNConfig(width=32, neighbours=16), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    rank = jnp.arange(len(ubiquitin.S))

    def forward(params, key):
        return nnx.merge(graphdef, params)(jax.tree.map(jnp.asarray, ubiquitin), rank, key)

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    found = set(products(jax.make_jaxpr(forward)(half, jax.random.key(0)).jaxpr))
    assert found == {("bfloat16", "bfloat16")}
    assert set(products(jax.make_jaxpr(forward)(params, jax.random.key(0)).jaxpr)) == {("float32", "float32")}
    low, full = forward(half, None), forward(params, None)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, full, atol=0.15)
    assert float(jnp.abs(low - full).mean()) < 0.03

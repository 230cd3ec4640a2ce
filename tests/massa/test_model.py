"""The network against stored outputs, and what padding and missing modalities do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.massa import featurize, losses, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import Embedder
from jaxprot.massa.model import MASSA
from jaxprot.massa.predict import MASSAEmbedder, Predictor
from jaxprot.weights import module

TINY = MASSAConfig(seq_dim=5, max_length=60, width=16, convolutions=2, kernel=7, vectors=3, layers=1, neighbours=6,
                   fusion_layers=1, heads=2, feedforward=24, go_dim=3, go_width=8, go_layers=1, go_heads=2,
                   go_feedforward=12, cross_layers=2)  # fmt: skip


def stages(net, f):
    """Outputs of the parts by their stored names, and logits."""
    body = net.backbone
    part, out = body.structure, {"seq_encoder": body.sequence(f.seq, f.mask)}
    x = part.node(*part.node_norm(f.node_s, f.node_v))
    out["struc.W_v.s"], out["struc.W_v.v"] = x
    edges = part.edge(*part.edge_norm(f.edge_s, f.edge_v))
    for i, layer in enumerate(part.layers):
        x = layer(x, edges, f.index, f.present)
        out[f"struc.layer{i}.s"], out[f"struc.layer{i}.v"] = x
    # What `structure` does in the end, without doing the rest again.
    last = part.norm(part.output(*part.output_norm(*x))[0])
    out["struc_encoder"] = jnp.where(f.mask[..., None], last, 0)
    joined = jnp.concatenate([out["seq_encoder"], out["struc_encoder"]], -1)
    y = jax.nn.relu(body.fusion.input(joined))
    for i, layer in enumerate(body.fusion.layers):
        y = layer(y, f.mask)
        out[f"fusion.layer{i}"] = y
    out["fusion"] = body.fusion.norm(y)
    out["go_encoder"] = body.function(f.go, f.go_mask)
    seen = jnp.any(f.go_mask, 1)
    encoded = body.cross(out["fusion"], f.mask, out["go_encoder"], f.go_mask, None, None, seen)
    out["cross.pro"], out["cross.go"] = encoded.protein, encoded.go
    return out, net.logits(encoded)


@pytest.fixture(scope="module")
def loaded(folder, full_state):
    """`loaded("small")`: sizes, network and stored outputs."""

    def of(name):
        found = weights.from_official(full_state) if name == "full" else weights.read(
            folder / "massa_small.pth", heads=4, go_heads=2
        )  # fmt: skip
        return found.config, weights.assemble(found.config, found.tensors), np.load(folder / f"massa_{name}.npz")

    return of


@pytest.mark.golden
@pytest.mark.parametrize(("name", "tolerance"), [("small", 1e-4), ("full", 2e-4)])
def test_outputs_and_losses_are_the_published_ones(loaded, stored, name, tolerance):
    cfg, net, golden = loaded(name)
    features, labels = stored(golden, cfg)
    graphdef, state = nnx.split(net)
    out, logits = jax.jit(lambda state, f: stages(nnx.merge(graphdef, state), f))(state, features)
    rows = np.concatenate([i * 128 + np.arange(n) for i, n in enumerate(golden["lengths"])])
    compared = set()
    for key in golden.files:
        stage = key.removeprefix("act_")
        if not key.startswith("act_") or stage not in out:
            continue
        value, expected = np.asarray(out[stage]), golden[key]
        if stage.startswith("struc"):
            value = value.reshape(-1, *value.shape[2:])[rows]
            value = value.swapaxes(1, 2) if stage.endswith(".v") else value
        np.testing.assert_allclose(value[:, : expected.shape[1]], expected, atol=tolerance, err_msg=stage)
        compared.add(stage)
    assert compared >= {
        "seq_encoder",
        "struc.layer1.s",
        "struc_encoder",
        "fusion",
        "go_encoder",
        "cross.pro",
        "cross.go",
    }
    for head, value in logits.items():
        expected = golden[f"logit_{head}"]
        found = np.asarray(value)[:, : expected.shape[1], : expected.shape[2]]
        np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=head)
    for training, kind in ((True, "loss"), (False, "ce")):
        parts = losses.objectives(logits, labels, training=training)
        for head, (total, count) in parts.items():
            np.testing.assert_allclose(total / count, golden[f"{kind}_{head}"], rtol=1e-4, err_msg=head)
    np.testing.assert_allclose(losses.total(losses.objectives(logits, labels)), golden["loss_total"], rtol=1e-4)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "full"])
def test_gradients_are_the_published_ones(loaded, stored, name):
    cfg, net, golden = loaded(name)
    features, labels = stored(golden, cfg)
    graphdef, params = nnx.split(net, nnx.Param)

    def loss(params, features):
        return losses.total(losses.objectives(nnx.merge(graphdef, params)(features), labels))

    slopes = module.flatten(jax.jit(jax.grad(loss))(params, jax.tree.map(jnp.asarray, features)))
    slopes = weights.to_official(cfg, slopes)
    for key, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        if norm >= 0:  # others never reach the loss
            # Biases of keys have no derivative; what is stored for them is rounding.
            np.testing.assert_allclose(np.linalg.norm(slopes[key]), norm, rtol=1e-3, atol=1e-6, err_msg=key)
    for key in golden.files:
        if key.startswith("grad:"):
            expected = golden[key]
            found = slopes[key.removeprefix("grad:")].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max(), err_msg=key)


@pytest.mark.golden
def test_sequence_encoder_depends_on_the_batch_as_published(loaded, folder, stored):
    cfg, net, golden = loaded("full")
    features, _ = stored(golden, cfg)
    body = net.backbone.sequence
    graphdef, state = nnx.split(body)
    expected = np.load(folder / "massa_full_single.npz")["seq_encoder_protein0_unpadded"][0]
    run = jax.jit(lambda state, seq, mask: nnx.merge(graphdef, state)(seq, mask))
    alone = np.asarray(run(state, features.seq[:1], features.mask[:1])[0, : len(expected)])
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    together = np.asarray(run(state, features.seq, features.mask)[0, : len(expected)])
    np.testing.assert_allclose(together[:-9], expected[:-9], atol=1e-4)
    assert np.abs(together[-9:] - expected[-9:]).max() > 0.1
    body.cfg = dataclasses.replace(cfg, pad_mode="masked")
    other = nnx.split(body)[0]
    masked = jax.jit(lambda state, seq, mask: nnx.merge(other, state)(seq, mask))(state, features.seq, features.mask)
    np.testing.assert_allclose(masked[0, : len(expected)], expected, atol=1e-4)


@pytest.fixture(scope="module")
def tiny(random_module):
    """(run, records): `run(features, **options)` of a small network with the options of training."""
    blueprint, tensors = random_module(lambda rngs: MASSA(TINY, rngs=rngs))
    net = module.assemble(blueprint, tensors)
    graphdef, state = nnx.split(net)
    compiled = jax.jit(
        lambda state, features, key=None, **options: nnx.merge(graphdef, state)(features, key, **options),
        static_argnames=("add_structure", "add_goterm"),
    )
    rng = np.random.default_rng(4)
    records = []
    for number, (n, g) in enumerate(((30, 3), (9, 0), (1, 5), (41, 8))):
        letters, coords = "ACDEFGHIKL" * 5, np.cumsum(rng.normal(size=(n, 4, 3)), 0) * 2
        records.append(
            featurize.Record(str(number), letters[:n], rng.normal(size=(n, 5)), coords, rng.normal(size=(g, 3)))
        )
    return net, lambda features, *args, **options: compiled(state, features, *args, **options), records


def test_padding_and_company_change_nothing(tiny):
    """The bucket is longer than the table of positions."""
    _, run, records = tiny
    features, _ = featurize.batch(records, TINY, length=64, terms=8)
    whole = run(features)
    for i, record in enumerate(records):
        alone = run(featurize.batch([record] * 4, TINY, length=64, terms=8)[0])
        n, g = len(record.sequence), len(record.go)
        np.testing.assert_allclose(whole.protein[i, :n], alone.protein[0, :n], atol=2e-5)
        np.testing.assert_allclose(whole.go[i, :g], alone.go[0, :g], atol=2e-5)


def test_order_of_go_terms_does_not_matter(tiny):
    _, run, records = tiny
    features, _ = featurize.batch(records, TINY, length=64, terms=8)
    turned = features._replace(go=features.go.copy())
    turned.go[3] = features.go[3, ::-1]
    a, b = run(features), run(turned)
    np.testing.assert_allclose(a.protein[3], b.protein[3], atol=2e-5)
    np.testing.assert_allclose(a.go[3], b.go[3][::-1], atol=2e-5)


def test_missing_modalities_are_masked(tiny):
    _, run, records = tiny
    features, _ = featurize.batch(records, TINY, length=64, terms=8)
    without = [dataclasses.replace(record, coords=None, go=None) for record in records]
    bare = run(featurize.batch(without, TINY, length=64, terms=8)[0])
    # What stands in the arrays of a modality that is not there is not seen.
    noise = np.random.default_rng(0).normal(size=features.go.shape).astype(np.float32)
    faked = features._replace(
        go=noise, go_mask=np.zeros_like(features.go_mask), has_structure=np.zeros(len(records), bool)
    )
    np.testing.assert_allclose(run(faked).protein[0, :30], bare.protein[0, :30], atol=2e-5)
    assert np.abs(run(features).protein[0, :30] - bare.protein[0, :30]).max() > 0.01


@pytest.mark.slow
def test_dropout_follows_its_key(tiny, key):
    _, run, records = tiny
    features, _ = featurize.batch(records, TINY, length=64, terms=8)
    a, b, c = (np.asarray(run(features, k).protein) for k in (key, key, jax.random.key(1)))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c)[features.mask].max() > 0.1 and np.isfinite(a).all()


def test_vectors_of_proteins(tiny):
    net, run, records = tiny
    predictor = Predictor(net)
    found = predictor.embed(records[:2])
    assert [(r.name, r.vector.shape, r.residues.shape) for r in found] == [
        ("0", (16,), (30, 16)), ("1", (16,), (9, 16)),
    ]  # fmt: skip
    features, _ = featurize.batch(records, TINY, length=64, terms=8)
    np.testing.assert_allclose(found[0].residues, run(features).protein[0, :30], atol=2e-5)
    weight = np.exp(np.linalg.norm(found[0].residues, axis=1))
    np.testing.assert_allclose(found[0].vector, weight @ found[0].residues / weight.sum(), atol=2e-5)
    long = dataclasses.replace(records[0], sequence="A" * 61, embedding=np.zeros((61, 5)), coords=None)
    with pytest.raises(InputError, match="61 residues"):
        predictor.embed([long])


def test_long_proteins_in_windows(tiny):
    net, _, records = tiny
    predictor, rng = Predictor(net), np.random.default_rng(3)
    long = dataclasses.replace(records[0], sequence="A" * 100, embedding=rng.normal(size=(100, 5)), coords=None)
    short, found = predictor.embed([records[1], long], long="window")
    np.testing.assert_allclose(short.vector, predictor.embed([records[1]])[0].vector, atol=1e-5)
    # Windows 0-59 and 40-99; each residue from the one in which it lies farther from a cut.
    first, last = predictor.embed([featurize.crop(long, 60), featurize.crop(long, 60, 40)])
    assert found.residues.shape == (100, 16)
    np.testing.assert_allclose(found.residues[:50], first.residues[:50], atol=1e-5)
    np.testing.assert_allclose(found.residues[50:], last.residues[10:], atol=1e-5)
    weight = np.exp(np.linalg.norm(found.residues, axis=1))
    np.testing.assert_allclose(found.vector, weight @ found.residues / weight.sum(), atol=2e-5)


def test_the_network_as_an_embedder(tiny):
    net, _, records = tiny

    class Inputs:
        name, dim, max_len = "five", 5, None

        def embed(self, sequences):
            return [np.outer(np.arange(len(s)), np.ones(5)).astype(np.float32) for s in sequences]

    embedder = MASSAEmbedder(Predictor(net), Inputs())
    assert isinstance(embedder, Embedder) and embedder.dim == 16
    found = embedder.embed(["ACDEF", "A" * 70])
    assert [one.shape for one in found] == [(5, 16), (70, 16)]
    record = dataclasses.replace(
        records[0], sequence="ACDEF", embedding=Inputs().embed(["ACDEF"])[0], coords=None, go=None
    )
    np.testing.assert_allclose(found[0], Predictor(net).embed([record])[0].residues, atol=1e-6)
    with pytest.raises(InputError, match="49 channels, the weights read 5"):
        MASSAEmbedder(Predictor(net))


def test_settings_that_make_no_network_are_refused():
    for changes in ({"kernel": 4}, {"width": 0}, {"heads": 7}, {"dropout": 1.0}, {"pad_mode": "none"}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            MASSAConfig(**changes)

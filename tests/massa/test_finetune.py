"""Training on downstream tasks."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.heads import mean_max
from jaxprot.massa.model import MASSA, Pretraining
from jaxprot.massa.tasks.cnn import CNNConfig
from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.weights import module, portable

SMALL = MASSAConfig(
    seq_dim=49, max_length=64, width=16, convolutions=1, kernel=3, vectors=2, layers=1, neighbours=4, fusion_layers=1,
    heads=2, feedforward=16, go_dim=4, go_width=8, go_layers=1, go_heads=2, go_feedforward=8, cross_layers=1,
    sequence_dropout=0.0, dropout=0.0, go_classes=3, motif_classes=2, domain_classes=2, region_classes=2,
)  # fmt: skip


def table(path, kind, count=160, seed=0):
    """Numbers of tryptophans, whether there are many, or whether the residue before is one."""
    rng = np.random.default_rng(seed)
    rows = ["sequence,label,split"]
    for i in range(count):
        text = "".join(rng.choice(list("ACDEW"), int(rng.integers(8, 20))))
        share = text.count("W") / len(text)
        label = {"regression": f"{share:.4f}", "classes": str(int(share > 0.2)),
                 "residue_classes": "".join("1" if c in "WA" else "0" for c in text)}[kind]  # fmt: skip
        rows.append(f"{text},{label},{'valid' if i % 4 == 0 else 'train'}")
    path.write_text("\n".join(rows))
    return str(path)


@pytest.mark.parametrize(
    ("kind", "model", "least"),
    [
        ("classes", CNNConfig(width=16), 0.7),
        pytest.param("regression", SMALL, 0.8, marks=pytest.mark.slow),
        pytest.param("residue_classes", SMALL, 0.95, marks=pytest.mark.slow),
    ],
)
def test_what_letters_tell_is_learned(tmp_path, kind, model, least):
    task = FinetuneTask(table=table(tmp_path / "t.csv", kind), model=model, items=512, hidden=16)
    assert task.data.kind == kind
    cfg = TrainConfig(
        task=task, optim=OptimConfig(lr=1e-2, warmup=5, ema=0.9), steps=60, micro=0, evaluate_every=60, save_every=60,
        log_every=20,
    )  # fmt: skip
    records = []
    fit(cfg, tmp_path / "run", parallel=Parallel("single"), report=records.append)
    assert next(r for r in records[::-1] if "val_score" in r)["val_score"] > least


def test_predictions_are_in_the_order_and_the_units_of_the_table(tmp_path):
    task = FinetuneTask(table=table(tmp_path / "t.csv", "regression"), model=SMALL, items=128)
    rows = np.array([5, 3, 40, 7])
    mean, deviation = task.scale

    def apply(seq, mask):
        return (seq[..., 18].sum(1) / mask.sum(1) - mean)[:, None] / deviation  # the share of W

    found, labels = task.predict(apply, rows)
    np.testing.assert_allclose(found, labels, atol=1e-4)


def test_training_goes_on_from_a_backbone(tmp_path):
    net = MASSA(SMALL, rngs=nnx.Rngs(0))
    whole = Pretraining(SMALL, rngs=nnx.Rngs(0))
    whole.backbone = net
    path = tmp_path / "massa.safetensors"
    weights.save(path, SMALL, weights.module.flatten(nnx.to_pure_dict(nnx.state(whole))))
    source = table(tmp_path / "t.csv", "classes")
    built = FinetuneTask(table=source, weights=str(path)).build(jax.random.key(0))
    assert built.cfg == SMALL
    np.testing.assert_array_equal(built.backbone.sequence.input.kernel[...], net.sequence.input.kernel[...])
    other = dataclasses.replace(SMALL, seq_dim=8)
    wrong = Pretraining(other, rngs=nnx.Rngs(0))
    weights.save(path, other, weights.module.flatten(nnx.to_pure_dict(nnx.state(wrong))))
    with pytest.raises(InputError, match="reads 8 channels, the embedder physchem has 49"):
        FinetuneTask(table=source, weights=str(path)).build(jax.random.key(0))


@pytest.mark.parametrize("kind", ["classes", pytest.param("residue_classes", marks=pytest.mark.slow)])
def test_a_frozen_backbone_reads_each_protein_once_and_training_goes_on_from_it(tmp_path, kind):
    """The head alone learns on stored features as the whole network would see them; then the whole begins there."""
    from jaxprot.massa.tasks import predict

    source = table(tmp_path / "t.csv", kind, 40)
    whole = Pretraining(SMALL, rngs=nnx.Rngs(0))
    path = tmp_path / "massa.safetensors"
    weights.save(path, SMALL, module.flatten(nnx.to_pure_dict(nnx.state(whole))))
    task = FinetuneTask(table=source, weights=str(path), items=512, hidden=8)
    cfg = recipe(task, steps=12, lr=1e-2, frozen=True)
    assert cfg.task.frozen and not task.frozen
    calls, run = [], cfg.task.run
    object.__setattr__(cfg.task, "run", lambda apply, rows: calls.extend(rows) or run(apply, rows))
    net = cfg.task.build(jax.random.key(0))
    inputs = (net.head.centre[...] + 0, net.head.spread[...] + 0)
    assert float(inputs[1].max()) > 0 and np.abs(inputs[0]).max() > 1e-3
    batch = cfg.task.batches(0, 0)
    frozen, whole = (one.load(batch.shape, batch.members) for one in (cfg.task, task))
    there = whole.mask[..., None] if frozen.seq.ndim > 2 else 1
    np.testing.assert_allclose(frozen.seq, net.read(whole.seq, whole.mask) * there, atol=1e-5)
    assert len(calls) == len(set(calls))
    object.__setattr__(cfg.task, "run", None)
    cfg.task.load(batch.shape, batch.members)  # nothing is read again
    object.__setattr__(cfg.task, "run", run)
    begun = {name: np.asarray(value) for name, value in module.flatten(nnx.to_pure_dict(nnx.state(net))).items()}
    records = []
    fit(cfg, tmp_path / "head", parallel=Parallel("single"), report=records.append,
        header={"system": "massa", **cfg.task.header()})  # fmt: skip
    found = predict.load(tmp_path / "head")
    for name, value in module.flatten(nnx.to_pure_dict(nnx.state(found.module))).items():
        assert np.array_equal(value, begun[name]) == (name.startswith("backbone") or "fc" not in name), name
    score = next(r for r in records[::-1] if "val_score" in r)["val_score"]
    said, labels = predict.evaluate(found, task)["valid"]
    best = max(r["val_score"] for r in records if "val_score" in r)
    assert best == pytest.approx(np.mean(said == labels)) and score <= best
    later = FinetuneTask(table=source, start=str(tmp_path / "head"), items=512, hidden=8)
    again, _ = later.predict(lambda seq, mask: later.build(jax.random.key(1))(seq, mask), task.data.part("valid"))
    np.testing.assert_array_equal(again, said)
    assert later.build(jax.random.key(0)) is not later.build(jax.random.key(0))
    further = recipe(later, steps=3, lr=1e-2, frozen=True)  # the head alone goes on, and a task may train twice
    for number in range(2):
        fit(further, tmp_path / f"further{number}", parallel=Parallel("single"),
            header={"system": "massa", **further.task.header()})  # fmt: skip
    assert recipe(task, steps=5).optim.rates and not recipe(later, steps=5).optim.rates
    with pytest.raises(InputError, match="trained on another task: hidden 8, not 128"):
        FinetuneTask(table=source, start=str(tmp_path / "head")).build(jax.random.key(0))
    with pytest.raises(InputError, match="a network of another kind"):
        FinetuneTask(table=source, start=str(tmp_path / "head"), model=CNNConfig(), hidden=8).build(jax.random.key(0))
    with pytest.raises(ValueError, match="a backbone of its own"):
        FinetuneTask(table=source, start="a", weights="b")


def test_mean_and_maximum_leave_padding_out():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32) - 4
    mask = np.array([[True] * 3 + [False] * 2, [False] * 5])
    found = np.asarray(mean_max(x, mask))
    np.testing.assert_allclose(found[0], np.concatenate([x[0, :3].mean(0), x[0, :3].max(0)]), rtol=1e-6)
    assert not found[1].any()
    slope = jax.grad(lambda x: mean_max(x, mask).sum())(x)
    assert np.isfinite(slope).all() and not slope[0, 3:].any()


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A file of a small ESM-2 of random weights."""
    from jaxprot.esm2 import weights as stored
    from jaxprot.esm2.config import ESM2Config

    cfg, rng = ESM2Config(layers=1, width=8, heads=2), np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in stored.shapes(cfg).items()}
    path = tmp_path_factory.mktemp("esm2") / "small.safetensors"
    portable.save(path, tensors, {"system": "esm2", "config": dataclasses.asdict(cfg)})
    return path


def test_embeddings_of_a_language_model_are_read_and_computed_once(tmp_path, language):
    source = table(tmp_path / "t.csv", "classes", 12)
    task = FinetuneTask(table=source, model=SMALL, reads=str(language))
    found = task.rows(np.array([3, 1, 3]), 64)
    assert found.seq.shape == (3, 64, 8)
    for place, row in enumerate((3, 1, 3)):
        (alone,) = task.embedder.embed([task.data.sequences[row]])
        np.testing.assert_allclose(found.seq[place, : len(alone)], alone, atol=1e-4)
    task.embedder.embed = None  # whatever is asked again is not computed again
    np.testing.assert_array_equal(task.rows(np.array([1]), 64).seq[0], found.seq[1])
    with pytest.raises(TypeError):
        task.rows(np.array([0]), 64)
    assert task.header()["config"]["seq_dim"] == 8
    with pytest.raises(ValueError, match="the convolutional network reads letters"):
        FinetuneTask(table=source, model=CNNConfig(), reads=str(language))


def test_predictions_read_what_was_trained_on(tmp_path, language):
    from jaxprot.massa.tasks import predict

    task = FinetuneTask(table=table(tmp_path / "t.csv", "regression", 12), model=SMALL, reads=str(language), hidden=4)
    net = task.build(jax.random.key(0))
    path = tmp_path / "best.safetensors"
    portable.save(path, module.flatten(nnx.to_pure_dict(nnx.state(net, nnx.Param))), task.header())
    predictor, rows = predict.load(path), np.arange(5)
    found, _ = task.predict(lambda seq, mask: net(seq, mask), rows)
    np.testing.assert_allclose(predictor.predict([task.data.sequences[row] for row in rows]), found, atol=1e-4)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(language.read_bytes())
    assert predict.load(path, moved).embedder.dim == 8
    with pytest.raises(InputError, match="absent.pt: no such file, and .* reads embeddings of it"):
        predict.load(path, tmp_path / "absent.pt")
    moved.write_bytes(language.read_bytes()[:-4] + b"0000")
    with pytest.raises(CheckpointError, match="not the checkpoint that"):
        predict.load(path, moved)
    plain = dataclasses.replace(task, reads=None)
    other = plain.build(jax.random.key(0))
    portable.save(path, module.flatten(nnx.to_pure_dict(nnx.state(other, nnx.Param))), plain.header())
    with pytest.raises(InputError, match="these weights read no embeddings"):
        predict.load(path, language)


def test_a_share_of_the_rows(tmp_path):
    source = table(tmp_path / "t.csv", "classes")
    part = FinetuneTask(table=source, model=SMALL, share=0.25).trained_rows
    assert len(part) == 30 and set(part) <= set(FinetuneTask(table=source, model=SMALL).trained_rows)
    with pytest.raises(ValueError, match="share"):
        FinetuneTask(table=source, share=0.0)

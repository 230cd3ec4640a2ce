"""The engine: gradients do not depend on grouping, runs resume exactly, batches are functions of the step."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.loop import fit
from jaxprot.train.step import Objective
from jaxprot.train.task import Mean, OptimConfig, TrainConfig
from jaxprot.weights import portable


class Line(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 2, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class LineTask:
    """Learns y = x W of a hidden W."""

    monitor: str = "fit"

    def build(self, key):
        return Line(nnx.Rngs(key))

    def batches(self, step, seed):
        return Batch(None, np.arange(8) + 8 * step)

    def load(self, shape, members):
        x = np.stack([np.random.default_rng(i).normal(size=3) for i in members]).astype(np.float32)
        return {"x": x, "y": x @ np.float32([[1, 2], [3, 4], [5, 6]]), "weight": (members % 3).astype(np.float32)}

    def loss(self, model, example, key):
        error = jnp.sum((model.layer(example["x"]) - example["y"]) ** 2)
        noise = 0.0 * jax.random.normal(key)
        return {"loss": Mean(example["weight"] * (error + noise), example["weight"])}

    def evaluator(self, graphdef):
        kernel = jnp.array([[1.0, 2], [3, 4], [5, 6]])
        return lambda params: {"fit": -float(jnp.mean((params["layer"]["kernel"] - kernel) ** 2))}


CONFIG = TrainConfig(
    task=LineTask(),
    optim=OptimConfig(lr=0.05, warmup=5, weight_decay=0.0, ema=0.9),
    steps=60,
    evaluate_every=20,
    save_every=20,
)


def gradient(task, params, batch, key, **options):
    graphdef, _ = nnx.split(task.build(key), nnx.Param)
    objective = Objective(task, graphdef, **options)
    n = jax.tree.leaves(batch)[0].shape[0]
    return objective.gradient(params, jax.tree.map(lambda _: None, params), {}, batch, jnp.ones(n), key)


@pytest.mark.parametrize("micro", [0, 1, 3, 8], ids="{} at once".format)
def test_the_gradient_is_that_of_the_weighted_mean(key, micro):
    task = LineTask()
    params = nnx.to_pure_dict(nnx.split(task.build(key), nnx.Param)[1])
    batch = task.load(None, np.arange(8))

    def whole(params):
        error = jnp.sum((batch["x"] @ params["layer"]["kernel"] + params["layer"]["bias"][None] - batch["y"]) ** 2, 1)
        return jnp.sum(batch["weight"] * error) / jnp.sum(batch["weight"])

    (loss, terms), grad, _ = gradient(task, params, batch, key, micro=micro)
    expected_loss, expected = jax.value_and_grad(whole)(params)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(float(expected_loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grad, expected)


class NeverFinite(LineTask):
    def evaluator(self, graphdef):
        return lambda params: {"fit": float("nan")}


def test_a_figure_that_is_never_finite_is_an_error(tmp_path):
    cfg = dataclasses.replace(CONFIG, task=NeverFinite(), steps=4, evaluate_every=2)
    with pytest.raises(FloatingPointError, match="fit was never a finite number"):
        fit(cfg, tmp_path / "run")


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_training_learns_and_leaves_the_best_weights(tmp_path, name):
    cfg = dataclasses.replace(CONFIG, steps=300, optim=dataclasses.replace(CONFIG.optim, name=name, lr=0.2))
    tensors, header = portable.load(fit(cfg, tmp_path / "run", header={"system": "line"}).best)
    assert header["system"] == "line"
    assert header["figures"]["fit"] > -0.05
    np.testing.assert_allclose(tensors["layer.kernel"], [[1, 2], [3, 4], [5, 6]], atol=0.6)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 300
    assert any("val_fit" in r for r in records)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = portable.load(fit(CONFIG, tmp_path / "whole").best)[0]

    class StoppedError(Exception):
        pass

    def stop(record):
        if record["step"] == 40 and "loss" in record:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(CONFIG, tmp_path / "cut", report=stop)
    resumed = portable.load(fit(CONFIG, tmp_path / "cut", resume=True).best)[0]
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_an_unfinished_save_is_passed_over(tmp_path):
    short = dataclasses.replace(CONFIG, steps=40)
    fit(short, tmp_path / "run")
    ckpt = tmp_path / "run" / "ckpt"
    shutil.copytree(ckpt / "40", ckpt / "60.orbax-checkpoint-tmp")
    fit(CONFIG, tmp_path / "run", resume=True)
    assert (ckpt / "60").is_dir()


def test_a_checkpoint_of_another_optimiser_is_named(tmp_path):
    fit(dataclasses.replace(CONFIG, steps=20), tmp_path / "run")
    other = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, name="muon"))
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this model and optimiser \(opt\..* wanted\)"):
        fit(other, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(tmp_path):
    fit(dataclasses.replace(CONFIG, steps=40), tmp_path / "run")
    for path in (tmp_path / "run" / "ckpt" / "40" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            path.write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"ckpt/40: damaged.*remove this folder"):
        fit(CONFIG, tmp_path / "run", resume=True)
    shutil.rmtree(tmp_path / "run" / "ckpt" / "40")
    assert fit(CONFIG, tmp_path / "run", resume=True).step == CONFIG.steps


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    cfg = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, lr=1e30))
    with pytest.raises(FloatingPointError, match="learning rate"):
        fit(cfg, tmp_path / "run")


def test_batches_cover_every_example_and_repeat_exactly():
    lengths = np.random.default_rng(0).integers(30, 500, 200)
    batches = BucketBatches(lengths, 1024)
    seen = []
    for step in range(batches.per_epoch):
        length, members, _ = batches(step, seed=1)
        assert (lengths[members] <= length).all()
        assert len(members) == batches.sizes[length]
        seen += members.tolist()
    assert set(seen) == set(range(200))
    again = BucketBatches(lengths, 1024)
    for step in (0, 7, batches.per_epoch + 3):
        np.testing.assert_array_equal(batches(step, 1).members, again(step, 1).members)
    epoch = [batches(step, 1).members.tolist() for step in range(batches.per_epoch, 2 * batches.per_epoch)]
    assert epoch != [again(step, 1).members.tolist() for step in range(batches.per_epoch)]

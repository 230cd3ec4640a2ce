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
from jaxprot.train.data import BucketBatches
from jaxprot.train.loop import fit
from jaxprot.train.schedules import optimiser, trapezoid
from jaxprot.train.step import gradient
from jaxprot.train.task import OptimConfig, TrainConfig
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

    def batch(self, step, seed):
        rng = np.random.default_rng([seed, step])
        x = rng.normal(size=(8, 3)).astype(np.float32)
        return {"x": x, "y": x @ np.float32([[1, 2], [3, 4], [5, 6]]), "weight": np.arange(8, dtype=np.float32) % 3}

    def loss(self, model, example, key):
        error = jnp.sum((model.layer(example["x"]) - example["y"]) ** 2)
        noise = 0.0 * jax.random.normal(key)
        return example["weight"] * (error + noise), example["weight"]

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


def test_the_gradient_is_that_of_the_weighted_mean(key):
    task = LineTask()
    graphdef, params = nnx.split(task.build(key), nnx.Param)
    params = nnx.to_pure_dict(params)
    batch = task.batch(0, 0)

    def whole(params):
        model = nnx.merge(graphdef, params)
        error = jnp.sum((model.layer(batch["x"]) - batch["y"]) ** 2, axis=1)
        return jnp.sum(batch["weight"] * error) / jnp.sum(batch["weight"])

    (loss, count), grad = gradient(task, graphdef, params, batch, key)
    expected_loss, expected = jax.value_and_grad(whole)(params)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert float(count) == batch["weight"].sum()
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
    tensors, header = portable.load(fit(cfg, tmp_path / "run", header={"system": "line"}))
    assert header["system"] == "line"
    assert header["figures"]["fit"] > -0.05
    np.testing.assert_allclose(tensors["layer.kernel"], [[1, 2], [3, 4], [5, 6]], atol=0.6)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 300
    assert any("val_fit" in r for r in records)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = portable.load(fit(CONFIG, tmp_path / "whole"))[0]

    class StoppedError(Exception):
        pass

    def stop(record):
        if record["step"] == 40 and "loss" in record:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(CONFIG, tmp_path / "cut", report=stop)
    resumed = portable.load(fit(CONFIG, tmp_path / "cut", resume=True))[0]
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
    with pytest.raises(CheckpointError, match="not a checkpoint of this model and optimiser"):
        fit(other, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    cfg = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, lr=float("inf")))
    with pytest.raises(FloatingPointError, match="learning rate"):
        fit(cfg, tmp_path / "run")


def test_unknown_optimiser():
    with pytest.raises(ValueError, match="adamw"):
        optimiser(OptimConfig(name="sgdx"), 10, {})


def test_schedule_rises_stays_and_falls():
    schedule = trapezoid(1.0, steps=100, warmup=10, decay=0.5)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(30)) == 1.0
    assert float(schedule(75)) == pytest.approx(0.5)
    assert float(schedule(100)) == 0.0


def test_batches_cover_every_example_and_repeat_exactly():
    lengths = np.random.default_rng(0).integers(30, 500, 200)
    batches = BucketBatches(lengths, 1024)
    seen = []
    for step in range(batches.per_epoch):
        length, members = batches(step, seed=1)
        assert (lengths[members] <= length).all()
        assert len(members) == batches.sizes[length]
        seen += members.tolist()
    assert set(seen) == set(range(200))
    again = BucketBatches(lengths, 1024)
    for step in (0, 7, batches.per_epoch + 3):
        np.testing.assert_array_equal(batches(step, 1)[1], again(step, 1)[1])
    epoch = [batches(step, 1)[1].tolist() for step in range(batches.per_epoch, 2 * batches.per_epoch)]
    assert epoch != [again(step, 1)[1].tolist() for step in range(batches.per_epoch)]

"""The loop around the step: guard, plateau, frozen parts, precision, compilation, data ahead of the steps."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

sys.path.insert(0, str(Path(__file__).parent))
import toy

from jaxprot.core.errors import InputError, OutputError
from jaxprot.train.data import BucketBatches, Loader, ShuffledBatches, chunks
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel, by_process
from jaxprot.train.step import Objective
from jaxprot.train.task import Mean, OptimConfig, PlateauConfig, TrainConfig
from jaxprot.weights import module, portable


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_terms_are_logged_apart_and_add_up(tmp_path):
    fit(toy.config(), tmp_path / "run")
    records = [record for record in metrics(tmp_path / "run") if "loss" in record]
    assert [record["step"] for record in records] == [5, 10, 15, 20]
    for record in records:
        assert record["loss"] == pytest.approx(record["square"] + 0.1 * record["size"], rel=1e-5)
        assert 0.5 < record["seen"] < 0.8  # logged alone: its weight is 0


def test_terms_with_counts_of_their_own_are_means_of_their_own(key):
    """Against the loss of a whole batch written at once."""
    task = toy.Toy()
    graphdef, params = nnx.split(task.build(key), nnx.Param)
    params = nnx.to_pure_dict(params)
    batch, weight = task.load(None, np.arange(10)), (np.arange(10) < 7).astype(np.float32)

    def whole(params):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(10))
        x = batch["x"] + 0.1 * jax.vmap(lambda k: jax.random.normal(k, (5,)))(keys)
        out = nnx.merge(graphdef, params)(x)
        seen = batch["seen"] * weight
        square = jnp.sum(seen * (out - batch["y"]) ** 2) / jnp.sum(seen)
        return square + 0.1 * jnp.sum(weight * jnp.abs(out)) / 7

    loss, grad = jax.value_and_grad(whole)(params)
    fixed = jax.tree.map(lambda _: None, params)
    for micro in (0, 1, 4):
        (found, _), got, _ = Objective(task, graphdef, micro).gradient(params, fixed, {}, batch, weight, key)
        assert float(found) == pytest.approx(float(loss), rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), got, grad)


@pytest.mark.parametrize("chunk", [1, 5])
def test_a_term_that_is_not_finite_is_named_and_the_state_before_is_kept(tmp_path, chunk):
    broken = int(ShuffledBatches(50, 12)(3, 0).members[0])  # not drawn before the fourth step
    run = tmp_path / "run"
    with pytest.raises(FloatingPointError, match=r"at step 4: size, square; the state after step 3 is kept"):
        fit(toy.config(toy.Toy(broken=broken), chunk=chunk), run)
    # Going on with sound data ends as a run that never met the others.
    fit(toy.config(), run, resume=True)
    fit(toy.config(), tmp_path / "whole")
    for name, value in portable.load(tmp_path / "whole" / "best.safetensors")[0].items():
        np.testing.assert_array_equal(portable.load(run / "best.safetensors")[0][name], value)
    found, expected = ([r["loss"] for r in metrics(home) if "loss" in r] for home in (run, tmp_path / "whole"))
    assert found == expected


def test_frozen_parts_stay_and_the_rest_moves(tmp_path):
    optim = dataclasses.replace(toy.config().optim, name="adamw", weight_decay=0.1, frozen=("first",))
    cfg = toy.config(optim=optim)
    tensors = portable.load(fit(cfg, tmp_path / "run").best)[0]
    model = toy.Toy().build(jax.random.split(jax.random.key(0))[0])
    before = module.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    for name, value in before.items():
        same = np.array_equal(tensors[name], np.asarray(value))
        assert same == name.startswith("first"), name


def test_the_rate_falls_when_validation_stands_still(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Still(toy.Toy):
        def evaluator(self, graphdef):
            return lambda variables: {"fit": 1.0}

    optim = dataclasses.replace(toy.config().optim, plateau=PlateauConfig(factor=0.5, patience=1))
    cfg = toy.config(Still(), optim=optim, evaluate_every=2, log_every=2, save_every=2)
    fit(cfg, tmp_path / "whole")
    rates = [record["lr"] for record in metrics(tmp_path / "whole") if "lr" in record]
    # Best at the first evaluation, then two without improvement before each fall.
    np.testing.assert_allclose(rates, 0.1 * 0.5 ** np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4]), rtol=1e-6)
    fit(dataclasses.replace(cfg, steps=8), tmp_path / "run")
    fit(cfg, tmp_path / "run", resume=True)
    assert [record["lr"] for record in metrics(tmp_path / "run") if "lr" in record] == rates


def test_what_training_begins_with_is_kept_where_nothing_is_better(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Worse(toy.Toy):
        def evaluator(self, graphdef):
            calls = []
            return lambda variables: calls.append(1) or {"fit": -float(len(calls))}

    cfg = toy.config(Worse(), steps=10, evaluate_every=5, save_every=5, evaluate_start=True)
    best = fit(cfg, tmp_path / "run").best
    tensors, header = portable.load(best)
    model = toy.Toy().build(jax.random.split(jax.random.key(0))[0])
    for name, value in module.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).items():
        np.testing.assert_array_equal(tensors[name], value)
    assert header["step"] == 0 and [r["val_fit"] for r in metrics(tmp_path / "run") if "val_fit" in r] == [-1, -2, -3]
    # A run that goes on knows how good its start was.
    fit(dataclasses.replace(cfg, steps=20), tmp_path / "run", resume=True)
    assert portable.load(best)[1]["step"] == 0
    # One that had no checkpoint yet tells of its start once.
    shutil.rmtree(tmp_path / "run" / "ckpt")
    fit(cfg, tmp_path / "run", resume=True)
    assert [r["step"] for r in metrics(tmp_path / "run") if "val_fit" in r] == [0, 5, 10]


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path):
    seen = set()

    @dataclasses.dataclass(frozen=True)
    class Watched(toy.Toy):
        def loss(self, model, example, key):
            out = model(example["x"].astype(model.first.kernel[...].dtype))
            seen.add(out.dtype)
            return {"square": Mean((out.astype(jnp.float32) - example["y"]) ** 2, jnp.ones(()))}

    fit(toy.config(Watched(), precision="bfloat16", steps=10), tmp_path / "half")
    assert seen == {jnp.dtype("bfloat16")}
    half = portable.load(tmp_path / "half" / "best.safetensors")[0]
    assert {value.dtype for value in half.values()} == {np.dtype("float32")}
    seen.clear()
    fit(toy.config(Watched(), steps=10), tmp_path / "full")
    assert seen == {jnp.dtype("float32")}
    full = portable.load(tmp_path / "full" / "best.safetensors")[0]
    for name, value in full.items():
        np.testing.assert_allclose(half[name], value, atol=0.03)


@dataclasses.dataclass(frozen=True)
class Lengths(toy.Toy):
    """Examples of three lengths."""

    def batches(self, step, seed):
        return BucketBatches([20, 40, 40, 70, 70, 20] * 4, 128)(step, seed)

    def load(self, shape, members):
        rng = np.random.default_rng(0)
        return {"x": rng.normal(size=(len(members), shape, 5)).astype(np.float32)}

    def loss(self, model, example, key):
        return {"square": Mean(jnp.sum(model(example["x"]) ** 2), jnp.float32(example["x"].shape[0]))}

    def evaluator(self, graphdef):
        return lambda variables: {"fit": 0.0}


def test_nothing_is_compiled_after_the_first_epoch(tmp_path):
    epoch = BucketBatches([20, 40, 40, 70, 70, 20] * 4, 128).per_epoch
    cfg = toy.config(Lengths(), steps=4 * epoch, log_every=epoch, evaluate_every=epoch, save_every=epoch)
    fit(cfg, tmp_path / "run")
    programs = [record["programs"] for record in metrics(tmp_path / "run") if "programs" in record]
    assert programs == [3, 3, 3, 3]


def test_a_task_without_a_figure_that_is_watched_says_so(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Other(toy.Toy):
        monitor: str = "score"

    with pytest.raises(ValueError, match="no figure 'score'; there are fit"):
        fit(toy.config(Other()), tmp_path / "run")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainConfig, "save_every", 0),
        (TrainConfig, "steps", 0),
        (TrainConfig, "seed", -1),
        (OptimConfig, "lr", float("nan")),
        (OptimConfig, "warmup", -3),
        (OptimConfig, "ema", 1.5),
        (OptimConfig, "clip", 0.0),
        (PlateauConfig, "factor", 2.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} {value}: "):
        kind(**{name: value}, **({"task": None} if kind is TrainConfig else {}))


def test_batches_larger_than_the_data_are_refused():
    with pytest.raises(ValueError, match="batches of 8"):
        ShuffledBatches(3, 8, "drop")


def test_chunks_end_where_something_is_due():
    assert chunks(0, 10, 4, (5, 7)) == [(0, 4), (4, 5), (5, 7), (7, 8), (8, 10)]
    assert chunks(5, 8, 4, (5, 7)) == [(5, 7), (7, 8)]
    assert chunks(8, 8, 4, (5,)) == []


@pytest.mark.parametrize("listed", [1 << 22, 0])
def test_shuffled_batches_hold_every_example_once_an_epoch(monkeypatch, listed):
    monkeypatch.setattr("jaxprot.train.data._LISTED", listed)  # the other way to shuffle, of many examples
    batches = ShuffledBatches(50, 12)
    epochs = [[batches(5 * e + s, 3) for s in range(5)] for e in range(2)]
    for epoch in epochs:
        assert sorted(np.concatenate([b.members for b in epoch])) == list(range(50))
        assert [len(b.members) for b in epoch] == [12, 12, 12, 12, 2]
        assert {b.size for b in epoch} == {12}
    assert epochs[0][0].members.tolist() != epochs[1][0].members.tolist()
    np.testing.assert_array_equal(ShuffledBatches(50, 12)(7, 3).members, epochs[1][2].members)
    assert ShuffledBatches(50, 12, "drop").per_epoch == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_is_the_same_from_any_step_on(workers):
    task, parallel = toy.Toy(), Parallel("single")
    plan = chunks(0, 9, 1, ())
    whole = list(Loader(task, 0, parallel, plan, workers))
    later = list(Loader(task, 0, parallel, plan[4:], workers))
    assert [chunk.start for chunk in whole] == list(range(9))
    for a, b in zip(whole[4:], later, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert whole[4].weight.sum() == 2  # the uneven last batch of an epoch
    assert whole[4].batch["x"].shape == whole[0].batch["x"].shape


def test_an_error_of_the_data_reaches_the_caller(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Broken(toy.Toy):
        def load(self, shape, members):
            if 7 in members:
                raise OSError("box 7 is damaged")
            return super().load(shape, members)

    with pytest.raises(OSError, match="box 7 is damaged"):
        fit(toy.config(Broken()), tmp_path / "run")


class Counting(nnx.Module):
    """A network with running statistics and a counter of the batches seen."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(5, 1, rngs=rngs)
        self.mean, self.count = nnx.BatchStat(jnp.zeros(5)), nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * x
        self.count[...] = self.count[...] + 1
        return self.layer(x)[0]


@dataclasses.dataclass(frozen=True)
class Counted(toy.Toy):
    terms: int = 1

    def build(self, key):
        return Counting(nnx.Rngs(key))


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_padding_leaves_no_trace_in_running_statistics(key, micro):
    task = Counted()
    graphdef, params, rest = nnx.split(task.build(key), nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    fixed = jax.tree.map(lambda _: None, params)

    def after(count, total):
        batch, weight = task.load(None, np.resize(np.arange(count), total)), (np.arange(total) < count).astype("f4")
        return Objective(task, graphdef, micro).gradient(params, fixed, rest, batch, weight, key)[2]

    alone, padded = after(6, 6), after(6, 12)
    assert int(alone["count"]) == int(padded["count"]) == 6 // micro
    assert float(jnp.abs(alone["mean"]).max()) > 0.01
    np.testing.assert_array_equal(alone["mean"], padded["mean"])


def test_a_loss_that_joins_examples_is_not_given_them_one_by_one(tmp_path):
    with pytest.raises(InputError, match="set micro=0"):
        fit(toy.config(toy.Joint(), micro=1), tmp_path / "run")


def test_a_second_run_in_a_folder_is_refused_unless_it_goes_on(tmp_path):
    called = []
    fit(toy.config(steps=10), tmp_path / "run", begin=called.append)
    assert called == [0]
    with pytest.raises(OutputError, match=r"holds checkpoints of a run \(step 10\); go on"):
        fit(toy.config(), tmp_path / "run", begin=called.append)
    with pytest.raises(InputError, match="has done 10 steps already"):
        fit(toy.config(steps=5), tmp_path / "run", resume=True, begin=called.append)
    assert called == [0]
    assert fit(toy.config(steps=10), tmp_path / "run", resume=True, begin=called.append).step == 10
    assert called == [0, 10]


def test_devices_are_ordered_by_process():
    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        process_index: int
        device_kind: str = "TPU"

    devices = [Device(i, i % 4 // 2) for i in range(8)]  # 0 1 4 5 are of the first host
    assert [d.id for d in by_process(devices)] == [0, 1, 4, 5, 2, 3, 6, 7]

"""Run by test_parallel.py in a process of its own with 8 virtual devices: prints what it measured as JSON."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy

from jaxprot.train.loop import Trainer
from jaxprot.train.parallel import AXIS, Parallel
from jaxprot.train.step import Objective, variables
from jaxprot.weights import module


def run(folder, mode, devices=None, task=None, **changes):
    """All variables after 20 steps."""
    trainer = Trainer(toy.config(task, **changes), folder, Parallel(mode, devices), {})
    trainer.log = type("Log", (), {"write": lambda self, record: None})()
    try:
        start = trainer.resume()
        trainer.go(start)
        state = Parallel.local(trainer.parallel.whole(trainer.state))
        return {name: np.asarray(leaf) for name, leaf in module.flatten(variables(state, averaged=False)).items()}
    finally:
        trainer.checkpoints.close()


def distance(a, b):
    """Largest difference, relative to the largest value of each array."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k] - b[k]).max() / max(np.abs(b[k]).max(), 1e-12)) for k in a)


def gradients(check_vma):
    """Largest difference between the gradient on 8 devices and on one, relative to the largest gradient."""
    task = toy.Toy()
    graphdef, params = nnx.split(task.build(jax.random.key(0)), nnx.Param)
    params = nnx.to_pure_dict(params)
    fixed = jax.tree.map(lambda _: None, params)
    batch, key = task.load(None, np.arange(16)), jax.random.key(1)
    weight = (np.arange(16) < 13).astype(np.float32)
    one = Objective(task, graphdef, micro=0, axis=None)
    expected = jax.jit(lambda p: one.gradient(p, fixed, {}, batch, weight, key)[1])(params)
    many = Objective(task, graphdef, micro=0, axis=AXIS)
    mesh = Parallel()._mesh
    split, same = jax.sharding.PartitionSpec(AXIS), jax.sharding.PartitionSpec()
    found = jax.jit(
        jax.shard_map(
            lambda p, b, w: many.gradient(p, fixed, {}, b, w, key)[1],
            mesh=mesh,
            in_specs=(same, split, split),
            out_specs=same,
            check_vma=check_vma,
        )
    )(params, batch, weight)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    off = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, expected)
    return max(jax.tree.leaves(off)) / largest


def main(folder):
    """Everything that needs devices."""
    folder = pathlib.Path(folder)
    assert len(jax.devices()) == 8
    out = {}
    single = run(folder / "single", "single")
    sharded = run(folder / "sharded", "shard_map")
    mapped = run(folder / "mapped", "pmap")
    out["shard_map is pmap"] = all(np.array_equal(sharded[k], mapped[k]) for k in sharded)
    out["8 devices against 1"] = distance(sharded, single)
    out["4 devices against 1"] = distance(run(folder / "four", "shard_map", jax.devices()[:4]), single)
    out["gradient"] = gradients(check_vma=False)
    out["gradient with check_vma"] = gradients(check_vma=True)

    # Half a run on 8 devices, the rest on others.
    for name, mode, count in (("1", "single", 1), ("4", "shard_map", 4), ("4 pmap", "pmap", 4)):
        run(folder / f"half {name}", "shard_map", steps=10)
        out[f"8 then {name}"] = distance(run(folder / f"half {name}", mode, jax.devices()[:count]), single)
    out["chunks"] = distance(run(folder / "chunk", "shard_map", chunk=5, micro=0), single)
    out["resident"] = distance(run(folder / "resident", "pmap", task=toy.Resident(), chunk=5), single)
    lookahead = toy.config().optim.__class__(name="radam", lookahead=5, frozen=("first",), weight_decay=0.0)
    a = run(folder / "radam 1", "single", optim=lookahead)
    b = run(folder / "radam 8", "shard_map", optim=lookahead)
    out["radam, lookahead, frozen"] = distance(a, b)
    joint = [run(folder / f"joint {m}", m, task=toy.Joint(), micro=0) for m in ("shard_map", "pmap")]
    out["batch norm: shard_map is pmap"] = all(np.array_equal(joint[0][k], joint[1][k]) for k in joint[0])
    out["batch norm moved"] = float(np.abs(joint[0]["norm.mean"]).max())
    fixed = [run(folder / f"fixed {m}", m, task=toy.Fixed()) for m in ("single", "shard_map", "pmap")]
    out["what is fixed stays"] = all(np.array_equal(fixed[0]["drawn"], other["drawn"]) for other in fixed[1:])
    print(json.dumps(out))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])

"""Timings of the training engine: its own cost per step, its scaling over devices, and its waiting for data.

    python scripts/bench_training.py --output bench.json
    python scripts/bench_training.py --only scaling --devices 1 2 4 8 --parallel pmap
    python scripts/bench_training.py --only scaling --size paper --steps 30        # on a machine with GPUs

Parts (all by default, `--only` chooses): `overhead`: steps whose network is a few numbers, so that the wall time is the
engine's, also with as many arrays as ThermoMPNN has. `scaling`: ProteinMPNN on random backbones of 128 residues, the
same batch of 16 on 1, 2, 4 and 8 devices, with the largest relative difference of the weights from those of one device.
Without GPUs or TPUs the devices are virtual ones of the CPU: the table shows that the split is right and what it costs,
not the speed of as many machines. `thermompnn`: `experiments/thermompnn/default.py` for four passes over its data
(`JAXPROT_DATA` names their folder): seconds per step, share of the time spent waiting for the next batch, and programs
compiled. Each measurement runs in a process of its own. Prints tables; `--output` also writes JSON with the machine and
the versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PARTS = ("overhead", "scaling", "thermompnn")
_VIRTUAL = "--xla_force_host_platform_device_count="


def _records(cfg: Any, mode: str, count: int | None, fetch: bool = False) -> dict[str, Any]:
    """Metrics of a run in a temporary folder, and its weights."""
    import jax

    from jaxprot.train.loop import fit
    from jaxprot.train.parallel import Parallel
    from jaxprot.weights import portable

    records: list[dict[str, Any]] = []
    parallel = Parallel(mode, jax.devices()[:count])
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit(cfg, pathlib.Path(folder) / "run", report=records.append, parallel=parallel)
        weights = portable.load(outcome.best)[0] if fetch else {}
    timed = [record for record in records if "seconds_per_step" in record]
    return {"records": timed, "weights": weights, "device": str(parallel)}


def _steady(records: list[dict[str, Any]]) -> dict[str, float]:
    """Best and median seconds per step after the first record, which holds the compilation."""
    import statistics

    seconds = [record["seconds_per_step"] for record in records[1:]]
    waits = [record["data_wait"] for record in records[1:]]
    return {
        "best": min(seconds),
        "median": statistics.median(seconds),
        "data_wait": sum(w * s for w, s in zip(waits, seconds, strict=True)) / sum(seconds),
        "programs": records[-1]["programs"],
    }


def overhead(args: argparse.Namespace, arrays: int, mode: str, count: int) -> dict[str, Any]:
    """Seconds per step of a network of single numbers."""
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from jaxprot.train.data import Batch
    from jaxprot.train.task import Mean, OptimConfig, TrainConfig

    class Numbers(nnx.Module):
        def __init__(self):
            self.values = nnx.List([nnx.Param(jnp.full((1,), 0.5)) for _ in range(arrays)])

    class Idle:
        monitor = "fit"

        def build(self, key):
            return Numbers()

        def batches(self, step, seed):
            return Batch(None, np.arange(8))

        def load(self, shape, members):
            return np.ones((len(members), 1), np.float32)

        def loss(self, model, example, key):
            total = jnp.sum(example) * sum(jnp.sum(value[...]) for value in model.values)
            return {"loss": Mean(total, jnp.ones(()))}

        def evaluator(self, graphdef):
            return lambda variables: {"fit": 0.0}

    steps = 2000
    cfg = TrainConfig(
        task=Idle(),
        optim=OptimConfig(name="sgd", lr=0.0, weight_decay=0.0, schedule="constant", warmup=0, clip=None, ema=0.0),
        steps=steps,
        micro=0,
        log_every=250,
        evaluate_every=steps,
        save_every=steps,
    )
    found = _records(cfg, mode, count)
    return {"arrays": arrays, "device": found["device"], **_steady(found["records"])}


def scaling(args: argparse.Namespace, count: int) -> dict[str, Any]:
    """Seconds per step of ProteinMPNN on a number of devices."""
    import functools

    import numpy as np

    from jaxprot.proteinmpnn.config import ProteinMPNNConfig
    from jaxprot.proteinmpnn.data import DesignTask
    from jaxprot.proteinmpnn.featurize import Features
    from jaxprot.train.task import OptimConfig, TrainConfig

    length, chains = 128, 64

    def backbones(seed: int) -> list[Features]:
        rng = np.random.default_rng(seed)
        out = []
        for _ in range(chains):
            steps = rng.normal(size=(length, 3))
            trace = np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
            xyz = (trace[:, None] + rng.normal(scale=0.8, size=(length, 4, 3))).astype(np.float32)
            ones, numbers = np.ones(length, np.float32), np.arange(length, dtype=np.int32)
            letters = rng.integers(0, 20, length).astype(np.int32)
            out.append(Features(xyz, letters, ones, numbers, np.ones(length, np.int32), ones))
        return out

    @dataclasses.dataclass(frozen=True)
    class Random(DesignTask):
        @functools.cached_property
        def examples(self) -> list[Features]:
            return backbones(0)

        @functools.cached_property
        def held_out(self) -> list[Features]:
            return backbones(1)[:2]

    small = ProteinMPNNConfig(width=32, neighbours=16, dropout=0.0)
    model = ProteinMPNNConfig.paper() if args.size == "paper" else small
    # Plain gradient descent: an adaptive optimiser turns differences of rounding into whole steps.
    optim = OptimConfig(name="sgd", lr=1e-2, weight_decay=0.0, schedule="constant", warmup=0, ema=0.0)
    cfg = TrainConfig(
        task=Random(train="", val="", model=model, items=16 * length),
        optim=optim,
        steps=args.steps,
        micro=args.micro,
        precision=args.precision,
        log_every=max(1, args.steps // 6),
        evaluate_every=args.steps,
        save_every=args.steps,
    )
    found = _records(cfg, args.parallel, count, fetch=True)
    np.savez(args.weights, **found["weights"])
    return {"devices": count, "device": found["device"], **_steady(found["records"])}


def thermompnn(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step and waiting of the shipped experiment."""
    from jaxprot.train.config import load_experiment

    cfg = load_experiment(ROOT / "experiments" / "thermompnn" / "default.py")
    epoch = cfg.task._batches.per_epoch
    steps = 4 * epoch
    cfg = dataclasses.replace(cfg, steps=steps, log_every=epoch, evaluate_every=steps, save_every=steps)
    found = _records(cfg, args.parallel, None)
    programs = [record["programs"] for record in found["records"]]
    return {"steps_per_epoch": epoch, "device": found["device"], **_steady(found["records"]), "programs": programs}


def child(args: argparse.Namespace, *arguments: Any, devices: int | None = None) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    environment = dict(os.environ)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if devices is not None and not args.accelerator:
        flags = [flag for flag in environment.get("XLA_FLAGS", "").split() if not flag.startswith(_VIRTUAL)]
        environment["XLA_FLAGS"] = " ".join([*flags, f"{_VIRTUAL}{devices}"])
        environment["JAX_PLATFORMS"] = "cpu"
    same = ["--parallel", args.parallel, "--size", args.size, "--steps", str(args.steps), "--micro", str(args.micro)]
    same += ["--precision", args.precision]
    command = [sys.executable, __file__, *same, "--child", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def accelerators() -> int:
    """How many GPUs or TPUs there are; asked in another process, which frees their memory again."""
    code = "import jax; d = jax.devices(); print(0 if d[0].platform == 'cpu' else len(d))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts and prints their tables."""
    import numpy as np

    from jaxprot.io.outputs import versions

    out: dict[str, Any] = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": versions(("jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint")),
        "parallel": args.parallel,
    }
    if "overhead" in args.only:
        out["overhead"] = [
            child(args, "overhead", arrays, mode, count, devices=count)
            for arrays, mode, count in ((2, "single", 1), (2, "shard_map", 1), (130, "shard_map", 1))
        ]
        print("| engine alone | arrays | ms per step, best | median |\n|---|---|---|---|")
        for row in out["overhead"]:
            print(f"| {row['device']} | {row['arrays']} | {1e3 * row['best']:.2f} | {1e3 * row['median']:.2f} |")
    if "scaling" in args.only:
        rows, reference = [], None
        for count in args.devices:
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "weights.npz"
                row = child(args, "scaling", count, path, devices=max(args.devices))
                weights = dict(np.load(path))
            reference = weights if reference is None else reference
            row["difference"] = max(
                float(np.abs(weights[k] - reference[k]).max() / max(np.abs(reference[k]).max(), 1e-12)) for k in weights
            )
            rows.append(row)
        out["scaling"] = {"size": args.size, "precision": args.precision, "micro": args.micro, "rows": rows}
        print(f"\n| devices ({args.size} ProteinMPNN) | steps/s, best | median | against first | weights differ by |")
        print("|---|---|---|---|---|")
        for row in rows:
            ratio = rows[0]["best"] / row["best"]
            speed = f"{1 / row['best']:.2f} | {1 / row['median']:.2f} | {ratio:.2f} x"
            print(f"| {row['device']} | {speed} | {row['difference']:.1e} |")
    if "thermompnn" in args.only:
        row = out["thermompnn"] = child(args, "thermompnn")
        print(f"\nThermoMPNN default on {row['device']}: {row['steps_per_epoch']} steps per epoch")
        print(f"{row['median']:.3f} s per step, {100 * row['data_wait']:.2f} % of it waiting for data")
        print(f"programs after each epoch: {row['programs']}")
    return out


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--devices", nargs="+", type=int, help="default: 1 2 4 8 virtual ones, or what there is")
    parser.add_argument("--parallel", choices=["shard_map", "pmap", "single"], default="shard_map")
    parser.add_argument("--size", choices=["small", "paper"], default="small", help="of the network in `scaling`")
    parser.add_argument("--steps", type=int, default=60, help="of `scaling`")
    parser.add_argument("--micro", type=int, default=1, help="examples at once on a device")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        part, *rest = args.child
        if part == "overhead":
            result = overhead(args, int(rest[0]), rest[1], int(rest[2]))
        elif part == "scaling":
            args.weights = rest[1]
            result = scaling(args, int(rest[0]))
        else:
            result = thermompnn(args)
        print(json.dumps(result))
        return 0
    there = accelerators()
    args.accelerator = there > 0
    if args.devices is None:
        args.devices = [n for n in (1, 2, 4, 8) if n <= (there or 8)]
    out = report(args)
    if args.output:
        from jaxprot.io.outputs import write_json

        write_json(args.output, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

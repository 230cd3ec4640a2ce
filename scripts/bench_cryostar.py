"""Seconds per training step of cryoSTAR, compilation apart.

    python scripts/bench_cryostar.py --threads 1
    python scripts/bench_cryostar.py --phase 2
    python scripts/bench_cryostar.py --phase 1 --beads 10000 --batch 16       # memory of a large complex

Phase 1: images of random beads, the published objective and network (B = 64, 128 pixels, 214 beads). The bare step is
one program called again and again on data that lie on the device (medians of wall and CPU seconds; of one thread they
differ by what else the machine does); the loop is the training engine with checks, records and batches of its own.
Phase 2: the density network (B = 4, 64 pixels, width 256, frequencies within `--mask`), beside it the operations that
its products cannot do without and the speed of large products in the same process. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def limit_threads(count: int) -> None:
    """Keeps the process on so many cores; XLA takes its number of threads from them."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    os.environ["OPENBLAS_NUM_THREADS"] = str(count)


def chain(beads: int, side: int, pixel: float) -> Any:
    """A random walk of beads 3.8 Å apart, folded into a ball that the images hold."""
    import numpy as np

    from jaxprot.cryostar.gmm import Beads

    rng, radius = np.random.default_rng(0), 0.35 * side * pixel
    xyz = np.zeros((beads, 3))
    for i in range(1, beads):
        while True:
            step = rng.normal(size=3)
            xyz[i] = xyz[i - 1] + 3.8 * step / np.linalg.norm(step)
            if np.linalg.norm(xyz[i]) < radius:
                break
    text = np.full(beads, "A", "U8")
    return Beads("chain", xyz.astype(np.float32), np.full(beads, 40, np.float32), np.full(beads, "CA"),
                 np.full(beads, "ALA"), text, np.arange(1, beads + 1), np.full(beads, ""))  # fmt: skip


def stack(folder: pathlib.Path, beads: Any, args: argparse.Namespace) -> None:
    """Particles of noise with poses, and the reference."""
    import jax

    from jaxprot.cryostar.results import write_models
    from jaxprot.cryostar.simulate import SimulationConfig, simulate, stack_of
    from jaxprot.io.particles import write_particles
    from jaxprot.io.stacks import write_stack

    cfg = SimulationConfig(side=args.side, pixel=args.pixel)
    made = simulate(beads.xyz[None], beads.electrons, args.particles, cfg, key=jax.random.key(0))
    write_stack(made.images, folder / "particles.mrcs", cfg.pixel)
    write_particles(stack_of(made), folder / "particles.star")
    write_models(beads.xyz[None], beads, folder / "reference.pdb")


def first(args: argparse.Namespace, folder: pathlib.Path) -> tuple[Any, Any, dict[str, Any]]:
    """Phase 1: configuration, the batch of a step, and what to tell beside the times."""
    import numpy as np

    from jaxprot.cryostar.settings import default

    stack(folder, chain(args.beads, args.side, args.pixel), args)
    reference = next(folder.glob("reference.*"))
    cfg = default(
        str(folder / "particles.star"), str(reference), str(folder / "images"), side=args.side, batch=args.batch,
        settle=0, low_pass=4.0,
    )  # fmt: skip
    batch = np.arange(args.batch, dtype=np.int32)[None], np.ones((1, args.batch), np.float32)
    return cfg, batch, {"beads": args.beads, "pairs": [len(rows) for rows in cfg.task.restraints.pairs[:3]]}


def second(args: argparse.Namespace, folder: pathlib.Path) -> tuple[Any, Any, dict[str, Any]]:
    """Phase 2, likewise, on images that lie on the device."""
    import jax
    import numpy as np

    from jaxprot.core.particles import rotations_from_euler
    from jaxprot.cryostar.config import DensityConfig
    from jaxprot.cryostar.reconstruction import DensityTask, density_data
    from jaxprot.cryostar.simulate import SimulationConfig, simulate
    from jaxprot.train.task import OptimConfig, TrainConfig

    beads = chain(args.beads, args.side, args.pixel)
    cfg = SimulationConfig(side=args.side, pixel=args.pixel)
    made = simulate(beads.xyz[None], beads.electrons, args.particles, cfg, key=jax.random.key(0))
    latents = np.random.default_rng(0).normal(size=(args.particles, 8)).astype(np.float32)
    rotations = rotations_from_euler(made.angles)
    shifts = made.shifts[:, ::-1] / args.pixel
    data = density_data(made.images, rotations, shifts, made.ctf, args.pixel, latents)
    model = DensityConfig(side=args.side, hidden=args.width, mask=args.mask)
    optim = OptimConfig(name="adamw", lr=1e-4, weight_decay=0.01, schedule="constant", warmup=0, clip=None, ema=0.0)
    task = DensityTask(data=data, model=model, size=args.batch)
    batch = np.arange(args.batch, dtype=np.int32)[None], np.ones((1, args.batch), np.float32)
    points, wide = task.points, model.hidden
    layers = (model.waves * 2 + 3) * wide / 2 + model.layers * wide**2 + wide  # opposite points share the first layer
    operations = 6 * args.batch * points.count * layers  # two for each weight forward, four backward
    return TrainConfig(task=task, optim=optim, micro=1), batch, {
        "width": wide, "mask": args.mask, "points": points.count, "least_gflop": operations / 1e9,
        "product_gflops": product(),
    }  # fmt: skip


def product() -> float:
    """GFLOP/s of large matrix products in this process."""
    import jax
    import jax.numpy as jnp

    run, x, times = jax.jit(lambda x: x @ x), jnp.ones((2048, 2048)), []
    for _ in range(6):
        begin = time.perf_counter()
        jax.block_until_ready(run(x))
        times.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(times) / 1e9


def timed(args: argparse.Namespace, prepare: Any) -> dict[str, Any]:
    """Compilation, the bare step, and a step in the engine."""
    import dataclasses

    import jax
    import numpy as np

    from jaxprot.train.loop import Trainer
    from jaxprot.train.parallel import Parallel

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cfg, rows, facts = prepare(args, folder)
        cfg = dataclasses.replace(
            cfg, steps=args.steps, chunk=1, log_every=10**6, evaluate_every=10**6, save_every=10**6
        )
        parallel = Parallel("single")
        trainer = Trainer(cfg, folder / "run", parallel, {})
        rate, resident = np.full(1, 1e-4, np.float32), parallel.replicate(cfg.task.resident())
        batch = parallel.put(rows, args.batch)
        begin = time.perf_counter()
        state, metrics = trainer._step(trainer.state, batch, rate, resident)
        jax.block_until_ready(state)
        compiled = time.perf_counter() - begin
        bare, cpu = [], []
        for _ in range(args.steps):
            begin, used = time.perf_counter(), time.process_time()
            state, metrics = trainer._step(state, batch, rate, resident)
            jax.block_until_ready(metrics)
            bare.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
        trainer.checkpoints.close()
        del state
        return {
            "compile_s": compiled,
            "bare_step_s": float(np.median(bare)),
            "bare_step_cpu_s": float(np.median(cpu)),
            "loop_step_s": loop(cfg, folder / "loop"),
            **facts,
        }


def loop(cfg: Any, run: pathlib.Path) -> float:
    """Seconds per step of the training engine, of records that hold no compilation."""
    import dataclasses

    from jaxprot.train.loop import fit
    from jaxprot.train.parallel import Parallel

    records: list[dict[str, Any]] = []
    cfg = dataclasses.replace(cfg, steps=3 * cfg.steps, log_every=cfg.steps, save_every=10**6)
    fit(cfg, run, parallel=Parallel("single"), report=records.append)
    timed = [record["seconds_per_step"] for record in records if "seconds_per_step" in record]
    return min(timed[1:])


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", type=int, choices=[1, 2], default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int)
    parser.add_argument("--pixel", type=float, default=2.0)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--width", type=int, default=256, help="of the density network")
    parser.add_argument("--mask", type=float, default=0.85, help="radius of frequencies, 1 being that of Nyquist")
    parser.add_argument("--beads", type=int, default=214)
    parser.add_argument("--particles", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    limit_threads(args.threads)
    args.side = args.side or {1: 128, 2: 64}[args.phase]
    args.batch = args.batch or {1: 64, 2: 4}[args.phase]

    import jax

    from jaxprot.cli.options import keep_memory, processor

    keep_memory()  # as the commands that train do

    found = timed(args, first if args.phase == 1 else second)
    found |= {
        "phase": args.phase, "batch": args.batch, "side": args.side, "threads": args.threads, "jax": jax.__version__,
        "processor": processor(), "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }  # fmt: skip
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

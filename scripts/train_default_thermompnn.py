"""Train the shipped ProteinMPNN and ThermoMPNN from the files under experiments/; resumes where it was stopped.

    python scripts/train_default_thermompnn.py design --run runs/design
    python scripts/train_default_thermompnn.py export-design --run runs/design
    python scripts/train_default_thermompnn.py stability --run runs/stability --seeds 3
    python scripts/train_default_thermompnn.py export-stability --run runs/stability --seeds 3

`JAXPROT_DATA` names the folder with `structures/` and `stability/` (see their README files for the layout).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "jaxprot" / "weights" / "default"


def experiment(name: str):
    """The configuration in an experiment file."""
    from jaxprot.train.config import load_experiment

    return load_experiment(ROOT / "experiments" / f"{name}.py")


def report(started: float):
    """Prints each metrics record with the time since the start."""

    def write(record):
        figures = " ".join(f"{k} {v:.4g}" for k, v in record.items())
        print(f"{time.time() - started:7.0f} s  {figures}", flush=True)  # noqa: T201

    return write


def train(cfg, run: pathlib.Path, system: str) -> pathlib.Path:
    """One run, resumed if the folder holds a checkpoint."""
    from jaxprot.train.loop import fit

    header = {"system": system, "config": dataclasses.asdict(cfg.task.model)}
    return fit(cfg, run, resume=True, header=header, report=report(time.time())).best


def export(path: pathlib.Path, tensors, header) -> None:
    """Writes shipped weights and puts their checksum into the registry."""
    import re

    from jaxprot.io.outputs import sha256
    from jaxprot.weights import portable

    portable.save(path, tensors, header)
    digest = sha256(path)
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    text = registry.read_text()
    line = f'file = "default/{path.name}"\n'
    text = re.sub(re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?', line + f'sha256 = "{digest}"\n', text)
    registry.write_text(text)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, sha256 {digest}")  # noqa: T201


def export_design(run: pathlib.Path) -> None:
    """The best averaged weights of the design run."""
    from jaxprot.weights import portable

    tensors, header = portable.load(run / "best.safetensors")
    export(DEFAULT / "proteinmpnn.safetensors", tensors, {**header, "experiment": "proteinmpnn/default"})


def export_stability(run: pathlib.Path, seeds: int) -> None:
    """The mean of the seeds' weights (or the best seed, if that validates better), with a calibrated uncertainty."""
    import jax
    import numpy as np
    from flax import nnx

    from jaxprot.thermompnn import calibration
    from jaxprot.thermompnn.data import figures, predict_set
    from jaxprot.thermompnn.model import ThermoMPNN
    from jaxprot.thermompnn.predict import ddg_spread
    from jaxprot.weights import module, portable

    task = experiment("thermompnn/default").task
    parts = [portable.load(run / f"seed{seed}" / "best.safetensors") for seed in range(seeds)]
    candidates: dict[str, Any] = {f"seed{i}": tensors for i, (tensors, _) in enumerate(parts)}
    if seeds > 1:
        candidates["mean"] = {k: np.mean([t[k] for t, _ in parts], axis=0, dtype=np.float32) for k in parts[0][0]}
    held_out, scores, models = task.held_out, {}, {}
    for name, tensors in candidates.items():
        model = module.assemble(lambda: ThermoMPNN(task.model, rngs=nnx.Rngs(0)), tensors)
        graphdef, params = nnx.split(model, nnx.Param)
        apply = jax.jit(lambda params, features, graphdef=graphdef: nnx.merge(graphdef, params).ddg(features))
        predicted = predict_set(apply, params, held_out)
        scores[name] = figures(predicted, held_out.ddg, held_out.rows[:, 0])
        models[name] = (graphdef, params, predicted)
        print(name, {k: round(v, 4) for k, v in scores[name].items()})  # noqa: T201
    chosen = max(scores, key=lambda name: scores[name]["spearman"])
    graphdef, params, predicted = models[chosen]
    fits = {}
    keys = jax.random.split(jax.random.key(0), 4)
    for noise in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        spread = jax.jit(lambda p, f, noise=noise: ddg_spread(nnx.merge(graphdef, p), f, noise, keys))
        fits[noise] = calibration.fit(predict_set(spread, params, held_out), predicted - held_out.ddg)
        print(f"noise {noise} A: {fits[noise]}")  # noqa: T201
    noise = min(fits, key=lambda value: fits[value]["nll"])
    uncertainty = {"noise": noise, "scale": fits[noise]["scale"], "floor": fits[noise]["floor"]}
    header = {
        "system": "thermompnn",
        "config": parts[0][1]["config"],
        "steps": [part[1]["step"] for part in parts],
        "experiment": "thermompnn/default",
        "weights": chosen,
        "seeds": seeds,
        "figures": scores[chosen],
        "uncertainty": uncertainty,
    }
    export(DEFAULT / "thermompnn.safetensors", candidates[chosen], header)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["design", "export-design", "stability", "export-stability"])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="stability runs that are averaged")
    parser.add_argument("--steps", type=int, help="instead of the experiment's")
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    args = parser.parse_args()

    import jax

    from jaxprot.cli.options import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if args.stage == "design":
        cfg = experiment("proteinmpnn/default")
        train(dataclasses.replace(cfg, steps=args.steps or cfg.steps), args.run, "proteinmpnn")
    elif args.stage == "stability":
        for seed in range(args.seeds):
            cfg = experiment("thermompnn/default")
            train(
                dataclasses.replace(cfg, seed=seed, steps=args.steps or cfg.steps),
                args.run / f"seed{seed}",
                "thermompnn",
            )
    elif args.stage == "export-design":
        export_design(args.run)
    else:
        export_stability(args.run, args.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train the shipped ProteinMPNN and ThermoMPNN from the files under experiments/; resumes where it was stopped.

    python scripts/train_default_thermompnn.py design --run runs/design
    python scripts/train_default_thermompnn.py export-design --run runs/design
    python scripts/train_default_thermompnn.py design-from-scratch --run runs/scratch
    python scripts/train_default_thermompnn.py stability --run runs/stability --seeds 3
    python scripts/train_default_thermompnn.py export-stability --run runs/stability --seeds 3

`JAXPROT_DATA` names the folder with `structures/` and `stability/` (see their README files for the layout).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "jaxprot" / "weights" / "default"
STARTED = "ProteinMPNN v_48_020 (Science 2022, doi 10.1126/science.add2187), Copyright (c) 2022 Justas Dauparas, MIT"
LARGE = 80  # residues from which the uncertainty is that of large proteins; training domains have up to 72


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
    header = {**header, "experiment": "proteinmpnn/default", "start": STARTED}
    export(DEFAULT / "proteinmpnn.safetensors", tensors, header)


def held_out_sets(task) -> dict[str, Any]:
    """What the calibration is fitted on: Megascale's validation proteins, and FireProtDB proteins that no test uses.

    The latter have homologues in Megascale, so the homologue-free test set stays unseen.
    """
    from jaxprot.thermompnn.data import read_stability_set

    folder = pathlib.Path(task.table).parent
    xray = read_stability_set(
        folder / "fireprot.csv.gz", folder / "pdb_xray", lambda columns: columns["homologue_free"] == 0
    )
    return {"small": task.held_out, "large": xray}


def calibrate(task, graphdef, params) -> dict[str, Any]:
    """Noise, and scale and floor for small and for large structures."""
    import jax
    import numpy as np
    from flax import nnx

    from jaxprot.thermompnn import calibration
    from jaxprot.thermompnn.data import predict_set
    from jaxprot.thermompnn.predict import ddg_spread

    apply = jax.jit(lambda p, f: nnx.merge(graphdef, p).ddg(f))
    keys = jax.random.split(jax.random.key(0), 4)
    spread = jax.jit(lambda p, f, noise: ddg_spread(nnx.merge(graphdef, p), f, noise, keys))
    sets = held_out_sets(task)
    data = sets["large"]
    sizes = np.array([(e.features.S < 20).sum() for e in data.examples])[data.rows[:, 0]]
    errors = {name: predict_set(apply, params, s) - s.ddg for name, s in sets.items()}
    fits: dict[float, dict[str, Any]] = {}
    for noise in (0.1, 0.2, 0.3):
        level = np.float32(noise)
        noisy = functools.partial(spread, noise=level)
        spreads = {name: predict_set(noisy, params, s) for name, s in sets.items()}
        large = sizes >= LARGE
        found = {
            "small": calibration.fit(spreads["small"], errors["small"]),
            "large": calibration.fit(spreads["large"][large], errors["large"][large]),
        }
        fits[noise] = found
        print(f"noise {noise} A: {found}", flush=True)  # noqa: T201
    noise = min(fits, key=lambda value: fits[value]["small"]["nll"] + fits[value]["large"]["nll"])
    small, large = ({k: fits[noise][name][k] for k in ("scale", "floor")} for name in ("small", "large"))
    return {"noise": noise, **small, "large": {"residues": LARGE, **large}}


def export_stability(run: pathlib.Path, seeds: int) -> None:
    """The mean of the seeds' weights (or the best seed, if that validates better), with a calibrated uncertainty."""
    import jax
    import numpy as np
    from flax import nnx

    from jaxprot.thermompnn.data import figures, predict_set
    from jaxprot.thermompnn.model import ThermoMPNN
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
        scores[name] = figures(predict_set(apply, params, held_out), held_out.ddg, held_out.rows[:, 0])
        models[name] = (graphdef, params)
        print(name, {k: round(v, 4) for k, v in scores[name].items()}, flush=True)  # noqa: T201
    chosen = max(scores, key=lambda name: scores[name]["spearman"])
    header = {
        "system": "thermompnn",
        "config": parts[0][1]["config"],
        "steps": [part[1]["step"] for part in parts],
        "experiment": "thermompnn/default",
        "start": STARTED,
        "weights": chosen,
        "seeds": seeds,
        "figures": scores[chosen],
        "uncertainty": calibrate(task, *models[chosen]),
    }
    export(DEFAULT / "thermompnn.safetensors", candidates[chosen], header)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ["design", "design-from-scratch", "export-design", "stability", "export-stability"]
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="stability runs that are averaged")
    parser.add_argument("--steps", type=int, help="instead of the experiment's")
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    args = parser.parse_args()

    import jax

    from jaxprot.cli.options import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if args.stage.startswith("design"):
        cfg = experiment("proteinmpnn/from_scratch" if args.stage.endswith("scratch") else "proteinmpnn/default")
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

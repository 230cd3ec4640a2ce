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
import importlib.util
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "jaxprot" / "weights" / "default"


def experiment(name: str):
    """The module of an experiment file."""
    spec = importlib.util.spec_from_file_location("experiment", ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    return fit(cfg, run, resume=True, header=header, report=report(time.time()))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["design", "export-design", "stability", "export-stability"])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="stability runs that are averaged")
    parser.add_argument("--steps", type=int, help="instead of the experiment's")
    parser.add_argument("--cache", default=os.path.expanduser("~/.cache/jaxprot/xla"), help="of compiled programs")
    args = parser.parse_args()

    import jax

    jax.config.update("jax_compilation_cache_dir", args.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if args.stage == "design":
        cfg = experiment("proteinmpnn/default").config()
        train(dataclasses.replace(cfg, steps=args.steps or cfg.steps), args.run, "proteinmpnn")
    elif args.stage == "stability":
        for seed in range(args.seeds):
            cfg = experiment("thermompnn/default").config(seed)
            train(dataclasses.replace(cfg, steps=args.steps or cfg.steps), args.run / f"seed{seed}", "thermompnn")
    return 0


if __name__ == "__main__":
    sys.exit(main())

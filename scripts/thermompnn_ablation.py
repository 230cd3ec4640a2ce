"""The ablations of ThermoMPNN: no pre-training, frozen backbone, and each training set.

    python scripts/thermompnn_ablation.py --run runs/ablation
    python scripts/thermompnn_ablation.py --run runs/ablation --only frozen fireprot --steps 200 --seeds 2

Each variant is an experiment file `experiments/thermompnn/ablation_*.py`, trained (resumed where a run was stopped),
selected on its validation proteins, and judged on sets that no variant trains on: the Megascale validation and test
proteins, and the test part of FireProtDB without homologues in Megascale. `JAXPROT_DATA` names the folder with
`stability/`. Writes `ablation.json` and `ablation.md` into the run folder and prints the latter.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import runpy
import sys
import time
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Variant -> (experiment, what differs from the default).
VARIANTS = {
    "default": ("default", "-"),
    "no_pretraining": ("ablation_no_pretraining", "starts from random weights"),
    "frozen": ("ablation_frozen", "head alone is trained, as in the publication"),
    "megascale": ("ablation_megascale", "published training proteins only"),
    "fireprot": ("ablation_fireprot", "FireProtDB instead of Megascale"),
    "both": ("ablation_both", "Megascale and FireProtDB"),
}
TITLES = {"megascale_val": "Megascale val", "megascale_test": "Megascale test", "fireprot_test": "FireProt test"}


def evaluation_sets(data: pathlib.Path) -> dict:
    """Sets that are free of the training proteins of every variant."""
    from jaxprot.thermompnn.data import read_stability_set

    home = data / "stability"
    table, structures = home / "megascale_natural.csv.gz", home / "pdb_megascale"

    def part(name):
        return lambda columns: columns["thermompnn_split"].astype(str) == name

    def fire(columns):
        return part("test")(columns) & (columns["homologue_free"] == 1)

    return {
        "megascale_val": read_stability_set(table, structures, part("val")),
        "megascale_test": read_stability_set(table, structures, part("test")),
        "fireprot_test": read_stability_set(home / "fireprot.csv.gz", home / "pdb_xray", fire),
    }


def judge(cfg, path: pathlib.Path, sets: dict) -> dict[str, dict[str, float]]:
    """Figures of trained weights on every set."""
    import jax
    from flax import nnx

    from jaxprot.thermompnn.data import figures, predict_set
    from jaxprot.thermompnn.model import ThermoMPNN
    from jaxprot.weights import module, portable

    tensors, _ = portable.load(path)
    model = module.assemble(lambda: ThermoMPNN(cfg.task.model, rngs=nnx.Rngs(0)), tensors)
    graphdef, params = nnx.split(model, nnx.Param)

    def ddg(params: Any, features: Any) -> Any:
        merged: Any = nnx.merge(graphdef, params)
        return merged.ddg(features)

    apply = jax.jit(ddg)
    return {name: figures(predict_set(apply, params, s), s.ddg, s.rows[:, 0]) for name, s in sets.items()}


def train(cfg, run: pathlib.Path, quiet: bool) -> tuple[pathlib.Path, float]:
    """Best weights of a run and the seconds it took."""
    from jaxprot.train.loop import fit

    def report(record):
        if not quiet:
            print("  ", " ".join(f"{k} {v:.4g}" for k, v in record.items()), flush=True)

    started = time.time()
    header = {"system": "thermompnn", "config": dataclasses.asdict(cfg.task.model)}
    return fit(cfg, run, resume=True, header=header, report=report).best, time.time() - started


def shorten(cfg, steps: int | None):
    """The run with another number of steps; evaluations and checkpoints stay proportionate."""
    if steps is None:
        return cfg
    every = max(1, min(cfg.evaluate_every, steps // 4))
    optim = dataclasses.replace(cfg.optim, warmup=min(cfg.optim.warmup, max(1, steps // 10)))
    save = min(cfg.save_every, steps)
    return dataclasses.replace(cfg, steps=steps, evaluate_every=every, save_every=save, optim=optim)


def table(report: dict) -> str:
    """Markdown of a report: Spearman / Pearson / RMSE, mean over seeds."""
    lines = [
        "| variant | training proteins | mutations | " + " | ".join(TITLES.values()) + " | what differs |",
        "|---|---|---|" + "---|" * (len(TITLES) + 1),
    ]
    for name, record in report["variants"].items():
        cells = []
        for title in TITLES:
            runs = [seed[title] for seed in record["seeds"]]
            cells.append(" / ".join(f"{np.mean([r[m] for r in runs]):.3f}" for m in ("spearman", "pearson", "rmse")))
        head = f"| {name} | {record['proteins']} | {record['mutations']} | "
        lines.append(head + " | ".join(cells) + f" | {VARIANTS[name][1]} |")
    what = f"mean of {report['n_seeds']} seed(s), {report['steps']} steps"
    lines.append(f"\nSpearman / Pearson / RMSE in kcal/mol, {what}.")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--steps", type=int, help="instead of the experiments'; a comparison needs one number for all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    parser.add_argument("--quiet", action="store_true", help="the table only")
    args = parser.parse_args(argv)

    import jax

    from jaxprot.cli.options import compilation_cache
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import write_json, write_text

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    experiments = ROOT / "experiments" / "thermompnn"
    report: dict = {"variants": {}, "n_seeds": args.seeds, "steps": args.steps}
    try:
        sets = evaluation_sets(runpy.run_path(str(experiments / "default.py"))["DATA"])
        for name in args.only:
            config = runpy.run_path(str(experiments / f"{VARIANTS[name][0]}.py"))["config"]
            record: dict = {"seeds": [], "seconds": []}
            for seed in range(args.seeds):
                cfg = shorten(config(seed), args.steps)
                report["steps"] = cfg.steps
                if not args.quiet:
                    print(f"{name}, seed {seed}", flush=True)
                path, seconds = train(cfg, args.run / name / f"seed{seed}", args.quiet)
                record["seeds"].append(judge(cfg, path, sets))
                record["seconds"].append(seconds)
                record["proteins"], record["mutations"] = len(cfg.task.training.names), cfg.task.training.n
            report["variants"][name] = record
            # After each variant: a stopped script leaves what is done.
            write_json(args.run / "ablation.json", report)
    except JaxprotError as error:
        parser.error(str(error))
    text = table(report)
    write_text(args.run / "ablation.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

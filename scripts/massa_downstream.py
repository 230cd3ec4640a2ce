"""Downstream tasks: the shipped representation, frozen and fine-tuned, beside networks and linear models on letters.

    JAXPROT_TASKS=data/tasks python scripts/massa_downstream.py --output runs/downstream --seeds 3
    python scripts/massa_downstream.py --tasks stability enzyme_class --steps 500 --output runs/downstream

The layout is that of MASSA's tables (Advanced Science 2023, doi 10.1002/advs.202301223): a row for each method, a
column for each task, Spearman correlation or accuracy of the test part, mean and standard deviation over seeds.
Methods: `linear` (ridge or logistic regression on letters), `cnn` (a small convolutional network on letters), `scratch`
(MASSA from random weights), `frozen` (its head alone, on features that are computed once) and `finetuned` (the whole,
which begins with that head). Networks train for the same number of steps on the same batches; `frozen` and `cnn_long`
take ten times as many, which is still less work than fine-tuning, and so does `finetuned_long`, the match of
`cnn_long`, which takes an hour of a core for stability and must be asked for (`--methods`). Every result is kept in
results.jsonl at once, and a repeated command goes on from there. Published values of the literature stand below with
their source; splits of the parts that are said to be such are not theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TASKS = ("stability", "fluorescence", "remote_homology", "secondary_structure", "enzyme_class", "gb1")
METHODS = ("linear", "cnn", "cnn_long", "scratch", "frozen", "finetuned", "finetuned_long")
# TAPE (arXiv 1906.08230): Spearman, Spearman, accuracy of folds, Q3 on CB513. Check against the paper before quoting.
PUBLISHED = {
    "TAPE one-hot": {"stability": 0.19, "fluorescence": 0.14, "remote_homology": 0.09, "secondary_structure": 0.69},
    "TAPE transformer": {"stability": 0.73, "fluorescence": 0.68, "remote_homology": 0.21, "secondary_structure": 0.73},
    "UniRep in TAPE": {"stability": 0.73, "fluorescence": 0.67, "remote_homology": 0.23, "secondary_structure": 0.73},
}
STEPS = {"secondary_structure": 300, "enzyme_class": 300}
OTHER_STEPS = 600
LONGER = ("frozen", "cnn_long", "finetuned_long")
RATES = {"cnn": 2e-3, "cnn_long": 2e-3, "scratch": 1e-3, "frozen": 3e-3, "finetuned": 1e-3,
         "finetuned_long": 1e-3}  # fmt: skip


def measure(name: str, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one method on one task."""
    from jaxprot.massa.tasks import baselines, predict
    from jaxprot.massa.tasks.cnn import CNNConfig
    from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
    from jaxprot.massa.tasks.head import STEPS as LONG
    from jaxprot.massa.tasks.metrics import score
    from jaxprot.train.loop import fit

    folder, begin = str(args.folder), time.perf_counter()
    if method == "linear":
        task = FinetuneTask(table=name, folder=folder, share=args.share)
        found = baselines.one_hot(task.data, seed, rows=task.trained_rows, longest=task.longest)
        return {**found, "seconds": time.perf_counter() - begin}
    model: dict[str, Any] = {"weights": args.weights}
    if method in ("cnn", "cnn_long"):
        model = {"model": CNNConfig()}
    elif method == "scratch":
        from jaxprot.massa import weights
        from jaxprot.weights import registry

        model = {"model": weights.read(registry.resolve(args.weights, "massa")[0]).config}
    elif method in ("finetuned", "finetuned_long"):
        model = {"start": str(args.output / f"{name}-frozen-{seed}")}
    task = FinetuneTask(table=name, folder=folder, share=args.share, **model)
    steps = (args.steps or STEPS.get(name, OTHER_STEPS)) * (LONG if method in LONGER else 1)
    cfg = recipe(task, steps=steps, lr=RATES[method], frozen=method == "frozen", seed=seed)
    run = args.output / f"{name}-{method}-{seed}"
    header = {"system": "massa", **task.header()}
    outcome = fit(cfg, run, resume=(run / "ckpt").is_dir(), header=header)
    if outcome.stopped is not None:
        raise KeyboardInterrupt
    parts = predict.evaluate(predict.load(outcome.best or run), task)
    return {part: score(task.data.kind, *pair) for part, pair in parts.items()} | {
        "seconds": time.perf_counter() - begin
    }


def table(rows: list[dict[str, Any]], tasks: list[str]) -> str:
    """Markdown of mean and deviation over seeds."""
    lines = ["| method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method in METHODS:
        cells = []
        for name in tasks:
            values = [row["test"] for row in rows if row["task"] == name and row["method"] == method and "test" in row]
            many = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{many}" if values else "")
        if any(cells):
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    for method, values in PUBLISHED.items():
        if any(name in values for name in tasks):
            lines.append(
                f"| *{method}* | " + " | ".join(f"{values[n]:.2f}" if n in values else "" for n in tasks) + " |"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS[:-1]))
    parser.add_argument("--folder", type=pathlib.Path, default=os.environ.get("JAXPROT_TASKS"), help="of the tables")
    parser.add_argument("--weights", default="massa", help="name or file")
    parser.add_argument("--steps", type=int, help="of every network (by default as many as a task takes)")
    parser.add_argument("--share", type=float, default=1.0, help="of the training rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    args = parser.parse_args(argv)
    if {"finetuned", "finetuned_long"} & set(args.methods) and "frozen" not in args.methods:
        args.methods.append("frozen")
    args.methods.sort(key=METHODS.index)  # fine-tuning begins with the head that was trained alone
    if args.folder is None or not pathlib.Path(args.folder).is_dir():
        parser.error("name the folder with the tables of the tasks: --folder, or JAXPROT_TASKS")

    import jax

    from jaxprot.cli.options import compilation_cache, keep_memory
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings, write_text

    keep_memory()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    try:
        keep_settings(args.output, {"steps": args.steps, "share": args.share, "weights": args.weights})
        path, rows = args.output / "results.jsonl", []
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        done = {(row["task"], row["method"], row["seed"]) for row in rows}
        for seed in range(args.seeds):
            for name in args.tasks:
                for method in args.methods:
                    if (name, method, seed) in done or (method == "linear" and seed):
                        continue
                    row = {"task": name, "method": method, "seed": seed, **measure(name, method, seed, args)}
                    rows.append(row)
                    with open(path, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), file=sys.stderr, flush=True)
    except JaxprotError as error:
        parser.error(str(error))
    text = table(rows, args.tasks)
    write_text(args.output / "downstream.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Does a distance between tasks predict which one helps which? Gains measured, distances and scores beside them.

    JAXPROT_TASKS=data/tasks python scripts/massa_transfer.py --output runs/transfer

For each source the shipped representation is fine-tuned for `--steps`; each target is then read off by a linear model
(ridge or logistic regression, its penalty chosen on a third of the training samples) on `--samples` proteins, once
from the shipped features and once from those of each source. The gain of a pair is the difference of the metric on
`--tested` other proteins. Of tasks with many classes the 20 largest are taken; of residue tasks single residues.

Writes gains.csv (every ordered pair), features/*.npz (which `jaxprot transfer` reads), report.json and report.csv of
the default distance (correlations of distance, LogME, LEEP, NCE, H-score and TransRate with the gains; intervals from
resampled targets, p by relabeled tasks), variants.csv, matrix.png and map.png. Variants of the distance (layer of the
shipped network, labels, bins, eps, preprocessing) are ranked on the pairs of one half of the targets, and the best is
confirmed on the other half; for comparison the scores are given on both halves as well, and so is the mean correlation
over the sources of each target alone, which is what tells the best source for it. What is there already is not made
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TASKS = ("stability", "fluorescence", "remote_homology", "secondary_structure", "enzyme_class", "gb1")
CLASSES = 20  # of a task, at most
BASE = "shipped"
LAYERS = ("last", "sequence", "both")
"""Features of the shipped network whose distances are compared; the last layer's are as of `features`."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def chosen(table: Any, count: int, tested: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to test on."""
    rng = np.random.default_rng(seed)
    labels = None if isinstance(table.labels, list) else np.asarray(table.labels)
    parts = []
    for name, most in (("train", count), ("test", tested)):
        rows = table.part(name)
        if table.kind == "classes" and table.classes > CLASSES:
            found, counts = np.unique(labels[table.part("train")], return_counts=True)
            rows = rows[np.isin(labels[rows], found[np.argsort(-counts, kind="stable")][:CLASSES])]
        if name == "test" and len(rows) < 100:  # folds that are new in the test part have no class to be told
            rows = np.setdiff1d(table.part("train"), parts[0])
            rows = rows[np.isin(labels[rows], labels[parts[0]])]
        parts.append(np.sort(rng.permutation(rows)[:most]))
    return parts[0], parts[1]


def features(predictor: Any, table: Any, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and labels of proteins; of residue tasks those of one residue of each protein, drawn by the seed."""
    sequences = [table.sequences[row] for row in rows]
    if table.kind != "residue_classes":
        return predictor.vectors(sequences), np.asarray(table.labels)[rows]
    found = predictor.residues(sequences)
    places = drawn(table, rows, found, seed)
    labels = np.array([table.labels[row][place] for row, place in zip(rows, places, strict=True)])
    return np.stack([one[place] for one, place in zip(found, places, strict=True)]), labels


def drawn(table: Any, rows: np.ndarray, found: list[np.ndarray], seed: int) -> list[int]:
    """A residue of each protein that has a label, among those that features were found of."""
    from jaxprot.massa.tasks.tables import IGNORE

    rng = np.random.default_rng(seed)
    labels = [table.labels[row][: len(one)] for row, one in zip(rows, found, strict=True)]
    return [int(rng.choice(np.flatnonzero(one != IGNORE))) for one in labels]


def layers(name: str, table: Any, rows: np.ndarray, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Other features of the same samples by the shipped network.

    `sequence` is its sequence encoder, `both` that beside the last layer; of proteins they are means over residues.
    """
    predictor = network(None, args, name)
    found = predictor.read([table.sequences[row] for row in rows])
    width = predictor.module.cfg.width
    if table.kind == "residue_classes":
        both = np.stack([one[place] for one, place in zip(found, drawn(table, rows, found, args.seed), strict=True)])
    else:  # mean and maximum of either
        both = np.stack(found).reshape(len(found), 2, 2, width)[:, :, 0].reshape(len(found), 2 * width)
    return {"sequence": both[:, width:], "both": both}


def read_off(kind: str, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Metric on the test samples of the linear model that does best on a third of the training samples."""
    from jaxprot.massa.tasks.baselines import logistic, ridge
    from jaxprot.massa.tasks.metrics import score

    (x, y), (u, v) = train, test
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    x, u = (x - centre) / spread, (u - centre) / spread
    if kind != "regression":
        names, y = np.unique(y, return_inverse=True)
        v = np.array([np.flatnonzero(names == one)[0] if one in names else -1 for one in v])

    def fitted(rows: np.ndarray, penalty: float) -> np.ndarray:
        if kind == "regression":
            return ridge(x[rows], y[rows], penalty)
        return logistic(x[rows], y[rows], len(names), penalty)

    def figure(model: np.ndarray, inputs: np.ndarray, labels: np.ndarray) -> float:
        found = inputs @ model[:-1] + model[-1]
        return score(kind, found[:, 0] if kind == "regression" else found.argmax(-1), labels)

    rows = np.arange(len(x))
    inner, outer = rows[rows % 3 > 0], rows[rows % 3 == 0]
    best = max(PENALTIES, key=lambda p: figure(fitted(inner, p), x[outer], y[outer]))
    return figure(fitted(rows, best), u, v)


def network(source: str | None, args: argparse.Namespace, table: str | None = None) -> Any:
    """The shipped network with a head for a table that is not trained, or one that was fine-tuned on a source."""
    import jax

    from jaxprot.massa.tasks import predict
    from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
    from jaxprot.train.loop import fit

    task = FinetuneTask(table=source or table or args.tasks[0], folder=str(args.folder), weights=args.weights)
    if source is None:
        return predict.TaskPredictor(task.build(jax.random.key(0)), task.header()["task"])
    run = args.output / "runs" / source
    cfg = recipe(task, steps=args.steps, seed=args.seed)
    outcome = fit(cfg, run, resume=(run / "ckpt").is_dir(), header={"system": "massa", **task.header()})
    if outcome.stopped is not None:
        raise KeyboardInterrupt
    return predict.load(outcome.best or run)


def gather(
    args: argparse.Namespace,
) -> tuple[list[Any], dict[tuple[str, str], float], dict[str, dict[str, float]], dict[str, list[np.ndarray]]]:
    """Tasks with features of all networks, gains of all pairs, the metrics behind them; features of other layers."""
    from jaxprot.io.outputs import atomic_path
    from jaxprot.massa.tasks.tables import read_task
    from jaxprot.ot.tasks import Task

    folder = args.output / "features"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: read_task(name, args.folder) for name in args.tasks}
    rows = {name: chosen(table, args.samples, args.tested, args.seed) for name, table in tables.items()}
    metrics: dict[str, dict[str, float]] = {name: {} for name in args.tasks}
    held: dict[str, dict[str, np.ndarray]] = {name: {} for name in args.tasks}
    for source in (None, *args.tasks):
        name, path = source or BASE, folder / f"from_{source or BASE}.npz"
        if not path.is_file():
            predictor, arrays = network(source, args), {}
            for target, table in tables.items():
                for part, of in zip(("train", "test"), rows[target], strict=True):
                    x, y = features(predictor, table, of, args.seed)
                    arrays |= {f"{target}.{part}.features": x, f"{target}.{part}.labels": y}
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
        with np.load(path) as stored:
            for target, table in tables.items():
                pairs = [tuple(stored[f"{target}.{p}.{k}"] for k in ("features", "labels")) for p in ("train", "test")]
                metrics[target][name] = read_off(table.kind, *pairs)
                held[target][name], held[target]["labels"] = pairs[0]
        print(f"{name}: " + ", ".join(f"{t} {metrics[t][name]:.3f}" for t in args.tasks), file=sys.stderr, flush=True)
    tasks = []
    for name, table in tables.items():
        of = {source: held[name][source] for source in args.tasks if source != name}
        kind = "numbers" if table.kind == "regression" else "classes"
        tasks.append(Task(name, held[name][BASE], held[name]["labels"], kind, of))
        with atomic_path(folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, features=held[name][BASE], labels=held[name]["labels"])
    path = folder / "layers.npz"
    if not path.is_file():
        found = {name: layers(name, table, rows[name][0], args) for name, table in tables.items()}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{f"{name}.{layer}": x for name, of in found.items() for layer, x in of.items()})
    with np.load(path) as stored:
        others = {layer: [stored[f"{name}.{layer}"] for name in args.tasks] for layer in LAYERS[1:]}
    gains = {(s, t): metrics[t][s] - metrics[t][BASE] for s, t in itertools.permutations(args.tasks, 2)}
    return tasks, gains, metrics, others


def variants() -> list[dict[str, Any]]:
    """Settings of the distance that are compared."""
    out = []
    choices = LAYERS, ("otdd", "features"), ("none", "zscore", "pca"), (0.02, 0.05, 0.2)
    for layer, method, prepared, eps in itertools.product(*choices):
        for bins in (5, 10) if method == "otdd" else (10,):
            out.append({"layer": layer, "method": method, "preprocess": prepared, "relative_eps": eps, "bins": bins})
    return out


def compare(
    tasks: list[Any], gains: dict[tuple[str, str], float], others: dict[str, list[np.ndarray]], seed: int
) -> dict[str, list[Any]]:
    """Rank correlations of every variant and score with the gains, on the pairs of two halves of the targets.

    `all` are those of all pairs, `within` means over targets of those of the sources of each.
    """
    from jaxprot.core.metrics import spearman
    from jaxprot.ot.report import SCORES, transfer_report

    order = np.random.default_rng(seed).permutation([task.name for task in tasks])
    first = set(order[: len(order) // 2])
    columns: dict[str, list[Any]] = {}

    def add(name: str, settings: dict[str, Any], found: dict[tuple[str, str], float], sign: int) -> None:
        row: dict[str, Any] = {"predictor": name, **{k: settings.get(k, "") for k in variants()[0]}}
        names = {task.name for task in tasks}

        def agreement(targets: set[str]) -> float:
            pairs = [pair for pair in gains if pair[1] in targets and np.isfinite(found[pair])]
            value = spearman(np.array([found[p] for p in pairs]), np.array([gains[p] for p in pairs]))
            return sign * float(value)

        for label, targets in (("chosen", first), ("confirmed", names - first), ("all", names)):
            row[f"{label}_spearman"] = agreement(targets)
        row["within_spearman"] = float(np.mean([agreement({name}) for name in sorted(names)]))
        for key, value in row.items():
            columns.setdefault(key, []).append(value)

    for number, settings in enumerate(variants()):
        shown = tasks
        if settings["layer"] in others:
            shown = [dataclasses.replace(t, features=x) for t, x in zip(tasks, others[settings["layer"]], strict=True)]
        options = {name: value for name, value in settings.items() if name != "layer"}
        report = transfer_report(shown, gains, resamples=0, **options)
        pairs = list(zip(report.source, report.target, strict=True))
        add("distance", settings, dict(zip(pairs, report.values["distance"], strict=True)), -1)
        if number == 0:
            for name in SCORES:
                add(name, {}, dict(zip(pairs, report.values[name], strict=True)), 1)
    return columns


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="benchmarks, at least three")
    parser.add_argument("--folder", type=pathlib.Path, default=os.environ.get("JAXPROT_TASKS"), help="of the tables")
    parser.add_argument("--weights", default="massa", help="name or file")
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning on a source")
    parser.add_argument("--samples", type=int, default=1000, help="proteins that a target is learned from")
    parser.add_argument("--tested", type=int, default=1000, help="proteins that it is tested on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    args = parser.parse_args(argv)
    if args.folder is None or not pathlib.Path(args.folder).is_dir():
        parser.error("name the folder with the tables of the tasks: --folder, or JAXPROT_TASKS")
    if len(set(args.tasks)) < 3:
        parser.error("--tasks: at least three different ones")

    import jax

    from jaxprot.cli.options import compilation_cache, keep_memory
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings
    from jaxprot.io.tables import write_table
    from jaxprot.ot.report import transfer_report

    keep_memory()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    try:
        names = ("tasks", "weights", "steps", "samples", "tested", "seed")
        keep_settings(args.output, {name: getattr(args, name) for name in names})
        tasks, gains, metrics, others = gather(args)
        pairs = list(gains)
        write_table({
            "source": [s for s, _ in pairs], "target": [t for _, t in pairs],
            "shipped": [metrics[t][BASE] for _, t in pairs], "after_source": [metrics[t][s] for s, t in pairs],
            "gain": [gains[pair] for pair in pairs],
        }, args.output / "gains.csv")  # fmt: skip
        report = transfer_report(tasks, gains, floors=True)
        report.write(args.output)
        report.matrix.write(args.output)
        columns = compare(tasks, gains, others, args.seed)
        write_table(columns, args.output / "variants.csv")
    except JaxprotError as error:
        parser.error(str(error))
    print("| predictor | Spearman with gain | 95 % interval | p |\n|---|---|---|---|")
    for one in report.correlations:
        print(f"| {one.name} | {one.spearman:.2f} | {one.low:.2f} to {one.high:.2f} | {one.p:.3f} |")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    best = max((row for row in rows if row["predictor"] == "distance"), key=lambda row: row["chosen_spearman"])
    heads = ("predictor (larger is better)", "on the half that chose", "on the other half", "all", "within a target")
    print("\n| " + " | ".join(heads) + " |" + "\n" + "|---" * len(heads) + "|")
    for row in (best, *(row for row in rows if row["predictor"] != "distance")):
        figures = " | ".join(f"{row[f'{part}_spearman']:.2f}" for part in ("chosen", "confirmed", "all", "within"))
        print(f"| {row['predictor']} | {figures} |")
    print(f"\nbest variant of the distance: {json.dumps({k: best[k] for k in variants()[0]})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

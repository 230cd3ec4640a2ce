"""Does a distance between tasks predict which one helps which? Gains measured, distances and scores beside them.

    JAXPROT_TASKS=data/tasks python scripts/massa_transfer.py --output runs/transfer

For each source the shipped representation is fine-tuned for `--steps`; each target is then read off by a linear model
(ridge or logistic regression, its penalty chosen on a third of the training samples) on `--samples` proteins, once
from the shipped features and once from those of each source. The gain of a pair is the difference of the metric on
`--tested` other proteins, with its standard error; and since such a difference is small, also in five folds of all
these proteins. Of tasks with many classes the 20 largest are taken; of residue tasks single residues.

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
from collections.abc import Callable
from typing import Any, NamedTuple

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
PARTS = {"test": "the test part", "folds": "all samples, in five folds"}
FOLDS, RESAMPLES = 5, 200
Samples = tuple[np.ndarray, np.ndarray]
"""Features and labels."""


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


def told(kind: str, train: Samples, test: np.ndarray) -> np.ndarray:
    """What the linear model that does best on a third of the training samples says of others."""
    from jaxprot.massa.tasks.baselines import logistic, ridge
    from jaxprot.massa.tasks.metrics import score

    x, y = train
    centre, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    x, test = (x - centre) / spread, (test - centre) / spread
    names, classes = np.unique(y, return_inverse=True)

    def fitted(rows: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
        if kind == "regression":
            model = ridge(x[rows], y[rows], penalty)
            return lambda inputs: (inputs @ model[:-1] + model[-1])[:, 0]
        model = logistic(x[rows], classes[rows], len(names), penalty)
        return lambda inputs: names[(inputs @ model[:-1] + model[-1]).argmax(-1)]

    rows = np.arange(len(x))
    inner, outer = rows[rows % 3 > 0], rows[rows % 3 == 0]
    best = max(PENALTIES, key=lambda penalty: score(kind, fitted(inner, penalty)(x[outer]), y[outer]))
    return fitted(rows, best)(test)


def told_in_folds(kind: str, samples: Samples, seed: int) -> np.ndarray:
    """What models of four fifths of the samples say of the other fifth."""
    x, y = samples
    fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
    out = np.zeros_like(y)
    for number in range(FOLDS):
        out[fold == number] = told(kind, (x[fold != number], y[fold != number]), x[fold == number])
    return out


class Measured(NamedTuple):
    """What networks tell of a target: predictions by network, and the labels."""

    kind: str
    labels: np.ndarray
    found: dict[str, np.ndarray]

    def figure(self, source: str) -> float:
        """The metric after a source."""
        from jaxprot.massa.tasks.metrics import score

        return score(self.kind, self.found[source], self.labels)

    def gain(self, source: str) -> float:
        """By a source."""
        return self.figure(source) - self.figure(BASE)

    def error(self, source: str, seed: int) -> float:
        """Standard error of the gain, by resampling the proteins."""
        from jaxprot.massa.tasks.metrics import score

        rng, drawn, n = np.random.default_rng(seed), [], len(self.labels)
        for _ in range(RESAMPLES):
            rows = rng.integers(0, n, n)
            after, before = (score(self.kind, self.found[name][rows], self.labels[rows]) for name in (source, BASE))
            drawn.append(after - before)
        return float(np.std(drawn))


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


class Gathered(NamedTuple):
    """Tasks with features of all networks, what these tell of each target by part, and features of other layers."""

    tasks: list[Any]
    measured: dict[str, dict[str, Measured]]
    others: dict[str, list[np.ndarray]]

    def gains(self, part: str) -> dict[tuple[str, str], float]:
        """Of every ordered pair."""
        names = [task.name for task in self.tasks]
        return {(s, t): self.measured[part][t].gain(s) for s, t in itertools.permutations(names, 2)}


def gather(args: argparse.Namespace) -> Gathered:
    """Fine-tunes on every source and reads off every target."""
    from jaxprot.io.outputs import atomic_path
    from jaxprot.massa.tasks.tables import read_task
    from jaxprot.ot.tasks import Task

    folder = args.output / "features"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: read_task(name, args.folder) for name in args.tasks}
    rows = {name: chosen(table, args.samples, args.tested, args.seed) for name, table in tables.items()}
    measured: dict[str, dict[str, Measured]] = {part: {} for part in PARTS}
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
                (x, y), (u, v) = (
                    [stored[f"{target}.{part}.{of}"] for of in ("features", "labels")] for part in ("train", "test")
                )
                whole = np.concatenate([x, u]), np.concatenate([y, v])
                found = told(table.kind, (x, y), u), told_in_folds(table.kind, whole, args.seed)
                for part, one, labels in zip(PARTS, found, (v, whole[1]), strict=True):
                    measured[part].setdefault(target, Measured(table.kind, labels, {})).found[name] = one
                held[target][name], held[target]["labels"] = x, y
        shown = (f"{t} {' '.join(f'{measured[part][t].figure(name):.3f}' for part in PARTS)}" for t in args.tasks)
        print(f"{name}: {', '.join(shown)}", file=sys.stderr, flush=True)
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
    return Gathered(tasks, measured, others)


def variants() -> list[dict[str, Any]]:
    """Settings of the distance that are compared."""
    out = []
    choices = LAYERS, ("otdd", "features"), ("none", "zscore", "pca"), (0.02, 0.05, 0.2)
    for layer, method, prepared, eps in itertools.product(*choices):
        for bins in (5, 10) if method == "otdd" else (10,):
            out.append({"layer": layer, "method": method, "preprocess": prepared, "relative_eps": eps, "bins": bins})
    return out


def compare(gathered: Gathered, seed: int) -> dict[str, list[Any]]:
    """Rank correlations of every variant and score with the gains, on the pairs of two halves of the targets.

    `all` are those of all pairs, `within` means over targets of those of the sources of each.
    """
    from jaxprot.core.metrics import spearman
    from jaxprot.ot.report import SCORES, transfer_report

    tasks = gathered.tasks
    names = {task.name for task in tasks}
    order = np.random.default_rng(seed).permutation([task.name for task in tasks])
    first = set(order[: len(order) // 2])
    gains = {part: gathered.gains(part) for part in PARTS}
    columns: dict[str, list[Any]] = {}

    def add(name: str, settings: dict[str, Any], found: dict[tuple[str, str], float], sign: int) -> None:
        def agreement(part: str, targets: set[str]) -> float:
            pairs = [pair for pair in gains[part] if pair[1] in targets and np.isfinite(found[pair])]
            value = spearman(np.array([found[p] for p in pairs]), np.array([gains[part][p] for p in pairs]))
            return sign * float(value)

        for part in PARTS:
            row: dict[str, Any] = {"gains": part, "predictor": name, **{k: settings.get(k, "") for k in variants()[0]}}
            for label, targets in (("chosen", first), ("confirmed", names - first), ("all", names)):
                row[f"{label}_spearman"] = agreement(part, targets)
            row["within_spearman"] = float(np.mean([agreement(part, {name}) for name in sorted(names)]))
            for key, value in row.items():
                columns.setdefault(key, []).append(value)

    for settings in variants():
        shown = tasks
        if settings["layer"] in gathered.others:
            of = gathered.others[settings["layer"]]
            shown = [dataclasses.replace(task, features=x) for task, x in zip(tasks, of, strict=True)]
        options = {name: value for name, value in settings.items() if name != "layer"}
        report = transfer_report(shown, resamples=0, **options)
        pairs = list(zip(report.source, report.target, strict=True))
        add("distance", settings, dict(zip(pairs, report.values["distance"], strict=True)), -1)
    report = transfer_report(tasks, resamples=0)  # scores of as many bins as the main report has
    for name in SCORES:
        add(name, {}, dict(zip(pairs, report.values[name], strict=True)), 1)
    return columns


def shown(columns: dict[str, list[Any]], part: str) -> str:
    """Markdown of the best variant of the distance beside the scores."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [row for row in rows if row["gains"] == part]
    distances = [row for row in rows if row["predictor"] == "distance"]
    best = max(distances, key=lambda row: np.nan_to_num(row["chosen_spearman"], nan=-1))
    heads = ("predictor (larger is better)", "on the half that chose", "on the other half", "all", "within a target")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in (best, *(row for row in rows if row["predictor"] != "distance")):
        figures = " | ".join(f"{row[f'{half}_spearman']:.2f}" for half in ("chosen", "confirmed", "all", "within"))
        lines.append(f"| {row['predictor']} | {figures} |")
    return "\n".join([*lines, "", f"best variant of the distance: {json.dumps({k: best[k] for k in variants()[0]})}"])


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
    args.tasks = list(dict.fromkeys(args.tasks))
    if len(args.tasks) < 3:
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
        gathered = gather(args)
        pairs = list(gathered.gains("test"))
        columns: dict[str, list[Any]] = {"source": [s for s, _ in pairs], "target": [t for _, t in pairs]}
        for part, suffix in zip(PARTS, ("", "_folds"), strict=True):
            of = gathered.measured[part]
            columns[f"shipped{suffix}"] = [of[t].figure(BASE) for _, t in pairs]
            columns[f"after_source{suffix}"] = [of[t].figure(s) for s, t in pairs]
            columns[f"gain{suffix}"] = [of[t].gain(s) for s, t in pairs]
            columns[f"error{suffix}"] = [of[t].error(s, args.seed) for s, t in pairs]
        write_table(columns, args.output / "gains.csv")
        report = transfer_report(gathered.tasks, gathered.gains("test"), floors=True)
        report.write(args.output)
        report.matrix.write(args.output)
        compared = compare(gathered, args.seed)
        write_table(compared, args.output / "variants.csv")
    except JaxprotError as error:
        parser.error(str(error))
    print("| predictor | Spearman with gain | 95 % interval | p |\n|---|---|---|---|")
    for one in report.correlations:
        print(f"| {one.name} | {one.spearman:.2f} | {one.low:.2f} to {one.high:.2f} | {one.p:.3f} |")
    for part, suffix in zip(PARTS, ("", "_folds"), strict=True):
        clear = sum(abs(g) > 2 * e for g, e in zip(columns[f"gain{suffix}"], columns[f"error{suffix}"], strict=True))
        print(f"\nGains on {PARTS[part]}; {clear} of {len(pairs)} are more than two standard errors:\n")
        print(shown(compared, part))
    return 0


if __name__ == "__main__":
    sys.exit(main())

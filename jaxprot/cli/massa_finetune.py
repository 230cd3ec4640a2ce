"""`jaxprot massa finetune`."""

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.massa import cut_short, named, outputs
from jaxprot.cli.options import Compute, keep_memory, record
from jaxprot.core.errors import InputError, OutputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Compute):
    """Options of `massa finetune`."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK|CSV")] = ""
    """A table with the columns sequence and label (and split), and smiles or sequence2 for pairs of a protein and a
    molecule or of two proteins; or the name of a benchmark: stability, fluorescence, remote_homology,
    secondary_structure, enzyme_class, gb1, and of pairs kinase (active or not) and davis (pKd)."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Of the benchmarks' tables (default: the environment variable JAXPROT_TASKS)."""
    kind: Literal["auto", "regression", "classes", "residue_classes"] = "auto"
    """Of the labels. Auto takes texts, whole numbers from 0 or 1 on, and at most 20 different whole numbers for
    classes, texts as long as their sequences for classes of residues, and all else for numbers; it tells which."""
    fold: Literal[0, 1, 2, 3, 4] = 0
    """Of kinase and davis, the one for validation."""
    weights: Annotated[str, tyro.conf.arg(metavar="NAME|FILE|none")] = "massa"
    """To start from; none trains from scratch."""
    embedder: Annotated[str, tyro.conf.arg(metavar="physchem|FILE")] = "physchem"
    """What the network reads: physico-chemical rows, or a checkpoint of ESM-2, with --weights none (from scratch), or
    weights that read its channels."""
    start: Annotated[Path | None, tyro.conf.arg(metavar="DIR|FILE")] = None
    """Go on from a network that was trained on this task, in place of --weights."""
    network: Literal["massa", "cnn"] = "massa"
    """The network, or the small convolutional one that it is measured by."""
    frozen: bool = False
    """Train the head alone. Single proteins are read once, so that steps take next to no time: give ten times as
    many."""
    steps: int = 1000
    """Of training; of the head that is trained before the whole, ten times as many."""
    lr: float | None = None
    """Highest learning rate (default: 0.001; of a head alone 0.003)."""
    share: float = 1.0
    """Of the training rows."""
    seed: int = 0
    """Of the head, of batches and of dropout, 0 to 2147483647."""
    trajectory: int = 0
    """Follow the features of so many validation proteins (500, say) through training, ten times: trajectory.csv and
    trajectory.png tell their transport distance from the start and to the end; 0 for none."""
    resume: bool = False
    """Go on with the run in the output folder."""


_SETTINGS = ("task", "kind", "fold", "weights", "embedder", "start", "network", "frozen", "lr", "share", "seed",
             "trajectory")  # fmt: skip


def finetune(options: FinetuneOptions) -> int:
    """Trains MASSA on a task, and tells how well it does on the test part.

    On pre-trained weights the head of a task of single proteins is trained alone first (folder head), then the whole;
    what is best on the validation part is kept. Writes what `jaxprot train` writes, metrics.json (Spearman correlation,
    or accuracy, and more; of pairs Pearson correlation, or areas under ROC and precision-recall curves) and
    predictions.csv of the test part. `jaxprot massa predict` uses the weights. Rows without a label are left out;
    without a column split a tenth is for validation and a tenth for testing. What a row of a table is:

    - sequence,label: a number (stability), a class (enzyme), or one letter for each residue (helix, strand, coil);
    - sequence,smiles,label: a class (a kinase and its inhibitor, binder or decoy) or a number (pKd, as PDBbind's);
    - sequence,sequence2,label: the affinity of two proteins (as SKEMPI's: of mutants write out their sequences).
    """
    from jaxprot.io.outputs import RunDirectory, keep_settings

    paired = _checked(options)
    task = _task(options, paired)
    task.header()  # a table or weights that cannot be used are told before anything is written
    print(_described(task.data), file=sys.stderr)
    for line in _concerns(task):
        print(f"jaxprot: warning: {line}", file=sys.stderr)
    begun = _begun_with(options)
    if not options.resume:
        if not options.overwrite and any((options.output / name).is_dir() for name in ("ckpt", "head")):
            raise OutputError(
                f"{options.output}: holds a run; go on with it (--resume), give another folder (-o), or replace it "
                "(--overwrite)"
            )
        RunDirectory(options.output, options.overwrite)
        _clear(options.output)
    settings = {name: getattr(options, name) for name in _SETTINGS}
    settings["weights_sha256"] = begun and begun["sha256"]
    keep_settings(options.output, settings, anew=not options.resume)
    keep_memory()
    begin = time.perf_counter()
    task, followed, outcome = _trained(options, task, paired)
    if outcome.stopped is not None:
        print(f"{options.output}: stopped by {outcome.stopped} and saved; the same command with --resume goes on")
        return 130 if outcome.stopped == "SIGINT" else 0
    _tell(options, task, followed, paired, begun, {"train": time.perf_counter() - begin})
    return 0


def _checked(options: FinetuneOptions) -> bool:
    """Refuses options that make no sense; whether the table is one of pairs."""
    from jaxprot.massa.tasks import pair_tables

    if not options.task:
        raise InputError("name a task or a table (--help shows how)")
    cnn = options.network == "cnn"
    if cnn and options.frozen:
        raise InputError("--frozen: the convolutional network has nothing that is pre-trained")
    if options.frozen and options.start is None and options.weights == "none":
        raise InputError("--frozen: --weights none leaves nothing that is pre-trained")
    if options.steps < 1:
        raise InputError(f"--steps {options.steps}: give at least 1")
    if options.lr is not None and not options.lr > 0:
        raise InputError(f"--lr {options.lr}: give a number above 0")
    if not 0 < options.share <= 1:
        raise InputError(f"--share {options.share}: give a number above 0 and at most 1")
    if options.trajectory < 0 or options.trajectory == 1:
        raise InputError(f"--trajectory {options.trajectory}: give at least 2 proteins, or 0 for none")
    if options.trajectory and options.frozen:
        raise InputError("--trajectory: with --frozen the features stay where they are; leave one of them out")
    paired = pair_tables.is_pairs(options.task)
    if paired and cnn:
        raise InputError("--network cnn: the heads of pairs are for MASSA; leave the option out")
    if paired and options.trajectory:
        raise InputError("--trajectory: followed are tasks of single proteins; leave the option out")
    if paired and options.kind == "residue_classes":
        raise InputError("--kind residue_classes: labels of pairs are regression or classes")
    if options.embedder != "physchem":
        if paired or cnn:
            raise InputError("--embedder: for MASSA on tasks of single proteins; leave the option out")
        if not Path(options.embedder).is_file():
            raise InputError(f"--embedder {options.embedder}: no such file; give physchem, or a checkpoint of ESM-2")
    if options.start is not None:
        if paired or cnn:
            raise InputError("--start: for MASSA on tasks of single proteins; leave the option out")
        if options.weights != FinetuneOptions.weights:
            raise InputError("--start: brings a backbone of its own; leave --weights out")
    return paired


def _task(options: FinetuneOptions, paired: bool) -> Any:
    """What is trained on, and what with."""
    from jaxprot.massa.tasks import pairs, saved
    from jaxprot.massa.tasks.cnn import CNNConfig
    from jaxprot.massa.tasks.finetune import FinetuneTask

    cnn, more = options.network == "cnn", {}
    if cnn:
        more["model"] = CNNConfig()
    elif options.weights == "none":
        more["model"] = _small()
    if options.start is not None:  # a head goes on as it was made
        told = saved.header(options.start).get("task", {})
        more |= {"start": str(options.start), "readout": told.get("readout", "published")}
        more |= {"hidden": told["hidden"]} if "hidden" in told else {}
    made: Any = functools.partial(pairs.PairTask, fold=options.fold) if paired else FinetuneTask
    return made(
        table=options.task,
        folder=None if options.folder is None else str(options.folder),
        kind=None if options.kind == "auto" else options.kind,
        weights=None if cnn or options.start is not None or options.weights == "none" else options.weights,
        reads=None if options.embedder == "physchem" else options.embedder,
        share=options.share,
        **more,
    )


def _begun_with(options: FinetuneOptions) -> dict[str, Any] | None:
    """Weights that training begins with, as run.json tells of them; None from scratch."""
    from jaxprot.io.outputs import sha256
    from jaxprot.massa.tasks import saved
    from jaxprot.weights import registry

    if options.start is not None:
        name, file = "--start", saved.file(options.start)
    elif options.network == "cnn" or options.weights == "none":
        return None
    else:
        name, file = options.weights, Path(registry.resolve(options.weights, "massa")[0])
    if file.resolve().parent in (options.output.resolve(), options.output.resolve() / "head"):
        raise InputError(f"{name} {file}: lies in the output folder; give another one with -o")
    return {"name": name, "file": str(file), "sha256": sha256(file)}


def _trained(options: FinetuneOptions, task: Any, paired: bool) -> tuple[Any, Any, Any]:
    """The task with what its whole network began with, the follower of its features if any, and how the run ended."""
    from jaxprot.cli.train import reporter
    from jaxprot.massa.tasks.finetune import recipe
    from jaxprot.massa.tasks.followed import Followed
    from jaxprot.massa.tasks.head import RATE, STEPS, head_first
    from jaxprot.train.loop import fit

    begun = options.resume and (options.output / "ckpt").is_dir()  # the whole network, with a head that was trained
    if begun and (options.output / "head").is_dir():
        task = dataclasses.replace(task, weights=None, start=str(options.output / "head"))
    elif task.weights is not None and not (paired or options.frozen):
        print("the head alone first, then the whole network", file=sys.stderr)
        with reporter(STEPS * options.steps, sys.stderr.isatty()) as report:
            task, outcome = head_first(task, options.output / "head", steps=options.steps, seed=options.seed,
                                       resume=options.resume, report=report)  # fmt: skip
        if outcome.stopped is not None:
            return task, None, outcome
    rate = options.lr or (RATE if options.frozen else 1e-3)
    cfg = recipe(task, steps=options.steps, lr=rate, frozen=options.frozen, seed=options.seed)
    header = {"system": "massa", **task.header()}
    followed = None
    if options.trajectory:
        followed = Followed(task, options.trajectory, options.output / "trajectory")
        cfg = dataclasses.replace(cfg, task=followed, evaluate_every=max(1, options.steps // 10))
    with reporter(cfg.steps, sys.stderr.isatty()) as report:
        told_to = [one for one in (report, followed and followed.record) if one is not None]
        tell = lambda metrics: [one(metrics) for one in told_to]  # noqa: E731
        outcome = fit(cfg, options.output, resume=options.resume, header=header, report=tell if told_to else None)
    return task, followed, outcome


def _tell(
    options: FinetuneOptions, task: Any, followed: Any, paired: bool, begun: Any, timings: dict[str, float]
) -> None:
    """Writes figures, predictions and the record of the run."""
    from jaxprot.io.outputs import write_json
    from jaxprot.massa.tasks import saved

    step = int(saved.header(options.output)["step"])  # of the weights that are kept
    told: dict[str, Any] = {"task": task.data.name, "kind": task.data.kind, "step": step, "rows": {}}
    told.update((_score_pairs if paired else _score)(task, options.output, told["rows"]))
    if followed is not None:
        told["trajectory"] = _trajectory(followed, options)
    write_json(options.output / "metrics.json", told)
    inputs = [Path(name) for name in task.files() if Path(name).is_file()]
    record(options, options.output, "massa finetune", inputs=inputs, weights=begun, timings=timings)
    part = next((name for name in ("test", "valid") if name in told), None)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in told[part].items()) if part else "nothing to test on"
    tested = f" of {told['rows'][part]} {'validation ' if part == 'valid' else ''}rows" if part else ""
    kept = f"; kept are the weights of step {step} of {options.steps}"
    if not step:
        kept = "; kept is the network that training began with, as none was better on the validation part"
    print(f"{options.output}: {figures}{tested}{kept}; metrics.json")


def _clear(folder: Path) -> None:
    """Removes what an earlier run goes on from, and its results: `--overwrite` begins anew."""
    import shutil

    for name in ("ckpt", "head", "trajectory"):
        shutil.rmtree(folder / name, ignore_errors=True)
    results = ("metrics.json", "predictions.csv", "run.json", "trajectory.csv", "trajectory.png")
    for name in ("metrics.jsonl", "best.safetensors", *results):
        (folder / name).unlink(missing_ok=True)


def _described(table: Any) -> str:
    """What labels were read as."""
    kinds = {"regression": "numbers", "classes": f"{table.classes} classes",
             "residue_classes": f"{table.classes} classes of residues"}  # fmt: skip
    counts = ", ".join(f"{len(table.part(name))} for {what}" for name, what in
                       (("train", "training"), ("valid", "validation"), ("test", "testing")))  # fmt: skip
    return f"{table.name}: labels are {kinds[table.kind]} (--kind); {counts}"


def _concerns(task: Any) -> list[str]:
    """What a user should know of a table before the training."""
    table, out = task.data, []
    long = cut_short([*table.sequences, *(getattr(table, "partners", ()) if _two(table) else ())], task.longest)
    out += [long] if long else []
    if getattr(task, "start", None) is not None and table.kind == "regression":
        out += _other_labels(task)
    without = [name for name in ("valid", "test") if not len(table.part(name))]
    if "valid" in without:
        out.append(f"{table.name}: no rows for validation, so the training rows choose the weights")
    if "test" in without:
        out.append(f"{table.name}: no rows for testing, so no figure tells how well new sequences are predicted")
    return out


def _other_labels(task: Any) -> list[str]:
    """Whether labels of the table are unlike those that the network of `start` learned."""
    import numpy as np

    (mean, deviation), labels = task.scale, np.asarray(task.data.labels)[task.trained_rows]
    if abs(labels.mean() - mean) < 2 * deviation and 0.2 < labels.std() / deviation < 5:
        return []
    return [
        f"{task.start}: learned numbers of mean {mean:.3g} and deviation {deviation:.3g}, those of "
        f"{task.data.name} have {labels.mean():.3g} and {labels.std():.3g}; for a task of another kind give the run "
        "as --weights"
    ]


def _two(table: Any) -> bool:
    return getattr(table, "partner", None) == "sequence2"


def _trajectory(followed: Any, options: FinetuneOptions) -> dict[str, Any]:
    """Writes trajectory.csv and trajectory.png; what metrics.json says of them."""
    import numpy as np

    from jaxprot.io.outputs import atomic_path
    from jaxprot.io.tables import write_table
    from jaxprot.ot.matrix import trajectory
    from jaxprot.plots import transfer

    steps, snapshots = followed.snapshots(options.steps)
    found = trajectory(snapshots, steps=steps, seed=options.seed)
    scores = dict.fromkeys(steps, float("nan"))
    for line in (options.output / "metrics.jsonl").read_text().splitlines():
        noted = json.loads(line)
        if noted.get("val_score") is not None and noted["step"] in scores:
            scores[noted["step"]] = noted["val_score"]
    score = np.array([scores[step] for step in steps])
    roots = [np.sqrt(np.maximum(values, 0)) for values in (found.from_start, found.to_end)]
    columns = {**found.table(), "sqrt_from_start": roots[0], "sqrt_to_end": roots[1], "val_score": score}
    write_table(columns, options.output / "trajectory.csv")
    metric = followed.task.data.metric
    with atomic_path(options.output / "trajectory.png") as temporary:
        transfer.trajectory(found.steps, *roots, temporary, score=score, metric=f"validation {metric}",
                            title=followed.task.data.name, unit="root of the transport distance")  # fmt: skip
    return {"proteins": len(followed.shown), "snapshots": len(steps), "distance": float(found.from_start[-1]),
            "converged": found.converged}  # fmt: skip


def _score(task: Any, folder: Path, counts: dict[str, int]) -> dict[str, Any]:
    """Figures of the parts; writes predictions.csv of the test part."""
    import numpy as np

    from jaxprot.io.tables import write_table
    from jaxprot.massa.tasks import predict
    from jaxprot.massa.tasks.metrics import figures
    from jaxprot.massa.tasks.tables import class_text

    told, kind = {}, task.data.kind
    for part, (found, labels) in predict.evaluate(predict.load(folder), task).items():
        rows = task.data.part(part)
        counts[part], told[part] = len(rows), figures(kind, found, labels)
        if part == "test":
            table = task.data.take(rows)
            if kind == "residue_classes":
                ends = np.cumsum([min(len(text), task.longest) for text in table.sequences])[:-1]
                labels, found = np.split(labels, ends), np.split(found, ends)
            texts = {name: [class_text(kind, table.class_names, one) for one in values]
                     for name, values in (("label", labels), ("predicted", found))}  # fmt: skip
            columns = {"name": table.names, "sequence": table.sequences, **texts}
            write_table(columns, folder / "predictions.csv")
    return told


def _score_pairs(task: Any, folder: Path, counts: dict[str, int]) -> dict[str, Any]:
    """The same of pairs."""
    from jaxprot.io.tables import write_table
    from jaxprot.massa.tasks import pair_predict
    from jaxprot.massa.tasks.metrics import pair_figures

    told, table, predictor = {}, task.data, pair_predict.load(folder)
    for part in ("valid", "test"):
        rows = table.part(part)
        if not len(rows):
            continue
        found, labels = task.predict(predictor.apply, rows)
        counts[part], told[part] = len(rows), pair_figures(table.kind, found, labels)
        if part == "test":
            columns = {
                "sequence": [table.sequences[row] for row in rows],
                table.partner: [table.partners[row] for row in rows],
                "label": [named(table.class_names, label) for label in labels],
            }
            write_table({**columns, **outputs(predictor, found)}, folder / "predictions.csv")
    return told


def _small() -> Any:
    """Sizes of the shipped network."""
    from jaxprot.massa import weights
    from jaxprot.weights import registry

    return weights.read(registry.resolve("massa", "massa")[0]).config

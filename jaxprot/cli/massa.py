"""`jaxprot massa finetune|predict|interactions`."""

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.massa_embed import embedder_of, input_files
from jaxprot.cli.options import Common, Compute, keep_memory, load, progress, record, report_failures
from jaxprot.core.errors import InputError


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


_SETTINGS = ("task", "kind", "fold", "weights", "embedder", "start", "network", "frozen", "lr", "share", "seed")


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
    from jaxprot.cli.train import reporter
    from jaxprot.io.outputs import RunDirectory, keep_settings, write_json
    from jaxprot.massa.tasks import pair_tables, pairs
    from jaxprot.massa.tasks.cnn import CNNConfig
    from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
    from jaxprot.massa.tasks.followed import Followed
    from jaxprot.massa.tasks.head import RATE, STEPS, head_first
    from jaxprot.train.loop import fit

    if not options.task:
        raise InputError("name a task or a table (--help shows how)")
    cnn = options.network == "cnn"
    if cnn and options.frozen:
        raise InputError("--frozen: the convolutional network has nothing that is pre-trained")
    if options.frozen and options.start is None and options.weights == "none":
        raise InputError("--frozen: --weights none leaves nothing that is pre-trained")
    paired = pair_tables.is_pairs(options.task)
    if paired and cnn:
        raise InputError("--network cnn: the heads of pairs are for MASSA; leave the option out")
    if paired and options.trajectory:
        raise InputError("--trajectory: followed are tasks of single proteins; leave the option out")
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
    for name, given in (("--start", options.start), ("--weights", options.weights)):
        if (
            given is not None
            and Path(given).exists()
            and options.output.resolve() in (Path(given).resolve(), *Path(given).resolve().parents)
        ):
            raise InputError(f"{name} {given}: lies in the output folder; give another one with -o")
    if options.trajectory and options.frozen:
        raise InputError("--trajectory: with --frozen the features stay where they are; leave one of them out")
    if options.steps < 1:
        raise InputError(f"--steps {options.steps}: give at least 1")
    if options.lr is not None and not options.lr > 0:
        raise InputError(f"--lr {options.lr}: give a number above 0")
    if not 0 < options.share <= 1:
        raise InputError(f"--share {options.share}: give a number above 0 and at most 1")
    if options.trajectory < 0 or options.trajectory == 1:
        raise InputError(f"--trajectory {options.trajectory}: give at least 2 proteins, or 0 for none")
    if paired and options.kind == "residue_classes":
        raise InputError("--kind residue_classes: labels of pairs are regression or classes")
    made: Any = functools.partial(pairs.PairTask, fold=options.fold) if paired else FinetuneTask
    task = made(
        table=options.task,
        folder=None if options.folder is None else str(options.folder),
        kind=None if options.kind == "auto" else options.kind,
        weights=None if cnn or options.start is not None or options.weights == "none" else options.weights,
        reads=None if options.embedder == "physchem" else options.embedder,
        share=options.share,
        start=None if options.start is None else str(options.start),
        **({"model": CNNConfig()} if cnn else {} if options.weights != "none" else {"model": _small()}),
    )
    kind = task.data.kind  # a table or weights that cannot be used are told before anything is written
    task.header()
    print(_described(task.data), file=sys.stderr)
    for line in _concerns(task):
        print(f"jaxprot: warning: {line}", file=sys.stderr)
    if not options.resume:
        RunDirectory(options.output, options.overwrite)
        _clear(options.output)
    keep_settings(options.output, {name: getattr(options, name) for name in _SETTINGS}, anew=not options.resume)
    keep_memory()
    begin = time.perf_counter()
    begun = options.resume and (options.output / "ckpt").is_dir()  # the whole network, with a head that was trained
    if begun and (options.output / "head").is_dir():
        task = dataclasses.replace(task, weights=None, start=str(options.output / "head"))
    elif task.weights is not None and not (paired or options.frozen):
        print("the head alone first, then the whole network", file=sys.stderr)
        with reporter(STEPS * options.steps, sys.stderr.isatty()) as report:
            task, outcome = head_first(task, options.output / "head", steps=options.steps, seed=options.seed,
                                       resume=options.resume, report=report)  # fmt: skip
        if outcome.stopped is not None:
            return _stopped(options.output, outcome)
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
    if outcome.stopped is not None:
        return _stopped(options.output, outcome)
    timings = {"train": time.perf_counter() - begin}
    told: dict[str, Any] = {"task": task.data.name, "kind": kind, "rows": {}}
    told.update((_score_pairs if paired else _score)(task, options.output, told["rows"]))
    if followed is not None:
        told["trajectory"] = _trajectory(followed, options)
    write_json(options.output / "metrics.json", told)
    inputs = [Path(name) for name in task.files() if Path(name).is_file()]
    record(options, options.output, "massa finetune", inputs=inputs, timings=timings)
    part = next((name for name in ("test", "valid") if name in told), None)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in told[part].items()) if part else "nothing to test on"
    tested = f" of {told['rows'][part]} {'validation ' if part == 'valid' else ''}rows" if part else ""
    print(f"{options.output}: {figures}{tested}; metrics.json")
    return 0


def _stopped(folder: Path, outcome: Any) -> int:
    """Tells how to go on; the exit code."""
    print(f"{folder}: stopped by {outcome.stopped} and saved; the same command with --resume goes on")
    return 130 if outcome.stopped == "SIGINT" else 0


def _clear(folder: Path) -> None:
    """Removes what an earlier run goes on from: `--overwrite` begins anew."""
    import shutil

    for name in ("ckpt", "head", "trajectory"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.jsonl", "best.safetensors"):
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
    long = _long([*table.sequences, *(getattr(table, "partners", ()) if _two(table) else ())], task.longest)
    out += [long] if long else []
    without = [name for name in ("valid", "test") if not len(table.part(name))]
    if "valid" in without:
        out.append(f"{table.name}: no rows for validation, so the training rows choose the weights")
    if "test" in without:
        out.append(f"{table.name}: no rows for testing, so no figure tells how well new sequences are predicted")
    return out


def _two(table: Any) -> bool:
    return getattr(table, "partner", None) == "sequence2"


def _long(sequences: list[str], longest: int) -> str:
    """Which sequences are cut, as published; nothing if none is."""
    count = sum(len(sequence) > longest for sequence in sequences)
    return f"{count} of {len(sequences)} sequences are longer than {longest} residues; of these the first are read" * (
        count > 0
    )


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
                "label": [_named(table.class_names, label) for label in labels],
            }
            write_table({**columns, **_predicted(predictor, found)}, folder / "predictions.csv")
    return told


def _named(names: tuple[str, ...], value: Any) -> Any:
    return names[value] if names else value


def _predicted(predictor: Any, found: Any) -> dict[str, Any]:
    """Columns of what a network says of pairs: numbers, or classes and their probabilities."""
    if predictor.kind == "regression":
        return {"predicted": found}
    names = predictor.class_names
    shares = {f"p_{_named(names, i)}": found[:, i] for i in range(found.shape[1])}
    return {"predicted": [_named(names, i) for i in found.argmax(-1)], **shares}


def _small() -> Any:
    """Sizes of the shipped network."""
    from jaxprot.massa import weights
    from jaxprot.weights import registry

    return weights.read(registry.resolve("massa", "massa")[0]).config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Compute):
    """Options of `massa predict`."""

    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...")] = ()
    """FASTA, PDB, mmCIF or UniProt flat files, tables with a column sequence, or folders of such; for weights of pairs
    one table with the columns sequence, and smiles or sequence2."""
    weights: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")] = Path("jaxprot-out")
    """Folder of `massa finetune`, or its best.safetensors."""
    embedder: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Checkpoint of ESM-2 that the weights were trained with, if it has been moved."""


def predict(options: PredictOptions) -> int:
    """What a fine-tuned network says of sequences: predictions.csv.

    Proteins that cannot be read, rows of tables too, are left out and listed at the end, with exit code 1. Rows are
    named by the column name or id, or by their line.
    """
    from jaxprot.io.outputs import RunDirectory, sha256
    from jaxprot.io.tables import write_table
    from jaxprot.massa.data import read_all
    from jaxprot.massa.tasks import predict as trained
    from jaxprot.massa.tasks.pair_network import NETWORK
    from jaxprot.massa.tasks.pair_tables import is_pairs
    from jaxprot.massa.tasks.tables import class_text
    from jaxprot.weights import inspect

    if not options.inputs:
        raise InputError("no input; give files or a folder (--help shows how)")
    run = RunDirectory(options.output, options.overwrite)
    file = options.weights / "best.safetensors" if options.weights.is_dir() else options.weights
    if inspect.read(file)[2].get("network") == NETWORK:
        return _predict_pairs(options, run, file)
    failed: dict[str, str] = {}
    for path in options.inputs:
        if path.name.endswith((".csv", ".csv.gz")) and is_pairs(path):
            raise InputError(f"{path}: a table of pairs, and {file} was trained on single proteins; give a table "
                             "without the columns smiles and sequence2, or weights of pairs")  # fmt: skip
    proteins = read_all(tuple(map(str, options.inputs)), None, failed)
    if not proteins:
        raise InputError("\n".join(failed.values()))
    predictor = trained.load(options.weights, options.embedder)
    begin = time.perf_counter()
    long = _long([protein.sequence for protein in proteins], predictor.task["longest"])
    if long:
        print(f"jaxprot: warning: {long}", file=sys.stderr)
    found = predictor.predict([protein.sequence for protein in proteins])
    columns = {
        "name": [protein.name for protein in proteins],
        "sequence": [protein.sequence for protein in proteins],
        "predicted": [class_text(predictor.kind, predictor.class_names, value) for value in found],
    }
    path = write_table(columns, run.folder() / "predictions.csv")
    told = {"name": predictor.task["name"], "file": str(file), "sha256": sha256(file)}
    record(options, run.folder(), "massa predict", inputs=input_files(options.inputs), weights=told,
           timings={"compute": time.perf_counter() - begin}, failed=failed)  # fmt: skip
    print(f"{path}: {len(found)} proteins")
    report_failures(failed, len(found) + len(failed), "proteins or files")
    return 1 if failed else 0


def _predict_pairs(options: PredictOptions, run: Any, file: Path) -> int:
    """What a fine-tuned network says of the pairs of a table."""
    from jaxprot.io.outputs import sha256
    from jaxprot.io.tables import write_table
    from jaxprot.massa.tasks import pair_predict, pair_tables

    predictor = pair_predict.load(file)
    if len(options.inputs) != 1 or not options.inputs[0].name.endswith((".csv", ".csv.gz")):
        raise InputError(f"{file}: weights of pairs; give one table with the columns sequence and {predictor.partner}")
    begin = time.perf_counter()
    columns: dict[str, Any] = pair_tables.read_columns(options.inputs[0], ("sequence", predictor.partner))
    try:
        found = predictor.predict(columns["sequence"], columns[predictor.partner])
    except InputError as error:
        raise InputError(f"{options.inputs[0]}: {error}") from error
    path = write_table({**columns, **_predicted(predictor, found)}, run.folder() / "predictions.csv")
    told = {"name": predictor.task["name"], "file": str(file), "sha256": sha256(file)}
    record(options, run.folder(), "massa predict", inputs=options.inputs, weights=told,
           timings={"compute": time.perf_counter() - begin})  # fmt: skip
    print(f"{path}: {len(found)} pairs")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class InteractionsOptions(Common):
    """Options of `massa interactions`."""

    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PROTEINS.csv EDGES.csv")] = ()
    """Proteins (columns protein, sequence), and pairs (protein_a, protein_b, and a column of 0 and 1 for each type;
    pairs whose types are empty are told)."""
    split: Literal["random", "bfs", "dfs"] = "bfs"
    """How tested pairs are chosen: at random, or by a walk, breadth or depth first, so that they form a region."""
    messages: Literal["train", "all"] = "train"
    """Pairs that carry messages: those of training, or as published the tested ones too, which helps to tell them."""
    select: Literal["valid", "test"] = "valid"
    """What chooses the best epoch: a part of its own, or as published the tested pairs themselves."""
    embeddings: Annotated[Path | None, tyro.conf.arg(metavar="NPZ")] = None
    """Vectors of the proteins that `jaxprot massa embed` wrote, in place of those that are computed here."""
    epochs: int = 200
    """Of training."""
    lr: float = 1e-3
    """First learning rate."""
    width: int = 512
    """Channels of the graph network."""


def interactions(options: InteractionsOptions) -> int:
    """Trains a graph network that tells the types of interactions of proteins, and tells how well it does.

    Writes metrics.json (micro-F1, by type, and by how many of a pair's proteins training has met), predictions.csv of
    the tested pairs and of those that are asked about, and history.csv.
    """
    import numpy as np

    from jaxprot.io.outputs import RunDirectory, write_json
    from jaxprot.io.tables import write_table
    from jaxprot.massa.tasks import networks

    if len(options.inputs) != 2:
        raise InputError(f"{len(options.inputs)} tables; give that of the proteins and that of the pairs")
    try:
        cfg = networks.GraphConfig(
            split=options.split, messages=options.messages, select=options.select, epochs=options.epochs,
            lr=options.lr, width=options.width, seed=options.seed,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"--{error}") from error
    run = RunDirectory(options.output, options.overwrite)
    network = networks.read_network(*options.inputs)
    networks.parts(network.pairs, cfg)  # too few pairs are told before minutes of work
    begin = time.perf_counter()
    weights = None
    if options.embeddings is not None:
        x = networks.stored(network, options.embeddings)
    else:
        predictor, weights = load(options, "massa")
        embedder = embedder_of("physchem", predictor.config.seq_dim)
        with progress(len(network.names), "proteins") as advance:
            x = networks.vectors(network, predictor, embedder, advance=advance)
    timings = {"embed": time.perf_counter() - begin}
    begin = time.perf_counter()
    with progress(cfg.epochs, "epochs") as advance:
        fitted = networks.fit(network, x, cfg, lambda _: advance())
    timings["train"] = time.perf_counter() - begin
    told = networks.figures(network, fitted)
    directory = run.folder()
    counts = {name: int((fitted.part == name).sum()) for name in ("train", "valid", "test")}
    write_json(directory / "metrics.json", {
        "split": cfg.split, "messages": cfg.messages, "select": cfg.select, "proteins": len(network.names),
        "pairs": {**counts, "asked": len(network.asked)}, "epoch": fitted.epoch, **told,
    })  # fmt: skip
    tested, names = fitted.part == "test", np.array(network.names)
    pairs = np.concatenate([network.pairs[tested], network.asked])
    shares = np.concatenate([fitted.probabilities[tested], fitted.asked])
    columns: dict[str, Any] = {"protein_a": names[pairs[:, 0]], "protein_b": names[pairs[:, 1]]}
    columns["part"] = ["test"] * int(tested.sum()) + ["asked"] * len(network.asked)
    columns.update({f"p_{name}": shares[:, i] for i, name in enumerate(network.type_names)})
    write_table(columns, directory / f"predictions.{options.format}")
    write_table({name: [one[name] for one in fitted.history] for name in fitted.history[0]},
                directory / f"history.{options.format}")  # fmt: skip
    inputs = [*options.inputs, *([] if options.embeddings is None else [options.embeddings])]
    record(options, directory, "massa interactions", inputs=inputs, weights=weights, timings=timings)
    leak = " (with the leak of the published evaluation)" if cfg.messages == "all" or cfg.select == "test" else ""
    print(f"{directory}: micro-F1 {told['test']:.3f} of {counts['test']} tested pairs{leak}, "
          f"{told['all_positive']:.3f} by telling every type; metrics.json, predictions.{options.format}")  # fmt: skip
    return 0

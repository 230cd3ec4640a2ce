"""`jaxprot massa predict|interactions`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.massa_embed import embedder_of, input_files
from jaxprot.cli.options import Common, Compute, load, progress, record, report_failures
from jaxprot.core.errors import InputError


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
    if not options.weights.exists():
        raise InputError(f"{options.weights}: no such file or folder; name a run of massa finetune by --weights")
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
    long = cut_short([protein.sequence for protein in proteins], predictor.task["longest"])
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
    path = write_table({**columns, **outputs(predictor, found)}, run.folder() / "predictions.csv")
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


def cut_short(sequences: list[str], longest: int) -> str:
    """Which sequences are cut, as published; nothing if none is."""
    count = sum(len(sequence) > longest for sequence in sequences)
    return f"{count} of {len(sequences)} sequences are longer than {longest} residues; of these the first are read" * (
        count > 0
    )


def named(names: tuple[str, ...], value: Any) -> Any:
    """A class by its name, where classes have any."""
    return names[value] if names else value


def outputs(predictor: Any, found: Any) -> dict[str, Any]:
    """Columns of what a network says of pairs: numbers, or classes and their probabilities."""
    if predictor.kind == "regression":
        return {"predicted": found}
    names = predictor.class_names
    shares = {f"p_{named(names, i)}": found[:, i] for i in range(found.shape[1])}
    return {"predicted": [named(names, i) for i in found.argmax(-1)], **shares}

"""`jaxprot massa embed|finetune|predict`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Common, Compute, keep_memory, load, progress, record
from jaxprot.core.errors import InputError

_AT_ONCE = 512  # proteins whose inputs are in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedOptions(Common):
    """Options of `massa embed`."""

    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...")] = ()
    """FASTA, PDB, mmCIF or UniProt flat files (also .gz), tables with a column sequence, or folders of such."""
    obo: Annotated[Path | None, tyro.conf.arg(metavar="OBO")] = None
    """Ontology of the GO terms of UniProt entries (go-basic.obo); without it they are missing."""
    structures: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of structures of UniProt entries, named by accession as those of AlphaFold DB."""
    embedder: Annotated[str, tyro.conf.arg(metavar="physchem|FILE|DIR")] = "physchem"
    """What the weights read: physico-chemical rows, an ESM-2 checkpoint, or stored embeddings by protein name."""
    long: Literal["refuse", "crop"] = "refuse"
    """What becomes of sequences with more residues than the network has positions."""
    residues: bool = False
    """Also write residues.npz, one array (L, channels) for each protein."""


def embed(options: EmbedOptions) -> int:
    """Vectors of proteins from sequence, structure and GO terms, whatever there is of them.

    Writes embeddings.npz: names, features (n, channels), and labels and split where a table has them, which
    `jaxprot transfer` reads.
    """
    import numpy as np

    from jaxprot.io.obo import read_obo
    from jaxprot.io.outputs import RunDirectory, atomic_path
    from jaxprot.massa.data import read_all
    from jaxprot.massa.records import Protein, to_records

    if not options.inputs:
        raise InputError("no input; give files or a folder (--help shows how)")
    begin = time.perf_counter()
    run = RunDirectory(options.output, options.overwrite)
    proteins: list[Protein] = []
    more: dict[str, Any] = {}
    tables = [path for path in options.inputs if path.name.endswith((".csv", ".csv.gz"))]
    if tables and len(options.inputs) > 1:
        raise InputError(f"{tables[0]}: a table is embedded by itself, as its labels go with its rows")
    if tables:
        proteins, more = _table(tables[0])
    else:
        folder = None if options.structures is None else str(options.structures)
        proteins = read_all(tuple(map(str, options.inputs)), folder)
    predictor, weights = load(options, "massa")
    embedder = _embedder(options.embedder, predictor.config.seq_dim)
    ontology = None if options.obo is None else read_obo(options.obo)
    names = _apart([protein.name for protein in proteins])
    vectors, residues = [], {}
    timings = {"read": time.perf_counter() - begin}
    begin = time.perf_counter()
    with progress(len(proteins), "proteins") as advance:
        for start in range(0, len(proteins), _AT_ONCE):
            part = proteins[start : start + _AT_ONCE]
            records = to_records(part, embedder, ontology=ontology, go_dim=predictor.config.go_dim)
            for name, found in zip(names[start:], predictor.embed(records, long=options.long), strict=False):
                vectors.append(found.vector)
                if options.residues:
                    residues[name] = found.residues
                advance()
    timings["compute"] = time.perf_counter() - begin
    directory = run.folder()
    with atomic_path(directory / "embeddings.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, names=np.array(names), features=np.stack(vectors), **more)
    if options.residues:
        with atomic_path(directory / "residues.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **residues)
    record(options, directory, "massa embed", inputs=_files(options.inputs), weights=weights, timings=timings)
    told = {name: sum(getattr(p, name) is not None for p in proteins) for name in ("coords", "entry")}
    print(f"{directory}: {len(vectors)} proteins ({told['coords']} with structure, {told['entry']} with annotation), "
          f"{len(vectors[0])} channels; embeddings.npz{', residues.npz' if options.residues else ''}")  # fmt: skip
    return 0


def _files(inputs: tuple[Path, ...]) -> list[Path]:
    return [file for path in inputs for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]


def _table(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Rows of a table as proteins, and its labels."""
    import numpy as np

    from jaxprot.massa.data import read_all
    from jaxprot.massa.records import Protein
    from jaxprot.massa.tasks.tables import read_task

    try:
        table = read_task(path)
    except InputError as error:
        if "no column label" not in str(error):
            raise
        return read_all((str(path),)), {}
    proteins = [Protein(f"{table.name}_{row}", sequence) for row, sequence in enumerate(table.sequences)]
    if table.kind == "residue_classes":
        return proteins, {"split": table.split}
    return proteins, {"labels": np.asarray(table.labels), "split": table.split}


def _apart(names: list[str]) -> list[str]:
    """Names that occur twice get numbers."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out


def _embedder(name: str, channels: int) -> Any:
    """The embedder that an option names; it must give what the weights read."""
    from jaxprot.massa.embedders import PhysicoChemical, Precomputed

    if name == "physchem":
        made: Any = PhysicoChemical()
    elif Path(name).is_dir() or name.endswith(".npz"):
        made = Precomputed(name)
    else:
        from jaxprot.esm2 import predict

        made = predict.load(name)
    if made.dim != channels:
        raise InputError(f"--embedder {name}: gives {made.dim} channels, the weights read {channels}")
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Compute):
    """Options of `massa finetune`."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK|CSV")] = ""
    """A table with the columns sequence and label (and split), or the name of a benchmark: stability, fluorescence,
    remote_homology, secondary_structure, enzyme_class, gb1."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Of the benchmarks' tables (default: the environment variable JAXPROT_TASKS)."""
    kind: Literal["auto", "regression", "classes", "residue_classes"] = "auto"
    """Of the labels."""
    weights: Annotated[str, tyro.conf.arg(metavar="NAME|FILE|none")] = "massa"
    """To start from; none trains from scratch."""
    network: Literal["massa", "cnn"] = "massa"
    """The network, or the small convolutional one that it is measured by."""
    frozen: bool = False
    """Train the head alone."""
    steps: int = 1000
    """Of training."""
    lr: float = 1e-3
    """Highest learning rate; that of the backbone is a third of it."""
    share: float = 1.0
    """Of the training rows."""
    seed: int = 0
    """Of the head, of batches and of dropout, 0 to 2147483647."""
    resume: bool = False
    """Go on with the run in the output folder."""


def finetune(options: FinetuneOptions) -> int:
    """Trains MASSA on a task, and tells how well it does on the test part.

    Writes what `jaxprot train` writes, metrics.json (Spearman correlation, or accuracy, and more) and predictions.csv
    of the test part. `jaxprot massa predict` uses the weights.
    """
    from jaxprot.cli.train import reporter
    from jaxprot.io.outputs import RunDirectory, write_json
    from jaxprot.io.tables import write_table
    from jaxprot.massa.tasks import predict
    from jaxprot.massa.tasks.cnn import CNNConfig
    from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
    from jaxprot.massa.tasks.metrics import figures
    from jaxprot.train.loop import fit

    if not options.task:
        raise InputError("name a task or a table (--help shows how)")
    cnn = options.network == "cnn"
    if cnn and options.frozen:
        raise InputError("--frozen: the convolutional network has nothing that is pre-trained")
    task = FinetuneTask(
        table=options.task,
        folder=None if options.folder is None else str(options.folder),
        kind=None if options.kind == "auto" else options.kind,
        weights=None if cnn or options.weights == "none" else options.weights,
        share=options.share,
        **({"model": CNNConfig()} if cnn else {} if options.weights != "none" else {"model": _small()}),
    )
    kind = task.data.kind  # a table that cannot be used is told before anything is written
    cfg = recipe(task, steps=options.steps, lr=options.lr, frozen=options.frozen, seed=options.seed)
    if not options.resume:
        RunDirectory(options.output, options.overwrite)
    keep_memory()
    begin = time.perf_counter()
    header = {"system": "massa", **task.header()}
    with reporter(cfg.steps, sys.stderr.isatty()) as report:
        outcome = fit(cfg, options.output, resume=options.resume, header=header, report=report)
    if outcome.stopped is not None:
        print(f"{options.output}: stopped by {outcome.stopped} and saved; the same command with --resume goes on")
        return 130 if outcome.stopped == "SIGINT" else 0
    timings = {"train": time.perf_counter() - begin}
    told: dict[str, Any] = {"task": task.data.name, "kind": kind, "rows": {}}
    for part, (found, labels) in predict.evaluate(predict.load(outcome.best or options.output), task).items():
        rows = task.data.part(part)
        told["rows"][part], told[part] = len(rows), figures(kind, found, labels)
        if part == "test" and kind != "residue_classes":
            texts = [task.data.sequences[row] for row in rows]
            columns = {"sequence": texts, "label": labels, "predicted": found}
            write_table(columns, options.output / "predictions.csv")
    write_json(options.output / "metrics.json", told)
    inputs = [Path(name) for name in task.files() if Path(name).is_file()]
    record(options, options.output, "massa finetune", inputs=inputs, timings=timings)
    shown = told.get("test", told.get("valid", {}))
    print(f"{options.output}: {', '.join(f'{name} {value:.3f}' for name, value in shown.items())}; metrics.json")
    return 0


def _small() -> Any:
    """Sizes of the shipped network."""
    from jaxprot.massa import weights
    from jaxprot.weights import registry

    return weights.read(registry.resolve("massa", "massa")[0]).config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Compute):
    """Options of `massa predict`."""

    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...")] = ()
    """FASTA, PDB, mmCIF or UniProt flat files, tables with a column sequence, or folders of such."""
    weights: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")] = Path("jaxprot-out")
    """Folder of `massa finetune`, or its best.safetensors."""


def predict(options: PredictOptions) -> int:
    """What a fine-tuned network says of sequences: predictions.csv."""
    from jaxprot.io.outputs import RunDirectory, sha256
    from jaxprot.io.tables import write_table
    from jaxprot.massa.data import read_all
    from jaxprot.massa.tasks import predict as trained

    if not options.inputs:
        raise InputError("no input; give files or a folder (--help shows how)")
    run = RunDirectory(options.output, options.overwrite)
    proteins = read_all(tuple(map(str, options.inputs)))
    predictor = trained.load(options.weights)
    begin = time.perf_counter()
    found = predictor.predict([protein.sequence for protein in proteins])
    names = predictor.class_names

    def text(value: Any) -> Any:
        if predictor.kind == "regression":
            return value
        if predictor.kind == "classes":
            return names[value] if names else value
        return "".join(names[one] if names else str(one) for one in value)

    columns = {
        "name": [protein.name for protein in proteins],
        "sequence": [protein.sequence for protein in proteins],
        "predicted": [text(value) for value in found],
    }
    path = write_table(columns, run.folder() / "predictions.csv")
    file = options.weights / "best.safetensors" if options.weights.is_dir() else options.weights
    told = {"name": predictor.task["name"], "file": str(file), "sha256": sha256(file)}
    record(options, run.folder(), "massa predict", inputs=_files(options.inputs), weights=told,
           timings={"compute": time.perf_counter() - begin})  # fmt: skip
    print(f"{path}: {len(found)} proteins")
    return 0

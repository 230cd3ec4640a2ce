"""`jaxprot massa embed`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Common, load, progress, record, report_failures
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
    long: Literal["refuse", "crop", "window"] = "refuse"
    """What becomes of sequences with more residues than the network has positions: crop keeps their first residues,
    window sees all of them in parts that overlap."""
    residues: bool = False
    """Also write residues.npz, one array (L, channels) for each protein."""


def embed(options: EmbedOptions) -> int:
    """Vectors of proteins from sequence, structure and GO terms, whatever there is of them.

    Writes embeddings.npz: names, features (n, channels), and labels and split where a table has them, which
    `jaxprot transfer` reads. Proteins that cannot be used (letters that stand for no residue, too many residues, a
    structure or an embedding of another length) are left out as a whole and listed at the end, with exit code 1.
    """
    import numpy as np

    from jaxprot.io.obo import read_obo
    from jaxprot.io.outputs import RunDirectory, atomic_path
    from jaxprot.massa.data import read_all
    from jaxprot.massa.records import Protein

    if not options.inputs:
        raise InputError("no input; give files or a folder (--help shows how)")
    begin = time.perf_counter()
    run = RunDirectory(options.output, options.overwrite)
    proteins: list[Protein] = []
    more: dict[str, Any] = {}
    failed: dict[str, str] = {}
    tables = [path for path in options.inputs if path.name.endswith((".csv", ".csv.gz"))]
    if tables and len(options.inputs) > 1:
        raise InputError(f"{tables[0]}: a table is embedded by itself, as its labels go with its rows")
    if tables:
        proteins, more = _table(tables[0])
    else:
        folder = None if options.structures is None else str(options.structures)
        proteins = read_all(tuple(map(str, options.inputs)), folder, failed)
    if not proteins:
        raise InputError("\n".join(failed.values()))
    predictor, weights = load(options, "massa")
    embedder = embedder_of(options.embedder, predictor.config.seq_dim)
    ontology = None if options.obo is None else read_obo(options.obo)
    if ontology is not None:
        _tell_terms(proteins, ontology)
        if "go" in predictor.untrained:
            print(
                "jaxprot: warning: these weights have never seen GO terms: they are left out, as random layers would "
                "move proteins that have some away from those that have none",
                file=sys.stderr,
            )
            ontology = None
    names = _apart([protein.name for protein in proteins])
    vectors, residues, kept, annotated = [], {}, [], 0
    timings = {"read": time.perf_counter() - begin}
    begin = time.perf_counter()
    with progress(len(proteins), "proteins") as advance:
        for start in range(0, len(proteins), _AT_ONCE):
            rows = list(range(start, min(start + _AT_ONCE, len(proteins))))
            used = _records(proteins, names, rows, embedder, predictor.config, ontology, options.long, failed)
            annotated += sum(one.go is not None for one in used.values())
            for row, found in zip(used, predictor.embed(list(used.values()), long=options.long), strict=True):
                kept.append(row)
                vectors.append(found.vector)
                if options.residues:
                    residues[names[row]] = found.residues
                advance()
    if not kept:
        raise InputError("\n".join(failed.values()))
    more = {name: values[kept] for name, values in more.items()}
    timings["compute"] = time.perf_counter() - begin
    directory = run.folder()
    with atomic_path(directory / "embeddings.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, names=np.array(names)[kept], features=np.stack(vectors), **more)
    if options.residues:
        _write_arrays(residues, directory / "residues.npz")
    record(options, directory, "massa embed", inputs=input_files(options.inputs), weights=weights, timings=timings,
           failed=failed)  # fmt: skip
    built = sum(proteins[row].coords is not None for row in kept)
    print(f"{directory}: {len(vectors)} proteins ({built} with structure, {annotated} with GO terms), "
          f"{len(vectors[0])} channels; embeddings.npz{', residues.npz' if options.residues else ''}")  # fmt: skip
    report_failures(failed, len(kept) + len(failed), "proteins or files")
    return 1 if failed else 0


def _write_arrays(arrays: dict[str, Any], path: Path) -> None:
    """An npz file of arrays of any name; `numpy.savez` takes some names for its own options."""
    import zipfile

    import numpy as np

    from jaxprot.io.outputs import atomic_path

    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def _tell_terms(proteins: list[Any], ontology: Any) -> None:
    """Warns of GO terms that the ontology does not have."""
    terms = {term for one in proteins if one.entry is not None for term in one.entry.go}
    unknown = sorted(terms - {t for t in terms if ontology.alternates.get(t, t) in ontology.names})
    if unknown:
        print(f"jaxprot: warning: {len(unknown)} of {len(terms)} GO terms are not in the ontology and are left out: "
              f"{', '.join(unknown[:3])}{', ...' * (len(unknown) > 3)}", file=sys.stderr)  # fmt: skip


def _records(
    proteins: list[Any],
    names: list[str],
    rows: list[int],
    embedder: Any,
    cfg: Any,
    ontology: Any,
    long: Any,
    failed: dict[str, str],
) -> dict[int, Any]:
    """Inputs of the network by row, without proteins that do not fit; these are found by halving, and noted."""
    from jaxprot.massa.featurize import check
    from jaxprot.massa.records import to_records

    try:
        records = to_records([proteins[row] for row in rows], embedder, ontology=ontology, go_dim=cfg.go_dim)
    except InputError as error:
        if len(rows) == 1:
            failed[names[rows[0]]] = str(error)
            return {}
        parts = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        first, second = (_records(proteins, names, part, embedder, cfg, ontology, long, failed) for part in parts)
        return first | second
    out = {}
    for row, one in zip(rows, records, strict=True):
        try:
            check(one, cfg, long)
        except InputError as error:
            failed[names[row]] = str(error)
        else:
            out[row] = one
    return out


def input_files(inputs: tuple[Path, ...]) -> list[Path]:
    """The files of files and folders."""
    return [file for path in inputs for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]


def _table(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Rows of a table as proteins, and its labels."""
    import numpy as np

    from jaxprot.massa.data import read_all
    from jaxprot.massa.records import Protein
    from jaxprot.massa.tasks.tables import read_task

    try:
        table = read_task(path, trained=False)
    except InputError as error:
        if "no column label" not in str(error):
            raise
        return read_all((str(path),)), {}
    if table.unlabelled:
        print(f"jaxprot: warning: {path}: {table.unlabelled} rows without a label are left out; without the column "
              "label all rows are embedded", file=sys.stderr)  # fmt: skip
    proteins = [Protein(name, sequence) for name, sequence in zip(table.names, table.sequences, strict=True)]
    if table.kind == "residue_classes":
        return proteins, {"split": table.split}
    labels = np.asarray(table.labels)
    return proteins, {"labels": np.array(table.class_names)[labels] if table.class_names else labels,
                      "split": table.split}  # fmt: skip


def _apart(names: list[str]) -> list[str]:
    """Names that occur twice get numbers that no other name has."""
    taken = set(names)
    seen: dict[str, int] = {}
    out = []
    for name in names:
        number = seen.get(name, 0) + 1
        while number > 1 and f"{name}-{number}" in taken:
            number += 1
        seen[name] = number
        out.append(name if number == 1 else f"{name}-{number}")
        taken.add(out[-1])
    return out


def embedder_of(name: str, channels: int) -> Any:
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

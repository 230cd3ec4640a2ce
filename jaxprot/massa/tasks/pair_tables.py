"""Tables of pairs: a protein and a small molecule, or two proteins, with a label.

Measurements of kinases: M. I. Davis et al., Nat. Biotechnol. 2011, doi 10.1038/nbt.1990, in the folds of H. Öztürk et
al., Bioinformatics 2018, doi 10.1093/bioinformatics/bty593.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.massa.embedders import check_letters
from jaxprot.massa.ligand import Ligand, from_smiles
from jaxprot.massa.tasks.tables import (
    is_count,
    is_number,
    labelled,
    mostly_numbers,
    parse_labels,
    parse_parts,
    read_texts,
)

PairKind = Literal["classes", "regression"]
Partner = Literal["smiles", "sequence2"]
BENCHMARKS: dict[str, PairKind] = {"kinase": "classes", "davis": "regression"}
"""Benchmarks: whether a kinase binds an inhibitor, and how strongly (pKd), both of the tables of Davis et al."""
DAVIS = ("davis_affinity.csv.gz", "davis_ligands.csv.gz", "davis_proteins.csv.gz")
"""Their files."""
ACTIVE = 7.0
"""pKd from which a pair counts as active."""
_FOLDS = 5
_CLASSES = 20  # whole numbers below are classes, unless the caller says otherwise


class PairTable(NamedTuple):
    """A task's pairs.

    Attributes:
      name: of the task.
      kind: of the labels.
      partner: the column of the partners.
      classes: number of them; 0 for regression.
      sequences: letters of the (first) protein in upper case.
      partners: SMILES strings, or letters of the second protein.
      labels: (n,) float64 or int.
      split: (n,) `train`, `valid` or `test`.
      class_names: texts of the classes, if the table has texts.
      ligands: features of each molecule by its SMILES string.
    """

    name: str
    kind: PairKind
    partner: Partner
    classes: int
    sequences: list[str]
    partners: list[str]
    labels: np.ndarray
    split: np.ndarray
    class_names: tuple[str, ...] = ()
    ligands: dict[str, Ligand] = {}  # noqa: RUF012 (never changed)

    @property
    def monitor(self) -> str:
        """The figure that tells most: of numbers and of two classes one that rests on their order."""
        if self.kind == "regression":
            return "pearson"
        return "roc_auc" if self.classes == 2 else "accuracy"

    def part(self, name: str) -> np.ndarray:
        """Rows of a split."""
        return np.flatnonzero(self.split == name)


def is_pairs(source: str | os.PathLike) -> bool:
    """Whether a task's name, or the columns of a table, are those of pairs; False where nothing can be read."""
    import pandas as pd

    if os.fspath(source) in BENCHMARKS:
        return True
    try:
        names = {str(name).strip() for name in pd.read_csv(source, dtype=str, nrows=0)}
    except (ValueError, OSError, EOFError, zlib.error):
        return False
    return bool(names & {"smiles", "sequence2"})


def read_pairs(
    source: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    kind: PairKind | None = None,
    fold: int = 0,
) -> PairTable:
    """Reads a benchmark or a table of pairs.

    A table has the columns `sequence`, `label`, and `smiles` or `sequence2`. Rows without a label are left out. Without
    a column `split`, a tenth of the rows is for validation and a tenth for testing, drawn by a hash of both partners:
    one pair is always in one part, its protein may be in several. What is wrong with a row is an error that names its
    line, so rows never shift against each other.

    Args:
      source: `kinase`, `davis`, or a `.csv` file (`.gz` too).
      folder: of the benchmarks' tables; the environment variable `JAXPROT_TASKS` by default.
      kind: of the labels; by default texts, and whole numbers below 20 of a protein and a molecule, are classes, and
        all else is regression.
      fold: of the benchmarks' five, the one for validation.

    Raises:
      InputError: no such file, columns missing, letters that stand for no residue, strings that are no molecules, RDKit
        missing, labels that cannot be read, no training rows, or one label only.
    """
    if os.fspath(source) in BENCHMARKS:
        base = folder or os.environ.get("JAXPROT_TASKS")
        if base is None:
            raise InputError(f"task {source}: name the folder with {DAVIS[0]} by JAXPROT_TASKS")
        return read_davis(base, "active" if BENCHMARKS[os.fspath(source)] == "classes" else "pkd", fold)
    path = Path(source)
    frame, lines = _frame(path, ("sequence", "label"))
    found: list[Partner] = [name for name in ("smiles", "sequence2") if name in frame]  # type: ignore[misc]
    if len(found) != 1:
        told = "both smiles and sequence2; remove one of them" if found else "no column smiles or sequence2"
        raise InputError(f"{path}: {told}")
    partner = found[0]
    kept = labelled(frame, kind)
    frame, lines = frame[kept], lines[kept]
    if not len(frame):
        raise InputError(f"{path}: no row has a label")
    sequences = _checked(frame.sequence, lines, lambda text, at: check_letters(text, at), path)
    ligands: dict[str, Ligand] = {}
    if partner == "smiles":
        partners = list(frame.smiles)
        ligands = _molecules(path, partners, lines)
    else:
        partners = _checked(frame.sequence2, lines, lambda text, at: check_letters(text, f"{at}, sequence2"), path)
    both = ["\n".join(sorted(pair)) for pair in zip(sequences, partners, strict=True)]
    split = parse_parts(path, frame["split"].to_numpy(str) if "split" in frame else None, both, lines)
    texts = list(frame.label)
    if kind is None:
        whole = all(is_count(text) and int(text) < _CLASSES for text in texts) and partner == "smiles"
        kind = "regression" if mostly_numbers(texts) and not whole else "classes"
    if kind == "classes" and partner == "sequence2":
        bad = next((line for line, text in zip(lines, texts, strict=True) if not is_number(text)), lines[0])
        raise InputError(
            f"{path}, line {bad}: classes of two proteins; their labels are to be numbers (types of interactions are "
            "for `jaxprot massa interactions`)"
        )
    labels, classes, names = parse_labels(path, kind, texts, sequences, lines, 0)
    name = path.name.partition(".")[0]
    return _usable(
        path, PairTable(name, kind, partner, classes, sequences, partners, labels, split, names, ligands)
    )  # fmt: skip


def read_davis(folder: str | os.PathLike, label: Literal["active", "pkd"] = "active", fold: int = 0) -> PairTable:
    """Kinases and inhibitors of Davis et al., from three tables that are joined by their identifiers.

    Args:
      folder: with `davis_affinity.csv.gz` (ligand_id, protein_id, pkd, split), `davis_ligands.csv.gz` (ligand_id,
        smiles) and `davis_proteins.csv.gz` (protein_id, sequence).
      label: `active`, whether pKd is at least 7, or `pkd` itself.
      fold: the one of the five training folds that is for validation.

    Raises:
      InputError: as of `read_pairs`; an identifier that is in no table, or twice in one.
      ValueError: no such fold.
    """
    if not 0 <= fold < _FOLDS:
        raise ValueError(f"fold {fold}: give one from 0 to {_FOLDS - 1}")
    paths = [Path(folder) / name for name in DAVIS]
    pairs, lines = _frame(paths[0], ("ligand_id", "protein_id", "pkd", "split"))
    molecules, molecule_lines = _frame(paths[1], ("ligand_id", "smiles"))
    proteins, protein_lines = _frame(paths[2], ("protein_id", "sequence"))
    letters = _checked(proteins.sequence, protein_lines, lambda text, at: check_letters(text, at), paths[2])
    ligands = _molecules(paths[1], list(molecules.smiles), molecule_lines)
    of_protein = _unique(paths[2], list(proteins.protein_id), letters, protein_lines)
    of_ligand = _unique(paths[1], list(molecules.ligand_id), list(molecules.smiles), molecule_lines)
    sequences = _joined(paths[0], "protein", list(pairs.protein_id), of_protein, lines, paths[2])
    partners = _joined(paths[0], "ligand", list(pairs.ligand_id), of_ligand, lines, paths[1])
    values, _, _ = parse_labels(paths[0], "regression", list(pairs.pkd), sequences, lines, 0)
    known = {"test": "test", **{f"train_fold{i}": "valid" if i == fold else "train" for i in range(_FOLDS)}}
    wrong = [i for i, part in enumerate(pairs.split) if part not in known]
    if wrong:
        raise InputError(f"{paths[0]}, line {lines[wrong[0]]}: part {pairs.split.iloc[wrong[0]]!r}; known: {[*known]}")
    split = np.array([known[part] for part in pairs.split])
    if label == "pkd":
        table = PairTable("davis", "regression", "smiles", 0, sequences, partners, values, split)
    else:
        names = ("inactive", "active")
        labels = (values >= ACTIVE).astype(np.int64)
        table = PairTable("kinase", "classes", "smiles", 2, sequences, partners, labels, split, names)
    return _usable(paths[0], table._replace(ligands=ligands))


def read_columns(path: str | os.PathLike, names: Sequence[str]) -> dict[str, list[str]]:
    """Texts of columns of a table, such as pairs that are asked about.

    Raises:
      InputError: no such file, no such columns, or no rows.
    """
    frame, _ = _frame(Path(path), names)
    return {name: list(frame[name]) for name in names}


def _frame(path: Path, needed: Sequence[str]) -> tuple[Any, np.ndarray]:
    """A table of texts, and the line of each row."""
    frame = read_texts(path, needed, f"; tasks of pairs by name are {', '.join(BENCHMARKS)}")
    if not len(frame):
        raise InputError(f"{path}: no rows")
    return frame, np.arange(len(frame)) + 2


def _checked(texts: Any, lines: np.ndarray, check: Callable[[str, str], str], path: Path) -> list[str]:
    """Each different text is looked at once: tables of pairs repeat them many times."""
    known: dict[str, str] = {}
    for text, line in zip(texts, lines, strict=True):
        if text not in known:
            known[text] = check(text, f"{path}, line {line}")
    return [known[text] for text in texts]


def _molecules(path: Path, texts: Sequence[str], lines: np.ndarray) -> dict[str, Ligand]:
    """Features of each different molecule, without the axis of molecules."""
    out: dict[str, Ligand] = {}
    for text, line in zip(texts, lines, strict=True):
        if text not in out:
            out[text] = molecule(text, f"{path}, line {line}")
    return out


def molecule(text: str, at: str) -> Ligand:
    """Features of a molecule, without the axis of molecules.

    Args:
      text: SMILES.
      at: its place, for messages.

    Raises:
      InputError: no such molecule, or RDKit missing.
    """
    try:
        return Ligand(*(x[0] for x in from_smiles([text])))
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            raise InputError('small molecules need RDKit: pip install "jaxprot[ligands]"') from error
        raise InputError(f"{at}: {str(error).removeprefix('molecule 0: ')}") from error


def _unique(path: Path, names: list[str], values: list[str], lines: np.ndarray) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value, line in zip(names, values, lines, strict=True):
        if name in out:
            raise InputError(f"{path}, line {line}: {name!r} occurs a second time; keep one row of it")
        out[name] = value
    return out


def _joined(path: Path, what: str, names: list[str], of: dict[str, str], lines: np.ndarray, there: Path) -> list[str]:
    for name, line in zip(names, lines, strict=True):
        if name not in of:
            raise InputError(f"{path}, line {line}: {what} {name!r} is not in {there.name}; add it, or remove the row")
    return [of[name] for name in names]


def _usable(path: Path, table: PairTable) -> PairTable:
    train = table.part("train")
    if not len(train):
        raise InputError(f"{path}: no row of the part 'train'")
    if len(np.unique(table.labels[train])) < 2:
        raise InputError(f"{path}: all training labels are the same; nothing can be learned")
    return table

"""Labelled sequences of a task, from the tables of public benchmarks or a user's own.

A table has the columns `sequence` and `label`, and `split` (train, valid, test) unless it is all of one part. Labels
are numbers (regression), classes, or for residue tasks a text with one character for each residue.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.massa.embedders import check_letters

Kind = Literal["regression", "classes", "residue_classes"]
Metric = Literal["spearman", "accuracy"]
IGNORE = -100
"""Label of a residue that does not count."""
SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Attributes:
      file: of its table.
      kind: of its labels.
      classes: number of them; 0 for regression.
      split: column of the parts.
      source: what to cite.
    """

    file: str
    kind: Kind
    classes: int = 0
    split: str = "split"
    source: str = ""


_TAPE = "TAPE, arXiv 1906.08230"
BENCHMARKS = {
    "stability": Benchmark("stability.csv.gz", "regression", source=f"{_TAPE}; doi 10.1126/science.aan0693"),
    "fluorescence": Benchmark(
        "fluorescence_subset.csv.gz", "regression", source=f"part of {_TAPE}; doi 10.1038/nature17995"
    ),
    "remote_homology": Benchmark("remote_homology.csv.gz", "classes", 1195, source=_TAPE),
    "secondary_structure": Benchmark(
        "secondary_structure_subset.csv.gz", "residue_classes", 3, source=f"part of {_TAPE}"
    ),
    "enzyme_class": Benchmark("enzyme_class.csv.gz", "classes", 7, source="doi 10.1038/s41467-021-23303-9"),
    "gb1": Benchmark("gb1.csv.gz", "regression", split="split_two_vs_rest", source="FLIP; doi 10.7554/eLife.16965"),
}  # fmt: skip


class Table(NamedTuple):
    """A task's proteins.

    Attributes:
      name: of the task.
      kind: of its labels.
      classes: number of them; 0 for regression.
      sequences: letters in upper case.
      labels: (n,) float64 or int; for residue tasks a list of (L,) int arrays, `IGNORE` where nothing is to be told.
      split: (n,) `train`, `valid` or `test`.
      class_names: texts of the classes, if the table has texts.
    """

    name: str
    kind: Kind
    classes: int
    sequences: list[str]
    labels: np.ndarray | list[np.ndarray]
    split: np.ndarray
    class_names: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        """Rank correlation for numbers, the share of right answers for classes."""
        return "spearman" if self.kind == "regression" else "accuracy"

    def part(self, name: str) -> np.ndarray:
        """Rows of a split."""
        return np.flatnonzero(self.split == name)

    def take(self, rows: np.ndarray) -> Table:
        """Some rows."""
        labels = [self.labels[i] for i in rows] if isinstance(self.labels, list) else self.labels[rows]
        return self._replace(sequences=[self.sequences[i] for i in rows], labels=labels, split=self.split[rows])


def read_texts(path: Path, needed: Sequence[str], hint: str = "") -> Any:
    """A table of texts without spaces around them, as a data frame.

    Args:
      path: `.csv` file, packed or not.
      needed: columns that it must have.
      hint: what the message of a missing file ends in.

    Raises:
      InputError: missing, damaged, or without a column.
    """
    import pandas as pd

    if not path.is_file():
        raise InputError(f"{path}: no such file{hint}")
    try:
        # Only \n ends a line: a stray \r within a cell would cut it in two. The \r of Windows is stripped below.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, lineterminator="\n")
    except (ValueError, OSError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: no table: {error}") from error
    frame.columns = [str(name).strip() for name in frame]
    if missing := [name for name in needed if name not in frame]:
        raise InputError(f"{path}: no column {' or '.join(missing)}; it has {', '.join(frame)}")
    return frame.apply(lambda values: values.str.strip())


def read_task(source: str | os.PathLike, folder: str | os.PathLike | None = None, kind: Kind | None = None) -> Table:
    """Reads a benchmark or a table.

    Rows without a label are left out. Without a column `split`, a tenth of the rows is for validation and a tenth for
    testing, drawn by a hash of the sequence, so that one sequence is always in one part.

    Args:
      source: name of a benchmark, or a `.csv` file (`.gz` too).
      folder: of the benchmarks' tables; the environment variable `JAXPROT_TASKS` by default.
      kind: of the labels; by default numbers with a point, or more than 1000 different ones, are regression, whole
        numbers and texts are classes, and texts as long as their sequence are residue classes.

    Raises:
      InputError: no such task, columns missing, letters that stand for no residue, labels that cannot be read or do not
        fit (with the line), no training rows, or one class only.
    """
    known = BENCHMARKS.get(os.fspath(source))
    if known is not None:
        base = folder or os.environ.get("JAXPROT_TASKS")
        if base is None:
            raise InputError(f"task {source}: name the folder with {known.file} by JAXPROT_TASKS")
        path, name, column, kind = Path(base) / known.file, str(source), known.split, known.kind
    else:
        path, column = Path(source), "split"
        name = path.name.partition(".")[0]
    hint = "" if known else f"; tasks by name are {', '.join(BENCHMARKS)}"
    frame = read_texts(path, ("sequence", "label"), hint)
    kept = ~frame.label.str.lower().isin(("", "nan")).to_numpy()
    lines = np.flatnonzero(kept) + 2
    frame = frame[kept]
    if not len(frame):
        raise InputError(f"{path}: no row has a label")
    sequences = [check_letters(s, f"{path}, line {line}") for s, line in zip(frame.sequence, lines, strict=True)]
    texts = list(frame.label)
    split = parse_parts(path, frame[column].to_numpy(str) if column in frame else None, sequences, lines)
    kind = kind or _kind(sequences, texts)
    labels, classes, names = parse_labels(path, kind, texts, sequences, lines, known.classes if known else 0)
    table = Table(name, kind, classes, sequences, labels, split, names)
    if not len(table.part("train")):
        raise InputError(f"{path}: no row of the part 'train'")
    trained = table.take(table.part("train")).labels
    values = np.concatenate(trained) if isinstance(trained, list) else trained
    if len(np.unique(values[values != IGNORE] if kind != "regression" else values)) < 2:
        raise InputError(f"{path}: all training labels are the same; nothing can be learned")
    return table


def _kind(sequences: list[str], texts: list[str]) -> Kind:
    if any("." in text for text in texts) and all(map(is_number, texts)):
        return "regression"
    if any(len(t) > 1 for t in texts) and all(len(t) == len(s) for s, t in zip(sequences, texts, strict=True)):
        return "residue_classes"
    if not all(map(is_number, texts)):
        return "classes"
    whole = all(text.lstrip("-").isdigit() for text in texts)
    return "classes" if whole and len(set(texts)) <= 1000 else "regression"


def parse_labels(
    path: Path, kind: Kind, texts: Sequence[str], sequences: Sequence[str], lines: np.ndarray, classes: int
) -> tuple[Any, int, tuple[str, ...]]:
    """Labels, number of classes, and their names.

    Args:
      path: of the table, for messages.
      kind: of the labels.
      texts: of the labels.
      sequences: that residue labels are as long as.
      lines: of the rows in the file.
      classes: number that a benchmark has; 0 where the labels tell.

    Raises:
      InputError: a label that cannot be read or does not fit, with its line.
    """
    if kind == "regression":
        try:
            values = np.array(texts, np.float64)
            bad = np.flatnonzero(~np.isfinite(values))
        except ValueError:
            bad = np.array([i for i, text in enumerate(texts) if not is_number(text)])
        if len(bad):
            raise InputError(f"{path}, line {lines[bad[0]]}: label {texts[bad[0]]!r} is no finite number")
        return values, 0, ()
    if kind == "residue_classes":
        wrong = [i for i, (s, t) in enumerate(zip(sequences, texts, strict=True)) if len(s) != len(t)]
        if wrong:
            i = wrong[0]
            raise InputError(f"{path}, line {lines[i]}: {len(texts[i])} labels for {len(sequences[i])} residues")
        letters = sorted(set("".join(texts)) - set("-._ "))
        if all(letter.isdigit() for letter in letters):
            names = tuple(map(str, range(max(classes, int(letters[-1]) + 1 if letters else 0))))
        else:
            names = tuple(letters)
        table = np.full(256, IGNORE, np.int32)
        for number, letter in enumerate(names):
            table[ord(letter)] = number
        return [table[np.frombuffer(text.encode("latin-1"), np.uint8)] for text in texts], len(names), names
    if all(text.isdigit() for text in texts):
        values = np.array(texts, np.int64)
        count = max(classes, int(values.max()) + 1)
        if classes and count > classes:
            raise InputError(f"{path}: label {values.max()}, expected 0 to {classes - 1}")
        return values, count, ()
    names = tuple(sorted(set(texts)))
    number = {text: i for i, text in enumerate(names)}
    return np.array([number[text] for text in texts]), len(names), names


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def parse_parts(path: Path, given: np.ndarray | None, sequences: Sequence[str], lines: np.ndarray) -> np.ndarray:
    """(n,) `train`, `valid` or `test`, from a table's own texts, or by a hash of the sequences where it has none.

    Raises:
      InputError: a text that is no part, with its line.
    """
    if given is None:
        tenth = np.array([zlib.crc32(sequence.encode()) % 10 for sequence in sequences])
        return np.array(SPLITS)[np.where(tenth == 0, 2, np.where(tenth == 1, 1, 0))]
    known = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid", "testing": "test"}
    found = np.array([known.get(text.lower(), text.lower()) for text in given])
    wrong = np.flatnonzero(~np.isin(found, SPLITS))
    if len(wrong):
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: part {str(given[wrong[0]])!r}; known are {', '.join(SPLITS)}"
        )
    return found

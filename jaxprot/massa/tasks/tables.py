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
_COUNTED, _OTHERS = 1000, 20  # whole numbers that are taken for classes: those from 0 or 1 on, or so few others

_LARGEST = 1e15  # of labels; much larger ones have no squares in single precision


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
      class_names: texts of the classes, if the table has texts, or whole numbers that do not count from 0.
      names: of the rows: the column `name` or `id`, or the number of the line.
      unlabelled: rows that were left out, as they have no label.
    """

    name: str
    kind: Kind
    classes: int
    sequences: list[str]
    labels: np.ndarray | list[np.ndarray]
    split: np.ndarray
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    unlabelled: int = 0

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
        names = tuple(self.names[i] for i in rows) if self.names else ()
        return self._replace(
            sequences=[self.sequences[i] for i in rows], labels=labels, split=self.split[rows], names=names
        )


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


def row_names(path: Path, frame: Any, lines: np.ndarray) -> tuple[str, ...]:
    """Names of rows: those of the column `name` or `id`, and where there is none the file and the line.

    Args:
      path: of the table.
      frame: of `read_texts`.
      lines: of the rows in the file.
    """
    column = next((name for name in ("name", "id") if name in frame), None)
    stem = path.name.partition(".")[0]
    given = [""] * len(frame) if column is None else list(frame[column])
    return tuple(name or f"{stem}_line{line}" for name, line in zip(given, lines, strict=True))


def labelled(frame: Any, kind: str | None) -> np.ndarray:
    """Which rows have a label: empty cells and `nan` are none, nor are `NA` and its like among numbers.

    Args:
      frame: of `read_texts`.
      kind: of the labels; None where they are to tell.
    """
    texts = frame.label.str.lower()
    kept = ~texts.isin(("", "nan")).to_numpy()
    absent = texts.isin(("na", "n/a", "<na>", "null", "none")).to_numpy()
    if kind in (None, "regression") and mostly_numbers(list(frame.label[kept & ~absent])):
        kept &= ~absent
    return kept


def mostly_numbers(texts: Sequence[str]) -> bool:
    """Whether most labels are numbers, so that one that is none is a mistake and no class."""
    return 2 * sum(map(is_number, texts)) > len(texts)


def read_task(
    source: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    kind: Kind | None = None,
    trained: bool = True,
) -> Table:
    """Reads a benchmark or a table.

    Rows without a label (an empty cell; among numbers also `NA`) are left out. Without a column `split`, a tenth of the
    rows is for validation and a tenth for testing, drawn by a hash of the sequence, so that one sequence is always in
    one part.

    Args:
      source: name of a benchmark, or a `.csv` file (`.gz` too).
      folder: of the benchmarks' tables; the environment variable `JAXPROT_TASKS` by default.
      kind: of the labels; by default texts as long as their sequence are classes of residues, other texts and whole
        numbers (up to 1000 that begin with 0 or 1, or 20 others) classes, and all else is regression. Where most
        labels are of one kind, one that is not is an error.
      trained: whether the task is to be learned, which takes training rows of more than one label.

    Raises:
      InputError: no such task, columns missing, letters that stand for no residue, labels that cannot be read or do not
        fit (with the line), or nothing that can be learned.
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
    kept = labelled(frame, kind)
    lines = np.flatnonzero(kept) + 2
    frame = frame[kept]
    if not len(frame):
        raise InputError(f"{path}: no row has a label")
    sequences = [check_letters(s, f"{path}, line {line}") for s, line in zip(frame.sequence, lines, strict=True)]
    texts = list(frame.label)
    split = parse_parts(path, frame[column].to_numpy(str) if column in frame else None, sequences, lines)
    kind = kind or _kind(path, sequences, texts, lines)
    labels, classes, names = parse_labels(path, kind, texts, sequences, lines, known.classes if known else 0)
    rows = row_names(path, frame, lines)
    table = Table(name, kind, classes, sequences, labels, split, names, rows, int((~kept).sum()))
    if not trained:
        return table
    if not len(table.part("train")):
        raise InputError(f"{path}: no row of the part 'train'")
    shown = table.take(table.part("train")).labels
    values = np.concatenate(shown) if isinstance(shown, list) else shown
    if len(np.unique(values[values != IGNORE] if kind != "regression" else values)) < 2:
        raise InputError(f"{path}: all training labels are the same; nothing can be learned")
    return table


def _kind(path: Path, sequences: list[str], texts: list[str], lines: np.ndarray) -> Kind:
    fitting = sum(len(t) == len(s) > 1 for s, t in zip(sequences, texts, strict=True))
    points = any("." in text for text in texts) and mostly_numbers(texts)
    if 2 * fitting > len(texts) and not points:
        return "residue_classes"
    if not mostly_numbers(texts):
        return "classes"
    wrong = [i for i, text in enumerate(texts) if not is_number(text)]
    if wrong:
        i = wrong[0]
        raise InputError(
            f"{path}, line {lines[i]}: label {texts[i]!r} is no number, as most are; mend it, empty the cell, or say "
            "that the labels are classes (--kind classes)"
        )
    if not all(is_count(text.removeprefix("-")) for text in texts):
        return "regression"
    values = {int(text) for text in texts}
    counted = min(values) in (0, 1) and max(values) < _COUNTED
    return "classes" if counted or len(values) <= _OTHERS else "regression"


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
        if len(far := np.flatnonzero(np.abs(values) > _LARGEST)):
            raise InputError(
                f"{path}, line {lines[far[0]]}: label {texts[far[0]]} is beyond {_LARGEST:.0e}; give labels in another "
                "unit, or their logarithms"
            )
        return values, 0, ()
    if kind == "residue_classes":
        wrong = [i for i, (s, t) in enumerate(zip(sequences, texts, strict=True)) if len(s) != len(t)]
        if wrong:
            i = wrong[0]
            raise InputError(f"{path}, line {lines[i]}: {len(texts[i])} labels for {len(sequences[i])} residues")
        letters = sorted(set("".join(texts)) - set("-._ "))
        if all(map(is_count, letters)):
            names = tuple(map(str, range(max(classes, int(letters[-1]) + 1 if letters else 0))))
        else:
            names = tuple(letters)
        number = {letter: i for i, letter in enumerate(names)}
        read = [np.array([number.get(letter, IGNORE) for letter in text], np.int32) for text in texts]
        return read, len(names), names
    if all(map(is_count, texts)):
        values = np.array([int(text) for text in texts])
        known, numbers = np.unique(values, return_inverse=True)
        if not classes and len(known) <= known[-1]:  # identifiers, not counted from 0
            return numbers, len(known), tuple(map(str, known))
        count = max(classes, int(values.max()) + 1)
        if classes and count > classes:
            raise InputError(f"{path}: label {values.max()}, expected 0 to {classes - 1}")
        return values, count, ()
    names = tuple(sorted(set(texts)))
    number = {text: i for i, text in enumerate(names)}
    return np.array([number[text] for text in texts]), len(names), names


def class_text(kind: Kind, names: Sequence[str], value: Any) -> Any:
    """How tables tell a label: a number, the text of a class, or a text of one letter for each residue.

    Args:
      kind: of the labels.
      names: of the classes; empty where they are numbers.
      value: number, class or (L,) classes of residues, where `IGNORE` becomes `-`.
    """
    if kind == "regression":
        return value
    if kind == "classes":
        return names[value] if names else value
    return "".join("-" if one == IGNORE else names[one] if names else str(one) for one in value)


def is_count(text: str) -> bool:
    """Whether a text is a whole number from 0 on, in plain digits."""
    return text.isascii() and text.isdigit()


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

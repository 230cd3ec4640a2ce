"""A task as transport sees it: features of its samples, and their labels."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.io.tables import TEXT_COLUMNS, read_table

_log = logging.getLogger(__name__)
Kind = Literal["classes", "numbers"]
Preprocess = Literal["none", "centre", "zscore", "pca"]
_LABEL_COLUMNS = ("label", "labels", "target", "targets", "y")
_TEXT = TEXT_COLUMNS | {"id", "name", "sequence"}
# What pandas calls an index that it writes without a name, or reads back.
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
_SUFFIXES = (".npz", ".csv", ".tsv", ".txt", ".parquet", ".json")
# Of at most so many values, classes and quantile bins are much the same.
_FEW = 10


@dataclasses.dataclass(frozen=True)
class Task:
    """Features and labels of a data set.

    Attributes:
      name: for tables and pictures.
      features: (n, d) numbers.
      labels: (n,) classes (integers or text) or numbers; (n, k) for several labels, of which the largest column (the
        top class) counts; None where there are none.
      kind: whether labels are classes or numbers. By default numbers if any has a fraction, or if they are whole but of
        a type with fractions and take more values than 10 and than a tenth of the samples.
      features_from: source task -> (n, d') features of these same samples by a model trained on that source.
      probabilities_from: source task -> (n, classes of the source) what that model says of these samples.
      file: where the task was read from, for messages.

    Raises:
      InputError: features or labels that are missing, not finite, or do not belong together; all with the name.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray | None = None
    kind: Kind | None = None
    features_from: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    probabilities_from: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    file: Path | None = None

    def __post_init__(self):
        object.__setattr__(self, "features", _features(self.features, self.name))
        n = len(self.features)
        if self.labels is not None:
            labels = _labels(self.labels, n, self.name)
            object.__setattr__(self, "labels", labels)
            if self.kind is None:
                object.__setattr__(self, "kind", _kind(labels))
            if self.kind == "numbers" and labels.dtype.kind not in "fiu":
                raise InputError(f"{self.name}: labels are text, not numbers; leave out the kind, or say classes")
        for what, of in (("features", self.features_from), ("probabilities", self.probabilities_from)):
            for source, array in of.items():
                if len(_features(array, f"{self.name}, {what} from {source}")) != n:
                    raise InputError(f"{self.name}: {what} from {source} of {len(array)} samples, expected {n}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def told(self) -> str:
        """Name and file, for messages."""
        return self.name if self.file is None else f"{self.name} ({self.file})"

    @property
    def varied(self) -> bool:
        """Whether there are labels, and not all are equal."""
        return self.labels is not None and bool((self.labels != self.labels[0]).any())

    def classes(self, bins: int = 10) -> tuple[np.ndarray, list[str]]:
        """Class number of each sample, and names.

        Numbers are put into quantile bins. A value that fills a bin or more (the zeros of many counts) is a bin of its
        own.

        Raises:
          InputError: no labels, or one class only.
        """
        if self.labels is None:
            raise InputError(f"{self.told}: no labels; add them, or compare features alone (method features)")
        if self.kind == "numbers":
            codes, names = _binned(np.asarray(self.labels, np.float64), bins)
        else:
            found, codes = np.unique(self.labels, return_inverse=True)
            names = [str(value) for value in found]
        if len(names) < 2:
            raise InputError(
                f"{self.told}: one class only ({names[0]}) in {len(self)} samples; a task has at least two, or compare "
                "features alone (method features)"
            )
        return codes.reshape(-1), names

    def take(self, rows: np.ndarray) -> Task:
        """The task with some of its samples, each with all that belongs to it."""
        return Task(
            self.name,
            self.features[rows],
            None if self.labels is None else self.labels[rows],
            self.kind,
            {source: np.asarray(array)[rows] for source, array in self.features_from.items()},
            {source: np.asarray(array)[rows] for source, array in self.probabilities_from.items()},
            self.file,
        )

    def sample(self, count: int, seed: int = 0) -> Task:
        """At most `count` samples, drawn without replacement; tasks of one size draw the same rows."""
        if count < 2:
            raise InputError(f"{count} samples of a task are too few; give at least 2")
        if len(self) <= count:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)))


def _kind(labels: np.ndarray) -> Kind:
    if labels.dtype.kind != "f":
        return "classes"
    found = np.unique(labels)
    whole = bool((found == np.round(found)).all())
    return "classes" if whole and len(found) <= max(_FEW, len(labels) / 10) else "numbers"


def _binned(values: np.ndarray, bins: int) -> tuple[np.ndarray, list[str]]:
    edges, often = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)), return_counts=True)
    # A bin goes from a cut up to below the next; what occurs at several edges is cut off on both sides.
    tied = edges[often > 1]
    cuts = np.unique(np.concatenate([edges[1:-1], tied, np.nextafter(tied, np.inf)]))
    used, codes = np.unique(np.searchsorted(cuts, values, side="right"), return_inverse=True)
    codes = codes.reshape(-1)
    ends = [(values[codes == code].min(), values[codes == code].max()) for code in range(len(used))]
    return codes, [f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}" for low, high in ends]


def _features(features: Any, name: str) -> np.ndarray:
    array = np.asarray(features)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: features of type {array.dtype}, expected numbers")
    array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name}: features of shape {array.shape}, expected (samples, columns)")
    if len(array) < 2:
        raise InputError(f"{name}: one sample only; a task needs at least 2")
    wrong = np.flatnonzero(~np.isfinite(array).all(1))
    if len(wrong):
        raise InputError(
            f"{name}: features of {len(wrong)} of {len(array)} samples hold NaN or infinity (the first is sample "
            f"{wrong[0]}); leave out these samples with their labels"
        )
    return array


def _labels(labels: Any, n: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype.kind == "O":
        missing = np.array([value is None or value != value or value == "" for value in array.ravel()], bool)
        if missing.any():
            raise InputError(_missing(name, np.flatnonzero(missing)))
        array = array.astype(str)
    if array.ndim not in (1, 2) or len(array) != n:
        raise InputError(f"{name}: labels of shape {array.shape} for {n} samples; each sample needs one")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(_missing(name, np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(1))))
    if array.dtype.kind == "U" and (array == "").any():
        raise InputError(_missing(name, np.flatnonzero(array == "")))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name}: labels of shape {array.shape} and text; give one column")
        _log.warning("%s: several labels per sample; the top class of each counts", name)
        array = array.argmax(1)
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _missing(name: str, rows: np.ndarray) -> str:
    return f"{name}: {len(rows)} samples without label (the first is sample {rows[0]}); leave them out"


def read_task(
    path: str | os.PathLike, *, name: str | None = None, label: str | None = None, kind: Kind | None = None
) -> Task:
    """Reads a task from a file.

    Args:
      path: `.npz` with `features` (n, d), perhaps `labels` (n,), and of models trained on other tasks
        `features_from/SOURCE` and `probabilities_from/SOURCE`; or a table (`.csv`, `.parquet`, `.json`) whose numeric
        columns are features, but for the label's. Text columns that only name a sample are left out, and so is the
        index that pandas writes as a column without a name, with a warning.
      name: of the task; the file's stem if not given.
      label: array or column of the labels; by default the first of label, labels, target, targets and y.
      kind: see `Task`.

    Raises:
      InputError: no such file, no features, or anything that `Task` refuses; the message names the file.
    """
    path = Path(path)
    name = name or name_of(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.name.lower().removesuffix(".gz").endswith(_SUFFIXES):
        raise InputError(f"{path}: the suffix tells no kind of table; known are {', '.join(_SUFFIXES)}")
    parts = _read_npz(path, label) if path.suffix.lower() == ".npz" else _read_columns(path, label)
    try:
        return Task(name, kind=kind, file=path, **parts)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{name}: ')}") from error


def name_of(path: Path) -> str:
    """What a task is called if its file names it: the file's stem."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _label_of(path: Path, names: Sequence[str], label: str | None) -> str | None:
    if label is None:
        return next((one for one in _LABEL_COLUMNS if one in names), None)
    if label not in names:
        raise InputError(f"{path}: no {label} in it; there are {', '.join(names)}")
    return label


def _read_npz(path: Path, label: str | None) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from error
    if "features" not in arrays:
        raise InputError(f"{path}: no array `features` in it; there are {', '.join(arrays) or 'none'}")
    found = _label_of(path, list(arrays), label)
    out: dict[str, Any] = {"features": arrays["features"], "labels": None if found is None else arrays[found]}
    for what in ("features_from", "probabilities_from"):
        out[what] = {key[len(what) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{what}/")}
    return out


def _read_columns(path: Path, label: str | None) -> dict[str, Any]:
    table = read_table(path)
    found = _label_of(path, list(table), label)
    columns = {key: column for key, column in table.items() if key != found and key not in _TEXT}
    for key in [key for key in columns if _INDEX.fullmatch(key)]:
        column = columns.pop(key)
        _log.warning(
            "%s: the column %s(%s, ...) is taken for an index, not a feature",
            *(path, f"{key} " if key else "without a name ", ", ".join(map(str, column[:3]))),
        )
    text = [key for key, column in columns.items() if column.dtype.kind == "O"]
    if text:
        raise InputError(
            f"{path}: column {', '.join(text[:5])} is not of numbers; features are, and a column that names samples is "
            "called name, id or sequence"
        )
    if not columns:
        raise InputError(f"{path}: no columns of features")
    features = np.stack([np.asarray(column, np.float64) for column in columns.values()], 1)
    return {"features": features, "labels": None if found is None else table[found]}


def joint(tasks: Sequence[Task], preprocess: Preprocess = "none", components: int = 50) -> list[np.ndarray]:
    """Features of several tasks in one space, float64 and around a common origin.

    Args:
      tasks: whose features have equally many columns.
      preprocess: `none`; `centre`, each task around its own mean; `zscore`, every column divided by its deviation over
        all samples; `pca`, the first components of all samples.
      components: of `pca`.

    Raises:
      InputError: features of different widths.
    """
    widths = [task.features.shape[1] for task in tasks]
    if len(set(widths)) > 1:
        told = ", ".join(f"{task.told} {width}" for task, width in zip(tasks, widths, strict=True))
        raise InputError(f"features of different widths ({told}); use one embedder for all tasks")
    if components < 1:
        raise InputError(f"{components} components; give at least 1")
    parts = [np.asarray(task.features, np.float64) for task in tasks]
    if preprocess == "centre":
        return [part - part.mean(0) for part in parts]
    every = np.concatenate(parts)
    centre = every.mean(0)
    parts = [part - centre for part in parts]
    if preprocess == "zscore":
        deviation = every.std(0)
        # A column that never changes says nothing; its rounding errors must not be blown up.
        scale = np.where(deviation > 1e-12 * np.maximum(np.abs(centre), 1e-300), deviation, np.inf)
        return [part / scale for part in parts]
    if preprocess == "pca":
        every = np.concatenate(parts)
        vectors = np.linalg.eigh(every.T @ every)[1][:, ::-1][:, :components]
        return [part @ vectors for part in parts]
    if preprocess != "none":
        raise InputError(f"preprocess {preprocess!r}; it is none, centre, zscore or pca")
    return parts

"""Tables of named columns in and out: csv, parquet, json.

A table is a mapping from column name to values of one length. pandas takes most of a second to import, so nothing here
loads it; a DataFrame is accepted wherever a mapping is.
"""

import csv
import gzip
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.io.outputs import atomic_path, write_json

FORMATS = ("csv", "parquet", "json")

# Columns that stay text even if every cell looks like a number: chain "1", insertion code "", residue "NA".
TEXT_COLUMNS = frozenset(
    f"{name}{suffix}"
    for name in (
        "altloc",
        "chain",
        "chains",
        "element",
        "flag",
        "icode",
        "mut",
        "mutation",
        "name",
        "protein",
        "resname",
        "sequence",
        "structure",
        "wt",
    )
    for suffix in ("", "1", "2")
)


def write_table(table: Any, path: str | os.PathLike, format: str | None = None) -> Path:  # noqa: A002
    """Writes a table atomically.

    Args:
      table: mapping of column name to values of one length, or a pandas DataFrame.
      path: where; a suffix `.csv`, `.parquet` or `.json` is replaced by that of `format`, a missing one is added.
      format: `csv` (the shortest digits that give a number back, missing numbers empty), `parquet`, or `json` (a
        list of rows); by default that of the suffix, else csv.

    Returns:
      The path written.

    Raises:
      InputError: unknown format, columns of different lengths, or parquet without pyarrow.
      OutputError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lstrip(".").lower()
    format = format or (suffix if suffix in FORMATS else "csv")  # noqa: A001
    if format not in FORMATS:
        raise InputError(f"unknown table format {format!r}; one of {', '.join(FORMATS)}")
    path = path.with_suffix(f".{format}") if suffix in FORMATS else path.with_name(f"{path.name}.{format}")
    columns = _columns(table)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: columns of different lengths: {lengths}")
    if format == "csv":
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(_text(values) for values in columns.values()), strict=True))
    elif format == "json":
        values = [values.tolist() for values in columns.values()]
        write_json(path, [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)])
    else:
        pyarrow, parquet = _pyarrow(path)
        arrays = {name: values.tolist() if values.dtype.kind in "OU" else values for name, values in columns.items()}
        with atomic_path(path) as temporary:
            parquet.write_table(pyarrow.table(arrays), temporary)
    return path


def read_table(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a table into columns.

    Args:
      path: `.csv` (also `.tsv`, `.txt` with tabs or semicolons, and `.gz` of them), `.parquet` or `.json` (a list of
        rows).

    Returns:
      Column name -> array: int64 or float64 (empty cells are NaN) where every cell is a number and the column is none
      of `TEXT_COLUMNS`, otherwise text.

    Raises:
      InputError: no such file, not a table, rows of different lengths (all are listed), repeated column names.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            _, parquet = _pyarrow(path)
            table = parquet.read_table(path)
            return {key: _typed(key, table[key].to_pylist()) for key in table.column_names}
        data = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
        text = data.decode("utf-8-sig")
        if name.endswith(".json"):
            rows = json.loads(text)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise InputError(f"{path}: expected a JSON list of rows (objects)")
            keys = list(dict.fromkeys(key for row in rows for key in row))
            return {key: _typed(key, [row.get(key) for row in rows]) for key in keys}
    except InputError:
        raise
    except Exception as error:  # pyarrow, gzip, json and codecs each have errors of their own
        raise InputError(f"{path}: not a readable table ({error})") from error
    return _read_csv(path, text)


def _read_csv(path: Path, text: str) -> dict[str, np.ndarray]:
    head = text.partition("\n")[0]
    delimiter = max(",\t;", key=head.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise InputError(f"{path}: not a readable table ({error})") from error
    if not rows:
        raise InputError(f"{path}: an empty table; the first line must name the columns")
    header = [cell.strip() for cell in rows[0]]
    if "\0" in text or len(set(header)) != len(header):
        raise InputError(f"{path}: not a table with a header line of different column names: {', '.join(header)[:200]}")
    wrong = [(number, len(row)) for number, row in enumerate(rows[1:], 2) if len(row) != len(header)]
    if wrong:
        shown = ", ".join(f"row {number} has {count}" for number, count in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(f"{path}: {len(header)} columns in the header, but {shown}{more}")
    cells = list(zip(*rows[1:], strict=True)) or [()] * len(header)
    return {key: _typed(key, [cell.strip() for cell in column]) for key, column in zip(header, cells, strict=True)}


def _columns(table: Any) -> dict[str, np.ndarray]:
    columns = table if isinstance(table, Mapping) else {name: table[name] for name in table.columns}
    return {str(name): _array(values) for name, values in columns.items()}


def _array(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    values = list(values)
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    array = np.asarray(values)
    return np.array(values, dtype=object) if array.dtype.kind == "U" else array  # a mixture would become text


def _text(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        text = values.astype(str)
        return np.where(missing, "", text).tolist() if missing.any() else text.tolist()
    if values.dtype.kind == "O":
        return ["" if value is None or value != value else str(value) for value in values]  # NaN differs from itself
    return values.astype(str).tolist()


def _typed(name: str, values: list[Any]) -> np.ndarray:
    if name not in TEXT_COLUMNS and values:
        if all(isinstance(value, bool) for value in values):
            return np.array(values)
        filled = [value for value in values if value is not None and value != ""]
        for kind in (int, float):
            try:
                if kind is int and (len(filled) != len(values) or any(isinstance(value, float) for value in filled)):
                    continue
                if not filled:
                    break
                return np.array([np.nan if value is None or value == "" else kind(value) for value in values])
            except (ValueError, TypeError, OverflowError):
                continue
    return np.array(["" if value is None else str(value) for value in values], dtype=object)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: parquet needs pyarrow: pip install 'jaxprot[parquet]'") from error
    return pyarrow, pyarrow.parquet

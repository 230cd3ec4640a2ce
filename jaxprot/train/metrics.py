"""The metrics of a run: JSON lines beside its checkpoints, and TensorBoard where it is asked for."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from jaxprot.core.errors import InputError, OutputError
from jaxprot.io.outputs import write_text

_log = logging.getLogger(__name__)
FILE = "metrics.jsonl"


def _plain(value: Any) -> Any:
    """What JSON can hold; numbers that are not finite become None."""
    if hasattr(value, "tolist"):  # numpy scalars and arrays, device arrays
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


class MetricsLog:
    """Appends one JSON object per record to `metrics.jsonl` of a run.

    Every line is valid JSON: a number that is not finite is written as null. A process that ends without warning
    loses no record and leaves at most a torn last line. When a run resumes, what it had written past its checkpoint is
    dropped, so that the file holds each step once, as that of an uninterrupted run.

    Args:
      run: folder of the run.
      resume_step: step of the checkpoint that the run resumes from; None starts a new file.
      tensorboard: also write the numbers as scalars under `tensorboard/`.
      write: False in all processes but one, which then do nothing.

    Raises:
      InputError: TensorBoard's writer is asked for and not installed.
      OutputError: the file cannot be written.
    """

    def __init__(self, run: str | os.PathLike, *, resume_step: int | None, tensorboard: bool, write: bool = True):
        self.path = Path(run) / FILE
        self._file: IO[str] | None = None
        self._scalars: Any = None
        if not write:
            return
        if tensorboard:
            self._scalars = _summary_writer(Path(run) / "tensorboard", resume_step)
        if resume_step is not None and self.path.exists():
            _cut(self.path, resume_step)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w" if resume_step is None else "a", encoding="utf-8", newline="\n")
        except OSError as error:
            self.close()
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a record; its `step` places it on TensorBoard's axis.

        Raises:
          OutputError: the file cannot be written (disk full, ...).
        """
        if self._file is None:
            return
        plain = _plain(record)
        try:
            self._file.write(json.dumps(plain, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        if self._scalars is not None:
            step = plain.get("step")
            for name, value in plain.items():
                if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._scalars.add_scalar(name.replace("val_", "val/", 1), value, step)

    def close(self) -> None:
        """Closes the files; may be called twice."""
        file, scalars, self._file, self._scalars = self._file, self._scalars, None, None
        try:
            if file is not None:
                file.close()
        except OSError as error:  # a full disk shows here again
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        finally:
            if scalars is not None:
                scalars.close()


def _summary_writer(folder: Path, resume_step: int | None) -> Any:
    try:
        tensorboard = importlib.import_module("tensorboardX")
    except ImportError as error:
        raise InputError(
            "tensorboard: the writer is not installed; pip install 'jaxprot[tensorboard]', or set tensorboard=false"
        ) from error
    # Points past the checkpoint are hidden by TensorBoard itself.
    purge = None if resume_step is None else resume_step + 1
    return tensorboard.SummaryWriter(os.fspath(folder), purge_step=purge)


def _cut(path: Path, step: int) -> None:
    """Drops records of later steps, and everything from a line on that is not whole."""
    kept = []
    lines = path.read_text("utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if record is None or not line.endswith("\n"):
            _log.warning("%s: line %d is not whole and dropped with what follows", path, number)
            break
        if record.get("step", 0) <= step:
            kept.append(line)
    if len(kept) < len(lines):
        write_text(path, "".join(kept))


def read_metrics(run: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a run in the order in which they were written.

    Args:
      run: folder of the run, or its `metrics.jsonl`.

    Raises:
      InputError: there is no such file, or a line before the last is no record (a torn last line is passed over: the
        run may be going on).
    """
    path = Path(run)
    path = path / FILE if path.is_dir() else path
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); is it the folder of a run?") from error
    records = []
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise InputError(f"{path}: line {number} is no JSON object: {line[:60]!r}; delete the line to go on")
    return records

"""A job over many inputs, as a system describes it to the engine."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import JaxprotError

Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Item:
    """One input of a job.

    Attributes:
      name: tells it from all others of the job in tables and messages.
      content: what the function of the worker reads; pickled.
      stamp: changes whenever the result would, as that of `file_stamp`.
      size: roughly how much work it is; items of similar size go to a worker together.
    """

    name: str
    content: Any
    stamp: str = ""
    size: int = 0

    @property
    def fingerprint(self) -> str:
        """Hash of name and stamp."""
        return hashlib.sha256(f"{self.name}\0{self.stamp}".encode()).hexdigest()[:20]


Function = Callable[[Sequence[Item]], Iterable[tuple[int, Columns | Exception]]]
"""Computes items: gives (place in the sequence, columns of one length or the error of that input), in any order."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is computed.

    Attributes:
      command: such as `thermompnn scan`.
      settings: everything that decides the numbers, as plain JSON; results of different settings never share a folder.
      make: called once in each worker process; loads the model and gives the function. It is pickled: a module-level
        function, or a `functools.partial` of one.
      columns: numpy type by name of each column of the results (`str` for text).
    """

    command: str
    settings: Mapping[str, Any]
    make: Callable[[], Function]
    columns: Mapping[str, str]


def file_stamp(path: str | os.PathLike) -> tuple[str, int]:
    """(stamp, size in bytes) of a file: its place, size and time of change. A file that is not there has size 0."""
    path = Path(path).absolute()
    try:
        found = path.stat()
    except OSError:
        return f"{path}:missing", 0
    return f"{path}:{found.st_size}:{found.st_mtime_ns}", found.st_size


def file_items(names: Iterable[str], paths: Iterable[str | os.PathLike]) -> list[Item]:
    """One item for each file; its content is the absolute path."""
    items = []
    for name, path in zip(names, paths, strict=True):
        stamp, size = file_stamp(path)
        items.append(Item(name, str(Path(path).absolute()), stamp, size))
    return items


def blocks(items: Iterable[Item], workers: int, most: int) -> list[list[Item]]:
    """Items in the blocks that workers take: the largest first, similar sizes together, at most `most` in each.

    Large ones first, so that no worker is left with them at the end; similar ones together, so that an accelerator
    fills its batches. There are at least four blocks for each worker where there are as many items.
    """
    ordered = sorted(items, key=lambda item: (-item.size, item.name))
    length = max(1, min(most, -(-len(ordered) // (4 * workers))))
    return [ordered[start : start + length] for start in range(0, len(ordered), length)]


def message(error: Exception) -> str:
    """What is told of an input that failed."""
    if isinstance(error, JaxprotError):
        return str(error)
    return f"internal: {type(error).__name__}: {' '.join(str(error).split())}"

"""The folder of a job: parts, each with the rows of some inputs and the list of them, and what job they are of.

A part is written beside its place and renamed, and it is named after its inputs: a worker that is killed leaves no half
of one, and one that computes a block again replaces the same file. What is done is read off the parts alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot._version import __version__
from jaxprot.core.errors import OutputError
from jaxprot.io.outputs import atomic_path, write_json
from jaxprot.scale.job import Columns, Item, Job

FOLDER = "parts"
# Readers of a folder of parquet files pass over names that begin with "_" or ".".
_JOB, _LOCK, _TRIES = "_job.json", "_lock", "_tries-"
_KEY = b"jaxprot"


@dataclasses.dataclass(frozen=True)
class Content:
    """The inputs of a part: name by fingerprint of those that have rows, [name, message] of those that failed."""

    done: dict[str, str]
    failed: dict[str, tuple[str, str]]


def holds_job(directory: str | os.PathLike) -> bool:
    """Whether a result folder holds parts, finished or not."""
    return (Path(directory) / FOLDER / _JOB).is_file()


class Parts:
    """The parts of a job, in `directory`/parts.

    Args:
      directory: result folder of the command.
      job: what is computed.
      overwrite: replace the parts of another job.

    Attributes:
      token: of the run that had the lock last.
      kept: names of the parts that `pending` took over.

    Raises:
      OutputError: the folder holds parts of another command, other weights or settings, and not `overwrite`; or
        nothing can be written there.
    """

    def __init__(self, directory: str | os.PathLike, job: Job, overwrite: bool = False):
        self.path, self.job = Path(directory) / FOLDER, job
        self.kept: set[str] = set()
        mine = {"jaxprot": __version__, "command": job.command, "settings": json.loads(json.dumps(dict(job.settings)))}
        with self.locked():
            there = self._there()
            if there is not None and there != mine:
                if not overwrite:
                    raise OutputError(
                        f"{self.path}: holds parts of another run ({_difference(there, mine)}); give the same to go on "
                        "with it, another folder with -o, or --overwrite to replace it"
                    )
                for part in self.files():
                    part.unlink()
            if there != mine:
                write_json(self.path / _JOB, mine)

    def _there(self) -> dict[str, Any] | None:
        if (self.path / _JOB).is_file():
            try:
                found = json.loads((self.path / _JOB).read_text("utf-8"))
                if isinstance(found, dict):
                    return found
            except (OSError, ValueError):
                pass
            return {}
        return {} if self.files() else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out while the block runs; the lock ends with the process, however that ends.

        Workers may outlive it by seconds: each run writes a token of its own into the file of the lock, and workers
        whose token is not there any more write nothing.

        Raises:
          OutputError: another run has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / _LOCK, "a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        with file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"{self.path}: another run is writing here; wait for it or end it") from None
            except (ImportError, OSError):
                pass  # a system or file system without locks
            self.token = uuid.uuid4().hex
            file.truncate(0)
            file.write(self.token)
            file.flush()
            yield

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        """A block that fails before the first part leaves no folder behind."""
        try:
            yield
        except BaseException:
            if not self.files():
                with contextlib.suppress(OSError):
                    for name in (_JOB, _LOCK):
                        (self.path / name).unlink(missing_ok=True)
                    self.path.rmdir()
                    self.path.parent.rmdir()
            raise

    def files(self) -> list[Path]:
        """The parts."""
        return sorted(self.path.glob("part-*.parquet"))

    def pending(self, items: Sequence[Item]) -> list[Item]:
        """Items without rows; removes what a killed run left, and parts whose inputs have changed.

        Raises:
          OutputError: there are rows of inputs that are not among the items.
        """
        current = {item.fingerprint for item in items}
        names = {item.name for item in items}
        if len(names) < len(items):
            raise ValueError("two items of a job have one name")
        contents = {part: _content(part) for part in self.files()}
        gone = [name for c in contents.values() if c for name in c.done.values() if name not in names]
        if gone:
            shown = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
            raise OutputError(
                f"{self.path}: holds results of {len(gone)} inputs that are not given now ({shown}); give them again "
                "(more may be added), another folder with -o, or remove it"
            )
        done: set[str] = set()
        self.kept = set()
        for part, content in contents.items():
            # Unreadable, of failures alone (tried again), of an older version of an input, or there already.
            if content is None or not content.done or not content.done.keys() <= current - done:
                part.unlink(missing_ok=True)
                continue
            done |= content.done.keys()
            self.kept.add(part.name)
        for leftover in (*self.path.glob(".part-*"), *self.path.glob(f"{_TRIES}*")):
            leftover.unlink(missing_ok=True)
        return [item for item in items if item.fingerprint not in done]

    def remove_strays(self, work: Iterable[Sequence[Item]]) -> None:
        """Removes parts that are neither of the blocks `work` nor taken over by `pending`.

        A worker of a killed run may look at the token just before the next run takes the folder over, and rename its
        part just after `pending` has looked: the inputs of that part are computed again, in other blocks.
        """
        known = self.kept | {part_name(block) for block in work}
        for part in self.files():
            if part.name not in known:
                part.unlink(missing_ok=True)

    def finish(self, items: Sequence[Item]) -> dict[str, str]:
        """Checks that every item is in the parts exactly once; gives the message of each that failed, by name.

        Raises:
          OutputError: an item is missing or there twice, because something else changed the folder.
        """
        done: dict[str, int] = {}
        failed: dict[str, str] = {}
        for part in sorted(self.files(), key=lambda part: part.stat().st_mtime_ns):  # the last message counts
            content = _content(part)
            if content is None:
                raise OutputError(f"{part}: cannot be read; run the command again to replace it")
            for fingerprint in content.done:
                done[fingerprint] = done.get(fingerprint, 0) + 1
            failed |= {name: text for name, text in content.failed.values()}
        wanted = {item.fingerprint: item.name for item in items}
        failed = {name: failed[name] for f, name in wanted.items() if f not in done and name in failed}
        missing = [name for f, name in wanted.items() if f not in done and name not in failed]
        twice = [wanted.get(f, f) for f, count in done.items() if count > 1]
        for names, what in ((missing, "not there"), (twice, "there twice")):
            if names:
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                raise OutputError(f"{self.path}: input {names[0]}{more} is {what}; run the command again")
        return failed

    def read(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Columns of all parts, in no particular order of the inputs.

        Args:
          names: of the columns; all by default.
        """
        from pyarrow import parquet

        names = list(self.job.columns if names is None else names)
        tables = [parquet.read_table(part, columns=names) for part in self.files()]
        if not tables:
            return {name: np.array([], object if _is_text(self.job.columns[name]) else None) for name in names}
        columns = {name: [table[name].to_numpy() for table in tables] for name in names}
        return {name: np.concatenate(pieces) for name, pieces in columns.items()}


def check_token(folder: str | os.PathLike, token: str) -> None:
    """Raises an `OutputError` if another run has taken the folder over, or the folder is gone."""
    try:
        if (Path(folder) / _LOCK).read_text("utf-8") == token:
            return
    except OSError as error:
        raise OutputError(f"{folder}: a worker cannot read this folder ({error.strerror or error})") from error
    raise OutputError(f"{folder}: another run has taken this folder over")


def part_name(items: Sequence[Item]) -> str:
    """File name of the part of these items, whatever their order."""
    text = "\n".join(sorted(item.fingerprint for item in items))
    return f"part-{hashlib.sha256(text.encode()).hexdigest()[:20]}.parquet"


def write_part(
    folder: str | os.PathLike,
    items: Sequence[Item],
    found: Mapping[int, Columns | str],
    columns: Mapping[str, str],
) -> Path:
    """Writes the part of these items.

    Args:
      folder: of the parts.
      items: all that the part answers for.
      found: columns by place of the item, or the message of one that failed.
      columns: numpy type by name of each column.

    Raises:
      OutputError: it cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    if set(found) != set(range(len(items))):
        raise ValueError("every item of a part needs a result or a message")
    failed = {place: text for place, text in found.items() if isinstance(text, str)}
    results = {place: rows for place, rows in sorted(found.items()) if not isinstance(rows, str)}
    arrays = []
    for name, kind in columns.items():
        pieces = [rows[name] for rows in results.values()]
        if _is_text(kind):
            arrays.append(pyarrow.array([value for piece in pieces for value in piece.tolist()], pyarrow.string()))
        else:
            arrays.append(pyarrow.array(np.concatenate([np.zeros(0, kind), *pieces]).astype(kind, copy=False)))
    content = {
        "done": {items[place].fingerprint: items[place].name for place in results},
        "failed": {items[place].fingerprint: [items[place].name, text] for place, text in failed.items()},
    }
    table = pyarrow.Table.from_arrays(arrays, names=list(columns))
    table = table.replace_schema_metadata({_KEY: json.dumps(content).encode()})
    path = Path(folder) / part_name(items)
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")
    return path


def _is_text(kind: str) -> bool:
    return kind == "str"


def _content(part: Path) -> Content | None:
    """None for what cannot be read as a part."""
    import pyarrow
    from pyarrow import parquet

    try:
        found = json.loads((parquet.read_schema(part).metadata or {})[_KEY])
        return Content(found["done"], {f: (name, text) for f, (name, text) in found["failed"].items()})
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError):
        return None


def _difference(there: dict[str, Any], mine: dict[str, Any]) -> str:
    """What differs between the descriptions of two jobs, in words."""
    if not there:
        return "its description cannot be read"
    if there.get("command") != mine["command"]:
        return f"of `{there.get('command')}`, not `{mine['command']}`"
    settings = there.get("settings")
    if there.get("jaxprot") != mine["jaxprot"] or not isinstance(settings, dict):
        return f"of jaxprot {there.get('jaxprot')}, not {mine['jaxprot']}"
    names = [n for n in {**settings, **mine["settings"]} if settings.get(n) != mine["settings"].get(n)]
    return ", ".join(f"{n} {_short(settings.get(n))} there, {_short(mine['settings'].get(n))} now" for n in names)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def tries(folder: str | os.PathLike, items: Sequence[Item]) -> Path:
    """The file whose length counts how often a worker began with these items."""
    return Path(folder) / f"{_TRIES}{part_name(items)}"


def count(path: Path) -> int:
    """Counts one more; gives the number so far.

    Raises:
      OutputError: it cannot be written.
    """
    try:
        with open(path, "ab") as file:
            file.write(b"x")
            file.flush()
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error

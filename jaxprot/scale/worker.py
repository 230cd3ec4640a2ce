"""What a worker process does: blocks of items in, parts out, whatever happens to single items."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxprot.core.errors import JaxprotError
from jaxprot.scale import parts
from jaxprot.scale.job import Columns, Function, Item, Job, message

# A block that ended two worker processes is computed item by item the third time.
_TRIES_TOGETHER = 2


class Worker:
    """Computes blocks of a job; the model is loaded with the first block and kept.

    Args:
      job: what is computed.
      folder: of the parts.
      token: of the run.
      environment: variables to set before jax is imported.
      here: further ones, for workers on the machine `host` alone.
      host: name of the machine that started the run.
    """

    def __init__(
        self,
        job: Job,
        folder: str | os.PathLike,
        token: str,
        environment: Mapping[str, str] | None = None,
        here: Mapping[str, str] | None = None,
        host: str = "",
    ):
        self.job, self.folder, self.token = job, Path(folder), token
        if "jax" not in sys.modules:
            os.environ.update(environment or {})
            for name in here or {}:
                os.environ.pop(name, None)
            if platform.node() == host:
                os.environ.update(here or {})
        self._function: Function | None = None

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Computes a block and writes its part.

        Returns:
          `inputs`: how many; `error`: b"", or the pickled error that must end the whole run; `process`: which one.
        """
        told = {"inputs": len(items), "error": b"", "process": f"{platform.node()}:{os.getpid()}"}
        try:
            parts.check_token(self.folder, self.token)
            if (self.folder / parts.part_name(items)).is_file():  # its first worker ended between writing and telling
                return told
            if self._function is None:
                self._function = self.job.make()
            counter = parts.tries(self.folder, items)
            alone = parts.count(counter) > _TRIES_TOGETHER
            found = self._carefully(items) if alone else self._together(items)
            parts.check_token(self.folder, self.token)
            parts.write_part(self.folder, items, found, self.job.columns)
            counter.unlink(missing_ok=True)
        except Exception as error:  # raised here it would reach the user as pages of another engine's traceback
            return {**told, "inputs": 0, "error": _pickled(error)}
        return told

    def _together(self, items: Sequence[Item]) -> dict[int, Columns | str]:
        """Results, or messages of failures, by place."""
        assert self._function is not None
        found: dict[int, Columns | str] = {}
        try:
            for place, result in self._function(items):
                found[place] = message(result) if isinstance(result, Exception) else result
        except Exception as error:
            if len(items) == 1:
                return {0: message(error)}
            # Of no single input, such as too little memory for a batch: those without a result go one by one.
            left = [place for place in range(len(items)) if place not in found]
            found |= {place: self._together([items[place]])[0] for place in left}
        return found

    def _carefully(self, items: Sequence[Item]) -> dict[int, Columns | str]:
        """One at a time, and none that a worker process ended in: that one is what ends them."""
        found: dict[int, Columns | str] = {}
        counters = [parts.tries(self.folder, [item]).with_suffix(".alone") for item in items]
        for place, (item, counter) in enumerate(zip(items, counters, strict=True)):
            if parts.count(counter) > 1:
                found[place] = "the worker process ended while it computed this input; too little memory?"
                continue
            found[place] = self._together([item])[0]
            counter.unlink(missing_ok=True)
        for counter in counters:
            counter.unlink(missing_ok=True)
        return found


def _pickled(error: Exception) -> bytes:
    if isinstance(error, JaxprotError):
        with contextlib.suppress(Exception):
            return pickle.dumps(type(error)(str(error)))
    return pickle.dumps(RuntimeError(message(error)))

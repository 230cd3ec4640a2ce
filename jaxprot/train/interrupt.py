"""Requests to stop a run: signals on one host, the agreed stop of a job on many."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

# USR1 is what batch systems send ahead of the end of a job (`sbatch --signal=USR1@120`).
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class Interruption:
    """Notes signals instead of dying of them, for the length of a `with` block.

    Ctrl-C a second time ends the process at once. With several processes jax watches for SIGTERM and agrees on the
    step at which all of them stop; the other signals are left alone then, since one process must not stop by itself.
    """

    def __init__(self) -> None:
        self._seen: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._seen is not None:
            raise KeyboardInterrupt
        self._seen = signal.Signals(number).name

    def requested(self, step: int) -> str | None:
        """What asks the run to stop after `step`, if anything does; every process must ask at the same steps."""
        if jax.process_count() > 1:
            return "SIGTERM" if multihost_utils.reached_preemption_sync_point(step) else None
        return self._seen

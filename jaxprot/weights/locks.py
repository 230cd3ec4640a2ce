"""One process at a time does a piece of work on files; the others wait for it."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BEAT = 2.0  # seconds between the signs of life of who holds a lock file ...
_STALE = 20.0  # ... and without one, after which its process has died
_PAUSE = 0.2  # seconds between two looks


@contextlib.contextmanager
def held(path: str | os.PathLike, waiting: Callable[[], AbstractContextManager] = contextlib.nullcontext) -> Iterator:
    """Holds a lock while the block runs.

    The operating system's locks end with their process. Where there are none, a lock is a file whose owner touches it
    every few seconds; a file that nobody touches is taken away.

    Args:
      path: lock file, in a folder that exists; it is removed at the end.
      waiting: entered while another process or thread holds the lock.

    Raises:
      OSError: the lock file cannot be written.
    """
    path = Path(path)
    descriptor = _locked(path, waiting)
    if descriptor is None:
        with _owned(path.with_name(path.name + ".owned"), waiting):
            yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # before it is released: who waits for it sees that it is gone, and makes another
        os.close(descriptor)


def _locked(path: Path, waiting: Callable[[], AbstractContextManager]) -> int | None:
    """Descriptor of the file, locked by the operating system; None where it (or the file system) cannot."""
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting():
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a network file system without locks
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # of a file that its owner has removed meanwhile


@contextlib.contextmanager
def _owned(path: Path, waiting: Callable[[], AbstractContextManager]) -> Iterator:
    with contextlib.ExitStack() as stack:
        seen, since = None, time.monotonic()
        while True:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                break
            except FileExistsError:
                if seen is None:
                    stack.enter_context(waiting())
            try:
                beat = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            # Our own clock tells how long nothing changed; the times in the file may be of another machine's.
            if beat != seen:
                seen, since = beat, time.monotonic()
            elif time.monotonic() - since > _STALE:
                path.unlink(missing_ok=True)
            time.sleep(_PAUSE)
    ended = threading.Event()
    thread = threading.Thread(target=_touch, args=(path, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)

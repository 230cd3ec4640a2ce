"""`jaxprot train`."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxprot.cli.options import Compute, record
from jaxprot.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(Compute):
    """Options of `train`."""

    experiment: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="EXPERIMENT.py")] = None
    """Python file that defines `def config() -> TrainConfig` (see experiments/); not needed with --resume."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Changes a value of the configuration, such as optim.lr=3e-4; may be repeated."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of a run to go on with, from its newest checkpoint and with its configuration."""


def train(options: TrainOptions) -> int:
    """Trains a system.

    Writes config.yaml (the configuration in full), metrics.jsonl, ckpt/ and best.safetensors, the best averaged weights
    by the validation figure that the task names; `--weights DIR/best.safetensors` uses them.
    """
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.train import config

    run = options.resume if options.resume is not None else options.output
    if options.experiment is not None:
        cfg = config.load_experiment(options.experiment)
    elif options.resume is not None:
        cfg = config.read_config(run / "config.yaml")
    else:
        raise InputError("name an experiment file (see experiments/), or a run to go on with: --resume DIR")
    cfg = config.override(cfg, options.set)
    if options.resume is None:
        RunDirectory(run, options.overwrite)
        if (run / "ckpt").is_dir() and any((run / "ckpt").iterdir()):
            raise InputError(f"{run}: holds checkpoints of a run; go on with --resume {run}, or give another folder")
    elif not (run / "ckpt").is_dir():
        raise InputError(f"{run}: holds no checkpoint to go on from")
    cfg.task.batch(0, cfg.seed)  # reads the data: what is wrong with them is said before anything is written
    run.mkdir(parents=True, exist_ok=True)
    config.write_config(cfg, run / "config.yaml")

    from jaxprot.train.loop import fit

    begin = time.perf_counter()
    header: dict[str, Any] = {"system": _system(cfg.task)}
    if dataclasses.is_dataclass(getattr(cfg.task, "model", None)):
        header["config"] = dataclasses.asdict(cfg.task.model)
    with _reporter(cfg.steps) as report:
        try:
            best = fit(cfg, run, resume=options.resume is not None, header=header, report=report)
        except FloatingPointError as error:
            raise InputError(str(error)) from error
    files = [options.experiment] if options.experiment is not None else []
    record(options, run, "train", inputs=files, timings={"run": time.perf_counter() - begin})
    print(f"{run}: trained to step {cfg.steps}; best weights: {best}")
    return 0


def _system(task: Any) -> str:
    parts = type(task).__module__.split(".")
    return parts[1] if parts[0] == "jaxprot" and len(parts) > 1 else ""


@contextlib.contextmanager
def _reporter(steps: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar with the last figures on a terminal, one line of JSON per record elsewhere; on stderr."""
    if not sys.stderr.isatty():
        yield lambda metrics: print(json.dumps(metrics), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("steps", total=steps, figures="")

        def report(metrics: dict[str, Any]) -> None:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if name != "step")
            bar.update(task, completed=metrics["step"], figures=shown)
            if any(name.startswith("val_") for name in metrics):
                bar.console.print(f"step {metrics['step']}  {shown}")

        yield report

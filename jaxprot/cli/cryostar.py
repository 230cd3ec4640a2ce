"""`jaxprot cryostar simulate|fit|density|analyze`."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Common, record
from jaxprot.core.errors import InputError

_Angstrom = tyro.conf.arg(metavar="ANGSTROM")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(Common):
    """Options of `cryostar fit`."""

    particles: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="PARTICLES")] = None
    """RELION STAR file (3.0 to 5) or cryoSPARC .cs file, with poses and CTF; not needed with --resume."""
    reference: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    """PDB or mmCIF file of the model, docked into the consensus map, with the middle of the box at 0, 0, 0."""
    dataset_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that the paths of the image stacks are relative to."""
    pixel_size: Annotated[float | None, _Angstrom] = None
    """Of the original images, instead of the file's."""
    side: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Images are made so large; by default as they are, but at most 128."""
    low_pass: Annotated[float | None, _Angstrom] = 10.0
    """Finer detail is not compared; none for no limit. The resolution of the consensus map is a good choice."""
    invert: bool = False
    """Particles are dark on bright."""
    steps: int | None = None
    """Training steps; by default those of the experiment."""
    batch: int | None = None
    """Particles per step."""
    experiment: Annotated[Path | None, tyro.conf.arg(metavar="EXPERIMENT.py")] = None
    """Settings of another experiment (see experiments/cryostar/), whose files and the options above are replaced by
    those given here."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Changes a value of the configuration, such as task.ratio=0.8 or optim.lr=2e-4; may be repeated."""
    half_sets: bool = False
    """Two independent runs, DIR/half1 and DIR/half2, on the two halves of the particles."""
    resume: bool = False
    """Go on with the run in DIR."""
    no_checks: bool = False
    """Do not compare images with projections of the reference before training."""
    parallel: Literal["shard_map", "pmap", "single"] = "shard_map"
    """How to use several devices."""


def fit(options: FitOptions) -> int:
    """Trains cryoSTAR's auto-encoder: a conformation for every particle image.

    Before training, a few hundred images are compared with projections of the reference at their poses, so that a
    wrong contrast, pixel size or shift is told at once. Writes config.yaml, metrics.jsonl, ckpt/, best.safetensors,
    images/ (prepared images), reference.pdb, latents.npy (particles in the order of the file) and run.json. SIGTERM and
    Ctrl-C save and end the run; --resume goes on. Next: `jaxprot cryostar analyze DIR`, `jaxprot cryostar density DIR`.
    """
    folders = [options.output / f"half{half}" for half in (1, 2)] if options.half_sets else [options.output]
    for number, run in enumerate(folders):
        code = _fit(options, run, number + 1 if options.half_sets else 0)
        if code is not None:
            return code
    return 0


def _fit(options: FitOptions, run: Path, subset: int) -> int | None:
    """One run; an exit code where it was stopped."""
    from jaxprot.cli.train import Note, reporter
    from jaxprot.cryostar import predict
    from jaxprot.cryostar.results import write_models
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.train.config import read_config
    from jaxprot.train.loop import fit as train
    from jaxprot.train.parallel import Parallel

    begin = time.perf_counter()
    resumed = options.resume and (run / "config.yaml").is_file()
    if resumed:
        cfg = read_config(run / "config.yaml")
        if options.steps is not None:
            cfg = dataclasses.replace(cfg, steps=options.steps)
    else:
        RunDirectory(run, options.overwrite or options.resume)
        if (run / "ckpt").is_dir() and any((run / "ckpt").iterdir()):
            raise InputError(f"{run}: holds checkpoints of a run; go on with --resume, or give another folder")
        cfg = _config(options, run, subset)
    task, parallel = cfg.task, Parallel(options.parallel)
    print(f"{run}: {len(task.stack)} particles, {len(task.beads)} beads", file=sys.stderr)
    with _counted("images") as progress:
        task.ready(progress)
    if not resumed and not options.no_checks:
        _check(task)
    header = {"system": "cryostar", "config": dataclasses.asdict(task.model)}
    note = Note(options, run, cfg, parallel, resumed, options.experiment, "cryostar fit")
    print(f"{run}: {cfg.steps} steps on {parallel}", file=sys.stderr)
    with reporter(cfg.steps, parallel.first) as report:
        try:
            outcome = train(cfg, run, resume=resumed, header=header, report=report, parallel=parallel, begin=note.begin)
        except FloatingPointError as error:
            raise InputError(str(error)) from error
    note.end(outcome.step, time.perf_counter() - begin)
    if outcome.stopped is not None:
        print(f"{run}: stopped by {outcome.stopped} and saved after step {outcome.step} of {cfg.steps}; add --resume")
        return 130 if outcome.stopped == "SIGINT" else 0
    predictor = predict.load(run)
    with _counted("images") as progress:
        predictor.write_latents(run / "latents.npy", progress)
    write_models(predictor.beads.xyz[None], predictor.beads, run / "reference.pdb")
    print(f"{run}: trained to step {outcome.step}; latents of {len(task.stack)} particles are in latents.npy")
    return None


def _config(options: FitOptions, run: Path, subset: int) -> Any:
    """The configuration of a new run."""
    from jaxprot.cryostar.settings import default
    from jaxprot.train.config import load_experiment, override

    if options.particles is None or options.reference is None:
        raise InputError("give the particles (a .star or .cs file) and --reference MODEL")
    cfg = default() if options.experiment is None else load_experiment(options.experiment)
    given = {
        "particles": str(options.particles.absolute()),
        "reference": str(options.reference.absolute()),
        "cache": str((run / "images").absolute()),
        "dataset_dir": None if options.dataset_dir is None else str(options.dataset_dir.absolute()),
        "subset": subset,
    }
    chosen = {"pixel_size": options.pixel_size, "side": options.side, "size": options.batch}
    chosen |= {"invert": options.invert or None, "low_pass": options.low_pass if options.experiment is None else None}
    given |= {name: value for name, value in chosen.items() if value is not None}
    cfg = dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, **given), seed=options.seed)
    if options.steps is not None:
        cfg = dataclasses.replace(cfg, steps=options.steps)
    return override(cfg, options.set)


def _check(task: Any) -> None:
    """Says what looks wrong before anything is trained."""
    from jaxprot.cryostar import checks

    for finding in checks.check(task.stack, task.beads, task.prepared, low_pass=task.low_pass, version=task.ctf):
        print(f"jaxprot: {finding.level}: {finding.message}", file=sys.stderr)


@contextlib.contextmanager
def _counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for what reports (done, in all); it appears with the first report."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

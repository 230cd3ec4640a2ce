"""`jaxprot cryostar simulate|fit`; what is made of a run: `cryostar_results`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import Compute, Seeded, counted, keep_memory, record
from jaxprot.core.errors import InputError

_Angstrom = tyro.conf.arg(metavar="ANGSTROM")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions(Seeded):
    """Options of `cryostar simulate`."""

    model: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MODEL")] = None
    """PDB or mmCIF file: of several models (an ensemble), or of one that is moved along its normal modes."""
    to: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    """A second conformation; the path to it is a straight line."""
    trajectory: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """DCD, XTC or TRR file of MODEL's atoms, instead."""
    stride: int = 1
    """Every how manieth frame of the trajectory is taken."""
    align: bool = False
    """Superpose the frames of an ensemble or trajectory."""
    frames: int = 50
    """Conformations of a path or along normal modes."""
    modes: int = 1
    """Normal modes, one after the other."""
    amplitude: Annotated[float, _Angstrom] = 4.0
    """Root mean square displacement of the residues at either end of the softest mode."""
    particles: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Number of images."""
    side: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 64
    """Of an image."""
    pixel_size: Annotated[float, _Angstrom] = 2.0
    """Of the images."""
    snr: float = 0.1
    """Variance of the signal by that of the noise; inf for no noise."""
    shift: Annotated[float, _Angstrom] = 2.0
    """Standard deviation of the shifts along x and y."""
    defocus: Annotated[tuple[float, float], tyro.conf.arg(metavar="ANGSTROM ANGSTROM")] = (10_000.0, 25_000.0)
    """Smallest and largest defocus."""
    astigmatism: Annotated[float, _Angstrom] = 1000.0
    """Largest difference of the two defoci."""
    voltage: float = 300.0
    """kV."""
    cs: float = 2.7
    """Spherical aberration in mm."""
    amplitude_contrast: float = 0.1
    """0 to 1."""


def simulate(options: SimulateOptions) -> int:
    """Makes a stack of particle images of a molecule that moves, with its truth.

    Writes particles.star and particles.mrcs (readable by RELION and by `jaxprot cryostar fit`), truth.npz (conformation
    of each particle, coordinates of all), ensemble.pdb (residues as beads), reference.pdb (MODEL with all atoms, placed
    at the origin, to give to `fit --reference`) and run.json. Models that a PDB file cannot hold are .cif files.
    """
    import jax

    from jaxprot.cryostar import simulate as simulation
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.structures import read_structure, write_structure
    from jaxprot.io.trajectories import from_models, read_trajectory

    begin = time.perf_counter()
    if options.model is None:
        raise InputError("give a model (a PDB or mmCIF file)")
    if options.to is not None and options.trajectory is not None:
        raise InputError("give --to or --trajectory, not both")
    try:
        cfg = simulation.SimulationConfig(
            side=options.side,
            pixel=options.pixel_size,
            snr=options.snr,
            shift_sd=options.shift,
            defocus=options.defocus,
            astigmatism=options.astigmatism,
            voltage=options.voltage,
            cs=options.cs,
            amplitude=options.amplitude_contrast,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    home = RunDirectory(options.output, options.overwrite)
    whole = read_structure(options.model, models="all")
    first = whole.first_model().first_altlocs()
    if options.trajectory is not None:
        trajectory = read_trajectory(options.trajectory, options.model, stride=options.stride)
        ensemble = simulation.ensemble_of(trajectory, align=options.align)
    elif options.to is not None:
        ensemble = simulation.morph(first, read_structure(options.to).first_model(), options.frames)
    elif len(set(whole.model.tolist())) > 1:
        ensemble = simulation.ensemble_of(from_models(whole), align=options.align)
    else:
        ensemble = simulation.along_modes(first, options.frames, modes=options.modes, amplitude=options.amplitude)
    reference = simulation.placed(first, ensemble)
    made = simulation.simulate(
        ensemble.frames, ensemble.beads.electrons, options.particles, cfg, key=jax.random.key(options.seed)
    )
    # particles.star is the last to be written: a folder that has it is complete.
    home.file("particles.star").unlink(missing_ok=True)
    for stem in ("reference", "ensemble"):  # of an earlier simulation, perhaps in the other format
        for suffix in ("pdb", "cif"):
            home.file(f"{stem}.{suffix}").unlink(missing_ok=True)
    try:
        write_structure(reference, home.file("reference.pdb"))
        model = "reference.pdb"
    except InputError:  # long names or far atoms, which mmCIF can hold
        write_structure(reference, home.file("reference.cif"))
        model = "reference.cif"
    written = simulation.write_simulation(made, ensemble, options.output, overwrite=True)
    inputs = [path for path in (options.model, options.to, options.trajectory) if path is not None]
    timings = {"total": time.perf_counter() - begin}
    record(options, options.output, "cryostar simulate", inputs=inputs, timings=timings)
    print(f"{options.output}: {', '.join([*written, model])}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(Compute):
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
    low_pass: Annotated[float | None, _Angstrom] = None
    """Finer detail is not compared; 0 for no limit, by default 10 or what the experiment says. The resolution of the
    consensus map is a good choice."""
    invert: bool = False
    """Particles are dark on bright."""
    steps: int | None = None
    """Training steps; by default those of the experiment."""
    batch: int | None = None
    """Particles per step."""
    experiment: Annotated[Path | None, tyro.conf.arg(metavar="EXPERIMENT.py")] = None
    """Settings of another experiment (see experiments/cryostar/), whose files and the options above are replaced by
    those given here."""
    given_seed: Annotated[int | None, tyro.conf.arg(name="seed", metavar="INT")] = None
    """Seed of everything random, 0 to 2147483647; by default that of the experiment."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Changes a value of the configuration, such as task.ratio=0.8 or optim.lr=2e-4; may be repeated."""
    half_sets: bool = False
    """Two independent runs, DIR/half1 and DIR/half2, on the two halves of the particles."""
    resume: bool = False
    """Go on with the run in DIR, with its configuration: of what is given besides, --steps alone may differ."""
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
    others = [options.output] if options.half_sets else [options.output / f"half{half}" for half in (1, 2)]
    for other in others:
        if (other / "config.yaml").is_file():
            raise InputError(
                f"{other}: a run lies there already; half sets and a run on all particles take two folders"
            )
    for number, run in enumerate(folders):
        code = _fit(options, run, number + 1 if options.half_sets else 0)
        if code is not None:
            return code
    return 0


def _fit(options: FitOptions, run: Path, subset: int) -> int | None:
    """One run; an exit code where it was stopped."""
    from jaxprot.cli.train import Note, reporter
    from jaxprot.cryostar import predict
    from jaxprot.cryostar.maps import forget_images
    from jaxprot.cryostar.results import write_models
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.train.loop import fit as train
    from jaxprot.train.parallel import Parallel

    begin = time.perf_counter()
    resumed = options.resume and (run / "config.yaml").is_file()
    if resumed:
        cfg = _held(options, run, subset)
    else:
        RunDirectory(run, options.overwrite or options.resume)
        strange = not (run / "config.yaml").is_file()  # nothing says that they are of this command
        if strange and (run / "ckpt").is_dir() and any((run / "ckpt").iterdir()):
            raise InputError(f"{run}: holds checkpoints, but no config.yaml of their run; give another folder")
        cfg = _config(options, run, subset)
    task, parallel = cfg.task, Parallel(options.parallel)
    if parallel.devices[0].platform == "cpu":
        keep_memory()
    print(f"{run}: {len(task.stack)} particles, {len(task.beads)} beads", file=sys.stderr)
    if not resumed:
        if not options.no_checks:
            _check_files(task)
        if options.overwrite:
            forget_images(run / "images")
    with counted("images") as progress:
        task.ready(progress)
    if not resumed:
        if not options.no_checks:
            _check(task)
        if options.overwrite:  # only now: what is found wrong so far costs no trained network
            forget(run)
            for old in (options.output / "analysis", options.output / "density"):
                if old.is_dir() and subset < 2:
                    print(f"jaxprot: warning: {old} is of the earlier run; make it anew (--overwrite)", file=sys.stderr)
    header = {"system": "cryostar", "config": dataclasses.asdict(task.model)}
    note = Note(_told(options, cfg), run, cfg, parallel, resumed, options.experiment, "cryostar fit")

    def started(step: int) -> None:
        note.begin(step)
        if step < cfg.steps:
            (run / "latents.npy").unlink(missing_ok=True)  # of fewer steps

    print(f"{run}: {cfg.steps} steps on {parallel}", file=sys.stderr)
    with reporter(cfg.steps, parallel.first) as report:
        try:
            outcome = train(cfg, run, resume=resumed, header=header, report=report, parallel=parallel, begin=started)
        except FloatingPointError as error:
            raise InputError(str(error)) from error
    note.end(outcome.step, time.perf_counter() - begin)
    if outcome.stopped is not None:
        print(f"{run}: stopped by {outcome.stopped} and saved after step {outcome.step} of {cfg.steps}; add --resume")
        return 130 if outcome.stopped == "SIGINT" else 0
    predictor = predict.load(run)
    with counted("images") as progress:
        predictor.write_latents(run / "latents.npy", progress)
    write_models(predictor.beads.xyz[None], predictor.beads, run / "reference.pdb")
    print(f"{run}: trained to step {outcome.step}; latents of {len(task.stack)} particles are in latents.npy")
    return None


def _config(options: FitOptions, run: Path, subset: int) -> Any:
    """The configuration of a new run."""
    from jaxprot.cryostar.settings import default

    if options.particles is None or options.reference is None:
        raise InputError("give the particles (a .star or .cs file) and --reference MODEL")
    cfg = default() if options.experiment is None else _experiment(options.experiment)
    held = {
        "cache": str((run / "images").absolute()),
        "dataset_dir": None if options.dataset_dir is None else str(options.dataset_dir.absolute()),
        "subset": subset,
    }
    return _replaced(dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, **held)), options)


def _held(options: FitOptions, run: Path, subset: int) -> Any:
    """The configuration of a run that goes on.

    Raises:
      InputError: something else than its number of steps was asked for.
    """
    from jaxprot.train.config import read_config, to_plain

    held = read_config(run / "config.yaml")
    _is_ours(held, run / "config.yaml")
    wanted = held
    if options.experiment is not None:
        # An experiment names files of its own; those of the run stand in for what no option gives.
        wanted = _experiment(options.experiment)
        names = ("particles", "reference", "dataset_dir", "cache", "subset")
        kept = {name: getattr(held.task, name) for name in names}
        wanted = dataclasses.replace(wanted, task=dataclasses.replace(wanted.task, **kept))
    if subset:
        wanted = dataclasses.replace(wanted, task=dataclasses.replace(wanted.task, subset=subset))
    wanted = _replaced(wanted, options)
    before, now = _flat(to_plain(held)), _flat(to_plain(wanted))
    names = sorted(name for name in {*before, *now} - {"steps"} if not _same(before.get(name), now.get(name)))
    if names:
        told = ", ".join(f"{name} {before.get(name)} (asked for: {now.get(name)})" for name in names)
        raise InputError(
            f"{run}: the run that --resume goes on with has other settings: {told}; leave these options out, or give "
            "another folder"
        )
    more = options.steps is not None or any(one.partition("=")[0].strip() == "steps" for one in options.set)
    return dataclasses.replace(held, steps=wanted.steps) if more else held


def _replaced(cfg: Any, options: FitOptions) -> Any:
    """A configuration with the values that were given."""
    from jaxprot.train.config import override

    if options.batch is not None and options.batch < 2:
        raise InputError(f"--batch {options.batch}: give at least 2, distances are relaxed by how they vary in a batch")
    seed = options.given_seed
    if seed is not None and not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: give a number from 0 to {2**31 - 1}")
    paths = {"particles": options.particles, "reference": options.reference, "dataset_dir": options.dataset_dir}
    given: dict[str, Any] = {name: str(path.absolute()) for name, path in paths.items() if path is not None}
    chosen = {"pixel_size": options.pixel_size, "side": options.side, "size": options.batch}
    given |= {name: value for name, value in chosen.items() if value is not None}
    if options.invert:
        given["invert"] = True
    if options.low_pass is not None:
        given["low_pass"] = options.low_pass or None
    cfg = dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, **given), seed=cfg.seed if seed is None else seed)
    steps = () if options.steps is None else (f"steps={options.steps}",)
    return override(cfg, (*steps, *options.set))


def _experiment(path: Path) -> Any:
    """The configuration of an experiment with cryoSTAR."""
    from jaxprot.train.config import load_experiment

    cfg = load_experiment(path)
    _is_ours(cfg, path)
    return cfg


def _is_ours(cfg: Any, path: Path) -> None:
    from jaxprot.cryostar.conformation import ConformationTask

    if not isinstance(cfg.task, ConformationTask):
        kind = type(cfg.task).__name__
        raise InputError(f"{path}: no cryoSTAR experiment, but one of {kind}; experiments/cryostar/ holds some")


def _flat(plain: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Values of nested dictionaries by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal values, or two names of one file."""
    if one == other:
        return True
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    return "/" in one and "/" in other and Path(one).resolve() == Path(other).resolve()


def _told(options: FitOptions, cfg: Any) -> FitOptions:
    """The options as they are in force, for `run.json`: a run that goes on takes what it was begun with."""
    task = cfg.task
    return dataclasses.replace(
        options,
        particles=Path(task.particles),
        reference=Path(task.reference),
        dataset_dir=None if task.dataset_dir is None else Path(task.dataset_dir),
        pixel_size=task.pixel_size,
        side=task.side,
        low_pass=task.low_pass or 0.0,
        invert=task.invert,
        batch=task.size,
        steps=cfg.steps,
        given_seed=cfg.seed,
        half_sets=bool(task.subset),
    )


def forget(run: Path) -> None:
    """Removes what an earlier training has left in a folder, and what would be taken for this one's."""
    import shutil

    notes = [run / name for name in ("config.yaml", "settings.json")]
    if (run / "ckpt").is_dir() and any(path.is_file() for path in notes):
        shutil.rmtree(run / "ckpt")
    names = ("run.json", "metrics.jsonl", "latents.npy", "best.safetensors")
    broken_off = [path for name in names for path in run.glob(f".part-*-{name}")]
    # The notes last, so that a removal that was interrupted can be taken up again.
    for path in (*broken_off, *(run / name for name in names), *notes):
        path.unlink(missing_ok=True)


def _check_files(task: Any) -> None:
    """Raises what the files alone tell, before the images are prepared, which may take long."""
    import numpy as np

    from jaxprot.cryostar import checks
    from jaxprot.cryostar.conformation import check_low_pass

    checks.check_stack(task.stack)
    side, pixel = int(np.median(task.stack.side)), float(np.median(task.stack.pixel_size))
    if side:
        check_low_pass(task.low_pass, side * pixel)
        checks.check_reference(task.beads, side, pixel)


def _check(task: Any) -> None:
    """Says what looks wrong before anything is trained."""
    from jaxprot.cryostar import checks

    try:
        found = checks.check(task.stack, task.beads, task.prepared, low_pass=task.low_pass, version=task.ctf)
    except InputError as error:
        told, remedy = str(error), "particles are dark on bright; add --invert"
        if not task.invert or not told.endswith(remedy):
            raise
        raise InputError(
            told.removesuffix(remedy) + "particles are bright on dark already; leave --invert out"
        ) from error
    for finding in found:
        print(f"jaxprot: {finding.level}: {finding.message}", file=sys.stderr)

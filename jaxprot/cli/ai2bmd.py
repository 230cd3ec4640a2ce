"""`jaxprot ai2bmd prepare|energy|fragment|simulate`."""

import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxprot.cli.options import (
    Common,
    Compute,
    StructureOptions,
    expand,
    load,
    record,
    run_many,
    shared_devices,
    stems,
)
from jaxprot.core.errors import InputError

_BEGIN = time.perf_counter()
_Inputs = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="STRUCTURE...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions(Compute):
    """Options of `ai2bmd prepare`."""

    inputs: _Inputs = ()
    """PDB or mmCIF files (also .gz), or folders of them."""
    chains: Annotated[str, tyro.conf.arg(metavar="A,B")] = ""
    """Chains to keep; all protein chains if not given."""
    ph: float = 7.0
    """Decides which residues are charged."""
    minimise: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = True
    """Leave what was added as it was built; without this flag it is relaxed (ff14SB, implicit solvent)."""
    seed: int = 0
    """Of the places where hydrogens begin."""


def prepare(options: PrepareOptions) -> int:
    """Makes raw structures simulatable: missing atoms, hydrogens, ACE and NME caps, names (needs jaxprot[prepare]).

    Writes prepared.pdb and report.json (what was added, changed and left out). A broken chain is refused.
    """
    from jaxprot.ai2bmd.prepare import prepare as prepared
    from jaxprot.io.outputs import RunDirectory, write_json
    from jaxprot.io.structures import write_structure

    run, paths = RunDirectory(options.output, options.overwrite), expand(options.inputs)
    chosen = [name for name in options.chains.split(",") if name]
    names = dict(zip(paths, stems(paths), strict=True))

    def one(path: Path) -> None:
        made = prepared(path, chains=chosen, ph=options.ph, minimise=options.minimise, seed=options.seed)
        folder = run.folder(names[path] if len(paths) > 1 else None)
        write_structure(made.structure, folder / "prepared.pdb", fit=True)
        write_json(folder / "report.json", made.report)
        print(f"{folder / 'prepared.pdb'}: {made.report['atoms']} atoms, charge {made.report['charge']:+d}")

    outcome = run_many(paths, one, debug=options.debug)
    record(
        options, run.folder(), "ai2bmd prepare", inputs=paths, failed=outcome.failed, timings={"total": outcome.seconds}
    )
    return outcome.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class PotentialOptions(Common):
    """Options of commands that compute energies."""

    mode: Literal["fragment", "whole"] = "fragment"
    """Capped proteins in fragments, or any molecule through the network as a whole."""
    caps: Literal["consistent", "compat"] = "consistent"
    """Forces with what cap hydrogens hand on, or without as published (energy is then not conserved)."""
    relax: Literal["published", "none", "minimise"] | None = None
    """How cap hydrogens are relaxed; if not given as published with compat, and not at all with consistent."""
    solvent: Literal["none", "gb"] = "none"
    """Vacuum, or generalised Born (OBC2) with the charges of ff14SB."""
    constraints: Literal["hydrogens", "none"] = "hydrogens"
    """Springs that hold hydrogens to their atoms once a bond is 0.2 Å too long."""
    devices: int | None = None
    """GPUs, or cores of the processor, that share the units of a protein; by default all, but at most 8."""

    def potential(self, predictor: Any, path: Path) -> Any:
        """The potential of a structure file."""
        return predictor.potential(
            path,
            mode=self.mode,
            caps=self.caps,
            relax=self.relax,
            solvent=self.solvent,
            constraints=self.constraints,
            devices=shared_devices(self.devices) if self.mode == "fragment" else 1,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyOptions(PotentialOptions, StructureOptions):
    """Options of `ai2bmd energy`."""

    format: tyro.conf.Suppress[Literal["csv"]] = "csv"  # no tables are written


def energy(options: EnergyOptions) -> int:
    """Energies and forces of proteins with caps and hydrogens (`ai2bmd prepare` adds them).

    Writes energy.json (total and terms in eV) and forces.npz (eV/Å, in the order of the input's atoms).
    """
    from jaxprot.ai2bmd import predict
    from jaxprot.io.outputs import RunDirectory

    run, paths = RunDirectory(options.output, options.overwrite), expand(options.inputs)
    names = dict(zip(paths, stems(paths), strict=True))
    predictor, weights = load(options, "ai2bmd")

    def one(path: Path) -> None:
        potential = options.potential(predictor, path)
        predict.caution(potential)
        found = potential.evaluate()
        folder = run.folder(names[path] if len(paths) > 1 else None)
        predict.write(found, potential, folder)
        terms = ", ".join(f"{name} {value:.4f}" for name, value in found.energies.items())
        print(f"{path}: {found.energy:.4f} eV ({terms})")

    outcome = run_many(paths, one, debug=options.debug)
    record(
        options, run.folder(), "ai2bmd energy", inputs=paths, weights=weights, failed=outcome.failed,
        timings={"start": outcome.seconds and time.perf_counter() - _BEGIN - outcome.seconds, "run": outcome.seconds},
    )  # fmt: skip
    return outcome.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class FragmentOptions(Compute):
    """Options of `ai2bmd fragment`."""

    inputs: _Inputs = ()
    """PDB or mmCIF files (also .gz), or folders of them."""


def fragment(options: FragmentOptions) -> int:
    """How proteins are cut into units: fragments.json with the atoms, caps, sign and charge of each.

    Refuses, naming residue and atom, what cannot be simulated.
    """
    from jaxprot.ai2bmd.fragment import fragment as fragmented
    from jaxprot.core.errors import naming
    from jaxprot.io.outputs import RunDirectory, write_json
    from jaxprot.io.structures import read_structure

    run, paths = RunDirectory(options.output, options.overwrite), expand(options.inputs)
    names = dict(zip(paths, stems(paths), strict=True))

    def one(path: Path) -> None:
        structure = read_structure(path)
        with naming(path, structure.name):
            told = fragmented(structure).describe()
        folder = run.folder(names[path] if len(paths) > 1 else None)
        write_json(folder / "fragments.json", told)
        print(
            f"{path}: {told['n_atoms']} atoms, {told['n_dipeptides']} dipeptides, {told['n_units']} units, charge "
            f"{told['charge']:+d}"
        )

    outcome = run_many(paths, one, debug=options.debug)
    record(
        options, run.folder(), "ai2bmd fragment", inputs=paths, failed=outcome.failed, timings={"run": outcome.seconds}
    )
    return outcome.code


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions(PotentialOptions):
    """Options of `ai2bmd simulate`."""

    input: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="STRUCTURE")] = None
    """PDB or mmCIF file of capped chains with hydrogens."""
    steps: int = 1000
    """Of production; a multiple of --record, so that frames are equally far apart."""
    timestep: Annotated[float, tyro.conf.arg(metavar="FS")] = 1.0
    """Of a step; 0.5 conserves energy well, bonds with hydrogen being flexible."""
    ensemble: Literal["langevin", "nve", "nose-hoover"] = "langevin"
    """Constant temperature with friction, constant energy, or constant temperature without noise."""
    temperature: Annotated[float, tyro.conf.arg(metavar="K")] = 300.0
    """Of the first velocities and the equilibration, and kept afterwards but with nve."""
    friction: Annotated[float, tyro.conf.arg(metavar="1/PS")] = 1.0
    """Of langevin."""
    record: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 100
    """Steps between frames, which are rows of energies and restart points as well; --steps is a multiple of it."""
    minimise: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 200
    """Steps downhill before dynamics, at most; 0 for none."""
    equilibration: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 300
    """Of each of the five stages before production, in which springs hold all atoms; 0 for none (published: 2000)."""
    replicas: int = 1
    """Molecules that move side by side, with velocities of their own."""
    trajectory_format: Literal["dcd", "xtc"] = "dcd"
    """`xtc`: trajectory.xtc as well (needs jaxprot[trajectories]), made of trajectory.dcd, which a run goes on with. A
    run that goes on keeps it up without being told again."""
    resume: bool = False
    """Go on with the run in the output folder (a new one there, with --overwrite, removes it)."""


def simulate(options: SimulateOptions) -> int:
    """Molecular dynamics of a protein (in vacuum, or with --solvent gb), restartable at any moment.

    Writes trajectory.dcd (with topology.pdb), energies.csv, energies.png, final.pdb, analysis.json, rmsd.csv, rmsf.csv,
    ramachandran.png and couplings.csv, and restart/state.npz, from which --resume goes on to the same numbers. With
    --replicas each has a trajectory and an end: trajectory_00.dcd, final_00.pdb and so on. --format parquet is of rmsd,
    rmsf and couplings; energies.csv, which a run adds to, stays csv.
    A run that leaves what the potential describes is stopped, with the atoms named and the last good frame in last.pdb,
    from which another can start.
    """
    import numpy as np

    from jaxprot.ai2bmd import predict
    from jaxprot.io.outputs import RunDirectory, sha256
    from jaxprot.io.trajectories import check_xtc
    from jaxprot.md.integrators import Dynamics
    from jaxprot.md.simulate import OWN, STATE, RunawayError, SimulationConfig

    if options.input is None:
        raise InputError("give a structure; `jaxprot ai2bmd prepare` makes one that can be simulated")
    if options.minimise < 0:
        raise InputError(f"--minimise {options.minimise}: give 0 or more")
    home, begin = options.output, time.perf_counter()
    if options.resume and any(home.glob("trajectory*.xtc")):
        options = dataclasses.replace(options, trajectory_format="xtc")
    if options.trajectory_format == "xtc":
        check_xtc()
    if options.resume and not (home / STATE).is_file():
        raise InputError(f"{home}: no {STATE} to go on from; start without --resume")
    run = RunDirectory(home, options.overwrite or options.resume)
    if not options.resume and OWN.fullmatch(options.input.name) and options.input.resolve().parent == home.resolve():
        raise InputError(f"{options.input}: a run that begins here would remove it; give another folder with -o")
    try:
        cfg = SimulationConfig(
            dynamics=Dynamics(
                ensemble=options.ensemble, temperature=options.temperature, timestep=options.timestep,
                friction=options.friction,
            ),
            steps=options.steps, record=options.record, equilibration=options.equilibration, seed=options.seed,
            replicas=options.replicas,
        )  # fmt: skip
    except ValueError as error:  # it begins with the name of the option
        raise InputError(f"--{error}") from error
    predictor, weights = load(options, "ai2bmd")
    potential = options.potential(predictor, options.input)
    run.folder()
    # Devices only share the work: a run may go on with more or fewer.
    made_of = {name: value for name, value in dataclasses.asdict(potential.cfg).items() if name != "devices"}
    identity = f"{weights['sha256'][:16]} {made_of} {sha256(options.input)[:16]}"
    timings = {"start": time.perf_counter() - begin}
    try:
        if options.minimise and not options.resume:
            _line(f"minimisation, at most {options.minimise} steps")
        with _bar(cfg) as report:
            outcome, told = predict.simulate(
                potential, cfg, home, resume=options.resume, identity=identity, downhill=options.minimise, report=report
            )
    except RunawayError as error:
        if (home / "energies.csv").is_file():  # what there is up to here
            _finish(options, potential)
        record(
            options, home, "ai2bmd simulate", inputs=[options.input], weights=weights, timings=timings,
            failed={str(options.input): str(error)},
        )  # fmt: skip
        raise
    timings["dynamics"] = time.perf_counter() - begin - timings["start"]
    written = _finish(options, potential)
    timings["total"] = time.perf_counter() - begin
    record(
        options, home, "ai2bmd simulate", inputs=[options.input], weights=weights, timings=timings,
        ns_per_day=outcome.ns_per_day, mean_temperature_kelvin=outcome.temperature, minimisation=told,
    )  # fmt: skip
    rate = f", {outcome.ns_per_day:.3g} ns/day" if outcome.ns_per_day else ""
    mean = f", mean temperature {outcome.temperature:.0f} K" if outcome.temperature else ""
    moved = np.sqrt(np.mean(np.sum((outcome.positions[0] - potential.structure.xyz) ** 2, -1)))
    logging.getLogger(__name__).debug("moved %.2f Å", moved)
    print(f"{home}: {outcome.step} steps, {outcome.frames} frames{mean}{rate}; {', '.join(written)}")
    return 0


def _finish(options: SimulateOptions, potential: Any) -> list[str]:
    """Analyses what a run left; names of files."""
    from jaxprot.ai2bmd import predict

    written = predict.analyse(
        options.output, potential.structure, ensemble=options.ensemble, table_format=options.format
    )
    for older in options.output.glob("trajectory*.xtc"):
        older.unlink()  # of fewer frames, where a run went on
    return [*written, *(predict.write_xtc(options.output) if options.trajectory_format == "xtc" else [])]


def _line(text: str) -> None:
    """Tells of a stage on stderr, if that is no terminal, which has a bar."""
    if not sys.stderr.isatty():
        print(f"jaxprot: {text}", file=sys.stderr, flush=True)


class _bar:  # noqa: N801 - used as a function
    """Progress on stderr: steps, temperature, energy, speed; a line at the end of each stage if it is no terminal."""

    def __init__(self, cfg: Any):
        self.cfg, self.progress = cfg, None

    def __enter__(self) -> Any:
        if not sys.stderr.isatty():
            return self._ends
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.progress.__enter__()
        task = self.progress.add_task("dynamics", total=self.cfg.steps - self.cfg.first)

        def report(row: dict[str, Any]) -> None:
            self.progress.update(task, completed=row["step"] - self.cfg.first, description=self._text(row))

        return report

    @staticmethod
    def _text(row: dict[str, Any]) -> str:
        speed = f", {row['ns_per_day']:.3g} ns/day" if row["ns_per_day"] else ""
        return f"{row['time_ps']:.3f} ps, {row['temperature_kelvin']:.0f} K, {row['potential_ev']:.2f} eV{speed}"

    def _ends(self, row: dict[str, Any]) -> None:
        cfg, done = self.cfg, row["step"] - self.cfg.first
        if row["step"] <= 0 < done and done % cfg.equilibration == 0:
            _line(f"equilibration {done // cfg.equilibration} of {len(cfg.stages)}: {self._text(row)}")
        elif row["step"] > 0 and (row["step"] == cfg.steps or row["step"] * 10 % cfg.steps < cfg.record * 10):
            _line(f"production, step {row['step']} of {cfg.steps}: {self._text(row)}")

    def __exit__(self, *error: Any) -> None:
        if self.progress is not None:
            self.progress.__exit__(*error)

"""Runs of molecular dynamics: equilibration, production, what is written, what stops a run, and how it goes on.

A run is cut into chunks of `record` steps, each one program on the device. After a chunk its frame and its row of
energies are added to their files, and then the state is written whole; a run that was killed goes on from there, and
ends with the same files, bit for bit, as one that was not.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxprot.core.errors import InputError, JaxprotError
from jaxprot.core.structure import Structure
from jaxprot.core.units import KCAL_MOL
from jaxprot.io.dcd import DCDWriter
from jaxprot.io.outputs import atomic_path, write_text
from jaxprot.io.structures import write_structure
from jaxprot.md import molecule
from jaxprot.md.integrators import Dynamics, Field, Integrator, Observed, Restraint, State, wide

STATE = "restart/state.npz"
"""What a run goes on from."""

OWN = re.compile(r"(trajectory(_\d+)?\.(dcd|xtc)|(final|last)(_\d+)?\.pdb|topology\.pdb|energies\.csv)")
"""Names of a run's files: a run that begins removes those of an earlier one from its folder."""

_STRETCH, _SQUEEZE = 1.7, 0.5  # times its usual length: a bond that is broken, or collapsed
_PARTED = 1.6  # times the sum of covalent radii, beyond which two atoms were not bonded to begin with
_SIGMAS = 6.0  # a small molecule's temperature scatters; a run is stopped only beyond so many standard deviations


class RunawayError(JaxprotError, ArithmeticError):
    """A simulation that left what its potential describes."""


class ExplainedError(RunawayError):
    """A simulation whose potential says itself why it has no energy and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """A run.

    Attributes:
      dynamics: how atoms move.
      steps: of production; a multiple of `record`, as frames of a trajectory are equally far apart.
      record: steps between two frames, which are rows of energies and restart points as well.
      equilibration: steps of each stage before production, in which all atoms are held to where
        they were at its start; 0 for none.
      damping: friction of `langevin` and `nve` in those stages in 1/ps: a minimised structure takes half of the heat of
        the first velocities, which comes back within some tenths of a picosecond. The energy of `nve` is constant in
        production, which begins with the centre of mass at rest.
      stages: strength of the springs of each stage in kcal/mol/Å² (energy ½ k r²), the published ones by default.
      seed: of velocities and noise.
      replicas: molecules that move side by side from the same structure, with velocities of their own.
      runaway: times the temperature at which a run is stopped (not in `nve`).
    """

    dynamics: Dynamics = Dynamics()
    steps: int = 1000
    record: int = 100
    equilibration: int = 0
    damping: float = 25.0
    stages: tuple[float, ...] = (10.0, 5.0, 1.0, 0.5, 0.1)
    seed: int = 0
    replicas: int = 1
    runaway: float = 1.5

    def __post_init__(self):
        for name, least in (("steps", 0), ("record", 1), ("equilibration", 0), ("replicas", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.steps % self.record:
            raise ValueError(
                f"steps ({self.steps}) must be a multiple of record ({self.record}): frames are equally far apart"
            )
        if not self.runaway > 1:
            raise ValueError(f"runaway must be above 1, got {self.runaway}")

    @property
    def first(self) -> int:
        """Number of the first step: those of the equilibration are counted below 0."""
        return -self.equilibration * len(self.stages)


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
      step: the last one of production.
      frames: of each trajectory.
      ns_per_day: of production in this process after its first chunk (which is compiled), all replicas together; None
        if there was none.
      temperature: K, mean over the rows of production, that it begins with (which springs held) not among them.
      positions: (r, N, 3) Å at the end.
    """

    step: int
    frames: int
    ns_per_day: float | None
    temperature: float | None
    positions: np.ndarray


def named(name: str, replicas: int) -> list[str]:
    """Names of the file that each replica has: `final.pdb` of a single one, or `final_00.pdb` and so on."""
    stem, dot, suffix = name.rpartition(".")
    return [name] if replicas == 1 else [f"{stem}_{i:02d}{dot}{suffix}" for i in range(replicas)]


class Files:
    """Of one run: trajectories, energies, and the state it goes on from.

    Args:
      folder: of the run.
      structure: for the topology and the end.
      cfg: the run.
      counts: (frames, rows) that are kept of existing files; None to begin.
    """

    def __init__(self, folder: Path, structure: Structure, cfg: SimulationConfig, counts: tuple[int, int] | None):
        self.folder, self.structure, self.cfg = folder, structure, cfg
        self.rows = 0
        (folder / "restart").mkdir(parents=True, exist_ok=True)
        if counts is None:
            self._clear()
        frames = None if counts is None else counts[0]
        self.trajectories = [
            DCDWriter(folder / name, structure.n_atoms, cfg.dynamics.timestep, cfg.record, frames=frames)
            for name in named("trajectory.dcd", cfg.replicas)
        ]
        self._table = folder / "energies.csv"
        self._columns: list[str] | None = None
        if counts is None:
            write_structure(structure, folder / "topology.pdb", fit=True)
        else:
            self._cut(counts[1])

    def _clear(self) -> None:
        """Removes what an earlier run left, its state first: without the other files nothing could go on from it."""
        (self.folder / STATE).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if OWN.fullmatch(path.name):
                path.unlink()

    @property
    def frames(self) -> int:
        """Of each trajectory."""
        return self.trajectories[0].frames

    def _cut(self, rows: int) -> None:
        """Keeps so many rows of energies."""
        lines = self._table.read_text().splitlines() if self._table.exists() else []
        if len(lines) < rows + bool(rows):
            raise InputError(f"{self._table}: {len(lines)} lines, and the run recorded {rows}; start it anew")
        if rows:
            write_text(self._table, "\n".join(lines[: rows + 1]) + "\n")
            self._columns = lines[0].split(",")
        else:
            self._table.unlink(missing_ok=True)
        self.rows = rows

    def frame(self, positions: np.ndarray) -> None:
        """Adds (r, N, 3) positions to the trajectories."""
        for trajectory, one in zip(self.trajectories, positions, strict=True):
            trajectory.write(one)

    def energies(self, rows: list[dict[str, Any]]) -> None:
        """Adds rows to the table."""
        text = io.StringIO()
        if self._columns is None:
            self._columns = list(rows[0])
            text.write(",".join(self._columns) + "\n")
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        with open(self._table, "a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
        self.rows += len(rows)

    def places(self, name: str, positions: np.ndarray) -> list[Path]:
        """Writes (r, N, 3) positions as structures, `final.pdb` or `last.pdb`, instead of the other; their paths."""
        paths = [self.folder / one for one in named(name, self.cfg.replicas)]
        for path, xyz in zip(paths, positions, strict=True):
            write_structure(dataclasses.replace(self.structure, xyz=np.asarray(xyz, np.float32)), path, fit=True)
        for other in {"final.pdb", "last.pdb"} - {name}:
            for one in named(other, self.cfg.replicas):
                (self.folder / one).unlink(missing_ok=True)
        return paths

    def close(self) -> None:
        """Closes the trajectories."""
        for trajectory in self.trajectories:
            trajectory.close()


def simulate(
    field: Field,
    leaves: Any,
    structure: Structure,
    z: np.ndarray,
    cfg: SimulationConfig,
    folder: str | Path,
    *,
    positions: np.ndarray | None = None,
    offsets: Mapping[str, float] | None = None,
    bonds: np.ndarray | None = None,
    resume: bool = False,
    identity: str = "",
    report: Callable[[dict[str, Any]], None] | None = None,
    explain: Callable[[np.ndarray], str | None] | None = None,
) -> Outcome:
    """A run, from its beginning or from where it stopped.

    Writes `trajectory.dcd`, `final.pdb` (with replicas `trajectory_00.dcd`, `final_00.pdb` and so on), `topology.pdb`,
    `energies.csv` and `restart/state.npz`. A run that begins removes files of these names from its folder.

    Args:
      field: energies (eV) and forces (eV/Å) of positions.
      leaves: of the field.
      structure: (N atoms) for names, and where positions come from.
      z: (N,) atomic numbers.
      cfg: the run.
      folder: for the files.
      positions: (N, 3) or (r, N, 3) Å to start at instead of the structure's.
      offsets: eV that are added to terms of the energy in the table (references of elements, which no force has).
      bonds: (b, 2) int, pairs of atoms that a run must not part; None for those that are near each other in the
        structure (`molecule.bonds`).
      resume: go on from the folder's state.
      identity: of the potential; a run goes on with the same one only.
      report: called with each row.
      explain: of (N, 3) Å without an energy: why that is and what to do; None if it does not know.

    Raises:
      InputError: there is nothing to go on from, or it is of another run.
      RunawayError: not finite, too hot, or a bond is broken. The files hold all frames up to the last good one, which
        is written as `last.pdb` (`last_00.pdb` and so on) to start another run from: going on from
        `restart/state.npz` repeats the same steps.
    """
    folder, masses = Path(folder), molecule.masses(z)
    start = np.asarray(structure.xyz if positions is None else positions, np.float64)
    settings = _settings(cfg, z, identity)
    with wide():
        integrator = Integrator(field, masses, cfg.dynamics, cfg.replicas if cfg.replicas > 1 else None)
        state = integrator.start(start, jax.random.PRNGKey(cfg.seed))
        progress = Progress(cfg.first, np.asarray(state.integrator.position), 0, 0.0)
        counts = None
        if resume:
            state, counts, progress = _restored(folder / STATE, state, settings)
            if progress.step > 0 and progress.step % cfg.record:
                raise InputError(f"{folder / STATE}: of step {progress.step}, which is between two frames (every "
                                 f"{cfg.record} steps); start anew in another folder")  # fmt: skip
        files = Files(folder, structure, cfg, counts)
        pairs = molecule.bonds(z, structure.xyz) if bonds is None else np.asarray(bonds, np.int64).reshape(-1, 2)
        guard = Guard(structure, z, pairs, cfg, integrator.freedom, explain)
        observed, clock, produced, compiled = None, time.perf_counter(), 0, False
        # A copy, since the state is given away with each chunk; what a run begins with nothing has looked at yet.
        good = np.array(state.integrator.position).reshape(-1, len(z), 3) if files.rows else None
        try:
            for steps, stage in plan(cfg, progress.step, looked=files.rows > 0):
                if steps and progress.step == 0 and cfg.first < 0:
                    state = integrator.still(state)
                here = state.integrator.position
                if stage is not None and (progress.step - cfg.first) % cfg.equilibration == 0:
                    progress = progress._replace(places=np.asarray(here))
                spring = None if stage is None else Restraint(np.full(len(z), stage * KCAL_MOL), progress.places)
                damping = None if stage is None else cfg.damping
                kept = jax.tree.map(np.array, state)  # the state itself is given away

                def ahead(count: int, kept: Any = kept, spring: Any = spring, damping: Any = damping) -> Any:
                    again = jax.tree.map(jax.numpy.asarray, kept)
                    return _with_replicas(integrator.run(again, leaves, count, spring, damping)[1], cfg)

                state, observed = integrator.run(state, leaves, steps, spring, damping)
                observed = _with_replicas(jax.block_until_ready(observed), cfg)
                progress = progress._replace(step=progress.step + steps)
                try:
                    guard(observed, progress.step)
                except RunawayError:
                    told = _where(guard, ahead, observed, progress.step - steps, steps)
                    way_on = _way_on(files, good, progress.step - steps, isinstance(told, ExplainedError))
                    raise RunawayError(f"{told}; {way_on}") from None
                good = observed.positions
                if progress.step >= 0:
                    files.frame(observed.positions)
                if progress.step > 0:
                    hot = progress.heat + float(np.mean(observed.temperature))
                    progress = progress._replace(count=progress.count + 1, heat=hot)
                rows = table_rows(observed, progress.step, cfg, offsets or {})
                files.energies(rows)
                _save(folder / STATE, state, settings, files, progress)
                if not compiled or progress.step <= 0:
                    clock = time.perf_counter()  # what was compiled or equilibrated before is no speed of production
                else:
                    produced += steps
                compiled = True
                if report is not None:
                    report({**rows[0], "ns_per_day": _speed(produced, clock, cfg)})
        finally:
            files.close()
        if observed is None:  # nothing was left to do
            observed = _with_replicas(integrator.run(state, leaves, 0)[1], cfg)
    files.places("final.pdb", observed.positions)
    mean = progress.heat / progress.count if progress.count else None
    return Outcome(progress.step, files.frames, _speed(produced, clock, cfg), mean, observed.positions)


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
      step: below 0 in the equilibration.
      places: (N, 3) or (r, N, 3) Å that springs of this stage hold to.
      count: frames of production behind the first.
      heat: sum of their temperatures.
    """

    step: int
    places: np.ndarray
    count: int
    heat: float


def _where(guard: Guard, ahead: Callable[[int], Observed], end: Observed, start: int, steps: int) -> RunawayError:
    """Goes through a chunk again, for the first step that the guard does not let pass; what it raises for that one.

    The end of a chunk says little: what is not finite spreads to every atom within a step or two. The step is found by
    halving, so that some more chunks' worth of steps are all that it costs.

    Args:
      guard: of the run.
      ahead: what is observed so many steps after the beginning of the chunk.
      end: what was observed at its end.
      start: step that it began at.
      steps: of the chunk.
    """
    good, bad, before = 0, steps, None
    while bad - good > 1:
        middle = (good + bad) // 2
        seen = ahead(middle)
        try:
            guard(seen, start + middle)
            good, before = middle, seen
        except RunawayError:
            bad, end = middle, seen
    # One step from a beginning that was let pass; a look of no steps has the terms of the energy there as well.
    before = ahead(0) if before is None and steps else before
    try:
        guard(end, start + bad, before)
    except RunawayError as error:
        return error
    raise AssertionError("the guard let pass what it had stopped")


def _way_on(files: Files, good: np.ndarray | None, step: int, explained: bool) -> str:
    """Writes the last good positions of a run that was stopped, and says what to do."""
    if good is None:
        close = ": look at the structure for atoms that are too close, or give more steps of --minimise"
        return "the run begins so" + ("" if explained else close)
    paths = files.places("last.pdb", good)
    shown = str(paths[0]) + (f" (each replica has one, to {paths[-1].name})" if len(paths) > 1 else "")
    way = f"--resume would repeat it: start in another folder from the last good frame (step {step}), {shown}"
    return way + ("" if explained else ", with a smaller --timestep or a longer --equilibration")


def _with_replicas(observed: Observed, cfg: SimulationConfig) -> Observed:
    """Numpy arrays with replicas on a leading axis, also of a single one."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if cfg.replicas > 1 else np.asarray(leaf)[None], observed)


def plan(cfg: SimulationConfig, step: int, looked: bool = True) -> Iterator[tuple[int, float | None]]:
    """(steps, strength of springs or None) of each chunk from a step on; none crosses a stage's end.

    The first one of a run that has not been looked at has no steps.
    """
    if not looked:
        yield 0, None
    while step < cfg.steps:
        if step < 0:
            number = (step - cfg.first) // cfg.equilibration
            end, stage = cfg.first + (number + 1) * cfg.equilibration, cfg.stages[number]
            steps = min(cfg.record, end - step)
        else:
            stage, steps = None, cfg.record
        yield steps, stage
        step += steps


def table_rows(
    observed: Observed, step: int, cfg: SimulationConfig, offsets: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Rows of `energies.csv`, one for each replica."""
    rows = []
    for replica in range(cfg.replicas):
        terms = {name: float(value[replica]) + offsets.get(name, 0.0) for name, value in observed.terms.items()}
        kinetic, potential = float(observed.kinetic[replica]), math.fsum(terms.values())
        rows.append(
            {
                "step": step,
                "time_ps": round(step * cfg.dynamics.timestep / 1000, 9),
                **({"replica": replica} if cfg.replicas > 1 else {}),
                "temperature_kelvin": float(observed.temperature[replica]),
                "total_ev": potential + kinetic,
                "kinetic_ev": kinetic,
                "potential_ev": potential,
                **{f"{name}_ev": value for name, value in terms.items()},
            }
        )
    return rows


def _speed(steps: int, begin: float, cfg: SimulationConfig) -> float | None:
    seconds = time.perf_counter() - begin
    return steps * cfg.replicas * cfg.dynamics.timestep * 1e-6 / seconds * 86400 if steps and seconds > 0 else None


class Guard:
    """Stops a run that left what its potential describes, and says where.

    Args:
      structure: for names.
      z: (N,) atomic numbers, for the usual lengths of bonds, as those of the structure may be strained: a disulfide is
        read up to 3 Å, and a hydrogen may begin at half its distance.
      bonds: (b, 2) pairs of atoms that stay together; those that are no bond begin at the length that is theirs.
      cfg: the run.
      freedom: degrees of freedom.
      explain: see `simulate`.
    """

    def __init__(
        self,
        structure: Structure,
        z: np.ndarray,
        bonds: np.ndarray,
        cfg: SimulationConfig,
        freedom: int,
        explain: Callable[[np.ndarray], str | None] | None = None,
    ):
        self.structure, self.bonds, self.cfg, self.explain = structure, bonds, cfg, explain
        usual, first = molecule.radii(z)[bonds].sum(-1), self._lengths(np.asarray(structure.xyz, np.float64))
        self.lengths = np.where(first > _PARTED * usual, first, usual)
        scatter = 1 + _SIGMAS * math.sqrt(2 / max(freedom, 1))
        self.hottest = None if cfg.dynamics.ensemble == "nve" else max(cfg.runaway, scatter) * cfg.dynamics.temperature

    def _lengths(self, xyz: np.ndarray) -> np.ndarray:
        return np.linalg.norm(xyz[..., self.bonds[:, 0], :] - xyz[..., self.bonds[:, 1], :], axis=-1)

    def __call__(self, observed: Observed, step: int, before: Observed | None = None) -> None:
        """Looks at (r, ...) observations.

        Args:
          observed: at the step.
          step: number.
          before: at the step before, which tells the atoms to look at where all are lost.

        Raises:
          RunawayError: naming step, and atoms or term of the energy.
        """
        for replica, xyz in enumerate(observed.positions):
            where = f"step {step}" + (f", replica {replica}" if self.cfg.replicas > 1 else "")
            bad = ~np.isfinite(xyz).all(-1) | ~np.isfinite(observed.forces[replica]).all(-1)
            if bad.any() and np.isfinite(xyz).all() and (why := self.explain and self.explain(xyz)):
                raise ExplainedError(f"{where}: {why}")
            last = "" if before is None else f"; at the step before {self._largest(before, replica)}"
            if bad.all() and len(bad) > 1:
                raise RunawayError(f"{where}: no atom's position and force are finite{last}")
            if bad.any():
                raise RunawayError(f"{where}: {self._names(np.flatnonzero(bad))} not finite{last}")
            energies = {**observed.terms, "kinetic": observed.kinetic}
            lost = [f"{name} ({value[replica]})" for name, value in energies.items() if not np.isfinite(value[replica])]
            if lost:
                raise RunawayError(f"{where}: energy not finite: {', '.join(lost)}{last}")
            ratio = self._lengths(xyz) / self.lengths
            wrong = np.flatnonzero((ratio > _STRETCH) | (ratio < _SQUEEZE))
            if len(wrong):
                worst = wrong[np.argmax(np.abs(np.log(ratio[wrong])))]
                pair = " - ".join(molecule.label(self.structure, atom) for atom in self.bonds[worst])
                raise RunawayError(
                    f"{where}: bond {pair} is {ratio[worst] * self.lengths[worst]:.2f} Å long, {ratio[worst]:.2f} "
                    f"times its usual length ({len(wrong)} such bonds)"
                )
            if self.hottest is not None and observed.temperature[replica] > self.hottest:
                raise RunawayError(
                    f"{where}: {observed.temperature[replica]:.0f} K, set were {self.cfg.dynamics.temperature:g}; "
                    f"{self._largest(observed, replica)}"
                )

    def _largest(self, observed: Observed, replica: int) -> str:
        forces = np.linalg.norm(observed.forces[replica], axis=-1)
        return f"the largest force, {forces.max():.1f} eV/Å, is on {self._names([int(forces.argmax())])}"

    def _names(self, atoms: Any) -> str:
        shown = ", ".join(molecule.label(self.structure, atom) for atom in atoms[:3])
        return shown + (f" and {len(atoms) - 3} more" if len(atoms) > 3 else "")


def _settings(cfg: SimulationConfig, z: np.ndarray, identity: str) -> str:
    """What a run that goes on must share with its beginning; it may be longer."""
    values = dataclasses.asdict(cfg)
    for name in ("steps", "runaway"):
        values.pop(name)
    values |= {"atoms": hashlib.sha256(np.asarray(z, np.int32).tobytes()).hexdigest(), "potential": identity}
    return json.dumps(values, sort_keys=True)


def _save(path: Path, state: State, settings: str, files: Files, progress: Progress) -> None:
    leaves = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, settings=settings, frames=files.frames, rows=files.rows, **progress._asdict(), **leaves)


def _restored(path: Path, template: State, settings: str) -> tuple[State, tuple[int, int], Progress]:
    """State, frames and rows of the files, and progress."""
    try:
        with np.load(path, allow_pickle=False) as z:
            found = {name: z[name] for name in z.files}
        theirs, ours = json.loads(str(found["settings"])), json.loads(settings)
        counts = int(found["frames"]), int(found["rows"])
        progress = Progress(int(found["step"]), found["places"], int(found["count"]), float(found["heat"]))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no state to go on from; start without --resume") from error
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not the state of a run ({error}); start anew") from error
    if theirs != ours:
        differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        raise InputError(f"{path}: of a run with another {', '.join(differing)}; start anew in another folder")
    leaves, tree = jax.tree.flatten(template)
    restored = [found.get(f"leaf_{i}") for i in range(len(leaves))]
    if any(a is None or a.shape != np.shape(b) for a, b in zip(restored, leaves, strict=True)):
        raise InputError(f"{path}: a state of another version or molecule; start anew")
    values = [jax.numpy.asarray(a, b.dtype) for a, b in zip(restored, leaves, strict=True)]
    return jax.tree.unflatten(tree, values), counts, progress

"""From weights to potentials of molecules, and what is written of their energies."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxprot.ai2bmd import cautions
from jaxprot.ai2bmd.potential import Evaluation, Potential, PotentialConfig
from jaxprot.core.errors import InputError, naming
from jaxprot.core.structure import Structure
from jaxprot.io.outputs import atomic_path, write_json
from jaxprot.io.structures import read_structure
from jaxprot.io.tables import read_table
from jaxprot.visnet import weights
from jaxprot.visnet.model import ViSNet
from jaxprot.weights import registry

if TYPE_CHECKING:
    from jaxprot.md.simulate import Outcome, SimulationConfig


TABLES = ("rmsd", "rmsf", "couplings")
"""Tables that `analyse` writes."""

ANALYSED = (
    "energies.png", *(f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")), "torsions.npz",
    "ramachandran.png", "analysis.json",
)  # fmt: skip
"""What `analyse` writes."""


class Predictor:
    """A trained network, from which potentials are made.

    Args:
      network: the network.
      source: where its weights come from.
      units: names of the units that they learnt from, as in `Fragmentation.unit_name`; None if the file does not tell.
    """

    def __init__(self, network: ViSNet, source: str = "", units: Collection[str] | None = None):
        self.network, self.source, self.units = network, source, units

    def potential(self, structure: Structure | str | os.PathLike, **options: Any) -> Potential:
        """The potential of a molecule.

        Args:
          structure: it, or its file (the first model is taken).
          **options: fields of `PotentialConfig`.

        Raises:
          InputError: see `Potential`; or an option that is none.
        """
        try:
            cfg = PotentialConfig(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"potential: {error}") from error
        read = structure if isinstance(structure, Structure) else read_structure(structure)
        with naming(structure, read.name):
            return Potential(self.network, read.first_model(), cfg, self.units)

    def energy(self, structure: Structure | str | os.PathLike, **options: Any) -> Evaluation:
        """Energies and forces of a molecule as it stands; arguments as in `potential`."""
        return self.potential(structure, **options).evaluate()


def load(path: str | os.PathLike, **config: Any) -> Predictor:
    """A predictor with the weights of a file.

    Args:
      path: of this library, an official `.ckpt`, a state dict of PyG's ViSNet, or a registered name.
      **config: fields of `ViSNetConfig` in place of the file's.

    Raises:
      InputError: no such file or name.
      CheckpointError: not such weights.
    """
    found, _ = registry.resolve(path)
    cfg, tensors = weights.read(found, **config)
    return Predictor(weights.assemble(cfg, tensors), os.fspath(path), weights.learnt(found))


def write(found: Evaluation, potential: Potential, folder: str | os.PathLike) -> list[str]:
    """Writes `energy.json` and `forces.npz`; their names.

    The first has `total_ev` and the terms in eV, the options, and the number of atoms and units; the second (N, 3)
    arrays in eV/Å in the order of the input's atoms.
    """
    folder = Path(folder)
    made = potential.fragmentation
    write_json(
        folder / "energy.json",
        {
            "total_ev": found.energy,
            **{f"{name}_ev": value for name, value in found.energies.items()},
            "atoms": len(potential.z),
            "units": 1 if made is None else made.n_units,
            "charge": None if made is None else made.total_charge,
            "largest_force_ev_angstrom": float(np.linalg.norm(found.total_forces, axis=-1).max()),
            "options": dataclasses.asdict(potential.cfg),
        },
    )
    with atomic_path(folder / "forces.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, total=found.total_forces, **found.forces)  # type: ignore[arg-type]
    return ["energy.json", "forces.npz"]


def simulate(
    potential: Potential,
    cfg: SimulationConfig,
    folder: str | os.PathLike,
    *,
    resume: bool = False,
    identity: str = "",
    downhill: int = 200,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Outcome, dict[str, float]]:
    """Dynamics of a molecule in its potential, see `jaxprot.md.simulate`.

    A run that begins removes from its folder what an earlier one left, pictures, tables and `run.json` as well.

    Args:
      potential: of the molecule.
      cfg: the run.
      folder: for the files.
      resume: go on with the run in the folder.
      identity: of weights, options and structure; a run goes on with the same ones only.
      downhill: steps of minimisation before a run begins, at most; 0 for none.
      report: called with each row of energies.

    Returns:
      What the run came to, and the figures of the minimisation (empty if there was none).

    Raises:
      InputError: nothing to go on from, or the potential has no energy of the structure.
      RunawayError: see `jaxprot.md.simulate`.
    """
    from jaxprot.md import integrators
    from jaxprot.md import simulate as dynamics

    if downhill < 0:
        raise InputError(f"{downhill} steps of minimisation: give 0 or more")
    caution(potential)
    told: dict[str, float] = {}
    start = np.asarray(potential.structure.xyz, np.float64)
    if downhill and not resume:
        try:
            with integrators.wide():
                found, told = integrators.minimise(
                    potential.field, potential.leaves, start, most=downhill, explain=potential.overflow
                )
                start = np.asarray(found)
        except InputError as error:
            raise InputError(f"{potential.structure.name}: {error}") from error
    if not resume:
        for name in (*ANALYSED, "run.json"):
            (Path(folder) / name).unlink(missing_ok=True)
    outcome = dynamics.simulate(
        potential.field,
        potential.leaves,
        potential.structure,
        potential.z,
        cfg,
        folder,
        positions=start,
        offsets=potential.references,
        bonds=getattr(potential, "bonds", None),
        resume=resume,
        identity=identity,
        report=report,
        explain=potential.overflow,
    )
    return outcome, told


def caution(potential: Potential) -> None:
    """Warns of charged residues of a protein in vacuum."""
    if potential.fragmentation is not None and potential.cfg.solvent == "none":
        cautions.charged_in_vacuum(potential.fragmentation)


def analyse(
    folder: str | os.PathLike, structure: Structure, *, ensemble: str | None = None, table_format: str = "csv"
) -> list[str]:
    """Writes what a run's trajectories tell; names of the run's files and these.

    `energies.png`; and of proteins, over all replicas, `rmsd.csv` (alpha carbons to the structure, Å), `rmsf.csv`,
    `couplings.csv` (³J(HN-HA) in Hz), `torsions.npz`, `ramachandran.png` and `analysis.json`. What the latter says of
    temperature and energy is of the steps behind the first frame, whose energy may be that of restraints as well.

    Args:
      folder: of the run.
      structure: that it began with.
      ensemble: of the run; the drift of the total energy is told with `nve` only, as thermostats exchange heat.
      table_format: `csv` or `parquet`, of the tables of the analysis.
    """
    import pandas as pd

    from jaxprot.io.dcd import read_frames
    from jaxprot.io.tables import write_table
    from jaxprot.md import analysis
    from jaxprot.md.simulate import named
    from jaxprot.plots import dynamics as plots

    folder = Path(folder)
    table = pd.read_csv(folder / "energies.csv")
    with atomic_path(folder / "energies.png") as temporary:
        plots.energy_trace(table, temporary, structure.name)
    replicas = int(table.replica.max()) + 1 if "replica" in table else 1
    trajectories = named("trajectory.dcd", replicas)
    ends = [name for end in ("final.pdb", "last.pdb") for name in named(end, replicas) if (folder / name).is_file()]
    written = [*trajectories, *ends, "energies.csv", "energies.png"]
    read = [read_frames(folder / name) for name in trajectories]
    found = [analysis.analyse(structure, frames, structure.xyz) for frames in read if frames.size]
    if not found:
        return written
    produced = table[table.step >= 0]
    times = np.unique(produced.time_ps)
    columns: dict[str, Any] = {"time_ps": times}
    columns |= {f"rmsd_angstrom{_end(i, len(found))}": one.rmsd for i, one in enumerate(found)}
    tables = {"rmsd": columns}
    first = found[0].backbone
    residue = np.flatnonzero(np.isfinite(found[0].rmsf))
    fluctuation = {f"rmsf_angstrom{_end(i, len(found))}": one.rmsf[residue] for i, one in enumerate(found)}
    tables["rmsf"] = {**_residues(structure, residue), **fluctuation}
    coupled = np.flatnonzero(first.amide)
    coupling = np.mean([one.coupling[coupled] for one in found], 0)
    tables["couplings"] = {**_residues(structure, first.residue[coupled]), "j_hn_ha_hz": coupling}
    for name in TABLES:
        written.append(write_table(tables[name], folder / name, table_format).name)
        for other in {"csv", "parquet"} - {table_format}:  # of an earlier end of the run
            (folder / f"{name}.{other}").unlink(missing_ok=True)
    phi, psi = (np.concatenate([getattr(one, name) for one in found]) for name in ("phi", "psi"))
    with atomic_path(folder / "torsions.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, phi=phi, psi=psi, residue=first.residue)
    written.append("torsions.npz")
    if phi.size:
        with atomic_path(folder / "ramachandran.png") as temporary:
            plots.ramachandran(phi, psi, temporary, structure.name)
        written.append("ramachandran.png")
    last = [float(one.rmsd[-1]) for one in found]
    moving = table[table.step > 0]
    write_json(
        folder / "analysis.json",
        {
            "frames": sum(len(one.rmsd) for one in found),
            "time_ps": float(times[-1]),
            "rmsd_ca_end_angstrom": last,
            "rmsd_ca_mean_angstrom": float(np.mean([one.rmsd.mean() for one in found])),
            "temperature_mean_kelvin": float(moving.temperature_kelvin.mean()) if len(moving) else None,
            "total_energy_drift_ev_per_atom_ps": _drift(moving, structure.n_atoms) if ensemble == "nve" else None,
        },
    )
    return [*written, "analysis.json"]


def write_xtc(folder: str | os.PathLike) -> list[str]:
    """Writes the DCD trajectories of a run as XTC files beside them; their names.

    The DCD files stay, as a run goes on by adding to them.
    """
    from jaxprot.io import trajectories
    from jaxprot.io.dcd import read_frames

    folder, written = Path(folder), []
    table = read_table(folder / "energies.csv")
    produced = np.asarray(table["step"]) >= 0
    first = np.unique(np.asarray(table["step"])[produced], return_index=True)[1]
    steps, times = (np.asarray(table[name])[produced][first] for name in ("step", "time_ps"))
    for path in sorted(folder.glob("trajectory*.dcd")):
        trajectories.write_xtc(path.with_suffix(".xtc"), read_frames(path), times, steps)
        written.append(path.with_suffix(".xtc").name)
    return written


def _end(number: int, count: int) -> str:
    return "" if count == 1 else f"_{number:02d}"


def _residues(structure: Structure, rows: np.ndarray) -> dict[str, Any]:
    return {
        "chain": structure.chain_id[structure.res_chain[rows]],
        "resid": structure.resid[rows],
        "icode": structure.icode[rows],
        "resname": structure.res_name[rows],
    }


def _drift(table: Any, atoms: int) -> float | None:
    """Slope of the total energy over time, mean over replicas."""
    groups = [table] if "replica" not in table else [part for _, part in table.groupby("replica")]
    slopes = [np.polyfit(one.time_ps, one.total_ev, 1)[0] / atoms for one in groups if len(one) > 2]
    return float(np.mean(slopes)) if slopes else None

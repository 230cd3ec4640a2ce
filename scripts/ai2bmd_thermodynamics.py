"""Folding thermodynamics of a protein from simulations at several temperatures.

    for t in 300 320 340 360; do
      jaxprot ai2bmd simulate chignolin.pdb --solvent gb --temperature $t --replicas 4 --steps 1000000 -o runs/chig/$t
    done
    python scripts/ai2bmd_thermodynamics.py runs/chig/* --output runs/chig-folding

Configurations of all runs are weighted for each temperature (MBAR; temperatures and potential energies are those of
the runs' files) and told apart by their share of native contacts: folded above `--folded`. Gives free energy, enthalpy
and heat capacity of unfolding over temperature, and the melting temperature, with intervals from blocks of the runs
drawn with replacement. Pressure times volume is left out, and the solvent's energy is taken as independent of
temperature, as generalised Born makes it. Writes thermodynamics.csv, thermodynamics.json, contacts.csv (each frame) and
thermodynamics.png. The first `--skip` of each run is left out.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Frames(NamedTuple):
    """Of one replica of a run: name, temperature in K, times in ps, potential energies in eV, native contacts."""

    name: str
    temperature: float
    time: np.ndarray
    energy: np.ndarray
    contacts: np.ndarray


def read_run(folder: pathlib.Path, native: Any, skip: float) -> list[Frames]:
    """Replicas of a run."""
    import json

    import pandas as pd

    from jaxprot.core.errors import InputError
    from jaxprot.io.dcd import read_frames
    from jaxprot.io.structures import read_structure
    from jaxprot.md.analysis import native_contacts
    from jaxprot.md.simulate import named

    try:
        record = json.loads((folder / "run.json").read_text())
        options = record["arguments"]
        temperature = float(options["temperature"])
        ensemble, failed = options["ensemble"], record.get("failed")
        table = pd.read_csv(folder / "energies.csv")
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: no run of `jaxprot ai2bmd simulate`: {error}") from error
    if ensemble == "nve":
        raise InputError(f"{folder}: simulated at constant energy; its temperature is not kept")
    if failed:
        raise InputError(f"{folder}: was stopped before its end: {'; '.join(failed.values())}")
    structure = read_structure(folder / "topology.pdb")
    reference = structure.xyz if native is None else native.xyz
    if reference.shape != structure.xyz.shape:
        raise InputError(f"{folder}: {structure.n_atoms} atoms, and the native structure has {len(reference)}")
    table = table[table.step > 0]  # equilibration is counted below, and the start is no sample
    parts, names = [table], named("trajectory.dcd", 1)
    if "replica" in table:
        parts = [rows for _, rows in table.groupby("replica")]
        names = named("trajectory.dcd", len(parts))
    out = []
    for number, (rows, name) in enumerate(zip(parts, names, strict=True)):
        path = folder / name
        frames = read_frames(path)
        if len(frames) < len(rows):
            raise InputError(f"{path}: {len(frames)} frames for {len(rows)} rows of energies")
        first = int(skip * len(rows))
        frames = frames[len(frames) - len(rows) :][first:]
        rows = rows.iloc[first:]
        if len(rows):
            contacts = native_contacts(structure, frames, reference)
            time, energy = rows.time_ps.to_numpy(), rows.potential_ev.to_numpy()
            out.append(Frames(f"{folder.name}/{number}", temperature, time, energy, contacts))
    if not out:
        raise InputError(f"{folder}: no frames of production")
    return out


def picture(found: Any, spread: list[Any], runs: list[Frames], path: pathlib.Path) -> None:
    """Stability, enthalpy and heat capacity over temperature; contacts over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from jaxprot.core.units import KCAL_MOL

    figure = Figure(figsize=(9, 6.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2).ravel()
    panels = [("free_energy", "free energy of unfolding (kcal/mol)", 1 / KCAL_MOL),
              ("enthalpy", "enthalpy of unfolding (kcal/mol)", 1 / KCAL_MOL),
              ("heat_capacity", "heat capacity (kcal/mol/K)", 1 / KCAL_MOL)]  # fmt: skip
    for axes, (name, label, scale) in zip(grid, panels, strict=False):
        if spread:
            low, high = np.percentile([getattr(one, name) for one in spread], (2.5, 97.5), axis=0) * scale
            axes.fill_between(found.temperature, low, high, alpha=0.25, linewidth=0)
        axes.plot(found.temperature, getattr(found, name) * scale)
        if np.isfinite(found.melting):
            axes.axvline(found.melting, color="0.6", linestyle=":")
        axes.set_xlabel("temperature (K)")
        axes.set_ylabel(label)
    grid[0].axhline(0, color="0.6", linewidth=0.8)
    for one in runs:
        grid[3].plot(one.time, one.contacts, linewidth=0.7, label=f"{one.name} ({one.temperature:.0f} K)")
    grid[3].set_xlabel("time (ps)")
    grid[3].set_ylabel("share of native contacts")
    if len(runs) <= 12:
        grid[3].legend(fontsize=6, frameon=False)
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", help="folders of `jaxprot ai2bmd simulate`")
    parser.add_argument("--native", type=pathlib.Path, help="folded structure, the runs' own topology.pdb by default")
    parser.add_argument("--folded", type=float, default=0.6, help="share of native contacts above which it is folded")
    parser.add_argument("--skip", type=float, default=0.1, help="share of each run that is left out at its start")
    parser.add_argument("--margin", type=float, default=20.0, help="K beyond the simulated temperatures")
    parser.add_argument("--draws", type=int, default=100, help="for the intervals; 0 for none")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."), help="folder")
    args = parser.parse_args(argv)
    if not (0 < args.folded < 1 and 0 <= args.skip < 1):
        parser.error("--folded and --skip are shares, between 0 and 1")

    from jaxprot.core.errors import JaxprotError
    from jaxprot.core.units import KCAL_MOL
    from jaxprot.io.outputs import atomic_path, write_json
    from jaxprot.io.structures import read_structure
    from jaxprot.io.tables import write_table
    from jaxprot.md import thermodynamics

    try:
        native = None if args.native is None else read_structure(args.native)
        runs = [one for folder in args.runs for one in read_run(folder, native, args.skip)]
        lengths = [len(one.time) for one in runs]
        columns: dict[str, Any] = {
            "run": np.repeat([one.name for one in runs], lengths),
            "temperature_kelvin": np.repeat([one.temperature for one in runs], lengths),
        }
        for name, key in (("time", "time_ps"), ("energy", "potential_ev"), ("contacts", "native_contacts")):
            columns[key] = np.concatenate([getattr(one, name) for one in runs])
        energies, temperatures = [one.energy for one in runs], [one.temperature for one in runs]
        folded = [one.contacts > args.folded for one in runs]
        at = np.arange(min(temperatures) - args.margin, max(temperatures) + args.margin + 0.5, 1.0)
        weights = thermodynamics.reweighting(energies, temperatures)
        found = thermodynamics.folding(weights, np.concatenate(folded), at)
        spread = thermodynamics.bootstrap(energies, folded, temperatures, at, draws=args.draws) if args.draws else []
    except (JaxprotError, FileNotFoundError) as error:
        parser.error(str(error))

    args.output.mkdir(parents=True, exist_ok=True)
    write_table(columns, args.output / "contacts.csv")
    units = {"free_energy": "kcal_mol", "enthalpy": "kcal_mol", "heat_capacity": "kcal_mol_kelvin",
             "heat_capacity_change": "kcal_mol_kelvin"}  # fmt: skip
    table = {"temperature_kelvin": found.temperature, "folded": found.folded}
    table |= {f"{name}_{unit}": getattr(found, name) / KCAL_MOL for name, unit in units.items()}
    write_table({**table, "effective_configurations": found.effective}, args.output / "thermodynamics.csv")
    melting = [one.melting for one in spread if np.isfinite(one.melting)]
    interval = np.percentile(melting, (2.5, 97.5)).tolist() if len(melting) > 1 else None
    crossed = bool(np.isfinite(found.melting))
    row = int(np.argmin(np.abs(at - found.melting))) if crossed else int(np.argmin(np.abs(at - temperatures[0])))
    told = {
        "configurations": int(sum(lengths)), "temperatures_kelvin": sorted(set(temperatures)),
        "melting_kelvin": found.melting if crossed else None, "melting_interval_kelvin": interval,
        "at_kelvin": float(at[row]), **{f"{n}_{u}": float(getattr(found, n)[row] / KCAL_MOL) for n, u in units.items()},
        "effective_configurations": float(found.effective[row]), "draws": len(spread),
    }  # fmt: skip
    write_json(args.output / "thermodynamics.json", told)
    with atomic_path(args.output / "thermodynamics.png") as temporary:
        picture(found, spread, runs, temporary)
    for key, value in told.items():
        print(f"{key}: {value}")
    if not crossed:
        print("no melting temperature between these temperatures: figures are at the first one")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Accuracy of a potential on labelled units and proteins, beside a classical force field; ³J couplings beside NMR.

    python scripts/ai2bmd_accuracy.py --units data/units --output runs/accuracy
    python scripts/ai2bmd_accuracy.py --protein labelled.npz chignolin.pdb --output runs/accuracy
    python scripts/ai2bmd_accuracy.py --gfn2 chignolin.pdb runs/chignolin/trajectory.dcd --output runs/accuracy
    python scripts/ai2bmd_accuracy.py --couplings runs/chignolin measured.csv --output runs/accuracy

Laid out as the tables of AI2BMD (Nature 2024, doi 10.1038/s41586-024-08127-z): mean absolute errors of energies
(kcal/mol, and per atom) and of the components of forces (kcal/mol/Å), by unit and by protein, of the potential and of
ff14SB (needs `jaxprot[prepare]`; left out without). Zeros of energy differ between methods, so the mean difference of
each molecule is taken off first. Labels are those of `scripts/prepare_units.py`; of a protein, frames of a run are
labelled by

    python scripts/prepare_units.py --label runs/chignolin/trajectory.dcd --topology chignolin.pdb --output labelled

or, a few of them, here: `--gfn2` takes `--frames` of them, spread over the trajectory, through GFN2-xTB as a whole and
in vacuum (needs `jaxprot[labels]`; some seconds each for chignolin, growing by the cube of the atoms) and keeps the
labels as STRUCTURE_gfn2.npz in the output folder, where another call finds them.

Couplings: `couplings.csv` of a run against a table with the columns resid and j_hn_ha_hz (and chain, where there are
several). Writes accuracy.csv and couplings_compared.csv.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def classical(z: np.ndarray, names: np.ndarray, residues: list[tuple[str, np.ndarray]], first: np.ndarray) -> Any:
    """ff14SB in vacuum as a function of positions in Å: eV and eV/Å; None if OpenMM is not installed.

    Args:
      z: (A,) atomic numbers.
      names: (A,) of the atoms.
      residues: name and rows of each.
      first: (A, 3) Å, for the bonds.
    """
    try:
        import openmm
        from openmm import app, unit
    except ImportError:
        return None
    from jaxprot.core.units import KJ_MOL
    from jaxprot.md import molecule

    topology, atoms = app.Topology(), {}
    chain = topology.addChain()
    for name, rows in residues:
        residue = topology.addResidue(name, chain)
        for row in rows:
            atoms[row] = topology.addAtom(str(names[row]), app.Element.getByAtomicNumber(int(z[row])), residue)
    for a, b in molecule.bonds(z, first):
        topology.addBond(atoms[int(a)], atoms[int(b)])
    system = app.ForceField("amber14-all.xml").createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    order = np.array(list(atoms))  # OpenMM's own order of the atoms

    def evaluate(xyz: np.ndarray) -> tuple[float, np.ndarray]:
        context.setPositions(np.asarray(xyz, np.float64)[order] / 10)
        state = context.getState(getEnergy=True, getForces=True)
        forces = np.empty((len(z), 3))
        kilojoule = unit.kilojoule_per_mole
        forces[order] = state.getForces(asNumpy=True).value_in_unit(kilojoule / unit.angstrom)
        return state.getPotentialEnergy().value_in_unit(kilojoule) * KJ_MOL, forces * KJ_MOL

    return evaluate


def errors(labels: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Mean absolute errors in kcal/mol, after taking off the mean difference, and kcal/mol/Å."""
    from jaxprot.core.units import KCAL_MOL

    difference = np.asarray(found[0]) - labels[0]
    energy = np.abs(difference - difference.mean()).mean() / KCAL_MOL
    return float(energy), float(np.abs(np.asarray(found[1]) - labels[1]).mean() / KCAL_MOL)


def chosen(count: int, most: int) -> np.ndarray:
    """Rows, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def of_names(path: pathlib.Path) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]] | None:
    """Names of atoms, and residues with their rows, of a labelled unit; None if the file does not tell."""
    import io
    import lzma

    raw = path.read_bytes()
    with np.load(io.BytesIO(lzma.decompress(raw) if path.suffix == ".xz" else raw), allow_pickle=False) as z:
        if "atom_name" not in z or "residue_name" not in z:
            return None
        names, of = z["atom_name"].astype(str), z["residue_name"].astype(str)
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    return names, [(str(of[rows[0]]), rows) for rows in np.split(np.arange(len(of)), starts[1:])]


def unit_rows(folder: pathlib.Path, weights: str, most: int, held: bool) -> Iterator[dict[str, Any]]:
    """A row of each unit and method."""
    from jaxprot.visnet import predict
    from jaxprot.visnet.data import EnergyForceTask
    from jaxprot.weights import registry

    task = EnergyForceTask(data=(str(folder),))
    files = {pathlib.Path(path).name.partition(".")[0].partition("_")[0]: pathlib.Path(path) for path in task.files()}
    predictor = predict.load(registry.resolve(weights, "ai2bmd")[0])
    for name, one in task.sets.items():
        rows = task.held_back(name) if held else np.arange(len(one.energy))
        rows = rows[chosen(len(rows), most)]
        labels = one.energy[rows], one.forces[rows]
        found = predictor.energy_and_forces([one.z] * len(rows), list(one.positions[rows]))
        yield told(name.upper(), "potential", one.z, rows, errors(labels, (found.energy, np.stack(found.forces))))
        named = of_names(files[name])
        evaluate = None if named is None else classical(one.z, *named, one.positions[rows[0]])
        if evaluate is not None:
            yield told(name.upper(), "ff14SB", one.z, rows, errors(labels, collected(evaluate, one.positions[rows])))


def collected(evaluate: Any, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies and forces of all frames."""
    energies, forces = zip(*[evaluate(xyz) for xyz in frames], strict=True)
    return np.array(energies), np.stack(forces)


def told(name: str, method: str, z: np.ndarray, rows: np.ndarray, found: tuple[float, float]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "molecule": name, "method": method, "atoms": len(z), "conformations": len(rows),
        "energy_kcal_mol": found[0], "energy_kcal_mol_atom": found[0] / len(z), "forces_kcal_mol_angstrom": found[1],
    }  # fmt: skip


def protein_rows(path: pathlib.Path, topology: pathlib.Path, weights: str, most: int) -> Iterator[dict[str, Any]]:
    """A row of each method for a labelled protein."""
    from jaxprot.ai2bmd import predict
    from jaxprot.core.errors import InputError
    from jaxprot.visnet.data import read_snapshots
    from jaxprot.weights import registry

    one = read_snapshots(path)
    potential = predict.load(registry.resolve(weights, "ai2bmd")[0]).potential(topology)
    if not np.array_equal(potential.z, one.z):
        raise InputError(f"{path}: its atoms are not those of {topology}, in this order")
    rows = chosen(len(one.energy), most)
    labels, frames = (one.energy[rows], one.forces[rows]), np.float64(one.positions[rows])

    def evaluate(xyz: np.ndarray) -> tuple[float, np.ndarray]:
        found = potential.evaluate(xyz)
        return found.energy, found.total_forces

    name = topology.stem
    yield told(name, "potential", one.z, rows, errors(labels, collected(evaluate, frames)))
    structure = potential.structure
    residues = [(str(n), np.flatnonzero(structure.atom_residue == i)) for i, n in enumerate(structure.res_name)]
    field = classical(one.z, structure.atom_name, residues, frames[0])
    if field is not None:
        yield told(name, "ff14SB", one.z, rows, errors(labels, collected(field, frames)))


def labelled(structure: pathlib.Path, trajectory: pathlib.Path, frames: int, folder: pathlib.Path) -> pathlib.Path:
    """File of some frames of a trajectory of a capped protein with GFN2-xTB energies and forces of the whole."""
    import runpy

    from jaxprot.ai2bmd.fragment import fragment
    from jaxprot.core.errors import InputError
    from jaxprot.io.outputs import sha256
    from jaxprot.io.structures import read_structure

    path, source = folder / f"{structure.stem}_gfn2.npz", f"{sha256(trajectory)} {frames}"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            if "source" in file and str(file["source"]) == source:
                return path
    script = runpy.run_path(str(ROOT / "scripts" / "prepare_units.py"))
    given = script["read_given"](trajectory, structure)
    charge = fragment(read_structure(structure).first_model()).total_charge
    evaluate = script["labeller"]("gfn2", given.z, charge, str(structure))
    kept = []
    for row in chosen(len(given.positions), frames):
        found = evaluate(np.asarray(given.positions[row], np.float64))
        if found is None:
            print(f"{trajectory}: frame {row + 1} does not converge and is left out", file=sys.stderr)
        else:
            kept.append((given.positions[row], *found))
    if len(kept) < 2:
        raise InputError(f"{trajectory}: {len(kept)} frames with a label, and differences need two")
    columns = dict(zip("REF", map(np.array, zip(*kept, strict=True)), strict=True))
    script["write"](path, Z=given.z, **columns, charge=charge, source=source)
    return path


def couplings(run: pathlib.Path, measured: pathlib.Path, output: pathlib.Path) -> None:
    """Couplings of a run beside measured ones."""
    import pandas as pd

    from jaxprot.core.errors import InputError
    from jaxprot.io.tables import write_table

    tables = []
    for path in (run / "couplings.csv", measured):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        tables.append(pd.read_csv(path, dtype={"chain": str}))
        if not {"resid", "j_hn_ha_hz"} <= set(tables[-1]):
            raise InputError(f"{path}: needs the columns resid and j_hn_ha_hz")
    keys = ["chain", "resid"] if "chain" in tables[1] else ["resid"]
    joined = tables[0].merge(tables[1][[*keys, "j_hn_ha_hz"]], on=keys, suffixes=("", "_measured"))
    if not len(joined):
        raise InputError(f"{measured}: no residue of {run / 'couplings.csv'}")
    write_table(joined, output / "couplings_compared.csv")
    difference = joined.j_hn_ha_hz - joined.j_hn_ha_hz_measured
    print(joined.to_string(index=False))
    print(f"RMSD {np.sqrt(np.mean(difference**2)):.2f} Hz over {len(joined)} residues", end="")
    if len(joined) > 2:
        print(f", r {np.corrcoef(joined.j_hn_ha_hz, joined.j_hn_ha_hz_measured)[0, 1]:.2f}", end="")
    print()


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=pathlib.Path, help="folder of labelled units")
    parser.add_argument("--held-back", action="store_true", help="of them, what training left out")
    parser.add_argument(
        "--protein", type=pathlib.Path, nargs=2, action="append", default=[], metavar=("LABELS", "STRUCTURE"),
        help="labelled frames and the capped structure of a protein; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--gfn2", type=pathlib.Path, nargs=2, action="append", default=[], metavar=("STRUCTURE", "TRAJECTORY"),
        help="the capped structure of a protein, and frames that are labelled here; may be repeated",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, default=8, help="that --gfn2 labels")
    parser.add_argument(
        "--couplings", type=pathlib.Path, nargs=2, metavar=("RUN", "MEASURED"), help="folder of a run, and a table"
    )
    parser.add_argument("--weights", default="ai2bmd", help="name or file")
    parser.add_argument("--most", type=int, default=200, help="conformations of each molecule")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."), help="folder")
    args = parser.parse_args(argv)
    if not (args.units or args.protein or args.gfn2 or args.couplings):
        parser.error("give --units, --protein, --gfn2 or --couplings")

    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.tables import write_table

    args.output.mkdir(parents=True, exist_ok=True)
    try:
        rows = []
        sources = [] if args.units is None else [unit_rows(args.units, args.weights, args.most, args.held_back)]
        for structure, trajectory in args.gfn2:
            args.protein.append([labelled(structure, trajectory, args.frames, args.output), structure])
        sources += [protein_rows(*pair, args.weights, args.most) for pair in args.protein]
        if sources:
            print("| molecule | method | atoms | conformations | kcal/mol | kcal/mol/atom | kcal/mol/Å |")
            print("|---|---|---|---|---|---|---|")
        for source in sources:
            for row in source:
                rows.append(row)
                texts = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in row.values())
                print(f"| {' | '.join(texts)} |", flush=True)
        if rows:
            write_table({key: [row[key] for row in rows] for key in rows[0]}, args.output / "accuracy.csv")
        if args.couplings:
            couplings(*args.couplings, args.output)
    except (JaxprotError, FileNotFoundError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

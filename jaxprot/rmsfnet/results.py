"""What a prediction of flexibility gives: arrays with units, and the files users open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume
from jaxprot.io.maps import write_map
from jaxprot.io.outputs import RunDirectory, atomic_path
from jaxprot.io.tables import write_table
from jaxprot.io.viewers import write_bfactor_model, write_view_scripts
from jaxprot.rmsfnet.featurize import atom_voxels, protein_atoms

if TYPE_CHECKING:
    import pandas

UNSCORED = -1.0
"""B-factor column of atoms without a value: not of a protein, or outside the map."""


def residue_means(values: np.ndarray, structure: Structure) -> np.ndarray:
    """(R,) means over the atoms of each residue; atoms with NaN do not count, a residue of such atoms alone is NaN."""
    known = np.isfinite(values)
    held = structure.atom_residue[known]
    count = np.bincount(held, minlength=structure.n_residues)
    total = np.bincount(held, values[known], minlength=structure.n_residues)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def published_z(rmsf: np.ndarray, structure: Structure) -> np.ndarray:
    """(R,) z-scores as the published program writes them.

    RMSF is rounded to two digits; mean and standard deviation (of the population) are those of the atoms with a value
    other than 0; z-scores are averaged over each residue. Insertion codes tell residues apart here, not there.

    Args:
      rmsf: (N,) in Å, NaN where there is no value.
      structure: the atoms.
    """
    rounded = np.round(np.asarray(rmsf, np.float64), 2)
    used = np.isfinite(rounded) & (rounded != 0)
    if not used.any():
        return np.full(structure.n_residues, np.nan)
    mean, spread = rounded[used].mean(), rounded[used].std()
    # Equal values have a spread of rounding errors; the smallest true one of a million atoms is 1e-5.
    z = np.where(used, (rounded - mean) / (spread if spread > 1e-9 else 1.0), np.nan)
    return residue_means(z, structure)


@dataclasses.dataclass(frozen=True, eq=False)
class Flexibility:
    """Flexibility of a model's atoms, or of a map's voxels.

    Attributes:
      volume: RMSF in Å on the grid, NaN where nothing was predicted; None for methods without a map.
      structure: the model, if there is one.
      rmsf: (N,) RMSF of each atom in Å, NaN for atoms that are not of a protein or outside the map.
      z: (R,) published z-score of each residue, NaN without a value.
      method: what gave the values.
    """

    volume: Volume | None
    structure: Structure | None
    rmsf: np.ndarray
    z: np.ndarray
    method: str = "rmsfnet"

    @classmethod
    def of(cls, volume: Volume, structure: Structure | None) -> Flexibility:
        """Reads the values of atoms off a predicted map."""
        if structure is None:
            return cls(volume, None, np.zeros(0), np.zeros(0))
        index, inside = atom_voxels(structure, volume)
        rmsf = np.where(inside & protein_atoms(structure), volume.data[tuple(index.T)], np.nan)
        return cls(volume, structure, rmsf, published_z(rmsf, structure))

    @classmethod
    def of_residues(cls, structure: Structure, values: np.ndarray, method: str) -> Flexibility:
        """From a value for each residue (Å, NaN for none), which its atoms share."""
        rmsf = np.asarray(values, np.float64)[structure.atom_residue]
        return cls(None, structure, rmsf, published_z(rmsf, structure), method)

    @property
    def residue_rmsf(self) -> np.ndarray:
        """(R,) mean RMSF of the atoms of each residue in Å."""
        return residue_means(self.rmsf, self._model())

    def atoms(self) -> dict[str, np.ndarray]:
        """Columns of `atoms.csv`: all atoms of the model in its order."""
        s = self._model()
        row = s.atom_residue
        return {
            "serial": s.serial,
            "name": s.atom_name,
            "element": s.element,
            "altloc": s.altloc,
            "chain": s.atom_chain_id,
            "resid": s.resid[row],
            "icode": s.icode[row],
            "resname": s.res_name[row],
            "rmsf_angstrom": np.round(self.rmsf, 4),
        }

    def residues(self) -> dict[str, np.ndarray]:
        """Columns of `residues.csv`: the residues of proteins in the model's order."""
        s = self._model()
        held = np.zeros(s.n_residues, bool)
        held[s.atom_residue[protein_atoms(s)]] = True
        columns = {
            "chain": s.chain_id[s.res_chain],
            "resid": s.resid,
            "icode": s.icode,
            "resname": s.res_name,
            "rmsf_angstrom": np.round(self.residue_rmsf, 4),
            "z": np.round(self.z, 4),
        }
        return {name: values[held] for name, values in columns.items()}

    def to_dataframe(self) -> pandas.DataFrame:
        """`residues()` as a pandas table."""
        import pandas

        return pandas.DataFrame(self.residues())

    def _model(self) -> Structure:
        if self.structure is None:
            raise ValueError("a prediction from a map alone has no atoms; its values are in `volume`")
        return self.structure

    def plot(self, path: str | os.PathLike) -> None:
        """Draws RMSF along the residues of each chain."""
        from jaxprot.plots.trace import trace

        table = self.residues()
        with atomic_path(path) as temporary:
            labels = [f"{number}{code}" for number, code in zip(table["resid"], table["icode"], strict=True)]
            trace(table["rmsf_angstrom"], labels, temporary, self.method, chains=list(table["chain"]))

    def write(self, folder: str | os.PathLike, *, format: str = "csv", overwrite: bool = False) -> list[str]:  # noqa: A002
        """Writes tables, coloured models, the map and the picture; returns the names of the files."""
        run = RunDirectory(folder, overwrite)
        home = pathlib.Path(run.folder())
        written = []
        if self.volume is not None:
            # Viewers cannot show NaN: 0 is what the published program has outside its boxes.
            write_map(
                self.volume.with_data(np.nan_to_num(self.volume.data)), home / "rmsf.mrc", label="RMSF in Angstrom"
            )
            written.append("rmsf.mrc")
        if self.structure is None:
            return written
        for name, columns in (("atoms", self.atoms()), ("residues", self.residues())):
            written.append(write_table(columns, home / name, format).name)
        suffix = "pdb" if _fits_pdb(self.structure) else "cif"
        model, scored = f"rmsf.{suffix}", f"rmsf_z.{suffix}"
        column = np.where(np.isfinite(self.rmsf), np.maximum(self.rmsf, UNSCORED + 0.02), UNSCORED)
        write_bfactor_model(self.structure, column, home / model)
        mask = protein_atoms(self.structure)
        write_bfactor_model(self.structure.select(mask), self.z[self.structure.atom_residue][mask], home / scored)
        self.plot(home / "trace.png")
        low, high = _range(self.rmsf)
        write_view_scripts(home, model, low, high, f"RMSF ({self.method}), Å; grey: no value", UNSCORED + 0.01)
        return [*written, model, scored, "trace.png", "view.pml", "view.cxc"]


def _range(values: np.ndarray) -> tuple[float, float]:
    """Where the colours end: loose ends would take the whole scale, and leave the rest in one colour."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return 0.0, 1.0
    low, high = np.percentile(known, [5, 90])
    return float(low), float(high)


def _fits_pdb(structure: Structure) -> bool:
    """Whether the format's columns hold the model's numbers and names."""
    names = all(len(chain) <= 1 for chain in structure.chain_id) and all(len(name) <= 3 for name in structure.res_name)
    numbers = structure.n_residues == 0 or (structure.resid.min() > -1000 and structure.resid.max() < 10000)
    known = structure.xyz[np.isfinite(structure.xyz)]
    places = known.size == 0 or (known.min() > -1000 and known.max() < 10000)
    return bool(names and numbers and places and structure.n_atoms < 100000)

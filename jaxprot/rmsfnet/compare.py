"""Predicted flexibility against a reference: a table, a trajectory or an ensemble."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from typing import Literal

import numpy as np

from jaxprot.core import metrics, residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.structures import SUFFIXES
from jaxprot.io.tables import read_table
from jaxprot.io.trajectories import read_trajectory
from jaxprot.rmsfnet import targets

log = logging.getLogger(__name__)

Atoms = Literal["ca", "all"]
Key = tuple[str, int, str]
_VALUES = ("rmsf_angstrom", "rmsf_A", "rmsf", "RMSF", "z", "rmsf_z_residue_mean")
_SCORES = ("z", "rmsf_z_residue_mean")
_TABLES = (".csv", ".csv.gz", ".parquet", ".tsv")
_LEAST = 3  # residues that a comparison needs


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of one method with the reference, over the residues that both have.

    Attributes:
      method: name.
      n: residues.
      pearson, spearman: correlations; NaN for fewer than three residues or a constant.
      rmse: root mean squared difference in Å; NaN for a reference that is not in Å.
    """

    method: str
    n: int
    pearson: float
    spearman: float
    rmse: float


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Fluctuations of residues.

    Attributes:
      name: of the file, for messages.
      values: by chain, number and insertion code.
      letters: one-letter code of the type of each residue; `X` where the file does not tell it.
      angstrom: values are in Å; False for z-scores.
    """

    name: str
    values: dict[Key, float]
    letters: dict[Key, str]
    angstrom: bool = True


def keys(structure: Structure) -> list[Key]:
    """(chain, number, insertion code) of every residue."""
    chains = structure.chain_id[structure.res_chain]
    return list(zip(chains.tolist(), structure.resid.tolist(), structure.icode.tolist(), strict=True))


def read_reference(
    path: str | os.PathLike, topology: str | os.PathLike | None = None, atoms: Atoms = "ca"
) -> Reference:
    """Reference fluctuations of residues.

    Args:
      path: a table with columns resid, optionally chain, icode and resname, and rmsf_angstrom (or rmsf_A, rmsf, or
        z-scores: z, rmsf_z_residue_mean); or a trajectory (DCD, XTC, TRR) with its `topology`; or a file of several
        models. The latter two are superposed on the mean of all heavy atoms (alpha carbons where there are no others).
      topology: PDB or mmCIF of a trajectory.
      atoms: of a trajectory or several models: `"ca"`, RMSF of alpha carbons, or `"all"`, mean over the heavy atoms of
        each residue.

    Raises:
      InputError: the file cannot be read, or has no such columns.
    """
    name = pathlib.Path(path).name.lower()
    if topology is None and name.endswith(_TABLES):
        return _from_table(path)
    if topology is None and not name.endswith(SUFFIXES):
        raise InputError(f"{path}: a table (.csv), a file of several models, or a trajectory with --topology")
    trajectory = read_trajectory(path, topology)
    structure = trajectory.structure
    values = targets.residue_rmsf(structure, targets.atom_rmsf(trajectory), "ca" if atoms == "ca" else "heavy")
    values = np.where(targets.protein_residues(structure), values, np.nan)
    known = np.flatnonzero(np.isfinite(values)).tolist()
    own, letters = keys(structure), structure.letters.tolist()
    return Reference(str(path), {own[i]: float(values[i]) for i in known}, {own[i]: letters[i] for i in known})


def _from_table(path: str | os.PathLike) -> Reference:
    columns = read_table(path)
    value = next((one for one in _VALUES if one in columns), None)
    if value is None or "resid" not in columns:
        raise InputError(f"{path}: needs the columns resid and one of {', '.join(_VALUES)} (and chain, icode, resname)")
    blank = np.full(len(columns["resid"]), "")
    chain, icode, names = (columns.get(key, blank).astype(str) for key in ("chain", "icode", "resname"))
    icode = np.where(np.isin(icode, ("nan", "None")), "", icode)
    try:
        found = list(zip(chain.tolist(), map(int, columns["resid"]), icode.tolist(), strict=True))
        values = [np.nan if isinstance(one, str) and not one else float(one) for one in columns[value]]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: resid must be whole numbers (insertion codes have a column icode), {value} numbers ({error})"
        ) from error
    known = [i for i, one in enumerate(values) if np.isfinite(one)]
    # Names of one letter are those of nucleotides in structures, so a table with other ones has amino acids' letters.
    short = set(names.tolist()) - {""}
    if short and max(map(len, short)) == 1 and not short <= residues.NUCLEOTIDES:
        letters = [one if one in residues.STANDARD and one else "X" for one in names.tolist()]
    else:
        letters = residues.letters(names).tolist()
    return Reference(
        str(path),
        {found[i]: values[i] for i in known},
        {found[i]: letters[i] for i in known},
        angstrom=value not in _SCORES,
    )


def matched(structure: Structure, reference: Reference) -> np.ndarray:
    """(R,) reference values of the structure's residues, NaN where there is none.

    A reference of one chain (or without chain names) is matched by number alone where the structure has one chain with
    protein residues. Protein residues without a value are counted in the log.

    Raises:
      InputError: fewer than three residues in common, or more than a tenth of them of another type.
    """
    own, values, letters = keys(structure), reference.values, reference.letters
    protein = targets.protein_residues(structure)
    if len({key[0] for key in values}) == 1 and targets.protein_chains(structure) == 1:
        # Ligands in chains of their own have numbers that the protein may have too.
        own = [("", *key[1:]) if here else ("ligand", *key[1:]) for key, here in zip(own, protein, strict=True)]
        values = {("", *key[1:]): value for key, value in values.items()}
        letters = {("", *key[1:]): letter for key, letter in letters.items()}
    found = np.array([values.get(key, np.nan) for key in own])
    count = int(np.isfinite(found).sum())
    if count < _LEAST:
        what = "no residue" if count == 0 else f"only {count} residue{'s' if count > 1 else ''}"
        raise InputError(
            f"{structure.name}: {what} in common with the reference {reference.name}; are chains and numbers the same?"
        )
    targets.check_types(structure, [letters.get(key, "X") for key in own], reference.name)
    told = int((np.isfinite(found) & protein).sum())
    targets.report_coverage(structure.name, told, int(protein.sum()), reference.name)
    return found


def agreement(method: str, values: np.ndarray, expected: np.ndarray, *, angstrom: bool = True) -> Agreement:
    """Compares values of residues with a reference.

    Args:
      method: name for the result.
      values: (R,) in Å, NaN where there is none.
      expected: (R,) of the reference, as `matched` gives them.
      angstrom: the reference is in Å too; otherwise there is no error, only correlation.

    Raises:
      InputError: no residue with both values.
    """
    both = np.isfinite(expected) & np.isfinite(values)
    if not both.any():
        raise InputError(f"{method}: no residue of the reference has a value")
    found, wanted, n = np.asarray(values, np.float64)[both], np.asarray(expected, np.float64)[both], int(both.sum())
    pearson = spearman = np.nan
    if n >= _LEAST:
        pearson, spearman = metrics.pearson(found, wanted), metrics.spearman(found, wanted)
    rmse = metrics.rmse(found, wanted) if angstrom else np.nan
    return Agreement(method, n, float(pearson), float(spearman), float(rmse))

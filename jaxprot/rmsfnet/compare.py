"""Predicted flexibility against a reference: a table, a trajectory or an ensemble."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.structures import SUFFIXES
from jaxprot.io.tables import read_table
from jaxprot.io.trajectories import read_trajectory
from jaxprot.rmsfnet import targets

Key = tuple[str, int, str]
_VALUES = ("rmsf_angstrom", "rmsf_A", "rmsf", "RMSF", "z")
_TABLES = (".csv", ".csv.gz", ".parquet", ".tsv")


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Of one method with the reference, over the residues that both have.

    Attributes:
      method: name.
      n: residues.
      pearson, spearman: correlations; NaN for fewer than three residues or a constant.
      rmse: root mean squared difference in Å.
    """

    method: str
    n: int
    pearson: float
    spearman: float
    rmse: float


def keys(structure: Structure) -> list[Key]:
    """(chain, number, insertion code) of every residue."""
    chains = structure.chain_id[structure.res_chain]
    return list(zip(chains.tolist(), structure.resid.tolist(), structure.icode.tolist(), strict=True))


def read_reference(path: str | os.PathLike, topology: str | os.PathLike | None = None) -> dict[Key, float]:
    """Reference RMSF in Å of residues.

    Args:
      path: a table with columns chain, resid, optionally icode, and rmsf_angstrom (or rmsf_A, rmsf, z); or a trajectory
        (DCD, XTC) with its `topology`; or a file of several models. Of the latter two the RMSF of alpha carbons is
        taken, after superposition on the mean of all heavy atoms (alpha carbons where there are no others).
      topology: PDB or mmCIF of a trajectory.

    Raises:
      InputError: the file cannot be read, or has no such columns.
    """
    name = pathlib.Path(path).name.lower()
    if topology is None and name.endswith(_TABLES):
        columns = read_table(path)
        value = next((one for one in _VALUES if one in columns), None)
        if value is None or "resid" not in columns:
            raise InputError(f"{path}: needs the columns resid and one of {', '.join(_VALUES)} (and chain, icode)")
        n = len(columns["resid"])
        chain = columns.get("chain", np.full(n, "")).astype(str)
        icode = columns.get("icode", np.full(n, "")).astype(str)
        icode = np.where(np.isin(icode, ("nan", "None")), "", icode)
        try:
            rows = list(zip(chain, map(int, columns["resid"]), icode, map(float, columns[value]), strict=True))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: resid must be whole numbers (insertion codes have a column icode), {value} numbers ({error})"
            ) from error
        return {(str(c), r, str(i)): v for c, r, i, v in rows if np.isfinite(v)}
    if topology is None and not name.endswith(SUFFIXES):
        raise InputError(f"{path}: a table (.csv), a file of several models, or a trajectory with --topology")
    trajectory = read_trajectory(path, topology)
    structure = trajectory.structure
    values = targets.residue_rmsf(structure, targets.atom_rmsf(trajectory))
    return {key: float(value) for key, value in zip(keys(structure), values, strict=True) if np.isfinite(value)}


def matched(structure: Structure, reference: dict[Key, float]) -> np.ndarray:
    """(R,) reference values of the structure's residues, NaN where there is none.

    A reference of one chain (or without chain names) is matched by number alone where the structure has one chain.
    """
    own = keys(structure)
    if len({key[0] for key in reference}) == 1 and structure.n_chains == 1:
        reference = {("", number, code): value for (_, number, code), value in reference.items()}
        own = [("", number, code) for _, number, code in own]
    return np.array([reference.get(key, np.nan) for key in own])


def agreement(method: str, structure: Structure, values: np.ndarray, reference: dict[Key, float]) -> Agreement:
    """Compares values of residues with a reference.

    Args:
      method: name for the result.
      structure: the residues.
      values: (R,) NaN where there is none.
      reference: by residue.

    Raises:
      InputError: no residue in common.
    """
    expected = matched(structure, reference)
    both = np.isfinite(expected) & np.isfinite(values)
    if not both.any():
        raise InputError(f"{structure.name}: no residue in common with the reference; are chains and numbers the same?")
    found, expected, n = np.asarray(values, np.float64)[both], expected[both], int(both.sum())
    if n < 3 or np.ptp(found) == 0 or np.ptp(expected) == 0:
        return Agreement(method, n, np.nan, np.nan, float(metrics.rmse(found, expected)))
    return Agreement(
        method,
        n,
        float(metrics.pearson(found, expected)),
        float(metrics.spearman(found, expected)),
        float(metrics.rmse(found, expected)),
    )

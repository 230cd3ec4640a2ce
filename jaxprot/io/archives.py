"""Packed archives of protein chains: npz files of concatenated arrays, heavy atoms only."""

import os
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure


class ArchivedChain(NamedTuple):
    """A chain of an archive.

    Attributes:
      structure: its heavy atoms.
      has_bfactor: whether its B factors look refined; others are no target.
    """

    structure: Structure
    has_bfactor: bool


def read_chains(path: str | os.PathLike) -> list[ArchivedChain]:
    """Chains of a packed archive (see its README), in its order.

    Raises:
      InputError: the file is missing or not such an archive.
    """
    try:
        with np.load(path) as archive:
            z = {name: archive[name] for name in archive.files}
        starts, atom_starts = z["chain_res_start"], z["res_atom_start"]
        names = np.array([str(name) for name in z["atom_names"]], "U4")
        residue_names = np.array([str(name) for name in z["res_names"]], "U5")
        return [_chain(z, i, starts, atom_starts, names, residue_names) for i in range(len(starts) - 1)]
    except (OSError, EOFError, KeyError, ValueError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a chain archive ({error}); expected the arrays of its README") from error


def _chain(z, i, starts, atom_starts, names, residue_names) -> ArchivedChain:
    first, last = starts[i], starts[i + 1]
    a, b = atom_starts[first], atom_starts[last]
    n, atoms = last - first, b - a
    name = names[z["atom_name"][a:b]]
    icode = z["res_icode"][first:last]
    label = f"{z['entry'][i]}_{z['chain'][i]}".strip("_ ")
    structure = Structure(
        name=label,
        xyz=((z["center"][i] + z["xyz"][a:b].astype(np.int32)) / 100.0).astype(np.float32),
        atom_name=name,
        element=np.array([one[:1] for one in name], "U2"),  # C, N, O and S are the elements of heavy protein atoms
        altloc=np.full(atoms, "", "U1"),
        occupancy=z["occupancy"][a:b].astype(np.float32) / 100,
        bfactor=z["bfactor"][a:b].astype(np.float32) / 100,
        serial=np.arange(1, atoms + 1, dtype=np.int32),
        model=np.ones(atoms, np.int32),
        atom_residue=np.repeat(np.arange(n, dtype=np.int32), np.diff(atom_starts[first : last + 1])),
        res_name=residue_names[z["res_type"][first:last]],
        resid=z["res_number"][first:last].astype(np.int32),
        icode=np.where(icode == 32, "", np.array([chr(code) for code in icode], "U1")).astype("U1"),
        hetero=np.zeros(n, bool),
        res_chain=np.zeros(n, np.int32),
        chain_id=np.array([str(z["chain"][i]).strip()], "U8"),
    )
    return ArchivedChain(structure, bool(z["has_bfactor"][i]))

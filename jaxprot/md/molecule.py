"""What dynamics needs of atoms: masses, bonds, names for messages."""

from __future__ import annotations

import numpy as np

from jaxprot.core.structure import Structure

_SLACK = 1.3  # times the sum of covalent radii: bonded


def masses(z: np.ndarray) -> np.ndarray:
    """(N,) float64 standard atomic weights in u of (N,) atomic numbers."""
    import gemmi

    unique, inverse = np.unique(z, return_inverse=True)
    return np.array([gemmi.Element(int(number)).weight for number in unique])[inverse.reshape(-1)]


def radii(z: np.ndarray) -> np.ndarray:
    """(N,) covalent radii in Å of (N,) atomic numbers (Cordero et al. 2008, doi 10.1039/b801115j)."""
    import gemmi

    unique, inverse = np.unique(z, return_inverse=True)
    return np.array([gemmi.Element(int(number)).covalent_r for number in unique])[inverse.reshape(-1)]


def bonds(z: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """(b, 2) pairs of atoms closer than 1.3 times the sum of their covalent radii, i < j.

    Args:
      z: (N,) atomic numbers.
      xyz: (N, 3) Å.
    """
    from scipy.spatial import cKDTree

    radius = radii(z)
    near = cKDTree(xyz).query_pairs(2 * _SLACK * radius.max(), output_type="ndarray").reshape(-1, 2)
    length = np.linalg.norm(xyz[near[:, 0]] - xyz[near[:, 1]], axis=-1)
    found = near[length < _SLACK * radius[near].sum(-1)]
    return np.sort(found, axis=1)[np.lexsort(np.sort(found, axis=1).T[::-1])]


def label(structure: Structure, atom: int) -> str:
    """An atom as messages name it: chain, residue, number and atom name."""
    residue = structure.atom_residue[atom]
    chain = structure.chain_id[structure.res_chain[residue]]
    number = f"{structure.resid[residue]}{structure.icode[residue]}"
    return f"{chain + ' ' if chain else ''}{structure.res_name[residue]} {number} {structure.atom_name[atom]}"

"""Secondary structure of a backbone from its hydrogen bonds.

W. Kabsch & C. Sander, Biopolymers 22:2577 (1983), doi 10.1002/bip.360221211, in the three states that are commonly
compared: helix (H, G and I of eight), strand (E and B) and all else.
"""

from __future__ import annotations

import numpy as np

HELIX, STRAND, OTHER = 0, 1, 2
_CHARGES = 0.42 * 0.20 * 332  # kcal Å/mol, of the group CO on that of NH
_BOND = -0.5  # kcal/mol
_PEPTIDE = 2.5  # Å from C to N, at most; more is a gap of the chain
_NEAR = 9.0  # Å between CA atoms, at most, of residues that may be bonded
_NH = 1.0  # Å


def hydrogen_bonds(coords: np.ndarray, donor: np.ndarray | None = None) -> np.ndarray:
    """Which NH is bonded to which CO: an electrostatic energy below -0.5 kcal/mol.

    Args:
      coords: (L, 4, 3) N, CA, C and O in Å, NaN where missing.
      donor: (L,) whether the residue has an NH: False for proline. Those behind a gap have none in any case.

    Returns:
      (L, L) bool; [i, j] tells of the CO of residue i and the NH of residue j.
    """
    from scipy.spatial.distance import cdist

    coords = np.asarray(coords, np.float64)
    n, ca, c, o = np.moveaxis(coords, 1, 0)
    count = len(coords)
    joined = np.zeros(count, bool)
    hydrogen = np.full((count, 3), np.nan)
    joined[1:] = _follows(coords)
    with np.errstate(invalid="ignore"):
        back = c[:-1] - o[:-1]
        hydrogen[1:] = n[1:] + _NH * back / np.linalg.norm(back, axis=-1, keepdims=True)
        has = joined & np.isfinite(hydrogen).all(-1) & (True if donor is None else np.asarray(donor, bool))

        def inverse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return 1 / np.maximum(cdist(a, b), 0.5)

        energy = _CHARGES * (inverse(o, n) + inverse(c, hydrogen) - inverse(o, hydrogen) - inverse(c, n))
        bonded = (energy < _BOND) & (cdist(ca, ca) < _NEAR) & has[None]
    place = np.arange(count)
    # A residue's own NH, and that of the next one, lie beside its CO without a bond.
    return bonded & (place[None] != place[:, None]) & (place[None] != place[:, None] + 1)


def secondary_structure(coords: np.ndarray, donor: np.ndarray | None = None) -> np.ndarray:
    """State of each residue.

    Args:
      coords: (L, 4, 3) N, CA, C and O in Å, NaN where missing.
      donor: (L,) whether the residue has an NH, see `hydrogen_bonds`.

    Returns:
      (L,) int32: 0 helix, 1 strand, 2 neither.
    """
    count = len(coords)
    out = np.full(count, OTHER, np.int32)
    if count < 4:
        return out
    bonds = hydrogen_bonds(coords, donor)
    piece = np.concatenate([[0], np.cumsum(~_follows(coords))])  # of the chain, between gaps
    helices = {}
    for n in (3, 4, 5):
        turn = np.zeros(count, bool)
        turn[: count - n] = np.diagonal(bonds, n) & (piece[n:] == piece[:-n])
        begins = np.flatnonzero(turn[1:] & turn[:-1]) + 1
        helices[n] = np.zeros(count, bool)
        for start in range(n):
            helices[n][np.minimum(begins + start, count - 1)] = True
    back = bonds.T
    one = _moved(bonds, -1, 0) & _moved(back, 1, 0)  # CO of i - 1 to NH of j, CO of j to NH of i + 1
    opposite = (bonds & back) | (_moved(bonds, -1, 1) & _moved(back, 1, -1))
    far = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) > 2
    strand = ((one | one.T | opposite) & far).any(1)
    out[strand] = STRAND
    out[(helices[3] | helices[5]) & ~strand] = HELIX
    out[helices[4]] = HELIX
    return out


def _follows(coords: np.ndarray) -> np.ndarray:
    """(L - 1,) whether each residue but the first is bonded to the one before."""
    with np.errstate(invalid="ignore"):
        return np.linalg.norm(coords[1:, 0] - coords[:-1, 2], axis=-1) < _PEPTIDE


def _moved(x: np.ndarray, a: int, b: int) -> np.ndarray:
    """x[i + a, j + b] at [i, j]; False beyond the ends. Both steps are at most 1."""
    count = len(x)
    return np.pad(x, 1)[1 + a : 1 + a + count, 1 + b : 1 + b + count]

"""What the surroundings of each residue look like in a structure: labels that a sequence can be asked for.

These are ours, beside the published objectives. A protein whose structure is known is read as a sequence, and the
network tells the secondary structure, the region of the Ramachandran plot and the burial of each residue.
"""

from __future__ import annotations

import numpy as np

from jaxprot.core.geometry import dihedrals, ideal_beta
from jaxprot.core.secondary import secondary_structure
from jaxprot.massa.featurize import IGNORE

STEP = 60.0  # degrees
PHI, PSI = -150.0, -75.0
"""Where bins of angles begin: helices (-63, -43) and strands (-120, 130) lie within one."""
NEAR = 10.0  # Å between CB atoms
EDGES = (8, 12, 16, 20, 24, 28, 32)
"""Neighbours at which the next class of burial begins."""
CLASSES = {"secondary": 3, "torsion": 36, "burial": len(EDGES) + 1}


def local_labels(sequence: str, coords: np.ndarray) -> dict[str, np.ndarray]:
    """Classes of residues, -100 where atoms are missing.

    Args:
      sequence: letters; proline has no NH to bond.
      coords: (L, 4, 3) N, CA, C and O in Å, NaN where missing.

    Returns:
      (L,) int32 each: `secondary` (see `core.secondary`), `torsion` (six bins of phi by six of psi; both angles must be
      there, in a chain without a gap) and `burial` (other residues with CB, where CB stands in ideal geometry, within
      10 Å).
    """
    coords = np.array(coords, np.float64)
    coords[~np.isfinite(coords).all((1, 2))] = np.nan
    known = np.isfinite(coords[:, 0, 0])
    secondary = secondary_structure(coords, np.array([letter != "P" for letter in sequence]))
    return {
        "secondary": np.where(known, secondary, IGNORE).astype(np.int32),
        "torsion": _torsion(coords),
        "burial": np.where(known, np.searchsorted(EDGES, _neighbours(coords), "right"), IGNORE).astype(np.int32),
    }


def _torsion(coords: np.ndarray) -> np.ndarray:
    n, ca, c = coords[:, 0], coords[:, 1], coords[:, 2]
    out = np.full(len(coords), IGNORE, np.int32)
    if len(coords) < 3:
        return out
    phi = dihedrals(np.stack([c[:-2], n[1:-1], ca[1:-1], c[1:-1]], 1))
    psi = dihedrals(np.stack([n[1:-1], ca[1:-1], c[1:-1], n[2:]], 1))
    with np.errstate(invalid="ignore"):
        peptide = np.linalg.norm(n[1:] - c[:-1], axis=-1) < 2.0
    told = peptide[:-1] & peptide[1:] & np.isfinite(phi) & np.isfinite(psi)
    bins = [np.floor(np.mod(np.where(told, angle - first, 0), 360) / STEP) for angle, first in ((phi, PHI), (psi, PSI))]
    out[1:-1] = np.where(told, np.minimum(bins[0], 5) * 6 + np.minimum(bins[1], 5), IGNORE)
    return out


def _neighbours(coords: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    beta = ideal_beta(coords[:, 0], coords[:, 1], coords[:, 2])
    with np.errstate(invalid="ignore"):
        near = cdist(beta, beta) < NEAR
    return near.sum(1) - np.diagonal(near)

"""What a trajectory of a protein tells: distances to its start, mobility, torsions, ³J couplings, native contacts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.geometry import dihedrals
from jaxprot.core.structure import Structure
from jaxprot.ops import rigid

KARPLUS = (6.51, -1.76, 1.60)
"""A, B and C in Hz of ³J(HN-HA) = A cos²(φ - 60°) + B cos(φ - 60°) + C; Vuister & Bax, J. Am. Chem. Soc. 115:7772
(1993), doi 10.1021/ja00070a024."""


class Backbone(NamedTuple):
    """Residues with both torsions.

    Attributes:
      residue: (r,) rows of the structure's residues.
      atoms: (r, 5) rows of its atoms C (of the one before), N, CA, C, N (of the one behind).
      amide: (r,) whether the residue has a hydrogen on its nitrogen and one on its alpha carbon (no proline, no
        glycine), which a coupling is between.
    """

    residue: np.ndarray
    atoms: np.ndarray
    amide: np.ndarray


class Analysis(NamedTuple):
    """Of one trajectory.

    Attributes:
      rmsd: (f,) Å of alpha carbons (of heavy atoms, where there are none) to the reference, superposed.
      rmsf: (R,) Å of alpha carbons about their mean, superposed; NaN for residues without.
      backbone: residues of the torsions.
      phi: (f, r) degrees.
      psi: (f, r) degrees.
      coupling: (r,) ³J(HN-HA) in Hz, mean over the frames; NaN where there is none.
    """

    rmsd: np.ndarray
    rmsf: np.ndarray
    backbone: Backbone
    phi: np.ndarray
    psi: np.ndarray
    coupling: np.ndarray


def backbone(structure: Structure) -> Backbone:
    """Residues between two others of their chain, caps counted."""
    named = {
        name: dict(zip(structure.atom_residue[structure.atom_name == name].tolist(),
                       np.flatnonzero(structure.atom_name == name).tolist(), strict=True))
        for name in ("C", "N", "CA", "HA", "H", "HN")
    }  # fmt: skip
    rows, atoms, amide = [], [], []
    for row in range(1, structure.n_residues - 1):
        same = structure.res_chain[row - 1] == structure.res_chain[row] == structure.res_chain[row + 1]
        wanted = [("C", row - 1), ("N", row), ("CA", row), ("C", row), ("N", row + 1)]
        if same and all(residue in named[name] for name, residue in wanted):
            rows.append(row)
            atoms.append([named[name][residue] for name, residue in wanted])
            amide.append(row in named["HA"] and (row in named["H"] or row in named["HN"]))
    return Backbone(np.array(rows, int), np.array(atoms, int).reshape(-1, 5), np.array(amide, bool))


def karplus(phi: np.ndarray, coefficients: tuple[float, float, float] = KARPLUS) -> np.ndarray:
    """³J(HN-HA) in Hz of φ in degrees."""
    a, b, c = coefficients
    cosine = np.cos(np.radians(np.asarray(phi) - 60))
    return a * cosine**2 + b * cosine + c


def analyse(structure: Structure, frames: np.ndarray, reference: np.ndarray | None = None) -> Analysis:
    """Distances, mobility and torsions of a trajectory.

    Args:
      structure: of the atoms.
      frames: (f, N, 3) Å.
      reference: (N, 3) Å that distances are to; the first frame if None.

    Raises:
      InputError: no frames, or another number of atoms.
    """
    if frames.ndim != 3 or not len(frames) or frames.shape[1:] != (structure.n_atoms, 3):
        raise InputError(f"{structure.name}: frames {frames.shape}, expected (at least 1, {structure.n_atoms}, 3)")
    carbons = np.flatnonzero((structure.atom_name == "CA") & (structure.element == "C"))
    fitted = carbons if len(carbons) >= 3 else np.flatnonzero(~np.isin(structure.element, ("H", "D")))
    chosen = jnp.asarray(frames[:, fitted], jnp.float32)
    goal = jnp.asarray((frames[0] if reference is None else reference)[fitted], jnp.float32)
    rmsd = np.asarray(jax.jit(jax.vmap(rigid.rmsd, (0, None)))(chosen, goal))
    rmsf = np.full(structure.n_residues, np.nan)
    if len(carbons) >= 3:
        rmsf[structure.atom_residue[carbons]] = np.asarray(jax.jit(rigid.rmsf)(chosen))
    chain = backbone(structure)
    points = np.asarray(frames, np.float64)[:, chain.atoms]
    phi, psi = dihedrals(points[:, :, :4]), dihedrals(points[:, :, 1:])
    coupling = np.where(chain.amide, karplus(phi).mean(0), np.nan)
    return Analysis(rmsd, rmsf, chain, phi, psi, coupling)


def native_contacts(
    structure: Structure,
    frames: np.ndarray,
    reference: np.ndarray | None = None,
    *,
    reach: float = 4.5,
    apart: int = 3,
    softness: float = 5.0,
    slack: float = 1.8,
) -> np.ndarray:
    """Share of the reference's contacts that each frame has: Best, Hummer & Eaton, PNAS 110:17874 (2013), eq. 1.

    Args:
      structure: of the atoms.
      frames: (f, N, 3) Å.
      reference: (N, 3) Å that is native; the structure's own positions if None.
      reach: Å, heavy atoms so close in the reference are in contact.
      apart: contacts are between residues more than so many apart in their chain, or of two chains.
      softness: 1/Å.
      slack: times its length in the reference, where a contact counts half.

    Returns:
      (f,) between 0 and 1.

    Raises:
      InputError: another number of atoms, or no contacts in the reference.
    """
    from scipy.spatial import cKDTree

    if frames.ndim != 3 or frames.shape[1:] != (structure.n_atoms, 3):
        raise InputError(f"{structure.name}: frames {frames.shape}, expected (f, {structure.n_atoms}, 3)")
    native = np.asarray(structure.xyz if reference is None else reference, np.float64)
    heavy = np.flatnonzero(~np.isin(structure.element, ("H", "D")))
    pairs = heavy[cKDTree(native[heavy]).query_pairs(reach, output_type="ndarray")]
    residue = structure.atom_residue[pairs]
    chain = structure.res_chain[residue]
    pairs = pairs[(chain[:, 0] != chain[:, 1]) | (np.abs(residue[:, 0] - residue[:, 1]) > apart)]
    if not len(pairs):
        raise InputError(f"{structure.name}: no contacts within {reach} Å between residues more than {apart} apart")
    length = jnp.asarray(np.linalg.norm(native[pairs[:, 0]] - native[pairs[:, 1]], axis=-1), jnp.float32)
    first, second = jnp.asarray(pairs.T)

    def share(frame):
        distance = jnp.linalg.norm(frame[first] - frame[second], axis=-1)
        return jnp.mean(jax.nn.sigmoid(softness * (slack * length - distance)))

    return np.asarray(jax.jit(lambda places: jax.lax.map(share, places))(jnp.asarray(frames, jnp.float32)))

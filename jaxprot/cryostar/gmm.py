"""The reference model as Gaussians: one bead per residue, the pairs that hold them together, and their projections."""

from __future__ import annotations

import dataclasses
import logging
from typing import NamedTuple

import numpy as np

from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure

log = logging.getLogger(__name__)

SIGMA = 2.0
"""Å, standard deviation of a bead."""

_MARK = {"protein": "CA", "nucleic": "C1'"}


@dataclasses.dataclass(frozen=True, eq=False)
class Beads:
    """Residues as beads, protein first, then nucleic acids, each in the order of the file.

    Attributes:
      name: of the structure.
      xyz: (N, 3) float32 Å; the alpha carbon, or C1' of a nucleotide.
      electrons: (N,) float32 sum of the atomic numbers of the residue's atoms.
      atom_name: (N,) U3 `CA` or `C1'`.
      res_name: (N,) U5.
      chain: (N,) U8 author chain identifiers.
      resid: (N,) int32 author residue numbers.
      icode: (N,) U1 insertion codes.
    """

    name: str
    xyz: np.ndarray
    electrons: np.ndarray
    atom_name: np.ndarray
    res_name: np.ndarray
    chain: np.ndarray
    resid: np.ndarray
    icode: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def nucleic(self) -> np.ndarray:
        """(N,) bool."""
        return self.atom_name == _MARK["nucleic"]


class Pairs(NamedTuple):
    """Pairs of beads (i < j, rows in lexicographic order, but for `connect`).

    Attributes:
      connect: (a, 2) neighbours along a chain, chain by chain.
      elastic: (b, 2) pairs whose distances are held.
      clash: (c, 2) pairs that must not come too close.
      chains: (k, b) bool, which elastic pairs lie in each chain that has some.
    """

    connect: np.ndarray
    elastic: np.ndarray
    clash: np.ndarray
    chains: np.ndarray


def beads_of(structure: Structure) -> Beads:
    """One bead for each amino acid with an alpha carbon and each nucleotide with a C1'.

    Ligands, waters and lipids are left out; of several models and alternate locations the first counts. Residues that
    lack the atom are left out with a warning.

    Raises:
      InputError: no such residue, or a residue occurs twice.
    """
    structure = structure.first_model().first_altlocs()
    kind = np.full(structure.n_residues, "", "U7")
    kind[structure.letters != "X"] = "protein"
    names = np.char.upper(structure.res_name.astype(str))
    kind[np.isin(names, sorted(residues.NUCLEOTIDES))] = "nucleic"
    has = {name: _atom_of(structure, name) for name in ("N", "CA", "C", "C1'", "C3'", "O3'")}
    present = {name: rows >= 0 for name, rows in has.items()}
    unknown = kind == ""  # modified residues, told by their backbones
    kind[unknown & present["N"] & present["CA"] & present["C"]] = "protein"
    kind[unknown & present["C1'"] & present["C3'"] & present["O3'"]] = "nucleic"
    rows, atoms, skipped = [], [], []
    for name, mark in _MARK.items():
        these = np.flatnonzero(kind == name)
        found = has[mark][these]
        good = (found >= 0) & np.isfinite(structure.xyz[np.maximum(found, 0)]).all(1)
        skipped += [structure.res_name[row] for row in these[~good]]
        rows.append(these[good])
        atoms.append(found[good])
    rows, atoms = np.concatenate(rows), np.concatenate(atoms)
    if len(rows) == 0:
        raise InputError(
            f"{structure.name}: no amino acid with CA and no nucleotide with C1'; nothing to make beads of"
        )
    if skipped:
        log.warning("%s: %d residues without CA or C1' are left out (%s)", structure.name, len(skipped), skipped[0])
    number = residues.atomic_numbers(structure.element)
    electrons = np.bincount(structure.atom_residue, number, structure.n_residues)[rows]
    beads = Beads(
        name=structure.name,
        xyz=structure.xyz[atoms].astype(np.float32),
        electrons=electrons.astype(np.float32),
        atom_name=structure.atom_name[atoms].astype("U3"),
        res_name=structure.res_name[rows],
        chain=structure.chain_id[structure.res_chain[rows]],
        resid=structure.resid[rows],
        icode=structure.icode[rows],
    )
    keys = list(zip(beads.chain.tolist(), beads.resid.tolist(), beads.icode.tolist(), strict=True))
    seen: set[tuple[str, int, str]] = set()
    for key in keys:
        if key in seen:
            chain, resid, icode = key
            raise InputError(f"{structure.name}: residue {chain or '(blank)'}:{resid}{icode} occurs twice")
        seen.add(key)
    return beads


def _atom_of(structure: Structure, name: str) -> np.ndarray:
    """(R,) row of the first atom of this name in each residue, -1 where there is none."""
    out = np.full(structure.n_residues, -1, np.int64)
    rows = np.flatnonzero(structure.atom_name == name)[::-1]
    out[structure.atom_residue[rows]] = rows
    return out


def pairs_of(
    beads: Beads,
    *,
    protein: tuple[float, float] = (12.0, 0.0),
    nucleic: tuple[float, float] = (15.0, 15.0),
    clash: tuple[float, float] = (4.0, 10.0),
    span: int | None = None,
) -> Pairs:
    """Pairs of the structural losses, by trees instead of all distances.

    Args:
      beads: the reference.
      protein: largest reference distance in Å of elastic pairs of amino acids within a chain, and between chains
        (0: none).
      nucleic: the same for nucleotides. Nucleotides and amino acids have no elastic pairs.
      clash: smallest and largest reference distance in Å of pairs that are watched, whatever the chains.
      span: elastic pairs of a chain at most so many residue numbers apart; None for any.
    """
    n = len(beads)
    connect = _neighbours(beads)
    taken = _codes(np.sort(connect, axis=1), n)
    parts = []
    for mask, (within, between) in ((~beads.nucleic, protein), (beads.nucleic, nucleic)):
        rows = np.flatnonzero(mask)
        near, distance = _near(beads.xyz[rows], max(within, between))
        near = rows[near]
        same = beads.chain[near[:, 0]] == beads.chain[near[:, 1]]
        apart = np.abs(beads.resid[near[:, 0]] - beads.resid[near[:, 1]])
        inside = same & (distance <= within) & (True if span is None else apart <= span)
        parts.append(near[inside | (~same & (distance <= between) & (between > 0))])
    elastic = _ordered(np.concatenate(parts), n, taken)
    near, distance = _near(beads.xyz, clash[1])
    watched = _ordered(near[distance >= clash[0]], n, taken)
    first, second = beads.chain[elastic[:, 0]], beads.chain[elastic[:, 1]]
    chains = [c for c in np.unique(beads.chain) if ((first == c) & (second == c)).any()]
    masks = np.array([(first == c) & (second == c) for c in chains], bool).reshape(len(chains), len(elastic))
    return Pairs(connect, elastic, watched, masks)


def _neighbours(beads: Beads) -> np.ndarray:
    """(a, 2) residues that follow each other by number (or insertion code) in a chain of mostly one kind."""
    out = [np.zeros((0, 2), np.int64)]
    for chain in np.unique(beads.chain):
        rows = np.flatnonzero(beads.chain == chain)
        kind = beads.nucleic[rows]
        rows = rows[kind == (kind.mean() > 0.5)]
        rows = rows[np.lexsort((beads.icode[rows], beads.resid[rows]))]
        joined = np.diff(beads.resid[rows]) <= 1
        out.append(np.stack([rows[:-1], rows[1:]], 1)[joined])
    return np.concatenate(out)


def _near(xyz: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """(p, 2) pairs i < j within a distance, and (p,) their distances."""
    from scipy.spatial import KDTree

    xyz = xyz.astype(np.float64)
    if len(xyz) < 2 or cutoff <= 0:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    pairs = KDTree(xyz).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
    return pairs, np.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=1)


def _codes(pairs: np.ndarray, n: int) -> np.ndarray:
    return pairs[:, 0] * n + pairs[:, 1]


def _ordered(pairs: np.ndarray, n: int, without: np.ndarray) -> np.ndarray:
    """Unique pairs in lexicographic order, less those taken."""
    codes = np.setdiff1d(_codes(pairs, n), without)
    return np.stack(np.divmod(codes, n), axis=1).astype(np.int64)

"""A capped protein as overlapping units: which atoms and cap hydrogens make up each of them, once and for all.

AI2BMD: Wang et al., Nature 635:1019 (2024), doi 10.1038/s41586-024-08127-z. Every residue r gives a dipeptide: its
atoms with CA, HA, C, O of r - 1 and N, H, CA, HA of r + 1, where hydrogens stand in for the bonds that were cut. What
two neighbouring dipeptides share is an ACE-NME of 12 atoms and is subtracted. Two bridged cysteines make one unit.

Everything is found by atom names; no coordinate is used but to check the input. The tables index the protein's atoms in
the order of the structure, followed by the cap hydrogens.
"""

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np

from jaxprot.ai2bmd import templates
from jaxprot.ai2bmd.topology import label, topology
from jaxprot.core.structure import Structure

CARBON_HYDROGEN, NITROGEN_HYDROGEN = 1.07, 1.02
"""Å from a cap to the carbon or nitrogen it sits on (sums of covalent radii)."""

ACENME = "ACENME"

_ACENME_Z = (1, 6, 1, 1, 6, 8, 7, 1, 6, 1, 1, 1)
_HALF = 6  # atoms of each cap of a unit

# The published tables fill the two hydrogens toward N and CB in this order, for tryptophan in the other one; they are
# equivalent, so it only matters for comparing arrays.
_TOWARD = ("CB", "N")
_TOWARD_OF = {"TRP": ("N", "CB")}

# OBC2: radius (mbondi2) in Å and screening of each element.
_BORN = {1: (1.2, 0.85), 6: (1.7, 0.72), 7: (1.55, 0.79), 8: (1.5, 0.85), 16: (1.8, 0.96)}
_BORN_AMIDE = 1.3  # hydrogens on nitrogen


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fragmentation:
    """Units of a protein of N atoms with K cap hydrogens; F rows are the atoms of all units, one after the other.

    Units stand in the order dipeptide 1, ACE-NME 1, dipeptide 2, ..., chain by chain; a disulfide's unit stands at its
    first residue, and nothing at its second. A *source* is an atom (0 to N - 1) or a cap (N to N + K - 1).

    Attributes:
      name: of the structure.
      z: (N,) atomic numbers.
      charge: (N,) elementary charges (ff14SB).
      sigma: (N,) Lennard-Jones σ in Å.
      epsilon: (N,) Lennard-Jones ε in kcal/mol.
      born_radius: (N,) intrinsic radii of generalised Born in Å (mbondi2).
      born_scale: (N,) their screening factors (OBC).
      atom_units: (N, 3) the dipeptides (0, 1, ...) that hold each atom, -1 where fewer.
      unit_name: (U,) residue of the force field, `ACENME`, or `CYX` for a disulfide.
      unit_label: (U,) the residues as messages call them.
      unit_sign: (U,) int, +1 or -1: how the unit counts in the energy.
      unit_charge: (U,) net charges.
      unit_start: (U + 1,) first row of each unit.
      row_z: (F,) atomic numbers.
      row_source: (F,) source of each row.
      cap_parent: (K,) atom that a cap sits on.
      cap_removed: (K,) atom whose place it takes.
      cap_length: (K,) Å between cap and parent.
      covalent: (c, 2) atoms i < j of every bond of the protein, by its residues, not by distances.
      bonds: (b, 2) sources of bonds with a cap, (b, 2) `bond_terms`: k in kcal/mol/Å², r0 in Å.
      angles: (a, 3) sources, (a, 2) `angle_terms`: k in kcal/mol, θ0 in rad.
      dihedrals: (d, 4) sources, (d, 3) `dihedral_terms`: k in kcal/mol, multiplicity, phase in rad.
      partners: (K, P) sources that a cap repels and attracts within its unit; its parent where fewer.
      partner_terms: (K, P, 4) A in kcal/mol Å¹², B in kcal/mol Å⁶, product of charges, and share of the pair's energy
        (a half where both are caps); 0 where fewer.
    """

    name: str
    z: np.ndarray
    charge: np.ndarray
    sigma: np.ndarray
    epsilon: np.ndarray
    born_radius: np.ndarray
    born_scale: np.ndarray
    atom_units: np.ndarray
    unit_name: np.ndarray
    unit_label: tuple[str, ...]
    unit_sign: np.ndarray
    unit_charge: np.ndarray
    unit_start: np.ndarray
    row_z: np.ndarray
    row_source: np.ndarray
    cap_parent: np.ndarray
    cap_removed: np.ndarray
    cap_length: np.ndarray
    covalent: np.ndarray
    bonds: np.ndarray
    bond_terms: np.ndarray
    angles: np.ndarray
    angle_terms: np.ndarray
    dihedrals: np.ndarray
    dihedral_terms: np.ndarray
    partners: np.ndarray
    partner_terms: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Fragmentation({self.name!r}, {self.n_atoms} atoms, {self.n_units} units, {len(self.cap_parent)} caps, "
            f"charge {int(self.total_charge):+d})"
        )

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the protein."""
        return len(self.z)

    @property
    def n_units(self) -> int:
        """Number of units, ACE-NMEs among them."""
        return len(self.unit_name)

    @property
    def total_charge(self) -> int:
        """Net charge of the protein."""
        return round(float(self.charge.sum()))

    @property
    def row_origin(self) -> np.ndarray:
        """(F,) atom of the protein behind each row, -1 for caps."""
        return np.where(self.row_source < self.n_atoms, self.row_source, -1)

    @property
    def row_unit(self) -> np.ndarray:
        """(F,) unit of each row."""
        return np.repeat(np.arange(self.n_units), np.diff(self.unit_start))

    @property
    def row_sign(self) -> np.ndarray:
        """(F,) +1 or -1."""
        return self.unit_sign[self.row_unit]

    def excluded_pairs(self) -> np.ndarray:
        """(P, 2) atoms i < j that some dipeptide holds both of: no force field term acts between them."""
        members: dict[int, list[int]] = collections.defaultdict(list)
        for atom, units in enumerate(self.atom_units.tolist()):
            for unit in units:
                if unit >= 0:
                    members[unit].append(atom)
        pairs = []
        for atoms in members.values():
            i, j = np.triu_indices(len(atoms), 1)
            pairs.append(np.sort(np.array(atoms)[np.stack([i, j], 1)], axis=1))
        return np.unique(np.concatenate(pairs), axis=0)

    def describe(self) -> dict[str, Any]:
        """Plain values for a JSON file: counts, and for every unit its name, residues, charge, sign and atoms."""
        units = []
        for u in range(self.n_units):
            rows = slice(self.unit_start[u], self.unit_start[u + 1])
            units.append(
                {
                    "name": str(self.unit_name[u]),
                    "residues": self.unit_label[u],
                    "sign": int(self.unit_sign[u]),
                    "charge": int(self.unit_charge[u]),
                    "elements": self.row_z[rows].tolist(),
                    "atoms": self.row_origin[rows].tolist(),
                    "caps": [
                        {
                            "parent": int(self.cap_parent[k]),
                            "toward": int(self.cap_removed[k]),
                            "length_angstrom": float(self.cap_length[k]),
                        }
                        for k in self.row_source[rows] - self.n_atoms
                        if k >= 0
                    ],
                }
            )
        return {
            "name": self.name,
            "n_atoms": self.n_atoms,
            "n_units": self.n_units,
            "n_dipeptides": int((self.unit_sign > 0).sum()),
            "n_caps": len(self.cap_parent),
            "n_rows": len(self.row_z),
            "charge": self.total_charge,
            "n_excluded_pairs": len(self.excluded_pairs()),
            "units": units,
        }


@dataclasses.dataclass
class _Builder:
    """Grows the tables unit by unit."""

    structure: Structure
    top: Any
    names: list = dataclasses.field(default_factory=list)
    labels: list = dataclasses.field(default_factory=list)
    signs: list = dataclasses.field(default_factory=list)
    charges: list = dataclasses.field(default_factory=list)
    sources: list = dataclasses.field(default_factory=list)
    caps: list = dataclasses.field(default_factory=list)  # (parent, removed, length)

    def atom(self, row: int, name: str) -> int:
        """Row of the structure of a named atom."""
        return int(self.top.atoms[row][templates.residues()[self.top.names[row]].index[name]])

    def cap(self, row: int, parent: str, toward: str) -> int:
        """A new cap hydrogen; returns its source."""
        length = NITROGEN_HYDROGEN if parent == "N" else CARBON_HYDROGEN
        self.caps.append((self.atom(row, parent), self.atom(row, toward), length))
        return self.structure.n_atoms + len(self.caps) - 1

    def dipeptide(self, run: tuple[int, ...], place: int) -> list[int]:
        """Sources of the unit of one residue, acetyl half first."""
        before, row, after = run[place - 1 : place + 2]
        # Caps are numbered along the chain's rows: the acetyl half, then the other.
        return [*self._acetyl(before), *self.top.atoms[row].tolist(), *self._methyl(after)]

    def _acetyl(self, row):
        name = self.top.names[row]
        if name == "ACE":
            return self.top.atoms[row].tolist()
        if name == "GLY":
            first, second, third = self.atom(row, "HA2"), self.cap(row, "CA", "N"), self.atom(row, "HA3")
        else:
            first = self.atom(row, "HA")
            second, third = (self.cap(row, "CA", toward) for toward in _TOWARD_OF.get(name, _TOWARD))
        return [first, self.atom(row, "CA"), second, third, self.atom(row, "C"), self.atom(row, "O")]

    def _methyl(self, row):
        name = self.top.names[row]
        if name == "NME":
            return self.top.atoms[row].tolist()
        hydrogen = self.cap(row, "N", "CD") if name == "PRO" else self.atom(row, "H")
        if name == "GLY":
            methyl = [self.atom(row, "HA2"), self.atom(row, "HA3"), self.cap(row, "CA", "C")]
        else:
            methyl = [self.atom(row, "HA"), self.cap(row, "CA", "C"), self.cap(row, "CA", "CB")]
        return [self.atom(row, "N"), hydrogen, self.atom(row, "CA"), *methyl]

    def add(self, name, where, sign, sources):
        """A finished unit; `where` are the residue rows it stands for."""
        self.names.append(name)
        self.labels.append(" - ".join(label(self.structure, row) for row in where))
        self.signs.append(sign)
        self.charges.append(0 if sign < 0 else sum(templates.charge(self.top.names[row]) for row in where))
        self.sources.append(sources)


def fragment(structure: Structure) -> Fragmentation:
    """The units of one or more capped protein chains with all hydrogens.

    Args:
      structure: see `topology.topology` for what it must hold; coordinates in Å, for checks alone.

    Raises:
      InputError: the structure cannot be fragmented; names chain, residue and atom of every problem.
    """
    top = topology(structure)
    made = _Builder(structure, top)
    second_of = dict(top.bridges)
    bridged = {two for _, two in top.bridges}
    place_of = {row: (run, place) for run in top.runs for place, row in enumerate(run)}
    pieces: dict[int, list[int]] = {}
    for run in top.runs:
        for place in range(1, len(run) - 1):
            pieces[run[place]] = made.dipeptide(run, place)
    for run in top.runs:
        for row in run[1:-1]:
            if row in second_of:
                made.add("CYX", (row, second_of[row]), 1, pieces[row] + pieces[second_of[row]])
            elif row not in bridged:
                made.add(top.names[row], (row,), 1, pieces[row])
            following = place_of[row][0][place_of[row][1] + 1]
            if top.names[following] != "NME":
                made.add(ACENME, (row, following), -1, pieces[following][:_HALF] + pieces[row][-_HALF:])
    return _assemble(structure, top, made)


def _assemble(structure, top, made):
    n = structure.n_atoms
    atoms: dict[str, np.ndarray] = {}
    for field in ("z", "charge", "sigma", "epsilon"):
        dtype = np.int32 if field == "z" else np.float64
        atoms[field] = _per_atom(structure, top, lambda template, field=field: getattr(template, field), dtype)
    z = atoms["z"]
    table = np.zeros((max(_BORN) + 1, 2))
    for number, values in _BORN.items():
        table[number] = values
    parent_z = _per_atom(structure, top, lambda t: np.where(t.parent >= 0, t.z[t.parent], 0), np.int32)
    radius = np.where((z == 1) & (parent_z == 7), _BORN_AMIDE, table[z, 0])

    dipeptides = [u for u, sign in enumerate(made.signs) if sign > 0]
    atom_units = np.full((n, 3), -1, np.int32)
    filled = np.zeros(n, int)
    for number, u in enumerate(dipeptides):
        members = np.array([source for source in made.sources[u] if source < n])
        atom_units[members, filled[members]] = number
        filled[members] += 1
    columns = np.array(made.caps).reshape(-1, 3)
    parent, removed, length = columns[:, 0].astype(int), columns[:, 1].astype(int), columns[:, 2]
    sources = np.concatenate(made.sources).astype(np.int32)
    start = np.cumsum([0, *map(len, made.sources)])
    units = templates.units()
    row_z = np.concatenate([_ACENME_Z if name == ACENME else units[name].z for name in made.names])
    return Fragmentation(
        name=structure.name,
        **atoms,
        born_radius=radius,
        born_scale=table[z, 1],
        atom_units=atom_units,
        unit_name=np.array(made.names, "U6"),
        unit_label=tuple(made.labels),
        unit_sign=np.array(made.signs, np.int32),
        unit_charge=np.array(made.charges, np.int32),
        unit_start=start.astype(np.int32),
        row_z=row_z.astype(np.int32),
        row_source=sources,
        cap_parent=parent.astype(np.int32),
        cap_removed=removed.astype(np.int32),
        cap_length=length,
        covalent=_covalent(top, made),
        **_relaxation(n, made, dipeptides, parent),
    )


def _covalent(top, made):
    """Bonds within residues, between those that follow each other, and of disulfides."""
    pairs = [rows[templates.residues()[name].bonds] for name, rows in zip(top.names, top.atoms, strict=True)]
    joined = [(made.atom(a, "C"), made.atom(b, "N")) for run in top.runs for a, b in itertools.pairwise(run)]
    joined += [(made.atom(a, "SG"), made.atom(b, "SG")) for a, b in top.bridges]
    found = np.sort(np.concatenate([*pairs, np.array(joined).reshape(-1, 2)]), axis=1)
    return np.unique(found, axis=0).astype(np.int32)


def _per_atom(structure, top, values, dtype):
    out = np.zeros(structure.n_atoms, dtype)
    for name, rows in zip(top.names, top.atoms, strict=True):
        out[rows] = values(templates.residues()[name])
    return out


def _relaxation(n, made, dipeptides, parent):
    """Force field terms that pull at caps, in sources."""
    found: dict[str, list] = collections.defaultdict(list)
    rows: dict[int, tuple] = {}
    for u in dipeptides:
        source = np.array(made.sources[u])
        capped = source >= n
        if not capped.any():
            continue
        template = templates.units()[made.names[u]]
        for kind, columns in (
            ("bond", (template.bond_k, template.bond_length)),
            ("angle", (template.angle_k, template.angle_theta)),
            ("dihedral", (template.dihedral_k, template.dihedral_n, template.dihedral_phase)),
        ):
            places = getattr(template, f"{kind}s")
            chosen = capped[places].any(1)
            found[f"{kind}s"].append(source[places[chosen]])
            found[f"{kind}_terms"].append(np.stack(columns, 1)[chosen])
        radius = template.unit_sigma * 2 ** (1 / 6) / 2
        for i in np.flatnonzero(capped):
            j = np.flatnonzero(~template.near[i])
            depth = np.sqrt(template.unit_epsilon[i] * template.unit_epsilon[j])
            reach = (radius[i] + radius[j]) ** 6
            share = np.where(capped[j], 0.5, 1.0)
            charges = template.charge[i] * template.charge[j]
            rows[source[i] - n] = source[j], np.stack([depth * reach**2, 2 * depth * reach, charges, share], 1)
    width = max((len(partners) for partners, _ in rows.values()), default=0)
    partners = np.repeat(parent.astype(np.int32)[:, None], width, 1)
    terms = np.zeros((len(parent), width, 4))
    for cap, (others, values) in rows.items():
        partners[cap, : len(others)] = others
        terms[cap, : len(others)] = values
    out = {"partners": partners, "partner_terms": terms}
    for name, size in (("bond", 2), ("angle", 3), ("dihedral", 4)):
        places, values = found[f"{name}s"], found[f"{name}_terms"]
        width = {"bond": 2, "angle": 2, "dihedral": 3}[name]
        out[f"{name}s"] = np.concatenate(places or [np.zeros((0, size))]).astype(np.int32)
        out[f"{name}_terms"] = np.concatenate(values or [np.zeros((0, width))])
    return out

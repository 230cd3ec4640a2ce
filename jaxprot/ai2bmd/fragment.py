"""A capped protein as overlapping units: which atoms and cap hydrogens make up each of them, once and for all.

AI2BMD: Wang et al., Nature 635:1019 (2024), doi 10.1038/s41586-024-08127-z. Every residue r gives a dipeptide: its
atoms with CA, HA, C, O of r - 1 and N, H, CA, HA of r + 1, where hydrogens stand in for the bonds that were cut. What
two neighbouring dipeptides share is an ACE-NME of 12 atoms and is subtracted. Two bridged cysteines make one unit; if
they are so near in the chain that a third dipeptide meets both, all from the one to the other does.

Everything is found by atom names; no coordinate is used but to check the input. The tables index the protein's atoms in
the order of the structure, followed by the cap hydrogens.
"""

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np

from jaxprot.ai2bmd import templates
from jaxprot.ai2bmd.topology import Topology, label, report, topology
from jaxprot.core.structure import Structure

CARBON_HYDROGEN, NITROGEN_HYDROGEN = 1.07, 1.02
"""Å from a cap to the carbon or nitrogen it sits on (sums of covalent radii)."""

ACENME = "ACENME"

_HALF = 6  # atoms of each cap of a unit
_NEAR = 4  # residues from one to another up to which a third dipeptide has atoms of the caps of both

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
    first residue, and nothing at the others. A *source* is an atom (0 to N - 1) or a cap (N to N + K - 1).

    Attributes:
      name: of the structure.
      z: (N,) atomic numbers.
      charge: (N,) elementary charges (ff14SB).
      sigma: (N,) Lennard-Jones σ in Å.
      epsilon: (N,) Lennard-Jones ε in kcal/mol.
      born_radius: (N,) intrinsic radii of generalised Born in Å (mbondi2).
      born_scale: (N,) their screening factors (OBC).
      atom_units: (N, 3) the dipeptides (0, 1, ...) that hold each atom, -1 where fewer.
      unit_name: (U,) residue of the force field, `ACENME`, `CYX` for a disulfide, or names of several residues, such as
        `CYX-PRO-HIE-CYX`, for one with what is between its cysteines.
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
    templates: list = dataclasses.field(default_factory=list)  # None for ACE-NMEs
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

    def stretch(self, first: int, last: int) -> list[int]:
        """Sources of residues from one to another with their caps, acetyl half first."""
        # Caps are numbered along the chain's rows: the acetyl half, then the other.
        inner = [source for row in range(first, last + 1) for source in self.top.atoms[row].tolist()]
        return [*self._acetyl(first - 1), *inner, *self._methyl(last + 1)]

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

    def unit(self, stretches: list[tuple[int, int]], sources: list[int]) -> None:
        """A unit of stretches of residues, from the first to the last row of each."""
        names = tuple(tuple(self.top.names[first : last + 1]) for first, last in stretches)
        template = templates.stretches(names)
        rows = [row for first, last in stretches for row in range(first, last + 1)]
        where = [
            label(self.structure, first) + (f" to {label(self.structure, last)}" if last > first else "")
            for first, last in stretches
        ]
        self._add(template.name, template, " - ".join(where), sources)
        self.charges[-1] = sum(templates.charge(self.top.names[row]) for row in rows)

    def overlap(self, row: int, following: int, sources: list[int]) -> None:
        """The ACE-NME of two neighbouring units."""
        self._add(ACENME, None, " - ".join(label(self.structure, one) for one in (row, following)), sources)

    def _add(self, name, template, where, sources):
        self.names.append(name)
        self.templates.append(template)
        self.labels.append(where)
        self.signs.append(-1 if template is None else 1)
        self.charges.append(0)
        self.sources.append(sources)


def fragment(structure: Structure) -> Fragmentation:
    """The units of one or more capped protein chains with all hydrogens.

    Args:
      structure: see `topology.topology` for what it must hold; coordinates in Å, for checks alone.

    Raises:
      InputError: the structure cannot be fragmented; names chain, residue and atom of every problem.
    """
    top = topology(structure)
    made, joined = _Builder(structure, top), _joined(top)
    stretches: dict[int, tuple[int, int]] = {}  # of each residue, the rows it begins and ends at
    for row in sorted(joined):
        after = row - 1 in joined and joined[row - 1] is joined[row]
        first = stretches[row - 1][0] if after else row
        stretches.update(dict.fromkeys(range(first, row + 1), (first, row)))
    pieces = {stretch: made.stretch(*stretch) for stretch in dict.fromkeys(stretches.values())}
    for row, unit in joined.items():
        if row == min(unit):
            parts = sorted({stretches[one] for one in unit})
            made.unit(parts, [source for part in parts for source in pieces[part]])
        following = row + 1
        if following in joined and joined[following] is not unit:
            shared = pieces[stretches[following]][:_HALF] + pieces[stretches[row]][-_HALF:]
            made.overlap(row, following, shared)
    _check(structure, made)
    return _assemble(structure, top, made)


def _joined(top: Topology) -> dict[int, frozenset[int]]:
    """The rows of all residues that are in one unit with each residue, in the order of the chains."""
    units = {row: frozenset([row]) for run in top.runs for row in run[1:-1]}

    def join(rows):
        whole = frozenset().union(*(units[row] for row in rows))
        units.update(dict.fromkeys(whole, whole))

    for bridge in top.bridges:
        join(bridge)
    grown = True
    while grown:  # what lies between may be of another bridge
        grown = False
        for unit in {unit for unit in units.values() if len(unit) > 1}:
            for one, two in itertools.pairwise(sorted(unit)):
                between = range(one, two + 1)
                if 1 < two - one <= _NEAR and all(row in units for row in between):  # caps: of different chains
                    join(between)
                    grown = True
    return units


def _check(structure, made):
    """Refuses units that would count the energy of two atoms more than once."""
    from scipy import sparse

    n, number = structure.n_atoms, np.repeat(np.arange(len(made.sources)), [len(one) for one in made.sources])
    source = np.concatenate(made.sources)
    number, source = number[source < n], source[source < n]
    holds, signed = (
        sparse.csr_array((np.asarray(values)[number], (number, source)), (len(made.sources), n))
        for values in (np.ones_like(made.signs), made.signs)
    )
    count = (holds.T @ signed).tocoo()
    wrong = (count.data < 0) | (count.data > 1)
    if not wrong.any():
        return
    problems = []
    for pair in np.unique(np.sort(np.stack([count.row, count.col], 1)[wrong]), axis=0).tolist():
        both = [u for u, rows in enumerate(made.sources) if made.signs[u] > 0 and set(pair) <= set(rows)]
        problems.append(
            f"{' and '.join(made.labels[u] for u in both)}: disulfides from neighbours to neighbours in the chain, "
            "whose units would count pairs of atoms twice; such a protein cannot be fragmented with both bridges "
            "closed (mode='whole' takes it)"
        )
    report(structure, list(dict.fromkeys(problems)))


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
    row_z = np.append(z, np.ones(len(parent), np.int32))[sources]  # caps are hydrogens
    return Fragmentation(
        name=structure.name,
        **atoms,
        born_radius=radius,
        born_scale=table[z, 1],
        atom_units=atom_units,
        unit_name=np.array(made.names),
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
        template = made.templates[u]
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

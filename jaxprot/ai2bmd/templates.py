"""Residues of the force field (amber14, ff14SB) and how files name their atoms.

ff14SB: Maier et al., J. Chem. Theory Comput. 11:3696 (2015), doi 10.1021/acs.jctc.5b00255. The numbers come from
`parameters.npz`, which `scripts/prepare_amber.py` derives from OpenMM's copy of the force field.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

HYDROGEN, SULPHUR = 1, 16

VARIANTS = {
    **{name: (name,) for name in "ALA ARG ASN GLN GLY ILE LEU MET PHE PRO SER THR TRP TYR VAL ACE NME".split()},
    "ASP": ("ASP", "ASH"),
    "GLU": ("GLU", "GLH"),
    "HIS": ("HIE", "HID", "HIP"),
    "LYS": ("LYS", "LYN"),
    "CYS": ("CYS", "CYX"),
}
"""Forms of a residue that differ by hydrogens alone; which one a residue is, its hydrogens tell."""

EXPLICIT = {
    **{name: name for name in "ASH GLH HIE HID HIP LYN CYX".split()},
    **{"HSD": "HID", "HISD": "HID", "HSE": "HIE", "HISE": "HIE", "HSP": "HIP", "HISP": "HIP"},
    **{"ASPH": "ASH", "GLUH": "GLH", "CYS2": "CYX"},
}
"""File names that stand for one form."""

_FAMILY = {form: family for family, forms in VARIANTS.items() for form in forms}
_FAMILY |= {name: _FAMILY[form] for name, form in EXPLICIT.items()}
_FAMILY |= {family: family for family in VARIANTS}
_FAMILY |= {"LYP": "LYS", "HISH": "HIS", "HISA": "HIS", "HISB": "HIS", "NMA": "NME", "CYSH": "CYS"}

# Heavy atoms under other names, and what may stand before the numbers of equivalent hydrogens.
_HEAVY = {
    "ILE": {"CD": "CD1"},
    "ACE": {"CA": "CH3", "CAY": "CH3", "CY": "C", "OY": "O"},
    "NME": {"C": "CH3", "CA": "CH3", "CAT": "CH3", "NT": "N"},
}
_STEMS = {"ILE": {"HD1": ("HD",)}, "ACE": {"H": ("HH3", "HA", "HY")}, "NME": {"HH3": ("H", "HA", "HT")}}
_SINGLE = {"H": ("HN", "HNT", "HT")}
# A proton on the other oxygen of an acid: the oxygens change places.
_SWAPPED = {"ASH": ("HD1", "HD2", "OD1", "OD2"), "GLH": ("HE1", "HE2", "OE1", "OE2")}


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """A residue of the force field, or a unit of one (CYX: two) residues between caps.

    Attributes:
      name: of the force field.
      atoms: (A,) names in the order of AMBER's residue files.
      z: (A,) atomic numbers.
      charge: (A,) elementary charges.
      sigma: (A,) Å.
      epsilon: (A,) kcal/mol.
      unit_sigma: (A,) Å, what caps are relaxed with; another one for sulphur.
      unit_epsilon: (A,) kcal/mol, likewise.
      bonds: (b, 2) of atoms, with `bond_k` in kcal/mol/Å² and `bond_length` in Å.
      angles: (a, 3) those with a hydrogen, with `angle_k` in kcal/mol and `angle_theta` in rad.
      dihedrals: (d, 4) those with a hydrogen, with `dihedral_k` in kcal/mol, `dihedral_n`, `dihedral_phase` in rad.
    """

    name: str
    atoms: tuple[str, ...]
    z: np.ndarray
    charge: np.ndarray
    sigma: np.ndarray
    epsilon: np.ndarray
    unit_sigma: np.ndarray
    unit_epsilon: np.ndarray
    bonds: np.ndarray
    bond_k: np.ndarray
    bond_length: np.ndarray
    angles: np.ndarray
    angle_k: np.ndarray
    angle_theta: np.ndarray
    dihedrals: np.ndarray
    dihedral_k: np.ndarray
    dihedral_n: np.ndarray
    dihedral_phase: np.ndarray

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Place of every atom name (of a residue; names of a unit repeat)."""
        return {name: i for i, name in enumerate(self.atoms)}

    @functools.cached_property
    def parent(self) -> np.ndarray:
        """(A,) place of the atom that a hydrogen sits on, -1 for other atoms."""
        out = np.full(len(self.z), -1)
        for i, j in self.bonds:
            if self.z[i] == HYDROGEN:
                out[i] = j
            if self.z[j] == HYDROGEN:
                out[j] = i
        return out

    @functools.cached_property
    def near(self) -> np.ndarray:
        """(A, A) bool, True for atoms at most three bonds apart and for an atom with itself."""
        joined = np.eye(len(self.z), dtype=np.int64)
        joined[self.bonds[:, 0], self.bonds[:, 1]] = joined[self.bonds[:, 1], self.bonds[:, 0]] = 1
        return np.linalg.matrix_power(joined, 3) > 0

    @functools.cached_property
    def hydrogens(self) -> tuple[tuple[str, ...], ...]:
        """Names of the hydrogens, those on one heavy atom together."""
        parents = sorted(set(self.parent[self.parent >= 0].tolist()))
        return tuple(tuple(self.atoms[i] for i in np.flatnonzero(self.parent == p)) for p in parents)


@functools.cache
def units() -> dict[str, Template]:
    """Every unit (acetyl - residue - N-methyl) by the name of its residue; `CYX` is two of them, bridged."""
    table = _table()
    return {str(name): _unit(table, i) for i, name in enumerate(table["unit"])}


@functools.cache
def stretches(parts: tuple[tuple[str, ...], ...]) -> Template:
    """A unit of one or several stretches of residues, each between an acetyl and an N-methyl.

    Bridges between cysteines are left out, but in that of two single ones: no cap is within three bonds of a bridge. Of
    angles and dihedrals there are those within a residue or with a cap.

    Args:
      parts: names of the residues of each stretch.
    """
    if len(parts) == 1 and len(parts[0]) == 1 and parts[0] != ("CYX",):
        return units()[parts[0][0]]
    if parts == (("CYX",), ("CYX",)):
        return units()["CYX"]
    each = [_stretch(names) for names in parts]
    start = np.cumsum([0, *(len(one.z) for one in each)])
    joined: dict[str, Any] = {"name": "+".join("-".join(names) for names in parts)}
    for field in (field.name for field in dataclasses.fields(Template) if field.name != "name"):
        values = [getattr(one, field) for one in each]
        if field == "atoms":
            joined[field] = sum(values, ())
        else:
            shift = field in ("bonds", "angles", "dihedrals")
            joined[field] = np.concatenate([value + at * shift for value, at in zip(values, start, strict=False)])
    return Template(**joined)


def _stretch(names):
    """Of one stretch; made of the units of its residues, which have its terms."""
    last, sizes = len(names) - 1, [len(residues()[name].z) for name in names]
    start = _CAP + np.cumsum([0, *sizes])
    out = collections.defaultdict(list)
    for k, name in enumerate(names):
        unit, behind = units()[name], _CAP + sizes[k]
        own = slice(0 if k == 0 else _CAP, behind + (_CAP if k == last else 0))
        for field in ("atoms", "z", *_ATOM_VALUES):
            out[field].append(getattr(unit, field)[own])
        place = np.full(len(unit.z), -1)  # of each atom of the unit in the stretch; that of CYX has a second half
        place[own] = np.arange(len(unit.z))[own] + start[k] - _CAP
        if k < last:  # what is left of the N-methyl is the nitrogen of the next residue
            place[behind] = start[k + 1] + residues()[names[k + 1]].index["N"]
        for kind, values in _TERMS.items():
            inside = (place[getattr(unit, kind)] >= 0).all(1)
            out[kind].append(place[getattr(unit, kind)[inside]])
            for field in values:
                out[field].append(getattr(unit, field)[inside])
    atoms = sum(out.pop("atoms"), ())
    return Template(name="-".join(names), atoms=atoms, **{field: np.concatenate(found) for field, found in out.items()})


@functools.cache
def residues() -> dict[str, Template]:
    """Every residue by name, `ACE` and `NME` among them; bonds within the residue, no angles or dihedrals."""
    table = _table()
    out = {}
    for i, name in enumerate(table["unit"]):
        place = table["atom_residue"][slice(*table["atom_start"][i : i + 2])]
        for row, residue in ((0, "ACE"), (1, str(name)), (2, "NME")):
            if residue not in out:
                out[residue] = _part(_unit(table, i), np.flatnonzero(place == row), residue)
    return out


def charge(name: str) -> int:
    """Net charge of a residue."""
    return round(float(residues()[name].charge.sum()))


def family(name: str) -> str | None:
    """Key of `VARIANTS` that a residue name of a file belongs to; None for anything but a supported residue."""
    return _FAMILY.get(name.strip().upper())


def match(variant: str, names: Sequence[str]) -> tuple[dict[str, int], list[str], list[str]]:
    """Finds the atoms of a residue by their names.

    Understood are the names of the PDB (now and before 2007), AMBER, CHARMM and GROMACS. Hydrogens on one atom are
    equivalent: where their numbers differ they are taken in order.

    Args:
      variant: name of a residue of the force field.
      names: (n,) atom names as in the file.

    Returns:
      Place in `names` of each atom of the template that was found, names of the template that were not, and
      names of the file that are left over.
    """
    template = residues()[variant]
    kind = _FAMILY[variant]
    place: dict[str, int] = {}
    for i, name in enumerate(names):
        place.setdefault(_plain(name), i)
    if variant in _SWAPPED:
        other, proton, first, second = _SWAPPED[variant]
        if other in place and proton not in place and {first, second} <= set(place):
            place[proton] = place.pop(other)
            place[first], place[second] = place[second], place[first]
    for alias, name in _HEAVY.get(kind, {}).items():
        if alias in place and name not in place:
            place[name] = place.pop(alias)
    found = {name: place.pop(name) for name in template.atoms if name[0] != "H" and name in place}
    groups = sorted(template.hydrogens, key=lambda group: not all(name in place for name in group))
    for group in groups:
        source = next((s for s in _spellings(kind, group, template.index) if _complete(s, group, place)), None)
        chosen = group if source is None else source(place)
        found |= {name: place.pop(given) for name, given in zip(group, chosen, strict=True) if given in place}
    missing = [name for name in template.atoms if name not in found]
    return found, missing, [names[i] for i in sorted(place.values())]


def _spellings(kind, group, index):
    """Ways to name a group of equivalent hydrogens; each takes the names there are and returns those it means."""
    yield lambda place: [name for name in group if name in place]
    if len(group) == 1:
        for alias in (*_SINGLE.get(group[0], ()), *([] if f"{group[0]}1" in index else [f"{group[0]}1"])):
            yield lambda place, alias=alias: [name for name in (alias,) if name in place]
        return
    stem = group[0][:-1]
    for prefix in (stem, *_STEMS.get(kind, {}).get(stem, ())):
        yield lambda place, prefix=prefix: sorted(
            name for name in place if len(name) == len(prefix) + 1 and name.startswith(prefix) and name[-1].isdigit()
        )


def _complete(spelling, group, place):
    return len(spelling(place)) == len(group)


def _plain(name: str) -> str:
    """Upper case, and digits of old files (`1HB`) at the end."""
    name = name.strip().upper()
    digits = len(name) - len(name.lstrip("0123456789"))
    return name[digits:] + name[:digits] if digits and name[digits : digits + 1] == "H" else name


@functools.cache
def _table() -> dict[str, np.ndarray]:
    with resources.files("jaxprot.ai2bmd").joinpath("parameters.npz").open("rb") as file, np.load(file) as arrays:
        return {key: arrays[key] for key in arrays}


def _unit(table, i):
    atom, bond, angle, dihedral = (slice(*table[f"{kind}_start"][i : i + 2]) for kind in _KINDS)
    return Template(
        name=str(table["unit"][i]),
        atoms=tuple(map(str, table["atom_name"][atom])),
        z=table["atom_z"][atom].astype(np.int32),
        **{field: table[f"atom_{field}"][atom] for field in _ATOM_VALUES},
        bonds=table["bond_atoms"][bond].astype(np.int32),
        bond_k=table["bond_k"][bond],
        bond_length=table["bond_length"][bond],
        angles=table["angle_atoms"][angle].astype(np.int32),
        angle_k=table["angle_k"][angle],
        angle_theta=table["angle_theta"][angle],
        dihedrals=table["dihedral_atoms"][dihedral].astype(np.int32),
        dihedral_k=table["dihedral_k"][dihedral],
        dihedral_n=table["dihedral_n"][dihedral],
        dihedral_phase=table["dihedral_phase"][dihedral],
    )


def _part(unit, rows, name):
    inside = np.isin(unit.bonds, rows).all(1)
    return dataclasses.replace(
        unit,
        name=name,
        atoms=tuple(unit.atoms[i] for i in rows),
        z=unit.z[rows],
        **{field: getattr(unit, field)[rows] for field in _ATOM_VALUES},
        bonds=np.searchsorted(rows, unit.bonds[inside]),
        bond_k=unit.bond_k[inside],
        bond_length=unit.bond_length[inside],
        **{field: getattr(unit, field)[:0] for field in _ANGLE_VALUES},
    )


_KINDS = ("atom", "bond", "angle", "dihedral")
_CAP = 6  # atoms of an acetyl or an N-methyl, the first and the last of a unit
_TERMS = {
    "bonds": ("bond_k", "bond_length"),
    "angles": ("angle_k", "angle_theta"),
    "dihedrals": ("dihedral_k", "dihedral_n", "dihedral_phase"),
}
_ATOM_VALUES = ("charge", "sigma", "epsilon", "unit_sigma", "unit_epsilon")
_ANGLE_VALUES = (
    "angles", "angle_k", "angle_theta", "dihedrals", "dihedral_k", "dihedral_n", "dihedral_phase",
)  # fmt: skip

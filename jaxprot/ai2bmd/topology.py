"""Reads a protein with hydrogens and caps as force field residues, or says what is wrong with it.

What fragmentation needs is checked here, before anything is computed: dynamics from a structure with a missing atom or
a broken chain run for hours and mean nothing. All problems of a structure are reported together.
"""

import collections
import dataclasses

import numpy as np

from jaxprot.ai2bmd import templates
from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure

OVERLAP = 0.5
"""Å within which two atoms cannot be."""

BRIDGE = 3.0
"""Å between sulphurs of a disulfide, at most; 2.05 is usual."""

_GAP = 2.0  # Å between C and N of neighbours, 1.33 is usual
_STRETCH = 1.6  # times the usual length, beyond which a bond is none
_PREPARE = "with `jaxprot ai2bmd prepare` or another program that adds hydrogens and side chains"
_SHOWN = 12  # problems in a message
_RESIDUES, _ATOMS = 3, 4  # residues, and atoms of each, that a line on missing ones names


@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """A protein, or several, as capped chains of force field residues.

    Attributes:
      names: (R,) residue of the force field for each residue row of the structure, caps among them.
      atoms: for each residue row, the row of the structure of every atom of its template, in the template's order.
      runs: residue rows of every capped chain, from ACE to NME.
      bridges: pairs of residue rows joined by a disulfide, the lower one first.
    """

    names: tuple[str, ...]
    atoms: tuple[np.ndarray, ...]
    runs: tuple[tuple[int, ...], ...]
    bridges: tuple[tuple[int, int], ...]


def topology(structure: Structure) -> Topology:
    """The force field residues of a structure of capped chains with all hydrogens.

    Args:
      structure: one or more protein chains, each from ACE to NME; atoms of a residue in any order, named as in the PDB,
        AMBER, CHARMM or GROMACS. Forms of HIS, ASP, GLU, LYS and CYS are told by their hydrogens.

    Raises:
      InputError: it cannot be fragmented as it is; names every problem with its chain, residue and atom.
    """
    problems: list[str] = []
    if structure.n_atoms == 0:
        raise InputError(f"{structure.name}: no atoms; give a protein")
    if len(set(structure.model.tolist())) > 1:
        raise InputError(f"{structure.name}: {len(set(structure.model.tolist()))} models; choose one of them")
    problems += _bad_positions(structure)
    problems += _alternatives(structure)
    problems += _foreign(structure)
    report(structure, problems)

    runs, problems = _runs(structure)
    names, atoms, absent = [], [], {}
    for row in range(structure.n_residues):
        name, rows, absent[row], wrong = _residue(structure, row)
        names.append(name)
        atoms.append(rows)
        problems += wrong
    problems += _absent(structure, absent)
    # What cannot be named cannot be measured, and close atoms would be reported as bonds too long and too short.
    report(structure, problems)
    problems += _overlaps(structure)
    problems += [] if problems else _stretched(structure, names, atoms, runs)
    bridges, wrong = _bridges(structure, names, atoms)
    report(structure, problems + wrong)
    return Topology(tuple(names), tuple(atoms), tuple(map(tuple, runs)), tuple(bridges))


def label(structure: Structure, row: int) -> str:
    """A residue as messages call it, such as `chain A residue TYR 2`."""
    chain = str(structure.chain_id[structure.res_chain[row]])
    number = f"{structure.resid[row]}{structure.icode[row]}"
    return f"{f'chain {chain} ' if chain else ''}residue {structure.res_name[row]} {number}"


def report(structure: Structure, problems: list[str]) -> None:
    """Raises InputError with the problems of a structure, if there are any."""
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        start = f"{structure.name}: " if len(problems) == 1 else f"{structure.name}: {len(problems)} problems"
        raise InputError(start + (problems[0] if len(problems) == 1 else lines + more))


def _atom(structure, i):
    return f"{label(structure, structure.atom_residue[i])} atom {structure.atom_name[i]}"


def _bad_positions(structure):
    bad = np.flatnonzero(~np.isfinite(structure.xyz).all(1))
    return [f"{_atom(structure, i)}: its coordinates are no numbers; the file is damaged" for i in bad]


def _alternatives(structure):
    names = collections.Counter(zip(structure.atom_residue.tolist(), structure.atom_name.tolist(), strict=True))
    out = []
    for (row, name), count in names.items():
        if count > 1:
            there = (structure.atom_residue == row) & (structure.atom_name == name)
            labels = sorted(set(structure.altloc[there].tolist()) - {""})
            if labels:
                why = f"alternate locations {', '.join(labels)}; keep one of them (`Structure.first_altlocs`)"
            else:
                why = f"{count} atoms of this name; give each a name of its own or remove the copies"
            out.append(f"{label(structure, row)} atom {name}: {why}")
    return out


def _foreign(structure):
    out, waters = [], []
    sizes = np.bincount(structure.atom_residue, minlength=structure.n_residues)
    for row, name in enumerate(structure.res_name.tolist()):
        if templates.family(name):
            continue
        if name in residues.WATER:
            waters.append(row)
        elif sizes[row] == 1:
            out.append(f"{label(structure, row)}: an ion cannot be part of a fragment; remove it")
        elif residues.parent(name) != "UNK":
            out.append(
                f"{label(structure, row)}: a modified or unsupported form of {residues.parent(name)}; replace it by "
                f"one of {', '.join(sorted(templates.residues()))}"
            )
        elif structure.hetero[row]:
            out.append(f"{label(structure, row)}: a ligand cannot be fragmented; remove it")
        else:
            out.append(
                f"{label(structure, row)}: an unknown residue; known are {', '.join(sorted(templates.residues()))}"
            )
    if waters:
        out.append(
            f"{label(structure, waters[0])}: {len(waters)} water(s); remove them and use implicit solvent instead"
        )
    return out


def _runs(structure):
    """Residue rows from ACE to NME, and what is wrong with the ends."""
    kinds = [templates.family(name) for name in structure.res_name.tolist()]
    runs, problems, run = [], [], []
    for row, kind in enumerate(kinds):
        first = row == 0 or structure.res_chain[row] != structure.res_chain[row - 1]
        if run and (first or kind == "ACE"):
            problems.append(_uncapped(structure, run[-1], "NME"))
            run = []
        if not run and kind != "ACE":
            problems.append(_uncapped(structure, row, "ACE"))
        run.append(row)
        if kind == "NME":
            if len(run) == 2 and kinds[run[0]] == "ACE":
                problems.append(
                    f"{label(structure, row)}: the chain is too short, no residue stands between its caps; give at "
                    "least one"
                )
            runs.append(run)
            run = []
    if run:
        problems.append(_uncapped(structure, run[-1], "NME"))
    return runs, problems


def _uncapped(structure, row, cap):
    end = "start with ACE" if cap == "ACE" else "end with NME"
    return f"{label(structure, row)}: the chain does not {end} here; cap it (`jaxprot ai2bmd prepare`)"


def _residue(structure, row):
    """Force field residue, atom rows in its order, names of missing atoms, and other problems of one residue."""
    start, end = np.searchsorted(structure.atom_residue, [row, row + 1])
    given = structure.atom_name[start:end].tolist()
    kind = templates.family(str(structure.res_name[row]))
    tried = [(variant, *templates.match(variant, given)) for variant in templates.VARIANTS[kind]]
    # The first of equally good ones: a cysteine without its hydrogen is bridged only if nothing else is missing.
    variant, found, missing, extra = min(tried, key=lambda fit: len(fit[2]) + len(fit[3]))
    problems = []
    where = label(structure, row)
    if kind == "HIS" and {"HD1", "HE2"} <= set(_wanted("HIP")) - set(found):
        missing = [name for name in missing if name not in ("HD1", "HE2")] + ["HD1 or HE2"]
    for name in extra:
        why = "the chain end is charged; cap it instead" if name in ("OXT", "OT1", "OT2", "H2", "H3") else "remove it"
        problems.append(f"{where} atom {name}: {variant} has no such atom; {why}")
    named = templates.EXPLICIT.get(str(structure.res_name[row]).upper())
    if not problems and not missing and named and named != variant:
        problems.append(f"{where}: its hydrogens are those of {variant}; name it {variant} or correct them")
    if problems or missing:
        return variant, np.zeros(0, int), missing, problems
    template = templates.residues()[variant]
    rows = start + np.array([found[name] for name in template.atoms])
    element = residues.atomic_numbers(structure.element[rows])
    for i in np.flatnonzero((element != template.z) & (element != 0)):  # 0: the file does not say
        problems.append(
            f"{where} atom {structure.atom_name[rows[i]]}: element {structure.element[rows[i]]} in the file, but the "
            f"name stands for {residues.ELEMENTS[template.z[i]]}; correct columns 77-78 (type_symbol in mmCIF)"
        )
    return variant, rows, [], problems


def _absent(structure, missing):
    """One line on all missing hydrogens, and one on other missing atoms; `missing` are their names by residue row."""
    out = []
    for what in ("hydrogen", "atom"):
        lost = {row: [n for n in names if (n[0] == "H") == (what == "hydrogen")] for row, names in missing.items()}
        lost = {row: names for row, names in lost.items() if names}
        count = sum(map(len, lost.values()))
        if count == 1:
            ((row, (name,)),) = lost.items()
            out.append(f"{label(structure, row)} atom {name}: this {what} is missing; add it {_PREPARE}")
        elif count:
            shown = [
                f"{label(structure, row)} ({', '.join(names[:_ATOMS])}{_more(names, _ATOMS)})"
                for row, names in list(lost.items())[:_RESIDUES]
            ]
            where = ", ".join(shown) + _more(lost, _RESIDUES, "residues")
            out.append(f"{count} {what}s are missing: {where}; add them {_PREPARE}")
    return out


def _more(things, shown, what=""):
    rest = len(things) - shown
    return f" and {rest} more{what and ' ' + what}" if rest > 0 else ""


def _wanted(variant):
    return templates.residues()[variant].atoms


def check_positions(structure: Structure) -> None:
    """Refuses atoms that are nowhere or in the same place, of any molecule.

    Raises:
      InputError: names them all.
    """
    report(structure, _bad_positions(structure))
    report(structure, _overlaps(structure))


def _overlaps(structure):
    from scipy.spatial import KDTree

    pairs = KDTree(structure.xyz.astype(np.float64)).query_pairs(OVERLAP, output_type="ndarray")
    return [
        f"{_atom(structure, i)} and {_atom(structure, j)}: "
        f"{np.linalg.norm(structure.xyz[i] - structure.xyz[j]):.2f} Å apart; minimise the structure or rebuild them"
        for i, j in np.unique(pairs, axis=0)
    ]


def _stretched(structure, names, atoms, runs):
    xyz, out = structure.xyz.astype(np.float64), []
    for row, name in enumerate(names):
        template = templates.residues()[name]
        i, j = atoms[row][template.bonds].T
        length = np.linalg.norm(xyz[i] - xyz[j], axis=1)
        for bond in np.flatnonzero(length > _STRETCH * template.bond_length):
            out.append(
                f"{_atom(structure, i[bond])}: {length[bond]:.2f} Å from {structure.atom_name[j[bond]]}, to which it "
                "is bonded; minimise the structure or rebuild the residue"
            )
    for run in runs:
        for one, two in zip(run, run[1:], strict=False):
            carbon = atoms[one][templates.residues()[names[one]].index["C"]]
            nitrogen = atoms[two][templates.residues()[names[two]].index["N"]]
            length = np.linalg.norm(xyz[carbon] - xyz[nitrogen])
            if length > _GAP:
                out.append(
                    f"{label(structure, one)} and {label(structure, two)}: chain break, C and N are {length:.2f} Å "
                    "apart; model the missing residues or cap both ends as chains of their own"
                )
    return out


def _bridges(structure, names, atoms):
    """Disulfides: sulphurs without hydrogen, nearest first."""
    rows = [row for row, name in enumerate(names) if name == "CYX"]
    if not rows:
        return [], []
    place = templates.residues()["CYX"].index["SG"]
    xyz = structure.xyz[[atoms[row][place] for row in rows]].astype(np.float64)
    distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
    i, j = np.triu_indices(len(rows), 1)
    order = np.argsort(distance[i, j], kind="stable")
    pairs, taken = [], set()
    for one, two in zip(i[order], j[order], strict=True):
        if distance[one, two] <= BRIDGE and not taken & {one, two}:
            taken |= {one, two}
            pairs.append((rows[one], rows[two]))
    problems = [
        f"{label(structure, rows[k])} atom SG: no hydrogen HG and no other such sulphur within {BRIDGE} Å; add the "
        "hydrogen or close the disulfide"
        for k in range(len(rows))
        if k not in taken
    ]
    return sorted(pairs), problems

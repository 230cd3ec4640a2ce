"""Derives `jaxprot/ai2bmd/parameters.npz` from the amber14 files that come with OpenMM.

One unit is a residue between an acetyl and an N-methyl cap; the unit `CYX` is two of them joined by a disulfide. For
each: names, charges and Lennard-Jones parameters of the atoms, all bonds, and the angles and dihedrals with a hydrogen,
which is what placing and relaxing cap hydrogens needs. Constants are in the convention of AMBER's files
(k (r - r0)², kcal/mol, Å, rad).

The program that the fragments come from uses one dihedral term per quadruple, the first in its topology files; that is
the one of lowest multiplicity. Terms without strength and improper torsions are left out.

    python scripts/prepare_amber.py            # needs jaxprot[prepare]
"""

import argparse
from pathlib import Path

import numpy as np

from jaxprot.io.outputs import atomic_path

UNITS = (
    "ALA ARG ASH ASN ASP CYS CYX GLH GLN GLU GLY HID HIE HIP ILE LEU LYN LYS MET PHE PRO SER THR TRP TYR VAL".split()
)
TARGET = Path(__file__).parents[1] / "jaxprot" / "ai2bmd" / "parameters.npz"
KCAL = 4.184
# The units of the published program are typed by GAFF2 where ff14SB has other sulphurs (2^(1/6) σ / 2 in Å, kcal/mol).
# It matters to the relaxation of caps alone; energies between fragments are ff14SB's.
SULPHUR, THIOL = (1.9825, 0.2824), (0.6112, 0.0124)
METHYL = {"HH31": "H1", "HH32": "H2", "HH33": "H3"}


def topology(field, name):
    """The capped residue as an OpenMM topology, twice and bridged for CYX."""
    from openmm import app

    out = app.Topology()
    bridge = []
    for _ in range(2 if name == "CYX" else 1):
        chain = out.addChain()
        carbonyl = None
        for template_name in ("ACE", name, "NME"):
            template = field._templates[template_name]
            residue = out.addResidue(template_name, chain)
            atoms = [out.addAtom(atom.name, atom.element, residue) for atom in template.atoms]
            named = {atom.name: atom for atom in atoms}
            for i, j in template.bonds:
                out.addBond(atoms[i], atoms[j])
            if carbonyl is not None:
                out.addBond(carbonyl, named["N"])
            carbonyl = named.get("C") if template_name != "NME" else None
            bridge.extend([named["SG"]] if template_name == "CYX" else [])
    if bridge:
        out.addBond(*bridge)
    return out


def unit(field, name):
    """Arrays of one unit."""
    import openmm
    from openmm import unit as u

    top = topology(field, name)
    system = field.createSystem(top)
    forces = {type(force): force for force in system.getForces()}
    z = np.array([atom.element.atomic_number for atom in top.atoms()])
    order = [METHYL.get(a.name, a.name) if a.residue.name == "ACE" else a.name for a in top.atoms()]
    nonbonded = forces[openmm.NonbondedForce]
    atoms = [nonbonded.getParticleParameters(i) for i in range(len(z))]

    sigma = np.array([s.value_in_unit(u.angstrom) for _, s, _ in atoms])
    epsilon = np.array([e.value_in_unit(u.kilocalorie_per_mole) for _, _, e in atoms])
    unit_sigma, unit_epsilon = sigma.copy(), epsilon.copy()
    for chosen, (radius, depth) in ((z == 16, SULPHUR), (np.array([name + a == "CYSHG" for a in order]), THIOL)):
        unit_sigma[chosen], unit_epsilon[chosen] = 2 ** (5 / 6) * radius, depth

    bonds = []
    force = forces[openmm.HarmonicBondForce]
    for n in range(force.getNumBonds()):
        i, j, length, k = force.getBondParameters(n)
        k = k.value_in_unit(u.kilojoule_per_mole / u.nanometer**2) / KCAL / 200
        bonds.append((sorted((i, j)), k, length.value_in_unit(u.angstrom)))
    joined = {tuple(pair) for pair, _, _ in bonds} | {tuple(pair[::-1]) for pair, _, _ in bonds}

    angles = []
    force = forces[openmm.HarmonicAngleForce]
    for n in range(force.getNumAngles()):
        *place, theta, k = force.getAngleParameters(n)
        if (z[place] == 1).any():
            k = k.value_in_unit(u.kilojoule_per_mole / u.radian**2) / KCAL / 2
            angles.append((place if place[0] < place[2] else place[::-1], k, theta.value_in_unit(u.radian)))

    torsions = {}
    force = forces[openmm.PeriodicTorsionForce]
    for n in range(force.getNumTorsions()):
        *place, periodicity, phase, k = force.getTorsionParameters(n)
        k = k.value_in_unit(u.kilocalorie_per_mole)
        proper = all(pair in joined for pair in zip(place, place[1:], strict=False))
        if proper and (z[place] == 1).any() and k != 0:
            place = tuple(place if place[0] < place[3] else place[::-1])
            if place not in torsions or periodicity < torsions[place][1]:
                torsions[place] = (k, periodicity, phase.value_in_unit(u.radian))

    return {
        "atom_name": np.array(order, "U4"),
        "atom_residue": np.array([atom.residue.index for atom in top.atoms()], np.int8),
        "atom_z": z.astype(np.int8),
        "atom_charge": np.array([q.value_in_unit(u.elementary_charge) for q, _, _ in atoms]),
        "atom_sigma": sigma,
        "atom_epsilon": epsilon,
        "atom_unit_sigma": unit_sigma,
        "atom_unit_epsilon": unit_epsilon,
        **_table("bond", sorted(bonds), ("k", "length")),
        **_table("angle", sorted(angles), ("k", "theta")),
        **_table("dihedral", sorted((place, *term) for place, term in torsions.items()), ("k", "n", "phase")),
    }


def _table(name, rows, columns):
    place, *values = zip(*rows, strict=True)
    return {
        f"{name}_atoms": np.array(place, np.int8),
        **{f"{name}_{column}": np.array(value, float) for column, value in zip(columns, values, strict=True)},
    }


def derive() -> dict[str, np.ndarray]:
    """All units end to end, with `<kind>_start` (U + 1) offsets."""
    from openmm import app

    field = app.ForceField("amber14-all.xml")
    units = [unit(field, name) for name in UNITS]
    out = {"unit": np.array(UNITS)}
    for kind, key in (("atom", "atom_z"), ("bond", "bond_k"), ("angle", "angle_k"), ("dihedral", "dihedral_k")):
        out[f"{kind}_start"] = np.cumsum([0, *(len(arrays[key]) for arrays in units)]).astype(np.int32)
    return out | {key: np.concatenate([arrays[key] for arrays in units]) for key in units[0]}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=TARGET, help="the file to write")
    args = parser.parse_args()
    arrays = derive()
    with atomic_path(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{args.output}: {len(arrays['unit'])} units, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()

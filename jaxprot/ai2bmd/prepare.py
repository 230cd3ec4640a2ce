"""From a raw structure to one that can be simulated: missing atoms, hydrogens, caps, names.

Built on PDBFixer and OpenMM (`pip install "jaxprot[prepare]"`); what comes out is checked by `fragment`.
"""

from __future__ import annotations

import io
import logging
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxprot.ai2bmd.fragment import fragment
from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.structures import read_structure, stem_of, write_structure

log = logging.getLogger(__name__)
_CAPS = ("ACE", "NME")
_MINIMISE = 200  # iterations
_BOND = 2.0  # Å between C and N of neighbours, at most


class Prepared(NamedTuple):
    """A structure to simulate, and what was done to make it.

    Attributes:
      structure: capped chains with all hydrogens.
      report: lists of what was changed, by kind.
    """

    structure: Structure
    report: dict[str, Any]


def prepare(
    path: str | os.PathLike,
    *,
    chains: Sequence[str] = (),
    ph: float = 7.0,
    minimise: bool = True,
    seed: int = 0,
) -> Prepared:
    """Makes a structure simulatable.

    Waters, ligands and ions are left out; modified residues become their parents; missing heavy atoms, ACE and NME caps
    and hydrogens are added (protonation states by pH, histidines by hydrogen bonds); what was added is relaxed in
    ff14SB with an implicit solvent.

    Args:
      path: PDB or mmCIF file of a protein; its first model and first alternate locations are taken.
      chains: to keep; all protein chains if empty.
      ph: that decides which residues are charged.
      minimise: relax what was added: hydrogens, caps and missing atoms. Heavy atoms of the file stay where they are.
      seed: of the places where hydrogens begin.

    Raises:
      InputError: no protein, a gap, or something that OpenMM has no parameters for; or the extra is not installed.
    """
    try:
        import openmm
        from openmm import app
        from pdbfixer import PDBFixer
    except ImportError as error:
        raise InputError('preparing structures needs OpenMM and PDBFixer: pip install "jaxprot[prepare]"') from error
    raw = read_structure(path)
    kept, dropped = _protein(raw.first_model().first_altlocs(), chains, str(path))
    report: dict[str, Any] = {"left_out": dropped}
    with tempfile.TemporaryDirectory() as folder:
        clean = pathlib.Path(folder) / "clean.pdb"
        write_structure(kept, clean, fit=True)
        fixer = PDBFixer(filename=str(clean))
    fixer.findNonstandardResidues()
    report["modified"] = [f"{_of(residue)} -> {new}" for residue, new in fixer.nonstandardResidues]
    fixer.replaceNonstandardResidues()
    _remove_caps(fixer, app)
    broken = _breaks(fixer)
    if broken:
        raise InputError(
            f"{path}: the chain is broken at {'; '.join(broken[:5])}; model the missing residues first, or keep whole "
            "chains (--chains)"
        )
    fixer.missingResidues = {}
    for number, chain in enumerate(fixer.topology.chains()):
        count = sum(1 for _ in chain.residues())
        fixer.missingResidues[number, 0] = ["ACE"]
        fixer.missingResidues[number, count] = ["NME"]
    fixer.findMissingAtoms()
    report["heavy_atoms_added"] = [
        f"{_of(residue)}: {', '.join(atom.name for atom in atoms)}" for residue, atoms in fixer.missingAtoms.items()
    ]
    added = {(*_key(residue), atom.name) for residue, atoms in fixer.missingAtoms.items() for atom in atoms}
    fixer.missingTerminals = {}
    try:
        fixer.addMissingAtoms(seed=seed)
        modeller = app.Modeller(fixer.topology, fixer.positions)
        field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
        modeller.delete([atom for atom in modeller.topology.atoms() if atom.element == app.element.hydrogen])
        variants = modeller.addHydrogens(field, pH=ph, platform=openmm.Platform.getPlatformByName("CPU"))
        positions = modeller.positions
        if minimise:
            system = field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff)
            for atom in modeller.topology.atoms():
                given = atom.residue.name not in _CAPS and (*_key(atom.residue), atom.name) not in added
                if given and atom.element != app.element.hydrogen:
                    system.setParticleMass(atom.index, 0)  # OpenMM leaves atoms without mass where they are
            integrator = openmm.VerletIntegrator(0.001)
            simulation = app.Simulation(modeller.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
            simulation.context.setPositions(positions)
            simulation.minimizeEnergy(maxIterations=_MINIMISE)
            positions = simulation.context.getState(getPositions=True).getPositions()
    except (ValueError, openmm.OpenMMException, KeyError) as error:
        raise InputError(f"{path}: OpenMM cannot complete it: {' '.join(str(error).split())}") from error
    report["protonation"] = [
        f"{_of(residue)}: {variant}"
        for residue, variant in zip(modeller.topology.residues(), variants, strict=True)
        if variant and residue.name in ("HIS", "ASP", "GLU", "LYS", "CYS")
    ]
    text = io.StringIO()
    app.PDBFile.writeFile(modeller.topology, positions, text, keepIds=True)
    structure = read_structure(text.getvalue().encode(), name=stem_of(path))
    made = fragment(structure)  # refuses what cannot be simulated, and says where
    report |= {"residues": structure.n_residues, "atoms": structure.n_atoms, "atoms_before": kept.n_atoms}
    report["charge"] = made.total_charge
    return Prepared(structure, report)


def _key(residue: Any) -> tuple[int, str, str]:
    return residue.chain.index, residue.id, residue.insertionCode


def _of(residue: Any) -> str:
    chain = residue.chain.id.strip()
    return f"{f'chain {chain} ' if chain else ''}{residue.name} {residue.id}{residue.insertionCode.strip()}"


def _protein(structure: Structure, chains: Sequence[str], source: str) -> tuple[Structure, list[str]]:
    """The residues that are amino acids or caps, and what was left out."""
    if chains:
        structure = structure.chains(chains)
    known = np.isin(structure.res_name, _CAPS) | np.isin(structure.letters, list(residues.STANDARD))
    with_alpha = np.zeros(structure.n_residues, bool)
    with_alpha[structure.atom_residue[structure.atom_name == "CA"]] = True
    kept = known & (with_alpha | np.isin(structure.res_name, _CAPS))
    if not (kept & with_alpha).any():
        raise InputError(f"{source}: no protein in it; give a structure with amino acids")
    names, counts = np.unique(structure.res_name[~kept], return_counts=True)
    dropped = [f"{count} {name}" for name, count in zip(names, counts, strict=True)]
    if dropped:
        log.warning("%s: left out: %s; the potential is of proteins alone", source, ", ".join(dropped))
    return structure.select(kept[structure.atom_residue]), dropped


def _remove_caps(fixer: Any, app: Any) -> None:
    """Caps are built anew, so that their names and hydrogens are known."""
    modeller = app.Modeller(fixer.topology, fixer.positions)
    caps = [residue for residue in modeller.topology.residues() if residue.name in _CAPS]
    if caps:
        modeller.delete(caps)
        fixer.topology, fixer.positions = modeller.topology, modeller.positions


def _breaks(fixer: Any) -> list[str]:
    """Neighbours in a chain whose C and N are farther apart than a bond."""
    from openmm import unit

    places = np.array(fixer.positions.value_in_unit(unit.angstrom))
    out = []
    for chain in fixer.topology.chains():
        found = list(chain.residues())
        for one, other in zip(found, found[1:], strict=False):
            carbon = [atom.index for atom in one.atoms() if atom.name == "C"]
            nitrogen = [atom.index for atom in other.atoms() if atom.name == "N"]
            if carbon and nitrogen and np.linalg.norm(places[carbon[0]] - places[nitrogen[0]]) > _BOND:
                out.append(f"{_of(one)} - {_of(other)}")
    return out

"""Small proteins with caps, and ways to change them."""

import dataclasses
import os

import numpy as np
import pytest

from jaxprot.core.structure import Structure
from jaxprot.io.structures import read_structure

ATOMS = ("xyz", "atom_name", "element", "altloc", "occupancy", "bfactor", "serial", "model", "atom_residue")


class Editor:
    """Structures that differ from a given one."""

    def atom(self, structure, resid, name):
        """Row of an atom."""
        number = structure.resid[structure.atom_residue]
        (row,) = np.flatnonzero((number == resid) & (structure.atom_name == name))
        return row

    def replace(self, structure, field, row, value):
        """One entry of a column changed."""
        column = getattr(structure, field).copy()
        column[row] = value
        return dataclasses.replace(structure, **{field: column})

    def without(self, structure, *rows):
        """Atoms removed."""
        keep = np.ones(structure.n_atoms, bool)
        keep[list(rows)] = False
        return structure.select(keep)

    def insert(self, structure, resid, name, element, xyz, **fields):
        """An atom added at the end of a residue."""
        residue = np.flatnonzero(structure.resid == resid)[0]
        at = np.searchsorted(structure.atom_residue, residue + 1)
        new = {"xyz": np.asarray(xyz)[None], "atom_name": name, "element": element, "atom_residue": residue} | fields
        columns = {}
        for field in ATOMS:
            column = getattr(structure, field)
            columns[field] = np.insert(column, at, new.get(field, column[at - 1]), axis=0)
        return dataclasses.replace(structure, **columns)

    def renamed(self, structure, resid, name):
        """Another residue name."""
        return self.replace(structure, "res_name", structure.resid == resid, name)

    def permuted(self, structure, seed=0):
        """Atoms in random order within each residue, and old row of each new one."""
        order = np.lexsort([np.random.default_rng(seed).random(structure.n_atoms), structure.atom_residue])
        return dataclasses.replace(structure, **{field: getattr(structure, field)[order] for field in ATOMS}), order

    def joined(self, *structures):
        """Several structures in one; chains are named A, B, ..."""
        atoms = np.cumsum([0, *(s.n_residues for s in structures)])
        chains = np.cumsum([0, *(s.n_chains for s in structures)])
        fields = {}
        for field in (f.name for f in dataclasses.fields(Structure) if f.name != "name"):
            parts = [getattr(s, field) for s in structures]
            if field == "atom_residue":
                parts = [part + start for part, start in zip(parts, atoms, strict=False)]
            if field == "res_chain":
                parts = [part + start for part, start in zip(parts, chains, strict=False)]
            fields[field] = np.concatenate(parts)
        fields["chain_id"] = np.array(list("ABCDEFGH"[: len(fields["chain_id"])]))
        return Structure(name="joined", **fields)

    def chopped(self, structure, first, last):
        """Residues from one number to another, cut out."""
        number = structure.resid[structure.atom_residue]
        return structure.select((number < first) | (number > last))

    def bridged(self, structure, one, two):
        """Two residues (rows) made bridged cysteines, with sulphurs between their beta carbons."""
        carbons = []
        for row in (one, two):
            (carbon,) = np.flatnonzero((structure.atom_residue == row) & (structure.atom_name == "CB"))
            carbons.append(structure.xyz[carbon])
        between = carbons[1] - carbons[0]
        length = np.linalg.norm(between)
        share = (length - 2.05) / 2 / length
        kept = ("N", "H", "CA", "HA", "CB", "HB2", "HB3", "C", "O", "CG")
        changed = np.isin(structure.atom_residue, (one, two))
        structure = structure.select(~changed | np.isin(structure.atom_name, kept))
        for row, place in ((one, carbons[0] + share * between), (two, carbons[1] - share * between)):
            (gamma,) = np.flatnonzero((structure.atom_residue == row) & (structure.atom_name == "CG"))
            structure = self.replace(structure, "xyz", gamma, place)
            structure = self.replace(structure, "atom_name", gamma, "SG")
            structure = self.replace(structure, "element", gamma, "S")
            structure = self.replace(structure, "res_name", row, "CYS")
            structure = self._beta_hydrogens(structure, row, place)
        return structure

    def _beta_hydrogens(self, structure, row, sulphur):
        """Those of a cysteine where its sulphur leaves room for them."""
        of = {str(structure.atom_name[i]): i for i in np.flatnonzero(structure.atom_residue == row)}
        carbon = structure.xyz[of["CB"]]
        away = [(place - carbon) / np.linalg.norm(place - carbon) for place in (structure.xyz[of["CA"]], sulphur)]
        back, side = -np.add(*away), np.cross(*away)
        for name, sign in (("HB2", 0.89), ("HB3", -0.89)):
            place = carbon + 0.62 * back / np.linalg.norm(back) + sign * side / np.linalg.norm(side)
            structure = self.replace(structure, "xyz", of[name], place.astype(np.float32))
        return structure


@pytest.fixture(scope="session")
def edit():
    """Functions that change structures."""
    return Editor()


@pytest.fixture(scope="session")
def chignolin(example):
    """Ten residues between caps, the order of the file."""
    return read_structure(example("chignolin"))


@pytest.fixture(scope="session")
def trpcage(example):
    """Twenty residues between caps."""
    return read_structure(example("trpcage"))


@pytest.fixture(scope="session")
def two_chains(chignolin, edit):
    """Chignolin and its image by a point, with a disulfide from one to the other (at residues TYR 2)."""
    centre = chignolin.xyz[edit.atom(chignolin, 2, "CB")]
    outward = centre - chignolin.xyz.mean(0)
    point = centre + 2.6 * outward / np.linalg.norm(outward)
    image = dataclasses.replace(chignolin, xyz=(2 * point - chignolin.xyz).astype(np.float32))
    return edit.bridged(edit.joined(chignolin, image), 1, 1 + chignolin.n_residues)


@pytest.fixture(scope="session")
def published(goldens):
    """Outputs of the published program on chignolin, and the structure in its order of atoms."""
    folder = goldens("ai2bmd")
    with np.load(folder / "fragments_chig.npz") as arrays:
        return {key: arrays[key] for key in arrays}, read_structure(os.fspath(folder / "chig_ordered.pdb"))

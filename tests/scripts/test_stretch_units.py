"""Conformations with hydrogens drawn along their bonds."""

import runpy

import numpy as np
import pytest

from jaxprot.ai2bmd import templates
from jaxprot.core.residues import atomic_numbers
from jaxprot.io.structures import read_structure
from jaxprot.md import molecule


def test_only_hydrogens_move_along_their_bonds(root, example):
    script = runpy.run_path(str(root / "scripts" / "stretch_units.py"))
    structure = read_structure(example("alanine"))
    z, xyz, rng = atomic_numbers(structure.element), structure.xyz.astype(np.float64), np.random.default_rng(0)
    bonds = molecule.bonds(z, xyz)
    polar, factors = 0, []
    for _ in range(200):
        made = script["drawn"](z, xyz, rng)
        moved = np.flatnonzero(np.abs(made - xyz).max(1) > 0)
        assert 1 <= len(moved) <= 2 and np.all(z[moved] == 1)
        for row in moved:
            heavy = next(int(a if b == row else b) for a, b in bonds if row in (a, b))
            before, after = (p[row] - p[heavy] for p in (xyz, made))
            factors.append(np.linalg.norm(after) / np.linalg.norm(before))
        polar += (z[[next(int(a if b == row else b) for a, b in bonds if row in (a, b)) for row in moved]] == 7).any()
    assert 0.5 < min(factors) < 0.9 and 1.7 < max(factors) < 2.3
    assert 100 < polar < 170  # six tenths, and some of the second ones


def test_files(root, tmp_path):
    unit = templates.units()["ALA"]
    names = np.array(["X"] * len(unit.z))
    given = tmp_path / "given"
    given.mkdir()
    structure = np.random.default_rng(0).normal(size=(1, len(unit.z), 3)) * 2
    frames = np.repeat(structure, 5, 0).astype(np.float32)
    np.savez(given / "ala.npz", Z=unit.z, R=frames, E=np.zeros(5), F=frames, charge=0, atom_name=names,
             residue_name=names)  # fmt: skip
    script = runpy.run_path(str(root / "scripts" / "stretch_units.py"))
    assert script["main"]([str(given), "--count", "3", "--output", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "ala_drawn0.npz") as made:
        assert made["R"].shape == (3, len(unit.z), 3) and set(made) == {"Z", "R", "charge", "atom_name", "residue_name"}
        np.testing.assert_allclose(made["R"].mean(1), 0, atol=1e-5)
    with pytest.raises(SystemExit):
        script["main"]([str(tmp_path), "--output", str(tmp_path / "none")])

"""Labels that the shipped RMSF-nets learnt: what they are made of, and that their weights can be found again."""

import dataclasses
import runpy

import numpy as np
import pytest

from jaxprot.io.structures import read_structure


@pytest.fixture(scope="module")
def making(root):
    return runpy.run_path(str(root / "scripts" / "rmsfnet_labels.py"))


@pytest.fixture(scope="module")
def ubiquitin(example):
    """Heavy atoms of the example, with B factors."""
    structure = read_structure(example("ubiquitin"))
    structure = structure.select(~np.isin(structure.element, ("H", "D")))
    return structure.with_bfactor(np.random.default_rng(2).uniform(5, 40, structure.n_atoms).astype(np.float32))


def test_surroundings_are_what_loops_count(making, ubiquitin):
    found = making["features"](ubiquitin)
    xyz = ubiquitin.xyz.astype(np.float64)
    atom = int(np.flatnonzero(ubiquitin.atom_name == "CA")[30])
    residue = ubiquitin.atom_residue[atom]
    distance = np.linalg.norm(xyz - xyz[:, None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    inverse = np.sum(1 / np.maximum(distance, 2.0) ** 2, axis=1)
    for kind, values in enumerate((inverse, (distance < 7).sum(1), (distance < 14).sum(1))):
        of_residue = [values[ubiquitin.atom_residue == residue + i].mean() for i in range(-2, 3)]
        expected = [values[atom], of_residue[2], np.mean(of_residue[1:4]), np.mean(of_residue)]
        np.testing.assert_allclose(found[atom, kind], np.log(expected), atol=1e-3)
    share = np.exp(-np.square(np.linalg.norm(xyz - xyz[atom], axis=1)) / 200)
    centre = share @ xyz / share.sum()
    np.testing.assert_allclose(found[atom, 3, 0], np.log(np.linalg.norm(xyz[atom] - centre)), atol=1e-3)


def test_labels_do_not_depend_on_place_or_orientation(making, ubiquitin):
    from scipy.spatial.transform import Rotation

    turn = Rotation.random(rng=np.random.default_rng(0)).as_matrix()
    moved = dataclasses.replace(ubiquitin, xyz=(ubiquitin.xyz @ turn.T + 50).astype(np.float32))
    here, there = making["labels"](ubiquitin, True), making["labels"](moved, True)
    # A contact at exactly the limit may count in one orientation alone.
    np.testing.assert_allclose(there, here, rtol=0.02)
    assert np.median(np.abs(there / here - 1)) < 1e-4


def test_what_is_missing_is_filled_by_packing(making, ubiquitin):
    packing = making["packing"](ubiquitin)
    np.testing.assert_array_equal(making["labels"](ubiquitin, False), packing)
    np.testing.assert_array_equal(making["labels"](ubiquitin, False, np.full(ubiquitin.n_residues, np.nan)), packing)
    level = np.sqrt(np.mean(packing**2))
    refined = making["labels"](ubiquitin, True) - (1 - making["SHARE_B"]) * packing
    np.testing.assert_allclose(refined, making["SHARE_B"] * level * making["refined_amplitude"](ubiquitin))
    stiff = ubiquitin.resid[ubiquitin.atom_residue] <= 70
    assert packing[~stiff].mean() > 1.5 * packing[stiff].mean()  # the loose end


def test_weights_are_found_again(making, ubiquitin, example):
    chains = [ubiquitin, read_structure(example("chignolin")), read_structure(example("trpcage"))]
    true = np.random.default_rng(1).normal(size=(4, 4)) * [[1], [0.3], [0.3], [0.3]]
    weighed = []
    for structure in chains:
        structure = structure.select(~np.isin(structure.element, ("H", "D")))
        q = making["features"](structure).reshape(-1, 16) @ true.ravel()
        weighed.append((structure.with_bfactor(np.exp(3 + q - q.mean()).astype(np.float32)), True))
    simulated = {ubiquitin.name: np.full(ubiquitin.n_residues, 0.8)}
    weights, offset = making["fitted"](weighed, simulated)
    for structure, _ in weighed:
        rows = making["features"](structure).reshape(-1, 16)
        backbone = np.isin(structure.atom_name, making["BACKBONE"])
        found, expected = rows[backbone] @ weights.ravel(), rows[backbone] @ true.ravel()
        assert np.corrcoef(found, expected)[0, 1] > 0.95
    level = making["STEEPNESS"] * (making["features"](ubiquitin).reshape(-1, 16) @ weights.ravel()) + offset
    assert abs(level.mean() - np.log(0.8)) < 1e-5

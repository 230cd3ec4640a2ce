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
    distance = np.linalg.norm(xyz - xyz[:, None], axis=-1)
    apart = np.maximum(distance, 2.0) + np.diag(np.full(len(xyz), np.inf))
    inverse = np.sum(1 / apart**2, axis=1)
    near, far = (np.exp(-(distance**2) / (2 * width**2)).sum(1) for width in (3.5, 8.0))
    share = np.exp(-(distance**2) / 200)
    off = np.linalg.norm(xyz - share @ xyz / share.sum(1)[:, None], axis=1)
    expected = np.log(np.stack([inverse, near, far, off]))
    np.testing.assert_allclose(found[:, :, 0], expected.T, atol=2e-3)
    for place, width in ((1, 2.0), (2, 4.0)):
        share = np.exp(-(distance**2) / (2 * width**2))
        np.testing.assert_allclose(found[:, :, place], share @ expected.T / share.sum(1)[:, None], atol=2e-3)


def test_labels_do_not_depend_on_place_or_orientation(making, ubiquitin):
    from scipy.spatial.transform import Rotation

    turn = Rotation.random(rng=np.random.default_rng(0)).as_matrix()
    moved = dataclasses.replace(ubiquitin, xyz=(ubiquitin.xyz @ turn.T + 50).astype(np.float32))
    here, there = making["labels"](ubiquitin, True), making["labels"](moved, True)
    np.testing.assert_allclose(there, here, rtol=1e-3)


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
    true = np.random.default_rng(1).normal(size=(4, 3)) * [[1], [0.3], [0.3], [0.3]]
    weighed = []
    for structure in chains:
        structure = structure.select(~np.isin(structure.element, ("H", "D")))
        q = making["features"](structure).reshape(-1, 12) @ true.ravel()
        weighed.append((structure.with_bfactor(np.exp(3 + q - q.mean()).astype(np.float32)), True))
    simulated = {ubiquitin.name: np.full(ubiquitin.n_residues, 0.8)}
    weights, offset = making["fitted"](weighed, simulated)
    for structure, _ in weighed:
        rows = making["features"](structure).reshape(-1, 12)
        backbone = np.isin(structure.atom_name, making["BACKBONE"])
        found, expected = rows[backbone] @ weights.ravel(), rows[backbone] @ true.ravel()
        assert np.corrcoef(found, expected)[0, 1] > 0.95
    level = making["STEEPNESS"] * (making["features"](ubiquitin).reshape(-1, 12) @ weights.ravel()) + offset
    assert abs(level.mean() - np.log(0.8)) < 1e-5


def test_map_model_and_labels_of_an_entry_lie_together(root, example, tmp_path):
    from jaxprot.core.errors import InputError
    from jaxprot.core.volume import Volume
    from jaxprot.rmsfnet.data import targets, write_entry
    from jaxprot.rmsfnet.simulate import simulate_map

    training = runpy.run_path(str(root / "scripts" / "train_default_rmsfnet.py"))
    structure = read_structure(example("chignolin"))
    structure = structure.select(~np.isin(structure.element, ("H", "D")))
    rng = np.random.default_rng(5)
    turned = training["moved"](structure, rng)
    rmsf = np.linspace(0.5, 2.0, structure.n_atoms)
    entry = training["simulated_entry"](turned, rmsf, np.full(structure.n_atoms, 0.5), rng)
    grid = Volume(entry.map, np.full(3, 1.5), entry.origin, "entry")
    np.testing.assert_allclose(entry.model, simulate_map(turned, on_grid=grid).data, atol=1e-6)
    np.testing.assert_array_equal(entry.voxels, targets(turned, rmsf, grid)[0])

    path = write_entry(entry, tmp_path)
    again = training["relabelled"](path, turned, 2 * rmsf)
    np.testing.assert_array_equal(again.voxels, entry.voxels)
    np.testing.assert_allclose(again.model, entry.model, atol=1e-6)
    np.testing.assert_allclose(10**again.target - 1, 2 * (10**entry.target - 1), rtol=0.1)
    with pytest.raises(InputError, match="another structure or orientation"):
        training["relabelled"](path, training["moved"](structure, rng), rmsf)

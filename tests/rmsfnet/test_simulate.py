"""Simulated maps of structures: the golden, the options, and what cannot be simulated."""

import dataclasses

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.residues import ELEMENTS, atomic_numbers
from jaxprot.io.structures import read_structure
from jaxprot.rmsfnet.simulate import simulate_map


@pytest.fixture
def ubiquitin(example):
    return read_structure(example("ubiquitin"))


@pytest.mark.golden
def test_golden(goldens):
    golden = np.load(goldens("rmsfnet") / "pipeline.npz")
    found = simulate_map(read_structure(goldens("rmsfnet") / "fragment.pdb", models="all"))
    np.testing.assert_allclose(found.origin, golden["sim_origin"], atol=1e-6)
    np.testing.assert_allclose(found.data, golden["sim_map"], rtol=0, atol=1e-5 * golden["sim_map"].max())


def test_holds_every_electron_and_keeps_its_place(ubiquitin):
    found = simulate_map(ubiquitin, 4.0, 1.0)
    np.testing.assert_allclose(found.data.sum(), atomic_numbers(ubiquitin.element).sum(), rtol=1e-4)
    z, y, x = np.meshgrid(*[np.arange(n) for n in found.shape], indexing="ij")
    centre = [np.average(axis, weights=found.data) for axis in (z, y, x)]
    number = atomic_numbers(ubiquitin.element)
    np.testing.assert_allclose(found.to_world(centre), np.average(ubiquitin.xyz, axis=0, weights=number), atol=1e-2)


def test_on_the_grid_of_another_map(ubiquitin):
    wide = simulate_map(ubiquitin, padding=20)
    again = simulate_map(ubiquitin, on_grid=wide)
    np.testing.assert_array_equal(wide.data, again.data)
    shifted = dataclasses.replace(wide, origin=wide.origin + 1.5, data=wide.data)
    np.testing.assert_allclose(
        simulate_map(ubiquitin, on_grid=shifted).data[:-1, :-1, :-1], wide.data[1:, 1:, 1:], atol=1e-5
    )


def test_far_from_the_origin_nothing_is_lost(ubiquitin):
    near = dataclasses.replace(ubiquitin, xyz=np.round(ubiquitin.xyz * 64) / 64)
    far = dataclasses.replace(near, xyz=near.xyz + np.float32(4096))
    np.testing.assert_allclose(simulate_map(far).data, simulate_map(near).data, atol=1e-6)


def test_bfactors_blur(ubiquitin):
    ubiquitin = ubiquitin.with_bfactor(np.linspace(60, 200, ubiquitin.n_atoms))
    sharp, blurred = simulate_map(ubiquitin), simulate_map(ubiquitin, bfactors=True)
    assert blurred.data.max() < 0.9 * sharp.data.max()
    np.testing.assert_allclose(blurred.data.sum(), sharp.data.sum(), rtol=0.03)
    none = dataclasses.replace(ubiquitin, bfactor=ubiquitin.bfactor * 0, occupancy=ubiquitin.occupancy * 0 + 1)
    np.testing.assert_allclose(simulate_map(none, bfactors=True).data, sharp.data, atol=1e-6)


def test_atoms_without_place_or_element(ubiquitin, caplog):
    xyz, element = ubiquitin.xyz.copy(), ubiquitin.element.copy()
    xyz[5], element[7] = np.nan, "X"
    keep = np.ones(ubiquitin.n_atoms, bool)
    keep[[5, 7]] = False
    found = simulate_map(dataclasses.replace(ubiquitin, xyz=xyz, element=element), padding=15)
    expected = simulate_map(ubiquitin.select(keep), on_grid=found)
    np.testing.assert_allclose(found.data, expected.data, atol=1e-6)
    assert "unknown element (X)" in caplog.text


def test_refuses(ubiquitin):
    with pytest.raises(InputError, match="no atom has coordinates"):
        simulate_map(dataclasses.replace(ubiquitin, xyz=ubiquitin.xyz * np.nan))
    for wrong in ({"resolution": 0}, {"spacing": -1}, {"spacing": np.nan}, {"padding": -1}):
        with pytest.raises(InputError, match="must be positive"):
            simulate_map(ubiquitin, **wrong)
    xyz = ubiquitin.xyz.copy()
    xyz[0] = 1e6
    with pytest.raises(InputError, match="atoms far away"):
        simulate_map(dataclasses.replace(ubiquitin, xyz=xyz))


def test_atomic_numbers():
    assert len(ELEMENTS) == 119
    found = atomic_numbers(np.array(["C", "SE", "D", "", "X", "fe", "ZN", "OG"]))
    assert found.tolist() == [6, 34, 1, 0, 0, 26, 30, 118]

"""Baselines: against the batched form, their scale, large assemblies, and odd structures."""

import csv
import dataclasses

import jax
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.ops import elastic
from jaxprot.rmsfnet import baselines


@pytest.fixture
def ubiquitin(example):
    return read_structure(example("ubiquitin"))


@pytest.fixture
def chain(ubiquitin):
    return ubiquitin.xyz[baselines.alpha_carbons(ubiquitin)]


def column(path, name):
    with open(path, newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


@pytest.mark.parametrize("name", ["anm", "gnm"])
def test_equals_the_batched_form(chain, name):
    with jax.enable_x64(True):
        expected = getattr(elastic, name)(chain.astype(np.float64))
    np.testing.assert_allclose(getattr(baselines, name)(chain), expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["anm", "gnm"])
def test_every_way_to_invert_agrees(chain, name, monkeypatch):
    function = getattr(baselines, name)
    expected = function(chain)
    monkeypatch.setattr(baselines, "_DENSE_MOST", 0)
    np.testing.assert_allclose(function(chain), expected, rtol=1e-9)
    monkeypatch.setattr(baselines, "_ALL_MODES", 0)
    monkeypatch.setattr(baselines, "_MODES", 40)
    soft = function(chain)
    np.testing.assert_array_equal(function(chain), soft)  # the same again
    assert (
        np.corrcoef(np.sqrt(soft), np.sqrt(expected))[0, 1] > 0.97
    )  # 40 modes of a small protein; see below for a large one


def test_parts_move_by_themselves(chain):
    both = np.concatenate([chain, chain[::-1] + 256, [[1000, 0, 0]]])
    for function in (baselines.anm, baselines.gnm):
        alone = function(chain)
        np.testing.assert_allclose(function(both), [*alone, *alone[::-1], np.nan], rtol=2e-5)


def test_loose_ends_do_not_blow_up(chain, monkeypatch):
    """A node on one spring swings freely; this motion is left out, in every way to invert."""
    direction = chain[-1] - chain.mean(0)
    tail = chain[-1] + 14.5 * direction / np.linalg.norm(direction)
    loose = np.concatenate([chain, [tail]])
    expected = baselines.anm(loose)
    assert expected.max() < 100 * np.median(expected)
    monkeypatch.setattr(baselines, "_ALL_MODES", 0)
    found = baselines.anm(loose)
    assert np.isfinite(found).all() and np.corrcoef(np.sqrt(found), np.sqrt(expected))[0, 1] > 0.95


def test_one_value_per_protein_residue(ubiquitin):
    ubiquitin = ubiquitin.with_bfactor(np.where(ubiquitin.atom_name == "CA", 30.0, 99.0))
    for method in baselines.METHODS:
        values = baselines.rmsf(ubiquitin, method)
        assert values.shape == (ubiquitin.n_residues,) and values.dtype == np.float32
        protein = ubiquitin.letters != "X"
        assert np.isfinite(values[protein]).all() and np.isnan(values[~protein]).all()
        assert 0.3 < np.nanmean(values) < 3
    np.testing.assert_allclose(values[protein], np.sqrt(3 * 30 / (8 * np.pi**2)), rtol=1e-6)


def test_scale(shared):
    """Residues 1-70 of ubiquitin have the mean RMSF of the ensemble, in the three methods that know no Å."""
    folder = shared / "data" / "flexibility"
    structure = read_structure(folder / "1ubi.pdb")
    ensemble = column(folder / "2k39_ca_rmsf.csv", "rmsf_A")
    rows = structure.atom_residue[baselines.alpha_carbons(structure)]
    for method, pearson in (("anm", 0.82), ("gnm", 0.77), ("contact", 0.79)):
        values = baselines.rmsf(structure, method)[rows]
        np.testing.assert_allclose(values[:70].mean(), ensemble[:70].mean(), rtol=1e-3)
        assert np.corrcoef(values[:70], ensemble[:70])[0, 1] > pearson


def test_large_assembly(shared):
    folder = shared / "data" / "flexibility"
    structure = read_structure(folder / "6FBV.pdb")
    published = column(folder / "6FBV_rmsfnet_published_mode3.csv", "rmsf_z_residue_mean")
    rows = structure.atom_residue[baselines.alpha_carbons(structure)]
    assert len(rows) == 3217
    values = baselines.rmsf(structure, "contact")
    np.testing.assert_allclose(np.corrcoef(values[rows], published)[0, 1], 0.674, atol=0.002)


@pytest.mark.slow
def test_large_assembly_exact_and_soft(shared, monkeypatch):
    structure = read_structure(shared / "data" / "flexibility" / "6FBV.pdb")
    chain = structure.xyz[baselines.alpha_carbons(structure)]
    exact = np.sqrt(baselines.anm(chain))
    monkeypatch.setattr(baselines, "_DENSE_MOST", 0)
    monkeypatch.setattr(baselines, "_ALL_MODES", 0)
    soft = np.sqrt(baselines.anm(chain))
    assert np.abs(soft / exact - 1).mean() < 0.05 and np.corrcoef(soft, exact)[0, 1] > 0.998


def test_alternates_models_and_calcium(ubiquitin):
    first = baselines.alpha_carbons(ubiquitin)
    atom = int(first[10])
    rows = np.sort(np.append(np.arange(ubiquitin.n_atoms), atom))  # a second place of one alpha carbon
    fields = {
        field.name: getattr(ubiquitin, field.name)[rows]
        for field in dataclasses.fields(ubiquitin)
        if field.name != "name" and len(getattr(ubiquitin, field.name)) == ubiquitin.n_atoms
    }
    doubled = dataclasses.replace(ubiquitin, **fields)
    doubled.altloc[atom], doubled.altloc[atom + 1] = "A", "B"
    np.testing.assert_allclose(baselines.rmsf(doubled, "anm"), baselines.rmsf(ubiquitin, "anm"), rtol=1e-5)
    model = ubiquitin.model.copy()
    model[ubiquitin.atom_residue >= 50] = 2
    two = baselines.rmsf(dataclasses.replace(ubiquitin, model=model), "gnm")
    assert np.isfinite(two[:50]).all() and np.isnan(two[50:]).all()
    element = ubiquitin.element.copy()
    element[first[0]] = "CA"
    assert np.isnan(baselines.rmsf(dataclasses.replace(ubiquitin, element=element), "contact")[0])


def test_refuses(ubiquitin):
    with pytest.raises(InputError, match="choose one of anm, gnm, contact, bfactor"):
        baselines.rmsf(ubiquitin, "normal")
    with pytest.raises(InputError, match="ubiquitin: no B factors"):
        baselines.rmsf(ubiquitin.with_bfactor(np.zeros(ubiquitin.n_atoms)), "bfactor")
    none = [ubiquitin.select(ubiquitin.atom_name != "CA"), ubiquitin.select(np.zeros(ubiquitin.n_atoms, bool))]
    for structure in none:
        with pytest.raises(InputError, match="ubiquitin: no protein residue"):
            baselines.rmsf(structure, "anm")


def test_one_residue_has_no_value(ubiquitin):
    one = ubiquitin.select(ubiquitin.atom_residue == 3)
    assert np.isnan(baselines.rmsf(one, "anm")).all() and np.isnan(baselines.rmsf(one, "gnm")).all()

"""What is said of molecules that a potential describes less well."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.ai2bmd import caps, cautions, predict
from jaxprot.ai2bmd.fragment import fragment
from jaxprot.ai2bmd.potential import Potential, PotentialConfig
from jaxprot.io.structures import read_structure
from jaxprot.visnet import weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet


@pytest.fixture
def said(caplog):
    """Lines of warnings so far."""
    caplog.set_level(logging.WARNING, "jaxprot")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network that tells what it learnt from, and one that does not."""
    cfg = ViSNetConfig(hidden=8, layers=2, heads=2, rbf=4, max_z=20)
    net = ViSNet(cfg, rngs=nnx.Rngs(0))
    folder = tmp_path_factory.mktemp("weights")
    weights.save(folder / "told.safetensors", cfg, weights.tensors_of(net), units=["ACENME", "ALA", "TYR"])
    weights.save(folder / "silent.safetensors", cfg, weights.tensors_of(net))
    weights.save(folder / "molecule.safetensors", cfg, weights.tensors_of(net), units=["ASPIRIN"])
    return folder


def test_units_that_weights_never_learnt_from_are_told_once(saved, two_chains, chignolin, said):
    assert weights.learnt(saved / "told.safetensors") == ("ACENME", "ALA", "TYR")
    assert weights.learnt(saved / "silent.safetensors") is None
    for name in ("silent", "molecule"):
        predict.load(saved / f"{name}.safetensors").potential(chignolin)
        assert not said()
    predict.load(saved / "told.safetensors").potential(two_chains)
    (line,) = said()
    assert line.startswith("joined: these weights never learnt from ASP (chain A residue ASP 4, chain B residue ASP 4)")
    assert "CYX (chain A residue CYS 2 - chain B residue CYS 2)" in line and "\n" not in line
    assert "TYR" not in line and "ACENME" not in line


def test_the_shipped_weights_know_all_of_chignolin_and_no_disulfide(chignolin, two_chains, said):
    predictor = predict.load("ai2bmd")
    assert {"ACENME", "ALA", "HID", "HIE", "HIP", "VAL"} <= set(predictor.units) and len(predictor.units) == 23
    predictor.potential(chignolin)
    assert not said()
    predictor.potential(two_chains)
    (line,) = said()
    assert "never learnt from CYX (" in line


@pytest.mark.golden
def test_published_weights_tell_no_units(goldens):
    assert weights.learnt(goldens("ai2bmd") / "visnet_a.ckpt") is None


@pytest.mark.parametrize("mode", ["fragment", "whole"])
def test_atoms_beyond_the_published_cap_are_told(chignolin, said, mode):
    def made(most):
        cfg = ViSNetConfig(hidden=8, layers=2, heads=2, rbf=4, max_z=20, max_neighbors=most, smooth=False)
        return Potential(ViSNet(cfg, rngs=nnx.Rngs(0)), chignolin, PotentialConfig(mode=mode))

    made(None)
    made(32 if mode == "fragment" else 175)  # dipeptides of chignolin have at most 31
    assert not said()
    made(24 if mode == "fragment" else 32)
    (line,) = said()
    assert line.startswith("chignolin: ") and "within 5 Å" in line and "max_neighbors=None" in line
    xyz = np.asarray(chignolin.xyz, np.float64)
    near = (np.linalg.norm(xyz[:, None] - xyz, axis=-1) < 5).sum(1)
    if mode == "whole":
        assert f"{(near > 32).sum()} atoms have more than 32 neighbours" in line and (near > 32).sum() > 50


def test_units_of_the_cap_count_are_those_of_the_network(two_chains):
    made = fragment(two_chains)
    found = cautions.capped_positions(made, two_chains.xyz)
    assert [len(one) for one in found] == np.diff(made.unit_start).tolist()
    everything = caps.sources(jnp.asarray(two_chains.xyz), caps.tables(made).caps, how="none")
    np.testing.assert_allclose(np.concatenate(found), everything[made.row_source], atol=1e-5)


def test_charges_in_vacuum_are_told(chignolin, example, said):
    cautions.charged_in_vacuum(fragment(read_structure(example("alanine"))))
    assert not said()
    cautions.charged_in_vacuum(fragment(chignolin))
    (line,) = said()
    assert line.startswith("chignolin: net charge -2 and 2 charged residues (")
    assert "ASP 4" in line and "GLU 6" in line and "--solvent gb" in line and "\n" not in line


def test_whole_molecules_larger_than_what_weights_learnt_from_are_told(saved, chignolin, example, said):
    told = predict.load(saved / "told.safetensors")
    told.potential(example("alanine"), mode="whole")
    for name in ("silent", "molecule"):
        predict.load(saved / f"{name}.safetensors").potential(chignolin, mode="whole")
    assert not said()
    told.potential(chignolin, mode="whole")
    (line,) = said()
    assert line.startswith("chignolin: 175 atoms go through the network as a whole") and "at most 33 atoms" in line


@pytest.mark.parametrize("solvent", ["none", "gb"])
def test_dynamics_in_vacuum_tell_it_and_those_in_solvent_do_not(saved, chignolin, said, tmp_path, monkeypatch, solvent):
    from jaxprot.md import simulate

    monkeypatch.setattr(simulate, "simulate", lambda *_, **__: None)  # the run itself is not what is looked at
    potential = predict.load(saved / "silent.safetensors").potential(chignolin, solvent=solvent)
    predict.simulate(potential, simulate.SimulationConfig(), tmp_path, downhill=0)
    assert ["in vacuum" in line for line in said()] == ([True] if solvent == "none" else [])

"""Small molecules."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.massa import ligand
from jaxprot.weights import module

needs_rdkit = pytest.mark.skipif(importlib.util.find_spec("rdkit") is None, reason="needs rdkit")


@pytest.mark.golden
@needs_rdkit
def test_features_are_the_published_ones(folder):
    golden = np.load(folder / "head_kinase.npz")
    found = ligand.from_smiles([str(text) for text in golden["smiles"]], 38, 42)
    np.testing.assert_array_equal(found.atoms, golden["atoms"])
    np.testing.assert_array_equal(found.bonds, golden["bonds"])
    np.testing.assert_array_equal(found.mask, golden["atom_mask"] > 0)
    absent = golden["atom_neighbors"] == 37
    np.testing.assert_array_equal(found.present.sum(-1), (~absent).sum(-1))
    for ours, theirs in ((found.neighbours, "atom_neighbors"), (found.bonds_of, "bond_neighbors")):
        ordered = [np.sort(np.where(gone, -1, x), -1) for gone, x in ((~found.present, ours), (absent, golden[theirs]))]
        np.testing.assert_array_equal(*ordered)


@needs_rdkit
def test_strings_that_are_no_molecules_are_named():
    for text in ("C1CC", "", "not a molecule", None):
        with pytest.raises(InputError, match="molecule 1"):
            ligand.from_smiles(["CCO", text])
    with pytest.raises(InputError, match="do not fit in 2"):
        ligand.from_smiles(["CCO"], atoms=2)
    assert ligand.from_smiles(["[Na+]"]).mask.sum() == 1  # no bonds at all


def test_without_rdkit_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(InputError, match=r"jaxprot\[ligands\]"):
        ligand.from_smiles(["CCO"])


def test_order_of_neighbours_and_padding_change_nothing(random_module, key):
    rng = np.random.default_rng(0)
    n, k = 6, 6
    present = rng.random((1, n, k)) < 0.5
    present[0, 4:] = False  # two of padding
    made = ligand.Ligand(
        rng.normal(size=(1, n, 39)).astype(np.float32), rng.normal(size=(1, 5, 10)).astype(np.float32),
        rng.integers(0, 4, (1, n, k)).astype(np.int32), rng.integers(0, 5, (1, n, k)).astype(np.int32),
        present, np.arange(n)[None] < 4,
    )  # fmt: skip
    blueprint, tensors = random_module(lambda rngs: ligand.AttentiveFP(8, rngs=rngs))
    graphdef, state = nnx.split(module.assemble(blueprint, tensors))
    run = jax.jit(lambda state, made, key=None: nnx.merge(graphdef, state)(made, key))
    molecule, atoms = run(state, made)
    turned = made._replace(**{x: getattr(made, x)[..., ::-1] for x in ("neighbours", "bonds_of", "present")})
    turned = turned._replace(atoms=np.where(made.mask[..., None], made.atoms, np.float32(3)))
    other, other_atoms = run(state, turned)
    np.testing.assert_allclose(molecule, other, atol=1e-5)
    np.testing.assert_allclose(atoms[:, :4], other_atoms[:, :4], atol=1e-5)
    dropped = run(state, made, key)[0]
    assert np.abs(dropped - molecule).max() > 1e-3

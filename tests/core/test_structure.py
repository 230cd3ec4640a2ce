"""Structure: selection keeps the three levels consistent."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure

TWO_MODELS = b"""\
MODEL        1
ATOM      1  N   ALA A   1       1.000   2.000   3.000  1.00 10.00           N
ATOM      2  CA AALA A   1       2.000   2.000   3.000  0.60 11.00           C
ATOM      3  CA BALA A   1       2.500   2.000   3.000  0.40 12.00           C
ATOM      4  N  ASER A   2       3.000   2.000   3.000  0.50 13.00           N
ATOM      5  N  BTHR A   2       3.500   2.000   3.000  0.50 14.00           N
ATOM      6  OG1BTHR A   2       3.500   2.500   3.000  0.50 14.00           O
ATOM      7  N   GLY b   1A      4.000   2.000   3.000  1.00 15.00           N
HETATM    8  O   HOH A 301       5.000   2.000   3.000  1.00 16.00           O
ENDMDL
MODEL        2
ATOM      9  N   ALA A   1       9.000   2.000   3.000  1.00 10.00           N
ENDMDL
"""


@pytest.fixture(scope="module")
def two_models():
    return read_structure(TWO_MODELS, models="all")


def test_levels_point_upwards(two_models):
    assert two_models.chain_id.tolist() == ["A", "b", "A"]
    assert two_models.res_name.tolist() == ["ALA", "SER", "THR", "HOH", "GLY", "ALA"]
    assert two_models.res_chain.tolist() == [0, 0, 0, 0, 1, 2]
    assert two_models.letters.tolist() == ["A", "S", "T", "X", "G", "A"]
    assert two_models.icode.tolist() == ["", "", "", "", "A", ""]
    assert two_models.hetero.tolist() == [False, False, False, True, False, False]
    assert two_models.atom_chain_id.tolist() == ["A"] * 7 + ["b", "A"]


def test_select_drops_empty_residues_and_chains(two_models):
    kept = two_models.select(two_models.atom_name == "O")
    assert (kept.n_atoms, kept.n_residues, kept.n_chains) == (1, 1, 1)
    assert kept.serial.tolist() == [8] and kept.res_chain.tolist() == [0] and kept.atom_residue.tolist() == [0]
    nothing = two_models.select(np.zeros(two_models.n_atoms, bool))
    assert (nothing.n_atoms, nothing.n_residues, nothing.n_chains) == (0, 0, 0)
    assert nothing.first_altlocs().first_model().letters.tolist() == []


def test_chain_spans_models_and_is_case_sensitive(two_models):
    assert two_models.chain("A").n_chains == 2
    assert two_models.chain("b").n_atoms == 1
    with pytest.raises(InputError, match="no chain 'B'.*A, b"):
        two_models.chain("B")


def test_first_model_and_first_altlocs(two_models):
    first = two_models.first_model()
    assert set(first.model.tolist()) == {1} and first.n_chains == 2
    single = first.first_altlocs()
    assert single.serial.tolist() == [1, 2, 4, 8, 7], "first CA, first residue type of number 2, and no threonine"
    assert set(single.altloc.tolist()) == {""}


def test_bfactors_per_atom_or_residue(two_models):
    per_residue = two_models.with_bfactor(np.arange(6))
    assert per_residue.bfactor.tolist() == [0, 0, 0, 1, 2, 2, 3, 4, 5]
    per_atom = two_models.with_bfactor(np.arange(9))
    assert per_atom.bfactor.tolist() == list(range(9))
    assert two_models.bfactor[0] == 10, "the original is untouched"
    with pytest.raises(ValueError, match="expected"):
        two_models.with_bfactor(np.zeros(4))

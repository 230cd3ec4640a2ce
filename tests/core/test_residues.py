"""Alphabets and parents."""

import gemmi
import numpy as np
import pytest

from jaxprot.core import residues


def test_alphabet_is_that_of_the_published_model():
    assert residues.ALPHABET == "ACDEFGHIKLMNPQRSTVWYX"
    assert residues.decode(residues.encode("ACDEFGHIKLMNPQRSTVWYX")) == residues.ALPHABET
    np.testing.assert_array_equal(residues.encode("-BZx\u00e9a"), 20)


@pytest.mark.parametrize(
    ("name", "letter"),
    [("MSE", "M"), ("SEC", "C"), ("HIE", "H"), ("HSD", "H"), ("CYX", "C"), ("ASH", "D"), ("GLH", "E"), ("LYN", "K"),
     ("SEP", "S"), ("TPO", "T"), ("PTR", "Y"), ("PYL", "K"), ("HYP", "P"), ("UNK", "X"), ("HOH", "X"), ("ACE", "X"),
     ("DA", "X"), (" mse ", "M"), ("", "X")],
)  # fmt: skip
def test_letters_of_names(name, letter):
    assert residues.letter(name) == letter
    assert residues.letters(np.array([name, name])).tolist() == [letter, letter]


def test_parents_agree_with_the_component_dictionary():
    for name, parent in residues.PARENT.items():
        entry = gemmi.find_tabulated_residue(name)
        code = entry.one_letter_code.upper() if entry.found() else ""
        if code.strip() and code not in "UO":
            assert residues.THREE_TO_ONE[parent] == code, name


def test_no_name_is_listed_twice():
    names = [name for names in residues._VARIANTS.values() for name in names.split()]
    assert len(names) == len(set(names))
    assert not set(names) & set(residues.THREE_TO_ONE)

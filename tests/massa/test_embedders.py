"""Rows of numbers for residues."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.massa.embedders import Embedder, PhysicoChemical, Precomputed, check_letters, windowed


def test_letters_have_rows_of_their_own():
    embedder = PhysicoChemical()
    assert isinstance(embedder, Embedder)
    rows = embedder.embed(["ACDEFGHIKLMNPQRSTVWY", "acx"])
    assert rows[0].shape == (20, embedder.dim) and rows[0].dtype == np.float32
    np.testing.assert_array_equal(rows[0][:, :20], np.eye(20))
    np.testing.assert_allclose(rows[0][:, 21:29].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(rows[0][:, 21:29].std(0), 1, atol=1e-6)
    assert rows[0][0, 29] == 1.0 and rows[0][1, 30] == 9 / 4  # A-A is 4 in BLOSUM62, C-C is 9
    np.testing.assert_array_equal(rows[1][:2], rows[0][:2])
    assert rows[1][2, 20] == 1 and np.isclose(rows[1][2, :20].sum(), 1)


def test_ambiguous_letters_are_means_of_what_they_stand_for():
    one = PhysicoChemical().embed(["BDN", "ZEQ", "JIL", "UCC", "OKK"])
    for rows in one:
        np.testing.assert_allclose(rows[0], rows[1:].mean(0), atol=1e-6)


@pytest.mark.parametrize(("sequence", "message"), [("", "empty"), ("AC-D", "'-' at place 3"), ("MK*", r"'\*' at")])
def test_letters_that_are_none(sequence, message):
    with pytest.raises(InputError, match=message):
        check_letters(sequence, "one")
    with pytest.raises(InputError, match=message):
        PhysicoChemical().embed([sequence])


def test_precomputed(tmp_path):
    arrays = {"a": np.ones((3, 4)), "b": np.zeros((5, 4))}
    np.savez(tmp_path / "all.npz", **arrays)
    (tmp_path / "folder").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    for source in (tmp_path / "all.npz", tmp_path / "folder", arrays):
        found = Precomputed(source)
        assert found.dim == 4 and found.of("b").shape == (5, 4)
        with pytest.raises(InputError, match="no embedding of 'c'"):
            found.of("c")
    with pytest.raises(InputError, match=r"'b' is \(5, 3\), expected \(L, 4\)"):
        Precomputed({"a": np.ones((3, 4)), "b": np.ones((5, 3))}).of("b")
    (tmp_path / "text.npz").write_text("hello")
    for source, message in ((tmp_path / "absent", "no such"), (tmp_path / "text.npz", "no .npz"), ({}, "no embed")):
        with pytest.raises(InputError, match=message):
            Precomputed(source)


@pytest.mark.parametrize("length", [5, 10, 11, 14, 15, 33, 100])
def test_windows_cover_every_residue_once(length):
    """Each row tells its residue, and how far it was from the nearest end of its window."""
    text = "".join(chr(97 + i % 26) for i in range(length))
    seen = []

    def embed(pieces):
        for piece in pieces:
            seen.append(piece)
            place = np.arange(len(piece))
            yield np.stack([[ord(letter) for letter in piece], np.minimum(place, len(piece) - 1 - place)], 1)

    (rows,) = windowed(embed, [text], 10, 4)
    assert "".join(map(chr, rows[:, 0])) == text and max(map(len, seen)) <= 10
    inner = rows[2:-2, 1]
    assert length <= 10 or inner.min() >= 1  # cuts are in the middle of overlaps


def test_windows_of_several_sequences_keep_their_order():
    found = windowed(lambda pieces: [np.full((len(p), 1), ord(p[0])) for p in pieces], ["aaa", "b" * 25, "c"], 10, 4)
    assert [len(one) for one in found] == [3, 25, 1]
    assert [set(one[:, 0]) for one in found] == [{97}, {98}, {99}]

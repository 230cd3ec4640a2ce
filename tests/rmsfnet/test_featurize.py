"""Geometry of RMSF-net's boxes."""

import numpy as np
import pytest

from jaxprot.io.structures import read_structure
from jaxprot.rmsfnet import featurize


def test_the_rotations_are_the_24_of_a_cube():
    axes = np.stack(np.meshgrid(*[np.arange(3) - 1.0] * 3, indexing="ij"), -1)
    matrices = set()
    for number in range(24):
        turned = featurize.rotate(axes, number)
        # Where the unit vectors end up: the matrix of the rotation, read off the three axes.
        matrix = np.stack([turned[2, 1, 1], turned[1, 2, 1], turned[1, 1, 2]])
        assert np.linalg.det(matrix) == pytest.approx(1)
        np.testing.assert_array_equal(turned, axes @ matrix)
        matrices.add(tuple(matrix.ravel().tolist()))
    assert len(matrices) == 24
    box = np.random.default_rng(0).normal(size=(4, 4, 4, 2))
    np.testing.assert_array_equal(featurize.rotate(box, 0), box)
    for number in range(24):  # channels stay channels
        np.testing.assert_array_equal(featurize.rotate(box, number)[..., 1], featurize.rotate(box[..., 1], number))
        np.testing.assert_array_equal(featurize.rotate(featurize.rotate(box, number), number, back=True), box)


def test_the_map_of_the_shipped_weights_shows_no_hydrogens_waters_and_second_locations(tmp_path):
    rows = (
        ("ATOM", "N", " ", "GLY", "N"),
        ("ATOM", "CA", "A", "GLY", "C"),
        ("ATOM", "CA", "B", "GLY", "C"),
        ("ATOM", "C", " ", "GLY", "C"),
        ("ATOM", "O", " ", "GLY", "O"),
        ("ATOM", "HA2", " ", "GLY", "H"),
        ("HETATM", "O", " ", "HOH", "O"),
        ("HETATM", "ZN", " ", "ZN", "ZN"),
    )
    lines = []
    for number, (kind, name, other, residue, element) in enumerate(rows, 1):
        label = f" {name:<3s}" if len(element) == 1 else f"{name:<4s}"
        resid = {"GLY": 1, "HOH": 2, "ZN": 3}[residue]
        lines.append(
            f"{kind:<6s}{number:5d} {label}{other}{residue:>3s} A{resid:4d}    {number:8.3f}{0:8.3f}{0:8.3f}"
            f"  1.00 10.00          {element:>2s}"
        )
    path = tmp_path / "one.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    structure = read_structure(path)
    assert featurize.drawn(structure, True) is structure and structure.n_atoms == 8
    shown = featurize.drawn(structure, False)
    assert shown.atom_name.tolist() == ["N", "CA", "C", "O", "ZN"]
    np.testing.assert_allclose(shown.xyz[:, 0], [1, 2, 4, 5, 8])
    # A second segment with the same chain and number, without labels, stays.
    again = [line[:6] + f"{int(line[6:11]) + 10:5d}" + line[11:] for line in lines if line[16] == " "]
    path.write_text("\n".join([*lines[:6], "TER", *again, "END", ""]))
    assert featurize.drawn(read_structure(path), False).atom_name.tolist().count("N") == 2

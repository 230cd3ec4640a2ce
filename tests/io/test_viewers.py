import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.io.viewers import write_bfactor_model, write_view_scripts


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".pdb.gz"])
def test_values_per_residue_become_b_factors(suffix, example, tmp_path):
    structure = read_structure(example("trpcage"))
    values = np.linspace(-1, 3, structure.n_residues)
    values[2] = np.nan
    values[3] = 1e6
    write_bfactor_model(structure, values, tmp_path / f"ddg{suffix}")
    read = read_structure(tmp_path / f"ddg{suffix}")
    expected = values[structure.atom_residue]
    expected[structure.atom_residue == 2] = 0
    expected[structure.atom_residue == 3] = 999.99
    np.testing.assert_allclose(read.bfactor, expected, atol=0.006)
    np.testing.assert_allclose(read.xyz, structure.xyz, atol=1e-3)


def test_values_per_atom(example, tmp_path):
    structure = read_structure(example("chignolin"))
    write_bfactor_model(structure, np.arange(structure.n_atoms) / 10, tmp_path / "a.pdb")
    np.testing.assert_allclose(read_structure(tmp_path / "a.pdb").bfactor[:3], [0, 0.1, 0.2], atol=0.006)


def test_wrong_number_of_values(example, tmp_path):
    structure = read_structure(example("chignolin"))
    with pytest.raises(InputError, match=r"a\.pdb: \(7,\) values for"):
        write_bfactor_model(structure, np.zeros(7), tmp_path / "a.pdb")
    assert not list(tmp_path.iterdir())


def test_scripts_load_the_model_and_colour_it(tmp_path):
    pml, cxc = write_view_scripts(tmp_path, "ddg.pdb", -2, 4, "mean ΔΔG (kcal/mol)")
    text = pml.read_text(encoding="utf-8")
    assert "load ddg.pdb, ddg" in text
    assert "spectrum b, blue_white_red, ddg, minimum=-2, maximum=4" in text
    text = cxc.read_text(encoding="utf-8")
    assert "open ddg.pdb" in text
    assert "palette -2,blue:1,white:4,red" in text


def test_atoms_without_a_value_are_grey(tmp_path):
    pml, cxc = (path.read_text(encoding="utf-8") for path in write_view_scripts(tmp_path, "rmsf.pdb", 0, 2))
    assert "gr" not in pml.partition("spectrum")[2].partition("ramp_new")[0] and "gray" not in cxc
    pml, cxc = (
        path.read_text(encoding="utf-8") for path in write_view_scripts(tmp_path, "rmsf.pdb", 0, 2, unscored=-0.99)
    )
    assert pml.index("spectrum b") < pml.index("color grey70, rmsf and b < -0.99")
    assert cxc.index("color byattribute") < cxc.index("color @@bfactor<-0.99 gray")


def test_scripts_of_a_single_value_have_a_range(tmp_path):
    pml, _ = write_view_scripts(tmp_path, "ddg.pdb", 1.0, 1.0)
    assert "minimum=0, maximum=2" in pml.read_text()

"""References of residues, and how they are joined with a model."""

import dataclasses

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.tables import read_table, write_table
from jaxprot.rmsfnet import baselines, compare, featurize
from jaxprot.rmsfnet.results import Flexibility


@pytest.fixture(scope="module")
def structure(example):
    return read_structure(example("ubiquitin"))


@pytest.fixture
def table(structure, tmp_path):
    """`table(rmsf=values, ...)`: a reference of ubiquitin's residues from a file with these columns more or instead."""

    def read(**columns):
        protein = structure.letters != "X"
        plain = {"chain": ["A"] * 76, "resid": structure.resid[protein], "resname": structure.res_name[protein]}
        plain |= columns
        kept = {name: np.asarray(values) for name, values in plain.items() if values is not None}
        write_table(kept, tmp_path / "r.csv")
        return compare.read_reference(tmp_path / "r.csv")

    return read


def ends_of(structure, found):
    values = found[structure.letters != "X"]
    return len(values), values[0], values[-1]


def test_columns(structure, table):
    rmsf = np.linspace(0.5, 2, 76)
    for name in ("rmsf_angstrom", "rmsf_A", "rmsf"):
        reference = table(**{name: rmsf})
        assert reference.angstrom and ends_of(structure, compare.matched(structure, reference)) == (76, 0.5, 2.0)
    for name in ("z", "rmsf_z_residue_mean"):
        assert not table(**{name: rmsf}).angstrom
    with pytest.raises(InputError, match="needs the columns resid and one of rmsf_angstrom"):
        table(value=rmsf)


def test_a_shifted_table_is_refused(structure, table):
    rmsf = np.linspace(0.5, 2, 76)
    for names in (structure.res_name, structure.letters):
        names = names[structure.letters != "X"]
        with pytest.raises(
            InputError, match=r"residues are of another type in .*r.csv, the first at A:4 \(F here, M th"
        ):
            compare.matched(structure, table(rmsf=rmsf, resid=np.arange(76) + 4, resname=names))
    # Nothing tells the type here.
    assert np.isnan(compare.matched(structure, table(rmsf=rmsf, resid=np.arange(76) + 4, resname=None))[:3]).all()


def test_names_of_force_fields_are_the_same_types(structure, table, caplog):
    names = structure.res_name[structure.letters != "X"]
    assert "HIS" in names
    compare.matched(structure, table(rmsf=np.arange(76.0), resname=np.where(names == "HIS", "HSD", names)))
    assert not caplog.records


def test_parts_are_told_and_two_residues_are_too_few(structure, table, caplog):
    rmsf = np.where(np.arange(76) < 40, 1.0, np.nan)
    assert np.isfinite(compare.matched(structure, table(rmsf=rmsf))).sum() == 40
    assert "40 of 76 protein residues have a value in" in caplog.text
    for count, what in ((2, "only 2 residues in common"), (1, "only 1 residue in"), (0, "no residue in common")):
        with pytest.raises(InputError, match=what):
            compare.matched(structure, table(rmsf=np.where(np.arange(76) < count, 1.0, np.nan)))


def test_chains_without_protein_do_not_count(structure, table, tmp_path):
    """Ubiquitin with a zinc ion in a chain of its own, numbered like a residue, against tables without chain names."""
    write_structure(structure, tmp_path / "u.pdb")
    lines = [line for line in (tmp_path / "u.pdb").read_text().splitlines() if line.startswith("ATOM")]
    ion = "HETATM 9999 ZN    ZN B   5       0.000   0.000   0.000  1.00 20.00          ZN"
    (tmp_path / "zn.pdb").write_text("\n".join([*lines, ion, "END", ""]))
    with_ion = read_structure(tmp_path / "zn.pdb")
    assert with_ion.n_chains == 2
    rmsf = np.linspace(0.5, 2, 76)
    for chain in (None, ["X"] * 76):
        found = compare.matched(with_ion, table(rmsf=rmsf, chain=chain))
        np.testing.assert_allclose(found, [*rmsf, np.nan])


def test_ensembles_have_values_of_alpha_carbons_or_of_all(structure, tmp_path):
    rng = np.random.default_rng(0)
    spread = np.where(structure.atom_name == "CA", 0.1, 0.6)[:, None]
    lines = []
    for number in range(1, 7):
        xyz = structure.xyz + spread * rng.normal(size=structure.xyz.shape)
        write_structure(dataclasses.replace(structure, xyz=xyz.astype(np.float32)), tmp_path / "one.pdb")
        atoms = [line for line in (tmp_path / "one.pdb").read_text().splitlines() if line.startswith("ATOM")]
        lines += [f"MODEL     {number:4d}", *atoms, "ENDMDL"]
    (tmp_path / "all.pdb").write_text("\n".join([*lines, "END", ""]))
    alpha, every = (compare.read_reference(tmp_path / "all.pdb", atoms=atoms) for atoms in ("ca", "all"))
    assert len(alpha.values) == len(every.values) == 76
    assert max(alpha.values.values()) < 0.5 < min(every.values.values())


def test_the_published_table_has_the_residues_that_are_written(shared):
    """6FBV: 25068 atoms are scored, and the rows are those of the published result, in its order."""
    folder = shared / "data" / "flexibility"
    published = read_table(folder / "6FBV_rmsfnet_published_mode3.csv")
    structure = read_structure(folder / "6FBV.pdb")
    assert structure.n_atoms > featurize.protein_atoms(structure).sum() == 25068
    bfactor = baselines.rmsf(structure, "bfactor")
    result = Flexibility.of_residues(structure, bfactor, "bfactor")
    assert np.isfinite(result.rmsf[featurize.protein_atoms(structure)]).all()
    rows = result.residues()
    assert len(rows["resid"]) == 3217
    for column in ("chain", "resid", "icode", "resname"):
        np.testing.assert_array_equal(rows[column], published[column])
    found = 8 * np.pi**2 / 3 * rows["rmsf_angstrom"] ** 2
    np.testing.assert_allclose(found, published["model_bfactor_ca_A2"], rtol=1e-3)
    reference = compare.read_reference(folder / "6FBV_rmsfnet_published_mode3.csv")
    expected = compare.matched(structure, reference)
    assert not reference.angstrom and np.isfinite(expected).sum() == 3217
    np.testing.assert_array_equal(expected[np.isfinite(expected)], published["rmsf_z_residue_mean"])


def test_agreement():
    rmsf, other = np.array([np.nan, 1.0, 2.0, 3.0]), np.array([0.5, 1.5, 2.5, 3.5])
    assert compare.agreement("x", rmsf, other) == compare.Agreement("x", 3, 1.0, 1.0, 0.5)
    scores = compare.agreement("x", rmsf, other, angstrom=False)
    assert scores.pearson == 1 and np.isnan(scores.rmse)
    for values in (rmsf * 0, np.where(rmsf > 2, np.nan, rmsf)):
        found = compare.agreement("x", values, other)
        assert np.isnan([found.pearson, found.spearman]).all() and np.isfinite(found.rmse)
    with pytest.raises(InputError, match="x: no residue of the reference has a value"):
        compare.agreement("x", rmsf * np.nan, other)

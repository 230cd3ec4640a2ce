"""Structures from and to files."""

import dataclasses
import gzip

import gemmi
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import from_biopython, read_structure, stem_of, write_structure

FIELDS = ("xyz", "atom_name", "element", "altloc", "occupancy", "bfactor", "model", "atom_residue", "res_name", "resid",
          "icode", "hetero", "res_chain", "chain_id")  # fmt: skip

ODD = b"""\
HEADER    TEST
ATOM      1  N   ALA A  -1       1.000   2.000   3.000  1.00 10.00           N
ATOM      2  CA AALA A  -1       2.000   2.000   3.000  0.60 11.00           C
ATOM      3  CA BALA A  -1       2.500   2.000   3.000  0.40 12.00           C
ATOM      4  CA  GLY a  52B      4.000   2.000     nan  1.00 15.00           C
HETATM    5  CA  MSE a  53       5.000   2.000   3.000  1.00 15.00           C
HETATM    6 CA    CA A 400       6.000   2.000   3.000  1.00 15.00          CA
HETATM    7  O   HOH A 401       7.000   2.000   3.000  1.00 16.00           O
END
"""


def assert_same(a, b, fields=FIELDS):
    for field in fields:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


def test_reads_what_the_file_says():
    odd = read_structure(ODD, name="odd")
    assert odd.name == "odd"
    assert odd.atom_name.tolist() == ["N", "CA", "CA", "CA", "O", "CA", "CA"]
    assert odd.element.tolist() == ["N", "C", "C", "CA", "O", "C", "C"], "calcium is not C-alpha"
    assert odd.altloc.tolist() == ["", "A", "B", "", "", "", ""]
    assert odd.resid.tolist() == [-1, 400, 401, 52, 53] and odd.icode.tolist() == ["", "", "", "B", ""]
    assert odd.hetero.tolist() == [False, True, True, False, True]
    assert odd.chain_id.tolist() == ["A", "a"]
    assert np.isnan(odd.xyz[5, 2]) and np.isfinite(odd.xyz).sum() == 20
    assert odd.xyz.dtype == np.float32 and odd.serial.dtype == np.int32


@pytest.mark.parametrize("suffix", [".pdb", ".ent", ".cif", ".pdb.gz", ".cif.gz", ".mmcif"])
def test_round_trip(tmp_path, suffix):
    odd = read_structure(ODD)
    write_structure(odd, tmp_path / f"odd{suffix}")
    back = read_structure(tmp_path / f"odd{suffix}")
    assert_same(odd, back)
    assert back.name == "odd"
    assert [path.name for path in tmp_path.iterdir()] == [f"odd{suffix}"], "no temporary file is left"


@pytest.mark.golden
@pytest.mark.parametrize("name", ["2OCJ", "3HTN", "5L33", "1VII", "edge"])
@pytest.mark.parametrize("suffix", [".pdb", ".cif.gz"])
def test_round_trip_of_real_files(goldens, tmp_path, name, suffix):
    structure = read_structure(goldens("thermompnn") / "inputs" / f"{name}.pdb", models="all")
    write_structure(structure, tmp_path / f"x{suffix}")
    assert_same(structure, read_structure(tmp_path / f"x{suffix}", models="all"))


def test_the_content_decides_not_the_suffix(tmp_path, example):
    path = example("ubiquitin")
    structure = read_structure(path)
    (tmp_path / "x.cif").write_bytes(gzip.compress(path.read_bytes()))
    assert_same(structure, read_structure(tmp_path / "x.cif"))
    write_structure(structure, tmp_path / "y.cif")
    (tmp_path / "y.pdb").write_bytes(b"# a comment\n\n" + (tmp_path / "y.cif").read_bytes())
    assert_same(structure, read_structure(tmp_path / "y.pdb"))
    assert_same(structure, read_structure(path.read_bytes()))


def test_models():
    text = b"".join(b"MODEL     %4d\n%sENDMDL\n" % (n, ODD.split(b"\n")[1] + b"\n") for n in (2, 5))
    assert read_structure(text).model.tolist() == [2]
    assert read_structure(text, models="all").model.tolist() == [2, 5]
    assert read_structure(text, models=5).model.tolist() == [5]
    with pytest.raises(InputError, match="no model 3; the file has models 2, 5"):
        read_structure(text, models=3)


def test_mmcif_keeps_author_numbers_and_long_chain_names(tmp_path):
    source = read_structure(ODD)
    write_structure(source, tmp_path / "a.cif")
    text = (tmp_path / "a.cif").read_text()
    document = gemmi.cif.read_string(text)
    column = document[0].find_values("_atom_site.auth_asym_id")
    for i in range(len(column)):
        column[i] = "LongA" if column[i] == "A" else column[i]
    structure = read_structure(document.as_string().encode())
    assert structure.chain_id.tolist() == ["LongA", "a"]
    assert structure.resid.tolist() == source.resid.tolist()
    with pytest.raises(InputError, match="'LongA' does not fit the PDB format; write .cif"):
        write_structure(structure, tmp_path / "b.pdb")
    assert not (tmp_path / "b.pdb").exists()


def test_writing_names_what_does_not_fit(tmp_path):
    odd = read_structure(ODD)
    with pytest.raises(InputError, match="unknown suffix '.xyz'"):
        write_structure(odd, tmp_path / "a.xyz")
    far = read_structure(ODD.replace(b"   2.000   3.000", b"   2.000-999.000"))
    far.xyz[0] = 12345
    with pytest.raises(InputError, match="do not fit the PDB format"):
        write_structure(far, tmp_path / "a.pdb")
    write_structure(far, tmp_path / "a.cif")


@pytest.mark.parametrize("bad", [b"***.***", b"  3x.142", b"   1,000"])
def test_unreadable_coordinates_are_no_zeros(bad):
    text = ODD.replace(b"   4.000", bad.rjust(8))
    with pytest.raises(InputError, match="line 5: coordinates cannot be read"):
        read_structure(text)


def test_from_biopython():
    import io

    from Bio.PDB.PDBParser import PDBParser

    text = ODD.replace(b"     nan", b"   0.000").decode()
    parsed = PDBParser(QUIET=True).get_structure("odd", io.StringIO(text))
    ours = read_structure(text.encode())
    theirs = from_biopython(parsed)
    assert theirs.name == "odd"
    assert_same(ours, theirs)
    assert from_biopython(parsed[0]["a"]).chain_id.tolist() == ["a"]
    with pytest.raises(InputError, match="no Bio.PDB"):
        from_biopython(3)


def test_from_biopython_on_a_real_file(example):
    from Bio.PDB.PDBParser import PDBParser

    path = example("ubiquitin")
    assert_same(read_structure(path), from_biopython(PDBParser(QUIET=True).get_structure("u", path)))


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/2ocj.cif.gz", "2ocj"),
        ("1abd.pdb", "1abd"),
        ("x.y.pdb", "x.y"),
        ("model", "model"),
        ("AF-P1-F1.mmcif", "AF-P1-F1"),
    ],
)
def test_stems(path, stem):
    assert stem_of(path) == stem


def test_segments_name_blank_chains():
    lines = [line[:21] + b" " + line[22:] for line in ODD.splitlines() if line.startswith(b"ATOM")][:1] * 2
    text = b"\n".join(line.ljust(72)[:72] + segment for line, segment in zip(lines, (b"PROA", b"PROB"), strict=True))
    structure = read_structure(text + b"\n")
    assert structure.chain_id.tolist() == ["A", "B"] and structure.n_residues == 2
    assert read_structure(text.replace(b"PROB", b"PROA") + b"\n").chain_id.tolist() == [""]


def test_long_names_can_be_made_to_fit(tmp_path):
    odd = read_structure(ODD)
    long = dataclasses.replace(odd, chain_id=np.array(["AAA", "A"], "U8"), res_name=np.full(5, "A1BCD", "U5"))
    write_structure(long, tmp_path / "x.pdb", fit=True)
    back = read_structure(tmp_path / "x.pdb")
    assert back.chain_id.tolist() == ["B", "A"] and set(back.res_name.tolist()) == {"A1B"}
    write_structure(long, tmp_path / "x.cif", fit=True)
    assert read_structure(tmp_path / "x.cif").chain_id.tolist() == ["AAA", "A"]

"""Chains and tensors: equal to the published parser, and sane on odd input."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.proteinmpnn.featurize import featurize, pad_features, parse_chains

BACKBONE = (("N", 0.0, 1.4), ("CA", 1.2, 0.6), ("C", 2.4, 1.4), ("O", 2.4, 2.6))


def atoms(name="ALA", resid="   1 ", chain="A", at=0.0, record="ATOM  ", only="N CA C O", altloc=" "):
    """The backbone lines of one residue; residues 3.75 Å apart are bonded."""
    return "".join(
        f"{record}    1  {atom:<3s}{altloc}{name:>3s} {chain}{resid}   {x + at:8.3f}{y:8.3f}{0:8.3f}  1.00  0.00\n"
        for atom, x, y in BACKBONE
        if atom in only.split()
    )


def parse(text, chains=None, **options):
    return parse_chains(read_structure(text.encode(), models="all", name="test"), chains, **options)


@pytest.fixture(scope="module")
def folder(goldens):
    return goldens("thermompnn")


@pytest.mark.golden
@pytest.mark.parametrize("chain", ["A", "C"])
def test_published_parser_on_the_edge_file(folder, chain):
    golden = np.load(folder / "mpnn_parser_edge.npz")
    (ours,) = parse_chains(read_structure(folder / "inputs" / "edge.pdb", models="all"), chain, compat=True)
    assert ours.sequence == str(golden[f"chain_{chain}__seq"])
    assert list(ours.resn_list) == golden[f"chain_{chain}__resn_list"].tolist()
    np.testing.assert_array_equal(ours.xyz, golden[f"chain_{chain}__xyz_N_CA_C_O"].astype(np.float32))


@pytest.mark.golden
@pytest.mark.parametrize(
    ("structure", "file", "prefix", "options", "designed"),
    [
        ("edge", "mpnn_parser_edge", "featurised__", {"compat": True}, None),
        ("edge", "thermompnn_edge_A", "", {"compat": True, "chains": "A"}, None),
        ("5L33", "mpnn_monomer", "", {}, None),
        ("3HTN", "mpnn_multichain", "", {}, ["A", "C"]),
        ("3HTN", "mpnn_multichain", "", {"compat": True}, ["A", "C"]),
        ("2OCJ", "thermompnn_2OCJ_A", "", {"chains": ["A"]}, None),
    ],
)
def test_published_tensors(folder, structure, file, prefix, options, designed):
    golden = np.load(folder / f"{file}.npz")
    parsed = parse_chains(read_structure(folder / "inputs" / f"{structure}.pdb", models="all"), **options)
    ours = featurize(parsed, designed=designed)
    names = {"chain_encoding": "chain_encoding_all", "design": "chain_M"}
    for field, array in ours._asdict().items():
        key = prefix + names.get(field, field)
        if key in golden or field != "design":
            np.testing.assert_array_equal(array, golden[key], err_msg=field)


@pytest.mark.golden
def test_default_reading_of_the_edge_file(folder):
    first, second = parse_chains(read_structure(folder / "inputs" / "edge.pdb"))
    assert first.sequence == "HMPEEEKAMRLFIEALEKGD---MRKVISPSTRSEDNGREFTGDEVVEYVKEIQKRGEQW"
    assert (first.id, second.id) == ("A", "C"), "the water chain is no protein"
    assert first.index(9, "A") == first.index(9) + 1 == first.index(9, "b") - 1
    assert first.present[20:23].tolist() == [False] * 3 and first.resid[19:24].tolist() == [14, 15, 16, 17, 18]
    assert not first.mask[first.index(30)] and first.sequence[first.index(30)] == "D", "without O: letter, no mask"


def test_gaps_and_insertion_codes():
    (chain,) = parse(atoms(resid="  -2 ") + atoms("GLY", "   0B") + atoms("TRP", "   0A") + atoms("SER", "   0 "))
    assert chain.sequence == "A-SWG"
    assert chain.resid.tolist() == [-2, -1, 0, 0, 0] and chain.icode.tolist() == ["", "", "", "A", "B"]
    assert chain.resn_list == ("-2", "0B", "0A", "0") and chain.present.tolist() == [True, False, True, True, True]
    assert np.isnan(chain.xyz[1]).all() and len(chain) == 5
    with pytest.raises(InputError, match="chain 'A' has no residue -1; it has residues -2 to 0B"):
        chain.index(-1)


@pytest.mark.parametrize("record", ["ATOM  ", "HETATM"])
def test_selenomethionine(record):
    text = atoms("MSE", record=record)
    assert parse(text)[0].sequence == "M"
    compat = {"HETATM": "M", "ATOM  ": "-"}
    assert parse(text, compat=True)[0].sequence == compat[record]


@pytest.mark.parametrize(("name", "letter"), [("HIE", "H"), ("CYX", "C"), ("ASH", "D"), ("SEP", "S"), ("SEC", "C")])
def test_other_names_have_parents(name, letter):
    assert parse(atoms(name))[0].sequence == letter
    (published,) = parse(atoms(name), compat=True)
    assert published.sequence == "-" and published.mask.all()


def test_modified_residues_count_when_bonded_and_free_ones_do_not():
    text = atoms() + atoms("TPO", "   2 ", at=3.75, record="HETATM") + atoms("GLU", " 900 ", at=50, record="HETATM")
    assert parse(text)[0].sequence == "AT"
    assert parse(text, compat=True)[0].sequence == "A"


def test_caps_water_and_nucleotides_are_no_residues_but_strangers_are():
    text = atoms("ACE", "   0 ", only="C O") + atoms() + atoms("XYZ", "   2 ") + atoms("NME", "   3 ", only="N")
    text += atoms("HOH", "   4 ", only="O") + atoms(" DA", "   1 ", chain="D", only="C O")
    (chain,) = parse(text)
    assert chain.sequence == "A-" and chain.mask.all(), "an unknown residue keeps its backbone"
    with pytest.raises(InputError, match="chain 'D' holds no amino acids"):
        parse(text, "D")


def test_first_alternate_location_and_first_model_win():
    text = "MODEL        1\n" + atoms(altloc="A") + atoms(altloc="B", at=9) + "ENDMDL\nMODEL        2\n"
    text += atoms(at=20) + atoms("GLY", "   2 ", at=20) + "ENDMDL\n"
    (chain,) = parse(text)
    assert chain.sequence == "A" and chain.xyz[0, 0, 0] == 0
    (published,) = parse(text, compat=True)
    assert published.sequence == "AG" and published.xyz[0, 0, 0] == 0, "later models add what the first lacks"


def test_two_residue_types_at_one_number():
    text = atoms("SER", altloc="A") + atoms("THR", altloc="B", at=0.5)
    assert parse(text)[0].sequence == "S"


@pytest.mark.parametrize("alias", ["OT1", "O1 ", "OXT"])
def test_other_names_of_the_carbonyl_oxygen(alias):
    text = atoms().replace(" O   ALA", f" {alias} ALA")
    assert parse(text)[0].mask.all()
    both = text + atoms(only="O", at=1)
    assert parse(both)[0].xyz[0, 3, 0] == pytest.approx(3.4), "a plain O comes first"


def test_missing_atoms_and_isolated_nan_are_masked():
    text = atoms() + atoms("GLY", "   2 ", only="N CA C") + atoms("SER", "   3 ").replace("   0.600", "     nan", 1)
    (chain,) = parse(text)
    assert chain.sequence == "AGS" and chain.mask.tolist() == [True, False, False]
    features = featurize([chain])
    assert np.isfinite(features.X).all() and features.mask.tolist() == [1, 0, 0] and features.S.tolist() == [0, 5, 15]


def test_one_residue_blank_and_lower_case_chains():
    assert len(parse(atoms())[0]) == 1
    assert [c.id for c in parse(atoms(chain="b") + atoms(chain=" ") + atoms(chain="B"))] == ["b", "", "B"]
    assert [c.id for c in parse(atoms(chain="b") + atoms(chain="B"), "B,b")] == ["B", "b"]
    assert [c.id for c in parse(atoms(chain="b") + atoms(chain=" ") + atoms(chain="B"), compat=True)] == ["B", "b"]


def test_chain_order_and_design_mask():
    chains = parse(atoms(chain="C") + atoms(chain="A") + atoms(chain="B") + atoms("GLY", "   3 ", chain="B"))
    features = featurize(chains, designed=["B", "C"], fixed_positions={"B": [2, 3], "A": []})
    assert features.chain_encoding.tolist() == [1, 1, 1, 2, 3]
    assert features.residue_idx.tolist() == [0, 1, 2, 103, 204]
    assert features.design.tolist() == [1, 0, 0, 1, 0] and features.S.tolist() == [0, 20, 5, 0, 0]
    assert featurize(chains, sort=False).S.tolist() == [0, 0, 0, 20, 5]
    with pytest.raises(InputError, match="no chain 'X' to design; chains: C, A, B"):
        featurize(chains, designed=["X"])
    with pytest.raises(InputError, match="fixed position 4 of chain 'B' is outside 1..3"):
        featurize(chains, fixed_positions={"B": [4]})
    with pytest.raises(InputError, match="fixed positions for chain 'Z'"):
        featurize(chains, fixed_positions={"Z": [4]})


def test_padding():
    features = pad_features(featurize(parse(atoms())), 32)
    assert [len(array) for array in features] == [32] * 6
    assert [array[-1].tolist() for array in features[1:]] == [20, 0, -100, 0, 0] and (features.X[1:] == 0).all()
    assert [array.dtype.name for array in features] == ["float32", "int32", "float32", "int32", "int32", "float32"]


def test_ca_only_chains_need_the_option():
    text = atoms(only="CA") + atoms("GLY", "   2 ", only="CA")
    with pytest.raises(InputError, match="no chain has a residue with a complete protein backbone"):
        parse(text)
    with pytest.raises(InputError, match="chain 'A' has no residue with a complete backbone"):
        parse(text, "A")
    assert parse(text, ca_only=True)[0].sequence == "AG"


def test_a_hole_in_the_numbering_is_bounded():
    assert len(parse(atoms() + atoms(resid="1002 "))[0]) == 1002
    for compat in (False, True):
        with pytest.raises(InputError, match="chain 'A' jumps from residue 1 to 9999; 9997 missing"):
            parse(atoms() + atoms(resid="9999 "), compat=compat)


def test_two_molecules_under_one_name_are_told(caplog):
    text = atoms() + atoms("GLY", "   2 ", at=3.75) + "TER\n" + atoms(at=30) + atoms("GLY", "   2 ", at=33.75)
    assert parse(text)[0].sequence == "AG"
    assert "chain 'A' holds residue 1 more than once (2 residues in all)" in caplog.text
    caplog.clear()
    assert parse(atoms("SER", altloc="A") + atoms("THR", altloc="B"))[0].sequence == "S"
    assert not caplog.text, "alternatives are no copies"


@pytest.mark.golden
@pytest.mark.parametrize("table", ["p53", "myoglobin", "ssym_direct", "ssym_inverse"])
def test_measured_mutations_find_their_residue(shared, table):
    folder = shared / "data" / "stability"
    rows = np.genfromtxt(folder / f"{table}.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    rows = rows[rows["wt_matches_structure"] == 1]
    for protein in np.unique(rows["protein"])[:30]:
        (chain,) = parse_chains(read_structure(folder / "pdb_xray" / f"{protein}.pdb.gz"))
        for row in rows[rows["protein"] == protein]:
            number, code = str(row["resid"]), ""
            if number[-1].isalpha():
                number, code = number[:-1], number[-1]
            assert chain.sequence[chain.index(int(number), code)] == row["wt"], (protein, row)

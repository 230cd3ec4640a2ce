"""Mutation notation and lists."""

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxprot.core.errors import InputError
from jaxprot.core.residues import STANDARD
from jaxprot.io.mutations import Mutation, format_mutation, parse_mutation, parse_mutations, read_mutation_table

LETTERS = st.sampled_from(STANDARD)
MUTATIONS = st.builds(
    Mutation,
    wt=LETTERS,
    resid=st.integers(-999, 99999),
    icode=st.sampled_from(["", "A", "b", "Z"]),
    mut=LETTERS,
    chain=st.sampled_from([None, "A", "h", "1", "AA", "Long1"]),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A123G", Mutation("A", 123, "", "G")),
        ("A52bG", Mutation("A", 52, "b", "G")),
        ("A52BG", Mutation("A", 52, "B", "G")),
        ("H:A52bG", Mutation("A", 52, "b", "G", "H")),
        ("A-3G", Mutation("A", -3, "", "G")),
        (" 1:W7Y ", Mutation("W", 7, "", "Y", "1")),
    ],
)
def test_forms(text, expected):
    assert parse_mutation(text) == expected


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("A10G:L55V", [(None, 10), (None, 55)]),
        ("H:A52bG:L:S30T", [("H", 52), ("L", 30)]),
        ("A10G:L:S30T", [(None, 10), ("L", 30)]),
        ("A1G:A2G:A3G", [(None, 1), (None, 2), (None, 3)]),
    ],
)
def test_a_prefix_is_a_chain_and_a_mutation_is_a_mutation(text, sites):
    parsed = parse_mutations(text)
    assert [(one.chain, one.resid) for one in parsed] == sites
    assert format_mutation(parsed) == text


@given(MUTATIONS)
def test_writing_and_reading_are_inverse(mutation):
    assert parse_mutation(format_mutation(mutation)) == mutation


@pytest.mark.parametrize("text", ["", "A", "A1", "1G", "a1g", "A1G:", ":A1G", "H:L:A1G", "A1.5G", "Ala1Gly", "nan"])
def test_what_is_no_mutation_says_how_to_write_one(text):
    with pytest.raises(InputError, match="write A123G"):
        parse_mutations(text)


def test_other_mistakes():
    with pytest.raises(InputError, match="'B' is none of the twenty"):
        parse_mutations("B1A")
    with pytest.raises(InputError, match="mutates residue 5 twice"):
        parse_mutations("A5G:A5V")
    assert len(parse_mutations("A5G:A5bV")) == 2
    with pytest.raises(InputError, match="2 mutations where one is expected"):
        parse_mutation("A5G:L6V")


def test_table(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("structure,chain,mutation,ddg,note\n1e10,NA,A1G,0.5,x\nb,,H:A52bG,,y\nc,A,A1G:B:L2V,nan,z\n")
    table = read_mutation_table(path)
    assert table.structures == ["1e10", "b", "c"], "text stays text"
    assert [tuple(one.chain for one in row) for row in table.mutations] == [("NA",), ("H",), ("A", "B")]
    assert table.ddg is not None and table.ddg[0] == 0.5 and math.isnan(table.ddg[1]) and math.isnan(table.ddg[2])
    assert list(table.frame.columns) == ["structure", "chain", "mutation", "ddg", "note"]
    (tmp_path / "list.tsv").write_text("structure\tmutation\nx\tA1G\n")
    plain = read_mutation_table(tmp_path / "list.tsv")
    assert plain.mutations == [(Mutation("A", 1, "", "G"),)] and plain.ddg is None


def test_all_bad_rows_are_named_at_once(tmp_path):
    path = tmp_path / "list.csv"
    rows = ["s,A,A1G,1", "s,A,A1,2", ",A,A1G,3", "s,A,B1G,4", "s,A,A1G,high"]
    path.write_text("structure,chain,mutation,ddg\n" + "\n".join(rows) + "\n")
    with pytest.raises(InputError) as caught:
        read_mutation_table(path)
    message = str(caught.value)
    assert "list.csv: 4 rows cannot be used" in message
    assert all(f"line {n}:" in message for n in (3, 4, 5, 6)) and "line 2" not in message


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_lines_are_those_of_the_file(tmp_path, name):
    text = 'structure,mutation,note\n\ns,A1G,"two\nlines"\n \n\ns,A1,x\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(InputError, match=r"1 row cannot be used\n  line 7: ") as caught:
        read_mutation_table(path)
    assert str(caught.value).count("line ") == 1
    text = text.replace("A1,", "A1V,")
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert list(read_mutation_table(path).lines) == [3, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as a table"), (b"a,b\n1,2\n", "no column 'structure' and 'mutation'"),
     (b"structure,mutation\n", "holds no mutations"), (b"\xff\xfe\x00\x81", "cannot be read as a table")],
    ids=["empty", "other columns", "header only", "binary"],
)  # fmt: skip
def test_bad_tables(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_mutation_table(path)
    with pytest.raises(InputError, match="no such file"):
        read_mutation_table(tmp_path / "none.csv")

"""FASTA in and out."""

import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.sequences import FastaRecord, read_fasta, write_fasta


@pytest.mark.parametrize("name", ["x.fa", "x.fa.gz"])
@pytest.mark.parametrize("width", [0, 4])
def test_round_trip(tmp_path, name, width):
    records = [FastaRecord("NAME, score=1.2, seed=3", "ACDEFG/HIK"), FastaRecord("b", "MX-W")]
    write_fasta(records, tmp_path / name, width=width)
    back = read_fasta(tmp_path / name)
    assert back == records
    assert back[0].id == "NAME" and back[0].chains == ["ACDEFG", "HIK"]


def test_reading_is_forgiving_where_it_is_safe(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b"\xef\xbb\xbf;comment\r\n\r\n>one two\r\nac de\r\nFG*\r\n>\r\nA\r\n")
    assert read_fasta(path) == [FastaRecord("one two", "ACDEFG"), FastaRecord("", "A")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no FASTA records"), (b"ACD\n", "line 1: text before"), (b">a\n>b\nA\n", "record 'a' is empty"),
     (b">a\nAC1\n", "record 'a' has '1'"), (b"\xff\xfe>a", "not a text file"),
     (b"\x1f\x8b\x08\x00", "truncated or damaged")],
)  # fmt: skip
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_fasta(path)
    with pytest.raises(InputError, match="no such file"):
        read_fasta(tmp_path / "none.fa")

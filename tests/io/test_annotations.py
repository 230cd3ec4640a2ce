"""UniProt entries and ontologies."""

import gzip

import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.obo import read_obo
from jaxprot.io.uniprot import Feature, read_uniprot

ENTRY = """ID   CALM_TEST               Reviewed;          40 AA.
AC   P99999; Q00001;
DT   01-JAN-2000, integrated into UniProtKB/Swiss-Prot.
DT   01-JAN-2000, sequence version 1.
DT   01-JAN-2020, entry version 9.
DE   RecName: Full=Test protein;
OS   Homo sapiens (Human).
OC   Eukaryota.
OX   NCBI_TaxID=9606;
DR   PDB; 1ABC; X-ray; 2.00 A; A=1-40.
DR   GO; GO:0000002; C:two; IEA:Test.
DR   GO; GO:0000005; C:five; IEA:Test.
PE   1: Evidence at protein level;
FT   DOMAIN          3..12
FT                   /note="EF-hand 2"
FT   MOTIF           31..34
FT                   /note="KDEL; nuclear"
FT   REGION          ?..20
FT                   /note="Disordered"
FT   REGION          15..20
FT                   /note="Disordered"
FT   HELIX           2..9
SQ   SEQUENCE   40 AA;  4000 MW;  0000000000000000 CRC64;
     MAAAAAAAAA CCCCCCCCCC DDDDDDDDDD KDELEEEEEE
//
"""

ONTOLOGY = """format-version: 1.2

[Term]
id: GO:0000001
name: root

[Term]
id: GO:0000002
name: two
alt_id: GO:0000099
is_a: GO:0000001 ! root

[Term]
id: GO:0000003
name: three
is_a: GO:0000001 {source="x"} ! root

[Term]
id: GO:0000004
name: gone
is_obsolete: true

[Term]
id: GO:0000005
name: five
is_a: GO:0000002 ! two
relationship: part_of GO:0000003 ! three
relationship: regulates GO:0000002 ! two

[Typedef]
id: part_of
name: part of
"""


@pytest.mark.parametrize("packed", [False, True])
def test_an_entry(tmp_path, packed):
    path = tmp_path / ("test.dat.gz" if packed else "test.dat")
    path.write_bytes(gzip.compress(ENTRY.encode()) if packed else ENTRY.encode())
    (record,) = read_uniprot(path)
    assert (record.accession, record.name, len(record.sequence)) == ("P99999", "CALM_TEST", 40)
    assert record.go == ("GO:0000002", "GO:0000005") and record.pdb == ("1ABC",)
    assert record.features == (
        Feature("DOMAIN", "EF-hand", 2, 12),
        Feature("MOTIF", "KDEL", 30, 34),
        Feature("REGION", "Disordered", 14, 20),
    )
    assert record.sequence[30:34] == "KDEL"


@pytest.mark.parametrize("text", ["", "MKV\n", ENTRY.replace("SQ ", "XX ")])
def test_no_entries(tmp_path, text):
    path = tmp_path / "bad.dat"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"bad\.dat: (no UniProt entries|read as a UniProt flat file, but entry 1 is none)"
    ):
        list(read_uniprot(path))


def test_ancestors(tmp_path):
    path = tmp_path / "go.obo"
    path.write_text(ONTOLOGY)
    ontology = read_obo(path)
    assert list(ontology.names) == ["GO:0000001", "GO:0000002", "GO:0000003", "GO:0000005"]
    assert ontology.ancestors(["GO:0000005"]) == ["GO:0000001", "GO:0000002", "GO:0000003", "GO:0000005"]
    assert ontology.ancestors(["GO:0000099"]) == ["GO:0000001", "GO:0000002"]  # merged
    assert ontology.ancestors(["GO:0000004", "GO:7"]) == []
    assert read_obo(path, ["is_a"]).ancestors(["GO:0000005"]) == ["GO:0000001", "GO:0000002", "GO:0000005"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "no terms"),
        (ONTOLOGY.replace("is_a: GO:0000001 ! root", "is_a: GO:9 ! x"), "below GO:9, which is no term"),
        (ONTOLOGY.replace("name: root", "name: root\nis_a: GO:0000005"), "is above itself"),
    ],
)
def test_bad_ontologies(tmp_path, text, message):
    path = tmp_path / "go.obo"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_obo(path)

"""Proteins from users' files."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.obo import read_obo
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.massa import records
from jaxprot.massa.embedders import PhysicoChemical, Precomputed
from jaxprot.massa.featurize import IGNORE

OBO = """
[Term]
id: GO:1
name: root

[Term]
id: GO:2
name: two
is_a: GO:1

[Term]
id: GO:3
name: three
is_a: GO:2

[Term]
id: GO:4
name: four
is_a: GO:2

[Term]
id: GO:5
name: five
is_a: GO:1
"""
ENTRY = """ID   {name}               Reviewed;          20 AA.
AC   {name};
DR   GO; GO:3; C:three; IEA:Test.
FT   DOMAIN          3..6
FT                   /note="Fold"
FT   MOTIF           1..2
FT                   /note="{motif}"
SQ   SEQUENCE   20 AA;  4000 MW;  0000000000000000 CRC64;
     MAAAAAAAAA CCCCCCCCCC
//
"""


@pytest.fixture
def ontology(tmp_path):
    path = tmp_path / "go.obo"
    path.write_text(OBO)
    return read_obo(path)


@pytest.fixture
def swissprot(tmp_path):
    path = tmp_path / "entries.dat"
    path.write_text(ENTRY.format(name="P1", motif="Nose") + ENTRY.format(name="P2", motif="Ear"))
    return path


def test_terms_that_share_ancestors_are_alike(ontology):
    found = records.term_vectors(["GO:3", "GO:4", "GO:5", "GO:9"], ontology)
    assert list(found) == ["GO:3", "GO:4", "GO:5"]
    np.testing.assert_allclose([np.linalg.norm(v) for v in found.values()], 1, rtol=1e-5)
    assert found["GO:3"] @ found["GO:4"] > found["GO:3"] @ found["GO:5"] + 0.1
    np.testing.assert_array_equal(records.term_vectors(["GO:4"], ontology)["GO:4"], found["GO:4"])


def test_vectors_of_terms_are_computed_once(ontology, monkeypatch):
    """A batch of pre-training asks for a few terms, and the ontology has tens of thousands."""
    first = records.term_vectors(["GO:3", "GO:4"], ontology)
    asked = []
    monkeypatch.setattr(type(ontology), "ancestors", lambda self, terms: asked.append(terms) or [])
    again = records.term_vectors(["GO:3", "GO:4"], ontology)
    assert not asked and all(again[term] is first[term] for term in first)


def test_entries_with_terms_and_labels(swissprot, ontology):
    proteins = records.read_proteins(swissprot)
    vocabulary = records.Vocabulary.of(proteins, ontology)
    assert vocabulary.go == ("GO:1", "GO:2", "GO:3") and vocabulary.motif == ("Ear", "Nose")
    assert vocabulary.classes == {"go_classes": 3, "motif_classes": 3, "domain_classes": 2, "region_classes": 1}
    first, second = records.to_records(proteins, PhysicoChemical(), ontology=ontology, vocabulary=vocabulary)
    assert first.go.shape == (3, 64) and first.coords is None
    np.testing.assert_array_equal(first.labels["go"], [0, 1, 2])
    np.testing.assert_array_equal(first.labels["motif"][:3], [2, 2, 0])
    np.testing.assert_array_equal(second.labels["motif"][:3], [1, 1, 0])
    np.testing.assert_array_equal(first.labels["domain"], [0, 0, 1, 1, 1, 1] + [0] * 14)
    other = records.Vocabulary(motif=("Ear",))
    assert set(records.labels_of(proteins[0], other)["motif"][:2]) == {IGNORE}
    bare = records.to_records(proteins, PhysicoChemical())
    assert bare[0].go is None and bare[0].labels == {}


def test_structures_give_chains_with_gaps(example, tmp_path):
    structure = read_structure(example("ubiquitin"))
    (protein, *_) = records.of_structure(structure)
    assert protein.coords.shape == (len(protein.sequence), 4, 3) and protein.sequence.startswith("MQIFVKTLTGK")
    assert np.isfinite(protein.coords).all()
    alpha = structure.xyz[(structure.atom_name == "CA") & (structure.element == "C")]
    np.testing.assert_allclose(protein.coords[:, 1], alpha[: len(protein.sequence)], atol=1e-4)
    lost = structure.select(~((structure.atom_name == "O") & (structure.atom_residue == 4)))
    (broken, *_) = records.of_structure(lost)
    assert np.isnan(broken.coords[4, 3]).all() and np.isfinite(np.delete(broken.coords, 4, 0)).all()
    path = tmp_path / "one.pdb"
    write_structure(structure, path)
    assert records.read_proteins(path)[0].sequence == protein.sequence


def test_a_trace_of_alpha_carbons_is_read_as_a_sequence(example, tmp_path, caplog):
    whole = read_structure(example("ubiquitin"))
    alpha = (whole.atom_name == "CA") & (whole.element == "C")
    (found, *_) = records.of_structure(whole.select(alpha))
    assert found.coords is None and found.sequence.startswith("MQIFVKTLTGK")
    assert "no residue has all of N, CA, C and O; read as a sequence" in caplog.text
    (found, *_) = records.of_structure(whole.select((whole.atom_name != "O") | (whole.atom_residue % 10 == 0)))
    assert found.coords is not None and f"{len(found.sequence) * 9 // 10} of" in caplog.text


def test_fasta_and_stored_embeddings(tmp_path):
    path = tmp_path / "two.fasta"
    path.write_text(">a first\nACDE\n>b\nMKB\n")
    proteins = records.read_proteins(path)
    assert [(p.name, p.sequence) for p in proteins] == [("a", "ACDE"), ("b", "MKB")]
    stored = {"a": np.ones((4, 6)), "b": np.zeros((3, 6))}
    made = records.to_records(proteins, Precomputed(stored))
    assert made[0].embedding.shape == (4, 6)
    with pytest.raises(InputError, match="b: 2 rows of the embedding for 3 residues"):
        records.to_records(proteins, Precomputed({**stored, "b": np.zeros((2, 6))}))


def test_long_sequences_go_through_in_windows():
    class Short(PhysicoChemical):
        max_len = 10

        def embed(self, sequences):
            assert max(map(len, sequences)) <= 10
            return super().embed(sequences)

    protein = records.Protein("long", "ACDEFGHIKLMNPQRSTVWY" * 3)
    (made,) = records.to_records([protein], Short(), overlap=4)
    np.testing.assert_array_equal(made.embedding, PhysicoChemical().embed([protein.sequence])[0])


def test_wrong_files(tmp_path, swissprot, example):
    (tmp_path / "x.xyz").write_text("hello")
    (tmp_path / "gap.fasta").write_text(">a\nAC-E\n")
    for path, message in (("x.xyz", "tells no kind"), ("none.pdb", "no such file"), ("gap.fasta", "'-' at place 3")):
        with pytest.raises(InputError, match=message):
            records.read_proteins(tmp_path / path)
    with pytest.raises(InputError, match=r"another sequence than entry P1 \(20\)"):
        records.read_proteins(swissprot, {"P1": example("ubiquitin")})

"""Proteins from the files that users have: sequences, structures, UniProt entries, stored embeddings.

Everything becomes `featurize.Record`. What a file does not tell is missing, and masked by the network: a FASTA file has
no backbone, a structure no GO terms. A record whose parts do not fit each other is refused as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.residues import BACKBONE
from jaxprot.core.structure import Structure
from jaxprot.io.obo import Ontology
from jaxprot.io.uniprot import UniProtRecord
from jaxprot.massa.embedders import Embedder, Precomputed, check_letters, windowed
from jaxprot.massa.featurize import IGNORE, Record

_log = logging.getLogger(__name__)
FASTA = (".fasta", ".fa", ".faa", ".seq")
STRUCTURES = (".pdb", ".cif", ".ent", ".mmcif")
UNIPROT = (".dat", ".txt")
GO_DIM = 64
_KINDS = {"MOTIF": "motif", "DOMAIN": "domain", "REGION": "region"}


@dataclasses.dataclass(frozen=True, eq=False)
class Protein:
    """What a file tells of a protein.

    Attributes:
      name: for messages and outputs.
      sequence: letters.
      coords: (L, 4, 3) N, CA, C and O in Å, NaN where missing; None without structure.
      entry: of UniProt; None if the file is none of its.
    """

    name: str
    sequence: str
    coords: np.ndarray | None = None
    entry: UniProtRecord | None = None


def suffix(path: str | os.PathLike) -> str:
    """Suffix of a file, without `.gz`, in lower case."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_proteins(
    path: str | os.PathLike,
    structures: Mapping[str, str | os.PathLike] | None = None,
    failed: dict[str, str] | None = None,
) -> list[Protein]:
    """Proteins of a FASTA file, a structure (one for each chain) or a UniProt flat file.

    Args:
      path: the file; the suffix tells its kind.
      structures: file of each accession of UniProt entries that has one, such as those of AlphaFold DB.
      failed: takes the reason of each FASTA record or entry that cannot be used, which is then left out as a whole;
        without it the first such is an error.

    Raises:
      InputError: unknown suffix, a damaged file, or a record of letters that stand for no residue, or with a structure
        of another sequence.
    """
    path, kind = Path(path), suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if kind in FASTA:
        from jaxprot.io.sequences import read_fasta

        records = read_fasta(path, alphabet=None, empty=True)  # empty ones are told one by one, as wrong letters are
        read = ((one.id or f"{path.stem}_{i}", one.sequence) for i, one in enumerate(records, 1))
        return kept(
            ((f"{path}, {name}", functools.partial(_of_fasta, name, text, path)) for name, text in read), failed
        )
    if kind in STRUCTURES:
        from jaxprot.io.structures import read_structure

        found = list(of_structure(read_structure(path)))
        if not found:
            raise InputError(f"{path}: no protein chain with CA atoms")
        return found
    if kind in UNIPROT:
        from jaxprot.io.uniprot import read_uniprot

        models = structures or {}
        return kept(
            ((f"{path}, {entry.accession}", functools.partial(_of_entry, entry, path, models.get(entry.accession)))
             for entry in read_uniprot(path)), failed,
        )  # fmt: skip
    known = ", ".join((*FASTA, *STRUCTURES, *UNIPROT))
    raise InputError(f"{path}: the suffix tells no kind of file; known are {known} (also with .gz)")


def kept(makers: Iterable[tuple[str, Callable[[], Protein]]], failed: dict[str, str] | None) -> list[Protein]:
    """Proteins of their makers, without those that raise.

    Args:
      makers: a name for messages, and what makes the protein.
      failed: takes the reasons of those that raise; without it the first such is an error.
    """
    out = []
    for name, make in makers:
        try:
            out.append(make())
        except InputError as error:
            if failed is None:
                raise
            note(failed, name, str(error))
    return out


def note(failed: dict[str, str], name: str, reason: str) -> None:
    """Adds a reason, under a number if another of this name is there already."""
    place = sum(key == name or key.startswith(f"{name} (") for key in failed)
    failed[f"{name} ({place + 1})" if place else name] = reason


def _of_fasta(name: str, sequence: str, path: Path) -> Protein:
    return Protein(name, check_letters(sequence, f"{path}, {name}"))


def of_structure(structure: Structure) -> Iterator[Protein]:
    """Protein chains of a structure: residues that are there, missing atoms as NaN.

    A chain of which no residue has N, CA, C and O, such as a trace of CA atoms, is read as a sequence.
    """
    structure = structure.first_model().first_altlocs()
    for number, chain in enumerate(structure.chain_id):
        alpha = (structure.atom_name == "CA") & (structure.element == "C")
        rows = structure.atom_residue[alpha]
        rows = np.unique(rows[structure.res_chain[rows] == number])
        if not len(rows):
            continue
        place = np.full(structure.n_residues, -1)
        place[rows] = np.arange(len(rows))
        coords = np.full((len(rows), 4, 3), np.nan, np.float32)
        for column, name in enumerate(BACKBONE):
            atoms = (structure.atom_name == name) & (place[structure.atom_residue] >= 0)
            coords[place[structure.atom_residue[atoms]], column] = structure.xyz[atoms]
        letters = "".join(structure.letters[rows]).replace("-", "X")
        name, whole = f"{structure.name}_{chain}" if chain else structure.name, np.isfinite(coords).all((1, 2))
        if not whole.any():
            _log.warning("%s: no residue has all of N, CA, C and O; read as a sequence", name)
        elif 2 * whole.sum() < len(whole):
            _log.warning("%s: %d of %d residues lack atoms of the backbone", name, (~whole).sum(), len(whole))
        yield Protein(name, letters, coords if whole.any() else None)


def _of_entry(entry: UniProtRecord, path: Path, structure: str | os.PathLike | None) -> Protein:
    sequence = check_letters(entry.sequence, f"{path}, {entry.accession}")
    if structure is None:
        return Protein(entry.accession, sequence, None, entry)
    (found, *_) = read_proteins(structure)
    if found.sequence != sequence:
        raise InputError(
            f"{structure}: its first chain has {len(found.sequence)} residues of another sequence than entry "
            f"{entry.accession} ({len(sequence)}); leave the structure out"
        )
    return Protein(entry.accession, sequence, found.coords, entry)


def term_vectors(terms: Iterable[str], ontology: Ontology, dim: int = GO_DIM) -> dict[str, np.ndarray]:
    """A vector for each GO term: terms that share ancestors are alike.

    The published vectors came from an encoder that is not told. Here each term of the ontology has a random direction
    that its identifier alone decides, and a term's vector is the sum of those of its ancestors and itself, weighted by
    how few terms are below each, of length 1. So a vector does not depend on which other terms are asked for.

    Args:
      terms: identifiers; those that the ontology does not have are left out.
      ontology: with their ancestors.
      dim: channels.
    """
    out = {}
    for term in dict.fromkeys(terms):
        term = ontology.alternates.get(term, term)
        if term in ontology.names:
            out[term] = _vector(ontology, term, dim)
    return out


def _below(ontology: Ontology) -> dict[str, int]:
    """How many terms are below each, itself included; kept with the ontology, as all of its terms are gone through."""
    below = ontology.__dict__.get("_massa_below")
    if below is None:
        below = dict.fromkeys(ontology.names, 0)
        for term in ontology.names:
            for one in ontology.ancestors([term]):
                below[one] += 1
        object.__setattr__(ontology, "_massa_below", below)
        object.__setattr__(ontology, "_massa_vectors", {})
    return below


def _vector(ontology: Ontology, term: str, dim: int) -> np.ndarray:
    below = _below(ontology)
    known: dict[tuple[str, int], np.ndarray] = ontology.__dict__["_massa_vectors"]
    if (term, dim) not in known:
        lineage = ontology.ancestors([term])
        rare = [np.log(len(below) / below[one]) + 1e-3 for one in lineage]
        vector = np.sum([r * _direction(one, dim) for r, one in zip(rare, lineage, strict=True)], 0)
        made = (vector / np.linalg.norm(vector)).astype(np.float32)
        made.setflags(write=False)
        known[term, dim] = made
    return known[term, dim]


def _direction(term: str, dim: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(term.encode())).normal(size=dim)


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes of annotations, in the order of their heads.

    Attributes:
      go: identifiers of GO terms.
      motif, domain, region: names of features; class 0 is outside of any, so the first name is class 1.
    """

    go: tuple[str, ...] = ()
    motif: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    region: tuple[str, ...] = ()

    @staticmethod
    def of(proteins: Iterable[Protein], ontology: Ontology | None = None) -> Vocabulary:
        """All that occur in proteins, in alphabetical order; GO terms with their ancestors."""
        names: dict[str, set[str]] = {"go": set(), "motif": set(), "domain": set(), "region": set()}
        for protein in proteins:
            if protein.entry is not None:
                if ontology is not None:
                    names["go"] |= set(ontology.ancestors(protein.entry.go))
                for feature in protein.entry.features:
                    names[_KINDS[feature.kind]].add(feature.name)
        return Vocabulary(*(tuple(sorted(names[key])) for key in ("go", "motif", "domain", "region")))

    @property
    def classes(self) -> dict[str, int]:
        """Number of classes of each head."""
        return {"go_classes": len(self.go)} | {
            f"{kind}_classes": len(getattr(self, kind)) + 1 for kind in ("motif", "domain", "region")
        }


def labels_of(protein: Protein, vocabulary: Vocabulary, terms: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Classes of a protein's residues and terms; nothing for what has no entry, as absence is not known there.

    Args:
      protein: with its entry.
      vocabulary: of the heads; what it does not have is not told.
      terms: GO terms in the order of the record.
    """
    if protein.entry is None:
        return {}
    out = {}
    for kind in ("motif", "domain", "region"):
        number = {name: i for i, name in enumerate(getattr(vocabulary, kind), 1)}
        values = np.zeros(len(protein.sequence), np.int32)
        for feature in protein.entry.features:
            if _KINDS[feature.kind] == kind:
                values[feature.start : feature.stop] = number.get(feature.name, IGNORE)
        out[kind] = values
    number = {term: i for i, term in enumerate(vocabulary.go)}
    out["go"] = np.array([number.get(term, IGNORE) for term in terms], np.int32)
    return out


def to_records(
    proteins: Sequence[Protein],
    embedder: Embedder,
    *,
    ontology: Ontology | None = None,
    vocabulary: Vocabulary | None = None,
    go_dim: int = GO_DIM,
    **windows: Any,
) -> list[Record]:
    """Inputs of the network.

    Args:
      proteins: of `read_proteins`.
      embedder: of their sequences; stored embeddings are found by name.
      ontology: for the ancestors and vectors of GO terms; without it terms are missing.
      vocabulary: of labels; None for no labels.
      go_dim: channels of a term.
      **windows: `overlap` of windows for sequences beyond the embedder's length (32).

    Raises:
      InputError: an embedding of another length than its sequence.
    """
    if isinstance(embedder, Precomputed):
        embedded = [embedder.of(protein.name) for protein in proteins]
    elif embedder.max_len is None:
        embedded = embedder.embed([protein.sequence for protein in proteins])
    else:
        sequences = [protein.sequence for protein in proteins]
        embedded = windowed(embedder.embed, sequences, embedder.max_len, windows.get("overlap", 32))
    annotated = {t for p in proteins if p.entry is not None for t in p.entry.go}
    vectors = {}
    if ontology is not None:
        vectors = term_vectors(ontology.ancestors(annotated), ontology, go_dim)
    out = []
    for protein, rows in zip(proteins, embedded, strict=True):
        if len(rows) != len(protein.sequence):
            raise InputError(
                f"{protein.name}: {len(rows)} rows of the embedding for {len(protein.sequence)} residues; leave the "
                "protein out, or embed it again"
            )
        terms: list[str] = []
        if ontology is not None and protein.entry is not None:
            terms = ontology.ancestors(protein.entry.go)
        go = np.stack([vectors[term] for term in terms]) if terms else None
        labels = labels_of(protein, vocabulary, terms) if vocabulary is not None else {}
        if "go" in labels and go is None:
            del labels["go"]
        out.append(Record(protein.name, protein.sequence, rows, protein.coords, go, labels))
    return out

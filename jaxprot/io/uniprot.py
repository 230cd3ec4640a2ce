"""UniProt / Swiss-Prot flat files: sequences with their GO terms and features, read by Biopython."""

from __future__ import annotations

import dataclasses
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from jaxprot.core.errors import InputError

KINDS = ("MOTIF", "DOMAIN", "REGION")


@dataclasses.dataclass(frozen=True)
class Feature:
    """A named stretch of a sequence.

    Attributes:
      kind: `MOTIF`, `DOMAIN` or `REGION`.
      name: of the file's note, without a number of a repeat (`EF-hand 2` is `EF-hand`).
      start: first residue, from 0.
      stop: behind the last residue.
    """

    kind: str
    name: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class UniProtRecord:
    """An entry.

    Attributes:
      accession: the primary one.
      name: entry name (`LYSC_CHICK`).
      sequence: letters.
      go: identifiers of GO terms (`GO:0003796`), as annotated, without ancestors.
      features: stretches with known borders.
      pdb: identifiers of structures (`1ABC`).
    """

    accession: str
    name: str
    sequence: str
    go: tuple[str, ...]
    features: tuple[Feature, ...]
    pdb: tuple[str, ...]


def read_uniprot(path: str | os.PathLike) -> Iterator[UniProtRecord]:
    """Entries of a flat file (`.dat` or `.txt`, also `.gz`), one at a time.

    Raises:
      InputError: no such file, or an entry that cannot be read, with its place in the file.
    """
    from Bio import SwissProt

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    number = 0
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as handle:
            for entry in SwissProt.parse(handle):
                number += 1
                yield _record(entry)
    except (ValueError, KeyError, IndexError, AttributeError, AssertionError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: read as a UniProt flat file, but entry {number + 1} is none: {error}") from error
    if not number:
        raise InputError(f"{path}: no UniProt entries; a flat file begins with a line 'ID'")


def _record(entry) -> UniProtRecord:
    go = tuple(dict.fromkeys(row[1] for row in entry.cross_references if row[0] == "GO"))
    pdb = tuple(dict.fromkeys(row[1] for row in entry.cross_references if row[0] == "PDB"))
    features = []
    for one in entry.features:
        if one.type not in KINDS:
            continue
        try:
            start, stop = int(one.location.start), int(one.location.end)
        except (TypeError, ValueError):  # unknown borders
            continue
        name = _without_number(str(one.qualifiers.get("note", one.type)).rstrip("."))
        if 0 <= start < stop <= len(entry.sequence):
            features.append(Feature(one.type, name, start, stop))
    return UniProtRecord(entry.accessions[0], entry.entry_name, entry.sequence, go, tuple(features), pdb)


def _without_number(name: str) -> str:
    """The name of a domain without its count within the protein."""
    first = name.split(";")[0].strip()
    head, _, last = first.rpartition(" ")
    return head if head and last.isdigit() else first

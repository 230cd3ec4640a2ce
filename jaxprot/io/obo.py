"""Ontologies in OBO files: the Gene Ontology and others of its form."""

from __future__ import annotations

import dataclasses
import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from jaxprot.core.errors import InputError

RELATIONS = ("is_a", "part_of")


@dataclasses.dataclass(frozen=True)
class Ontology:
    """Terms and what they are kinds or parts of.

    Attributes:
      name: of the file.
      names: text of each term, by identifier, in the order of the file; obsolete ones are left out.
      parents: identifiers of each term's parents.
      alternates: identifiers that were merged into others.
    """

    name: str
    names: dict[str, str]
    parents: dict[str, tuple[str, ...]]
    alternates: dict[str, str]

    def ancestors(self, terms: Iterable[str]) -> list[str]:
        """The terms themselves and all above them, in the order of the file.

        Identifiers that the ontology does not have (obsolete ones, for example) are left out.
        """
        found: set[str] = set()
        stack = [self.alternates.get(term, term) for term in terms]
        while stack:
            term = stack.pop()
            if term in self.names and term not in found:
                found.add(term)
                stack += self.parents[term]
        order = self._order()
        return sorted(found, key=order.__getitem__)

    def _order(self) -> dict[str, int]:
        order = self.__dict__.get("_places")
        if order is None:
            order = {term: place for place, term in enumerate(self.names)}
            object.__setattr__(self, "_places", order)
        return order


def read_obo(path: str | os.PathLike, relations: Iterable[str] = RELATIONS) -> Ontology:
    """Reads an OBO file (`go-basic.obo`, also `.gz`).

    Args:
      path: the file.
      relations: that lead from a term to its parents.

    Raises:
      InputError: no such file, no terms, a parent that is no term, or terms that are their own ancestors.
    """
    path, wanted = Path(path), set(relations)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    names: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    alternates: dict[str, str] = {}
    for stanza in text.split("\n[")[1:]:
        kind, _, body = stanza.partition("]")
        if kind != "Term":
            continue
        tags = [line.split(" ! ")[0].split(": ", 1) for line in body.splitlines() if ": " in line]
        values: dict[str, list[str]] = {}
        for tag, value in tags:
            values.setdefault(tag, []).append(value.strip())
        if "id" not in values:
            raise InputError(f"{path}: a term without an id")
        if values.get("is_obsolete") == ["true"]:
            continue
        term = values["id"][0]
        above = list(values.get("is_a", ())) if "is_a" in wanted else []
        above += [v.split()[1] for v in values.get("relationship", ()) if v.split()[0] in wanted and len(v.split()) > 1]
        names[term] = values.get("name", [term])[0]
        parents[term] = tuple(dict.fromkeys(one.split(" {")[0] for one in above))
        alternates |= dict.fromkeys(values.get("alt_id", ()), term)
    if not names:
        raise InputError(f"{path}: no terms; an OBO file has stanzas that begin with [Term]")
    _check(path, parents)
    return Ontology(path.name, names, parents, alternates)


def _check(path: Path, parents: dict[str, tuple[str, ...]]) -> None:
    """Raises where a parent is unknown, or a term is above itself."""
    waiting: dict[str, int] = {}
    children: dict[str, list[str]] = {}
    for term, above in parents.items():
        waiting[term] = len(above)
        for one in above:
            if one not in parents:
                raise InputError(f"{path}: {term} is below {one}, which is no term of the file (or an obsolete one)")
            children.setdefault(one, []).append(term)
    ready, done = [term for term, count in waiting.items() if not count], 0
    while ready:
        done += 1
        for child in children.get(ready.pop(), ()):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    if done < len(parents):
        stuck = next(term for term, count in waiting.items() if count)
        raise InputError(f"{path}: {stuck} is above itself")

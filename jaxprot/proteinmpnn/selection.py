"""Residues named by author numbers: `A:1-10,15,52A B:3`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxprot.core.errors import InputError
from jaxprot.proteinmpnn.featurize import BackboneChain

_ITEM = re.compile(r"(-?\d{1,6})([A-Za-z]?)(?:-(-?\d{1,6})([A-Za-z]?))?")
_FORM = "write A:1-10,15 B:52A (chain, author numbers of the file)"


def parse_selection(text: str) -> dict[str, list[tuple[tuple[int, str], tuple[int, str] | None]]]:
    """Chain -> list of (first residue, last residue or None), each a number and an insertion code.

    Raises:
      InputError: the text is no selection.
    """
    out: dict[str, list] = {}
    for part in re.split(r"[\s;]+", text.strip()):
        chain, colon, numbers = part.rpartition(":")
        if not colon or not chain or not numbers:
            raise InputError(f"{text!r} names no residues; {_FORM}")
        for item in filter(None, numbers.split(",")):
            match = _ITEM.fullmatch(item)
            if match is None:
                raise InputError(f"{text!r}: {item!r} is no residue number; {_FORM}")
            first = int(match[1]), match[2]
            out.setdefault(chain, []).append((first, None if match[3] is None else (int(match[3]), match[4])))
    return out


def positions(text: str, chains: Sequence[BackboneChain], name: str = "structure") -> dict[str, list[int]]:
    """1-based gap-filled positions, as the design inputs take them, of residues named by author numbers.

    A range takes what the chain has between its ends, insertion codes included, and must hold at least one residue; a
    single residue must be there.

    Args:
      text: such as `A:1-10,15 B:52A`.
      chains: parsed chains.
      name: of the structure, for messages.

    Raises:
      InputError: no such chain or residue.
    """
    known = {chain.id: chain for chain in chains}
    out: dict[str, list[int]] = {}
    for chain_id, items in parse_selection(text).items():
        if chain_id not in known:
            raise InputError(f"{name}: no chain {chain_id!r} (in {text!r}); chains: {', '.join(known)}")
        chain = known[chain_id]
        found: set[int] = set()
        for first, last in items:
            if last is None:
                try:
                    found.add(chain.index(*first) + 1)
                except InputError as error:
                    raise InputError(f"{name}: {error}") from None
                continue
            # A bound without insertion code takes all residues of its number.
            low = (first[0], first[1])
            high = (last[0], last[1] or "~")
            rows = [
                i + 1
                for i, (number, code, present) in enumerate(zip(chain.resid, chain.icode, chain.present, strict=True))
                if present and low <= (int(number), str(code)) <= high
            ]
            if not rows:
                raise InputError(
                    f"{name}: chain {chain_id!r} has no residues {first[0]}{first[1]} to {last[0]}{last[1]}"
                )
            found.update(rows)
        out[chain_id] = sorted(found)
    return out


def merged(*parts: Mapping[str, Any] | None) -> dict[str, list[int]]:
    """Union of positions by chain."""
    out: dict[str, set[int]] = {}
    for part in parts:
        for chain, rows in (part or {}).items():
            out.setdefault(chain, set()).update(rows)
    return {chain: sorted(rows) for chain, rows in out.items()}

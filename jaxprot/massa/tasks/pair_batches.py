"""Padded batches of pairs: proteins with molecules, or with second proteins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxprot.core.buckets import bucket_length, pad_to
from jaxprot.massa.data import LENGTHS
from jaxprot.massa.embedders import PhysicoChemical
from jaxprot.massa.ligand import Ligand

STRIDE = 1 << 16
"""A batch's shape in one number: residues times this, plus the molecule's size."""
_SIZES = (32, 64, 128, 256)  # padded atoms and bonds of molecules


class Chain(NamedTuple):
    """Padded sequences: (b, n, e) rows of the embedder, and (b, n) which residues exist."""

    seq: Any
    mask: Any


class Paired(NamedTuple):
    """Padded pairs and their labels.

    Attributes:
      chain: proteins.
      partner: molecules, or second proteins padded as far as the first.
      label: (b,) classes, or numbers as the head gives them.
    """

    chain: Chain
    partner: Chain | Ligand
    label: Any


def _size(ligand: Ligand) -> int:
    return bucket_length(max(len(ligand.atoms), len(ligand.bonds)), _SIZES)


def shape_of(sequence: str, partner: str, ligands: dict[str, Ligand], longest: int) -> int:
    """Shape of a pair, padded, in one number."""
    n = min(len(sequence), longest)
    if ligands:
        return bucket_length(n, LENGTHS) * STRIDE + _size(ligands[partner])
    return bucket_length(max(n, min(len(partner), longest)), LENGTHS) * STRIDE


def items_of(code: int, ligands: bool) -> int:
    """Padded residues and atoms of a pair of a shape."""
    length, size = divmod(code, STRIDE)
    return length + size if ligands else 2 * length


def inputs_of(
    sequences: Sequence[str], partners: Sequence[str], ligands: dict[str, Ligand], code: int, longest: int
) -> tuple[Chain, Chain | Ligand]:
    """Padded pairs of one shape, see `shape_of`; of longer sequences `longest` residues are read."""
    length, size = divmod(code, STRIDE)

    def chain(texts: Sequence[str]) -> Chain:
        rows = PhysicoChemical().embed([text[:longest] for text in texts])
        mask = [pad_to(np.ones(len(one), bool), length) for one in rows]
        return Chain(np.stack([pad_to(one, length) for one in rows]), np.stack(mask))

    if not ligands:
        return chain(sequences), chain(partners)
    fields = zip(*(ligands[text] for text in partners), strict=True)
    return chain(sequences), Ligand(*(np.stack([pad_to(one, size) for one in field]) for field in fields))


def run(
    apply: Callable[[Chain, Chain | Ligand], Array],
    sequences: Sequence[str],
    partners: Sequence[str],
    ligands: dict[str, Ligand],
    *,
    items: int = 4096,
    longest: int = 1022,
) -> np.ndarray:
    """Outputs of pairs, in their order, computed in batches of like shape.

    Args:
      apply: outputs of proteins and partners.
      sequences: of proteins.
      partners: SMILES strings, or sequences.
      ligands: features of the molecules; empty for two proteins.
      items: padded residues and atoms of a batch.
      longest: residues; of longer sequences so many first ones are read.
    """
    codes = np.array([shape_of(*pair, ligands, longest) for pair in zip(sequences, partners, strict=True)])
    out: list[Any] = [None] * len(codes)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        size = max(1, min(64, items // items_of(int(code), bool(ligands))))
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            full = np.resize(chosen, size)  # one shape, one program
            batch = inputs_of([sequences[i] for i in full], [partners[i] for i in full], ligands, int(code), longest)
            for row, one in zip(chosen, np.asarray(apply(*batch)), strict=False):
                out[row] = one
    return np.stack(out)

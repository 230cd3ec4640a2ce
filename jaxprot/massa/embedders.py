"""What turns a sequence into one row of numbers per residue: the inputs of MASSA, and features for any other model.

An embedder has a `name`, a number of channels `dim`, a largest length `max_len` (None for any), and `embed`, which
takes sequences and gives an array (L, dim) for each. Longer sequences are embedded in overlapping windows, see
`windowed`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.residues import STANDARD

AMBIGUOUS = {"B": "DN", "Z": "EQ", "J": "IL", "U": "C", "O": "K", "X": STANDARD}
"""Letters that stand for one of several residues, or for a rare one, and whose mean they are taken as."""

# Kyte & Doolittle, J. Mol. Biol. 157:105 (1982): hydropathy. Zamyatnin, Prog. Biophys. Mol. Biol. 24:107 (1972): volume
# in Å³. Grantham, Science 185:862 (1974): polarity. Charge at pH 7; aromatic ring; side chain branched at its beta
# carbon; donors and acceptors of hydrogen bonds in the side chain.
_PROPERTIES = {
    "A": (1.8, 88.6, 8.1, 0.0, 0, 0, 0, 0), "C": (2.5, 108.5, 5.5, 0.0, 0, 0, 0, 0),
    "D": (-3.5, 111.1, 13.0, -1.0, 0, 0, 0, 2), "E": (-3.5, 138.4, 12.3, -1.0, 0, 0, 0, 2),
    "F": (2.8, 189.9, 5.2, 0.0, 1, 0, 0, 0), "G": (-0.4, 60.1, 9.0, 0.0, 0, 0, 0, 0),
    "H": (-3.2, 153.2, 10.4, 0.1, 1, 0, 1, 1), "I": (4.5, 166.7, 5.2, 0.0, 0, 1, 0, 0),
    "K": (-3.9, 168.6, 11.3, 1.0, 0, 0, 1, 0), "L": (3.8, 166.7, 4.9, 0.0, 0, 0, 0, 0),
    "M": (1.9, 162.9, 5.7, 0.0, 0, 0, 0, 0), "N": (-3.5, 114.1, 11.6, 0.0, 0, 0, 1, 1),
    "P": (-1.6, 112.7, 8.0, 0.0, 0, 0, 0, 0), "Q": (-3.5, 143.8, 10.5, 0.0, 0, 0, 1, 1),
    "R": (-4.5, 173.4, 10.5, 1.0, 0, 0, 3, 0), "S": (-0.8, 89.0, 9.2, 0.0, 0, 0, 1, 1),
    "T": (-0.7, 116.1, 8.6, 0.0, 0, 1, 1, 1), "V": (4.2, 140.0, 5.9, 0.0, 0, 1, 0, 0),
    "W": (-0.9, 227.8, 5.4, 0.0, 1, 0, 1, 0), "Y": (-1.3, 193.6, 6.2, 0.0, 1, 0, 1, 1),
}  # fmt: skip


@runtime_checkable
class Embedder(Protocol):
    """See the head of this module."""

    name: str
    dim: int
    max_len: int | None

    def embed(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """(L, dim) float32 of each sequence."""
        ...


def check_letters(sequence: str, name: str = "sequence") -> str:
    """The sequence in upper case.

    Raises:
      InputError: it is empty, or holds a letter that stands for no residue, with its place.
    """
    upper = sequence.upper()
    if not upper:
        raise InputError(f"{name}: an empty sequence")
    for place, letter in enumerate(upper, 1):
        if letter not in STANDARD and letter not in AMBIGUOUS:
            raise InputError(f"{name}: {letter!r} at place {place} stands for no residue; remove gaps and stops")
    return upper


@functools.cache
def _table() -> np.ndarray:
    """(26, 49) rows of the letters A to Z."""
    from Bio.Align import substitution_matrices

    matrix = substitution_matrices.load("BLOSUM62")
    blosum = np.array([[matrix[a][b] for b in STANDARD] for a in STANDARD], np.float64) / 4
    properties = np.array([_PROPERTIES[letter] for letter in STANDARD], np.float64)
    properties = (properties - properties.mean(0)) / properties.std(0)
    rows = np.concatenate([np.eye(20), np.zeros((20, 1)), properties, blosum], 1)
    table = np.full((26, rows.shape[1]), np.nan)
    for i, letter in enumerate(STANDARD):
        table[ord(letter) - 65] = rows[i]
    for letter, stands in AMBIGUOUS.items():
        mean = rows[[STANDARD.index(one) for one in stands]].mean(0)
        mean[20] = letter == "X"
        table[ord(letter) - 65] = mean
    table.setflags(write=False)
    return table


class PhysicoChemical:
    """One-hot letters, physico-chemical properties and rows of BLOSUM62: no training, any length.

    Channels: 20 letters and one for X; 8 properties (hydropathy, volume, polarity, charge, aromatic, branched, donors,
    acceptors), each with mean 0 and deviation 1 over the letters; 20 of BLOSUM62 over 4. B, Z, J and X are the mean of
    what they stand for, U is C and O is K.
    """

    name = "physchem"
    dim = 49
    max_len = None

    def embed(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """(L, 49) float32 of each sequence."""
        table, out = _table(), []
        for sequence in sequences:
            letters = np.frombuffer(check_letters(sequence).encode(), np.uint8) - 65
            out.append(table[letters].astype(np.float32))
        return out


class Precomputed:
    """Embeddings that were made before, found by name.

    Args:
      source: a folder with one `.npy` (L, dim) per name, an `.npz` with one array per name, or a mapping.

    Raises:
      InputError: nothing there, or arrays of different widths.
    """

    max_len = None

    def __init__(self, source: str | os.PathLike | Any):
        self._read: Callable[[str], np.ndarray]
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            self.name = f"precomputed:{path.name}"
            if path.is_dir():
                files = {one.stem: one for one in sorted(path.glob("*.npy"))}
                self.names, self._read = list(files), lambda name: np.load(files[name], allow_pickle=False)
            elif path.is_file():
                try:
                    stored = np.load(path, allow_pickle=False)
                    self.names = list(stored.files)
                except (ValueError, OSError, AttributeError) as error:
                    raise InputError(f"{path}: no .npz file of arrays: {error}") from error
                self._read = stored.__getitem__
            else:
                raise InputError(f"{path}: no such file or folder")
        else:
            self.name, self.names, self._read = "precomputed", list(source), source.__getitem__
        if not self.names:
            raise InputError(f"{self.name}: no embeddings; one array (L, dim) for each protein, named as the protein")
        self.dim = int(np.shape(self.of(self.names[0]))[-1])

    def of(self, name: str) -> np.ndarray:
        """(L, dim) float32 of a protein.

        Raises:
          InputError: none of that name, or one of another form.
        """
        if name not in self.names:
            raise InputError(f"{self.name}: no embedding of {name!r}")
        array = np.asarray(self._read(name), np.float32)
        if array.ndim != 2 or array.shape[1] != getattr(self, "dim", array.shape[1]):
            raise InputError(f"{self.name}: the embedding of {name!r} is {array.shape}, expected (L, {self.dim})")
        return array

    def embed(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """Refuses: a stored embedding is found by the name of its protein, see `of`."""
        raise InputError(f"{self.name}: stored embeddings belong to names, and these are sequences")


def windows(n: int, longest: int, overlap: int) -> tuple[list[int], list[int]]:
    """Where windows begin, and where their shares of the whole are cut.

    Windows are of equal spacing, the last one at the end. Where two overlap, each residue belongs to the one in which
    it lies farther from a cut.

    Args:
      n: residues.
      longest: residues of a window.
      overlap: of neighbouring windows, below `longest`.

    Returns:
      First residues of the windows, and the borders of their shares, one more, from 0 to `n`.
    """
    if not 0 <= overlap < longest:
        raise ValueError(f"overlap {overlap}: from 0 to below {longest}")
    count = 1 if n <= longest else -(-(n - overlap) // (longest - overlap))
    begin = [round(i * (n - longest) / (count - 1)) for i in range(count)] if count > 1 else [0]
    return begin, [0, *((a + longest + b) // 2 for a, b in zip(begin[:-1], begin[1:], strict=True)), n]


def joined(parts: Sequence[np.ndarray], begin: Sequence[int], borders: Sequence[int]) -> np.ndarray:
    """Rows of the whole from those of its windows; see `windows`."""
    rows = [part[borders[i] - a : borders[i + 1] - a] for i, (a, part) in enumerate(zip(begin, parts, strict=True))]
    return np.concatenate(rows) if len(rows) > 1 else rows[0]


def windowed(
    embed: Callable[[list[str]], Iterable[np.ndarray]], sequences: Sequence[str], longest: int, overlap: int
) -> list[np.ndarray]:
    """Embeds sequences beyond a model's length in windows.

    Args:
      embed: arrays (L, dim) of sequences up to `longest`.
      sequences: of any length.
      longest: residues of a window.
      overlap: of neighbouring windows, below `longest`.
    """
    plans = [windows(len(sequence), longest, overlap) for sequence in sequences]
    pieces = [s[a : a + longest] for s, (begin, _) in zip(sequences, plans, strict=True) for a in begin]
    found = iter(embed(pieces))
    return [joined([next(found) for _ in begin], begin, borders) for begin, borders in plans]

"""Letters to the numbers that ESM-2 reads."""

from __future__ import annotations

import numpy as np

from jaxprot.core.buckets import DEFAULT, bucket_length, pad_to
from jaxprot.core.errors import InputError

CLS, PAD, EOS, UNK = 0, 1, 2, 3
MASK = 32
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
"""Letters of numbers 4 to 30."""
VOCABULARY = 33
_NUMBER = np.full(128, -1, np.int32)
for _place, _letter in enumerate(LETTERS):
    _NUMBER[ord(_letter)] = 4 + _place
_NUMBER[ord("J")] = UNK  # leucine or isoleucine, which the vocabulary lacks
_NUMBER[ord("*")] = UNK  # a stop


def encode(sequence: str, name: str = "sequence") -> np.ndarray:
    """Numbers of one sequence, between the marks of start and end.

    Args:
      sequence: letters, also small ones; B, O, U, X and Z have numbers of their own, J and * are unknown. `<mask>`
        stands for one hidden residue. White space is left out.
      name: for messages.

    Returns:
      (n + 2,) int32.

    Raises:
      InputError: an empty sequence, or other characters.
    """
    parts = ["".join(part.split()).upper() for part in sequence.split("<mask>")]
    codes: list[np.ndarray] = []
    for place, part in enumerate(parts):
        if place:
            codes.append(np.array([MASK], np.int32))
        points = np.array([min(ord(letter), 127) for letter in part], int)
        found = _NUMBER[points]
        if (found < 0).any():
            first = int(np.flatnonzero(found < 0)[0])
            raise InputError(f"{name}: {part[first]!r} is no letter of a protein; write X for an unknown residue")
        codes.append(found)
    inner = np.concatenate(codes)
    if not len(inner):
        raise InputError(f"{name}: an empty sequence")
    return np.concatenate([[CLS], inner, [EOS]]).astype(np.int32)


def pad(tokens: np.ndarray, sizes: tuple[int, ...] = DEFAULT) -> np.ndarray:
    """Tokens with padding up to the next bucket."""
    return pad_to(tokens, bucket_length(len(tokens), sizes), PAD)

"""From atoms to padded molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import InputError
from jaxprot.visnet.neighbours import Molecules

SIZES = (*range(4, 101, 8), *range(112, 257, 16), *range(288, 513, 32), *range(576, 1025, 64))
"""Padded numbers of atoms. Each is a program to compile, and padding costs by its square; 12, 20, 28, 36 and 44 hold
the fragments of proteins with few atoms to spare."""
_NEAR = 0.1  # Å
DENSE = 48
"""Up to how many atoms all pairs are computed; beyond, a table of neighbours is faster."""


def check(z: np.ndarray, positions: np.ndarray, max_z: int, name: str = "molecule") -> None:
    """Refuses what no energy can be given for.

    Raises:
      InputError: names the atom and what is wrong with it.
    """
    from scipy.spatial import cKDTree

    if z.ndim != 1 or len(z) == 0 or positions.shape != (len(z), 3):
        raise InputError(
            f"{name}: needs atomic numbers (n,) and positions (n, 3) with n > 0, got {z.shape} and {positions.shape}"
        )
    if z.dtype.kind not in "iu":
        raise InputError(f"{name}: atomic numbers are whole numbers, got {z.dtype}")
    wrong = np.nonzero((z < 1) | (z >= max_z))[0]
    if len(wrong):
        raise InputError(
            f"{name}: atom {wrong[0]} has the atomic number {z[wrong[0]]}; these weights know 1 to {max_z - 1}"
        )
    wrong = np.nonzero(~np.isfinite(positions).all(1))[0]
    if len(wrong):
        raise InputError(f"{name}: atom {wrong[0]} has no finite coordinates ({len(wrong)} such atoms)")
    near = cKDTree(positions).query_pairs(_NEAR, output_type="ndarray")
    if len(near):
        i, j = near[0]
        raise InputError(f"{name}: atoms {i} and {j} are less than {_NEAR} Å apart; are coordinates in Å?")


def degrees(positions: np.ndarray, cutoff: float) -> np.ndarray:
    """Atoms within the cutoff (Å) of each atom, itself counted, (n,)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    return tree.query_ball_point(positions, np.nextafter(cutoff, 0), return_length=True)


def pad(molecules: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Molecules:
    """Atomic numbers and positions (Å) of molecules of at most `size` atoms, one under the other."""
    z = np.zeros((len(molecules), size), np.int32)
    positions = np.zeros((len(molecules), size, 3), np.float32)
    for row, (numbers, places) in enumerate(molecules):
        z[row, : len(numbers)], positions[row, : len(numbers)] = numbers, places
    return Molecules(z, positions)  # type: ignore[arg-type]


def group(counts: Sequence[int], sizes: Sequence[int] = SIZES) -> dict[int, list[int]]:
    """Padded size -> which molecules, from their numbers of atoms."""
    out: dict[int, list[int]] = {}
    for number, count in enumerate(counts):
        out.setdefault(bucket_length(count, tuple(sizes)), []).append(number)
    return dict(sorted(out.items()))

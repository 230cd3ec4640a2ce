"""Angles of chains of points, and atoms in ideal geometry."""

import numpy as np

_NEXT, _LAST = np.array([1, 2, 0]), np.array([2, 0, 1])


def dihedrals(points: np.ndarray) -> np.ndarray:
    """Torsion angles of four points each, in degrees from -180 to 180 (IUPAC sign: clockwise along 2-3 is positive).

    Args:
      points: (..., 4, 3).

    Returns:
      (...) float64; NaN where a point is.
    """
    a, b, c, d = np.moveaxis(np.asarray(points, np.float64), -2, 0)
    first, second = np.cross(b - a, c - b), np.cross(c - b, d - c)
    sine = np.sum((b - a) * second, -1) * np.linalg.norm(c - b, axis=-1)
    return np.degrees(np.arctan2(sine, np.sum(first * second, -1)))


def ideal_beta(n: np.ndarray, ca: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Where CB stands by the other three atoms, (..., 3) in Å; constants of ProteinMPNN (doi 10.1126/science.add2187).

    Args:
      n: (..., 3) Å, of numpy or of JAX, as the others.
      ca: likewise.
      c: likewise.
    """
    b, d = ca - n, c - ca
    across = b[..., _NEXT] * d[..., _LAST] - b[..., _LAST] * d[..., _NEXT]
    return -0.58273431 * across + 0.56802827 * b - 0.54067466 * d + ca

"""Angles of chains of points."""

import numpy as np


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

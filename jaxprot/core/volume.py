"""`Volume`: a density on a grid, with the place of that grid in the world."""

import dataclasses
from collections.abc import Sequence

import numpy as np


def _zeros() -> np.ndarray:
    return np.zeros(3)


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A density map with axes (z, y, x), whatever order the file had, and a grid without skew.

    Voxel (k, j, i) has its centre at `origin + (i, j, k) * voxel`: arrays are indexed z, y, x, positions are x, y, z.

    Attributes:
      data: (z, y, x) float32 densities.
      voxel: (3,) float64 edge lengths of a voxel along x, y, z in Å.
      origin: (3,) float64 position of voxel 0 along x, y, z in Å.
      name: stem of the file, or what the caller called it.
      header_origin: (3,) float64, the ORIGIN words of the file (x, y, z in Å), before anything was added.
      nstart: (3,) int64, the start indices of the file sorted to x, y, z.
    """

    data: np.ndarray
    voxel: np.ndarray
    origin: np.ndarray
    name: str = "map"
    header_origin: np.ndarray = dataclasses.field(default_factory=_zeros)
    nstart: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3, np.int64))

    def __post_init__(self):
        set_ = lambda field, value: object.__setattr__(self, field, value)  # noqa: E731
        set_("data", np.asarray(self.data, np.float32))
        set_("voxel", np.broadcast_to(np.asarray(self.voxel, np.float64), (3,)).copy())
        set_("origin", np.asarray(self.origin, np.float64).copy())
        set_("header_origin", np.asarray(self.header_origin, np.float64).copy())
        set_("nstart", np.asarray(self.nstart, np.int64).copy())
        if self.data.ndim != 3 or 0 in self.data.shape:
            raise ValueError(f"{self.name}: data of shape {self.data.shape}, expected (z, y, x), none of them 0")
        if not (np.isfinite(self.voxel).all() and (self.voxel > 0).all()):
            raise ValueError(f"{self.name}: voxel {self.voxel} Å, expected three positive lengths")
        for field in ("origin", "header_origin", "nstart"):
            if getattr(self, field).shape != (3,) or not np.isfinite(getattr(self, field)).all():
                raise ValueError(f"{self.name}: {field} {getattr(self, field)}, expected three finite numbers")

    def __repr__(self) -> str:
        voxel, origin = (", ".join(f"{value:.4g}" for value in values) for values in (self.voxel, self.origin))
        z, y, x = self.shape
        return f"Volume({self.name!r}, {x} x {y} x {z} voxels of ({voxel}) Å from ({origin}) Å)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.data.shape
        return z, y, x

    @property
    def cell(self) -> np.ndarray:
        """(3,) lengths of the box along x, y, z in Å."""
        return np.array(self.shape[::-1]) * self.voxel

    def to_grid(self, xyz: np.ndarray) -> np.ndarray:
        """Positions to places on the grid.

        Args:
          xyz: (..., 3) in Å.

        Returns:
          (..., 3) float64 fractional indices z, y, x; 0 is the centre of the first voxel. NaN stays NaN.
        """
        return ((np.asarray(xyz, np.float64) - self.origin) / self.voxel)[..., ::-1]

    def to_world(self, index: np.ndarray) -> np.ndarray:
        """Places on the grid to positions.

        Args:
          index: (..., 3) indices z, y, x, whole or fractional.

        Returns:
          (..., 3) float64 x, y, z in Å.
        """
        return np.asarray(index, np.float64)[..., ::-1] * self.voxel + self.origin

    def nearest(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The voxel that each position lies in.

        Args:
          xyz: (N, 3) in Å.

        Returns:
          (N, 3) int64 indices z, y, x, and (N,) bool, True inside the map. Outside it (or at NaN) the index is 0, 0, 0.
        """
        place = self.to_grid(xyz)
        inside = np.all((place >= -0.5) & (place < np.array(self.shape) - 0.5), axis=-1)
        index = np.floor(np.where(inside[..., None], place, 0) + 0.5).astype(np.int64)
        return index, inside

    def with_data(self, data: np.ndarray, name: str | None = None) -> "Volume":
        """Other densities on the same grid; raises `ValueError` if their shape is another."""
        if np.shape(data) != self.data.shape:
            raise ValueError(f"{self.name}: data of shape {np.shape(data)}, the grid has {self.data.shape}")
        return dataclasses.replace(self, data=data, name=self.name if name is None else name)


def grid_around(
    xyz: np.ndarray, spacing: float | Sequence[float] | np.ndarray, padding: float
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The smallest grid that holds some points with a margin.

    Args:
      xyz: (N, 3) in Å; rows that are not finite are left out.
      spacing: distance of grid points in Å, one or one per x, y, z.
      padding: margin on every side in Å.

    Returns:
      (3,) float64 position of the first grid point in Å, and the number of points along z, y, x.

    Raises:
      ValueError: no finite point.
    """
    xyz = np.asarray(xyz, np.float64)
    xyz = xyz[np.isfinite(xyz).all(-1)]
    if len(xyz) == 0:
        raise ValueError("no finite coordinates to lay a grid around")
    low, high = xyz.min(0), xyz.max(0)
    n = np.maximum(np.ceil((high - low + 2 * padding) / np.asarray(spacing, np.float64)), 1).astype(int)
    return low - padding, (int(n[2]), int(n[1]), int(n[0]))

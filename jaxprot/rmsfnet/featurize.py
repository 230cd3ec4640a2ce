"""From a map and a model to the boxes that the network reads (published geometry, specification in the paper's code).

Everything happens on a grid of 1.5 Å. Cores of 10 voxels tile it from voxel 0; each is predicted from the box of 40
voxels around it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy import ndimage

from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume
from jaxprot.rmsfnet.model import BOX, CORE, SPACING

ROTATIONS = 24
_MARGIN = (BOX - CORE) // 2
_MOST_VOXELS = 1 << 30


def resample(volume: Volume, exact: bool = False) -> Volume:
    """The map on the network's grid, by cubic splines.

    As published, the first and last voxels stay where they are and the spacing counts as exactly 1.5 Å; atoms at the
    far end may be up to a voxel from their density. `exact` takes the densities at 1.5 Å instead.

    Raises:
      InputError: the map is thinner than a voxel of 1.5 Å, or would have more than 2³⁰ of them.
    """
    zoom = volume.voxel.astype(np.float32)[::-1] / np.float32(SPACING)  # in the published precision
    shape = np.round(np.array(volume.shape) * zoom.astype(np.float64))
    size = " x ".join(f"{length:.4g}" for length in volume.cell)
    if (shape < 1).any():
        raise InputError(f"{volume.name}: a map of {size} Å is in some direction less than one of 1.5 Å wide")
    if np.prod(shape) > _MOST_VOXELS:
        raise InputError(
            f"{volume.name}: a map of {size} Å has too many voxels of 1.5 Å; cut out the part around the model, or "
            "correct the size of the voxels"
        )
    if np.all(zoom == 1):
        data = volume.data
    elif exact:
        steps = SPACING / volume.voxel.astype(np.float64)[::-1]
        within = np.floor((np.array(volume.shape) - 1) / steps + 1e-6).astype(int) + 1
        data = ndimage.affine_transform(volume.data, steps, output_shape=tuple(within), order=3)
    else:
        data = ndimage.zoom(volume.data, zoom)
    return dataclasses.replace(volume, data=data, voxel=np.full(3, SPACING))


def support(volume: Volume, grid: Volume) -> np.ndarray | None:
    """(z, y, x) bool: voxels of a resampled map that have density within a voxel of them in the map.

    Splines ring beyond the edge of a mask, and the network scales each box by its largest voxel, so that empty boxes
    would be predicted from the traces. None where the map has no empty voxels.
    """
    there = volume.data != 0
    if there.all():
        return None
    there = ndimage.binary_dilation(there, np.ones((3, 3, 3), bool))
    # Both geometries to within a voxel, which the dilation makes good.
    index = [
        np.minimum(np.round(np.arange(n) * SPACING / step).astype(int), whole - 1)
        for n, step, whole in zip(grid.shape, volume.voxel[::-1], volume.shape, strict=True)
    ]
    return there[np.ix_(*index)]


def protein_atoms(structure: Structure) -> np.ndarray:
    """(N,) bool: atoms of residues with an amino acid's backbone (N, CA, C, O), which are scored."""
    held = np.ones(structure.n_residues, bool)
    for name in residues.BACKBONE:
        held &= np.bincount(structure.atom_residue[structure.atom_name == name], minlength=structure.n_residues) > 0
    return held[structure.atom_residue]


def atom_voxels(structure: Structure, grid: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The voxel of each atom.

    Args:
      structure: coordinates in Å.
      grid: with the network's spacing.

    Returns:
      (N, 3) int64 indices z, y, x (cut towards zero, as published), and (N,) bool, True inside the map.
    """
    place = ((structure.xyz.astype(np.float64) - grid.origin) / SPACING)[:, ::-1]
    inside = np.all((place > -1) & (place < np.array(grid.shape)), axis=1)
    return np.where(inside[:, None], place, 0).astype(np.int64), np.asarray(inside)


def atom_map(structure: Structure, grid: Volume) -> np.ndarray:
    """(z, y, x) bool: voxels that hold a scored atom."""
    index, inside = atom_voxels(structure, grid)
    index = index[inside & protein_atoms(structure)]
    out = np.zeros(grid.shape, bool)
    out[tuple(index.T)] = True
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a map, cut when they are needed.

    Attributes:
      grid: the map on the network's grid; its densities are channel 0 unless `first` says otherwise.
      model: simulated map on a grid of its own, or None.
      first: `map` or `model`: what channel 0 holds; with `both` the map, and the model in channel 1.
      kept: running numbers of the boxes, ascending.
      support: (z, y, x) bool, voxels of the grid that have density in the map; None for all.
    """

    grid: Volume
    model: Volume | None
    first: str
    kept: np.ndarray
    support: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Cores along z, y, x."""
        z, y, x = (-(-n // CORE) for n in self.grid.shape)
        return z, y, x

    @property
    def corners(self) -> np.ndarray:
        """(B, 3) first voxel z, y, x of the core of each box."""
        return CORE * np.stack(np.unravel_index(self.kept, self.tiles, order="F"), 1)

    @functools.cached_property
    def floor(self) -> float:
        """Densities of channel 0 up to this are none: splines leave traces of the rest of the map in what is empty."""
        source = self.model if self.first == "model" else self.grid
        assert source is not None
        return 1e-6 * max(float(source.data.max()), 0.0)

    def filled(self, numbers: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(n,) bool: boxes whose first channel holds density.

        Args:
          numbers: places in `kept`.
          boxes: what `cut` gave for them.
        """
        held = boxes[..., 0].max((1, 2, 3)) > self.floor
        if self.support is not None and self.first != "model":
            padded = self._padded_support
            corners = self.corners[numbers] - _MARGIN + BOX
            held &= np.array([part(padded, corner).any() for corner in corners])
        return held

    @functools.cached_property
    def _padded(self) -> np.ndarray:
        return np.pad(self.grid.data, BOX)

    @functools.cached_property
    def _padded_support(self) -> np.ndarray:
        assert self.support is not None
        return np.pad(self.support, BOX)

    @functools.cached_property
    def _simulated(self) -> tuple[np.ndarray, np.ndarray]:
        """The simulated map with zeros around it, and the voxel of the map's voxel 0 in it."""
        assert self.model is not None
        return np.pad(self.model.data, BOX), (self.grid.origin - self.model.origin) / SPACING

    def aligned(self) -> np.ndarray:
        """(z, y, x) simulated map on the map's grid, moved by whole voxels."""
        assert self.model is not None
        _, offset = self._simulated
        start = np.round(offset[::-1]).astype(np.int64)
        out = np.zeros(self.grid.shape, np.float32)
        low, high = np.clip(-start, 0, out.shape), np.clip(np.array(self.model.shape) - start, 0, out.shape)
        if (high > low).all():
            here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            there = tuple(slice(a, b) for a, b in zip(low + start, high + start, strict=True))
            out[here] = self.model.data[there]
        return out

    def cut(self, numbers: np.ndarray) -> np.ndarray:
        """Boxes by their place in `kept`.

        Returns:
          (n, 40, 40, 40, channels) float32 densities, zeros outside the maps.
        """
        channels = []
        corners = self.corners[numbers] - _MARGIN
        if self.first in ("map", "both"):
            channels.append(np.stack([part(self._padded, corner + BOX) for corner in corners]))
        if self.first in ("model", "both"):
            padded, offset = self._simulated
            # The world position of the box's first voxel on the other grid, to the nearest voxel (ties to even).
            starts = np.round(corners + offset[::-1]).astype(np.int64) + BOX
            channels.append(np.stack([part(padded, start) for start in starts]))
        return np.stack(channels, axis=-1)


def part(padded: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The box of a map that starts at a voxel; zeros where the map does not reach."""
    out = np.zeros((BOX,) * 3, np.float32)
    low = np.clip(start, 0, padded.shape)
    high = np.clip(start + BOX, 0, padded.shape)
    if (high > low).all():
        inner = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        out[inner] = padded[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return out


def rotate(boxes: np.ndarray, number: int, back: bool = False) -> np.ndarray:
    """One of the 24 proper rotations of a cube.

    Args:
      boxes: (z, y, x, ...).
      number: of the rotation; 0 leaves everything where it is.
      back: the inverse instead.
    """
    face, turn = divmod(number, 4)
    quarter, axes = (face, (0, 1)) if face < 4 else (1 if face == 4 else 3, (0, 2))
    if back:
        return np.rot90(np.rot90(boxes, -turn, (1, 2)), -quarter, axes)
    return np.rot90(np.rot90(boxes, quarter, axes), turn, (1, 2))


def drawn(structure: Structure, hydrogens: bool) -> Structure:
    """What the model's simulated map shows.

    Args:
      structure: the model.
      hydrogens: everything, as published; otherwise what the shipped weights learnt from: no hydrogens, no waters, and
        of alternate locations the first.
    """
    if hydrogens:
        return structure
    water = np.isin(np.char.upper(structure.res_name.astype(str)), sorted(residues.WATER))
    shown = ~water[structure.atom_residue] & ~np.isin(structure.element, ("H", "D"))
    labelled = np.flatnonzero(structure.altloc != "")
    at = structure.atom_residue[labelled]
    places = (structure.res_chain[at], structure.resid[at], structure.icode[at], structure.model[labelled])
    first: dict[tuple, str] = {}
    for row, label, *place in zip(
        labelled.tolist(), structure.altloc[labelled].tolist(), *(one.tolist() for one in places), strict=True
    ):
        shown[row] &= first.setdefault(tuple(place), label) == label
    return structure.select(shown)


def keep(occupied: np.ndarray) -> np.ndarray:
    """Running numbers (z fastest) of the cores that hold an occupied voxel.

    Args:
      occupied: (z, y, x) bool.
    """
    tiles = [-(-n // CORE) for n in occupied.shape]
    padded = np.pad(occupied, [(0, CORE * t - n) for t, n in zip(tiles, occupied.shape, strict=True)])
    z, y, x = tiles
    held = padded.reshape(z, CORE, y, CORE, x, CORE).any((1, 3, 5))
    return np.flatnonzero(held.ravel(order="F"))


def merge(cores: np.ndarray, boxes: Boxes, fill: float = np.nan) -> np.ndarray:
    """Predicted cores on the map's grid.

    Args:
      cores: (B, 10, 10, 10) in the order of `boxes.kept`.
      boxes: where they belong.
      fill: value of voxels without prediction.

    Returns:
      (z, y, x) float32.
    """
    out = np.full([CORE * t for t in boxes.tiles], fill, np.float32)
    for core, (z, y, x) in zip(cores, boxes.corners, strict=True):
        out[z : z + CORE, y : y + CORE, x : x + CORE] = core
    return out[tuple(slice(0, n) for n in boxes.grid.shape)]

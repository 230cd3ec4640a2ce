"""The density of a model: what `molmap` of UCSF Chimera writes, without Chimera."""

import functools
import logging
from collections.abc import Sequence

import jax
import numpy as np

from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume, grid_around
from jaxprot.ops.gaussians import CUTOFF, SIGMA_FACTOR, molmap

log = logging.getLogger(__name__)

_ATOMS = 4096  # the number of atoms is padded to a multiple of this ...
_POINTS = 16  # ... and each side of the grid to one of this, so that few programs are compiled
_CHUNK = 1 << 24  # grid points of atoms at once, which bounds the memory; an atom at 4 Å on 1.5 Å has 343
_MOST_POINTS = 1 << 30


def simulate_map(
    structure: Structure,
    resolution: float = 4.0,
    spacing: float | Sequence[float] = 1.5,
    *,
    sigma_factor: float = SIGMA_FACTOR,
    cutoff: float = CUTOFF,
    padding: float | None = None,
    on_grid: Volume | None = None,
    bfactors: bool = False,
    max_bfactor: float = 500.0,
) -> Volume:
    """Density of all atoms of a structure, each weighted by its atomic number.

    Everything in the structure counts: hetero groups, hydrogens, waters, every alternate location and every model.
    With the defaults this is the map that RMSF-net takes as its second channel.

    Args:
      structure: coordinates in Å; atoms without coordinates or with an unknown element are left out (and logged).
      resolution: R in Å; a Gaussian has a standard deviation of `sigma_factor` R.
      spacing: grid step in Å, one or one per x, y, z.
      sigma_factor: see `ops.gaussians.SIGMA_FACTORS`.
      cutoff: half the edge of the cube that a Gaussian is cut to, in standard deviations.
      padding: margin of the grid around the atoms in Å; default 3 R.
      on_grid: use the grid of this map instead of one around the atoms.
      bfactors: blur every atom by its B factor as well (variance B / 8π²), and scale it by its occupancy.
      max_bfactor: a larger B factor (Å²) is treated as this.

    Returns:
      The map in atomic numbers per Å³, named like the structure.

    Raises:
      InputError: no atom with coordinates, an option out of range, or a grid of more than 2³⁰ points.
    """
    padding = 3 * resolution if padding is None else padding
    steps = np.broadcast_to(np.asarray(spacing if on_grid is None else on_grid.voxel, np.float64), (3,))
    options = np.array([resolution, sigma_factor, cutoff, *steps, padding + 1e-9])
    if not (np.isfinite(options).all() and (options > 0).all()):
        raise InputError(
            f"{structure.name}: resolution {resolution} Å, spacing {spacing} Å, sigma factor {sigma_factor} and "
            f"cut-off {cutoff} must be positive, padding {padding} Å not negative"
        )
    number = residues.atomic_numbers(structure.element)
    known = np.isfinite(structure.xyz).all(1)
    if not known.any():
        raise InputError(f"{structure.name}: no atom has coordinates; nothing to simulate a map of")
    if (number[known] == 0).any():
        unknown = sorted(set(structure.element[known & (number == 0)].tolist()))
        log.warning(
            "%s: atoms of unknown element (%s) are not in the map", structure.name, ", ".join(unknown) or "none"
        )
    if on_grid is None:
        origin, shape = grid_around(structure.xyz, steps, padding)
    else:
        origin, shape = on_grid.origin, on_grid.shape
    if np.prod(np.array(shape, float)) > _MOST_POINTS:
        raise InputError(
            f"{structure.name}: a grid of {shape[2]} x {shape[1]} x {shape[0]} points; take a coarser spacing, or "
            "check the coordinates for atoms far away"
        )

    used = known & (number > 0)
    xyz = (structure.xyz[used].astype(np.float64) - origin).astype(np.float32)  # float64: no digits lost far out
    weight = number[used].astype(np.float32)
    blur, highest = None, None
    if bfactors:
        weight = weight * structure.occupancy[used]
        blur = np.clip(np.nan_to_num(structure.bfactor[used]), 0, max_bfactor)
        # The number of points per atom follows from the largest B factor; steps of 50 Å² keep the programs few.
        highest = float(np.ceil(max(blur.max(initial=0.0), 1e-3) / 50) * 50)
    outer = tuple(-(-n // _POINTS) * _POINTS for n in shape)
    run = functools.partial(
        _compiled, resolution=float(resolution), spacing=tuple(map(float, steps)), shape=outer, max_blur=highest,
        sigma_factor=float(sigma_factor), cutoff=float(cutoff),
    )  # fmt: skip
    total = np.zeros(outer, np.float32)
    sigma = np.sqrt((resolution * sigma_factor) ** 2 + (highest or 0.0) / (8 * np.pi**2))
    cube = float(np.prod(2 * cutoff * sigma / steps + 1))
    chunk = int(2 ** np.clip(np.floor(np.log2(_CHUNK / cube)), 6, 15))
    for start in range(0, len(xyz), chunk):
        part = slice(start, start + chunk)
        size = min(-(-len(xyz[part]) // _ATOMS) * _ATOMS, chunk)
        padded = [_pad(values[part], size) for values in (xyz, weight, *([] if blur is None else [blur]))]
        total += np.asarray(run(*padded))
    data = np.ascontiguousarray(total[: shape[0], : shape[1], : shape[2]])
    return Volume(data, steps, origin, structure.name)


@functools.partial(jax.jit, static_argnames=("resolution", "spacing", "shape", "max_blur", "sigma_factor", "cutoff"))
def _compiled(xyz, weight, blur=None, **options):
    return molmap(xyz, weight, blur=blur, **options)


def _pad(values: np.ndarray, size: int) -> np.ndarray:
    return np.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1))

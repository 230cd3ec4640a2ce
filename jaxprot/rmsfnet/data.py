"""Training of RMSF-net: maps, models and fluctuations in, boxes out."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume
from jaxprot.io.outputs import atomic_path
from jaxprot.rmsfnet import featurize
from jaxprot.rmsfnet.config import Geometry, RMSFNetConfig
from jaxprot.rmsfnet.featurize import SPACING
from jaxprot.rmsfnet.model import BOX, CORE, RMSFNet
from jaxprot.rmsfnet.simulate import simulate_map
from jaxprot.rmsfnet.weights import trainable
from jaxprot.train.data import Batch, ShuffledBatches
from jaxprot.train.task import Mean
from jaxprot.weights import registry

log = logging.getLogger(__name__)

_LEAST = 3  # targets that make a correlation


class Entry(NamedTuple):
    """One map with its model and the fluctuations of the model's atoms, on the network's grid.

    Attributes:
      name: of the entry; entries of one protein share what comes before a `.`.
      map: (z, y, x) densities.
      model: (z, y, x) simulated map of the model, moved onto the same grid by whole voxels.
      voxels: (n, 3) voxels z, y, x that hold atoms.
      target: (n,) mean log10(RMSF / Å + 1) of the atoms in each.
      origin: (3,) place x, y, z of voxel 0 in Å; None in files that were written without.
      geometry: how the maps were made, see `RMSFNetConfig`; "" in files that were written without.
    """

    name: str
    map: np.ndarray
    model: np.ndarray
    voxels: np.ndarray
    target: np.ndarray
    origin: np.ndarray | None = None
    geometry: str = ""


def make_entry(
    structure: Structure,
    rmsf: np.ndarray,
    volume: Volume,
    name: str | None = None,
    simulated: Volume | None = None,
    geometry: Geometry = "published",
) -> Entry:
    """An entry of a triple.

    Several atoms in a voxel count with the mean of their targets.

    Args:
      structure: the model.
      rmsf: (N,) Å; NaN for atoms without a value.
      volume: the map, resampled where it needs to be.
      name: instead of the structure's.
      simulated: the model's simulated map (4 Å, on 1.5 Å), if it is there already.
      geometry: see `RMSFNetConfig`; with `exact` (which the shipped weights read) hydrogens, waters and
        second locations are left out of the simulated map as well.

    Raises:
      InputError: no scored atom with a value lies inside the map.
    """
    exact = geometry == "exact"
    grid = volume if np.all(volume.voxel == SPACING) else featurize.resample(volume, exact)
    if simulated is None:
        simulated = simulate_map(featurize.drawn(structure, not exact), on_grid=grid if exact else None)
    boxes = featurize.Boxes(grid, simulated, "model", np.zeros(0, np.int64))
    voxels, target = targets(structure, rmsf, grid)
    return Entry(name or structure.name, grid.data, boxes.aligned(), voxels, target, grid.origin, geometry)


def targets(structure: Structure, rmsf: np.ndarray, grid: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Voxels that hold scored atoms with a value, and what the network learns there.

    Args:
      structure: the model.
      rmsf: (N,) Å; NaN for atoms without a value.
      grid: with the network's spacing.

    Returns:
      (n, 3) int16 voxels z, y, x, and (n,) float32 mean log10(RMSF / Å + 1) of the atoms in each.

    Raises:
      InputError: no scored atom with a value lies inside the map.
    """
    index, inside = featurize.atom_voxels(structure, grid)
    used = inside & featurize.protein_atoms(structure) & np.isfinite(rmsf) & (rmsf >= 0)
    if not used.any():
        raise InputError(f"{structure.name}: no protein atom with a fluctuation lies inside the map {grid.name}")
    flat, place = np.unique(np.ravel_multi_index(index[used].T, grid.shape), return_inverse=True)
    target = np.bincount(place, np.log10(np.asarray(rmsf, np.float64)[used] + 1)) / np.bincount(place)
    voxels = np.stack(np.unravel_index(flat, grid.shape), 1).astype(np.int16)
    return voxels, target.astype(np.float32)


def write_entry(entry: Entry, folder: str | os.PathLike) -> pathlib.Path:
    """Writes an entry as `NAME.npz`, densities in half precision (scaled, which the network does not notice)."""
    path = pathlib.Path(folder) / f"{entry.name}.npz"
    scale = max(float(np.abs(entry.map).max()), 1e-30)
    place: dict[str, Any] = {} if entry.origin is None else {"origin": np.asarray(entry.origin, np.float64)}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            map=(entry.map / scale).astype(np.float16),
            model=entry.model.astype(np.float16),
            voxels=entry.voxels,
            target=entry.target,
            geometry=entry.geometry,
            **place,
        )
    return path


def read_entry(path: str | os.PathLike) -> Entry:
    """What `write_entry` wrote.

    Raises:
      InputError: missing, damaged, or another kind of file.
    """
    try:
        with np.load(path) as z:
            arrays = {name: z[name] for name in ("map", "model", "voxels", "target")}
            origin, geometry = (z[name] if name in z else None for name in ("origin", "geometry"))
            return Entry(pathlib.Path(path).stem, **arrays, origin=origin, geometry=str(geometry or ""))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not an entry of a flexibility data set ({error})") from error


@dataclasses.dataclass(frozen=True)
class FlexibilityTask:
    """Fluctuations of the voxels that hold atoms, by masked squared error of log10(RMSF / Å + 1).

    Attributes:
      train: folder of entries to train on.
      val: folder of entries that select the best weights.
      model: sizes of the network.
      size: boxes per step.
      core: central voxels (per axis) of a box that are trained on; the published 10, or more targets for the work of a
        box (the encoder sees all 40 in any case).
      least: boxes with fewer voxels to learn are not trained on; cores of corners cost as much as full ones.
      shift: each core is displaced by a random number of voxels below this on every axis, so that pooling meets a
        protein in every phase; 0 for the published tiling.
      emphasis: the squared error of a voxel counts with (RMSF / Å + 1) to this power; 2 would be the error in Å. Loose
        ends are few, and more of a protein's variance than of its logarithm's is theirs.
      weights: to start from, a file (ours or a published one) or a registered name such as `rmsfnet:pdb`; none starts
        from scratch.
      held: entries of `val` that are evaluated, evenly chosen.
      rotations: rotate boxes by one of the 24 rotations of a cube.
      monitor: mean over the entries of the Pearson correlation of RMSF over their voxels.
    """

    train: str
    val: str
    model: RMSFNetConfig = RMSFNetConfig()
    size: int = 16
    core: int = CORE
    least: int = 1
    shift: int = 0
    emphasis: float = 0.0
    weights: str | None = None
    held: int = 40
    rotations: bool = True
    monitor: str = "pearson"

    def files(self) -> tuple[str, ...]:
        """Data files."""
        start = [] if self.weights is None else [registry.resolve(self.weights, "rmsfnet")[0]]
        return tuple(map(str, (*_listed(self.train), *_listed(self.val), *start)))

    @functools.cached_property
    def entries(self) -> list[Entry]:
        """Training entries."""
        return self._read(_listed(self.train))

    @functools.cached_property
    def held_out(self) -> list[Entry]:
        """Entries to evaluate."""
        paths = _listed(self.val)
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(self.held, len(paths))).astype(int))
        return self._read([paths[i] for i in chosen])

    def _read(self, paths: list[pathlib.Path]) -> list[Entry]:
        entries = [read_entry(path) for path in paths]
        for path, entry in zip(paths, entries, strict=True):
            if not entry.geometry:
                continue
            exact = entry.geometry == "exact"
            if entry.geometry != self.model.geometry or self.model.hydrogens == exact:
                raise InputError(
                    f"{path}: made in the {entry.geometry} geometry, and the network reads {self.model.geometry}, "
                    f"hydrogens {self.model.hydrogens}; set RMSFNetConfig(geometry={entry.geometry!r}, "
                    f"hydrogens={not exact}), or make the entries anew (`--geometry`)"
                )
        return entries

    @functools.cached_property
    def _tiles(self) -> np.ndarray:
        """(boxes, 4): entry and first voxel of the core of each box with a target."""
        return tiles(self.entries, self.core, self.least)

    @property
    def _shifts(self) -> int:
        return max(self.shift, 1)

    @functools.cached_property
    def _batches(self) -> ShuffledBatches:
        return ShuffledBatches(len(self._tiles), self.size, "drop")

    def build(self, key: PRNGKeyArray) -> RMSFNet:
        """A network, from `weights` if there are some."""
        if self.weights is not None:
            return trainable(self.model, registry.resolve(self.weights, "rmsfnet")[0], nnx.Rngs(key))
        return RMSFNet(self.model, rngs=nnx.Rngs(key))

    def batches(self, step: int, seed: int) -> Batch:
        """Boxes, each with a rotation and a displacement."""
        shape, members, size = self._batches(step, seed)
        rng = np.random.default_rng([seed, step])
        turns = rng.integers(0, featurize.ROTATIONS if self.rotations else 1, len(members))
        shifts = rng.integers(0, self._shifts**3, len(members))
        return Batch(shape, (members * featurize.ROTATIONS + turns) * self._shifts**3 + shifts, size)

    def load(self, shape: Any, members: np.ndarray) -> dict[str, np.ndarray]:
        """Boxes, targets and where they count."""
        boxes, targets = [], []
        for member in members:
            rest, shift = divmod(int(member), self._shifts**3)
            tile, turn = divmod(rest, featurize.ROTATIONS)
            number, *corner = self._tiles[tile]
            place = np.array(corner) + np.unravel_index(shift, (self._shifts,) * 3) - self._shifts // 2
            box, target = cut(self.entries[number], place, self.core, self.model)
            boxes.append(featurize.rotate(box, turn))
            targets.append(featurize.rotate(target, turn))
        target = np.stack(targets)
        return {
            "boxes": np.stack(boxes).astype(np.float32),
            "target": np.nan_to_num(target).astype(np.float32),
            "mask": np.isfinite(target).astype(np.float32),
        }

    def batch_loss(
        self, model: RMSFNet, examples: Any, keys: PRNGKeyArray, weight: Float[Array, "n"], axis: str | None
    ) -> dict[str, Mean]:
        """Masked squared error; the absolute one in Å is logged."""
        predicted = model(examples["boxes"], keys[0], self.core)
        mask = examples["mask"] * weight[:, None, None, None]
        error = predicted - examples["target"]
        off = jnp.abs(10**predicted - 10 ** examples["target"])
        share = mask * 10 ** (self.emphasis * examples["target"])
        return {
            "squared": Mean(jnp.sum(share * error**2), jnp.sum(share)),
            "absolute_angstrom": Mean(jnp.sum(mask * off), jnp.sum(mask), 0.0),
        }

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Per entry: Pearson correlation and mean absolute error of RMSF over the voxels with atoms; their means."""
        entries, core, model = self.held_out, self.core, self.model
        told: set[str] = set()
        places = tiles(entries, core)
        apply = jax.jit(lambda variables, boxes: nnx.merge(graphdef, variables)(boxes, None, core))

        def evaluate(variables: Any) -> dict[str, float]:
            found: list[list[np.ndarray]] = [[] for _ in entries]
            for start in range(0, len(places), 8):
                chosen = places[np.resize(np.arange(start, min(start + 8, len(places))), 8)]
                cuts = [cut(entries[number], np.array(corner), core, model) for number, *corner in chosen]
                out = np.asarray(apply(variables, np.stack([box for box, _ in cuts]).astype(np.float32)))
                for (number, *_), (_, target), values in list(zip(chosen, cuts, out, strict=True))[
                    : len(places) - start
                ]:
                    at = np.isfinite(target)
                    found[number].append(np.stack([values[at], target[at]]))
            rmsf = [10 ** np.concatenate(parts, 1).astype(np.float64) - 1 for parts in found]
            return agreement([entry.name for entry in entries], rmsf, told)

        return evaluate


def agreement(names: list[str], rmsf: Sequence[Any], told: set[str]) -> dict[str, float]:
    """Means over entries of what a prediction is judged by.

    Entries whose correlation is not defined (fewer than three targets, all of one value, a constant prediction) do not
    count in the means of correlations.

    Args:
      names: of the entries.
      rmsf: of each entry the predicted and the true RMSF of its voxels in Å.
      told: entries that the log has named already; those that are left out are added.

    Returns:
      `pearson`, `spearman`, `absolute_angstrom`; correlations are NaN where no entry has one.
    """
    enough = [len(true) >= _LEAST for _, true in rmsf]
    rows = np.array(
        [
            [metrics.pearson(p, t) if use else np.nan, metrics.spearman(p, t) if use else np.nan, np.abs(p - t).mean()]
            for (p, t), use in zip(rmsf, enough, strict=True)
        ]
    )
    defined = np.asarray(np.isfinite(rows[:, :2]).all(1))
    new = [name for name, there in zip(names, defined, strict=True) if not there and name not in told]
    if new:
        told.update(new)
        more = f" and {len(new) - 5} more" if len(new) > 5 else ""
        log.warning(
            "%s%s: no correlation (fewer than %d voxels, or all of one value); left out of its mean",
            ", ".join(new[:5]),
            more,
            _LEAST,
        )
    means = rows[defined, :2].mean(0) if defined.any() else np.full(2, np.nan)
    return {"pearson": float(means[0]), "spearman": float(means[1]), "absolute_angstrom": float(rows[:, 2].mean())}


def _listed(folder: str) -> list[pathlib.Path]:
    paths = sorted(pathlib.Path(folder).glob("*.npz"))
    if not paths:
        raise InputError(f"{folder}: no entries (.npz); `jaxprot rmsfnet dataset` makes them")
    return paths


def tiles(entries: list[Entry], core: int, least: int = 1) -> np.ndarray:
    """(boxes, 4) entry and first voxel z, y, x of every core with at least so many targets.

    Cores tile each map from voxel 0. An entry without such a core gives the one with the most targets.
    """
    rows = []
    for number, entry in enumerate(entries):
        corners, count = np.unique(entry.voxels // core * core, axis=0, return_counts=True)
        corners = corners[count >= min(least, count.max())]
        rows.append(np.column_stack([np.full(len(corners), number), corners]))
    return np.concatenate(rows).astype(np.int64)


def cut(entry: Entry, corner: np.ndarray, core: int, cfg: RMSFNetConfig) -> tuple[np.ndarray, np.ndarray]:
    """The box around a core, (40, 40, 40, channels), and its targets (core, core, core), NaN where no atom is."""
    start = corner - (BOX - core) // 2
    sources = {"both": (entry.map, entry.model), "map": (entry.map,), "pdb": (entry.model,)}[cfg.variant]
    box = np.stack([featurize.part(source, start) for source in sources], axis=-1)
    target = np.full((core,) * 3, np.nan, np.float32)
    place = entry.voxels - corner
    inside = ((place >= 0) & (place < core)).all(1)
    target[tuple(place[inside].T)] = entry.target[inside]
    return box, target

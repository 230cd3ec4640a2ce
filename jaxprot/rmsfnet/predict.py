"""Prediction of flexibility: read, cut into boxes, run, read off every atom."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume
from jaxprot.io.maps import Origin, read_map
from jaxprot.io.structures import read_structure
from jaxprot.nn.runner import Runner
from jaxprot.rmsfnet import featurize, weights
from jaxprot.rmsfnet.config import Variant
from jaxprot.rmsfnet.featurize import Boxes
from jaxprot.rmsfnet.model import CORE, RMSFNet
from jaxprot.rmsfnet.results import Flexibility
from jaxprot.rmsfnet.simulate import simulate_map

_log = logging.getLogger(__name__)
_BATCH = 4  # boxes at once: 100 MB of activations each at the published width
_IN_FLIGHT = 2


def _apply(module: RMSFNet, boxes: Any) -> Any:
    return module(boxes)


def _rotate(boxes: np.ndarray, view: int, back: bool = False) -> np.ndarray:
    """Each of (n, z, y, x, ...) boxes rotated."""
    turned = featurize.rotate(np.moveaxis(boxes, 0, -1), view, back)
    return np.ascontiguousarray(np.moveaxis(turned, -1, 0))


class Predictor:
    """RMSF-net with its weights.

    Args:
      module: the network, without batch normalisation.
      scale: (a, b) of the stand-in's calibration: RMSF = a * (10**y - 1) + b, in Å; published weights have (1, 0).
      batch: boxes at once.
      views: orientations of each box that are averaged, instead of those of `RMSFNetConfig`.
    """

    def __init__(
        self, module: RMSFNet, scale: tuple[float, float] = (1.0, 0.0), batch: int = _BATCH, views: int | None = None
    ):
        self.module, self.scale, self.batch = module, scale, batch
        self.config = module.cfg if views is None else dataclasses.replace(module.cfg, views=views)
        self.runner = Runner(module)

    def pure(self) -> tuple[Callable, list[Any]]:
        """(apply, leaves) of plain JAX: apply(leaves, boxes (n, 40, 40, 40, c)) is log10(RMSF / Å + 1) of the cores."""
        return self.runner.pure(_apply)

    def cores(self, boxes: Boxes) -> Iterator[np.ndarray]:
        """Predicted cores (10, 10, 10), log10(RMSF / Å + 1), one after the other; memory is that of a few boxes.

        Boxes without density, which the published network divides by zero, have NaN.
        """
        running: collections.deque[tuple[int, np.ndarray, list[Any]]] = collections.deque()
        views = np.arange(self.config.views) * featurize.ROTATIONS // self.config.views

        def finish(left: int) -> Iterator[np.ndarray]:
            while len(running) > left:
                count, held, outs = running.popleft()
                turned = zip(outs, views, strict=True)
                out = np.mean([_rotate(np.asarray(one), view, back=True) for one, view in turned], axis=0)
                yield from np.where(held[:, None, None, None], out[:count], np.nan)

        for start in range(0, len(boxes), self.batch):
            numbers = np.arange(start, min(start + self.batch, len(boxes)))
            # The last batch is filled up, so that there is one shape to compile.
            cut = boxes.cut(np.resize(numbers, self.batch))
            held = boxes.filled(numbers, cut[: len(numbers)])
            running.append((len(numbers), held, [self.runner(_apply, _rotate(cut, view)) for view in views]))
            yield from finish(_IN_FLIGHT - 1)
        yield from finish(0)

    def boxes(self, structure: Structure | None, volume: Volume | None, contour: float | None = None) -> Boxes:
        """What the network reads of a model, a map or both.

        Args:
          structure: the model, of one model number.
          volume: the map; without one the grid is that of the model's simulated map.
          contour: of a map alone: voxels above it are predicted (default: mean + 3 standard deviations).

        Raises:
          InputError: an input that the weights need is missing, no atom is scored, or none lies inside the map.
        """
        variant = self.config.variant
        if variant == "both" and (structure is None or volume is None):
            have, other = ("model", "map") if volume is None else ("map", "model")
            raise InputError(
                f"these weights read a map and a model, and there is only a {have}; give a {other} (--{other}), or use "
                f"weights for a {have} alone (--weights rmsfnet:{'pdb' if have == 'model' else 'map'})"
            )
        if variant == "pdb" and structure is None:
            raise InputError("these weights read a model (--model)")
        if variant == "map" and volume is None:
            raise InputError("these weights read a map (--map)")
        if volume is not None and variant != "pdb" and not volume.data.max() > 0:
            what = "negative" if volume.data.any() else "zero"
            raise InputError(f"{volume.name}: the map is {what} everywhere; is it the right file, and not inverted?")
        if structure is not None and not featurize.protein_atoms(structure).any():
            raise InputError(f"{structure.name}: no residue with N, CA, C and O; RMSF-net scores proteins only")
        exact = self.config.geometry == "exact"
        grid = None if volume is None else featurize.resample(volume, exact)
        model = None
        if structure is not None and variant != "map":
            model = simulate_map(featurize.drawn(structure, self.config.hydrogens), on_grid=grid if exact else None)
        present = None
        if volume is not None and grid is not None:
            present = featurize.support(volume, grid)
        grid = model if grid is None else grid
        assert grid is not None
        if structure is None:
            assert volume is not None
            if contour is None:
                contour = float(volume.data.mean() + 3 * volume.data.std())
                _log.warning(
                    "%s: no contour given; voxels above %.4g (mean + 3 sd) are predicted", volume.name, contour
                )
            occupied = grid.data > contour
            if not occupied.any():
                raise InputError(
                    f"{grid.name}: no voxel is above the contour {contour:.4g}; the map reaches {grid.data.max():.4g}"
                )
        else:
            if contour is not None:
                _log.warning("%s: the contour is not used where there is a model", structure.name)
            occupied = featurize.atom_map(structure, grid)
            if not occupied.any():
                raise InputError(
                    f"{structure.name}: none of its atoms lies inside the map {grid.name} (its corner is at "
                    f"{np.round(grid.origin, 1).tolist()} Å); fit the model into the map, or choose another --origin"
                )
        first = {"both": "both", "map": "map", "pdb": "model"}[variant]
        return Boxes(grid, model, first, featurize.keep(occupied), present)

    def predict(
        self,
        model: Structure | str | os.PathLike | None = None,
        map: Volume | str | os.PathLike | None = None,  # noqa: A002
        *,
        contour: float | None = None,
        origin: Origin = "sum",
        progress: Callable[[int, int], None] | None = None,
    ) -> Flexibility:
        """Flexibility of every atom of a model, or of every voxel of a map above a contour.

        Args:
          model: structure or its file; its first model is taken.
          map: map or its file.
          contour: of a map alone, see `boxes`.
          origin: where the map is, see `io.maps.read_map`.
          progress: called with (boxes done, boxes in all).

        Raises:
          InputError: see `boxes`.
        """
        structure = model if isinstance(model, Structure) or model is None else read_structure(model, models="all")
        if structure is not None and len(np.unique(structure.model)) > 1:
            _log.warning("%s: several models; the first is taken", structure.name)
            structure = structure.first_model()
        volume = map if isinstance(map, Volume) or map is None else read_map(map, origin=origin)
        if structure is None and volume is None:
            raise InputError("give a model, a map, or both")
        boxes = self.boxes(structure, volume, contour)
        found = []
        for core in self.cores(boxes):
            found.append(core)
            if progress is not None:
                progress(len(found), len(boxes))
        empty = sum(bool(np.isnan(core).all()) for core in found)
        if empty:
            _log.warning(
                "%s: %d of %d boxes hold no density; what lies there has no value", boxes.grid.name, empty, len(found)
            )
        log = featurize.merge(np.stack(found) if found else np.zeros((0, *(CORE,) * 3)), boxes)
        # In float64: 10**y of float32 has its own rounding, and the published numbers are printed with two digits.
        rmsf = self.scale[0] * (10 ** log.astype(np.float64) - 1) + self.scale[1]
        if structure is None:
            assert volume is not None
            limit = contour if contour is not None else float(volume.data.mean() + 3 * volume.data.std())
            rmsf = np.where(boxes.grid.data > limit, rmsf, np.nan)
        if structure is not None:
            scored = featurize.protein_atoms(structure)
            outside = int((scored & ~featurize.atom_voxels(structure, boxes.grid)[1]).sum())
            if outside:
                _log.warning(
                    "%s: %d of %d protein atoms lie outside the map (or have no coordinates), and have no value",
                    structure.name,
                    outside,
                    scored.sum(),
                )
        return Flexibility.of(boxes.grid.with_data(rmsf, "rmsf"), structure)


def load(path: str | os.PathLike, variant: Variant | None = None) -> Predictor:
    """Weights of this library, or a published `.pth` file, as a predictor.

    Args:
      path: the file.
      variant: what a published file of one channel reads; told by its name (`sim_model.pth`, `exp_model.pth`) if None.

    Raises:
      CheckpointError: not such weights, or damaged.
    """
    cfg, tensors, scale = weights.read(path, variant)
    try:
        return Predictor(weights.folded_model(cfg, tensors), scale)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error

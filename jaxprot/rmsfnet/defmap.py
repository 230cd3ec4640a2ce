"""DEFMap, the network that RMSF-net is compared with (Matsumoto et al., doi 10.1038/s42256-020-00290-y).

It reads the map alone, smoothed to 5 Å, and predicts one voxel from the box of 10 around it: one evaluation per voxel.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import ndimage

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.core.structure import Structure
from jaxprot.core.volume import Volume
from jaxprot.rmsfnet import featurize
from jaxprot.rmsfnet.data import Entry, _listed, agreement, read_entry
from jaxprot.rmsfnet.featurize import SPACING
from jaxprot.rmsfnet.model import Conv
from jaxprot.rmsfnet.results import Flexibility
from jaxprot.train.data import Batch, ShuffledBatches
from jaxprot.train.task import Mean
from jaxprot.weights import module, portable

BOX = 10
BEFORE = 5  # voxels of a box before the one that is predicted; four come after it
RESOLUTION = 5.0  # Å
_TAPS = 4
_SLOPE = 0.3
_LEAST = 1e-3  # Å: fluctuations below count as this, so that the logarithm exists
_AXES = ((0, 1), (0, 2), (1, 2))
_TURNS = (None, *((axes, turns) for axes in _AXES for turns in (1, 2, 3)))
_BATCH = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class DEFMapConfig:
    """Sizes of the network; `paper()` gives the published ones.

    Attributes:
      width: channels of the first convolution; the second has twice, the third four times as many.
      dense: units of the two hidden dense layers.
      dropout: rate after each pooling, in training.
    """

    width: int = 64
    dense: int = 1024
    dropout: float = 0.2

    def __post_init__(self):
        for name in ("width", "dense"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout}")

    @classmethod
    def paper(cls) -> DEFMapConfig:
        """The published network."""
        return cls()

    @property
    def flat(self) -> int:
        """Values that the dense layers read: two voxels per axis are left of ten."""
        return 2**3 * 4 * self.width


class DEFMap(nnx.Module):
    """log10(RMSF / Å) of the voxel at place 5, 5, 5 of each box.

    Args:
      cfg: sizes.
      rngs: only `params` is drawn, and only when training from scratch.
    """

    def __init__(self, cfg: DEFMapConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        widths = (1, cfg.width, 2 * cfg.width, 4 * cfg.width)
        pairs = zip(widths, widths[1:], strict=False)
        self.convs = nnx.List([Conv(n_in, n_out, _TAPS, rngs=rngs) for n_in, n_out in pairs])
        self.dense1 = nnx.Linear(cfg.flat, cfg.dense, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.dense2 = nnx.Linear(cfg.dense, cfg.dense, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
        self.final = nnx.Linear(cfg.dense, 1, rngs=rngs)

    def stages(self, boxes: Float[Array, "n 10 10 10"], keys: PRNGKeyArray | None = None) -> list[Array]:
        """Output of each convolution with its pooling: 5, 3 and 2 voxels per axis.

        Args:
          boxes: prepared densities.
          keys: one per box, for dropout; None in evaluation.
        """
        x, out = boxes[..., None], []
        # An even kernel has no middle; the odd zero of 'same' padding goes behind, as in Keras.
        padding = (((_TAPS - 1) // 2, _TAPS // 2),) * 3
        for number, conv in enumerate(self.convs):
            x = _pool(jax.nn.leaky_relu(conv(x, padding), _SLOPE))
            if keys is not None and self.cfg.dropout > 0:
                x = _dropout(x, jax.vmap(jax.random.fold_in, (0, None))(keys, number), self.cfg.dropout)
            out.append(x)
        return out

    def __call__(self, boxes: Float[Array, "n 10 10 10"], keys: PRNGKeyArray | None = None) -> Float[Array, "n"]:
        """See the class; arguments as of `stages`."""
        x = self.stages(boxes, keys)[-1].reshape(len(boxes), -1)
        for dense in (self.dense1, self.dense2):
            x = jax.nn.leaky_relu(dense(x), _SLOPE)
        return self.final(x)[:, 0].astype(jnp.float32)


def _pool(x: Float[Array, "n d h w c"]) -> Float[Array, "n dd hh ww c"]:
    """Maximum over cubes of two voxels; an odd last voxel stands alone."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "SAME")


def _dropout(x: Array, keys: PRNGKeyArray, rate: float) -> Array:
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def low_pass(density: np.ndarray, resolution: float = RESOLUTION, spacing: float = SPACING) -> np.ndarray:
    """A map smoothed by a Gaussian that falls to exp(-1/2) at the frequency 1 / resolution.

    Args:
      density: (z, y, x).
      resolution: Å; 0 leaves the map as it is.
      spacing: edge of a voxel in Å.
    """
    if resolution <= 0:
        return np.asarray(density, np.float32)
    width = resolution / (2 * np.pi * spacing)
    return ndimage.gaussian_filter(np.asarray(density, np.float32), width, mode="constant")


def prepare(density: np.ndarray) -> np.ndarray:
    """(z, y, x) float32: standard scores over the whole map, negative ones 0; zeros for a constant map."""
    values = np.asarray(density, np.float64)
    spread = values.std()
    if not spread > 1e-12 * np.abs(values).max(initial=0):
        return np.zeros(values.shape, np.float32)
    return np.maximum((values - values.mean()) / spread, 0).astype(np.float32)


def cut(prepared: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """The box around each voxel, from five voxels before it to four after it; zeros outside the map.

    Args:
      prepared: (z, y, x) densities.
      voxels: (n, 3) indices z, y, x inside the map.

    Returns:
      (n, 10, 10, 10) float32.
    """
    padded = np.pad(prepared, BEFORE)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (BOX,) * 3)
    return np.asarray(windows[tuple(np.asarray(voxels, np.int64).T)], np.float32)


def rotate(box: np.ndarray, number: int) -> np.ndarray:
    """The box itself (0), or one of the nine turns by 90, 180 and 270 degrees about an axis that were published."""
    chosen = _TURNS[number]
    return box if chosen is None else np.rot90(box, chosen[1], chosen[0])


def targets(entry: Entry) -> np.ndarray:
    """(n,) float32 log10(RMSF / Å) of the voxels of an entry, which holds log10(RMSF / Å + 1)."""
    return np.log10(np.maximum(10 ** entry.target.astype(np.float64) - 1, _LEAST)).astype(np.float32)


@functools.cache
def _compiled(graphdef: Any) -> Callable[[Any, Array], Array]:
    return jax.jit(lambda state, boxes: nnx.merge(graphdef, state)(boxes))


def predict(model: DEFMap, prepared: np.ndarray, voxels: np.ndarray, batch: int = _BATCH) -> np.ndarray:
    """(n,) float32 log10(RMSF / Å) of voxels of a prepared map, `batch` boxes at once."""
    graphdef, state = nnx.split(model)
    return _by_batches(functools.partial(_compiled(graphdef), state), prepared, voxels, batch)


def _by_batches(apply: Callable[[Any], Any], prepared: np.ndarray, voxels: np.ndarray, batch: int) -> np.ndarray:
    out = []
    for start in range(0, len(voxels), batch):
        # The last batch is filled up, so that there is one shape to compile.
        rows = np.resize(np.arange(start, min(start + batch, len(voxels))), batch)
        out.append(np.asarray(apply(cut(prepared, voxels[rows])))[: len(voxels) - start])
    return np.concatenate(out) if out else np.zeros(0, np.float32)


def predict_map(
    volume: Volume, structure: Structure, model: DEFMap, resolution: float = RESOLUTION, batch: int = _BATCH
) -> Flexibility:
    """Flexibility of a model's atoms from the map around them.

    Args:
      volume: the map; it is brought to 1.5 Å.
      structure: tells which voxels are predicted, those that hold atoms of proteins (of its first model). The network
        does not see it.
      model: the network.
      resolution: Å that the map is smoothed to, as `load` tells.
      batch: boxes at once.

    Returns:
      RMSF in Å, NaN for atoms outside the map or not of a protein.

    Raises:
      InputError: no atom is scored, none lies inside the map, or the map has one value everywhere.
    """
    structure = structure.first_model()
    if not featurize.protein_atoms(structure).any():
        raise InputError(f"{structure.name}: no residue with N, CA, C and O; DEFMap is read off at proteins only")
    grid = featurize.resample(volume)
    voxels = np.argwhere(featurize.atom_map(structure, grid))
    if not len(voxels):
        raise InputError(
            f"{structure.name}: none of its atoms lies inside the map {grid.name} (its corner is at "
            f"{np.round(grid.origin, 1).tolist()} Å); fit the model into the map, or choose another --origin"
        )
    prepared = prepare(low_pass(grid.data, resolution))
    if not prepared.any():
        raise InputError(f"{volume.name}: the map has one value everywhere; is it the right file?")
    rmsf = np.full(grid.shape, np.nan)
    rmsf[tuple(voxels.T)] = 10 ** predict(model, prepared, voxels, batch).astype(np.float64)
    return dataclasses.replace(Flexibility.of(grid.with_data(rmsf, "rmsf"), structure), method="defmap")


def load(path: str | os.PathLike) -> tuple[DEFMap, float]:
    """Trained weights: the network, and the resolution in Å that its maps were smoothed to.

    Raises:
      InputError: no such file.
      CheckpointError: of another model, or damaged.
    """
    tensors, header = portable.load(path)
    if header.get("system") != "defmap":
        raise CheckpointError(f"{path}: these are weights of {header.get('system', 'another model')}, not of defmap")
    try:
        cfg = DEFMapConfig(**header["config"])
        resolution = float(header.get("resolution", RESOLUTION))
        model: Any = module.assemble(module.Blueprint(lambda rngs: DEFMap(cfg, rngs=rngs)), tensors)
        return model, resolution
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: its header fits no DEFMap ({error})") from error


@dataclasses.dataclass(frozen=True)
class DEFMapTask:
    """Fluctuations of the voxels that hold atoms, one box each, by squared error of log10(RMSF / Å).

    It reads the entries that `rmsfnet.data.FlexibilityTask` reads, whose maps are on 1.5 Å already.

    Attributes:
      train: folder of entries to train on.
      val: folder of entries that select the best weights.
      model: sizes of the network.
      size: boxes per step.
      held: entries of `val` that are evaluated, evenly chosen.
      rotations: turn boxes by one of the ten published rotations.
      resolution: Å that the maps are smoothed to; 0 for no smoothing.
      monitor: mean over the entries of the Pearson correlation of RMSF over their voxels.
    """

    train: str
    val: str
    model: DEFMapConfig = DEFMapConfig()
    size: int = 128
    held: int = 40
    rotations: bool = True
    resolution: float = RESOLUTION
    monitor: str = "pearson"

    def files(self) -> tuple[str, ...]:
        """Data files."""
        return tuple(map(str, (*_listed(self.train), *_listed(self.val))))

    def _read(self, path: str | os.PathLike) -> Entry:
        """An entry with its map prepared; the simulated map, which is not read, is let go."""
        entry = read_entry(path)
        return entry._replace(map=prepare(low_pass(entry.map, self.resolution)), model=np.zeros((0, 0, 0)))

    @functools.cached_property
    def entries(self) -> list[Entry]:
        """Training entries, maps prepared."""
        return [self._read(path) for path in _listed(self.train)]

    @functools.cached_property
    def held_out(self) -> list[Entry]:
        """Entries to evaluate, maps prepared."""
        paths = _listed(self.val)
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(self.held, len(paths))).astype(int))
        return [self._read(paths[i]) for i in chosen]

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """(boxes, 2): entry and row of its voxels."""
        counts = [len(entry.voxels) for entry in self.entries]
        return np.concatenate([np.column_stack([np.full(n, e), np.arange(n)]) for e, n in enumerate(counts)])

    @functools.cached_property
    def _targets(self) -> list[np.ndarray]:
        return [targets(entry) for entry in self.entries]

    @functools.cached_property
    def _padded(self) -> list[np.ndarray]:
        return [np.pad(entry.map, BEFORE) for entry in self.entries]

    @functools.cached_property
    def _batches(self) -> ShuffledBatches:
        return ShuffledBatches(len(self._places), self.size, "drop")

    def build(self, key: PRNGKeyArray) -> DEFMap:
        """An initialised network."""
        return DEFMap(self.model, rngs=nnx.Rngs(key))

    def batches(self, step: int, seed: int) -> Batch:
        """Boxes, each with a rotation."""
        shape, members, size = self._batches(step, seed)
        turns = np.random.default_rng([seed, step]).integers(0, len(_TURNS) if self.rotations else 1, len(members))
        return Batch(shape, members * len(_TURNS) + turns, size)

    def load(self, shape: Any, members: np.ndarray) -> dict[str, np.ndarray]:
        """Boxes and the targets of their voxels."""
        boxes, wanted = [], []
        for member in members:
            place, turn = divmod(int(member), len(_TURNS))
            number, row = self._places[place]
            z, y, x = self.entries[number].voxels[row].astype(int)
            boxes.append(rotate(self._padded[number][z : z + BOX, y : y + BOX, x : x + BOX], turn))
            wanted.append(self._targets[number][row])
        return {"boxes": np.stack(boxes).astype(np.float32), "target": np.array(wanted, np.float32)}

    def batch_loss(
        self, model: DEFMap, examples: Any, keys: PRNGKeyArray, weight: Float[Array, "n"], axis: str | None
    ) -> dict[str, Mean]:
        """Squared error; the absolute one in Å is logged. No term joins boxes: they go through together for speed."""
        predicted = model(examples["boxes"], keys)
        error = predicted - examples["target"]
        off = jnp.abs(10**predicted - 10 ** examples["target"])
        count = jnp.sum(weight)
        return {
            "squared": Mean(jnp.sum(weight * error**2), count),
            "absolute_angstrom": Mean(jnp.sum(weight * off), count, 0.0),
        }

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Per entry: Pearson and Spearman correlation and mean absolute error of RMSF over its voxels; their means."""
        entries, told = self.held_out, set()
        apply = jax.jit(lambda variables, boxes: nnx.merge(graphdef, variables)(boxes))

        def evaluate(variables: Any) -> dict[str, float]:
            rmsf = []
            for entry in entries:
                found = _by_batches(functools.partial(apply, variables), entry.map, entry.voxels, _BATCH)
                rmsf.append((10 ** found.astype(np.float64), 10 ** entry.target.astype(np.float64) - 1))
            return agreement([entry.name for entry in entries], rmsf, told)

        return evaluate

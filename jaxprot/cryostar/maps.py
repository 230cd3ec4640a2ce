"""Density maps of conformations: the second phase on the latents of the first one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.volume import Volume
from jaxprot.cryostar import density, weights
from jaxprot.cryostar.config import DensityConfig
from jaxprot.cryostar.density import Density
from jaxprot.cryostar.images import original_side, prepare
from jaxprot.cryostar.landscape import Landscape, map_model_fsc
from jaxprot.cryostar.predict import Predictor, by_batches
from jaxprot.cryostar.reconstruction import DensityData, DensityTask, density_data
from jaxprot.train.task import OptimConfig, TrainConfig

LATENTS = "latents of the run"
"""What the settings of a training call the hash of the latents that it was given."""

_LARGEST = 256  # pixels, where no side is given


def settings(
    predictor: Predictor,
    latents: np.ndarray | None,
    cache: str | os.PathLike,
    *,
    side: int | None = None,
    hidden: int = 256,
    epochs: int = 20,
    batch: int = 16,
    lr: float = 1e-4,
    mask: float = 0.85,
    net: str = "cryodrgn",
    encoding: str = "gau2",
    loss: Literal["fmsf", "rmsf"] = "fmsf",
    seed: int = 0,
    fresh: bool = False,
    progress: Any = None,
) -> TrainConfig:
    """Training of densities on the particles of a run, with the published optimiser.

    Args:
      predictor: of the run (its task tells the particles).
      latents: (n, k) of the particles; None for an encoder that finds as many of each image, trained with the rest.
      cache: folder for images of another side than the run's.
      side: pixels; those of the original images if None, but at most 256.
      hidden: width of the network; 1024 was published.
      epochs: passes over the particles.
      batch: particles per step.
      lr: learning rate.
      mask: radius of the frequencies that are modelled, 1 being the Nyquist frequency.
      net: see `DensityConfig`.
      encoding: see `DensityConfig`.
      loss: see `DensityTask.loss_in`.
      seed: of everything random.
      fresh: remove what the cache holds first, if the numbers make sense.
      progress: see `images.prepare`.

    Raises:
      InputError: the predictor comes from no run, or a number makes no sense.
    """
    task = predictor.task
    if task is None:
        raise InputError("densities need particles; give the folder of a run")
    count = len(task.stack)
    if epochs < 1 or not 1 <= batch <= count:
        raise InputError(f"{epochs} epochs, {batch} particles a step: give at least 1 and at most {count} of these")
    side = min(original_side(task.stack), _LARGEST) if side is None else side
    try:
        model = DensityConfig(
            side=side,
            latent=predictor.model.cfg.latent if latents is None else latents.shape[1],
            hidden=hidden,
            mask=mask,
            net=cast(Any, net),
            encoding=cast(Any, encoding),
            encoder=latents is None,
        )
        optim = OptimConfig(
            name="adamw", lr=lr, b1=0.9, b2=0.999, weight_decay=0.01, schedule="constant", warmup=0, clip=None, ema=0.0
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    if fresh:
        forget_images(cache)
    held = task.prepared
    if side != held.side or task.downsampling != "fourier":
        held = prepare(task.stack, cache, side=side, invert=task.invert, progress=progress)
    data = density_data(held.images, held.rotations, held.shifts, held.ctf, held.pixel, latents)
    steps = epochs * max(1, count // batch)
    return TrainConfig(
        task=DensityTask(data=data, model=model, size=batch, loss_in=loss, ctf=task.ctf, shift="exact"),
        optim=optim,
        steps=steps,
        seed=seed,
        micro=1,
        evaluate_every=max(1, steps // min(epochs, 10)),
        save_every=max(1, steps // min(epochs, 20)),
        log_every=max(1, min(100, steps // 20)),
    )


def forget_images(cache: str | os.PathLike) -> None:
    """Removes what `images.prepare` has left in a folder, and nothing else that may lie there."""
    broken_off = pathlib.Path(cache).glob(".part-*-images.npy")
    for path in (*broken_off, *(pathlib.Path(cache) / name for name in ("images.npy", "settings.json"))):
        path.unlink(missing_ok=True)


def header(cfg: TrainConfig) -> dict[str, Any]:
    """What the files of weights of such a training tell of themselves (`train.loop.fit`), for `network` to read."""
    return {"system": "cryostar", "phase": "density", "config": dataclasses.asdict(cfg.task.model)}


class Volumes(NamedTuple):
    """Maps of particles that stand for clusters and for steps along components.

    Attributes:
      names: of the maps, such as `vol_kmeans_000`.
    """

    names: tuple[str, ...]
    rows: np.ndarray


def chosen(found: Landscape) -> Volumes:
    """What maps are made of: the particles that stand for clusters, and then those for steps along components."""
    names, rows = [f"vol_kmeans_{number:03d}" for number in range(len(found.clusters.rows))], [found.clusters.rows]
    for axis, one in enumerate(found.traversals):
        names += [f"vol_pca_{axis + 1}_{number:03d}" for number in range(len(one.rows))]
        rows.append(one.rows)
    return Volumes(tuple(names), np.concatenate(rows))


def encoded(net: Density, data: DensityData, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """(n, k) float32 mean latents of particles by a network's own encoder, in their order."""
    if net.encoder is None:
        raise InputError("this density network has no encoder; its latents are those of the first phase")
    graphdef, leaves = nnx.split(net.encoder)
    encode = jax.jit(lambda leaves, images: nnx.merge(graphdef, leaves)(images / data.scale)[0])
    return by_batches(lambda images: encode(leaves, jnp.asarray(images, jnp.float32)), (data.images,), progress)


def network(path: str | os.PathLike) -> Density:
    """The density network of a file of weights."""
    cfg, tensors, _ = weights.read(path)
    if not isinstance(cfg, DensityConfig):
        raise InputError(f"{path}: weights of the first phase; maps need those of `jaxprot cryostar density`")
    return cast(Density, weights.assemble(cfg, tensors))


class Fit(NamedTuple):
    """How a map agrees with a model or with another map.

    Attributes:
      name: of the map.
      resolution: Å at which the Fourier shell correlation falls below a threshold.
      frequency: (s,) 1/Å.
      correlation: (s,) Fourier shell correlation.
    """

    name: str
    resolution: float
    frequency: np.ndarray
    correlation: np.ndarray


def map_model(volume: Volume, xyz: np.ndarray, electrons: np.ndarray, threshold: float = 0.5) -> Fit:
    """Agreement of a map with the beads of its conformation, drawn as sharp as the map's pixels allow."""
    sharp = 2 * float(volume.voxel.max())
    curve = map_model_fsc(volume, xyz, electrons, sharp)
    return Fit(volume.name, metrics.resolution(curve, threshold), curve.frequency, curve.correlation)


def map_map(first: Volume, second: Volume, threshold: float = 0.143) -> Fit:
    """Agreement of two maps on one grid."""
    curve = metrics.fsc(first.data, second.data, first.voxel)
    return Fit(first.name, metrics.resolution(curve, threshold), curve.frequency, curve.correlation)


def best(fits: Sequence[Fit]) -> str:
    """The finest resolution of several comparisons, in words."""
    finest = min(one.resolution for one in fits)
    return f"{finest:.2f} Å at best" if np.isfinite(finest) else "no agreement; train longer"


def table(fits: Sequence[Fit]) -> dict[str, np.ndarray]:
    """Columns of `fsc.csv`: a row for each shell of each map."""
    return {
        "volume": np.repeat([one.name for one in fits], [len(one.frequency) for one in fits]),
        "frequency_per_angstrom": np.round(np.concatenate([one.frequency for one in fits]), 6),
        "fsc": np.round(np.concatenate([one.correlation for one in fits]), 5),
    }


def matched(decode: Any, latents: np.ndarray, frames: np.ndarray, most: int = 5000, seed: int = 0) -> np.ndarray:
    """Particles of another run whose conformations are nearest to given ones.

    Args:
      decode: (b, k) latents to (b, N, 3) conformations in Å, of the other run.
      latents: (n, k) of the other run.
      frames: (v, N, 3) Å.
      most: so many latents are looked at, drawn at random.
      seed: of the draw.

    Returns:
      (v,) rows of the latents.
    """
    rows = np.random.default_rng(seed).permutation(len(latents))[:most]
    there = np.asarray(decode(latents[rows]), np.float64).reshape(len(rows), -1)
    wanted = np.asarray(frames, np.float64).reshape(len(frames), -1)
    squared = (there**2).sum(1)[None] - 2 * wanted @ there.T  # but for what is the same in a row
    return rows[squared.argmin(1)]


def volume_of(net: Density, latent: np.ndarray, pixel: float, name: str) -> Volume:
    """Map of one latent."""
    return dataclasses.replace(density.volume(net, latent, pixel), name=name)

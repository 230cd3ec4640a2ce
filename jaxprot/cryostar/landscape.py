"""The latents of all particles as a landscape: its main directions, its clusters, and what moves along them.

Traversals, clusters and their order are those of the published code (Nature Methods 2024,
doi 10.1038/s41592-024-02486-1), where the sign of a component is arbitrary.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.metrics import ShellCorrelation, fsc
from jaxprot.core.volume import Volume
from jaxprot.ops import gaussians

log = logging.getLogger(__name__)

Decode = Callable[[np.ndarray], np.ndarray]
"""Latents (b, k) to conformations (b, N, 3) in Å."""

_BATCH = 64
_MOST_UMAP = 50_000  # latents that UMAP is fitted to; the others are placed afterwards


@dataclasses.dataclass(frozen=True, eq=False)
class PCA:
    """Principal components of points.

    Attributes:
      mean: (k,) float64.
      components: (c, k) float64 orthonormal directions, of the largest variance first; the coefficient of largest size
        of each is positive.
      variance: (c,) float64 along each.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """(c,) share of the whole variance."""
        total = self.variance.sum()
        return self.variance / total if total > 0 else np.zeros_like(self.variance)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(n, c) coordinates of (n, k) points."""
        return (np.asarray(points, np.float64) - self.mean) @ self.components.T

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """(n, k) points of (n, c) coordinates."""
        return np.asarray(scores, np.float64) @ self.components + self.mean


class Traversal(NamedTuple):
    """Steps along a principal component.

    Attributes:
      points: (s, k) float64 latents on the axis of the component.
      rows: (s,) the particle nearest to each.
    """

    points: np.ndarray
    rows: np.ndarray


class Clusters(NamedTuple):
    """Groups of latents, neighbouring ones beside each other.

    Attributes:
      centres: (c, k) float64 means of the groups.
      rows: (c,) the particle nearest to each centre.
      labels: (n,) int64 group of each particle.
    """

    centres: np.ndarray
    rows: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """What `analyse` finds.

    Attributes:
      latents: (n, k) float32 in the order of the particles.
      pca: components.
      scores: (n, c) coordinates along the components.
      traversals: along the first components.
      clusters: groups.
      plane: (n, 2) places of the particles in a picture.
      plane_kind: `pca` or `umap`, what the plane is.
    """

    latents: np.ndarray
    pca: PCA
    scores: np.ndarray
    traversals: tuple[Traversal, ...]
    clusters: Clusters
    plane: np.ndarray
    plane_kind: str


def analyse(
    latents: np.ndarray,
    *,
    components: int = 3,
    points: int = 10,
    clusters: int = 10,
    umap: bool = False,
    seed: int = 0,
) -> Landscape:
    """Components, traversals and clusters of latents.

    Args:
      latents: (n, k), a row for each particle.
      components: traversals, at most as many as there are components.
      points: steps of each.
      clusters: groups, fewer where there are fewer different latents.
      umap: a plane by UMAP instead of the first two components, if the package is installed (extra `umap`).
      seed: of the clusters and of UMAP.

    Raises:
      InputError: no latents, some that are not finite, or numbers that `check_sizes` refuses.
    """
    check_sizes(components, points, clusters)
    latents = _checked(latents)
    fitted = pca(latents)
    scores = fitted.project(latents)
    kept = min(components, len(fitted.components))
    plane, kind = embed(latents, scores, umap=umap, seed=seed)
    return Landscape(
        latents=latents,
        pca=fitted,
        scores=scores,
        traversals=tuple(traverse(latents, fitted, axis, points, scores=scores) for axis in range(kept)),
        clusters=kmeans(latents, clusters, seed=seed),
        plane=plane,
        plane_kind=kind,
    )


def check_sizes(components: int, points: int, clusters: int) -> None:
    """Raises InputError for a number of traversals below 0, or of their steps or of groups below 1."""
    for name, value, least in (("components", components, 0), ("points", points, 1), ("clusters", clusters, 1)):
        if value < least:
            raise InputError(f"{value} {name}: give at least {least}")


def pca(points: np.ndarray) -> PCA:
    """All principal components of points (n, k)."""
    points = np.asarray(points, np.float64)
    mean = points.mean(0)
    # The covariance is k by k: latents have few dimensions, and particles are many.
    centred = points - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(points) - 1, 1))
    kept = min(points.shape[1], len(points))
    components = vectors[:, ::-1].T[:kept]
    largest = np.abs(components).argmax(1)
    components = components * np.where(components[np.arange(kept), largest] < 0, -1.0, 1.0)[:, None]
    return PCA(mean, components, np.maximum(values[::-1][:kept], 0))


def traverse(
    latents: np.ndarray,
    fitted: PCA,
    component: int,
    points: int = 10,
    ends: tuple[float, float] = (5.0, 95.0),
    *,
    scores: np.ndarray | None = None,
) -> Traversal:
    """Equal steps along one component, the others at 0, each with the particle nearest to it.

    Args:
      latents: (n, k).
      fitted: their components.
      component: from 0.
      points: steps.
      ends: percentiles of the coordinates along the component.
      scores: `fitted.project(latents)`, if it is there already.
    """
    scores = fitted.project(latents) if scores is None else scores
    place = np.zeros((points, len(fitted.components)))
    place[:, component] = np.linspace(*np.percentile(scores[:, component], ends), points)
    line = fitted.inverse(place)
    return Traversal(line, nearest(line, latents))


def nearest(points: np.ndarray, latents: np.ndarray) -> np.ndarray:
    """(m,) row of the latent (n, k) nearest to each of (m, k) points."""
    latents = np.asarray(latents, np.float64)
    return np.array([((latents - point) ** 2).sum(1).argmin() for point in np.asarray(points, np.float64)], np.int64)


def kmeans(latents: np.ndarray, clusters: int = 10, *, starts: int = 10, rounds: int = 10, seed: int = 0) -> Clusters:
    """Groups of latents by k-means (Lloyd's rounds from k-means++ starts), the tightest of several starts.

    Args:
      latents: (n, k).
      clusters: groups at most.
      starts: attempts.
      rounds: of each attempt at most.
      seed: of the starts.

    Returns:
      Groups without empty ones, in the order of a tree of their centres (average linkage). Where there are fewer
      different latents than groups were asked for, there are fewer groups, and a warning is logged.

    Raises:
      InputError: no latents, some that are not finite, or no clusters.
    """
    check_sizes(0, 1, clusters)
    points = np.asarray(_checked(latents), np.float64)
    # Where that many different ones are among the first some, the others need no look.
    head = np.unique(points[: 100 * clusters], axis=0)
    different = len(head) if len(head) >= clusters else len(np.unique(points, axis=0))
    if different < clusters:
        log.warning("%d different latents make %d clusters, not %d", different, different, clusters)
        clusters = different
    rng = np.random.default_rng(seed)
    best = min((_lloyd(points, clusters, rounds, rng) for _ in range(max(starts, 1))), key=lambda found: found[0])
    _, centres, labels = best
    held, labels = np.unique(labels, return_inverse=True)
    centres = centres[held]
    order = _tree_order(centres)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    centres = centres[order]
    return Clusters(centres, nearest(centres, points), place[labels.reshape(-1)])


def _lloyd(
    points: np.ndarray, clusters: int, rounds: int, rng: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray]:
    """(sum of squared distances, centres, labels)."""
    from scipy.cluster.vq import vq

    centres = points[rng.integers(len(points), size=1)]
    squared = ((points - centres[0]) ** 2).sum(1)
    while len(centres) < clusters:  # far points are likelier to be the next
        total = squared.sum()
        chosen = np.searchsorted(np.cumsum(squared), rng.random() * total, side="right") if total > 0 else 0
        new = points[min(int(chosen), len(points) - 1)]
        centres = np.concatenate([centres, new[None]])
        squared = np.minimum(squared, ((points - new) ** 2).sum(1))
    labels, distance = vq(points, centres)
    for _ in range(rounds):
        count = np.bincount(labels, minlength=clusters)
        sums = np.stack([np.bincount(labels, column, clusters) for column in points.T], 1)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
        old = labels
        labels, distance = vq(points, centres)
        if (labels == old).all():
            break
    return float((distance**2).sum()), centres, labels


def _tree_order(centres: np.ndarray) -> np.ndarray:
    from scipy.cluster import hierarchy

    if len(centres) < 3:
        return np.arange(len(centres))
    return hierarchy.leaves_list(hierarchy.linkage(centres, method="average")).astype(np.int64)


def embed(latents: np.ndarray, scores: np.ndarray, *, umap: bool = False, seed: int = 0) -> tuple[np.ndarray, str]:
    """Places of latents (n, k) in a plane: (n, 2) and what they are, `umap` or `pca`.

    Args:
      latents: (n, k).
      scores: (n, c) their coordinates along the principal components, which are the plane without UMAP.
      umap: ask for UMAP; without the package, or with too few latents, a warning is logged and the plane is that of the
        components.
      seed: of UMAP.
    """
    flat = np.concatenate([scores[:, :2], np.zeros((len(scores), max(0, 2 - scores.shape[1])))], 1)
    if not umap:
        return flat, "pca"
    if importlib.util.find_spec("umap") is None:
        log.warning("umap-learn is not installed (pip install 'jaxprot[umap]'); the picture shows two components")
        return flat, "pca"
    if len(latents) < 10:
        log.warning("%d latents are too few for UMAP; the picture shows two components", len(latents))
        return flat, "pca"
    reducer = importlib.import_module("umap").UMAP(random_state=seed, n_neighbors=min(15, len(latents) - 1))
    if len(latents) <= _MOST_UMAP:
        return np.asarray(reducer.fit_transform(latents), np.float64), "umap"
    some = np.sort(np.random.default_rng(seed).choice(len(latents), _MOST_UMAP, replace=False))
    reducer.fit(latents[some])
    return np.asarray(reducer.transform(latents), np.float64), "umap"


def mobility(decode: Decode, latents: np.ndarray, *, most: int | None = 5000, seed: int = 0) -> np.ndarray:
    """How far each bead moves over the particles: the root mean square deviation from its mean place.

    Nothing is superposed, since the poses hold all particles in one frame. Conformations are decoded some at a time.

    Args:
      decode: latents to conformations.
      latents: (n, k).
      most: particles to decode, drawn at random where there are more; None for all.
      seed: of the draw.

    Returns:
      (N,) float64 Å.
    """
    latents = _checked(latents)
    rows = np.arange(len(latents))
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    first = np.asarray(decode(latents[rows[:1]]), np.float64)[0]
    total, squares = np.zeros_like(first), np.zeros(len(first))
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        # One shape for all batches, so that a compiled decoder is compiled once.
        moves = np.asarray(decode(latents[np.resize(part, _BATCH)]), np.float64)[: len(part)] - first
        total += moves.sum(0)
        squares += (moves**2).sum((0, 2))
    mean = total / len(rows)
    return np.sqrt(np.maximum(squares / len(rows) - (mean**2).sum(1), 0))


def map_model_fsc(volume: Volume, xyz: np.ndarray, weight: np.ndarray, resolution: float) -> ShellCorrelation:
    """Fourier shell correlation of a map with the density of a model, without a mask.

    Args:
      volume: the map.
      xyz: (N, 3) atoms or beads in Å.
      weight: (N,) atomic numbers or electrons.
      resolution: Å, how sharp the model's density is (formula of `ops.gaussians.molmap`).
    """
    return fsc(volume.data, drawn(volume, xyz, weight, resolution), volume.voxel)


def drawn(volume: Volume, xyz: np.ndarray, weight: np.ndarray, resolution: float) -> np.ndarray:
    """The density of a model on the grid of a map; arguments as in `map_model_fsc`."""
    inside = np.isfinite(xyz).all(1)
    if not inside.any():
        raise InputError("the model has no atoms with coordinates; nothing to compare the map with")
    places = np.asarray(xyz, np.float64)[inside] - volume.origin  # in double precision, before the origin is lost
    made = _splat(
        jnp.asarray(places, jnp.float32), jnp.asarray(np.asarray(weight)[inside], jnp.float32),
        resolution=resolution, spacing=tuple(float(edge) for edge in volume.voxel), shape=tuple(volume.shape),
    )  # fmt: skip
    return np.asarray(made)


_splat = jax.jit(gaussians.molmap, static_argnames=("resolution", "spacing", "shape"))


def _checked(latents: np.ndarray) -> np.ndarray:
    latents = np.asarray(latents, np.float32)
    if latents.ndim != 2 or 0 in latents.shape:
        raise InputError(f"latents of shape {latents.shape}, expected (particles, dimensions)")
    bad = np.flatnonzero(~np.isfinite(latents).all(1))
    if len(bad):
        raise InputError(f"latents of particle row {bad[0] + 1} are not finite ({len(bad)} such rows)")
    return latents

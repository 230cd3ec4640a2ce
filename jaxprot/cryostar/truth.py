"""What was found of simulated particles, against their truth: conformations, and maps.

Distances are taken without superposition, since poses hold all particles in one frame. Beside the root mean square
stand the figures of the published code: the mean distance of residues, and the share of them within 3 Å.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.particles import ParticleStack, rotations_from_euler
from jaxprot.core.volume import Volume
from jaxprot.cryostar import landscape
from jaxprot.cryostar.gmm import SIGMA, Beads, pairs_of
from jaxprot.cryostar.losses import CLASH
from jaxprot.cryostar.maps import Fit, map_model
from jaxprot.ops.gaussians import SIGMA_FACTOR

_CHUNK = 256  # conformations at once
_RECALLED = 0.5  # Å within which a true conformation counts as found, after superposition
_FRAMES = 50  # of the truth that maps are compared with
_ENSEMBLE = 5000  # found conformations, at most, that are superposed on each true one
_SIDE = 64  # voxels to which maps are reduced to be compared with many conformations
_SAME = 1e-3  # by which elements of two rotation matrices may differ


class Truth(NamedTuple):
    """The truth of a stack of particles, by the beads of a reference.

    Attributes:
      frame: (n,) int64 conformation of each particle.
      path: (F, m, 3) float32 Å, the conformations.
      own: (m,) beads of the reference that the path has.
    """

    frame: np.ndarray
    path: np.ndarray
    own: np.ndarray

    def select(self, rows: np.ndarray) -> Truth:
        """Of some of the particles."""
        return self._replace(frame=self.frame[rows])


def read_truth(path: str | os.PathLike, beads: Beads, stack: ParticleStack | int) -> Truth:
    """The truth that `jaxprot cryostar simulate` writes (`truth.npz`).

    Residues are matched by chain, number and insertion code; where the file does not tell them, they are those of the
    reference in its order. Where it tells the poses, particles are matched by the numbers of their images and their
    poses compared, so that some of the particles, or others of their order, have their own truth.

    Args:
      path: of the file.
      beads: of the reference.
      stack: the particles, or how many there are.

    Raises:
      InputError: it cannot be read, or is of other particles or of another molecule.
    """
    path = pathlib.Path(path)
    try:
        archive: Any = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            frame, frames = archive["frame"].astype(np.int64), archive["path_ca"].astype(np.float32)
            told = all(name in archive for name in ("chain", "resid", "icode"))
            names = [archive[name].tolist() for name in ("chain", "resid", "icode")] if told else None
            angles = archive["angles"] if "angles" in archive else None
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not the truth of a simulation ({error})") from error
    lengths = {frames.shape[1] if frames.ndim == 3 else -1, *(len(one) for one in names or ())}
    right = frame.ndim == 1 and len(frame) and frames.ndim == 3 and frames.shape[2] == 3 and len(lengths) == 1
    if not right or frame.min() < 0 or frame.max() >= len(frames) or (angles is not None and len(angles) != len(frame)):
        raise InputError(
            f"{path}: not the truth of a simulation (particles {frame.shape}, conformations {frames.shape}, lists of "
            f"residues of {sorted(lengths)})"
        )
    frame = frame[_rows(path, len(frame), angles, stack)]
    if names is None:
        if frames.shape[1] != len(beads):
            raise InputError(f"{path}: {frames.shape[1]} residues, and the reference has {len(beads)}")
        return Truth(frame, frames, np.arange(len(beads)))
    place = {key: row for row, key in enumerate(zip(*names, strict=True))}
    keys = zip(beads.chain.tolist(), beads.resid.tolist(), beads.icode.tolist(), strict=True)
    common = np.array([(row, place[key]) for row, key in enumerate(keys) if key in place])
    if len(common) == 0:
        raise InputError(f"{path}: no residue (chain, number, insertion code) of the reference is among its residues")
    return Truth(frame, frames[:, common[:, 1]], common[:, 0])


def conformations(found: np.ndarray, latents: np.ndarray, beads: Beads, truth: Truth) -> dict[str, Any]:
    """How near the conformations of particles are to the true ones.

    Args:
      found: (n, N, 3) Å, of each particle.
      latents: (n, k) of each particle.
      beads: the N of the reference.
      truth: of the particles.

    Returns:
      `particles`, `residues`; `rmsd_mean` and `rmsd_median` over particles (Å), `distance_mean` (Å) and `within_3` over
      all residues; `spearman`, the largest absolute rank correlation of one of the first three principal components of
      the latents with the number of the true conformation; `recall`, the share of true conformations that some found
      one (of at most 5000, evenly chosen) comes within 0.5 Å of after superposition, and `nearest_mean`, the mean of
      these smallest distances (Å);
      `bond_deviation` (Å) and `clashes`, see `geometry`; and under `reference` the distances of the reference, as if
      it were the conformation of every particle.
    """
    scores = landscape.pca(latents).project(latents)[:, :3]
    # A component that does not vary has no rank.
    rank = np.nan_to_num([abs(float(metrics.spearman(one, truth.frame.astype(float)))) for one in scores.T])
    still = np.broadcast_to(beads.xyz[truth.own], (len(truth.frame), len(truth.own), 3))
    return {
        "particles": len(truth.frame),
        "residues": len(truth.own),
        **distances(found[:, truth.own], truth),
        "spearman": float(max(rank)),
        **_recall(found[:, truth.own], truth),
        **geometry(found, beads),
        "reference": distances(still, truth) | _recall(still[:1], truth),
    }


def _recall(found: np.ndarray, truth: Truth) -> dict[str, float]:
    nearest = nearest_after_superposition(found, truth.path)
    return {"recall": float((nearest < _RECALLED).mean()), "nearest_mean": float(nearest.mean())}


def distances(found: np.ndarray, truth: Truth) -> dict[str, float]:
    """Distances of conformations (n, m, 3) from the true ones, see `conformations`."""
    parts = np.split(np.arange(len(found)), range(_CHUNK, len(found), _CHUNK))
    off = np.concatenate([np.linalg.norm(found[rows] - truth.path[truth.frame[rows]], axis=-1) for rows in parts])
    rmsd = np.sqrt((off**2).mean(1))
    return {
        "rmsd_mean": float(rmsd.mean()),
        "rmsd_median": float(np.median(rmsd)),
        "distance_mean": float(off.mean()),
        "within_3": float((off < 3).mean()),
    }


def nearest_after_superposition(found: np.ndarray, path: np.ndarray, most: int = _ENSEMBLE) -> np.ndarray:
    """(F,) smallest root mean square distance (Å) of some found conformation from each true one, superposed.

    Args:
      found: (n, m, 3) Å, of which `most`, evenly chosen, are looked at.
      path: (F, m, 3) Å.
      most: see `found`.
    """
    some = found[np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))].astype(np.float64)
    some, true = (x - x.mean(1, keepdims=True) for x in (some, path.astype(np.float64)))
    squares = (some**2).sum((1, 2))
    out = np.empty(len(true))
    for row, one in enumerate(true):
        # Of the best rotation only the sum of the covariance's singular values is needed (Kabsch), with the sign of
        # its determinant: a mirror image is no superposition.
        covariance = np.einsum("nmi,mj->nij", some, one)
        values = np.linalg.svd(covariance, compute_uv=False)
        values[:, 2] *= np.sign(np.linalg.det(covariance))
        squared = squares + (one**2).sum() - 2 * values.sum(1)
        out[row] = np.sqrt(max(squared.min(), 0) / len(one))
    return out


def geometry(frames: np.ndarray, beads: Beads) -> dict[str, float]:
    """How well conformations (n, N, 3) in Å keep the geometry of the reference.

    Returns:
      `bond_deviation`, the root mean square deviation of neighbours' distances from those of the reference (Å), and
      `clashes`, pairs of residues closer than 4 Å that are not in the reference, per conformation.
    """
    pairs = pairs_of(beads)
    native = np.linalg.norm(np.diff(beads.xyz[pairs.connect], axis=1)[:, 0], axis=-1)
    squares, clashes = 0.0, 0
    for start in range(0, len(frames), _CHUNK):
        part = frames[start : start + _CHUNK]
        lengths = np.linalg.norm(part[:, pairs.connect[:, 0]] - part[:, pairs.connect[:, 1]], axis=-1)
        squares += float(((lengths - native) ** 2).sum(dtype=np.float64))
        apart = ((part[:, pairs.clash[:, 0]] - part[:, pairs.clash[:, 1]]) ** 2).sum(-1)
        clashes += int((apart < CLASH**2).sum())
    bonds = max(len(frames) * len(native), 1)
    return {"bond_deviation": float(np.sqrt(squares / bonds)), "clashes": clashes / len(frames)}


def _rows(path: pathlib.Path, count: int, angles: np.ndarray | None, stack: ParticleStack | int) -> np.ndarray:
    """Row of the truth of each particle."""
    particles = stack if isinstance(stack, int) else len(stack)
    if angles is None or isinstance(stack, int) or stack.angles is None or stack.image_names is None:
        if count != particles:
            raise InputError(f"{path}: of {count} particles, and this run has {particles}")
        return np.arange(count)
    # Names are number@path, numbers from 1.
    rows = np.array([int(name.partition("@")[0]) - 1 if "@" in name else 0 for name in stack.image_names.tolist()])
    if rows.max() < count:
        # Angles are compared as rotations: of one there are several triples.
        mine, theirs = (rotations_from_euler(one) for one in (stack.angles, angles[rows]))
        wrong = np.flatnonzero(np.abs(mine - theirs).max((1, 2)) > _SAME)
        if len(wrong) == 0:
            return rows
        raise InputError(
            f"{path}: of other particles: image {rows[wrong[0]] + 1} (row {wrong[0] + 1} of {stack.name}) has another "
            "pose there; give the truth.npz of the same simulation"
        )
    raise InputError(f"{path}: of {count} particles, and {stack.name} names image {rows.max() + 1}")


class MapTruth(NamedTuple):
    """Maps against the true conformations of the particles that they are of.

    Attributes:
      fits: agreement of each map with the density of its particle's true conformation.
      nmse: (v,) squared difference from that density by its square, where both have the frequencies that are modelled
        (of at most 64 voxels, without the mean), and the map is scaled by least squares.
      frame: (v,) true conformation of each particle.
      nearest: (v,) the true conformation, of those looked at, whose density each map agrees with best.
      off: (v,) Å, root mean square distance between the two conformations.
    """

    fits: tuple[Fit, ...]
    nmse: np.ndarray
    frame: np.ndarray
    nearest: np.ndarray
    off: np.ndarray

    def table(self) -> dict[str, np.ndarray]:
        """Columns of `true_resolution.csv`."""
        resolution = np.array([fit.resolution for fit in self.fits], np.float64)
        return {
            "volume": np.array([fit.name for fit in self.fits]),
            "fsc_0.5_angstrom": np.round(np.where(np.isfinite(resolution), resolution, np.nan), 3),
            "nmse": np.round(self.nmse, 4),
            "true_frame": self.frame,
            "best_frame": self.nearest,
            "best_frame_off_angstrom": np.round(self.off, 3),
        }

    @property
    def moves(self) -> float:
        """Rank correlation of the conformations that maps of clusters agree best with and the true ones.

        Clusters are spread over all that moves, where steps along a weak component stay in one place. NaN for one map.
        """
        some = np.array([fit.name.startswith("vol_kmeans") for fit in self.fits])
        return float(metrics.spearman(self.nearest[some].astype(float), self.frame[some].astype(float)))


def maps(
    volumes: Iterable[Volume], rows: np.ndarray, truth: Truth, electrons: np.ndarray, mask: float = 1.0
) -> MapTruth:
    """Compares maps with the densities of true conformations, one map after the other.

    Args:
      volumes: (v) maps on one grid.
      rows: (v,) particle that each is of.
      truth: of the particles.
      electrons: (N,) of the beads of the reference, drawn 2 Å wide as `simulate` does.
      mask: radius of the frequencies that the maps have, 1 being the Nyquist frequency.

    Raises:
      InputError: no maps.
    """
    weight, frame = np.asarray(electrons)[truth.own], truth.frame[rows]
    some = np.unique(np.linspace(0, len(truth.path) - 1, min(_FRAMES, len(truth.path))).astype(int))
    wide, densities = SIGMA / SIGMA_FACTOR, None
    fits, errors, nearest = [], [], []
    for volume, one in zip(volumes, frame, strict=True):

        def density(number: int, grid: Volume = volume) -> np.ndarray:
            return _reduced(landscape.drawn(grid, truth.path[number], weight, wide), mask)

        if densities is None:
            densities = np.stack([density(number) for number in some])
            densities /= np.linalg.norm(densities, axis=1, keepdims=True)
        fits.append(map_model(volume, truth.path[one], weight))
        data, true = _reduced(volume.data, mask), density(one)
        nearest.append(some[int((densities @ data).argmax())])
        scale = float(data @ true) / max(float(data @ data), np.finfo(np.float64).tiny)
        errors.append(float(metrics.nmse(true, scale * data)))
    if not fits:
        raise InputError("no maps to compare with the truth")
    found = np.array(nearest)
    off = np.sqrt(((truth.path[found] - truth.path[frame]) ** 2).sum(-1).mean(-1))
    return MapTruth(tuple(fits), np.array(errors), frame, found, off)


def _reduced(data: np.ndarray, mask: float) -> np.ndarray:
    """Voxels of a map with the frequencies within the mask alone, of at most 64 along an edge, without the mean."""
    side = data.shape[0]
    small = min(side, _SIDE)
    start = side // 2 - small // 2
    part = slice(start, start + small)
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(np.asarray(data, np.float64))))[part, part, part]
    line = np.arange(small) - small // 2
    squared = sum(np.square(one) for one in np.meshgrid(line, line, line, indexing="ij", sparse=True))
    spectrum = np.where((squared <= (mask * side / 2) ** 2) & (squared > 0), spectrum, 0)
    return np.fft.ifftn(np.fft.ifftshift(spectrum)).real.ravel()


def report(figures: dict[str, Any]) -> str:
    """The figures of `conformations` as a table in Markdown, beside those of the reference."""
    labels = {
        "rmsd_mean": "RMSD, mean over particles (Å)",
        "rmsd_median": "RMSD, median over particles (Å)",
        "distance_mean": "distance, mean over residues (Å)",
        "within_3": "residues within 3 Å (share)",
        "spearman": "rank correlation of a component with the frame",
        "recall": "true conformations within 0.5 Å of a found one, superposed (share)",
        "nearest_mean": "mean of these smallest distances (Å)",
        "bond_deviation": "deviation of neighbours' distances (Å)",
        "clashes": "clashes per structure",
    }
    what = f"{figures['particles']} particles, {figures['residues']} residues"
    lines = [f"| {what} | found | reference |", "|---|---|---|"]
    for name, label in labels.items():
        held = figures["reference"].get(name)
        lines.append(f"| {label} | {figures[name]:.3f} | {'-' if held is None else f'{held:.3f}'} |")
    return "\n".join(lines)

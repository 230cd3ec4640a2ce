"""Particle stacks of a molecule whose motion is known, to test a reconstruction with.

Beads are Gaussians as in the model of cryoSTAR (Nature Methods 2024, doi 10.1038/s41592-024-02486-1): projected with
uniform rotations and in-plane shifts, filtered by the contrast transfer function, in white noise.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxprot.core.errors import InputError
from jaxprot.core.particles import (
    ArrayImages,
    Ctf,
    Optics,
    ParticleStack,
    euler_from_rotations,
    rotations_from_euler,
)
from jaxprot.core.structure import Structure
from jaxprot.cryostar import ctf as optics
from jaxprot.cryostar.gmm import SIGMA, Beads, beads_of
from jaxprot.cryostar.results import write_models
from jaxprot.io.outputs import RunDirectory, atomic_path
from jaxprot.io.particles import write_particles
from jaxprot.io.stacks import Mode, write_stack
from jaxprot.io.trajectories import Trajectory
from jaxprot.ops import fourier, gaussians, rigid
from jaxprot.ops.elastic import ANM_CUTOFF

_AT_ONCE = 1 << 22  # numbers of the profiles of the beads that are projected together
_CHUNK = 256  # images made by one call
_MOST_MODES = 4000  # beads whose normal modes are looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What a simulated stack looks like; the defaults are an easy one.

    Attributes:
      side: pixels along the edge of an image.
      pixel: Å.
      snr: variance of the signal by that of the noise, over the whole stack; infinite for images without noise.
      shift_sd: standard deviation in Å of the shifts along x and y, cut at three of them.
      defocus: smallest and largest defocus in Å (underfocus).
      astigmatism: largest difference of the two defoci in Å.
      voltage: kV.
      cs: spherical aberration in mm.
      amplitude: amplitude contrast, 0 to 1.
      phase: shift by a phase plate in degrees.
      bfactor: of the envelope in Å².
      sigma: standard deviation of a bead in Å.
      version: of the contrast transfer function, see `ctf.transfer`.
    """

    side: int = 64
    pixel: float = 2.0
    snr: float = 0.1
    shift_sd: float = 2.0
    defocus: tuple[float, float] = (10_000.0, 25_000.0)
    astigmatism: float = 1000.0
    voltage: float = 300.0
    cs: float = 2.7
    amplitude: float = 0.1
    phase: float = 0.0
    bfactor: float = 0.0
    sigma: float = SIGMA
    version: optics.Version = "v2"

    def __post_init__(self):
        low, high = self.defocus
        rules = {
            "side must be at least 4": self.side >= 4,
            "pixel, snr and sigma must be positive": min(self.pixel, self.snr, self.sigma) > 0,
            "shift_sd, astigmatism and bfactor must not be negative": min(self.shift_sd, self.astigmatism, self.bfactor)
            >= 0,
            "defocus must be a smaller and a larger number": low <= high,
            "voltage must be 10 to 3000 kV": 10 <= self.voltage <= 3000,
            "amplitude must be 0 to 1": 0 <= self.amplitude <= 1,
        }
        wrong = [rule for rule, holds in rules.items() if not holds]  # NaN holds to no rule
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
    """Conformations of one molecule, in an order if they have one.

    Attributes:
      beads: residues; their coordinates are those of the first frame.
      frames: (F, N, 3) float32 Å; the mean over frames and beads is the origin, which is the middle of the images.
    """

    beads: Beads
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)


class Simulated(NamedTuple):
    """A stack of particles and what is true of it.

    Attributes:
      images: (n, D, D) float32; the noise has variance 1 (without noise, the signal has).
      angles: (n, 3) float64 rot, tilt, psi in degrees (RELION).
      shifts: (n, 2) float64 x, y in Å by which the content has to be moved to be centred (rlnOrigin).
      ctf: of (n,) float32 arrays.
      frame: (n,) int64 conformation of each particle.
      config: sizes.
    """

    images: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray
    ctf: optics.CTFParams
    frame: np.ndarray
    config: SimulationConfig


def ensemble_of(source: Structure | Trajectory, *, align: bool = False) -> Ensemble:
    """Beads of a trajectory's frames, or of a structure as the only frame.

    Args:
      source: the frames (`io.trajectories.from_models` makes some of a file of several models).
      align: superpose the beads of all frames, for molecules that tumble.

    Raises:
      InputError: nothing to make beads of.
    """
    structure, frames = (
        (source.structure, source.frames) if isinstance(source, Trajectory) else (source, source.xyz[None])
    )
    beads = beads_of(structure)
    # `beads_of` says which residues count and in which order, but not the atoms: numbers as coordinates tell them.
    number = np.zeros((structure.n_atoms, 3), np.float32)
    number[:, 0] = np.where(np.isfinite(structure.xyz).all(1), np.arange(structure.n_atoms), np.nan)
    rows = beads_of(dataclasses.replace(structure, xyz=number)).xyz[:, 0].astype(np.int64)
    xyz = frames[:, rows]
    if align:
        xyz = np.asarray(jax.jit(rigid.align_frames)(jnp.asarray(xyz)))
    return _centred(beads, xyz)


def morph(first: Structure, second: Structure, frames: int = 20, *, align: bool = True) -> Ensemble:
    """Straight lines between two conformations.

    Half-way, parts that turn against each other are compressed; no physics is in it.

    Args:
      first: conformation at the start.
      second: conformation at the end; residues are matched by chain, number and insertion code, others are left out.
      frames: number of conformations, both ends included.
      align: superpose the second on the first.

    Raises:
      InputError: fewer than three residues in common, or fewer than 2 frames.
    """
    if frames < 2:
        raise InputError(f"{frames} frames of a morph; at least 2 are needed")
    start, end = beads_of(first), beads_of(second)
    place = {key: row for row, key in enumerate(_keys(end))}
    common = [(row, place[key]) for row, key in enumerate(_keys(start)) if key in place]
    if len(common) < 3:
        raise InputError(
            f"{first.name} and {second.name}: {len(common)} residues in common (by chain, number and insertion code); "
            "give both the same chain names and numbers"
        )
    left, right = np.array(common).T
    beads = _rows(start, left)
    target = jnp.asarray(end.xyz[right])
    if align:
        target = jax.jit(rigid.superposed)(target, jnp.asarray(beads.xyz))
    share = np.linspace(0, 1, frames)[:, None, None]
    return _centred(beads, (1 - share) * beads.xyz + share * np.asarray(target))


def along_modes(structure: Structure, frames: int = 20, *, modes: int = 1, amplitude: float = 4.0) -> Ensemble:
    """A structure moved along its lowest normal modes, one after the other, each from one end to the other.

    Args:
      structure: the middle of every mode.
      frames: conformations in all.
      modes: how many.
      amplitude: root mean square displacement of the beads at either end in Å; of stiffer modes less, as heat would
        move them.

    Raises:
      InputError: fewer frames than two for each mode, or too few beads for so many modes.
    """
    beads = beads_of(structure)
    if modes < 1 or frames < 2 * modes:
        raise InputError(f"{frames} frames along {modes} modes; give at least 2 for each of 1 mode or more")
    values, shapes = normal_modes(beads.xyz, modes)
    reach = amplitude * np.sqrt(values[0] / values) * np.sqrt(len(beads))
    parts = [
        np.linspace(-reach[mode], reach[mode], len(part))[:, None, None] * shapes[None, :, :, mode]
        for mode, part in enumerate(np.array_split(np.arange(frames), modes))
    ]
    return _centred(beads, beads.xyz[None] + np.concatenate(parts))


def placed(structure: Structure, ensemble: Ensemble) -> Structure:
    """All atoms of a structure, superposed on the conformation of an ensemble that is most like it.

    It is the reference for a reconstruction: the ensemble has its beads alone.

    Raises:
      InputError: fewer than three residues of the ensemble are in the structure.
    """
    own = beads_of(structure)
    place = {key: row for row, key in enumerate(_keys(own))}
    common = [(place[key], row) for row, key in enumerate(_keys(ensemble.beads)) if key in place]
    if len(common) < 3:
        raise InputError(f"{structure.name}: {len(common)} residues of the simulated ones; give the same molecule")
    left, right = np.array(common).T
    mobile, targets = jnp.asarray(own.xyz[left]), jnp.asarray(ensemble.frames[:, right])
    off = jax.jit(jax.vmap(lambda target: rigid.rmsd(mobile, target)))(targets)
    rotation, translation = jax.jit(rigid.superpose)(mobile, targets[int(jnp.argmin(off))])
    moved = rigid.apply(rotation, translation, jnp.asarray(structure.xyz))
    return dataclasses.replace(structure, xyz=np.asarray(moved, np.float32))


def normal_modes(xyz: np.ndarray, count: int, cutoff: float = ANM_CUTOFF) -> tuple[np.ndarray, np.ndarray]:
    """Softest motions of the anisotropic network (Biophys. J. 80:505, doi 10.1016/S0006-3495(01)76033-X).

    As `ops.elastic.anm_hessian`, but sparse and in double precision: seconds for a thousand beads, minutes for 4000.

    Args:
      xyz: (N, 3) in Å.
      count: modes, rigid motions not counted.
      cutoff: longest spring in Å.

    Returns:
      (count,) eigenvalues in ascending order in units of the spring constant, and (N, 3, count) modes of length 1.

    Raises:
      InputError: fewer modes than asked for, parts that no spring holds, or more than 4000 beads.
    """
    import scipy.sparse
    import scipy.sparse.linalg
    from scipy.spatial import KDTree

    xyz, n = np.asarray(xyz, np.float64), len(xyz)
    if count < 1 or 3 * n - 6 < count:
        raise InputError(f"{count} normal modes of {n} beads; there are {max(3 * n - 6, 0)}")
    if n > _MOST_MODES:
        raise InputError(
            f"normal modes of {n} beads; at most {_MOST_MODES} (take some chains, a morph or a trajectory)"
        )
    i, j = KDTree(xyz).query_pairs(cutoff, output_type="ndarray").T
    difference = xyz[i] - xyz[j]
    squared = (difference**2).sum(1)
    apart = squared > 1e-6
    i, j, difference, squared = i[apart], j[apart], difference[apart], squared[apart]
    blocks = difference[:, :, None] * difference[:, None] / squared[:, None, None]
    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([j, i, i, j])
    signs = np.repeat([-1.0, -1.0, 1.0, 1.0], len(i))
    axes = np.arange(3)
    hessian = scipy.sparse.coo_array(
        (
            (signs[:, None, None] * np.tile(blocks, (4, 1, 1))).ravel(),
            (
                np.broadcast_to(3 * rows[:, None, None] + axes[:, None], (len(rows), 3, 3)).ravel(),
                np.broadcast_to(3 * columns[:, None, None] + axes, (len(rows), 3, 3)).ravel(),
            ),
        ),
        shape=(3 * n, 3 * n),
    ).tocsc()
    stiffness = max(hessian.diagonal().mean(), 1e-6)
    wanted = count + 6
    if 3 * n <= max(2 * wanted, 60):
        values, vectors = np.linalg.eigh(hessian.toarray())
        values, vectors = values[:wanted], vectors[:, :wanted]
    else:
        # A shift below zero keeps the matrix that is inverted regular in spite of the rigid motions; the symmetric
        # order of elimination is several times faster than the default one.
        shift = 1e-5 * stiffness
        shifted = hessian + shift * scipy.sparse.eye_array(3 * n, format="csc")
        options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        solve = scipy.sparse.linalg.splu(shifted.tocsc(), **options).solve
        inverse: Any = scipy.sparse.linalg.LinearOperator((3 * n, 3 * n), matvec=solve, dtype=np.float64)
        start = np.random.default_rng(0).normal(size=3 * n)  # a fixed one: equal input, equal output
        values, vectors = scipy.sparse.linalg.eigsh(hessian, wanted, sigma=-shift, OPinv=inverse, which="LM", v0=start)
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    if values[6] < 1e-8 * stiffness:
        raise InputError(f"parts of the model hang loose: springs of {cutoff:g} Å do not reach them; leave them out")
    return values[6:], vectors[:, 6:].reshape(n, 3, count)


def simulate(
    frames: Float[np.ndarray, "f m 3"],
    amplitudes: Float[np.ndarray, "m"],
    n: int,
    config: SimulationConfig | None = None,
    *,
    key: jax.Array,
    weights: Float[np.ndarray, "f"] | None = None,
) -> Simulated:
    """Images of conformations drawn at random.

    The same key gives the same particles whatever `snr` is, and the first particles of a longer stack are those of a
    shorter one but for the scale. Some hundred images are made at a time; beside them only the result is in memory
    (4 n D² bytes).

    Args:
      frames: Å; the origin is the middle of the images.
      amplitudes: heights of the beads (electrons).
      n: particles.
      config: sizes.
      key: of all random numbers.
      weights: how often each frame occurs, in any unit; None for all alike.

    Raises:
      InputError: no particles, weights or coordinates that cannot be, or beads outside the images.
    """
    config = SimulationConfig() if config is None else config
    frames = np.asarray(frames, np.float32)
    share = np.ones(len(frames)) if weights is None else np.asarray(weights, np.float64)
    if n < 1 or frames.ndim != 3 or 0 in frames.shape or not np.isfinite(frames).all():
        raise InputError(f"{n} particles of conformations {frames.shape}: give at least one of each, without NaN")
    if share.shape != frames.shape[:1] or not (np.isfinite(share).all() and share.min() >= 0 and share.sum() > 0):
        raise InputError(
            f"weights {share.shape} of {len(frames)} conformations: give one each, not negative, not all 0"
        )
    reach = float(np.linalg.norm(frames, axis=-1).max())
    half = config.side // 2 * config.pixel
    if reach > half:
        raise InputError(
            f"beads up to {reach:.0f} Å from the origin leave images of {config.side} pixels of {config.pixel:g} Å; "
            f"centre the model, or take a side of {2 * int(np.ceil(1.2 * reach / config.pixel))}"
        )
    drawn = _draw(key, jnp.arange(n), jnp.asarray(np.log(np.maximum(share, 1e-30)), jnp.float32), config)
    frame = np.asarray(drawn.frame, np.int64)
    angles = euler_from_rotations(np.asarray(drawn.rotation, np.float64))
    # Those that the file gives, to its last digit.
    rotations = rotations_from_euler(angles).astype(np.float32)
    images = np.empty((n, config.side, config.side), np.float32)
    places, heights = jnp.asarray(frames), jnp.asarray(amplitudes, jnp.float32)
    total = square = 0.0
    rows = np.arange(n)
    chunks = [rows[start : start + _CHUNK] for start in range(0, n, _CHUNK)]
    for part in chunks:
        held = np.resize(part, min(_CHUNK, n))  # the last chunk has the shape of the others
        which = _Drawn(*(value[held] for value in (drawn.frame, rotations, drawn.shift)), _rows_of(drawn.ctf, held))
        made = np.asarray(_project(places, heights, which, config))[: len(part)]
        images[part] = made
        total += made.sum(dtype=np.float64)
        square += (made.astype(np.float64) ** 2).sum()
    variance = square / images.size - (total / images.size) ** 2
    if not variance > 0:
        raise InputError("the images have no signal; are all amplitudes 0?")
    noise = np.isfinite(config.snr)
    scale = np.float32(np.sqrt((config.snr if noise else 1.0) / variance))
    for part in chunks:
        images[part] *= scale
        if noise:
            images[part] += np.asarray(_noise(key, np.resize(part, min(_CHUNK, n)), config.side))[: len(part)]
    return Simulated(images, angles, -np.asarray(drawn.shift, np.float64), drawn.ctf, frame, config)


class _Drawn(NamedTuple):
    """Of each particle; shifts are those of the content, x and y in Å."""

    frame: Any
    rotation: Any
    shift: Any
    ctf: optics.CTFParams


@functools.partial(jax.jit, static_argnames="config")
def _draw(key: jax.Array, index: Int[Array, "n"], logits: Float[Array, "f"], config: SimulationConfig) -> _Drawn:
    def one(i: Array) -> _Drawn:
        frame, turn, move, focus, astigmatic, angle = jax.random.split(jax.random.fold_in(key, 2 * i), 6)
        shift = config.shift_sd * jnp.clip(jax.random.normal(move, (2,)), -3, 3)
        middle = jax.random.uniform(focus, minval=config.defocus[0], maxval=config.defocus[1])
        apart = config.astigmatism * jax.random.uniform(astigmatic)
        params = optics.CTFParams(
            middle, middle - apart, jnp.pi * jax.random.uniform(angle),
            *map(jnp.float32, (config.voltage, config.cs, config.amplitude, np.radians(config.phase), config.bfactor)),
        )  # fmt: skip
        return _Drawn(jax.random.categorical(frame, logits), _uniform_rotation(turn), shift, params)

    return jax.vmap(one)(index)


def _uniform_rotation(key: jax.Array) -> Float[Array, "3 3"]:
    """From a quaternion on the sphere."""
    q = jax.random.normal(key, (4,))
    w, x, y, z = q / jnp.linalg.norm(q)
    return jnp.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


@functools.partial(jax.jit, static_argnames="config")
def _project(
    frames: Float[Array, "f m 3"], amplitudes: Float[Array, "m"], drawn: _Drawn, config: SimulationConfig
) -> Float[Array, "n y x"]:
    # The origin is pixel side // 2 for odd sides too, as RELION and the transforms have it.
    line = jnp.asarray(gaussians.grid_line(config.side, config.pixel, published=False), jnp.float32)

    def one(particle: _Drawn) -> Array:
        xy = frames[particle.frame] @ particle.rotation[:2].T + particle.shift[None]
        image = gaussians.project(xy, amplitudes, config.sigma, line)
        return fourier.filtered(image, optics.transfer(particle.ctf, config.side, config.pixel, config.version))

    batch = max(1, min(64, _AT_ONCE // (config.side * max(frames.shape[1], config.side))))
    return jax.lax.map(one, drawn, batch_size=batch)


@functools.partial(jax.jit, static_argnames="side")
def _noise(key: jax.Array, index: Int[Array, "n"], side: int) -> Float[Array, "n y x"]:
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, 2 * i + 1), (side, side)))(index)


def _rows_of(params: optics.CTFParams, rows: np.ndarray) -> optics.CTFParams:
    return optics.CTFParams(*(value[rows] for value in params))


def stack_of(simulated: Simulated, file: str = "particles.mrcs") -> ParticleStack:
    """The images with poses and CTF as in a file; `file` is the name of the stack that the images are written to."""
    config, n = simulated.config, len(simulated.images)
    params = simulated.ctf
    group = np.zeros(n, np.int64)
    return ParticleStack(
        images=ArrayImages(simulated.images),
        shifts=simulated.shifts,
        optics_group=group,
        optics=Optics(names=("opticsGroup1",), pixel_size=np.array([config.pixel]), side=np.array([config.side])),
        angles=simulated.angles,
        ctf=Ctf(
            defocus_u=np.asarray(params.defocus_u),
            defocus_v=np.asarray(params.defocus_v),
            angle=np.degrees(np.asarray(params.angle)),
            voltage=np.full(n, config.voltage),
            cs=np.full(n, config.cs),
            amplitude_contrast=np.full(n, config.amplitude),
            phase_shift=np.full(n, config.phase),
            b_factor=np.full(n, config.bfactor),
            scale=np.ones(n),
        ),
        image_names=np.array([f"{row + 1:06d}@{file}" for row in range(n)]),
        name=pathlib.Path(file).stem,
    )


def write_simulation(
    simulated: Simulated,
    ensemble: Ensemble,
    folder: str | os.PathLike,
    *,
    mode: Mode = 12,
    overwrite: bool = False,
) -> list[str]:
    """Writes a stack and its truth; the STAR file comes last, so that a folder that has it is complete.

    `truth.npz` holds `frame` (n,), `path_ca` (F, N, 3) Å, `amplitudes`, `res_name`, `resid`, `icode`, `chain` (N,).

    Args:
      simulated: images.
      ensemble: what they were made of.
      folder: made if it is not there.
      mode: numbers of the stack, 12 for 16 bits, 2 for 32.
      overwrite: allow a folder that holds something.

    Returns:
      Names of the files: `particles.mrcs`, `truth.npz`, `ensemble.pdb` (or `.cif`), `particles.star`.

    Raises:
      InputError: images that the mode cannot hold.
      OutputError: the folder holds something, or a file cannot be written.
    """
    home = RunDirectory(folder, overwrite).folder()
    (home / "particles.star").unlink(missing_ok=True)
    write_stack(simulated.images, home / "particles.mrcs", simulated.config.pixel, mode)
    beads = ensemble.beads
    with atomic_path(home / "truth.npz") as temporary:
        np.savez_compressed(
            temporary,
            frame=simulated.frame,
            angles=simulated.angles,
            path_ca=ensemble.frames,
            amplitudes=beads.electrons,
            res_name=beads.res_name,
            resid=beads.resid,
            icode=beads.icode,
            chain=beads.chain,
        )
    model = write_models(ensemble.frames, beads, home / "ensemble.pdb")
    write_particles(stack_of(simulated), home / "particles.star")
    return ["particles.mrcs", "truth.npz", model.name, "particles.star"]


def _centred(beads: Beads, frames: np.ndarray) -> Ensemble:
    frames = np.asarray(frames, np.float64)
    frames = (frames - frames.mean((0, 1))).astype(np.float32)
    return Ensemble(dataclasses.replace(beads, xyz=frames[0]), frames)


def _keys(beads: Beads) -> list[tuple[str, int, str]]:
    return list(zip(beads.chain.tolist(), beads.resid.tolist(), beads.icode.tolist(), strict=True))


def _rows(beads: Beads, rows: np.ndarray) -> Beads:
    fields = [field.name for field in dataclasses.fields(Beads) if field.name != "name"]
    return dataclasses.replace(beads, **{field: getattr(beads, field)[rows] for field in fields})

"""Phase 1 of cryoSTAR: training of the auto-encoder that gives each particle its conformation."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.particles import ParticleStack
from jaxprot.cryostar import gmm, losses
from jaxprot.cryostar.config import VAEConfig
from jaxprot.cryostar.ctf import CTFParams, Version, half_transfer
from jaxprot.cryostar.gmm import Beads, Pairs
from jaxprot.cryostar.images import Downsampling, Prepared, prepare
from jaxprot.cryostar.model import VAE, along_modes, displaced
from jaxprot.io.particles import read_particles
from jaxprot.io.structures import read_structure
from jaxprot.ops import fourier, gaussians
from jaxprot.train.data import Batch, ShuffledBatches
from jaxprot.train.task import Mean

log = logging.getLogger(__name__)

_RESIDENT = 4e9  # bytes of images up to which they are kept on the device
_CHUNK = 256  # images at once where the whole set is passed through
_SETTLED = 1e-3  # Å², mean squared displacement below which the initialisation ends
_SHELLS = 2  # frequencies along an axis, at least, that a low-pass filter must leave
_REMEMBERED = 20  # steps over which that mean is taken


class Steps(nnx.Variable):
    """Training steps done."""


class ConformationModel(VAE):
    """The auto-encoder with what else is trained or counted.

    Args:
      cfg: sizes.
      start: widths (Å) and amplitudes of the beads, to train them as well; None holds them.
      rngs: only `params` is drawn.
    """

    def __init__(self, cfg: VAEConfig, start: tuple[np.ndarray, np.ndarray] | None = None, *, rngs: nnx.Rngs):
        super().__init__(cfg, rngs=rngs)
        self.steps = Steps(jnp.zeros((), jnp.int32))
        self.training = True
        if start is not None:
            self.sigma, self.amplitude = (nnx.Param(jnp.asarray(values, jnp.float32)) for values in start)


class Optics(NamedTuple):
    """What images are compared by, the same for all particles.

    Attributes:
      side: pixels.
      pixel: Å.
      version: of the CTF.
      low_pass: Å beyond which nothing counts; None for no limit.
      mask: radius of the round window in which images are compared, 1 being half of the width.
      shift: how images are centred: by `exact` phases, or `compat`, the published interpolation.
    """

    side: int
    pixel: float
    version: Version = "v2"
    low_pass: float | None = None
    mask: float = 0.9375
    shift: fourier.Shift = "exact"

    @property
    def line(self) -> np.ndarray:
        """(D,) Å, coordinates of pixels; odd sides have the published origin with the published shift."""
        return gaussians.grid_line(self.side, self.pixel, self.shift == "compat").astype(np.float32)

    @property
    def window(self) -> np.ndarray:
        """(D, D) bool."""
        return fourier.window(self.side, self.mask)

    def passed(self) -> np.ndarray:
        """(D, D // 2 + 1) float32, 1 for frequencies that count, for `ops.fourier.half_filtered`."""
        if self.low_pass is None:
            return np.ones((self.side, self.side // 2 + 1), np.float32)
        whole = fourier.low_pass(self.side, self.pixel, self.low_pass)
        return np.fft.ifftshift(whole)[:, : self.side // 2 + 1].astype(np.float32)

    def targets(self, images: Float[Array, "n d d"], shifts: Float[Array, "n 2"]) -> Float[Array, "n d d"]:
        """Observed images, centred, filtered and `losses.normalised`."""
        if self.shift == "compat":
            images = fourier.translate_bilinear(images, shifts)
        else:
            images = fourier.translate(images, shifts)
        if self.low_pass is not None:
            images = fourier.half_filtered(images, jnp.asarray(self.passed())[None])
        return losses.normalised(images, jnp.asarray(self.window))

    def predicted(
        self,
        structures: Float[Array, "n m 3"],
        rotations: Float[Array, "n 3 3"],
        ctf: CTFParams,
        amplitude: Float[Array, "m"],
        sigma: Float[Array, "m"] | float,
    ) -> Float[Array, "n d d"]:
        """Images of structures at their poses, with CTF and filter.

        Args:
          structures: beads in Å.
          rotations: of the poses.
          ctf: of (n,) arrays.
          amplitude: heights of the beads.
          sigma: their widths in Å.
        """
        seen = jnp.einsum("nij,nmj->nmi", rotations[:, :2], structures)
        line = jnp.asarray(self.line)
        drawn = jax.vmap(lambda places: gaussians.project(places, amplitude, sigma, line))(seen)
        weight = half_transfer(ctf, self.side, self.pixel, self.version) * jnp.asarray(self.passed())[None]
        return fourier.half_filtered(drawn, weight)


class Restraints(NamedTuple):
    """Pairs of beads and their distances in the reference in Å, see `gmm.Pairs`."""

    pairs: Pairs
    connect: np.ndarray
    elastic: np.ndarray

    @classmethod
    def of(cls, beads: Beads, pairs: Pairs) -> Restraints:
        """Those of a reference."""
        distances = [np.linalg.norm(beads.xyz[rows[:, 0]] - beads.xyz[rows[:, 1]], axis=1) for rows in pairs[:2]]
        return cls(pairs, *(values.astype(np.float32) for values in distances))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConformationTask:
    """Auto-encoder of particle images whose decoder moves the beads of a reference.

    The objective is the published one: correlation with the images, held distances between neighbours and within the
    elastic network (of which each step lets those go that vary most), no clashes, and a divergence with free nats.

    Attributes:
      particles: STAR or `.cs` file with poses and CTF.
      reference: PDB or mmCIF file of the model, docked into the consensus map, with the middle of the box at 0.
      cache: folder for the prepared images.
      dataset_dir: folder that the paths of stacks are relative to.
      pixel_size: Å per pixel of the original images, instead of the file's.
      subset: only the particles of this half set, 1 or 2 (of rlnRandomSubset, or every other particle where the file
        has no such column); 0 for all.
      side: pixels after down-sampling, see `images.prepare`.
      downsampling: see `images.prepare`.
      half_precision: keep images as float16.
      invert: particles are dark on bright.
      size: particles per step.
      low_pass: Å; None for no limit.
      mask: radius of the window of the image loss.
      ctf: version of the CTF.
      shift: see `Optics`.
      image, connect, elastic, clash: weights of the terms.
      ratio: share of the elastic pairs of each chain that is held in a step.
      divergence: weight of the divergence after `warmup` steps (divided by the pixels of the mask).
      warmup: steps in which it rises.
      free: nats per dimension below which the divergence does not count.
      protein, nucleic, clashes, span: cut-offs of pairs, see `gmm.pairs_of`.
      sigma: width of a bead in Å.
      tunable: train widths and amplitudes of the beads as well (fits noise easily).
      modes: `.npy` file (3 N, k) of normal modes along which the decoder moves, instead of bead by bead.
      latent, encoder, decoder, space: see `VAEConfig`.
      centred: the encoder reads the centred image instead of the original one.
      settle: most epochs of the initialisation that brings displacements to 0; 0 leaves it out.
      held: particles that are evaluated, spread over the file.
      truth: `truth.npz` of a simulation, for the figures `rmsd` (Å) and `spearman`.
      monitor: figure that selects the best weights.
    """

    particles: str
    reference: str
    cache: str
    dataset_dir: str | None = None
    pixel_size: float | None = None
    subset: int = 0
    side: int | None = None
    downsampling: Downsampling = "fourier"
    half_precision: bool = False
    invert: bool = False
    size: int = 64
    low_pass: float | None = 10.0
    mask: float = 0.9375
    ctf: Version = "v2"
    shift: fourier.Shift = "exact"
    image: float = 1.0
    connect: float = 1.0
    elastic: float = 1.0
    clash: float = 1.0
    ratio: float = 0.99
    divergence: float = 0.5
    warmup: int = 10_000
    free: float = 3.0
    protein: tuple[float, float] = (12.0, 0.0)
    nucleic: tuple[float, float] = (15.0, 15.0)
    clashes: tuple[float, float] = (4.0, 10.0)
    span: int | None = None
    sigma: float = gmm.SIGMA
    tunable: bool = False
    modes: str | None = None
    latent: int = 8
    encoder: tuple[int, ...] = (512, 256, 128, 64, 32)
    decoder: tuple[int, ...] = (32, 64, 128, 256, 512)
    space: str = "real"
    centred: bool = False
    settle: int = 3
    held: int = 512
    truth: str | None = None
    monitor: str = "correlation"

    def files(self) -> tuple[str, ...]:
        """Data files."""
        return tuple(path for path in (self.particles, self.reference, self.modes, self.truth) if path is not None)

    @functools.cached_property
    def stack(self) -> ParticleStack:
        """The particles."""
        stack = read_particles(self.particles, self.dataset_dir, pixel_size=self.pixel_size)
        if self.subset:
            stack = stack.select(self.chosen(stack))
        if len(stack) < max(2, self.size):
            raise InputError(
                f"{self.particles}: {len(stack)} particles are fewer than the {max(2, self.size)} of a step; make the "
                "batch smaller (--batch of the command, task.size of a configuration)"
            )
        return stack

    def chosen(self, stack: ParticleStack) -> np.ndarray:
        """Rows of the subset (of all) in the whole stack: the file's half sets, or every other particle."""
        if not self.subset:
            return np.arange(len(stack))
        halves = stack.subset if (stack.subset > 0).any() else np.arange(len(stack)) % 2 + 1
        return np.flatnonzero(halves == self.subset)

    @functools.cached_property
    def prepared(self) -> Prepared:
        """Their images."""
        return self.ready()

    def ready(self, progress: Callable[[int, int], None] | None = None) -> Prepared:
        """Prepares the images if that is not done yet; `progress` is called with (images done, images in all)."""
        return prepare(
            self.stack,
            self.cache,
            side=self.side,
            method=self.downsampling,
            invert=self.invert,
            dtype="float16" if self.half_precision else "float32",
            progress=progress,
        )

    @functools.cached_property
    def beads(self) -> Beads:
        """Of the reference."""
        return gmm.beads_of(read_structure(self.reference))

    @functools.cached_property
    def restraints(self) -> Restraints:
        """Of the reference."""
        pairs = gmm.pairs_of(self.beads, protein=self.protein, nucleic=self.nucleic, clash=self.clashes, span=self.span)
        return Restraints.of(self.beads, pairs)

    @functools.cached_property
    def normal_modes(self) -> np.ndarray | None:
        """(3 N, k) float32, if there are some."""
        if self.modes is None:
            return None
        try:
            modes = np.load(self.modes, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.modes}: not an array of normal modes ({error})") from error
        if modes.ndim != 2 or modes.shape[0] != 3 * len(self.beads) or not np.isfinite(modes).all():
            raise InputError(
                f"{self.modes}: shape {modes.shape}, expected ({3 * len(self.beads)}, modes) finite numbers for the "
                f"{len(self.beads)} beads of {self.reference}"
            )
        return modes.astype(np.float32)

    @property
    def model(self) -> VAEConfig:
        """Sizes of the network."""
        return VAEConfig(
            side=self.prepared.side,
            beads=len(self.beads),
            latent=self.latent,
            encoder=self.encoder,
            decoder=self.decoder,
            space=self.space,
            modes=0 if self.normal_modes is None else self.normal_modes.shape[1],
        )

    @functools.cached_property
    def optics(self) -> Optics:
        """What images are compared by."""
        held = self.prepared
        check_low_pass(self.low_pass, held.side * held.pixel)
        return Optics(held.side, held.pixel, self.ctf, self.low_pass, self.mask, self.shift)

    @functools.cached_property
    def _batches(self) -> ShuffledBatches:
        return ShuffledBatches(len(self.stack), self.size, "drop")

    @functools.cached_property
    def _example(self) -> Callable[..., dict[str, Array]]:
        """Images and poses to what a step reads, compiled."""
        optics, centred = self.optics, self.centred

        def example(images: Array, rotations: Array, shifts: Array, ctf: CTFParams) -> dict[str, Array]:
            images = images.astype(jnp.float32)
            seen = fourier.translate(images, shifts) if centred else images
            target = optics.targets(images, shifts)
            return {"images": seen, "target": target, "rotations": rotations, "ctf": jnp.stack(ctf, -1)}

        return jax.jit(example)

    def examples(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What a step reads of particles (n,) int: images, normalised targets, rotations and CTF parameters."""
        part = self.prepared.select(rows)
        return jax.tree.map(np.asarray, self._example(*part[:4]))

    @property
    def resident(self) -> Callable[[], dict[str, np.ndarray]] | None:
        """The data for the device, where they fit into it."""
        n, side = len(self.stack), self.prepared.side
        return self._whole if 2 * 4 * n * side**2 <= _RESIDENT else None

    def _whole(self) -> dict[str, np.ndarray]:
        parts = [self.examples(rows) for rows in _chunks(len(self.stack))]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(self.stack)], *parts)

    def load(self, shape: Any, members: np.ndarray) -> dict[str, np.ndarray]:
        """A batch, read from the prepared images."""
        return self.examples(np.asarray(members))

    def batches(self, step: int, seed: int) -> Batch:
        """Particles of a step."""
        return self._batches(step, seed)

    def build(self, key: PRNGKeyArray) -> ConformationModel:
        """The network, its displacements brought near to 0."""
        k_init, k_noise = jax.random.split(key)
        n = len(self.beads)
        start = (np.full(n, self.sigma), self.beads.electrons) if self.tunable else None
        model = ConformationModel(self.model, start, rngs=nnx.Rngs(k_init))
        if self.settle:
            model = settled(model, self._first_batches(), k_noise)
        return model

    def _first_batches(self) -> Any:
        for step in range(self.settle * self._batches.per_epoch):
            yield self.examples(self._batches(step, 0).members)["images"]

    def structures(self, deformation: Float[Array, "n o"]) -> Float[Array, "n m 3"]:
        """Conformations from what the decoder gives, Å."""
        reference = jnp.asarray(self.beads.xyz)
        if self.normal_modes is None:
            return displaced(deformation, reference)
        return along_modes(deformation, reference, jnp.asarray(self.normal_modes))

    def batch_loss(
        self, model: ConformationModel, examples: Any, keys: PRNGKeyArray, weight: Float[Array, "n"], axis: str | None
    ) -> dict[str, Mean]:
        """The terms of the published objective."""
        noise = jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys)
        deformation, mean, log_var = model(examples["images"], noise)
        structures = self.structures(deformation)
        found = self.terms(model, structures, mean, log_var, examples, weight, axis)
        model.steps[...] += 1
        return found

    def terms(
        self, model: Any, structures: Any, mean: Any, log_var: Any, examples: Any, weight: Any, axis: str | None = None
    ) -> dict[str, Mean]:
        """The terms of conformations (n, m, 3) in Å and latents (n, k); `weight` is 0 for what does not count."""
        held, optics = self.restraints, self.optics
        window, count = jnp.asarray(optics.window), jnp.sum(weight)
        amplitude, sigma = self._shape(model)
        drawn = optics.predicted(structures, examples["rotations"], _ctf(examples), amplitude, sigma)
        rise = jnp.minimum(model.steps[...].astype(jnp.float32) / max(self.warmup, 1), 1)
        nats = losses.divergence(mean, log_var, self.free)
        out = {
            "image": Mean(weight @ losses.disagreement(drawn, examples["target"], window), count, self.image),
            "divergence": Mean(weight @ nats, count, self.divergence * rise / float(optics.window.sum())),
        }
        if len(held.pairs.connect):
            stretch = losses.deviations(structures, jnp.asarray(held.pairs.connect), jnp.asarray(held.connect))
            out["connect"] = Mean(weight @ jnp.sum(stretch, 1), count * stretch.shape[1], self.connect)
        if len(held.pairs.elastic):
            squared = losses.deviations(structures, jnp.asarray(held.pairs.elastic), jnp.asarray(held.elastic))
            kept = losses.kept(squared, jnp.asarray(held.pairs.chains), self.ratio, axis, weight)
            out["elastic"] = Mean(*losses.elastic(squared, kept, weight), self.elastic)
        if len(held.pairs.clash):
            out["clash"] = Mean(*losses.clash(structures, jnp.asarray(held.pairs.clash), weight), self.clash)
        return out

    def _shape(self, model: Any) -> tuple[Array, Array | float]:
        """Amplitudes and widths of the beads."""
        if self.tunable:
            return model.amplitude[...], model.sigma[...]
        return jnp.asarray(self.beads.electrons), self.sigma

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Mean correlation of the images with those of the conformations of mean latents, over some particles.

        With a truth also `rmsd`, the mean over particles of the root mean square distance of the beads in Å, without
        superposition, and `spearman`, the largest rank correlation of a principal component with the true frame.
        """
        n = len(self.stack)
        rows = np.unique(np.linspace(0, n - 1, min(self.held, n)).astype(int))

        @jax.jit
        def look(variables: Any, examples: Any) -> tuple[Array, Array, Array]:
            model = nnx.merge(graphdef, variables)
            deformation, mean, _ = model(examples["images"])
            structures = self.structures(deformation)
            drawn = self.optics.predicted(structures, examples["rotations"], _ctf(examples), *self._shape(model))
            return (
                -losses.disagreement(drawn, examples["target"], jnp.asarray(self.optics.window)), mean, structures
            )  # fmt: skip

        truth = None if self.truth is None else _truth(self.truth, self.stack, len(self.beads))

        def evaluate(variables: Any) -> dict[str, float]:
            parts = [rows[part] for part in _chunks(len(rows))]
            found = [look(variables, self.examples(part)) for part in parts]
            score, latents, structures = (np.concatenate(x)[: len(rows)] for x in zip(*found, strict=True))
            figures = {"correlation": float(score.mean())}
            if truth is not None:
                frames, path = truth
                off = np.square(structures - path[frames[rows]]).sum(-1).mean(-1) ** 0.5
                centred = latents - latents.mean(0)
                components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
                rank = [abs(float(metrics.spearman(one, frames[rows].astype(float)))) for one in components.T]
                figures |= {"rmsd": float(off.mean()), "rmsd_median": float(np.median(off)), "spearman": max(rank)}
            return figures

        return evaluate


def check_low_pass(low_pass: float | None, width: float) -> None:
    """Raises InputError for a limit in Å that is none, or that leaves next to nothing of images `width` Å wide."""
    if low_pass is None:
        return
    if not low_pass > 0:
        raise InputError(f"low_pass {low_pass}: give Å, or none")
    if low_pass > width / _SHELLS:
        raise InputError(
            f"low_pass {low_pass:g} Å: images {width:.0f} Å wide have fewer than {_SHELLS} frequencies below it; give "
            f"at most {width / _SHELLS:.0f} Å"
        )


def _chunks(n: int) -> list[np.ndarray]:
    """Places 0 to n - 1 in parts of one size; the last one is filled up with the first."""
    size = min(_CHUNK, n)
    return list(np.resize(np.arange(n), (-(-n // size), size)))


def _ctf(examples: Any) -> CTFParams:
    return CTFParams(*jnp.moveaxis(examples["ctf"], -1, 0))


def _truth(path: str, stack: ParticleStack, beads: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(pathlib.Path(path), allow_pickle=False) as archive:
            frames, xyz = archive["frame"], archive["path_ca"]
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not the truth of a simulation ({error})") from error
    if len(frames) != len(stack) or xyz.shape[1:] != (beads, 3):
        raise InputError(
            f"{path}: {len(frames)} particles of {xyz.shape[1]} beads, and this run has {len(stack)} particles of "
            f"{beads} beads"
        )
    return frames.astype(int), xyz


def settled(model: ConformationModel, batches: Any, key: PRNGKeyArray) -> ConformationModel:
    """The network after training of its displacements towards 0, as published.

    AdamW on their mean square, until it is below 0.001 Å² over the last 20 steps (a first value of 10 counts among
    them), or the batches end.

    Args:
      model: just initialised.
      batches: images (n, D, D) of steps.
      key: of the noise of the latents.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    tx = optax.adamw(1e-4, weight_decay=0.01)

    @jax.jit
    def step(params: Any, opt: Any, images: Array, key: PRNGKeyArray):
        def loss(params: Any) -> Array:
            net = nnx.merge(graphdef, params, rest)
            noise = jax.random.normal(key, (images.shape[0], model.cfg.latent))
            return jnp.mean(net(images, noise)[0] ** 2)

        value, grad = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grad, opt, params)
        return optax.apply_updates(params, updates), opt, value

    opt, last = tx.init(params), [10.0]
    for number, images in enumerate(batches):
        params, opt, value = step(params, opt, images, jax.random.fold_in(key, number))
        last = [*last, float(value)][-_REMEMBERED:]
        if sum(last) / len(last) < _SETTLED:
            break
    else:
        if last[-1] >= _SETTLED:  # few particles make few steps: the mean still holds the first ones
            log.warning("displacements start at %.2g Å on average, not near 0", last[-1] ** 0.5)
    return nnx.merge(graphdef, params, rest)

"""Early warnings: whether particles, poses and reference belong together, told before anything is trained.

cryoSTAR (Nature Methods 2024, doi 10.1038/s41592-024-02486-1) does not refine poses and compares images with
projections of the reference; where a convention is wrong it trains without a complaint, and in vain.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxprot.core.errors import InputError
from jaxprot.core.particles import ParticleStack
from jaxprot.cryostar.ctf import CTFParams, Version, transfer
from jaxprot.cryostar.gmm import SIGMA, Beads
from jaxprot.cryostar.images import Prepared
from jaxprot.ops import fourier, gaussians

log = logging.getLogger(__name__)

MASK = 0.9375
"""Radius of the round window in which images are compared, 1 being half of the width."""

_SURE = 5.0  # standard errors that a difference has to be away from 0
_PIXELS = 0.5, 0.57, 0.65, 0.73, 0.81, 0.88, 0.95, 1.05, 1.13, 1.25, 1.4, 1.6, 1.8, 2.0  # times the given size ...
_FINER = 0.93, 0.96, 0.98, 1.02, 1.04, 1.07  # ... and times the best of these
_WORK = 1e10  # multiplications per hypothesis that particles are taken for
_AT_ONCE = 1 << 22  # numbers of the profiles of the beads that are projected together


class Finding(NamedTuple):
    """Something worth saying.

    Attributes:
      level: `note`, or `warning` for what makes results worse or void.
      message: what is seen, and the remedy.
    """

    level: Literal["note", "warning"]
    message: str


class Correlation(NamedTuple):
    """How well projections fit images.

    Attributes:
      mean: over the particles.
      error: standard error of the mean.
    """

    mean: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether the mean differs from 0."""
        return abs(self.mean) > _SURE * self.error

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.error:.4f}"


class _Hypothesis(NamedTuple):
    """How the images could have been made otherwise; shifts are (n, 2) y, x in pixels."""

    name: str
    remedy: str
    margin: float  # how much better than as it is, at least, to be worth a word
    xyz: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    ctf: CTFParams
    sigma: float
    factor: float = 1.0  # of the pixel size


def check(
    stack: ParticleStack,
    beads: Beads,
    prepared: Prepared,
    *,
    low_pass: float | None = None,
    version: Version = "v2",
    most: int = 300,
    seed: int = 0,
) -> list[Finding]:
    """All checks of this module.

    Args:
      stack: the particles as their file has them.
      beads: the reference; the origin of its coordinates (Å) should be the middle of the box.
      prepared: the images of the same particles.
      low_pass: resolution in Å up to which images are compared; None for all.
      version: of the contrast transfer function.
      most: images to compare at most.
      seed: of the choice of images.

    Returns:
      What should be told.

    Raises:
      InputError: what makes a training pointless: see `check_stack`, `check_reference`, `check_images`.
    """
    findings = check_stack(stack) + check_reference(beads, prepared.side, prepared.pixel)
    return findings + check_images(
        beads,
        prepared,
        name=stack.name,
        low_pass=low_pass,
        version=version,
        original=float(np.median(stack.pixel_size)),
        most=most,
        seed=seed,
    )


def check_stack(stack: ParticleStack) -> list[Finding]:
    """What the columns of a particle file tell.

    Raises:
      InputError: fewer than two particles, no poses, no CTF, or images that are multiplied by their CTF; all that is
        wrong is named.
    """
    problems, findings = [], []
    if len(stack) < 2:
        problems.append(f"{len(stack)} particles; at least 2 are needed")
    if stack.angles is None:
        problems.append("no poses (rot, tilt, psi); refine the particles against one consensus map first")
    elif len(stack) > 1 and np.ptp(stack.angles, axis=0).max() == 0:
        findings.append(_warning("all particles have the same pose; give the file of a refinement"))
    if stack.ctf is None:
        problems.append("no CTF parameters; estimate them first (CTFFIND, Gctf, cryoSPARC)")
    elif stack.phase_plate:
        findings.append(Finding("note", "particles have phase shifts (phase plate), which their CTF contains"))
    premultiplied = int(stack.ctf_premultiplied.sum())
    if premultiplied:
        problems.append(
            f"{premultiplied} images are multiplied by their CTF, which would be applied twice; extract them again "
            "without"
        )
    if stack.optics.aberrations:
        findings.append(
            _warning(
                f"not modelled: {', '.join(stack.optics.aberrations)}; finer detail suffers, extract or polish the "
                "particles with these corrected"
            )
        )
    if (stack.sign < 0).any():  # type: ignore[operator]
        findings.append(Finding("note", "the file says that particles are dark on bright; they are inverted"))
    half = stack.side * stack.pixel_size / 2
    far = (np.abs(stack.shifts).max(1, initial=0) > half) & (half > 0)
    if far.any():
        findings.append(
            _warning(
                f"{int(far.sum())} particles are shifted by more than half of their box (row {np.argmax(far) + 1}: "
                f"{np.abs(stack.shifts[np.argmax(far)]).max():.4g} Å); are the shifts in Å?"
            )
        )
    if problems:
        raise InputError(f"{stack.name}: {'; '.join(problems)}")
    return findings


def check_reference(beads: Beads, side: int, pixel: float) -> list[Finding]:
    """Whether the reference lies in the box.

    Args:
      beads: the reference.
      side: pixels of the images.
      pixel: Å.

    Raises:
      InputError: more than a twentieth of the beads is outside the circle that the images hold at any pose.
    """
    half = side * pixel / 2
    distance = np.linalg.norm(beads.xyz, axis=1)
    outside = float((distance > half).mean())
    centre = beads.xyz.mean(0)
    place = f"its centre is at ({', '.join(f'{value:.0f}' for value in centre)}) Å"
    own = np.linalg.norm(beads.xyz - centre, axis=1).max()
    if outside > 0.05:
        remedy = (
            "move the model so that the middle of the box is at 0, 0, 0 (if the map's origin is the corner of its box, "
            f"by -{half:.0f} Å along x, y and z)"
            if own <= half
            else "check the pixel size, or extract larger images"
        )
        raise InputError(
            f"{beads.name}: {outside:.0%} of the beads are outside the box of {2 * half:.0f} Å; {place}: {remedy}"
        )
    findings = []
    if outside > 0:
        findings.append(_warning(f"{beads.name}: {outside:.1%} of the beads are outside the box of {2 * half:.0f} Å"))
    if np.linalg.norm(centre) > half / 4:
        findings.append(
            _warning(
                f"{beads.name}: {place}, far from the middle of the box at 0, 0, 0; unless the model is a part of the "
                "molecule, move it into the map"
            )
        )
    return findings


def check_images(
    beads: Beads,
    prepared: Prepared,
    *,
    name: str = "particles",
    low_pass: float | None = None,
    version: Version = "v2",
    original: float | None = None,
    sigma: float = SIGMA,
    most: int = 300,
    seed: int = 0,
) -> list[Finding]:
    """Correlation of images with projections of the reference at the known poses, and at what could be meant instead.

    A single image tells little (at a signal-to-noise ratio of 0.01 its correlation is 0.1 at best, with an error of
    0.02), hence the mean over particles counts, and the mean of the differences between two ways to read the same
    images, each against its standard error.

    Args:
      beads: the reference.
      prepared: images (n, D, D) as they are, not moved by their shifts.
      name: of the particles, for messages.
      low_pass: Å; None for no limit.
      version: of the CTF.
      original: Å per pixel of the images of the file, that shifts could have been multiplied by.
      sigma: Å, width of the beads.
      most: images to compare at most.
      seed: of their choice.

    Returns:
      A note of the correlation, and a warning if there is none or if another reading fits somewhat better.

    Raises:
      InputError: particles that are dark on bright, or another reading that fits much better; the message says which.
    """
    n = len(prepared.images)
    count = int(min(n, most, max(50, _WORK / (len(beads) * prepared.side**2))))
    part = prepared.select(np.sort(np.random.default_rng(seed).choice(n, count, replace=False)))
    images = jnp.asarray(_windowed(jnp.asarray(part.images, jnp.float32), part.pixel, low_pass))
    amplitudes = jnp.asarray(beads.electrons)

    def fit(case: _Hypothesis) -> np.ndarray:
        return np.asarray(
            _correlations(
                jnp.asarray(case.xyz, jnp.float32), amplitudes, jnp.float32(case.sigma), images,
                jnp.asarray(case.rotations, jnp.float32), jnp.asarray(case.shifts, jnp.float32),
                CTFParams(*(jnp.broadcast_to(jnp.asarray(v, jnp.float32), (count,)) for v in case.ctf)),
                pixel=part.pixel, low_pass=low_pass, version=version,
            ),
            np.float64,
        )  # fmt: skip

    cases = _hypotheses(beads.xyz, part, part.pixel if original is None else original, sigma)
    plain = fit(cases[0])
    found = mean_of(plain)
    base = np.sign(found.mean) * plain
    better: list[tuple[float, _Hypothesis, Correlation]] = []
    for case in cases[1:]:
        values = fit(case)
        other = mean_of(values)
        gain = mean_of(np.sign(other.mean) * values - base)
        if other.sure and gain.mean > _SURE * gain.error and abs(other.mean) > case.margin * abs(found.mean):
            better.append((abs(other.mean), case, other))
    log.info("%s: correlation %s with projections of %s (%d particles)", name, found, beads.name, count)
    if better:
        best, case, other = max(better, key=lambda item: item[0])
        if case.factor != 1:
            for step in _FINER:
                finer = _of_pixels(cases[0], case.factor * step, part.pixel if original is None else original)
                value = mean_of(fit(finer))
                if abs(value.mean) > 1.005 * best:
                    best, case, other = abs(value.mean), finer, value
        text = (
            f"{name}: images correlate with projections of {beads.name} by {found}, but {case.name} by {other} "
            f"({count} particles); {case.remedy}"
        )
        if other.mean < 0:
            text += "; and particles are dark on bright (--invert)"
        if not found.sure or abs(other.mean) > 1.5 * abs(found.mean):
            raise InputError(text)
        return [_warning(text)]
    if found.sure and found.mean < 0:
        raise InputError(
            f"{name}: images correlate negatively with projections of {beads.name} ({found}, {count} particles): "
            "particles are dark on bright; add --invert"
        )
    if not found.sure:
        return [
            _warning(
                f"{name}: images do not correlate with projections of {beads.name} ({found}, {count} particles); is "
                "the model docked into the map that the poses belong to, with the middle of the box at 0, 0, 0, and is "
                "the pixel size right?"
            )
        ]
    return [Finding("note", f"{name}: images correlate with projections of {beads.name} by {found}")]


def mean_of(values: np.ndarray) -> Correlation:
    """Mean of (n,) numbers with its standard error, which is infinite for fewer than two."""
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return Correlation(float(values.mean()), error)


def _warning(message: str) -> Finding:
    return Finding("warning", message)


def _hypotheses(xyz: np.ndarray, part: Prepared, original: float, sigma: float) -> list[_Hypothesis]:
    """As it is, then what is often wrong."""
    r, t = np.asarray(part.rotations), np.asarray(part.shifts)
    plain = _Hypothesis("as it is", "", 1.0, xyz, r, t, part.ctf, sigma)
    cases = [plain]
    centre, corner = xyz.mean(0), np.full(3, part.side // 2 * part.pixel)
    if np.linalg.norm(centre) > part.pixel:
        cases.append(
            plain._replace(
                name="with the model's centre at 0, 0, 0",
                remedy="move the model so that the middle of the box is at 0, 0, 0",
                margin=1.05,
                xyz=xyz - centre,
            )
        )
    if np.linalg.norm(centre) > part.side * part.pixel / 8:
        cases.append(
            plain._replace(
                name="with the corner of the box at 0, 0, 0",
                remedy=f"move the model by -{corner[0]:.1f} Å along x, y and z",
                margin=1.05,
                xyz=xyz - corner,
            )
        )
    cases += [_of_pixels(plain, factor, original) for factor in _PIXELS]
    for axis, label in ((0, "x"), (2, "z")):
        cases.append(
            plain._replace(
                name=f"with the model mirrored along {label}",
                remedy="the poses belong to a map of the other hand; flip its hand and dock the model again",
                margin=1.05,
                xyz=xyz * np.where(np.arange(3) == axis, -1, 1),
            )
        )
    flip = np.array([-1.0, 1.0])  # y, x
    cases.append(
        plain._replace(
            name="with images upside down",
            remedy="rows of the images run the other way than the poses expect; flip the images along y",
            margin=1.05,
            rotations=r * np.array([1.0, -1.0, 1.0])[:, None],
            shifts=t * flip,
        )
    )
    cases.append(
        plain._replace(
            name="with inverse rotations",
            remedy="the angles describe the opposite rotation; convert them to RELION's convention",
            margin=1.05,
            rotations=np.swapaxes(r, 1, 2),
        )
    )
    if np.sqrt((t**2).mean()) > 0.2:
        other = (
            (0.0, "without shifts", "the images are centred already; set rlnOriginXAngst and rlnOriginYAngst to 0"),
            (-1.0, "with opposite shifts", "turn the sign of the shifts (rlnOriginXAngst, rlnOriginYAngst)"),
            (original, "with shifts in pixels", "the shifts are pixels, not Å; name them rlnOriginX, rlnOriginY"),
            (1 / original, "with shifts in Å", "the shifts are Å, not pixels; name them rlnOriginXAngst, ..."),
        )
        for factor, label, remedy in other:
            if factor <= 0 or abs(np.log(factor)) > 0.05:
                cases.append(plain._replace(name=label, remedy=remedy, margin=1.02, shifts=t * factor))
        cases.append(
            plain._replace(
                name="with shifts along x and y exchanged",
                remedy="exchange the columns of the shifts",
                margin=1.02,
                shifts=t[:, ::-1],
            )
        )
    return cases


def _of_pixels(plain: _Hypothesis, factor: float, original: float) -> _Hypothesis:
    """As if pixels were `factor` times as large: everything else is so much smaller, in pixels."""
    optics = plain.ctf._replace(
        defocus_u=np.asarray(plain.ctf.defocus_u) / factor**2,
        defocus_v=np.asarray(plain.ctf.defocus_v) / factor**2,
        cs=np.asarray(plain.ctf.cs) / factor**4,
        bfactor=np.asarray(plain.ctf.bfactor) / factor**2,
    )
    return plain._replace(
        name=f"with pixels of {factor:.3g} times the size",
        remedy=f"give --pixel-size {factor * original:.3g}",
        margin=1.03,
        xyz=plain.xyz / factor,
        ctf=optics,
        sigma=plain.sigma / factor,
        factor=factor,
    )


def _windowed(images: Float[Array, "n y x"], pixel: float, low_pass: float | None) -> Float[Array, "n y x"]:
    """Centred within the round window, of length 1; outside 0."""
    side = images.shape[-1]
    if low_pass is not None:
        images = fourier.filtered(images, fourier.low_pass(side, pixel, low_pass))
    mask = fourier.lifted(fourier.window(side, MASK).astype(np.float32), images.ndim)
    mean = jnp.sum(images * mask, (-2, -1), keepdims=True) / jnp.sum(mask)
    inside = (images - mean) * mask
    length = jnp.sqrt(jnp.sum(inside**2, (-2, -1), keepdims=True))
    return inside / jnp.where(length > 0, length, 1)


@functools.partial(jax.jit, static_argnames=("pixel", "low_pass", "version"))
def _correlations(
    xyz: Float[Array, "m 3"],
    amplitudes: Float[Array, "m"],
    sigma: Float[Array, ""],
    images: Float[Array, "n d d"],
    rotations: Float[Array, "n 3 3"],
    shifts: Float[Array, "n 2"],
    params: CTFParams,
    *,
    pixel: float,
    low_pass: float | None,
    version: Version,
) -> Float[Array, "n"]:
    """Of images that are `_windowed` already."""
    side = images.shape[-1]
    line = jnp.asarray(gaussians.grid_line(side, pixel, published=False), jnp.float32)

    def one(particle: tuple) -> Array:
        image, rotation, shift, optics = particle
        # The projection is moved to where the image has its content.
        xy = xyz @ rotation[:2].T - (pixel * shift[::-1])[None]
        projected = gaussians.project(xy, amplitudes, sigma, line)
        projected = fourier.filtered(projected, transfer(optics, side, pixel, version))
        return jnp.sum(_windowed(projected, pixel, low_pass) * image)

    batch = max(1, min(64, _AT_ONCE // (side * max(xyz.shape[0], side))))
    return jax.lax.map(one, (images, rotations, shifts, params), batch_size=batch)

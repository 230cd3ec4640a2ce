"""Early warnings: each way to have particles and a reference that do not belong together."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.core.particles import Optics
from jaxprot.cryostar import checks, gmm, simulate
from jaxprot.cryostar.images import Prepared, ctf_of
from jaxprot.cryostar.simulate import SimulationConfig
from jaxprot.io.structures import read_structure

PIXEL = 2.5


@pytest.fixture(scope="module")
def beads(example):
    found = gmm.beads_of(read_structure(example("ubiquitin")))
    return dataclasses.replace(found, xyz=found.xyz - found.xyz.mean(0))


def made(beads, snr=0.1, n=200):
    config = SimulationConfig(side=40, pixel=PIXEL, snr=snr, shift_sd=4.0)
    found = simulate.simulate(beads.xyz[None], beads.electrons, n, config, key=jax.random.key(3))
    stack = simulate.stack_of(found)
    shifts = (stack.shifts[:, ::-1] / PIXEL).astype(np.float32)
    return stack, Prepared(found.images, stack.rotations.astype(np.float32), shifts, ctf_of(stack), PIXEL)


@pytest.fixture(scope="module")
def particles(beads):
    return made(beads)


def moved(beads, by):
    return dataclasses.replace(beads, xyz=beads.xyz + np.asarray(by, np.float32))


def test_good_particles_give_a_note_of_their_correlation(beads, particles):
    stack, prepared = particles
    (found,) = checks.check(stack, beads, prepared)
    assert found.level == "note" and "images correlate" in found.message
    value = float(found.message.split(" by ")[1].split(" ")[0])
    inside = 0.1 / (np.pi / 4 * checks.MASK**2)  # the signal lies within the window, the noise everywhere
    assert value == pytest.approx(np.sqrt(inside / (1 + inside)), abs=0.02)


def test_a_hundredth_of_signal_is_enough(beads):
    stack, prepared = made(beads, snr=0.01)
    assert [found.level for found in checks.check(stack, beads, prepared)] == ["note"]
    with pytest.raises(InputError, match="dark on bright.*--invert"):
        checks.check(stack, beads, prepared._replace(images=-prepared.images))


def test_particles_of_something_else_are_told(beads, particles):
    noise = np.random.default_rng(0).normal(size=particles[1].images.shape).astype(np.float32)
    (found,) = checks.check_images(beads, particles[1]._replace(images=noise))
    assert found.level == "warning" and "do not correlate" in found.message and "pixel size" in found.message


# what is done to good particles, and what has to be told
WRONG = {
    "inverted contrast": (lambda p: p._replace(images=-p.images), "add --invert"),
    "pixels half as large": (lambda p: p._replace(pixel=PIXEL / 2), f"--pixel-size {PIXEL:g}"),
    "pixels twice as large": (lambda p: p._replace(pixel=2 * PIXEL), f"--pixel-size {PIXEL:g}"),
    "shifts turned": (lambda p: p._replace(shifts=-p.shifts), "turn the sign of the shifts"),
    "shifts that are done": (lambda p: p._replace(shifts=3 * p.shifts[::-1]), "without shifts"),
    "shifts exchanged": (lambda p: p._replace(shifts=p.shifts[:, ::-1]), "exchange the columns"),
    "shifts in pixels taken as Å": (lambda p: p._replace(shifts=p.shifts / PIXEL), "are pixels, not Å"),
    "shifts in Å taken as pixels": (lambda p: p._replace(shifts=p.shifts * PIXEL), "are Å, not pixels"),
    "rotations inverted": (
        lambda p: p._replace(rotations=np.swapaxes(p.rotations, 1, 2)),
        "inverse rotations",
    ),
    "images upside down": (lambda p: p._replace(images=p.images[:, ::-1]), "upside down"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_convention_is_named(case, beads, particles):
    change, words = WRONG[case]
    prepared = change(particles[1])
    try:
        told = [found.message for found in checks.check_images(beads, prepared) if found.level == "warning"]
    except InputError as error:
        told = [str(error)]
    assert len(told) == 1
    assert words in told[0]


@pytest.mark.parametrize("wrong", [0.67, 0.85, 0.93, 1.08, 1.2, 1.5])
def test_a_pixel_size_that_is_somewhat_off_is_told(wrong, beads, particles):
    try:
        (found,) = checks.check_images(beads, particles[1]._replace(pixel=PIXEL * wrong))
        assert found.level == "warning"
        text = found.message
    except InputError as error:
        text = str(error)
    assert float(re.search("--pixel-size ([0-9.]+)", text)[1].rstrip(".")) == pytest.approx(PIXEL, rel=0.04)


@pytest.mark.parametrize(
    ("by", "words"),
    [((12, -9, 6), "the model's centre at 0, 0, 0"), ((30, 10, -28), "the model's centre at 0, 0, 0")],
    ids=["a little", "far"],
)
def test_a_reference_beside_the_middle_is_told(by, words, beads, particles):
    with pytest.raises(InputError, match=words):
        checks.check_images(moved(beads, by), particles[1])


def test_a_mirrored_reference_is_told(beads, particles):
    other = dataclasses.replace(beads, xyz=beads.xyz * np.array([-1, 1, 1], np.float32))
    try:
        (found,) = checks.check_images(other, particles[1])
        assert found.level == "warning"
        text = found.message
    except InputError as error:
        text = str(error)
    assert "other hand" in text


def test_a_reference_at_the_corner_is_outside_the_box(beads):
    half = 20 * PIXEL
    with pytest.raises(InputError, match=rf"outside the box of 100 Å.*by -{half:.0f} Å along x, y and z"):
        checks.check_reference(moved(beads, (half, half, half)), 40, PIXEL)
    with pytest.raises(InputError, match="extract larger images"):
        checks.check_reference(beads, 12, PIXEL)
    (found,) = checks.check_reference(moved(beads, (0, 0, 15)), 40, PIXEL)
    assert found.level == "warning" and "far from the middle" in found.message
    tail = beads.xyz.copy()
    tail[-1] = (60, 0, 0)
    (found,) = checks.check_reference(dataclasses.replace(beads, xyz=tail), 40, PIXEL)
    assert "1.3% of the beads are outside" in found.message
    assert checks.check_reference(beads, 40, PIXEL) == []


def changed(stack, **optics):
    old = stack.optics
    return dataclasses.replace(
        stack, optics=Optics(**({"names": old.names, "pixel_size": old.pixel_size, "side": old.side} | optics))
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.select([0]), "1 particles; at least 2"),
        (lambda s: dataclasses.replace(s, angles=None), "no poses"),
        (lambda s: dataclasses.replace(s, ctf=None), "no CTF parameters"),
        (lambda s: changed(s, ctf_premultiplied=np.array([True])), "200 images are multiplied by their CTF"),
        (lambda s: dataclasses.replace(s.select([0]), angles=None, ctf=None), "1 particles.*no poses.*no CTF"),
    ],
    ids=["one particle", "no poses", "no CTF", "premultiplied", "all that is wrong at once"],
)
def test_stacks_that_cannot_be_used(change, words, particles):
    with pytest.raises(InputError, match=words):
        checks.check_stack(change(particles[0]))


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (lambda s: changed(s, aberrations=("rlnBeamTiltX",)), "warning", "not modelled: rlnBeamTiltX"),
        (lambda s: dataclasses.replace(s, angles=0 * s.angles), "warning", "the same pose"),
        (lambda s: dataclasses.replace(s, shifts=s.shifts * 40), "warning", "more than half of their box"),
        (lambda s: dataclasses.replace(s, sign=-np.ones(200)), "note", "they are inverted"),
        (
            lambda s: dataclasses.replace(s, ctf=dataclasses.replace(s.ctf, phase_shift=np.full(200, 90.0))),
            "note",
            "phase shifts",
        ),
    ],
    ids=["aberrations", "one pose", "shifts in another unit", "dark by the file", "phase plate"],
)
def test_stacks_with_something_to_know(change, level, words, particles):
    assert checks.check_stack(particles[0]) == []
    (found,) = checks.check_stack(change(particles[0]))
    assert found.level == level and words in found.message


def test_few_particles_prove_nothing(beads, particles):
    assert checks.mean_of(np.array([0.3])).sure is False
    (found,) = checks.check_images(beads, particles[1].select(np.arange(2)))
    assert found.level in ("note", "warning")


@pytest.mark.golden
def test_the_stored_stack_has_nothing_wrong(shared):
    """Its reference is one end of the motion, so that the fit is not the best possible."""
    from jaxprot.io.particles import read_particles

    home = shared / "data" / "heterogeneity" / "adk"
    stack = read_particles(home / "adk_64.star").select(slice(0, 150))
    reference = gmm.beads_of(read_structure(home / "1ake_A.pdb"))
    prepared = Prepared(
        stack.images.read(np.arange(150)), stack.rotations.astype(np.float32),
        (stack.shifts[:, ::-1] / 2).astype(np.float32), ctf_of(stack), 2.0,
    )  # fmt: skip
    (found,) = checks.check(stack, reference, prepared)
    assert found.level == "note", found.message

"""Simulated stacks: their statistics, their files, and the molecules that they show."""

import dataclasses

import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest

from jaxprot.core.errors import InputError, OutputError
from jaxprot.core.particles import rotations_from_euler
from jaxprot.cryostar import ctf, gmm, simulate
from jaxprot.cryostar.simulate import SimulationConfig
from jaxprot.io.particles import read_particles
from jaxprot.io.structures import read_structure
from jaxprot.io.trajectories import Trajectory, read_trajectory
from jaxprot.ops import elastic, fourier, gaussians

CLEAN = SimulationConfig(side=32, pixel=2.5, snr=float("inf"), astigmatism=500.0, shift_sd=1.5)


@pytest.fixture(scope="module")
def ensemble(example):
    return simulate.along_modes(read_structure(example("ubiquitin")), 5, amplitude=3.0)


@pytest.fixture(scope="module")
def clean(ensemble):
    return simulate.simulate(ensemble.frames, ensemble.beads.electrons, 40, CLEAN, key=jax.random.key(1))


def test_the_signal_has_the_share_that_is_asked_for(ensemble, clean):
    config = dataclasses.replace(CLEAN, snr=0.05)
    noisy = simulate.simulate(ensemble.frames, ensemble.beads.electrons, 40, config, key=jax.random.key(1))
    assert clean.images.var(dtype=np.float64) == pytest.approx(1, rel=1e-4)
    for name in ("angles", "shifts", "frame"):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(clean, name))
    noise = noisy.images - np.sqrt(0.05) * clean.images
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.var() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02  # each image its own
    one = simulate.simulate(ensemble.frames, ensemble.beads.electrons, 3, CLEAN, key=jax.random.key(1))
    np.testing.assert_array_equal(one.angles, clean.angles[:3])


def test_poses_shifts_and_optics_are_spread_as_told(ensemble):
    config = dataclasses.replace(CLEAN, shift_sd=4.0)
    made = simulate._draw(jax.random.key(0), jnp.arange(4000), jnp.log(jnp.array([1.0, 3.0])), config)
    np.testing.assert_allclose(
        made.rotation @ jnp.swapaxes(made.rotation, 1, 2), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-5
    )
    np.testing.assert_allclose(jnp.linalg.det(made.rotation), 1, atol=1e-5)
    np.testing.assert_allclose(made.rotation.mean(0), 0, atol=0.03)
    np.testing.assert_allclose((made.rotation**2).mean(0), 1 / 3, atol=0.02)
    assert np.abs(made.shift).max() == 12 and made.shift.std() == pytest.approx(4, rel=0.05)
    assert np.mean(made.frame) == pytest.approx(0.75, abs=0.03)
    apart = made.ctf.defocus_u - made.ctf.defocus_v
    assert made.ctf.defocus_u.min() >= 10_000 and made.ctf.defocus_u.max() <= 25_000
    assert apart.min() >= 0 and 480 < apart.max() <= 500.01
    assert 0 <= made.ctf.angle.min() and 3 < made.ctf.angle.max() <= np.pi


@pytest.mark.parametrize("side", [32, 33])
def test_files_are_read_back_and_their_numbers_give_the_images(side, ensemble, tmp_path):
    """Beads at the file's poses, moved by minus its shifts through its CTF, are the images without noise."""
    config = dataclasses.replace(CLEAN, side=side, voltage=200.0, cs=2.0, amplitude=0.07, phase=30.0, bfactor=20.0)
    made = simulate.simulate(ensemble.frames, ensemble.beads.electrons, 12, config, key=jax.random.key(2))
    names = simulate.write_simulation(made, ensemble, tmp_path / "out")
    assert sorted(names) == sorted(path.name for path in (tmp_path / "out").iterdir())
    stack = read_particles(tmp_path / "out" / "particles.star")
    truth = np.load(tmp_path / "out" / "truth.npz")
    assert stack.optics.side.tolist() == [side] and stack.pixel_size.tolist() == [2.5] * 12
    line = jnp.asarray(gaussians.grid_line(side, 2.5, published=False), jnp.float32)
    rotated = np.einsum("nij,nmj->nmi", stack.rotations, truth["path_ca"][truth["frame"]])
    for row in range(12):
        picture = gaussians.project(jnp.asarray(rotated[row, :, :2], jnp.float32), truth["amplitudes"], 2.0, line)
        c = stack.ctf.select([row])
        params = ctf.CTFParams(
            c.defocus_u[0], c.defocus_v[0], np.radians(c.angle[0]), c.voltage[0], c.cs[0], c.amplitude_contrast[0],
            np.radians(c.phase_shift[0]), c.b_factor[0],
        )  # fmt: skip
        picture = fourier.filtered(picture, ctf.transfer(params, side, 2.5))
        observed = fourier.translate(stack.images.read([row]), jnp.asarray(stack.shifts[row : row + 1, ::-1] / 2.5))[0]
        assert np.corrcoef(np.ravel(picture), np.ravel(observed))[0, 1] > 0.999


def test_files_of_a_simulation(ensemble, clean, tmp_path):
    home = tmp_path / "out"
    simulate.write_simulation(clean, ensemble, home, mode=2)
    with mrcfile.open(home / "particles.mrcs") as file:
        assert file.header.mode == 2
        np.testing.assert_array_equal(file.data, clean.images)
    truth = np.load(home / "truth.npz", allow_pickle=False)
    np.testing.assert_array_equal(truth["frame"], clean.frame)
    np.testing.assert_array_equal(truth["resid"], np.arange(1, 77))
    assert set(truth) == {"frame", "angles", "path_ca", "amplitudes", "res_name", "resid", "icode", "chain"}
    frames = read_trajectory(home / "ensemble.pdb").frames
    np.testing.assert_allclose(frames, ensemble.frames, atol=6e-4)
    with pytest.raises(OutputError, match="already holds"):
        simulate.write_simulation(clean, ensemble, home)
    # What ends half-way through has no list of particles, not even the one of an earlier run.
    loud = clean._replace(images=clean.images * 1e9)
    with pytest.raises(InputError, match="do not fit mode 12"):
        simulate.write_simulation(loud, ensemble, home, overwrite=True)
    assert not (home / "particles.star").exists()


def test_ensembles_are_centred_and_in_order(example):
    structure = read_structure(example("ubiquitin"))
    beads = gmm.beads_of(structure)
    moved = np.stack([structure.xyz + 7, structure.xyz * 1.1])
    found = simulate.ensemble_of(Trajectory(structure, moved))
    np.testing.assert_allclose(found.frames.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(
        found.frames[1] - found.frames[1].mean(0), 1.1 * (beads.xyz - beads.xyz.mean(0)), atol=1e-3
    )
    np.testing.assert_array_equal(found.beads.xyz, found.frames[0])
    assert len(simulate.ensemble_of(structure)) == 1
    turn = rotations_from_euler(np.array([40.0, 50, 60])).astype(np.float32)
    turned = Trajectory(structure, np.stack([structure.xyz, structure.xyz @ turn.T + 5]))
    aligned = simulate.ensemble_of(turned, align=True).frames
    np.testing.assert_allclose(aligned[0], aligned[1], atol=1e-3)


def test_a_morph_joins_what_both_have(example):
    first = read_structure(example("ubiquitin"))
    beads = gmm.beads_of(first)
    turn = rotations_from_euler(np.array([40.0, 50, 60])).astype(np.float32)
    other = dataclasses.replace(first, xyz=first.xyz @ turn.T + 30)
    second = other.select(first.resid[first.atom_residue] > 10)
    found = simulate.morph(first, second, 4)
    assert found.frames.shape == (4, 66, 3) and found.beads.resid[0] == 11
    kept = beads.xyz[10:] - beads.xyz[10:].mean(0)
    np.testing.assert_allclose(found.frames, np.tile(kept, (4, 1, 1)), atol=1e-3)
    far = simulate.morph(first, other, 3, align=False).frames
    np.testing.assert_allclose(far[1], (far[0] + far[2]) / 2, atol=1e-3)
    renamed = dataclasses.replace(second, chain_id=np.full(second.n_chains, "Z", "U8"))
    with pytest.raises(InputError, match="0 residues in common"):
        simulate.morph(first, renamed)


def test_modes_are_those_of_the_elastic_network(example):
    xyz = gmm.beads_of(read_structure(example("ubiquitin"))).xyz
    values, shapes = simulate.normal_modes(xyz, 4)
    hessian = np.asarray(elastic.anm_hessian(jnp.asarray(xyz)), np.float64)
    expected = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(values, expected[6:10], rtol=1e-3)
    flat = shapes.reshape(-1, 4)
    np.testing.assert_allclose(flat.T @ flat, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(hessian @ flat, flat * values, atol=1e-4 * expected[-1])
    few, _ = simulate.normal_modes(xyz[:9], 2)  # small ones are solved densely
    np.testing.assert_allclose(
        few, np.linalg.eigvalsh(np.asarray(elastic.anm_hessian(jnp.asarray(xyz[:9])), np.float64))[6:8], rtol=1e-3
    )
    with pytest.raises(InputError, match="hang loose"):
        simulate.normal_modes(np.concatenate([xyz, xyz + 500]), 2)
    with pytest.raises(InputError, match="there are 0"):
        simulate.normal_modes(xyz[:2], 1)


def test_ends_of_a_mode_lie_as_far_as_told(ensemble):
    middle = ensemble.frames.mean(0)
    moves = np.sqrt(((ensemble.frames - middle) ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(moves, [3, 1.5, 0, 1.5, 3], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(n=0), "0 particles"),
        (dict(weights=np.ones(3)), r"weights \(3,\) of 5"),
        (dict(weights=-np.ones(5)), "not negative"),
        (dict(far=100), "leave images of 32 pixels.*take a side of"),
        (dict(amplitudes=0.0), "no signal"),
        (dict(far=np.nan), "without NaN"),
    ],
    ids=["no particle", "a weight too few", "negative weights", "beads outside", "nothing to see", "not a number"],
)  # fmt: skip
def test_what_cannot_be_simulated(change, words, ensemble):
    frames = ensemble.frames + np.float32(change.get("far", 0))
    amplitudes = ensemble.beads.electrons * change.get("amplitudes", 1.0)
    with pytest.raises(InputError, match=words):
        simulate.simulate(
            frames, amplitudes, change.get("n", 4), CLEAN, key=jax.random.key(0), weights=change.get("weights")
        )


def test_numbers_of_a_config_are_checked():
    with pytest.raises(ValueError, match="snr"):
        SimulationConfig(snr=0)
    with pytest.raises(ValueError, match="smaller and a larger"):
        SimulationConfig(defocus=(2.0, 1.0))
    with pytest.raises(ValueError, match="positive"):
        SimulationConfig(pixel=float("nan"))


@pytest.mark.golden
def test_the_recipe_is_that_of_the_stored_stack(shared):
    """Its true conformations at its poses correlate with its images as the ratio of signal and noise allows."""
    home = shared / "data" / "heterogeneity" / "adk"
    truth, stack = np.load(home / "adk_64_truth.npz"), read_particles(home / "adk_64.star")
    rows = np.arange(128)
    c = stack.ctf.select(rows)
    params = ctf.CTFParams(
        c.defocus_u, c.defocus_v, np.radians(c.angle), c.voltage, c.cs, c.amplitude_contrast, 0 * c.cs, 0 * c.cs
    )
    drawn = simulate._Drawn(
        truth["frame"][rows], stack.rotations[rows].astype(np.float32), -stack.shifts[rows].astype(np.float32),
        ctf.CTFParams(*(np.asarray(value, np.float32) for value in params)),
    )  # fmt: skip
    made = np.asarray(simulate._project(jnp.asarray(truth["path_ca"]), truth["amplitude"], drawn, SimulationConfig()))
    found = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(made, stack.images.read(rows), strict=True)]
    assert np.mean(found) == pytest.approx(np.sqrt(0.1 / 1.1), abs=0.02)

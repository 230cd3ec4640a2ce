"""What was found against the truth of simulated particles."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxprot.core.errors import InputError
from jaxprot.core.volume import Volume
from jaxprot.cryostar import landscape, truth
from jaxprot.cryostar.gmm import SIGMA, beads_of, pairs_of
from jaxprot.cryostar.truth import Truth
from jaxprot.io.particles import read_particles
from jaxprot.io.structures import read_structure
from jaxprot.ops.gaussians import SIGMA_FACTOR


@pytest.fixture(scope="module")
def beads(example):
    return beads_of(read_structure(example("trpcage")))


def test_distances(beads):
    path = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    frame = np.arange(600) % 3  # more than are taken at once
    found = path[frame].copy()
    found[:300, 0] += [0, 0, 4]  # one of five residues of one half of the particles
    told = truth.distances(found, Truth(frame, path, np.arange(5)))
    assert told["rmsd_mean"] == pytest.approx(np.sqrt(16 / 5) / 2, rel=1e-5)
    assert told["distance_mean"] == pytest.approx(0.4, rel=1e-5) and told["within_3"] == pytest.approx(0.9)


def test_geometry_of_stretched_and_folded_chains(beads):
    kept = truth.geometry(np.repeat(beads.xyz[None], 300, 0), beads)
    assert kept == {"bond_deviation": pytest.approx(0, abs=1e-5), "clashes": 0}
    longer = truth.geometry(1.1 * beads.xyz[None], beads)
    bonds = np.linalg.norm(np.diff(beads.xyz, axis=0), axis=1)
    assert longer["bond_deviation"] == pytest.approx(0.1 * np.sqrt((bonds**2).mean()), rel=1e-4)
    collapsed = truth.geometry(np.zeros((2, len(beads), 3), np.float32), beads)
    assert collapsed["clashes"] == len(pairs_of(beads).clash) > 50


def test_nearest_conformation_is_found_however_it_is_turned(beads):
    rng = np.random.default_rng(1)
    path = beads.xyz + np.stack([np.zeros_like(beads.xyz), rng.normal(size=beads.xyz.shape)]).astype(np.float32)
    turned = np.stack([one @ Rotation.random(random_state=i).as_matrix().T + 7 for i, one in enumerate(path)])
    np.testing.assert_allclose(truth.nearest_after_superposition(turned[::-1], path), 0, atol=1e-5)
    mirrored = truth.nearest_after_superposition(turned * np.array([1, 1, -1]), path)
    assert (mirrored > 1).all()
    # Of one conformation only: what scipy's superposition says of the other.
    rotation, _ = Rotation.align_vectors(path[1] - path[1].mean(0), path[0] - path[0].mean(0))
    moved = rotation.apply(path[0] - path[0].mean(0)) + path[1].mean(0)
    expected = np.sqrt(((moved - path[1]) ** 2).sum(-1).mean())
    np.testing.assert_allclose(truth.nearest_after_superposition(turned[:1], path), [0, expected], atol=1e-5)


def test_the_whole_report(beads):
    path = beads.xyz + np.linspace(0, 6, 5, dtype=np.float32)[:, None, None] * np.eye(3, dtype=np.float32)[0]
    frame = np.random.default_rng(0).integers(5, size=40)
    latents = np.stack([-frame, np.zeros(40)], 1).astype(np.float32)
    true = Truth(frame, path, np.arange(len(beads)))
    told = truth.conformations(path[frame], latents, beads, true)
    assert told["rmsd_mean"] == 0 and told["spearman"] == pytest.approx(1) and told["recall"] == 1
    assert told["reference"]["rmsd_mean"] == pytest.approx(1.5 * frame.mean(), rel=1e-4)
    assert f"| RMSD, mean over particles (Å) | 0.000 | {told['reference']['rmsd_mean']:.3f} |" in truth.report(told)
    constant = truth.conformations(path[frame], 0 * latents, beads, true)
    assert constant["spearman"] == 0 and constant["reference"]["recall"] == 1  # the path only moves as a whole
    half = truth.conformations(path[frame[::2]], latents[::2], beads, true.select(np.arange(0, 40, 2)))
    assert half["particles"] == 20 and half["rmsd_mean"] == 0


def test_maps_tell_the_conformation_that_they_are_of(beads):
    path = beads.xyz + np.linspace(0, 6, 5, dtype=np.float32)[:, None, None] * np.eye(3, dtype=np.float32)[0]
    true = Truth(np.array([4, 0, 2, 1]), path, np.arange(len(beads)))
    grid = Volume(np.zeros((24,) * 3, np.float32), np.full(3, 2.0), np.full(3, -24.0), "map")
    wide = SIGMA / SIGMA_FACTOR
    drawn = [landscape.drawn(grid, path[frame], beads.electrons, wide) for frame in (4, 0, 2, 2)]
    volumes = [
        dataclasses.replace(grid, data=3 * data + 0.01, name=f"vol_kmeans_{i:03d}") for i, data in enumerate(drawn)
    ]
    told = truth.maps(iter(volumes), np.arange(4), true, beads.electrons, 0.85)
    assert told.nearest.tolist() == [4, 0, 2, 2] and told.frame.tolist() == [4, 0, 2, 1]
    np.testing.assert_allclose(told.off, [0, 0, 0, 1.5], atol=1e-4)
    table = told.table()
    assert (table["fsc_0.5_angstrom"][:3] < 4.5).all() and table["fsc_0.5_angstrom"][3] > 4.5
    assert (table["nmse"][:3] < 1e-6).all() and table["nmse"][3] > 0.05  # of the exact density nothing is left
    with pytest.raises(InputError, match="no maps"):
        truth.maps(iter(()), np.arange(0), true, beads.electrons)
    assert told.moves == pytest.approx(np.corrcoef([3, 0, 1.5, 1.5], [3, 0, 2, 1])[0, 1])


def test_residues_are_matched_by_name(beads, tmp_path):
    rows = np.arange(len(beads))[::-1][:-2]  # in another order, and not all
    names = {name: getattr(beads, name)[rows] for name in ("chain", "resid", "icode")}
    path = np.random.default_rng(0).normal(size=(4, len(rows), 3))
    np.savez(tmp_path / "truth.npz", frame=np.arange(6) % 4, path_ca=path, **names)
    true = truth.read_truth(tmp_path / "truth.npz", beads, 6)
    assert true.own.tolist() == sorted(rows.tolist())
    np.testing.assert_allclose(true.path, path[:, ::-1].astype(np.float32))
    np.savez(tmp_path / "bare.npz", frame=np.arange(6) % 4, path_ca=path)
    with pytest.raises(InputError, match=f"{len(rows)} residues, and the reference has {len(beads)}"):
        truth.read_truth(tmp_path / "bare.npz", beads, 6)
    with pytest.raises(InputError, match="of 6 particles, and this run has 7"):
        truth.read_truth(tmp_path / "truth.npz", beads, 7)
    names["chain"] = np.full(len(rows), "Z")
    np.savez(tmp_path / "other.npz", frame=np.arange(6) % 4, path_ca=path, **names)
    with pytest.raises(InputError, match="no residue"):
        truth.read_truth(tmp_path / "other.npz", beads, 6)
    (tmp_path / "none.npz").write_text("nothing")
    whole = (tmp_path / "truth.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "single.npy", path)
    np.savez(tmp_path / "short.npz", frame=np.arange(6) % 4, path_ca=path[:, :5], **names)
    np.savez(tmp_path / "flat.npz", frame=np.arange(6) % 4, path_ca=path[0])
    np.savez(tmp_path / "many.npz", frame=np.zeros((6, 1), int), path_ca=path)
    for name in ("none.npz", "cut.npz", "single.npy", "short.npz", "flat.npz", "many.npz"):
        with pytest.raises(InputError, match="not the truth of a simulation"):
            truth.read_truth(tmp_path / name, beads, 6)


def test_particles_have_their_own_truth(particles, tmp_path):
    """Some of them, in another order; particles of another simulation are refused."""
    stack, path = read_particles(particles / "particles.star"), particles / "truth.npz"
    beads = beads_of(read_structure(particles / "reference.pdb"))
    frame = np.load(path)["frame"]
    assert truth.read_truth(path, beads, stack).frame.tolist() == frame.tolist()
    rows = [7, 3, 40]
    assert truth.read_truth(path, beads, stack.select(rows)).frame.tolist() == frame[rows].tolist()
    with np.load(path) as archive:
        held = dict(archive)
    np.savez(tmp_path / "other.npz", **(held | {"angles": held["angles"][::-1]}))
    with pytest.raises(InputError, match="of other particles: image 1"):
        truth.read_truth(tmp_path / "other.npz", beads, stack)
    np.savez(tmp_path / "fewer.npz", **(held | {"angles": held["angles"][:9], "frame": frame[:9]}))
    with pytest.raises(InputError, match="of 9 particles, and particles names image 48"):
        truth.read_truth(tmp_path / "fewer.npz", beads, stack)

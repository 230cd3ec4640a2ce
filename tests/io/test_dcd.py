"""Trajectories that grow."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.dcd import DCDWriter, read_frames

FRAMES = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32) * 20


def written(path, frames=FRAMES):
    with DCDWriter(path, 7, 0.5, 4) as out:
        for frame in frames:
            out.write(frame)
    return path


def test_mdtraj_reads_every_frame_in_angstroms(tmp_path):
    formats = pytest.importorskip("mdtraj.formats")
    with formats.DCDTrajectoryFile(str(written(tmp_path / "a.dcd"))) as file:
        xyz, lengths, _ = file.read()
    np.testing.assert_array_equal(xyz, FRAMES)
    assert len(xyz) == 5


def test_frames_come_back(tmp_path):
    np.testing.assert_array_equal(read_frames(written(tmp_path / "a.dcd")), FRAMES)
    (tmp_path / "b.dcd").write_bytes(b"x" * 500)
    for name in ("b.dcd", "none.dcd"):
        with pytest.raises(InputError, match=name):
            read_frames(tmp_path / name)


def test_mdanalysis_reads_places_and_times(tmp_path):
    pytest.importorskip("MDAnalysis")
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(written(tmp_path / "a.dcd"))) as file:
        assert len(file) == 5
        np.testing.assert_array_equal(file.readframes().xyz, FRAMES)
        assert (file.header["istart"], file.header["nsavc"]) == (0, 4)
        assert file.header["delta"] * 48.88821290839617 == pytest.approx(0.5, rel=1e-6)


def test_mdanalysis_gives_frames_their_times(tmp_path):
    pytest.importorskip("MDAnalysis")
    import MDAnalysis

    universe = MDAnalysis.Universe.empty(7, trajectory=True)
    universe.load_new(str(written(tmp_path / "a.dcd")))
    times = [step.time for step in universe.trajectory]
    np.testing.assert_allclose(times, np.arange(5) * 4 * 0.5e-3, rtol=1e-5, atol=1e-12)  # ps


def test_a_run_that_goes_on_writes_the_same_file(tmp_path):
    path = written(tmp_path / "a.dcd", FRAMES[:4])
    with open(path, "ab") as file:
        file.write(b"half of a frame")
    with DCDWriter(path, 7, 0.5, 4, frames=2) as out:
        for frame in FRAMES[2:]:
            out.write(frame)
    assert path.read_bytes() == written(tmp_path / "b.dcd").read_bytes()


@pytest.mark.parametrize(
    ("content", "atoms", "frames", "message"),
    [(None, 7, 6, "5 frames of 7 atoms; the run recorded 6"), (None, 8, 1, "atoms"), (b"x" * 500, 7, 1, "not a traj")],
)
def test_other_files_are_not_gone_on_with(tmp_path, content, atoms, frames, message):
    path = written(tmp_path / "a.dcd")
    if content is not None:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        DCDWriter(path, atoms, frames=frames)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="cannot be continued"):
        DCDWriter(tmp_path / "none.dcd", 7, frames=0)


def test_a_frame_of_other_atoms(tmp_path):
    with DCDWriter(tmp_path / "a.dcd", 7) as out, pytest.raises(ValueError, match="7 atoms"):
        out.write(np.zeros((6, 3)))

"""Frames from simulations and from models, and what is refused."""

import dataclasses
import sys

import gemmi
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure, write_structure
from jaxprot.io.trajectories import Trajectory, check_xtc, from_models, read_trajectory, write_xtc


@pytest.fixture
def structure(example):
    return read_structure(example("trpcage"))


@pytest.fixture
def frames(structure):
    rng = np.random.default_rng(0)
    return structure.xyz[None] + rng.normal(size=(25, *structure.xyz.shape)).astype(np.float32)


@pytest.fixture
def topology(structure, tmp_path):
    write_structure(structure, tmp_path / "top.pdb")
    return tmp_path / "top.pdb"


def store(path, frames):
    formats = pytest.importorskip("mdtraj").formats
    kinds = {".dcd": formats.DCDTrajectoryFile, ".xtc": formats.XTCTrajectoryFile, ".trr": formats.TRRTrajectoryFile}
    with kinds[path.suffix](str(path), "w") as file:
        file.write(frames if path.suffix == ".dcd" else frames / 10)
    return path


def models(structure, frames, numbers=None):
    """One structure with a model per frame."""
    n, f = structure.n_atoms, len(frames)
    parts = {name: np.concatenate([getattr(structure, name)] * f) for name in ("atom_name", "element", "altloc",
             "occupancy", "bfactor", "serial", "res_name", "resid", "icode", "hetero", "chain_id")}  # fmt: skip
    return dataclasses.replace(
        structure,
        **parts,
        xyz=frames.reshape(-1, 3),
        model=np.repeat(np.arange(1, f + 1), n).astype(np.int32),
        atom_residue=np.concatenate([structure.atom_residue + i * structure.n_residues for i in range(f)]),
        res_chain=np.concatenate([structure.res_chain + i * structure.n_chains for i in range(f)]),
    )


@pytest.mark.parametrize("kind", ["dcd", "xtc", "trr"])
def test_formats(structure, frames, topology, tmp_path, kind, capfd):
    path = store(tmp_path / f"a.{kind}", frames)
    capfd.readouterr()
    found = read_trajectory(path, topology)
    assert found.n_frames == 25 and found.structure.n_atoms == structure.n_atoms and found.structure.name == "a"
    np.testing.assert_allclose(found.frames, frames, atol=6e-3 if kind == "xtc" else 1e-4)
    assert capfd.readouterr().out == ""
    several = read_trajectory([path, path], topology, stride=7)
    np.testing.assert_array_equal(several.frames, np.concatenate([found.frames] * 2)[::7])


def test_xtc_files_are_read_as_they_were_written(structure, topology, tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    given = np.random.default_rng(0).normal(size=(300, structure.n_atoms, 3)) * 20  # more than are written at once
    write_xtc(tmp_path / "a.xtc", given, np.arange(300) * 0.1, np.arange(300) * 100)
    np.testing.assert_allclose(read_trajectory(tmp_path / "a.xtc", topology).frames, given, atol=0.0051)
    with mdtraj.formats.XTCTrajectoryFile(str(tmp_path / "a.xtc")) as file:
        _, times, steps, _ = file.read()
    np.testing.assert_allclose(times, np.arange(300) * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(steps, np.arange(300) * 100)


def test_heavy_atoms_only(structure, frames, topology, tmp_path):
    found = read_trajectory(store(tmp_path / "a.dcd", frames), topology, heavy=True)
    keep = structure.element != "H"
    assert 0 < keep.sum() < structure.n_atoms and found.structure.n_atoms == keep.sum()
    np.testing.assert_allclose(found.frames, frames[:, keep], atol=1e-4)


def test_atoms_are_those_of_the_file_though_its_chains_come_in_parts(structure, tmp_path):
    """A chain's ligand at the end of the file stands with the chain in `Structure`, but not in the trajectory."""
    write_structure(structure, tmp_path / "a.pdb")
    lines = [line for line in (tmp_path / "a.pdb").read_text().splitlines() if line.startswith("ATOM")]
    other = [line[:21] + "B" + line[22:] for line in lines[:30]]
    text = "\n".join([*lines[:100], *other, *lines[100:], "END"])
    (tmp_path / "mixed.pdb").write_text(text)
    order = np.r_[0:100, 300_000:300_030, 100 : len(lines)]
    frames = np.stack([np.where(order >= 300_000, order - 300_000 + 5000, order)] * 3, -1)[None].astype(np.float32)
    trajectory = store(tmp_path / "a.dcd", frames)
    gemmi.read_pdb_string(text, split_chain_on_ter=True).make_mmcif_document().write_file(str(tmp_path / "mixed.cif"))
    for name in ("mixed.pdb", "mixed.cif"):
        found = read_trajectory(trajectory, tmp_path / name)
        assert found.structure.n_chains == 2 and found.structure.chain_id[1] == "B"
        np.testing.assert_array_equal(found.frames[0, :, 0], np.r_[0 : len(lines), 5000:5030])


def test_models_of_a_file(structure, frames, tmp_path):
    write_structure(models(structure, frames), tmp_path / "m.cif")
    found = read_trajectory(tmp_path / "m.cif", stride=2)
    np.testing.assert_allclose(found.frames, frames[::2], atol=1e-3)
    assert found.structure.n_atoms == structure.n_atoms and found.structure.name == "m"
    assert "13 frames" in repr(found)
    heavy = read_trajectory(tmp_path / "m.cif", heavy=True)
    assert heavy.structure.n_atoms == (structure.element != "H").sum()


def test_models_of_different_atoms(structure, frames, caplog):
    whole = models(structure, frames[:3])
    keep = np.ones(whole.n_atoms, bool)
    keep[structure.n_atoms + 4] = False
    found = from_models(whole.select(keep))
    assert "1 atoms are not in every model" in caplog.text
    rest = np.arange(structure.n_atoms) != 4
    np.testing.assert_array_equal(found.frames, frames[:3, rest])
    with pytest.raises(InputError, match="one model only"):
        from_models(structure)
    other = dataclasses.replace(whole, atom_name=np.where(whole.model == 2, "XX", whole.atom_name))
    with pytest.raises(InputError, match="no atom in common"):
        from_models(other)


def test_select(structure, frames):
    part = Trajectory(structure, frames).select(structure.atom_name == "CA")
    assert part.frames.shape == (25, part.structure.n_atoms, 3)
    with pytest.raises(ValueError, match="expected .F"):
        Trajectory(structure, frames[:, 1:])


def test_refuses(structure, frames, topology, tmp_path, caplog):
    one = tmp_path / "a.dcd"
    one.write_bytes(b"hello" * 40)
    for paths, top, message in (
        (one, None, "a.dcd: needs a topology"),
        (tmp_path / "none.dcd", topology, "none.dcd: no such file"),
        (tmp_path / "b.h5", topology, "b.h5: unknown kind of trajectory"),
        ([], topology, "no trajectory given"),
        (topology, None, "top.pdb: one model only"),
    ):
        with pytest.raises(InputError, match=message):
            read_trajectory(paths, top)
    with pytest.raises(InputError, match="stride of 0"):
        read_trajectory(one, topology, stride=0)


def test_without_mdtraj(topology, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mdtraj", None)
    monkeypatch.delitem(sys.modules, "mdtraj.formats", raising=False)
    (tmp_path / "a.dcd").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.dcd: .*pip install 'jaxprot\[trajectories\]'"):
        read_trajectory(tmp_path / "a.dcd", topology)
    with pytest.raises(InputError, match=r"\.xtc: such trajectories need mdtraj, .*\[trajectories\]"):
        check_xtc()


def test_damaged(structure, frames, topology, tmp_path, caplog):
    pytest.importorskip("mdtraj")
    for name in ("a.dcd", "a.xtc", "a.trr"):
        (tmp_path / name).write_bytes(b"hello" * 40)
        with pytest.raises(InputError, match=f"{name}: cannot be read as a trajectory|{name}: no frames"):
            read_trajectory(tmp_path / name, topology)
    short = store(tmp_path / "short.dcd", frames[:, 1:])
    with pytest.raises(InputError, match=f"short.dcd: {structure.n_atoms - 1} atoms, but .*top.pdb has"):
        read_trajectory(short, topology)
    packed = bytearray(store(tmp_path / "whole.xtc", frames).read_bytes())
    packed[88:92] = (1 << 20).to_bytes(4, "big")  # bytes of the first frame: further than the file reaches
    (tmp_path / "far.xtc").write_bytes(packed)
    (tmp_path / "cut.xtc").write_bytes((tmp_path / "whole.xtc").read_bytes()[:-20])
    for name, frame in (("far", 1), ("cut", 25)):
        with pytest.raises(InputError, match=f"{name}.xtc: cannot be read as a trajectory .frame {frame} is damaged"):
            read_trajectory(tmp_path / f"{name}.xtc", topology)
    with pytest.raises(InputError, match=f"few.xtc: {structure.n_atoms - 1} atoms, but"):
        read_trajectory(store(tmp_path / "few.xtc", frames[:, 1:]), topology)
    whole = store(tmp_path / "whole.dcd", frames).read_bytes()
    (tmp_path / "cut.dcd").write_bytes(whole[: len(whole) // 2])
    assert read_trajectory(tmp_path / "cut.dcd", topology).n_frames in (11, 12)
    assert "the header promises 25 frames" in caplog.text
    frames[3, 4] = np.nan
    with pytest.raises(InputError, match="nan.dcd: frame 4 has coordinates that are not finite"):
        read_trajectory(store(tmp_path / "nan.dcd", frames), topology)

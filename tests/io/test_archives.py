"""Packed archives of chains."""

import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.archives import read_chains
from jaxprot.io.structures import read_structure


def pack(structures, path, leave_out=(), **changed):
    """An archive of structures of one chain each, in whole hundredths of Å around a centre."""
    atom_names = sorted({str(name) for one in structures for name in one.atom_name})
    res_names = sorted({str(name) for one in structures for name in one.res_name})
    centres = np.array([np.round(one.xyz.mean(0) * 100) for one in structures]).astype(np.int32)
    together = lambda part: np.concatenate([part(one) for one in structures])  # noqa: E731
    atoms = [np.bincount(one.atom_residue, minlength=one.n_residues) for one in structures]
    arrays = {
        "atom_names": np.array(atom_names),
        "res_names": np.array(res_names),
        "entry": np.array([one.name for one in structures]),
        "chain": np.array([str(one.chain_id[0]) or " " for one in structures]),
        "has_bfactor": np.array([bool(one.bfactor.any()) for one in structures]),
        "center": centres,
        "chain_res_start": np.cumsum([0, *(one.n_residues for one in structures)]),
        "res_atom_start": np.concatenate([[0], np.cumsum(np.concatenate(atoms))]),
        "xyz": np.concatenate(
            [np.round(one.xyz * 100) - centre for one, centre in zip(structures, centres, strict=True)]
        ).astype(np.int16),
        "atom_name": together(lambda one: np.searchsorted(atom_names, one.atom_name)).astype(np.uint8),
        "res_type": together(lambda one: np.searchsorted(res_names, one.res_name)).astype(np.uint8),
        "res_number": together(lambda one: one.resid).astype(np.int16),
        "res_icode": together(lambda one: np.array([ord(code or " ") for code in one.icode])).astype(np.uint8),
        "occupancy": together(lambda one: np.round(one.occupancy * 100)).astype(np.uint8),
        "bfactor": together(lambda one: np.round(one.bfactor * 100)).astype(np.uint16),
    }
    arrays |= changed
    np.savez_compressed(path, **{name: value for name, value in arrays.items() if name not in leave_out})
    return path


@pytest.fixture
def chains(example):
    found = []
    for name in ("ubiquitin", "trpcage"):
        one = read_structure(example(name))
        one = one.select(np.isin(one.element, ("C", "N", "O", "S")) & (one.letters != "X")[one.atom_residue])
        found.append(one.with_bfactor(np.linspace(5, 80, one.n_atoms) if name == "ubiquitin" else 0 * one.occupancy))
    found[1].resid[3:6], found[1].icode[3:6] = 4, ["", "A", "B"]
    return found


def test_chains_come_back(chains, tmp_path):
    found = read_chains(pack(chains, tmp_path / "some.npz"))
    assert [one.has_bfactor for one in found] == [True, False]
    assert [one.structure.name for one in found] == ["ubiquitin_A", "trpcage"]
    for (got, _), one in zip(found, chains, strict=True):
        assert got.n_atoms == one.n_atoms and got.n_residues == one.n_residues
        np.testing.assert_allclose(got.xyz, one.xyz, atol=0.0051)
        np.testing.assert_allclose(got.bfactor, one.bfactor, atol=0.0051)
        np.testing.assert_allclose(got.occupancy, one.occupancy, atol=0.0051)
        for field in ("atom_name", "element", "atom_residue", "res_name", "resid", "icode", "chain_id"):
            np.testing.assert_array_equal(getattr(got, field), getattr(one, field), field)
            assert getattr(got, field).dtype == getattr(one, field).dtype, field
        assert not got.hetero.any() and (got.model == 1).all()


def test_far_from_the_origin(chains, tmp_path):
    """Centres in whole numbers keep the digits."""
    centre = np.array([[90000, -120000, 50], [0, 0, 0]], np.int32)
    got = read_chains(pack(chains, tmp_path / "far.npz", center=centre))[0].structure
    near = read_chains(pack(chains, tmp_path / "near.npz", center=0 * centre))[0].structure
    np.testing.assert_allclose(got.xyz - near.xyz, np.broadcast_to([900, -1200, 0.5], got.xyz.shape), atol=2e-4)


def test_what_is_no_archive(chains, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    pack(chains, tmp_path / "partial.npz", leave_out=("res_number",))
    for name in ("text", "partial", "none"):
        with pytest.raises(InputError, match=f"{name}.npz: not a chain archive .*README"):
            read_chains(tmp_path / f"{name}.npz")
    pack(chains, tmp_path / "wrong.npz", atom_name=np.full(sum(one.n_atoms for one in chains), 200, np.uint8))
    with pytest.raises(InputError, match="wrong.npz: not a chain archive"):
        read_chains(tmp_path / "wrong.npz")


@pytest.mark.parametrize("damage", ["cut", "bits", "empty"])
def test_damaged_archives(chains, tmp_path, damage):
    path = pack(chains, tmp_path / "damaged.npz")
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {"cut": whole[:middle], "bits": whole[:middle] + b"\xff" * 64 + whole[middle + 64 :], "empty": b""}
    path.write_bytes(broken[damage])
    with pytest.raises(InputError, match="damaged.npz: not a chain archive"):
        read_chains(path)

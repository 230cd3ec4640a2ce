"""Labelled conformations, and training on them."""

import dataclasses
import io
import lzma

import jax
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.core.units import BOHR_ANGSTROM, HARTREE_EV
from jaxprot.train.config import load_experiment
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.visnet import data, weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet

SMALL = ViSNetConfig(hidden=8, layers=2, heads=2, rbf=4, lmax=1, max_z=10)
BACKBONE = (("C", "ACE"), ("N", "ALA"), ("CA", "ALA"), ("C", "ALA"), ("N", "NME"))


def springs(z, n, seed):
    """Conformations of a cluster of atoms on springs, with energies that elements have by themselves."""
    rng = np.random.default_rng(seed)
    z = np.asarray(z, np.int32)
    rest = rng.normal(size=(len(z), 3)) * 1.5
    positions = rest + 0.1 * rng.normal(size=(n, len(z), 3))
    vector = positions[:, :, None] - positions[:, None]
    distance = np.linalg.norm(vector, axis=-1)
    there = np.linalg.norm(rest[:, None] - rest[None], axis=-1)
    stretch = distance - there[None]
    energy = 0.5 * np.sum(stretch**2, (1, 2)) / 2 - 13.0 * (z == 1).sum() - 58.0 * (z == 6).sum()
    forces = -np.sum((stretch / np.maximum(distance, 1e-9))[..., None] * vector, 2)
    return {"Z": z, "R": positions, "E": energy, "F": forces}


def write(folder, name, z, n=40, seed=0, **more):
    np.savez(folder / f"{name}.npz", **{**springs(z, n, seed), **more})


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "aa", [6, 1, 1, 6], seed=1)
    write(tmp_path, "bb", [6, 6, 1, 1, 1, 6], seed=2)
    write(tmp_path, "bb_more", [6, 6, 1, 1, 1, 6], n=10, seed=3)
    return tmp_path


def test_files_of_one_molecule_are_joined_and_packed_ones_are_read(folder):
    raw = (folder / "aa.npz").read_bytes()
    (folder / "aa_wide.npz.xz").write_bytes(lzma.compress(raw))
    sets = data.EnergyForceTask(data=(str(folder),), model=SMALL).sets
    assert {name: len(one.energy) for name, one in sets.items()} == {"aa": 80, "bb": 50}
    np.testing.assert_array_equal(sets["aa"].positions[:40], sets["aa"].positions[40:])
    assert len(np.unique(sets["bb"].group)) == 50


def test_gradients_in_atomic_units_become_forces(folder):
    plain = data.read_snapshots(folder / "aa.npz")
    np.savez(folder / "cc.npz", Z=plain.z, R=plain.positions, E=plain.energy / HARTREE_EV,
             F=-plain.forces * BOHR_ANGSTROM / HARTREE_EV)  # fmt: skip
    found = data.read_snapshots(folder / "cc.npz", units="hartree")
    np.testing.assert_allclose(found.energy, plain.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, plain.forces, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": np.zeros((3, 2, 3))}, "expected"),
        ({"E": np.full(40, np.nan)}, "E of conformation 0 not finite"),
        ({"F": None}, "no labelled conformations"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    arrays = {**springs([6, 1, 1], 40, 0), **change}
    np.savez(tmp_path / "aa.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=rf"aa\.npz.*{message}"):
        data.read_snapshots(tmp_path / "aa.npz")
    whole = io.BytesIO()
    np.savez(whole, **springs([6, 1, 1], 4, 0))
    (tmp_path / "bb.npz.xz").write_bytes(lzma.compress(whole.getvalue())[:-50])
    with pytest.raises(InputError, match=r"bb\.npz\.xz"):
        data.read_snapshots(tmp_path / "bb.npz.xz")


def test_cells_are_those_of_phi_and_psi():
    from scipy.spatial.transform import Rotation

    names, residues = (np.array(column) for column in zip(*BACKBONE, strict=True))
    axis, start = np.array([0.0, 0.0, 1.0]), np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.5], [1.0, 0, 2.0]])
    angles = np.arange(-165, 180, 30)
    cells = []
    for angle in angles:  # turning what is behind the bond N-CA changes φ alone (clockwise seen from N to CA: positive)
        last = Rotation.from_rotvec(np.radians(angle) * axis).apply(start[3] - start[2]) + start[2]
        chain = np.concatenate(
            [start[:3], [last], [last + Rotation.from_rotvec(np.radians(angle) * axis).apply([0, 1, 1])]]
        )
        cells.append(data._cells(chain[None], names, residues)[0])
    found = np.array(cells) // 12
    np.testing.assert_array_equal(found, np.arange(12))
    assert len(set(np.array(cells) % 12)) == 1  # ψ is the same


def test_whole_cells_are_held_back(folder):
    task = data.EnergyForceTask(data=(str(folder),), model=SMALL, held=0.2)
    one = task.sets["aa"]
    object.__setattr__(task, "sets", {**task.sets, "aa": one._replace(group=np.repeat(np.arange(10), 4))})
    train, held = task._rows["aa"]
    assert len(held) == 8 and len(train) == 32
    assert not set(np.repeat(np.arange(10), 4)[train]) & set(np.repeat(np.arange(10), 4)[held])


def test_references_are_those_of_the_elements(folder):
    for name, z in (("cc", [6, 1]), ("dd", [6, 6, 6, 1])):
        write(folder, name, z, seed=5)
    task = data.EnergyForceTask(data=(str(folder),), model=SMALL)
    np.testing.assert_allclose(task.references[[1, 6]], [-13, -58], atol=0.3)
    assert task.references[[0, 2, 7, 8]].tolist() == [0, 0, 0, 0]
    net = task.build(jax.random.key(0))
    np.testing.assert_allclose(net.atomref[...], task.references, rtol=1e-6)
    batch = task.load(8, np.arange(3))
    assert batch.z.shape == (3, 8) and np.abs(batch.energy).max() < 3


@pytest.mark.slow
def test_padding_changes_no_term(folder):
    task = data.EnergyForceTask(data=(str(folder),), model=SMALL)
    model = task.build(jax.random.key(0))
    rows = np.flatnonzero(task.examples[1] == 4)[:3]
    exact, padded = task.load(4, rows), task.load(8, np.concatenate([rows, rows[:1]]))
    first = task.batch_loss(model, exact, None, np.ones(3), None)
    second = task.batch_loss(model, padded, None, np.array([1, 1, 1, 0.0]), None)
    for name in ("energy", "forces"):
        np.testing.assert_allclose(first[name].total, second[name].total, rtol=1e-5)
        np.testing.assert_allclose(first[name].count, second[name].count)


@pytest.mark.slow
def test_training_learns_and_a_molecule_can_be_left_out(folder, tmp_path):
    task = data.EnergyForceTask(
        data=(str(folder),), model=SMALL, pairs=512, exclude=("aa",), evaluated=20, weights=(0.1, 1.0)
    )
    assert set(task.examples[1]) == {6}
    optim = OptimConfig(lr=2e-2, warmup=5, ema=0.0)
    cfg = TrainConfig(task=task, optim=optim, steps=100, micro=0, evaluate_every=100, save_every=100, log_every=10)
    records = []
    fit(cfg, tmp_path / "run", parallel=Parallel("single"), report=records.append)
    last = next(r for r in records[::-1] if "val_forces_kcal_mol" in r)
    losses = [record["forces"] for record in records if "forces" in record]
    assert len(losses) == 10 and losses[-1] < 0.8 * losses[0]
    assert last["val_neg_error"] == pytest.approx(
        -last["val_forces_kcal_mol"] - 0.1 * last["val_energy_kcal_mol_atom"], rel=1e-6
    )
    assert last["val_excluded_forces_kcal_mol"] > 0


@pytest.mark.parametrize("loss", [pytest.param("norm", marks=pytest.mark.slow), "mse"])
@pytest.mark.slow
def test_loss_is_what_it_says(folder, loss):
    task = data.EnergyForceTask(data=(str(folder),), model=SMALL, loss=loss, weights=(0.05, 0.95), energy_scale=0.5)
    model, batch = task.build(jax.random.key(0)), task.load(4, np.flatnonzero(task.examples[1] == 4)[:3])
    energy, forces = data.predicted(model, data.Molecules(batch.z, batch.positions))
    found = task.batch_loss(model, batch, None, np.ones(3), None)
    off, wrong = np.asarray(forces) - batch.forces, np.asarray(energy) - batch.energy
    expected = (
        (np.mean(wrong**2), np.mean(off**2))
        if loss == "mse"
        else (np.mean(np.abs(wrong)) / 4, np.mean(np.linalg.norm(off, axis=-1)))
    )
    for name, value in zip(("energy", "forces"), expected, strict=True):
        np.testing.assert_allclose(found[name].total / found[name].count, value, rtol=1e-4)
    assert (found["energy"].weight, found["forces"].weight) == (0.025, 0.95)


def test_wrong_settings(folder):
    with pytest.raises(ValueError, match="loss must be"):
        data.EnergyForceTask(data=(str(folder),), loss="huber")
    with pytest.raises(InputError, match="the molecules are aa, bb"):
        _ = data.EnergyForceTask(data=(str(folder),), model=SMALL, exclude=("zz",)).references
    with pytest.raises(InputError, match="no .npz"):
        data.EnergyForceTask(data=(str(folder / "none"),)).files() and data.EnergyForceTask(data=()).files()


def test_training_goes_on_from_weights(folder, tmp_path):
    first = data.EnergyForceTask(data=(str(folder),), model=SMALL)
    net = first.build(jax.random.key(0))
    cfg, tensors = SMALL, weights.tensors_of(net)
    tensors["atomref"] = tensors["atomref"] + 1.0
    weights.save(tmp_path / "start.safetensors", cfg, tensors)
    task = data.EnergyForceTask(data=(str(folder),), model=SMALL, start=str(tmp_path / "start.safetensors"))
    begun = weights.tensors_of(task.build(jax.random.key(1)))
    assert begun.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(begun[name], value)
    np.testing.assert_allclose(task.references, tensors["atomref"], rtol=1e-6)
    other = data.EnergyForceTask(data=task.data, model=SMALL, start=task.start, refer="data")
    np.testing.assert_allclose(other.build(jax.random.key(1)).atomref[...], first.references, rtol=1e-6)
    wide = data.EnergyForceTask(data=task.data, model=dataclasses.replace(SMALL, hidden=16), start=task.start)
    with pytest.raises(InputError, match="its sizes are"):
        wide.build(jax.random.key(0))


def test_what_is_held_back_does_not_change_with_more_data(folder):
    before = data.EnergyForceTask(data=(str(folder),), model=SMALL, held=0.3)
    held = {before.sets["bb"].positions[row].tobytes() for row in before.held_back("bb")}
    write(folder, "bb_later", [6, 6, 1, 1, 1, 6], n=20, seed=9)
    after = data.EnergyForceTask(data=(str(folder),), model=SMALL, held=0.3)
    now = {after.sets["bb"].positions[row].tobytes() for row in after.held_back("bb")}
    assert 5 < len(held) < 25 and held < now
    train = {after.sets["bb"].positions[row].tobytes() for row in after._rows["bb"][0]}
    assert not train & now and len(train | now) == 70


@pytest.mark.parametrize("atoms", [9, 21, 24])
def test_published_batches_are_of_four_molecules(root, tmp_path, monkeypatch, atoms):
    write(tmp_path, "md17", [6] * 3 + [1] * (atoms - 3), n=100)
    monkeypatch.setenv("JAXPROT_MD17", str(tmp_path / "md17.npz"))
    cfg = load_experiment(root / "experiments" / "ai2bmd" / "md17.py")
    batch = cfg.task.batches(0, 0)
    assert len(batch.members) == 4 and cfg.task.load(batch.shape, batch.members).forces.shape[0] == 4
    assert len(cfg.task.examples[0]) + len(cfg.task.held_back("md17")) == 100
    assert cfg.steps == 3000 * 238 and cfg.evaluate_every == -(-950 // 4)


def test_a_task_tells_what_it_learnt_from(folder, tmp_path):
    tensors = weights.tensors_of(ViSNet(SMALL, rngs=nnx.Rngs(0)))
    weights.save(tmp_path / "start.safetensors", SMALL, tensors, units=["GLY", "AA"])
    assert data.EnergyForceTask(data=(str(folder),), model=SMALL, exclude=("bb",)).learnt() == ["AA"]
    inherited = data.EnergyForceTask(data=(str(folder / "bb.npz"),), start=str(tmp_path / "start.safetensors"))
    assert inherited.learnt() == ["AA", "BB", "GLY"]
    assert inherited.header() == {"config": dataclasses.asdict(inherited.model), "units": ["AA", "BB", "GLY"]}
    weights.save(tmp_path / "silent.safetensors", SMALL, tensors)
    silent = data.EnergyForceTask(data=(str(folder / "bb.npz"),), start=str(tmp_path / "silent.safetensors"))
    assert silent.learnt() is None

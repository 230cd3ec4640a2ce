"""Training data of RMSF-net: entries, tiles, rotations, and the task in the engine."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxprot.core.errors import InputError
from jaxprot.io.structures import read_structure
from jaxprot.rmsfnet import data, featurize
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.model import BOX
from jaxprot.rmsfnet.simulate import simulate_map


@pytest.fixture(scope="module")
def structure(example):
    return read_structure(example("trpcage"))


@pytest.fixture(scope="module")
def rmsf(structure):
    values = np.linspace(0.2, 2.0, structure.n_atoms)
    values[::11] = np.nan
    return values


@pytest.fixture(scope="module")
def entry(structure, rmsf):
    volume = simulate_map(structure, 3.0, 1.5, padding=7)
    return data.make_entry(structure, rmsf, volume)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, entry):
    """Four entries to train on and two to evaluate."""
    home = tmp_path_factory.mktemp("entries")
    rng = np.random.default_rng(0)
    for kind, count in (("train", 4), ("val", 2)):
        (home / kind).mkdir()
        for number in range(count):
            noisy = entry.map + 0.05 * entry.map.max() * rng.normal(size=entry.map.shape).astype(np.float32)
            data.write_entry(entry._replace(name=f"p{number}.a", map=noisy), home / kind)
    return home


def test_targets_are_means_over_the_atoms_of_a_voxel(structure, rmsf, entry):
    volume = simulate_map(structure, 3.0, 1.5, padding=7)
    index, inside = featurize.atom_voxels(structure, volume)
    used = inside & featurize.protein_atoms(structure) & np.isfinite(rmsf)
    expected = {}
    for voxel, value in zip(map(tuple, index[used].tolist()), np.log10(rmsf[used] + 1), strict=True):
        expected.setdefault(voxel, []).append(value)
    assert any(len(values) > 1 for values in expected.values())
    found = dict(zip(map(tuple, entry.voxels.tolist()), entry.target.tolist(), strict=True))
    assert found.keys() == expected.keys()
    for voxel, values in expected.items():
        assert found[voxel] == pytest.approx(np.mean(values), rel=1e-5)


def test_the_simulated_map_lies_on_the_grid_of_the_map(structure, rmsf):
    """As prediction cuts it: moved by whole voxels, at most half a voxel off."""
    volume = simulate_map(structure, 3.0, 1.5, padding=7)
    volume = dataclasses.replace(volume, origin=volume.origin + [0.4, -0.3, 0.2])
    found = data.make_entry(structure, rmsf, volume)
    boxes = featurize.Boxes(volume, simulate_map(structure), "both", np.arange(2))
    cut = boxes.cut(np.arange(2))
    box, _ = data.cut(found, boxes.corners[0], 10, RMSFNetConfig())
    np.testing.assert_array_equal(box[..., 0], cut[0, ..., 0])
    # The part of the simulated map that the grid does not hold is lost.
    inside = box[..., 1] != 0
    np.testing.assert_array_equal(box[..., 1][inside], cut[0, ..., 1][inside])


def test_maps_of_other_voxels_are_resampled(structure, rmsf):
    volume = simulate_map(structure, 3.0, 1.1, padding=7)
    assert data.make_entry(structure, rmsf, volume).map.shape == featurize.resample(volume).shape


def test_written_entries_come_back(entry, tmp_path):
    path = data.write_entry(entry, tmp_path)
    assert path.name == "trpcage.npz"
    back = data.read_entry(path)
    assert back.name == "trpcage"
    np.testing.assert_array_equal(back.voxels, entry.voxels)
    np.testing.assert_array_equal(back.target, entry.target)
    np.testing.assert_array_equal(back.origin, entry.origin)
    assert data.read_entry(data.write_entry(entry._replace(origin=None), tmp_path)).origin is None  # as once written
    # The network divides the map by its maximum, so its scale is free.
    np.testing.assert_allclose(back.map, entry.map / np.abs(entry.map).max(), atol=1e-3)
    np.testing.assert_allclose(back.model, entry.model, rtol=1e-3, atol=1e-3)


def test_what_is_no_entry(structure, rmsf, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"hello")
    np.savez(tmp_path / "b.npz", map=np.zeros(3))
    for name in ("a.npz", "b.npz", "none.npz"):
        with pytest.raises(InputError, match=f"{name}: not an entry"):
            data.read_entry(tmp_path / name)
    volume = simulate_map(structure, 3.0, 1.5)
    with pytest.raises(InputError, match="no protein atom with a fluctuation"):
        data.make_entry(structure, rmsf * np.nan, volume)
    far = dataclasses.replace(volume, origin=volume.origin + 500)
    with pytest.raises(InputError, match="inside the map trpcage"):
        data.make_entry(structure, rmsf, far)
    with pytest.raises(InputError, match="no entries .*jaxprot rmsfnet dataset"):
        _ = data.FlexibilityTask(str(tmp_path / "empty"), str(tmp_path)).entries


@pytest.mark.parametrize("damage", ["cut", "bits", "empty"])
def test_damaged_entries(entry, tmp_path, damage):
    path = data.write_entry(entry, tmp_path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {"cut": whole[:middle], "bits": whole[:middle] + b"\xff" * 64 + whole[middle + 64 :], "empty": b""}
    path.write_bytes(broken[damage])
    with pytest.raises(InputError, match="trpcage.npz: not an entry"):
        data.read_entry(path)


def test_boxes_and_targets_turn_together(folders):
    """Densities at the voxels that hold targets are the same in all orientations."""
    task = data.FlexibilityTask(str(folders / "train"), str(folders / "val"), core=10)
    base = task.load(None, np.array([24 * 2]))
    seen = set()
    for turn in range(24):
        batch = task.load(None, np.array([24 * 2 + turn]))
        assert batch["boxes"].shape == (1, BOX, BOX, BOX, 2) and batch["target"].shape == (1, 10, 10, 10)
        assert batch["boxes"].dtype == batch["target"].dtype == batch["mask"].dtype == np.float32
        at = batch["mask"][0] > 0
        assert at.sum() == base["mask"].sum() > 3

        def pairs(one, at):
            core = one["boxes"][0, 15:25, 15:25, 15:25][at]
            return sorted(map(tuple, np.column_stack([core, one["target"][0][at]]).tolist()))

        assert pairs(batch, at) == pairs(base, base["mask"][0] > 0)
        seen.add(batch["boxes"].tobytes())
    assert len(seen) == 24


@pytest.mark.parametrize("core", [10, 20])
def test_every_target_is_in_one_tile(entry, core):
    places = data.tiles([entry, entry], core)
    assert set(places[:, 0]) == {0, 1} and (places[:, 1:] % core == 0).all()
    for number in (0, 1):
        corners = places[places[:, 0] == number, 1:]
        count = [np.isfinite(data.cut(entry, corner, core, RMSFNetConfig())[1]).sum() for corner in corners]
        assert min(count) > 0 and sum(count) == len(entry.voxels)


def test_exact_entries_hold_no_hydrogens_and_lie_on_the_maps_grid(structure, rmsf, tmp_path):
    volume = simulate_map(structure, 3.0, 1.1, padding=7)
    made = data.make_entry(structure, rmsf, volume, geometry="exact")
    grid = featurize.resample(volume, exact=True)
    heavy = structure.select(structure.element != "H")
    np.testing.assert_allclose(made.model, simulate_map(heavy, on_grid=grid).data, atol=1e-6)
    np.testing.assert_array_equal(made.map, grid.data)
    data.write_entry(made, tmp_path)
    assert data.read_entry(tmp_path / f"{made.name}.npz").geometry == "exact"
    task = data.FlexibilityTask(str(tmp_path), str(tmp_path), model=RMSFNetConfig(width=2))
    with pytest.raises(InputError, match="made in the exact geometry, and the network reads published, hydrogens True"):
        task.entries  # noqa: B018
    exact = dataclasses.replace(task, model=RMSFNetConfig(width=2, geometry="exact", hydrogens=False))
    assert len(exact.entries) == len(exact.held_out) == 1


def test_boxes_with_few_targets_are_left_out(entry):
    every, some = data.tiles([entry], 10), data.tiles([entry], 10, least=20)
    count = [np.isfinite(data.cut(entry, corner, 10, RMSFNetConfig())[1]).sum() for corner in every[:, 1:]]
    assert 0 < len(some) == sum(n >= 20 for n in count) < len(every)
    assert len(data.tiles([entry, entry], 10, least=10**6)) == 2  # the fullest box of each entry stays


def test_displaced_boxes_hold_their_targets(folders):
    task = data.FlexibilityTask(str(folders / "train"), str(folders / "val"), core=10, shift=5, rotations=False, size=4)
    members = task.batches(3, 1).members
    shifts = [member % 125 for member in members.tolist()]
    assert len(set(shifts)) > 1 and all(member // 125 % 24 == 0 for member in members.tolist())
    batch = task.load(None, members)
    places = data.tiles(task.entries, 10)
    for row, (member, shift) in enumerate(zip(members.tolist(), shifts, strict=True)):
        number, *corner = places[member // (125 * 24)]
        moved = np.array(corner) + np.array(np.unravel_index(shift, (5, 5, 5))) - 2
        box, target = data.cut(task.entries[number], moved, 10, task.model)
        np.testing.assert_array_equal(batch["boxes"][row], box)
        np.testing.assert_array_equal(batch["mask"][row] > 0, np.isfinite(target))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Weights of a small network for a model alone, and their tensors."""
    from flax import nnx

    from jaxprot.rmsfnet.model import RMSFNet
    from jaxprot.weights import portable

    abstract = nnx.eval_shape(lambda: RMSFNet(RMSFNetConfig(variant="pdb", width=2), rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(abstract)))
    tensors = {
        ".".join(str(k.key) for k in path): np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for path, leaf in leaves
    }
    path = tmp_path_factory.mktemp("weights") / "pdb.safetensors"
    portable.save(path, tensors, {"system": "rmsfnet", "config": {"variant": "pdb", "width": 2}})
    return path, tensors


@pytest.mark.slow
def test_training_starts_from_weights_of_one_input(folders, started, key):
    from flax import nnx

    path, tensors = started
    task = data.FlexibilityTask(
        str(folders / "train"), str(folders / "val"), model=RMSFNetConfig(width=2), weights=str(path)
    )
    assert str(path) in task.files()
    model = task.build(key)
    first = np.asarray(model.conv0_0.conv1.kernel[...])
    # Beside a map, the model's is not divided by its maximum.
    np.testing.assert_allclose(first[..., 1:, :], tensors["conv0_0.conv1.kernel"] / 1.36, rtol=1e-6)
    assert 0 < np.abs(first[..., 0, :]).max() < np.abs(first[..., 1, :]).max()
    np.testing.assert_array_equal(model.conv2_1.norm2.var[...], tensors["conv2_1.norm2.var"])
    alike = dataclasses.replace(task, model=RMSFNetConfig(variant="map", width=2)).build(key)
    np.testing.assert_array_equal(alike.conv0_0.conv1.kernel[...], tensors["conv0_0.conv1.kernel"])
    assert nnx.state(alike, nnx.BatchStat)


def test_training_for_one_input_starts_from_weights_for_both(folders, started, key, tmp_path):
    from jaxprot.weights import portable

    _, tensors = started
    both = np.concatenate([tensors["conv0_0.conv1.kernel"], 2 * tensors["conv0_0.conv1.kernel"]], axis=3)
    header = {"system": "rmsfnet", "config": {"variant": "both", "width": 2}}
    portable.save(tmp_path / "both.safetensors", tensors | {"conv0_0.conv1.kernel": both}, header)
    for variant, factor in (("map", 1.0), ("pdb", 2 * 1.36)):
        cfg = RMSFNetConfig(variant=variant, width=2)
        task = data.FlexibilityTask(
            str(folders / "train"), str(folders / "val"), model=cfg, weights=str(tmp_path / "both.safetensors")
        )
        np.testing.assert_allclose(task.build(key).conv0_0.conv1.kernel[...], factor * both[:, :, :, :1], rtol=1e-6)


def test_weights_of_another_width_do_not_start(folders, started, key):
    from jaxprot.core.errors import CheckpointError

    task = data.FlexibilityTask(
        str(folders / "train"), str(folders / "val"), model=RMSFNetConfig(width=3), weights=str(started[0])
    )
    with pytest.raises(CheckpointError, match="cannot start a network of width 3 for both.*width 2 for pdb"):
        task.build(key)


def test_targets_lie_at_their_atoms(entry):
    number, *corner = data.tiles([entry], 10)[0]
    for variant, channels in (("both", 2), ("map", 1), ("pdb", 1)):
        box, target = data.cut(entry, np.array(corner), 10, RMSFNetConfig(variant=variant))
        assert box.shape == (BOX, BOX, BOX, channels)
        place = np.argwhere(np.isfinite(target))[0] + corner
        row = (entry.voxels == place).all(1)
        assert target[tuple(place - corner)] == entry.target[row][0]
        first = entry.model if variant == "pdb" else entry.map
        assert box[tuple(place - np.array(corner) + 15)][0] == first[tuple(place)]


def test_batches_are_functions_of_step_and_seed(folders):
    task = data.FlexibilityTask(str(folders / "train"), str(folders / "val"), size=3)
    one, two = task.batches(5, 1), task.batches(5, 1)
    np.testing.assert_array_equal(one.members, two.members)
    assert (one.members != task.batches(5, 2).members).any()
    still = dataclasses.replace(task, rotations=False)
    assert (still.batches(5, 1).members % 24 == 0).all()
    assert len(task.files()) == 6 and all(path.endswith(".npz") for path in task.files())


def test_the_loss_counts_voxels_with_atoms_and_real_examples(folders, key):
    import jax.numpy as jnp

    task = data.FlexibilityTask(str(folders / "train"), str(folders / "val"), size=3, rotations=False)
    batch = task.load(None, np.array([0, 24, 48]))

    def model(boxes, key, core):
        return jnp.asarray(batch["target"]) + 0.1

    terms = task.batch_loss(model, batch, jax.random.split(key, 3), jnp.array([1.0, 1.0, 0.0]), None)
    count = batch["mask"][:2].sum()
    assert float(terms["squared"].count) == count
    assert float(terms["squared"].total) == pytest.approx(0.01 * count, rel=1e-4)
    expected = (batch["mask"] * 10 ** batch["target"] * (10**0.1 - 1))[:2].sum()
    assert float(terms["absolute_angstrom"].total) == pytest.approx(expected, rel=1e-4)
    assert terms["absolute_angstrom"].weight == 0
    strong = dataclasses.replace(task, emphasis=2.0)
    terms = strong.batch_loss(model, batch, jax.random.split(key, 3), jnp.array([1.0, 1.0, 0.0]), None)
    count = (batch["mask"] * 100 ** batch["target"])[:2].sum()
    assert float(terms["squared"].count) == pytest.approx(count, rel=1e-5)
    assert float(terms["squared"].total) == pytest.approx(0.01 * count, rel=1e-4)


@pytest.mark.slow
def test_three_steps_of_training(folders, tmp_path):
    from jaxprot.rmsfnet import predict
    from jaxprot.train.loop import fit
    from jaxprot.train.task import OptimConfig, TrainConfig

    task = data.FlexibilityTask(
        str(folders / "train"), str(folders / "val"), model=RMSFNetConfig(width=2), size=2, core=10, held=1
    )
    optim = OptimConfig(lr=1e-3, schedule="constant", warmup=0)
    cfg = TrainConfig(task=task, optim=optim, steps=3, micro=0, evaluate_every=3, save_every=3, log_every=1, workers=1)
    header = {"system": "rmsfnet", "config": dataclasses.asdict(task.model)}
    done = fit(cfg, tmp_path / "run", header=header)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["squared"] for record in records if "squared" in record]
    assert len(losses) == 3 and np.isfinite(losses).all()
    figures = next(record for record in records if any("pearson" in name for name in record))
    assert any("absolute_angstrom" in name for name in figures)
    # What was trained predicts.
    from jaxprot.weights import portable

    tensors, header = portable.load(done.best)
    assert header["step"] == 3
    assert any(name.endswith("norm1.var") for name in tensors)
    assert predict.load(done.best).config == RMSFNetConfig(width=2)


def test_the_evaluator_gives_means_over_entries(folders):
    from flax import nnx

    task = data.FlexibilityTask(str(folders / "train"), str(folders / "val"), core=20)
    entries, places = task.held_out, data.tiles(task.held_out, 20)

    class Oracle(nnx.Module):
        """Reads the answer off the first density: any monotonous function of it."""

        def __init__(self):
            self.scale = nnx.Param(np.float32(0.5))

        def __call__(self, boxes, key, core):
            middle = (BOX - core) // 2
            part = slice(middle, middle + core)
            return self.scale[...] * boxes[:, part, part, part, 0]

    graphdef, state = nnx.split(Oracle())
    figures = task.evaluator(graphdef)(state)
    assert set(figures) == {"pearson", "spearman", "absolute_angstrom"}
    expected = []
    for number, entry in enumerate(entries):
        found = []
        for _, *corner in places[places[:, 0] == number]:
            box, target = data.cut(entry, np.array(corner), 20, task.model)
            at = np.isfinite(target)
            found.append(np.stack([0.5 * box[10:30, 10:30, 10:30, 0][at], target[at]]))
        predicted, target = 10 ** np.concatenate(found, 1).astype(np.float64) - 1
        expected.append([np.corrcoef(predicted, target)[0, 1], np.abs(predicted - target).mean()])
    pearson, absolute = np.mean(expected, axis=0)
    assert figures["pearson"] == pytest.approx(pearson, abs=1e-5)
    assert figures["absolute_angstrom"] == pytest.approx(absolute, abs=1e-5)


def test_entries_without_a_correlation_are_left_out_and_told_once(caplog):
    true = np.linspace(0.2, 2, 9)
    rmsf = [(true, true), (true, np.ones(9)), (-true, true), (true[:2], true[:2]), (true + 1, true)]
    told = set()
    for _ in range(2):
        found = data.agreement(["up", "flat", "down", "two", "plus"], rmsf, told)
        assert found["pearson"] == pytest.approx(1 / 3) and found["spearman"] == pytest.approx(1 / 3)
        every = [0, np.abs(true - 1).mean(), 2 * true.mean(), 0, 1]
        assert found["absolute_angstrom"] == pytest.approx(np.mean(every))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["flat, two"]
    none = data.agreement(["flat"], rmsf[1:2], set())
    assert np.isnan([none["pearson"], none["spearman"]]).all() and np.isfinite(none["absolute_angstrom"])


def test_the_monitor_survives_a_flat_entry(folders, entry, tmp_path, caplog):
    """As both tasks evaluate it."""
    from flax import nnx

    from jaxprot.rmsfnet.defmap import DEFMapConfig, DEFMapTask

    for name, target in (("flat", entry.target * 0 + 0.2), ("real", entry.target)):
        data.write_entry(entry._replace(name=name, target=target.astype(np.float32)), tmp_path)

    class First(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(np.float32(0.01))

        def __call__(self, boxes, key=None, core=None):
            if core is None:
                return self.scale[...] * boxes[:, 5, 5, 5]
            return self.scale[...] * boxes[:, 10:30, 10:30, 10:30, 0]

    graphdef, state = nnx.split(First())
    home = str(tmp_path)
    tasks = data.FlexibilityTask(home, home, core=20), DEFMapTask(home, home, DEFMapConfig(width=2, dense=8))
    for task in tasks:
        caplog.clear()
        evaluate = task.evaluator(graphdef)
        figures = [evaluate(state), evaluate(state)]
        assert all(np.isfinite(list(one.values())).all() for one in figures) and figures[0] == figures[1]
        assert caplog.text.count("flat: no correlation") == 1 and len(caplog.records) == 1

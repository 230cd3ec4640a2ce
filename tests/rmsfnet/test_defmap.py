"""DEFMap: shapes, sums against plain numpy, preparation of maps, the task in the training engine."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.structures import read_structure
from jaxprot.rmsfnet import defmap, featurize
from jaxprot.rmsfnet.data import Entry, write_entry
from jaxprot.rmsfnet.defmap import DEFMap, DEFMapConfig, DEFMapTask
from jaxprot.rmsfnet.simulate import simulate_map
from jaxprot.train.loop import fit
from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.weights import module, portable

TINY = DEFMapConfig(width=2, dense=8)


def entry(name, seed, size=14, count=40):
    """An entry whose fluctuation falls with the density."""
    rng = np.random.default_rng(seed)
    density = rng.random((size,) * 3).astype(np.float32)
    voxels = np.unique(rng.integers(0, size, (count, 3)), axis=0).astype(np.int16)
    target = np.log10(2.5 - density[tuple(voxels.T)]).astype(np.float32)
    return Entry(name, density, density, voxels, target)


def test_published_shapes():
    cfg = DEFMapConfig.paper()
    assert cfg == DEFMapConfig(width=64, dense=1024) and cfg.flat == 2048
    shapes = module.shapes(module.Blueprint(lambda rngs: DEFMap(cfg, rngs=rngs)))
    assert shapes["convs.0.kernel"] == (4, 4, 4, 1, 64)
    assert shapes["convs.1.kernel"] == (4, 4, 4, 64, 128)
    assert shapes["convs.2.kernel"] == (4, 4, 4, 128, 256)
    assert shapes["dense1.kernel"] == (2048, 1024) and shapes["dense2.kernel"] == (1024, 1024)
    assert shapes["final.kernel"] == (1024, 1)
    stages = jax.eval_shape(lambda: DEFMap(cfg, rngs=module.UnusedKeys()).stages(jnp.zeros((3, 10, 10, 10))))
    assert [s.shape for s in stages] == [(3, 5, 5, 5, 64), (3, 3, 3, 3, 128), (3, 2, 2, 2, 256)]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"dense": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_sizes_that_make_no_network(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DEFMapConfig(**wrong)


def plain(model, box):
    """The network as loops over taps and voxels."""
    x = np.asarray(box, np.float64)[..., None]
    for conv in model.convs:
        kernel = np.asarray(conv.kernel[...], np.float64)
        n = x.shape[0]
        padded = np.pad(x, [(1, 2)] * 3 + [(0, 0)])
        y = np.asarray(conv.bias[...], np.float64) + sum(
            padded[a : a + n, b : b + n, c : c + n] @ kernel[a, b, c] for a, b, c in np.ndindex(4, 4, 4)
        )
        y = np.where(y > 0, y, 0.3 * y)
        m = -(-n // 2)
        x = np.empty((m, m, m, y.shape[-1]))
        for a, b, c in np.ndindex(m, m, m):
            x[a, b, c] = y[2 * a : 2 * a + 2, 2 * b : 2 * b + 2, 2 * c : 2 * c + 2].max((0, 1, 2))
    x = x.reshape(-1)
    for dense in (model.dense1, model.dense2):
        x = x @ np.asarray(dense.kernel[...]) + np.asarray(dense.bias[...])
        x = np.where(x > 0, x, 0.3 * x)
    return (x @ np.asarray(model.final.kernel[...]) + np.asarray(model.final.bias[...]))[0]


def test_the_network_is_the_sum_that_its_definition_says():
    model = DEFMap(TINY, rngs=nnx.Rngs(0))
    boxes = np.random.default_rng(0).random((2, 10, 10, 10)).astype(np.float32)
    found = np.asarray(jax.jit(lambda x: model(x))(boxes))
    assert found == pytest.approx([plain(model, box) for box in boxes], abs=1e-5)


def test_dropout_goes_by_the_key_of_each_box():
    model = DEFMap(TINY, rngs=nnx.Rngs(0))
    run = jax.jit(lambda boxes, keys: model(boxes, keys))
    boxes = np.random.default_rng(0).random((3, 10, 10, 10)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 3)
    whole, still = np.asarray(run(boxes, keys)), np.asarray(run(boxes, None))
    assert not np.allclose(whole, still)
    np.testing.assert_allclose(run(boxes[::-1], keys[::-1])[::-1], whole, rtol=1e-5)


def test_standard_scores_without_negative_ones():
    density = np.random.default_rng(0).normal(3, 2, (6, 7, 8)).astype(np.float32)
    found = defmap.prepare(density)
    scores = (density - density.mean()) / density.std()
    np.testing.assert_allclose(found, np.maximum(scores, 0), atol=1e-5)
    assert found.dtype == np.float32 and found.min() == 0
    np.testing.assert_allclose(defmap.prepare(5 * density + 100), found, atol=1e-4)
    for flat in (0.0, 0.1):
        assert not defmap.prepare(np.full((4, 4, 4), flat, np.float32)).any()


def test_smoothing_falls_with_frequency_as_stated():
    n, k = 60, 6
    wave = np.cos(2 * np.pi * k * np.arange(n) / n)
    density = np.broadcast_to(wave, (n, n, n)).astype(np.float32)
    frequency = k / (n * 1.5)
    middle = defmap.low_pass(density, 5.0)[30, 30]
    assert middle[20:40] == pytest.approx(wave[20:40] * np.exp(-((5 * frequency) ** 2) / 2), abs=0.005)
    assert np.array_equal(defmap.low_pass(density, 0), density)


def test_boxes_reach_from_five_before_to_four_after():
    density = np.arange(12**3, dtype=np.float32).reshape(12, 12, 12)
    inner, corner = defmap.cut(density, np.array([[5, 6, 7], [0, 0, 11]]))
    assert np.array_equal(inner, density[0:10, 1:11, 2:12])
    assert corner[5, 5, 5] == density[0, 0, 11]
    assert not corner[:5].any() and not corner[:, :5].any() and not corner[..., 6:].any()
    assert np.array_equal(corner[5:, 5:, :6], density[:5, :5, 6:])


def test_the_ten_rotations():
    box = np.arange(27).reshape(3, 3, 3)
    turned = [defmap.rotate(box, number) for number in range(10)]
    assert len({t.tobytes() for t in turned}) == 10
    assert np.array_equal(turned[0], box) and all(t[1, 1, 1] == box[1, 1, 1] for t in turned)


def test_targets_are_logarithms_of_angstrom():
    found = defmap.targets(entry("x", 0)._replace(target=np.log10(np.float32([0.0, 0.5, 1.0, 3.0]) + 1)))
    assert found == pytest.approx([-3, np.log10(0.5), 0, np.log10(3)], abs=1e-5)


def test_prediction_does_not_depend_on_the_batch():
    model = DEFMap(TINY, rngs=nnx.Rngs(0))
    one = entry("x", 0)
    prepared = defmap.prepare(one.map)
    whole = defmap.predict(model, prepared, one.voxels, batch=64)
    np.testing.assert_allclose(defmap.predict(model, prepared, one.voxels, batch=7), whole, rtol=1e-5)
    assert whole.shape == (len(one.voxels),)
    assert defmap.predict(model, prepared, one.voxels[:0]).shape == (0,)


@pytest.mark.slow
def test_a_run_on_the_training_engine(tmp_path):
    for part, seeds in (("train", (0, 1)), ("val", (2,))):
        (tmp_path / part).mkdir()
        for seed in seeds:
            write_entry(entry(f"p{seed}.a", seed), tmp_path / part)
    task = DEFMapTask(str(tmp_path / "train"), str(tmp_path / "val"), TINY, size=8, resolution=0)
    assert len(task.files()) == 3
    batch = task.batches(0, 0)
    loaded = task.load(batch.shape, batch.members)
    assert loaded["boxes"].shape == (8, 10, 10, 10) and loaded["target"].shape == (8,)
    optim = OptimConfig(name="adam", lr=1e-2, weight_decay=0.0, schedule="constant", warmup=0, ema=0.0)
    cfg = TrainConfig(task=task, optim=optim, steps=4, micro=0, evaluate_every=2, save_every=4, log_every=2, workers=0)
    header = {"system": "defmap", "config": {"width": 2, "dense": 8, "dropout": 0.2}, "resolution": 0.0}
    outcome = fit(cfg, tmp_path / "run", header=header)
    assert outcome.step == 4
    model, resolution = defmap.load(outcome.best)
    assert resolution == 0 and model.cfg == TINY
    held = task.held_out[0]
    assert np.isfinite(defmap.predict(model, held.map, held.voxels)).all()


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    portable.save(path, {"a": np.zeros(1)}, {"system": "rmsfnet"})
    with pytest.raises(CheckpointError, match="weights of rmsfnet, not of defmap"):
        defmap.load(path)
    portable.save(path, {"a": np.zeros(1)}, {"system": "defmap", "config": {"depth": 3}})
    with pytest.raises(CheckpointError, match="header fits no DEFMap"):
        defmap.load(path)
    portable.save(path, {"a": np.zeros(1)}, {"system": "defmap", "config": {"width": 2}})
    with pytest.raises(CheckpointError, match="missing"):
        defmap.load(path)


def test_a_map_and_a_model_from_files_to_values(example):
    """Every atom has the value that the network gives the box of its voxel, on the map's own grid here."""
    structure = read_structure(example("trpcage"))
    volume = simulate_map(structure, 3.0, 1.5, padding=9)
    model = DEFMap(TINY, rngs=nnx.Rngs(0))
    found = defmap.predict_map(volume, structure, model, resolution=4.0)
    assert found.method == "defmap" and found.volume.shape == volume.shape
    scored = featurize.protein_atoms(structure)
    np.testing.assert_array_equal(np.isnan(found.rmsf), ~scored)
    prepared = defmap.prepare(defmap.low_pass(volume.data, 4.0))
    index = np.floor((structure.xyz - volume.origin) / 1.5)[:, ::-1].astype(int)
    for atom in np.flatnonzero(scored)[::40]:
        z, y, x = index[atom]
        box = prepared[z - 5 : z + 5, y - 5 : y + 5, x - 5 : x + 5]
        assert found.rmsf[atom] == pytest.approx(10 ** float(plain(model, box)), rel=1e-4)
    assert np.isfinite(found.volume.data).sum() == len(np.unique(index[scored], axis=0))
    other = dataclasses.replace(volume, data=volume.data[::2, ::2, ::2], voxel=volume.voxel * 2)
    assert np.isfinite(defmap.predict_map(other, structure, model).rmsf[scored]).all()  # resampled


def test_maps_and_models_that_make_no_prediction(example):
    structure = read_structure(example("trpcage"))
    volume = simulate_map(structure, 3.0, 1.5)
    model = DEFMap(TINY, rngs=nnx.Rngs(0))
    cases = {
        "no residue with N, CA, C and O": (volume, structure.select(structure.atom_name == "CA")),
        "none of its atoms lies inside": (dataclasses.replace(volume, origin=volume.origin + 500), structure),
        "one value everywhere": (volume.with_data(volume.data * 0), structure),
    }
    for message, (map_, atoms) in cases.items():
        with pytest.raises(InputError, match=message):
            defmap.predict_map(map_, atoms, model)

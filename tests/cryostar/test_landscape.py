"""Components, traversals, clusters and mobilities of latents."""

import importlib.machinery
import importlib.util
import sys
import types

import numpy as np
import pytest

from jaxprot.core import metrics
from jaxprot.core.errors import InputError
from jaxprot.core.volume import Volume
from jaxprot.cryostar import landscape


@pytest.fixture
def latents():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(400, 5)) * [4, 2, 1, 0.5, 0.1] + 3).astype(np.float32)


def test_components_are_those_of_the_singular_values(latents):
    found = landscape.pca(latents)
    centred = latents.astype(float) - latents.mean(0, dtype=float)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.variance, singular**2 / 399, rtol=1e-6)
    np.testing.assert_allclose(np.abs((found.components * directions).sum(1)), 1, atol=1e-8)
    assert (found.components[np.arange(5), np.abs(found.components).argmax(1)] > 0).all()
    np.testing.assert_allclose(found.inverse(found.project(latents)), latents, atol=1e-5)
    assert found.share.sum() == pytest.approx(1)
    few = landscape.pca(latents[:3])
    assert few.components.shape == (3, 5)
    assert landscape.pca(np.ones((4, 2))).share.tolist() == [0, 0]


def test_traversals_go_from_percentile_to_percentile(latents):
    fitted = landscape.pca(latents)
    found = landscape.traverse(latents, fitted, 1, 7, (10, 90))
    scores, along = fitted.project(latents), fitted.project(found.points)
    np.testing.assert_allclose(along[:, 1], np.linspace(*np.percentile(scores[:, 1], [10, 90]), 7), atol=1e-6)
    np.testing.assert_allclose(along[:, [0, 2, 3, 4]], 0, atol=1e-6)
    distance = ((found.points[:, None] - latents[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.rows, distance.argmin(1))


def test_clusters_are_found_and_neighbours_stand_together():
    rng = np.random.default_rng(1)
    line = np.array([5, 0, 3, 1, 4, 2]) * 10.0
    points = np.concatenate([rng.normal(size=(30 + 5 * k, 2)) + [x, 0] for k, x in enumerate(line)]).astype(np.float32)
    found = landscape.kmeans(points, 6)
    order = found.centres[:, 0]
    np.testing.assert_allclose(np.sort(order), np.arange(6) * 10.0, atol=0.6)
    for group in range(6):
        held = points[found.labels == group]
        np.testing.assert_allclose(found.centres[group], held.mean(0), atol=1e-5)
        assert ((points - found.centres[group]) ** 2).sum(1).argmin() == found.rows[group]
    assert np.bincount(found.labels).sum() == len(points)
    again = landscape.kmeans(points, 6)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_a_tree_puts_far_centres_apart():
    centres = np.array([[0.0, 0], [100, 0], [1, 0], [101, 0], [0, 1]])
    order = landscape._tree_order(centres).tolist()
    near = [row in (0, 2, 4) for row in order]
    assert sorted(order) == [0, 1, 2, 3, 4] and sum(a != b for a, b in zip(near, near[1:], strict=False)) == 1


def test_fewer_latents_than_clusters(latents, caplog):
    found = landscape.kmeans(np.repeat(latents[:3], 50, axis=0), 10)
    assert "3 different latents make 3 clusters, not 10" in caplog.text
    assert len(found.centres) == 3 and np.bincount(found.labels).tolist() == [50, 50, 50]
    one = landscape.kmeans(latents[:1], 4)
    assert one.rows.tolist() == [0] and one.labels.tolist() == [0]
    caplog.clear()
    late = np.concatenate([np.zeros((2000, 2)), np.arange(40.0).reshape(20, 2) + 1])  # the different ones come last
    assert len(landscape.kmeans(late, 10).centres) == 10 and not caplog.text


def test_bad_latents_are_refused(latents):
    latents[7, 2] = np.nan
    with pytest.raises(InputError, match="particle row 8 are not finite"):
        landscape.analyse(latents)
    with pytest.raises(InputError, match="expected"):
        landscape.analyse(np.zeros((0, 8)))


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 8), (3, 8), (50, 2)])
def test_analysis_of_few_particles_or_dimensions(shape):
    found = landscape.analyse(np.random.default_rng(0).normal(size=shape))
    assert found.plane.shape == (shape[0], 2) and np.isfinite(found.plane).all()
    assert len(found.traversals) == min(3, *shape)
    assert all(one.rows.max() < shape[0] for one in found.traversals)


def test_umap_is_asked_for_and_not_installed(latents, caplog, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else find(name))
    found = landscape.analyse(latents, umap=True)
    assert found.plane_kind == "pca" and "jaxprot[umap]" in caplog.text
    np.testing.assert_array_equal(found.plane, found.scores[:, :2])


def test_many_latents_are_placed_by_a_umap_of_some(latents, monkeypatch):
    fitted = []

    class UMAP:
        def __init__(self, random_state, n_neighbors):
            assert random_state == 3 and n_neighbors == 15

        def fit(self, x):
            fitted.append(len(x))

        def fit_transform(self, x):
            self.fit(x)
            return self.transform(x)

        def transform(self, x):
            return x[:, 3:5]

    module = types.ModuleType("umap")
    module.UMAP = UMAP
    module.__spec__ = importlib.machinery.ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", module)
    for most in (1000, 50):
        monkeypatch.setattr(landscape, "_MOST_UMAP", most)
        plane, kind = landscape.embed(latents, latents, umap=True, seed=3)
        assert kind == "umap"
        np.testing.assert_array_equal(plane, latents[:, 3:5])
    assert fitted == [400, 50]


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs umap-learn")
def test_umap_where_it_is_installed(latents):
    plane, kind = landscape.embed(latents, latents, umap=True)
    assert kind == "umap" and plane.shape == (400, 2) and np.isfinite(plane).all()


def test_mobility_is_the_deviation_from_the_mean(latents):
    rng = np.random.default_rng(0)
    base, move = 100 * rng.normal(size=(12, 3)), rng.normal(size=(5, 12, 3))
    calls = []

    def decode(z):
        calls.append(len(z))
        return base + np.tensordot(z, move, 1)

    found = landscape.mobility(decode, latents, most=None)
    frames = decode(latents)
    expected = np.sqrt(((frames - frames.mean(0)) ** 2).sum(-1).mean(0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert set(calls[:-1]) == {1, 64}
    some = landscape.mobility(decode, latents, most=200)
    np.testing.assert_allclose(some, expected, rtol=0.2)
    assert landscape.mobility(decode, latents[:1]).tolist() == [0] * 12


def test_numbers_below_one_are_refused():
    latents = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for words, told in (
        ({"points": 0}, "0 points"),
        ({"clusters": -3}, "-3 clusters"),
        ({"components": -1}, "-1 comp"),
    ):
        with pytest.raises(InputError, match=f"{told}.*: give at least"):
            landscape.analyse(latents, **words)
    with pytest.raises(InputError, match="0 clusters: give at least 1"):
        landscape.kmeans(latents, 0)
    assert landscape.analyse(latents, components=0, points=1, clusters=1).traversals == ()


def test_a_map_of_the_model_agrees_with_it():
    xyz = np.random.default_rng(0).uniform(-9, 9, (30, 3)) + 500
    weight = np.full(30, 6.0)
    grid = Volume(np.zeros((24, 26, 28)), 1.5, (480.0, 481, 482))
    from jaxprot.ops import gaussians

    made = gaussians.molmap(
        (xyz - grid.origin).astype(np.float32), weight.astype(np.float32), resolution=5.0, spacing=1.5, shape=grid.shape
    )
    noise = np.random.default_rng(1).normal(size=grid.shape)
    curve = landscape.map_model_fsc(grid.with_data(np.asarray(made)), xyz, weight, 5.0)
    assert curve.correlation.min() > 0.999
    noisy = landscape.map_model_fsc(
        grid.with_data(np.asarray(made) + 0.05 * np.asarray(made).max() * noise), xyz, weight, 5.0
    )
    assert 3.2 < metrics.resolution(noisy, 0.5) < 12
    with pytest.raises(InputError, match="no atoms"):
        landscape.map_model_fsc(grid, np.full((2, 3), np.nan), np.ones(2), 5.0)


@pytest.mark.golden
def test_traversals_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "09_decode.npz")
    fitted = landscape.pca(z["z"])
    for axis in range(3):
        found = landscape.traverse(z["z"], fitted, axis)
        expected, rows = z[f"pc{axis + 1}_traj"], z[f"pc{axis + 1}_index"]
        if np.abs(found.points - expected).max() > 1e-3:  # the other sign
            expected, rows = expected[::-1], rows[::-1]
        np.testing.assert_allclose(found.points, expected, atol=2e-6)
        np.testing.assert_array_equal(found.rows, rows)

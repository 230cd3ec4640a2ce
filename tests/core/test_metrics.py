"""Measures against scipy, and bootstrap intervals."""

import numpy as np
import pytest
import scipy.stats

from jaxprot.core import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("values", [3, 40, 10**6], ids=["many ties", "some ties", "hardly any tie"])
def test_correlations_equal_scipy(rng, values):
    x = rng.integers(0, values, (5, 200)).astype(float)
    y = x + rng.integers(0, values, (5, 200))
    np.testing.assert_array_equal(metrics.rank(x), scipy.stats.rankdata(x, axis=-1))
    for i in range(5):
        assert metrics.pearson(x, y)[i] == pytest.approx(scipy.stats.pearsonr(x[i], y[i])[0], abs=1e-12)
        assert metrics.spearman(x, y)[i] == pytest.approx(scipy.stats.spearmanr(x[i], y[i])[0], abs=1e-12)


def test_errors_and_r2():
    x, y = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    assert metrics.rmse(x, y) == pytest.approx(np.sqrt(5 / 3))
    assert metrics.mae(x, y) == pytest.approx(1.0)
    assert metrics.r2(x, y) == pytest.approx(1 - 5 / 2)
    assert metrics.r2(y, y) == 1


def test_auroc_counts_pairs(rng):
    score, label = rng.integers(0, 9, 60), rng.random(60) < 0.4
    pairs = np.sign(score[label][:, None] - score[~label][None]) / 2 + 0.5
    assert metrics.auroc(score, label) == pytest.approx(pairs.mean())
    assert np.isnan(metrics.auroc(score, np.ones(60)))


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman, metrics.r2])
def test_undefined_is_nan(metric):
    assert np.isnan(metric([], []))
    assert np.isnan(metric([1.0], [2.0]))
    assert np.isnan(metric([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert np.isnan(metric([1.0, np.nan, 3.0], [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="last axes differ"):
        metric([1.0, 2.0], [1.0, 2.0, 3.0])


def test_bootstrap_covers_the_estimate(rng):
    x = rng.normal(size=300)
    y = x + rng.normal(size=300)
    low, high = metrics.bootstrap_interval(metrics.spearman, x, y, 300, seed=1)
    assert low < metrics.spearman(x, y) < high and high - low < 0.25
    assert (low, high) == metrics.bootstrap_interval(metrics.spearman, x, y, 300, seed=1)

    def own(a, b):
        return float(np.corrcoef(a, b)[0, 1])

    loop = metrics.bootstrap_interval(own, x, y, 300, seed=1)
    batch = metrics.bootstrap_interval(metrics.pearson, x, y, 300, seed=2)
    np.testing.assert_allclose(loop, batch, atol=0.03)


def test_bootstrap_by_groups_is_wider(rng):
    groups = np.repeat(np.arange(10), 50)
    x = rng.normal(size=500)
    y = x + 2 * rng.normal(size=10)[groups]
    low, high = metrics.bootstrap_interval(metrics.pearson, x, y, 300)
    wide_low, wide_high = metrics.bootstrap_interval(metrics.pearson, x, y, 300, groups=groups.astype(str))
    assert wide_high - wide_low > high - low
    with pytest.raises(ValueError, match="group labels"):
        metrics.bootstrap_interval(metrics.pearson, x, y, 10, groups=groups[:5])
    assert np.isnan(metrics.bootstrap_interval(metrics.pearson, [], [], 10)).all()


def test_coordinates_and_maps_by_hand():
    a = np.zeros((2, 3))
    b = np.array([[0, 0, 2.0], [0, 4, 0]])
    assert metrics.mean_distance(a, b) == 3 and metrics.share_within(a, b) == 0.5
    np.testing.assert_allclose(metrics.mean_distance(np.stack([a, b]), b), [3, 0])
    with pytest.raises(ValueError, match="expected"):
        metrics.mean_distance(a, b[:1])
    assert metrics.nmse(np.array([3.0, 4]), np.array([3.0, -1])) == 1
    assert np.isnan(metrics.nmse(np.zeros(3), np.ones(3)))


def test_shells_do_not_depend_on_the_grid(rng):
    """Each shell against its definition, on even, odd and oblong grids."""
    for shape, voxel in (((8, 8, 8), 2.0), ((7, 7, 7), 1.0), ((8, 6, 7), np.array([1.0, 1.5, 1.25]))):
        a, b = rng.normal(size=(2, *shape))
        found = metrics.fsc(a, b, voxel)
        axes = [np.fft.fftfreq(n, edge) for n, edge in zip(shape, np.broadcast_to(voxel, 3)[::-1], strict=True)]
        s = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
        one, other = np.fft.fftn(a), np.fft.fftn(b)
        step = found.frequency[1]
        assert abs(found.frequency[-1] + step / 4 - np.abs(axes[2]).max()) < step
        for r, value in enumerate(found.correlation):
            held = np.floor(s / step + 0.5) == r
            expected = (one * other.conj())[held].sum().real
            expected /= np.sqrt((np.abs(one[held]) ** 2).sum() * (np.abs(other[held]) ** 2).sum())
            assert value == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(metrics.fsc(a, 3 * a).correlation, 1)
    with pytest.raises(ValueError, match="one shape"):
        metrics.fsc(a, a[1:])


def test_resolution_is_where_the_curve_crosses():
    frequency = np.arange(5) / 40
    curve = metrics.ShellCorrelation(frequency, np.array([np.nan, 1, 0.6, 0.2, -0.1]))
    assert metrics.resolution(curve, 0.5) == pytest.approx(1 / (0.05 + 0.025 * 0.25))
    assert metrics.resolution(curve, 0.143) == pytest.approx(1 / (0.075 + 0.025 * 0.057 / 0.3))
    assert metrics.resolution(curve, -0.5) == 10
    assert metrics.resolution(curve._replace(correlation=np.array([1, 0.1, 1, 1, 1]))) == np.inf
    gap = curve._replace(correlation=np.array([1, 1, np.nan, 1, 1]))  # nothing is known beyond
    assert metrics.resolution(gap) == 40


@pytest.mark.golden
def test_metrics_of_the_published_code(goldens):
    z = np.load(goldens("cryostar") / "13_metrics.npz")
    found = metrics.fsc(z["vol1"], z["vol2"], published=True)
    np.testing.assert_allclose(np.interp(z["fsc_x"], *found), z["fsc_y"], atol=1e-6)
    assert metrics.resolution(found, published=True) == pytest.approx(float(z["fsc_resolution_px"]))
    assert metrics.mean_distance(z["ca_a"], z["ca_b"]) == pytest.approx(float(z["rmse_order"]), rel=1e-6)
    assert metrics.share_within(z["ca_a"], z["ca_b"]) == float(z["within3"])
    assert metrics.nmse(z["vol1"].ravel(), z["vol2"].ravel()) == pytest.approx(float(z["nmse"]), rel=1e-6)

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

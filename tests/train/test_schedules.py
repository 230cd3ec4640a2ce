"""Schedules are those of the papers; the plateau rule is PyTorch's."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprot.train.schedules import Plateau, rates, trapezoid
from jaxprot.train.task import OptimConfig, PlateauConfig


def test_trapezoid_rises_stays_and_falls():
    schedule = trapezoid(1.0, steps=100, warmup=10, decay=0.5)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(30)) == 1.0
    assert float(schedule(75)) == pytest.approx(0.5)
    assert float(schedule(100)) == 0.0
    assert float(trapezoid(1.0, 100, 10, 0.5, final=0.2)(100)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "cfg",
    [
        OptimConfig(lr=3e-4, warmup=7, decay=0.4),
        OptimConfig(lr=1e-3, warmup=0, schedule="constant"),
        OptimConfig(lr=1e-3, warmup=9, schedule="cosine", final=1e-5),
        OptimConfig(lr=1e-3, warmup=9, schedule="noam"),
    ],
    ids=lambda cfg: cfg.schedule,
)
@pytest.mark.parametrize("steps", [0, 1, 5, 60])
def test_rates_are_the_schedule_step_by_step(cfg, steps):
    found = rates(cfg, steps)
    assert found.shape == (steps,) and found.dtype == np.float32
    for step in range(steps):
        if cfg.schedule == "trapezoid":
            expected = trapezoid(cfg.lr, steps, cfg.warmup, cfg.decay)(step)
        elif cfg.schedule == "constant":
            expected = cfg.lr
        elif cfg.schedule == "cosine":
            last = max(steps, cfg.warmup + 1)
            expected = optax.warmup_cosine_decay_schedule(cfg.lr / 9, cfg.lr, 9, last, cfg.final)(step)
        else:
            expected = cfg.lr * min((step + 1) / 9, (9 / (step + 1)) ** 0.5)
        np.testing.assert_allclose(found[step], float(expected), rtol=5e-6)


def test_constant_rises_first():
    np.testing.assert_allclose(
        rates(OptimConfig(lr=1.0, warmup=4, schedule="constant"), 6)[:4], [0.25, 0.4375, 0.625, 0.8125]
    )
    np.testing.assert_array_equal(rates(OptimConfig(lr=1.0, warmup=4, schedule="constant"), 6)[4:], 1.0)


def test_cosine_ends_at_its_final_rate():
    found = rates(OptimConfig(lr=1.0, warmup=10, schedule="cosine", final=0.1), 110)
    assert found[10] == 1.0
    np.testing.assert_allclose(found[60], 0.55, rtol=1e-5)
    assert 0.1 < found[-1] < 0.101
    assert (np.diff(found[10:]) < 0).all()


def test_noam_is_the_published_schedule_of_proteinmpnn():
    s = np.arange(1, 20001, dtype=np.float64)
    published = 2 * 128**-0.5 * np.minimum(s**-0.5, s * 4000**-1.5)
    cfg = OptimConfig(lr=2 * (128 * 4000) ** -0.5, warmup=4000, schedule="noam")
    np.testing.assert_allclose(rates(cfg, 20000), published, rtol=1e-6)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="known: constant, trapezoid"):
        rates(OptimConfig(schedule="stairs"), 3)


def test_rates_own_their_memory():
    found = rates(OptimConfig(), 3)
    found[0] = 0.0  # not a view of a device array
    assert not isinstance(found, jnp.ndarray)


def scales(values, cfg, lr=1.0):
    state, found = Plateau(), []
    for value in values:
        state = state.after(value, cfg, lr)
        found.append(state.scale)
    return found


def reference(values, mode, factor, patience, threshold, minimum, lr=1.0):
    """PyTorch's rule written as its documentation states it, on the rate itself."""
    best, bad, rate, found = (-np.inf if mode == "max" else np.inf), 0, lr, []
    for value in values:
        better = value > best * (1 + threshold) if mode == "max" else value < best * (1 - threshold)
        best, bad = (value, 0) if better else (best, bad + 1)
        if bad > patience:
            lowered = max(rate * factor, minimum)
            rate, bad = (lowered if rate - lowered > 1e-8 else rate), 0
        found.append(rate)
    return found


def test_plateau_waits_then_lowers_then_waits_again():
    cfg = PlateauConfig(mode="max", factor=0.5, patience=2, threshold=0.0)
    #       best  bad1 bad2 bad3->  bad1  better bad1 bad2 bad3->
    values = [1.0, 0.9, 0.8, 0.7, 0.9, 1.1, 1.0, 1.0, 1.1]
    assert scales(values, cfg) == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_plateau_takes_the_smaller_as_better():
    cfg = PlateauConfig(mode="min", factor=0.1, patience=0, threshold=0.0)
    np.testing.assert_allclose(scales([3.0, 2.0, 2.5, 1.0, 1.0], cfg), [1, 1, 0.1, 0.1, 0.01])


def test_plateau_threshold_is_relative():
    cfg = PlateauConfig(mode="max", factor=0.5, patience=0, threshold=0.01)
    assert scales([100.0, 100.9], cfg) == [1, 0.5]
    assert scales([100.0, 101.1], cfg) == [1, 1]
    small = PlateauConfig(mode="min", factor=0.5, patience=0, threshold=0.01)
    assert scales([100.0, 99.1], small) == [1, 0.5]
    assert scales([100.0, 98.9], small) == [1, 1]


def test_plateau_stops_at_the_smallest_rate():
    cfg = PlateauConfig(mode="min", factor=0.5, patience=0, threshold=0.0, minimum=3e-4)
    np.testing.assert_allclose(scales([1.0] * 5, cfg, lr=1e-3), [1, 0.5, 0.3, 0.3, 0.3])
    above = PlateauConfig(mode="min", factor=0.5, patience=0, minimum=2e-3)
    assert scales([1.0] * 3, above, lr=1e-3) == [1, 1, 1]  # a minimum above the rate raises nothing


def test_plateau_counts_nan_as_no_improvement():
    cfg = PlateauConfig(mode="max", factor=0.5, patience=1)
    assert scales([float("nan")] * 2 + [1.0, float("nan"), float("nan")], cfg) == [1, 0.5, 0.5, 0.5, 0.25]


def test_plateau_is_off_by_default():
    assert scales([1.0] * 100, PlateauConfig()) == [1.0] * 100


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("patience", [0, 1, 5])
@pytest.mark.parametrize("minimum", [0.0, 1e-3])
def test_plateau_follows_the_rule_on_random_figures(mode, patience, minimum):
    rng = np.random.default_rng(patience)
    values = (rng.normal(size=200).cumsum() * 0.1).tolist() + rng.normal(size=100).tolist()
    cfg = PlateauConfig(mode=mode, factor=0.6, patience=patience, threshold=1e-2, minimum=minimum)
    expected = reference(values, mode, 0.6, patience, 1e-2, minimum, lr=0.02)
    np.testing.assert_allclose(0.02 * np.array(scales(values, cfg, 0.02)), expected, rtol=1e-12)


def test_plateau_survives_json():
    state = Plateau(0.25, -1.5, 3)
    assert Plateau.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert Plateau.from_dict(json.loads(json.dumps(Plateau().to_dict()))) == Plateau()


def test_unknown_plateau_mode():
    with pytest.raises(ValueError, match="known: max, min"):
        Plateau().after(1.0, PlateauConfig(mode="up", factor=0.5), 1.0)

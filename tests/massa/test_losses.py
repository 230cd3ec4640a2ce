"""Objectives of pre-training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprot.massa import losses
from jaxprot.massa.featurize import Labels


@pytest.mark.golden
@pytest.mark.parametrize("case", range(4))
def test_equalised_focal_loss_is_the_published_one(folder, case):
    golden = np.load(folder / "efl.npz")
    logits, targets = golden[f"logits{case}"], golden[f"targets{case}"].astype(np.int32)

    def mean(logits):
        total, count = losses.equalised_focal(logits, targets)
        return total / count

    value, slope = jax.jit(jax.value_and_grad(mean))(logits)
    np.testing.assert_allclose(value, golden[f"efl{case}"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(slope, golden[f"efl_grad{case}"], atol=1e-6)


def test_unlabelled_places_do_not_count():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 6, 5)).astype(np.float32), rng.integers(0, 5, (2, 6)).astype(np.int32)
    hidden = labels.copy()
    hidden[0, :3] = -100
    for loss in (losses.cross_entropy, losses.equalised_focal):
        run = jax.jit(jax.value_and_grad(lambda x, y, loss=loss: loss(x, y)[0]))
        kept = hidden != -100
        value, slope = run(logits, hidden)
        np.testing.assert_allclose(value, run(logits[kept], hidden[kept])[0], rtol=1e-6)
        assert not np.any(slope[0, :3]) and np.all(np.any(np.asarray(slope)[kept] != 0, -1))
        value, slope = run(logits, np.full_like(labels, -100))
        assert value == 0 and not np.any(slope)
        assert np.isfinite(slope).all()


def test_total_leaves_out_objectives_without_labels():
    logits = {name: np.zeros((1, 4, 8), np.float32) for name in Labels._fields[:5]}
    none, some = np.full((1, 4), -100, np.int32), np.zeros((1, 4), np.int32)
    parts = losses.objectives(logits, Labels(some, none, none, some, none))
    p = 1 / 8
    np.testing.assert_allclose(losses.total(parts), np.log(8) * (1 + (1 - p) ** 2), rtol=1e-6)
    parts = losses.objectives(logits, Labels(some, none, none, some, none), training=False)
    np.testing.assert_allclose(losses.total(parts), 2 * np.log(8), rtol=1e-6)
    assert isinstance(jnp.asarray(losses.total({})), jnp.ndarray)

"""One optimisation step: pure, jittable, memory bounded by one example."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, PRNGKeyArray


class TrainState(NamedTuple):
    """Everything a run needs to go on: weights, their running average, optimiser state, step and key."""

    params: Any
    ema: Any
    opt: Any
    step: Array
    key: PRNGKeyArray


def gradient(task: Any, graphdef: Any, params: Any, batch: Any, key: PRNGKeyArray):
    """Mean loss of a batch and its gradient.

    Examples are taken one after the other: their gradients are summed, then divided by the summed count, so the
    result does not depend on how the examples are grouped. Each example's key is `key` folded with its index.

    Returns:
      (loss, count), gradient.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(size))

    def example_loss(params, example, key):
        total, count = task.loss(nnx.merge(graphdef, params), example, key)
        return total, count

    def body(carry, xs):
        (total, count), grad = jax.value_and_grad(example_loss, has_aux=True)(params, *xs)
        return jax.tree.map(jnp.add, carry, (total, count, grad)), None

    zero = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (total, count, grad), _ = jax.lax.scan(body, zero, (batch, keys))
    scale = 1.0 / jnp.maximum(count, 1e-6)
    return (total * scale, count), jax.tree.map(lambda g: g * scale, grad)


def make_step(task: Any, graphdef: Any, tx: optax.GradientTransformation, ema_decay: float):
    """A function (state, batch) -> (state, metrics) for `jax.jit`."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        (loss, count), grad = gradient(task, graphdef, state.params, batch, jax.random.fold_in(state.key, state.step))
        updates, opt = tx.update(grad, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short average at first, so that early evaluations do not show the initial weights.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, state.ema, params)
        metrics = {"loss": loss, "count": count, "grad_norm": optax.global_norm(grad)}
        return TrainState(params, ema, opt, state.step + 1, state.key), metrics

    return step

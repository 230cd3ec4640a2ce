"""One optimisation step of one device: pure, jittable, memory bounded by a micro-batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.train.optimisers import merge
from jaxprot.train.parallel import psum
from jaxprot.train.task import Mean, TrainConfig


class TrainState(NamedTuple):
    """Everything a run needs to go on.

    Attributes:
      trained: weights that the optimiser changes; None in the places of the others.
      fixed: frozen weights; None in the places of the trained ones.
      rest: variables that are not weights (running statistics of batch normalisation).
      ema: running average of `trained`; empty if there is none.
      opt: state of the optimiser.
      step: steps done.
      key: of everything random in the run.
      halted: a loss or gradient was not finite; no step changes the state any more.
    """

    trained: Any
    fixed: Any
    rest: Any
    ema: Any
    opt: Any
    step: Int[Array, ""]
    key: PRNGKeyArray
    halted: Bool[Array, ""]


def variables(state: TrainState, averaged: bool = True) -> Any:
    """All variables of the model, with the averaged weights where there are such."""
    weights = state.ema if averaged and jax.tree.leaves(state.ema) else state.trained
    return join(merge(weights, state.fixed), state.rest)


def join(first: Any, second: Any) -> Any:
    """One nested dictionary of two that share no leaf."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        raise ValueError("both hold the same variable")
    shared = {key: join(first[key], second[key]) for key in first.keys() & second.keys()}
    return {**first, **second, **shared}


def _cast(tree: Any, dtype: Any) -> Any:
    if dtype == jnp.float32:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf, tree)


class Objective:
    """The loss of a task as a function of weights and a device's examples.

    Args:
      task: see `jaxprot.train.task.Task`.
      graphdef: structure of the model.
      micro: examples at once; 0 takes all.
      precision: type that the network computes in.
      axis: name of the device axis, None on one device.
    """

    def __init__(self, task: Any, graphdef: Any, micro: int = 1, precision: str = "float32", axis: str | None = None):
        self.task, self.graphdef, self.micro, self.axis = task, graphdef, micro, axis
        self.dtype = jnp.dtype(precision)
        self.joint = getattr(task, "batch_loss", None) is not None

    def terms(self, weights: Any, rest: Any, examples: Any, weight: Float[Array, "m"], keys: PRNGKeyArray):
        """Terms of a micro-batch, summed over its examples, and the other variables after it."""

        def one(example: Any, weight: Array, key: PRNGKeyArray):
            model = self._model(weights, rest)
            found = {
                name: Mean(weight * _float(mean.total), weight * _float(mean.count), mean.weight)
                for name, mean in self.task.loss(model, example, key).items()
            }
            return found, self._rest(model, rest)

        if self.joint:
            model = self._model(weights, rest)
            found = self.task.batch_loss(model, examples, keys, weight, self.axis)
            found = {name: Mean(_float(mean.total), _float(mean.count), mean.weight) for name, mean in found.items()}
            return found, self._rest(model, rest)
        if weight.shape[0] == 1:
            return one(jax.tree.map(lambda leaf: leaf[0], examples), weight[0], keys[0])
        constant: dict[str, Any] = {}

        def lane(example: Any, weight: Array, key: PRNGKeyArray):
            found, after = one(example, weight, key)
            # The factor of a term is one number, not one per example.
            constant.update({name: mean.weight for name, mean in found.items() if isinstance(mean.weight, int | float)})
            return {name: (m.total, m.count, jnp.asarray(m.weight, jnp.float32)) for name, m in found.items()}, after

        found, after = jax.vmap(lane)(examples, weight, keys)
        summed = {
            name: Mean(jnp.sum(total), jnp.sum(count), constant.get(name, factor[0]))
            for name, (total, count, factor) in found.items()
        }
        return summed, _mean(after, weight / jnp.maximum(jnp.sum(weight), 1e-6))

    def _model(self, weights: Any, rest: Any) -> Any:
        return nnx.merge(self.graphdef, join(_cast(weights, self.dtype), rest))

    def _rest(self, model: Any, rest: Any) -> Any:
        if not jax.tree.leaves(rest):
            return rest
        _, _, after = nnx.split(model, nnx.Param, ...)
        return nnx.to_pure_dict(after)

    def gradient(self, trained: Any, fixed: Any, rest: Any, examples: Any, weight: Float[Array, "n"], key: Any):
        """Loss of the whole batch on all devices and its gradient by the trained weights.

        The examples are taken `micro` at a time and their gradients added; every sum is divided by the count of the
        whole batch, so the result does not depend on how examples are grouped or spread. The key of an example is `key`
        folded with its place in the batch, which is the same on any number of devices.

        Args:
          trained: weights to differentiate by, None in the places of the others.
          fixed: the others.
          rest: other variables.
          examples: this device's, on the leading axis.
          weight: 1, or 0 for padding.
          key: of the step.

        Returns:
          (loss, {term: value}), gradient, other variables after the batch.
        """
        n = weight.shape[0]
        first = 0 if self.axis is None else jax.lax.axis_index(self.axis) * n
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(n))
        m = min(self.micro or n, n)
        if self.joint and self.micro == 1 and n > 1:
            raise InputError("micro 1: the loss of this task joins examples; set micro=0 for the whole batch at once")
        if n % m:
            fill = m - n % m
            examples, keys = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:fill]]), (examples, keys))
            weight = jnp.concatenate([weight, jnp.zeros(fill, weight.dtype)])
        # Not -1 for the number of groups: an array may be empty.
        parts = weight.shape[0] // m
        groups = jax.tree.map(lambda leaf: leaf.reshape(parts, m, *leaf.shape[1:]), (examples, weight, keys))

        factors: dict[str, Any] = {}

        def look(*arguments: Any) -> Any:
            found, _ = self.terms(*arguments)
            factors.update({name: mean.weight for name, mean in found.items()})
            return {name: mean.count for name, mean in found.items()}

        weights = merge(trained, fixed)
        group = jax.tree.map(lambda leaf: leaf[0], groups)
        jax.eval_shape(look, weights, rest, *group)
        minimised = [name for name, factor in factors.items() if not (isinstance(factor, int | float) and factor == 0)]
        if len(minimised) > 1:
            # Terms with counts of their own: these must be known before the backward pass. The forward pass that gives
            # them is dropped by the compiler, unless a count really depends on it.
            parts = _map(lambda group: look(weights, rest, *group), groups)
            counts = psum(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts), self.axis)
            before = {name: _inverse(count) for name, count in counts.items()}
        else:
            before = dict.fromkeys(factors, 1.0)

        def objective(trained: Any, rest: Any, group: Any):
            found, rest = self.terms(merge(trained, fixed), rest, *group)
            value = sum(found[name].weight * found[name].total * before[name] for name in minimised)
            sums = {name: (mean.total, mean.count) for name, mean in found.items()}
            return value, (sums, jax.tree.map(jax.lax.stop_gradient, rest))

        def body(carry: Any, group: Any):
            added, rest = carry
            (value, (sums, after)), grad = jax.value_and_grad(objective, has_aux=True)(trained, rest, group)
            some = jnp.sum(group[1]) > 0  # padding alone leaves no trace in running statistics
            rest = jax.tree.map(lambda new, old: jnp.where(some, new, old), after, rest)
            return (jax.tree.map(jnp.add, added, (grad, value, sums)), rest), None

        start, zero = rest, jnp.zeros(())
        zeros = jax.tree.map(jnp.zeros_like, trained), zero, {name: (zero, zero) for name in factors}
        (added, rest), _ = _scan(body, (zeros, rest), groups)
        grad, loss, sums = psum(added, self.axis)
        if len(minimised) == 1:
            after = _inverse(sums[minimised[0]][1])
            grad, loss = jax.tree.map(lambda leaf: leaf * after, (grad, loss))
        values = {name: total * _inverse(count) for name, (total, count) in sums.items()}
        if jax.tree.leaves(rest) and self.axis is not None:
            share = jnp.sum(weight) / jnp.maximum(psum(jnp.sum(weight), self.axis), 1e-6)
            rest = jax.tree.map(lambda leaf, old: _shared(leaf, old, share, self.axis), rest, start)
        return (loss, values), grad, rest


def _scan(body: Any, carry: Any, xs: Any) -> Any:
    """`jax.lax.scan`, without a loop around a single pass: XLA's CPU convolutions are many times slower inside one."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, xs)
    return body(carry, jax.tree.map(lambda leaf: leaf[0], xs))


def _map(function: Any, xs: Any) -> Any:
    """`jax.lax.map`, without a loop around a single pass."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.map(function, xs)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], xs)))


def _norm(tree: Any) -> Array:
    """Of all leaves together; products of vectors, since XLA on CPU would write the squares to memory first."""
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in map(jnp.ravel, jax.tree.leaves(tree))))


def _float(value: Any) -> Array:
    return jnp.asarray(value, jnp.float32)


def _mean(tree: Any, share: Float[Array, "m"]) -> Any:
    """Mean over the leading axis; whole numbers (counters) are alike in all lanes."""

    def mean(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf[0]
        return leaf[0] + jnp.tensordot(share, leaf - leaf[:1], 1)  # shares do not sum to 1 exactly; constants must stay

    return jax.tree.map(mean, tree)


def _shared(leaf: Array, old: Array, share: Array, axis: str | None) -> Array:
    """Mean over the devices; of whole numbers (counters) the largest, since devices with padding alone do not count.

    It is the changes that are averaged, so that what does not change keeps its bits.
    """
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return old + psum((share * (leaf - old)).astype(leaf.dtype), axis)
    return leaf if axis is None else jax.lax.pmax(leaf, axis)


def _inverse(count: Array) -> Array:
    return 1.0 / jnp.maximum(count, 1e-6)


def make_step(objective: Objective, tx: optax.GradientTransformationExtraArgs, cfg: TrainConfig):
    """A function (state, (examples, weight), rates, resident) -> (state, metrics) for `Parallel.compile`.

    The leading axis of examples, weight, rates and metrics is steps of one dispatch, the next one (not of rates and
    metrics) examples of the device. With `resident` data, `examples` are indices into its leading axis.

    A step whose loss or gradient is not finite leaves the state as it was, but for `halted`, and so do all after it:
    the host learns of it later, and the last good state is still there then.
    """

    def one(state: TrainState, batch: Any, rate: Float[Array, ""], resident: Any):
        examples, weight = batch
        if resident is not None:
            examples = jax.tree.map(lambda leaf: leaf[examples], resident)
        key = jax.random.fold_in(state.key, state.step)
        (loss, values), grad, rest = objective.gradient(state.trained, state.fixed, state.rest, examples, weight, key)
        norm = _norm(grad)
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & ~state.halted
        # A short average at first, so that early evaluations do not show the initial weights.
        decay = jnp.minimum(cfg.optim.ema, (1.0 + state.step) / (10.0 + state.step))

        def moved(grad: Any, rest: Any) -> TrainState:
            updates, opt = tx.update(grad, state.opt, state.trained, learning_rate=rate)
            trained = optax.apply_updates(state.trained, updates)
            ema = jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, state.ema, trained if state.ema else {})
            return state._replace(trained=trained, rest=rest, ema=ema, opt=opt, step=state.step + 1)

        # A branch, and not a choice between two states: XLA then updates large arrays in their place without copies of
        # them (a quarter of the time on CPU).
        new = jax.lax.cond(good, moved, lambda grad, rest: state, grad, rest)
        terms = {name: value for name, value in values.items() if name != "loss"}
        return new._replace(halted=~good), {"loss": loss, **terms, "grad_norm": norm, "good": good}

    def step(state: TrainState, batch: Any, rates: Float[Array, "k"], resident: Any):
        if rates.shape[0] == 1:
            state, metrics = one(state, jax.tree.map(lambda leaf: leaf[0], batch), rates[0], resident)
            return state, jax.tree.map(lambda leaf: leaf[None], metrics)
        return jax.lax.scan(lambda state, xs: one(state, xs[0], xs[1], resident), state, (batch, rates))

    return step

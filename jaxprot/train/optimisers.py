"""Optimisers built from an `OptimConfig`, and which parts of a parameter tree they move.

Parameter trees are nested dictionaries; None stands where a parameter is not trained. Parts of them are named by
patterns: `backbone`, `head.layers` or `bias` name every parameter whose path holds these parts next to each other.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from optax import contrib

from jaxprot.core.errors import InputError
from jaxprot.train.task import OptimConfig

_RECTIFIED_FROM = 5.0  # RAdam: shorter averages have no usable variance


def _parts(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry)))) for entry in path)


def _paths(params: Any) -> list[tuple[str, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is None)[0]
    return [_parts(path) for path, _ in leaves]


def _matches(pattern: str, parts: Sequence[str]) -> bool:
    wanted = pattern.split(".")
    return any(list(parts[i : i + len(wanted)]) == wanted for i in range(len(parts) - len(wanted) + 1))


def _check(patterns: Sequence[str], params: Any, option: str) -> None:
    paths = _paths(params)
    for pattern in patterns:
        if any(_matches(pattern, parts) for parts in paths):
            continue
        names: dict[str, None] = {}  # in the order of the tree
        for parts in paths:
            for i in range(len(parts)):
                names.setdefault(".".join(parts[: i + 1]))
                names.setdefault(parts[i])
        near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5) or [n for n in names if "." not in n][:8]
        raise InputError(f"optim.{option}: no parameter path holds {pattern!r}; near ones: {', '.join(near)}")


def _mapped(function: Callable[[tuple[str, ...]], Any], params: Any) -> Any:
    """A tree of a function of the path, with the holes of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: function(_parts(path)), params)


def trainable(cfg: OptimConfig, params: Any) -> Any:
    """Which parameters are trained.

    Returns:
      A tree like `params` of True and False.

    Raises:
      InputError: a pattern of `cfg.frozen` names nothing, or nothing is left to train.
    """
    _check(cfg.frozen, params, "frozen")
    mask = _mapped(lambda parts: not any(_matches(pattern, parts) for pattern in cfg.frozen), params)
    if not any(jax.tree.leaves(mask)):
        raise InputError(f"optim.frozen: {', '.join(cfg.frozen)} holds every parameter; nothing is left to train")
    return mask


def partition(params: Any, mask: Any) -> tuple[Any, Any]:
    """The trained and the fixed part of a tree, each with None in place of the other's leaves."""
    trained = jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, params)
    fixed = jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, params)
    return trained, fixed


def merge(trained: Any, fixed: Any) -> Any:
    """What `partition` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, trained, fixed, is_leaf=lambda x: x is None)


class RAdamState(NamedTuple):
    """Moments of RAdam, and the steps taken."""

    count: Array
    mu: Any
    nu: Any


def scale_by_radam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al. 2020) as its authors wrote it.

    `eps` is added to the root of the second moment before its bias is corrected (optax: after), and the first steps,
    whose second moment says too little, follow the corrected first moment alone.
    """
    # The length of the average, 2/(1-b2) - 1 - 2t b2^t/(1-b2^t), is a small difference of large numbers in the first
    # steps (1999 - 1994): with x = -t log b2 it is `offset` + 2/(-log b2) (1 - x/(e^x - 1)), which float32 can hold.
    longest, rate = 2.0 / (1.0 - b2) - 1.0, -math.log(b2)
    offset = longest - 2.0 / rate

    def init(params):
        return RAdamState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
        )

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, state.nu, updates)
        x = count * rate
        series = x / 2 - x**2 / 12 + x**4 / 720 - x**6 / 30240 + x**8 / 1209600
        length = offset + 2.0 / rate * jnp.where(x < 0.5, series, 1.0 - x / jnp.expm1(jnp.maximum(x, 0.5)))
        rectified = length >= _RECTIFIED_FROM
        use = jnp.where(rectified, length, longest)  # a root of negative numbers is not wanted in the other branch
        ratio = (use - 4.0) / (longest - 4.0) * (use - 2.0) / use * longest / (longest - 2.0)
        size = jnp.sqrt(-jnp.expm1(-x) * ratio)
        corrected = -jnp.expm1(count * math.log(b1)) if b1 else 1.0
        moved = jax.tree.map(lambda m, v: jnp.where(rectified, size * m / (jnp.sqrt(v) + eps), m) / corrected, mu, nu)
        return moved, RAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _decay(strength: float, mask: Any) -> optax.GradientTransformation:
    """Adds `strength` times the parameters where the mask is True."""

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the parameters: update(gradient, state, params, ...)")
        added = jax.tree.map(lambda keep, u, p: u + strength * p if keep else u, mask, updates, params)
        return added, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _matrices(params: Any) -> Any:
    """True for what Muon moves: matrices, and kernels of convolutions, which are one of (taps and input, output)."""

    # Embedding tables are look-ups, not maps: orthogonalising their update has no meaning.
    def of(path, leaf):
        name = jax.tree_util.keystr(path[-2:])
        return leaf.ndim == 2 and "embedding" not in name or leaf.ndim > 3 and "kernel" in name

    return jax.tree_util.tree_map_with_path(of, params)


def _unit(cfg: OptimConfig, params: Any) -> list[optax.GradientTransformation]:
    """The steps that turn a gradient into what a learning rate of 1 would take off the parameters."""
    decayed = _mapped(lambda parts: not any(_matches(pattern, parts) for pattern in cfg.no_decay), params)
    decay = [_decay(cfg.weight_decay, decayed)] if cfg.weight_decay else []
    if cfg.name == "sgd":
        return [*decay, optax.trace(cfg.momentum) if cfg.momentum else optax.identity()]
    adam = optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps)
    if cfg.name == "adam":
        return [*decay, adam]
    if cfg.name == "adamw":
        return [adam, *decay]
    if cfg.name == "radam":
        return [scale_by_radam(cfg.b1, cfg.b2, cfg.eps), *decay]
    if cfg.name == "muon":
        matrix = _matrices(params)
        muon = contrib.muon(
            1.0,
            eps=cfg.eps,
            adam_b1=cfg.b1,
            adam_b2=cfg.b2,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=jax.tree.map(
                lambda is_matrix, leaf: (
                    contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if is_matrix else None
                ),
                matrix,
                params,
            ),
        )
        # Only the matrices decay; after the sign of optax's alias is taken back.
        both = jax.tree.map(lambda a, b: a and b, decayed, matrix)
        return [muon, optax.scale(-1.0), *([_decay(cfg.weight_decay, both)] if cfg.weight_decay else [])]
    raise ValueError(f"unknown optimiser {cfg.name!r}; known: sgd, adam, adamw, muon, radam")


class LookaheadState(NamedTuple):
    """State of the inner optimiser, slow weights and the steps taken."""

    inner: Any
    slow: Any
    count: Array


def lookahead(
    inner: optax.GradientTransformationExtraArgs, period: int, rate: float
) -> optax.GradientTransformationExtraArgs:
    """Lookahead (Zhang et al. 2019): slow weights that follow the fast ones, which then start again from there.

    The slow weights are copied after the first step and follow at steps 1 + period, 1 + 2 period, ... (counted
    from 1), as in the implementation that published models were trained with.

    Args:
      inner: gives the update of the fast weights, which are the parameters.
      period: steps between two synchronisations.
      rate: fraction of the way to the fast weights.
    """

    def init(params):
        # Zeros, not the parameters: a buffer shared with them could not be donated. Replaced at the first step.
        return LookaheadState(inner.init(params), jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("Lookahead needs the parameters: update(gradient, state, params, ...)")
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        fast = optax.apply_updates(params, updates)
        first, due = state.count == 0, state.count % period == 0
        slow = jax.tree.map(lambda s, f: jnp.where(first, f, jnp.where(due, s + rate * (f - s), s)), state.slow, fast)
        updates = jax.tree.map(lambda u, s, p: jnp.where(due & ~first, s - p, u), updates, slow, params)
        return updates, LookaheadState(inner_state, slow, state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def optimiser(cfg: OptimConfig, params: Any) -> optax.GradientTransformationExtraArgs:
    """The optimiser of a configuration, clipping of the gradient included.

    `update(gradient, state, params, learning_rate=rate)` takes the rate of the step as a scalar array, so that
    schedules are no part of the compiled step.

    Args:
      cfg: the configuration.
      params: tree of the trained parameters (None where a parameter is not trained), for their paths and shapes.

    Raises:
      InputError: a pattern of `no_decay` or `rates` that names nothing, or `rates` that are no pairs.
      ValueError: an unknown name.
    """
    if any(isinstance(pair, str) or len(pair) != 2 for pair in cfg.rates):
        raise InputError(
            f"optim.rates: {cfg.rates!r}; the experiment file gives pairs of a part of paths and a factor, such as "
            "('backbone', 0.1)"
        )
    _check(cfg.no_decay, params, "no_decay")
    _check([pattern for pattern, _ in cfg.rates], params, "rates")
    clip = [] if cfg.clip is None else [optax.clip_by_global_norm(cfg.clip)]
    unit = optax.chain(*clip, *_unit(cfg, params))
    factors = _mapped(
        lambda parts: next((factor for pattern, factor in cfg.rates if _matches(pattern, parts)), 1.0), params
    )

    def update(updates, state, params=None, *, learning_rate=None, **extra):
        del extra
        if learning_rate is None:
            raise ValueError("the optimiser needs the rate of the step: update(..., learning_rate=rate)")
        updates, state = unit.update(updates, state, params)
        scaled = jax.tree.map(lambda u, f: (-learning_rate if f == 1.0 else -f * learning_rate) * u, updates, factors)
        return scaled, state

    tx = optax.GradientTransformationExtraArgs(unit.init, update)
    return lookahead(tx, cfg.lookahead, cfg.lookahead_rate) if cfg.lookahead else tx

"""NNX modules <-> flat dictionaries of arrays with dotted names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError


def flatten(params: Any) -> dict[str, np.ndarray]:
    """Parameters (nested dict, or an `nnx.State`) as `{"encoder.0.norm1.scale": array}`."""
    pure = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
    leaves = jax.tree_util.tree_leaves_with_path(pure)
    return {".".join(str(k.key) for k in path): np.asarray(leaf) for path, leaf in leaves}


class UnusedKeys:
    """Stands in for `nnx.Rngs` while a module is only traced for its shapes: one key for every draw.

    `nnx.Rngs` counts its draws in variables, which under tracing costs several milliseconds each.
    """

    def __init__(self):
        self._key = jax.random.key(0)

    def __getattr__(self, name: str) -> Callable[[], jax.Array]:
        return lambda: self._key


class Blueprint:
    """A module's structure and the shapes of its parameters; tracing it once serves `shapes` and `assemble`.

    Args:
      build: makes the module from its `rngs`.
    """

    def __init__(self, build: Callable[[Any], nnx.Module]):
        # Evaluated inside the trace, so that not even the key is computed.
        self.graphdef, params = nnx.split(nnx.eval_shape(lambda: build(UnusedKeys())), nnx.Param)
        self.params = nnx.to_pure_dict(params)


def _blueprint(build: Callable[[], nnx.Module] | Blueprint) -> Blueprint:
    return build if isinstance(build, Blueprint) else Blueprint(lambda _: build())


def shapes(build: Callable[[], nnx.Module] | Blueprint) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a module's parameters; nothing is initialised."""
    pure = _blueprint(build).params
    leaves = jax.tree_util.tree_leaves_with_path(pure)
    return {".".join(str(k.key) for k in path): tuple(leaf.shape) for path, leaf in leaves}


def assemble(build: Callable[[], nnx.Module] | Blueprint, tensors: Mapping[str, np.ndarray]) -> nnx.Module:
    """The module with these parameters, without initialising it first.

    Raises:
      CheckpointError: parameters missing, unexpected, of another shape or not finite; all of them in one message.
    """
    blueprint = _blueprint(build)
    expected = shapes(blueprint)
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of wrong shape": [n for n, shape in expected.items() if n in tensors and tuple(tensors[n].shape) != shape],
        "not finite": [
            n for n in expected if n in tensors and not np.isfinite(np.asarray(tensors[n], np.float32)).all()
        ],
    }
    if any(problems.values()):
        told = [
            f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            for kind, names in problems.items()
            if names
        ]
        raise CheckpointError(f"parameters: {'; '.join(told)}; are these the weights of another model?")

    def leaf(path, abstract):
        return jnp.asarray(tensors[".".join(str(k.key) for k in path)], abstract.dtype)

    return nnx.merge(blueprint.graphdef, jax.tree_util.tree_map_with_path(leaf, blueprint.params))

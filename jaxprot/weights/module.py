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


def shapes(build: Callable[[], nnx.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a module's parameters; nothing is initialised."""
    pure = nnx.to_pure_dict(nnx.split(nnx.eval_shape(build), nnx.Param)[1])
    leaves = jax.tree_util.tree_leaves_with_path(pure)
    return {".".join(str(k.key) for k in path): tuple(leaf.shape) for path, leaf in leaves}


def assemble(build: Callable[[], nnx.Module], tensors: Mapping[str, np.ndarray]) -> nnx.Module:
    """The module with these parameters, without initialising it first.

    Raises:
      CheckpointError: a parameter is missing or of another shape.
    """
    graphdef, params = nnx.split(nnx.eval_shape(build), nnx.Param)
    pure = nnx.to_pure_dict(params)
    wrong = []

    def leaf(path, abstract):
        name = ".".join(str(k.key) for k in path)
        value = tensors.get(name)
        if value is None or tuple(value.shape) != tuple(abstract.shape):
            wrong.append(name)
            return abstract
        return jnp.asarray(value, abstract.dtype)

    filled = jax.tree_util.tree_map_with_path(leaf, pure)
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} parameters missing or of wrong shape ({', '.join(wrong[:5])}"
            f"{', ...' if len(wrong) > 5 else ''}); are these the weights of another model?"
        )
    return nnx.merge(graphdef, filled)

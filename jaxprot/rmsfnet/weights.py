"""Where the tensors of the published RMSF-net checkpoints go, and batch normalisation put into the convolutions."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.model import RMSFNet
from jaxprot.weights import module
from jaxprot.weights.convert import Rule

_EPSILON = 1e-5
_STATISTICS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def _taps(array: np.ndarray) -> np.ndarray:
    """(out, in, depth, height, width) -> (depth, height, width, in, out)."""
    return array.transpose(2, 3, 4, 1, 0) if array.ndim == 5 else array


def _rules() -> tuple[Rule, ...]:
    prefix = r"(?:module\.)?"
    out = [
        Rule(prefix + r"(conv\d_\d\.conv\d)\.weight", r"\1.kernel", _taps),
        Rule(prefix + r"(conv\d_\d\.conv\d)\.bias", r"\1.bias"),
        Rule(prefix + r"regression_head\.regress(\d)\.0\.weight", r"head.conv\1.kernel", _taps),
        Rule(prefix + r"regression_head\.regress(\d)\.0\.bias", r"head.conv\1.bias"),
        Rule(prefix + r"regression_head\.final\.weight", "head.final.kernel", _taps),
        Rule(prefix + r"regression_head\.final\.bias", "head.final.bias"),
    ]
    for theirs, ours in _STATISTICS.items():
        out.append(Rule(prefix + rf"(conv\d_\d)\.bn(\d)\.{theirs}", rf"\1.norm\2.{ours}"))
        out.append(Rule(prefix + rf"regression_head\.regress(\d)\.1\.{theirs}", rf"head.norm\1.{ours}"))
    return tuple(out)


OFFICIAL = _rules()
IGNORED = (r".*\.num_batches_tracked",)


def shapes(cfg: RMSFNetConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all variables, running statistics included."""
    state = nnx.state(nnx.eval_shape(lambda: RMSFNet(cfg, rngs=module.UnusedKeys())))
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {".".join(str(k.key) for k in path): tuple(leaf.shape) for path, leaf in leaves}


def config_of(tensors: Mapping[str, np.ndarray]) -> RMSFNetConfig:
    """Sizes from the tensors of a file in our names; one channel is taken for the variant `map`.

    Raises:
      CheckpointError: it has no first convolution.
    """
    first = tensors.get("conv0_0.conv1.kernel")
    if first is None or first.ndim != 5 or first.shape[3] not in (1, 2):
        raise CheckpointError("there is no conv0_0.conv1 of one or two channels; is this another model?")
    return RMSFNetConfig(variant="both" if first.shape[3] == 2 else "map", width=int(first.shape[4]))


def fold(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Puts each batch normalisation (running statistics, scale, bias) into the convolution before it, in float64.

    Raises:
      CheckpointError: a part of a normalisation, or its convolution, is missing.
    """
    out = {name: np.asarray(value) for name, value in tensors.items() if ".norm" not in name}
    for name in tensors:
        match = re.fullmatch(r"(.*)\.norm(\d)\.scale", name)
        if match is None:
            continue
        norm, conv = f"{match[1]}.norm{match[2]}", f"{match[1]}.conv{match[2]}"
        needed = (*(f"{norm}.{n}" for n in ("bias", "mean", "var")), f"{conv}.kernel", f"{conv}.bias")
        absent = [n for n in needed if n not in tensors]
        if absent:
            raise CheckpointError(f"{name} without {', '.join(absent)}; the file is not complete")
        scale, bias, mean, var = (
            np.asarray(tensors[f"{norm}.{n}"], np.float64) for n in ("scale", "bias", "mean", "var")
        )
        factor = scale / np.sqrt(var + _EPSILON)
        out[f"{conv}.kernel"] = (np.asarray(tensors[f"{conv}.kernel"], np.float64) * factor).astype(np.float32)
        shifted = (np.asarray(tensors[f"{conv}.bias"], np.float64) - mean) * factor + bias
        out[f"{conv}.bias"] = shifted.astype(np.float32)
    return out


def folded_model(cfg: RMSFNetConfig, tensors: Mapping[str, np.ndarray]) -> RMSFNet:
    """The network for prediction from tensors in our names, with or without batch normalisation."""
    blueprint = module.Blueprint(lambda rngs: RMSFNet(cfg, folded=True, rngs=rngs))
    return module.assemble(blueprint, fold(tensors))

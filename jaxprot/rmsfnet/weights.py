"""Weights of RMSF-net: where the tensors of the published files go, files read, batch normalisation folded away."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.rmsfnet.config import RMSFNetConfig, Variant
from jaxprot.rmsfnet.model import RMSFNet
from jaxprot.weights import inspect, module
from jaxprot.weights.convert import Rule, fill, rename

_log = logging.getLogger(__name__)
_EPSILON = 1e-5
_MAXIMUM = 1.36  # mean largest density of simulated maps at 4 Å, of proteins without hydrogens
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


def read(
    path: str | os.PathLike, variant: Variant | None = None
) -> tuple[RMSFNetConfig, dict[str, np.ndarray], tuple[float, float]]:
    """Weights of this library, or a published `.pth` file.

    Args:
      path: the file.
      variant: what a published file of one channel reads; told by its name (`sim_model.pth`, `exp_model.pth`) if None.

    Returns:
      Sizes, tensors in our names, and the calibration of RMSF in Å: gain and shift.

    Raises:
      CheckpointError: not such weights, or damaged.
    """
    path = pathlib.Path(path)
    kind, tensors, header = inspect.read(path)
    name, scale = path.stem, (1.0, 0.0)
    if kind == "safetensors":
        sizes, scale = _told(header, path)
        if sizes is not None:
            return sizes, tensors, scale
        # A published file that `jaxprot weights convert` wrote in our names; it tells where it came from.
        name = pathlib.PurePath(str(header.get("source", {}).get("file", name))).stem
        cfg = config_of(tensors)
    else:
        cfg = config_of(rename(tensors, OFFICIAL, IGNORED, str(path)))
    if cfg.variant == "map":
        told: Variant = "pdb" if name.startswith(("sim", "pdb")) else "map"
        if variant is None and not name.startswith(("sim", "pdb", "exp", "map")):
            _log.warning(
                "%s: its one channel is taken for a map; a file for models (sim_model.pth) is told by its name", path
            )
        cfg = dataclasses.replace(cfg, variant=variant or told)
    if kind != "safetensors":
        tensors = fill(shapes(cfg), tensors, OFFICIAL, IGNORED, str(path))
    return cfg, tensors, scale


def trainable(cfg: RMSFNetConfig, path: str | os.PathLike, rngs: nnx.Rngs) -> RMSFNet:
    """The network with batch normalisation, to train on from weights.

    Weights for one input may start the network for both: they become those of the model's channel (of the map's, if
    they read a map), and the other channel starts with small random ones. Weights for both may start a network for one,
    which takes those of its channel. Channels of `context` that the weights do not know start with small random ones. A
    warning tells where `context`, `geometry` or `hydrogens` differ.

    Raises:
      CheckpointError: not such weights, of another width, or without batch normalisation.
    """
    source, tensors, _ = read(path)
    name = "conv0_0.conv1.kernel"
    tensors = {key: np.asarray(value, np.float32) for key, value in tensors.items()}
    first = tensors[name]
    densities, context = first[:, :, :, : source.channels], first[:, :, :, source.channels :]

    def fresh(channels: int) -> np.ndarray:
        drawn = jax.random.normal(rngs.params(), (*first.shape[:3], channels, first.shape[4]))
        return np.asarray(drawn) * 0.1 * first.std()

    if cfg.variant == "both" and source.variant != "both":
        # Alone, the model's map is divided by its maximum; beside a map it is not.
        pair = (densities, fresh(1)) if source.variant == "map" else (fresh(1), densities / _MAXIMUM)
        densities = np.concatenate(pair, axis=3)
    elif cfg.variant != "both" and source.variant == "both":
        densities = densities[:, :, :, :1] if cfg.variant == "map" else densities[:, :, :, 1:] * _MAXIMUM
    if cfg.context != source.context or (cfg.variant == "map") != (source.variant == "map"):
        context = fresh(len(cfg.context))
    other = [key for key in ("context", "geometry", "hydrogens") if getattr(cfg, key) != getattr(source, key)]
    if other:
        told = (f"{key} {getattr(source, key)!r} there, {getattr(cfg, key)!r} here" for key in other)
        _log.warning("%s: the network to train reads its input in another way: %s", path, "; ".join(told))
    tensors[name] = np.concatenate([densities, context], axis=3)
    expected = shapes(cfg)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [key for key in expected.keys() & tensors.keys() if expected[key] != tensors[key].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: cannot start a network of width {cfg.width} for {cfg.variant}; {len(wrong)} tensors do not fit "
            f"({', '.join(wrong[:5])}); these are weights of width {source.width} for {source.variant}"
        )
    model = RMSFNet(cfg, rngs=rngs)
    graphdef, state = nnx.split(model)
    leaves = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(tensors[".".join(str(k.key) for k in path)], leaf.dtype), nnx.to_pure_dict(state)
    )
    return nnx.merge(graphdef, leaves)


def _told(header: Mapping[str, Any], path: pathlib.Path) -> tuple[RMSFNetConfig | None, tuple[float, float]]:
    """Sizes (None if it tells none) and calibration from a header; `CheckpointError` where it is of another model."""
    system = header.get("system", "rmsfnet")
    if system != "rmsfnet":
        raise CheckpointError(f"{path}: these are weights of {system}, not of rmsfnet")
    try:
        gain, shift = header.get("scale", (1.0, 0.0))
        sizes = RMSFNetConfig(**header["config"]) if "config" in header else None
        return sizes, (float(gain), float(shift))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its header fits no RMSF-net ({error}); `jaxprot weights inspect` shows it"
        ) from error

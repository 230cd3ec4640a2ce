"""Weights of ViSNet: official `.ckpt` files and PyG state dicts read and written, portable files."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet
from jaxprot.weights import inspect, module, portable, torch_file
from jaxprot.weights.convert import Rule, fill

_PREFIX = r"(?:model\.)?"
_BODY = "representation_model"


def _flat(array: np.ndarray) -> np.ndarray:
    """One axis: energies of atoms are (n, 1) in files, and single numbers () or (1,)."""
    return array.reshape(-1)


def _rules() -> tuple[Rule, ...]:
    body, layer, head = (
        _PREFIX + r"representation_model\.",
        _PREFIX + r"representation_model\.vis_mp_layers\.(\d+)\.",
        _PREFIX + r"output_model\.output_network\.(\d+)\.",
    )
    # Of the names in brackets a file has those of its variant.
    out = [
        Rule(_PREFIX + r"(?:prior_model\.)?(mean|std|atomref)(?:\.weight)?", r"\1", _flat),
        Rule(body + r"distance_expansion\.(means|betas|offset|coeff)", r"radial.\1", _flat),
        Rule(body + r"embedding\.weight", "embedding"),
        Rule(body + r"neighbor_embedding\.embedding\.weight", "neighbour.embedding"),
        Rule(layer + r"vec_layernorm\.weight", r"layers.\1.vec_norm.scale"),
        Rule(body + r"vec_out_norm\.weight", "vec_out_norm.scale"),
        Rule(layer + r"(vec|q|k|v|dk|dv|s|o|f|w_src|w_trg|t_src|t_trg)_proj\.weight", r"layers.\1.\2.kernel", "T"),
        Rule(layer + r"(q|k|v|dk|dv|s|o|f)_proj\.bias", r"layers.\1.\2.bias"),
        Rule(head + r"(vec1|vec2)_proj\.weight", r"head.\1.\2.kernel", "T"),
    ]
    out += [
        Rule(layer + r"layernorm\.weight", r"layers.\1.norm.scale"),
        Rule(layer + r"layernorm\.bias", r"layers.\1.norm.bias"),
    ]
    out += [Rule(body + r"out_norm\.weight", "out_norm.scale"), Rule(body + r"out_norm\.bias", "out_norm.bias")]
    for end, name, how in (("weight", "kernel", "T"), ("bias", "bias", None)):
        out += [
            Rule(body + rf"neighbor_embedding\.distance_proj\.{end}", f"neighbour.distance.{name}", how),
            Rule(body + rf"neighbor_embedding\.combine\.{end}", f"neighbour.combine.{name}", how),
            Rule(body + rf"edge_embedding\.edge_proj\.{end}", f"edge.{name}", how),
            Rule(head + rf"update_net\.0\.{end}", rf"head.\1.update.0.{name}", how),
            Rule(head + rf"update_net\.2\.{end}", rf"head.\1.update.1.{name}", how),
        ]
    return tuple(out)


OFFICIAL = _rules()
"""Of every variant."""
IGNORED = (_PREFIX + r"prior_model\.initial_atomref",)
"""What `prior_model.atomref.weight` is reset to."""


def shapes(cfg: ViSNetConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all variables, fixed ones included."""
    leaves = jax.tree_util.tree_leaves_with_path(_abstract(cfg)[1])
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def assemble(cfg: ViSNetConfig, tensors: Mapping[str, np.ndarray]) -> ViSNet:
    """The network from tensors in our names.

    Raises:
      CheckpointError: tensors missing, unexpected or of another shape.
    """
    graphdef, state = _abstract(cfg)
    expected = {_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    wrong = [f"{n} is missing" for n in expected if n not in tensors]
    wrong += [f"{n} is unexpected" for n in tensors if n not in expected]
    wrong += [
        f"{n} is {tensors[n].shape}, expected {shape}"
        for n, shape in expected.items()
        if n in tensors and tuple(tensors[n].shape) != tuple(shape)
    ]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors do not fit: {'; '.join(wrong[:5])}; is this another network?")
    filled = jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.asarray(tensors[_name(path)], leaf.dtype), state)
    return nnx.merge(graphdef, filled)


def tensors_of(net: ViSNet) -> dict[str, np.ndarray]:
    """All variables of a network by name."""
    return module.flatten(nnx.to_pure_dict(nnx.state(net)))


def _abstract(cfg: ViSNetConfig) -> tuple[Any, Any]:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: ViSNet(cfg, rngs=module.UnusedKeys())))  # type: ignore[arg-type]
    return graphdef, nnx.to_pure_dict(state)


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)


def save(path: str | os.PathLike, cfg: ViSNetConfig, tensors: Mapping[str, np.ndarray], **header: Any) -> None:
    """Writes a portable file that `read` reads.

    Args:
      path: `.safetensors` file.
      cfg: sizes.
      tensors: in our names, see `tensors_of`.
      **header: more for the header.
    """
    portable.save(path, tensors, {"system": "visnet", "config": dataclasses.asdict(cfg), **header})


def read(path: str | os.PathLike, **config: Any) -> tuple[ViSNetConfig, dict[str, np.ndarray]]:
    """Weights of this library, an official `.ckpt`, or a state dict of PyG's ViSNet.

    Args:
      path: the file.
      **config: fields of `ViSNetConfig` in place of the file's. A state dict alone does not tell `lmax`, `heads`,
        `cutoff`, `max_neighbors`, `vecnorm` and activations; PyG's defaults (1, 8, 5 Å, 32, none, silu) are taken.

    Returns:
      Sizes, and tensors in our names.

    Raises:
      InputError: no such file.
      CheckpointError: not such weights, or damaged.
    """
    path = pathlib.Path(path)
    kind, tensors, header = inspect.read(path)
    try:
        if kind == "safetensors":
            return _read_portable(path, tensors, header, config)
        obj = torch_file.read_torch_file(path)
        values = obj.get("hyper_parameters") if isinstance(obj, Mapping) else None
        if isinstance(values, Mapping):
            cfg = ViSNetConfig.from_hyper_parameters(values)
        else:
            cfg = _told_by_shapes(path, tensors)
        cfg = dataclasses.replace(cfg, **config)
    except (TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: fits no ViSNet ({error}); `jaxprot weights inspect` shows the file") from error
    return cfg, fill(shapes(cfg), tensors, OFFICIAL, IGNORED, str(path))


def learnt(path: str | os.PathLike) -> tuple[str, ...] | None:
    """Names of the units that weights learnt from, which the header of a portable file tells under `units`.

    Args:
      path: file that `read` has read.

    Returns:
      Names, such as `ALA` or `ACENME`; None if the file does not tell, as published ones do not.
    """
    path = pathlib.Path(path)
    told = portable.load(path)[1].get("units") if path.suffix == ".safetensors" else None
    return tuple(map(str, told)) if isinstance(told, list) else None


def portable_form(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, header) of a portable file that holds what a published one does; errors as `read`."""
    cfg, tensors = read(path)
    return tensors, {"config": dataclasses.asdict(cfg)}


def _read_portable(
    path: pathlib.Path, tensors: dict[str, np.ndarray], header: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[ViSNetConfig, dict[str, np.ndarray]]:
    system = header.get("system", "visnet")
    if system != "visnet":
        raise CheckpointError(f"{path}: these are weights of {system}, not of visnet")
    if "config" not in header:
        raise CheckpointError(f"{path}: its header tells no sizes; read the published file itself")
    cfg = dataclasses.replace(ViSNetConfig(**header["config"]), **config)
    expected = shapes(cfg)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [key for key in expected.keys() & tensors.keys() if expected[key] != tensors[key].shape]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit its header ({', '.join(wrong[:5])})")
    return cfg, tensors


def _told_by_shapes(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> ViSNetConfig:
    """Sizes of a state dict without hyper-parameters, and PyG's defaults for what it does not tell."""
    names = {name.removeprefix("model."): value for name, value in tensors.items()}
    table, first = names.get(f"{_BODY}.embedding.weight"), names.get(f"{_BODY}.neighbor_embedding.distance_proj.weight")
    if table is None or first is None or table.ndim != 2 or first.ndim != 2:
        raise CheckpointError(f"{path}: no {_BODY}.embedding and neighbor_embedding; is this another model?")
    stem = f"{_BODY}.vis_mp_layers."
    layers = {name.removeprefix(stem).partition(".")[0] for name in names if name.startswith(stem)}
    return ViSNetConfig(
        hidden=table.shape[1],
        max_z=table.shape[0],
        layers=len(layers),
        rbf=first.shape[1],
        rbf_type="gauss" if f"{_BODY}.distance_expansion.offset" in names else "expnorm",
        lmax=1,
        vertex="edge" if f"{stem}0.t_src_proj.weight" in names else None,
        max_neighbors=32,
        prior="prior_model.atomref.weight" in names,
        smooth=False,
    )


def export_official(
    path: str | os.PathLike, cfg: ViSNetConfig, tensors: Mapping[str, np.ndarray], layout: str = "ai2bmd"
) -> None:
    """Writes weights as the published programs read them.

    Args:
      path: file to write.
      cfg: sizes. The published programs know no `smooth`: they take such weights, and the energies differ near the
        cutoff.
      tensors: in our names, see `tensors_of`.
      layout: `ai2bmd` (a `.ckpt` with hyper-parameters) or `pyg` (a state dict for PyG's ViSNet).

    Raises:
      CheckpointError: tensors missing.
      ValueError: another layout.
    """
    if layout not in ("ai2bmd", "pyg"):
        raise ValueError(f"layout must be ai2bmd or pyg, got {layout!r}")
    missing = [name for name in shapes(cfg) if name not in tensors]
    if missing:
        raise CheckpointError(f"{len(missing)} tensors are missing ({', '.join(missing[:5])})")
    state: dict[str, np.ndarray] = collections.OrderedDict()
    for name in shapes(cfg):
        value = np.asarray(tensors[name], np.float32)
        if name in ("mean", "std", "radial.coeff"):
            value = value.reshape(())
        theirs = name if name in ("mean", "std") else _origin(name)
        state[theirs] = np.array(value.T if name.endswith(".kernel") else value, order="C")
    if cfg.prior:
        table = state.pop("prior_model.atomref.weight")[:, None]
        state |= {"prior_model.initial_atomref": table, "prior_model.atomref.weight": table.copy()}
    if layout == "pyg":
        return torch_file.write_torch_file(state, path)
    renamed = collections.OrderedDict((f"model.{name}", value) for name, value in state.items())
    return torch_file.write_torch_file({"state_dict": renamed, "hyper_parameters": cfg.hyper_parameters()}, path)


def _origin(name: str) -> str:
    """The published name of one of ours."""
    if name == "atomref":
        return "prior_model.atomref.weight"
    found = next(theirs for theirs in (rule.origin(name) for rule in OFFICIAL) if theirs)
    return found.removeprefix("(?:model.)?")

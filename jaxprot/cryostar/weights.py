"""Weights of cryoSTAR's two networks: where the tensors of the published checkpoints go, files read and written.

A published file tells no sizes and no settings; they are told by the shapes of its tensors.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.cryostar.config import DensityConfig, VAEConfig
from jaxprot.cryostar.density import Density
from jaxprot.cryostar.model import VAE
from jaxprot.weights import inspect, module, portable, torch_file
from jaxprot.weights.convert import Rule, fill, rename

_SIDES = (("weight", "kernel", "T"), ("bias", "bias", None))
_BEADS = {"gmm_sigmas": "sigma", "gmm_amps": "amplitude"}
_VERSION = "version"

Config = VAEConfig | DensityConfig


def conformation_rules(encoder: int = 4, decoder: int = 4) -> tuple[Rule, ...]:
    """Table of the auto-encoder.

    Args:
      encoder: layers after the first; 4 in the published networks.
      decoder: the same.
    """
    out = []
    for theirs, ours, how in _SIDES:
        end = rf"\.(?:linear\.)?{theirs}"  # layers that keep their width are called so
        out += [
            Rule(rf"(encoder|decoder)\.input_layer\.0{end}", rf"\1.mlp.input.{ours}", how),
            Rule(rf"encoder\.mean_layer\.{theirs}", f"encoder.mean.{ours}", how),
            Rule(rf"encoder\.var_layer\.{theirs}", f"encoder.log_var.{ours}", how),
            Rule(rf"decoder\.out_layer\.{theirs}", f"decoder.output.{ours}", how),
        ]
        for net, layers in (("encoder", encoder), ("decoder", decoder)):
            for number in range(layers):  # rectifiers are counted as well
                out.append(Rule(rf"{net}\.mlp\.layers\.{2 * number}{end}", f"{net}.mlp.layers.{number}.{ours}", how))
    return tuple(out)


def density_rules(layers: int = 3, fixed: bool = True) -> tuple[Rule, ...]:
    """Table of the density network.

    Args:
      layers: with a shortcut; 3 in the published networks.
      fixed: whether directions of waves are in the file (encodings `gau1` and `gau2`).
    """
    out = [Rule(r"fvol\.pe\.gaussian_weights", "encoding.directions")] if fixed else []
    for theirs, ours, how in _SIDES:
        out.append(Rule(rf"fvol\.net\.net\.0\.{theirs}", f"net.input.linear.{ours}", how))
        for number in range(layers):  # 1 is the first layer's activation
            out.append(Rule(rf"fvol\.net\.net\.{number + 2}\.layer\.{theirs}", f"net.layers.{number}.{ours}", how))
        out.append(Rule(rf"fvol\.net\.net\.{layers + 2}\.{theirs}", f"net.output.{ours}", how))
    return tuple(out)


OFFICIAL = conformation_rules()
"""Of phase 1."""
OFFICIAL_DENSITY = density_rules()
"""Of phase 2."""
IGNORED_OFFICIAL_DENSITY = (r"plane_coords", r"plane_window_mask", r"sphere_mask", r"coords_3d")
"""Follow from the sizes; `read` checks them."""


def shapes(cfg: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all variables, fixed ones included."""
    leaves = jax.tree_util.tree_leaves_with_path(_abstract(cfg)[1])
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def assemble(cfg: Config, tensors: Mapping[str, np.ndarray]) -> VAE | Density:
    """A network from tensors in our names.

    Raises:
      CheckpointError: tensors missing, unexpected or of another shape.
    """
    graphdef, state = _abstract(cfg)
    expected = shapes(cfg)
    wrong = [f"{n} is missing" for n in expected if n not in tensors]
    wrong += [f"{n} is unexpected" for n in tensors if n not in expected]
    wrong += [
        f"{n} is {tensors[n].shape}, expected {shape}"
        for n, shape in expected.items()
        if n in tensors and tuple(tensors[n].shape) != shape
    ]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors do not fit: {'; '.join(wrong[:5])}; is this another network?")
    filled = jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.asarray(tensors[_name(path)], leaf.dtype), state)
    return nnx.merge(graphdef, filled)


def tensors_of(net: VAE | Density) -> dict[str, np.ndarray]:
    """All variables of a network by name."""
    return module.flatten(nnx.to_pure_dict(nnx.state(net)))


def _abstract(cfg: Config) -> tuple[Any, Any]:
    kind = Density if isinstance(cfg, DensityConfig) else VAE
    graphdef, state = nnx.split(nnx.eval_shape(lambda: kind(cfg, rngs=module.UnusedKeys())))
    return graphdef, nnx.to_pure_dict(state)


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)


def save(
    path: str | os.PathLike,
    cfg: Config,
    tensors: Mapping[str, np.ndarray],
    extras: Mapping[str, np.ndarray] | None = None,
    **header: Any,
) -> None:
    """Writes a network as a portable file that `read` reads.

    Args:
      path: `.safetensors` file.
      cfg: sizes.
      tensors: in our names, see `tensors_of`.
      extras: `sigma` and `amplitude` of beads.
      **header: more for the header.
    """
    kind = "density" if isinstance(cfg, DensityConfig) else "conformation"
    told = {"system": "cryostar", "network": kind, "config": dataclasses.asdict(cfg), **header}
    portable.save(path, {**tensors, **(extras or {})}, told)


def read(
    path: str | os.PathLike, encoding: Literal["geo1", "geo2", "no"] | None = None
) -> tuple[Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights of either network, of this library or a published `.pt` file.

    Args:
      path: the file.
      encoding: of a published density network without directions of waves, whose file does not tell it.

    Returns:
      Sizes, tensors in our names, and what else is in the file (`sigma` in Å and `amplitude` of the beads).

    Raises:
      InputError: no such file.
      CheckpointError: not such weights, damaged, or with grids that are not those of the sizes.
    """
    path = pathlib.Path(path)
    kind, tensors, header = inspect.read(path)
    if kind == "safetensors":
        return _read_portable(path, tensors, header)
    obj = torch_file.read_torch_file(path)
    if any(name.startswith("fvol.") for name in tensors):
        return _read_density(path, tensors, encoding)
    extras = {ours: np.asarray(obj[theirs], np.float32) for theirs, ours in _BEADS.items() if theirs in obj}
    tensors = {name: value for name, value in tensors.items() if name not in _BEADS}
    rules = conformation_rules(*(_depth(tensors, net) for net in ("encoder", "decoder")))
    cfg = _conformation_config(path, rename(tensors, rules, source=str(path)), extras)
    return cfg, fill(shapes(cfg), tensors, rules, (), str(path)), extras


def portable_form(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, header) of a portable file that holds what a published one does; errors as `read`."""
    cfg, tensors, extras = read(path)
    kind = "density" if isinstance(cfg, DensityConfig) else "conformation"
    return {**tensors, **extras}, {"network": kind, "config": dataclasses.asdict(cfg)}


def _read_portable(
    path: pathlib.Path, tensors: dict[str, np.ndarray], header: Mapping[str, Any]
) -> tuple[Config, dict[str, np.ndarray], dict[str, np.ndarray]]:
    system = header.get("system", "cryostar")
    if system != "cryostar":
        raise CheckpointError(f"{path}: these are weights of {system}, not of cryostar")
    dense = "net.input.linear.kernel" in tensors or "net.envelope.input.linear.kernel" in tensors
    extras = {name: tensors.pop(name) for name in ("sigma", "amplitude", "steps") if name in tensors}
    try:
        if "config" in header:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()}
            cfg: Config = (DensityConfig if dense else VAEConfig)(**values)
        elif dense:
            raise CheckpointError(f"{path}: its header tells no sizes; read the published file itself")
        else:
            cfg = _conformation_config(path, tensors, extras)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header fits no network of cryoSTAR ({error})") from error
    expected = shapes(cfg)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [key for key in expected.keys() & tensors.keys() if expected[key] != tensors[key].shape]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} tensors do not fit its header ({', '.join(wrong[:5])})")
    return cfg, tensors, extras


def _depth(tensors: Mapping[str, np.ndarray], net: str) -> int:
    return sum(name.startswith(f"{net}.mlp.layers.") and name.endswith(".weight") for name in tensors)


def _conformation_config(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]
) -> VAEConfig:
    def widths(net: str) -> tuple[int, ...]:
        count = sum(name.startswith(f"{net}.mlp.layers.") and name.endswith(".bias") for name in tensors)
        names = [f"{net}.mlp.input.bias", *(f"{net}.mlp.layers.{i}.bias" for i in range(count))]
        return tuple(len(tensors[name]) for name in names)

    try:
        inputs = tensors["encoder.mlp.input.kernel"].shape[0]
        latent, outputs = len(tensors["encoder.mean.bias"]), len(tensors["decoder.output.bias"])
        encoder, decoder = widths("encoder"), widths("decoder")
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: no {error} of an auto-encoder; is this another model?") from None
    # Twice a square is no square, so one of the two gives a whole side.
    space = "real" if math.isqrt(inputs) ** 2 == inputs else "fourier"
    side = math.isqrt(inputs if space == "real" else inputs // 2)
    beads = len(extras["sigma"]) if "sigma" in extras else outputs // 3
    modes = 0 if outputs == 3 * beads else outputs - 6
    cfg = VAEConfig(
        side=side, beads=beads, latent=latent, encoder=encoder, decoder=decoder, space=space, modes=max(modes, 0)
    )
    if (cfg.inputs, cfg.outputs) != (inputs, outputs):
        raise CheckpointError(f"{path}: {inputs} inputs and {outputs} outputs are those of no image and no beads")
    return cfg


def _read_density(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], encoding: str | None
) -> tuple[DensityConfig, dict[str, np.ndarray], dict[str, np.ndarray]]:
    directions = tensors.get("fvol.pe.gaussian_weights")
    layers = sum(name.endswith(".layer.weight") for name in tensors)
    rules = density_rules(layers, directions is not None)
    named = rename(tensors, rules, IGNORED_OFFICIAL_DENSITY, str(path))
    if directions is not None:
        side = directions.shape[0] // 3
        nearest = abs(float(np.std(directions)) * 4 / side - 1) < abs(float(np.std(directions)) * 8 / side - 1)
        encoding = "gau1" if nearest else "gau2"
    elif encoding is None:
        raise CheckpointError(
            f"{path}: no fvol.pe.gaussian_weights, so the encoding is not a random one; tell which it is, geo1, geo2 "
            "or no"
        )
    elif "coords_3d" in tensors:
        side = round(len(tensors["coords_3d"]) ** (1 / 3))
    else:
        raise CheckpointError(f"{path}: neither directions of waves nor a grid (coords_3d) tell the side of the images")
    first, last = named["net.input.linear.kernel"], named["net.output.kernel"]
    latent = first.shape[0] - 3 - (0 if encoding == "no" else 6 * side)
    try:
        cfg = DensityConfig(
            side=side,
            latent=latent,
            hidden=first.shape[1],
            layers=layers,
            encoding=encoding,  # type: ignore[arg-type]
            net="cryodrgn" if last.shape[1] == 1 else "cryodrgn-fourier",
            mask=_mask(tensors, side),
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: sizes of no density network ({error})") from error
    _check_grids(path, cfg, tensors)
    return cfg, fill(shapes(cfg), tensors, rules, IGNORED_OFFICIAL_DENSITY, str(path)), {}


def _mask(tensors: Mapping[str, np.ndarray], side: int) -> float:
    """The radius with the fewest digits that gives the file's windows; 1 without one for planes."""
    if "plane_window_mask" not in tensors:
        return 1.0
    low, high = 0.0, 1.0
    for name, axes in (("plane_window_mask", 2), ("sphere_mask", 3)):
        window, distance = tensors.get(name), _distance(side, axes).reshape(-1) * 2 / side
        if window is None or window.size != distance.size:
            continue
        inside = np.asarray(window, bool).reshape(-1)
        low = max(low, float(np.max(distance[inside], initial=0.0)))
        high = min(high, float(np.min(distance[~inside], initial=1.0)))
    for digits in range(1, 8):
        value = math.ceil(low * 10**digits - 1e-6) / 10**digits
        if 0 < value < high:
            return value
    return float(low) or 1.0


def _distance(side: int, axes: int) -> np.ndarray:
    line = np.arange(side) - side // 2
    return np.sqrt(sum(np.square(part) for part in np.meshgrid(*[line] * axes, indexing="ij", sparse=True)))


def grids(cfg: DensityConfig) -> dict[str, np.ndarray]:
    """The derived tensors of a published density file: coordinates x, y, z of points, and which are modelled."""
    side = cfg.side
    # As PyTorch rounds it, to the last digit: a step in float32, added up from either end and rounded once.
    place, step = np.arange(side), np.float64(np.float32(2) / np.float32(side - 1))
    line = np.where(place < side // 2, step * place - 1, 1 - step * (side - 1 - place)).astype(np.float32)
    line = line if side % 2 else line - np.float32(1 / (side - 1))
    y, x = np.meshgrid(line, line, indexing="ij")
    plane = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    volume = np.stack(np.meshgrid(line, line, line, indexing="ij")[::-1], -1).reshape(-1, 3)
    out = {"plane_coords": plane}
    if cfg.mask != 1:
        out["plane_window_mask"] = (_distance(side, 2) <= cfg.mask / 2 * side).reshape(-1)
    return {**out, "sphere_mask": _distance(side, 3) <= cfg.mask / 2 * side, "coords_3d": volume}


def _check_grids(path: pathlib.Path, cfg: DensityConfig, tensors: Mapping[str, np.ndarray]) -> None:
    derived, wrong = grids(cfg), []
    for name in ("plane_coords", "plane_window_mask", "sphere_mask", "coords_3d"):
        if name not in tensors:
            continue
        theirs, ours = tensors[name], derived.get(name)
        if ours is None or theirs.shape != ours.shape or not np.allclose(theirs, ours, atol=1e-6):
            wrong.append(name)
    if wrong:
        raise CheckpointError(
            f"{path}: {', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} not what a side of {cfg.side} and a mask "
            f"of {cfg.mask:g} give; was the file written by a changed version of cryoSTAR?"
        )


def export_official(
    path: str | os.PathLike,
    cfg: Config,
    tensors: Mapping[str, np.ndarray],
    extras: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a checkpoint that the published code loads (`torch.load`, then `load_state_dict`).

    Args:
      path: `.pt` file.
      cfg: sizes.
      tensors: in our names, see `tensors_of`; those of an encoder of a density network are left out, as published.
      extras: `sigma` in Å and `amplitude` of the beads, which a file of the auto-encoder holds.

    Raises:
      InputError: a network that has no published layout, or no `sigma` and `amplitude`.
      CheckpointError: tensors missing.
    """
    if isinstance(cfg, DensityConfig):
        if cfg.net == "cryoai":
            raise InputError("a network of kind cryoai has no published layout to write; only cryodrgn ones do")
        return torch_file.write_torch_file(_density_state(cfg, tensors), path)
    missing = [name for name in _BEADS.values() if name not in (extras or {})]
    if missing:
        raise InputError(f"a published file of the auto-encoder holds the beads' {' and '.join(missing)}; give them")
    beads = {theirs: np.asarray((extras or {})[ours], np.float32) for theirs, ours in _BEADS.items()}
    return torch_file.write_torch_file({"model": _conformation_state(cfg, tensors), **beads}, path)


class _State:
    """A state dict in the making: tensors in the order they are added, and the modules that PyTorch notes beside."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self.tensors, self.out, self.modules = tensors, collections.OrderedDict(), [""]

    def linear(self, theirs: str, ours: str) -> None:
        for end, our_end, how in _SIDES:
            name = f"{ours}.{our_end}"
            if name not in self.tensors:
                raise CheckpointError(f"{name} is missing; the published file needs it")
            value = np.asarray(self.tensors[name], np.float32)
            self.out[f"{theirs}.{end}"] = value.T if how else value

    def finished(self) -> collections.OrderedDict:
        note: dict[str, dict[str, int]] = collections.OrderedDict((name, {_VERSION: 1}) for name in self.modules)
        self.out._metadata = note  # type: ignore[attr-defined]
        return self.out


def _conformation_state(cfg: VAEConfig, tensors: Mapping[str, np.ndarray]) -> collections.OrderedDict:
    state = _State(tensors)
    plan = {
        "encoder": (cfg.inputs, cfg.encoder, {"mean_layer": "mean", "var_layer": "log_var"}),
        "decoder": (cfg.latent, cfg.decoder, {"out_layer": "output"}),
    }
    for net, (inputs, widths, heads) in plan.items():
        state.modules += [net, f"{net}.input_layer"]
        layers = [("input_layer.0", "mlp.input", inputs, widths[0])]
        for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layers.append((f"mlp.layers.{2 * number}", f"mlp.layers.{number}", before, after))
        for number, (theirs, ours, before, after) in enumerate(layers):
            if number == 1:
                state.modules += [f"{net}.mlp", f"{net}.mlp.layers"]
            place, _, index = theirs.rpartition(".")
            whole = f"{net}.{theirs}" + (".linear" if before == after else "")
            state.linear(whole, f"{net}.{ours}")
            state.modules.append(f"{net}.{theirs}")
            if before == after:
                state.modules.append(whole)
            state.modules.append(f"{net}.{place}.{int(index) + 1}")
        for theirs, ours in heads.items():
            state.linear(f"{net}.{theirs}", f"{net}.{ours}")
            state.modules.append(f"{net}.{theirs}")
    return state.finished()


def _density_state(cfg: DensityConfig, tensors: Mapping[str, np.ndarray]) -> collections.OrderedDict:
    state = _State(tensors)
    state.out.update(grids(cfg))
    state.modules += ["fvol", "fvol.pe", "fvol.net", "fvol.net.net", "fvol.net.net.0", "fvol.net.net.1"]
    if cfg.encoding in ("gau1", "gau2"):
        if "encoding.directions" not in tensors:
            raise CheckpointError("encoding.directions is missing; the published file needs it")
        state.out["fvol.pe.gaussian_weights"] = np.asarray(tensors["encoding.directions"], np.float32)
    state.linear("fvol.net.net.0", "net.input.linear")
    for number in range(cfg.layers):
        place = f"fvol.net.net.{number + 2}"
        state.linear(f"{place}.layer", f"net.layers.{number}")
        state.modules += [place, f"{place}.layer", f"{place}.nl"]
    state.linear(f"fvol.net.net.{cfg.layers + 2}", "net.output")
    state.modules.append(f"fvol.net.net.{cfg.layers + 2}")
    return state.finished()

"""Weights of MASSA: published `.pth` files read and written, portable files.

A published file is a plain state dict whose shapes tell all sizes but the numbers of heads. It holds tensors that the
network never reads, and layers between residues and GO terms of which only the last counts; reading keeps them apart,
so that writing gives the same file again.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxprot.core.errors import CheckpointError
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.model import MASSA, Pretraining
from jaxprot.weights import inspect, module, portable, torch_file
from jaxprot.weights.convert import Rule, fill

_log = logging.getLogger(__name__)
_BODY = "backbone."


def _convolution(array: np.ndarray) -> np.ndarray:
    """(out, in, places) to (places, in, out)."""
    return array.transpose(2, 1, 0)


def _pointwise(array: np.ndarray) -> np.ndarray:
    """(out, in, 1), a convolution of one place, to (in, out)."""
    return array[:, :, 0].T


class _Same(NamedTuple):
    """A module of theirs and of ours; names are regular expressions with groups for numbers."""

    theirs: str
    ours: str
    kind: str  # linear, norm, pointwise, convolution, or gvp


_ATTENTION = (("w_q", "q"), ("w_k", "k"), ("w_v", "v"), ("fc", "out"))


def _attending(theirs: str, ours: str, sides: tuple[tuple[str, str], ...]) -> list[_Same]:
    out = [_Same(rf"{theirs}\.ln", f"{ours}.norm", "norm")]
    for side, name in sides:
        out += [_Same(rf"{theirs}\.{side}\.{a}", f"{ours}.{name}.{b}", "linear") for a, b in _ATTENTION]
    for number, name in (("1", "inner"), ("2", "outer")):
        out.append(_Same(rf"{theirs}\.pf\.fc_{number}", f"{ours}.forward.{name}", "pointwise"))
    return out


def decoder_modules(theirs: str, ours: str) -> list[_Same]:
    """Names of layers with attention to another modality."""
    return _attending(theirs, ours, (("sa", "own"), ("ea", "other")))


def _modules() -> list[_Same]:
    """Of the network without heads."""
    out = [
        _Same(r"seq_encoder\.fc", "sequence.input", "linear"),
        _Same(r"seq_encoder\.convs\.(\d+)", r"sequence.convolutions.\1", "convolution"),
        _Same(r"seq_encoder\.ln", "sequence.norm", "norm"),
    ]
    for theirs, ours in (("W_v", "node"), ("W_e", "edge"), ("W_out", "output")):
        out.append(_Same(rf"struc_encoder\.{theirs}\.0\.scalar_norm", f"structure.{ours}_norm.scalars", "norm"))
        out.append(_Same(rf"struc_encoder\.{theirs}\.1", f"structure.{ours}", "gvp"))
    layer, our = r"struc_encoder\.layers\.(\d+)", r"structure.layers.\1"
    for number, name in enumerate(("first", "second", "third")):
        out.append(_Same(rf"{layer}\.conv\.message_func\.{number}", f"{our}.message.{name}", "gvp"))
    for number, name in enumerate(("inner", "outer")):
        out.append(_Same(rf"{layer}\.ff_func\.{number}", f"{our}.{name}", "gvp"))
    out.append(_Same(rf"{layer}\.norm\.(\d+)\.scalar_norm", rf"{our}.norms.\2.scalars", "norm"))
    out.append(_Same(r"struc_encoder\.ln", "structure.norm", "norm"))
    out.append(_Same(r"seq_struc_funsion\.multimodal_transform", "fusion.input", "linear"))
    out += _attending(r"seq_struc_funsion\.layers\.(\d+)", r"fusion.layers.\1", (("sa", "own"),))
    out.append(_Same(r"seq_struc_funsion\.ln", "fusion.norm", "norm"))
    out.append(_Same(r"goterm_encoder\.fc", "function.input", "linear"))
    out += _attending(r"goterm_encoder\.layers\.(\d+)", r"function.layers.\1", (("sa", "own"),))
    out.append(_Same(r"goterm_encoder\.ln", "function.norm", "norm"))
    out += decoder_modules(r"pro_go_cross_fusion\.pro_layers\.(\d+)", r"cross.protein.\1")
    out += decoder_modules(r"pro_go_cross_fusion\.go_layers\.(\d+)", r"cross.go.\1")
    out.append(_Same(r"pro_go_cross_fusion\.pro2go", "cross.to_go", "linear"))
    out.append(_Same(r"pro_go_cross_fusion\.go2pro", "cross.to_protein", "linear"))
    return out


def rules_of(modules: list[_Same]) -> tuple[Rule, ...]:
    """Table of the tensors of modules."""
    out: list[Rule] = []
    kernels: dict[str, Any] = {"linear": "T", "pointwise": _pointwise, "convolution": _convolution}
    for theirs, ours, kind in modules:
        if kind == "norm":
            out += [Rule(rf"{theirs}\.weight", f"{ours}.scale"), Rule(rf"{theirs}\.bias", f"{ours}.bias")]
        elif kind == "gvp":
            out += [Rule(rf"{theirs}\.{part}\.weight", f"{ours}.{part}.kernel", "T") for part in ("wh", "ws")]
            out.append(Rule(rf"{theirs}\.ws\.bias", f"{ours}.ws.bias"))
            if "W_out" not in theirs:
                out.append(Rule(rf"{theirs}\.wv\.weight", f"{ours}.wv.kernel", "T"))
        else:
            out += [
                Rule(rf"{theirs}\.weight", f"{ours}.kernel", kernels[kind]),
                Rule(rf"{theirs}\.bias", f"{ours}.bias"),
            ]
    return tuple(out)


def _in_backbone(modules: list[_Same]) -> list[_Same]:
    return [same._replace(ours=_BODY + same.ours) for same in modules]


BACKBONE = (
    Rule(r"seq_encoder\.pos_embedding\.weight", _BODY + "sequence.position"),
    *rules_of(_in_backbone(_modules())),
)
"""Of the network without heads."""
OFFICIAL = (
    *BACKBONE,
    *rules_of([_Same(r"pro_go_cross_fusion\.(pro|go|motif|domain|region)_tokens_predictor", r"heads.\1", "linear")]),
)
"""Of the network as pre-trained, its layers between residues and GO terms by their own numbers."""
IGNORED = (r"seq_encoder\.gn\.(weight|bias)", r"struc_encoder\.dense\.\d\.(weight|bias)", r".*\.dummy_param")
"""In the file, and never read."""


def _unit(theirs: str, ours: str) -> tuple[Rule, ...]:
    out = []
    for short, name in (("ih", "input"), ("hh", "state")):
        out.append(Rule(rf"{theirs}\.weight_{short}", f"{ours}.{name}.kernel", "T"))
        out.append(Rule(rf"{theirs}\.bias_{short}", f"{ours}.{name}.bias"))
    return tuple(out)


def _perceptron(ours: str) -> tuple[Rule, ...]:
    return rules_of([_Same(r"(?:regression|classification)_layer\.fc([12])", rf"{ours}fc\1", "linear")])


_FP = r"compound_encoder\."
LIGAND = (
    *rules_of(
        [
            _Same(_FP + "atom_fc", "ligand.atom", "linear"),
            _Same(_FP + "neighbor_fc", "ligand.neighbour", "linear"),
            _Same(_FP + r"(align|attend)\.(\d+)", r"ligand.\1.\2", "linear"),
            _Same(_FP + "mol_(align|attend)", r"ligand.molecule_\1", "linear"),
            _Same(_FP + r"mol_dense\.1", "ligand.molecule", "linear"),
            _Same(_FP + r"mol_dense\.2", "ligand.norm", "norm"),
            *(_Same(_FP + rf"atom_dense\.{2 * i}", f"ligand.dense.{i}", "linear") for i in range(3)),
        ]
    ),
    *_unit(_FP + r"GRUCell\.(\d+)", r"ligand.units.\1"),
    *_unit(_FP + "mol_GRUCell", "ligand.molecule_unit"),
)
"""Of AttentiveFP."""
PUBLISHED_HEADS = ("pro", "go", "motif", "domain", "region")
HEADS = {
    "pooled": _perceptron("head."),
    "complex": (*rules_of(decoder_modules(r"pro_pro_cross_fusion\.pro_layers\.2", "cross")), *_perceptron("")),
    "kinase": (
        *LIGAND,
        *rules_of(decoder_modules(r"pro_ligand_cross_fusion\.pro_layers\.2", "cross")),
        *rules_of([_Same(r"pro_ligand_cross_fusion\.ligand2pro", "to_protein", "linear")]),
        *_perceptron("head."),
    ),
    "affinity": (*LIGAND, *rules_of([_Same("pro_emb_linear", "join", "linear")]), *_perceptron("head.")),
}
"""Of the heads in `massa.heads`: `pooled` serves `Pooled` and `PerResidue`."""
_DEAD_HEAD = r"pro_(?:pro|ligand)_cross_fusion\.pro_layers\.[01]\..*"
_CROSS = re.compile(r"(.*pro_go_cross_fusion\.(?:pro|go)_layers\.)(\d+)(\..*)")


class Read(NamedTuple):
    """What a file holds.

    Attributes:
      config: sizes.
      tensors: in our names.
      unused: tensors of a published file that the network never reads, in their names.
      untrained: inputs that the weights never learned from, `structure` or `go`: what they do to them is random.
    """

    config: MASSAConfig
    tensors: dict[str, np.ndarray]
    unused: dict[str, np.ndarray]
    untrained: tuple[str, ...] = ()


def blueprint(cfg: MASSAConfig, heads: bool = True) -> module.Blueprint:
    """Structure and shapes of the network, with its five heads or without any."""
    return module.Blueprint(lambda rngs: (Pretraining if heads else _Bare)(cfg, rngs=rngs))


class _Bare(nnx.Module):
    """The network alone, under the name that it has in others."""

    def __init__(self, cfg: MASSAConfig, *, rngs: Any):
        self.backbone = MASSA(cfg, rngs=rngs)


def assemble(cfg: MASSAConfig, tensors: Mapping[str, np.ndarray]) -> Pretraining:
    """The network with its heads from tensors in our names.

    Raises:
      CheckpointError: tensors missing, unexpected, of another shape or not finite.
    """
    return module.assemble(blueprint(cfg), tensors)  # type: ignore[return-value]


def assemble_backbone(cfg: MASSAConfig, tensors: Mapping[str, np.ndarray]) -> MASSA:
    """The network alone; tensors of heads are left out. Errors as of `assemble`."""
    mine = {name: value for name, value in tensors.items() if name.startswith(_BODY)}
    return module.assemble(blueprint(cfg, heads=False), mine).backbone  # type: ignore[attr-defined]


def config_of(tensors: Mapping[str, np.ndarray], **config: Any) -> MASSAConfig:
    """Sizes of a published state dict; the numbers of heads, which it does not tell, are 8 and 4 unless given.

    Args:
      tensors: in their names.
      **config: fields in place of those told by the shapes.

    Raises:
      KeyError: no such state dict.
      ValueError: sizes of no network.
    """

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[name].shape)

    def count(prefix: str) -> int:
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        return 1 + max((int(m[1]) for m in map(pattern.match, tensors) if m), default=-1)

    length, seq_dim = shape("seq_encoder.pos_embedding.weight")
    cross = "pro_go_cross_fusion"
    told: dict[str, Any] = {
        "seq_dim": seq_dim,
        "max_length": length,
        "width": shape("seq_encoder.fc.weight")[0],
        "convolutions": count("seq_encoder.convs"),
        "kernel": shape("seq_encoder.convs.0.weight")[2],
        "vectors": shape("struc_encoder.W_v.1.wv.weight")[0],
        "layers": count("struc_encoder.layers"),
        "fusion_layers": count("seq_struc_funsion.layers"),
        "feedforward": shape("seq_struc_funsion.layers.0.pf.fc_1.weight")[0],
        "go_dim": shape("goterm_encoder.fc.weight")[1],
        "go_width": shape("goterm_encoder.fc.weight")[0],
        "go_layers": count("goterm_encoder.layers"),
        "go_feedforward": shape("goterm_encoder.layers.0.pf.fc_1.weight")[0],
        "cross_layers": count(f"{cross}.pro_layers"),
    }
    for ours, theirs in (
        ("residue", "pro"),
        ("go", "go"),
        ("motif", "motif"),
        ("domain", "domain"),
        ("region", "region"),
    ):
        name = f"{cross}.{theirs}_tokens_predictor.weight"
        if name in tensors:
            told[f"{ours}_classes"] = shape(name)[0]
    paper = MASSAConfig.paper()
    if (told["width"], told["go_width"]) != (paper.width, paper.go_width) and not {
        "heads",
        "go_heads",
    } <= config.keys():
        _log.warning(
            "the file does not tell how many heads attention has; %d and %d are taken as in the published network, "
            "give heads and go_heads if it has others", paper.heads, paper.go_heads,
        )  # fmt: skip
    return dataclasses.replace(paper, **{**told, **config})


def head_tensors(
    kind: str, head: module.Blueprint, tensors: Mapping[str, np.ndarray], source: str = "state dict"
) -> dict[str, np.ndarray]:
    """Tensors of a downstream head in our names, from a published state dict of a whole network.

    Args:
      kind: a name of `HEADS`.
      head: structure and shapes of the head.
      tensors: in their names; those of the network behind the head are left out.
      source: for messages.

    Raises:
      CheckpointError: tensors missing, unexpected or of another shape.
    """
    backbone = [rule.pattern for rule in OFFICIAL] + list(IGNORED) + [_DEAD_HEAD]
    return fill(module.shapes(head), tensors, HEADS[kind], backbone, source)


def _live(tensors: Mapping[str, np.ndarray], cfg: MASSAConfig) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(tensors that count, the rest); where only the last layer counts it gets the number 0."""
    used: dict[str, np.ndarray] = {}
    unused: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        match = _CROSS.fullmatch(name)
        if any(re.fullmatch(pattern, name) for pattern in IGNORED):
            unused[name] = value
        elif match is None or cfg.cross_mode == "stacked":
            used[name] = value
        elif int(match[2]) == cfg.cross_layers - 1:
            used[f"{match[1]}0{match[3]}"] = value
        else:
            unused[name] = value
    return used, unused


def from_official(tensors: Mapping[str, np.ndarray], source: str = "state dict", **config: Any) -> Read:
    """Sizes and tensors of a published state dict, with its five heads if it has them.

    Tensors of downstream heads are put to the unused ones, see `head_tensors`.

    Args:
      tensors: in their names.
      source: for messages.
      **config: fields of `MASSAConfig` in place of the file's.

    Raises:
      CheckpointError: not such a state dict.
    """
    try:
        cfg = config_of(tensors, **config)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: fits no MASSA ({error}); `jaxprot weights inspect` shows the file") from error
    used, unused = _live(tensors, cfg)
    if any("_tokens_predictor." in name for name in used):
        return Read(cfg, fill(module.shapes(blueprint(cfg)), used, OFFICIAL, (), source), unused)
    downstream = [rule.pattern for rules in HEADS.values() for rule in rules] + [_DEAD_HEAD]
    for name in list(used):
        if any(re.fullmatch(pattern, name) for pattern in downstream):
            unused[name] = used.pop(name)
    return Read(cfg, fill(module.shapes(blueprint(cfg, heads=False)), used, BACKBONE, (), source), unused)


def read(path: str | os.PathLike, **config: Any) -> Read:
    """Weights of this library or a published `.pth` file.

    Args:
      path: the file.
      **config: fields of `MASSAConfig` in place of the file's, such as `heads` and `go_heads`, which a published file
        does not tell, or `cross_mode="stacked"`, which takes all layers between residues and GO terms.

    Raises:
      InputError: no such file.
      CheckpointError: not such weights, or damaged.
    """
    path = pathlib.Path(path)
    kind, tensors, header = inspect.read(path)
    if kind != "safetensors":
        return from_official(tensors, str(path), **config)
    if header.get("system", "massa") != "massa":
        raise CheckpointError(f"{path}: these are weights of {header['system']}, not of massa")
    if header.get("network", "massa") not in ("massa", "massa-pairs"):
        raise CheckpointError(f"{path}: a network of kind {header['network']}, which has no backbone of MASSA")
    if "config" not in header:
        raise CheckpointError(f"{path}: its header tells no sizes; read the published file itself")
    try:
        cfg = MASSAConfig(**{**header["config"], **config})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its header fits no MASSA ({error})") from error
    return Read(cfg, tensors, {}, tuple(header.get("untrained", ())))


def portable_form(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, header) of a portable file that holds what a published one does, unused tensors apart.

    Errors as of `read`.
    """
    found = read(path)
    return found.tensors, {"config": dataclasses.asdict(found.config)}


def save(path: str | os.PathLike, cfg: MASSAConfig, tensors: Mapping[str, np.ndarray], **header: Any) -> None:
    """Writes a portable file that `read` reads.

    Args:
      path: `.safetensors` file.
      cfg: sizes.
      tensors: in our names, see `jaxprot.weights.module.flatten`.
      **header: more for the header.
    """
    portable.save(path, tensors, {"system": "massa", "config": dataclasses.asdict(cfg), **header})


def export_official(
    path: str | os.PathLike,
    cfg: MASSAConfig,
    tensors: Mapping[str, np.ndarray],
    unused: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a checkpoint that the published code loads (`torch.load`, then `load_state_dict`).

    Args:
      path: `.pth` file.
      cfg: sizes.
      tensors: in our names.
      unused: tensors that the published network holds and never reads, see `Read`; fresh ones where not given.

    Raises:
      CheckpointError: tensors missing.
    """
    torch_file.write_torch_file(to_official(cfg, tensors, unused), path)


def to_official(
    cfg: MASSAConfig, tensors: Mapping[str, np.ndarray], unused: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """State dict in the names and the order of the published network; arguments and errors as of `export_official`."""
    given = dict(unused or {})
    out: dict[str, np.ndarray] = collections.OrderedDict()
    missing = []
    for name, shape, ours, back in _entries(cfg):
        if ours is None:
            out[name] = np.asarray(given.get(name, _fresh(name, shape)), np.float32)
        elif ours not in tensors:
            missing.append(ours)
        else:
            out[name] = np.ascontiguousarray(back(np.asarray(tensors[ours], np.float32)))
    if missing:
        raise CheckpointError(f"{len(missing)} tensors of a published file are missing: {', '.join(missing[:5])}")
    return out


def _fresh(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of a tensor that is never read: norms of 1 and 0, everything else 0."""
    is_norm = re.search(r"\.(gn|ln)\.weight$", name)
    return np.ones(shape, np.float32) if is_norm else np.zeros(shape, np.float32)


_Entry = tuple[str, tuple[int, ...], str | None, Callable[[np.ndarray], np.ndarray]]


def _plain(array: np.ndarray) -> np.ndarray:
    return array


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T


def _entries(cfg: MASSAConfig) -> list[_Entry]:
    """Name, shape, our name and the way back of each tensor of a published file, in its order."""
    out: list[_Entry] = []
    c, d, v, w = cfg.width, cfg.go_width, cfg.vectors, 2 * cfg.vectors

    def linear(theirs: str, ours: str | None, outputs: int, inputs: int, places: int = 0) -> None:
        def back(array: np.ndarray) -> np.ndarray:
            if array.ndim == 3:
                return array.transpose(2, 1, 0)
            return array.T[:, :, None] if places else array.T

        shape = (outputs, inputs, places) if places else (outputs, inputs)
        out.append((f"{theirs}.weight", shape, ours and f"{ours}.kernel", back))
        out.append((f"{theirs}.bias", (outputs,), ours and f"{ours}.bias", _plain))

    def norm(theirs: str, ours: str | None, size: int) -> None:
        out.append((f"{theirs}.weight", (size,), ours and f"{ours}.scale", _plain))
        out.append((f"{theirs}.bias", (size,), ours and f"{ours}.bias", _plain))

    def nothing(theirs: str) -> None:
        out.append((f"{theirs}.dummy_param", (0,), None, _plain))

    def gvp(theirs: str, ours: str, inputs: tuple[int, int], outputs: tuple[int, int]) -> None:
        nothing(theirs)
        hidden = max(inputs[1], outputs[1])
        out.append((f"{theirs}.wh.weight", (hidden, inputs[1]), f"{ours}.wh.kernel", _transposed))
        linear(f"{theirs}.ws", f"{ours}.ws", outputs[0], inputs[0] + hidden)
        if outputs[1]:
            out.append((f"{theirs}.wv.weight", (outputs[1], hidden), f"{ours}.wv.kernel", _transposed))

    def attending(theirs: str, ours: str | None, width: int, wide: int, sides: tuple[tuple[str, str], ...]) -> None:
        norm(f"{theirs}.ln", ours and f"{ours}.norm", width)
        for side, name in sides:
            for a, b in _ATTENTION:
                linear(f"{theirs}.{side}.{a}", ours and f"{ours}.{name}.{b}", width, width)
        linear(f"{theirs}.pf.fc_1", ours and f"{ours}.forward.inner", wide, width, 1)
        linear(f"{theirs}.pf.fc_2", ours and f"{ours}.forward.outer", width, wide, 1)

    seq = f"{_BODY}sequence"
    out.append(("seq_encoder.pos_embedding.weight", (cfg.max_length, cfg.seq_dim), f"{seq}.position", _plain))
    for i in range(cfg.convolutions):
        linear(f"seq_encoder.convs.{i}", f"{seq}.convolutions.{i}", 2 * c, c, cfg.kernel)
    linear("seq_encoder.fc", f"{seq}.input", c, cfg.seq_dim)
    norm("seq_encoder.gn", None, 2 * c)
    norm("seq_encoder.ln", f"{seq}.norm", c)

    s, ours = "struc_encoder", f"{_BODY}structure"
    for theirs, name, inputs, outputs in (("W_v", "node", (6, 3), (c, v)), ("W_e", "edge", (32, 1), (32, 1))):
        norm(f"{s}.{theirs}.0.scalar_norm", f"{ours}.{name}_norm.scalars", inputs[0])
        gvp(f"{s}.{theirs}.1", f"{ours}.{name}", inputs, outputs)
    for i in range(cfg.layers):
        layer, our = f"{s}.layers.{i}", f"{ours}.layers.{i}"
        for j, (name, inputs) in enumerate((("first", (2 * c + 32, 2 * v + 1)), ("second", (c, v)), ("third", (c, v)))):
            gvp(f"{layer}.conv.message_func.{j}", f"{our}.message.{name}", inputs, (c, v))
        for j in range(2):
            norm(f"{layer}.norm.{j}.scalar_norm", f"{our}.norms.{j}.scalars", c)
        for j in range(2):
            nothing(f"{layer}.dropout.{j}.vdropout")
        gvp(f"{layer}.ff_func.0", f"{our}.inner", (c, v), (4 * c, w))
        gvp(f"{layer}.ff_func.1", f"{our}.outer", (4 * c, w), (c, v))
    norm(f"{s}.W_out.0.scalar_norm", f"{ours}.output_norm.scalars", c)
    gvp(f"{s}.W_out.1", f"{ours}.output", (c, v), (c, 0))
    linear(f"{s}.dense.0", None, 2 * c, c)
    linear(f"{s}.dense.3", None, 1, 2 * c)
    norm(f"{s}.ln", f"{ours}.norm", c)

    own, both = (("sa", "own"),), (("sa", "own"), ("ea", "other"))
    linear("seq_struc_funsion.multimodal_transform", f"{_BODY}fusion.input", c, 2 * c)
    for i in range(cfg.fusion_layers):
        attending(f"seq_struc_funsion.layers.{i}", f"{_BODY}fusion.layers.{i}", c, cfg.feedforward, own)
    norm("seq_struc_funsion.ln", f"{_BODY}fusion.norm", c)
    linear("goterm_encoder.fc", f"{_BODY}function.input", d, cfg.go_dim)
    for i in range(cfg.go_layers):
        attending(f"goterm_encoder.layers.{i}", f"{_BODY}function.layers.{i}", d, cfg.go_feedforward, own)
    norm("goterm_encoder.ln", f"{_BODY}function.norm", d)
    cross = "pro_go_cross_fusion"
    dead = cfg.cross_layers - cfg.live_layers
    for theirs, name, width, wide in (("pro", "protein", c, cfg.feedforward), ("go", "go", d, cfg.go_feedforward)):
        for i in range(cfg.cross_layers):
            ours_here = None if i < dead else f"{_BODY}cross.{name}.{i - dead}"
            attending(f"{cross}.{theirs}_layers.{i}", ours_here, width, wide, both)
    linear(f"{cross}.pro2go", f"{_BODY}cross.to_go", d, c)
    linear(f"{cross}.go2pro", f"{_BODY}cross.to_protein", c, d)
    for name in PUBLISHED_HEADS:
        classes = cfg.classes[name]
        linear(f"{cross}.{name}_tokens_predictor", f"heads.{name}", classes, d if name == "go" else c)
    return out

"""Weights of ESM-2: Facebook's `.pt` files, safetensors of Hugging Face, and portable files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError
from jaxprot.esm2.config import PUBLISHED, ESM2Config
from jaxprot.esm2.model import ESM2
from jaxprot.weights import inspect, module, portable, torch_file
from jaxprot.weights.convert import Rule, fill

_BODY = r"(?:encoder\.)?(?:sentence_encoder\.)?"
_ESM = r"(?:esm\.)?"
_ENDS = (("weight", "kernel", "T"), ("bias", "bias", None))
_NORM_ENDS = (("weight", "scale"), ("bias", "bias"))


def _facebook() -> tuple[Rule, ...]:
    layer, out = _BODY + r"layers\.(\d+)\.", [Rule(_BODY + r"embed_tokens\.weight", "embedding")]
    for end, name, how in _ENDS:
        out += [
            Rule(layer + rf"self_attn\.(q|k|v|out)_proj\.{end}", rf"layers.\1.\2.{name}", how),
            Rule(layer + rf"(fc1|fc2)\.{end}", rf"layers.\1.\2.{name}", how),
            Rule(rf"(?:encoder\.)?lm_head\.dense\.{end}", f"head.dense.{name}", how),
        ]
    for end, name in _NORM_ENDS:
        out += [
            Rule(layer + rf"self_attn_layer_norm\.{end}", rf"layers.\1.attention_norm.{name}"),
            Rule(layer + rf"final_layer_norm\.{end}", rf"layers.\1.norm.{name}"),
            Rule(_BODY + rf"emb_layer_norm_after\.{end}", f"norm.{name}"),
            Rule(rf"(?:encoder\.)?lm_head\.layer_norm\.{end}", f"head.norm.{name}"),
        ]
    return (*out, Rule(r"(?:encoder\.)?lm_head\.bias", "head_bias"))


def _hugging_face() -> tuple[Rule, ...]:
    layer = _ESM + r"encoder\.layer\.(\d+)\."
    out = [Rule(_ESM + r"embeddings\.word_embeddings\.weight", "embedding")]
    for end, name, how in _ENDS:
        attention = ((letter, rf"self\.{word}") for letter, word in (("q", "query"), ("k", "key"), ("v", "value")))
        for ours, theirs in (*attention, ("out", r"output\.dense")):
            out.append(Rule(layer + rf"attention\.{theirs}\.{end}", rf"layers.\1.{ours}.{name}", how))
        out += [
            Rule(layer + rf"intermediate\.dense\.{end}", rf"layers.\1.fc1.{name}", how),
            Rule(layer + rf"output\.dense\.{end}", rf"layers.\1.fc2.{name}", how),
        ]
    for end, name in _NORM_ENDS:
        out += [
            Rule(layer + rf"attention\.LayerNorm\.{end}", rf"layers.\1.attention_norm.{name}"),
            Rule(layer + rf"LayerNorm\.{end}", rf"layers.\1.norm.{name}"),
            Rule(_ESM + rf"encoder\.emb_layer_norm_after\.{end}", f"norm.{name}"),
        ]
    return tuple(out)


CONTACTS = tuple(
    Rule(rf"(?:esm\.)?contact_head\.regression\.{end}", f"contact.{name}", how) for end, name, how in _ENDS
)
_LM_HEAD = (
    *(Rule(rf"lm_head\.dense\.{end}", f"head.dense.{name}", how) for end, name, how in _ENDS),
    *(Rule(rf"lm_head\.layer_norm\.{end}", f"head.norm.{name}") for end, name in _NORM_ENDS),
    Rule(r"lm_head\.bias", "head_bias"),
)
OFFICIAL = _facebook()
"""Files of Facebook; the contact head is in a second file beside."""
HUGGING_FACE_BASE = _hugging_face()
"""Of Hugging Face without heads, ..."""
HUGGING_FACE_CONTACTS = (*HUGGING_FACE_BASE, *CONTACTS)
"""... with the contact head, ..."""
HUGGING_FACE = (*HUGGING_FACE_CONTACTS, *_LM_HEAD)
"""... and with that of the language model."""
# Tied to the embedding or to the bias of the head (`read` compares them), or fixed.
IGNORED = (r"(?:encoder\.)?lm_head\.weight", r".*rot_emb\.inv_freq")
# In files of Hugging Face also parts that ESM-2 does not use: `read` makes sure that the positions are rotary, for the
# same program writes ESM-1v, which reads its table of positions, under the same names.
_UNUSED = (
    r".*rotary_embeddings\.inv_freq",
    r".*position_ids",
    r"(?:esm\.)?embeddings\.position_embeddings\.weight",
    r"(?:esm\.)?pooler\.dense\.(?:weight|bias)",
)
IGNORED_HUGGING_FACE_BASE = IGNORED_HUGGING_FACE_CONTACTS = _UNUSED
IGNORED_HUGGING_FACE = (*_UNUSED, r"lm_head\.decoder\.(?:weight|bias)")


def shapes(cfg: ESM2Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, each layer by itself."""
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in module.shapes(_blueprint(cfg)).items():
        if name.startswith("blocks."):
            out |= {f"layers.{i}.{name[7:]}": shape[1:] for i in range(cfg.layers)}
        else:
            out[name] = shape
    return out


def assemble(cfg: ESM2Config, tensors: Mapping[str, np.ndarray]) -> ESM2:
    """The network from tensors in our names, each layer by itself.

    Raises:
      CheckpointError: tensors missing, unexpected, of another shape or not finite.
    """
    stacked = {name: array for name, array in tensors.items() if not name.startswith("layers.")}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name, array in tensors.items():
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            parts.setdefault(rest, {})[int(number)] = array
    for rest, layers in parts.items():
        if sorted(layers) != list(range(cfg.layers)):
            raise CheckpointError(f"parameters: {rest} of layers {sorted(layers)}, expected {cfg.layers} layers")
        stacked[f"blocks.{rest}"] = np.stack([layers[i] for i in range(cfg.layers)])
    return module.assemble(_blueprint(cfg), stacked)  # type: ignore[return-value]


def _blueprint(cfg: ESM2Config) -> module.Blueprint:
    return module.Blueprint(lambda rngs: ESM2(cfg, rngs=rngs))


def save(path: str | os.PathLike, cfg: ESM2Config, tensors: Mapping[str, np.ndarray], **header: Any) -> None:
    """Writes a portable file that `read` reads."""
    portable.save(path, tensors, {"system": "esm2", "config": dataclasses.asdict(cfg), **header})


def read(
    path: str | os.PathLike, *, contact_file: str | os.PathLike | None = None, heads: int | None = None
) -> tuple[ESM2Config, dict[str, np.ndarray]]:
    """Sizes and tensors of a file.

    Args:
      path: Facebook's `.pt`, safetensors of Hugging Face, or a portable file.
      contact_file: Facebook's weights of the contact head; by default `NAME-contact-regression.pt` beside `NAME.pt`,
        where it is there.
      heads: of the attention, where the file does not tell them.

    Raises:
      InputError: no such file.
      CheckpointError: damaged, refused, or of another model.
    """
    path = Path(path)
    kind, tensors, header = inspect.read(path)
    if kind == "safetensors" and header:
        return _read_portable(path, tensors, header)
    facebook = any(re.fullmatch(OFFICIAL[0].pattern, key) for key in tensors)
    settings = _told(path, kind) if facebook else _beside(path)
    if facebook:
        tensors = {**tensors, **_contact_head(path, contact_file)}
    rules, ignored = ((*OFFICIAL, *CONTACTS), IGNORED) if facebook else (HUGGING_FACE, IGNORED_HUGGING_FACE)
    _check_ignored(path, tensors, settings)
    try:
        cfg = _config(path, tensors, rules[0].pattern, settings, heads)
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: fits no ESM-2 ({error}); `jaxprot weights inspect` shows the file") from error
    return cfg, fill(shapes(cfg), tensors, rules, ignored, str(path))


def _check_ignored(path: Path, tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> None:
    """Raises if tensors that are left out carry something: heads that are not tied, positions that are not rotary."""

    def first(pattern: str) -> tuple[str, np.ndarray] | None:
        return next(((key, array) for key, array in tensors.items() if re.fullmatch(pattern, key)), None)

    for tied, to in (
        (r"(?:encoder\.)?lm_head\.weight", OFFICIAL[0].pattern),
        (r"lm_head\.decoder\.weight", HUGGING_FACE_BASE[0].pattern),
        (r"lm_head\.decoder\.bias", r"lm_head\.bias"),
    ):
        copy, own = first(tied), first(to)
        if copy is not None and own is not None and not np.array_equal(copy[1], own[1]):
            raise CheckpointError(f"{path}: {copy[0]} is not equal to {own[0]}, as in ESM-2; this is another model")
    table = first(r"(?:esm\.)?embeddings\.position_embeddings\.weight")
    kind = settings.get("positions")
    if kind not in (None, "rotary"):
        raise CheckpointError(
            f"{path}: its config.json tells of {kind} positions, as ESM-1b and ESM-1v have; ESM-2 has rotary ones"
        )
    if table is not None and kind is None and not any(key.endswith("rotary_embeddings.inv_freq") for key in tensors):
        raise CheckpointError(
            f"{path}: has a table of positions, which ESM-1v reads and ESM-2 does not, and nothing tells which of them "
            "this is; put its config.json beside it"
        )


def portable_form(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, header) of a portable file that holds what a published one does; errors as `read`."""
    cfg, tensors = read(path)
    return tensors, {"config": dataclasses.asdict(cfg)}


def _read_portable(
    path: Path, tensors: dict[str, np.ndarray], header: Mapping[str, Any]
) -> tuple[ESM2Config, dict[str, np.ndarray]]:
    if header.get("system") != "esm2":
        raise CheckpointError(f"{path}: these are weights of {header.get('system')}, not of esm2")
    try:
        cfg = ESM2Config(**header["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its header tells no sizes ({error}); read the published file itself") from error
    return cfg, tensors


def _told(path: Path, kind: str) -> dict[str, Any]:
    """What Facebook's file says of itself; its options object is only looked at, never made."""
    if kind != "torch":
        return {}
    obj = torch_file.read_torch_file(path)
    options = obj.get("cfg", {}).get("model") if isinstance(obj, dict) and isinstance(obj.get("cfg"), dict) else None
    state = options if isinstance(options, dict) else getattr(options, "state", None)
    state = state if isinstance(state, dict) else {}
    return {"heads": state.get("encoder_attention_heads"), "token_dropout": state.get("token_dropout", True)}


def _beside(path: Path) -> dict[str, Any]:
    """What the `config.json` of Hugging Face says, where it lies beside."""
    file = path.with_name("config.json")
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable JSON ({error})") from error
    if content.get("model_type") != "esm":
        return {}
    return {
        "heads": content.get("num_attention_heads"),
        "token_dropout": content.get("token_dropout", True),
        "positions": content.get("position_embedding_type"),
    }


def _contact_head(path: Path, given: str | os.PathLike | None) -> dict[str, np.ndarray]:
    file = path.with_name(f"{path.stem}-contact-regression.pt") if given is None else Path(given)
    if given is None and not file.is_file():
        return {}
    return torch_file.find_state_dict(torch_file.read_torch_file(file))


def _config(
    path: Path, tensors: Mapping[str, np.ndarray], embedding: str, settings: Mapping[str, Any], heads: int | None
) -> ESM2Config:
    table = next((array for key, array in tensors.items() if re.fullmatch(embedding, key)), None)
    if table is None or table.ndim != 2:
        raise CheckpointError(f"{path}: no embedding of tokens; is this another model? `jaxprot weights inspect` shows")
    numbers = [re.search(r"\blayers?\.(\d+)\.", key) for key in tensors]
    layers = 1 + max((int(match[1]) for match in numbers if match), default=-1)
    width = table.shape[1]
    contact = next((a for key, a in tensors.items() if key.endswith("contact_head.regression.weight")), None)
    frequencies = next((array for key, array in tensors.items() if key.endswith("inv_freq")), None)
    told = [
        heads,
        settings.get("heads"),
        contact.size // layers if contact is not None and layers else None,
        width // (2 * frequencies.size) if frequencies is not None and frequencies.size else None,
        *(h for n, w, h in PUBLISHED.values() if (n, w) == (layers, width)),
    ]
    found = next((number for number in told if isinstance(number, int) and number > 0), None)
    if found is None:
        raise CheckpointError(f"{path}: does not tell the number of attention heads; give heads=, or its config.json")
    return ESM2Config(
        layers=layers,
        width=width,
        heads=found,
        token_dropout=bool(settings.get("token_dropout", True)),
        lm_head=any("lm_head.dense" in key for key in tensors),
        contacts=contact is not None,
    )

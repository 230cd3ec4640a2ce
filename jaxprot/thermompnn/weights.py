"""Where the tensors of the published ThermoMPNN and ThermoMPNN-D checkpoints go."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxprot.proteinmpnn.weights import backbone_rules
from jaxprot.weights.convert import Rule

_BACKBONE = tuple(
    dataclasses.replace(rule, target=f"backbone.{rule.target}") for rule in backbone_rules(r"model\.prot_mpnn\.")
)


def _centre_tap(kernel: np.ndarray) -> np.ndarray:
    """(out, in, taps) -> (in, out): at length 1 only the centre tap of the convolution sees data."""
    return kernel[:, :, kernel.shape[2] // 2].T


_LIGHT = (
    Rule(r"model\.light_attention\.feature_convolution\.weight", "head.value.kernel", _centre_tap),
    Rule(r"model\.light_attention\.feature_convolution\.bias", "head.value.bias"),
)


def _stack(name: str, places: tuple[int, ...]) -> tuple[Rule, ...]:
    """Linears of a sequential block: the numbers count its activations and dropouts too."""
    rules = []
    for i, place in enumerate(places):
        rules.append(Rule(rf"model\.{name}\.{place}\.weight", f"head.layers.{i}.kernel", "T"))
        rules.append(Rule(rf"model\.{name}\.{place}\.bias", f"head.layers.{i}.bias"))
    return tuple(rules)


# ThermoMPNN v1: a scalar linear after the perceptron.
OFFICIAL = (
    *_BACKBONE,
    *_LIGHT,
    *_stack("both_out", (1, 3, 5)),
    Rule(r"model\.ddg_out\.weight", "head.scale.kernel", "T"),
    Rule(r"model\.ddg_out\.bias", "head.scale.bias"),
)
# ThermoMPNN-D, single and additive mode.
ADDITIVE = (*_BACKBONE, *_LIGHT, *_stack("ddg_out", (1, 3, 5)))
# ThermoMPNN-D, epistatic mode.
EPISTATIC = (
    *_BACKBONE,
    Rule(r"model\.light_attention\.0\.weight", "head.norm.scale"),
    Rule(r"model\.light_attention\.0\.bias", "head.norm.bias"),
    Rule(r"model\.light_attention\.1\.weight", "head.projection.kernel", "T"),
    Rule(r"model\.light_attention\.1\.bias", "head.projection.bias"),
    *_stack("ddg_out", (0, 3, 6)),
)
# The attention convolution has no effect at length 1, for its weights are a softmax over one residue; `metrics` are the
# trainer's running figures. The epistatic network has no such convolution.
IGNORED = (r"model\.light_attention\.attention_convolution\.(weight|bias)", r"metrics\..*")
IGNORED_EPISTATIC = (r"metrics\..*",)

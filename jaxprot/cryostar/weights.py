"""Where the tensors of cryoSTAR's published checkpoints go (phase 1)."""

from __future__ import annotations

from jaxprot.weights.convert import Rule

_DEEPEST = 8  # layers of a network, and more than the published ones have


def _rules() -> tuple[Rule, ...]:
    out = []
    for theirs, ours, how in (("weight", "kernel", "T"), ("bias", "bias", None)):
        end = rf"\.(?:linear\.)?{theirs}"  # layers that keep their width are called so
        out += [
            Rule(rf"(encoder|decoder)\.input_layer\.0{end}", rf"\1.mlp.input.{ours}", how),
            Rule(rf"encoder\.mean_layer\.{theirs}", f"encoder.mean.{ours}", how),
            Rule(rf"encoder\.var_layer\.{theirs}", f"encoder.log_var.{ours}", how),
            Rule(rf"decoder\.out_layer\.{theirs}", f"decoder.output.{ours}", how),
        ]
        for number in range(_DEEPEST):  # rectifiers are counted as well
            out.append(
                Rule(rf"(encoder|decoder)\.mlp\.layers\.{2 * number}{end}", rf"\1.mlp.layers.{number}.{ours}", how)
            )
    return tuple(out)


OFFICIAL = _rules()

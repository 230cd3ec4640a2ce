"""Where the tensors of the published ProteinMPNN checkpoints go."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxprot.weights.convert import Rule


def backbone_rules(prefix: str = "") -> tuple[Rule, ...]:
    """Rules for the 118 tensors of ProteinMPNN, whose names start with `prefix` (a regular expression)."""
    p = prefix
    return (
        Rule(p + r"features\.embeddings\.linear\.weight", "features.positional.kernel", "T"),
        Rule(p + r"features\.embeddings\.linear\.bias", "features.positional.bias"),
        Rule(p + r"features\.edge_embedding\.weight", "features.embedding.kernel", "T"),
        Rule(p + r"features\.norm_edges\.weight", "features.norm.scale"),
        Rule(p + r"features\.norm_edges\.bias", "features.norm.bias"),
        Rule(p + r"W_e\.weight", "edge_projection.kernel", "T"),
        Rule(p + r"W_e\.bias", "edge_projection.bias"),
        Rule(p + r"W_s\.weight", "letters.embedding"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.norm(\d)\.weight", r"\1.\2.norm\3.scale"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.norm(\d)\.bias", r"\1.\2.norm\3.bias"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.W(\d+)\.weight", r"\1.\2.w\3.kernel", "T"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.W(\d+)\.bias", r"\1.\2.w\3.bias"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.dense\.W_(in|out)\.weight", r"\1.\2.ffn.w_\3.kernel", "T"),
        Rule(p + r"(encoder|decoder)_layers\.(\d+)\.dense\.W_(in|out)\.bias", r"\1.\2.ffn.w_\3.bias"),
        Rule(p + r"W_out\.weight", "output.kernel", "T"),
        Rule(p + r"W_out\.bias", "output.bias"),
    )


EDGE_CHANNELS = {"all": 16 + 25 * 16, "ca": 16 + 9 * 16 + 7}
"""Positional channels, then those of the geometry, of all backbone atoms and of CA alone."""


def _edges(atoms: str):
    """Transposes the edge embedding of a file of this kind; files of CA alone and membrane files share all names."""

    def transpose(kernel: np.ndarray) -> np.ndarray:
        if kernel.ndim != 2 or kernel.shape[1] != EDGE_CHANNELS[atoms]:
            raise ValueError(f"expected {EDGE_CHANNELS[atoms]} channels of an edge")
        return kernel.T

    return transpose


def _for(atoms: str) -> tuple[Rule, ...]:
    edge = r"features\.edge_embedding\.weight"
    return tuple(
        dataclasses.replace(rule, transform=_edges(atoms)) if rule.pattern == edge else rule
        for rule in backbone_rules()
    )


OFFICIAL = backbone_rules()
"""Of the vanilla and the soluble files, and of LigandMPNN's copies of both."""
CA_ONLY = _for("ca")
"""Of the files that see CA atoms alone."""
MEMBRANE = (
    *_for("all"),
    Rule(r"features\.node_embedding\.weight", "features.labels.kernel", "T"),
    Rule(r"features\.norm_nodes\.weight", "features.label_norm.scale"),
    Rule(r"features\.norm_nodes\.bias", "features.label_norm.bias"),
    Rule(r"W_v\.weight", "node_projection.kernel", "T"),
    Rule(r"W_v\.bias", "node_projection.bias"),
)
"""Of LigandMPNN's two membrane files, whose network reads labels of residues."""

IGNORED = ()
# The CA-only files hold the tensors of labels that their network never reads: they are as they were drawn. The membrane
# files hold trained ones under the same names.
IGNORED_CA_ONLY = (r"features\.node_embedding\.weight", r"features\.norm_nodes\.(weight|bias)", r"W_v\.(weight|bias)")


def trained_labels(kernel: np.ndarray) -> int:
    """How many labels a network was trained on, from its embedding of labels.

    Both membrane files have rows for three labels, but the one with a single label for the whole structure has met two
    of them only: its third row still lies within the bound of the uniform draw that it started from.

    Args:
      kernel: (3, width).
    """
    bound = np.sqrt(6.0 / sum(kernel.shape))
    return int((np.abs(kernel).max(axis=1) > 1.01 * bound).sum())

"""Where the tensors of the published ProteinMPNN checkpoints go."""

from __future__ import annotations

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


OFFICIAL = backbone_rules()

# The CA-only files carry node features that the published network never reads.
IGNORED = (r"features\.node_embedding\.weight", r"features\.norm_nodes\.(weight|bias)", r"W_v\.(weight|bias)")

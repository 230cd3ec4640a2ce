"""Sizes of ProteinMPNN."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProteinMPNNConfig:
    """Sizes of the network; `paper()` is the published model (Dauparas et al., Science 2022).

    Attributes:
      width: channels of nodes and edges.
      encoder_layers: message-passing layers that see the backbone only.
      decoder_layers: message-passing layers that also see the (visible part of the) sequence.
      neighbours: k of the k-nearest-neighbour graph over CA atoms, the residue itself included.
      rbf: radial basis functions per atom pair, centres from 2 to 22 Å.
      positional: channels of the relative-position encoding.
      max_offset: residue offsets beyond this are treated alike.
      dropout: rate, used only when a key is passed to the model (training).
      message_scale: messages of one residue are summed and divided by this number (30 in the published model).
      ca_only: edge features from CA atoms alone (the published CA-only variant).
      node_labels: labels of residues that the network reads as node features: 0 for none; 2 for membrane or soluble,
        one label for the whole structure; 3 for a label of each residue (see `featurize.LabelledFeatures`).
    """

    width: int = 128
    encoder_layers: int = 3
    decoder_layers: int = 3
    neighbours: int = 48
    rbf: int = 16
    positional: int = 16
    max_offset: int = 32
    dropout: float = 0.1
    message_scale: float = 30.0
    ca_only: bool = False
    node_labels: int = 0

    def __post_init__(self):
        for name in ("width", "encoder_layers", "decoder_layers", "neighbours", "rbf", "positional", "max_offset"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.node_labels not in (0, 2, 3):
            raise ValueError(f"node_labels must be 0, 2 or 3, got {self.node_labels}")

    @classmethod
    def paper(cls, *, ca_only: bool = False) -> ProteinMPNNConfig:
        """The published sizes: 128 channels, 3 + 3 layers, 48 neighbours."""
        return cls(ca_only=ca_only)

"""Sizes of ThermoMPNN and its double-mutant successor."""

from __future__ import annotations

import dataclasses

from jaxprot.proteinmpnn.config import ProteinMPNNConfig

KINDS = ("single", "epistatic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThermoMPNNConfig:
    """Backbone network and stability head.

    Attributes:
      backbone: the ProteinMPNN whose residue states are read.
      kind: `single` (ThermoMPNN, PNAS 2024, and the additive model of ThermoMPNN-D) or `epistatic` (the Siamese
        double-mutant model of ThermoMPNN-D, Protein Science 2025).
      final_layers: how many of the last decoder layers are read.
      hidden: widths of the single head's hidden layers.
      pair_width: width per mutation of the epistatic head.
      scalar_output: ThermoMPNN v1 ends in one linear shared by all letters; its successor has none.
      own_letter: a residue's state has seen the residue's own letter, as published. Without it, neighbours send their
        letters and encoder states only, nothing returns to the residue from itself, and the ddG of a mutation and of
        its reverse on the same backbone are exact opposites.
      members: single heads of their own, whose mean is the prediction; each is trained on its own error.
      prior: add the backbone's own letter preferences, times one trained number, to the single head's output.
      dropout: of the head, in training.
    """

    backbone: ProteinMPNNConfig = ProteinMPNNConfig()
    kind: str = "single"
    final_layers: int = 2
    hidden: tuple[int, ...] = (64, 32)
    pair_width: int = 128
    scalar_output: bool = True
    own_letter: bool = True
    members: int = 1
    prior: bool = False
    dropout: float = 0.25

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        if not 1 <= self.final_layers <= self.backbone.decoder_layers:
            raise ValueError(f"final_layers must lie in 1..{self.backbone.decoder_layers}, got {self.final_layers}")
        if self.kind == "epistatic" and (self.prior or not self.own_letter or self.members != 1):
            raise ValueError("own_letter, members and prior are options of the single head, not of the epistatic one")
        if self.members < 1:
            raise ValueError(f"members must be at least 1, got {self.members}")

    @property
    def width(self) -> int:
        """Channels of a residue vector: the decoder layers read and, where it is seen, the letter."""
        return (self.final_layers + self.own_letter) * self.backbone.width

    @classmethod
    def paper(cls) -> ThermoMPNNConfig:
        """ThermoMPNN as published (PNAS 2024)."""
        return cls()

    @classmethod
    def paper_additive(cls) -> ThermoMPNNConfig:
        """The single-mutant model of ThermoMPNN-D."""
        return cls(scalar_output=False)

    @classmethod
    def paper_epistatic(cls) -> ThermoMPNNConfig:
        """The double-mutant model of ThermoMPNN-D."""
        return cls(kind="epistatic", dropout=0.1)

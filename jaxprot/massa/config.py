"""Sizes and options of MASSA."""

from __future__ import annotations

import dataclasses
from typing import Literal

PadMode = Literal["masked", "official"]
CrossMode = Literal["stacked", "official"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MASSAConfig:
    """Sizes of the network; `paper()` gives the published one.

    Attributes:
      seq_dim: channels of the residue embeddings that come in.
      max_length: residues that have a position.
      width: channels of a residue; GVP layers have as many scalars.
      convolutions: of the sequence encoder.
      kernel: residues that one of them sees, odd.
      vectors: of a residue in the structure encoder.
      layers: of messages in the structure encoder.
      neighbours: residues that send messages to one, nearest first.
      fusion_layers: of attention over fused residues.
      heads: of attention of residues.
      feedforward: width inside its layers.
      go_dim: channels of the GO embeddings that come in.
      go_width: channels of a GO term.
      go_layers: of attention over GO terms.
      go_heads: of that attention.
      go_feedforward: width inside its layers.
      cross_layers: of attention between residues and GO terms.
      residue_classes: classes of residue types.
      go_classes: classes of GO terms.
      motif_classes: classes of motifs, 0 is outside.
      domain_classes: classes of domains, 0 is outside.
      region_classes: classes of regions, 0 is outside.
      secondary_classes: of secondary structure, 0 for no such head; this and the next two are ours (see `massa.local`).
      torsion_classes: regions of backbone angles, 0 for no such head.
      burial_classes: of numbers of neighbours, 0 for no such head.
      sequence_dropout: rate in the sequence encoder.
      structure_dropout: rate in the structure encoder.
      dropout: rate in all attention.
      pad_mode: `masked`: padding changes nothing. `official`: the convolutions of the sequence encoder also see the
        padding up to the longest protein of a batch, as published, so that the last residues of shorter ones depend on
        the batch.
      cross_mode: `stacked`: each layer between residues and GO terms reads what the one before gave. `official`: as
        published, each of them reads the same, so that only the last one counts; the others do not exist here.
    """

    seq_dim: int = 768
    max_length: int = 1022
    width: int = 512
    convolutions: int = 3
    kernel: int = 7
    vectors: int = 16
    layers: int = 2
    neighbours: int = 30
    fusion_layers: int = 4
    heads: int = 8
    feedforward: int = 2048
    go_dim: int = 64
    go_width: int = 128
    go_layers: int = 3
    go_heads: int = 4
    go_feedforward: int = 512
    cross_layers: int = 3
    residue_classes: int = 20
    go_classes: int = 18438
    motif_classes: int = 336
    domain_classes: int = 2065
    region_classes: int = 422
    secondary_classes: int = 0
    torsion_classes: int = 0
    burial_classes: int = 0
    sequence_dropout: float = 0.3
    structure_dropout: float = 0.4
    dropout: float = 0.1
    pad_mode: PadMode = "masked"
    cross_mode: CrossMode = "stacked"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("dropout"):
                if not 0 <= value < 1:
                    raise ValueError(f"{field.name} must lie in [0, 1), got {value}")
            elif isinstance(field.default, int) and value < min(1, field.default):
                raise ValueError(f"{field.name} must be at least {min(1, field.default)}, got {value}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        for width, heads in (("width", "heads"), ("go_width", "go_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"{width} must be a multiple of {heads}, got {getattr(self, width)} and {getattr(self, heads)}"
                )
        for name, choices in (("pad_mode", ("masked", "official")), ("cross_mode", ("stacked", "official"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @classmethod
    def paper(cls) -> MASSAConfig:
        """The published network in its configuration of 63,759 proteins, with its quirks."""
        return cls(pad_mode="official", cross_mode="official")

    @property
    def live_layers(self) -> int:
        """Layers between residues and GO terms that the network holds."""
        return 1 if self.cross_mode == "official" else self.cross_layers

    @property
    def classes(self) -> dict[str, int]:
        """Classes of each of the five heads, and of those of local structure that there are."""
        local = {"secondary": self.secondary_classes, "torsion": self.torsion_classes, "burial": self.burial_classes}
        return {
            "pro": self.residue_classes,
            "go": self.go_classes,
            "motif": self.motif_classes,
            "domain": self.domain_classes,
            "region": self.region_classes,
            **{name: classes for name, classes in local.items() if classes},
        }

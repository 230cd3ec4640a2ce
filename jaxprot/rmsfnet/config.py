"""Sizes of the RMSF-net."""

from __future__ import annotations

import dataclasses
from typing import Literal

Variant = Literal["both", "map", "pdb"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSFNetConfig:
    """Sizes of the network; `paper()` gives the published ones.

    Attributes:
      variant: what it reads: the map and the model (`both`, the published main model), or one of them.
      width: channels of the first level; each level below has twice as many.
      dropout: rate in the head, in training.
    """

    variant: Variant = "both"
    width: int = 32
    dropout: float = 0.2

    def __post_init__(self):
        if self.variant not in ("both", "map", "pdb"):
            raise ValueError(f"variant must be both, map or pdb, got {self.variant!r}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    @classmethod
    def paper(cls, variant: Variant = "both") -> RMSFNetConfig:
        """The published network."""
        return cls(variant=variant, width=32)

    @property
    def channels(self) -> int:
        """Channels of a box."""
        return 2 if self.variant == "both" else 1

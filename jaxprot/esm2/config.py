"""Sizes of ESM-2 (Lin et al., Science 2023, doi 10.1126/science.ade2574)."""

from __future__ import annotations

import dataclasses

PUBLISHED = {
    "t6_8M": (6, 320, 20),
    "t12_35M": (12, 480, 20),
    "t30_150M": (30, 640, 20),
    "t33_650M": (33, 1280, 20),
    "t36_3B": (36, 2560, 40),
    "t48_15B": (48, 5120, 40),
}
"""Name of a published model -> layers, width, heads."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ESM2Config:
    """Sizes of the network; `published` gives those of a published one.

    Attributes:
      layers: blocks.
      width: channels.
      heads: of the attention; the width is a multiple of twice their number.
      token_dropout: embeddings are scaled by how much is masked, as the published models do, also at inference.
      lm_head: whether there are weights that predict letters.
      contacts: whether there are weights that predict contacts.
    """

    layers: int = 6
    width: int = 320
    heads: int = 20
    token_dropout: bool = True
    lm_head: bool = True
    contacts: bool = True

    def __post_init__(self):
        if min(self.layers, self.width, self.heads) < 1 or self.width % (2 * self.heads):
            raise ValueError(
                f"{self.layers} layers, width {self.width}, {self.heads} heads: at least one of each, and the width a "
                "multiple of twice the heads"
            )

    @classmethod
    def published(cls, name: str) -> ESM2Config:
        """The sizes of a published model, such as `t33_650M`."""
        if name not in PUBLISHED:
            raise ValueError(f"no published ESM-2 {name!r}; there are {', '.join(PUBLISHED)}")
        layers, width, heads = PUBLISHED[name]
        return cls(layers=layers, width=width, heads=heads)

    @classmethod
    def paper(cls) -> ESM2Config:
        """The model of 650 million parameters, which most users take."""
        return cls.published("t33_650M")

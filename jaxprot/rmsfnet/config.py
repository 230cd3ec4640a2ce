"""Sizes of the RMSF-net."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Variant = Literal["both", "map", "pdb"]
Geometry = Literal["published", "exact"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSFNetConfig:
    """Sizes of the network; `paper()` gives the published ones.

    Attributes:
      variant: what it reads: the map and the model (`both`, the published main model), or one of them.
      width: channels of the first level; each level below has twice as many.
      dropout: rate in the head, in training.
      geometry: of the input. `published`: the map is resampled between its first and last voxel (so up to a voxel off
        at the far end), the model's map is moved onto it by whole voxels. `exact`: both lie on one grid of 1.5 Å.
      hydrogens: whether the model's simulated map shows them, waters and every alternate location.
      context: widths (standard deviations, Å, at least 1) of Gaussians that blur the model's simulated map, or the map
        (over its maximum in the box) where it is alone; the logarithms of the blurred ones are further channels. How
        densely a place is packed is then there to read. The published network has none.
      views: orientations of each box (1 to 24 rotations of a cube) over which a prediction is averaged. The network is
        not the same in every orientation; published predictions are of one.
    """

    variant: Variant = "both"
    width: int = 32
    dropout: float = 0.2
    geometry: Geometry = "published"
    hydrogens: bool = True
    context: tuple[float, ...] = ()
    views: int = 1

    def __post_init__(self):
        object.__setattr__(self, "context", tuple(map(float, self.context)))  # headers of files hold lists
        if any(not 1 <= width < math.inf for width in self.context):
            raise ValueError(f"widths of context must be at least 1 Å, which the grid resolves, got {self.context}")
        if self.variant not in ("both", "map", "pdb"):
            raise ValueError(f"variant must be both, map or pdb, got {self.variant!r}")
        if self.geometry not in ("published", "exact"):
            raise ValueError(f"geometry must be published or exact, got {self.geometry!r}")
        if not 1 <= self.views <= 24:
            raise ValueError(f"views must be 1 to 24, got {self.views}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    @classmethod
    def paper(cls, variant: Variant = "both") -> RMSFNetConfig:
        """The published network."""
        return cls(variant=variant, width=32)

    @property
    def channels(self) -> int:
        """Densities in a box."""
        return 2 if self.variant == "both" else 1

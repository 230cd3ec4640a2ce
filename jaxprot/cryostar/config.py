"""Sizes of cryoSTAR's networks."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the auto-encoder from images to displacements of beads; the defaults are the published ones.

    Attributes:
      side: pixels of an image.
      beads: of the reference model.
      latent: dimensions.
      encoder: widths of the encoder's layers.
      decoder: widths of the decoder's layers.
      space: what the encoder reads, `real` pixels or real and imaginary parts of the `fourier` transform.
      modes: normal modes of a decoder that moves along them, instead of bead by bead; 0 for beads.
    """

    side: int
    beads: int
    latent: int = 8
    encoder: tuple[int, ...] = (512, 256, 128, 64, 32)
    decoder: tuple[int, ...] = (32, 64, 128, 256, 512)
    space: str = "real"
    modes: int = 0

    def __post_init__(self):
        if self.space not in ("real", "fourier"):
            raise ValueError(f"space must be real or fourier, got {self.space!r}")
        if min(self.side, self.beads, self.latent, *self.encoder, *self.decoder) < 1 or self.modes < 0:
            raise ValueError("side, beads, latent and all widths must be at least 1, modes at least 0")

    @property
    def inputs(self) -> int:
        """Numbers that the encoder reads."""
        return self.side**2 * (2 if self.space == "fourier" else 1)

    @property
    def outputs(self) -> int:
        """Numbers that the decoder gives."""
        return 6 + self.modes if self.modes else 3 * self.beads

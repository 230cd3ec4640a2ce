"""Sizes of cryoSTAR's networks."""

from __future__ import annotations

import dataclasses
from typing import Literal


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """Sizes of the network that gives densities; the defaults are the published ones.

    Attributes:
      side: pixels of an image, and voxels along an edge of a volume.
      latent: dimensions; 0 for one density of all particles.
      hidden: width of the layers (256 is faster, and advised for a first look).
      layers: with a shortcut, between the first and the last.
      encoding: of coordinates: `gau1` and `gau2`, waves of random directions (standard deviation side / 4 and
        side / 8); `geo1` and `geo2`, waves along the axes, from 1 to side (side times pi) geometrically; `no`.
      net: `cryodrgn` gives the Hartley transform, `cryodrgn-fourier` real and imaginary part, and `cryoai` both, as an
        envelope times a wave of sines.
      mask: radius of the frequencies that are modelled, 1 being the Nyquist frequency.
      encoder: whether latents come from the images; else they are given.
    """

    side: int
    latent: int = 8
    hidden: int = 1024
    layers: int = 3
    encoding: Literal["gau1", "gau2", "geo1", "geo2", "no"] = "gau2"
    net: Literal["cryodrgn", "cryodrgn-fourier", "cryoai"] = "cryodrgn"
    mask: float = 0.85
    encoder: bool = False

    def __post_init__(self):
        choices = {
            "encoding": ("gau1", "gau2", "geo1", "geo2", "no"),
            "net": ("cryodrgn", "cryodrgn-fourier", "cryoai"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.side < 2 or self.hidden < 1 or self.latent < 0 or self.layers < 0:
            raise ValueError("side must be at least 2, hidden at least 1, latent and layers at least 0")
        if not 0 < self.mask <= 1:
            raise ValueError(f"mask must be above 0 and at most 1, got {self.mask}")
        if self.encoder and not self.latent:
            raise ValueError("an encoder needs latent dimensions; set latent to 1 or more")

    @property
    def waves(self) -> int:
        """Cosines, and as many sines, of the encoding."""
        return 0 if self.encoding == "no" else 3 * self.side

    @property
    def inputs(self) -> int:
        """Numbers that the first layer reads: latents, coordinates, cosines, sines."""
        return self.latent + 3 + 2 * self.waves

    @property
    def outputs(self) -> int:
        """Numbers at a frequency."""
        return 1 if self.net == "cryodrgn" else 2

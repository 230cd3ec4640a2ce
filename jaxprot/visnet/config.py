"""Sizes and options of ViSNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

Radial = Literal["expnorm", "gauss"]
Activation = Literal["silu", "ssp", "tanh", "sigmoid"]
VecNorm = Literal["none", "max_min", "rms"]
Vertex = Literal["edge"]

_CHOICES = {
    "lmax": (1, 2),
    "rbf_type": ("expnorm", "gauss"),
    "activation": ("silu", "ssp", "tanh", "sigmoid"),
    "attn_activation": ("silu", "ssp", "tanh", "sigmoid"),
    "vecnorm": ("none", "max_min", "rms"),
    "vertex": (None, "edge"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViSNetConfig:
    """Sizes of the network; `paper()` gives those of AI2BMD's likely family.

    Attributes:
      hidden: channels of atoms, pairs and vectors.
      layers: of message passing.
      heads: of attention; they share the channels.
      lmax: highest order of the vectors, 1 (3 components) or 2 (8 components).
      rbf: number of radial functions.
      rbf_type: `expnorm` (exponential-normal, times the cutoff) or `gauss` (without it).
      trainable_rbf: whether their places and widths are trained.
      activation: of all layers; `ssp` is softplus(x) - ln 2.
      attn_activation: of attention, in place of a softmax.
      vecnorm: how vectors are normalised before each layer.
      trainable_vecnorm: whether the scale after it is trained.
      vertex: `edge` adds a term of the target atom's vectors to the update of pairs (PyG's `vertex=True`).
      cutoff: largest distance of a pair, Å.
      max_neighbors: most pairs that an atom receives, itself counted, lowest atom index first; None for no cap.
      max_z: atomic numbers are below it.
      prior: whether the file holds energies of free atoms.
      smooth: messages to vectors end at the cutoff as those to scalars do, so that energy and forces are continuous
        there. Published weights are trained without it, and their energy jumps when a pair crosses the cutoff.
    """

    hidden: int = 128
    layers: int = 6
    heads: int = 8
    lmax: int = 2
    rbf: int = 32
    rbf_type: Radial = "expnorm"
    trainable_rbf: bool = False
    activation: Activation = "silu"
    attn_activation: Activation = "silu"
    vecnorm: VecNorm = "none"
    trainable_vecnorm: bool = False
    vertex: Vertex | None = None
    cutoff: float = 5.0
    max_neighbors: int | None = None
    max_z: int = 100
    prior: bool = True
    smooth: bool = True

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}")
        for name in ("hidden", "layers", "heads", "max_z"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden % self.heads or self.hidden % 2:
            raise ValueError(f"hidden must be even and a multiple of heads, got {self.hidden} and {self.heads}")
        if self.rbf < 2:
            raise ValueError(f"rbf must be at least 2, got {self.rbf}")
        if not self.cutoff > 0:
            raise ValueError(f"cutoff must be above 0, got {self.cutoff}")
        if self.max_neighbors is not None and self.max_neighbors < 1:
            raise ValueError(f"max_neighbors must be at least 1 or None, got {self.max_neighbors}")
        if self.smooth and self.max_neighbors is not None:
            raise ValueError("smooth needs max_neighbors=None: a pair that drops out of a full list makes a jump")
        if self.smooth and self.vecnorm != "none":
            raise ValueError(
                f"smooth needs vecnorm='none', got {self.vecnorm!r}: a vector that vanishes at the cutoff and is "
                "divided by its length does not vanish"
            )

    @classmethod
    def paper(cls) -> ViSNetConfig:
        """The likely network of AI2BMD's released weights (their sizes are told by the file alone)."""
        return cls(max_neighbors=32, smooth=False)

    @property
    def components(self) -> int:
        """Of a vector: 3 or 8."""
        return (self.lmax + 1) ** 2 - 1

    @classmethod
    def from_hyper_parameters(cls, values: Mapping[str, Any]) -> ViSNetConfig:
        """From the `hyper_parameters` of an official checkpoint.

        Raises:
          ValueError: a value is missing, or of a network that is not ViSNet with scalar output.
        """
        missing = [name for name in (*_THEIRS, "model", "output_model") if name not in values]
        if missing:
            raise ValueError(f"hyper_parameters without {', '.join(missing)}")
        for name, known in (("model", ("ViSNetBlock",)), ("output_model", ("Scalar",)), ("reduce_op", ("add", "sum"))):
            if values.get(name, known[0]) not in known:
                raise ValueError(f"{name} is {values[name]!r}, and only {known[0]!r} is read")
        if values.get("prior_model") not in (None, "Atomref"):
            raise ValueError(f"prior_model is {values['prior_model']!r}, and only 'Atomref' is read")
        out = {ours: values[theirs] for theirs, ours in _THEIRS.items()}
        for name in ("activation", "attn_activation"):
            out[name] = "silu" if out[name] == "swish" else out[name]
        out["vecnorm"] = _word(out["vecnorm"]) or "none"
        out["vertex"] = _word(values.get("vertex_type"))
        out["cutoff"] = float(out["cutoff"])
        return cls(**out, prior=values.get("prior_model") == "Atomref", smooth=bool(values.get("smooth", False)))

    def hyper_parameters(self) -> dict[str, Any]:
        """As an official checkpoint has them; the reverse of `from_hyper_parameters`."""
        out = {theirs: getattr(self, ours) for theirs, ours in _THEIRS.items()}
        out |= {"model": "ViSNetBlock", "output_model": "Scalar", "reduce_op": "add", "derivative": True}
        out["prior_model"] = "Atomref" if self.prior else None
        out["prior_args"] = {"max_z": self.max_z} if self.prior else None
        if self.vertex is not None:
            out["vertex_type"] = self.vertex.capitalize()
        if self.smooth:
            out["smooth"] = True
        return out


_THEIRS = {
    "embedding_dimension": "hidden",
    "num_layers": "layers",
    "num_heads": "heads",
    "lmax": "lmax",
    "num_rbf": "rbf",
    "rbf_type": "rbf_type",
    "trainable_rbf": "trainable_rbf",
    "activation": "activation",
    "attn_activation": "attn_activation",
    "vecnorm_type": "vecnorm",
    "trainable_vecnorm": "trainable_vecnorm",
    "cutoff": "cutoff",
    "max_num_neighbors": "max_neighbors",
    "max_z": "max_z",
}


def _word(value: Any) -> str | None:
    """A name in lower case; None for `None` and `"None"`."""
    text = str(value).lower()
    return None if text == "none" else text

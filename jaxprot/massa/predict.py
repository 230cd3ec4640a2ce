"""Representations of proteins by MASSA with its weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import featurize, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.featurize import Features, Record
from jaxprot.massa.heads import pool
from jaxprot.massa.model import MASSA
from jaxprot.nn.runner import Runner


@dataclasses.dataclass(frozen=True)
class Representation:
    """What MASSA makes of a protein.

    Attributes:
      name: of the record.
      vector: (c,) of the whole protein.
      residues: (L, c).
    """

    name: str
    vector: np.ndarray
    residues: np.ndarray


def _apply(module: MASSA, features: Features) -> Any:
    residues = module(features).protein
    return pool(residues, features.mask), residues


class Predictor:
    """MASSA with its weights.

    Args:
      module: the network without heads.
    """

    def __init__(self, module: MASSA):
        self.module, self.config = module, module.cfg
        self.runner = Runner(module)

    def pure(self) -> tuple[Callable, list[Any]]:
        """(apply, leaves) of plain JAX: apply(leaves, features) -> vectors (b, c) and residues (b, n, c).

        Features have an axis of proteins in front.
        """
        return self.runner.pure(_apply)

    def embed(self, records: Sequence[Record], long: Literal["refuse", "crop"] = "refuse") -> list[Representation]:
        """Vectors of proteins, each computed by itself, so that they do not depend on their company.

        Args:
          records: proteins.
          long: what becomes of sequences with more residues than the network has positions.

        Raises:
          InputError: a record that does not fit the network.
        """
        out = []
        for record in records:
            features, _ = featurize.batch([record], self.config, long=long)
            vector, residues = self.runner(_apply, features)
            n = int(features.mask.sum())
            out.append(Representation(record.name, np.asarray(vector[0]), np.asarray(residues[0, :n])))
        return out


def load(path: str | os.PathLike, **config: Any) -> Predictor:
    """The predictor of a file of weights; heads in it are left out.

    Args:
      path: `.safetensors` file of this library or published `.pth`.
      **config: fields of `MASSAConfig` in place of the file's, such as `heads` and `go_heads`.

    Raises:
      InputError: no such file, or an option that the network does not have.
      CheckpointError: not such weights.
    """
    known = {field.name for field in dataclasses.fields(MASSAConfig)}
    if unknown := sorted(config.keys() - known):
        raise InputError(f"no option {', '.join(unknown)} of MASSA; known: {', '.join(sorted(known))}")
    found = weights.read(path, **config)
    try:
        return Predictor(weights.assemble_backbone(found.config, found.tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error

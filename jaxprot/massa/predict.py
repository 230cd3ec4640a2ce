"""Representations of proteins by MASSA with its weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import featurize, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.featurize import Features, Record
from jaxprot.massa.heads import pool
from jaxprot.massa.model import MASSA
from jaxprot.nn.runner import Runner

_ITEMS = 4096  # padded residues at once


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
        """Vectors of proteins, which do not depend on their company.

        Proteins of one padded size are computed together, unless padding counts (`pad_mode="official"`).

        Args:
          records: proteins.
          long: what becomes of sequences with more residues than the network has positions.

        Raises:
          InputError: a record that does not fit the network.
        """
        out: list[Any] = [None] * len(records)
        for rows in self._groups(records):
            chosen = [records[row] for row in rows]
            # Filled up with copies, so that every batch of a size is of one program.
            filled = chosen if len(rows) == 1 else [chosen[i % len(chosen)] for i in range(self._together(chosen[0]))]
            features, _ = featurize.batch(filled, self.config, long=long)
            if chosen[0].coords is None:
                none = {name: getattr(features, name)[:, :, :0] for name in ("edge_s", "edge_v", "index", "present")}
                features = features._replace(**none)
            vectors, residues = self.runner(_apply, features)
            for place, row in enumerate(rows):
                n = int(features.mask[place].sum())
                of = Representation(records[row].name, np.asarray(vectors[place]), np.asarray(residues[place, :n]))
                out[row] = of
        return out

    def _together(self, record: Record) -> int:
        """Proteins like this one that are computed at once."""
        if self.config.pad_mode == "official" or record.coords is not None:
            return 1
        return max(1, _ITEMS // bucket_length(min(len(record.sequence), self.config.max_length)))

    def _groups(self, records: Sequence[Record]) -> list[list[int]]:
        """Rows of the records that are computed together."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for row, record in enumerate(records):
            if record.coords is None and self.config.pad_mode != "official" and record.sequence:
                size = bucket_length(min(len(record.sequence), self.config.max_length))
                terms = bucket_length(0 if record.go is None else len(record.go), featurize.GO_BUCKETS)
                by_size.setdefault((size, terms), []).append(row)
            else:
                by_size[-1, row] = [row]
        out = []
        for rows in by_size.values():
            # A few proteins are not filled up to a whole batch.
            count = self._together(records[rows[0]])
            count = 1 if len(rows) < count // 4 else count
            out += [rows[i : i + count] for i in range(0, len(rows), count)]
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

"""Representations of proteins by MASSA with its weights."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxprot.core.buckets import bucket_length
from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.massa import featurize, weights
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import Embedder, PhysicoChemical, joined, windows
from jaxprot.massa.featurize import Features, Record
from jaxprot.massa.heads import pool
from jaxprot.massa.model import MASSA
from jaxprot.nn.runner import Runner

_log = logging.getLogger(__name__)
Long = Literal["refuse", "crop", "window"]
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


def _whole(parts: list[Representation], begin: list[int], borders: list[int]) -> Representation:
    """A protein from its windows."""
    if len(parts) == 1:
        return parts[0]
    residues = joined([part.residues for part in parts], begin, borders)
    x = residues.astype(np.float64)
    lengths = np.sqrt(np.square(x).sum(-1))  # the weights of `heads.shares`
    weights = np.exp(lengths - lengths.max())
    return Representation(parts[0].name, (weights @ x / weights.sum()).astype(np.float32), residues)


class MASSAEmbedder:
    """An embedder (see `massa.embedders`): residues as MASSA sees them from the sequence alone.

    Args:
      predictor: the network; the default weights are `load(registry.resolve("massa", "massa")[0])`.
      inputs: the embedder that its weights read.
    """

    name = "massa"
    max_len = None

    def __init__(self, predictor: Predictor, inputs: Embedder | None = None):
        self.predictor, self.inputs = predictor, inputs or PhysicoChemical()
        self.dim = predictor.config.width
        if self.inputs.dim != predictor.config.seq_dim:
            raise InputError(
                f"{self.inputs.name} gives {self.inputs.dim} channels, the weights read {predictor.config.seq_dim}"
            )

    def embed(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """(L, dim) float32 of each sequence; long ones in windows."""
        rows = self.inputs.embed(sequences)
        records = [
            Record(f"sequence {i + 1}", s.upper(), x) for i, (s, x) in enumerate(zip(sequences, rows, strict=True))
        ]
        return [found.residues for found in self.predictor.embed(records, long="window")]


def _apply(module: MASSA, features: Features) -> Any:
    residues = module(features).protein
    return pool(residues, features.mask), residues


class Predictor:
    """MASSA with its weights.

    Args:
      module: the network without heads.
      untrained: inputs that the weights never learned from, `structure` or `go`; records are read without them, as
        random layers would move proteins that have them away from those that have not.
    """

    def __init__(self, module: MASSA, untrained: Sequence[str] = ()):
        self.module, self.config, self.untrained = module, module.cfg, tuple(untrained)
        self.runner = Runner(module)

    def pure(self) -> tuple[Callable, list[Any]]:
        """(apply, leaves) of plain JAX: apply(leaves, features) -> vectors (b, c) and residues (b, n, c).

        Features have an axis of proteins in front.
        """
        return self.runner.pure(_apply)

    def embed(self, records: Sequence[Record], long: Long = "refuse") -> list[Representation]:
        """Vectors of proteins, which do not depend on their company.

        Proteins of one padded size are computed together, unless padding counts (`pad_mode="official"`).

        Args:
          records: proteins.
          long: what becomes of sequences with more residues than the network has positions: `refuse`, `crop` (their
            first residues stand for them) or `window` (each residue is seen in one of several windows that overlap by
            a quarter, and the vector is pooled over all of them; GO terms go with each window).

        Raises:
          InputError: a record that does not fit the network.
        """
        records = self._known(records)
        most = self.config.max_length
        if long == "window" and any(len(record.sequence) > most for record in records):
            plans = [windows(len(record.sequence), most, most // 4) for record in records]
            pieces = [
                featurize.crop(record, most, a)
                for record, (begin, _) in zip(records, plans, strict=True)
                for a in begin
            ]
            found = iter(self.embed(pieces))
            return [_whole([next(found) for _ in begin], begin, borders) for begin, borders in plans]
        crop: Literal["refuse", "crop"] = "crop" if long == "crop" else "refuse"
        out: list[Any] = [None] * len(records)
        for rows in self._groups(records):
            chosen = [records[row] for row in rows]
            # Filled up with copies, so that every batch of a size is of one program.
            filled = chosen if len(rows) == 1 else [chosen[i % len(chosen)] for i in range(self._together(chosen[0]))]
            features, _ = featurize.batch(filled, self.config, long=crop)
            if chosen[0].coords is None:
                none = {name: getattr(features, name)[:, :, :0] for name in ("edge_s", "edge_v", "index", "present")}
                features = features._replace(**none)
            vectors, residues = self.runner(_apply, features)
            for place, row in enumerate(rows):
                n = int(features.mask[place].sum())
                of = Representation(records[row].name, np.asarray(vectors[place]), np.asarray(residues[place, :n]))
                out[row] = of
        return out

    def _known(self, records: Sequence[Record]) -> Sequence[Record]:
        """Without the inputs that the weights never learned from."""
        empty = {field: None for part, field in (("structure", "coords"), ("go", "go")) if part in self.untrained}
        dropped = [name for name in empty if any(getattr(record, name) is not None for record in records)]
        if not dropped:
            return records
        _log.warning("these weights never learned from %s: left out", " and ".join(self.untrained))
        return [dataclasses.replace(record, **empty) for record in records]

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
        return Predictor(weights.assemble_backbone(found.config, found.tensors), found.untrained)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error

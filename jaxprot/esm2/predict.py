"""Embeddings, letters and contacts of sequences by ESM-2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.esm2 import tokens, weights
from jaxprot.esm2.model import ESM2
from jaxprot.nn.runner import Runner


def _last(net: ESM2, ids: Any) -> Any:
    return net(ids).last


def _kept(net: ESM2, ids: Any, layer: Any) -> Any:
    return net(ids, layer).kept


def _logits(net: ESM2, ids: Any) -> Any:
    return net.logits(net(ids).last)


def _contacts(net: ESM2, ids: Any) -> Any:
    return jax.nn.sigmoid(net.contact_logits(ids, net(ids).attention))


class Predictor:
    """ESM-2 with its weights; an embedder.

    Args:
      module: the network.
      name: for tables.
      max_len: residues of a sequence at most; the published models were trained on 1022, and memory grows with the
        square.
    """

    def __init__(self, module: ESM2, name: str = "esm2", max_len: int = 4096):
        self.module, self.config, self.name, self.max_len = module, module.cfg, name, max_len
        self.runner = Runner(module)

    @property
    def dim(self) -> int:
        """Channels of an embedding."""
        return self.config.width

    def pure(self) -> tuple[Callable, list[Any]]:
        """(apply, leaves) of plain JAX: apply(leaves, tokens) -> (n, width) last states of one padded sequence."""
        return self.runner.pure(_last)

    def embed(self, sequences: Iterable[str], layer: int | None = None) -> list[np.ndarray]:
        """States of the residues.

        Args:
          sequences: letters, see `tokens.encode`.
          layer: block after which they are taken: 0 for the input, negative from the end; the last, normalised, if not
            given.

        Returns:
          For each sequence (length, width) float32.

        Raises:
          InputError: an empty or too long sequence, other characters, or no such layer.
        """
        layers = self.config.layers
        if layer is not None and not -layers - 1 <= layer <= layers:
            raise InputError(f"layer {layer}: the network has {layers}")
        if layer is None:
            return [states[1:-1] for states in self._run(_last, sequences)]
        number = np.int32(layer if layer >= 0 else layers + 1 + layer)
        return [states[1:-1] for states in self._run(_kept, sequences, number)]

    def logits(self, sequences: Iterable[str]) -> list[np.ndarray]:
        """Scores of the 33 tokens for each residue, (length, 33) for each sequence; errors as `embed`.

        Raises:
          InputError: also for weights without the head of the language model.
        """
        if not self.config.lm_head:
            raise InputError("these weights of ESM-2 have no head of the language model; take the file for masked LM")
        return [scores[1:-1] for scores in self._run(_logits, sequences)]

    def contacts(self, sequences: Iterable[str]) -> list[np.ndarray]:
        """Chance that two residues touch (CB closer than 8 Å), (length, length) for each sequence; errors as `embed`.

        Raises:
          InputError: also for weights without contact head.
        """
        if not self.config.contacts:
            raise InputError(
                "these weights of ESM-2 have no contact head; put NAME-contact-regression.pt beside NAME.pt, or give "
                "contact_file="
            )
        return [chance[1:-1, 1:-1] for chance in self._run(_contacts, sequences)]

    def _run(self, function: Callable, sequences: Iterable[str], *more: Any) -> list[np.ndarray]:
        if isinstance(sequences, str):
            raise InputError("give a list of sequences, not one string")
        ids = [tokens.encode(sequence, f"sequence {row}") for row, sequence in enumerate(sequences)]
        self._check(ids)
        # Longest first, so that memory that does not suffice shows at once.
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        padded = [tokens.pad(ids[row]) for row in order]
        out: list[Any] = [None] * len(ids)
        for place, found in self.runner.map(function, [(len(one), (one, *more)) for one in padded]):
            row = order[place]
            kept = np.asarray(found)[: len(ids[row])]
            out[row] = kept[:, : len(ids[row])] if function is _contacts else kept
        return out

    def _check(self, ids: Sequence[np.ndarray]) -> None:
        long = [row for row, one in enumerate(ids) if len(one) - 2 > self.max_len]
        if long:
            length = len(ids[long[0]]) - 2
            raise InputError(
                f"sequence {long[0]} has {length} residues, at most {self.max_len} are taken: cut it into domains, or "
                "raise max_len"
            )


def load(path: str | os.PathLike, *, max_len: int = 4096, **options: Any) -> Predictor:
    """The predictor of a file of weights.

    Args:
      path: Facebook's `.pt`, safetensors of Hugging Face, or a portable file.
      max_len: see `Predictor`.
      **options: `contact_file` and `heads`, see `weights.read`.

    Raises:
      InputError: no such file.
      CheckpointError: damaged, refused, or of another model.
    """
    cfg, tensors = weights.read(path, **options)
    try:
        return Predictor(weights.assemble(cfg, tensors), os.path.basename(path).rpartition(".")[0], max_len)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error

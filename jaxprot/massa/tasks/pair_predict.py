"""Predictions of networks that were trained on pairs."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxprot.core.errors import InputError
from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.embedders import check_letters
from jaxprot.massa.ligand import Ligand
from jaxprot.massa.tasks import pair_tables, saved
from jaxprot.massa.tasks.pair_batches import run
from jaxprot.massa.tasks.pair_network import NETWORK, PairNetwork, readable
from jaxprot.weights import module


class PairPredictor:
    """A network of pairs with its weights and what its outputs mean.

    Args:
      net: the network.
      task: of the weights' header: name, kind, partner, classes, class_names, scale and longest.

    Attributes:
      kind: of the task.
      partner: `smiles` or `sequence2`.
      class_names: texts of the classes; empty where classes are numbers.
    """

    def __init__(self, net: PairNetwork, task: dict[str, Any]):
        self.module, self.task = net, task
        self.kind, self.partner, self.class_names = task["kind"], task["partner"], tuple(task["class_names"])
        graphdef, leaves = nnx.split(net)
        compiled = jax.jit(lambda leaves, *pair: nnx.merge(graphdef, leaves)(*pair))
        self.apply = functools.partial(compiled, leaves)

    def predict(self, sequences: Sequence[str], partners: Sequence[str]) -> np.ndarray:
        """Of each pair a number, or (classes,) probabilities; sequences are cut as in training.

        Args:
          sequences: of proteins.
          partners: SMILES strings, or sequences of second proteins.

        Raises:
          InputError: letters that stand for no residue, strings that are no molecules (with the row, from 1), lists of
            different lengths, or no pairs.
        """
        if not len(sequences) or len(sequences) != len(partners):
            raise InputError(f"{len(sequences)} proteins and {len(partners)} partners; give as many of both")
        texts = [check_letters(text, f"pair {i}") for i, text in enumerate(sequences, 1)]
        ligands: dict[str, Ligand] = {}
        if self.partner == "smiles":
            for i, text in enumerate(partners, 1):
                ligands[text] = ligands[text] if text in ligands else pair_tables.molecule(text, f"pair {i}")
        else:
            partners = [check_letters(text, f"pair {i}, sequence2") for i, text in enumerate(partners, 1)]
        found = run(self.apply, texts, partners, ligands, longest=self.task["longest"])
        return readable(found, self.kind, self.task["scale"])


def load(path: str | os.PathLike) -> PairPredictor:
    """The predictor of a run of fine-tuning on pairs, or of its exported weights.

    Args:
      path: `best.safetensors`, or the folder that holds it.

    Raises:
      InputError: no such file.
      CheckpointError: weights of something else.
    """

    def build(header: dict[str, Any]) -> module.Blueprint:
        cfg, task = MASSAConfig(**header["config"]), header["task"]
        return module.Blueprint(lambda rngs: PairNetwork(cfg, task["partner"], task["classes"], rngs=rngs))

    return PairPredictor(*saved.assemble(path, (NETWORK,), build, "pairs", "from tables of pairs"))

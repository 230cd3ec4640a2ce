"""Labels of residues for the two models of membrane proteins (Dauparas et al., 2023, doi 10.1101/2023.12.22.573103)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.proteinmpnn.featurize import LABELS, MEMBRANE, SOLUBLE, BackboneChain

GLOBAL_WEIGHTS, RESIDUE_WEIGHTS = "proteinmpnn:membrane_global_v_48_020", "proteinmpnn:membrane_residue_v_48_020"
_WHOLE = "--membrane yes or no (membrane=True or False)"
_EACH = "--membrane-buried and --membrane-interface (membrane_buried=, membrane_interface=)"


def residue_labels(
    chains: Sequence[BackboneChain],
    buried: Mapping[str, Iterable[int]],
    interface: Mapping[str, Iterable[int]],
    name: str = "structure",
) -> np.ndarray:
    """Labels of all residues, (L,) int32 indices into `LABELS`.

    Args:
      chains: in the order of the tensors; L is their total length.
      buried: chain -> 1-based gap-filled positions of residues that touch the lipid; they become hydrophobic.
      interface: the same of residues at the height of the lipid heads.
      name: of the structure, for messages.

    Raises:
      InputError: a residue is in both.
    """
    labels: dict[str, np.ndarray] = {chain.id: np.zeros(len(chain), np.int32) for chain in chains}
    numbers = {chain.id: chain for chain in chains}
    for given, label in ((interface, "interface"), (buried, "buried")):
        for chain, positions in given.items():
            rows = np.array(sorted(positions), int) - 1
            twice = rows[labels[chain][rows] > 0]
            if len(twice):
                at = numbers[chain]
                raise InputError(
                    f"{name}: residue {chain}:{at.resid[twice[0]]}{at.icode[twice[0]]} is named as buried and as "
                    "interface; name it once"
                )
            labels[chain][rows] = LABELS.index(label)
    return np.concatenate(list(labels.values()))


def labels_for(
    node_labels: int, length: int, whole: bool | None, each: np.ndarray | None, source: str = "these weights"
) -> np.ndarray | None:
    """Labels as a network reads them, (L,) int32; None for a network that reads none.

    Args:
      node_labels: of the network, see `ProteinMPNNConfig`.
      length: L.
      whole: whether the protein lies in a membrane; None if not told.
      each: labels of the residues; None if not told.
      source: the weights, for messages.

    Raises:
      InputError: labels are missing, or are not those that the network reads.
    """
    if whole is not None and each is not None:
        raise InputError(f"give {_WHOLE}, or {_EACH}, not both")
    if node_labels == 0:
        if whole is None and each is None:
            return None
        raise InputError(
            f"{source}: reads no membrane labels, so they would change nothing; leave them out, or take the weights "
            f"{GLOBAL_WEIGHTS} (with --membrane) or {RESIDUE_WEIGHTS} (with --membrane-buried, --membrane-interface)"
        )
    if node_labels == 2:
        if whole is None:
            told = "" if each is None else f"; labels of single residues are for the weights {RESIDUE_WEIGHTS}"
            raise InputError(f"{source}: reads whether the protein lies in a membrane; give {_WHOLE}{told}")
        return np.full(length, MEMBRANE if whole else SOLUBLE, np.int32)
    if each is None and whole is not False:
        told = "" if whole is None else f"; one label for the whole protein is for the weights {GLOBAL_WEIGHTS}"
        raise InputError(
            f"{source}: reads which residues lie in the membrane; give {_EACH}, or --membrane no (membrane=False) if "
            f"none does{told}"
        )
    return np.zeros(length, np.int32) if each is None else each

"""From weights to potentials of molecules, and what is written of their energies."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.ai2bmd.potential import Evaluation, Potential, PotentialConfig
from jaxprot.core.errors import InputError, naming
from jaxprot.core.structure import Structure
from jaxprot.io.outputs import atomic_path, write_json
from jaxprot.io.structures import read_structure
from jaxprot.visnet import weights
from jaxprot.visnet.model import ViSNet
from jaxprot.weights import registry


class Predictor:
    """A trained network, from which potentials are made.

    Args:
      network: the network.
      source: where its weights come from.
    """

    def __init__(self, network: ViSNet, source: str = ""):
        self.network, self.source = network, source

    def potential(self, structure: Structure | str | os.PathLike, **options: Any) -> Potential:
        """The potential of a molecule.

        Args:
          structure: it, or its file (the first model is taken).
          **options: fields of `PotentialConfig`.

        Raises:
          InputError: see `Potential`; or an option that is none.
        """
        try:
            cfg = PotentialConfig(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"potential: {error}") from error
        read = structure if isinstance(structure, Structure) else read_structure(structure)
        with naming(structure, read.name):
            return Potential(self.network, read.first_model(), cfg)

    def energy(self, structure: Structure | str | os.PathLike, **options: Any) -> Evaluation:
        """Energies and forces of a molecule as it stands; arguments as in `potential`."""
        return self.potential(structure, **options).evaluate()


def load(path: str | os.PathLike, **config: Any) -> Predictor:
    """A predictor with the weights of a file.

    Args:
      path: of this library, an official `.ckpt`, a state dict of PyG's ViSNet, or a registered name.
      **config: fields of `ViSNetConfig` in place of the file's.

    Raises:
      InputError: no such file or name.
      CheckpointError: not such weights.
    """
    found, _ = registry.resolve(path)
    cfg, tensors = weights.read(found, **config)
    return Predictor(weights.assemble(cfg, tensors), os.fspath(path))


def write(found: Evaluation, potential: Potential, folder: str | os.PathLike) -> list[str]:
    """Writes `energy.json` and `forces.npz`; their names.

    The first has `total_ev` and the terms in eV, the options, and the number of atoms and units; the second (N, 3)
    arrays in eV/Å in the order of the input's atoms.
    """
    folder = Path(folder)
    made = potential.fragmentation
    write_json(
        folder / "energy.json",
        {
            "total_ev": found.energy,
            **{f"{name}_ev": value for name, value in found.energies.items()},
            "atoms": len(potential.z),
            "units": 1 if made is None else made.n_units,
            "charge": None if made is None else made.total_charge,
            "largest_force_ev_angstrom": float(np.linalg.norm(found.total_forces, axis=-1).max()),
            "options": dataclasses.asdict(potential.cfg),
        },
    )
    with atomic_path(folder / "forces.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, total=found.total_forces, **found.forces)  # type: ignore[arg-type]
    return ["energy.json", "forces.npz"]

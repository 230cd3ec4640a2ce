"""Energies and forces of molecules by ViSNet with its weights."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.nn.runner import Runner
from jaxprot.visnet import featurize, neighbours, weights
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet, energy_and_forces
from jaxprot.visnet.neighbours import Molecules

_log = logging.getLogger(__name__)
_SLOTS = 8  # tables of neighbours are multiples of it wide


@dataclasses.dataclass(frozen=True)
class Energies:
    """Energies and forces of molecules.

    Attributes:
      energy: eV, float64; atoms' own energies included. A number for a single molecule, else (m,).
      interaction: the same without atoms' own energies and the mean, as the network gives it.
      forces: eV/Å, (n, 3) for a single molecule, else a list of such.
    """

    energy: Any
    interaction: Any
    forces: Any


def _apply(module: ViSNet, molecules: Molecules) -> Any:
    return module(molecules)


def _both(module: ViSNet, molecules: Molecules) -> Any:
    return energy_and_forces(_apply, module, molecules)


def references(net: ViSNet | Predictor, z: np.ndarray) -> np.ndarray:
    """What molecules have besides the interactions of their atoms: energies of free atoms, and the mean of training.

    Args:
      net: the network or its predictor.
      z: (..., n) atomic numbers, 0 where there is no atom.

    Returns:
      (...) eV in float64; float32 has no digits to spare for it.
    """
    net = net.module if isinstance(net, Predictor) else net
    z = np.asarray(z)
    mean = float(np.asarray(net.mean[...], np.float64)[0])
    if not net.cfg.prior:
        return np.full(z.shape[:-1], mean)
    table = np.asarray(net.atomref[...], np.float64)
    return np.where(z > 0, table[z], 0).sum(-1) + mean


class Predictor:
    """ViSNet with its weights.

    Args:
      module: the network.
      sizes: padded numbers of atoms, ascending; each that occurs is a program to compile.
    """

    def __init__(self, module: ViSNet, sizes: Sequence[int] = featurize.SIZES):
        self.module, self.sizes = module, tuple(sizes)
        self.config = module.cfg
        self.runner = Runner(module)

    def pure(self) -> tuple[Callable, list[Any]]:
        """(energy, leaves) of plain JAX: energy(leaves, molecules) -> (b,) eV of interaction, see `references`.

        `visnet.energy_and_forces(energy, leaves, molecules)` adds the forces.
        """
        return self.runner.pure(_apply)

    def energy_and_forces(self, z: Any, positions: Any) -> Energies:
        """Energies and forces of one molecule or several.

        Molecules of one padded size are computed together. Above `featurize.DENSE` atoms each is computed by itself,
        with a table of neighbours.

        Args:
          z: atomic numbers (n,), or a list of such.
          positions: Å, (n, 3), or a list of such.

        Raises:
          InputError: an atomic number that the weights do not know, coordinates that are missing or coincide, or arrays
            that do not belong together.
        """
        single = not isinstance(z, (list, tuple)) or len(z) == 0 or np.ndim(z[0]) == 0
        numbers = [np.asarray(one) for one in ([z] if single else z)]
        places = [np.asarray(one, np.float64) for one in ([positions] if single else positions)]
        if len(numbers) != len(places):
            raise InputError(f"{len(numbers)} molecules have atomic numbers and {len(places)} have positions")
        for row, (one, place) in enumerate(zip(numbers, places, strict=True)):
            featurize.check(one, place, self.config.max_z, "molecule" if single else f"molecule {row}")
        self._tell_cap(places)
        interaction = np.zeros(len(numbers))
        forces: list[np.ndarray] = [np.zeros((0, 3), np.float32)] * len(numbers)
        for size, rows in featurize.group([len(one) for one in numbers], self.sizes).items():
            if size > featurize.DENSE:
                batches = [[row] for row in rows]
            else:
                batches = [rows]
            for batch in batches:
                molecules = featurize.pad([(numbers[row], _centred(places[row])) for row in batch], size)
                if size > featurize.DENSE:
                    molecules = self._with_table(molecules, places[batch[0]])
                found, pulls = self.runner(_both, molecules)
                for place, row in enumerate(batch):
                    interaction[row] = found[place]
                    forces[row] = np.asarray(pulls[place][: len(numbers[row])])
        energy = interaction + np.array([references(self, one) for one in numbers])
        if single:
            return Energies(float(energy[0]), float(interaction[0]), forces[0])
        return Energies(energy, interaction, forces)

    def _with_table(self, molecules: Molecules, positions: np.ndarray) -> Molecules:
        # float32 may find a pair on the other side of the cutoff than float64: one slot more.
        most = int(featurize.degrees(positions, self.config.cutoff + 1e-3).max())
        slots = -(-most // _SLOTS) * _SLOTS
        index = self.runner(_TABLES.setdefault(slots, _table(slots)), molecules)
        return molecules._replace(index=index)

    def _tell_cap(self, places: Sequence[np.ndarray]) -> None:
        cap = self.config.max_neighbors
        if cap is None:
            return
        over = [int((featurize.degrees(p, self.config.cutoff) > cap).sum()) if len(p) > cap else 0 for p in places]
        if any(over):
            _log.warning(
                "%d atoms in %d molecules have more than %d neighbours; those of lowest number are kept, as published, "
                "and energies jump when that changes",
                sum(over),
                sum(map(bool, over)),
                cap,
            )


def _centred(positions: np.ndarray) -> np.ndarray:
    """Far from the origin float32 has few digits left for distances."""
    return positions - positions.mean(0)


def _table(slots: int) -> Callable:
    def table(module: ViSNet, molecules: Molecules) -> Any:
        return neighbours.table(molecules.z, molecules.positions, module.cfg.cutoff, slots)

    return table


_TABLES: dict[int, Callable] = {}  # the same function object for each width: it is the key of the compiled program


def load(path: str | os.PathLike, **config: Any) -> Predictor:
    """Weights of this library, an official `.ckpt`, or a state dict of PyG's ViSNet, as a predictor.

    Args:
      path: the file.
      **config: fields of `ViSNetConfig` in place of the file's: `smooth`, `max_neighbors`, and for state dicts whatever
        differs from PyG's defaults (see `weights.read`).

    Raises:
      InputError: no such file, or no such field.
      CheckpointError: not such weights, or damaged.
    """
    known = {field.name for field in dataclasses.fields(ViSNetConfig)}
    wrong = sorted(config.keys() - known)
    if wrong:
        raise InputError(f"no option {', '.join(wrong)} of ViSNet; there are {', '.join(sorted(known))}")
    cfg, tensors = weights.read(path, **config)
    try:
        return Predictor(weights.assemble(cfg, tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error

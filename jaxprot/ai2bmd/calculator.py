"""The potential as a calculator of ASE, for its optimisers, dynamics and viewers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jaxprot.ai2bmd.potential import Potential
from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure

try:
    from ase.calculators.calculator import Calculator as _Base
    from ase.calculators.calculator import all_changes
except ImportError as error:  # pragma: no cover - without the package
    raise InputError("ASE is not installed; `pip install ase` brings it") from error


class Calculator(_Base):
    """Energies in eV and forces in eV/Å of one molecule.

    Args:
      structure: the molecule, or its PDB or mmCIF file; atoms of the `Atoms` object have its order.
      weights: a name or file, see `jaxprot.load`.
      **options: fields of `PotentialConfig`.

    Example: `atoms = ase.io.read("protein.pdb"); atoms.calc = Calculator("protein.pdb", solvent="gb")`.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - ASE's own interface

    def __init__(self, structure: Structure | str | os.PathLike, weights: str | os.PathLike = "ai2bmd", **options: Any):
        from jaxprot.ai2bmd import predict

        super().__init__()
        self.potential: Potential = predict.load(weights).potential(structure, **options)

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """See ASE.

        Raises:
          InputError: atoms of other elements, or in another order, than the molecule's; a periodic cell.
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        numbers = np.asarray(self.atoms.numbers)
        if len(numbers) != len(self.potential.z) or (numbers != self.potential.z).any():
            known = residues.ELEMENTS
            differing = [i for i, (a, b) in enumerate(zip(numbers, self.potential.z, strict=False)) if a != b]
            where = (
                f"atom {differing[0]} is {known[numbers[differing[0]]]}, not {known[self.potential.z[differing[0]]]}"
                if differing
                else f"{len(numbers)} atoms, not {len(self.potential.z)}"
            )
            raise InputError(f"{self.potential.structure.name}: {where}; atoms must stand in the structure's order")
        if np.any(self.atoms.pbc):
            raise InputError(f"{self.potential.structure.name}: a periodic cell; the potential has none (pbc=False)")
        found = self.potential.evaluate(self.atoms.positions)
        self.results = {"energy": found.energy, "free_energy": found.energy, "forces": found.total_forces}

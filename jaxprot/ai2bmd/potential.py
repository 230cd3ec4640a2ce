"""Energies and forces of proteins: a network on overlapping units, a force field between them, and a solvent.

AI2BMD: T. Wang et al., Nature 635:1019 (2024), doi 10.1038/s41586-024-08127-z. Any molecule can also go through the
network as a whole (`mode="whole"`), as in the ViSNet paper (Y. Wang et al. 2024, doi 10.1038/s41467-023-43720-2).

Positions may be float64; the network is float32. Units are moved to their first atom before they are rounded, so that
a place far from the origin costs no digits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxprot.ai2bmd import caps as capping
from jaxprot.ai2bmd import cautions, devices, nonbonded, solvent
from jaxprot.ai2bmd.caps import Caps, Relax
from jaxprot.ai2bmd.fragment import Fragmentation, fragment
from jaxprot.ai2bmd.topology import check_positions
from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.md import molecule
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet, energy_and_forces
from jaxprot.visnet.neighbours import Molecules, degrees, table

Mode = Literal["fragment", "whole"]
SolventModel = Literal["none", "gb"]
Constraints = Literal["hydrogens", "none"]

PAIRS = 1 << 17
"""Pairs of atoms that go through the network at once on a GPU; bounds the memory, whatever the size of the protein."""

SIZES = (12, 20, 28, 36, 44)
"""Padded atoms of units: ACE-NMEs have 12, dipeptides 19 to 36, those of a disulfide 44 or, with what is between near
cysteines, more: these are padded to a size of their own."""

_SPRING, _REACH = 15.0, 0.2  # eV/Å², and Å beyond the sum of covalent radii: the published restraint of hydrogens

_DENSE = 48  # atoms of a whole molecule up to which every pair is looked at
_SPARE = 1.3  # times the neighbours at the start: slots of the table of a whole molecule


@dataclasses.dataclass(frozen=True, kw_only=True)
class PotentialConfig:
    """What a potential is made of.

    Attributes:
      mode: `fragment` for capped proteins; `whole` sends all atoms through the network, and nothing else is added.
      caps: whether forces take into account that cap hydrogens move with the protein (`consistent`), or leave out the
        forces on them as published (`compat`; energy is then not conserved).
      relax: how caps are relaxed, see `caps.relax`; None becomes `published` with `compat`, and `none` with
        `consistent`, whose energy then is the same however the protein is turned.
      solvent: `gb`, generalised Born (OBC2) with the force field's charges, or `none` for vacuum.
      constraints: `hydrogens`: springs that hold each hydrogen to its atom, beyond the sum of their covalent radii and
        0.2 Å only, as published. Nothing else between fragments keeps a hydroxyl's hydrogen from a carboxylate next to
        it, as the force field gives it no size. `none`: no such springs. A whole molecule has none.
      sizes: numbers of atoms that units are padded to, ascending; each that occurs is a program to compile.
      pairs: pairs of atoms that go through the network at once; None for what suits the processor.
      devices: so many of jax's devices share units and pairs of atoms, the first ones. A processor's cores are one
        device unless `jax.config.update("jax_num_cpu_devices", cores)` came before anything was computed.
    """

    mode: Mode = "fragment"
    caps: Caps = "consistent"
    relax: Relax | None = None
    solvent: SolventModel = "none"
    constraints: Constraints = "hydrogens"
    sizes: tuple[int, ...] = SIZES
    pairs: int | None = None
    devices: int = 1

    def __post_init__(self):
        if self.relax is None:
            object.__setattr__(self, "relax", capping.usual(self.caps))
        choices = {
            "mode": ("fragment", "whole"),
            "caps": ("consistent", "compat"),
            "relax": ("published", "none", "minimise"),
            "solvent": ("none", "gb"),
            "constraints": ("hydrogens", "none"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.pairs is not None and self.pairs < 1:
            raise ValueError(f"pairs must be at least 1, got {self.pairs}")
        if self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")
        if self.mode == "whole" and self.solvent != "none":
            raise ValueError("a solvent needs mode='fragment', whose force field has the charges")


class Leaves(NamedTuple):
    """Arrays that a potential's functions take as an argument."""

    network: Any
    tables: Any
    nonbonded: Any
    solvent: Any
    springs: Any


class Springs(NamedTuple):
    """Bonds of hydrogens.

    Attributes:
      pairs: (b, 2) rows of the atoms.
      reach: (b,) Å from which on a spring acts.
    """

    pairs: np.ndarray
    reach: np.ndarray


class Potential:
    """The potential of one molecule.

    Args:
      network: the trained network.
      structure: a protein with all hydrogens, capped by ACE and NME (`jaxprot ai2bmd prepare` makes one); for
        `mode="whole"` any molecule.
      cfg: what it is made of.
      known: names of the units that the weights learnt from; others are warned of. None if nobody tells.

    Attributes:
      z: (N,) atomic numbers.
      fragmentation: None for a whole molecule.
      leaves: weights and tables, the argument of `energy`, `terms` and `field`.
      references: eV of free elements, by name of the term they belong to; no force has them.

    Raises:
      InputError: the structure cannot be fragmented (says where and what to do), or has elements that the network does
        not know.
    """

    def __init__(
        self,
        network: ViSNet,
        structure: Structure,
        cfg: PotentialConfig | None = None,
        known: Collection[str] | None = None,
    ):
        self.cfg = cfg or PotentialConfig()
        self.structure = structure
        self._narrow: Any = jnp.float32  # what the network and the solvent are computed in
        self.fragmentation: Fragmentation | None = None
        graphdef, network_leaves = nnx.split(network)
        self.network: ViSNetConfig = network.cfg

        def apply(leaves: Any, molecules: Molecules) -> Array:
            return nnx.merge(graphdef, leaves)(molecules)

        self._apply = apply
        if self.cfg.mode == "fragment":
            made = self.fragmentation = fragment(structure)
            self.z = made.z
            largest = int(np.diff(made.unit_start).max())
            sizes = self.cfg.sizes if largest <= max(self.cfg.sizes) else (*self.cfg.sizes, -(-largest // 4) * 4)
            tables: Any = capping.tables(made, sizes=sizes)
            between: Any = nonbonded.parameters(made)
            around: Any = solvent.parameters(made) if self.cfg.solvent == "gb" else None
            signed, units = (made.row_z, made.row_sign), int(made.unit_sign.sum())
        else:
            self.z = residues.atomic_numbers(structure.element)
            unknown = np.flatnonzero(self.z == 0)
            if len(unknown) or not len(self.z):
                what = f"atom {int(structure.serial[unknown[0]])} has no known element" if len(unknown) else "no atoms"
                raise InputError(f"{structure.name}: {what}")
            check_positions(structure)
            tables, between, around = self._slots(structure.xyz), None, None
            signed, units = (self.z, np.ones(len(self.z))), 1
        if int(self.z.max()) >= network.cfg.max_z:
            raise InputError(f"{structure.name}: element {int(self.z.max())}; the network knows those below "
                             f"{network.cfg.max_z}")  # fmt: skip
        if unseen := _unseen(network, self.z):
            raise InputError(
                f"{structure.name}: no molecule with {', '.join(unseen)} was among those that these weights learnt from"
            )
        self.references = {"bonded": _references(network, *signed, units)}
        springs = self.cfg.constraints == "hydrogens" and self.cfg.mode == "fragment"
        held = _springs(self.z, self.bonds) if springs else None
        self.leaves = Leaves(network_leaves, tables, between, around, held)
        self._warn(known)

    def _warn(self, known: Collection[str] | None) -> None:
        made, xyz = self.fragmentation, self.structure.xyz
        cap = self.network.max_neighbors
        if made is not None:
            cautions.unseen_units(made, known)
        else:
            cautions.larger_than_units(self.structure.name, len(self.z), known)
        if cap is not None:
            through = [np.asarray(xyz, np.float64)] if made is None else cautions.capped_positions(made, xyz)
            cautions.crowded(self.structure.name, through, self.network.cutoff, cap)

    @functools.cached_property
    def bonds(self) -> np.ndarray:
        """(b, 2) atoms of each bond: of a protein by its residues, of a whole molecule by distances."""
        if self.fragmentation is not None:
            return self.fragmentation.covalent
        return molecule.bonds(self.z, np.asarray(self.structure.xyz, np.float64))

    def _most(self, xyz: np.ndarray) -> int:
        """Most neighbours of an atom of a whole molecule at (N, 3) Å, itself counted."""
        near = np.asarray(xyz - np.mean(xyz, 0), np.float32)
        return int(np.max(degrees(jnp.asarray(self.z)[None], jnp.asarray(near)[None], self.network.cutoff)))

    def overflow(self, xyz: np.ndarray) -> str | None:
        """What to say if an atom has more neighbours at (N, 3) Å than the table of a whole molecule holds, else None.

        Energies and forces are NaN there; `evaluate` makes a larger table.
        """
        if self.cfg.mode != "whole" or self.leaves.tables is None:
            return None
        most, slots = self._most(xyz), len(self.leaves.tables)
        if most <= slots:
            return None
        return (
            f"the table of neighbours overflowed: an atom has {most} within {self.network.cutoff:g} Å, the table, made "
            f"for the structure that was given, holds {slots}; begin with a structure as compact as this became"
        )

    def _slots(self, xyz: np.ndarray) -> Any:
        """Slots of the table of neighbours of a whole molecule; None where all pairs are looked at."""
        if len(self.z) <= _DENSE:
            return None
        slots = min(len(self.z), -(-int(_SPARE * self._most(xyz)) // 8) * 8)
        return np.zeros(slots, np.int8)  # an array of as many places, so that the number is static where it is used

    def pure(self) -> tuple[Callable[[Leaves, Float[Array, "n 3"]], Float[Array, ""]], Leaves]:
        """(energy, leaves) of plain JAX: energy(leaves, positions in Å) in eV without the elements' references.

        With `caps="compat"` its gradient is the published force, which is not that of the energy.
        """
        return self.energy, self.leaves

    def energy_fn(self) -> Callable[..., Float[Array, ""]]:
        """The form of jax-md: a function of positions R (N, 3) in Å, other keywords unused, in eV without references.

        Positions move freely (`jax_md.space.free`); masses are `jaxprot.md.molecule.masses(potential.z)` in u, and a
        femtosecond is `jaxprot.core.units.FEMTOSECOND`. The weights become constants of whatever is compiled.
        """
        return lambda R, **_: self.energy(self.leaves, R)

    def energy(self, leaves: Leaves, xyz: Float[Array, "n 3"]) -> Float[Array, ""]:
        """Sum of the terms in eV, without references."""
        total: Any = 0.0
        for term in self._terms().values():
            total += term(leaves, xyz)
        return total

    def field(self, leaves: Leaves, xyz: Float[Array, "n 3"]) -> tuple[dict[str, Array], Float[Array, "n 3"]]:
        """Terms of the energy in eV by name (without references), and the forces in eV/Å; what `jaxprot.md` takes."""
        energies, forces = self.terms(leaves, xyz)
        return energies, functools.reduce(jnp.add, forces.values())

    def terms(self, leaves: Leaves, xyz: Float[Array, "n 3"]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Energies (eV) and forces (eV/Å) of each term: `bonded`, `nonbonded` and `solvent`, as far as there are."""
        energies, forces = {}, {}
        for name, term in self._terms().items():
            value, slope = jax.value_and_grad(term, 1)(leaves, xyz)
            energies[name], forces[name] = value, -slope
        return energies, forces

    def _terms(self) -> dict[str, Callable[[Leaves, Array], Array]]:
        out: dict[str, Callable[[Leaves, Array], Array]] = {"bonded": self._bonded}
        if self.cfg.mode == "fragment":
            out["nonbonded"] = lambda leaves, xyz: nonbonded.energy(xyz, leaves.nonbonded, devices=self._mesh)
        if self.cfg.solvent == "gb":
            # In float32, five times faster; its sums are float64 and it is smooth, so 1e-6 of it is all that is lost.
            out["solvent"] = lambda leaves, xyz: solvent.energy(self._rounded(xyz), leaves.solvent, devices=self._mesh)
        if self.leaves.springs is not None:
            out["constraints"] = lambda leaves, xyz: restraint(xyz, leaves.springs)
        return out

    def _bonded(self, leaves: Leaves, xyz: Array) -> Array:
        if self.cfg.mode == "whole":
            return self._whole(leaves, xyz)

        def energy(z: Array, positions: Array, mask: Array) -> Array:
            return self._units(leaves.network, jnp.asarray(z), positions)

        return capping.bonded_energy(xyz, leaves.tables, energy, caps=self.cfg.caps, relax=self.cfg.relax)

    def _units(self, network: Any, z: Array, positions: Array) -> Array:
        """Energies (units,) of padded units (units, a, 3), some at a time; derivatives are by positions alone."""

        def both(positions: Array) -> tuple[Array, Array]:
            near = (positions - positions[:, :1]).astype(self._narrow)

            def some(rows: tuple[Array, Array]) -> tuple[Array, Array]:
                return energy_and_forces(self._apply, network, Molecules(*rows), self._at_once(z.shape[1]))

            return devices.shared(some, (z, near), self._mesh)

        # One visit gives energies and forces; the rule hands the forces to whoever differentiates, so that nothing of
        # the network is stored. Weights are closed over: asking for a derivative by them is refused, not answered by 0.
        @jax.custom_jvp
        def energies(positions: Array) -> Array:
            return both(positions)[0]

        @energies.defjvp
        def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
            value, forces = both(*primals)
            change = -jnp.sum(forces.astype(tangents[0].dtype) * tangents[0], (1, 2))
            return value, change.astype(value.dtype)

        return energies(positions)

    @functools.cached_property
    def _mesh(self) -> Mesh | None:
        """The devices that share the units and the rows of atoms."""
        return devices.mesh(self.cfg.devices)

    def _at_once(self, atoms: int) -> int | None:
        """Units that go through the network at once; None leaves it to the network, which knows what fits a cache."""
        if self.cfg.pairs is None and jax.default_backend() == "cpu":
            return None
        return max(1, (self.cfg.pairs or PAIRS) // atoms**2)

    def _whole(self, leaves: Leaves, xyz: Array) -> Array:
        near = self._rounded(xyz)[None]
        z = jnp.asarray(self.z, jnp.int32)[None]
        if leaves.tables is None:
            return self._apply(leaves.network, Molecules(z, near))[0]
        slots, held = len(leaves.tables), jax.lax.stop_gradient(near)
        index = table(z, held, self.network.cutoff, slots)
        # A neighbour that found no slot would be lost without a word: energy and forces say so instead. Positions are
        # what is spoilt: of a `where` around the energy the branch that is not taken has forces of 0.
        full = jnp.max(degrees(z, held, self.network.cutoff)) > slots
        near = near * jnp.where(full, jnp.nan, 1.0).astype(near.dtype)
        return self._apply(leaves.network, Molecules(z, near, index))[0]

    def _rounded(self, xyz: Array) -> Array:
        """Positions about their middle, with the digits of the network."""
        return (xyz - jax.lax.stop_gradient(jnp.mean(xyz, 0, keepdims=True))).astype(self._narrow)

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(self.terms)

    def evaluate(self, xyz: np.ndarray | None = None) -> Evaluation:
        """Energies with references, and forces.

        Where a whole molecule has more neighbours than its table holds, the table is made anew: one compilation more.

        Args:
          xyz: (N, 3) Å; the structure's if None. Taken in float64.

        Raises:
          InputError: another number of atoms, or positions that are not finite.
        """
        at = np.asarray(self.structure.xyz if xyz is None else xyz, np.float64)
        if at.shape != (len(self.z), 3):
            raise InputError(f"{self.structure.name}: positions {at.shape}, expected ({len(self.z)}, 3)")
        if not np.isfinite(at).all():
            atom = int(np.argwhere(~np.isfinite(at))[0][0])
            raise InputError(f"{self.structure.name}: position of atom {atom + 1} is not finite")
        with jax.enable_x64(True):
            energies, forces = self._jitted(self.leaves, jnp.asarray(at))
            if not np.isfinite(energies["bonded"]) and self.overflow(at):
                self.leaves = self.leaves._replace(tables=self._slots(at))
                energies, forces = self._jitted(self.leaves, jnp.asarray(at))
            energies = {name: float(value) + self.references.get(name, 0.0) for name, value in energies.items()}
            return Evaluation(energies, {name: np.asarray(value) for name, value in forces.items()})


class Evaluation(NamedTuple):
    """Energies (eV, references included) and forces ((N, 3) eV/Å) by term."""

    energies: dict[str, float]
    forces: dict[str, np.ndarray]

    @property
    def energy(self) -> float:
        """Total in eV."""
        return float(sum(self.energies.values()))

    @property
    def total_forces(self) -> np.ndarray:
        """(N, 3) eV/Å."""
        return np.sum(list(self.forces.values()), axis=0)


def restraint(xyz: Float[Array, "n 3"], springs: Springs) -> Float[Array, ""]:
    """Energy in eV of the springs of hydrogens: ½ k (r - reach)² beyond the reach, with k = 15 eV/Å²."""
    pairs = jnp.asarray(springs.pairs)
    length = jnp.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=-1)
    return 0.5 * _SPRING * jnp.sum(jnp.maximum(length - springs.reach, 0) ** 2)


def _springs(z: np.ndarray, bonds: np.ndarray) -> Springs | None:
    """Of the bonds of hydrogens; None without any."""
    import gemmi

    pairs = bonds[(z[bonds] == 1).sum(1) == 1]
    if not len(pairs):
        return None
    # Radii as published: 0.31, 0.76, 0.71, 0.66 and 1.05 Å of H, C, N, O and S.
    radius = np.array([0.76 if number == 6 else gemmi.Element(int(number)).covalent_r for number in z])
    return Springs(pairs.astype(np.int32), radius[pairs].sum(1) + _REACH)


def _unseen(network: ViSNet, z: np.ndarray) -> list[str]:
    """Elements of the molecule that have no energy of their own in weights that have one for others."""
    import gemmi

    if not network.cfg.prior:
        return []
    table = np.asarray(network.atomref[...]).reshape(-1)
    return [gemmi.Element(int(number)).name for number in np.unique(z) if table.any() and table[number] == 0]


def _references(network: ViSNet, z: np.ndarray, sign: np.ndarray, molecules: int) -> float:
    """eV in float64: of free elements, and the mean once per molecule."""
    total = molecules * float(network.mean[0])
    if network.cfg.prior:
        table = np.asarray(network.atomref[...], np.float64)
        total += float((sign * table[z]).sum())
    return total

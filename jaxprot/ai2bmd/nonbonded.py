"""Coulomb and Lennard-Jones energy between atoms that no unit holds together (amber14, vacuum, no cutoff).

E = Σ 4 ε_ij ((σ_ij / r)¹² - (σ_ij / r)⁶) + k q_i q_j / r over pairs i < j, with σ_ij the mean of σ_i and σ_j, and ε_ij
the geometric mean. ff14SB: Maier et al., J. Chem. Theory Comput. 11:3696 (2015), doi 10.1021/acs.jctc.5b00255.

Pairs are visited in blocks of rows, so memory grows with the number of atoms and not with its square. Energy and
forces come out of one visit; the rule for derivatives below hands the forces to `jax.grad`. Derivatives are by
positions alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxprot.ai2bmd.devices import shared
from jaxprot.ai2bmd.fragment import Fragmentation
from jaxprot.core.units import COULOMB_EV, KCAL_MOL

BLOCK_PAIRS = 1 << 20
"""Pairs looked at in one go; a block holds whole rows. Some tens of MB, whatever the size of the protein."""


class Nonbonded(NamedTuple):
    """What atoms attract and repel each other by.

    Attributes:
      charge: elementary charges.
      sigma: Å.
      epsilon: eV.
      units: numbers of the dipeptides that hold each atom, -1 where fewer than three.
    """

    charge: Float[Array, "n"]
    sigma: Float[Array, "n"]
    epsilon: Float[Array, "n"]
    units: Int[Array, "n 3"]


def parameters(fragmentation: Fragmentation) -> Nonbonded:
    """The force field's parameters of a protein (numpy)."""
    return Nonbonded(
        charge=fragmentation.charge,
        sigma=fragmentation.sigma,
        epsilon=fragmentation.epsilon * KCAL_MOL,
        units=fragmentation.atom_units,
    )


class Blocks(NamedTuple):
    """How pairs are gone through: so many at once, on each of some devices."""

    pairs: int
    devices: Mesh | None


def energy(
    xyz: Float[Array, "n 3"],
    parameters: Nonbonded,
    *,
    block_pairs: int = BLOCK_PAIRS,
    devices: Mesh | None = None,
) -> Float[Array, ""]:
    """Energy in eV; sums in float64 where that is enabled.

    Args:
      xyz: positions in Å.
      parameters: of the same atoms.
      block_pairs: about how many pairs are looked at in one go.
      devices: that share the atoms (`ai2bmd.devices`), if there are several.
    """
    return _energy(Blocks(block_pairs, devices), xyz, parameters)


def energy_and_forces(
    xyz: Float[Array, "n 3"],
    parameters: Nonbonded,
    *,
    block_pairs: int = BLOCK_PAIRS,
    devices: Mesh | None = None,
) -> tuple[Float[Array, ""], Float[Array, "n 3"]]:
    """Energy in eV and forces in eV/Å. Args as in `energy`."""
    return _both(Blocks(block_pairs, devices), xyz, parameters)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy(blocks, xyz, parameters):
    return _both(blocks, xyz, parameters)[0]


def tangent(both: Callable[..., Any], blocks: Blocks, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Rule of `jax.custom_jvp` with symbolic zeros: forces from their formula, the rest, where asked for, by jax.

    Args:
      both: of (blocks, positions, parameters): energy and forces.
      blocks: handed on.
      primals: positions and parameters.
      tangents: theirs.
    """
    xyz, parameters = primals
    value, forces = both(blocks, xyz, parameters)
    change = jnp.zeros_like(value)
    if not isinstance(tangents[0], SymbolicZero):
        change = -(forces * tangents[0]).sum().astype(value.dtype)
    leaves, treedef = jax.tree.flatten(parameters)
    moves = treedef.flatten_up_to(tangents[1])
    rows = [row for row, move in enumerate(moves) if not isinstance(move, SymbolicZero)]
    if rows:

        def by_parameters(*moving: Array) -> Array:
            whole = list(leaves)
            for row, leaf in zip(rows, moving, strict=True):
                whole[row] = leaf
            return both(blocks, xyz, jax.tree.unflatten(treedef, whole))[0]

        change = change + jax.jvp(by_parameters, [leaves[row] for row in rows], [moves[row] for row in rows])[1]
    return value, change


_energy.defjvp(lambda *arguments: tangent(_both, *arguments), symbolic_zeros=True)


def _both(blocks, xyz, parameters):
    charge, sigma, root = (
        jnp.asarray(values).astype(xyz.dtype)
        for values in (parameters.charge, parameters.sigma / 2, jnp.sqrt(parameters.epsilon))
    )
    columns = tuple(xyz.T)
    units = tuple(jnp.asarray(parameters.units).T)

    def rows(row):
        # Scalars of one row against all columns; `vmap` makes the block.
        position, q, half_sigma, root_epsilon, own = row
        shift = [position[axis] - columns[axis] for axis in range(3)]
        square = shift[0] ** 2 + shift[1] ** 2 + shift[2] ** 2
        apart = True
        for one in range(3):
            # A row in no further unit has -2 there, a column -1: these never agree.
            mine = jnp.where(own[one] < 0, -2, own[one])
            for other in range(3):
                apart &= units[other] != mine
        square = jnp.where(apart, square, 1)
        inverse = 1 / square
        six = ((half_sigma + sigma) ** 2 * inverse) ** 3
        depth = jnp.where(apart, 4 * root_epsilon * root, 0)
        coulomb = jnp.where(apart, COULOMB_EV * q * charge * jnp.sqrt(inverse), 0)
        values = depth * six * (six - 1) + coulomb
        push = (depth * six * (12 * six - 6) + coulomb) * inverse
        return wide_sum(values), jnp.stack([wide_sum(push * along) for along in shift])

    energies, forces = blockwise(rows, (xyz, charge, sigma, root, jnp.asarray(parameters.units)), blocks)
    return 0.5 * energies.sum(), forces.astype(xyz.dtype)


def wide_sum(values: Array) -> Array:
    """Sum of the last axis in float64 where that is enabled."""
    return values.sum(-1, dtype=jnp.promote_types(values.dtype, jax.dtypes.canonicalize_dtype(np.float64)))


def blockwise(function: Callable[[Any], Any], rows: Any, blocks: Blocks) -> Any:
    """Applies a function to every row, some rows at a time; derivatives compute a block anew instead of storing it.

    Args:
      function: of one row of each array, with values of any shape.
      rows: pytree of arrays of n rows.
      blocks: about how many pairs of rows are looked at in one go, and the devices that share the rows.
    """
    size = max(blocks.pairs // jax.tree.leaves(rows)[0].shape[0], 1)
    return shared(functools.partial(_by_blocks, function, size), rows, blocks.devices)


def _by_blocks(function: Callable[[Any], Any], most: int, rows: Any) -> Any:
    n = jax.tree.leaves(rows)[0].shape[0]
    size = min(most, n)
    count = -(-n // size)
    size = -(-n // count)  # blocks of equal size waste least
    if count == 1:
        return jax.vmap(function)(rows)
    # The last block is filled up with copies of the last row.
    chosen = np.minimum(np.arange(count * size), n - 1).reshape(count, size)
    out = jax.lax.map(jax.checkpoint(jax.vmap(function)), jax.tree.map(lambda array: array[chosen], rows))
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[:n], out)

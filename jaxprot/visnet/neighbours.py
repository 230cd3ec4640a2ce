"""Which atoms send to which: padded molecules, all pairs at once or from a table of neighbours."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxprot.visnet import exchange

_ROWS = 256  # atoms whose distances to all others are held at once


class Molecules(NamedTuple):
    """Molecules of one padded size.

    Attributes:
      z: atomic numbers, 0 where there is no atom.
      positions: Å.
      index: neighbours of each atom, ascending, itself among them, -1 where there is none; it may hold atoms beyond the
        cutoff (a list with a skin). Whoever is a neighbour of an atom has it as a neighbour. Without `index` the
        neighbours of every atom are all atoms in order.
    """

    z: Int[Array, "b n"]
    positions: Float[Array, "b n 3"]
    index: Int[Array, "b n k"] | None = None


class Pairs(NamedTuple):
    """Pairs of a target i and the source in slot j; every array over pairs is (b, i, j, ...).

    Attributes:
      table: who is in which slot; None if slot j is atom j.
      mask: pairs that count, each atom with itself included.
      loop: pairs of an atom with itself.
      distance: Å; 0 where an atom meets itself or no pair is.
      unit: direction from target to source, of length 1 or 0.
    """

    table: exchange.Table | None
    mask: Bool[Array, "b i j"]
    loop: Bool[Array, "b i j"]
    distance: Float[Array, "b i j"]
    unit: Float[Array, "b i j 3"]


def pairs(molecules: Molecules, cutoff: float, cap: int | None = None) -> Pairs:
    """Pairs within the cutoff (Å); of more than `cap` per atom those of lowest atom index."""
    z, positions, index = molecules
    where = None if index is None else exchange.table(index)
    real = z > 0
    if where is None:
        loop = jnp.broadcast_to(jnp.eye(z.shape[1], dtype=bool)[None], (*z.shape, z.shape[1]))
        there = real[:, None, :] & real[:, :, None]
    else:
        loop = where.present & (where.index == jnp.arange(z.shape[1], dtype=where.index.dtype)[None, :, None])
        there = where.present & exchange.gather(real, where.index) & real[:, :, None]
    vector = exchange.to_pairs(positions, where) - positions[:, :, None]
    squared = jnp.sum(vector**2, -1)
    proper = there & ~loop & (squared < cutoff**2) & (squared > 0)
    # The square root and the division never see a 0, not even in the branch that is not taken.
    distance = jnp.where(proper, jnp.sqrt(jnp.where(proper, squared, 1)), 0)
    unit = vector * jnp.where(proper, 1 / jnp.where(proper, distance, 1), 0)[..., None]
    proper &= distance < cutoff
    mask = proper | (loop & there)
    if cap is not None:
        mask &= jnp.cumsum(mask, -1) <= cap
    return Pairs(where, mask, loop, distance, unit)


def over_cap(molecules: Molecules, cutoff: float, cap: int) -> Int[Array, "b"]:
    """Number of atoms with more than `cap` pairs (itself counted) within the cutoff (Å), of each molecule."""
    return jnp.sum(jnp.sum(pairs(molecules, cutoff).mask, -1) > cap, -1)


def _within(z: Array, positions: Array, rows: Array, cutoff: float) -> Array:
    """Whether each atom is within the cutoff of the atoms `rows` (r,): (b, r, n)."""
    vector = positions[:, None] - positions[:, rows][:, :, None]
    return (jnp.sum(vector**2, -1) < cutoff**2) & (z > 0)[:, None] & (z > 0)[:, rows][:, :, None]


def _by_rows(function, atoms: int) -> Array:
    """function(rows) -> (b, r, ...) for all atoms, a block of rows at a time: (b, n, ...)."""
    if atoms <= _ROWS:
        return function(jnp.arange(atoms))
    blocks = -(-atoms // _ROWS)
    rows = jnp.minimum(jnp.arange(blocks * _ROWS), atoms - 1).reshape(blocks, _ROWS)
    out = jnp.moveaxis(lax.map(function, rows), 0, 1)
    return out.reshape(out.shape[0], blocks * _ROWS, *out.shape[3:])[:, :atoms]


def degrees(z: Int[Array, "b n"], positions: Float[Array, "b n 3"], cutoff: float) -> Int[Array, "b n"]:
    """Number of atoms within the cutoff (Å) of each atom, itself counted."""
    z, positions = jnp.asarray(z), jnp.asarray(positions)
    return _by_rows(lambda rows: jnp.sum(_within(z, positions, rows, cutoff), -1), z.shape[1])


def table(z: Int[Array, "b n"], positions: Float[Array, "b n 3"], cutoff: float, slots: int) -> Int[Array, "b n k"]:
    """The `slots` neighbours of lowest index of each atom within the cutoff, itself among them; for `Molecules.index`.

    Where `degrees` is above `slots`, pairs are lost; the caller looks. Memory is that of 256 atoms' distances.

    Args:
      z: atomic numbers, 0 where there is no atom.
      positions: Å.
      cutoff: Å; that of the network, plus a skin if the table is to be used again.
      slots: k.
    """
    z, positions = jnp.asarray(z), lax.stop_gradient(jnp.asarray(positions))
    atoms = z.shape[1]

    def block(rows: Array) -> Array:
        number = jnp.arange(atoms, dtype=jnp.int32)[None, None]
        key = jnp.where(_within(z, positions, rows, cutoff), -number, -atoms)
        return -lax.top_k(key, min(slots, atoms))[0]

    found = _by_rows(block, atoms)
    found = jnp.where(found < atoms, found, -1)
    return jnp.pad(found, ((0, 0), (0, 0), (0, max(0, slots - atoms))), constant_values=-1)


def compact(molecules: Molecules, cutoff: float, slots: int) -> Molecules:
    """The same molecules with a table of neighbours, see `table`."""
    return molecules._replace(index=table(molecules.z, molecules.positions, cutoff, slots))

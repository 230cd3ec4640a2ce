"""Implicit water: generalised Born with the OBC2 radii, and a surface term.

Onufriev, Bashford & Case, Proteins 55:383 (2004), doi 10.1002/prot.20033 (model II); surface term: Schaefer, Bartels &
Karplus, J. Mol. Biol. 284:835 (1998), doi 10.1006/jmbi.1998.2172. Charges are those of the whole protein, all pairs
count, there is no cutoff and no salt. The original program has no implicit solvent.

Born radii come from a sum over neighbours, the energy from a sum over pairs, the force through the radii from a third:
each is visited in blocks of rows as in `nonbonded`. Derivatives are by positions alone.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxprot.ai2bmd.fragment import Fragmentation
from jaxprot.ai2bmd.nonbonded import BLOCK_PAIRS, Blocks, blockwise, tangent, wide_sum
from jaxprot.core.units import COULOMB_EV, KJ_MOL

DIELECTRIC = 78.5
"""Of water; that of the protein is 1."""

SURFACE_TENSION = 28.3919551 * KJ_MOL / 100
"""eV/Å² (5.4 cal/mol/Å² times 4 π)."""

_OFFSET = 0.09  # Å by which radii are smaller inside the integral
_PROBE = 1.4  # Å
_ALPHA, _BETA, _GAMMA = 1.0, 0.8, 4.85


class Solvent(NamedTuple):
    """What atoms feel of the solvent: charges (e), intrinsic radii (Å) and screening factors."""

    charge: Float[Array, "n"]
    radius: Float[Array, "n"]
    scale: Float[Array, "n"]


def parameters(fragmentation: Fragmentation) -> Solvent:
    """Parameters of a protein (numpy)."""
    return Solvent(fragmentation.charge, fragmentation.born_radius, fragmentation.born_scale)


def energy(
    xyz: Float[Array, "n 3"],
    parameters: Solvent,
    *,
    block_pairs: int = BLOCK_PAIRS,
    devices: Mesh | None = None,
) -> Float[Array, ""]:
    """Free energy of solvation in eV; sums in float64 where that is enabled.

    Args:
      xyz: positions in Å.
      parameters: of the same atoms.
      block_pairs: about how many pairs are looked at in one go.
      devices: that share the atoms (`ai2bmd.devices`), if there are several.
    """
    return _energy(Blocks(block_pairs, devices), xyz, parameters)


def energy_and_forces(
    xyz: Float[Array, "n 3"],
    parameters: Solvent,
    *,
    block_pairs: int = BLOCK_PAIRS,
    devices: Mesh | None = None,
) -> tuple[Float[Array, ""], Float[Array, "n 3"]]:
    """Free energy of solvation in eV and forces in eV/Å. Args as in `energy`."""
    return _both(Blocks(block_pairs, devices), xyz, parameters)


def born_radii(xyz: Float[Array, "n 3"], parameters: Solvent, *, block_pairs: int = BLOCK_PAIRS) -> Float[Array, "n"]:
    """Effective Born radii in Å: how deep in the protein an atom lies. Args as in `energy`."""
    integral = _integral(Blocks(block_pairs, None), xyz, *_scaled(xyz, parameters))
    return _born(integral, parameters.radius.astype(xyz.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _energy(blocks, xyz, parameters):
    inner, reach = _scaled(xyz, parameters)
    radius, charge = (jnp.asarray(values).astype(xyz.dtype) for values in (parameters.radius, parameters.charge))
    born = _born(_integral(blocks, xyz, inner, reach), radius)
    return _polar(blocks, xyz, charge, born)[0].sum() + _surface(born, radius).sum()


_energy.defjvp(lambda *arguments: tangent(_both, *arguments), symbolic_zeros=True)


def _both(blocks, xyz, parameters):
    inner, reach = _scaled(xyz, parameters)
    radius, charge = (jnp.asarray(values).astype(xyz.dtype) for values in (parameters.radius, parameters.charge))
    integral = _integral(blocks, xyz, inner, reach)
    born, born_slope = jax.jvp(lambda i: _born(i, radius), (integral,), (jnp.ones_like(integral),))
    polar, by_born, slope = _polar(blocks, xyz, charge, born)
    surface, surface_slope = jax.jvp(lambda b: _surface(b, radius), (born,), (jnp.ones_like(born),))
    weight = (by_born.astype(xyz.dtype) + surface_slope) * born_slope
    slope = slope + _through_radii(blocks, xyz, inner, reach, weight)
    return polar.sum() + wide_sum(surface), -slope.astype(xyz.dtype)


def _scaled(xyz, parameters):
    inner = jnp.asarray(parameters.radius).astype(xyz.dtype) - _OFFSET
    return inner, jnp.asarray(parameters.scale).astype(xyz.dtype) * inner


def _born(integral, radius):
    inner = radius - _OFFSET
    depth = integral * inner
    return 1 / (1 / inner - jnp.tanh(depth * (_ALPHA + depth * (-_BETA + depth * _GAMMA))) / radius)


def _surface(born, radius):
    return SURFACE_TENSION * (radius + _PROBE) ** 2 * (radius / born) ** 6


def _descreening(r, inner, reach):
    """Share of one neighbour in the integral of an atom in 1/Å; where it branches, value and slope are continuous."""
    upper, lower, touching = _limits(r, inner, reach)
    bulk = 1 / lower - 1 / upper + 0.25 * (r - reach**2 / r) * (1 / upper**2 - 1 / lower**2)
    return jnp.where(touching, 0.5 * (bulk + 0.5 * jnp.log(lower / upper) / r), 0)


def _descreening_slope(r, inner, reach):
    """Its derivative by the distance; the limits of the integral are where it does not change with them.

    That holds unless the neighbour's sphere holds all of the atom's, which takes less than 0.5 Å between them.
    """
    upper, lower, touching = _limits(r, inner, reach)
    bulk = 0.25 * (1 + (reach / r) ** 2) * (1 / upper**2 - 1 / lower**2)
    return jnp.where(touching, 0.5 * (bulk - 0.5 * jnp.log(lower / upper) / r**2), 0)


def _limits(r, inner, reach):
    lower = jnp.maximum(inner, jnp.abs(r - reach))
    touching = r + reach > inner
    return jnp.where(touching, r + reach, lower), lower, touching


def _shifts(position, columns, number):
    """Difference vectors of one row to all columns, distances with 1 for the row itself, and which those others are."""
    shift = [position[axis] - columns[axis] for axis in range(3)]
    other = jnp.arange(len(columns[0])) != number
    square = jnp.where(other, shift[0] ** 2 + shift[1] ** 2 + shift[2] ** 2, 1)
    return shift, jnp.sqrt(square), other


def _integral(blocks, xyz, inner, reach):
    columns = tuple(xyz.T)

    def row(values):
        position, own, number = values
        _, r, other = _shifts(position, columns, number)
        return wide_sum(jnp.where(other, _descreening(r, own, reach), 0))

    return blockwise(row, (xyz, inner, jnp.arange(len(xyz))), blocks).astype(xyz.dtype)


def _polar(blocks, xyz, charge, born):
    """Energy by row, its slope by the Born radii, and by the positions at constant radii."""
    columns = tuple(xyz.T)
    strength = COULOMB_EV * (1 - 1 / DIELECTRIC)

    def row(values):
        position, q, own = values
        shift = [position[axis] - columns[axis] for axis in range(3)]
        square = shift[0] ** 2 + shift[1] ** 2 + shift[2] ** 2
        product = own * born
        fade = jnp.exp(-square / (4 * product))
        inverse = jax.lax.rsqrt(square + product * fade)
        charges = strength * q * charge
        steep = charges * inverse**3
        pull = steep * (1 - 0.25 * fade)
        by_born = 0.5 * steep * fade * (born + square / (4 * own))
        return -0.5 * wide_sum(charges * inverse), wide_sum(by_born), jnp.stack([wide_sum(pull * s) for s in shift])

    return blockwise(row, (xyz, charge, born), blocks)


def _through_radii(blocks, xyz, inner, reach, weight):
    """Slope by positions of the sum of weight times integral."""
    columns = tuple(xyz.T)

    def row(values):
        position, own, own_reach, own_weight, number = values
        shift, r, other = _shifts(position, columns, number)
        mine = own_weight * _descreening_slope(r, own, reach)
        theirs = weight * _descreening_slope(r, inner, own_reach)
        push = jnp.where(other, (mine + theirs) / r, 0)
        return jnp.stack([wide_sum(push * along) for along in shift])

    return blockwise(row, (xyz, inner, reach, weight, jnp.arange(len(xyz))), blocks)

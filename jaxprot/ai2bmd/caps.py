"""Cap hydrogens: where they stand, how they relax, and how the units' energies become energy and forces of a protein.

Pure functions of positions and tables; everything can be jitted, batched and differentiated.

The published program lets caps relax by an optimiser that in practice takes one step of gradient descent of total
length 0.1 Å over all caps of the protein, and then leaves out the forces on caps. So its forces are not the slope of
its energy: net force and torque are not zero and energy is not conserved. `caps="compat"` gives the published forces.

`caps="consistent"`, the default, differentiates through the placement, and leaves the step out. Its length, a sum over
the axes and over the whole protein, makes energies depend on how the protein is turned (in chignolin by 2e-5 eV, a
force by 3e-4 eV/Å) and on what is far away, and shrinks as the protein grows, while all it does is to move caps by some
thousandths of an Å (in chignolin 5e-4 eV, a force by at most 8e-4 eV/Å). It can still be asked for (`relax`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxprot.ai2bmd.fragment import Fragmentation
from jaxprot.core.units import COULOMB_AMBER_KCAL

Relax = Literal["published", "none", "minimise"]
Caps = Literal["consistent", "compat"]
Energy = Callable[[Array, Array, Array], Array]

STEP = 0.1
"""Learning rate of the published optimiser, and Å that all caps together move in its first step."""

FEW = 16
"""Number of caps below which the published optimiser is followed to its end."""

_SCALE_LJ, _SCALE_CHARGE = 1 / 1.2, 1 / 2.0  # all pairs, as published
_ITERATIONS, _TOLERANCE_GRADIENT, _TOLERANCE_CHANGE = 10, 0.1, 0.01
_NEWTON, _FARTHEST = 12, 0.3  # steps of the minimiser, and Å that a cap may move in each


def usual(mode: Caps) -> Relax:
    """How caps are relaxed if nothing is said: `published` in `compat`, else `none`."""
    return "published" if mode == "compat" else "none"


class CapTables(NamedTuple):
    """What caps are placed and relaxed by; indices are sources (protein atoms, then caps). See `Fragmentation`."""

    parent: Int[Array, "k"]
    removed: Int[Array, "k"]
    length: Float[Array, "k"]
    bonds: Int[Array, "b 2"]
    bond_terms: Float[Array, "b 2"]
    angles: Int[Array, "a 3"]
    angle_terms: Float[Array, "a 2"]
    dihedrals: Int[Array, "d 4"]
    dihedral_terms: Float[Array, "d 3"]
    partners: Int[Array, "k p"]
    partner_terms: Float[Array, "k p 4"]


class Bucket(NamedTuple):
    """Units of similar size, padded to A atoms.

    Attributes:
      z: atomic numbers, 0 for padding.
      source: source of each atom; 0 for padding, where `mask` is False.
      mask: True for atoms.
      sign: +1 or -1 for each unit.
      row: row of each atom in the flat tables of the fragmentation, -1 for padding.
      unit: number of each unit in the fragmentation.
    """

    z: Int[Array, "units a"]
    source: Int[Array, "units a"]
    mask: Bool[Array, "units a"]
    sign: Int[Array, "units"]
    row: Int[Array, "units a"]
    unit: Int[Array, "units"]


class Tables(NamedTuple):
    """Caps and packed units of a protein: a pytree of arrays, to be passed to jitted functions as an argument."""

    caps: CapTables
    buckets: tuple[Bucket, ...]


def tables(fragmentation: Fragmentation, *, multiple: int = 4, sizes: Sequence[int] | None = None) -> Tables:
    """Packs the units by size (numpy, on the host).

    Args:
      fragmentation: of the protein.
      multiple: units are padded to multiples of this; larger means fewer but emptier buckets.
      sizes: ascending sizes to pad to instead, the last at least that of the largest unit.

    Raises:
      ValueError: a unit is larger than every size.
    """
    counts = np.diff(fragmentation.unit_start)
    if sizes is None:
        padded = -(-counts // multiple) * multiple
    else:
        steps = np.array(sorted(sizes))
        if counts.max() > steps[-1]:
            raise ValueError(f"a unit has {counts.max()} atoms, the largest size is {steps[-1]}")
        padded = steps[np.searchsorted(steps, counts)]
    buckets = []
    for size in np.unique(padded):
        units = np.flatnonzero(padded == size)
        place = np.arange(size)
        mask = place < counts[units][:, None]
        row = np.where(mask, fragmentation.unit_start[units][:, None] + place, 0)
        buckets.append(
            Bucket(
                z=np.where(mask, fragmentation.row_z[row], 0).astype(np.int32),
                source=np.where(mask, fragmentation.row_source[row], 0).astype(np.int32),
                mask=mask,
                sign=fragmentation.unit_sign[units],
                row=np.where(mask, row, -1).astype(np.int32),
                unit=units.astype(np.int32),
            )
        )
    fields: Any = {
        field: getattr(fragmentation, field if field not in ("parent", "removed", "length") else f"cap_{field}")
        for field in CapTables._fields
    }
    return Tables(CapTables(**fields), tuple(buckets))


def place(xyz: Float[Array, "n 3"], caps: CapTables) -> Float[Array, "k 3"]:
    """Caps on the bonds that were cut, at their usual distance; before relaxation.

    Args:
      xyz: protein in Å.
      caps: tables.
    """
    parent = xyz[caps.parent]
    bond = xyz[caps.removed] - parent
    length = jnp.sqrt((bond**2).sum(-1, keepdims=True))
    return parent + caps.length.astype(xyz.dtype)[:, None] * bond / length


def strain(positions: Float[Array, "k 3"], xyz: Float[Array, "n 3"], caps: CapTables) -> Float[Array, ""]:
    """Energy that caps are relaxed with, in kcal/mol: all force field terms of the units with a cap in them.

    As published, springs and dihedrals have a factor ½ that the force field does not have, and every pair within a unit
    beyond three bonds counts with 1/1.2 (Lennard-Jones) and 1/2 (Coulomb).

    Args:
      positions: of the caps in Å.
      xyz: protein in Å.
      caps: tables.
    """
    if not len(caps.parent):
        return jnp.zeros((), xyz.dtype)
    sources = jnp.concatenate([xyz, positions])
    share = caps.partner_terms[..., 3].astype(xyz.dtype)
    return _bonded(positions, xyz, caps) + (share * _pairs(positions, sources, caps)).sum()


def strain_gradient(positions: Float[Array, "k 3"], xyz: Float[Array, "n 3"], caps: CapTables) -> Float[Array, "k 3"]:
    """Slope of `strain` by the positions of the caps in kcal/mol/Å."""
    sources = jnp.concatenate([xyz, positions])
    # A pair of two caps stands in the rows of both, so partners can be held still: no scatter.
    pairs = jax.grad(lambda moving: _pairs(moving, sources, caps).sum())(positions)
    return jax.grad(_bonded)(positions, xyz, caps) + pairs


def relax(
    positions: Float[Array, "k 3"], xyz: Float[Array, "n 3"], caps: CapTables, how: Relax = "published"
) -> Float[Array, "k 3"]:
    """Relaxed caps.

    `published`: L-BFGS of PyTorch (rate 0.1, at most 10 iterations, tolerances 0.1 and 0.01, no line search) on all
    caps of the protein at once. With more than a few caps its first step, 0.1 Å shared out along the gradient, is also
    its last, as no component moves 0.01 Å: from 16 caps on that step is all that is done (`one_step` tells whether the
    optimiser would have stopped there too), with fewer all iterations are. That length is a sum over axes, so energies
    depend a little on how the protein is turned, and torques do not cancel. `minimise`: to the minimum, by Newton's
    method; first derivatives by the implicit function theorem. `none`: as placed.

    Args:
      positions: caps as placed, in Å.
      xyz: protein in Å.
      caps: tables.
      how: which of them.

    Raises:
      ValueError: an unknown kind of relaxation.
    """
    if how not in ("published", "none", "minimise"):
        raise ValueError(f"relaxation {how!r}: take published, none or minimise")
    if how == "none" or not len(caps.parent):
        return positions
    if how == "minimise":
        return _minimised(positions, xyz, caps)
    if len(caps.parent) < FEW:
        return _lbfgs(positions, xyz, caps)
    return positions + _first_step(strain_gradient(positions, xyz, caps))


def one_step(xyz: Float[Array, "n 3"], caps: CapTables) -> Bool[Array, ""]:
    """Whether the published optimiser stops after its first step, as `relax` takes it to do from 16 caps on.

    It does unless a single cap, such as one in a clash, has a tenth of all forces. Args as in `relax`.
    """
    step = _first_step(strain_gradient(place(xyz, caps), xyz, caps))
    return jnp.abs(step).max(initial=0) <= _TOLERANCE_CHANGE


def sources(
    xyz: Float[Array, "n 3"], caps: CapTables, *, mode: Caps = "consistent", how: Relax | None = None
) -> Float[Array, "s 3"]:
    """Positions of all sources: the protein, then its relaxed caps.

    Args:
      xyz: protein in Å.
      caps: tables.
      mode: `compat` cuts caps off from the derivative by the protein's positions.
      how: relaxation; None for the `usual` one.

    Raises:
      ValueError: an unknown mode or relaxation.
    """
    if mode not in ("consistent", "compat"):
        raise ValueError(f"caps {mode!r}: take consistent or compat")
    positions = relax(place(xyz, caps), xyz, caps, how or usual(mode))
    if mode == "compat":
        positions = jax.lax.stop_gradient(positions)
    return jnp.concatenate([xyz, positions])


def unit_positions(sources: Float[Array, "s 3"], buckets: Sequence[Bucket]) -> list[Float[Array, "units a 3"]]:
    """Positions of the atoms of every unit by bucket; padding stands where source 0 does."""
    return [sources[bucket.source] for bucket in buckets]


def bonded_energy(
    xyz: Float[Array, "n 3"],
    tables: Tables,
    energy: Energy,
    *,
    caps: Caps = "consistent",
    relax: Relax | None = None,
) -> Float[Array, ""]:
    """Energy of dipeptides less that of ACE-NMEs, in the unit of `energy`, summed in float64 where that is enabled.

    Args:
      xyz: protein in Å.
      tables: of its fragmentation.
      energy: `energy(z, positions, mask)` of padded units, (B, A), (B, A, 3), (B, A) to (B,).
      caps: whether forces take into account that caps move with the protein.
      relax: how caps are relaxed; None for the `usual` way.

    Raises:
      ValueError: an unknown option.
    """
    everything = sources(xyz, tables.caps, mode=caps, how=relax)
    total: Any = 0
    for bucket, positions in zip(tables.buckets, unit_positions(everything, tables.buckets), strict=True):
        values = energy(bucket.z, positions, bucket.mask)
        wide = jnp.promote_types(values.dtype, jax.dtypes.canonicalize_dtype(np.float64))
        total += (bucket.sign * values.astype(wide)).sum()
    return total


def bonded(
    xyz: Float[Array, "n 3"],
    tables: Tables,
    energy: Energy,
    *,
    caps: Caps = "consistent",
    relax: Relax | None = None,
) -> tuple[Float[Array, ""], Float[Array, "n 3"]]:
    """Energy as in `bonded_energy`, and forces on the protein's atoms."""
    value, slope = jax.value_and_grad(bonded_energy)(xyz, tables, energy, caps=caps, relax=relax)
    return value, -slope


def _bonded(positions, xyz, caps):
    sources = jnp.concatenate([xyz, positions])
    k, length = caps.bond_terms.astype(xyz.dtype).T
    i, j = (sources[caps.bonds[:, end]] for end in (0, 1))
    total = (k * (jnp.sqrt(((i - j) ** 2).sum(-1)) - length) ** 2).sum()
    k, theta = caps.angle_terms.astype(xyz.dtype).T
    i, j, l = (sources[caps.angles[:, end]] for end in (0, 1, 2))  # noqa: E741
    total += (k * (_angle(i - j, l - j) - theta) ** 2).sum()
    k, n, phase = caps.dihedral_terms.astype(xyz.dtype).T
    i, j, l, m = (sources[caps.dihedrals[:, end]] for end in (0, 1, 2, 3))  # noqa: E741
    total += (k * (1 + jnp.cos(n * _dihedral(j - i, l - j, m - l) - phase))).sum()
    return 0.5 * total


def _pairs(positions, sources, caps):
    """(K, P) interaction of every cap with its partners."""
    difference = positions[:, None] - sources[caps.partners]
    inverse = 1 / (difference**2).sum(-1)
    a, b, charges = jnp.moveaxis(caps.partner_terms[..., :3].astype(positions.dtype), -1, 0)
    repulsion = _SCALE_LJ * (a * inverse**6 - b * inverse**3)
    return repulsion + _SCALE_CHARGE * COULOMB_AMBER_KCAL * charges * jnp.sqrt(inverse)


def _angle(a, b):
    cross = jnp.cross(a, b)
    return jnp.arctan2(jnp.sqrt((cross**2).sum(-1)), (a * b).sum(-1))


def _dihedral(a, b, c):
    first, second = jnp.cross(a, b), jnp.cross(b, c)
    along = jnp.sqrt((b**2).sum(-1)) * (a * second).sum(-1)
    return jnp.arctan2(along, (first * second).sum(-1))


def _minimised(positions, xyz, caps):
    """Minimum of the strain, with its first derivative by the implicit function theorem (no second one)."""
    held = jax.lax.stop_gradient(xyz)

    def newton(_, moving):
        value, linear = jax.linearize(lambda at: strain_gradient(at, held, caps), moving)
        move, _ = jax.scipy.sparse.linalg.cg(linear, -value, tol=1e-4, maxiter=60)
        length = jnp.sqrt((move**2).sum(-1, keepdims=True) + jnp.finfo(move.dtype).tiny)
        return moving + move * jnp.minimum(1, _FARTHEST / length)

    found = jax.lax.fori_loop(0, _NEWTON, newton, jax.lax.stop_gradient(positions))
    # One more step with the curvature held: it changes nothing but carries the derivative by the protein's positions.
    linear = jax.linearize(lambda at: strain_gradient(at, held, caps), found)[1]
    tolerance = 1e-8 if positions.dtype == jnp.float64 else 1e-6
    solved = jax.lax.custom_linear_solve(
        linear,
        strain_gradient(found, xyz, caps),
        lambda operator, right: jax.scipy.sparse.linalg.cg(operator, right, tol=tolerance, maxiter=200)[0],
        symmetric=True,
    )
    return found - solved


def _first_step(gradient):
    """First step of the optimiser; none where the gradient is within its tolerance."""
    size = jnp.abs(gradient)
    rate = jnp.where(size.max(initial=0) > _TOLERANCE_GRADIENT, STEP / jnp.maximum(size.sum(), 1), 0)
    return -rate * gradient


def _lbfgs(positions, xyz, caps):
    """All iterations of the published optimiser; those after it has stopped change nothing."""
    n, dtype = positions.size, positions.dtype

    def evaluate(x):
        moving = x.reshape(-1, 3)
        return strain(moving, xyz, caps), strain_gradient(moving, xyz, caps).reshape(-1)

    def direction(gradient, moves, changes, rho, diagonal):
        def back(q, row):
            move, change, r = row
            alpha = r * (move @ q)  # r is 0 for rows not in use
            return q - alpha * change, alpha

        q, alphas = jax.lax.scan(back, -gradient, (moves, changes, rho), reverse=True)

        def forth(d, row):
            move, change, r, alpha = row
            return d + move * (alpha - r * (change @ d)), None

        return jax.lax.scan(forth, diagonal * q, (moves, changes, rho, alphas))[0]

    def iterate(state, i):
        x, loss, gradient, before, step, moves, changes, rho, diagonal, done = state
        first = i == 0
        change = gradient - before
        curvature = change @ step
        keep = (curvature > 1e-10) & ~first
        safe = jnp.where(keep, curvature, 1)
        moves = jnp.where(keep, moves.at[i].set(step), moves)
        changes = jnp.where(keep, changes.at[i].set(change), changes)
        rho = jnp.where(keep, rho.at[i].set(1 / safe), rho)
        diagonal = jnp.where(keep, safe / jnp.where(keep, change @ change, 1), diagonal)
        ahead = jnp.where(first, -gradient, direction(gradient, moves, changes, rho, diagonal))
        rate = jnp.where(first, STEP * jnp.minimum(1, 1 / jnp.abs(gradient).sum()), STEP)
        done |= gradient @ ahead > -_TOLERANCE_CHANGE
        new = x + rate * ahead
        new_loss, new_gradient = evaluate(new)
        stops = jnp.abs(new_gradient).max() <= _TOLERANCE_GRADIENT
        stops |= jnp.abs(rate * ahead).max() <= _TOLERANCE_CHANGE
        stops |= jnp.abs(new_loss - loss) < _TOLERANCE_CHANGE
        moved = (new, new_loss, new_gradient, gradient, rate * ahead, moves, changes, rho, diagonal, stops)
        kept = (x, loss, gradient, before, step, moves, changes, rho, diagonal, done)
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), kept, moved), None

    x = positions.reshape(-1)
    loss, gradient = evaluate(x)
    converged = jnp.abs(gradient).max() <= _TOLERANCE_GRADIENT
    history = jnp.zeros((_ITERATIONS, n), dtype)
    state = (x, loss, gradient, gradient, jnp.zeros_like(x), history, history, jnp.zeros(_ITERATIONS, dtype),
             jnp.ones((), dtype), converged)  # fmt: skip
    state, _ = jax.lax.scan(iterate, state, jnp.arange(_ITERATIONS))
    return state[0].reshape(-1, 3)

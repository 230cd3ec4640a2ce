"""Backbone graph and geometric edge features of ProteinMPNN (pure functions of coordinates)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxprot.core.geometry import ideal_beta

_ATOMS = {"N": 0, "CA": 1, "C": 2, "O": 3, "CB": 4}
# First atom belongs to the centre residue, second to its neighbour; the order is that of the published weights.
_PAIRS = (
    "CA-CA N-N C-C O-O CB-CB CA-N CA-C CA-O CA-CB N-C N-O N-CB CB-C CB-O O-C "
    "N-CA C-CA O-CA CB-CA C-N O-N CB-N C-CB O-CB C-O"
).split()
PAIR_CENTRE = np.array([_ATOMS[p.split("-")[0]] for p in _PAIRS])
PAIR_NEIGHBOUR = np.array([_ATOMS[p.split("-")[1]] for p in _PAIRS])
_EPSILON = 1e-6
_SHORTEST_STEP, _LONGEST_STEP = 3.6, 4.0  # Å between consecutive CA of a trans peptide unit


def virtual_cb(x: Float[Array, "n 4 3"]) -> Float[Array, "n 3"]:
    """Ideal CB position (Å) from N, CA, C with the constants of the published model."""
    return ideal_beta(x[:, 0], x[:, 1], x[:, 2])


def neighbour_graph(
    ca: Float[Array, "n 3"], mask: Float[Array, "n"], real: Bool[Array, "n"], neighbours: int
) -> tuple[Float[Array, "n k"], Int[Array, "n k"], Bool[Array, "n k"]]:
    """The k nearest residues of each residue by CA distance, nearest (itself) first.

    Unresolved residues (mask 0, real) sit at the row's largest distance, as in the published model; padding
    (not real) is farther than everything, so it never displaces a residue.

    Args:
      ca: CA coordinates in Å, zeros where unresolved.
      mask: 1 where all four backbone atoms are resolved.
      real: False for padding.
      neighbours: k; min(k, n) columns are returned.

    Returns:
      distances in Å (with the masking rule), indices, and which of the columns are residues rather than padding.
    """
    pair = mask[:, None] * mask[None, :]
    squared = jnp.sum((ca[:, None, :] - ca[None, :, :]) ** 2, axis=-1)
    distance = pair * jnp.sqrt(squared + _EPSILON)
    distance = distance + (1.0 - pair) * jnp.max(distance, axis=-1, keepdims=True)
    ranked = jnp.where(real[None, :], distance, jnp.inf)
    k = min(neighbours, ca.shape[0])
    # The order is a constant of the geometry: gradients flow through the gathered distances only.
    _, index = jax.lax.top_k(-jax.lax.stop_gradient(ranked), k)
    index = index.astype(jnp.int32)
    return jnp.take_along_axis(distance, index, axis=1), index, real[index]


def radial_basis(distance: Float[Array, "..."], count: int) -> Float[Array, "... r"]:
    """Gaussians of a distance in Å: `count` centres from 2 to 22 Å, width 20 / count."""
    centres = np.linspace(2.0, 22.0, count, dtype=np.float32).reshape((1,) * distance.ndim + (count,))
    return jnp.exp(-(((distance[..., None] - centres) / np.float32(20.0 / count)) ** 2))


def backbone_rbf(
    x: Float[Array, "n 4 3"], distance: Float[Array, "n k"], index: Int[Array, "n k"], count: int
) -> Float[Array, "n k p"]:
    """Radial basis of the 25 backbone atom pairs of each edge, (n, k, 25 * count).

    The CA-CA entry uses the graph's masked distance, the others the plain distance (atoms of unresolved residues
    sit at the origin), as the published model does.
    """
    atoms = jnp.concatenate([x, virtual_cb(x)[:, None]], axis=1)
    centre = atoms[:, None, PAIR_CENTRE[1:]]
    neighbour = atoms[index][:, :, PAIR_NEIGHBOUR[1:]]
    others = jnp.sqrt(jnp.sum((centre - neighbour) ** 2, axis=-1) + _EPSILON)
    every = jnp.concatenate([distance[..., None], others], axis=-1)
    return radial_basis(every, count).reshape(*index.shape, -1)


def offset_class(
    residue_idx: Int[Array, "n"], chain: Int[Array, "n"], index: Int[Array, "n k"], max_offset: int
) -> Int[Array, "n k"]:
    """Class of the sequence offset i - j: 0 .. 2 * max_offset within a chain, 2 * max_offset + 1 across chains."""
    offset = residue_idx[:, None] - residue_idx[index]
    within = jnp.clip(offset + max_offset, 0, 2 * max_offset)
    return jnp.where(chain[:, None] == chain[index], within, 2 * max_offset + 1)


def _unit(v: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """v / max(|v|, 1e-12), with a zero gradient (not NaN) at v = 0."""
    squared = jnp.sum(v * v, axis=-1, keepdims=True)
    positive = squared > 1e-24
    return jnp.where(positive, v / jnp.sqrt(jnp.where(positive, squared, 1.0)), v / 1e-12)


def _quaternion(rotation: Float[Array, "... 3 3"]) -> Float[Array, "... 4"]:
    """Unit quaternion (x, y, z, w) of a rotation matrix, by the sign-and-magnitude form of the published model."""
    xx, yy, zz = rotation[..., 0, 0], rotation[..., 1, 1], rotation[..., 2, 2]
    squared = jnp.abs(1.0 + jnp.stack([xx - yy - zz, -xx + yy - zz, -xx - yy + zz], axis=-1))
    positive = squared > 0
    magnitude = 0.5 * jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    r = rotation
    signs = jnp.sign(
        jnp.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1)
    )
    trace = jax.nn.relu(1.0 + xx + yy + zz)
    w = 0.5 * jnp.where(trace > 0, jnp.sqrt(jnp.where(trace > 0, trace, 1.0)), 0.0)
    return _unit(jnp.concatenate([signs * magnitude, w[..., None]], axis=-1))


def _ca_frames(ca: Float[Array, "n 3"], real: Bool[Array, "n"]) -> Float[Array, "n 3 3"]:
    """Axes of the local frame of each residue from three consecutive CA, zeros where the published model has none.

    A step between neighbours in the list counts only where its length is that of a trans peptide unit, so none does
    over a break or a change of chain. The published model drops the frames of the first residue and of the last two of
    the whole list.
    """
    n = ca.shape[0]
    if n < 4:
        return jnp.zeros((n, 3, 3), ca.dtype)
    step = ca[1:] - ca[:-1]
    squared = jnp.sum(step**2, axis=-1, keepdims=True)
    trans = (squared > _SHORTEST_STEP**2) & (squared < _LONGEST_STEP**2)
    step = _unit(jnp.where(trans, step, 0.0))
    before, after = step[:-1], step[1:]
    normal = _unit(jnp.cross(before, after))
    bisector = _unit(before - after)
    frame = jnp.stack([bisector, normal, jnp.cross(bisector, normal)], axis=1)[:-1]
    # Counted among real residues: padding behind the last would otherwise give it and the one before it a frame.
    return jnp.pad(frame, ((1, 2), (0, 0), (0, 0))) * jnp.pad(real[2:], (0, 2))[:, None, None]


def ca_features(
    ca: Float[Array, "n 3"],
    distance: Float[Array, "n k"],
    index: Int[Array, "n k"],
    real: Bool[Array, "n"],
    count: int,
) -> Float[Array, "n k f"]:
    """Edge features of the CA-only variant: 9 RBF blocks and 7 orientation channels, (n, k, 9 * count + 7).

    Blocks pair each residue's previous (0), own (1) and next (2) CA with those of its neighbour, in the order
    11 00 22 01 02 10 12 20 21. Orientation: direction to the neighbour in the residue's local CA frame (3) and
    the quaternion of the relative rotation (4). As published, the residue before the first and the one after the last
    sit at the origin, and the relative rotation is taken in the global frame: log-probabilities change by up to 0.15
    under a rotation, and a little under a translation.
    """
    zero = jnp.zeros_like(ca[:1])
    shifted = (
        jnp.concatenate([zero, ca[:-1]]),
        ca,
        jnp.concatenate([ca[1:], zero]),
    )
    blocks = [distance]
    for a, b in ((0, 0), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)):
        delta = shifted[a][:, None] - shifted[b][index]
        blocks.append(jnp.sqrt(jnp.sum(delta**2, axis=-1) + _EPSILON))
    rbf = radial_basis(jnp.stack(blocks, axis=-1), count).reshape(*index.shape, -1)

    frame = _ca_frames(ca, real)
    direction = _unit(jnp.einsum("nab,nkb->nka", frame, ca[index] - ca[:, None]))
    relative = jnp.einsum("nba,nkbc->nkac", frame, frame[index])
    return jnp.concatenate([rbf, direction, _quaternion(relative)], axis=-1)

"""Elastic networks: how much every residue moves when contacts are springs.

Gaussian network: Bahar, Atilgan & Erman, Fold. Des. 2:173 (1997), doi 10.1016/S1359-0278(97)00024-2. Anisotropic
network: Atilgan et al., Biophys. J. 80:505 (2001), doi 10.1016/S0006-3495(01)76033-X. Contact numbers against B
factors: Halle, PNAS 99:1274 (2002), doi 10.1073/pnas.032522499.

Everything here is dense, padded by masks and works under `jit` and `vmap`, for batches of chains of up to some hundred
residues; `rmsfnet.baselines` has the form for large assemblies. The fluctuations come from an eigendecomposition with
equal eigenvalues (the rigid motions), so they are not meant to be differentiated.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

ANM_CUTOFF = 15.0
"""Å between alpha carbons that are joined by a spring in the anisotropic network."""

GNM_CUTOFF = 10.0
"""The same in the Gaussian network, in Å."""

CONTACT_CUTOFF = 13.0
"""Å within which atoms count as contacts."""

Points = Float[Array, "n 3"]
Mask = Bool[Array, "n"]


def anm_hessian(xyz: Points, mask: Mask | None = None, cutoff: float = ANM_CUTOFF) -> Float[Array, "n3 n3"]:
    """Second derivatives of the anisotropic network's energy, in units of the spring constant.

    Args:
      xyz: nodes (alpha carbons) in Å; those masked out may be anything.
      mask: True for nodes; None for all.
      cutoff: largest length of a spring in Å.

    Returns:
      (3 n, 3 n) matrix, coordinates of a node side by side; rows of masked nodes are 0.
    """
    n = len(xyz)
    difference, squared, contact = _contacts(xyz, mask, cutoff)
    share = jnp.where(contact, 1 / jnp.where(contact, squared, 1), 0)
    blocks = -share[:, :, None, None] * difference[:, :, :, None] * difference[:, :, None, :]
    diagonal = -blocks.sum(1)
    blocks = blocks + jnp.eye(n, dtype=blocks.dtype)[:, :, None, None] * diagonal[:, None]
    return blocks.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def gnm_kirchhoff(xyz: Points, mask: Mask | None = None, cutoff: float = GNM_CUTOFF) -> Float[Array, "n n"]:
    """Connectivity of the Gaussian network: minus one for a contact, the number of contacts on the diagonal.

    Args and masking as in `anm_hessian`.
    """
    _, _, contact = _contacts(xyz, mask, cutoff)
    contact = contact.astype(xyz.dtype)
    return jnp.diag(contact.sum(1)) - contact


def anm(xyz: Points, mask: Mask | None = None, cutoff: float = ANM_CUTOFF) -> Float[Array, "n"]:
    """Mean squared fluctuations of the anisotropic network.

    Args:
      xyz: nodes in Å; at least three that are not on a line.
      mask: True for nodes; None for all.
      cutoff: largest length of a spring in Å.

    Returns:
      <ΔR²> in units of kT / spring constant (Å² if that is in kT / Å²); 0 for masked nodes. Motions that cost nothing
      (the six rigid ones, and those of parts that hang loose) are left out.
    """
    present = _present(xyz, mask)
    hessian = anm_hessian(xyz, present, cutoff)
    weight = present.astype(xyz.dtype)
    x = jnp.where(present[:, None], xyz, 0)
    x = (x - (weight @ x / jnp.maximum(weight.sum(), 1))[None]) * weight[:, None]
    # Rows of eye are translations, their cross products with the positions rotations.
    unit = jnp.eye(3, dtype=xyz.dtype)
    shift = weight[:, None, None] * unit[None]
    turn = jnp.cross(unit[None], x[:, None, :]).transpose(0, 2, 1)
    rigid = jnp.concatenate([shift, turn], -1).reshape(-1, 6)
    values = _inverse_diagonal(hessian, rigid, jnp.repeat(present, 3))
    return values.reshape(-1, 3).sum(1) * weight


def gnm(xyz: Points, mask: Mask | None = None, cutoff: float = GNM_CUTOFF) -> Float[Array, "n"]:
    """Mean squared fluctuations of the Gaussian network: three times the diagonal of the Kirchhoff matrix's inverse.

    Args and result as in `anm`; the only motion without cost is the common shift.
    """
    present = _present(xyz, mask)
    weight = present.astype(xyz.dtype)
    return 3 * _inverse_diagonal(gnm_kirchhoff(xyz, present, cutoff), weight[:, None], present) * weight


def contact_number(
    xyz: Points,
    mask: Mask | None = None,
    others: Float[Array, "m 3"] | None = None,
    others_mask: Bool[Array, "m"] | None = None,
    cutoff: float = CONTACT_CUTOFF,
) -> Float[Array, "n"]:
    """Number of points within a distance of every node.

    Args:
      xyz: nodes in Å.
      mask: True for nodes; None for all.
      others: points to count, in Å (all heavy atoms, for instance); a point at a node's own place is not counted. None
        counts the other nodes.
      others_mask: True for points to count; None for all.
      cutoff: largest distance in Å.

    Returns:
      Counts; 0 for masked nodes.
    """
    present = _present(xyz, mask)
    points, counted = (xyz, present) if others is None else (others, _present(others, others_mask))
    difference = _hidden(xyz, present)[:, None] - _hidden(points, counted)[None]
    squared = jnp.sum(difference**2, -1)
    near = (squared <= cutoff**2) & (squared > 1e-6) & present[:, None] & counted[None]
    return near.sum(1).astype(xyz.dtype)


def _present(xyz: Points, mask: Mask | None) -> Mask:
    return jnp.ones(len(xyz), bool) if mask is None else mask


def _hidden(xyz: Points, present: Mask) -> Points:
    return jnp.where(present[:, None], xyz, 0)


def _contacts(xyz: Points, mask: Mask | None, cutoff: float) -> tuple[Array, Array, Array]:
    """Differences (n, n, 3), squared distances and which pairs are joined; nodes at one place are not."""
    present = _present(xyz, mask)
    x = _hidden(xyz, present)
    difference = x[:, None] - x[None]
    squared = jnp.sum(difference**2, -1)
    contact = (squared <= cutoff**2) & (squared > 1e-6) & present[:, None] & present[None]
    return difference, squared, contact


def _inverse_diagonal(
    matrix: Float[Array, "d d"], free: Float[Array, "d f"], present: Bool[Array, "d"]
) -> Float[Array, "d"]:
    """Diagonal of the pseudo-inverse of a matrix with known null vectors.

    In float32 the eigenvalues of the rigid motions come out as anything around 1e-6 of the largest, which is where the
    soft modes of a large protein lie; hence these motions (and padded rows) are given a stiffness, and it is taken off
    afterwards. What is still free belongs to loose parts and is dropped.
    """
    stiff = jnp.trace(matrix) / jnp.maximum(present.sum(), 1)
    stiff = jnp.where(stiff > 0, stiff, 1)
    free, _ = jnp.linalg.qr(free / jnp.maximum(jnp.linalg.norm(free, axis=0), 1e-6)[None])
    free = jnp.where(present[:, None], free, 0)
    padding = jnp.diag(jnp.where(present, 0, stiff).astype(matrix.dtype))
    values, vectors = jnp.linalg.eigh(matrix + stiff * (free @ free.T) + padding)
    kept = values > 20 * jnp.finfo(matrix.dtype).eps * values[-1]
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    diagonal = jnp.sum(vectors**2 * inverse[None], 1) - jnp.sum(free**2, 1) / stiff
    return jnp.where(present, jnp.maximum(diagonal, 0), 0)

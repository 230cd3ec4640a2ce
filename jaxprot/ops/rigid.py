"""Rigid superposition (Kabsch), RMSD and RMSF: weighted, maskable by zero weights, and safe under vmap and grad."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rotation = Float[Array, "3 3"]
Points = Float[Array, "n 3"]
Weights = Float[Array, "n"]


def superpose(mobile: Points, target: Points, weights: Weights | None = None) -> tuple[Rotation, Float[Array, "3"]]:
    """Finds the rotation and translation that bring `mobile` onto `target` with the least weighted squared distance.

    Args:
      mobile: points in Å.
      target: their partners in Å.
      weights: at least 0; 0 leaves a pair out (its coordinates may be anything finite or not). None counts all alike.

    Returns:
      `rotation` and `translation` (Å) with `apply(rotation, translation, mobile)` the superposed points. With all
      weights 0 this is the identity.
    """
    mobile, target, weights = _clean(mobile, target, weights)
    centre_mobile, centre_target = _mean(mobile, weights), _mean(target, weights)
    covariance = (weights[:, None] * (mobile - centre_mobile[None, :])).T @ (target - centre_target[None, :])
    rotation = best_rotation(covariance)
    return rotation, centre_target - rotation @ centre_mobile


def apply(rotation: Rotation, translation: Float[Array, "3"], points: Points) -> Points:
    """Moves points: `rotation @ x + translation` for every row x."""
    return points @ rotation.T + translation[None, :]


def superposed(mobile: Points, target: Points, weights: Weights | None = None) -> Points:
    """Returns `mobile` moved onto `target`, in Å."""
    return apply(*superpose(mobile, target, weights), mobile)


def rmsd(a: Points, b: Points, weights: Weights | None = None, *, align: bool = True) -> Float[Array, ""]:
    """Root of the weighted mean squared distance, after the best superposition unless `align` is off.

    At distance 0 the gradient is 0.

    Args:
      a: points in Å.
      b: their partners in Å.
      weights: at least 0; 0 leaves a pair out.
      align: superpose `a` on `b` first.

    Returns:
      Distance in Å; 0 if all weights are 0.
    """
    a, b, weights = _clean(a, b, weights)
    if align:
        a = a - _mean(a, weights)[None, :]
        b = b - _mean(b, weights)[None, :]
        covariance = (weights[:, None] * a).T @ b
        a = a @ best_rotation(covariance).T
    return _safe_sqrt(jnp.sum(_share(weights) * jnp.sum((a - b) ** 2, -1)))


def align_frames(
    frames: Float[Array, "frames n 3"],
    reference: Points | None = None,
    weights: Weights | None = None,
    iterations: int = 3,
    frame_weights: Float[Array, "frames"] | None = None,
) -> Float[Array, "frames n 3"]:
    """Superposes all frames of a trajectory.

    Args:
      frames: coordinates in Å.
      reference: what to superpose on; None for the mean structure, found by repeated superposition from the first
        frame.
      weights: at least 0, one per point.
      iterations: rounds towards the mean structure; unused with a `reference`.
      frame_weights: of the frames in the mean structure.

    Returns:
      The moved frames in Å.
    """
    onto = jax.vmap(superposed, in_axes=(0, None, None))
    weights = jnp.ones(frames.shape[1], frames.dtype) if weights is None else weights
    if reference is not None:
        return onto(frames, reference, weights)
    share = _share(jnp.ones(frames.shape[0], frames.dtype) if frame_weights is None else frame_weights)

    def improve(mean, _):
        return jnp.sum(share[:, None, None] * onto(frames, mean, weights), 0), None

    mean, _ = jax.lax.scan(improve, frames[0], None, length=iterations)
    return onto(frames, mean, weights)


def rmsf(
    frames: Float[Array, "frames n 3"],
    frame_weights: Float[Array, "frames"] | None = None,
    *,
    align: bool = True,
    weights: Weights | None = None,
) -> Float[Array, "n"]:
    """Root of the mean squared deviation of every point from its mean position.

    Args:
      frames: coordinates in Å.
      frame_weights: at least 0, one per frame; 0 leaves a frame out (padding).
      align: superpose the frames on their mean structure first.
      weights: of the points in that superposition.

    Returns:
      Fluctuation in Å of every point.
    """
    if frame_weights is None:
        frame_weights = jnp.ones(frames.shape[0], frames.dtype)
    frames = jnp.where(frame_weights[:, None, None] > 0, frames, frames[jnp.argmax(frame_weights > 0)][None])
    if align:
        frames = align_frames(frames, weights=weights, frame_weights=frame_weights)
    share = _share(frame_weights)[:, None]
    mean = jnp.sum(share[:, :, None] * frames, 0)
    return _safe_sqrt(jnp.sum(share * jnp.sum((frames - mean[None]) ** 2, -1), 0))


@jax.custom_jvp
def best_rotation(covariance: Rotation) -> Rotation:
    """Proper rotation R that maximises trace(R @ covariance), where covariance = sum of w x yᵀ for x onto y.

    The derivative comes from the symmetry of R @ covariance at the optimum and not through the singular vectors, which
    blow up at equal singular values. Where the best rotation is not unique (points on a line, fewer than three) the
    free part of the derivative is 0.
    """
    u, _, vt = jnp.linalg.svd(covariance)
    sign = jnp.where(jnp.linalg.det(u) * jnp.linalg.det(vt) < 0, -1.0, 1.0)
    flip = jnp.array([1.0, 1.0, 0.0], covariance.dtype) + jnp.array([0.0, 0.0, 1.0], covariance.dtype) * sign
    return (vt.T * flip[None, :]) @ u.T


@best_rotation.defjvp
def _best_rotation_jvp(primals, tangents):
    (covariance,), (tangent,) = primals, tangents
    rotation = best_rotation(covariance)
    symmetric = rotation @ covariance
    symmetric = (symmetric + symmetric.T) / 2
    change = rotation @ tangent
    skew = change - change.T
    wanted = -jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
    # [ω]S + S[ω] = [(tr S - S) ω] for symmetric S. Its eigenvalues are sums of two singular values; those that
    # vanish belong to the rotations that cost nothing.
    values, vectors = jnp.linalg.eigh(jnp.trace(symmetric) * jnp.eye(3, dtype=symmetric.dtype) - symmetric)
    floor = 10 * jnp.finfo(symmetric.dtype).eps * jnp.max(jnp.abs(values))
    usable = values > floor
    inverse = jnp.where(usable, 1 / jnp.where(usable, values, 1), 0)
    omega = vectors @ (inverse * (vectors.T @ wanted))
    zero = jnp.zeros((), omega.dtype)
    cross = jnp.stack([
        jnp.stack([zero, -omega[2], omega[1]]),
        jnp.stack([omega[2], zero, -omega[0]]),
        jnp.stack([-omega[1], omega[0], zero]),
    ])  # fmt: skip
    return rotation, cross @ rotation


def _clean(a: Points, b: Points, weights: Weights | None) -> tuple[Points, Points, Weights]:
    """Weights made explicit, and points of weight 0 set to 0 so that a NaN there reaches neither value nor gradient."""
    weights = jnp.ones(a.shape[0], a.dtype) if weights is None else jnp.asarray(weights, a.dtype)
    used = (weights > 0)[:, None]
    return jnp.where(used, a, 0), jnp.where(used, b, 0), jnp.where(used[:, 0], weights, 0)


def _share(weights: Array) -> Array:
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def _mean(points: Points, weights: Weights) -> Float[Array, "3"]:
    return _share(weights) @ points


def _safe_sqrt(x: Array) -> Array:
    """Square root whose derivative at 0 is 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)

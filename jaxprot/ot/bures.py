"""Bures-Wasserstein distance: optimal transport between Gaussians, for covariances of any rank.

W^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2). With S_a = A^T A and S_b = B^T B the last trace is
the nuclear norm of A B^T, so that no root of a matrix is needed, and of samples no covariance either.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _root(s: Array) -> tuple[Array, Array]:
    """(A, its pseudo-inverse) with S = A^T A; negative eigenvalues, which are rounding, count as 0."""
    values, vectors = jnp.linalg.eigh((s + s.T) / 2)
    floor = jnp.maximum(values[-1], 0) * s.shape[0] * jnp.finfo(s.dtype).eps
    kept = values > floor
    root = jnp.sqrt(jnp.where(kept, values, 0))
    inverse = jnp.where(kept, 1 / jnp.where(kept, root, 1), 0)
    return root[:, None] * vectors.T, vectors * inverse[None, :]


@jax.custom_vjp
def fidelity(s_a: Float[Array, "d d"], s_b: Float[Array, "d d"]) -> Float[Array, ""]:
    """tr (S_a^1/2 S_b S_a^1/2)^1/2; symmetric in its arguments."""
    return jnp.linalg.svd(_root(s_a)[0] @ _root(s_b)[0].T, compute_uv=False).sum()


def _forward(s_a: Array, s_b: Array) -> tuple[Array, tuple[Array, Array]]:
    (a, inverse_a), (b, inverse_b) = _root(s_a), _root(s_b)
    u, s, vt = jnp.linalg.svd(a @ b.T)
    # Half of the transport maps. Along directions without variance the slope is infinite: it counts as 0.
    left, right = inverse_a @ u, inverse_b @ vt.T
    return s.sum(), ((left * s[None, :]) @ left.T / 2, (right * s[None, :]) @ right.T / 2)


def _backward(maps: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    return slope * maps[0], slope * maps[1]


fidelity.defvjp(_forward, _backward)


def bures_wasserstein(
    mean_a: Float[Array, "d"],
    cov_a: Float[Array, "d d"],
    mean_b: Float[Array, "d"],
    cov_b: Float[Array, "d d"],
) -> Float[Array, ""]:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson and Landau, J. Multivariate Anal. 1982).

    Covariances may be singular. Gradients are finite; along directions without variance they are 0.

    Returns:
      At least 0, in the squared unit of the means.
    """
    difference = mean_a - mean_b
    value = difference @ difference + jnp.trace(cov_a) + jnp.trace(cov_b) - 2 * fidelity(cov_a, cov_b)
    return jnp.maximum(value, 0)


def bures_wasserstein_samples(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    a: Float[Array, "n"] | None = None,
    b: Float[Array, "m"] | None = None,
) -> Float[Array, ""]:
    """The same from samples, with unbiased covariances.

    Args:
      x: samples of the first.
      y: samples of the second.
      a: 1 for samples that count and 0 for padding; all count if not given.
      b: likewise.

    Returns:
      At least 0; a set of one sample is a point.
    """
    (mean_x, x), (mean_y, y) = _centred(x, a), _centred(y, b)
    difference = mean_x - mean_y
    inner = jnp.linalg.svd(x @ y.T if x.shape[0] <= y.shape[0] else y @ x.T, compute_uv=False).sum()
    return jnp.maximum(difference @ difference + (x * x).sum() + (y * y).sum() - 2 * inner, 0)


def _centred(x: Array, counts: Array | None) -> tuple[Array, Array]:
    """Mean, and rows A with A^T A the covariance."""
    counts = jnp.ones(x.shape[0], x.dtype) if counts is None else counts.astype(x.dtype)
    total = counts.sum()
    mean = counts @ x / total
    return mean, (x - mean[None, :]) * counts[:, None] / jnp.sqrt(jnp.maximum(total - 1, 1))

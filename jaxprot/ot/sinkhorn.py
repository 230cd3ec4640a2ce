"""Entropic optimal transport between weighted point sets, and its debiased divergence.

For weights a, b and cost C the entropic value is min over plans P of <P, C> + eps KL(P | a b^T) (Cuturi, NeurIPS 2013),
and the divergence OT(xy) - OT(xx) / 2 - OT(yy) / 2 (Feydy et al., AISTATS 2019), 0 for equal sets. Values are those of
the dual, whose error is of second order in that of the potentials.

Three things make it fast. The iteration is a product of a kernel matrix with a vector instead of a sum of exponentials,
and the matrix is made anew only where the scalings drift away (Schmitzer, SIAM J. Sci. Comput. 2019); a set against
itself is solved by the averaged symmetric update, whose error halves in every step; and over-relaxation speeds up the
others. Points are padded to buckets with weight 0, which changes no value, so that few programs are compiled.

Costs are given as factors: C[i, j] = left[i].right[j] + alpha[i] + beta[j], which holds squared distances and tables of
classes (one-hot columns) alike and needs no matrix where there are too many points for one.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxprot.core import buckets

SIZES: tuple[int, ...] = (64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Numbers of points that programs are compiled for."""
DENSE = 8192
"""Up to so many points (padded) the cost matrix is kept; above, it is computed anew by blocks in every step."""
_BLOCK = 512
_INNER = 40  # products with one kernel matrix before the potentials are taken in anew
_DRIFT = 20.0  # largest logarithm of a scaling; float32 holds exp(88)
_PERIOD = 8  # steps over which the speed of convergence is measured
_DECAY = 0.5  # of eps from stage to stage where it is annealed
_ROUGH = 0.1  # marginal error at which a stage ends


class Factors(NamedTuple):
    """A cost matrix in factors: C[i, j] = left[i].right[j] + alpha[i] + beta[j].

    Attributes:
      left: (n, k).
      right: (m, k).
      alpha: (n,).
      beta: (m,).
    """

    left: Any
    right: Any
    alpha: Any
    beta: Any

    def matrix(self) -> Array:
        """(n, m)."""
        return self.left @ self.right.T + self.alpha[:, None] + self.beta[None, :]


class Solution(NamedTuple):
    """Of one entropic problem.

    Attributes:
      value: <P, C> + eps KL(P | a b^T), in the unit of the cost.
      f: (n,) potential of the first set; the plan is P = a b^T exp((f + g - C) / eps).
      g: (m,) potential of the second.
      error: sum of |row sum of P - a| (and likewise of columns, which are exact but for symmetric problems).
      iterations: updates of both potentials, annealing included.
      converged: whether the error is below the threshold.
    """

    value: Float[Array, ""]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    error: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class Divergence(NamedTuple):
    """Of three entropic problems with one eps.

    Attributes:
      value: OT(xy) - OT(xx) / 2 - OT(yy) / 2.
      cross: solution between the sets.
      first: of the first set with itself.
      second: of the second set with itself.
    """

    value: Float[Array, ""]
    cross: Solution
    first: Solution
    second: Solution

    @property
    def error(self) -> Array:
        """Largest marginal error of the three."""
        return jnp.maximum(self.cross.error, jnp.maximum(self.first.error, self.second.error))

    @property
    def converged(self) -> Array:
        """Whether all three have converged."""
        return self.cross.converged & self.first.converged & self.second.converged


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"], scale: float = 1.0) -> Factors:
    """The cost scale |x_i - y_j|^2 in factors."""
    return Factors(-2 * scale * x, y, scale * (x * x).sum(1), scale * (y * y).sum(1))


def mean_cost(cost: Factors | Array, a: Float[Array, "n"], b: Float[Array, "m"]) -> Float[Array, ""]:
    """a^T C b without the matrix."""
    if isinstance(cost, Factors):
        return jnp.dot(a @ cost.left, b @ cost.right) + a @ cost.alpha * b.sum() + b @ cost.beta * a.sum()
    return a @ cost @ b


# Updates of a potential in the logarithmic domain: f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps).


def _log(weights: Array) -> Array:
    return jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1.0)), -jnp.inf)


def _turned(cost: Factors) -> Factors:
    return Factors(cost.right, cost.left, cost.beta, cost.alpha)


def _soft_rows(cost: Factors, g: Array, log_b: Array, eps: Array) -> Array:
    """The update without the matrix: blocks of rows one after the other."""
    n, k = cost.left.shape
    rows = -(-n // _BLOCK) * _BLOCK
    left = jnp.pad(cost.left, ((0, rows - n), (0, 0))).reshape(-1, _BLOCK, k)
    shift = (g - cost.beta) / eps + log_b

    def block(part: Array) -> Array:
        return jax.nn.logsumexp(shift[None, :] - part @ cost.right.T / eps, axis=1)

    return cost.alpha - eps * jax.lax.map(block, left).reshape(-1)[:n]


class _State(NamedTuple):
    """Of the outer loop, one round of which has one kernel matrix."""

    f: Array
    g: Array
    mass: Array
    eps: Array
    error: Array
    iterations: Array
    done: Array


class _Scaling(NamedTuple):
    """Of the inner loop: the plan is (a u) K (b v)."""

    u: Array
    v: Array
    omega: Array
    reference: Array  # error at the start of the period
    error: Array
    count: Array
    plain: Array  # whether the last update of v made the columns exact
    done: Array


def _inverse(sums: Array, weights: Array, power: Any) -> Array:
    """Correction of a scaling; points without weight keep theirs."""
    return jnp.where(weights > 0, jnp.where(weights > 0, sums, 1.0) ** -power, 1.0)


def _away(scaling: Array) -> Array:
    log = jnp.abs(jnp.log(scaling)).max()
    return ~(log <= _DRIFT)  # NaN is away, too


def _relaxation(omega: Array, error: Array, reference: Array) -> Array:
    """Over-relaxation from the speed of the last period (Lehmann et al., Optimization Letters 2022)."""
    speed = jnp.clip(error / reference, 0.0, 1.0) ** (1 / _PERIOD)
    better = 2 / (1 + jnp.sqrt(jnp.maximum(1 - speed, 1e-4)))
    # Where it does not help any more the plain step, which always converges, takes over.
    return jnp.where(error >= reference, 1.0, jnp.where(omega > 1, omega, better)).astype(omega.dtype)


def _scale(kernel: Array, a: Array, b: Array, goal: Array, limit: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Matrix scaling with a fixed kernel until the goal is reached or a scaling drifts away.

    Returns:
      (u, v, L1 error of the rows, mass, updates); the columns are exact.
    """

    def step(s: _Scaling) -> _Scaling:
        sums = s.u * (kernel @ (b * s.v))
        error = (a * jnp.abs(sums - 1)).sum()
        period = (s.count % _PERIOD == 0) & (s.count > 0)
        omega = jnp.where(period, _relaxation(s.omega, error, s.reference), s.omega)
        reference = jnp.where(period | (s.count == 0), error, s.reference)
        now = jnp.where(error < goal, 1.0, omega).astype(omega.dtype)
        u = s.u * _inverse(sums, a, now)
        v = s.v * _inverse(s.v * ((a * u) @ kernel), b, now)
        done = ((error < goal) & s.plain) | (s.count + 1 >= limit) | _away(u) | _away(v)
        return _Scaling(u, v, omega, reference, error, s.count + 1, now == 1, done)

    u, v = jnp.ones_like(a), jnp.ones_like(b)
    one, big = jnp.ones((), kernel.dtype), jnp.full((), jnp.inf, kernel.dtype)
    start = _Scaling(u, v, one, big, big, jnp.int32(0), jnp.bool_(False), jnp.bool_(False))
    end = jax.lax.while_loop(lambda s: ~s.done, step, start)
    v = end.v * _inverse(end.v * ((a * end.u) @ kernel), b, 1.0)
    sums = end.u * (kernel @ (b * v))
    return end.u, v, (a * jnp.abs(sums - 1)).sum(), (a * sums).sum(), end.count


def _scale_symmetric(kernel: Array, a: Array, goal: Array, limit: Array) -> tuple[Array, Array, Array, Array, Array]:
    """As `_scale` for a symmetric kernel and equal weights, by the averaged update; u and v are one."""

    def step(s: tuple) -> tuple:
        u, _, _, count, _ = s
        sums = u * (kernel @ (a * u))
        error = (a * jnp.abs(sums - 1)).sum()
        converged = error < goal
        done = converged | (count + 1 >= limit) | _away(u)
        # What was measured is what is returned.
        return jnp.where(done, u, u * _inverse(sums, a, 0.5)), error, (a * sums).sum(), count + 1, done

    zero = jnp.zeros((), kernel.dtype)
    start = (jnp.ones_like(a), zero, zero, jnp.int32(0), jnp.bool_(False))
    u, error, mass, count, _ = jax.lax.while_loop(lambda s: ~s[-1], step, start)
    return u, u, error, mass, count


def _first(cost: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Potentials with which every row and column of the kernel has an entry 1 and none a larger one."""
    far = jnp.asarray(jnp.inf, cost.dtype)
    f = (cost + jnp.where(b > 0, 0, far)[None, :]).min(1)
    g = (cost - jnp.where(a > 0, f, -far)[:, None]).min(0)
    return f, g


def solve(
    cost: Array | Factors,
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    eps: Any,
    *,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    symmetric: bool = False,
    start: tuple[Array, Array] | None = None,
) -> Solution:
    """Solves one entropic problem; can be jitted, and mapped over problems of one size.

    An eps below a twentieth of the mean cost is reached by annealing: it is halved from there, each stage starting
    from the potentials of the one before.

    Args:
      cost: (n, m) matrix, or factors, of which no matrix is then made.
      a: weights of the rows, sum 1; 0 for padding.
      b: weights of the columns.
      eps: in the unit of the cost, above 0.
      threshold: L1 error of the marginals at which the iteration ends.
      max_iterations: at most so many updates; `converged` then tells.
      symmetric: the cost is symmetric and b equals a; about half the work, and f equals g.
      start: potentials to begin with, for instance those of a slightly different problem.

    Returns:
      The solution; potentials of points without weight are 0.
    """
    dense = not isinstance(cost, Factors)
    dtype = jnp.result_type(cost if dense else cost.left)
    eps, threshold_ = jnp.asarray(eps, dtype), jnp.asarray(threshold, dtype)
    log_a, log_b = _log(a), _log(b)

    def stage(s: _State) -> tuple[Array, Array]:
        final = s.eps <= eps
        return final, jnp.where(final, threshold_, jnp.maximum(threshold_, _ROUGH))

    def onward(s: _State, f: Array, g: Array, error: Array, mass: Array, count: Array) -> _State:
        final, goal = stage(s)
        iterations = s.iterations + count
        done = final & ((error < threshold_) | (iterations >= max_iterations))
        # A stage of the annealing that takes too long is left as well.
        lower = (error < goal) | (iterations >= max_iterations // 2)
        return _State(f, g, mass, jnp.where(lower, jnp.maximum(eps, _DECAY * s.eps), s.eps), error, iterations, done)

    def on_matrix(s: _State) -> _State:
        _, goal = stage(s)
        f, g = jnp.where(a > 0, s.f, -jnp.inf), jnp.where(b > 0, s.g, -jnp.inf)
        kernel = jnp.exp((f[:, None] + g[None, :] - cost) / s.eps)
        limit = jnp.maximum(1, jnp.minimum(_INNER, max_iterations - s.iterations))
        scale = _scale_symmetric(kernel, a, goal, limit) if symmetric else _scale(kernel, a, b, goal, limit)
        u, v, error, mass, count = scale
        return onward(s, s.f + s.eps * jnp.log(u), s.g + s.eps * jnp.log(v), error, mass, count)

    def on_blocks(s: _State) -> _State:
        if symmetric:
            after = _soft_rows(cost, s.f, log_a, s.eps)
            sums = jnp.exp((s.f - after) / s.eps)
            error = (a * jnp.abs(sums - 1)).sum()
            f = jnp.where(error < stage(s)[1], s.f, (s.f + after) / 2)
            return onward(s, f, f, error, (a * sums).sum(), jnp.int32(1))
        g = _soft_rows(_turned(cost), s.f, log_a, s.eps)
        f = _soft_rows(cost, g, log_b, s.eps)
        error = (a * jnp.abs(jnp.exp((s.f - f) / s.eps) - 1)).sum()
        return onward(s, f, g, error, jnp.ones((), dtype), jnp.int32(1))

    if start is not None:
        f, g, first = *start, eps
    else:
        first = jnp.maximum(eps, 0.05 * jnp.abs(mean_cost(cost, a, b))).astype(dtype)
        if symmetric or not dense:
            f, g = (jnp.zeros(len(w), dtype) for w in (a, b))
        else:
            f, g = _first(cost, a, b)
    state = _State(f, g, *(jnp.asarray(x, dtype) for x in (1, first, jnp.inf)), jnp.int32(0), jnp.bool_(False))
    end = jax.lax.while_loop(lambda s: ~s.done, on_matrix if dense else on_blocks, state)
    f, g = jnp.where(a > 0, end.f, 0), jnp.where(b > 0, end.g, 0)
    value = a @ f + b @ g - eps * (end.mass - 1)
    return Solution(value, f, g, end.error, end.iterations, end.error < threshold_)


def plan(
    cost: Float[Array, "n m"], a: Float[Array, "n"], b: Float[Array, "m"], solution: Solution, eps: Any
) -> Float[Array, "n m"]:
    """The transport plan of a solution; `(plan * cost).sum()` is its cost."""
    log = (solution.f[:, None] + solution.g[None, :] - cost) / eps
    return a[:, None] * b[None, :] * jnp.exp(log)


def divergence_of(
    cross: Array | Factors,
    first: Array | Factors,
    second: Array | Factors,
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    eps: Any,
    **options: Any,
) -> Divergence:
    """Debiased divergence from three costs; can be jitted.

    Args:
      cross: cost between the sets, (n, m) or factors.
      first: of the first set with itself.
      second: of the second with itself.
      a: weights of the first, sum 1; 0 for padding.
      b: weights of the second.
      eps: shared by the three problems, in the unit of the cost.
      **options: of `solve`.
    """
    xx = solve(first, a, a, eps, symmetric=True, **options)
    yy = solve(second, b, b, eps, symmetric=True, **options)
    xy = solve(cross, a, b, eps, **options)
    return Divergence(xy.value - (xx.value + yy.value) / 2, xy, xx, yy)


@functools.partial(jax.jit, static_argnames=("dense", "symmetric", "max_iterations"))
def _compiled(factors, a, b, eps, threshold, *, dense, symmetric, max_iterations):
    cost = factors.matrix() if dense else factors
    return solve(cost, a, b, eps, threshold=threshold, symmetric=symmetric, max_iterations=max_iterations)


def padded_size(n: int) -> int:
    """Number of points that `n` are padded to."""
    return buckets.bucket_length(n, SIZES)


def solve_padded(
    factors: Factors,
    a: np.ndarray,
    b: np.ndarray,
    eps: float,
    *,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    symmetric: bool = False,
    dense: bool | None = None,
) -> Solution:
    """Solves a problem of host arrays by a program of its padded size.

    Args:
      factors: of the cost, numpy; their type decides the precision (float64 only while jax has it enabled).
      a: (n,) weights, sum 1.
      b: (m,) weights.
      eps: in the unit of the cost.
      threshold: see `solve`.
      max_iterations: see `solve`.
      symmetric: see `solve`.
      dense: keep the cost matrix; by default where both padded sizes are at most `DENSE`.

    Returns:
      The solution, numpy and without padding.
    """
    n, m = len(a), len(b)
    rows, columns = padded_size(n), padded_size(m)
    dtype = np.asarray(factors.left).dtype
    sizes = (rows, columns, rows, columns)
    padded = Factors(*(buckets.pad_to(np.asarray(x, dtype), size) for x, size in zip(factors, sizes, strict=True)))
    weights = (buckets.pad_to(np.asarray(w, dtype), size) for w, size in ((a, rows), (b, columns)))
    if dense is None:
        dense = max(rows, columns) <= DENSE
    scalars = (dtype.type(eps), dtype.type(threshold))
    options = {"dense": dense, "symmetric": symmetric, "max_iterations": max_iterations}
    out = jax.device_get(_compiled(padded, *weights, *scalars, **options))
    return out._replace(f=out.f[:n], g=out.g[:m])

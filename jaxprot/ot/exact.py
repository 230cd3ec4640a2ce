"""Exact optimal transport of small sets on the host, and sliced distances.

Equal numbers of points with equal weights are an assignment; everything else is a linear program. Of that only a few
arcs per point are given to the solver, and arcs whose reduced cost is negative are added until there are none: the
duals then prove that the value is that of the whole problem.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxprot.core.errors import InputError

MOST = 5000
"""Points of a side at most."""
_WHOLE = 20_000  # arcs up to which the whole program is given at once
_NEAR = 6  # arcs per point to begin with, and to add at most in a round
_ROUNDS = 200


@dataclasses.dataclass(frozen=True)
class Plan:
    """An optimal plan.

    Attributes:
      value: least cost, in the unit of the cost.
      rows: (k,) points of the first set, ...
      columns: (k,) ... points of the second set, and ...
      mass: (k,) ... what moves between them; all other entries of the plan are 0.
    """

    value: float
    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray


def exact_transport(cost: np.ndarray, a: np.ndarray | None = None, b: np.ndarray | None = None) -> Plan:
    """Least cost of moving one weighted set onto another.

    Args:
      cost: (n, m), finite.
      a: (n,) weights of the rows, not negative; equal if not given. They are scaled to sum 1.
      b: (m,) weights of the columns.

    Returns:
      The plan, in float64.

    Raises:
      InputError: numbers that are not finite, weights that do not fit, or too many points.
    """
    cost = np.asarray(cost, np.float64)
    if cost.ndim != 2 or 0 in cost.shape or not np.isfinite(cost).all():
        raise InputError(f"cost of shape {cost.shape}: expected a matrix of finite numbers")
    if max(cost.shape) > MOST:
        raise InputError(f"exact transport of {cost.shape[0]} x {cost.shape[1]} points: at most {MOST}; take a sample")
    a, b = (_weights(w, n) for w, n in zip((a, b), cost.shape, strict=True))
    if len(a) == len(b) and np.ptp(a) == 0 and np.ptp(b) == 0:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(cost)
        mass = np.full(len(rows), 1 / len(rows))
        return Plan(float(cost[rows, columns].mean()), rows, columns, mass)
    keep_a, keep_b = np.flatnonzero(a), np.flatnonzero(b)
    rows, columns, mass = _program(cost[np.ix_(keep_a, keep_b)], a[keep_a], b[keep_b])
    rows, columns = keep_a[rows], keep_b[columns]
    return Plan(float(cost[rows, columns] @ mass), rows, columns, mass)


def _weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    if weights is None:
        return np.full(n, 1 / n)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InputError(f"weights of shape {weights.shape} for {n} points: expected {n} numbers of at least 0")
    return weights / weights.sum()


def _program(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and masses of a basic optimal solution."""
    n, m = cost.shape
    if n * m <= _WHOLE:
        chosen = np.ones((n, m), bool)
    else:
        chosen = _corner(a, b)
        chosen |= _smallest(cost - np.add.outer(*_potentials(cost, a, b)), np.inf)
    tolerance = 1e-10 * max(np.abs(cost).max(), 1e-300)
    for _ in range(_ROUNDS):
        rows, columns = np.nonzero(chosen)
        mass, f, g = _solve(cost[rows, columns], rows, columns, a, b)
        reduced = cost - f[:, None] - g[None, :]
        new = _smallest(np.where(chosen, np.inf, reduced), -tolerance)
        if not new.any():
            used = mass > 0
            return rows[used], columns[used], mass[used]
        chosen |= new
    raise InputError(f"exact transport of {n} x {m} points did not end; use the entropic value instead")


def _smallest(values: np.ndarray, below: float) -> np.ndarray:
    """The `_NEAR` smallest entries of each row and column that are below a bound."""
    out = np.zeros(values.shape, bool)
    for axis in (0, 1):
        count = min(_NEAR, values.shape[axis])
        index = np.argpartition(values, count - 1, axis=axis).take(range(count), axis=axis)
        np.put_along_axis(out, index, True, axis=axis)
    return out & (values < below)


def _corner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Arcs of the north-west corner rule, so that there is a solution at all."""
    out = np.zeros((len(a), len(b)), bool)
    ends_a, ends_b = np.cumsum(a), np.cumsum(b)
    ends_a[-1] = ends_b[-1] = 1.0
    ends = np.union1d(ends_a, ends_b)
    # One more on either side, where rounding might put the end of a weight.
    rows, columns = (np.searchsorted(e, ends - 1e-15).clip(0, len(e) - 1) for e in (ends_a, ends_b))
    for dr, dc in ((0, 0), (0, 1), (1, 0), (1, 1)):
        out[np.minimum(rows + dr, len(a) - 1), np.minimum(columns + dc, len(b) - 1)] = True
    return out


def _potentials(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearly optimal duals, from the entropic problem."""
    import jax

    from jaxprot.ot import sinkhorn

    @jax.jit
    def entropic(cost, a, b, eps):
        return sinkhorn.solve(cost, a, b, eps, threshold=1e-2, max_iterations=500)

    mean = float(a @ cost @ b)
    low = float(cost.min())
    single = (np.asarray(x, np.float32) for x in (cost - low, a, b, 0.01 * max(mean - low, 1e-300)))
    out = entropic(*single)
    f, g = np.asarray(out.f, np.float64), np.asarray(out.g, np.float64)
    return f + low, g


def _solve(
    cost: np.ndarray, rows: np.ndarray, columns: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masses, f, g) of the program with some arcs."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    n, m, k = len(a), len(b), len(cost)
    arcs = np.arange(k)
    where = np.concatenate([rows, n + columns]), np.concatenate([arcs, arcs])
    # The last equation follows from the others; masses near 1 and costs near 1 suit the solver's tolerances.
    matrix = csr_matrix((np.ones(2 * k), where), shape=(n + m, k))[:-1]
    scale, unit = float(max(n, m)), max(float(np.abs(cost).max()), 1e-300)
    right = scale * np.concatenate([a, b])[:-1]
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    done = linprog(cost / unit, A_eq=matrix, b_eq=right, bounds=(0, None), method="highs-ds", options=tight)
    if done.status != 0:
        raise InputError(f"exact transport: the linear program ended with {done.message!r}; use the entropic value")
    duals = np.append(done.eqlin.marginals, 0.0) * unit
    return done.x / scale, duals[:n], duals[n:]


def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, projections: np.ndarray | None = None, *, count: int = 50, seed: int = 0
) -> float:
    """Sliced 2-Wasserstein distance: root of the mean squared distance along lines (Bonneel et al., JMIV 2015).

    Args:
      x: (n, d) points.
      y: (m, d) points.
      projections: (k, d) directions; `count` random unit vectors if not given.
      count: of random directions.
      seed: of random directions.

    Returns:
      Distance in the unit of the points.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if projections is None:
        projections = np.random.default_rng(seed).normal(size=(count, x.shape[1]))
        projections /= np.linalg.norm(projections, axis=1, keepdims=True)
    px, py = (np.sort(z @ np.asarray(projections, np.float64).T, axis=0) for z in (x, y))
    n, m = len(x), len(y)
    # Quantile functions are constant between the multiples of 1/n and 1/m, in units of 1/(n m).
    ends = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    squares = (px[ends[:-1] // m] - py[ends[:-1] // n]) ** 2
    return float(np.sqrt((np.diff(ends) @ squares).mean() / (n * m)))

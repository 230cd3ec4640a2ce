"""Transport that may create and destroy mass, by ott-jax."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn


class Unbalanced(NamedTuple):
    """An unbalanced plan.

    Attributes:
      plan: (n, m).
      cost: sum of plan times cost.
      mass: of the plan.
      converged: whether the potentials have settled.
    """

    plan: Float[Array, "n m"]
    cost: Float[Array, ""]
    mass: Float[Array, ""]
    converged: Bool[Array, ""]


def unbalanced_transport(
    cost: Float[Array, "n m"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    *,
    eps: float,
    rho: float,
    threshold: float = 1e-6,
    max_iterations: int = 5000,
) -> Unbalanced:
    """Minimiser of <P, C> + eps KL(P | a b^T) + rho KL(P 1 | a) + rho KL(P^T 1 | b) (Chizat et al., Math. Comp. 2018).

    Args:
      cost: (n, m).
      a: weights above 0.
      b: weights above 0.
      eps: strength of the entropy, unit of the cost.
      rho: price of mass, unit of the cost; the larger, the nearer to balanced transport.
      threshold: change of the potentials at which the iteration ends.
      max_iterations: at most so many.
    """
    # ott measures entropy against counting instead of a b^T; this cost makes up for it.
    shifted = cost - eps * (jnp.log(a)[:, None] + jnp.log(b)[None, :])
    tau = rho / (rho + eps)
    problem = linear_problem.LinearProblem(
        geometry.Geometry(cost_matrix=shifted, epsilon=eps), a=a, b=b, tau_a=tau, tau_b=tau
    )
    with jax.numpy_rank_promotion("allow"):  # which its code relies on
        out = ott_sinkhorn.Sinkhorn(threshold=threshold, max_iterations=max_iterations)(problem)
    plan = out.matrix
    return Unbalanced(plan, (plan * cost).sum(), plan.sum(), out.converged)

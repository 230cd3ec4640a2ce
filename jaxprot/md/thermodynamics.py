"""Folding thermodynamics from simulations at several temperatures: reweighting, melting temperature, heat capacity.

Configurations of all runs are put together and weighted for any temperature between theirs with the multistate Bennett
acceptance ratio: Shirts & Chodera, J. Chem. Phys. 129:124105 (2008), doi 10.1063/1.2978177. States differ in their
temperature alone, so one potential energy per configuration is all it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.units import BOLTZMANN_EV


class Reweighting(NamedTuple):
    """Free energies of the simulated temperatures.

    Attributes:
      energies: (n,) eV of all configurations, run after run.
      beta: (k,) 1/eV of the runs.
      counts: (k,) configurations of each.
      free: (k,) dimensionless free energies, the first 0.
    """

    energies: np.ndarray
    beta: np.ndarray
    counts: np.ndarray
    free: np.ndarray


class Folding(NamedTuple):
    """Of a protein that folds, at each temperature; unfolding is positive.

    Attributes:
      temperature: (t,) K.
      folded: (t,) share of folded configurations.
      free_energy: (t,) eV, F(unfolded) - F(folded).
      enthalpy: (t,) eV, mean potential energy of the unfolded less that of the folded.
      heat_capacity: (t,) eV/K of all configurations, without the part of the momenta.
      heat_capacity_change: (t,) eV/K, of the unfolded less that of the folded.
      effective: (t,) number of configurations that carry the weights (Kish).
      melting: K, where half is folded; NaN if that is not between the temperatures.
    """

    temperature: np.ndarray
    folded: np.ndarray
    free_energy: np.ndarray
    enthalpy: np.ndarray
    heat_capacity: np.ndarray
    heat_capacity_change: np.ndarray
    effective: np.ndarray
    melting: float


def reweighting(energies: Sequence[np.ndarray], temperatures: Sequence[float]) -> Reweighting:
    """Solves for the free energies of runs at several temperatures.

    Args:
      energies: of each run, potential energies in eV.
      temperatures: of each run, K.

    Raises:
      InputError: no configurations, values that are not finite, or runs whose energies do not overlap.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp, softmax

    if len(energies) != len(temperatures) or not len(energies):
        raise InputError(f"{len(energies)} sets of energies for {len(temperatures)} temperatures")
    parts = [np.asarray(one, np.float64).ravel() for one in energies]
    for one, t in zip(parts, temperatures, strict=True):
        if not len(one) or not np.isfinite(one).all() or not t > 0:
            raise InputError(f"run at {t} K: energies must be finite and at least one, temperatures above zero")
    beta = 1 / (BOLTZMANN_EV * np.asarray(temperatures, np.float64))
    counts = np.array([len(one) for one in parts])
    pooled = np.concatenate(parts)
    reduced = beta[:, None] * (pooled - pooled.mean())
    share = counts / counts.sum()

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        # Convex; its gradient vanishes where the equations of the estimator hold. The first free energy is 0.
        free = np.concatenate([[0], free])
        mixture = logsumexp(free[:, None] - reduced, axis=0, b=share[:, None])
        return np.mean(mixture) - np.sum(share * free), (belonging(free).mean(1) - share)[1:]

    def belonging(free: np.ndarray) -> np.ndarray:
        return softmax(np.log(share)[:, None] + free[:, None] - reduced, axis=0)

    def hessian(free: np.ndarray) -> np.ndarray:
        of = belonging(np.concatenate([[0], free]))[1:]
        return np.diag(of.mean(1)) - of @ of.T / of.shape[1]

    free = np.zeros(len(beta) - 1)
    if len(free):
        # Between neighbours in temperature the difference is about that of the mean energies.
        means, order = np.array([one.mean() for one in parts]) - pooled.mean(), np.argsort(beta)
        first = np.zeros(len(beta))
        first[order[1:]] = np.cumsum(np.diff(beta[order]) * (means[order][1:] + means[order][:-1]) / 2)
        found = minimize(
            objective, (first - first[0])[1:], jac=True, hess=hessian, method="trust-exact",
            options={"gtol": 1e-10, "maxiter": 500},
        )  # fmt: skip
        free = found.x
        if not np.isfinite(free).all() or np.abs(found.jac).max() > 1e-6:
            raise InputError("the energies of the runs do not overlap enough for common weights; add temperatures "
                             "between them")  # fmt: skip
    return Reweighting(pooled, beta, counts, np.concatenate([[0], free]))


def log_weights(found: Reweighting, temperature: float) -> np.ndarray:
    """(n,) logarithms of the configurations' weights at a temperature in K; the weights sum to one."""
    energies = found.energies - found.energies.mean()
    mixture = np.log(found.counts)[:, None] + found.free[:, None] - found.beta[:, None] * energies
    high = mixture.max(0)
    logs = -energies / (BOLTZMANN_EV * temperature) - high - np.log(np.exp(mixture - high).sum(0))
    top = logs.max()
    return logs - top - np.log(np.exp(logs - top).sum())


def folding(found: Reweighting, folded: np.ndarray, temperatures: np.ndarray) -> Folding:
    """Stability of the folded state over temperature.

    Args:
      found: weights of the configurations.
      folded: (n,) whether each is folded, in the order of `found.energies`.
      temperatures: (t,) K at which to look; those far outside the simulated ones rest on few configurations, see
        `effective`.

    Raises:
      InputError: another number of flags than configurations, or one of the states never seen.
    """
    folded = np.asarray(folded, bool)
    if folded.shape != found.energies.shape:
        raise InputError(f"{folded.shape[0]} flags for {len(found.energies)} configurations")
    if folded.all() or not folded.any():
        state = "folded" if folded.all() else "unfolded"
        raise InputError(f"every configuration is {state}: simulate longer, or at temperatures where both states are")
    temperatures = np.asarray(temperatures, np.float64)
    rows = []
    for t in temperatures:
        weight = np.exp(log_weights(found, t))
        parts = []
        for state in (slice(None), folded, ~folded):
            w, u = weight[state], found.energies[state]
            mean = np.sum(w * u) / w.sum()
            parts.append((w.sum(), mean, np.sum(w * (u - mean) ** 2) / w.sum() / (BOLTZMANN_EV * t**2)))
        (_, _, heat), (share, below, cold), (rest, above, hot) = parts
        free = -BOLTZMANN_EV * t * np.log(rest / share)
        rows.append((share, free, above - below, heat, hot - cold, 1 / np.sum(weight**2)))
    columns = np.array(rows).T
    free = columns[1]
    crossing = np.flatnonzero((free[:-1] > 0) & (free[1:] <= 0))
    melting = np.nan
    if len(crossing):
        i = crossing[0]
        melting = float(np.interp(0.0, [-free[i], -free[i + 1]], temperatures[i : i + 2]))
    return Folding(temperatures, *columns, melting)


def bootstrap(
    energies: Sequence[np.ndarray],
    folded: Sequence[np.ndarray],
    temperatures: Sequence[float],
    at: np.ndarray,
    *,
    blocks: int = 5,
    draws: int = 50,
    seed: int = 0,
) -> list[Folding]:
    """Repeats the estimate with blocks of each run drawn with replacement.

    Args:
      energies: of each run, (n,) eV in the order of time.
      folded: of each run, (n,).
      temperatures: of each run, K.
      at: (t,) K.
      blocks: of consecutive configurations that each run is cut into: neighbours in time are alike.
      draws: number of repetitions.
      seed: of the draws.

    Returns:
      Estimates; draws without one of the states, or without a common solution, are left out.
    """
    rng, out = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = []
        for one in energies:
            cuts = np.array_split(np.arange(len(one)), min(blocks, len(one)))
            chosen.append(np.concatenate([cuts[i] for i in rng.integers(len(cuts), size=len(cuts))]))
        try:
            found = reweighting([one[rows] for one, rows in zip(energies, chosen, strict=True)], temperatures)
            flags = np.concatenate([one[rows] for one, rows in zip(folded, chosen, strict=True)])
            out.append(folding(found, flags, at))
        except InputError:
            continue
    return out

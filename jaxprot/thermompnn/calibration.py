"""From the spread over noised backbones to a standard deviation that fits the errors on held-out proteins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def standard_deviation(spread: np.ndarray, scale: float, floor: float) -> np.ndarray:
    """sqrt(floor² + (scale · spread)²), kcal/mol."""
    return np.sqrt(floor**2 + (scale * spread) ** 2)


def of_size(uncertainty: Mapping[str, Any], residues: int) -> tuple[float, float]:
    """Scale and floor for a structure of so many residues.

    Args:
      uncertainty: `scale` and `floor`, and optionally `large`, a mapping of `residues`, `scale` and `floor`, which
        holds from that many residues on: errors on large proteins, measured one by one in many laboratories, are
        wider than those of one assay on small domains.
      residues: modelled residues, all chains together.
    """
    large = uncertainty.get("large")
    used = large if large and residues >= large["residues"] else uncertainty
    return float(used["scale"]), float(used["floor"])


def gaussian_nll(error: np.ndarray, sd: np.ndarray) -> float:
    """Mean negative log-likelihood of errors under a normal law of width `sd`, nats."""
    return float(np.mean(0.5 * (error / sd) ** 2 + np.log(sd) + 0.5 * np.log(2 * np.pi)))


def fit(spread: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Maximum-likelihood `scale` and `floor` of `standard_deviation`.

    Args:
      spread: (m,) predicted spread of each value, kcal/mol.
      error: (m,) prediction minus measurement, kcal/mol.

    Returns:
      scale, floor, and the reached `nll` (nats per value).
    """

    def loss(log_values: np.ndarray) -> float:
        scale, floor = np.exp(log_values)
        return gaussian_nll(error, standard_deviation(spread, scale, floor))

    from scipy.optimize import minimize  # half a second that a scan need not wait for

    width = float(np.sqrt(np.mean(np.square(error)))) + 1e-6
    best = minimize(loss, np.log([1.0, width]), method="Nelder-Mead")
    scale, floor = np.exp(best.x)
    return {"scale": float(scale), "floor": float(floor), "nll": float(best.fun)}


def coverage(error: np.ndarray, sd: np.ndarray) -> dict[str, float]:
    """Share of errors within one and two standard deviations (0.683 and 0.954 for a normal law)."""
    ratio = np.abs(error) / sd
    return {"within_1_sd": float(np.mean(ratio < 1)), "within_2_sd": float(np.mean(ratio < 2))}

"""Learning-rate schedules and optimisers built from an `OptimConfig`."""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from jaxprot.train.task import OptimConfig


def trapezoid(peak: float, steps: int, warmup: int, decay: float) -> optax.Schedule:
    """Linear rise over `warmup` steps, a plateau, and a linear fall to zero over the last `decay` of `steps`."""
    fall = max(1, int(steps * decay))
    plateau = max(warmup, steps - fall)
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / max(1, warmup), peak, warmup),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, 0.0, fall),
        ],
        [warmup, plateau],
    )


def optimiser(cfg: OptimConfig, steps: int, params: Any) -> optax.GradientTransformation:
    """The optimiser of a configuration, with gradient clipping.

    Raises:
      ValueError: unknown name.
    """
    schedule = trapezoid(cfg.lr, steps, cfg.warmup, cfg.decay)
    if cfg.name == "adamw":
        inner = optax.adamw(schedule, b2=0.98, weight_decay=cfg.weight_decay)
    elif cfg.name == "muon":
        # Embedding tables are look-ups, not maps: orthogonalising their update has no meaning.
        def dimensions(path, leaf):
            matrix = leaf.ndim == 2 and "embedding" not in jax.tree_util.keystr(path[-2:])
            return contrib.MuonDimensionNumbers() if matrix else None

        inner = contrib.muon(
            schedule,
            weight_decay=cfg.weight_decay,
            adam_b2=0.98,
            adam_weight_decay=0.0,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=jax.tree_util.tree_map_with_path(dimensions, params),
        )
    else:
        raise ValueError(f"unknown optimiser {cfg.name!r}; known: adamw, muon")
    return optax.chain(optax.clip_by_global_norm(cfg.clip), inner)

"""Learning rates: of every step from a configuration, and lowered by validation figures."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxprot.train.task import OptimConfig, PlateauConfig

_SMALLEST_CHANGE = 1e-8  # PyTorch's: a rate that would fall by less stays


def trapezoid(peak: float, steps: int, warmup: int, decay: float, final: float = 0.0) -> optax.Schedule:
    """Linear rise over `warmup` steps, a plateau, and a linear fall to `final` over the last `decay` of `steps`."""
    fall = max(1, int(steps * decay))
    plateau = max(warmup, steps - fall)
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / max(1, warmup), peak, warmup),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, final, fall),
        ],
        [warmup, plateau],
    )


def constant(peak: float, warmup: int) -> optax.Schedule:
    """Linear rise over `warmup` steps, then `peak`."""
    rise = optax.linear_schedule(peak / max(1, warmup), peak, warmup)
    return optax.join_schedules([rise, optax.constant_schedule(peak)], [warmup])


def cosine(peak: float, steps: int, warmup: int, final: float = 0.0) -> optax.Schedule:
    """Linear rise over `warmup` steps, then half a cosine down to `final` at `steps`."""
    return optax.warmup_cosine_decay_schedule(
        peak / max(1, warmup), peak, warmup, max(steps, warmup + 1), end_value=final
    )


def noam(peak: float, warmup: int) -> optax.Schedule:
    """Linear rise over `warmup` steps, then a fall with the inverse square root of the step (counted from 1).

    The form of the Transformer paper, factor * width^-0.5 * min(s^-0.5, s * warmup^-1.5), has its peak
    factor * (width * warmup)^-0.5 at s = warmup.
    """
    turn = max(1, warmup)

    def rate(count):
        step = jnp.asarray(count, jnp.float32) + 1.0
        return peak * jnp.minimum(step / turn, jnp.sqrt(turn / step))

    return rate


def schedule(cfg: OptimConfig, steps: int) -> optax.Schedule:
    """The schedule of a configuration, a function of the 0-based step.

    Raises:
      ValueError: unknown name.
    """
    if cfg.schedule == "constant":
        return constant(cfg.lr, cfg.warmup)
    if cfg.schedule == "trapezoid":
        return trapezoid(cfg.lr, steps, cfg.warmup, cfg.decay, cfg.final)
    if cfg.schedule == "cosine":
        return cosine(cfg.lr, steps, cfg.warmup, cfg.final)
    if cfg.schedule == "noam":
        return noam(cfg.lr, cfg.warmup)
    raise ValueError(f"unknown schedule {cfg.schedule!r}; known: constant, trapezoid, cosine, noam")


def rates(cfg: OptimConfig, steps: int) -> np.ndarray:
    """Learning rate of every step.

    They are inputs of the compiled step and no constants in it, so that runs of other lengths or rates share it.

    Args:
      cfg: peak rate and form.
      steps: of the whole run.

    Returns:
      (steps,) float32; the step is counted from 0.

    Raises:
      ValueError: unknown name of a schedule.
    """
    values = schedule(cfg, steps)(jnp.arange(steps))
    return np.array(np.broadcast_to(np.asarray(values, np.float32), (steps,)))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """How far a run has lowered its learning rate for want of improvement; the rule of PyTorch's ReduceLROnPlateau.

    Attributes:
      scale: factor on the scheduled rates.
      best: best figure so far, None before the first.
      wait: evaluations since, or since the rate was last lowered.
    """

    scale: float = 1.0
    best: float | None = None
    wait: int = 0

    def after(self, value: float, cfg: PlateauConfig, lr: float) -> Plateau:
        """The state after one more evaluation.

        A figure counts as better where it exceeds `best * (1 + threshold)` (mode max) or falls below
        `best * (1 - threshold)` (mode min); NaN never does. As in PyTorch, that margin is on the wrong side for
        negative figures, so that standing still counts as progress there.

        Args:
          value: the validation figure.
          cfg: when and how far to lower.
          lr: peak learning rate, by which `cfg.minimum` is measured.

        Raises:
          ValueError: a mode other than max and min.
        """
        if cfg.mode not in ("max", "min"):
            raise ValueError(f"plateau mode {cfg.mode!r}; known: max, min")
        if cfg.factor == 1.0:
            return self
        value = float(value)
        if self._better(value, cfg):
            return Plateau(self.scale, value, 0)
        if self.wait < cfg.patience:
            return Plateau(self.scale, self.best, self.wait + 1)
        lowered = max(lr * self.scale * cfg.factor, cfg.minimum)
        if lr * self.scale - lowered <= _SMALLEST_CHANGE:
            return Plateau(self.scale, self.best, 0)
        # From the factor where that is what counts: rates of 1e-3 * 0.5^n are then exact multiples.
        scale = self.scale * cfg.factor if lowered > cfg.minimum else lowered / lr
        return Plateau(scale, self.best, 0)

    def _better(self, value: float, cfg: PlateauConfig) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return math.isfinite(value)
        if cfg.mode == "max":
            return value > self.best * (1.0 + cfg.threshold)
        return value < self.best * (1.0 - cfg.threshold)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON beside a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Plateau:
        """What `to_dict` gave."""
        best = plain.get("best")
        return cls(float(plain.get("scale", 1.0)), None if best is None else float(best), int(plain.get("wait", 0)))

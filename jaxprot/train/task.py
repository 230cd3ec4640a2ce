"""What a system hands the training engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from jaxtyping import Array, PRNGKeyArray


class Task(Protocol):
    """A model, its data and its loss.

    A batch is a pytree of numpy arrays with a leading axis of examples; the engine differentiates the loss of one
    example at a time, so an example may be a whole protein.
    """

    monitor: str
    """Name of the evaluation figure that selects the best weights (larger is better)."""

    def build(self, key: PRNGKeyArray) -> Any:
        """The NNX module to train, initialised."""
        ...

    def batch(self, step: int, seed: int) -> Any:
        """The batch of a step, a function of (step, seed) alone, so that a resumed run sees the same data."""
        ...

    def loss(self, model: Any, example: Any, key: PRNGKeyArray) -> tuple[Array, Array]:
        """(sum, count) of the loss over one example; the engine minimises sum(sum) / sum(count)."""
        ...

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """A function from parameters to validation figures."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule.

    Attributes:
      name: `adamw`, or `muon` (orthogonalised momentum for the matrices, AdamW for the rest).
      lr: peak learning rate (Muon's update is scaled to AdamW's root mean square, so one value serves both).
      weight_decay: decoupled weight decay.
      warmup: steps of linear rise.
      decay: fraction of all steps, at the end, over which the rate falls linearly to zero.
      clip: largest global norm of the gradient.
      ema: decay of the running average of the weights that is evaluated and exported.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    decay: float = 0.4
    clip: float = 1.0
    ema: float = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: a task, an optimiser and when to evaluate and save.

    Attributes:
      task: model, data and loss.
      optim: optimiser and schedule.
      steps: in all.
      seed: of data order, noise and dropout.
      init_seed: of the initial weights, `seed` if None; runs whose weights are to be averaged share it.
      evaluate_every: steps between evaluations.
      save_every: steps between checkpoints.
      keep: checkpoints kept.
    """

    task: Any
    optim: OptimConfig = OptimConfig()
    steps: int = 1000
    seed: int = 0
    init_seed: int | None = None
    evaluate_every: int = 500
    save_every: int = 200
    keep: int = 2

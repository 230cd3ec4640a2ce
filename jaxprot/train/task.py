"""What a system hands the training engine, and the configuration of a run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from jaxtyping import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    import numpy as np

    from jaxprot.train.data import Batch


class Mean(NamedTuple):
    """One term of a loss, as a sum and a count, so that it can be added up over examples and devices.

    The engine minimises the sum over the terms of `weight * sum(total) / sum(count)`, where the sums run over the whole
    batch on all devices; a weight of 0 makes a term that is only logged.
    """

    total: Float[Array, ""]
    count: Float[Array, ""]
    weight: float | Float[Array, ""] = 1.0


class Task(Protocol):
    """A model, its data and its loss.

    Optional further members:
      resident() -> pytree: arrays with a leading axis of examples that are put on the devices once; `load` is not
        called then, the engine gathers the rows on the device.
      batch_loss(model, examples, keys, weight, axis) -> dict[str, Mean]: instead of `loss`, for terms that join
        examples (batch normalisation, variances over a batch). Leading axes are examples, `weight` is 0 for padding,
        and `axis` is the name of the device axis for collectives, or None on one device. `micro` says how many come
        at once; its default of 1 is refused.
      files() -> iterable of paths: data files, whose hashes are noted beside the checkpoints.
      header() -> dict: what exported weights say of themselves, where `model` is not all or not what is built.
    """

    monitor: str
    """Name of the evaluation figure that selects the best weights (larger is better)."""

    def build(self, key: PRNGKeyArray) -> Any:
        """The NNX module to train, initialised; it holds no random state, keys are arguments."""
        ...

    def batches(self, step: int, seed: int) -> Batch:
        """Which examples form the batch of a step, a function of (step, seed) alone.

        So a resumed run sees the same data, and every process knows the whole batch and loads its part.
        """
        ...

    def load(self, shape: Hashable, members: np.ndarray) -> Any:
        """The examples of a batch as a pytree of numpy arrays with a leading axis; called by several threads."""
        ...

    def loss(self, model: Any, example: Any, key: PRNGKeyArray) -> dict[str, Mean]:
        """The terms of the loss of one example (no leading axis), which may be a whole protein."""
        ...

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """A function from variables (for `nnx.merge(graphdef, variables)`, in evaluation mode) to validation figures.

        Every process calls it, so it must give the same figures in all of them.
        """
        ...


def _within(cfg: Any, **ranges: tuple[float, float | None]) -> None:
    """Raises a ValueError where a value is no number from the smallest to the largest (None: no end); None passes."""
    for name, (least, most) in ranges.items():
        value = getattr(cfg, name)
        if value is not None and not least <= value <= (sys.float_info.max if most is None else most):
            allowed = f"at least {least}" if most is None else f"from {least} to {most}"
            raise ValueError(f"{name} {value}: give a number, {allowed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """Lowers the learning rate when a validation figure stops improving (as PyTorch's ReduceLROnPlateau).

    Attributes:
      figure: name of the figure; the task's monitor if None.
      mode: whether the largest or the smallest figure is best.
      factor: the rate is multiplied by it; 1 switches the whole off.
      patience: evaluations without improvement that are waited for.
      threshold: relative change that counts as an improvement.
      minimum: smallest learning rate.
    """

    figure: str | None = None
    mode: Literal["max", "min"] = "max"
    factor: float = 1.0
    patience: int = 10
    threshold: float = 1e-4
    minimum: float = 0.0

    def __post_init__(self):
        _within(self, factor=(0, 1), patience=(0, None), minimum=(0, None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule.

    Attributes:
      name: `sgd`; `adam` (weight decay added to the gradient); `adamw`; `muon` (orthogonalised momentum for
        matrices and kernels of 2-D and 3-D convolutions, AdamW for the rest); `radam` (with decoupled decay).
      lr: peak learning rate (Muon's update is scaled to AdamW's root mean square, so one value serves both).
      momentum: of `sgd`.
      b1, b2, eps: of the Adam family.
      weight_decay: strength of the decay.
      no_decay: parts of parameter paths (`bias`) without weight decay.
      lookahead: steps between two synchronisations of Lookahead's slow weights; 0 switches it off.
      lookahead_rate: how far the slow weights move towards the fast ones.
      schedule: `constant`, `trapezoid` (plateau, then a linear fall), `cosine`, or `noam` (inverse square root); each
        after a linear rise.
      warmup: steps of linear rise.
      decay: fraction of all steps, at the end, over which `trapezoid` falls linearly to `final`.
      final: last learning rate of `trapezoid` and `cosine`.
      plateau: lowers the rate further by validation figures.
      clip: largest global norm of the gradient, None for no clipping.
      ema: decay of the running average of the weights that is evaluated and exported; 0 takes the weights themselves.
      frozen: parts of parameter paths (`backbone`) that are not trained.
      rates: (part of parameter paths, factor) that scale the learning rate of sub-trees; the first match counts.
    """

    name: Literal["sgd", "adam", "adamw", "muon", "radam"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.0
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = ()
    lookahead: int = 0
    lookahead_rate: float = 0.5
    schedule: Literal["constant", "trapezoid", "cosine", "noam"] = "trapezoid"
    warmup: int = 100
    decay: float = 0.4
    final: float = 0.0
    plateau: PlateauConfig = PlateauConfig()
    clip: float | None = 1.0
    ema: float = 0.999
    frozen: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        _within(self, lr=(0, None), momentum=(0, 1), b1=(0, 1), b2=(0, 1), eps=(0, None), weight_decay=(0, None))
        _within(self, lookahead=(0, None), lookahead_rate=(0, 1), warmup=(0, None), decay=(0, 1), final=(0, None))
        _within(self, clip=(0, None), ema=(0, 1))
        if self.clip == 0:
            raise ValueError(f"clip {self.clip}: would hold every weight in its place; none switches clipping off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: a task, an optimiser and when to evaluate and save.

    Attributes:
      task: model, data and loss.
      optim: optimiser and schedule.
      steps: in all.
      seed: of data order, noise and dropout.
      init_seed: of the initial weights, `seed` if None; runs whose weights are to be averaged share it.
      micro: examples at once on a device; a batch is cut into such parts, whose gradients are accumulated, so it bounds
        the memory and changes the result by rounding only (0: the whole batch at once, for batch normalisation).
      chunk: steps per dispatch, one program that scans over them; for steps of a millisecond and batches of one shape.
      precision: type the network computes in; weights, optimiser and sums of the loss stay float32.
      evaluate_every: steps between evaluations.
      evaluate_start: whether the weights that training begins with are evaluated too, and kept where none are better.
      save_every: steps between checkpoints.
      log_every: steps between records of the loss.
      keep: newest checkpoints kept, beside the best one.
      workers: threads that load batches; 0 loads them in the loop itself.
      tensorboard: also write the metrics for TensorBoard (`jaxprot[tensorboard]`).
    """

    task: Any
    optim: OptimConfig = OptimConfig()
    steps: int = 1000
    seed: int = 0
    init_seed: int | None = None
    micro: int = 1
    chunk: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: int = 500
    evaluate_start: bool = False
    save_every: int = 200
    log_every: int = 20
    keep: int = 2
    workers: int = 2
    tensorboard: bool = False

    def __post_init__(self):
        positive = ("steps", "chunk", "evaluate_every", "save_every", "log_every", "keep")
        _within(self, **dict.fromkeys(positive, (1, None)))
        _within(self, micro=(0, None), workers=(0, None), seed=(0, 2**31 - 1), init_seed=(0, 2**31 - 1))

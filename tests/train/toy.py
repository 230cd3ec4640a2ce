"""A regression task of milliseconds for the tests of the engine; imported by processes of their own, too."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.train.data import ShuffledBatches
from jaxprot.train.task import Mean, OptimConfig, TrainConfig


class Drawn(nnx.Variable):
    """Once, never trained."""


class Net(nnx.Module):
    def __init__(self, rngs, normalised=False, drawn=False):
        self.drawn = Drawn(jax.random.normal(rngs.params(), (100,))) if drawn else None
        self.first = nnx.Linear(5, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs) if normalised else None
        self.last = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        if self.drawn is not None:
            x = x + 0.1 * self.drawn[:5].reshape((1,) * (x.ndim - 1) + (5,))
        x = self.first(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.last(jnp.tanh(x))[..., 0]


@dataclasses.dataclass(frozen=True)
class Toy:
    """Noisy inputs (the key matters), two terms with counts of their own, an uneven last batch in each epoch."""

    examples: int = 50
    size: int = 12
    terms: int = 2
    pause: float = 0.0
    broken: int = -1
    monitor: str = "fit"

    def build(self, key):
        return Net(nnx.Rngs(key))

    def batches(self, step, seed):
        return ShuffledBatches(self.examples, self.size)(step, seed)

    def load(self, shape, members):
        time.sleep(self.pause)
        x = np.stack([np.random.default_rng(i).normal(size=5) for i in members]).astype(np.float32)
        return {"x": x, "y": np.sin(x.sum(1)), "seen": (members % 3 > 0).astype(np.float32), "number": members}

    def loss(self, model, example, key):
        noisy = example["x"] + 0.1 * jax.random.normal(key, example["x"].shape)
        out = model(noisy)
        out = jnp.where(example["number"] == self.broken, jnp.nan, out)
        square = Mean(example["seen"] * (out - example["y"]) ** 2, example["seen"])
        if self.terms == 1:
            return {"square": square}
        size = Mean(jnp.abs(out), jnp.ones(()), 0.1)
        return {"square": square, "size": size, "seen": Mean(example["seen"], jnp.ones(()), 0.0)}

    def evaluator(self, graphdef):
        held = self.load(None, np.arange(100, 120))

        @jax.jit
        def fit(variables):
            return -jnp.mean((nnx.merge(graphdef, variables)(held["x"]) - held["y"]) ** 2)

        return lambda variables: {"fit": float(fit(variables))}


@dataclasses.dataclass(frozen=True)
class Resident(Toy):
    """The same with the data on the device."""

    def resident(self):
        return self.load(None, np.arange(self.examples))


@dataclasses.dataclass(frozen=True)
class Fixed(Toy):
    """With numbers that are drawn once."""

    def build(self, key):
        return Net(nnx.Rngs(key), drawn=True)


@dataclasses.dataclass(frozen=True)
class Joint(Toy):
    """With batch normalisation over the batch of a device."""

    def build(self, key):
        return Net(nnx.Rngs(key), normalised=True)

    def batch_loss(self, model, examples, keys, weight, axis):
        error = weight * (model(examples["x"]) - examples["y"]) ** 2
        return {"square": Mean(jnp.sum(error), jnp.sum(weight))}


def config(task=None, **changes):
    """Plain SGD, which hides no wrong factor of a gradient, for 20 steps."""
    optim = OptimConfig(name="sgd", lr=0.1, weight_decay=0.0, schedule="constant", warmup=0, clip=None, ema=0.9)
    settings = {"optim": optim, "steps": 20, "evaluate_every": 10, "save_every": 10, "log_every": 5, "workers": 1}
    return TrainConfig(task=task or Toy(), **{**settings, **changes})

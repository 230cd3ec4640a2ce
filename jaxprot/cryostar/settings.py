"""Training settings of cryoSTAR's first phase: the published ones, and the defaults of `jaxprot cryostar fit`."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxprot.cryostar.conformation import ConformationTask
from jaxprot.train.task import OptimConfig, TrainConfig

PUBLISHED_OPTIMISER = OptimConfig(
    name="adamw", lr=1e-4, b1=0.9, b2=0.999, weight_decay=0.01, schedule="constant", warmup=0, clip=None, ema=0.0
)
"""AdamW at a constant rate, no clipping."""


def published(
    particles: str, reference: str, cache: str, *, steps: int = 96_000, batch: int = 64, devices: int = 1, **task: Any
) -> TrainConfig:
    """The settings of the paper's experiments.

    Args:
      particles: STAR or `.cs` file.
      reference: PDB or mmCIF file.
      cache: folder for the prepared images.
      steps: of training.
      batch: particles of a device and step.
      devices: whose batches the published run joined; here one batch of all is spread over what devices there are.
      **task: changes of the task.
    """
    settings: dict[str, Any] = {"downsampling": "linear", "shift": "compat", "ctf": "v2", "low_pass": 10.0}
    return TrainConfig(
        task=ConformationTask(
            particles=particles, reference=reference, cache=cache, size=batch * devices, **(settings | task)
        ),
        optim=PUBLISHED_OPTIMISER,
        steps=steps,
        seed=1,
        micro=0,
        chunk=20,
        evaluate_every=1000,
        save_every=1000,
        log_every=100,
    )


def default(particles: str = "", reference: str = "", cache: str = "", **task: Any) -> TrainConfig:
    """What `jaxprot cryostar fit` does: the published objective and network, trained otherwise.

    The encoder reads centred images, so that it need not learn where a particle lies; the rate is ten times as high,
    rises slowly and falls with a cosine, gradients are clipped, and weights are averaged: these settle in half of the
    steps. The elastic network counts a twentieth and neighbours half as much, and a fifth of each chain's elastic pairs
    is let go: with the published weights conformations are pulled back to the reference, which limits the accuracy long
    before the noise does. Chosen on simulated stacks of three proteins that are not those of the benchmark
    (BENCHMARKS.md).

    Args:
      particles: STAR or `.cs` file.
      reference: PDB or mmCIF file.
      cache: folder for the prepared images.
      **task: changes of the task.
    """
    settings: dict[str, Any] = {
        "downsampling": "fourier", "shift": "exact", "centred": True, "ratio": 0.8, "connect": 0.5, "elastic": 0.05,
    }  # fmt: skip
    cfg = published(particles, reference, cache, steps=20_000, **(settings | task))
    optim = dataclasses.replace(
        PUBLISHED_OPTIMISER, lr=1e-3, schedule="cosine", warmup=150, final=1e-6, clip=0.3, ema=0.98
    )
    return dataclasses.replace(cfg, optim=optim, seed=0)

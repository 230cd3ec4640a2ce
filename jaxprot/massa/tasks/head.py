"""Training of a head before the whole: on features of a backbone that stays, which are computed once."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from jaxprot.massa.tasks.finetune import FinetuneTask, recipe
from jaxprot.train.loop import Outcome, fit

STEPS, RATE = 10, 3e-3
"""How many times as many steps a head takes alone, on features that are kept, as the whole; its learning rate."""


def head_first(
    task: FinetuneTask, run: str | os.PathLike, *, steps: int, seed: int = 0, resume: bool = False, **options: Any
) -> tuple[FinetuneTask, Outcome]:
    """Trains the head alone, so that the whole begins where the features are of use and are not bent to a random head.

    A. Kumar et al., ICLR 2022, arXiv 2202.10054.

    Args:
      task: with weights that are pre-trained.
      run: folder for the head's run.
      steps: that the whole is going to take.
      seed: as of `recipe`.
      resume: go on with the run of the folder.
      **options: of `train.loop.fit`, such as `report`.

    Returns:
      The task that goes on with that head, and how the run ended: if it was stopped, there is nothing to go on with.
    """
    cfg = recipe(task, steps=STEPS * steps, lr=RATE, frozen=True, seed=seed)
    outcome = fit(cfg, run, resume=resume, header={"system": "massa", **task.header()}, **options)
    return dataclasses.replace(task, weights=None, start=os.fspath(run)), outcome

"""Goes on from the shipped potential with more units: how it got its stretched bonds.

`JAXPROT_UNITS` names folders of labelled units of the same level of theory, the first ones among them, so that they are
not forgotten; `JAXPROT_START` other weights than the shipped ones.
"""

import dataclasses
import os
import runpy
from pathlib import Path

from jaxprot.train.task import TrainConfig


def config() -> TrainConfig:
    """A lower rate than at first, and smaller batches, which see the small units as often as the large ones."""
    cfg = runpy.run_path(str(Path(__file__).parent / "default.py"))["config"]()
    start = os.environ.get("JAXPROT_START", "ai2bmd")
    return dataclasses.replace(
        cfg,
        task=dataclasses.replace(cfg.task, start=start, most=14),
        optim=dataclasses.replace(cfg.optim, lr=6e-4, warmup=50),
        steps=3000,
        evaluate_every=1000,
    )

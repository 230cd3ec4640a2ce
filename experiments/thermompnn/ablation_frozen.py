"""Ablation: the default with the backbone kept as it is, which is how the published model was trained."""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The head alone, at the publication's learning rate."""
    cfg = default["config"](seed)
    # Decoupled weight decay would shrink the backbone, whose gradient is zero.
    optim = dataclasses.replace(cfg.optim, lr=1e-3, weight_decay=0.0)
    return dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, frozen=True), optim=optim)

"""Ablation: the default with the backbone kept as it is, which is how the published model was trained."""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The head alone, at the publication's learning rate; all else but the weight decay is the default's."""
    cfg = default["config"](seed)
    optim = dataclasses.replace(cfg.optim, lr=1e-3, weight_decay=0.0, frozen=("backbone",), rates=())
    return dataclasses.replace(cfg, optim=optim)

"""Ablation of the training data: the published Megascale split alone, without the default's further proteins."""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The default on the published training proteins."""
    cfg = default["config"](seed)
    return dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, extra=()))

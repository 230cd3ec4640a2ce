"""Ablation: the default without a pre-trained backbone."""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The default from random weights."""
    cfg = default["config"](seed)
    return dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, backbone=None))

"""Ablation: the residue's own letter in its state, as published; nothing makes reverse mutations opposite then."""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The default with the published view of the sequence."""
    cfg = default["config"](seed)
    model = dataclasses.replace(cfg.task.model, own_letter=True)
    return dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, model=model))

"""Ablation of the training data: Megascale and FireProtDB together, selected on Megascale's validation proteins.

Ssym, p53 and myoglobin share proteins with FireProtDB's training part: judge this model on other sets.
"""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The published training parts of both."""
    cfg, folder = default["config"](seed), default["DATA"] / "stability"
    more = ((str(folder / "fireprot.csv.gz"), str(folder / "pdb_xray")),)
    return dataclasses.replace(cfg, task=dataclasses.replace(cfg.task, extra=(), more=more))

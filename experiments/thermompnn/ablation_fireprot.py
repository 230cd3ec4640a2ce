"""Ablation of the training data: FireProtDB instead of Megascale.

Ssym, p53 and myoglobin share proteins with FireProtDB's training part: judge this model on other sets.
"""

import dataclasses
import pathlib
import runpy

default = runpy.run_path(str(pathlib.Path(__file__).with_name("default.py")))


def config(seed: int = 0):
    """The default on FireProtDB's published split, selected on its validation proteins."""
    cfg, folder = default["config"](seed), default["DATA"] / "stability"
    task = dataclasses.replace(
        cfg.task, table=str(folder / "fireprot.csv.gz"), structures=str(folder / "pdb_xray"), extra=()
    )
    return dataclasses.replace(cfg, task=task)

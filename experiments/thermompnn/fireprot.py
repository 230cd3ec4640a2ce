"""ThermoMPNN as published, trained on FireProtDB's split instead of Megascale's.

Ssym, p53 and myoglobin share proteins with the training part: judge this model on other sets.
"""

import dataclasses
import pathlib
import runpy

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("paper.py")))
PROTEINS = 52  # of the split's 57 those with a structure and matching residues


def config(seed: int = 0):
    """100 passes over the training proteins."""
    cfg, folder = paper["config"](seed), paper["DATA"] / "stability"
    task = dataclasses.replace(cfg.task, table=str(folder / "fireprot.csv.gz"), structures=str(folder / "pdb_xray"))
    return dataclasses.replace(
        cfg, task=task, steps=paper["EPOCHS"] * PROTEINS, evaluate_every=PROTEINS, save_every=PROTEINS
    )

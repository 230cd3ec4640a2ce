"""cryoSTAR's first phase on the paper's synthetic adenylate kinase (doi 10.1038/s41592-024-02486-1).

The paper's stack has 128 pixels of 1 Å and a signal-to-noise ratio of 1e-4; `scripts/cryostar_1ake.py` makes one like
it and runs this. `JAXPROT_1AKE` names its folder.
"""

import os
import pathlib

from jaxprot.cryostar.settings import published
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_1AKE", "runs/1ake/particles"))


def config() -> TrainConfig:
    """Four devices of 64 particles each in one batch; the second version of the CTF, by which the stack is made."""
    truth = DATA / "truth.npz"
    return published(
        str(DATA / "particles.star"),
        str(DATA / "reference.pdb"),
        str(DATA / "images"),
        steps=24_000,
        devices=4,
        low_pass=4.0,
        ratio=0.8,
        truth=str(truth) if truth.exists() else None,
    )

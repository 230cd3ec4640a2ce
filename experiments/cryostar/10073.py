"""cryoSTAR's first phase on EMPIAR-10073 (U4/U6.U5 tri-snRNP): published settings.

Nature Methods 2024, doi 10.1038/s41592-024-02486-1. Images of 380 pixels of 1.4 Å are made 128; the reference is
5GAN, docked into the consensus map and centred. `JAXPROT_EMPIAR` names the folder that holds `10073/particles.star`
and `10073/reference.pdb`; `scripts/cryostar_empiar.py 10073` checks them first.
"""

import os
import pathlib

from jaxprot.cryostar.settings import published
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_EMPIAR", "data/empiar")) / "10073"


def config() -> TrainConfig:
    """Four devices of 64 particles each in one batch; the first version of the CTF, as the paper used it."""
    return published(
        str(DATA / "particles.star"),
        str(DATA / "reference.pdb"),
        str(DATA / "images"),
        steps=96_000,
        batch=64,
        devices=4,
        side=128,
        low_pass=9.4,
        ratio=0.99,
        ctf="v1-compat",
    )

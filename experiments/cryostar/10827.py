"""cryoSTAR's first phase on EMPIAR-10827: published settings.

Nature Methods 2024, doi 10.1038/s41592-024-02486-1. Images of 224 pixels of 0.9 Å; the reference is 7PTX, docked into
the consensus map and centred. `JAXPROT_EMPIAR` names the folder that holds `10827/particles.star` and
`10827/reference.pdb`; `scripts/cryostar_empiar.py 10827` checks them first.
"""

import os
import pathlib

from jaxprot.cryostar.settings import published
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_EMPIAR", "data/empiar")) / "10827"


def config() -> TrainConfig:
    """Four devices of 64 particles each in one batch; the first version of the CTF, as the paper used it."""
    return published(
        str(DATA / "particles.star"),
        str(DATA / "reference.pdb"),
        str(DATA / "images"),
        steps=24_000,
        batch=64,
        devices=4,
        side=224,
        low_pass=16.9,
        ratio=0.99,
        ctf="v1-compat",
    )

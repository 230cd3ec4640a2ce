"""cryoSTAR's first phase on EMPIAR-10059 (TRPV1): published settings.

Nature Methods 2024, doi 10.1038/s41592-024-02486-1. Images of 192 pixels of 1.2156 Å; the reference is 7RQW, docked
into the consensus map and centred. `JAXPROT_EMPIAR` names the folder that holds `10059/particles.star` and
`10059/reference.pdb`; `scripts/cryostar_empiar.py 10059` checks them first.
"""

import os
import pathlib

from jaxprot.cryostar.settings import published
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_EMPIAR", "data/empiar")) / "10059"


def config() -> TrainConfig:
    """Four devices of 32 particles each in one batch; the first version of the CTF, as the paper used it."""
    return published(
        str(DATA / "particles.star"),
        str(DATA / "reference.pdb"),
        str(DATA / "images"),
        steps=960_000,
        batch=32,
        devices=4,
        side=192,
        low_pass=10.0,
        ratio=0.99,
        ctf="v1-compat",
    )

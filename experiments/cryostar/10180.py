"""cryoSTAR's first phase on EMPIAR-10180 (pre-catalytic spliceosome): published settings.

Nature Methods 2024, doi 10.1038/s41592-024-02486-1. Images of 320 pixels of 1.7 Å are made 128; the reference is
5NRL, docked into the consensus map and centred. `JAXPROT_EMPIAR` names the folder that holds `10180/particles.star`
and `10180/reference.pdb`; `scripts/cryostar_empiar.py 10180` checks them first.
"""

import os
import pathlib

from jaxprot.cryostar.settings import published
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_EMPIAR", "data/empiar")) / "10180"


def config() -> TrainConfig:
    """Four devices of 16 particles each in one batch; the first version of the CTF, as the paper used it."""
    return published(
        str(DATA / "particles.star"),
        str(DATA / "reference.pdb"),
        str(DATA / "images"),
        steps=96_000,
        batch=16,
        devices=4,
        side=128,
        low_pass=23.4,
        ratio=0.99,
        ctf="v1-compat",
    )

"""What `jaxprot cryostar fit` does, to be copied and changed for a data set.

`JAXPROT_PARTICLES` names the folder with `particles.star` and `reference.pdb`.
"""

import os
import pathlib

from jaxprot.cryostar.settings import default
from jaxprot.train.task import TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_PARTICLES", "data/particles"))


def config() -> TrainConfig:
    """See `jaxprot.cryostar.settings.default`."""
    return default(str(DATA / "particles.star"), str(DATA / "reference.pdb"), str(DATA / "images"))

"""ViSNet on one molecule of MD17, rMD17 or MD22, with the settings of the ViSNet paper's repository.

`JAXPROT_MD17` names an `.npz` file with `Z`, `R`, `E` and `F` in eV and eV/Å, of the 1000 conformations that are used
(about 950 to train on, and 50 held back); the published files have kcal/mol, many more, and other names. Batches are
of 4 up to the 24 atoms of azobenzene; for the larger molecules of MD22 set `task.pairs` to 4 times the square of the
number of atoms, rounded up to a multiple of 4, and `optim.lr` to 2e-4. Wang et al., Nat. Commun. 15:313 (2024),
doi 10.1038/s41467-023-43720-2.
"""

import os

from jaxprot.train.task import OptimConfig, PlateauConfig, TrainConfig
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.data import EnergyForceTask

DATA = os.environ.get("JAXPROT_MD17", "data/md17.npz")


def config() -> TrainConfig:
    """3000 epochs of 238 batches; the learning rate falls when the validation, once an epoch, does not improve."""
    return TrainConfig(
        task=EnergyForceTask(
            data=(DATA,),
            model=ViSNetConfig(hidden=256, layers=9, max_neighbors=32, smooth=False),
            pairs=4 * 24**2,
            most=4,
            held=0.05,
            loss="mse",
            weights=(0.05, 0.95),
            energy_scale=0.05,
        ),
        optim=OptimConfig(
            name="adamw", lr=4e-4, b2=0.999, weight_decay=0.0, schedule="constant", warmup=1000, clip=None, ema=0.0,
            plateau=PlateauConfig(factor=0.8, patience=30, minimum=1e-7),
        ),
        steps=714_000,
        micro=0,
        evaluate_every=238,
        save_every=2380,
        log_every=100,
    )  # fmt: skip

"""ViSNet on one molecule of MD17, rMD17 or MD22, with the settings of the ViSNet paper's repository.

`JAXPROT_MD17` names an `.npz` file with `Z`, `R`, `E` and `F` in eV and eV/Å (950 conformations to train on, 50 held
back). Wang et al., Nat. Commun. 15:313 (2024), doi 10.1038/s41467-023-43720-2.
"""

import os

from jaxprot.train.task import OptimConfig, PlateauConfig, TrainConfig
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.data import EnergyForceTask

DATA = os.environ.get("JAXPROT_MD17", "data/md17.npz")


def config() -> TrainConfig:
    """The learning rate falls when the validation does not improve."""
    return TrainConfig(
        task=EnergyForceTask(
            data=(DATA,),
            model=ViSNetConfig(hidden=256, layers=9, max_neighbors=32, smooth=False),
            pairs=4 * 24**2,
            held=0.05,
            loss="mse",
            weights=(0.05, 0.95),
            energy_scale=0.05,
        ),
        optim=OptimConfig(
            name="adamw", lr=4e-4, b2=0.999, weight_decay=0.0, schedule="constant", warmup=1000, clip=None, ema=0.0,
            plateau=PlateauConfig(factor=0.8, patience=30, minimum=1e-7),
        ),
        steps=700_000,
        micro=0,
        evaluate_every=240,
        save_every=2400,
        log_every=100,
    )  # fmt: skip

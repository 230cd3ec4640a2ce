"""ViSNet on whole chignolin, 166 atoms (AIMD-Chig), with the settings of the ViSNet paper's repository.

`JAXPROT_AIMD` names the `.npz` file with `Z`, `R`, `E` (Hartree) and `F` (gradients in Hartree/bohr).
Wang et al., Sci. Data 10:549 (2023), doi 10.1038/s41597-023-02465-9.
"""

import os

from jaxprot.train.task import OptimConfig, PlateauConfig, TrainConfig
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.data import EnergyForceTask

DATA = os.environ.get("JAXPROT_AIMD", "data/chignolin.npz")


def config() -> TrainConfig:
    """Batches of 4 molecules; the learning rate falls when the validation does not improve."""
    return TrainConfig(
        task=EnergyForceTask(
            data=(DATA,),
            model=ViSNetConfig(hidden=128, layers=6, lmax=1, max_neighbors=32, smooth=False),
            pairs=4 * 168**2,
            most=4,
            units="hartree",
            held=0.1,
            loss="mse",
            weights=(0.05, 0.95),
            energy_scale=0.05,
        ),
        optim=OptimConfig(
            name="adamw", lr=2e-4, b2=0.999, weight_decay=0.0, schedule="constant", warmup=3000, clip=None, ema=0.0,
            plateau=PlateauConfig(factor=0.8, patience=10, minimum=1e-7),
        ),
        steps=1_000_000,
        micro=0,
        evaluate_every=5000,
        save_every=5000,
        log_every=100,
    )  # fmt: skip

"""RMSF-net at its published size (Nature Communications 2024, doi 10.1038/s41467-024-49858-x), with a recipe of ours.

Published are the network, the target log10(RMSF / Å + 1), the masked squared error and boxes of 40 voxels every 10 with
cores of 10. Optimiser, learning rate, epochs, batch and augmentation were not, so these are this project's: the error
averaged over the voxels that hold atoms, Adam from 1e-3 along a cosine to 1e-5, batches of 16, the 24 rotations of a
cube, 60 epochs, the weights with the best validation correlation. The labels are those of the entries in
`JAXPROT_FLEXIBILITY`; `steps` goes with their number.
"""

import os
import pathlib

from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.data import FlexibilityTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_FLEXIBILITY", "runs/flexibility"))
EPOCHS, BATCHES = 60, 3095  # batches of a pass over 1256 chains of `scripts/train_default_rmsfnet.py prepare`


def config(variant: str = "both") -> TrainConfig:
    """One of the three published variants."""
    return TrainConfig(
        task=FlexibilityTask(
            train=str(DATA / "train"),
            val=str(DATA / "val"),
            model=RMSFNetConfig.paper(variant),
            size=16,
            core=10,
            rotations=True,
        ),
        optim=OptimConfig(
            name="adam",
            lr=1e-3,
            b2=0.999,
            weight_decay=0.0,
            schedule="cosine",
            warmup=0,
            final=1e-5,
            clip=None,
            ema=0.0,
        ),
        steps=EPOCHS * BATCHES,
        micro=0,
        evaluate_every=BATCHES,
        save_every=BATCHES,
    )

"""The shipped RMSF-net: a narrow network on simulated maps; labels from packing, B factors and dynamics.

`scripts/train_default_rmsfnet.py` makes the entries and runs the variants; `JAXPROT_FLEXIBILITY` names their folder.
"""

import os
import pathlib

from jaxprot.rmsfnet.config import RMSFNetConfig
from jaxprot.rmsfnet.data import FlexibilityTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_FLEXIBILITY", "runs/flexibility"))


def config() -> TrainConfig:
    """Muon with a cosine, batches of 8 boxes; cores of 20 voxels give eight times the targets for the work of a box."""
    return TrainConfig(
        task=FlexibilityTask(
            train=str(DATA / "train"),
            val=str(DATA / "val"),
            model=RMSFNetConfig(width=8, dropout=0.1, geometry="exact", hydrogens=False, context=(2.5, 5.0, 10.0)),
            size=8,
            core=20,
            least=10,  # not more: boxes with loose ends hold few
            shift=10,
            emphasis=1.0,
            held=24,
        ),
        optim=OptimConfig(
            name="muon", lr=4e-3, b2=0.99, weight_decay=0.01, schedule="cosine", warmup=40, final=1e-5, ema=0.99
        ),
        steps=1200,
        micro=0,
        evaluate_every=200,
        save_every=100,
        workers=1,
    )

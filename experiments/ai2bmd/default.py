"""The shipped potential: a small ViSNet on capped amino acids, continuous at its cutoff.

`JAXPROT_UNITS` names folders of labelled units, with `:` between (`;` on Windows); `Z`, `R`, `E`, `F`, see
`jaxprot.visnet.data.read_snapshots`. `scripts/prepare_units.py` makes more, and `scripts/stretch_units.py` those with
stretched bonds of hydrogens, without which dynamics of proteins lets hydrogens of hydroxyls go.
"""

import os

from jaxprot.train.task import OptimConfig, TrainConfig
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.data import EnergyForceTask

DATA = tuple(os.environ.get("JAXPROT_UNITS", "data/units").split(os.pathsep))


def config() -> TrainConfig:
    """Lengths of differences rather than squares: strained conformations have forces of 40 eV/Å."""
    return TrainConfig(
        task=EnergyForceTask(
            data=DATA,
            model=ViSNetConfig(hidden=48, layers=3, heads=6, rbf=24, max_z=20),
            pairs=8192,
            weights=(10.0, 1.0),
        ),
        optim=OptimConfig(
            name="adamw", lr=1.5e-3, b2=0.99, weight_decay=1e-4, schedule="cosine", warmup=200, final=1e-6, clip=1.0,
            ema=0.995,
        ),
        steps=9000,
        micro=2,  # about a thousand pairs of atoms, whose arrays stay in a CPU's cache
        evaluate_every=2000,
        save_every=500,
        log_every=50,
        workers=1,
    )  # fmt: skip

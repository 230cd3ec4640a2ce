"""ThermoMPNN as published (PNAS 2024, doi 10.1073/pnas.2314853121): the head alone, on Megascale.

One protein with all its mutations per step, plain squared error, AdamW, the rate halved when the validation error stops
falling, no noise, no augmentation, the published ProteinMPNN kept as it is (its dropout is active, as it was then).
Different are the initial weights of the head (this library's initialisers), and the proteins: the natural domains of
the published split, 79 of its 239 training proteins; `steps`, `evaluate_every` and `save_every` go with their number.
"""

import os
import pathlib

from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask
from jaxprot.train.task import OptimConfig, PlateauConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
EPOCHS, PROTEINS = 100, 79


def config(seed: int = 0) -> TrainConfig:
    """100 passes; the best weights by validation Spearman are kept."""
    return TrainConfig(
        task=StabilityTask(
            table=str(DATA / "stability" / "megascale_natural.csv.gz"),
            structures=str(DATA / "stability" / "pdb_megascale"),
            # A registered name, fetched once; a ProteinMPNN file at hand does as well.
            backbone="proteinmpnn:v_48_020",
            model=ThermoMPNNConfig.paper(),
            error="squared",
            correlation=0.0,
            noise=0.0,
            background=0.0,
            items=1,
        ),
        optim=OptimConfig(
            name="adamw",
            lr=1e-3,
            b2=0.999,
            weight_decay=0.01,
            schedule="constant",
            warmup=0,
            plateau=PlateauConfig(figure="mse", mode="min", factor=0.5, patience=10),
            clip=None,
            ema=0.0,
            frozen=("backbone",),
        ),
        steps=EPOCHS * PROTEINS,
        seed=seed,
        evaluate_every=PROTEINS,
        save_every=PROTEINS,
    )

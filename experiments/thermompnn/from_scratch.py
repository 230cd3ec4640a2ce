"""ThermoMPNN without published weights: on the ProteinMPNN of `experiments/proteinmpnn/from_scratch.py`.

These were the shipped weights before the published ones could be built upon. Train the backbone first, with
`scripts/train_default_thermompnn.py design-from-scratch --run runs/design`; `JAXPROT_BACKBONE` names its weights.
"""

import os
import pathlib

from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask
from jaxprot.train.config import load_experiment
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
BACKBONE = os.environ.get("JAXPROT_BACKBONE", "runs/design/best.safetensors")
EXTRA = load_experiment(pathlib.Path(__file__).with_name("default.py")).task.extra


def config(seed: int = 0) -> TrainConfig:
    """About 40 passes over the training proteins; the best averaged weights by validation Spearman are kept."""
    return TrainConfig(
        task=StabilityTask(
            table=str(DATA / "stability" / "megascale_natural.csv.gz"),
            structures=str(DATA / "stability" / "pdb_megascale"),
            backbone=BACKBONE,
            extra=EXTRA,
            model=ThermoMPNNConfig(backbone=ProteinMPNNConfig(neighbours=24), scalar_output=False),
        ),
        optim=OptimConfig(name="adamw", lr=3e-4, weight_decay=0.01, warmup=50, decay=0.5, ema=0.99),
        steps=400,
        seed=seed,
        init_seed=0,
        evaluate_every=50,
        save_every=200,
    )

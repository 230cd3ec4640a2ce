"""ProteinMPNN of 24 neighbours from random weights, on the project's chain archive and the stability set's backbones.

These were the shipped weights before the published ones could be built upon: recovery 0.375, perplexity 6.69 on the
validation chains after 3400 steps.
"""

import os
import pathlib

from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.data import DesignTask
from jaxprot.train.config import load_experiment
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))


STABILITY = pathlib.Path(__file__).parents[1] / "thermompnn" / "default.py"


def config() -> TrainConfig:
    """Muon, 1536 padded residues per step; the best averaged weights by validation accuracy are kept."""
    return TrainConfig(
        task=DesignTask(
            train=str(DATA / "structures" / "train.npz"),
            val=str(DATA / "structures" / "val.npz"),
            structures=load_experiment(STABILITY).task.training_files(),
            model=ProteinMPNNConfig(neighbours=24),
            noise=0.1,
            items=1536,
        ),
        optim=OptimConfig(name="muon", lr=2e-3, weight_decay=0.05, warmup=50, decay=0.4, ema=0.998),
        steps=3400,
        evaluate_every=250,
        save_every=125,
    )

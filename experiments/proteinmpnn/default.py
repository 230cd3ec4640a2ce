"""The shipped ProteinMPNN: fine-tuned from the published v_48_020 (MIT), 48 neighbours, with noise on the backbone.

The chains are those of the project's archive and of the stability set. The published weights were trained with 0.2 Å of
noise on every structure; here the noise is drawn from 0 to 0.2 Å, which gains on exact backbones and keeps noisy ones.
"""

import os
import pathlib

from jaxprot.proteinmpnn.data import DesignTask
from jaxprot.train.config import load_experiment
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
STABILITY = pathlib.Path(__file__).parents[1] / "thermompnn" / "default.py"


def config() -> TrainConfig:
    """A small rate, gradients clipped; the best averaged weights by validation accuracy are kept."""
    return TrainConfig(
        task=DesignTask(
            train=str(DATA / "structures" / "train.npz"),
            val=str(DATA / "structures" / "val.npz"),
            structures=load_experiment(STABILITY).task.training_files(),
            start="proteinmpnn:v_48_020",
            noise=0.2,
            items=1536,
        ),
        optim=OptimConfig(name="adamw", lr=1e-4, schedule="constant", weight_decay=0.01, warmup=30, ema=0.99),
        steps=200,
        evaluate_every=100,
        evaluate_start=True,
        save_every=50,
    )

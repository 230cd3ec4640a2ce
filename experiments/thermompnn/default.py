"""The shipped ThermoMPNN: fine-tuned whole from the shipped ProteinMPNN on Megascale."""

import os
import pathlib

from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
BACKBONE = pathlib.Path(__file__).parents[2] / "jaxprot" / "weights" / "default" / "proteinmpnn.safetensors"
# Proteins outside the published split without a homologue (25 % identity over half of the shorter sequence, E <= 10)
# in any evaluation set; `scripts/thermompnn_curate.py --homologues` recomputes the list.
EXTRA: tuple[str, ...] = (
    "1ubq_A_1-72_L67S",
    "2k52_A_2-72_F22S",
    "2kvv_A_8-68_K50S",
    "2l8d_A_3-62",
    "2ldm_A_85-135",
    "2n7y_A_5-76",
)


def config(seed: int = 0) -> TrainConfig:
    """About 40 passes over the training proteins; the best averaged weights by validation Spearman are kept."""
    return TrainConfig(
        task=StabilityTask(
            table=str(DATA / "stability" / "megascale_natural.csv.gz"),
            structures=str(DATA / "stability" / "pdb_megascale"),
            backbone=str(BACKBONE),
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

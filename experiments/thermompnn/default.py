"""The shipped ThermoMPNN: fine-tuned whole from the published ProteinMPNN v_48_020 (MIT) on Megascale.

A residue's state does not see the residue's own letter, so the ddG of a mutation and of its reverse on the same
backbone are exact opposites.
"""

import os
import pathlib

from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
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
    """About 25 passes over the training proteins; the best averaged weights by validation Spearman are kept."""
    return TrainConfig(
        task=StabilityTask(
            table=str(DATA / "stability" / "megascale_natural.csv.gz"),
            structures=str(DATA / "stability" / "pdb_megascale"),
            backbone="proteinmpnn:v_48_020",
            extra=EXTRA,
            model=ThermoMPNNConfig(
                backbone=ProteinMPNNConfig(), scalar_output=False, own_letter=False, prior=True, members=4
            ),
            noise=0.2,
        ),
        optim=OptimConfig(
            name="adamw", lr=2e-3, rates=(("backbone", 0.05),), weight_decay=0.01, warmup=30, decay=0.5, ema=0.98
        ),
        steps=200,
        seed=seed,
        init_seed=0,
        evaluate_every=40,
        save_every=20,
    )

"""ProteinMPNN as published (Science 2022, doi 10.1126/science.add2187): the model v_48_020.

Adam with the Noam schedule, batches of 10000 residues, label smoothing, dropout 0.1 and coordinate noise of 0.2 Å
(`--set task.noise=0.02`, `0.1` or `0.3` for the others), 150 passes. Different are the data, single chains of an
archive instead of assemblies of the whole PDB (`steps` goes with their number), and the loss, a mean over the residues
of a batch instead of their sum over 2000: a constant factor for full batches, which Adam's update does not contain.
"""

import os
import pathlib

from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.proteinmpnn.data import DesignTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data"))
EPOCHS, BATCHES = 150, 44  # batches of a pass over the archive's 1376 chains
WIDTH, WARMUP = 128, 4000


def config(seed: int = 0) -> TrainConfig:
    """The best weights by validation accuracy are kept."""
    return TrainConfig(
        task=DesignTask(
            train=str(DATA / "structures" / "train.npz"),
            val=str(DATA / "structures" / "val.npz"),
            model=ProteinMPNNConfig.paper(),
            noise=0.2,
            fixed_noise=True,
            smoothing=0.1,
            items=10000,
        ),
        optim=OptimConfig(
            name="adam",
            lr=2 * (WIDTH * WARMUP) ** -0.5,
            b2=0.98,
            eps=1e-9,
            weight_decay=0.0,
            schedule="noam",
            warmup=WARMUP,
            clip=None,
            ema=0.0,
        ),
        steps=EPOCHS * BATCHES,
        seed=seed,
        evaluate_every=5 * BATCHES,
        save_every=BATCHES,
    )

"""The shipped representation: a small MASSA, pre-trained on sequences and structures.

`JAXPROT_PROTEINS` names files and folders (see `jaxprot.massa.data.read_all`), with `:` between (`;` on Windows), and
`JAXPROT_APART` a list of chains that are left out (see `scripts/massa_apart.py`). Without UniProt entries there is
nothing to learn about GO terms, motifs, domains and regions: their heads stay as they begin. What structures are like
is learned beside them, from sequences.
"""

import os

from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.data import PretrainingTask
from jaxprot.train.task import OptimConfig, TrainConfig

DATA = tuple(os.environ.get("JAXPROT_PROTEINS", "data/proteins").split(os.pathsep))


def config() -> TrainConfig:
    """AdamW and a cosine, where the paper keeps one rate for 150 epochs."""
    return TrainConfig(
        task=PretrainingTask(
            data=DATA,
            apart=os.environ.get("JAXPROT_APART"),
            local=3,
            model=MASSAConfig(
                seq_dim=49, width=128, convolutions=3, vectors=8, layers=1, neighbours=16, fusion_layers=2, heads=4,
                feedforward=512, go_width=32, go_layers=1, go_heads=2, go_feedforward=64, cross_layers=1,
                sequence_dropout=0.1, structure_dropout=0.1, dropout=0.1,
            ),
            longest=256,
        ),
        optim=OptimConfig(
            name="adamw", lr=2e-3, b2=0.98, weight_decay=0.01, schedule="cosine", warmup=200, final=1e-5, clip=1.0,
            ema=0.995,
        ),
        steps=4000,
        micro=0,
        evaluate_every=500,
        save_every=250,
        log_every=50,
        workers=1,
    )  # fmt: skip

"""Pre-training as published, for those who have the data: Swiss-Prot entries with structures of AlphaFold DB.

`JAXPROT_SWISSPROT` is the flat file (`uniprot_sprot.dat.gz`), `JAXPROT_STRUCTURES` a folder of structures named by
accession, and `JAXPROT_OBO` the ontology (`go-basic.obo`). The published residue embeddings came from a language model;
here the network reads physico-chemical rows, and the published batch of 4 proteins 8 times is one of 32.
"""

import os

from jaxprot.massa.config import MASSAConfig
from jaxprot.massa.data import PretrainingTask
from jaxprot.train.task import OptimConfig, TrainConfig


def config() -> TrainConfig:
    """RAdam within Lookahead at a constant rate; 150 epochs of 63 759 proteins, of which a fifth is held back."""
    epoch = round(63_759 * 0.8 / 32)
    return TrainConfig(
        task=PretrainingTask(
            data=(os.environ.get("JAXPROT_SWISSPROT", "data/uniprot_sprot.dat.gz"),),
            structures=os.environ.get("JAXPROT_STRUCTURES", "data/alphafold"),
            obo=os.environ.get("JAXPROT_OBO", "data/go-basic.obo"),
            model=MASSAConfig(seq_dim=49),
            items=32 * 512,
            most=32,
            longest=1022,
            held=0.2,
        ),
        optim=OptimConfig(
            name="radam", lr=1e-4, b2=0.999, weight_decay=1e-4, no_decay=("bias",), lookahead=5, schedule="constant",
            warmup=0, clip=None, ema=0.0,
        ),
        steps=150 * epoch,
        micro=4,
        evaluate_every=epoch,
        save_every=epoch,
        log_every=100,
    )  # fmt: skip

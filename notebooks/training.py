# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training: a run, its curves, an interruption
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# All systems train on one engine. Here a very small ThermoMPNN learns on four devices (virtual ones, so that this runs
# on any laptop); the run is interrupted and goes on, and the weights are those of a run that never stopped.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks]"], check=True)

# %%
import pathlib
import shutil
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import jax

if not os.environ.get("COLAB_GPU"):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)  # before the first array; leave both out where there are GPUs

import numpy as np
import pandas as pd

import jaxprot
from jaxprot import examples
from jaxprot.io.structures import write_structure

FOLDER = pathlib.Path("training-demo")
shutil.rmtree(FOLDER, ignore_errors=True)
(FOLDER / "structures").mkdir(parents=True)
# Programs are compiled once and kept; the command line does this by itself.
jax.config.update("jax_compilation_cache_dir", str(FOLDER / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.devices())

# %% [markdown]
# ## Data
# A table of mutations with their measured ΔΔG and a folder of structures. To have some without a download, fragments of
# ubiquitin are taken as proteins, and what the shipped model says about them (with noise) as measurements; trp-cage is
# kept for validation.

# %%
teacher, rng = jaxprot.load("thermompnn"), np.random.default_rng(0)


def measure(structure, name, split):
    write_structure(structure, FOLDER / "structures" / f"{name}.pdb.gz")
    scan = teacher.scan(structure).to_dataframe()
    scan = scan[scan.wt != scan.mut].sample(frac=0.5, random_state=0)
    values = scan.ddg_kcal_mol + rng.normal(0, 0.2, len(scan))
    columns = {"chain": scan.chain, "resid": scan.resid, "wt": scan.wt, "mut": scan.mut, "ddG": values}
    return pd.DataFrame({"protein": name, **columns, "thermompnn_split": split})


ubiquitin = jaxprot.read_structure(examples.path("ubiquitin.pdb"))
number = ubiquitin.resid[ubiquitin.atom_residue]
tables = [
    measure(ubiquitin.select((number >= start) & (number < start + 30)), f"fragment{start}", "train")
    for start in range(1, 48, 6)
]
tables.append(measure(jaxprot.read_structure(examples.path("trpcage.pdb")), "trpcage", "val"))
pd.concat(tables).to_csv(FOLDER / "mutations.csv", index=False)
print(f"{len(tables) - 1} training proteins, {sum(map(len, tables))} mutations")

# %% [markdown]
# ## The experiment
# A Python file whose `config()` names the task, the model and the optimiser. Those of the publications are under
# `experiments/`.

# %%
EXPERIMENT = FOLDER / "experiment.py"
EXPERIMENT.write_text("""
from jaxprot.proteinmpnn.config import ProteinMPNNConfig
from jaxprot.thermompnn.config import ThermoMPNNConfig
from jaxprot.thermompnn.data import StabilityTask
from jaxprot.train.task import OptimConfig, TrainConfig

SMALL = ProteinMPNNConfig(width=16, encoder_layers=1, decoder_layers=2, neighbours=12)


def config():
    return TrainConfig(
        task=StabilityTask(
            table="training-demo/mutations.csv",
            structures="training-demo/structures",
            backbone=None,  # from random weights; a file of ProteinMPNN's weights starts from there
            model=ThermoMPNNConfig(backbone=SMALL, hidden=(16,)),
            items=256,  # padded residues per step: here all eight fragments, two on each device
        ),
        optim=OptimConfig(name="adamw", lr=1e-2, warmup=20, schedule="cosine", ema=0.95),
        steps=150,
        evaluate_every=25,
        save_every=50,
        log_every=5,
    )
""")

# %% [markdown]
# ## A run
# The batch of each step is cut along the devices; the sums of loss and gradient go over all of them. On one device the
# result is the same to rounding.

# %%
from jaxprot.train.config import load_experiment
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel

cfg, devices = load_experiment(EXPERIMENT), Parallel()
whole = fit(cfg, FOLDER / "whole", parallel=devices)
print(devices)
print(whole)

# %% [markdown]
# ## Its curves
# Every record is a line of `metrics.jsonl`; `tensorboard=True` in the experiment writes them for TensorBoard as well.
# Eight fragments of one protein are soon learnt by heart: what is kept are the weights of the best validation.

# %%
from IPython.display import Image, display

from jaxprot.plots.curves import training_curves
from jaxprot.train.metrics import read_metrics

training_curves(read_metrics(FOLDER / "whole"), FOLDER / "curves.png", "a small ThermoMPNN on four devices")
display(Image(FOLDER / "curves.png"))

# %% [markdown]
# ## An interruption
# A batch system ends a job with SIGTERM. The run saves and returns; here the signal comes at step 30. A process that is
# killed outright goes on from its last checkpoint (every `save_every` steps), with the same result.


# %%
def end_of_the_job(record):
    if record["step"] == 30:
        signal.raise_signal(signal.SIGTERM)


stopped = fit(cfg, FOLDER / "cut", parallel=devices, report=end_of_the_job)
print(stopped)

# %% [markdown]
# ## A resume
# The order of the data, the noise and the dropout are functions of the step and the seed, so nothing is lost. A
# checkpoint of four devices goes on with one or eight as well.

# %%
resumed = fit(cfg, FOLDER / "cut", parallel=devices, resume=True)
print(resumed)

from jaxprot.weights import portable

(first, header), (second, _) = (portable.load(outcome.best) for outcome in (whole, resumed))
assert all((first[name] == second[name]).all() for name in first)
figures = [[r for r in read_metrics(FOLDER / run) if "val_spearman" in r] for run in ("whole", "cut")]
assert figures[0] == figures[1]
print(f"best weights (step {header['step']}) and all {len(figures[0])} validations: equal bit by bit")

# %% [markdown]
# ## The same on many devices and hosts
# From the command line a run takes all devices of its machine:
# ```
# jaxprot train training-demo/experiment.py -o run
# jaxprot train --resume run
# ```
# Several machines that share a folder train together with one command on each. Under SLURM, Open MPI and on cloud TPU
# pods they find each other:
# ```
# srun --nodes 4 --ntasks-per-node 1 jaxprot train experiment.py -o /shared/run --distributed
# ```
# and elsewhere process 0 is named:
# ```
# jaxprot train experiment.py -o /shared/run --distributed --coordinator HOST:1234 --num-processes 4 --process-id 0
# ```
# Each process loads its part of every batch; the weights are those of one machine to rounding. `--set micro=4` or
# `--set precision=bfloat16` fit it to the memory and the speed of a device.

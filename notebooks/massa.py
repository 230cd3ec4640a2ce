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
# # Representations of proteins, and which task helps which
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A folder of sequences and structures becomes vectors (MASSA); the network is fine-tuned on stability; and distances
# between tasks (optimal transport of features and labels) make a map of them. Set `TASKS` to a folder with tables of
# public benchmarks, such as TAPE's `stability.csv.gz`; without, the stability of point mutants as ThermoMPNN sees it
# stands in. Either is a quick look: `jaxprot massa finetune stability` with a thousand steps learns all of it.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks]"], check=True)

# %%
import os
import pathlib
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, display

import jaxprot
from jaxprot import examples
from jaxprot.cli.main import main as jaxprot_command

FOLDER = pathlib.Path("massa-out")
shutil.rmtree(FOLDER, ignore_errors=True)  # of an earlier pass through this notebook
FOLDER.mkdir()
TASKS = os.environ.get("JAXPROT_TASKS")
STEPS = 30
print("running on", jax.devices()[0].platform)

# %% [markdown]
# ## A folder becomes vectors
# FASTA, PDB, mmCIF and UniProt files may lie in one folder. A structure is read with its backbone; of a sequence alone
# the network knows that the structure is missing.

# %%
inputs = FOLDER / "inputs"
inputs.mkdir()
for name in ("ubiquitin", "trpcage", "chignolin"):
    shutil.copy(examples.path(name), inputs)
(inputs / "more.fasta").write_text(
    ">lysozyme\nKVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKI"
    "VSDGNGMNAWVAWRNRCKGTDVQAWIRGCRL\n"
    ">ubiquitin_sequence\n"
    "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG\n"
)
jaxprot_command(["massa", "embed", str(inputs), "--residues", "-o", str(FOLDER / "vectors")])

# %%
stored = np.load(FOLDER / "vectors" / "embeddings.npz")
vectors = stored["features"] / np.linalg.norm(stored["features"], axis=1, keepdims=True)
pd.DataFrame(vectors @ vectors.T, stored["names"], stored["names"]).round(2)

# %% [markdown]
# ## Stability
# A table with the columns `sequence` and `label` is all that fine-tuning needs; `split` is drawn from the sequence
# where it is not given.


# %%
def mutants(name):
    """Sequences of all point mutants of an example, and their ΔΔG (kcal/mol, positive = destabilising)."""
    scan = jaxprot.load("thermompnn").scan(examples.path(name), samples=0).to_dataframe()
    one = scan.drop_duplicates("resid").sort_values("resid")
    wild = "".join(one["wt"])
    place = {resid: i for i, resid in enumerate(one["resid"])}
    rows = [row for row in scan.itertuples() if row.mut != row.wt]
    texts = [wild[: place[r.resid]] + r.mut + wild[place[r.resid] + 1 :] for r in rows]
    return pd.DataFrame({"sequence": texts, "label": [r.ddg_kcal_mol for r in rows]})


tables = {}
for name in ("ubiquitin", "trpcage"):
    tables[name] = FOLDER / f"{name}_ddg.csv"
    mutants(name).to_csv(tables[name], index=False)

# %%
measured = tables["ubiquitin"]
if TASKS:  # 2000 proteins to learn from, 500 to choose by and 500 to test on
    whole = pd.read_csv(pathlib.Path(TASKS) / "stability.csv.gz")
    parts = [whole[whole.split == part].sample(n, random_state=0) for part, n in
             (("train", 2000), ("valid", 500), ("test", 500))]  # fmt: skip
    measured = FOLDER / "stability.csv"
    pd.concat(parts).to_csv(measured, index=False)
jaxprot_command(["massa", "finetune", str(measured), "--steps", str(STEPS), "-o", str(FOLDER / "run")])

# %%
tested = pd.read_csv(FOLDER / "run" / "predictions.csv")
plt.figure(figsize=(4, 4))
plt.scatter(tested.label, tested.predicted, s=6, alpha=0.5)
plt.xlabel("label")
plt.ylabel("predicted")
plt.title(f"test part, Spearman {tested.label.corr(tested.predicted, method='spearman'):.2f}")
plt.show()

# %% [markdown]
# ## A map of tasks
# Each task is a cloud of features with labels. Beside the stabilities stand two properties that follow from the
# letters alone: tasks whose clouds are near each other should help each other.


# %%
def property_table(values, name):
    """Mutants of ubiquitin, labelled by a mean over their residues."""
    table = pd.read_csv(tables["ubiquitin"])
    table["label"] = [np.mean([values.get(letter, 0.0) for letter in text]) for text in table.sequence]
    path = FOLDER / f"{name}.csv"
    table.to_csv(path, index=False)
    return path


hydropathy = dict(zip("ARNDCQEGHILKMFPSTWYV", (1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5, 3.8, -3.9, 1.9,
                                                2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2), strict=True))  # fmt: skip
tables["hydropathy"] = property_table(hydropathy, "hydropathy")
tables["charge"] = property_table({"K": 1.0, "R": 1.0, "D": -1.0, "E": -1.0}, "charge")
features = []
for name, path in tables.items():
    jaxprot_command(["massa", "embed", str(path), "-o", str(FOLDER / "features" / name)])
    features.append(f"{name}={FOLDER / 'features' / name / 'embeddings.npz'}")
jaxprot_command(["transfer", "matrix", *features, "--resamples", "200", "-o", str(FOLDER / "distances")])
display(Image(FOLDER / "distances" / "matrix.png"), Image(FOLDER / "distances" / "map.png"))

# %% [markdown]
# `jaxprot transfer report` compares these distances, and LogME, LEEP, NCE, H-score and TransRate, with gains that were
# measured; `scripts/massa_transfer.py` measures them for six benchmarks.

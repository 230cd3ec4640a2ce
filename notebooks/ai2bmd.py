# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Molecular dynamics of a small protein
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A protein is cut into overlapping units, a network gives the energy of each, a force field what acts between them, and
# generalised Born the solvent (AI²BMD). Forces are the slope of the whole. Here chignolin, ten residues between caps,
# moves for two picoseconds: a few minutes on two CPU cores, seconds on a GPU.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks,prepare]"], check=True)

# %%
import pathlib
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, display

import jaxprot
from jaxprot import examples

FOLDER = pathlib.Path("ai2bmd-out")
shutil.rmtree(FOLDER, ignore_errors=True)  # of an earlier pass through this notebook
STEPS = 2000  # of 1 fs
print("running on", jax.devices()[0].platform)

# %% [markdown]
# ## Preparing
# Crystal and NMR files lack hydrogens, often side-chain atoms, and end in charges. `prepare` adds what is missing and
# caps the chain (with OpenMM and PDBFixer, `pip install "jaxprot[prepare]"`). Its input here is chignolin without caps
# and hydrogens.

# %%
whole = jaxprot.read_structure(examples.path("chignolin"))
heavy = whole.select((whole.element != "H") & ~np.isin(whole.res_name, ["ACE", "NME"])[whole.atom_residue])
FOLDER.mkdir()
jaxprot.write_structure(heavy, FOLDER / "raw.pdb")

if importlib.util.find_spec("openmm") and importlib.util.find_spec("pdbfixer"):
    from jaxprot.ai2bmd.prepare import prepare

    made = prepare(FOLDER / "raw.pdb")
    structure = made.structure
    print({name: value for name, value in made.report.items() if value})
else:
    structure = whole
    print("OpenMM is not here: taking the prepared file that ships with jaxprot")
print(structure)

# %% [markdown]
# ## The potential
# What cannot be simulated is refused here, with residue and atom named. The energy has three parts; the first, of the
# network, holds the energies of the elements.

# %%
predictor = jaxprot.load("ai2bmd")
potential = predictor.potential(structure, solvent="gb")
print(potential.fragmentation)
found = potential.evaluate()
for name, value in found.energies.items():
    print(f"{name:>10}: {value:12.4f} eV, largest force {np.linalg.norm(found.forces[name], axis=-1).max():.2f} eV/Å")
print("net force:", np.abs(found.total_forces.sum(0)).max(), "eV/Å")

# %% [markdown]
# ## Downhill, then dynamics
# Minimised, equilibrated in five short stages with springs that become weaker, then free. The run can be stopped at any
# moment: `resume=True` goes on to the same numbers.

# %%
from jaxprot.ai2bmd import predict
from jaxprot.md.simulate import SimulationConfig

cfg = SimulationConfig(steps=STEPS, record=20, equilibration=40)
outcome, downhill = predict.simulate(potential, cfg, FOLDER / "run", downhill=100)
print(downhill)
print(f"{outcome.step} steps, {outcome.ns_per_day:.2f} ns/day, mean temperature {outcome.temperature:.0f} K")

# %%
print(predict.analyse(FOLDER / "run", structure))
display(Image(FOLDER / "run" / "energies.png"))

# %% [markdown]
# ## Backbone torsions, mobility, couplings

# %%
display(Image(FOLDER / "run" / "ramachandran.png"))

rmsd, rmsf, couplings = (pd.read_csv(FOLDER / "run" / f"{name}.csv") for name in ("rmsd", "rmsf", "couplings"))
fig, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
axes[0].plot(rmsd.time_ps, rmsd.rmsd_angstrom)
axes[0].set(xlabel="time (ps)", ylabel="RMSD of alpha carbons (Å)", ylim=(0, None))
axes[1].bar(rmsf.resname + rmsf.resid.astype(str), rmsf.rmsf_angstrom)
axes[1].set(ylabel="RMSF (Å)")
axes[2].bar(couplings.resname + couplings.resid.astype(str), couplings.j_hn_ha_hz)
axes[2].set(ylabel="³J(HN-HA) (Hz)")
for axis in axes[1:]:
    axis.tick_params(axis="x", rotation=90)
plt.show()

# %% [markdown]
# ## Files
# `trajectory.dcd` with `topology.pdb` opens in VMD, PyMOL, ChimeraX, MDAnalysis and mdtraj.

# %%
for path in sorted((FOLDER / "run").iterdir()):
    if path.is_file():
        print(f"{path}  {path.stat().st_size:,} bytes")

# %% [markdown]
# ## A protein of your own
# Any PDB or mmCIF file of a protein. On a CPU a protein of a thousand atoms takes about a second per step.

# %%
OWN = None  # for instance "1ubq.pdb"

if OWN:
    mine = prepare(OWN).structure
    predict.simulate(predictor.potential(mine, solvent="gb"), SimulationConfig(steps=1000), FOLDER / "own")
else:
    print("no file named yet")

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
# # Flexibility from a cryo-EM map and a model
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A map and the model built into it go in; how far every atom moves around its mean place (RMSF, Å) comes out, as
# tables, as a map, and as a structure coloured from stiff (blue) to loose (red).

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks]"], check=True)

# %%
import pathlib
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import jaxprot
from jaxprot import examples
from jaxprot.io.maps import read_map, write_map

FOLDER = pathlib.Path("rmsfnet-out")
FOLDER.mkdir(exist_ok=True)
print("running on", jax.devices()[0].platform)

# %% [markdown]
# ## A map and a model
# To have some without a download, the map of ubiquitin is simulated at 3 Å and noise is added. All atoms are equally
# sharp in it: it shows the shape of the protein and no trace of its motion. Hydrogens are left out, as in most models
# that are built into maps.

# %%
from scipy.ndimage import gaussian_filter

from jaxprot.rmsfnet.simulate import simulate_map

structure = jaxprot.read_structure(examples.path("ubiquitin.pdb"))
structure = structure.select(structure.element != "H")
clean = simulate_map(structure, resolution=3.0, spacing=1.1)
noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), sigma=1.0)
noise *= 0.04 * clean.data.max() / noise.std()

MODEL, MAP = FOLDER / "ubiquitin.pdb", FOLDER / "ubiquitin.mrc"
jaxprot.write_structure(structure, MODEL)
write_map(clean.with_data(clean.data + noise), MAP)
print(read_map(MAP))

# %% [markdown]
# ## Prediction
# The weights that ship with jaxprot are loaded. The first prediction compiles the network; the next ones of any map do
# not.

# %%
network = jaxprot.load("rmsfnet")
for run in ("first", "second"):
    begin = time.perf_counter()
    result = network.predict(MODEL, MAP)
    print(f"{run} prediction: {time.perf_counter() - begin:.1f} s")
table = result.to_dataframe()
table.sort_values("rmsf_angstrom", ascending=False).head(8)

# %% [markdown]
# ## Along the chain
# The mean over the atoms of each residue. What counts is which parts stand out: the shipped weights are a stand-in that
# learnt from B factors, coarse-grained dynamics and elastic networks, so an Å of theirs is no Å of a molecular dynamics
# simulation.

# %%
result.plot(FOLDER / "trace.png")
display(Image(FOLDER / "trace.png"))

# %% [markdown]
# ## The map and the model
# Left: one layer of the map, with the atoms that lie within 1 Å of it. Right: the alpha carbons of the whole model,
# seen from the same side.

# %%
volume = read_map(MAP)
xyz, rmsf = result.structure.xyz, result.rmsf
ca = result.structure.atom_name == "CA"
layer = int(np.argmax(volume.data.clip(0).sum((1, 2))))  # the fullest one
z = volume.origin[2] + layer * volume.voxel[2]
near = np.abs(xyz[:, 2] - z) < 1
# A voxel reaches half its length to either side of its centre.
first = volume.origin - volume.voxel / 2
last = first + volume.cell
low, high = np.nanpercentile(rmsf, [5, 90])  # loose ends would take the whole scale
colours = {"cmap": "coolwarm", "vmin": low, "vmax": high, "edgecolor": "k", "linewidth": 0.4}

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharex=True, sharey=True, layout="constrained")
extent = (first[0], last[0], first[1], last[1])
shown = axes[0].imshow(volume.data[layer], origin="lower", extent=extent, cmap="Greys", interpolation="bilinear")
axes[0].scatter(*xyz[near, :2].T, c=rmsf[near], s=18, **colours)
axes[0].set(title=f"map at z = {z:.1f} Å", xlabel="x (Å)", ylabel="y (Å)")
fig.colorbar(shown, label="density (atomic number / Å³)")
axes[1].plot(*xyz[ca, :2].T, color="lightgrey", lw=2, zorder=1)
points = axes[1].scatter(*xyz[ca, :2].T, c=rmsf[ca], s=40, zorder=2, **colours)
axes[1].set(title="model, alpha carbons", xlabel="x (Å)", aspect="equal")
axes[1].set(xlim=(xyz[:, 0].min() - 4, xyz[:, 0].max() + 4), ylim=(xyz[:, 1].min() - 4, xyz[:, 1].max() + 4))
fig.colorbar(points, label="RMSF (Å)", extend="both")
plt.show()

# %% [markdown]
# ## Beside methods without training
# Elastic networks (ANM, GNM) and the contact number need the model alone and take milliseconds. A prediction should
# be looked at beside theirs. Loose ends stand out in all of them; the rank correlation does not rest on a few of those.

# %%
from jaxprot.core.metrics import spearman
from jaxprot.plots.trace import trace
from jaxprot.rmsfnet import baselines

values = {"RMSF-net": result.residue_rmsf}
for method, name in (("anm", "ANM"), ("gnm", "GNM"), ("contact", "contact number")):
    values[name] = baselines.rmsf(result.structure, method)
    print(f"{name:15s} rank correlation with RMSF-net {spearman(values[name], values['RMSF-net']):5.2f}")

labels = [str(number) for number in result.structure.resid]
trace(values, labels, FOLDER / "methods.png")
display(Image(FOLDER / "methods.png"))

# %% [markdown]
# ## Files
# What `jaxprot rmsfnet predict --model ubiquitin.pdb --map ubiquitin.mrc -o prediction` writes as well: tables
# (`atoms.csv`, `residues.csv`), the model with the RMSF in its B-factor column (`rmsf.pdb`), the map of the RMSF
# (`rmsf.mrc`), and scripts that open and colour the model in PyMOL (`view.pml`) and ChimeraX (`view.cxc`).

# %%
out = FOLDER / "prediction"
for name in result.write(out, overwrite=True):
    print(f"{out / name}  {(out / name).stat().st_size:,} bytes")

# %% [markdown]
# ## The coloured structure
# With py3Dmol the structure is shown here and can be turned; the drawing below it needs nothing further.

# %%
if importlib.util.find_spec("py3Dmol") is not None:
    import py3Dmol

    view = py3Dmol.view(width=640, height=440)
    view.addModel((out / "rmsf.pdb").read_text(), "pdb")
    scale = {"prop": "b", "gradient": "rwb", "min": float(high), "max": float(low)}
    view.setStyle({"cartoon": {"colorscheme": scale}})
    view.zoomTo()
    view.show()

centred = xyz[ca] - xyz[ca].mean(0)
flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
fig, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
axes.plot(*flat.T, color="lightgrey", lw=3, zorder=1)
points = axes.scatter(*flat.T, c=result.residue_rmsf, s=70, zorder=2, **colours)
for i in range(0, len(flat), 10):
    axes.annotate(labels[i], flat[i], xytext=(5, 5), textcoords="offset points", fontsize=8)
axes.set(aspect="equal", xlabel="Å", ylabel="Å", title=f"{result.structure.name}: mean RMSF on the CA trace")
axes.margins(0.08)
fig.colorbar(points, label="RMSF (Å)", extend="both")
plt.show()

# %% [markdown]
# ## Your own map and model
# Name your files here (MRC or CCP4, PDB or mmCIF, also packed with gzip); the model must be fitted into the map. Maps
# of 2-4 Å are what the network was made for. With one of the two only, weights for that are taken: `"rmsfnet:map"` or
# `"rmsfnet:pdb"`. A map alone also takes the density above which voxels are predicted, `predict(None, OWN_MAP,
# contour=0.02)`.
#
# The published weights were trained on molecular dynamics. Fetch `exp_sim_model.pth` from Figshare
# ([10.6084/m9.figshare.25893670](https://doi.org/10.6084/m9.figshare.25893670)) and name the file as `WEIGHTS`; it is
# read as it is, without PyTorch.

# %%
OWN_MAP = None  # for instance "emd_4230.map.gz"
OWN_MODEL = None  # for instance "6fbv.cif"
WEIGHTS = None  # for instance "exp_sim_model.pth"

if OWN_MAP or OWN_MODEL:
    shipped = "rmsfnet" if OWN_MAP and OWN_MODEL else "rmsfnet:map" if OWN_MAP else "rmsfnet:pdb"
    own = jaxprot.load(WEIGHTS or shipped).predict(OWN_MODEL, OWN_MAP)
    print("written:", *own.write(FOLDER / "own", overwrite=True))
else:
    print("no files named yet")

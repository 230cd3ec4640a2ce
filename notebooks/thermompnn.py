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
# # Stability of every point mutation
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A structure goes in; the change of folding stability (ΔΔG, kcal/mol, positive = destabilising) of all 19 substitutions
# of every residue comes out. Set `STRUCTURE` to a PDB or mmCIF file of your own.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks]"], check=True)

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxprot
from jaxprot import examples

STRUCTURE = examples.path("ubiquitin.pdb")
CHAINS = None  # for instance "A"; None takes all protein chains

print("running on", jax.devices()[0].platform)

# %% [markdown]
# ## Scan
# One pass of the network gives all substitutions. The shipped weights are loaded; `"thermompnn:official"` fetches the
# published ones.

# %%
model = jaxprot.load("thermompnn")
scan = model.scan(STRUCTURE, CHAINS)
table = scan.to_dataframe()
table[table.wt != table.mut].sort_values("ddg_kcal_mol").head(10)

# %% [markdown]
# ## Which residues carry the fold
# The mean over the 19 substitutions: high values are residues that the fold depends on.

# %%
mean = scan.mean
fig, axes = plt.subplots(figsize=(9, 2.4))
axes.bar(np.arange(len(mean)), np.nan_to_num(mean), color="firebrick", width=0.9)
axes.set_xticks(np.arange(0, len(mean), 10), [scan.sites.label(i) for i in range(0, len(mean), 10)])
axes.set(xlabel="residue", ylabel="mean ΔΔG (kcal/mol)", title=scan.name)
plt.show()

# %% [markdown]
# ## A few mutations, with their uncertainty

# %%
wanted = ["I30A", "L50A", "K63R", "L50A:I30A"]
result = model.predict(STRUCTURE, wanted)
for name, ddg, sd, flag in zip(wanted, result.ddg, result.sd, result.flag, strict=True):
    print(f"{name:12s} {ddg:6.2f} ± {sd:.2f} kcal/mol  {flag}")

# %% [markdown]
# ## Gradients
# The predictor is a pure JAX function. Here: how the ΔΔG of I30A changes as the backbone moves.

# %%
from jaxprot.core.residues import STANDARD
from jaxprot.proteinmpnn.featurize import featurize, parse_chains

apply, leaves = model.pure()
features = featurize(parse_chains(jaxprot.read_structure(STRUCTURE), CHAINS))
site = int(np.flatnonzero(scan.sites.resid == 30)[0])
slope = jax.jit(jax.grad(lambda x: apply(leaves, features._replace(X=x))[site, STANDARD.index("A")]))(features.X)
reach = np.linalg.norm(np.asarray(slope), axis=-1).sum(axis=1)
print("residues whose backbone matters most for I30A:", [scan.sites.label(i) for i in np.argsort(-reach)[:8]])

# %% [markdown]
# ## The heatmap

# %%
from IPython.display import Image, display

folder = scan.write("thermompnn-out", overwrite=True)
display(Image(folder / "heatmap.png"))

# %% [markdown]
# ## The coloured structure
# `thermompnn-out/` also holds `ddg.pdb` with `view.pml` (PyMOL) and `view.cxc` (ChimeraX). With py3Dmol the structure
# is shown here; the drawing of the CA trace needs nothing further.

# %%
limit = float(np.nanpercentile(np.abs(mean), 95))
if importlib.util.find_spec("py3Dmol") is not None:
    import py3Dmol

    view = py3Dmol.view(width=640, height=440)
    view.addModel((folder / "ddg.pdb").read_text(), "pdb")
    colours = {"prop": "b", "gradient": "rwb", "min": limit, "max": -limit}
    view.setStyle({"cartoon": {"colorscheme": colours}})
    view.zoomTo()
    view.show()

ca = np.concatenate([chain.xyz[:, 1] for chain in scan.sites.chains])
centred = ca - np.nanmean(ca, axis=0)
_, _, axes3 = np.linalg.svd(np.nan_to_num(centred), full_matrices=False)
flat = centred @ axes3[:2].T
fig, axes = plt.subplots(figsize=(5.5, 4.5))
axes.plot(*flat.T, color="lightgrey", lw=3, zorder=1)
points = axes.scatter(*flat.T, c=mean, cmap="RdBu_r", vmin=-limit, vmax=limit, s=70, edgecolor="k", zorder=2)
for i in range(0, len(ca), 10):
    axes.annotate(scan.sites.label(i), flat[i], fontsize=8)
axes.set(aspect="equal", xticks=[], yticks=[], title=f"{scan.name}: mean ΔΔG on the CA trace")
fig.colorbar(points, label="kcal/mol")
plt.show()

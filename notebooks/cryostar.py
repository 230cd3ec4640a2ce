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
# # Conformations from particle images
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# Noisy images of single particles, with the poses of a consensus refinement, and a model docked into the consensus map
# go in; a conformation for every particle comes out. Here the particles are simulated, so that what is found can be
# held against the truth.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxprot") is None:  # in Colab
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "jaxprot[notebooks]"], check=True)

# %%
import dataclasses
import json
import pathlib
import shutil

import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import jaxprot
from jaxprot import cryostar

FOLDER = pathlib.Path("cryostar-out")
shutil.rmtree(FOLDER, ignore_errors=True)  # of an earlier pass through this notebook
print("running on", jax.devices()[0].platform)

# %% [markdown]
# ## A molecule that moves
# Two ubiquitins, chains A and B, lie side by side and open like a book. The conformations are twenty steps on the
# straight line from closed to open.

# %%
from jaxprot.cli.demo import ubiquitin_pair
from jaxprot.cryostar import simulate as simulation

closed, opened = ubiquitin_pair(0), ubiquitin_pair(45)
ensemble = simulation.morph(closed, opened, frames=20)
start, end = ensemble.frames[0], ensemble.frames[-1]
print(f"{len(ensemble.beads)} residues; closed and open differ by {np.sqrt(((start - end) ** 2).sum(1).mean()):.1f} Å")

fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for frame, colour in ((start, "tab:blue"), (end, "tab:red")):
    for chain in ("A", "B"):
        axes.plot(*frame[ensemble.beads.chain == chain, :2].T, "-o", ms=3, lw=1, color=colour)
axes.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)", title="closed (blue) and open (red), one dot per residue")
plt.show()

# %% [markdown]
# ## Particle images
# Each shows one of the conformations at a random pose, shifted, through the contrast transfer function of a microscope,
# with ten times as much noise as signal. The files are what RELION writes: `particles.star` and `particles.mrcs`. The
# reference is the closed conformation.

# %%
settings = cryostar.SimulationConfig(side=48, pixel=2.0, snr=0.1)
made = simulation.simulate(ensemble.frames, ensemble.beads.electrons, 600, settings, key=jax.random.key(0))
PARTICLES = FOLDER / "particles"
print(*simulation.write_simulation(made, ensemble, PARTICLES))
jaxprot.write_structure(simulation.placed(closed, ensemble), PARTICLES / "reference.pdb")

without = dataclasses.replace(settings, snr=np.inf)
clean = simulation.simulate(ensemble.frames, ensemble.beads.electrons, 4, without, key=jax.random.key(0))
fig, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
for column in range(4):
    axes[0, column].imshow(made.images[column], cmap="Greys_r")
    axes[1, column].imshow(clean.images[column], cmap="Greys_r")
for row, label in zip(axes, ("as given", "without noise"), strict=True):
    row[0].set_ylabel(label)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Training
# An encoder turns an image into eight numbers, its latents; a decoder turns these into a displacement of every residue
# of the reference. Both learn from how well the projection of the displaced residues fits the image, and from what
# keeps a molecule together: distances of neighbours, an elastic network, no clashes.
#
# Before the training, images are compared with projections of the reference. A wrong contrast, pixel size or shift
# would show here.

# %%
RUN = FOLDER / "run"
cfg = cryostar.default(
    str(PARTICLES / "particles.star"),
    str(PARTICLES / "reference.pdb"),
    str(RUN / "images"),
    low_pass=5.0,
    truth=str(PARTICLES / "truth.npz"),
)
cfg = dataclasses.replace(cfg, steps=300, evaluate_every=50, log_every=10, save_every=300)
task = cfg.task
for finding in cryostar.check(task.stack, task.beads, task.prepared, low_pass=task.low_pass):
    print(f"{finding.level}: {finding.message}")

# %%
import time

from jaxprot.train.config import write_config
from jaxprot.train.loop import fit

begin = time.perf_counter()
outcome = fit(cfg, RUN, begin=lambda step: write_config(cfg, RUN / "config.yaml"))
print(f"{outcome.step} steps in {time.perf_counter() - begin:.0f} s")

records = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
train = [record for record in records if "image" in record]
held = [record for record in records if "val_rmsd" in record]
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot([record["step"] for record in train], [-record["image"] for record in train])
axes[0].set(xlabel="step", ylabel="correlation with the images")
axes[1].plot([record["step"] for record in held], [record["val_rmsd"] for record in held], "-o")
axes[1].set(xlabel="step", ylabel="RMSD to the truth (Å)", ylim=(0, None))
plt.show()

# %% [markdown]
# ## The landscape
# The latents of all particles, along their first two principal components. Left with the groups of similar particles
# and the steps along the components, as `jaxprot cryostar analyze` draws it; right coloured by the true conformation,
# which a real data set does not tell.

# %%
predictor = cryostar.load(RUN)
latents = predictor.write_latents(RUN / "latents.npy")
result = cryostar.Heterogeneity.of(latents, predictor.decode, predictor.beads, predictor.task.stack, clusters=4)
result.plot(FOLDER / "landscape.png")
display(Image(FOLDER / "landscape.png"))

fig, axes = plt.subplots(figsize=(5, 4), layout="constrained")
points = axes.scatter(*result.landscape.plane.T, c=made.frame, s=8, cmap="viridis")
axes.set(xlabel="PC 1", ylabel="PC 2")
fig.colorbar(points, label="true conformation (0 closed, 19 open)")
plt.show()

# %% [markdown]
# ## Along the first component
# Ten steps from one end to the other, each the conformation of the particle nearest to it. With py3Dmol they play as a
# film that can be turned.

# %%
path, beads = result.paths[0], predictor.beads
fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for step, colour in zip(path, plt.cm.viridis(np.linspace(0, 1, len(path))), strict=True):
    for chain in ("A", "B"):
        axes.plot(*step[beads.chain == chain, :2].T, lw=1, color=colour)
axes.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)", title="conformations along the first component")
plt.show()

files = result.write(FOLDER / "analysis")
if importlib.util.find_spec("py3Dmol") is not None:
    import py3Dmol

    view = py3Dmol.view(width=640, height=440)
    view.addModelsAsFrames((FOLDER / "analysis" / "pca-1.pdb").read_text(), "pdb")
    view.setStyle({"chain": "A"}, {"sphere": {"color": "steelblue", "radius": 1.2}})
    view.setStyle({"chain": "B"}, {"sphere": {"color": "firebrick", "radius": 1.2}})
    view.animate({"loop": "backAndForth", "interval": 150})
    view.zoomTo()
    view.show()

# %% [markdown]
# ## Against the truth
# For each particle, how far the residues found are from where they were (root mean square, nothing superposed), beside
# the distance of the reference alone.

# %%
from jaxprot.core.metrics import spearman

true = ensemble.frames[made.frame]
found = predictor.decode(latents)
off = {
    "reference alone": np.sqrt(((beads.xyz - true) ** 2).sum(-1).mean(1)),
    "found": np.sqrt(((found - true) ** 2).sum(-1).mean(1)),
}
ranks = [abs(spearman(one, made.frame.astype(float))) for one in result.landscape.scores[:, :3].T]
print(f"rank correlation of the best component with the true conformation: {max(ranks):.2f}")

fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, values in off.items():
    print(f"{name}: mean {values.mean():.2f} Å, median {np.median(values):.2f} Å")
    axes.hist(values, bins=np.linspace(0, max(map(np.max, off.values())), 40), alpha=0.6, label=name)
axes.set(xlabel="RMSD of a particle (Å)", ylabel="particles")
axes.legend()
plt.show()

# %% [markdown]
# ## Mobility of the residues
# How far each residue moves over the particles (root mean square deviation from its mean place), found and true.

# %%
moved = np.sqrt(((true - true.mean(0)) ** 2).sum(-1).mean(0))
fig, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.plot(result.mobility, label="found")
axes.plot(moved, label="true", color="grey")
axes.axvline(int((beads.chain == "A").sum()) - 0.5, color="k", lw=0.5, ls=":")
axes.set(xlabel="residue (chain A, then chain B)", ylabel="mobility (Å)")
axes.legend()
plt.show()

# %% [markdown]
# ## Density maps
# The conformations above follow the reference; a map that is made from the images alone shows what the reference
# cannot. A second network learns the Fourier transform of the density as a function of the latents: an image is a plane
# through it. `jaxprot cryostar density cryostar-out/run` does the same with a wider network and writes `vol_*.mrc`.

# %%
from jaxprot.cryostar import maps

begin = time.perf_counter()
second = maps.settings(predictor, latents, RUN / "density" / "images", hidden=96, epochs=4, lr=2e-3)
trained = fit(second, RUN / "density" / "training", header=maps.header(second))
print(f"{trained.step} steps in {time.perf_counter() - begin:.0f} s")

net, pixel = maps.network(trained.best), predictor.task.prepared.pixel
groups = result.landscape.clusters.rows
fig, axes = plt.subplots(1, len(groups), figsize=(9, 2.6), layout="constrained")
for number, (axis, row, beads_of) in enumerate(zip(axes, groups, result.centres, strict=True)):
    volume = maps.volume_of(net, latents[row], pixel, f"vol_kmeans_{number:03d}")
    jaxprot.write_map(volume, RUN / "density" / f"{volume.name}.mrc")
    agreement = maps.map_model(volume, beads_of, beads.electrons)
    low, high = volume.origin[0], volume.origin[0] + pixel * (volume.data.shape[0] - 1)
    extent = (low - pixel / 2, high + pixel / 2) * 2
    axis.imshow(volume.data.sum(0), cmap="Greys", origin="lower", extent=extent)
    axis.plot(*beads_of[:, :2].T, ".", ms=2, color="tab:red")
    axis.set(title=f"group {number}: {agreement.resolution:.1f} Å", xticks=[], yticks=[])
fig.suptitle("maps of the groups along z, the residues found, and where both agree (Fourier shell correlation 0.5)")
plt.show()

# %% [markdown]
# ## Files
# What `jaxprot cryostar analyze` writes: conformations along each component (`pca-1.pdb`, ...), one of each group
# (`kmeans.pdb`), mobilities (`mobility.csv`, and as B-factors in `mobility.pdb`), the particles of each group with all
# columns of their file, to be refined on their own (`clusters/`), and scripts that play the conformations in PyMOL and
# ChimeraX.

# %%
for name in files:
    print(f"{FOLDER / 'analysis' / name}  {(FOLDER / 'analysis' / name).stat().st_size:,} bytes")

# %% [markdown]
# ## Your own particles
# Name a STAR file (RELION 3.0 to 5) or a `.cs` file (cryoSPARC) with poses and CTF, and a model that is docked into the
# consensus map, with the middle of the box at 0, 0, 0. On a GPU; a hundred thousand particles take hours on a CPU.

# %%
OWN_PARTICLES = None  # for instance "refine/run_data.star"
OWN_REFERENCE = None  # for instance "docked.pdb"

if OWN_PARTICLES and OWN_REFERENCE:
    from jaxprot.cli.main import main

    main(["cryostar", "fit", OWN_PARTICLES, "--reference", OWN_REFERENCE, "-o", str(FOLDER / "own")])
    main(["cryostar", "analyze", str(FOLDER / "own")])
else:
    print("no files named yet")

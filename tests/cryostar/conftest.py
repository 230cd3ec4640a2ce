"""A small molecule that bends, its particles, and a run on them."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxprot.cryostar import settings, simulate
from jaxprot.cryostar.gmm import Beads
from jaxprot.cryostar.results import write_models
from jaxprot.io.structures import read_structure
from jaxprot.train.config import write_config
from jaxprot.train.loop import fit
from jaxprot.train.parallel import Parallel

SMALL = {"encoder": (24, 8), "decoder": (8, 24), "latent": 3, "low_pass": 8.0, "held": 16, "settle": 1}


@pytest.fixture(scope="session")
def particles(tmp_path_factory):
    """Folder with `particles.star`, `truth.npz` and `reference.pdb` of a helix of 16 residues that bends."""
    folder = tmp_path_factory.mktemp("particles") / "simulated"
    n, turn = 16, np.arange(16) * np.radians(100)
    xyz = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(n)], 1)
    share, along = np.linspace(-1, 1, 5), np.linspace(-1, 1, n)
    frames = xyz[None] + share[:, None, None] * (4 * along**2)[None, :, None] * np.array([1.0, 0, 0])
    frames = (frames - frames.mean((0, 1))).astype(np.float32)
    beads = Beads("helix", frames[2], np.full(n, 40, np.float32), np.full(n, "CA"), np.full(n, "ALA"),
                  np.full(n, "A", "U8"), np.arange(1, n + 1), np.full(n, ""))  # fmt: skip
    cfg = simulate.SimulationConfig(side=16, pixel=3.0, snr=1.0, shift_sd=1.0)
    made = simulate.simulate(frames, beads.electrons, 48, cfg, key=jax.random.key(0))
    simulate.write_simulation(made, simulate.Ensemble(beads, frames), folder)
    write_models(frames[2][None], beads, folder / "reference.pdb")
    return folder


def config_of(particles, cache, **task):
    """A small run."""
    names = (particles / "particles.star", particles / "reference.pdb", cache)
    cfg = settings.default(*map(str, names), **(SMALL | {"batch": 16} | task))
    return dataclasses.replace(cfg, steps=6, evaluate_every=3, save_every=3, log_every=3, chunk=1)


@pytest.fixture(scope="session")
def run(particles, tmp_path_factory):
    """Folder of a run of six steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    cfg = config_of(particles, folder / "images", truth=str(particles / "truth.npz"))
    folder.mkdir()
    write_config(cfg, folder / "config.yaml")
    fit(cfg, folder, parallel=Parallel("single"))
    assert read_structure(particles / "reference.pdb").n_residues == 16
    return folder

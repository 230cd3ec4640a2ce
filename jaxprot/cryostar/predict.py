"""A trained auto-encoder: images to latents, latents to conformations."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.cryostar import weights
from jaxprot.cryostar.config import DensityConfig, VAEConfig
from jaxprot.cryostar.conformation import ConformationTask
from jaxprot.cryostar.gmm import Beads, beads_of
from jaxprot.cryostar.model import VAE, along_modes, displaced
from jaxprot.io.outputs import atomic_path
from jaxprot.io.structures import read_structure
from jaxprot.train.config import read_config

log = logging.getLogger(__name__)

_BATCH = 128


class Predictor:
    """The auto-encoder of one data set.

    Args:
      model: the network.
      beads: of the reference.
      modes: (3 N, k) normal modes, for a decoder that moves along them.
      task: what it was trained by, if it comes from a run.
    """

    def __init__(self, model: VAE, beads: Beads, modes: np.ndarray | None = None, task: ConformationTask | None = None):
        self.model, self.beads, self.modes, self.task = model, beads, modes, task
        graphdef, leaves = nnx.split(model)
        self._leaves = leaves
        reference = jnp.asarray(beads.xyz)

        def structures(leaves: Any, latents: Array) -> Array:
            deformation = nnx.merge(graphdef, leaves).decoder(latents)
            if modes is None:
                return displaced(deformation, reference)
            return along_modes(deformation, reference, jnp.asarray(modes))

        self._decode = jax.jit(structures)
        self._encode = jax.jit(lambda leaves, images: nnx.merge(graphdef, leaves).encoder(images)[0])

    def pure(self) -> tuple[Callable[[Any, Float[Array, "n k"]], Float[Array, "n m 3"]], Any]:
        """(apply, leaves) of plain JAX: apply(leaves, latents) are conformations in Å."""
        return self._decode, self._leaves

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """(n, N, 3) float32 conformations in Å of (n, k) latents."""
        latents = np.asarray(latents, np.float32)
        if latents.ndim != 2 or latents.shape[1] != self.model.cfg.latent:
            raise InputError(f"latents of shape {latents.shape}, expected (n, {self.model.cfg.latent})")
        return by_batches(lambda part: self._decode(self._leaves, part), (latents,))

    def encode(self, images: np.ndarray) -> np.ndarray:
        """(n, k) float32 mean latents of (n, D, D) images, prepared as those of the training."""
        if images.shape[-1] != self.model.cfg.side:
            raise InputError(f"images of {images.shape[-1]} pixels, the encoder reads {self.model.cfg.side}")
        return by_batches(lambda part: self._encode(self._leaves, part), (images,))

    def latents(self, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """(n, k) float32 mean latents of the particles of the run, in the order of their file.

        Raises:
          InputError: the network comes from no run.
        """
        task = self.task
        if task is None:
            raise InputError("these weights come without particles; encode images, or give the folder of a run")

        def encoded(rows: np.ndarray) -> Any:
            return self._encode(self._leaves, task.examples(rows)["images"])

        return by_batches(encoded, (np.arange(len(task.stack)),), progress)

    def read_latents(self, path: str | os.PathLike) -> np.ndarray:
        """(n, k) latents of a file, checked against the particles; computed where the file is not there.

        Raises:
          InputError: the file is damaged, or holds latents of other particles.
        """
        path = pathlib.Path(path)
        if not path.exists():
            return self.latents()
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: not an array of latents ({error})") from error
        count = None if self.task is None else len(self.task.stack)
        expected = (count, self.model.cfg.latent)
        if found.ndim != 2 or found.shape[1] != expected[1] or (count is not None and len(found) != count):
            raise InputError(f"{path}: latents of shape {found.shape}, and the run needs {expected}")
        return found.astype(np.float32)

    def write_latents(self, path: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Writes `latents` as a `.npy` file, and gives them."""
        found = self.latents(progress)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, found)
        return found


def _exportable(density: pathlib.Path, cfg: DensityConfig, latents: np.ndarray) -> bool:
    """Whether the published code can read a density network beside these latents; why not is logged."""
    if cfg.encoder or cfg.net == "cryoai":
        why = (
            "its latents are those of an encoder of its own"
            if cfg.encoder
            else "no published layout of cryoai is known"
        )
        log.warning("%s: left out: %s", density, why)
        return False
    return not _stale(density, latents)


def _stale(density: pathlib.Path, latents: np.ndarray) -> bool:
    """Whether a density network is of other latents than these; what tells is `maps.LATENTS`."""
    try:
        told = json.loads((density.parent / "settings.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    known = told.get("latents of the run")
    if known in (None, hashlib.sha256(np.ascontiguousarray(latents).tobytes()).hexdigest()):
        return False
    log.warning("%s: of other latents than those of the run now; left out (`jaxprot cryostar density --overwrite`)",
                density)  # fmt: skip
    return True


def by_batches(function: Any, inputs: tuple[Any, ...], progress: Any = None) -> np.ndarray:
    """Results of equal batches, the last one filled up."""
    n, out = len(inputs[0]), []
    size = min(_BATCH, n)
    for start in range(0, n, size):
        rows = np.resize(np.arange(start, min(start + size, n)), size)
        out.append(np.asarray(function(*(np.asarray(one[rows]) for one in inputs)))[: n - start])
        if progress is not None:
            progress(min(start + size, n), n)
    return np.concatenate(out)


def load(run: str | os.PathLike, reference: str | os.PathLike | None = None) -> Predictor:
    """A trained auto-encoder with its best weights.

    Args:
      run: folder of a run of `jaxprot cryostar fit` (or `jaxprot train`); or a file of weights, a published `ckpt.pt`
        as well.
      reference: PDB or mmCIF file of the model that a file of weights was trained with; a run tells its own.

    Raises:
      InputError: not such a run, or its data are gone; no reference, or one of another number of beads.
      CheckpointError: weights that do not fit.
    """
    run = pathlib.Path(run)
    if run.is_file():
        return _of_file(run, reference)
    path = run / "best.safetensors"
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: not the folder of a run (no config.yaml); `jaxprot cryostar fit` makes one")
    if not path.is_file():
        raise InputError(f"{run}: no best.safetensors yet; go on with the training (--resume)")
    task = read_config(run / "config.yaml").task
    if not isinstance(task, ConformationTask):
        raise InputError(f"{run}: a run of {type(task).__name__}, not of cryoSTAR's first phase")
    return Predictor(_network(path, task.model), task.beads, task.normal_modes, task)


def _of_file(path: pathlib.Path, reference: str | os.PathLike | None) -> Predictor:
    if reference is None:
        raise InputError(f"{path}: weights do not tell the model; give the reference that they were trained with")
    beads = beads_of(read_structure(reference))
    model = _network(path)
    if model.cfg.modes:
        raise InputError(f"{path}: the decoder moves along normal modes, which the file does not hold; give a run")
    if model.cfg.beads != len(beads):
        raise InputError(f"{path}: weights for {model.cfg.beads} beads, and {reference} has {len(beads)}")
    return Predictor(model, beads)


def _network(path: pathlib.Path, cfg: VAEConfig | None = None) -> VAE:
    """The auto-encoder of a file; `cfg`: sizes that it must have."""
    found, tensors, _ = weights.read(path)
    if not isinstance(found, VAEConfig):
        raise CheckpointError(f"{path}: a density network; these weights are not of the first phase")
    if cfg is not None and cfg != found:
        raise CheckpointError(f"{path}: weights of {found}, and the run's configuration and data need {cfg}")
    try:
        return cast(VAE, weights.assemble(found, tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def export_official(run: str | os.PathLike, folder: str | os.PathLike) -> list[str]:
    """Writes a run as the published code writes one: `ckpt.pt`, which it loads, and `z.npy`.

    Args:
      run: folder of `jaxprot cryostar fit`; the densities in its folder `density` are exported as well.
      folder: made if it is not there.

    Returns:
      Names of the files: `ckpt.pt`, `z.npy`, and `density_ckpt.pt` if there are densities.

    Raises:
      InputError: not such a run, or a network that has no published layout.
    """
    run, folder = pathlib.Path(run), pathlib.Path(folder)
    predictor = load(run)
    task = predictor.task
    assert task is not None
    cfg, tensors, extras = weights.read(run / "best.safetensors")
    n = len(predictor.beads)
    beads = {"sigma": np.full(n, task.sigma, np.float32), "amplitude": predictor.beads.electrons}
    folder.mkdir(parents=True, exist_ok=True)
    weights.export_official(folder / "ckpt.pt", cfg, tensors, beads | {k: extras[k] for k in beads if k in extras})
    latents, written = predictor.read_latents(run / "latents.npy"), ["ckpt.pt", "z.npy"]
    with atomic_path(folder / "z.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, latents)
    density = run / "density" / "training" / "best.safetensors"
    found, tensors, _ = weights.read(density) if density.is_file() else (None, None, None)
    if isinstance(found, DensityConfig) and _exportable(density, found, latents):
        weights.export_official(folder / "density_ckpt.pt", found, tensors)
        written.append("density_ckpt.pt")
    return written

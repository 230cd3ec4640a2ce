"""A trained auto-encoder: images to latents, latents to conformations."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.cryostar.conformation import ConformationTask
from jaxprot.cryostar.gmm import Beads
from jaxprot.cryostar.model import VAE, along_modes, displaced
from jaxprot.io.outputs import atomic_path
from jaxprot.train.config import read_config
from jaxprot.weights import module, portable

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
        return _by_batches(lambda part: self._decode(self._leaves, part), (latents,))

    def encode(self, images: np.ndarray) -> np.ndarray:
        """(n, k) float32 mean latents of (n, D, D) images, prepared as those of the training."""
        if images.shape[-1] != self.model.cfg.side:
            raise InputError(f"images of {images.shape[-1]} pixels, the encoder reads {self.model.cfg.side}")
        return _by_batches(lambda part: self._encode(self._leaves, part), (images,))

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

        return _by_batches(encoded, (np.arange(len(task.stack)),), progress)


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


def _by_batches(function: Any, inputs: tuple[Any, ...], progress: Any = None) -> np.ndarray:
    """Results of equal batches, the last one filled up."""
    n, out = len(inputs[0]), []
    size = min(_BATCH, n)
    for start in range(0, n, size):
        rows = np.resize(np.arange(start, min(start + size, n)), size)
        out.append(np.asarray(function(*(np.asarray(one[rows]) for one in inputs)))[: n - start])
        if progress is not None:
            progress(min(start + size, n), n)
    return np.concatenate(out)


def load(run: str | os.PathLike) -> Predictor:
    """The auto-encoder of a run of `jaxprot cryostar fit` (or `jaxprot train`) with its best weights.

    Raises:
      InputError: not such a run, or its data are gone.
      CheckpointError: its weights do not fit.
    """
    run = pathlib.Path(run)
    path = run / "best.safetensors"
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: not the folder of a run (no config.yaml); `jaxprot cryostar fit` makes one")
    if not path.is_file():
        raise InputError(f"{run}: no best.safetensors yet; go on with the training (--resume)")
    task = read_config(run / "config.yaml").task
    if not isinstance(task, ConformationTask):
        raise InputError(f"{run}: a run of {type(task).__name__}, not of cryoSTAR's first phase")
    tensors, _ = portable.load(path)
    more = {"sigma", "amplitude", "steps"}
    network = {name: value for name, value in tensors.items() if name not in more}
    cfg = task.model
    try:
        model = module.assemble(module.Blueprint(lambda rngs: VAE(cfg, rngs=rngs)), network)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Predictor(model, task.beads, task.normal_modes, task)

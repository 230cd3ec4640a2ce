"""Saving and resuming a run with Orbax."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxprot.core.errors import CheckpointError
from jaxprot.train.step import TrainState


class Checkpoints:
    """Numbered checkpoints of a training state under one folder; an interrupted save leaves the last one valid."""

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        self.folder = pathlib.Path(folder).absolute()
        self._manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, task_state: dict[str, Any]) -> None:
        """Saves in the background; a copy of the state is taken first, so it may be donated afterwards."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), data=ocp.args.JsonSave(task_state)),
        )

    def restore(self, template: TrainState) -> TrainState:
        """The newest checkpoint in the shapes of `template`.

        Raises:
          CheckpointError: there is none, or it belongs to another model or optimiser.
        """
        step = self.latest()
        if step is None:
            raise CheckpointError(f"{self.folder}: no checkpoint to resume from; start the run without --resume")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template._asdict())
        try:
            out = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.folder}/{step}: not a checkpoint of this model and optimiser ({str(error).splitlines()[0]}); "
                "resume with the configuration the run was started with"
            ) from error
        return TrainState(**out["state"])

    def close(self) -> None:
        """Waits for pending saves."""
        self._manager.wait_until_finished()
        self._manager.close()

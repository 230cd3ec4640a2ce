"""Saving and resuming a run with Orbax."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxprot.core.errors import CheckpointError, OutputError
from jaxprot.train.step import TrainState

_log = logging.getLogger(__name__)


class Checkpoints:
    """Numbered checkpoints of a training state under one folder: the newest ones and the best one.

    A save runs in the background and becomes valid by a rename at its end, so one that was interrupted leaves the
    others as they were. All processes of a run call every method.

    Args:
      folder: made if it is not there.
      keep: newest checkpoints kept; the one with the largest `score` is kept beside them.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        self.folder = pathlib.Path(folder).absolute()
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=True, cleanup_tmp_directories=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "loop": ocp.JsonCheckpointHandler()}
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be used for checkpoints ({error.strerror or error})") from error

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, loop: dict[str, Any], score: float | None = None) -> None:
        """Saves in the background; the state is copied first, so it may be donated afterwards.

        Args:
          step: steps done; a checkpoint of the same step is left as it is.
          state: global arrays.
          loop: what the host keeps, for JSON.
          score: figure that tells the best checkpoint (larger is better), if it was evaluated at this step.

        Raises:
          OutputError: this or an earlier save failed (disk full, no permission).
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), loop=ocp.args.JsonSave(loop))
        try:
            self._manager.save(step, args=args, metrics=None if score is None else {"score": score})
        except (OSError, ValueError, RuntimeError) as error:
            raise self._failed(error) from error

    def check(self) -> None:
        """Raises what a save in the background ran into.

        Raises:
          OutputError: a save failed.
        """
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, template: TrainState, sharding: Any) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint, laid on the devices of `sharding`, whatever devices it was written from.

        Args:
          template: shapes and types.
          sharding: of every array.

        Returns:
          The state, and what `save` was given as `loop`.

        Raises:
          CheckpointError: there is none, it is damaged, or it belongs to another model or optimiser.
        """
        step = self.latest()
        if step is None:
            raise CheckpointError(f"{self.folder}: no checkpoint to resume from; start the run without --resume")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), template._asdict()
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), loop=ocp.args.JsonRestore())
        try:
            # Compared first: a restore that fails on one array prints pages for the others.
            different = _difference(self._manager.item_metadata(step)["state"].tree, abstract)
            out = None if different else self._manager.restore(step, args=args)
        except Exception as error:  # tensorstore, zarr and json each have their own
            raise CheckpointError(
                f"{self.folder / str(step)}: damaged, or written by another version "
                f"({' '.join(str(error).split())[:200]}); remove this folder to go on from the checkpoint before it"
            ) from error
        if out is None:
            raise CheckpointError(
                f"{self.folder / str(step)}: not a checkpoint of this model and optimiser ({different}); resume with "
                "the configuration that the run was started with"
            )
        return TrainState(**out["state"]), dict(out["loop"])

    def close(self) -> None:
        """Waits for pending saves.

        Raises:
          OutputError: one failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        finally:
            self._manager.close()

    def _failed(self, error: Exception) -> OutputError:
        there = self.latest()
        kept = "there is no earlier one" if there is None else f"the one of step {there} is intact"
        text = " ".join(str(error).split())[:300]
        return OutputError(f"{self.folder}: a checkpoint could not be written ({text}); {kept}")


def _difference(held: Any, wanted: Any) -> str:
    """The first array whose shape differs or that one of them lacks, in words; empty where there is none."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        return {name: tuple(leaf.shape) for name, leaf in named.items() if getattr(leaf, "shape", None) is not None}

    # The key is stored as its numbers, whose shape is not its own.
    there, mine = (shapes({**tree, "key": None}) for tree in (held, wanted))
    for name in sorted(there.keys() | mine.keys()):
        if there.get(name) != mine.get(name):
            return f"{name}: {there.get(name, 'absent')} there, {mine.get(name, 'absent')} wanted"
    return ""

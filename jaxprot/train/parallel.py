"""Data parallelism: one function of one device's part of a batch, run on one device or on many.

The function gets the name of the device axis and sums over it itself (`psum` of sums and counts), so the three ways to
run it share every line of numerics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxprot.core.errors import InputError

Mode = Literal["shard_map", "pmap", "single"]
AXIS = "data"


def psum(tree: Any, axis: str | None) -> Any:
    """Sum over the devices, or the tree itself where there is one."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def by_process(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Devices of a process next to each other, as its part of a batch is; on TPU pods their numbers have gaps."""
    return sorted(devices, key=lambda device: device.process_index)


class Parallel:
    """Devices, and how arrays and steps are laid on them.

    Weights, optimiser and step are copied to every device; the examples of a batch are cut along a one-dimensional mesh
    `data`, in the order of the devices, so that process p of P holds the p-th part. Arrays are global in every mode.

    Args:
      mode: `shard_map`; `pmap` (the same function through `jax.pmap`, bitwise equal); or `single`, which uses the first
        device alone, without collectives.
      devices: all that jax knows (of all processes) by default.

    Raises:
      InputError: an unknown mode, or `single` with several processes.
    """

    def __init__(self, mode: Mode = "shard_map", devices: Sequence[jax.Device] | None = None):
        if mode not in get_args(Mode):
            raise InputError(f"--parallel {mode}: give one of {', '.join(get_args(Mode))}")
        if mode == "single" and jax.process_count() > 1:
            raise InputError(f"--parallel single: there are {jax.process_count()} processes; leave it out")
        everywhere = by_process(jax.devices() if devices is None else devices)
        self.mode: Mode = mode
        self.devices = everywhere[:1] if mode == "single" else everywhere
        self.axis = None if mode == "single" else AXIS
        self._mesh = None
        self._replicated: Any = SingleDeviceSharding(self.devices[0])
        self._split: Any = self._replicated
        if mode != "single":
            # Auto axes: `jax.make_mesh` alone makes explicit ones, which do not mix with the outputs of pmap.
            self._mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
            self._replicated = NamedSharding(self._mesh, PartitionSpec())
            self._split = NamedSharding(self._mesh, PartitionSpec(None, AXIS))

    def __str__(self) -> str:
        kind = self.devices[0].device_kind
        hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"{len(self.devices)} x {kind}{hosts} ({self.mode})"

    @property
    def first(self) -> bool:
        """Whether this process writes what needs to be written once."""
        return jax.process_index() == 0

    @property
    def sharding(self) -> Any:
        """Sharding of what every device holds."""
        return self._replicated

    def padded(self, count: int) -> int:
        """Examples of a batch when filled up to a multiple of the devices."""
        return math.ceil(count / len(self.devices)) * len(self.devices)

    def mine(self, count: int) -> slice:
        """This process's part of a batch of `count` (padded) examples."""
        each = count // jax.process_count()
        return slice(jax.process_index() * each, (jax.process_index() + 1) * each)

    def replicate(self, tree: Any) -> Any:
        """Copies arrays to every device; every process must give the same ones."""
        if jax.process_count() > 1:  # device_put refuses arrays of one process for devices of another
            return jax.jit(lambda leaves: leaves, out_shardings=self._replicated)(tree)
        return jax.tree.map(lambda leaf: jax.device_put(leaf, self._replicated), tree)

    def put(self, batch: Any, total: int) -> Any:
        """Lays this process's part of a batch on its devices.

        Args:
          batch: arrays (steps, examples of this process, ...).
          total: padded examples of the batch over all processes.

        Returns:
          Global arrays (steps, total, ...), for `pmap` (steps, devices, examples of a device, ...).
        """

        def lay(leaf: np.ndarray) -> jax.Array:
            steps, rest = leaf.shape[0], leaf.shape[2:]
            shape = (steps, total, *rest)
            if self.mode == "pmap":
                each = total // len(self.devices)
                leaf = leaf.reshape(steps, -1, each, *rest)
                shape = (steps, len(self.devices), each, *rest)
            if jax.process_count() > 1:
                return jax.make_array_from_process_local_data(self._split, leaf, shape)
            return jax.device_put(leaf, self._split)

        return jax.tree.map(lay, batch)

    def compile(self, step: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """Compiles `step(state, batch, rates, resident) -> (state, metrics)` for the devices.

        `step` sees (steps, examples of its device, ...) and must return the same state and metrics on every device. The
        state is donated.
        """
        if self.mode == "single":
            return jax.jit(step, donate_argnums=0)
        if self.mode == "pmap":
            axes = {"axis_name": AXIS, "in_axes": (None, 1, None, None), "out_axes": None}
            return jax.pmap(step, **axes, devices=self.devices, donate_argnums=0)
        assert self._mesh is not None
        everywhere, split = PartitionSpec(), PartitionSpec(None, AXIS)
        # With check_vma the gradient of a replicated argument is summed over the devices by itself; the step's own sum
        # would then make it too large by their number.
        mapped = jax.shard_map(
            step,
            mesh=self._mesh,
            in_specs=(everywhere, split, everywhere, everywhere),
            out_specs=(everywhere, everywhere),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0)

    def whole(self, tree: Any) -> Any:
        """Arrays on every device of every process; pmap leaves them on those of its own process."""
        if self.mode != "pmap" or jax.process_count() == 1:
            return tree

        def lift(leaf: jax.Array) -> jax.Array:
            shards = [shard.data for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape, self._replicated, shards)

        return jax.tree.map(lift, tree)

    @staticmethod
    def local(tree: Any) -> Any:
        """One device's copy of what every device holds, for computations of one process alone."""
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def initialise(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Starts the connection between the processes of a run; call it before anything else of jax.

    Without arguments, they are taken from SLURM, Open MPI or a cloud TPU's metadata.

    Args:
      coordinator: HOST:PORT of process 0.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      InputError: only some of the arguments are given, the environment tells nothing, or there is no connection.
    """
    given = (coordinator, processes, process)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise InputError(
            "--distributed: give all of --coordinator HOST:PORT, --num-processes and --process-id, or none of them"
        )
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--distributed: {' '.join(str(error).split())[:300]}; outside SLURM, Open MPI and cloud TPUs give "
            "--coordinator HOST:PORT, --num-processes and --process-id, the same port free on the first host"
        ) from error

"""Work on rows that are alike, shared by several devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxprot.core.errors import InputError

_ROWS = "rows"


def mesh(count: int) -> Mesh | None:
    """The first devices of this process that jax has; None for one.

    Raises:
      InputError: there are fewer.
    """
    if count == 1:
        return None
    there = jax.local_devices()
    if len(there) < count:
        raise InputError(f"{count} devices asked for; jax has {len(there)}")
    return Mesh(np.array(there[:count]), (_ROWS,), axis_types=(AxisType.Auto,))


def shared(function: Callable[[Any], Any], rows: Any, devices: Mesh | None) -> Any:
    """What a function gives of rows, each device having looked at its part of them; all have all of it.

    Args:
      function: of a pytree of arrays of some rows, to a pytree of arrays of as many; what it knows besides, all devices
        know. Copies of the last row are added where the devices cannot have equally many.
      rows: pytree of arrays of n rows.
      devices: None for a plain call.
    """
    if devices is None:
        return function(rows)
    count, each = jax.tree.leaves(rows)[0].shape[0], PartitionSpec(_ROWS)
    room = -count % devices.size
    rows = jax.tree.map(lambda x: jnp.pad(jnp.asarray(x), ((0, room), *((0, 0),) * (x.ndim - 1)), "edge"), rows)

    def part(rows: Any) -> Any:
        # Gathered here, so that nothing of what follows is divided in some other way.
        return jax.tree.map(lambda x: jax.lax.all_gather(x, _ROWS, tiled=True), function(rows))

    spread = jax.shard_map(part, mesh=devices, in_specs=(each,), out_specs=PartitionSpec(), check_vma=False)
    return jax.tree.map(lambda x: x[:count], spread(rows))

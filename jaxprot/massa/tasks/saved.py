"""Weights that fine-tuning exported: a network whose header tells what its outputs mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxprot.core.errors import CheckpointError
from jaxprot.weights import inspect, module


def assemble(
    path: str | os.PathLike,
    networks: Sequence[str],
    build: Callable[[dict[str, Any]], module.Blueprint],
    what: str,
    hint: str = "",
) -> tuple[Any, dict[str, Any]]:
    """A network with its weights, and what the header tells of its task.

    Args:
      path: `best.safetensors`, or the folder that holds it.
      networks: what the header may call the network.
      build: structure of the network from the header.
      what: the weights are of, for messages.
      hint: what makes such weights, for messages.

    Raises:
      InputError: no such file.
      CheckpointError: weights of something else.
    """
    path = file(path)
    _, tensors, header = inspect.read(path)
    if "task" in header and header.get("network") not in networks:
        raise CheckpointError(f"{path}: weights of another kind of network ({header.get('network')}), not of {what}")
    if "task" not in header:
        made = " ".join(("`jaxprot massa finetune` makes such", hint)).strip()
        raise CheckpointError(f"{path}: not weights of {what}; {made}")
    try:
        return module.assemble(build(header), tensors), header["task"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its header fits no network of {what} ({error})") from error


def header(path: str | os.PathLike) -> dict[str, Any]:
    """What a file, or that of a folder, tells of its weights. Errors as of `assemble`."""
    return inspect.read(file(path))[2]


def file(path: str | os.PathLike) -> Path:
    """The weights of a folder, or the file itself."""
    path = Path(path)
    return path / "best.safetensors" if path.is_dir() else path

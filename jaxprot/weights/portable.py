"""Portable weights: one safetensors file of named arrays with a JSON header under the metadata key `jaxprot`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError, InputError
from jaxprot.io.outputs import atomic_path

HEADER_KEY = "jaxprot"


def save(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    """Writes weights; an interrupted write leaves no file under `path`.

    Args:
      path: `.safetensors` file to write.
      tensors: dotted name -> array.
      header: what a reader must know: `system`, `config`, and where the numbers come from (`source`, its hash, ...).
        Anything that JSON can hold.

    Raises:
      OutputError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic_path(path) as temporary:
        # Its own file writer makes the file private to the user; weights are to be shared.
        temporary.write_bytes(to_bytes(arrays, metadata={HEADER_KEY: json.dumps(dict(header), sort_keys=True)}))


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads weights.

    Args:
      path: a `.safetensors` file.

    Returns:
      Named arrays, and the header (empty for a file that jaxprot did not write).

    Raises:
      InputError: no such file.
      CheckpointError: truncated, damaged or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); download or copy the file again"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header under {HEADER_KEY!r} is not a JSON object")
    return tensors, header

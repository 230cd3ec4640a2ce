"""`jaxprot.load`: from the name of registered weights, or a file, to the predictor of the system they belong to."""

import importlib
import os
from pathlib import Path
from typing import Any

from jaxprot.core.errors import CheckpointError


def load(spec: str | os.PathLike, **config: Any) -> Any:
    """Loads a predictor.

    Args:
      spec: a name (`"thermompnn"`: the shipped default; `"thermompnn:official"`, `"proteinmpnn:v_48_020"`: fetched once
        into the cache; `jaxprot weights list` shows all), or a path to an official `.pt`/`.ckpt` file or to a converted
        `.safetensors` file, whose system is recognised from its header or keys.
      **config: passed to the system's own `predict.load`.

    Returns:
      The predictor, for instance `jaxprot.thermompnn.predict.Predictor`.

    Raises:
      InputError: neither a registered name nor a file.
      DownloadError: the weights could not be fetched.
      CheckpointError: the file is damaged, refused, or of no known system.
    """
    from jaxprot.weights import registry

    path, entry = registry.resolve(spec)
    system = entry.system if entry is not None else detect_system(path)
    predict = importlib.import_module(f"jaxprot.{system}.predict")
    return predict.load(path, **config)


def detect_system(path: str | os.PathLike) -> str:
    """Name of the system that a weights file belongs to.

    Raises:
      CheckpointError: damaged, refused, or of no known system.
    """
    from jaxprot.weights import inspect

    path = Path(path)
    systems = sorted({match.system for match in inspect.examine(path).matches})
    if len(systems) != 1:
        found = f"fits several systems ({', '.join(systems)})" if systems else "fits no system of this version"
        raise CheckpointError(
            f"{path}: {found}; `jaxprot weights inspect {path.name}` lists its keys, "
            "and a system's own `predict.load` takes the file without guessing"
        )
    return systems[0]

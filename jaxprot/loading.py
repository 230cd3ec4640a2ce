"""`jaxprot.load`: from the name of registered weights, or a file, to the predictor of the system they belong to."""

import importlib
import os
from pathlib import Path
from typing import Any

from jaxprot.core.errors import CheckpointError

_BY_RUN = ("cryostar",)  # weights of one data set, for which the run's configuration is needed


def load(spec: str | os.PathLike, **config: Any) -> Any:
    """Loads a predictor.

    Args:
      spec: a name (`"thermompnn"`: the shipped default; `"thermompnn:official"`, `"proteinmpnn:v_48_020"`: fetched once
        into the cache; `jaxprot weights list` shows all), or a path to an official `.pt`/`.ckpt` file or to a converted
        `.safetensors` file, whose system is recognised from its header or keys, or the folder of a training run, whose
        best weights are taken.
      **config: passed to the system's own `predict.load`; weights of cryoSTAR that come without a run need
        `reference`, the model that they were trained with.

    Returns:
      The predictor, for instance `jaxprot.thermompnn.predict.Predictor`.

    Raises:
      InputError: neither a registered name nor a file.
      DownloadError: the weights could not be fetched.
      CheckpointError: the file is damaged, refused, or of no known system.
    """
    from jaxprot.weights import registry

    if isinstance(spec, str | os.PathLike) and (Path(spec) / "config.yaml").is_file():
        return _of_run(Path(spec), **config)
    path, entry = registry.resolve(spec)
    system = entry.system if entry is not None else detect_system(path)
    predict = importlib.import_module(f"jaxprot.{system}.predict")
    return predict.load(path, **config)


def _of_run(run: Path, **config: Any) -> Any:
    best = run / "best.safetensors"
    if not best.is_file():
        raise CheckpointError(f"{run}: a run without best.safetensors yet; go on with the training (--resume)")
    from jaxprot.train.config import read_config

    system = type(read_config(run / "config.yaml").task).__module__.split(".")[1]
    predict = importlib.import_module(f"jaxprot.{system}.predict")
    return predict.load(run if system in _BY_RUN else best, **config)


def detect_system(path: str | os.PathLike) -> str:
    """Name of the system that a weights file belongs to.

    Raises:
      CheckpointError: damaged, refused, or of no known system.
    """
    from jaxprot.weights import inspect

    path = Path(path)
    examined = inspect.examine(path)
    systems = sorted({match.system for match in examined.matches})
    if examined.told:
        raise CheckpointError(f"{path}: {examined.told}")
    if len(systems) != 1:
        found = f"fits several systems ({', '.join(systems)})" if systems else "fits no system of this version"
        raise CheckpointError(
            f"{path}: {found}; `jaxprot weights inspect {path.name}` lists its keys, "
            "and a system's own `predict.load` takes the file without guessing"
        )
    return systems[0]

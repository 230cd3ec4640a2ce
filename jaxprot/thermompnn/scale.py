"""What worker processes compute over very many structures: functions for the jobs of `jaxprot.scale`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxprot.core.errors import CheckpointError
from jaxprot.io.outputs import sha256
from jaxprot.scale.job import Columns, Function, Item, Job, file_stamp
from jaxprot.scale.parts import Parts
from jaxprot.thermompnn.lists import Predictions, Task, predict_tasks
from jaxprot.thermompnn.predict import Predictor, load, tie
from jaxprot.thermompnn.results import Scan, spread_name

SCAN = {
    "structure": "str",
    "chain": "str",
    "resid": "int32",
    "icode": "str",
    "index": "int32",
    "wt": "str",
    "mut": "str",
    "ddg_kcal_mol": "float32",
    "flag": "str",
}
"""Columns of a scan over many structures: the structure, and those of `scan.csv`."""
PREDICT = {"row": "int64", "ddg_kcal_mol": "float64", "sd_kcal_mol": "float64", "flag": "str"}
"""Columns of a list: its row, counted from 0, and what was predicted for it."""


def scan_job(predictor: Predictor, weights: dict[str, Any], **settings: Any) -> Job:
    """The scan of many structures; items are files, their content is the path.

    Args:
      predictor: of these weights, which tells what columns there are.
      weights: `file` and `sha256`.
      **settings: `chains`, `samples`, `seed`, `tied`, `cysteine`.
    """
    predictor.needs_single("scan")
    spread = spread_name(predictor.calibrated) if settings["samples"] else None
    make = functools.partial(scanner, str(weights["file"]), weights["sha256"], spread=spread, **settings)
    columns = SCAN if spread is None else {**SCAN, spread: "float32"}
    return Job("thermompnn scan", {"weights": weights["sha256"], **settings}, make, columns)


def scanner(
    weights: str,
    checksum: str,
    *,
    chains: str | None,
    samples: int,
    seed: int,
    tied: Sequence[Sequence[str]],
    cysteine: bool,
    spread: str | None,
) -> Function:
    """Loads the model and gives the function that scans files."""
    predictor = _load(weights, checksum)

    def scan(items: Sequence[Item]) -> Iterator[tuple[int, Columns | Exception]]:
        paths = [item.content for item in items]
        for place, found in predictor.scan_many(paths, chains, samples=samples, seed=seed):
            try:
                if isinstance(found, Exception):
                    raise found
                found = tie(found, tied) if tied else found
                yield place, _scan_columns(found, items[place].name, spread, cysteine)
            except Exception as error:  # of this structure alone
                yield place, error

    return scan


def _scan_columns(scan: Scan, name: str, spread: str | None, cysteine: bool) -> Columns:
    columns = scan.columns()
    if spread is not None:
        columns[spread] = scan.sd[scan.sites.predicted].reshape(-1)
    if not cysteine:
        kept = (columns["mut"] != "C") | (columns["wt"] == "C")
        columns = {key: values[kept] for key, values in columns.items()}
    return {"structure": np.full(len(columns["mut"]), name, dtype=object), **columns}


def predict_job(weights: dict[str, Any], **settings: Any) -> Job:
    """The predictions of a list; items are of `task_items`.

    Args:
      weights: `file` and `sha256`.
      **settings: `samples`, `seed`, and whatever else decides the numbers.
    """
    make = functools.partial(
        lister, str(weights["file"]), weights["sha256"], samples=settings["samples"], seed=settings["seed"]
    )
    return Job("thermompnn predict", {"weights": weights["sha256"], **settings}, make, PREDICT)


def task_items(tasks: Sequence[Task]) -> list[Item]:
    """One item for each protein of a list; workers read its file."""
    items: dict[str, Item] = {}
    for number, task in enumerate(tasks):
        stamp, size = file_stamp(task.path)
        name = f"{task.path}, chains {','.join(task.chains)}"
        if name in items:  # a list may call one file by several names
            name = f"{name} ({number})"
        items[name] = Item(name, dataclasses.replace(task, source=task.path.absolute()), stamp, size)
    return list(items.values())


def lister(weights: str, checksum: str, *, samples: int, seed: int) -> Function:
    """Loads the model and gives the function that predicts tasks."""
    predictor = _load(weights, checksum)

    def predict(items: Sequence[Item]) -> Iterator[tuple[int, Columns | Exception]]:
        tasks: list[Task] = [item.content for item in items]
        for place, found in predict_tasks(predictor, tasks, samples=samples, seed=seed):
            if isinstance(found, Exception):
                yield place, found
                continue
            yield (
                place,
                {
                    "row": np.array(tasks[place].rows),
                    "ddg_kcal_mol": found.ddg,
                    "sd_kcal_mol": found.sd,
                    "flag": np.array(found.flag, dtype=object),
                },
            )

    return predict


def gather(parts: Parts, count: int, calibrated: bool) -> Predictions:
    """Predictions of the rows of a list, in its order; NaN for those of proteins that failed.

    Args:
      parts: of the job.
      count: rows.
      calibrated: whether the uncertainty was fitted to errors.
    """
    columns = parts.read()
    rows = columns["row"].astype(int)
    ddg, sd, flag = np.full(count, np.nan), np.full(count, np.nan), np.full(count, "", dtype=object)
    ddg[rows], sd[rows], flag[rows] = columns["ddg_kcal_mol"], columns["sd_kcal_mol"], columns["flag"]
    return Predictions(ddg, sd, flag.tolist(), calibrated)


def _load(weights: str, checksum: str) -> Predictor:
    """The predictor; on a cluster the file must be the same for every worker."""
    if not Path(weights).is_file():
        raise CheckpointError(f"{weights}: a worker does not find these weights; keep them where all machines see them")
    if sha256(weights) != checksum:
        raise CheckpointError(f"{weights}: a worker finds other weights under this name than the command did")
    return load(weights)

"""The training loop: resume, step, evaluate, save.

Single device for now; the state, the step and the data are already functions of (step, seed) alone, so that
sharding replaces the call of `step` and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.train.checkpoint import Checkpoints
from jaxprot.train.schedules import optimiser
from jaxprot.train.step import TrainState, make_step
from jaxprot.train.task import TrainConfig
from jaxprot.weights import module, portable

_log = logging.getLogger(__name__)


def fit(
    cfg: TrainConfig,
    run: str | pathlib.Path,
    *,
    resume: bool = False,
    header: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> pathlib.Path:
    """Train, and keep the best averaged weights.

    Args:
      cfg: the run.
      run: folder for `ckpt/`, `metrics.jsonl` and `best.safetensors`.
      resume: go on from the newest checkpoint of the folder (start from scratch where there is none).
      header: what the exported weights' header says besides step and figures (system, config, ...).
      report: called with every metrics record (for a progress bar).

    Returns:
      The path of the best weights by `cfg.task.monitor`.

    Raises:
      FloatingPointError: the loss is not finite, or `cfg.task.monitor` never was, so that there are no best weights.
    """
    run = pathlib.Path(run)
    run.mkdir(parents=True, exist_ok=True)
    task = cfg.task
    k_init, _ = jax.random.split(jax.random.key(cfg.seed if cfg.init_seed is None else cfg.init_seed))
    _, k_run = jax.random.split(jax.random.key(cfg.seed))
    graphdef, params = nnx.split(task.build(k_init), nnx.Param)
    params = nnx.to_pure_dict(params)
    tx = optimiser(cfg.optim, cfg.steps, params)
    state = TrainState(params, jax.tree.map(jnp.copy, params), tx.init(params), jnp.zeros((), jnp.int32), k_run)

    checkpoints = Checkpoints(run / "ckpt", cfg.keep)
    best_path, best = run / "best.safetensors", -np.inf
    if resume and checkpoints.latest() is not None:
        state = checkpoints.restore(state)
        if best_path.exists():
            best = portable.load(best_path)[1]["figures"][task.monitor]
        _log.info("resumed at step %d", int(state.step))

    step = jax.jit(make_step(task, graphdef, tx, cfg.optim.ema), donate_argnums=0)
    evaluate = task.evaluator(graphdef)
    started, since, losses = time.monotonic(), int(state.step), []
    # Closed on an error too: a save still under way would meet the next run in the same folder.
    with contextlib.closing(checkpoints), (run / "metrics.jsonl").open("a") as log:

        def write(record: dict[str, Any]) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()
            if report is not None:
                report(record)

        for index in range(int(state.step), cfg.steps):
            state, metrics = step(state, task.batch(index, cfg.seed))
            losses.append(metrics)
            done = index + 1
            if done % 20 == 0 or done == cfg.steps:
                mean = {k: float(np.mean([float(m[k]) for m in losses])) for k in losses[0]}
                if not np.isfinite(mean["loss"]):
                    raise FloatingPointError(f"{run}: the loss is not finite at step {done}; lower the learning rate")
                rate = (time.monotonic() - started) / (done - since)
                write({"step": done, **mean, "seconds_per_step": rate})
                losses = []
            if done % cfg.evaluate_every == 0 or done == cfg.steps:
                figures = evaluate(state.ema)
                write({"step": done, **{f"val_{k}": v for k, v in figures.items()}})
                if figures[task.monitor] > best:
                    best = figures[task.monitor]
                    meta = {**(header or {}), "step": done, "figures": figures}
                    portable.save(best_path, module.flatten(state.ema), meta)
            if done % cfg.save_every == 0 or done == cfg.steps:
                checkpoints.save(state, {"step": done})
    if best == -np.inf:
        raise FloatingPointError(
            f"{run}: {task.monitor} was never a finite number, so no weights were kept; are there validation data?"
        )
    return best_path

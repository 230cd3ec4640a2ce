"""The training loop: resume, step, evaluate, save."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxprot.core.errors import InputError, OutputError
from jaxprot.train import optimisers, schedules
from jaxprot.train.checkpoint import Checkpoints
from jaxprot.train.data import Loader, chunks
from jaxprot.train.interrupt import Interruption
from jaxprot.train.metrics import MetricsLog
from jaxprot.train.parallel import Parallel
from jaxprot.train.schedules import Plateau
from jaxprot.train.step import Objective, TrainState, make_step, variables
from jaxprot.train.task import TrainConfig
from jaxprot.weights import module, portable

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """Of a run.

    Attributes:
      best: weights with the best validation figure; None if nothing was evaluated yet.
      step: steps done.
      stopped: the signal that stopped the run before its end, None for a complete one.
    """

    best: pathlib.Path | None
    step: int
    stopped: str | None


def fit(
    cfg: TrainConfig,
    run: str | pathlib.Path,
    *,
    resume: bool = False,
    header: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    parallel: Parallel | None = None,
    begin: Callable[[int], None] | None = None,
) -> Outcome:
    """Train, and keep the best averaged weights.

    With several processes every one calls this with the same arguments, on a folder that all of them see.

    Args:
      cfg: the run.
      run: folder for `ckpt/`, `metrics.jsonl` and `best.safetensors`.
      resume: go on from the newest checkpoint of the folder (start from scratch where there is none), on any number of
        devices.
      header: what the exported weights' header says besides step and figures (system, config, ...).
      report: called with every metrics record (for a progress bar).
      parallel: devices and how to use them; all of them through `shard_map` by default.
      begin: called in the first process with the step that it goes on from, when model, optimiser and checkpoint are
        found to fit, before the first step.

    Raises:
      InputError: the configuration makes no sense, or the run has done more steps than it asks for.
      FloatingPointError: a loss or gradient is not finite (the state before it is saved), or `cfg.task.monitor` never
        was, so that there are no best weights.
      OutputError: a checkpoint could not be written (those before it are intact), or the folder holds some and `resume`
        is off.
      CheckpointError: the one to resume from does not fit.
    """
    with contextlib.ExitStack() as stack:
        trainer = Trainer(cfg, pathlib.Path(run), parallel or Parallel(), header or {})
        # Closed on an error too: a save still under way would meet the next run in the same folder.
        stack.enter_context(contextlib.closing(trainer.checkpoints))
        start = trainer.resume() if resume else trainer.refuse_checkpoints()
        if start > cfg.steps:
            raise InputError(f"{run}: has done {start} steps already; steps must be more than that, not {cfg.steps}")
        if begin is not None and trainer.parallel.first:
            begin(start)
        trainer.log = stack.enter_context(
            MetricsLog(
                trainer.run,
                resume_step=start or None,  # at 0 everything is told anew
                tensorboard=cfg.tensorboard,
                write=trainer.parallel.first,
            )
        )
        trainer.report = report
        return trainer.go(start)


class Trainer:
    """One run: state, compiled step, and what the host keeps.

    Args:
      cfg: the run.
      run: its folder.
      parallel: the devices.
      header: for exported weights.
    """

    def __init__(self, cfg: TrainConfig, run: pathlib.Path, parallel: Parallel, header: dict[str, Any]):
        self.cfg, self.run, self.parallel, self.header = cfg, run, parallel, header
        self.log: Any = None
        self.report: Callable[[dict[str, Any]], None] | None = None
        self.best, self.plateau, self.programs = -np.inf, Plateau(), 0
        self._pending: list[Any] = []
        self._timed = 0
        task = cfg.task
        k_init, _ = jax.random.split(jax.random.key(cfg.seed if cfg.init_seed is None else cfg.init_seed))
        _, k_run = jax.random.split(jax.random.key(cfg.seed))
        model = task.build(k_init)
        model.eval()
        self._evaluate = task.evaluator(nnx.graphdef(model))
        model.train()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
        trained, fixed = optimisers.partition(params, optimisers.trainable(cfg.optim, params))
        tx = optimisers.optimiser(cfg.optim, trained)
        ema = jax.tree.map(jnp.copy, trained) if cfg.optim.ema else {}
        zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        state = TrainState(trained, fixed, rest, ema, tx.init(trained), zero, k_run, no)
        self.state = parallel.replicate(state)
        # Copied above; what the copies were made from would be a second set of weights in memory.
        del model, params, rest, trained, fixed, ema, state
        step = make_step(Objective(task, graphdef, cfg.micro, cfg.precision, parallel.axis), tx, cfg)

        def counted(*arguments: Any) -> Any:
            self.programs += 1  # runs when the step is traced, that is once per program
            return step(*arguments)

        self._step = parallel.compile(counted)
        resident = getattr(task, "resident", None)
        self._resident = None if resident is None else parallel.replicate(resident())
        self.checkpoints = Checkpoints(run / "ckpt", cfg.keep)

    def resume(self) -> int:
        """Takes over the newest checkpoint, if there is one; the step it was saved at."""
        if self.checkpoints.latest() is None:
            return 0
        self.state, loop = self.checkpoints.restore(self.state, self.parallel.sharding)
        best = loop.get("best")
        self.best = -np.inf if best is None else float(best)
        self.plateau = Plateau.from_dict(loop["plateau"])
        self._pending = [(first, _arrays(metrics)) for first, metrics in loop["pending"]]
        start = int(self.parallel.local(self.state.step))
        _log.info("resumed at step %d on %s", start, self.parallel)
        return start

    def refuse_checkpoints(self) -> int:
        """Makes sure that no other run is mixed with this one, which starts at step 0."""
        there = self.checkpoints.latest()
        if there is not None:
            raise OutputError(
                f"{self.run}: holds checkpoints of a run (step {there}); go on with it (resume), or give another folder"
            )
        return 0

    def go(self, start: int) -> Outcome:
        """Runs from step `start` to the end, or to a request to stop."""
        cfg = self.cfg
        rates = schedules.rates(cfg.optim, cfg.steps)
        every = (cfg.log_every, cfg.evaluate_every, cfg.save_every)
        plan = chunks(start, cfg.steps, cfg.chunk, every)
        loader = Loader(cfg.task, cfg.seed, self.parallel, plan, cfg.workers)
        done, stopped = start, None
        if cfg.evaluate_start and start == 0:
            self._validate(0)
        with Interruption() as interruption, contextlib.closing(_Clock(iter(loader))) as clock:
            for chunk in clock:
                batch = self.parallel.put((chunk.batch, chunk.weight), chunk.total)
                rate = rates[chunk.start : chunk.start + chunk.steps] * np.float32(self.plateau.scale)
                self.state, metrics = self._step(self.state, batch, rate, self._resident)
                self._pending.append((chunk.start, metrics))
                self._timed += chunk.steps
                done, last = chunk.start + chunk.steps, chunk.start + chunk.steps == cfg.steps
                stopped = interruption.requested(done) if not last else None
                due = [done % n == 0 or last for n in every]
                if any(due) or stopped:
                    self._guard()
                if due[0]:
                    self._record(done, float(rate[-1]), clock)
                score = self._validate(done) if due[1] else None
                if due[2] or stopped or score is not None:
                    self._save(done, score)
                if stopped:
                    break
        if self.best == -np.inf and not stopped:
            raise FloatingPointError(
                f"{self.run}: {cfg.task.monitor} was never a finite number, so no weights were kept; are there "
                "validation data?"
            )
        path = self.run / "best.safetensors"
        return Outcome(path if self.best > -np.inf else None, done, stopped)

    def _write(self, record: dict[str, Any]) -> None:
        self.log.write(record)
        if self.report is not None:
            self.report(record)

    def _guard(self) -> None:
        """Reads the pending metrics; saves the last good state and raises if one is not finite."""
        self._pending = [
            (first, metrics if isinstance(metrics["good"], np.ndarray) else _host(metrics))
            for first, metrics in self._pending
        ]
        for first, metrics in self._pending:
            if metrics["good"].all():
                continue
            at = int(np.argmin(metrics["good"]))
            named = [k for k, v in metrics.items() if k not in ("good", "grad_norm") and not np.isfinite(v[at])]
            # The sum is not finite where a term is not: name the term.
            what = ", ".join([k for k in named if k != "loss"] or named) or "the gradient (all terms are finite)"
            good = int(self.parallel.local(self.state.step))
            kept = [(start, {k: v[: good - start] for k, v in m.items()}) for start, m in self._pending if start < good]
            self._pending = kept
            self.state = self.state._replace(halted=self.parallel.replicate(np.zeros((), bool)))
            self._save(good, None)
            raise FloatingPointError(
                f"{self.run}: not finite at step {first + at + 1}: {what}; the state after step {good} is kept in "
                "ckpt/, go on from it with a lower learning rate (--set optim.lr=...)"
            )

    def _record(self, done: int, rate: float, clock: _Clock) -> None:
        """Writes the means of the metrics since the last record."""
        names = sorted(set(self._pending[0][1]) - {"good"}, key=lambda name: (name != "loss", name))
        mean = {name: float(np.mean(np.concatenate([m[name] for _, m in self._pending]))) for name in names}
        steps, self._timed = self._timed, 0
        self._pending = []
        seconds, waited = clock.lap()
        self._write(
            {
                "step": done,
                **mean,
                "lr": rate,
                "seconds_per_step": seconds / steps,
                "data_wait": waited / seconds,
                "programs": self.programs,
            }
        )

    def _validate(self, done: int) -> float | None:
        """Evaluates; exports the weights and gives the figure if they are the best so far."""
        cfg = self.cfg
        weights = self.parallel.local(variables(self.state))
        figures = self._evaluate(weights)
        self._write({"step": done, **{f"val_{name}": value for name, value in figures.items()}})
        watched = cfg.optim.plateau.figure or cfg.task.monitor
        missing = sorted({cfg.task.monitor, watched} - set(figures))
        if missing:
            raise InputError(f"the evaluation gives no figure {missing[0]!r}; there are {', '.join(figures)}")
        self.plateau = self.plateau.after(figures[watched], cfg.optim.plateau, cfg.optim.lr)
        value = figures[cfg.task.monitor]
        if not value > self.best:
            return None
        self.best = float(value)
        if self.parallel.first:
            meta = {**self.header, "step": done, "figures": figures}
            portable.save(self.run / "best.safetensors", module.flatten(weights), meta)
        return self.best

    def _save(self, done: int, score: float | None) -> None:
        self.checkpoints.check()
        loop = {
            "step": done,
            "best": None if self.best == -np.inf else self.best,
            "plateau": self.plateau.to_dict(),
            # Of steps since the last record: the first one after a resumption is of as many steps as any other.
            "pending": [[first, {name: value.tolist() for name, value in m.items()}] for first, m in self._pending],
        }
        self.checkpoints.save(done, self.parallel.whole(self.state), loop, score)


def _host(metrics: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(Parallel.local(value)) for name, value in metrics.items()}


def _arrays(metrics: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    """What JSON kept of host metrics."""
    return {name: np.asarray(value, bool if name == "good" else np.float32) for name, value in metrics.items()}


class _Clock:
    """Passes batches on, and measures the time waited for them."""

    def __init__(self, source: Iterator[Any]):
        self._source = source
        self._waited, self._since = 0.0, time.perf_counter()

    def __iter__(self) -> Iterator[Any]:
        first = True
        while True:
            begin = time.perf_counter()
            try:
                item = next(self._source)
            except StopIteration:
                return
            if first:  # reads the data: part of the start
                self.lap()
            else:
                self._waited += time.perf_counter() - begin
            first = False
            yield item

    def lap(self) -> tuple[float, float]:
        """(seconds, seconds waited) since the last lap."""
        now = time.perf_counter()
        out = now - self._since, self._waited
        self._waited, self._since = 0.0, now
        return out

    def close(self) -> None:
        """Stops the threads that load batches."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

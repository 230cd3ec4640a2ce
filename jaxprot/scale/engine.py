"""Runs a job on Ray Data: one worker process per device, restarted when it ends, blocks of inputs in, parts out."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import platform
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxprot.core.errors import InputError
from jaxprot.scale.job import Item, Job, blocks
from jaxprot.scale.parts import Parts
from jaxprot.scale.worker import Worker

# Inputs in a part at most. A worker that ends loses one part of work; an accelerator needs many inputs for its batches.
_PART = {"cpu": 32, "gpu": 256, "tpu": 256}
_RESOURCE = {"gpu": "GPU", "tpu": "TPU"}
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}
_PLUGINS = {"gpu": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}
# What jax and its compiler are told; everything else is the business of each machine.
_CARRIED = ("JAX_", "XLA_", "TF_CPP_")
_OBJECT_STORE = 128 * 2**20  # only names and small rows travel through it


def check() -> None:
    """Raises an `InputError` with the remedy where Ray is not installed; imports nothing."""
    missing = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--engine ray needs {' and '.join(missing)}: pip install 'jaxprot[ray]'")


def leave_devices(device: str = "auto") -> str:
    """Keeps this process on the CPU, so that the workers have the devices; call it before jax is imported.

    Args:
      device: that the user asked for.

    Returns:
      The device of the workers: `cpu` where the environment already said so and the user nothing else.
    """
    before = os.environ.get("JAX_PLATFORMS", "")
    os.environ["JAX_PLATFORMS"] = "cpu"
    return "cpu" if device == "auto" and before == "cpu" else device


def run(
    job: Job,
    items: Sequence[Item],
    parts: Parts,
    *,
    workers: int | None = None,
    address: str | None = None,
    device: str = "auto",
    here: Sequence[str] = (),
    debug: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Computes the items that are not done yet.

    Args:
      job: what is computed.
      items: all inputs, done or not.
      parts: of the job.
      workers: processes; by default one per GPU or TPU, else half as many as cores.
      address: of the Ray cluster to join (`auto`: one that runs on this machine); by default Ray is started here, and
        stopped at the end.
      device: `auto`, `cpu`, `gpu` or `tpu`.
      here: environment variables that only workers on this machine are given.
      debug: let Ray and the workers write to stderr.
      advance: called with the number of inputs that were finished.

    Returns:
      (message by name of each input that failed, what `run.json` says of the run).

    Raises:
      InputError: Ray is missing, cannot be reached, or has no such device.
      OutputError: the parts cannot be written, or another run writes there.
      Exception: what the job's `make` raised in a worker.
    """
    check()
    begin = time.perf_counter()
    with parts.locked(), parts.tidied():
        pending = parts.pending(items)
        told: dict[str, Any] = {"inputs": len(items), "finished before": len(items) - len(pending)}
        advance(len(items) - len(pending))
        if pending:
            with _cluster(address, debug) as ray:
                kind, workers, cpus = _share(ray, device, workers)
                told |= {"workers": workers, "device": kind, "threads": max(1, int(cpus))}
                told["seconds to start"] = round(time.perf_counter() - begin, 2)
                worker = _configured(job, parts, kind, cpus, here)
                work = blocks(pending, workers, _PART[kind])
                told["processes"] = _consume(worker, work, workers, kind, cpus, advance)
                parts.remove_strays(work)
        failed = parts.finish(items)
    return failed, told | {"parts": len(parts.files())}


def _configured(job: Job, parts: Parts, kind: str, cpus: float, here: Sequence[str]) -> dict[str, Any]:
    """Arguments of each worker."""
    threads = str(max(1, int(cpus)))
    carried = {name: value for name, value in os.environ.items() if name.startswith(_CARRIED)}
    own = {name: carried.pop(name) for name in here if name in carried}
    # NPROC is what XLA takes for the number of cores: workers on one machine share them instead of fighting for them.
    carried |= {"JAX_PLATFORMS": _PLATFORMS[kind], "NPROC": threads}
    carried |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    return {
        "job": job,
        "folder": str(parts.path.absolute()),
        "token": parts.token,
        "environment": carried,
        "here": own,
        "host": platform.node(),
    }


class _Actor:
    """A worker as Ray Data calls it: a batch is a column of pickled blocks."""

    def __init__(self, arguments: bytes):
        self.worker = Worker(**pickle.loads(arguments))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        told = [self.worker(pickle.loads(block)) for block in batch["block"]]
        return {name: [one[name] for one in told] for name in ("inputs", "error", "process")}


def _consume(
    worker: dict[str, Any],
    work: Sequence[Sequence[Item]],
    workers: int,
    kind: str,
    cpus: float,
    advance: Callable[[int], None],
) -> int:
    """Gives out the blocks; returns the number of processes that computed some, killed ones and their successors."""
    import ray.data

    processes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of names that Ray itself still uses
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        needs: dict[str, Any] = {"num_cpus": cpus}
        if kind == "gpu":
            needs["num_gpus"] = 1
        elif kind == "tpu":
            needs["resources"] = {"TPU": 1}
        # One row, one task: each block is given out, and retried after the end of its worker, by itself.
        data = ray.data.from_items([{"block": pickle.dumps(block)} for block in work], override_num_blocks=len(work))
        data = data.map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(worker),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(work)), max_tasks_in_flight_per_actor=2),
            **needs,
        )
        for row in data.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            processes.add(row["process"])
            advance(row["inputs"])
    return len(processes)


@contextlib.contextmanager
def _cluster(address: str | None, debug: bool) -> Iterator[Any]:
    """Ray, started here or joined, and quiet; left as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    level = logging.INFO if debug else logging.ERROR
    if ray.is_initialized():
        with _quiet(level):
            yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    reachable(address)
    options: dict[str, Any] = {"logging_level": level, "log_to_driver": debug}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    try:
        with contextlib.nullcontext() if debug else _silent():
            ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address == "local":
            raise
        reason = (str(error) or type(error).__name__).partition(". ")[0].strip()
        raise InputError(
            f"--ray-address {address}: {reason}; `ray start --head` starts a cluster; one with access tokens "
            "is joined by its HOST:PORT with RAY_AUTH_MODE=token"
        ) from error
    with _quiet(level):
        try:
            yield ray
        finally:
            ray.shutdown()  # tells what it has held back, so within the block as well


def reachable(address: str) -> None:
    """Raises an `InputError` where nothing answers at HOST:PORT; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise InputError(
            f"--ray-address {address}: Ray's client protocol is not supported; run on a machine of the cluster with "
            "--ray-address auto (`ray job submit` does so), or give HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"--ray-address {address}: nothing answers there ({error}); give HOST:PORT or auto") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Of what Ray's native code and child processes say at their start, the last words are shown if the start fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said, warnings.catch_warnings():
        # jax warns of every fork; what Ray forks becomes another program at once.
        warnings.filterwarnings("ignore", r"os\.fork\(\)", RuntimeWarning)
        own = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(own, b"".join(said.readlines()[-3:]))
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)


@contextlib.contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Ray writes to stderr only what is at least of `level`, and nothing to stdout; its log files keep everything."""
    handlers = [h for h in logging.getLogger("ray.data").handlers if not isinstance(h, logging.FileHandler)]
    before = [handler.level for handler in handlers]
    with contextlib.ExitStack() as stack:
        # It prints the end of a worker, which is not the end of anything here, where commands print their results.
        shown = level < logging.ERROR
        target = sys.stderr if shown else stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(target))
        for handler in handlers:
            handler.setLevel(max(level, handler.level))
        try:
            yield
        finally:
            for handler, was in zip(handlers, before, strict=True):
                handler.setLevel(was)


def _share(ray: Any, device: str, workers: int | None) -> tuple[str, int, float]:
    """(kind of device, workers, cores of each) on this cluster."""
    there: dict[str, float] = ray.cluster_resources()
    kind = device if device != "auto" else _best(there)
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    cores = sum(nodes)
    if cores <= 0:
        raise InputError("the Ray cluster has no CPU to give")
    if kind in _RESOURCE:
        devices = int(there.get(_RESOURCE[kind], 0))
        if devices < (workers or 1):
            raise InputError(
                f"--device {kind}: Ray finds {devices}, and each worker needs one ({workers or 1} asked for)"
            )
        workers = workers or devices
    workers = workers or max(1, int(cores) // 2)
    # As many cores for each as still lets all of them be placed; less than one where there are more workers than cores.
    cpus = next((n for n in range(int(max(nodes)), 0, -1) if sum(node // n for node in nodes) >= workers), 0)
    return kind, workers, float(cpus) if cpus else int(cores / workers * 100) / 100


def _best(there: dict[str, float]) -> str:
    """The device that Ray has and jax can use here."""
    for kind, resource in _RESOURCE.items():
        if there.get(resource, 0) >= 1 and any(importlib.util.find_spec(name) for name in _PLUGINS[kind]):
            return kind
    return "cpu"

"""Timings of optimal transport between data sets, beside those of the usual solvers.

    python scripts/bench_ot.py --output bench.json
    python scripts/bench_ot.py --only divergence --ott

Parts (all by default, `--only` chooses): `divergence` (debiased Sinkhorn divergence of 2000 x 512 features, eps of 5 %
of the mean cost, for three kinds of features; the L1 error of the marginals is measured on the plan), `matrix` (a task
matrix of 10 tasks with 1000 samples, by OTDD and by features alone), `exact` (exact value of 1000 samples). Each part
runs in a process of its own that is confined to `--threads` cores before jax is imported. With `--ott` a plain call of
ott-jax is timed on the same features.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PARTS = ("divergence", "matrix", "exact")
# Seconds, two threads. Source: timings in the project's plan, taken on a 2-core x86-64 machine.
REFERENCE = {
    "divergence": {"pytorch_usual_solver": 0.53, "ott_jax_plain": 0.56, "target": 0.35},
    "matrix": {"target": 60.0},
    "exact": {"network_simplex_2000": 2.2},
}


def confine(threads: int) -> None:
    """Keeps this process on some cores; must run before jax is imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def timed(function: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """First call (with compilation) and steady calls: wall and CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeats + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - begin)
        cpus.append(time.process_time() - cpu)
    return {
        "first": walls[0],
        "best": min(walls[1:]),
        "median": statistics.median(walls[1:]),
        "cpu": statistics.median(cpus[1:]),
        "repeats": repeats,
    }


def features(kind: str, n: int, d: int, seed: int = 0):
    """Two sets of features: `isotropic` noise, a `decaying` spectrum, or `clustered` around ten centres each."""
    import numpy as np

    rng = np.random.default_rng(seed)
    if kind == "clustered":
        sets = [rng.normal(size=(10, d))[rng.integers(0, 10, n)] + 0.5 * rng.normal(size=(n, d)) for _ in range(2)]
    else:
        scale = np.ones(d) if kind == "isotropic" else np.arange(1, d + 1) ** -0.7
        sets = [scale * (rng.normal(size=(n, d)) + shift) for shift in (0, 0.3)]
    return [one.astype(np.float32) for one in sets]


def part_divergence(args: argparse.Namespace) -> dict[str, Any]:
    """Debiased divergence, everything from the features to the value included."""
    import numpy as np

    from jaxprot.ot import otdd, sinkhorn
    from jaxprot.ot.pairs import Problems, Settings
    from jaxprot.ot.tasks import Task

    out: dict[str, Any] = {"n": args.n, "d": args.d}
    settings = Settings(method="features", resamples=0, samples=args.n)
    for kind in ("isotropic", "decaying", "clustered"):
        x, y = features(kind, args.n, args.d)
        tasks = [Task("x", x), Task("y", y)]
        found = []
        record = timed(
            lambda tasks=tasks, found=found: found.append(Problems(tasks, settings).distance(0, 1)), args.repeats
        )
        result = found[-1]
        # The claim of the solver, checked in double precision on the plan itself.
        weights = np.full(args.n, 1 / args.n)
        centre = np.concatenate([x, y]).mean(0, dtype=np.float64)
        cost = otdd.factors(x - centre, y - centre)
        single = sinkhorn.Factors(*(part.astype(np.float32) for part in cost))
        solution = sinkhorn.solve_padded(single, weights, weights, result.eps)
        log = (solution.f[:, None].astype(np.float64) + solution.g[None] - cost.matrix()) / result.eps
        plan = np.exp(log) / args.n**2
        record["marginal_error"] = max(float(np.abs(plan.sum(axis) - weights).sum()) for axis in (0, 1))
        record |= {"value": result.distance, "eps": result.eps, "iterations": result.iterations}
        record["converged"] = result.converged
        out[kind] = record
        if args.ott:
            record["ott_jax"] = _ott(x, y, result.eps, args.repeats)
    return out


def _ott(x, y, eps: float, repeats: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    from ott.geometry import pointcloud
    from ott.tools import sinkhorn_divergence

    @jax.jit
    def value(x, y):
        # Its cost has no half.
        return sinkhorn_divergence.sinkhorn_divergence(
            pointcloud.PointCloud, x, y, epsilon=2 * eps, solve_kwargs={"threshold": 1e-3}
        )[0]

    x, y = jnp.asarray(x), jnp.asarray(y)
    found = []
    return {**timed(lambda: found.append(jax.block_until_ready(value(x, y))), repeats), "value": float(found[-1]) / 2}


def part_matrix(args: argparse.Namespace) -> dict[str, Any]:
    """A matrix of ten tasks with ten classes each, intervals included."""
    import numpy as np

    from jaxprot.ot.matrix import transfer_matrix
    from jaxprot.ot.tasks import Task

    rng = np.random.default_rng(0)
    tasks = []
    for number in range(10):
        labels = rng.integers(0, 10, 1000)
        centres = rng.normal(size=(10, args.d)) + 0.1 * number
        tasks.append(Task(f"task {number}", (centres[labels] + rng.normal(size=(1000, args.d))).astype("f"), labels))
    out: dict[str, Any] = {"tasks": 10, "samples": 1000, "d": args.d}
    for method in ("otdd", "features"):
        found = []
        record = timed(lambda method=method, found=found: found.append(transfer_matrix(tasks, method=method)), 1)
        out[method] = {**record, "converged": found[-1].converged}
    return out


def part_exact(args: argparse.Namespace) -> dict[str, Any]:
    """Exact transport between 1000 samples: as many on both sides, and a few more on one."""
    from jaxprot.ot import exact, otdd

    x, y = (one.astype("d") for one in features("decaying", 1100, args.d))
    cost = otdd.factors(x, y).matrix()
    return {
        "equal": timed(lambda: exact.exact_transport(cost[:1000, :1000]), 1),
        "unequal": timed(lambda: exact.exact_transport(cost[:1000]), 1),
    }


def machine() -> dict[str, Any]:
    """Processor and versions."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "ott-jax", "numpy", "scipy")},
    }


def show(report: dict) -> None:
    """Prints the timings beside the reference numbers."""
    m = report["machine"]
    print(f"{m['processor']}, {m['cores']} cores, load {m['load_before']:.1f}, jax {m['jax']}", file=sys.stderr)
    for part in PARTS:
        record = report.get(part, {})
        others = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in REFERENCE[part].items())
        for name, t in record.items():
            if isinstance(t, dict):
                text = f"{t['best']:.3f} best, {t['median']:.3f} median, {t['cpu']:.3f} CPU, {t['first']:.1f} first"
                extra = f"; marginal error {t['marginal_error']:.1e}" if "marginal_error" in t else ""
                extra += f"; ott {t['ott_jax']['best']:.3f}" if "ott_jax" in t else ""
                print(f"  {part}, {name:12s} s: {text}{extra}   [{others}]", file=sys.stderr)


def worker(args: argparse.Namespace) -> int:
    """One part in a confined process; its record goes to a file."""
    confine(args.threads)
    record = {"threads": args.threads, **globals()[f"part_{args.worker}"](args)}
    args.output.write_text(json.dumps(record))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--n", type=int, default=2000, help="samples of a set of `divergence`")
    parser.add_argument("--d", type=int, default=512, help="features")
    parser.add_argument("--ott", action="store_true", help="time a plain call of ott-jax as well")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file; stdout without it")
    parser.add_argument("--worker", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        return worker(args)
    report: dict = {"machine": machine(), "reference": REFERENCE}
    given = list(sys.argv[1:] if argv is None else argv)
    for part in args.only:
        with tempfile.TemporaryDirectory() as folder:
            result = pathlib.Path(folder) / "result.json"
            mine = ["--worker", part, "--output", str(result)]
            done = subprocess.run([sys.executable, __file__, *given, *mine])
            if done.returncode != 0:
                print(f"{part} ended with {done.returncode}", file=sys.stderr)
                return 1
            report[part] = json.loads(result.read_text())
    show(report)
    text = json.dumps(report, indent=2)
    if args.output is None:
        print(text)
    else:
        args.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

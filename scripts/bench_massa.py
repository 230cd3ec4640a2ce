"""Timings of MASSA's parts.

    python scripts/bench_massa.py network --threads 2 --output bench.json

`network`: the network of published size on a batch of proteins with random coordinates and weights: the representation
and the five heads (`forward`), the gradient of the five losses with dropout (`gradient`), and both with the step of
RAdam and Lookahead (`training_step`), after compilation. Wall seconds of the fastest call, and the CPU seconds of the
call that used the fewest; on a machine that others use as well, these tell more. The matrix products alone would take
`products_s` at the speed of a large one.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REFERENCE = {"forward": 0.57, "training_step": 1.78}
"""Seconds of the published network in PyTorch on two threads, two proteins of 128 residues and 8 GO terms."""


def measure(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Wall and CPU seconds of the best of some calls, after one more."""
    import jax

    jax.block_until_ready(function())
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": min(walls), "wall_median_s": float(np.median(walls)), "cpu_s": min(cpus)}


def peak(repeats: int) -> float:
    """GFLOP per wall second of a matrix product of as many rows as a batch has edges."""
    import jax
    import jax.numpy as jnp

    x, weight = jnp.ones((7680, 512)), jnp.ones((512, 512))
    product = jax.jit(lambda x, weight: x @ weight)
    return 2 * 7680 * 512 * 512 / measure(lambda: product(x, weight), repeats)["wall_s"] / 1e9


def products(cfg: Any, batch: int, length: int, terms: int) -> float:
    """GFLOP of the matrix products of one forward pass, those of attention over pairs left out."""
    c, v, d = cfg.width, cfg.vectors, cfg.go_width
    edge = (32 + 2 * v + 1) * c + (c + v) * c
    node = 2 * c * c + (c + v) * c + 8 * c * c
    residue = cfg.seq_dim * c + cfg.convolutions * cfg.kernel * 2 * c * c + cfg.layers * (cfg.neighbours * edge + node)
    residue += 2 * c * c + cfg.fusion_layers * (4 * c * c + 2 * c * cfg.feedforward)
    residue += cfg.live_layers * (6 * c * c + 2 * c * cfg.feedforward)
    residue += c * (cfg.residue_classes + cfg.motif_classes + cfg.domain_classes + cfg.region_classes)
    term = cfg.go_layers * (4 * d * d + 2 * d * cfg.go_feedforward) + 2 * cfg.live_layers * c * c + d * cfg.go_classes
    return 2 * batch * (length * residue + terms * term) / 1e9


def network(args: argparse.Namespace) -> dict[str, Any]:
    """Timings of the network."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxprot.massa import losses, weights
    from jaxprot.massa.config import MASSAConfig
    from jaxprot.massa.featurize import Record, batch
    from jaxprot.train.optimisers import optimiser
    from jaxprot.train.task import OptimConfig
    from jaxprot.weights import module

    cfg, rng = MASSAConfig.paper(), np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) / max(1, np.prod(shape[:-1])) ** 0.5 + name.endswith("scale")
        for name, shape in module.shapes(weights.blueprint(cfg)).items()
    }
    graphdef, params = nnx.split(weights.assemble(cfg, tensors), nnx.Param)
    params = nnx.to_pure_dict(params)
    records = []
    for number in range(args.batch):
        coords = np.cumsum(rng.normal(size=(args.length, 1, 3)) * 2, 0) + rng.normal(size=(args.length, 4, 3))
        labels = {name: rng.integers(0, cfg.classes[name], args.length) for name in ("motif", "domain", "region")}
        labels["go"] = rng.integers(0, cfg.go_classes, args.terms)
        embedding, go = rng.normal(size=(args.length, cfg.seq_dim)), rng.normal(size=(args.terms, cfg.go_dim))
        records.append(Record(str(number), "ACDEFGHIKL" * (args.length // 10 + 1), embedding, coords, go, labels))
        records[-1] = Record(str(number), records[-1].sequence[: args.length], embedding, coords, go, labels)
    features, labels = jax.tree.map(jnp.asarray, batch(records, cfg, length=args.length, terms=args.terms))

    def loss(params, features, labels, key):
        return losses.total(losses.objectives(nnx.merge(graphdef, params)(features, key), labels))

    def forward(params, features):
        return nnx.merge(graphdef, params)(features)

    settings = OptimConfig(
        name="radam", lr=1e-4, b2=0.999, weight_decay=1e-4, no_decay=("bias",), lookahead=5, clip=None
    )
    tx = optimiser(settings, params)

    def step(params, state, features, labels, key):
        slopes = jax.grad(loss)(params, features, labels, key)
        updates, state = tx.update(slopes, state, params, learning_rate=jnp.float32(1e-4))
        return optax.apply_updates(params, updates), state

    key = jax.random.key(0)
    out: dict[str, Any] = {"batch": args.batch, "length": args.length, "terms": args.terms}
    out["peak_gflop_s"] = peak(args.repeats)
    out["gflop"] = products(cfg, args.batch, args.length, args.terms)
    out["products_s"] = out["gflop"] / out["peak_gflop_s"]
    holder = {}

    def advance():
        holder["params"], holder["state"] = compiled(holder["params"], holder["state"], features, labels, key)
        return holder["params"]

    for name in args.parts:
        begin = time.process_time()
        if name == "forward":
            compiled = jax.jit(forward).lower(params, features).compile()
            call = lambda compiled=compiled: compiled(params, features)  # noqa: E731
        elif name == "gradient":
            compiled = jax.jit(jax.grad(loss)).lower(params, features, labels, key).compile()
            call = lambda compiled=compiled: compiled(params, features, labels, key)  # noqa: E731
        else:
            state = tx.init(params)
            compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, features, labels, key).compile()
            holder = {"params": params, "state": state}
            call = advance
        compile_cpu = time.process_time() - begin
        out[name] = {**measure(call, args.repeats), "compile_cpu_s": compile_cpu, "reference_s": REFERENCE.get(name)}
    return out


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["network"])
    parts = ["forward", "gradient", "training_step"]  # the last one gives its parameters away
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=128, help="residues of each protein")
    parser.add_argument("--terms", type=int, default=8, help="GO terms of each protein")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file; stdout without it")
    args = parser.parse_args(argv)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # before JAX counts the cores
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
    import jax

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": args.threads, "load": load},
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        args.part: globals()[args.part](args),
    }
    text = json.dumps(report, indent=2)
    if args.output is None:
        print(text)
    else:
        args.output.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

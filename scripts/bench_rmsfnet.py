"""Timings of RMSF-net at its published size: seconds per box, beside matrix products and PyTorch's layers.

    python scripts/bench_rmsfnet.py --output bench.json

Boxes go through the network in batches of `--batch`, after compilation. The network needs 18 GFLOP per box; the share
of the speed that one large matrix product reaches here tells how far the convolutions are from what the machine can do.
Where torch is installed, its own three-dimensional convolutions with the shapes of the published network (which
evaluates whole boxes, 81 GFLOP) are timed at the same batch. Random weights: they take the same time.
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

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
GFLOP = 18.0  # of a box, cropped


def best(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(wall, CPU) seconds of the fastest call."""
    import jax

    jax.block_until_ready(function())
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(found)


def peak() -> float:
    """GFLOP/s of a large matrix product."""
    import jax
    import jax.numpy as jnp

    n = 2048
    x = jnp.ones((n, n))
    product = jax.jit(lambda x: x @ x)
    return 2 * n**3 / best(lambda: product(x), 5)[0] / 1e9


def torch_layers(batch: int, width: int, repeats: int) -> float | None:
    """Seconds per box of PyTorch's convolutions with the shapes of the published network; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    from jaxprot.rmsfnet.model import NODES

    torch.manual_seed(0)
    layers = []
    for level, column in NODES:
        out = width << level
        n_in = column * out + 2 * out if column else (out // 2 if level else 2)
        for channels in (n_in, out):
            layer = torch.nn.Conv3d(channels, out, 3, padding=1)
            layers.append((layer, torch.randn(batch, channels, *(40 >> level,) * 3)))
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            for layer, x in layers:
                torch.relu(layer(x))
            seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]) / batch


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=32, help="32 is the published network")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    args = parser.parse_args(argv)

    import jax
    from flax import nnx

    from jaxprot.io.outputs import versions, write_json
    from jaxprot.rmsfnet.config import RMSFNetConfig
    from jaxprot.rmsfnet.model import RMSFNet
    from jaxprot.rmsfnet.predict import Predictor

    predictor = Predictor(RMSFNet(RMSFNetConfig(width=args.width), folded=True, rngs=nnx.Rngs(0)), batch=args.batch)
    apply, leaves = predictor.pure()
    boxes = jax.random.uniform(jax.random.key(0), (args.batch, 40, 40, 40, 2))
    run = jax.jit(apply)
    begin = time.perf_counter()
    jax.block_until_ready(run(leaves, boxes))
    first = time.perf_counter() - begin
    wall, cpu = (seconds / args.batch for seconds in best(lambda: run(leaves, boxes), args.repeats))
    fastest = peak()
    report = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": versions(("jax", "jaxlib", "flax", "torch")),
        "device": str(jax.devices()[0]),
        "batch": args.batch,
        "width": args.width,
        "compile_s": first - wall * args.batch,
        "wall_s_per_box": wall,
        "cpu_s_per_box": cpu,
        "matmul_gflops": fastest,
        "share_of_matmul": GFLOP * (args.width / 32) ** 2 / wall / fastest,
        "torch_conv3d_s_per_box": torch_layers(args.batch, args.width, args.repeats),
    }
    print(json.dumps(report, indent=2))
    if args.output:
        write_json(args.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

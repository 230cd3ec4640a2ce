"""Timings of AI2BMD's parts.

    python scripts/bench_ai2bmd.py network --weights visnet.ckpt --fragments fragments.npz --output bench.json
    python scripts/bench_ai2bmd.py step chignolin.pdb abd.pdb --solvent gb

`network`: energies and forces of all fragments of a protein, in padded batches of few sizes, after compilation; and the
gradient of a loss of energies and forces, as in training. CPU seconds, so that they are those of one thread where the
process is held to one core (`taskset -c 0`). Without `--weights` the network is that of AI2BMD's likely family with
random weights, and without `--fragments` molecules are random clouds of as many atoms as the fragments of chignolin:
both take about the same time. The matrix products of the network would take `matmul_s` at the speed of a large one.

`step`: energy and forces of whole proteins with the shipped potential, wall and CPU seconds.
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
CHIGNOLIN = (33, 12, 33, 12, 24, 12, 26, 12, 27, 12, 26, 12, 19, 12, 26, 12, 36, 12, 33)
STEPS = {"tight": 1, "2": 2, "4": 4}


def best(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """(wall, CPU) seconds of the fastest call, by CPU seconds."""
    import jax

    jax.block_until_ready(function())
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(found)
    return wall, cpu


def peak(repeats: int) -> float:
    """GFLOP per CPU second of a matrix product of a thousand pairs."""
    import jax
    import jax.numpy as jnp

    x, weight = jnp.ones((1152, 128)), jnp.ones((128, 384))
    product = jax.jit(lambda x, weight: x @ weight)
    work = lambda: [product(x, weight) for _ in range(20)]  # noqa: E731
    return 20 * 2 * 1152 * 128 * 384 / best(work, repeats)[1] / 1e9


def cloud(atoms: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions (Å) about as dense as those of a peptide."""
    places = [np.zeros(3)]
    while len(places) < atoms:
        new = places[rng.integers(len(places))] + 1.2 * rng.normal(size=3)
        if min(np.linalg.norm(new - place) for place in places) > 1:
            places.append(new)
    return rng.choice([1, 1, 6, 7, 8], atoms).astype(np.int32), np.array(places, np.float32)


def fragments(path: pathlib.Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Atomic numbers and positions of each fragment."""
    if path is None:
        rng = np.random.default_rng(0)
        return [cloud(atoms, rng) for atoms in CHIGNOLIN]
    stored = np.load(path)
    pieces = [slice(a, b) for a, b in zip(stored["frag_start"], stored["frag_end"], strict=True)]
    return [(stored["frag_z"][p], stored["frag_pos"][p]) for p in pieces]


def gflop(cfg: Any, pairs: int, atoms: int) -> float:
    """Of the matrix products for energies and forces."""
    square, middle = 2 * cfg.hidden**2 / 1e9, max(0, cfg.layers - 2)
    of_pairs = 3 + 5 * middle + 4 * (cfg.layers > 1)
    of_atoms = 4 + (6 + 5 * cfg.components) * middle + (6 + 3 * cfg.components) * (cfg.layers > 1)
    return 2 * square * (of_pairs * pairs + of_atoms * atoms)


def measure(predictor: Any, molecules: list, sizes: tuple[int, ...], layout: str, repeats: int) -> dict[str, Any]:
    """Energies and forces of all molecules in batches of some padded sizes."""
    import jax

    from jaxprot.visnet import featurize, neighbours
    from jaxprot.visnet.model import energy_and_forces

    energy, leaves = predictor.pure()
    cfg = predictor.config
    batches = []
    for size, rows in featurize.group([len(z) for z, _ in molecules], sizes).items():
        batch = featurize.pad([molecules[row] for row in rows], size)
        if layout == "table":
            most = max(featurize.degrees(molecules[row][1], cfg.cutoff).max() for row in rows)
            batch = neighbours.compact(batch, cfg.cutoff, int(most))
        batches.append(batch)
    run = jax.jit(lambda leaves, batch: energy_and_forces(energy, leaves, batch))
    begin = time.process_time()
    programs = [run.lower(leaves, batch).compile() for batch in batches]
    compiled = time.process_time() - begin
    wall, cpu = best(lambda: [p(leaves, b) for p, b in zip(programs, batches, strict=True)], repeats)
    slots = sum(b.z.size * (b.z.shape[1] if b.index is None else b.index.shape[2]) for b in batches)
    return {
        "sizes": [list(b.z.shape) for b in batches],
        "pairs": slots,
        "compile_cpu_s": compiled,
        "cpu_s": cpu,
        "wall_s": wall,
        "cpu_us_per_pair": cpu * 1e6 / slots,
        "gflop": gflop(cfg, slots, sum(b.z.size for b in batches)),
    }


def training(hidden: int, layers: int, atoms: int, batch: int, at_once: int, repeats: int) -> dict[str, Any]:
    """The gradient of a loss of energies and forces, summed over groups of `at_once` molecules."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxprot.visnet import featurize
    from jaxprot.visnet.config import ViSNetConfig
    from jaxprot.visnet.model import ViSNet, energy_and_forces

    rng = np.random.default_rng(0)
    molecules = featurize.pad([cloud(atoms, rng) for _ in range(batch)], atoms)
    molecules = jax.tree.map(lambda x: x.reshape(batch // at_once, at_once, *x.shape[1:]), molecules)
    net = ViSNet(ViSNetConfig(hidden=hidden, layers=layers), rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(net, nnx.Param, ...)

    def loss(params, molecules):
        energies, forces = energy_and_forces(
            lambda params, m: nnx.merge(graphdef, params, rest)(m), params, molecules, at_once
        )
        return jnp.sum(energies**2) + jnp.sum(forces**2)

    def gradient(params, molecules):
        def add(so_far, group):
            return jax.tree.map(jnp.add, so_far, jax.grad(loss)(params, group)), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), molecules)[0]

    begin = time.process_time()
    program = jax.jit(gradient).lower(params, molecules).compile()
    compiled = time.process_time() - begin
    wall, cpu = best(lambda: program(params, molecules), repeats)
    told = {"hidden": hidden, "layers": layers, "atoms": atoms, "batch": batch, "at_once": at_once}
    return told | {"compile_cpu_s": compiled, "cpu_s": cpu, "wall_s": wall}


def network(args: argparse.Namespace) -> dict[str, Any]:
    """The part `network`."""
    from jaxprot.visnet import featurize, predict, weights
    from jaxprot.visnet.config import ViSNetConfig
    from jaxprot.visnet.predict import Predictor

    if args.weights:
        predictor = predict.load(args.weights)
    else:
        rng, cfg = np.random.default_rng(0), ViSNetConfig.paper()
        shapes = weights.shapes(cfg)
        predictor = Predictor(
            weights.assemble(cfg, {name: rng.normal(size=shapes[name]) * 0.05 for name in shapes})  # type: ignore
        )
    molecules = fragments(args.fragments)
    report: dict[str, Any] = {"matmul_gflops_per_cpu_s": peak(args.repeats), "inference": {}, "training": []}
    for name in args.buckets:
        layout, _, sizes = name.rpartition("-")
        if sizes == "default":
            chosen = featurize.SIZES
        else:
            step = STEPS[sizes]
            chosen = tuple(range(step, 401, step))
        found = measure(predictor, molecules, chosen, layout or "dense", args.repeats)
        report["inference"][name] = found | {"matmul_s": found["gflop"] / report["matmul_gflops_per_cpu_s"]}
    for atoms in args.atoms:
        for at_once in args.at_once:
            report["training"].append(training(64, 3, atoms, args.batch, at_once, args.repeats))
    return report


def step(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The part `step`."""
    import resource

    import jax
    import jax.numpy as jnp

    from jaxprot.ai2bmd import predict
    from jaxprot.cli.options import shared_devices

    predictor, devices, out = predict.load(args.weights), shared_devices(args.devices), []
    for path in args.structures:
        potential = predictor.potential(path, solvent=args.solvent, devices=devices)
        with jax.enable_x64(True):
            positions = jnp.asarray(potential.structure.xyz, jnp.float64)
            begin = time.perf_counter()
            program = jax.jit(potential.field).lower(potential.leaves, positions).compile()
            compiled = time.perf_counter() - begin
            wall, cpu = best(lambda: program(potential.leaves, positions), args.repeats)  # noqa: B023
        atoms = len(potential.z)
        out.append({
            "structure": path.name, "atoms": atoms, "units": potential.fragmentation.n_units, "devices": devices,
            "compile_s": compiled,
            "wall_s": wall, "cpu_s": cpu, "wall_us_per_atom": 1e6 * wall / atoms,
            "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        })  # fmt: skip
    return out


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("network", help="energies and forces of fragments, and the gradient of training")
    part.add_argument("--weights", help="official .ckpt, or weights of this library")
    part.add_argument("--fragments", type=pathlib.Path, help=".npz with frag_z, frag_pos, frag_start and frag_end")
    part.add_argument(
        "--buckets",
        nargs="*",
        default=["default"],
        choices=[f"{layout}{step}" for layout in ("", "table-") for step in ("default", *STEPS)],
        help="padded sizes: the default ones, the exact ones (tight), or multiples; table-...: with tables",
    )
    part.add_argument("--atoms", type=int, nargs="*", default=[22, 32], help="of the molecules of training")
    part.add_argument("--batch", type=int, default=32, help="molecules in a step of training")
    part.add_argument("--at-once", type=int, nargs="*", default=[2], help="of which so many are computed together")
    part.add_argument("--repeats", type=int, default=5)
    part.add_argument("--output", type=pathlib.Path, help="JSON file")
    part = parts.add_parser("step", help="energy and forces of whole proteins")
    part.add_argument("structures", type=pathlib.Path, nargs="+", help="capped proteins with hydrogens")
    part.add_argument("--weights", default="ai2bmd", help="name or file")
    part.add_argument("--solvent", choices=["none", "gb"], default="none")
    part.add_argument("--devices", type=int, help="that share the units; by default all, cores of a processor")
    part.add_argument("--repeats", type=int, default=10)
    part.add_argument("--output", type=pathlib.Path, help="JSON file")
    args = parser.parse_args(argv)

    from jaxprot.cli.options import cores_as_devices

    if args.part == "step":
        cores_as_devices(args.devices)
    import jax

    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import versions, write_json

    try:
        figures = {"network": network, "step": step}[args.part](args)
    except (JaxprotError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    report = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": versions(("jax", "jaxlib", "flax")),
        "device": str(jax.devices()[0]),
        args.part: figures,
    }
    print(json.dumps(report, indent=2))
    if args.output:
        write_json(args.output, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Seconds per step and memory of dynamics against the number of atoms.

    python scripts/ai2bmd_speed.py chignolin.pdb trpcage.pdb ww.pdb abd.pdb --tandem 4 14 --output runs/speed

Each structure (capped, with hydrogens; `jaxprot ai2bmd prepare` makes one) is moved by Langevin dynamics of 1 fs with
the shipped potential; `--tandem N` adds N copies of the last structure, side by side on a grid, each a chain of its
own. Every measurement is a process of its own, so that its memory is its own. Writes speed.csv and speed.png, where the
steps that AI2BMD reports on one GPU (Nature 2024, doi 10.1038/s41586-024-08127-z: 0.07, 0.125 and 2.6 s) stand beside
ours.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PUBLISHED = {281: 0.07, 746: 0.125, 13728: 2.6}  # atoms: seconds per step of the paper, one GPU
SPACE = 20.0  # Å between copies


def tandem(structure: Any, copies: int) -> Any:
    """Copies of a structure side by side, each with chains of its own."""
    import dataclasses

    side = int(np.ceil(copies ** (1 / 3)))
    span = np.ptp(structure.xyz, axis=0) + SPACE
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:copies]
    changed: dict[str, Any] = {"name": f"{structure.name} x {copies}"}
    for field in dataclasses.fields(structure):
        values = getattr(structure, field.name)
        if isinstance(values, np.ndarray):
            changed[field.name] = np.concatenate([values] * copies)
    n = structure.n_atoms
    changed["xyz"] = changed["xyz"] + np.repeat(cells * span, n, axis=0).astype(np.float32)
    changed["atom_residue"] = np.concatenate([structure.atom_residue + i * structure.n_residues for i in range(copies)])
    changed["res_chain"] = np.concatenate([structure.res_chain + i * structure.n_chains for i in range(copies)])
    changed["chain_id"] = np.array([f"{name}{i}" for i in range(copies) for name in structure.chain_id])
    changed["serial"] = np.arange(1, n * copies + 1, dtype=np.int32)
    return dataclasses.replace(structure, **changed)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one structure."""
    from jaxprot.cli.options import cores_as_devices, shared_devices

    cores_as_devices(args.devices)
    import jax

    from jaxprot.ai2bmd import predict
    from jaxprot.io.structures import read_structure
    from jaxprot.md import integrators, molecule
    from jaxprot.weights import registry

    structure = read_structure(args.structures[0])
    if args.tandem:
        structure = tandem(structure, args.tandem[0])
    potential = predict.load(registry.resolve(args.weights, "ai2bmd")[0]).potential(
        structure, solvent=args.solvent, devices=shared_devices(args.devices)
    )
    begin = time.perf_counter()
    with integrators.wide():
        engine = integrators.Integrator(potential.field, molecule.masses(potential.z), integrators.Dynamics())
        state = engine.start(np.asarray(structure.xyz, np.float64), jax.random.key(0))
        state, _ = jax.block_until_ready(engine.run(state, potential.leaves, 0))
        compiled = time.perf_counter() - begin
        walls, cpus = [], []
        for _ in range(args.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            state, _ = jax.block_until_ready(engine.run(state, potential.leaves, args.steps))
            walls.append((time.perf_counter() - wall) / args.steps)
            cpus.append((time.process_time() - cpu) / args.steps)
    atoms = len(potential.z)
    figures = {
        "structure": structure.name, "atoms": atoms, "residues": structure.n_residues,
        "seconds_per_step": min(walls), "cpu_seconds_per_step": min(cpus),
        "microseconds_per_atom": 1e6 * min(walls) / atoms, "ns_per_day": 86400e-6 / min(walls),
        "compile_s": compiled, "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "device": str(jax.devices()[0]),
    }  # fmt: skip
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        figures["device_memory_gb"] = stats["peak_bytes_in_use"] / 1e9
    return figures


def picture(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Seconds per step over atoms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.loglog([r["atoms"] for r in rows], [r["seconds_per_step"] for r in rows], "o-", label=rows[0]["device"])
    axes.loglog(list(PUBLISHED), list(PUBLISHED.values()), "s--", color="0.5", label="published, one GPU")
    for row in rows:
        axes.annotate(row["structure"], (row["atoms"], row["seconds_per_step"]), fontsize=7, xytext=(5, -9),
                      textcoords="offset points")  # fmt: skip
    axes.set_xlabel("atoms")
    axes.set_ylabel("seconds per step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=pathlib.Path, nargs="+", help="capped proteins with hydrogens")
    parser.add_argument("--tandem", type=int, nargs="*", default=[], help="copies of the last structure")
    parser.add_argument("--weights", default="ai2bmd", help="name or file")
    parser.add_argument("--solvent", choices=["none", "gb"], default="none")
    parser.add_argument("--devices", type=int, help="that share the units; by default all, cores of a processor")
    parser.add_argument("--steps", type=int, default=10, help="of a measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the fastest counts")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("."), help="folder")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for path in args.structures:
        if not path.is_file():
            parser.error(f"{path}: no such file")

    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import atomic_path
    from jaxprot.io.tables import write_table

    if args.one:
        try:
            print(json.dumps(measure(args)))
        except (JaxprotError, FileNotFoundError) as error:
            parser.error(str(error))
        return 0
    jobs = [(path, 0) for path in args.structures] + [(args.structures[-1], copies) for copies in args.tandem]
    options = ["--weights", args.weights, "--solvent", args.solvent, "--steps", args.steps, "--repeats", args.repeats]
    options += [] if args.devices is None else ["--devices", args.devices]
    rows: list[dict[str, Any]] = []
    print("| structure | atoms | s/step | µs/atom | ns/day | compile s | memory GB |\n|---|---|---|---|---|---|---|")
    for path, copies in jobs:
        command = [sys.executable, __file__, path, "--one", *options, *(["--tandem", copies] if copies else [])]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            parser.error(f"{path}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
        rows.append(row := json.loads(done.stdout.splitlines()[-1]))
        print(f"| {row['structure']} | {row['atoms']} | {row['seconds_per_step']:.4f} | "
              f"{row['microseconds_per_atom']:.0f} | {row['ns_per_day']:.3f} | {row['compile_s']:.0f} | "
              f"{row['peak_memory_gb']:.1f} |", flush=True)  # fmt: skip
    rows.sort(key=lambda one: one["atoms"])
    args.output.mkdir(parents=True, exist_ok=True)
    write_table({key: [row.get(key) for row in rows] for key in rows[0]}, args.output / "speed.csv")
    with atomic_path(args.output / "speed.png") as temporary:
        picture(rows, temporary)
    return 0


if __name__ == "__main__":
    sys.exit(main())

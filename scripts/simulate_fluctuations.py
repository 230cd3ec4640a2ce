"""Simulate the chains of the structure archives in a structure-based potential, for labels of flexibility.

    python scripts/simulate_fluctuations.py --output runs/fluctuations

Writes OUTPUT/val.npz and OUTPUT/train.npz: for each chain, by name, the RMSF (R,) of its residues in Å as float32, NaN
where a residue has no alpha carbon. What is there already is kept, so a run that was stopped goes on where it was.
`JAXPROT_DATA` names the folder with `structures/`. The potential and its temperature are those of
`jaxprot.md.structure_based`; it has no parameter that was fitted to fluctuations.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))
EVERY = 30.0  # seconds between writes


def simulate(part: str, output: pathlib.Path, longest: int, limit: int | None, seed: int, steps: int) -> None:
    """Adds the chains of a part to its file."""
    import jax
    import numpy as np
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from jaxprot.io.archives import read_chains
    from jaxprot.io.outputs import atomic_path
    from jaxprot.md.structure_based import rmsf_of_chains

    path = output / f"{part}.npz"
    done: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path) as archive:
            done = {name: archive[name] for name in archive.files}
    chains = [chain.structure for chain in read_chains(DATA / "structures" / f"{part}.npz")]
    chains = [chain for chain in chains if chain.n_residues <= longest][:limit]
    left = [chain for chain in chains if chain.name not in done]

    def write() -> None:
        with atomic_path(path) as temporary:
            np.savez(temporary, **done)  # pyright: ignore[reportArgumentType]

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    written = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(part, total=len(chains), completed=len(chains) - len(left))
        for number, values in rmsf_of_chains(left, jax.random.key(seed), steps=steps):
            done[left[number].name] = values
            bar.advance(task)
            if time.monotonic() - written > EVERY:
                write()
                written = time.monotonic()
    if left:
        write()
    torn = sorted(name for name, values in done.items() if not np.isfinite(values).any())
    print(f"{path}: {len(done)} chains" + (f", without values: {', '.join(torn)}" if torn else ""))


def main(argv: list[str] | None = None) -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--part", choices=["val", "train", "both"], default="both")
    parser.add_argument("--longest", type=int, default=300, help="residues; longer chains are left out")
    parser.add_argument("--steps", type=int, default=6_000, help="of 20 fs, after equilibration; multiple of 200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="only so many chains of each part")
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    args = parser.parse_args(argv)

    import jax

    from jaxprot.cli.options import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings

    try:
        keep_settings(args.output, {"longest": args.longest, "steps": args.steps, "seed": args.seed})
    except JaxprotError as error:
        parser.error(str(error))
    for part in ("val", "train") if args.part == "both" else (args.part,):
        simulate(part, args.output, args.longest, args.limit, args.seed, args.steps)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

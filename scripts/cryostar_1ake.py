"""cryoSTAR's experiment on adenylate kinase: particles simulated between two conformations, and what is found of them.

    python scripts/cryostar_1ake.py --closed 1ake.pdb --open 4ake.pdb --output runs/1ake
    python scripts/cryostar_1ake.py --closed 1ake.pdb --path path.npz --experiment default --steps 900 --output runs/a

A quick one: `--side 64 --pixel-size 2 --snr 0.1 --particles 1024`.

The paper (Nature Methods 2024, doi 10.1038/s41592-024-02486-1) has images of 128 pixels of 1 Å with a signal-to-noise
ratio of 1e-4; how many is not known here, hence `--particles`. Conformations lie on a straight line between the two
files (PDB entries 1AKE and 4AKE, from which `--chain` is taken), or are those of `--path`: an .npz file with `path_ca`
(frames, residues, 3) in Å, one place for each residue of the closed file.

Simulation, training, analysis and (with `--density`) maps are those of `jaxprot cryostar simulate | fit | analyze |
density`; a script that was stopped goes on where it was. Written are OUTPUT/particles/, OUTPUT/run/ and
OUTPUT/figures.json, the figures of `jaxprot cryostar analyze --truth` (see `jaxprot.cryostar.truth.conformations`);
maps are in OUTPUT/run/density, and what they have in common with the true densities in true_resolution.csv there.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def read(args: argparse.Namespace) -> dict[str, Any]:
    """The structures of the two ends (or of one), each of one chain.

    Raises:
      InputError: a file that cannot be used.
    """
    from jaxprot.core.errors import InputError
    from jaxprot.io.structures import read_structure

    out = {}
    for name, path in (("closed", args.closed), ("open", args.open)):
        if path is None:
            continue
        structure = read_structure(path).first_model().first_altlocs()
        if structure.n_chains > 1:
            if args.chain not in structure.chain_id:
                raise InputError(f"{path}: no chain {args.chain} among {', '.join(structure.chain_id)}; give --chain")
            structure = structure.chain(args.chain)
        out[name] = structure
    return out


def simulate(args: argparse.Namespace, structures: dict[str, Any]) -> int:
    """Makes the particles; an exit code.

    Raises:
      InputError: structures or conformations that do not fit each other.
    """
    from jaxprot.cli.main import main as jaxprot
    from jaxprot.io.structures import write_structure

    folder = args.output / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, structure in structures.items():
        write_structure(structure, folder / f"{name}.pdb")
    if args.open is None:
        along_path(args, folder / "closed.pdb")
        return 0
    words = [folder / "closed.pdb", "--to", folder / "open.pdb", "--frames", args.frames, "-n", args.particles]
    words += ["--side", args.side, "--pixel-size", args.pixel_size, "--snr", args.snr, "--seed", args.seed]
    words += ["-o", args.output / "particles", "--overwrite"]
    return jaxprot(["cryostar", "simulate", *map(str, words)])


def along_path(args: argparse.Namespace, closed: pathlib.Path) -> None:
    """Simulates particles of the conformations of an .npz file.

    Raises:
      InputError: it cannot be read, or has another number of residues than the closed structure.
    """
    import dataclasses

    import jax

    from jaxprot.core.errors import InputError
    from jaxprot.cryostar import gmm
    from jaxprot.cryostar import simulate as simulation
    from jaxprot.io.outputs import write_run_json
    from jaxprot.io.structures import read_structure, write_structure

    try:
        with np.load(args.path) as archive:
            frames = np.asarray(archive["path_ca"], np.float32)
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{args.path}: no .npz file with path_ca ({error})") from error
    structure = read_structure(closed)
    beads = gmm.beads_of(structure)
    if frames.ndim != 3 or frames.shape[1:] != (len(beads), 3):
        raise InputError(f"{args.path}: path_ca of shape {frames.shape}, and {args.closed} has {len(beads)} residues")
    frames = frames - frames.mean((0, 1))
    ensemble = simulation.Ensemble(dataclasses.replace(beads, xyz=frames[0]), frames)
    cfg = simulation.SimulationConfig(side=args.side, pixel=args.pixel_size, snr=args.snr)
    made = simulation.simulate(frames, beads.electrons, args.particles, cfg, key=jax.random.key(args.seed))
    folder = args.output / "particles"
    simulation.write_simulation(made, ensemble, folder, overwrite=True)
    write_structure(simulation.placed(structure, ensemble), folder / "reference.pdb")
    write_run_json(folder, {"command": "cryostar_1ake", "arguments": vars(args)})


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--closed", type=pathlib.Path, required=True, help="PDB or mmCIF file; also the reference")
    parser.add_argument("--open", type=pathlib.Path, help="PDB or mmCIF file of the other end")
    parser.add_argument("--path", type=pathlib.Path, help=".npz file with all conformations, instead of --open")
    parser.add_argument("--chain", default="A", help="of files with several chains")
    parser.add_argument("--frames", type=int, default=50, help="conformations between the two files")
    parser.add_argument("--particles", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--pixel-size", type=float, default=1.0, help="Å")
    parser.add_argument("--snr", type=float, default=1e-4)
    parser.add_argument("--experiment", default="1ake", help="of experiments/cryostar/, or a file")
    parser.add_argument("--steps", type=int, help="instead of those of the experiment")
    parser.add_argument("--batch", type=int, help="particles per step, instead of those of the experiment")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the experiment")
    parser.add_argument("--density", type=int, default=0, metavar="EPOCHS", help="maps as well, after so many epochs")
    parser.add_argument("--hidden", type=int, default=256, help="width of the network of maps; 1024 was published")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    if (args.open is None) == (args.path is None):
        parser.error("give --open or --path")
    experiment = pathlib.Path(args.experiment)
    if experiment.suffix != ".py":
        experiment = ROOT / "experiments" / "cryostar" / f"{args.experiment}.py"

    from jaxprot.cli import options
    from jaxprot.cli.main import main as jaxprot
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings

    options.start(options.Compute())
    particles, run = args.output / "particles", args.output / "run"
    os.environ["JAXPROT_1AKE"] = str(particles)
    free = ("output", "steps", "density", "hidden")  # what may be changed for a run that goes on
    try:
        structures = read(args)
        keep_settings(args.output, {name: value for name, value in vars(args).items() if name not in free})
        if not (particles / "run.json").exists() and (code := simulate(args, structures)):
            return code
        words = [particles / "particles.star", "--reference", particles / "reference.pdb", "--experiment", experiment]
        words += ["--seed", args.seed, "--resume", "-o", run]
        for name, value in (("--steps", args.steps), ("--batch", args.batch)):
            words += [] if value is None else [name, value]
        for setting in (*args.set, f"task.truth={(particles / 'truth.npz').absolute()}"):
            words += ["--set", setting]
        if code := jaxprot(["cryostar", "fit", *map(str, words)]):
            return code
        if not (run / "latents.npy").exists():  # asked to stop
            return 0
        truth, seed = ["--truth", str(particles / "truth.npz")], ["--seed", str(args.seed)]
        if code := jaxprot(["cryostar", "analyze", str(run), "--overwrite", *truth, *seed]):
            return code
        (args.output / "figures.json").write_bytes((run / "analysis" / "truth.json").read_bytes())
        if args.density:
            chosen = ["--epochs", str(args.density), "--hidden", str(args.hidden)]
            made = run / "density" / "training" / "settings.json"
            # A network of another width, or of the latents of fewer steps, is of no use any more.
            old = made.exists() and (
                json.loads(made.read_text("utf-8"))["config"]["hidden"] != args.hidden
                or made.stat().st_mtime < (run / "latents.npy").stat().st_mtime
            )
            return jaxprot(
                ["cryostar", "density", str(run), "--overwrite" if old else "--resume", *truth, *seed, *chosen]
            )
    except JaxprotError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

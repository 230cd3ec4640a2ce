"""What each structural loss of cryoSTAR is good for, on simulated particles.

    python scripts/cryostar_prior.py --output runs/prior
    python scripts/cryostar_prior.py --model 1ake.pdb --to 4ake.pdb --seeds 0 1 2 --output runs/prior-adk

The paper (Nature Methods 2024, doi 10.1038/s41592-024-02486-1) holds the beads together by the distances of neighbours
(`connect`), an elastic network whose most varying pairs are let go in each step (`elastic`, relaxation), and by keeping
beads apart (`clash`). Here the same network is trained on the same particles with all of these in the strength that
`jaxprot cryostar fit` gives them and in the published one, without one, without the relaxation (no pair is let go but
the one that varies most), and without any. The particles show two ubiquitins that open like a book, or MODEL on the
way to another one.

For each the distance from the true conformations (RMSD without superposition, Å), the rank correlation of a component
of the latents with the true frame, the root mean square deviation of neighbours' distances (Å), and clashes per
structure; for comparison those of the true conformations and of the reference alone. Trainings that are there already
are kept, so that a script that was stopped goes on. Written are OUTPUT/particles/, a run for each variant and seed,
and OUTPUT/prior.json.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
VARIANTS = {
    "all losses": (),
    "published weights": ("task.connect=1", "task.elastic=1", "task.clash=1", "task.ratio=0.99"),
    "no connect": ("task.connect=0",),
    "no elastic": ("task.elastic=0",),
    "no clash": ("task.clash=0",),
    "no relaxation": ("task.ratio=1",),
    "none": ("task.connect=0", "task.elastic=0", "task.clash=0"),
}
COLUMNS = {
    "rmsd_mean": "RMSD mean",
    "rmsd_median": "RMSD median",
    "spearman": "rank correlation",
    "bond_deviation": "bond deviation",
    "clashes": "clashes",
}


def simulate(args: argparse.Namespace, folder: pathlib.Path) -> int:
    """Makes the particles; an exit code."""
    from jaxprot.cli.demo import HINGE, ubiquitin_pair
    from jaxprot.cli.main import main as jaxprot
    from jaxprot.io.structures import write_structure

    model, to = args.model, args.to
    if model is None:
        model, to = (args.output / "inputs" / f"{name}.pdb" for name in ("closed", "open"))
        model.parent.mkdir(parents=True, exist_ok=True)
        write_structure(ubiquitin_pair(0), model)
        write_structure(ubiquitin_pair(HINGE), to)
    words = [model, "-n", args.particles, "--side", args.side, "--pixel-size", args.pixel_size, "--snr", args.snr]
    words += ["--frames", args.frames, "-o", folder, "--overwrite"] + ([] if to is None else ["--to", to])
    return jaxprot(["cryostar", "simulate", *map(str, words)])


def fit(args: argparse.Namespace, particles: pathlib.Path, run: pathlib.Path, changes: tuple, seed: int) -> int:
    """Trains one variant, or goes on with it; an exit code."""
    from jaxprot.cli.main import main as jaxprot

    words = [particles / "particles.star", "--reference", particles / "reference.pdb", "--steps", args.steps]
    words += ["--batch", args.batch, "--low-pass", args.low_pass, "--seed", seed, "--resume", "-o", run]
    for setting in (*args.set, *changes):
        words += ["--set", setting]
    return jaxprot(["cryostar", "fit", *map(str, words)])


def found_by(run: pathlib.Path, particles: pathlib.Path) -> dict[str, Any]:
    """Figures of a run."""
    from jaxprot.cryostar import predict, truth

    predictor = predict.load(run)
    latents = predictor.read_latents(run / "latents.npy")
    assert predictor.task is not None
    true = truth.read_truth(particles / "truth.npz", predictor.beads, predictor.task.stack)
    return truth.conformations(predictor.decode(latents), latents, predictor.beads, true)


def of_the_truth(particles: pathlib.Path) -> dict[str, float]:
    """Geometry of the true conformations."""
    from jaxprot.cryostar.gmm import beads_of
    from jaxprot.cryostar.truth import geometry
    from jaxprot.io.structures import read_structure

    with np.load(particles / "truth.npz") as archive:
        frames = archive["path_ca"].astype(np.float32)
    beads = beads_of(read_structure(particles / "reference.pdb"))
    if frames.shape[1] != len(beads):  # the truth lacks residues that only one of the two models has
        return {}
    return geometry(frames, beads)


def line(name: str, rows: list[dict[str, float]]) -> str:
    """A row of the table: mean over seeds, and their standard deviation where there are several."""
    cells = []
    for column in COLUMNS:
        values = [row[column] for row in rows if column in row]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.3f}{spread}" if values else "-")
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="PDB or mmCIF file; by default two ubiquitins")
    parser.add_argument("--to", type=pathlib.Path, help="its other conformation; by default along a normal mode")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--particles", type=int, default=512)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--pixel-size", type=float, default=2.0, help="Å")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--low-pass", type=float, default=4.0, help="Å")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of trainings")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    if args.to is not None and args.model is None:
        parser.error("--to needs --model")
    for path in (args.model, args.to):
        if path is not None and not path.is_file():
            parser.error(f"{path}: no such file")

    from jaxprot.cli import options
    from jaxprot.core.errors import JaxprotError
    from jaxprot.io.outputs import keep_settings, write_json

    options.start(options.Compute())
    particles, rows = args.output / "particles", {}
    free = ("output", "seeds", "only")
    settings = {name: value for name, value in vars(args).items() if name not in free}
    try:
        keep_settings(args.output, settings)
        if not (particles / "run.json").exists() and (code := simulate(args, particles)):
            return code
        for name in args.only:
            for seed in args.seeds:
                run = args.output / f"{name.replace(' ', '-')}-{seed}"
                if not (run / "latents.npy").exists() and (code := fit(args, particles, run, VARIANTS[name], seed)):
                    return code
                if not (run / "latents.npy").exists():  # asked to stop
                    return 0
                rows.setdefault(name, []).append(found_by(run, particles))
        true = of_the_truth(particles)
    except JaxprotError as error:
        parser.error(str(error))
    still = next(iter(rows.values()))[0]["reference"]
    write_json(args.output / "prior.json", {"settings": settings, "variants": rows, "truth": true, "reference": still})
    print(f"| {args.particles} particles, {args.steps} steps | {' | '.join(COLUMNS.values())} |")
    print("|---|" + "---|" * len(COLUMNS))
    for name, found in rows.items():
        print(line(name, found))
    print(line("reference alone", [{**still, "bond_deviation": 0.0, "clashes": 0.0}]))
    print(line("truth", [true]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

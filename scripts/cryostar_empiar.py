"""The paper's experiments with cryoSTAR on EMPIAR data: checks the download, then runs the published settings.

    python scripts/cryostar_empiar.py 10180 --check
    JAXPROT_EMPIAR=/data/empiar python scripts/cryostar_empiar.py 10180 --output runs/10180
    python scripts/cryostar_empiar.py 10073 --particles refined.star --reference 5gan.cif --from-corner

`JAXPROT_EMPIAR` (default: data/empiar) names a folder with `ENTRY/particles.star` and `ENTRY/reference.pdb` (or .cif,
or a file named by the PDB entry); `--particles`, `--dataset-dir` and `--reference` give others. The particles need
poses and CTF of a consensus refinement, and the reference has to be docked into its map with the middle of the box at
0, 0, 0; with `--from-corner` a model docked into a map whose origin is the corner of the box is moved by half of it.

All that is wrong is listed with its remedy (exit code 2). Then `jaxprot cryostar fit --experiment
experiments/cryostar/ENTRY.py` trains, or goes on with what was stopped, and `jaxprot cryostar analyze` shows the
result. `OUTPUT/settings.json` notes the options; a run goes on with the same ones alone, but for `--steps`. Pixel sizes
and boxes are those of the published settings (Nature Methods 2024, doi 10.1038/s41592-024-02486-1).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Entry(NamedTuple):
    """Published settings of a data set.

    Attributes:
      what: the molecule.
      side: pixels of the original images.
      pixel: Å.
      model: PDB entry of the reference.
    """

    what: str
    side: int
    pixel: float
    model: str


ENTRIES = {
    "10180": Entry("pre-catalytic spliceosome", 320, 1.7, "5nrl"),
    "10073": Entry("U4/U6.U5 tri-snRNP", 380, 1.4, "5gan"),
    "10059": Entry("TRPV1", 192, 1.2156, "7rqw"),
    "10827": Entry("EMPIAR-10827", 224, 0.9, "7ptx"),
}


def find(args: argparse.Namespace, entry: Entry, data: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, list[str]]:
    """Particles, reference, and what is missing."""
    problems = []
    particles = args.particles or data / "particles.star"
    if not particles.is_file():
        page = f"https://www.ebi.ac.uk/empiar/EMPIAR-{args.entry}/"
        problems.append(
            f"{particles}: no such file; download the entry ({page}) into {data}, and give its refined particles there "
            "as particles.star, or by --particles FILE"
        )
    names = [f"{stem}.{suffix}" for stem in ("reference", entry.model) for suffix in ("pdb", "cif")]
    candidates = [args.reference] if args.reference else [data / name for name in names]
    reference = next((path for path in candidates if path.is_file()), candidates[0])
    if not reference.is_file():
        page = f"https://www.rcsb.org/structure/{entry.model.upper()}"
        problems.append(
            f"{reference}: no such file; fetch PDB entry {entry.model.upper()} ({page}), dock it into the consensus "
            "map, and give it there or by --reference FILE"
        )
    return particles, reference, problems


def check_particles(stack: Any, source: pathlib.Path, entry: Entry) -> list[str]:
    """What is wrong with the particles: columns, box, pixel size."""
    from jaxprot.core.errors import InputError
    from jaxprot.cryostar import checks

    problems = []
    try:
        for finding in checks.check_stack(stack):
            print(f"{finding.level}: {finding.message}", file=sys.stderr)
    except InputError as error:
        problems.append(f"{source}: {str(error).removeprefix(f'{stack.name}: ')}")
    sides, pixels = np.unique(stack.side), np.unique(stack.pixel_size)
    if (sides != entry.side).any():
        problems.append(
            f"{source}: images of {', '.join(map(str, sides))} pixels, and the published ones have {entry.side}; take "
            "the stack that the settings are for, or --any-size to train on yours"
        )
    if (np.abs(pixels / entry.pixel - 1) > 0.005).any():
        problems.append(
            f"{source}: pixels of {', '.join(f'{value:.4g}' for value in pixels)} Å, and the published ones have "
            f"{entry.pixel:g}; if the file is wrong give --pixel-size {entry.pixel:g}, if the images are others "
            "--any-size"
        )
    return problems


def moved(structure: Any, box: float) -> Any:
    """A structure whose map has its corner at 0, 0, 0, with the middle of the box there; `box` is its width in Å."""
    import dataclasses

    return dataclasses.replace(structure, xyz=(structure.xyz - box / 2).astype(np.float32))


def check_reference(path: pathlib.Path, args: argparse.Namespace, side: int, pixel: float) -> tuple[Any, list[str]]:
    """The structure if it has been moved, and what is wrong with it."""
    from jaxprot.core.errors import InputError
    from jaxprot.cryostar import checks
    from jaxprot.cryostar.gmm import beads_of
    from jaxprot.io.structures import read_structure

    try:
        structure = read_structure(path)
        if args.from_corner:
            # The origin of images and maps is pixel side // 2.
            structure = moved(structure, 2 * (side // 2) * pixel)
        for finding in checks.check_reference(beads_of(structure), side, pixel):
            print(f"{finding.level}: {finding.message}", file=sys.stderr)
    except InputError as error:
        hint = "" if args.from_corner else " (--from-corner moves it by half of the box)"
        return None, [f"{path}: {str(error).removeprefix(f'{path.stem}: ')}{hint if 'outside' in str(error) else ''}"]
    return (structure if args.from_corner else None), []


def keep(output: pathlib.Path, settings: dict[str, Any]) -> bool:
    """Notes what a run is made with, which holds for it once its training has begun.

    Returns:
      Whether the folder holds an attempt with other settings that ended before its training, as one does whose contrast
      or pixel size is found to be wrong.

    Raises:
      OutputError: the run there has other settings.
    """
    from jaxprot.io.outputs import keep_settings, write_json

    note, begun = output / "settings.json", (output / "run" / "config.yaml").exists()
    before = note.read_bytes() if note.is_file() else None
    if begun or not output.is_dir():
        keep_settings(output, settings)
        return False
    write_json(note, settings)
    return (output / "run").is_dir() and note.read_bytes() != before


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", choices=sorted(ENTRIES), help="number of the EMPIAR entry")
    parser.add_argument("--particles", type=pathlib.Path, help="STAR or .cs file")
    parser.add_argument("--dataset-dir", type=pathlib.Path, help="folder that the paths of stacks are relative to")
    parser.add_argument("--reference", type=pathlib.Path, help="PDB or mmCIF file")
    parser.add_argument("--from-corner", action="store_true", help="move the reference by minus half of the box")
    parser.add_argument("--pixel-size", type=float, help="Å, instead of the file's")
    parser.add_argument("--any-size", action="store_true", help="take images of another box or pixel size")
    parser.add_argument("--check", action="store_true", help="only check the files")
    parser.add_argument("--invert", action="store_true", help="particles are dark on bright")
    parser.add_argument("--steps", type=int, help="instead of the published ones")
    parser.add_argument("--batch", type=int, help="particles per step (published: of four devices)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the experiment")
    parser.add_argument("--output", type=pathlib.Path, help="default: runs/ENTRY")
    args = parser.parse_args(argv)
    entry = ENTRIES[args.entry]
    data = pathlib.Path(os.environ.get("JAXPROT_EMPIAR", "data/empiar")) / args.entry
    output = args.output or pathlib.Path("runs") / args.entry

    from jaxprot.cli import options
    from jaxprot.core.errors import InputError, OutputError

    options.start(options.Compute())
    from jaxprot.cli.main import main as jaxprot
    from jaxprot.io.outputs import RunDirectory
    from jaxprot.io.particles import read_particles
    from jaxprot.io.structures import write_structure
    from jaxprot.train.config import load_experiment

    particles, reference, problems = find(args, entry, data)
    structure, side, pixel = None, entry.side, entry.pixel
    if particles.is_file():
        try:
            stack = read_particles(particles, args.dataset_dir, poses=False, pixel_size=args.pixel_size)
            wrong = check_particles(stack, particles, entry)
            problems += [text for text in wrong if not (args.any_size and "--any-size" in text)]
            side, pixel = int(np.median(stack.side)), float(np.median(stack.pixel_size))
            print(f"{particles}: {len(stack)} particles, {side} pixels of {pixel:g} Å")
        except InputError as error:
            problems.append(str(error))
    if reference.is_file():
        structure, wrong = check_reference(reference, args, side, pixel)
        problems += wrong
    if problems:
        for text in problems:
            print(f"EMPIAR-{args.entry} ({entry.what}): {text}", file=sys.stderr)
        return 2
    print(f"EMPIAR-{args.entry} ({entry.what}): particles and reference can be used")
    if args.check:
        return 0
    chosen = {name: value for name, value in vars(args).items() if name not in ("output", "steps", "check")}
    files = {"particles": particles.absolute(), "reference": reference.absolute()}
    if args.dataset_dir is not None:
        files["dataset_dir"] = args.dataset_dir.absolute()
    try:
        changed = keep(output, {**chosen, **files})
    except OutputError as error:
        print(f"EMPIAR-{args.entry} ({entry.what}): {error}, or the settings of before", file=sys.stderr)
        return 2
    if structure is not None:
        reference = RunDirectory(output, overwrite=True).file("centred.cif")
        write_structure(structure, reference)
    words = [particles, "--reference", reference, "-o", output / "run", "--resume"]
    experiment = ROOT / "experiments" / "cryostar" / f"{args.entry}.py"
    words += ["--experiment", experiment]
    for name in ("dataset_dir", "pixel_size", "steps", "batch"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", value]
    words += ["--side", side] if side < load_experiment(experiment).task.side else []
    words += ["--invert"] if args.invert else []
    words += ["--overwrite"] if changed else []  # the images of the attempt before
    for setting in args.set:
        words += ["--set", setting]
    if code := jaxprot(["cryostar", "fit", *map(str, words)]):
        return code
    if not (output / "run" / "latents.npy").exists():  # asked to stop
        return 0
    return jaxprot(["cryostar", "analyze", str(output / "run"), "--overwrite"])


if __name__ == "__main__":
    sys.exit(main())

"""Cross-validation of RMSF-net, its variants for one input, and DEFMap, in the layout of the paper's table.

    jaxprot rmsfnet dataset entries.csv -o entries
    python scripts/rmsfnet_cross_validation.py --data entries --output runs/rmsfnet-cv
    python scripts/rmsfnet_cross_validation.py --data entries --output cv --steps 200 --width 8 --methods both defmap

`--data` is a folder of entries as `jaxprot rmsfnet dataset` writes them (of a table with the column `part`: one of its
sub-folders). Entries of one protein, told by what stands before the
first `.` or `_` of their names (`--separators`), stay in one fold. For every fold each method is trained on the others,
a tenth of their proteins apart, which chooses the best weights; the held fold is seen once, at the end.

Figures are Pearson correlations of RMSF per entry, over its voxels and over its residues; the table has their mean and
standard deviation over all entries. Residues, and the methods without training (ANM, GNM, contact number, B factor),
need models, which `dataset` writes too: `DATA/models/NAME.pdb` (or `.cif`), each where its map is. Without models that
column is empty and those rows are left out. Entries of older versions do not tell where their map is; their models are
moved until they fill the entry's voxels.

`cross_validation.json` and `.md` are written after each method of a fold; a restart goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import sys
import time
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
NETWORKS = {"both": "RMSF-net (map and model)", "map": "RMSF-net (map)", "pdb": "RMSF-net (model)", "defmap": "DEFMap"}
BASELINES = {"anm": "ANM", "gnm": "GNM", "contact": "contact number", "bfactor": "B factor"}
PUBLISHED = "Published, on fluctuations of molecular dynamics: 0.746 ± 0.127 (voxel), 0.765 ± 0.109 (residue)."
DEFMAP_EPOCHS = 100  # published, with early stopping
HELD = 10  # one in so many proteins of the training part chooses the best weights
COVERED = 0.9  # of an entry's voxels that a model must reach to be taken for the entry's


def protein(name: str, separators: str) -> str:
    """What the entries of one protein share; the whole name where there are no separators."""
    return re.split(f"[{re.escape(separators)}]", name, maxsplit=1)[0] if separators else name


def split(names: list[str], folds: int, separators: str, seed: int) -> list[list[str]]:
    """Names of each fold; whole proteins, drawn in the order that the seed gives."""
    proteins = sorted({protein(name, separators) for name in names})
    if len(proteins) < folds:
        raise ValueError(f"{len(proteins)} proteins make no {folds} folds; see --folds and --separators")
    order = np.random.default_rng(seed).permutation(len(proteins))
    where = {proteins[p]: number % folds for number, p in enumerate(order)}
    return [[n for n in sorted(names) if where[protein(n, separators)] == fold] for fold in range(folds)]


def parts(names: list[str], held: list[str], separators: str, seed: int) -> tuple[list[str], list[str]]:
    """The entries to train on and those that choose the best weights, apart from the held fold."""
    rest = sorted(set(names) - set(held))
    proteins = sorted({protein(name, separators) for name in rest})
    if len(proteins) < 2:
        raise ValueError("one protein is left to train on and none to choose weights; take more folds or entries")
    count = max(1, len(proteins) // HELD)
    chosen = {proteins[i] for i in np.random.default_rng([seed, 1]).permutation(len(proteins))[:count]}
    inside = [name for name in rest if protein(name, separators) in chosen]
    return [name for name in rest if name not in set(inside)], inside


def linked(names: list[str], source: pathlib.Path, folder: pathlib.Path) -> str:
    """A folder with these entries, as links where the file system has them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        path = (source / f"{name}.npz").resolve()
        try:
            (folder / path.name).symlink_to(path)
        except OSError:
            shutil.copy(path, folder / path.name)
    return str(folder)


def run_config(method: str, folder: pathlib.Path, args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The run of a method on a fold, and the header of its weights."""
    from jaxprot.rmsfnet.data import read_entry
    from jaxprot.rmsfnet.defmap import DEFMapConfig, DEFMapTask
    from jaxprot.train.config import load_experiment
    from jaxprot.train.task import OptimConfig

    cfg, epochs = load_experiment(args.experiment), args.epochs
    data = {"train": str(folder / "train"), "val": str(folder / "val")}
    if method == "defmap":
        sizes = {"width": args.width, "dense": 16 * args.width} if args.width else {}
        task = DEFMapTask(**data, model=DEFMapConfig(**sizes), **({"size": args.size} if args.size else {}))
        optim = OptimConfig(
            name="adam", lr=5e-5, b2=0.999, weight_decay=0.0, schedule="constant", warmup=0, clip=None, ema=0.0
        )
        cfg = dataclasses.replace(cfg, optim=optim)
        epochs = args.epochs or DEFMAP_EPOCHS
    else:
        model = dataclasses.replace(cfg.task.model, variant=method)
        model = dataclasses.replace(model, width=args.width) if args.width else model
        made = read_entry(next((folder / "train").glob("*.npz"))).geometry  # the network reads what the entries hold
        if made:
            model = dataclasses.replace(model, geometry=made, hydrogens=made != "exact")
        task = dataclasses.replace(cfg.task, **data, model=model, **({"size": args.size} if args.size else {}))
        epochs = args.epochs or 60
    steps = args.steps or epochs * task._batches.per_epoch
    every = max(1, min(task._batches.per_epoch, steps // 10))
    if args.rate:
        cfg = dataclasses.replace(cfg, optim=dataclasses.replace(cfg.optim, lr=args.rate))
    cfg = dataclasses.replace(
        cfg, task=task, steps=steps, micro=0, seed=args.seed, evaluate_every=every, save_every=every, workers=1
    )
    header = {"system": "defmap" if method == "defmap" else "rmsfnet", "config": dataclasses.asdict(task.model)}
    return cfg, {**header, "resolution": task.resolution} if method == "defmap" else header


def network(method: str, path: pathlib.Path) -> Any:
    """A function from an entry to the RMSF (Å) of its voxels."""
    import jax

    from jaxprot.rmsfnet import data, defmap, predict
    from jaxprot.rmsfnet.model import CORE

    if method == "defmap":
        model, resolution = defmap.load(path)

        def of_defmap(entry: Any) -> np.ndarray:
            prepared = defmap.prepare(defmap.low_pass(entry.map, resolution))
            return 10 ** defmap.predict(model, prepared, entry.voxels).astype(np.float64)

        return of_defmap
    predictor = predict.load(path)
    apply, leaves = predictor.pure()
    run = jax.jit(apply)

    def of_rmsfnet(entry: Any) -> np.ndarray:
        out = np.zeros([-(-n // CORE) * CORE for n in entry.map.shape])
        corners, batch = data.tiles([entry], CORE)[:, 1:], predictor.batch
        for start in range(0, len(corners), batch):
            rows = np.resize(np.arange(start, min(start + batch, len(corners))), batch)
            boxes = np.stack([data.cut(entry, corners[row], CORE, predictor.config)[0] for row in rows])
            found = np.asarray(run(leaves, boxes.astype(np.float32)))
            for row, core in zip(rows, found, strict=True):
                z, y, x = corners[row]
                out[z : z + CORE, y : y + CORE, x : x + CORE] = core
        return 10 ** out[tuple(entry.voxels.astype(int).T)] - 1

    return of_rmsfnet


def located(entry: Any, structure: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Scored atoms of a model and the row of the entry's voxel of each; None where the model does not fit the entry."""
    from jaxprot.core.volume import Volume
    from jaxprot.rmsfnet.featurize import SPACING, atom_voxels, protein_atoms

    if entry.origin is None:
        return placed(entry, structure)
    rows = np.full(entry.map.shape, -1)
    rows[tuple(entry.voxels.astype(int).T)] = np.arange(len(entry.voxels))
    index, inside = atom_voxels(structure, Volume(entry.map, np.full(3, SPACING), entry.origin))
    row = np.where(inside & protein_atoms(structure), rows[tuple(index.T)], -1)
    return fitting(entry, np.flatnonzero(row >= 0), row[row >= 0])


def fitting(entry: Any, atoms: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Atoms and their rows, if they reach nearly all voxels of the entry."""
    return (atoms, row) if len(np.unique(row)) >= COVERED * len(entry.voxels) else None


def placed(entry: Any, structure: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """As `located`, for an entry that does not tell where its map is.

    The model's atoms are moved until they lie in the entry's voxels.
    """
    from jaxprot.rmsfnet.featurize import SPACING, protein_atoms

    rows = np.full(entry.map.shape, -1)
    rows[tuple(entry.voxels.astype(int).T)] = np.arange(len(entry.voxels))
    atoms = np.flatnonzero(protein_atoms(structure))
    if not len(atoms):
        return None
    place = structure.xyz[atoms].astype(np.float64)[:, ::-1] / SPACING

    def found(origin: np.ndarray) -> np.ndarray:
        index = np.floor(place - origin).astype(int)
        inside = ((index >= 0) & (index < rows.shape)).all(1)
        return np.where(inside, rows[tuple(np.where(inside[:, None], index, 0).T)], -1)

    def score(origin: np.ndarray) -> float:
        row = found(origin)
        return float((row >= 0).mean()) + len(np.unique(row[row >= 0])) / len(entry.voxels)

    # The first voxel of each axis holds the first atom, so half a voxel is all that is not known.
    best = place.min(0) - entry.voxels.min(0) - 0.5
    for step, reach in ((0.1, 6), (0.1, 6), (0.02, 6), (0.02, 6)):
        for axis in range(3):
            moves = [best + step * k * np.eye(3)[axis] for k in sorted(range(-reach, reach + 1), key=abs)]
            best = max(moves, key=score)
    row = found(best)
    return fitting(entry, atoms[row >= 0], row[row >= 0])


def by_residue(values: np.ndarray, structure: Any, atoms: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(R,) mean over the atoms of each residue of their voxels' values; NaN where there are none."""
    residue = structure.atom_residue[atoms]
    count = np.bincount(residue, minlength=structure.n_residues)
    with np.errstate(invalid="ignore"):
        return np.bincount(residue, values[row], minlength=structure.n_residues) / count


def pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation where both have values; None where it is not defined."""
    from jaxprot.core import metrics

    both = np.isfinite(a) & np.isfinite(b)
    value = float(metrics.pearson(a[both], b[both]))
    return value if np.isfinite(value) else None


class Held:
    """The entries of a fold with their models, read when they are needed.

    Args:
      folder: of the entries.
      names: of the fold.
    """

    def __init__(self, folder: pathlib.Path, names: list[str]):
        self.folder, self.names = folder, names
        self._placed: dict[str, Any] = {}

    def model(self, name: str, entry: Any) -> Any:
        """(structure, atoms, rows) of an entry's model, None without one."""
        from jaxprot.core.errors import JaxprotError
        from jaxprot.io.structures import SUFFIXES, read_structure

        if name not in self._placed:
            paths = (self.folder / "models" / f"{name}{suffix}" for suffix in SUFFIXES)
            path, found = next((path for path in paths if path.is_file()), None), None
            if path is not None:
                try:
                    structure = read_structure(path)
                    where = located(entry, structure)
                    found = None if where is None else (structure, *where)
                    if found is None:
                        print(f"{path}: left out, its atoms do not fill the voxels of the entry")
                except JaxprotError as error:
                    print(f"left out: {error}")
            self._placed[name] = found
        return self._placed[name]

    def figures(self, values: Any) -> dict[str, dict[str, float | None]]:
        """Correlations of each entry; `values` maps (entry, structure) to RMSF of voxels or of residues."""
        from jaxprot.rmsfnet.data import read_entry

        out = {}
        for name in self.names:
            entry = read_entry(self.folder / f"{name}.npz")
            target = 10 ** entry.target.astype(np.float64) - 1
            model = self.model(name, entry)
            found = values(entry, None if model is None else model[0])
            if found is None:
                continue
            if model is None:
                out[name] = {"voxel": pearson(found, target), "residue": None}
                continue
            structure, atoms, row = model
            expected = by_residue(target, *model)
            if isinstance(values, Baseline):
                residues, count = found, np.bincount(row, minlength=len(target))
                with np.errstate(invalid="ignore"):
                    voxels = np.bincount(row, found[structure.atom_residue[atoms]], minlength=len(target)) / count
            else:
                voxels, residues = found, by_residue(found, *model)
            out[name] = {"voxel": pearson(voxels, target), "residue": pearson(residues, expected)}
        return out


class Baseline:
    """A method without training, as `Held.figures` takes it."""

    def __init__(self, method: Any):
        self.method = method

    def __call__(self, entry: Any, structure: Any) -> np.ndarray | None:
        """RMSF of every residue; None without a model, or where the method has no values for it."""
        from jaxprot.core.errors import InputError
        from jaxprot.rmsfnet import baselines

        if structure is None:
            return None
        try:
            return baselines.rmsf(structure, self.method)
        except InputError as error:
            print(f"left out: {error}")
            return None


def table(report: dict[str, Any]) -> str:
    """The paper's table of what is there so far."""
    found: dict[str, list[dict[str, float | None]]] = {}
    for fold in report["folds"].values():
        for method, entries in fold["methods"].items():
            found.setdefault(method, []).extend(entries.values())

    def cell(rows: list[dict[str, float | None]], column: str) -> str:
        values = [value for row in rows if (value := row[column]) is not None]
        return f"{np.mean(values):.3f} ± {np.std(values):.3f} ({len(values)})" if values else "-"

    lines = ["| method | voxel r | residue r |", "|---|---|---|"]
    for method, label in {**NETWORKS, **BASELINES}.items():
        if found.get(method):
            lines.append(f"| {label} | {cell(found[method], 'voxel')} | {cell(found[method], 'residue')} |")
    done = sum(bool(fold["methods"]) for fold in report["folds"].values())
    note = f"Mean ± standard deviation over entries (their number), {done} of {report['settings']['folds']} folds."
    absent = [label for method, label in BASELINES.items() if not found.get(method)]
    if absent:
        note += f" No rows for {', '.join(absent)}: no values, or no models (DATA/models/NAME.pdb or .cif)."
    return "\n".join([*lines, "", note, PUBLISHED]) + "\n"


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the entries")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the runs and the table")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", help="only these folds, from 0")
    parser.add_argument("--methods", nargs="+", choices=[*NETWORKS, *BASELINES], default=[*NETWORKS, *BASELINES])
    parser.add_argument("--separators", default="._", help="a protein's name ends before these; '' for whole names")
    parser.add_argument("--experiment", type=pathlib.Path, default=ROOT / "experiments" / "rmsfnet" / "paper.py")
    parser.add_argument("--epochs", type=int, help="default: 60 for RMSF-net, 100 for DEFMap")
    parser.add_argument("--steps", type=int, help="instead of epochs")
    parser.add_argument("--width", type=int, help="of the networks, instead of 32 (RMSF-net) and 64 (DEFMap)")
    parser.add_argument("--size", type=int, help="boxes per step, instead of 16 and 128")
    parser.add_argument("--rate", type=float, help="peak learning rate, instead of 1e-3 and 5e-5")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.folds < 2:
        parser.error(f"--folds {args.folds}: give 2 or more")
    if not args.data.is_dir():
        parser.error(f"{args.data}: no such folder")
    return parser, args


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser, args = arguments(argv)
    names = [path.stem for path in args.data.glob("*.npz")]
    try:
        folds = split(names, args.folds, args.separators, args.seed)
        for held in folds:
            parts(names, held, args.separators, args.seed)
    except ValueError as error:
        parser.error(f"{args.data}: {error}")

    import json

    from jaxprot.io.outputs import write_json, write_text

    keys = ("folds", "separators", "epochs", "steps", "width", "size", "rate", "seed")
    settings = {**{key: getattr(args, key) for key in keys}, "experiment": args.experiment.name, "entries": len(names)}
    target = args.output / "cross_validation.json"
    report: dict[str, Any] = {"settings": settings, "folds": {}}
    if target.exists():
        report = json.loads(target.read_text())
        if report["settings"] != settings:
            parser.error(f"{target}: made with other settings ({report['settings']}); choose another --output")

    import jax

    from jaxprot.cli.options import compilation_cache
    from jaxprot.core.errors import InputError
    from jaxprot.train.loop import fit

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    args.output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    for number, held in enumerate(folds):
        if args.only is not None and number not in args.only:
            continue
        home = args.output / f"fold{number}"
        fold = report["folds"].setdefault(str(number), {"entries": held, "methods": {}})
        todo = [method for method in args.methods if method not in fold["methods"]]
        if not todo:
            continue
        inside = dict(zip(("train", "val"), parts(names, held, args.separators, args.seed), strict=True))
        for part, chosen in inside.items():
            linked(chosen, args.data, home / part)
        reader = Held(args.data, held)
        for method in todo:
            if method in BASELINES:
                values: Any = Baseline(method)
            else:
                try:
                    cfg, header = run_config(method, home, args)
                    outcome = fit(cfg, home / method, resume=True, header=header)
                except InputError as error:
                    parser.error(str(error))
                if outcome.stopped or outcome.best is None:
                    print(f"stopped in fold {number}, {method}; start again to go on")
                    return 1
                run = network(method, outcome.best)
                values = lambda entry, _, run=run: run(entry)  # noqa: E731
            found = reader.figures(values)
            if not found:
                continue  # not noted, so that models which come later are used
            fold["methods"][method] = found
            write_json(target, report)
            write_text(args.output / "cross_validation.md", table(report))
            print(f"{time.time() - started:7.0f} s  fold {number}  {method}", flush=True)
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())

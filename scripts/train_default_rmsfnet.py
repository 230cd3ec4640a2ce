"""Train the shipped RMSF-nets: a stand-in for the published weights, from structures alone.

    python scripts/simulate_fluctuations.py --output runs/fluctuations
    python scripts/train_default_rmsfnet.py prepare --data runs/flexibility --simulated runs/fluctuations
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant pdb --steps 700
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant both --start PDB
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant map --start PDB
    python scripts/train_default_rmsfnet.py export --run runs/rmsfnet --variant both          # and so on

with `--data runs/flexibility` for each, and PDB = runs/rmsfnet/pdb/best.safetensors: what maps have in common is learnt
once, from models alone. `widen --start FILE --wide FILE` writes a network of twice the width that predicts the same, to
train on from. The card tells the steps of the shipped weights; they can be trained on (`--start`).

Labels are those of `scripts/rmsfnet_labels.py`.

Older maps serve again with other labels: `prepare --maps FOLDER` takes them from there.

The map of an entry is simulated at 2-4 Å from the chain in a random orientation, each atom blurred by a random share of
its B factor and its network's fluctuation, with noise; a quarter of the maps are blurred evenly. `JAXPROT_DATA` names
the folder with `structures/`. `export` calibrates the scale on the ubiquitin ensemble 2K39 (`flexibility/`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import rmsfnet_labels  # noqa: E402

DATA = rmsfnet_labels.DATA
DEFAULT = ROOT / "jaxprot" / "weights" / "default"
UNIFORM = 0.25  # of the maps tell nothing of the fluctuations: all atoms are blurred alike
LARGEST_B = 200.0  # Å²
VIEWS = {"both": 1, "map": 1, "pdb": 4}  # orientations that predictions are averaged over


def moved(structure: Any, rng: Any) -> Any:
    """The structure in a random orientation around the origin."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    turn = Rotation.random(rng=rng).as_matrix()
    xyz = structure.xyz.astype(np.float64)
    return dataclasses.replace(structure, xyz=((xyz - xyz.mean(0)) @ turn.T).astype(np.float32))


def cubic(low: Any, high: Any, name: str) -> Any:
    """An empty map around two corners; cubes of few sizes, so that few programs are compiled."""
    import numpy as np

    from jaxprot.core.volume import Volume

    n = int(np.ceil((high - low).max() / 1.5 / 16)) * 16
    return Volume(np.zeros((n, n, n), np.float32), np.full(3, 1.5), low, name)


def simulated_volume(structure: Any, rmsf: Any, rng: Any) -> Any:
    """A map of 2-4 Å, blurred by a share of fluctuations (Å), with noise."""
    import numpy as np
    from scipy import ndimage

    from jaxprot.rmsfnet.simulate import simulate_map

    low, high = structure.xyz.min(0) - 12.0, structure.xyz.max(0) + 12.0
    shifted = low - rng.uniform(0, 1.5, 3)
    share = rng.uniform(0.2, 1.0) * (rng.uniform() > UNIFORM)
    blur = share * 8 * np.pi**2 / 3 * rmsf**2 + rng.uniform(0, 40)
    blurred = structure.with_bfactor(np.minimum(blur, LARGEST_B - 1).astype(np.float32))
    grid = cubic(shifted, high, structure.name)
    volume = simulate_map(blurred, rng.uniform(2.0, 4.0), bfactors=True, on_grid=grid, max_bfactor=LARGEST_B)
    noise = ndimage.gaussian_filter(rng.normal(size=volume.shape), rng.uniform(0.4, 1.2))
    noise *= rng.uniform(0.0, 0.06) * volume.data.max() / noise.std()
    extent = np.ceil((high - shifted) / 1.5).astype(int)[::-1]
    keep = tuple(slice(0, n) for n in extent)
    return dataclasses.replace(volume, data=(volume.data + noise)[keep])


def simulated_entry(structure: Any, rmsf: Any, blur: Any, rng: Any) -> Any:
    """An entry of a structure with a map that is blurred by other fluctuations than it is labelled with."""
    from jaxprot.rmsfnet.data import make_entry

    return make_entry(structure, rmsf, simulated_volume(structure, blur, rng), geometry="exact")


def relabelled(path: pathlib.Path, structure: Any, rmsf: Any) -> Any:
    """The map of an entry in a file with the model simulated anew and other labels (Å, by atom)."""
    import numpy as np

    from jaxprot.core.errors import InputError
    from jaxprot.core.volume import Volume
    from jaxprot.rmsfnet.data import make_entry, read_entry

    old = read_entry(path)
    grid = Volume(old.map.astype(np.float32), np.full(3, 1.5), old.origin, old.name)
    entry = make_entry(structure, rmsf, grid, old.name, geometry="exact")
    if not np.array_equal(entry.voxels, old.voxels):
        raise InputError(f"{path}: its atoms lie elsewhere; it was made of another structure or orientation")
    return entry


def prepare(
    folder: pathlib.Path,
    simulations: pathlib.Path | None,
    limit: int | None,
    reverse: bool = False,
    maps: pathlib.Path | None = None,
) -> None:
    """Writes an entry for each chain, and its model as it lies in the map; those that are there already are kept.

    With `maps`, a folder that this wrote before, its maps are used again and only the labels are new.
    """
    import numpy as np

    from jaxprot.core.errors import InputError
    from jaxprot.io.archives import read_chains
    from jaxprot.io.outputs import keep_settings
    from jaxprot.io.structures import write_structure
    from jaxprot.rmsfnet.data import write_entry

    names = ("SHARE_B", "SHARE_SIMULATED", "STEEPNESS", "NEAR", "FAR", "REACH", "AVERAGES", "WEIGHTS", "OFFSET")
    names += ("LARGEST", "COUNTED", "BLURRED", "BLUR_LARGEST")
    settings = {name: np.asarray(getattr(rmsfnet_labels, name)).tolist() for name in names} | {"UNIFORM": UNIFORM}
    keep_settings(folder, settings | {"simulated": simulations is not None})
    started = time.time()
    for part in ("val", "train"):
        home = folder / part
        (home / "models").mkdir(parents=True, exist_ok=True)
        chains = read_chains(DATA / "structures" / f"{part}.npz")[:limit]
        simulated = rmsfnet_labels.fluctuations(simulations, part)
        for number, (structure, refined) in list(enumerate(chains))[:: -1 if reverse else 1]:
            if (home / f"{structure.name}.npz").exists():
                continue
            rng = np.random.default_rng([number, part == "train"])
            try:
                rmsf = rmsfnet_labels.labels(structure, refined, simulated.get(structure.name))
                turned = moved(structure, rng)
                if maps is None:
                    entry = simulated_entry(turned, rmsf, rmsfnet_labels.blurring(structure, refined), rng)
                else:
                    entry = relabelled(maps / part / f"{structure.name}.npz", turned, rmsf)
                write_structure(turned, home / "models" / f"{structure.name}.pdb")
                write_entry(entry, home)
            except InputError as error:
                print(f"left out: {error}")
            if number % 50 == 0:
                print(f"{time.time() - started:6.0f} s  {part} {number} of {len(chains)}", flush=True)


def config(folder: pathlib.Path, variant: str, start: pathlib.Path | None = None) -> Any:
    """The run of a variant, from weights if there are some; then their width is kept."""
    from jaxprot.train.config import load_experiment
    from jaxprot.weights import portable

    cfg = load_experiment(ROOT / "experiments" / "rmsfnet" / "default.py")
    model = dataclasses.replace(cfg.task.model, variant=variant)
    task = dataclasses.replace(cfg.task, train=str(folder / "train"), val=str(folder / "val"), model=model)
    if start is not None:
        width = portable.load(start)[1]["config"]["width"]
        task = dataclasses.replace(task, weights=str(start), model=dataclasses.replace(model, width=width))
    return dataclasses.replace(cfg, task=task)


def train(args: argparse.Namespace) -> None:
    """One run, resumed if the folder holds a checkpoint."""
    from jaxprot.train.loop import fit

    cfg = config(args.data, args.variant, args.start)
    if args.steps:
        cfg = dataclasses.replace(cfg, steps=args.steps)
    started = time.time()

    def report(record: dict[str, Any]) -> None:
        print(f"{time.time() - started:7.0f} s  " + " ".join(f"{k} {v:.4g}" for k, v in record.items()), flush=True)

    header = {"system": "rmsfnet", "config": dataclasses.asdict(cfg.task.model)}
    print(fit(cfg, args.run / args.variant, resume=True, header=header, report=report))


def widen(narrow: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a network of twice the width that computes the same (Net2Net, arXiv 1511.05641).

    Every channel is there twice, and a random share of what it gave goes out from each, so that the two learn apart.
    """
    import numpy as np

    from jaxprot.weights import portable

    tensors, header = portable.load(narrow)
    rng, out = np.random.default_rng(0), {}
    for name, value in tensors.items():
        if not name.startswith("head.final"):
            value = np.repeat(value, 2, axis=-1)
        if name.endswith("kernel") and not name.startswith("conv0_0.conv1"):
            share = rng.normal(0.5, 0.25, value.shape)
            value = np.stack([value * share, value * (1 - share)], axis=-2).reshape(
                *value.shape[:-2], -1, value.shape[-1]
            )
        out[name] = value.astype(np.float32)
    width = 2 * header["config"]["width"]
    portable.save(path, out, {**header, "config": {**header["config"], "width": width}})


def export(run: pathlib.Path, variant: str) -> None:
    """Writes the best weights of a variant, with the scale that gives ubiquitin the mean RMSF of the ensemble 2K39."""
    import re

    import numpy as np

    from jaxprot.io.outputs import sha256
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import compare, featurize, predict
    from jaxprot.rmsfnet.simulate import simulate_map
    from jaxprot.weights import portable

    tensors, header = portable.load(run / variant / "best.safetensors")
    flexibility = DATA / "flexibility"
    structure = featurize.drawn(read_structure(flexibility / "1ubi.pdb"), hydrogens=False)
    expected = compare.matched(structure, compare.read_reference(flexibility / "2k39_ca_rmsf.csv"))
    volume = None if variant == "pdb" else simulate_map(structure, 3.0, bfactors=True)
    # The entries lie on one grid of exactly 1.5 Å, and hold no hydrogens.
    told = {"geometry": "exact", "hydrogens": False, "views": VIEWS[variant]}
    header = {**header, "config": {**header["config"], **told}}
    meta = {**header, "experiment": "rmsfnet/default", "scale": [1.0, 0.0]}
    path = DEFAULT / ("rmsfnet.safetensors" if variant == "both" else f"rmsfnet-{variant}.safetensors")
    portable.save(path, tensors, meta)
    found = predict.load(path).predict(structure, volume)
    alpha = (structure.atom_name == "CA") & (structure.resid[structure.atom_residue] <= 70)
    rows = structure.atom_residue[alpha]
    keep = np.isfinite(found.rmsf[alpha]) & np.isfinite(expected[rows])
    scale = float(expected[rows][keep].mean() / found.rmsf[alpha][keep].mean())
    portable.save(path, tensors, {**meta, "scale": [scale, 0.0]})
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    line = f'file = "default/{path.name}"\n'
    known = re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?'
    registry.write_text(re.sub(known, line + f'sha256 = "{sha256(path)}"\n', registry.read_text()))
    size = path.stat().st_size / 1e6
    print(f"{path.name}: {size:.2f} MB, scale {scale:.3f}, step {header['step']}, {header['figures']}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["prepare", "widen", "train", "export"])
    parser.add_argument(
        "--data", type=pathlib.Path, default=ROOT / "runs" / "flexibility", help="folder of the entries"
    )
    parser.add_argument("--run", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--variant", choices=["both", "map", "pdb"], default="both")
    parser.add_argument("--start", type=pathlib.Path, help="weights to start from, for this variant or for one input")
    parser.add_argument("--wide", type=pathlib.Path, help="file for `widen` to write: a network of twice the width")
    parser.add_argument("--steps", type=int, help="instead of the experiment's")
    parser.add_argument("--simulated", type=pathlib.Path, help="folder of simulate_fluctuations.py, for prepare")
    parser.add_argument("--maps", type=pathlib.Path, help="folder of older entries whose maps serve again, for prepare")
    parser.add_argument("--limit", type=int, help="prepare only so many chains of each part")
    parser.add_argument("--reverse", action="store_true", help="prepare from the end, for a second process")
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    args = parser.parse_args()

    import jax

    from jaxprot.cli.options import compilation_cache, keep_memory

    keep_memory()

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if args.stage == "prepare":
        prepare(args.data, args.simulated, args.limit, args.reverse, args.maps)
    elif args.stage == "widen":
        if args.start is None or args.wide is None:
            parser.error("--start and --wide are needed")
        widen(args.start, args.wide)
    elif args.run is None:
        parser.error("--run is needed")
    elif args.stage == "train":
        train(args)
    else:
        export(args.run, args.variant)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train the shipped RMSF-nets: a stand-in for the published weights, from structures alone.

    python scripts/train_default_rmsfnet.py prepare --data runs/flexibility
    python scripts/train_default_rmsfnet.py train --data runs/flexibility --run runs/rmsfnet --variant both
    python scripts/train_default_rmsfnet.py export --data runs/flexibility --run runs/rmsfnet --variant both

There are no fluctuations of molecular dynamics to learn from here. The label of an atom joins its crystallographic B
factor with the fluctuation of its residue in a Gaussian network model, both as shares of the chain's mean:

    RMSF = 0.7 Å * sqrt(0.6 B / <B> + 0.4 GNM / <GNM>)

(GNM alone where B factors are not refined). The map of an entry is simulated at 2-4 Å from the chain in a random
orientation, each atom blurred by a random share of the B factor that its label stands for, with noise. `JAXPROT_DATA`
names the folder with `structures/`. `export` calibrates the scale on the ubiquitin ensemble 2K39 (`flexibility/`).
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
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))
DEFAULT = ROOT / "jaxprot" / "weights" / "default"
REFERENCE = 0.7  # Å: root mean square of the labels of a chain
SHARE = 0.6  # of the B factor in the label
LARGEST_B = 200.0  # Å²


def labels(structure: Any, refined: bool) -> Any:
    """RMSF label of every atom in Å."""
    import numpy as np

    from jaxprot.rmsfnet import baselines

    network = np.square(baselines.rmsf(structure, "gnm").astype(np.float64))
    network = np.where(np.isfinite(network), network, np.nanmean(network))
    network = np.minimum(network / network.mean(), 8.0)[structure.atom_residue]
    if not refined:
        return REFERENCE * np.sqrt(network)
    low, high = np.percentile(structure.bfactor, [0.5, 99.5])
    blur = np.clip(structure.bfactor.astype(np.float64), max(low, 1.0), high)
    return REFERENCE * np.sqrt(SHARE * blur / blur.mean() + (1 - SHARE) * network)


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
    """A map of 2-4 Å, blurred by the labels (Å), with noise."""
    import numpy as np
    from scipy import ndimage

    from jaxprot.rmsfnet.simulate import simulate_map

    low, high = structure.xyz.min(0) - 12.0, structure.xyz.max(0) + 12.0
    shifted = low - rng.uniform(0, 1.5, 3)
    blur = rng.uniform(0.2, 1.0) * 8 * np.pi**2 / 3 * rmsf**2 + rng.uniform(0, 40)
    blurred = structure.with_bfactor(np.minimum(blur, LARGEST_B - 1).astype(np.float32))
    grid = cubic(shifted, high, structure.name)
    volume = simulate_map(blurred, rng.uniform(2.0, 4.0), bfactors=True, on_grid=grid, max_bfactor=LARGEST_B)
    noise = ndimage.gaussian_filter(rng.normal(size=volume.shape), rng.uniform(0.4, 1.2))
    noise *= rng.uniform(0.0, 0.06) * volume.data.max() / noise.std()
    extent = np.ceil((high - shifted) / 1.5).astype(int)[::-1]
    keep = tuple(slice(0, n) for n in extent)
    return dataclasses.replace(volume, data=(volume.data + noise)[keep])


def simulated_entry(structure: Any, rmsf: Any, rng: Any) -> Any:
    """An entry of a structure with a simulated map."""
    from jaxprot.rmsfnet.data import make_entry
    from jaxprot.rmsfnet.simulate import simulate_map

    low, high = structure.xyz.min(0) - 12.0, structure.xyz.max(0) + 12.0
    model = simulate_map(structure, on_grid=cubic(low, high, structure.name))
    return make_entry(structure, rmsf, simulated_volume(structure, rmsf, rng), simulated=model)


def prepare(folder: pathlib.Path, limit: int | None) -> None:
    """Writes an entry for each chain; those that are there already are kept."""
    import numpy as np

    from jaxprot.core.errors import InputError
    from jaxprot.io.archives import read_chains
    from jaxprot.rmsfnet.data import write_entry

    started = time.time()
    for part in ("val", "train"):
        home = folder / part
        home.mkdir(parents=True, exist_ok=True)
        chains = read_chains(DATA / "structures" / f"{part}.npz")[:limit]
        for number, (structure, refined) in enumerate(chains):
            if (home / f"{structure.name}.npz").exists():
                continue
            rng = np.random.default_rng([number, part == "train"])
            try:
                rmsf = labels(structure, refined)
                write_entry(simulated_entry(moved(structure, rng), rmsf, rng), home)
            except InputError as error:
                print(f"left out: {error}")
            if number % 50 == 0:
                print(f"{time.time() - started:6.0f} s  {part} {number} of {len(chains)}", flush=True)


def config(folder: pathlib.Path, variant: str) -> Any:
    """The run of a variant."""
    from jaxprot.train.config import load_experiment

    cfg = load_experiment(ROOT / "experiments" / "rmsfnet" / "default.py")
    model = dataclasses.replace(cfg.task.model, variant=variant)
    task = dataclasses.replace(cfg.task, train=str(folder / "train"), val=str(folder / "val"), model=model)
    return dataclasses.replace(cfg, task=task)


def train(args: argparse.Namespace) -> None:
    """One run, resumed if the folder holds a checkpoint."""
    from jaxprot.train.loop import fit

    cfg = config(args.data, args.variant)
    if args.steps:
        cfg = dataclasses.replace(cfg, steps=args.steps)
    started = time.time()

    def report(record: dict[str, Any]) -> None:
        print(f"{time.time() - started:7.0f} s  " + " ".join(f"{k} {v:.4g}" for k, v in record.items()), flush=True)

    header = {"system": "rmsfnet", "config": dataclasses.asdict(cfg.task.model)}
    print(fit(cfg, args.run / args.variant, resume=True, header=header, report=report))


def export(run: pathlib.Path, variant: str) -> None:
    """Writes the best weights of a variant, with the scale that gives ubiquitin the mean RMSF of the ensemble 2K39."""
    import re

    import numpy as np

    from jaxprot.io.outputs import sha256
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import compare, predict
    from jaxprot.weights import portable

    tensors, header = portable.load(run / variant / "best.safetensors")
    flexibility = DATA / "flexibility"
    structure = read_structure(flexibility / "1ubi.pdb")
    expected = compare.matched(structure, compare.read_reference(flexibility / "2k39_ca_rmsf.csv"))
    volume = None
    if variant != "pdb":
        from jaxprot.rmsfnet.simulate import simulate_map

        volume = simulate_map(structure, 3.0, bfactors=True)
    found = predict.load(run / variant / "best.safetensors").predict(structure, volume)
    alpha = (structure.atom_name == "CA") & (structure.resid[structure.atom_residue] <= 70)
    rows = structure.atom_residue[alpha]
    keep = np.isfinite(found.rmsf[alpha]) & np.isfinite(expected[rows])
    scale = float(expected[rows][keep].mean() / found.rmsf[alpha][keep].mean())
    meta = {**header, "experiment": "rmsfnet/default", "scale": [scale, 0.0]}
    path = DEFAULT / ("rmsfnet.safetensors" if variant == "both" else f"rmsfnet-{variant}.safetensors")
    portable.save(path, tensors, meta)
    registry = ROOT / "jaxprot" / "weights" / "registry.toml"
    line = f'file = "default/{path.name}"\n'
    known = re.escape(line) + r'(sha256 = "[0-9a-f]*"\n)?'
    registry.write_text(re.sub(known, line + f'sha256 = "{sha256(path)}"\n', registry.read_text()))
    size = path.stat().st_size / 1e6
    print(f"{path.name}: {size:.2f} MB, scale {scale:.3f}, step {header['step']}, {header['figures']}")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["prepare", "train", "export"])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the entries")
    parser.add_argument("--run", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--variant", choices=["both", "map", "pdb"], default="both")
    parser.add_argument("--steps", type=int, help="instead of the experiment's")
    parser.add_argument("--limit", type=int, help="prepare only so many chains of each part")
    parser.add_argument("--cache", type=pathlib.Path, help="of compiled programs; default: in jaxprot's cache folder")
    args = parser.parse_args()

    import jax

    from jaxprot.cli.options import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(args.cache or compilation_cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if args.stage == "prepare":
        prepare(args.data, args.limit)
    elif args.run is None:
        parser.error("--run is needed")
    elif args.stage == "train":
        train(args)
    else:
        export(args.run, args.variant)
    return 0


if __name__ == "__main__":
    sys.exit(main())

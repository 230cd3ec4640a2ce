"""Train the shipped RMSF-nets: a stand-in for the published weights, from structures alone.

    python scripts/simulate_fluctuations.py --output runs/fluctuations
    python scripts/train_default_rmsfnet.py prepare --data runs/flexibility --simulated runs/fluctuations
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant pdb --steps 700
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant both --start PDB
    python scripts/train_default_rmsfnet.py train --run runs/rmsfnet --variant map --start PDB
    python scripts/train_default_rmsfnet.py export --run runs/rmsfnet --variant both          # and so on

with `--data runs/flexibility` for each, and PDB = runs/rmsfnet/pdb/best.safetensors: what maps have in common is learnt
once, from models alone. The card tells the steps of the shipped weights; they can be trained on (`--start`).

There is no all-atom molecular dynamics to learn from here. The label of an atom joins what is at hand, each part an
amplitude of root mean square 1 over the chain (values above twice the median count as that):

    RMSF = L * (0.3 B + 0.7 (N + 0.3 S) / norm)

B is the square root of the atom's crystallographic B factor, S the fluctuation of its residue in a structure-based
simulation (`scripts/simulate_fluctuations.py`, chains up to 300 residues), and N what packing and an elastic network
tell: P^2 + 0.3 A, each in units of its median in the chain. P is the mean of the inverse weighted contact number (sum
of inverse squared distances to all atoms) of the atom, the same of its residue and the two beside it, and the
fluctuation by the parameter-free Gaussian network; A is that by the anisotropic network. The square gives loose ends
their due. L is the chain's fluctuation in the simulation, in Å. Where a part is missing, the others fill its share.

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
DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))
DEFAULT = ROOT / "jaxprot" / "weights" / "default"
REFERENCE = 0.9  # Å: L of chains that were not simulated, about the median of the others
LEVELS = 0.6, 1.6  # Å: L is kept between them
SHARE_B, SHARE_SIMULATED, SHARE_ANISOTROPIC = 0.3, 0.3, 0.3  # of B in the label, of S beside N, of ANM in N
LARGEST = 8.0  # times its median in the chain, at most ...
COUNTED = 2.0  # ... of which this counts in the scale, so that a loose end does not make all others stiff
BLUR_LARGEST = 4.0  # times its median, at most, of a fluctuation that blurs a map
BLURRED = 0.7  # Å: root mean square of the fluctuation that blurs a map
UNIFORM = 0.25  # of the maps tell nothing of the fluctuations: all atoms are blurred alike
LARGEST_B = 200.0  # Å²
VIEWS = 1  # orientations over which predictions are averaged; more did not agree better with B factors


def amplitude(values: Any, largest: float = LARGEST, counted: float = COUNTED) -> Any:
    """Values in units of their root mean square, a missing one as the median, large ones cut (in medians)."""
    import numpy as np

    values = np.asarray(values, np.float64)
    middle = np.nanmedian(values)
    values = np.minimum(np.where(np.isfinite(values), values, middle), largest * middle)
    return values / np.sqrt(np.mean(np.minimum(values, counted * middle) ** 2))


def packing(structure: Any) -> Any:
    """(N,) fluctuation of every atom that its surroundings tell: loose where few atoms are near.

    Mean of the inverse weighted contact number of the atom (sum over all others of 1 / d², Lin et al., Proteins 2008,
    doi 10.1002/prot.21983), the same of its residue and those beside it, and the fluctuation
    of its residue by the parameter-free network, each in units of its median.
    """
    import numpy as np

    from jaxprot.rmsfnet import baselines

    xyz, residue, n = structure.xyz.astype(np.float64), structure.atom_residue, structure.n_residues
    atom = np.empty(len(xyz))
    for start in range(0, len(xyz), 512):
        squared = np.square(xyz[start : start + 512, None] - xyz[None]).sum(-1)
        atom[start : start + 512] = 1 / np.sum(1 / np.maximum(squared, 4.0), axis=1)
    of_residue = np.bincount(residue, atom, n) / np.maximum(np.bincount(residue, minlength=n), 1)
    beside = np.pad(of_residue, 1, mode="edge")
    of_residue = (beside[:-2] + beside[1:-1] + beside[2:]) / 3
    alpha = baselines.alpha_carbons(structure)
    network = np.full(n, np.nan)
    network[residue[alpha]] = np.sqrt(parameter_free(xyz[alpha]))
    network = np.where(np.isfinite(network), network, np.nanmedian(network))
    return sum(one / np.median(one) for one in (atom, of_residue[residue], network[residue])) / 3


def networks(structure: Any) -> list[Any]:
    """Amplitudes of residues by contacts alone: anisotropic and parameter-free network, contact numbers."""
    import numpy as np

    from jaxprot.rmsfnet import baselines

    atoms = baselines.alpha_carbons(structure)
    xyz = structure.xyz[atoms].astype(np.float64)
    found = [baselines.rmsf(structure, method) for method in ("anm", "contact")]
    for values in (np.sqrt(parameter_free(xyz)), 1 / np.sum(inverse_squares(xyz), axis=1)):
        whole = np.full(structure.n_residues, np.nan)
        whole[structure.atom_residue[atoms]] = values
        found.append(whole)
    return [amplitude(values, BLUR_LARGEST, BLUR_LARGEST) for values in found]


def refined_amplitude(structure: Any) -> Any:
    """Square roots of the B factors of atoms, root mean square 1, extremes cut."""
    import numpy as np

    low, high = np.percentile(structure.bfactor, [0.5, 99.5])
    root = np.sqrt(np.clip(structure.bfactor.astype(np.float64), max(low, 1.0), high))
    return root / np.sqrt(np.mean(root**2))


def labels(structure: Any, refined: bool, simulated: Any = None) -> Any:
    """RMSF label of every atom in Å.

    Args:
      structure: a chain.
      refined: whether its B factors count.
      simulated: (R,) RMSF of its residues in Å in a simulation, if there is one.
    """
    import numpy as np

    from jaxprot.rmsfnet import baselines

    anisotropic = baselines.rmsf(structure, "anm")
    anisotropic = np.nan_to_num(anisotropic / np.nanmedian(anisotropic), nan=1.0)[structure.atom_residue]
    moves = amplitude(packing(structure) ** 2 + SHARE_ANISOTROPIC * np.minimum(anisotropic, LARGEST))
    level = REFERENCE
    if simulated is not None and np.isfinite(simulated).any():
        cut = np.minimum(simulated.astype(np.float64), COUNTED * np.nanmedian(simulated))
        level = float(np.clip(np.sqrt(np.nanmean(cut**2)), *LEVELS))
        moves = amplitude(moves + SHARE_SIMULATED * amplitude(simulated)[structure.atom_residue])
    return level * (SHARE_B * refined_amplitude(structure) + (1 - SHARE_B) * moves if refined else moves)


def blurring(structure: Any, refined: bool) -> Any:
    """Fluctuation of every atom in Å of which a share blurs its density: what B factors and networks tell."""
    import numpy as np

    squared = sum(np.square(one) for one in networks(structure)[:3])[structure.atom_residue] / 3
    if refined:
        squared = (squared + np.square(refined_amplitude(structure))) / 2
    return BLURRED * np.sqrt(squared)


def inverse_squares(xyz: Any) -> Any:
    """(n, n) inverse squared distances of (n, 3) points in 1/Å², 0 for a point and itself."""
    import numpy as np

    return 1 / (np.maximum(np.square(xyz[:, None] - xyz[None]).sum(-1), 1.0) + np.diag(np.full(len(xyz), np.inf)))


def parameter_free(xyz: Any) -> Any:
    """Mean squared fluctuations of the parameter-free Gaussian network: all pairs of residues are joined by springs.

    Their constants fall with the squared distance (Yang, Song & Jernigan, PNAS 2009, doi 10.1073/pnas.0902159106).

    Args:
      xyz: (n, 3) alpha carbons in Å.

    Returns:
      (n,) in arbitrary units.
    """
    import numpy as np

    n, springs = len(xyz), inverse_squares(xyz)
    return np.diag(np.linalg.inv(np.diag(springs.sum(1)) - springs + 1 / n)) - 1 / n


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
    from jaxprot.rmsfnet.simulate import simulate_map

    low, high = structure.xyz.min(0) - 12.0, structure.xyz.max(0) + 12.0
    model = simulate_map(structure, on_grid=cubic(low, high, structure.name))
    return make_entry(structure, rmsf, simulated_volume(structure, blur, rng), simulated=model, geometry="exact")


def fluctuations(folder: pathlib.Path | None, part: str) -> dict[str, Any]:
    """RMSF of residues by name of the chain, from `simulate_fluctuations.py`."""
    import numpy as np

    if folder is None:
        return {}
    with np.load(folder / f"{part}.npz") as archive:
        return {name: archive[name] for name in archive.files}


def relabelled(path: pathlib.Path, structure: Any, rmsf: Any) -> Any:
    """The entry in a file with other labels (Å, by atom)."""
    import numpy as np

    from jaxprot.core.volume import Volume
    from jaxprot.rmsfnet.data import read_entry, targets

    entry = read_entry(path)
    grid = Volume(entry.map, np.full(3, 1.5), entry.origin, entry.name)
    voxels, target = targets(structure, rmsf, grid)
    return entry._replace(map=entry.map.astype(np.float32), voxels=voxels, target=target)


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

    constants = (
        "REFERENCE",
        "LEVELS",
        "SHARE_B",
        "SHARE_SIMULATED",
        "SHARE_ANISOTROPIC",
        "LARGEST",
        "COUNTED",
        "BLURRED",
    )
    settings = {name: globals()[name] for name in (*constants, "UNIFORM")}
    keep_settings(folder, settings | {"simulated": simulations is not None})
    started = time.time()
    for part in ("val", "train"):
        home = folder / part
        (home / "models").mkdir(parents=True, exist_ok=True)
        chains, simulated = read_chains(DATA / "structures" / f"{part}.npz")[:limit], fluctuations(simulations, part)
        for number, (structure, refined) in list(enumerate(chains))[:: -1 if reverse else 1]:
            if (home / f"{structure.name}.npz").exists():
                continue
            rng = np.random.default_rng([number, part == "train"])
            try:
                rmsf = labels(structure, refined, simulated.get(structure.name))
                turned = moved(structure, rng)
                if maps is None:
                    entry = simulated_entry(turned, rmsf, blurring(structure, refined), rng)
                else:
                    entry = relabelled(maps / part / f"{structure.name}.npz", turned, rmsf)
                write_structure(turned, home / "models" / f"{structure.name}.pdb")
                write_entry(entry, home)
            except InputError as error:
                print(f"left out: {error}")
            if number % 50 == 0:
                print(f"{time.time() - started:6.0f} s  {part} {number} of {len(chains)}", flush=True)


def config(folder: pathlib.Path, variant: str, start: pathlib.Path | None = None) -> Any:
    """The run of a variant; one that starts from weights takes smaller steps."""
    from jaxprot.train.config import load_experiment

    cfg = load_experiment(ROOT / "experiments" / "rmsfnet" / "default.py")
    model = dataclasses.replace(cfg.task.model, variant=variant)
    task = dataclasses.replace(cfg.task, train=str(folder / "train"), val=str(folder / "val"), model=model)
    if start is None:
        return dataclasses.replace(cfg, task=task)
    task = dataclasses.replace(task, weights=str(start))
    return dataclasses.replace(cfg, task=task, optim=dataclasses.replace(cfg.optim, lr=2e-3))


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


def export(run: pathlib.Path, variant: str) -> None:
    """Writes the best weights of a variant, with the scale that gives ubiquitin the mean RMSF of the ensemble 2K39."""
    import re

    import numpy as np

    from jaxprot.io.outputs import sha256
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import compare, predict
    from jaxprot.rmsfnet.simulate import simulate_map
    from jaxprot.weights import portable

    tensors, header = portable.load(run / variant / "best.safetensors")
    flexibility = DATA / "flexibility"
    structure = read_structure(flexibility / "1ubi.pdb")
    expected = compare.matched(structure, compare.read_reference(flexibility / "2k39_ca_rmsf.csv"))
    volume = None if variant == "pdb" else simulate_map(structure, 3.0, bfactors=True)
    # The entries lie on one grid of exactly 1.5 Å, and hold no hydrogens.
    header = {**header, "config": {**header["config"], "geometry": "exact", "hydrogens": False, "views": VIEWS}}
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
    parser.add_argument("stage", choices=["prepare", "train", "export"])
    parser.add_argument(
        "--data", type=pathlib.Path, default=ROOT / "runs" / "flexibility", help="folder of the entries"
    )
    parser.add_argument("--run", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--variant", choices=["both", "map", "pdb"], default="both")
    parser.add_argument("--start", type=pathlib.Path, help="weights to start from, for this variant or for one input")
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
    elif args.run is None:
        parser.error("--run is needed")
    elif args.stage == "train":
        train(args)
    else:
        export(args.run, args.variant)
    return 0


if __name__ == "__main__":
    sys.exit(main())

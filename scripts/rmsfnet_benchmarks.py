"""Accuracy of RMSF-net's shipped weights and of the methods without training.

    python scripts/rmsfnet_benchmarks.py --output runs/rmsfnet-benchmarks

Validation chains with refined B factors: per chain the Pearson correlation of alpha carbons' values with sqrt(B), for
the network that reads map and model, its variants for one of them, and ANM, GNM and contact number. The maps are made
as in training: blurred by a random share of what B factors and elastic networks tell, so they tell something of the B
factors, as experimental maps do. The fair comparison with methods that see the model alone is the variant `pdb`, and
the rows `even map`: the same networks with maps in which all atoms are equally sharp. Ubiquitin: against the RMSF of
the ensemble 2K39, with a map at 3 Å blurred by the crystal's B factors, and an even one, both without waters.
`JAXPROT_DATA` names the folder with `structures/` and `flexibility/`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import runpy
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
METHODS = ("gnm", "anm", "contact")
EVEN = "even map"
LABELS = {"rmsfnet": "map and model", "rmsfnet:map": "map", "rmsfnet:pdb": "model"}


def predictors(names: list[str]) -> dict[str, Any]:
    """Predictor of each registered name or file, as far as there are such."""
    from jaxprot.core.errors import JaxprotError
    from jaxprot.rmsfnet import predict
    from jaxprot.weights import registry

    out = {}
    for name in names:
        try:
            path, _ = registry.resolve(name, "rmsfnet")
        except JaxprotError as error:
            print(f"{name} left out: {error}")
            continue
        out[name] = predict.load(path)
    return out


def values(structure: Any, volume: Any, even: Any, networks: dict[str, Any]) -> dict[str, np.ndarray]:
    """Value of the alpha carbon of each residue by every method; those for both also with an even map."""
    from jaxprot.rmsfnet import baselines

    alpha = structure.atom_name == "CA"
    out = {}
    for name, predictor in networks.items():
        variant = predictor.config.variant
        maps = {name: None if variant == "pdb" else volume}
        if variant != "pdb":
            maps[f"{name}, {EVEN}"] = even
        for row, one in maps.items():
            found = predictor.predict(structure, one)
            out[row] = np.full(structure.n_residues, np.nan)
            out[row][structure.atom_residue[alpha]] = found.rmsf[alpha]
    for method in METHODS:
        out[method] = baselines.rmsf(structure, method)
    return out


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation over residues that both have."""
    from jaxprot.core import metrics

    both = np.isfinite(a) & np.isfinite(b)
    return float(metrics.pearson(a[both], b[both])) if both.sum() > 2 else float("nan")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=list(LABELS), help="names or files")
    parser.add_argument("--limit", type=int, help="only so many chains")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for benchmarks.json")
    args = parser.parse_args(argv)

    import jax

    from jaxprot.cli.options import compilation_cache
    from jaxprot.io.archives import read_chains
    from jaxprot.io.outputs import write_json
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import compare, featurize
    from jaxprot.rmsfnet.simulate import simulate_map

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    training = runpy.run_path(str(ROOT / "scripts" / "train_default_rmsfnet.py"))
    data, networks = training["DATA"], predictors(args.weights)
    rows: dict[str, list[float]] = {}
    chains = [chain for chain in read_chains(data / "structures" / "val.npz") if chain.has_bfactor][: args.limit]
    for number, (structure, refined) in enumerate(chains):
        rng = np.random.default_rng([number, 2])
        turned = training["moved"](structure, rng)
        volume = training["simulated_volume"](turned, training["rmsfnet_labels"].blurring(structure, refined), rng)
        even = simulate_map(turned, 3.0, on_grid=volume)
        target = np.full(structure.n_residues, np.nan)
        alpha = structure.atom_name == "CA"
        target[structure.atom_residue[alpha]] = np.sqrt(structure.bfactor[alpha])
        for name, found in values(turned, volume, even, networks).items():
            rows.setdefault(name, []).append(pearson(found, target))
    structure = featurize.drawn(read_structure(data / "flexibility" / "1ubi.pdb"), hydrogens=False)
    reference = compare.matched(structure, compare.read_reference(data / "flexibility" / "2k39_ca_rmsf.csv"))
    blurred = simulate_map(structure, 3.0, bfactors=True)
    ubiquitin = values(structure, blurred, simulate_map(structure, 3.0), networks)
    body = structure.resid <= 70
    report: dict[str, Any] = {"chains": len(chains), "methods": {}}
    print(f"| method | reads | r with sqrt(B), {len(chains)} val chains (mean, sd) | 2K39 all | 2K39 residues 1-70 |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        whole = pearson(ubiquitin[name], reference)
        part = pearson(np.where(body, ubiquitin[name], np.nan), reference)
        mean, spread = float(np.nanmean(found)), float(np.nanstd(found))
        report["methods"][name] = {"bfactor": mean, "sd": spread, "2k39": whole, "2k39_1_70": part, "each": found}
        reads = LABELS.get(name.removesuffix(f", {EVEN}"), "model")
        print(f"| {name} | {reads} | {mean:.3f} ({spread:.3f}) | {whole:.3f} | {part:.3f} |")
    write_json(args.output / "benchmarks.json", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

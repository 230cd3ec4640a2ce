"""Labels of flexibility from structures alone, for the shipped RMSF-nets; running it fits their weights of packing.

    python scripts/rmsfnet_labels.py --simulated runs/fluctuations

prints `WEIGHTS` and `OFFSET` as they stand below, and how T agrees with B factors of chains that were not fitted.
`JAXPROT_DATA` names the folder with `structures/` and `flexibility/`.

There is no all-atom molecular dynamics to learn from here. The label of an atom joins what is at hand:

    RMSF = 0.65 T + T₀ (0.25 B + 0.1 S)

T is what packing tells: exp(0.6 q), where q is a weighted sum of logarithms of `features` that look at densities of
atoms, so that the same surroundings give the same T in every protein. The weights are those of a ridge regression of
log(B) of backbone atoms within chains on the features (training chains with refined B factors, each chain's log(B)
with a standard deviation of 1). T₀ is the root mean square of T over the chain, B the square root of the atom's
crystallographic B factor, S the fluctuation of its residue in a structure-based simulation
(`scripts/simulate_fluctuations.py`, chains up to 300 residues), both with a root mean square of 1 over the chain.
Where one is missing, T fills its share. `OFFSET` gives T the level of the simulations, in Å.
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

from jaxprot.core.errors import InputError  # noqa: E402

DATA = pathlib.Path(os.environ.get("JAXPROT_DATA", ROOT.parent / "shared" / "data"))
SHARE_B, SHARE_SIMULATED = 0.25, 0.1  # of B factors and of the simulation in a label
STEEPNESS = 0.6  # of T: more agrees better with the loose end of 2K39, less with B factors of validation chains
BACKBONE = "N", "CA", "C", "O"  # atoms that the weights are fitted on
NEAR, FAR = 3.5, 8.0  # Å: widths of the Gaussians that atoms are counted with
REACH = 10.0  # Å: width of the Gaussian in which the centre of the surroundings is taken
RIDGE = 0.03  # of the variance of each feature
KINDS = ("1/d²", "near", "far", "distance from the centre")
AVERAGES = (0.0, 2.0, 4.0)  # Å: widths of the Gaussians in which neighbours' values are averaged
# (kind, average) of log features, and the level; printed by this script.
WEIGHTS = np.array(
    [[-0.564, -0.976, -0.798], [0.064, -0.909, -1.24], [0.381, 0.058, 0.397], [-0.176, 0.091, 0.613]],
)
OFFSET = 3.729
LARGEST = 8.0  # times its median in the chain, at most ...
COUNTED = 2.0  # ... of which this counts in the scale, so that a loose end does not make all others stiff
BLUR_LARGEST = 4.0  # times its median, at most, of a fluctuation that blurs a map
BLURRED = 0.7  # Å: root mean square of the fluctuation that blurs a map


def features(structure: Any) -> np.ndarray:
    """(N, 4, 3) logarithms of what surrounds each atom, by `KINDS` and `AVERAGES`.

    The inverse weighted contact number (sum over all atoms of 1 / d², Lin et al., Proteins 2008, doi
    10.1002/prot.21983), the atoms near and far, counted with Gaussians, and the distance from the mean of all atoms
    weighted by a Gaussian; each of the atom itself, and the mean over atoms weighted by Gaussians around it.
    """
    xyz = (structure.xyz - structure.xyz.mean(0)).astype(np.float32)
    length = np.square(xyz).sum(1)
    rows = [slice(start, start + 512) for start in range(0, len(xyz), 512)]

    def squared(part: slice) -> np.ndarray:
        return length[part, None] + length[None] - 2 * xyz[part] @ xyz.T

    def gaussian(distances: np.ndarray, width: float) -> np.ndarray:
        return np.exp(distances * np.float32(-0.5 / width**2))

    found = np.empty((4, len(xyz)), np.float32)
    for part in rows:
        distances = squared(part)
        found[0, part] = np.sum(1 / np.maximum(distances, 4.0), axis=1) - 0.25
        found[1, part] = gaussian(distances, NEAR).sum(1)
        found[2, part] = gaussian(distances, FAR).sum(1)
        share = gaussian(distances, REACH)
        found[3, part] = np.linalg.norm(xyz[part] - share @ xyz / share.sum(1)[:, None], axis=1)
    found = np.log(np.maximum(found, 0.3))
    out = np.empty((len(xyz), len(KINDS), len(AVERAGES)))
    out[..., 0] = found.T
    for part in rows:
        distances = squared(part)
        for place, width in enumerate(AVERAGES[1:], 1):
            share = gaussian(distances, width)
            out[part, :, place] = share @ found.T / share.sum(1)[:, None]
    return out


def packing(structure: Any) -> np.ndarray:
    """(N,) fluctuation of every atom in Å that its surroundings tell: loose where few atoms are near."""
    return np.exp(STEEPNESS * (features(structure).reshape(-1, WEIGHTS.size) @ WEIGHTS.ravel()) + OFFSET)


def amplitude(values: Any, largest: float = LARGEST, counted: float = COUNTED) -> np.ndarray:
    """Values in units of their root mean square, a missing one as the median, large ones cut (in medians)."""
    values = np.asarray(values, np.float64)
    middle = np.nanmedian(values)
    values = np.minimum(np.where(np.isfinite(values), values, middle), largest * middle)
    return values / np.sqrt(np.mean(np.minimum(values, counted * middle) ** 2))


def refined_amplitude(structure: Any) -> np.ndarray:
    """Square roots of the B factors of atoms, root mean square 1, extremes cut."""
    low, high = np.percentile(structure.bfactor, [0.5, 99.5])
    root = np.sqrt(np.clip(structure.bfactor.astype(np.float64), max(low, 1.0), high))
    return root / np.sqrt(np.mean(root**2))


def labels(structure: Any, refined: bool, simulated: Any = None) -> np.ndarray:
    """RMSF label of every atom in Å.

    Args:
      structure: a chain.
      refined: whether its B factors count.
      simulated: (R,) RMSF of its residues in Å in a simulation, if there is one.
    """
    found = packing(structure)
    level, rest, others = np.sqrt(np.mean(found**2)), 1.0, np.zeros(len(found))
    if refined:
        others, rest = others + SHARE_B * refined_amplitude(structure), rest - SHARE_B
    if simulated is not None and np.isfinite(simulated).any():
        others, rest = others + SHARE_SIMULATED * amplitude(simulated)[structure.atom_residue], rest - SHARE_SIMULATED
    return rest * found + level * others


def blurring(structure: Any, refined: bool) -> np.ndarray:
    """Fluctuation of every atom in Å of which a share blurs its density: what B factors and networks tell."""
    from jaxprot.rmsfnet import baselines

    atoms = baselines.alpha_carbons(structure)
    xyz = structure.xyz[atoms].astype(np.float64)
    found = [baselines.rmsf(structure, method) for method in ("anm", "contact")]
    found.append(np.full(structure.n_residues, np.nan))
    found[-1][structure.atom_residue[atoms]] = np.sqrt(parameter_free(xyz))
    squared = sum(np.square(amplitude(values, BLUR_LARGEST, BLUR_LARGEST)) for values in found) / len(found)
    squared = squared[structure.atom_residue]
    if refined:
        squared = (squared + np.square(refined_amplitude(structure))) / 2
    return BLURRED * np.sqrt(squared)


def parameter_free(xyz: np.ndarray) -> np.ndarray:
    """Mean squared fluctuations of the parameter-free Gaussian network: all pairs of residues are joined by springs.

    Their constants fall with the squared distance (Yang, Song & Jernigan, PNAS 2009, doi 10.1073/pnas.0902159106).

    Args:
      xyz: (n, 3) alpha carbons in Å.

    Returns:
      (n,) in arbitrary units.
    """
    n = len(xyz)
    springs = 1 / (np.maximum(np.square(xyz[:, None] - xyz[None]).sum(-1), 1.0) + np.diag(np.full(n, np.inf)))
    return np.diag(np.linalg.inv(np.diag(springs.sum(1)) - springs + 1 / n)) - 1 / n


def fluctuations(folder: pathlib.Path | None, part: str) -> dict[str, np.ndarray]:
    """RMSF of residues by name of the chain, from `simulate_fluctuations.py`."""
    if folder is None:
        return {}
    with np.load(folder / f"{part}.npz") as archive:
        return {name: archive[name] for name in archive.files}


def fitted(chains: list[Any], simulated: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """(4, 3) weights and the level of T, from chains with B factors and simulations.

    Every chain counts with the root of its number of atoms.
    """
    square, product = np.zeros((WEIGHTS.size,) * 2), np.zeros(WEIGHTS.size)
    means, levels = [], []
    for structure, refined in chains:
        if not refined and structure.name not in simulated:
            continue
        rows = features(structure).reshape(-1, WEIGHTS.size)
        moves = simulated.get(structure.name)
        if moves is not None and np.isfinite(moves).any():
            means.append(rows.mean(0))
            cut = np.minimum(moves.astype(np.float64), COUNTED * np.nanmedian(moves))
            levels.append(np.log(np.nanmean(cut)))
        if refined:
            backbone = np.isin(structure.atom_name, BACKBONE)
            seen = np.log(np.clip(structure.bfactor[backbone].astype(np.float64), 1.0, None))
            seen = (seen - seen.mean()) / max(seen.std(), 1e-3)
            rows = rows[backbone] - rows[backbone].mean(0)
            square += rows.T @ rows / np.sqrt(len(rows))
            product += rows.T @ seen / np.sqrt(len(rows))
    if not levels or not product.any():
        raise InputError("no chain has a simulation, or none has refined B factors")
    weights = np.linalg.solve(square + RIDGE * np.diag(np.diag(square)), product)
    offset = float(np.mean(levels) - STEEPNESS * np.mean(means, axis=0) @ weights)
    return weights.reshape(WEIGHTS.shape), offset


def main(argv: list[str] | None = None) -> int:
    """Fits the weights and prints them, and how well labels agree with what they were not fitted on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=pathlib.Path, required=True, help="folder of simulate_fluctuations.py")
    parser.add_argument("--limit", type=int, help="only so many chains of each part")
    args = parser.parse_args(argv)

    from jaxprot.core import metrics
    from jaxprot.io.archives import read_chains
    from jaxprot.io.structures import read_structure
    from jaxprot.rmsfnet import compare, featurize

    global WEIGHTS, OFFSET
    chains = read_chains(DATA / "structures" / "train.npz")[: args.limit]
    WEIGHTS, OFFSET = fitted(chains, fluctuations(args.simulated, "train"))
    print("WEIGHTS =", np.round(WEIGHTS, 3).tolist(), f"\nOFFSET = {OFFSET:.3f}")
    found = []
    for structure, refined in read_chains(DATA / "structures" / "val.npz")[: args.limit]:
        alpha = structure.atom_name == "CA"
        if refined:
            found.append(metrics.pearson(packing(structure)[alpha], np.sqrt(structure.bfactor[alpha])))
    print(f"sqrt(B) of {len(found)} validation chains: mean Pearson r of packing {np.mean(found):.3f}")
    structure = featurize.drawn(read_structure(DATA / "flexibility" / "1ubi.pdb"), hydrogens=False)
    expected = compare.matched(structure, compare.read_reference(DATA / "flexibility" / "2k39_ca_rmsf.csv"))
    alpha = structure.atom_name == "CA"
    residues = structure.atom_residue[alpha]
    values, true = packing(structure)[alpha], expected[residues]
    known, body = np.isfinite(true), structure.resid[residues] <= 70
    for name, part in (("all", known), ("1-70", known & body)):
        print(f"2K39, {name}: r {metrics.pearson(values[part], true[part]):.3f}, mean {values[part].mean():.2f} Å")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

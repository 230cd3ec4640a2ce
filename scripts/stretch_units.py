"""Conformations with hydrogens drawn along their bonds, to be labelled by `prepare_units.py`.

    python scripts/stretch_units.py data/units --count 240 --output data/drawn
    python scripts/stretch_units.py data/units --on O,S --count 600 --seed 1 --output data/drawn
    python scripts/prepare_units.py --label data/drawn/*.npz --output data/stretched

Dynamics at a few hundred kelvin never stretches a bond far, so a potential trained on it alone knows no wall there: the
first default pushed the hydrogen of a hydroxyl away from 1.2 Å on, and a threonine's went over to an aspartate next to
it. Here one or two hydrogens of a conformation, those on N, O and S first, are put at 0.8 to 1.9 times their distance
and a little aside; `--on` takes those of some elements alone, in the units that have them, as each hydroxyl is one
hydrogen among many. Files keep the names of their unit, `<unit>_drawn<seed>.npz`, with Z, R, charge, atom_name and
residue_name.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import pathlib
import sys
import zlib
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
LENGTHS, ASIDE = (0.8, 1.9), 0.08  # times the distance, Å
POLAR, SECOND = 0.6, 0.25  # how often a hydrogen of N, O or S is drawn, and a second one as well


def drawn(z: np.ndarray, xyz: np.ndarray, rng: np.random.Generator, on: tuple[int, ...] = ()) -> np.ndarray | None:
    """(A, 3) positions with one or two hydrogens moved; None if there is none to move.

    Args:
      z: (A,) atomic numbers.
      xyz: (A, 3) Å.
      rng: chooses.
      on: atomic numbers of what the first hydrogen is bonded to; any by default.
    """
    from jaxprot.md import molecule

    pairs = molecule.bonds(z, xyz)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = pairs[(z[pairs[:, 1]] == 1) & (z[pairs[:, 0]] > 1)]
    polar = z[pairs[:, 0]] != 6
    out = np.array(xyz, np.float64)
    for number in range(1 + (rng.random() < SECOND)):
        if on and number == 0:
            among = pairs[np.isin(z[pairs[:, 0]], on)]
        else:
            among = pairs[polar if polar.any() and rng.random() < POLAR else ~polar]
        if not len(among):
            return None
        heavy, hydrogen = among[rng.integers(len(among))]
        step = (xyz[hydrogen] - xyz[heavy]) * rng.uniform(*LENGTHS) + rng.normal(size=3) * ASIDE
        out[hydrogen] = xyz[heavy] + step
    return out


def read(path: pathlib.Path) -> dict[str, Any]:
    """Arrays of a file of a unit."""
    raw = path.read_bytes()
    with np.load(io.BytesIO(lzma.decompress(raw) if path.suffix == ".xz" else raw), allow_pickle=False) as file:
        return {key: file[key] for key in ("Z", "R", "charge", "atom_name", "residue_name")}


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="with .npz or .npz.xz files of units")
    parser.add_argument("--count", type=int, default=240, help="conformations of each unit")
    parser.add_argument("--on", default="", help="elements that hydrogens are drawn from, with commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder")
    args = parser.parse_args(argv)

    from jaxprot.core.residues import atomic_numbers
    from jaxprot.io.outputs import atomic_path

    on = tuple(int(n) for n in atomic_numbers(np.array([e.strip().upper() for e in args.on.split(",") if e.strip()])))
    if 0 in on:
        parser.error(f"--on {args.on}: symbols of elements, such as O,S")
    units: dict[str, pathlib.Path] = {}
    for path in sorted([*args.folder.glob("*.npz"), *args.folder.glob("*.npz.xz")]):
        name = path.name.partition(".")[0].partition("_")[0]
        if name not in units or path.stat().st_size > units[name].stat().st_size:
            units[name] = path  # the file with most conformations
    if not units:
        parser.error(f"{args.folder}: no .npz or .npz.xz files")
    args.output.mkdir(parents=True, exist_ok=True)
    for name, path in units.items():
        given = read(path)
        rng = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
        rows = rng.permutation(len(given["R"]))[: args.count]
        places = [drawn(given["Z"], given["R"][row].astype(np.float64), rng, on) for row in rows]
        if places[0] is None:
            continue
        made = np.stack(places)
        made = (made - made.mean(1, keepdims=True)).astype(np.float32)
        target = args.output / f"{name}_drawn{args.seed}.npz"
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{**given, "R": made})
        print(f"{target}: {len(made)} conformations")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What an analysis of heterogeneity writes."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from jaxprot.core.structure import Structure
from jaxprot.cryostar.gmm import Beads
from jaxprot.io.structures import write_structure

MOST_ATOMS = 9999
"""Beads that are written to a PDB file; more (or more than 62 chains) go to mmCIF."""

MOST_CHAINS = 62


def models_of(frames: np.ndarray, beads: Beads, values: np.ndarray | None = None) -> Structure:
    """Conformations as models of one structure, of one atom per residue.

    Args:
      frames: (M, N, 3) Å.
      beads: the N residues.
      values: (N,) or (M, N) for the B-factor column; None for 0.
    """
    frames = np.asarray(frames, np.float32)
    n_models, n = frames.shape[:2]
    if frames.shape[1:] != (len(beads), 3):
        raise ValueError(f"conformations of shape {frames.shape}, expected (models, {len(beads)}, 3)")
    starts = np.flatnonzero(np.r_[True, beads.chain[1:] != beads.chain[:-1]])
    chain_of = np.searchsorted(starts, np.arange(n), side="right") - 1
    steps = np.repeat(np.arange(n_models), n)
    bfactor = np.broadcast_to(np.zeros(n, np.float32) if values is None else values, (n_models, n))
    return Structure(
        name=beads.name,
        xyz=frames.reshape(-1, 3),
        atom_name=np.tile(beads.atom_name.astype("U4"), n_models),
        element=np.full(n_models * n, "C", "U2"),
        altloc=np.full(n_models * n, "", "U1"),
        occupancy=np.ones(n_models * n, np.float32),
        bfactor=np.asarray(bfactor, np.float32).ravel(),
        serial=np.tile(np.arange(1, n + 1, dtype=np.int32), n_models),
        model=(steps + 1).astype(np.int32),
        atom_residue=np.arange(n_models * n, dtype=np.int32),
        res_name=np.tile(beads.res_name, n_models),
        resid=np.tile(beads.resid.astype(np.int32), n_models),
        icode=np.tile(beads.icode, n_models),
        hetero=np.zeros(n_models * n, bool),
        res_chain=(np.tile(chain_of, n_models) + steps * len(starts)).astype(np.int32),
        chain_id=np.tile(beads.chain[starts].astype("U8"), n_models),
    )


def write_models(
    frames: np.ndarray, beads: Beads, path: str | os.PathLike, values: np.ndarray | None = None
) -> pathlib.Path:
    """Writes conformations as the models of a PDB file, or of an mmCIF file where a PDB file cannot hold them.

    Args:
      frames: (M, N, 3) Å.
      beads: the N residues.
      path: target ending in `.pdb` or `.cif`.
      values: (N,) or (M, N) for the B-factor column; None for 0.

    Returns:
      The path written to, ending in `.cif` where the model has more than 9999 beads or 62 chains, longer names,
      or numbers or coordinates beyond the columns.
    """
    path = pathlib.Path(path)
    structure = models_of(frames, beads, values)
    if path.suffix == ".pdb" and not _fits_pdb(beads, structure.xyz):
        path = path.with_suffix(".cif")
    write_structure(structure, path)
    return path


def _fits_pdb(beads: Beads, xyz: np.ndarray) -> bool:
    chains = np.unique(beads.chain)
    few = len(beads) <= MOST_ATOMS and len(chains) <= MOST_CHAINS
    names = all(len(name) <= 1 for name in chains) and all(len(name) <= 3 for name in np.unique(beads.res_name))
    numbers = beads.resid.min() > -1000 and beads.resid.max() < 10_000
    places = np.isfinite(xyz).all() and xyz.min() > -1000 and xyz.max() < 10_000
    return bool(few and names and numbers and places)

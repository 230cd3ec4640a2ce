"""Fluctuations from molecules in many places: simulations, NMR ensembles, multi-model files.

Frames are superposed on their mean structure, which is found by repeated superposition; the fluctuation of an atom is
the root of its mean squared distance from its mean place (population mean, as the published targets).
"""

import logging
from typing import Literal

import jax
import numpy as np

from jaxprot.core import residues
from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.trajectories import Trajectory
from jaxprot.ops import rigid

log = logging.getLogger(__name__)

Fit = Literal["heavy", "ca"]
Key = tuple[bool, str, int, str]
MOST_OTHER = 0.1
"""Share of matched residues that may be of another type (mutations, tags)."""

_ROUNDS = 10  # of superposition on the mean; ensembles change by less than 1e-4 Å after four
_BOND, _BROKEN = 4.6, 12.0  # Å between neighbouring alpha carbons in the topology, and what no chain reaches
_ENDS = {"O": ("OT1", "O1"), "OXT": ("OT2", "O2")}  # CHARMM, GROMACS
_MOST_ATOMS = 20_000  # atoms whose superposition is needed; more than these add nothing


def atom_rmsf(trajectory: Trajectory, fit: Fit | np.ndarray = "heavy", *, rounds: int = _ROUNDS) -> np.ndarray:
    """Root mean squared fluctuation of every atom around its mean place.

    Args:
      trajectory: at least two frames, with whole molecules.
      fit: atoms to superpose: `"heavy"`, all protein atoms but hydrogens (all heavy atoms where there is no protein),
        `"ca"`, alpha carbons, or a mask (N,).
      rounds: superpositions on the mean structure.

    Returns:
      (N,) float32 in Å, for every atom of the trajectory.

    Raises:
      InputError: fewer than two frames, fewer than three atoms to superpose, or a chain that is torn apart by periodic
        boundaries.
    """
    structure = trajectory.structure
    if trajectory.n_frames < 2:
        raise InputError(f"{structure.name}: {trajectory.n_frames} frame; fluctuations need at least 2")
    mask = fit_mask(structure, fit)
    if mask.sum() < 3:
        raise InputError(
            f"{structure.name}: {int(mask.sum())} atoms to superpose (fit {fit if isinstance(fit, str) else 'mask'}); "
            "at least 3 are needed"
        )
    _check_whole(trajectory)
    frames = trajectory.frames
    # Numbers near 0 keep the digits that float32 has: coordinates may lie hundreds of Å from the origin.
    frames = frames - frames[:, mask].mean(1, dtype=np.float64)[:, None].astype(np.float32)
    rotations = np.asarray(_rotations(frames[:, mask], rounds))
    return _spread(frames, rotations, mask)


def residue_rmsf(structure: Structure, atom_values: np.ndarray, of: Fit = "ca") -> np.ndarray:
    """Per-residue values of per-atom fluctuations.

    Args:
      structure: the atoms.
      atom_values: (N,) Å; NaN for no value.
      of: `"ca"`, the value of the alpha carbon, or `"heavy"`, the mean over heavy atoms.

    Returns:
      (R,) float32 Å, NaN for residues without such atoms.
    """
    values = np.asarray(atom_values, np.float64)
    chosen = _alpha(structure) if of == "ca" else ~np.isin(structure.element, ("H", "D"))
    chosen = chosen & np.isfinite(values)
    rows = structure.atom_residue[chosen]
    count = np.bincount(rows, minlength=structure.n_residues)
    total = np.bincount(rows, values[chosen], minlength=structure.n_residues)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def fit_mask(structure: Structure, fit: Fit | np.ndarray) -> np.ndarray:
    """(N,) bool, the atoms that `fit` stands for; raises `InputError` for a mask of another length."""
    if not isinstance(fit, str):
        mask = np.asarray(fit, bool)
        if mask.shape != (structure.n_atoms,):
            raise InputError(f"{structure.name}: a mask of shape {mask.shape} for {structure.n_atoms} atoms")
        return mask
    if fit == "ca":
        return _alpha(structure)
    if fit != "heavy":
        raise InputError(f"fit {fit!r}: choose 'heavy', 'ca' or a mask of atoms")
    heavy = ~np.isin(structure.element, ("H", "D"))
    protein = heavy & (structure.letters != "X")[structure.atom_residue]
    if protein.any():
        return protein
    return heavy & ~np.isin(structure.res_name, sorted(residues.WATER))[structure.atom_residue]


def _alpha(structure: Structure) -> np.ndarray:
    calcium = (structure.element == "CA") | (structure.res_name == "CA")[structure.atom_residue]
    return (structure.atom_name == "CA") & ~calcium


def _rotations(points: np.ndarray, rounds: int) -> jax.Array:
    """(F, 3, 3) rotations that bring centred frames onto their mean structure."""
    step = -(-points.shape[1] // _MOST_ATOMS)
    return _mean_fit(points[:, ::step], rounds)


@jax.jit
def _mean_fit(frames, rounds):
    def turn(mean):
        return jax.vmap(lambda frame: rigid.best_rotation(frame.T @ mean))(frames)

    def improve(_, mean):
        turned = jax.vmap(lambda frame, rotation: frame @ rotation.T)(frames, turn(mean))
        return turned.mean(0)

    return turn(jax.lax.fori_loop(0, rounds, improve, frames[0]))


def _spread(frames: np.ndarray, rotations: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(N,) root mean squared distance from the mean, in two passes and float64 sums, without a copy of all frames."""
    rotations = rotations.astype(np.float32)
    mean = np.zeros(frames.shape[1:])
    for frame, rotation in zip(frames, rotations, strict=True):
        mean += frame @ rotation.T
    mean /= len(frames)
    square = np.zeros(frames.shape[1])
    for frame, rotation in zip(frames, rotations, strict=True):
        square += np.square(frame @ rotation.T - mean).sum(1)
    return np.sqrt(square / len(frames)).astype(np.float32)


def _check_whole(trajectory: Trajectory) -> None:
    """Neighbours in the chain must stay together: else a periodic image was taken for a motion."""
    structure = trajectory.structure
    rows = np.flatnonzero(_alpha(structure))
    a, b = rows[:-1], rows[1:]
    chain = structure.res_chain[structure.atom_residue]
    joined = (np.linalg.norm(structure.xyz[a] - structure.xyz[b], axis=1) < _BOND) & (chain[a] == chain[b])
    a, b = a[joined], b[joined]
    if len(a) == 0:
        return
    for number, frame in enumerate(trajectory.frames):
        far = np.linalg.norm(frame[a] - frame[b], axis=1) > _BROKEN
        if far.any():
            at = structure.atom_residue[a[np.argmax(far)]]
            name = str(structure.chain_id[structure.res_chain[at]])
            raise InputError(
                f"{structure.name}: chain {name!r} is torn apart after residue "
                f"{structure.resid[at]} in frame {number + 1}; make molecules whole (trjconv -pbc mol, "
                "cpptraj autoimage)"
            )


def on_structure(structure: Structure, trajectory: Trajectory, fit: Fit | np.ndarray = "heavy") -> np.ndarray:
    """RMSF of a model's atoms from a trajectory of the same molecule.

    Atoms are matched by chain, residue number, insertion code and atom name; chain names do not count where both have
    one chain of protein. Of atom names, those that force fields give to the ends of a chain and to isoleucine's delta
    carbon are known. What other residues are named (HSD, HIE) does not matter, their type does.

    Args:
      structure: the model.
      trajectory: its motion; it may lack atoms of the model (hydrogens, ligands) or have more.
      fit: as in `atom_rmsf`.

    Returns:
      (N,) float32 in Å, NaN for atoms that the trajectory lacks.

    Raises:
      InputError: no atom in common, less than half of the model's protein residues in common, or other types of
        residues at the same numbers.
    """
    other = trajectory.structure
    single = protein_chains(structure) == protein_chains(other) == 1
    keys = residue_keys(other, single)
    types = dict(zip(reversed(keys), reversed(other.letters.tolist()), strict=True))
    check_types(structure, [types.get(key, "X") for key in residue_keys(structure, single)], other.name)
    values = dict(zip(_names(other, single), atom_rmsf(trajectory, fit).tolist(), strict=True))
    found = np.array([values.get(name, np.nan) for name in _names(structure, single)], np.float32)
    if not np.isfinite(found).any():
        raise InputError(f"{structure.name}: no atom in common with {other.name}; are chains and numbers the same?")
    protein = protein_residues(structure)
    have = np.zeros(structure.n_residues, bool)
    have[structure.atom_residue[np.isfinite(found)]] = True
    report_coverage(structure.name, int((have & protein).sum()), int(protein.sum()), other.name, least=0.5)
    return found


def protein_residues(structure: Structure) -> np.ndarray:
    """(R,) bool: residues named as an amino acid, or with its backbone (N, CA, C)."""
    backbone = np.ones(structure.n_residues, bool)
    for name in ("N", "CA", "C"):
        backbone &= np.bincount(structure.atom_residue[structure.atom_name == name], minlength=len(backbone)) > 0
    return backbone | (structure.letters != "X")


def protein_chains(structure: Structure) -> int:
    """Number of chains with a protein residue."""
    return len(np.unique(structure.res_chain[protein_residues(structure)]))


def residue_keys(structure: Structure, single: bool = False) -> list[Key]:
    """(protein or not, chain, number, insertion code) of every residue.

    Waters and ligands may carry the numbers of residues, in files without chain names even in one chain.

    Args:
      structure: the residues.
      single: leaves out the chain's name of protein residues, for molecules of one such chain.
    """
    protein = protein_residues(structure)
    chain = structure.chain_id[structure.res_chain]
    chain = np.where(protein & single, "", chain)
    columns = (protein, chain, structure.resid, structure.icode)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def check_types(structure: Structure, found: list[str], source: str) -> None:
    """Residues matched by number must be of one type, or another numbering was matched.

    Args:
      structure: the model.
      found: (R,) one-letter code of what each residue was matched with; `X` for nothing or an unknown one.
      source: where those come from, for messages.

    Raises:
      InputError: more than a tenth of the residues differ. Fewer (mutations) are logged.
    """
    own, other = structure.letters, np.array(found, "U1")
    known = (own != "X") & (other != "X")
    wrong = np.flatnonzero(known & (own != other))
    if not len(wrong):
        return
    at = wrong[0]
    chain = str(structure.chain_id[structure.res_chain[at]])
    told = (
        f"{structure.name}: {len(wrong)} of {known.sum()} residues are of another type in {source}, the first at "
        f"{chain}:{structure.resid[at]}{structure.icode[at]} ({own[at]} here, {other[at]} there)"
    )
    if len(wrong) > MOST_OTHER * known.sum():
        raise InputError(f"{told}; number both files alike, or take those of one molecule")
    log.warning("%s", told)


def report_coverage(name: str, count: int, total: int, source: str, least: float = 0.0) -> None:
    """Logs how many residues have a value where some have none; raises `InputError` below the share `least`."""
    told = f"{name}: {count} of {total} protein residues have a value in {source}"
    if count < least * total:
        raise InputError(f"{told}, less than {least:.0%}; are chains and numbers the same?")
    if count < total:
        log.warning("%s", told)


def _names(structure: Structure, single: bool) -> list[tuple]:
    keys = np.fromiter(residue_keys(structure, single), object, structure.n_residues)[structure.atom_residue]
    isoleucine = (structure.letters == "I")[structure.atom_residue]
    protein = protein_residues(structure)[structure.atom_residue]
    names = np.where(isoleucine & (structure.atom_name == "CD"), "CD1", structure.atom_name)
    for usual, others in _ENDS.items():
        names = np.where(protein & np.isin(names, others), usual, names)
    return list(zip(keys, names.tolist(), strict=True))

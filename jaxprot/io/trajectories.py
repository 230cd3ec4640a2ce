"""Molecules in many places: simulation trajectories (mdtraj) and files of several models."""

import contextlib
import dataclasses
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxprot.core.errors import InputError
from jaxprot.core.structure import Structure
from jaxprot.io.outputs import atomic_path
from jaxprot.io.structures import read_structure, stem_of

log = logging.getLogger(__name__)

FORMATS = (".dcd", ".xtc", ".trr")
"""Suffixes of trajectories that hold coordinates only and need a structure beside them."""

_FRAMES = 256  # read at once


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Frames of one molecule.

    Attributes:
      structure: the atoms, with the coordinates of the structure file (or of the first model).
      frames: (F, N, 3) float32 coordinates in Å, in the order of the structure's atoms.
    """

    structure: Structure
    frames: np.ndarray

    def __post_init__(self):
        if self.frames.ndim != 3 or self.frames.shape[1:] != (self.structure.n_atoms, 3):
            raise ValueError(
                f"{self.structure.name}: frames of shape {self.frames.shape}, expected (F, {self.structure.n_atoms}, 3)"
            )

    def __repr__(self) -> str:
        return f"Trajectory({self.structure.name!r}, {self.n_frames} frames of {self.structure.n_atoms} atoms)"

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def select(self, atom_mask: np.ndarray) -> "Trajectory":
        """Keeps the marked atoms; (N,) bool."""
        return Trajectory(self.structure.select(atom_mask), self.frames[:, np.asarray(atom_mask, bool)])


def read_trajectory(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    topology: str | os.PathLike | None = None,
    *,
    stride: int = 1,
    heavy: bool = False,
    name: str | None = None,
) -> Trajectory:
    """Reads a trajectory, or all models of a PDB or mmCIF file.

    Args:
      path: DCD, XTC or TRR file, or several that follow each other (together with `topology`); or one PDB or mmCIF file
        of several models (without).
      topology: PDB or mmCIF file of the same atoms in the same order.
      stride: takes every n-th frame.
      heavy: drops hydrogens while reading, which halves the memory.
      name: name of the result; default the stem of the (first) file.

    Returns:
      The frames. Periodic images are as in the file: molecules must be whole.

    Raises:
      InputError: no such file, an unknown format, damaged, no frames, coordinates that are not finite, another number
        of atoms than the topology, or mdtraj not installed (extra `trajectories`).
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise InputError("no trajectory given")
    if stride < 1:
        raise InputError(f"{os.fspath(paths[0])}: a stride of {stride}; it must be 1 or more")
    bare = [Path(one).suffix.lower() in FORMATS for one in paths]
    if not all(bare):
        other = paths[bare.index(False)]
        if topology is None and len(paths) == 1:
            return _from_models(other, stride, heavy, name)
        raise InputError(
            f"{os.fspath(other)}: unknown kind of trajectory; give {', '.join(FORMATS)} files with a topology, or one "
            "PDB or mmCIF file of several models without"
        )
    if topology is None:
        raise InputError(f"{os.fspath(paths[0])}: needs a topology, a PDB or mmCIF file of the same atoms")
    structure, order = _in_file_order(topology)
    keep = np.ones(structure.n_atoms, bool)
    if heavy:
        keep = ~np.isin(structure.element, ("H", "D"))
        structure = structure.select(keep)
    parts: list[np.ndarray] = []
    skip = 0
    for one in paths:
        if not Path(one).is_file():
            raise InputError(f"{os.fspath(one)}: no such file")
        for chunk in _chunks(one, len(order), os.fspath(topology)):
            taken = chunk[skip::stride]
            skip = (skip - len(chunk)) % stride
            parts.append(taken[:, order[keep]])
    frames = np.concatenate(parts) if parts else np.zeros((0, structure.n_atoms, 3), np.float32)
    source = os.fspath(paths[0])
    if len(frames) == 0:
        raise InputError(f"{source}: no frames; is the file complete?")
    _check_finite(frames, source)
    return Trajectory(dataclasses.replace(structure, name=name or Path(paths[0]).stem), frames)


def check_xtc() -> None:
    """Refuses XTC files where they cannot be written, before anything is computed for them.

    Raises:
      InputError: mdtraj is not installed (extra `trajectories`).
    """
    _opener(".xtc")


def write_xtc(path: str | os.PathLike, frames: np.ndarray, times: np.ndarray, steps: np.ndarray | None = None) -> None:
    """Writes an XTC file (GROMACS; coordinates to 0.01 Å), whole or not at all.

    Args:
      path: file.
      frames: (F, N, 3) Å.
      times: (F,) ps.
      steps: (F,) numbers of the steps; those of the frames if None.

    Raises:
      InputError: mdtraj is not installed (extra `trajectories`).
    """
    opened = _opener(".xtc")
    numbers = np.arange(len(frames)) if steps is None else steps
    with atomic_path(path) as temporary, opened(str(temporary), "w", force_overwrite=True) as file:
        for start in range(0, len(frames), _FRAMES):
            part = slice(start, start + _FRAMES)
            nanometres = np.asarray(frames[part], np.float32) / np.float32(10)
            file.write(nanometres, np.asarray(times[part], np.float32), np.asarray(numbers[part], np.int32))


def from_models(structure: Structure) -> Trajectory:
    """The models of a structure as frames.

    Atoms are matched by chain, residue number, insertion code, residue name, atom name and alternate location; those
    that a model lacks are left out (and logged).

    Raises:
      InputError: fewer than two models, or no atom in all of them.
    """
    numbers = np.unique(structure.model)
    if len(numbers) < 2:
        raise InputError(
            f"{structure.name}: one model only; fluctuations need a file of several models or a trajectory"
        )
    models = [structure.select(structure.model == number) for number in numbers]
    first = models[0]
    keys = [_keys(model) for model in models]
    if all(key == keys[0] for key in keys[1:]):
        frames = np.stack([model.xyz for model in models])
        return Trajectory(first, frames)
    common = set(keys[0]).intersection(*keys[1:])
    mask = np.array([key in common for key in keys[0]])
    if not mask.any():
        raise InputError(f"{structure.name}: the models have no atom in common; are they of one molecule?")
    log.warning("%s: %d atoms are not in every model and are left out", structure.name, int((~mask).sum()))
    rows = [dict(zip(reversed(key), reversed(range(len(key))), strict=True)) for key in keys]
    wanted = [key for key, kept in zip(keys[0], mask, strict=True) if kept]
    frames = np.stack([model.xyz[[row[key] for key in wanted]] for model, row in zip(models, rows, strict=True)])
    return Trajectory(first.select(mask), frames)


def _from_models(path: str | os.PathLike, stride: int, heavy: bool, name: str | None) -> Trajectory:
    structure = read_structure(path, models="all", name=name or stem_of(path))
    if heavy:
        structure = structure.select(~np.isin(structure.element, ("H", "D")))
    try:
        trajectory = from_models(structure)
    except InputError as error:
        raise InputError(str(error).replace(structure.name, os.fspath(path), 1)) from error
    frames = trajectory.frames[::stride]
    _check_finite(frames, os.fspath(path))
    return Trajectory(trajectory.structure, frames)


def _keys(model: Structure) -> list[tuple]:
    residue = model.atom_residue
    columns = (
        model.atom_chain_id, model.resid[residue], model.icode[residue], model.res_name[residue], model.atom_name,
        model.altloc,
    )  # fmt: skip
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _in_file_order(topology: str | os.PathLike) -> tuple[Structure, np.ndarray]:
    """First model of the topology, and for each of its atoms the place that it has in the file.

    `read_structure` brings the parts of a chain together (ligands and waters at the end of a file); a trajectory has
    its atoms in the order of the file.
    """
    import gemmi

    structure = read_structure(topology)
    flat = gemmi.FlatStructure(
        gemmi.read_structure(os.fspath(topology), merge_chain_parts=False, format=gemmi.CoorFormat.Detect)
    )
    first = np.asarray(flat.model_num) == np.asarray(flat.model_num)[0]
    chain = np.ascontiguousarray(flat.chain_ids).view(np.int64).reshape(-1)[first]
    _, at, inverse = np.unique(chain, return_index=True, return_inverse=True)
    order = np.argsort(at[inverse.reshape(-1)], kind="stable")  # chains in the order in which they first come up
    plain = np.asarray(flat.pos, np.float32)[first]
    if plain.shape != structure.xyz.shape or not np.array_equal(plain[order], structure.xyz, equal_nan=True):
        raise InputError(f"{os.fspath(topology)}: the order of its atoms is not clear; write each chain in one piece")
    return structure, order


def _chunks(path: str | os.PathLike, n_atoms: int, topology: str) -> Iterator[np.ndarray]:
    """(f, n_atoms, 3) float32 in Å, some hundred frames at a time."""
    source = os.fspath(path)
    opened = _opener(source)
    if source.lower().endswith(".xtc"):
        _check_xtc(source, n_atoms, topology)
    found = 0
    try:
        with _quiet():
            file = opened(source)
        with file:
            factor = np.float32(10.0 if file.distance_unit == "nanometers" else 1.0)
            while True:
                content = file.read(n_frames=_FRAMES)
                xyz = np.asarray(content[0] if isinstance(content, tuple) else content, np.float32)
                if len(xyz) == 0:
                    break
                if xyz.shape[1] != n_atoms:
                    raise _other_number(source, xyz.shape[1], n_atoms, topology)
                found += len(xyz)
                with np.errstate(over="ignore"):  # told by what is not finite later
                    xyz = xyz * factor
                yield xyz
    except InputError:
        raise
    except Exception as error:  # mdtraj raises OSError, RuntimeError, ValueError, ... on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: cannot be read as a trajectory ({reason}); is the file complete?") from error

    promised = _promised(source)
    if promised is not None and promised != found:
        log.warning("%s: the header promises %d frames, %d are there; truncated?", source, promised, found)


def _other_number(source: str, found: int, n_atoms: int, topology: str) -> InputError:
    return InputError(
        f"{source}: {found} atoms, but {topology} has {n_atoms}; give the structure that the trajectory was "
        "written with"
    )


def _check_xtc(source: str, n_atoms: int, topology: str) -> None:
    """Walks over the frames of an XTC file, because the reader's C code trusts their headers and ends the process.

    A bit that is wrong inside the packed coordinates is the reader's to find.

    Raises:
      InputError: a frame whose header is not one.
    """
    size = os.path.getsize(source)
    at = frame = 0
    with open(source, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(96)
            words = np.frombuffer(head[: len(head) // 4 * 4], ">i4")
            good = len(words) >= 14 and words[0] in (1995, 2023) and 0 < words[1] == words[13]
            if good and frame == 0 and words[1] != n_atoms:
                raise _other_number(source, int(words[1]), n_atoms, topology)
            good = good and words[1] == n_atoms
            if good and words[1] <= 9:  # so few atoms are not packed
                at += 56 + 12 * int(words[1])
            elif good:
                wide = words[0] == 2023
                good = len(words) >= 23 + wide
                if good:
                    low, high = words[15:18].astype(np.int64), words[18:21].astype(np.int64)
                    packed = int(words[22]) if not wide else int.from_bytes(head[88:96], "big")
                    precision = float(np.frombuffer(head[56:60], ">f4")[0])
                    good = bool((low <= high).all()) and 9 <= words[21] < 73 and precision > 0 and packed >= 0
                    at += (96 if wide else 92) + (packed + 3) // 4 * 4
            if not good or at > size:
                raise InputError(
                    f"{source}: cannot be read as a trajectory (frame {frame + 1} is damaged or cut off); is the file "
                    "complete?"
                )
            frame += 1


def _promised(source: str) -> int | None:
    """Number of frames in the header of a DCD file (0 where the writer did not know it at the start)."""
    if not source.lower().endswith(".dcd"):
        return None
    with open(source, "rb") as file:
        head = file.read(12)
    order: Literal["little", "big"] = "little" if head[:1] == b"T" else "big"  # the first record has 84 bytes, a `T`
    return int.from_bytes(head[8:12], order) or None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the C code of a reader prints about the file at opening goes nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _opener(source: str) -> Any:
    try:
        formats = importlib.import_module("mdtraj.formats")
    except ImportError as error:
        raise InputError(
            f"{source}: such trajectories need mdtraj, which is not installed; pip install 'jaxprot[trajectories]'"
        ) from error
    return {
        ".dcd": formats.DCDTrajectoryFile, ".xtc": formats.XTCTrajectoryFile, ".trr": formats.TRRTrajectoryFile,
    }[(Path(source).suffix or source).lower()]  # fmt: skip


def _check_finite(frames: np.ndarray, source: str) -> None:
    bad = np.flatnonzero(~np.isfinite(frames).all((1, 2)))
    if len(bad):
        raise InputError(f"{source}: frame {bad[0] + 1} has coordinates that are not finite; leave such frames out")

"""Training of ViSNet: labelled conformations of molecules in, energies and forces out."""

from __future__ import annotations

import dataclasses
import functools
import io
import lzma
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprot.core.errors import InputError
from jaxprot.core.geometry import dihedrals
from jaxprot.core.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_MOL
from jaxprot.train.data import Batch, BucketBatches
from jaxprot.train.task import Mean
from jaxprot.visnet import weights as stored
from jaxprot.visnet.config import ViSNetConfig
from jaxprot.visnet.model import ViSNet
from jaxprot.visnet.neighbours import Molecules
from jaxprot.weights import registry

_CELL = 30  # degrees of φ and ψ that are held back together
_SINGLE = 1 << 40  # numbers from here on belong to conformations, those below to cells
_STEP = 4  # atoms that padded sizes are multiples of
_EPS = 1e-12


class Snapshots(NamedTuple):
    """Conformations of one molecule.

    Attributes:
      name: of the molecule.
      z: (A,) atomic numbers.
      positions: (n, A, 3) float32 Å.
      energy: (n,) float64 eV.
      forces: (n, A, 3) float32 eV/Å.
      group: (n,) integers; what shares one is alike and is held back together.
    """

    name: str
    z: np.ndarray
    positions: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    group: np.ndarray


def read_snapshots(path: str | os.PathLike, units: Literal["ev", "hartree"] = "ev") -> Snapshots:
    """Labelled conformations of a file.

    Args:
      path: `.npz`, or `.npz.xz`, with `Z` (A,), `R` (n, A, 3) in Å, `E` (n,) and `F` (n, A, 3); optionally
        `atom_name` and `residue_name` (A,), which let conformations be told apart by their backbone. The name of the
        molecule is what stands before the first `.` or `_` of the file's.
      units: `ev` for eV and forces in eV/Å; `hartree` for Hartree and gradients in Hartree/bohr, as in AIMD-Chig.

    Raises:
      InputError: missing, damaged, or without these arrays.
    """
    path = pathlib.Path(path)
    try:
        raw = path.read_bytes()
        with np.load(io.BytesIO(lzma.decompress(raw) if path.suffix == ".xz" else raw), allow_pickle=False) as z:
            number, positions, energy, forces = (np.asarray(z[name]) for name in "ZREF")
            names = [np.asarray(z[key]).astype(str) if key in z else None for key in ("atom_name", "residue_name")]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: no labelled conformations (Z, R, E and F of an .npz file): {error}") from error
    n, atoms = len(energy), len(number)
    if number.ndim != 1 or positions.shape != (n, atoms, 3) or forces.shape != positions.shape or energy.ndim != 1:
        raise InputError(
            f"{path}: Z {number.shape}, R {positions.shape}, E {energy.shape}, F {forces.shape}; expected (A,), "
            "(n, A, 3), (n,) and (n, A, 3)"
        )
    for name, array in (("R", positions), ("E", energy), ("F", forces)):
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} of conformation {int(np.argwhere(~np.isfinite(array))[0][0])} not finite")
    energy, forces = np.asarray(energy, np.float64), np.asarray(forces, np.float32)
    if units == "hartree":
        energy, forces = energy * HARTREE_EV, np.asarray(-forces * (HARTREE_EV / BOHR_ANGSTROM), np.float32)
    return Snapshots(
        path.name.partition(".")[0].partition("_")[0],
        number.astype(np.int32),
        np.asarray(positions, np.float32),
        energy,
        forces,
        _cells(positions, *names),
    )


def _cells(positions: np.ndarray, atom_name: np.ndarray | None, residue_name: np.ndarray | None) -> np.ndarray:
    """Number of the cell of φ and ψ of each conformation; its own number where there is no backbone to go by.

    Numbers of its own come from the coordinates, so that they do not change with the company.
    """
    if atom_name is None or residue_name is None:
        return _alone(positions)

    def at(name: str, where: np.ndarray) -> np.ndarray:
        return np.flatnonzero((atom_name == name) & where)

    before, after = residue_name == "ACE", residue_name == "NME"
    own = ~before & ~after
    found = [at("C", before), at("N", own), at("CA", own), at("C", own), at("N", after)]
    if any(len(one) != 1 for one in found):
        return _alone(positions)
    chain = np.asarray(positions, np.float64)[:, np.concatenate(found)]
    phi, psi = dihedrals(chain[:, :4]), dihedrals(chain[:, 1:])
    side = 360 // _CELL
    return np.int64((phi + 180) // _CELL) % side * side + np.int64((psi + 180) // _CELL) % side


def _alone(positions: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(positions, np.float32)
    return _SINGLE + np.array([zlib.crc32(row.tobytes()) for row in rows], np.int64)


def element_references(sets: Sequence[Snapshots], max_z: int = 100) -> np.ndarray:
    """Energy of each element, (max_z,) float64 eV, that explains the mean energies of molecules best.

    By least squares over the molecules, each counted once; of elements that no molecule has, 0. Where molecules are too
    few to tell elements apart, the shortest solution is taken.
    """
    counts = np.stack([np.bincount(one.z, minlength=max_z) for one in sets]).astype(np.float64)
    means = np.array([one.energy.mean() for one in sets])
    present = counts.any(0)
    out = np.zeros(max_z)
    out[present] = np.linalg.lstsq(counts[:, present], means, rcond=1e-9)[0]
    return out


class Labelled(NamedTuple):
    """What a step reads: padded molecules and their labels.

    Attributes:
      z: (b, n) atomic numbers, 0 for padding.
      positions: (b, n, 3) Å.
      energy: (b,) eV less references.
      forces: (b, n, 3) eV/Å.
    """

    z: Any
    positions: Any
    energy: Any
    forces: Any


def _padded(atoms: int) -> int:
    return -(-atoms // _STEP) * _STEP


@dataclasses.dataclass(frozen=True)
class EnergyForceTask:
    """Energies and forces of molecules.

    A batch holds molecules of like size, so that every pair of its atoms is one of a molecule: of about `pairs` pairs
    of atoms, however large the molecules are.

    Attributes:
      data: files (see `read_snapshots`), or folders of them.
      model: sizes of the network.
      pairs: of a batch.
      most: molecules of a batch at most: N-methylacetamide, the overlap of all units, is much smaller than they are.
      units: of the files.
      exclude: names of molecules that are left out of training; they are evaluated apart (generalisation).
      held: share of the conformations that are held back and select the best weights: whole cells of 30 degrees of φ
        and ψ where the files tell the backbone, so that no neighbour in time of a held one is trained on.
      split: seed of that choice.
      evaluated: conformations of each molecule that are evaluated at most.
      loss: of forces and of energies per atom: `norm`, the length of the difference (robust to the few huge forces of
        strained conformations), or `mse`, the mean square that is published, of energies as they are.
      weights: of energies and forces; published are 0.05 and 0.95 with `mse`.
      energy_scale: factor on the gradient of the energy term; the published smoothing of that term,
        y <- s y + (1 - s) EMA(y), has this effect and no other.
      start: weights that training begins with, a file or a registered name; none begins anew. `model` must be
        theirs, and their scale is kept.
      refer: whether the energies of free elements are those of `start`, as more data of the same level of theory need,
        or are fitted to the data, as another level needs.
      monitor: minus the mean absolute error of forces in kcal/mol/Å, of energies per atom a tenth counted.
    """

    data: tuple[str, ...]
    model: ViSNetConfig = ViSNetConfig()
    pairs: int = 16384
    most: int = 16
    units: Literal["ev", "hartree"] = "ev"
    exclude: tuple[str, ...] = ()
    held: float = 0.1
    split: int = 0
    evaluated: int = 64
    loss: Literal["norm", "mse"] = "norm"
    weights: tuple[float, float] = (1.0, 1.0)
    energy_scale: float = 1.0
    start: str | None = None
    refer: Literal["start", "data"] = "start"
    monitor: str = "neg_error"

    def __post_init__(self):
        if self.loss not in ("norm", "mse"):
            raise ValueError(f"loss must be norm or mse, got {self.loss!r}")
        if self.refer not in ("start", "data"):
            raise ValueError(f"refer must be start or data, got {self.refer!r}")
        if not 0 < self.held < 1:
            raise ValueError(f"held must be between 0 and 1, got {self.held}")

    def files(self) -> tuple[str, ...]:
        """Data files."""
        out: list[pathlib.Path] = []
        for name in self.data:
            path = pathlib.Path(name)
            out += sorted([*path.glob("*.npz"), *path.glob("*.npz.xz")]) if path.is_dir() else [path]
        if not out:
            raise InputError(f"{', '.join(self.data) or 'data'}: no .npz or .npz.xz file; name files or folders")
        return tuple(map(str, out))

    @functools.cached_property
    def sets(self) -> dict[str, Snapshots]:
        """All conformations by the name of the molecule."""
        found: dict[str, list[Snapshots]] = {}
        for file in self.files():
            one = read_snapshots(file, self.units)
            found.setdefault(one.name, []).append(one)
        return {name: _joined(parts) for name, parts in sorted(found.items())}

    def learnt(self) -> list[str] | None:
        """Names of the molecules that are trained on, upper case, those of `start` among them; what a header tells.

        None if `start` does not tell what it learnt from.
        """
        names = {pathlib.Path(file).name.partition(".")[0].partition("_")[0] for file in self.files()}
        found = {name.upper() for name in names - set(self.exclude)}
        if self.start is not None:
            before = stored.learnt(registry.resolve(self.start, "ai2bmd")[0])
            if before is None:
                return None
            found |= set(before)
        return sorted(found)

    def header(self) -> dict[str, Any]:
        """Of exported weights: sizes, and the molecules that they learnt from."""
        return {"config": dataclasses.asdict(self.model), "units": self.learnt()}

    @functools.cached_property
    def references(self) -> np.ndarray:
        """(max_z,) energies of elements in eV, from the molecules that are trained on."""
        used = [one for name, one in self.sets.items() if name not in self.exclude]
        missing = sorted(set(self.exclude) - self.sets.keys())
        if missing or not used:
            raise InputError(f"exclude {missing or self.exclude}: the molecules are {', '.join(self.sets)}")
        largest = max(int(one.z.max()) for one in self.sets.values())
        if largest >= self.model.max_z:
            raise InputError(f"atomic number {largest}, and the network knows those below {self.model.max_z}")
        if self.start is not None and self.refer == "start" and self.model.prior:
            return np.asarray(self._started()[1].atomref[...], np.float64)
        return element_references(used, self.model.max_z)

    def _started(self) -> tuple[ViSNetConfig, ViSNet]:
        """Sizes and network of `start`."""
        cfg, tensors = stored.read(registry.resolve(str(self.start), "ai2bmd")[0])
        return cfg, stored.assemble(cfg, tensors)

    @functools.cached_property
    def scale(self) -> float:
        """Root mean square of a force component in eV/Å: what an atom's output of 1 stands for (in eV)."""
        parts = [one.forces for name, one in self.sets.items() if name not in self.exclude]
        return float(np.sqrt(sum(np.sum(p.astype(np.float64) ** 2) for p in parts) / sum(p.size for p in parts)))

    @functools.cached_property
    def _rows(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Conformations of each molecule to train on, and those held back."""
        out = {}
        for name, one in self.sets.items():
            groups = np.unique(one.group)
            rng = np.random.default_rng([self.split, zlib.crc32(name.encode())])
            count = max(1, round(self.held * len(groups)))
            if groups[0] < _SINGLE:
                chosen = rng.permutation(groups)[:count]
            else:  # each by its own number, so that data that come later leave the choice as it is
                marks = np.array([zlib.crc32(f"{self.split} {name} {group}".encode()) for group in groups])
                chosen = groups[marks < self.held * 2**32]
                chosen = groups[np.argsort(marks)[:1]] if not 0 < len(chosen) < len(groups) else chosen
            back = np.isin(one.group, chosen)
            out[name] = np.flatnonzero(~back), np.flatnonzero(back)
        return out

    def held_back(self, name: str) -> np.ndarray:
        """Conformations of a molecule that are never trained on; all of one that is excluded."""
        return np.arange(len(self.sets[name].energy)) if name in self.exclude else self._rows[name][1]

    @functools.cached_property
    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) molecule and conformation of each training example, and (n,) its number of atoms."""
        parts, atoms = [], []
        for number, (name, one) in enumerate(self.sets.items()):
            rows = np.zeros(0, int) if name in self.exclude else self._rows[name][0]
            parts.append(np.stack([np.full(len(rows), number), rows], 1))
            atoms.append(np.full(len(rows), len(one.z)))
        return np.concatenate(parts), np.concatenate(atoms)

    @functools.cached_property
    def _batches(self) -> BucketBatches:
        return BucketBatches(self.examples[1], self.pairs, bucket=_padded, cost=np.square, most=self.most)

    def build(self, key: PRNGKeyArray) -> ViSNet:
        """A network with the references and the scale of the data, or what training starts with."""
        if self.start is not None:
            cfg, net = self._started()
            if cfg != self.model:
                raise InputError(f"{self.start}: its sizes are {cfg}, the configuration's are {self.model}")
            if self.model.prior:
                net.atomref[...] = jnp.asarray(self.references, jnp.float32)
            return net
        net = ViSNet(self.model, rngs=nnx.Rngs(key))
        net.std[...] = jnp.full(1, self.scale, jnp.float32)
        if self.model.prior:
            net.atomref[...] = jnp.asarray(self.references, jnp.float32)
        return net

    def batches(self, step: int, seed: int) -> Batch:
        """Molecules of like size."""
        return self._batches(step, seed)

    def load(self, shape: Hashable, members: np.ndarray) -> Labelled:
        """Padded molecules by the rows of `examples`."""
        names = list(self.sets)
        chosen = self.examples[0][members]
        return self._labelled([(names[molecule], row) for molecule, row in chosen], int(shape))  # type: ignore[call-overload]

    def _labelled(self, chosen: Sequence[tuple[str, int]], size: int) -> Labelled:
        z = np.zeros((len(chosen), size), np.int32)
        positions, forces = (np.zeros((len(chosen), size, 3), np.float32) for _ in range(2))
        energy = np.zeros(len(chosen), np.float32)
        for place, (name, row) in enumerate(chosen):
            one = self.sets[name]
            atoms = len(one.z)
            z[place, :atoms], positions[place, :atoms] = one.z, one.positions[row]
            forces[place, :atoms] = one.forces[row]
            energy[place] = one.energy[row] - self.references[one.z].sum()
        return Labelled(z, positions, energy, forces)

    def batch_loss(
        self, model: ViSNet, batch: Labelled, keys: PRNGKeyArray, weight: Float[Array, "b"], axis: str | None
    ) -> dict[str, Mean]:
        """Terms `energy` and `forces`; `weight` is 0 for molecules that only fill the batch."""
        energy, forces = predicted(model, Molecules(batch.z, batch.positions))
        real = (batch.z > 0) * weight[:, None]
        atoms = jnp.sum(batch.z > 0, -1)
        wrong, off = energy - batch.energy, forces - batch.forces
        squared = jnp.sum(off**2, -1)
        if self.loss == "mse":
            terms = wrong**2, squared / 3
        else:
            terms = jnp.abs(wrong) / atoms, jnp.sqrt(squared + _EPS)
        first, second = self.weights
        return {
            "energy": Mean(jnp.sum(terms[0] * weight), jnp.sum(weight), first * self.energy_scale),
            "forces": Mean(jnp.sum(terms[1] * real), jnp.sum(real), second),
        }

    def evaluator(self, graphdef: Any) -> Callable[[Any], dict[str, float]]:
        """Mean absolute errors of held-back conformations; see `errors`."""

        def evaluate(variables: Any) -> dict[str, float]:
            found = self.errors(graphdef, variables, self.evaluated)
            kept = [value for name, value in found.items() if name not in self.exclude]
            energy, forces = (float(np.mean(column)) for column in zip(*kept, strict=True))
            out = {"neg_error": -(forces + 0.1 * energy), "energy_kcal_mol_atom": energy, "forces_kcal_mol": forces}
            apart = [found[name] for name in self.exclude]
            if apart:
                energy, forces = (float(np.mean(column)) for column in zip(*apart, strict=True))
                out |= {"excluded_energy_kcal_mol_atom": energy, "excluded_forces_kcal_mol": forces}
            return out

        return evaluate

    def errors(self, graphdef: Any, variables: Any, most: int | None = None) -> dict[str, tuple[float, float]]:
        """Mean absolute errors on what is held back, by molecule.

        Args:
          graphdef: of the network.
          variables: of it.
          most: conformations of each molecule, evenly chosen; None for all.

        Returns:
          Energy in kcal/mol per atom, and force components in kcal/mol/Å. Of molecules that are left out of training
          all conformations count as held back.
        """
        out = {}
        for name, one in self.sets.items():
            rows = np.arange(len(one.energy)) if name in self.exclude else self._rows[name][1]
            if most is not None and len(rows) > most:
                rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
            size = max(1, round(self.pairs / _padded(len(one.z)) ** 2))
            energies, forces = [], []
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                batch = self._labelled([(name, row) for row in np.resize(part, size)], _padded(len(one.z)))
                energy, force = self._evaluate(graphdef, variables, Molecules(batch.z, batch.positions))
                energies.append((np.asarray(energy) - batch.energy)[: len(part)])
                forces.append((np.asarray(force) - batch.forces)[: len(part), : len(one.z)])
            wrong, off = np.concatenate(energies), np.concatenate(forces)
            out[name] = float(np.abs(wrong).mean() / len(one.z) / KCAL_MOL), float(np.abs(off).mean() / KCAL_MOL)
        return out

    @functools.cached_property
    def _evaluate(self) -> Any:
        return jax.jit(lambda graphdef, variables, molecules: predicted(nnx.merge(graphdef, variables), molecules),
                       static_argnums=0)  # fmt: skip


def predicted(model: ViSNet, molecules: Molecules) -> tuple[Float[Array, "b"], Float[Array, "b n 3"]]:
    """Energies without references (eV) and forces (eV/Å) of a network; differentiable by its weights."""

    def total(positions: Array) -> tuple[Array, Array]:
        out = model(molecules._replace(positions=positions))
        return jnp.sum(out), out

    gradient, energy = jax.grad(total, has_aux=True)(molecules.positions)
    return energy, -gradient


def _joined(parts: Sequence[Snapshots]) -> Snapshots:
    first = parts[0]
    if any(not np.array_equal(first.z, other.z) for other in parts[1:]):
        raise InputError(f"{first.name}: several files, with other atoms or another order of atoms")
    joined = (np.concatenate([getattr(one, field) for one in parts]) for field in Snapshots._fields[2:])
    return Snapshots(first.name, first.z, *joined)
